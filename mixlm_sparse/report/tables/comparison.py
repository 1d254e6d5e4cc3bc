"""Several fits side by side: coefficients, variance components, and a footer."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_bool, require_names, require_one_of, shown
from mixlm_sparse.common.errors import OptionError, RowsAbsentError, SavedFitError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.layout import WIDTH
from mixlm_sparse.common.render import (
    RichText,
    html_table,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
)
from mixlm_sparse.common.text import (
    display_width,
    format_criterion,
    format_fixed,
    format_number,
    shorten_all,
    text_table,
)
from mixlm_sparse.inference.fixed.methods import linear_tests
from mixlm_sparse.inference.models.compare import require_fits
from mixlm_sparse.inference.variance.shares import icc, r2
from mixlm_sparse.model.fitted import FittedModel

__all__ = ["compare_table"]

NAME_WIDTH = 44  # of the first column
CELL_WIDTH = 24  # of the heads of the others
DIGITS = 4  # significant digits of an estimate's standard error, at most
LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
FORMATS = ("text", "markdown", "latex", "html")
GAP = "  "
RESIDUAL = "SD residual"
SHARES = {  # name here: table and row
    "ICC": ("icc", "adjusted"),
    "R² marginal": ("r2", "marginal"),
    "R² conditional": ("r2", "conditional"),
}


@dataclass(frozen=True, slots=True)
class _Table:
    """Ready-made cells: a column of names, one column for each model, and where rules go."""

    names: list[str]
    models: list[list[str]]  # heads first, as in `names`
    rules: list[int]  # rows of the body that begin a part
    notes: list[str]


class Comparison(RichText):
    """The text of a comparison in the form asked for; a notebook shows its table instead.

    It is a `str`; `to_markdown()`, `to_latex()` and `to_html()` give the other forms, `to_frame()`
    the cells.
    """

    _cells: _Table

    def __new__(cls, text: str, html: str, cells: _Table) -> Comparison:
        self = super().__new__(cls, text, html)
        assert isinstance(self, Comparison)
        self._cells = cells
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.html, self._cells

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        return _as_markdown(self._cells)

    def to_latex(self) -> str:
        """Return the table in LaTeX; it needs the package booktabs."""
        return _as_latex(self._cells)

    def to_html(self) -> str:
        """Return the table in HTML, as a notebook shows it."""
        return self.html

    def to_frame(self) -> pd.DataFrame:
        """Return the cells as texts: a column for each model, rows in the order shown."""
        heads = [column[0] for column in self._cells.models]
        cells = [column[1:] for column in self._cells.models]
        names = pd.Index(self._cells.names[1:], name=self._cells.names[0] or None)
        frame = pd.DataFrame(dict(enumerate(cells)), index=names)
        return frame.set_axis(heads, axis=1)


@answers_unknown_keywords
def compare_table(
    *fits: FittedModel | Sequence[FittedModel] | Mapping[str, FittedModel],
    names: Sequence[str] | None = None,
    stars: bool = False,
    format: str = "text",
) -> Comparison:
    """Put several fitted models side by side.

    Coefficients have their standard errors in parentheses below them; then come the standard
    deviations and correlations of the random effects, and the groups, rows, intraclass correlation
    (adjusted), R² (marginal and conditional), AIC and log-likelihood.

    Parameters
    ----------
    *fits : the models, any number, or lists of them; or a dictionary from names to models.
    names : heads of their columns; by default "(1)", "(2)", ...
    stars : mark coefficients with * p < 0.05, ** p < 0.01, *** p < 0.001, by Satterthwaite's tests.
    format : "text" (at most 80 columns; more models go below), "markdown", "latex" (needs the
        package booktabs) or "html".

    Returns
    -------
    The table as a `str`, which a notebook shows as HTML.

    Raises
    ------
    OptionError : no fits, as many names as fits are not given, or an unknown format.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> a = mx.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    >>> b = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> print(mx.compare_table([a, b], names=["intercepts", "slopes"]))
                                   intercepts   slopes
    ------------------------------------------------------
    (Intercept)                       251.405    251.405
                                      (9.747)    (6.825)
    Days                               10.467     10.467
                                      (0.804)    (1.546)
    ...
    """
    require_one_of("format", format, FORMATS)
    if len(fits) == 1 and isinstance(fits[0], Mapping):
        names = list(fits[0]) if names is None else names
        fits = tuple(fits[0].values())
    models = require_fits("compare_table", *fits)
    if not models:
        raise OptionError("there is no fit to compare: give fits, or a list of them")
    heads = [f"({i + 1})" for i in range(len(models))]
    if names is not None:
        given = None if isinstance(names, str) else require_names("names", names, once=False)
        if given is None or len(given) != len(models):
            raise OptionError(
                f"names is {shown(names)}: give a list of {len(models)}, one for each fit"
            )
        heads = given
    stars = require_bool("stars", stars)
    table = _collect(models, heads, stars)
    html = _as_html(table)
    if format == "text":
        return Comparison(_as_text(table), html, table)
    if format == "markdown":
        return Comparison(_as_markdown(table), html, table)
    return Comparison(_as_latex(table) if format == "latex" else html, html, table)


# ---------------------------------------------------------------------------------------------
# Cells
# ---------------------------------------------------------------------------------------------


def _collect(fits: list[FittedModel], heads: list[str], stars: bool) -> _Table:
    names: list[str] = [""]
    columns: list[list[str]] = [[head] for head in heads]
    rules = []

    def add(name: str, cells: Sequence[str]) -> None:
        names.append(name)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)

    coefficients = [_coefficients(fit, stars) for fit in fits]
    for name in _union([list(part) for part in coefficients]):
        add(name, [part.get(name, ("", ""))[0] for part in coefficients])
        add("", [part.get(name, ("", ""))[1] for part in coefficients])
    rules.append(len(names) - 1)
    components = [_components(fit) for fit in fits]
    shown = _union([list(part) for part in components])
    # the residual comes last, its structure after its standard deviation
    last = {name: 1 if name == RESIDUAL else 2 * name.startswith("Residual ") for name in shown}
    for name in sorted(shown, key=last.__getitem__):
        add(name, [part.get(name, "") for part in components])
    rules.append(len(names) - 1)
    for label in _union([list(fit.ngroups) for fit in fits]):
        add(f"Groups: {label}", [str(fit.ngroups.get(label, "")) for fit in fits])
    add("Observations", [str(fit.nobs) for fit in fits])
    shares = [_shares(fit) for fit in fits]
    for name in SHARES:
        add(name, [cells[name] for cells, _ in shares])
    add("AIC", [format_criterion(fit.aic) for fit in fits])
    add("Log-likelihood", [format_criterion(fit.llf) for fit in fits])
    add("Method", ["REML" if fit.reml else "ML" for fit in fits])
    notes = _notes(fits, stars, heads)
    why: dict[str, list[str]] = {}  # models by reason, so that each is said once
    for head, (_, reason) in zip(heads, shares, strict=True):
        if reason:
            why.setdefault(reason, []).append(head)
    notes += [f"{', '.join(which)}: no ICC and R²: {reason}." for reason, which in why.items()]
    return _Table(names, columns, [rule for rule in rules if rule], notes)


def _union(lists: list[list[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))


def _coefficients(fit: FittedModel, stars: bool) -> dict[str, tuple[str, str]]:
    """Return estimate and standard error as text, by name."""
    p_values = [1.0] * fit.system.p
    if stars and not fit.perfect:
        p_values = linear_tests(fit, np.eye(fit.system.p)).p_value.tolist()
    out = {}
    for name, value, error, p in zip(
        fit.system.x_names, fit.solution.beta, fit.standard_errors, p_values, strict=True
    ):
        estimate, in_parentheses = _with_error(float(value), float(error))
        mark = next((mark for level, mark in LEVELS if p < level), "")
        out[name] = (estimate + mark, f"({in_parentheses})")
    return out


def _with_error(value: float, error: float) -> tuple[str, str]:
    """Return both with the decimals that show three digits of the error, at least three."""
    if not np.isfinite(error) or error <= 0.0:
        return format_number(value), format_number(error)
    decimals = int(max(3 if error < 1000 else 1, 2 - np.floor(np.log10(error))))
    if decimals > 8 or max(abs(value), error) >= 1e8:
        return format_number(value, DIGITS), format_number(error, DIGITS - 1)
    return format_fixed([value], decimals)[0], format_fixed([error], decimals)[0]


def _components(fit: FittedModel) -> dict[str, str]:
    """Return standard deviations and correlations as text, by a name that says what they are."""
    out = {}
    for group, kind, first, second, value in fit.varcorr.parameters():
        if group == "Residual":
            out[RESIDUAL] = _size(value)
        elif kind == "cor":
            pair = first if second is None else f"{first}, {second}"
            out[f"Cor {pair} | {group}"] = (
                f"{value:.3f}" if np.isfinite(value) else format_number(value)
            )
        else:
            out[f"SD {first} | {group}"] = _size(value)
    whitened = fit.system.whitened
    if whitened is not None:
        values = whitened.law.natural(whitened.rho)[0].tolist()
        out |= {
            f"Residual {name}": _signed(value)
            for name, value in zip(whitened.law.names, values, strict=True)
        }
    return out


def _signed(value: float) -> str:
    return f"-{_size(-value)}" if value < 0.0 else _size(value)


def _size(value: float) -> str:
    if value == 0.0:
        return "0"
    return f"{value:.3f}" if 0.01 <= value < 1e6 else format_number(value, DIGITS)


def _shares(fit: FittedModel) -> tuple[dict[str, str], str]:
    """Return the cells of `SHARES`, and why they are NaN or ""."""
    missing = dict.fromkeys(SHARES, "NaN")
    if fit.perfect:
        return missing, "nothing is left to the residuals"
    try:
        tables = {"r2": r2(fit)}
        if fit.matrices.terms:  # there is none without random effects
            tables["icc"] = icc(fit)
    except (OptionError, RowsAbsentError, SavedFitError) as error:
        return missing, str(error)
    cells, reasons = {}, []
    for name, (table, row) in SHARES.items():
        if table not in tables:
            cells[name] = ""
            continue
        value = float(tables[table]["estimate"].to_dict()[row])
        cells[name] = f"{value:.3f}" if np.isfinite(value) else "NaN"
        if not np.isfinite(value):
            reasons.append(tables[table].attrs.get("notes", {}).get(row, ""))
    return cells, "; ".join(dict.fromkeys(filter(None, reasons)))


def _notes(fits: list[FittedModel], stars: bool, heads: list[str]) -> list[str]:
    notes = ["Standard errors in parentheses."]
    if stars:
        notes.append("* p < 0.05, ** p < 0.01, *** p < 0.001 (Satterthwaite's t tests).")
    restricted = [fit for fit in fits if fit.reml]
    if restricted and len(restricted) < len(fits):
        notes.append("AIC and log-likelihood of fits by REML and by ML cannot be compared.")
    elif len({fit.system.x_names for fit in restricted}) > 1:
        notes.append(
            "AIC and log-likelihood of fits by REML with different fixed effects cannot be "
            "compared: use refit_ml()."
        )
    for fit, head in zip(fits, heads, strict=True):
        if fit.convergence.status != "converged":
            notes.append(f"{head}: {fit.convergence.status.removesuffix(' fit')} fit.")
    if len({fit.nobs for fit in fits}) > 1:
        notes.append("The models use different numbers of rows.")
    return notes


# ---------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------


def _as_text(table: _Table) -> str:
    names = shorten_all(table.names, NAME_WIDTH)
    heads = shorten_all([column[0] for column in table.models], CELL_WIDTH)
    models = [[head, *column[1:]] for head, column in zip(heads, table.models, strict=True)]
    # stars stand right of the decimals: pad what has none, so that the points are aligned
    models = [_aligned(column) for column in models]
    room = WIDTH - max(map(display_width, names))
    lines: list[str] = []
    while models:
        taken, used = 0, 0
        for column in models:
            width = len(GAP) + max(map(display_width, column))
            if taken and used + width > room:
                break
            taken, used = taken + 1, used + width
        panel, models = models[:taken], models[taken:]
        body = text_table([names, *panel], left=1, gap=GAP)
        rule = "-" * max(map(display_width, body))
        lines += [body[0], rule]
        for i, line in enumerate(body[1:]):
            if i in table.rules:
                lines.append(rule)
            lines.append(line)
        lines += [rule] if not models else [rule, ""]
    for note in table.notes:
        lines += textwrap.wrap(note, WIDTH)
    return "\n".join(lines)


def _aligned(column: list[str]) -> list[str]:
    """Pad numbers on the right, so that stars and closing parentheses stand beside them."""
    tails = [len(cell) - len(cell.rstrip("*)")) for cell in column[1:]]
    most = max(tails)
    padded = [
        cell + " " * (most - tail) if cell else ""
        for cell, tail in zip(column[1:], tails, strict=True)
    ]
    return [column[0] + " " * most, *padded]


def _as_markdown(table: _Table) -> str:
    lines = markdown_table([table.names, *table.models])
    return "\n".join([*lines, "", *(markdown_text(note) + "  " for note in table.notes)]).rstrip()


def _as_latex(table: _Table) -> str:
    lines = latex_table([table.names, *table.models], rules=table.rules)
    notes = [rf"{{\footnotesize {latex_text(' '.join(table.notes))}}}"]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines, "", *notes])


def _as_html(table: _Table) -> str:
    body = html_table([table.names, *table.models], rules=table.rules)
    notes = "<br>".join(escape(note) for note in table.notes)
    return f'<div class="mixlm-comparison">{body}<p><small>{notes}</small></p></div>'
