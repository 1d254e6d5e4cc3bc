"""Variance components of a fit: values, tables and print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_count, require_one_of, shown
from mixlm_sparse.common.errors import OptionError, UnknownArgumentError
from mixlm_sparse.common.keywords import answering_methods
from mixlm_sparse.common.layout import WIDTH, Column, Finished, as_html, as_latex, as_markdown
from mixlm_sparse.common.text import (
    NEGLIGIBLE,
    display_width,
    format_column,
    in_brackets,
    shorten,
    shorten_all,
    text_table,
)
from mixlm_sparse.common.types import Matrix

WEIGHTED = "Residual variance of row i: variance / weight of row i"
MAX_DIGITS = 17  # of a number of double precision
NAME_WIDTH = 30  # longer names of groups and columns are cut in print
LEAST_NAME = 8  # to which they are cut where there are many correlations


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class TermCovariance:
    """Estimated covariance of the random effects of one term.

    Parameters
    ----------
    name : lme4's name of the component: "Subject", and "Subject.1" for the second term of a factor.
    group : label of the grouping factor.
    columns : (k,) names of the effects.
    covariance : (k, k), in squared units of the response per unit of the columns.
    correlated : whether the structure has free or implied correlations worth a print.
    shared : where several effects share parameters, all parameters of the term: kind ("sd" or
        "cor"), name (that of the effect, or what is shared: "sd", "rho", "phi") and value.
    words : the structure as a formula has it and in words, where it is not the general one.
    """

    name: str
    group: str
    columns: tuple[str, ...]
    covariance: Matrix
    correlated: bool
    shared: tuple[tuple[str, str, float], ...] = ()
    words: str = ""

    def __repr__(self) -> str:
        return in_brackets(f"TermCovariance of {self.name}: {', '.join(self.columns)}")

    @property
    def sd(self) -> Matrix:
        """(k,) standard deviations."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Matrix:
        """(k, k) correlations; NaN where a standard deviation is zero."""
        sd = self.sd
        with np.errstate(invalid="ignore", divide="ignore"):
            corr = self.covariance / np.outer(sd, sd)
        corr[np.diag_indices_from(corr)] = np.where(sd > 0, 1.0, np.nan)
        out: Matrix = np.clip(corr, -1.0, 1.0)
        return out


