"""The four forms of a summary: text, HTML, Markdown, LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from mixlm_sparse.common.layout import WIDTH, Column, wrap
from mixlm_sparse.common.render import (
    html_table,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
)
from mixlm_sparse.common.text import display_width, shorten_all, text_table

NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Parts:
    """What both forms of the summary show."""

    title: str
    formula: str
    data: str
    settings: tuple[tuple[str, str], ...]  # weights, offset, subset: only where there are any
    criterion_name: str
    information: tuple[tuple[str, str], ...]  # AIC, BIC, ...
    residuals: tuple[tuple[str, str], ...]  # five quantiles, empty when sigma is zero
    random: tuple[tuple[str, ...], ...]  # columns, header first; none without random effects
    structures: tuple[str, ...]  # of random terms whose covariance is not a general one
    structure: tuple[tuple[str, ...], ...]  # parameters of the residuals, header first
    structure_words: tuple[tuple[str, str], ...]
    counts: str
    fixed: tuple[Column, ...]
    fixed_heading: str
    fixed_note: str
    correlation: tuple[tuple[str, ...], ...]  # columns, header first
    correlation_hint: str
    status: str
    messages: tuple[str, ...]


# ---------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------


def as_text(parts: Parts) -> str:
    """Return a summary as text."""
    lines = [parts.title]
    lines += _wrap_formula("Formula: ", parts.formula)
    lines += wrap("   Data: ", parts.data)
    for label, value in parts.settings:
        lines += wrap(f"{label:>7}: ", value)
    lines += ["", parts.criterion_name]
    lines += text_table([(head, cell) for head, cell in parts.information], left=0, gap="  ")
    if parts.residuals:
        lines += ["", "Scaled residuals:"]
        lines += text_table([(head, cell) for head, cell in parts.residuals], left=0, gap=" ")
    if parts.random:
        lines += ["", "Random effects:"]
        lines += _random_text(parts.random)
        for structure in parts.structures:
            lines += wrap("", structure)
    if parts.structure_words:
        lines += ["", "Residual structure:"]
        for label, words in parts.structure_words:
            lines += wrap(f" {label}: ", words)
        lines += text_table(list(parts.structure), left=1, indent=" ", gap="  ")
    lines += wrap("", parts.counts)
    heading = f" ({parts.fixed_heading})" if parts.fixed_heading else ""
    lines += ["", f"Fixed effects{heading}:"]
    lines += _fixed_text(parts.fixed)
    if parts.fixed_note:
        lines += wrap("Note: ", parts.fixed_note)
    if parts.correlation:
        lines += ["", "Correlation of fixed effects:"]
        lines += _in_panels(parts.correlation)
    if parts.correlation_hint:
        lines += ["", parts.correlation_hint]
    lines += ["", *wrap("Convergence: ", parts.status)]
    for message in parts.messages:
        lines += wrap("Note: ", message)
    return "\n".join(lines)


def _wrap_formula(label: str, formula: str) -> list[str]:
    """Break a formula between its terms, if possible not within a random term."""
    whole = re.sub(r"\([^()]*\|[^()]*\)", lambda m: m[0].replace(" ", NO_BREAK), formula)
    return [line.replace(NO_BREAK, " ") for line in wrap(label, whole)]


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


def as_html(parts: Parts) -> str:
    """Return a summary in HTML; everything is escaped."""
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
    if parts.random:
        out.append("<p><b>Random effects</b></p>")
        out.append(html_table(list(parts.random), left=2))
        out += [f"<p>{escape(structure)}</p>" for structure in parts.structures]
    if parts.structure_words:
        out.append("<p><b>Residual structure</b></p>")
        out += [f"<p>{escape(a)}: {escape(b)}</p>" for a, b in parts.structure_words]
        out.append(html_table(list(parts.structure), left=1))
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


def _tables(parts: Parts) -> list[tuple[str, list[tuple[str, ...]], int, str]]:
    """Return the tables as (heading, columns, columns that are flush left, line below)."""
    heading = f" ({parts.fixed_heading})" if parts.fixed_heading else ""
    tables: list[tuple[str, list[tuple[str, ...]], int, str]] = []
    tables.append(("", [*parts.information], 0, ""))
    if parts.residuals:
        tables.append(("Scaled residuals", [*parts.residuals], 0, ""))
    counts = () if parts.structure_words else (parts.counts,)
    if parts.random:
        below = "; ".join([*parts.structures, *counts])
        tables.append(("Random effects", [*parts.random], 2, below))
    if parts.structure_words:
        words = "; ".join(f"{label}: {text}" for label, text in parts.structure_words)
        below = f"{words}. {parts.counts}"
        tables.append(("Residual structure", [*parts.structure], 1, below))
    fixed: list[tuple[str, ...]] = [(c.head, *c.cells) for c in parts.fixed]
    tables.append((f"Fixed effects{heading}", fixed, 1, parts.fixed_note))
    if parts.correlation:
        tables.append(("Correlation of fixed effects", [*parts.correlation], 1, ""))
    return tables


def as_markdown(parts: Parts) -> str:
    """Return a summary in Markdown."""
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


def as_latex(parts: Parts) -> str:
    """Return a summary in LaTeX."""
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
