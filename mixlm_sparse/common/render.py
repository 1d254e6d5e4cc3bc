"""Tables of ready-made cells in Markdown, LaTeX and HTML; every cell is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["RichText", "html_table", "latex_table", "latex_text", "markdown_table", "markdown_text"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "…": r"\dots{}",
    "²": r"\textsuperscript{2}",
    "–": "--",
}
PAGE_STYLE = (
    "body{font-family:system-ui,sans-serif;font-size:14px;max-width:60em;margin:2em auto;"
    "padding:0 1em;color-scheme:light dark}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.25em .7em}thead th{border-bottom:1px solid}"
    "tbody tr:nth-child(even){background:rgba(128,128,128,.1)}"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~$])")
# A number as tables show it, perhaps in parentheses or below a limit, perhaps with stars.
_NUMBER = re.compile(
    r"(?P<open>[(<]?)(?P<digits>-?(\d+\.?\d*|\.\d+))(e(?P<power>[+-]?\d+))?(?P<close>\)?)"
    r"(?P<stars>\*{0,3})"
)

Columns = Sequence[Sequence[str]]


class RichText(str):
    """Text that a notebook shows as a table: print it, search it, write it to a file."""

    html: str

    def __new__(cls, text: str, html: str) -> RichText:
        self = super().__new__(cls, text)
        self.html = html
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.html

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.html


def markdown_text(text: str) -> str:
    """Return `text` so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def latex_text(text: str) -> str:
    """Return `text` so that LaTeX shows it as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def latex_cell(text: str) -> str:
    """Return a cell in LaTeX; numbers go in mathematics, so that a minus is one.

    Examples
    --------
    >>> latex_cell("-1.50"), latex_cell("(2.1e-05)"), latex_cell("a_b")
    ('$-1.50$', '($2.1 \\\\times 10^{-5}$)', 'a\\\\_b')
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return latex_text(text)
    number = match["digits"]
    if match["power"]:
        number += rf" \times 10^{{{int(match['power'])}}}"
    if match["open"] == "<":
        return f"$< {number}${match['stars']}"
    if match["stars"]:
        number += f"^{{{match['stars']}}}"
    return f"{match['open']}${number}${match['close']}"


def markdown_table(columns: Columns, *, left: int = 1) -> list[str]:
    """Return the lines of a Markdown table; each column is its header followed by its cells."""
    escaped = [[markdown_text(cell) for cell in column] for column in columns]
    widths = [max(3, *(len(cell) for cell in column)) for column in escaped]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    head, *body = zip(*escaped, strict=True)
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return [line(head), f"| {' | '.join(rule)} |", *(line(cells) for cells in body)]


def latex_table(columns: Columns, *, left: int = 1, rules: Sequence[int] = ()) -> list[str]:
    """Return the lines of a `tabular` with the rules of the package booktabs.

    Parameters
    ----------
    columns : each its header followed by its cells.
    left : how many of the first columns are flush left.
    rules : rows of the body above which a line is drawn, counted from 0.
    """

    def line(cells: Sequence[str]) -> str:
        return "  " + " & ".join(latex_cell(cell) for cell in cells) + r" \\"

    head, *body = zip(*columns, strict=True)
    alignment = "l" * left + "r" * (len(columns) - left)
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"  \toprule"]
    lines += ["  " + " & ".join(latex_text(cell) for cell in head) + r" \\", r"  \midrule"]
    for i, cells in enumerate(body):
        if i in rules:
            lines.append(r"  \midrule")
        lines.append(line(cells))
    return [*lines, r"  \bottomrule", r"\end{tabular}"]


def html_page(title: str, body: str) -> str:
    """Return a page of HTML for a file, with its encoding and the look of a notebook's tables."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>"
    )


def html_table(
    columns: Columns, *, left: int = 1, rules: Sequence[int] = (), texts: Sequence[int] = ()
) -> str:
    """Return an HTML table; each column is its header followed by its cells; text is escaped.

    Parameters
    ----------
    left : how many of the first columns are flush left; texts : others that are.
    rules : rows of the body above which a line is drawn, counted from 0.
    """

    def row(cells: Sequence[str], tag: str, style: str = "") -> str:
        out = []
        for i, cell in enumerate(cells):
            # a number such as 3.26e-06 stays on its line
            side = "left" if i < left or i in texts else "right;white-space:nowrap"
            out.append(f'<{tag} style="text-align:{side}{style}">{escape(cell)}</{tag}>')
        return f"<tr>{''.join(out)}</tr>"

    head, *body = zip(*columns, strict=True)
    rows = [
        row(cells, "td", ";border-top:1px solid" if i in rules else "")
        for i, cells in enumerate(body)
    ]
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{''.join(rows)}</tbody></table>"
