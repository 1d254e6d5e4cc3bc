"""Data frames that print as finished tables: heading, all columns in 80 characters, notes.

A result stays a data frame to work with; what is cut out of it or computed from it is a plain one.
What belongs to a table beside its cells is in `attrs`, which pandas keeps and pickles:

heading : what the table is.
formulas : the models, by the label of their row.
note, notes : lines below; `notes` by the label of a row, or a list.
blank : by column, labels of the rows in which it has nothing to say (the first of several models
    has no test); a number that is missing there prints as a blank, elsewhere as NaN.
absent : columns in which every missing number prints as a blank; a column of these alone does not
    print.
decimals : by column, where it is known how many are of use.
labels : columns that name the rows, numbers too; the index then does not print.
uncounted : the index only counts the rows, and does not print.
hidden : columns that repeat what the label of the row says, and do not print.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeGuard

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed, shown
from mixlm_sparse.common.errors import UnknownArgumentError, UnknownKeyError
from mixlm_sparse.common.keywords import answering_methods
from mixlm_sparse.common.layout import (
    WIDTH,
    Column,
    Finished,
    as_html,
    as_latex,
    as_markdown,
    as_text,
)
from mixlm_sparse.common.numbers import format_estimates, format_numbers, is_estimate
from mixlm_sparse.common.text import as_written

P = ParamSpec("P")

ENDS = 10  # rows shown at each end of a table that is longer than pandas shows
MAX_LABELS = 8  # rows that one note names
NOTES = ("note", "reason")  # columns of text that print below the table


class PrintsAsTable:
    """A result that prints as the table of `_table()`, in a terminal, a notebook and documents."""

    __slots__ = ()
    _entry: ClassVar[str] = ".to_frame()[{key}], or .to_frame().loc[{key}] for a row"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        answering_methods(cls)

    def _table(self) -> ResultTable:
        raise NotImplementedError

    if not TYPE_CHECKING:  # a misspelled name is an error for type checkers

        def __call__(self, *args: object, **options: object) -> Any:
            raise UnknownArgumentError(
                f"a {type(self).__name__} is a value, written without parentheses; what it can do "
                f"are its methods, such as .to_frame()"
            )

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(_missing(self, name))

        def __getitem__(self, key: object) -> Any:
            raise UnknownArgumentError(
                f"a {type(self).__name__} is no data frame, but has one: write "
                + self._entry.format(key=shown(key))
            )

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """Return the table in HTML, as a notebook shows it.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.influence("Subject").to_html()[:6]
        '<div c'
        """
        return str(self._table().to_html())

    def to_latex(self) -> str:
        """Return the table in LaTeX; it needs the package booktabs."""
        return str(self._table().to_latex())

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        return str(self._table().to_markdown())


def _missing(result: object, name: str) -> str:
    """Return the message for a name that a result does not have."""
    fact = f"{type(result).__name__!r} object has no attribute {name!r}"
    if name.startswith("_"):
        return fact
    what = f".{name}" if hasattr(pd.DataFrame, name) else ""
    return f"{fact}: its data frame is .to_frame(){what}"


def _is_number(values: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def _is_tuple(name: object) -> TypeGuard[tuple[object, ...]]:
    return isinstance(name, tuple)


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value)


def _written(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(
        "" if v is None or v is pd.NA or v != v else " ".join(as_written(v).splitlines())
        for v in values
    )


def _columns(frame: pd.DataFrame, *, index: bool) -> tuple[list[Column], int]:
    """Return the columns as text, those of the index first, and how many name the rows."""
    out = []
    if index:
        for level in range(frame.index.nlevels):
            name = frame.index.names[level]
            labels = _written(frame.index.get_level_values(level))
            out.append(Column("" if name is None else str(name), labels, text=True))
    named = len(out)
    blank: Mapping[str, Sequence[Any]] = frame.attrs.get("blank", {})
    absent = set(frame.attrs.get("absent", ()))
    naming = set(frame.attrs.get("labels", ()))
    fixed: dict[str, int] = frame.attrs.get("decimals", {})
    series = [frame.iloc[:, place] for place in range(frame.shape[1])]
    together = {
        str(name): values.to_numpy(dtype=np.float64, na_value=np.nan).tolist()
        for name, values in zip(frame.columns, series, strict=True)
        if is_estimate(name) and _is_number(values)
    }
    estimates = format_estimates(together) if together else {}
    for name, values in zip(frame.columns, series, strict=True):
        head = " ".join(map(str, name)) if _is_tuple(name) else str(name)
        if not _is_number(values) or name in naming:
            out.append(Column(head, _written(values), text=True))
            continue
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        cells = estimates.get(head) or format_numbers(head, numbers.tolist())
        if name in fixed:
            cells = [f"{v:.{fixed[name]}f}" if np.isfinite(v) else c for v, c in
                     zip(numbers.tolist(), cells, strict=True)]  # fmt: skip
        if name in blank:
            silent = frame.index.isin(list(blank[name])) & np.isnan(numbers)
            cells = ["" if gone else c for gone, c in zip(silent, cells, strict=True)]
        if name in absent:
            cells = ["" if np.isnan(v) else c for v, c in zip(numbers, cells, strict=True)]
        out.append(Column(head, tuple(cells)))
    if not index:
        named = 0
        while named < len(out) - 1 and out[named].text:
            named += 1
    return out, named


class ResultTable(pd.DataFrame):
    """A data frame that prints as a finished table.

    All methods of pandas work; what they return is a plain data frame, and so is `to_frame()`.
    `print` and a notebook show heading, formulas, every column and notes; `to_markdown()`,
    `to_latex()` and `to_html()` give the same, and with arguments what pandas gives.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ResultTable:
        out = type(self)(pd.DataFrame(self, copy=True))
        out.attrs.update(copy.deepcopy(self.attrs, memo))
        return out

    if not TYPE_CHECKING:  # for type checkers it is what a data frame is

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                if name.startswith("_") or name in self._metadata:
                    raise
                said = f"the table has no {name!r}: its columns are {listed(self.columns, 12)}"
                raise AttributeError(said) from error

        def __getitem__(self, key: Any) -> Any:
            try:
                return super().__getitem__(key)
            except KeyError as error:
                row = np.isscalar(key) and key in self.index
                remedy = f"; for the row, write .loc[{shown(key)}]" if row else ""
                columns = listed(self.columns, 12)
                raise UnknownKeyError(
                    f"there is no column {shown(key)}: the table has {columns}{remedy}"
                ) from error

    def to_frame(self) -> pd.DataFrame:
        """Return a plain data frame with the same cells."""
        return pd.DataFrame(self, copy=True)

    def text(self) -> str:
        """Return what `print` shows: 80 columns, or more if pandas' `display.width` says so."""
        return as_text(_finished(self), max(WIDTH, pd.get_option("display.width") or 0))

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return as_html(_finished(self))

    def to_markdown(self, *args: Any, **options: Any) -> Any:
        """Return the table in Markdown.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> print(fit.conf_int().to_markdown())
        **95% Wald intervals by Satterthwaite's degrees of freedom**
        <BLANKLINE>
        |             |   lower |   upper |
        | ----------- | ------: | ------: |
        | (Intercept) | 237.007 | 265.804 |
        | Days        |   7.206 |  13.729 |
        """
        if args or options:
            return super().to_markdown(*args, **options)
        return as_markdown(_finished(self, short=False))

    def to_latex(self, *args: Any, **options: Any) -> Any:
        """Return the table in LaTeX; it needs the package booktabs."""
        if args or options:
            return super().to_latex(*args, **options)
        return as_latex(_finished(self, short=False))

    def to_html(self, *args: Any, **options: Any) -> Any:
        """Return the table in HTML, as a notebook shows it."""
        if args or options:
            return super().to_html(*args, **options)
        return as_html(_finished(self, short=False))


