"""The summary of a fit, in the order in which an lme4 user reads it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import require_bool
from mixlm_sparse.common.render import (
    RichText,
    html_table,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
)
from mixlm_sparse.common.text import (
    abbreviate_all,
    display_width,
    format_column,
    format_criterion,
    format_fixed,
    format_number,
    shorten_all,
    text_table,
)
from mixlm_sparse.inference.fixed.coefficients import coefficient_tests
from mixlm_sparse.inference.fixed.tests import SingleTests
from mixlm_sparse.model.fitted import FittedModel

WIDTH = 100  # columns of text
CORRELATION_MAX_P = 12  # more fixed effects than this: their correlations stay in cov_params()
NO_BREAK = "\N{NO-BREAK SPACE}"
SMALLEST_P = 2e-16  # smaller p-values print as below this
CORRELATION_CELL = 6  # characters of a correlation and of the abbreviated name above it


class Summary(RichText):
    """The text of a summary; a notebook shows its tables instead.

    It is a `str`: print it, search it, write it to a file.  `html` holds the notebook form,
    `to_markdown()` and `to_latex()` give the others.
    """

    _parts: _Parts

    def __new__(cls, text: str, html: str, parts: _Parts) -> Summary:
        self = super().__new__(cls, text, html)
        assert isinstance(self, Summary)
        self._parts = parts
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.html, self._parts

    def to_markdown(self) -> str:
        """Return the summary in Markdown."""
        return _as_markdown(self._parts)

    def to_latex(self) -> str:
        """Return the summary in LaTeX; it needs the package booktabs."""
        return _as_latex(self._parts)

    def to_html(self) -> str:
        """Return the summary in HTML, as a notebook shows it."""
        return self.html


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, ready to print."""

    head: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What both forms of the summary show."""

    title: str
    formula: str
    data: str
    settings: tuple[tuple[str, str], ...]  # weights, offset: only where there are any
    criterion_name: str
    information: tuple[tuple[str, str], ...]  # AIC, BIC, ...
    residuals: tuple[tuple[str, str], ...]  # five quantiles, empty when sigma is zero
    random: tuple[tuple[str, ...], ...]  # columns, header first
    counts: str
    fixed: tuple[Column, ...]
    fixed_heading: str
    fixed_note: str
    correlation: tuple[tuple[str, ...], ...]  # columns, header first
    correlation_hint: str
    status: str
    messages: tuple[str, ...]


def summary(
    fit: FittedModel, *, correlation: bool | None = None, ddf: str | None = "auto"
) -> Summary:
    """Return the summary as text (a notebook shows tables).

    Parameters
    ----------
    correlation : print the correlations of the fixed effects; by default up to 12 of them.
    ddf : tests in the table of fixed effects: "satterthwaite", "kenward-roger", "normal", or
        None for t values alone.  "auto" is Satterthwaite where that takes a few seconds at
        most; otherwise the summary says that it left the tests out.

    Returns
    -------
    Summary : a `str` with `to_markdown()`, `to_latex()` and `to_html()`.
    """
    if correlation is not None:
        correlation = require_bool("correlation", correlation)
    parts = _collect(fit, correlation, coefficient_tests(fit, ddf))
    return Summary(_as_text(parts), _as_html(parts), parts)


def coefficient_columns(fit: FittedModel, tests: SingleTests | None = None) -> tuple[Column, ...]:
    """Return the table of fixed effects as printed: names, estimates, errors, t values.

    With `tests` also degrees of freedom and p-values.
    """
    estimate = fit.solution.beta.tolist()
    shown = tests is not None and tests.shown
    error = fit.standard_errors.tolist()
    ratio = fit.t_ratios.tolist()
    head = "t value"
    extra: list[Column] = []
    if shown:
        assert tests is not None
        error, ratio = tests.std_error.tolist(), tests.statistic.tolist()
        df = tests.df.tolist()
        normal = all(np.isinf(value) for value in df)
        head = "z value" if normal else "t value"
        if not normal:
            extra.append(Column("df", tuple(_df(value) for value in df)))
        extra.append(Column(f"Pr(>|{head[0]}|)", tuple(_p(v) for v in tests.p_value.tolist())))
    columns = [
        Column("", tuple(fit.system.x_names)),
        Column("Estimate", tuple(format_column(estimate, alongside=error))),
        Column("Std. Error", tuple(format_column(error, alongside=estimate))),
        Column(head, tuple(_ratio(value) for value in ratio)),
    ]
    if len(extra) == 2:  # R's order: df before t
        columns.insert(3, extra.pop(0))
    return (*columns, *extra)


def _df(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else format_number(value)


def _p(value: float) -> str:
    if not np.isfinite(value):
        return format_number(value)
    if value < SMALLEST_P:
        return "<2e-16"
    return f"{value:.4f}" if value >= 1e-3 else f"{value:.2e}"


def _ratio(value: float) -> str:
    return format_fixed([value], 3)[0] if np.isfinite(value) else format_number(value)


def _collect(fit: FittedModel, correlation: bool | None, tests: SingleTests | None) -> _Parts:
    reml = fit.reml
    name = "REML criterion" if reml else "deviance (-2 log-likelihood)"
    criterion = format_criterion(fit.criterion)
    information = [
        (label, format_criterion(value))
        for label, value in (("AIC", fit.aic), ("BIC", fit.bic), ("logLik", fit.llf))
    ]
    information.append(("df.resid", str(fit.df_resid)))
    settings = []
    if fit.matrices.weights is not None:
        settings.append(("Weights", fit.weights_name))
    if fit.matrices.offset is not None:
        settings.append(("Offset", fit.offset_name))
    columns = coefficient_columns(fit, tests)
    p = len(fit.system.x_names)
    show = p <= CORRELATION_MAX_P if correlation is None else correlation
    matrix = _correlation_columns(fit) if show and p > 1 and fit.sigma > 0 else ()
    hint = ""
    if p > CORRELATION_MAX_P and correlation is None:
        hint = f"Correlations of the {p} fixed effects: summary(correlation=True) or cov_params()"
    return _Parts(
        title=f"Linear mixed model fit by {'REML' if reml else 'maximum likelihood'}",
        formula=fit.formula,
        data=_data_line(fit),
        settings=tuple(settings),
        criterion_name=f"{name} at convergence: {criterion}",
        information=tuple(information),
        residuals=_residual_quantiles(fit),
        random=tuple(tuple(c) for c in fit.varcorr.cells()),
        counts=_counts(fit),
        fixed=columns,
        fixed_heading=tests.heading if tests is not None else "",
        fixed_note=tests.note if tests is not None else "",
        correlation=matrix,
        correlation_hint=hint,
        status=fit.convergence.headline,
        messages=fit.messages,
    )


def _data_line(fit: FittedModel) -> str:
    dropped = fit.matrices.n_input - fit.nobs
    if not dropped:
        return f"{fit.nobs} rows"
    total = fit.matrices.n_input
    return f"{fit.nobs} of {total} rows ({dropped} left out: missing cells or subset)"


def _counts(fit: FittedModel) -> str:
    groups = "; ".join(f"{label}, {count}" for label, count in fit.ngroups.items())
    return f"Number of obs: {fit.nobs}" + (f", groups: {groups}" if groups else "")


def _residual_quantiles(fit: FittedModel) -> tuple[tuple[str, str], ...]:
    if not fit.sigma > 0:
        return ()
    names = ("Min", "1Q", "Median", "3Q", "Max")
    return tuple(zip(names, format_fixed(fit.residual_quantiles.tolist(), 4), strict=True))


def _correlation_columns(fit: FittedModel) -> tuple[tuple[str, ...], ...]:
    vcov = fit.solution.vcov_unscaled
    sd = np.sqrt(np.diag(vcov))
    corr = vcov / np.outer(sd, sd)
    names = fit.system.x_names
    p = len(names)
    room = max(24, WIDTH - (CORRELATION_CELL + 1) * (p - 1))
    columns = [("", *shorten_all(names[1:], room))]
    heads = abbreviate_all(names, CORRELATION_CELL)
    for j in range(p - 1):
        cells = [f"{corr[i, j]:.3f}" if i > j else "" for i in range(1, p)]
        cells = ["0.000" if cell == "-0.000" else cell for cell in cells]
        columns.append((heads[j], *cells))
    return tuple(columns)


# ---------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------


def _as_text(parts: _Parts) -> str:
    lines = [parts.title]
    lines += _wrap_formula("Formula: ", parts.formula)
    lines += _wrap("   Data: ", parts.data)
    for label, value in parts.settings:
        lines += _wrap(f"{label:>7}: ", value)
    lines += ["", parts.criterion_name]
    lines += text_table([(head, cell) for head, cell in parts.information], left=0, gap="  ")
    if parts.residuals:
        lines += ["", "Scaled residuals:"]
        lines += text_table([(head, cell) for head, cell in parts.residuals], left=0, gap=" ")
    lines += ["", "Random effects:"]
    lines += _random_text(parts.random)
    lines += _wrap("", parts.counts)
    heading = f" ({parts.fixed_heading})" if parts.fixed_heading else ""
    lines += ["", f"Fixed effects{heading}:"]
    lines += _fixed_text(parts.fixed)
    if parts.fixed_note:
        lines += _wrap("Note: ", parts.fixed_note)
    if parts.correlation:
        lines += ["", "Correlation of fixed effects:"]
        lines += _in_panels(parts.correlation)
    if parts.correlation_hint:
        lines += ["", parts.correlation_hint]
    lines += ["", *_wrap("Convergence: ", parts.status)]
    for message in parts.messages:
        lines += _wrap("Note: ", message)
    return "\n".join(lines)


def _wrap(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
    ) or [label.rstrip()]


def _wrap_formula(label: str, formula: str) -> list[str]:
    """Break a formula between its terms, if possible not within a random term."""
    whole = re.sub(r"\([^()]*\|[^()]*\)", lambda m: m[0].replace(" ", NO_BREAK), formula)
    return [line.replace(NO_BREAK, " ") for line in _wrap(label, whole)]


def _random_text(columns: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the table; correlations that do not fit the width are left to `varcorr`."""
    shown = list(columns)
    while True:
        lines = text_table(shown, left=2, indent=" ", gap="  ")
        if max(map(display_width, lines)) <= WIDTH or len(shown) <= 5:
            break
        shown.pop()
    if len(shown) < len(columns):
        lines.append(" (further correlations: print fit.varcorr)")
    return lines


