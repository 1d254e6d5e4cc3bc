"""The summary of a fit, in the order in which an lme4 user reads it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from html import escape

import numpy as np

from mixlm_sparse.fitted import FittedModel
from mixlm_sparse.text import (
    abbreviate,
    format_column,
    format_criterion,
    format_fixed,
    format_number,
    text_table,
    truncate,
)

WIDTH = 100  # columns of text
CORRELATION_MAX_P = 12  # more fixed effects than this: their correlations stay in cov_params()
NO_BREAK = "\N{NO-BREAK SPACE}"
CORRELATION_CELL = 6  # characters of a correlation and of the abbreviated name above it


class Summary(str):
    """The text of a summary; a notebook shows its tables instead.

    It is a `str`: print it, search it, write it to a file.  `html` holds the notebook form.
    """

    html: str

    def __new__(cls, text: str, html: str) -> Summary:
        self = super().__new__(cls, text)
        self.html = html
        return self

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
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
    correlation: tuple[tuple[str, ...], ...]  # columns, header first
    correlation_hint: str
    status: str
    messages: tuple[str, ...]


def summarize(fit: FittedModel, *, correlation: bool | None = None) -> Summary:
    """Return the summary of `fit` as text, with an HTML twin.

    Parameters
    ----------
    correlation : print the correlations of the fixed effects; by default for up to
        `CORRELATION_MAX_P` of them.
    """
    parts = _collect(fit, correlation)
    return Summary(_as_text(parts), _as_html(parts))


def coefficient_columns(fit: FittedModel) -> tuple[Column, ...]:
    """Return the table of fixed effects as printed: names, estimates, errors, t values.

    Columns for degrees of freedom and p-values go between or after these.
    """
    estimate = fit.solution.beta.tolist()
    error = fit.standard_errors.tolist()
    t = fit.t_ratios.tolist()
    return (
        Column("", tuple(fit.system.x_names)),
        Column("Estimate", tuple(format_column(estimate, alongside=error))),
        Column("Std. Error", tuple(format_column(error, alongside=estimate))),
        Column("t value", tuple(_ratio(value) for value in t)),
    )


def _ratio(value: float) -> str:
    return format_fixed([value], 3)[0] if np.isfinite(value) else format_number(value)


def _collect(fit: FittedModel, correlation: bool | None) -> _Parts:
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
    columns = coefficient_columns(fit)
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
    values = np.quantile(fit.scaled_residuals_used, [0.0, 0.25, 0.5, 0.75, 1.0])
    names = ("Min", "1Q", "Median", "3Q", "Max")
    return tuple(zip(names, format_fixed(values.tolist(), 4), strict=True))


def _correlation_columns(fit: FittedModel) -> tuple[tuple[str, ...], ...]:
    vcov = fit.solution.vcov_unscaled
    sd = np.sqrt(np.diag(vcov))
    corr = vcov / np.outer(sd, sd)
    names = fit.system.x_names
    p = len(names)
    room = max(8, WIDTH - (CORRELATION_CELL + 1) * (p - 1))
    columns = [("", *(truncate(name, room) for name in names[1:]))]
    for j in range(p - 1):
        cells = [f"{corr[i, j]:.3f}" if i > j else "" for i in range(1, p)]
        cells = ["0.000" if cell == "-0.000" else cell for cell in cells]
        columns.append((abbreviate(names[j], CORRELATION_CELL), *cells))
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
    lines += ["", "Fixed effects:"]
    lines += _fixed_text(parts.fixed)
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
        if max(len(line) for line in lines) <= WIDTH or len(shown) <= 5:
            break
        shown.pop()
    if len(shown) < len(columns):
        lines.append(" (further correlations: print fit.varcorr)")
    return lines


def _fixed_text(columns: tuple[Column, ...]) -> list[str]:
    if not columns[0].cells:
        return ["(none)"]
    taken = sum(1 + max(len(c.head), *(len(x) for x in c.cells)) for c in columns[1:])
    room = WIDTH - taken
    names = tuple(truncate(name, room) for name in columns[0].cells)
    return text_table([("", *names), *((c.head, *c.cells) for c in columns[1:])])


def _in_panels(columns: tuple[tuple[str, ...], ...]) -> list[str]:
    """Print a wide matrix in panels, each with the row names."""
    per_panel = max(1, (WIDTH - max(len(c) for c in columns[0])) // (CORRELATION_CELL + 1))
    lines: list[str] = []
    for start in range(1, len(columns), per_panel):
        lines += text_table([columns[0], *columns[start : start + per_panel]])
    return lines


# ---------------------------------------------------------------------------------------------
# HTML
# ---------------------------------------------------------------------------------------------


def html_table(columns: list[tuple[str, ...]], *, left: int = 1) -> str:
    """Return an HTML table; each column is its header followed by its cells; text is escaped."""

    def row(cells: tuple[str, ...], tag: str) -> str:
        out = []
        for i, cell in enumerate(cells):
            side = "left" if i < left else "right"
            out.append(f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>')
        return f"<tr>{''.join(out)}</tr>"

    head, *body = zip(*columns, strict=True)
    return (
        f"<table><thead>{row(head, 'th')}</thead>"
        f"<tbody>{''.join(row(cells, 'td') for cells in body)}</tbody></table>"
    )


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
    out.append(f"<p>{escape(parts.counts)}</p><p><b>Fixed effects</b></p>")
    out.append(html_table([(c.head, *c.cells) for c in parts.fixed]))
    if parts.correlation:
        out.append("<p><b>Correlation of fixed effects</b></p>")
        out.append(html_table(list(parts.correlation)))
    out.append(f"<p>Convergence: {escape(parts.status)}</p>")
    out += [f"<p><i>Note: {escape(message)}</i></p>" for message in parts.messages]
    return f'<div class="mixlm-summary">{"".join(out)}</div>'