class Tables(dict[str, pd.DataFrame]):
    """Tables by name: a dictionary that prints them one below the other, as R prints a list."""

    def __repr__(self) -> str:
        return "\n\n".join(f"{name}:\n{table!r}" for name, table in self.items())

    def _repr_html_(self) -> str:
        shown = [(escape(name), as_html(_finished(table))) for name, table in self.items()]
        return "".join(f"<p><b>{name}</b></p>{html}" for name, html in shown)


def as_result(frame: pd.DataFrame, **about: Any) -> ResultTable:
    """Return a data frame as a table that prints well.

    Parameters
    ----------
    **about : heading, formulas, note, notes, blank; see the module.
    """
    out = ResultTable(frame)
    out.attrs.update(frame.attrs)
    out.attrs.update(about)
    return out


def result_table(
    heading: str = "", *, kind: type[ResultTable] = ResultTable, **about: Any
) -> Callable[[Callable[P, pd.DataFrame]], Callable[P, ResultTable]]:
    """Decorate a function so that the data frame it returns prints as a table.

    Parameters
    ----------
    heading : where the function gives none in `attrs`.
    kind : class of the table.
    """

    def decorate(function: Callable[P, pd.DataFrame]) -> Callable[P, ResultTable]:
        @wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> ResultTable:
            frame = function(*args, **kwargs)
            given: dict[str, Any] = {"heading": heading, **about}
            given.update({str(key): value for key, value in frame.attrs.items()})
            out = kind(frame)
            out.attrs.update({key: value for key, value in given.items() if value})
            return out

        return inside

    return decorate