@answering_methods
@dataclass(frozen=True, eq=False, slots=True, repr=False)
class VarCorr:
    """Variance components, standard deviations and correlations of the random effects.

    Prints as lme4's `VarCorr`; `varcorr["Subject"]` is the covariance matrix of one term as a data
    frame, `to_frame()` the whole as `as.data.frame(VarCorr(fit))`.  Iterating gives the names.

    Parameters
    ----------
    terms : one entry per random-effects term, in lme4's order.
    sigma : residual standard deviation.
    weighted : with prior weights the residual variance of row i is sigma^2 / w_i.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.varcorr["Subject"].round(2)
                 (Intercept)   Days
    (Intercept)       612.09   9.60
    Days                9.60  35.07
    >>> fit.varcorr.to_frame()[["grp", "var1", "vcov", "sdcor"]].dropna().round(3)
           grp         var1     vcov   sdcor
    0  Subject  (Intercept)  612.090  24.740
    1  Subject         Days   35.072   5.922
    2  Subject  (Intercept)    9.604   0.066
    """

    terms: tuple[TermCovariance, ...]
    sigma: float
    weighted: bool = False

    def __new__(cls, *args: Any, **kwargs: Any) -> VarCorr:
        if len(args) == 1 and hasattr(args[0], "varcorr"):
            raise OptionError("VarCorr is what a fit has: write fit.varcorr")
        return object.__new__(cls)

    if not TYPE_CHECKING:

        def __call__(self, *args: object, **options: object) -> Any:
            raise UnknownArgumentError(
                "varcorr is an attribute, written without parentheses: write fit.varcorr, and "
                f"fit.varcorr[{shown(self.terms[0].name) if self.terms else 'group'}] for the "
                "covariances of a group"
            )

    def __getitem__(self, name: str) -> pd.DataFrame:
        for term in self.terms:
            if isinstance(name, str) and term.name == name:
                return pd.DataFrame(term.covariance, index=term.columns, columns=term.columns)
        raise OptionError(
            f"no random-effects term is named {shown(name)}: use one of "
            + ", ".join(repr(t.name) for t in self.terms)
        )

    def __iter__(self) -> Iterator[str]:
        return iter(t.name for t in self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def __contains__(self, name: object) -> bool:
        return any(t.name == name for t in self.terms)

    def to_frame(self, order: str = "cov.last") -> pd.DataFrame:
        """Return the components as lme4's `as.data.frame(VarCorr(fit))`.

        Parameters
        ----------
        order : "cov.last" lists the variances of a term before its covariances, "lower.tri" goes
            down the columns of the lower triangle, as theta does.

        Returns
        -------
        DataFrame with columns grp, var1, var2, vcov, sdcor.  A variance has no var2 and sdcor is
        its standard deviation; for a covariance sdcor is the correlation.  The last row is the
        residual.
        """
        require_one_of("order", order, ("cov.last", "lower.tri"))
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for term in self.terms:
            k = len(term.columns)
            sd, corr, cov, names = term.sd, term.correlation, term.covariance, term.columns
            below = [(i, j) for j in range(k) for i in range(j, k)]
            if order == "cov.last":
                below.sort(key=lambda ij: ij[0] != ij[1])
            for i, j in below:
                if i == j:
                    rows.append((term.name, names[i], None, float(cov[i, i]), float(sd[i])))
                elif term.correlated:
                    rows.append(
                        (term.name, names[j], names[i], float(cov[i, j]), float(corr[i, j]))
                    )
        rows.append(("Residual", None, None, self.sigma**2, self.sigma))
        return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])

    def parameters(self) -> list[tuple[str, str, str, str | None, float]]:
        """Return every parameter once: component, kind, names of one or two effects, value.

        The kinds are "sd" and "cor"; the residual is the last one.  What several effects share is
        called "sd", "rho", "phi", "rho2"; a correlation of that kind has one name.
        """
        out: list[tuple[str, str, str, str | None, float]] = []
        for term in self.terms:
            if term.shared:
                out += [(term.name, kind, name, None, value) for kind, name, value in term.shared]
                continue
            sd, corr, names = term.sd, term.correlation, term.columns
            out += [
                (term.name, "sd", name, None, float(size))
                for name, size in zip(names, sd, strict=True)
            ]
            if term.correlated:
                out += [
                    (term.name, "cor", names[j], names[i], float(corr[i, j]))
                    for j in range(len(names))
                    for i in range(j + 1, len(names))
                ]
        out.append(("Residual", "sd", "", None, self.sigma))
        return out

    def cells(self, digits: int = 4) -> list[list[str]]:
        """Return the printed table as columns of text: Groups, Name, Variance, Std.Dev., Corr..."""
        digits = require_count("digits", digits, most=MAX_DIGITS)
        widest = max(
            (2 if t.shared else len(t.columns) for t in self.terms if t.correlated), default=1
        )
        labels: list[tuple[str, list[str]]] = []  # of the rows of each term
        sd: list[float] = []
        corr: list[list[str]] = [[] for _ in range(widest - 1)]
        for term in self.terms:
            if term.shared:
                deviations, names, said = _shared_cells(term)
                labels.append((term.name, names))
                sd += deviations
                corr[0] += said
                for cells in corr[1:]:
                    cells += [""] * len(names)
                continue
            correlation = term.correlation
            labels.append((term.name, list(term.columns)))
            for i in range(len(term.columns)):
                sd.append(float(term.sd[i]))
                for j, cells in enumerate(corr):
                    shown = term.correlated and j < i
                    cells.append(f"{correlation[i, j]:.2f}" if shown else "")
        sd.append(self.sigma)
        heads = ["Corr", *([""] * (widest - 2))]
        columns = [
            # a square is never rounding noise beside another one
            ["Variance", *_formatted([s**2 for s in sd], digits, negligible=0.0)],
            ["Std.Dev.", *_formatted(sd, digits)],
        ]
        for head, cells in zip(heads, corr, strict=False):
            columns.append([head, *("NaN" if c == "nan" else c for c in cells), ""])
        return [*_labelled(labels, columns), *columns]

    def _structures(self) -> list[str]:
        """Return a line for every term whose covariance is not a general one."""
        return [f" {term.words}" for term in self.terms if term.words]

    def _finished(self) -> Finished:
        left = [True, True, *([False] * 99)]
        columns = [
            Column(cells[0], tuple(cells[1:]), text=is_text)
            for cells, is_text in zip(self.cells(), left, strict=False)
        ]
        notes = [line.strip() for line in self._structures()]
        notes += [WEIGHTED] if self.weighted else []
        return Finished("Variance components", (), columns, 2, tuple(notes))

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """Return what is printed in HTML, as a notebook shows it."""
        return as_html(self._finished())

    def to_latex(self) -> str:
        """Return what is printed in LaTeX; it needs the package booktabs."""
        return as_latex(self._finished())

    def to_markdown(self) -> str:
        """Return what is printed in Markdown."""
        return as_markdown(self._finished())

    def __repr__(self) -> str:
        lines = _panels(self.cells())
        lines += self._structures()
        if self.weighted:
            lines.append(f" {WEIGHTED}")
        return "\n".join(lines)