def _fixed_text(columns: tuple[Column, ...]) -> list[str]:
    if not columns[0].cells:
        return ["(none)"]
    taken = sum(1 + max(len(c.head), *(len(x) for x in c.cells)) for c in columns[1:])
    names = shorten_all(columns[0].cells, WIDTH - taken)
    return text_table([("", *names), *((c.head, *c.cells) for c in columns[1:])])


def _in_panels(columns: tuple[tuple[str, ...], ...]) -> list[str]:
    """Print a wide matrix in panels, each with the row names."""
    room = WIDTH - max(map(display_width, columns[0]))
    lines: list[str] = []
    panel: list[tuple[str, ...]] = []
    used = 0
    for column in columns[1:]:
        width = 1 + max(map(display_width, column))
        if panel and used + width > room:
            lines += text_table([columns[0], *panel])
            panel, used = [], 0
        panel.append(column)
        used += width
    return lines + text_table([columns[0], *panel])


# ---------------------------------------------------------------------------------------------
# HTML
# ---------------------------------------------------------------------------------------------


def _as_html(parts: _Parts) -> str:
    out = [
        f"<p><b>{escape(parts.title)}</b><br><code>{escape(parts.formula)}</code><br>"
        f"{escape(parts.data)}"
    ]
    out += [f"<br>{escape(label)}: {escape(value)}" for label, value in parts.settings]
    out.append(f"</p><p>{escape(parts.criterion_name)}</p>")
    out.append(html_table([(head, cell) for head, cell in parts.information], left=0))
    if parts.residuals:
        out.append("<p><b>Scaled residuals</b></p>")
        out.append(html_table([(head, cell) for head, cell in parts.residuals], left=0))
    out.append("<p><b>Random effects</b></p>")
    out.append(html_table(list(parts.random), left=2))
    out.append(f"<p>{escape(parts.counts)}</p>")
    heading = f" ({parts.fixed_heading})" if parts.fixed_heading else ""
    out.append(f"<p><b>Fixed effects</b>{escape(heading)}</p>")
    out.append(html_table([(c.head, *c.cells) for c in parts.fixed]))
    if parts.fixed_note:
        out.append(f"<p><i>Note: {escape(parts.fixed_note)}</i></p>")
    if parts.correlation:
        out.append("<p><b>Correlation of fixed effects</b></p>")
        out.append(html_table(list(parts.correlation)))
    out.append(f"<p>Convergence: {escape(parts.status)}</p>")
    out += [f"<p><i>Note: {escape(message)}</i></p>" for message in parts.messages]
    return f'<div class="mixlm-summary">{"".join(out)}</div>'