def _shows_index(frame: pd.DataFrame) -> bool:
    """Return whether the index names the rows, or only counts them."""
    if not frame.shape[1]:
        return True
    if frame.attrs.get("uncounted"):
        return False
    if not isinstance(frame.index, pd.RangeIndex) or frame.index.name is not None:
        return True
    if frame.attrs.get("labels"):
        return False
    return len(frame) > 1 and _is_number(frame.iloc[:, 0])


def _by_text(notes: Iterable[tuple[object, object]]) -> list[str]:
    """Return notes on rows, each text once with the labels of all its rows."""
    labels: dict[str, list[str]] = {}
    for label, text in notes:
        if isinstance(text, str) and text:
            labels.setdefault(text, []).append(str(label))
    return [
        f"{', '.join(own[:MAX_LABELS])}"
        f"{f' and {len(own) - MAX_LABELS} more' if len(own) > MAX_LABELS else ''}: {text}"
        for text, own in labels.items()
    ]


def _finished(frame: pd.DataFrame, *, short: bool = True) -> Finished:
    """Return what a table shows; `short` leaves out the middle of long ones."""
    about = frame.attrs
    index = _shows_index(frame)
    notes = [text for text in [str(about.get("note", ""))] if text]
    more = about.get("notes", ())
    if isinstance(more, Mapping):
        notes += _by_text(more.items())
    else:
        notes += [str(text) for text in more]
    for name in NOTES:
        if name in frame.columns and not _is_number(frame[name]):
            labels = frame.index if index else frame.iloc[:, 0]
            notes += _by_text(zip(labels, frame[name], strict=True))
            frame = frame.drop(columns=name)
    frame = frame.drop(columns=[name for name in about.get("hidden", ()) if name in frame])
    empty = [i for i in range(frame.shape[1]) if frame.iloc[:, i].map(_is_nothing).all()]
    if len(frame) and len(empty) < frame.shape[1]:
        frame = frame.iloc[:, [i for i in range(frame.shape[1]) if i not in empty]]
    absent = [name for name in about.get("absent", ()) if name in frame]
    silent = [name for name in absent if frame[name].isna().all()]
    for name, rows in about.get("blank", {}).items():
        if name in frame and frame[name].isna().all() and frame.index.isin(list(rows)).all():
            silent.append(name)
    if len(frame) and len(silent) < frame.shape[1]:
        frame = frame.drop(columns=silent)
    most = pd.get_option("display.max_rows") or len(frame)
    cut = short and len(frame) > most
    if cut:
        size = f"[{len(frame)} rows, {frame.shape[1]} columns]"
        ends = np.r_[0:ENDS, len(frame) - ENDS : len(frame)]
        frame = frame.take(ends)
        notes.insert(0, size)
    columns, named = _columns(frame, index=index)
    if cut:
        columns = [
            replace(c, cells=(*c.cells[:ENDS], "…" if i == 0 else "", *c.cells[ENDS:]))
            for i, c in enumerate(columns)
        ]
    return Finished(
        heading=str(about.get("heading", "")),
        formulas=tuple((str(k), str(v)) for k, v in dict(about.get("formulas", {})).items()),
        columns=columns,
        named=named,
        notes=tuple(dict.fromkeys(notes)),
    )