def _panels(columns: list[list[str]]) -> list[str]:
    """Return the lines of the table; correlations beyond the width stand below the others."""
    first = 4  # columns before the correlations
    room = WIDTH - 1 - sum(max(map(display_width, c)) + 2 for c in columns[:2])
    lines: list[str] = []
    start = 2
    while start < len(columns):
        stop, left = start, room
        while stop < len(columns):
            left -= max(map(display_width, columns[stop])) + 2
            if left < -2 and stop >= max(start + 1, first + 1):  # no gap behind the last
                break
            stop += 1
        shown = columns[start:stop]
        rows = list(range(len(columns[0])))
        if start > 2:
            lines.append(f" Correlations with effects {start - 3} to {stop - 4} of a term:")
            rows = [0, *(i for i in rows[1:] if any(column[i] for column in shown))]
            shown = [["", *column[1:]] for column in shown]
        block = [[column[i] for i in rows] for column in (*columns[:2], *shown)]
        if start > 2:  # the group stands beside its first row
            groups = _filled(columns[0])
            own = [groups[i] for i in rows]
            block[0] = [
                g if i < 1 or g != before else ""
                for i, (g, before) in enumerate(zip(own, ["", *own], strict=False))
            ]
        lines += text_table(block, left=2, indent=" ", gap="  ")
        start = stop
    return lines


def _filled(groups: list[str]) -> list[str]:
    """Return the group of every row, where it stands in its first one only."""
    out: list[str] = []
    for name in groups:
        out.append(name or out[-1])
    return out


def _labelled(
    labels: list[tuple[str, list[str]]], columns: list[list[str]]
) -> tuple[list[str], list[str]]:
    """Return the columns Groups and Name, cut so that they stand beside the others in a line."""
    room = WIDTH - 3 - sum(max(map(display_width, column)) + 2 for column in columns)
    groups = max([8, *(display_width(group) for group, _ in labels)])
    names = max([4, *(display_width(name) for _, names in labels for name in names)])
    for_groups = min(groups, NAME_WIDTH, max(room - min(names, room // 2), LEAST_NAME))
    for_names = min(NAME_WIDTH, max(room - for_groups, LEAST_NAME))
    first, second = ["Groups"], ["Name"]
    for group, own in labels:
        first += [shorten(group, for_groups), *([""] * (len(own) - 1))]
        second += shorten_all(own, for_names)
    return [*first, "Residual"], [*second, ""]


# A place in the column of standard deviations where there is none.
_NO_SD = float("inf")


def _formatted(values: list[float], digits: int, negligible: float = NEGLIGIBLE) -> list[str]:
    """Format a column in which infinity stands for an empty cell."""
    known = [value for value in values if value != _NO_SD]
    text = iter(format_column(known, digits, negligible=negligible))
    return ["" if value == _NO_SD else next(text) for value in values]


def _shared_cells(term: TermCovariance) -> tuple[list[float], list[str], list[str]]:
    """Return standard deviations, names and correlations of a term, row by row."""
    sds = [(name, value) for kind, name, value in term.shared if kind == "sd"]
    said = [f"{name} {value:.2f}" for kind, name, value in term.shared if kind == "cor"]
    if len(sds) == 1:  # one for all effects
        sds = [(f"{term.columns[0]} ... {term.columns[-1]}", sds[0][1])]
    rows = max(len(sds), len(said))
    return (
        [value for _, value in sds] + [_NO_SD] * (rows - len(sds)),
        [name for name, _ in sds] + [""] * (rows - len(sds)),
        [cell.replace("nan", "NaN") for cell in said] + [""] * (rows - len(said)),
    )