# ---------------------------------------------------------------------------------------------
# Markdown and LaTeX
# ---------------------------------------------------------------------------------------------


def _tables(parts: _Parts) -> list[tuple[str, list[tuple[str, ...]], int, str]]:
    """Return the tables as (heading, columns, columns that are flush left, line below)."""
    heading = f" ({parts.fixed_heading})" if parts.fixed_heading else ""
    tables: list[tuple[str, list[tuple[str, ...]], int, str]] = []
    tables.append(("", [*parts.information], 0, ""))
    if parts.residuals:
        tables.append(("Scaled residuals", [*parts.residuals], 0, ""))
    tables.append(("Random effects", [*parts.random], 2, parts.counts))
    fixed: list[tuple[str, ...]] = [(c.head, *c.cells) for c in parts.fixed]
    tables.append((f"Fixed effects{heading}", fixed, 1, parts.fixed_note))
    if parts.correlation:
        tables.append(("Correlation of fixed effects", [*parts.correlation], 1, ""))
    return tables


def _as_markdown(parts: _Parts) -> str:
    out = [f"**{markdown_text(parts.title)}**", "", f"`{parts.formula}`  ", parts.data]
    for label, value in parts.settings:
        out[-1] += "  "
        out.append(f"{label}: {markdown_text(value)}")
    out += ["", markdown_text(parts.criterion_name), ""]
    for heading, columns, left, below in _tables(parts):
        if heading:
            out += [f"**{markdown_text(heading)}**", ""]
        out += [*markdown_table(columns, left=left), ""]
        if below:
            out += [markdown_text(below), ""]
    out.append(f"Convergence: {markdown_text(parts.status)}")
    for message in parts.messages:
        out += ["", f"Note: {markdown_text(message)}"]
    return "\n".join(out)


def _as_latex(parts: _Parts) -> str:
    out = [
        "% needs \\usepackage{booktabs}",
        rf"\noindent\textbf{{{latex_text(parts.title)}}}\\",
        rf"\texttt{{{latex_text(parts.formula)}}}\\",
        latex_text(parts.data),
    ]
    for label, value in parts.settings:
        out[-1] += r"\\"
        out.append(latex_text(f"{label}: {value}"))
    out += ["", latex_text(parts.criterion_name)]
    for heading, columns, left, below in _tables(parts):
        out += ["", r"\medskip"]
        if heading:
            out += [rf"\noindent\textbf{{{latex_text(heading)}}}", ""]
        out += [r"\noindent", *latex_table(columns, left=left)]
        if below:
            out += ["", rf"\noindent {latex_text(below)}"]
    out += ["", r"\medskip", rf"\noindent Convergence: {latex_text(parts.status)}"]
    for message in parts.messages:
        out += ["", rf"\noindent Note: {latex_text(message)}"]
    return "\n".join(out)
