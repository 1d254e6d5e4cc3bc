"""Tables of ready-made cells with heading, formulas and notes: text, HTML, Markdown, LaTeX."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from html import escape

from mixlm_sparse.common.render import (
    html_table,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
)
from mixlm_sparse.common.text import ELLIPSIS, display_width, pad, shorten_all, text_table

WIDTH = 80  # columns of a terminal
LEAST_TEXT = 12  # columns to which long text is cut, at least, so that a table fits
NO_VALUE = ("", ".")  # a column that does not tell this row from others
MOST_TEXT = 44  # columns that a text takes at most


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, ready to print."""

    head: str
    cells: tuple[str, ...]
    text: bool = False  # flush left, and may be cut
    above: tuple[str, ...] = ()  # by cell, what is too long for it and stands in a line of its own


@dataclass(frozen=True, slots=True)
class Finished:
    """All that a table shows, whatever the form."""

    heading: str
    formulas: tuple[tuple[str, str], ...]
    columns: list[Column]
    named: int  # columns that name the rows
    notes: tuple[str, ...]


def _width(column: Column) -> int:
    return max(map(display_width, (column.head, *column.cells)))


def _narrowed(table: Finished, width: int) -> Finished:
    """Take out of a table that is too wide what can stand in a line of its own, then cut names."""
    columns, notes, named = list(table.columns), list(table.notes), table.named
    lines = list(table.formulas)
    labels = columns[max(named - 1, 0)].cells
    for place in range(len(columns) - 1, -1, -1):
        column = columns[place]
        least = 2 if place >= named else 3  # what stays names the rows
        if _excess(columns, width) <= 0 or not column.text or len(columns) < least:
            continue
        if place < named - 1 and len(set(column.cells)) == 1:  # the same in all rows
            lines.insert(0, (column.head, column.cells[0]))
            named -= 1
        elif place >= named and _width(column) > LEAST_TEXT:
            rows = zip(labels, column.cells, strict=True)
            notes += [f"{column.head} of {label}: {text}" for label, text in rows if text]
        else:
            continue
        del columns[place]
    if _excess(columns, width) > 0 and named > 1:
        columns, named = _headed(columns, named)
    return replace(
        table, formulas=tuple(lines), columns=_cut(columns, width), named=named, notes=tuple(notes)
    )


def _headed(columns: list[Column], named: int) -> tuple[list[Column], int]:
    """Put what names families of rows above them, if there are far fewer families than rows."""
    outer, names, rest = columns[: named - 1], columns[named - 1], columns[named:]
    keys = list(zip(*(column.cells for column in outer), strict=True))
    firsts = [i == 0 or key != keys[i - 1] for i, key in enumerate(keys)]
    if 3 * sum(firsts) > 2 * len(keys):
        return columns, named
    cells, above = [], []
    for key, cell, first in zip(keys, names.cells, firsts, strict=True):
        if key[0] == ELLIPSIS:
            cells.append(ELLIPSIS)
            above.append("")
            continue
        values = [(c.head, value) for c, value in zip(outer, key, strict=True)]
        family = [f"{head} = {value}" for head, value in values if value not in NO_VALUE]
        cells.append(f" {cell}")
        above.append(f"{', '.join(family)}:" if first and family else "")
    return [Column(names.head, tuple(cells), text=True, above=tuple(above)), *rest], 1


def _excess(columns: list[Column], width: int) -> int:
    return sum(_width(c) + 1 for c in columns) - 1 - width


def _cut(columns: list[Column], width: int) -> list[Column]:
    """Cut the widest texts, if the table then fits; otherwise to `MOST_TEXT`.

    Names of rows, if they are the only texts, stay whole: long ones stand in lines of their own.
    """
    least = sum(min(_width(c), LEAST_TEXT) if c.text else _width(c) for c in columns)
    room = width - (len(columns) - 1)
    limit = MOST_TEXT
    if least <= room:
        if columns[0].text and not any(c.text for c in columns[1:]):
            return [_raised(columns[0], room - sum(map(_width, columns[1:]))), *columns[1:]]
        while sum(min(_width(c), limit) if c.text else _width(c) for c in columns) > room:
            limit -= 1
    out = []
    for column in columns:
        if column.text and _width(column) > limit:
            head, *cells = shorten_all((column.head, *column.cells), limit)
            column = Column(head, tuple(cells), text=True)
        out.append(column)
    return out


def _raised(names: Column, limit: int) -> Column:
    """Move the cells that take more than `limit` columns above their rows."""
    if _width(names) <= limit:
        return names
    cells, above = [], []
    for cell, over in zip(names.cells, names.above or ("",) * len(names.cells), strict=True):
        long = display_width(cell) > limit
        cells.append("" if long else cell)
        above.append("\n".join(filter(None, (over, cell if long else ""))))
    return Column(shorten_all((names.head,), limit)[0], tuple(cells), text=True, above=tuple(above))


def _with_heads_cut(columns: list[Column], room: int) -> list[Column]:
    """Cut heads, if one alone is wider than `room`, so that two columns stand side by side."""
    if all(display_width(column.head) <= room for column in columns):
        return columns
    heads = shorten_all([column.head for column in columns], max(room // 2 - 1, LEAST_TEXT))
    return [replace(column, head=head) for column, head in zip(columns, heads, strict=True)]


def _panels(columns: list[Column], named: int, room: int) -> list[list[Column]]:
    """Part columns that do not fit side by side; each panel has the names of the rows."""
    fixed, rest = columns[:named], columns[named:]
    room -= sum(_width(c) + 1 for c in fixed)
    rest = _with_heads_cut(rest, room)
    out: list[list[Column]] = [[]]
    used = 0
    for column in rest:
        needs = _width(column) + 1
        if out[-1] and used + needs - 1 > room:
            out.append([])
            used = 0
        out[-1].append(column)
        used += needs
    return [[*fixed, *panel] for panel in out]


def _body(columns: list[Column], room: int) -> list[str]:
    sides = []
    for column in columns:
        texts = (column.head, *column.cells)
        if column.text:  # text_table pads its columns on the left
            width = max(map(display_width, texts))
            texts = tuple(cell + " " * (width - display_width(cell)) for cell in texts)
        sides.append(texts)
    gap = "  " if sum(_width(c) + 2 for c in columns) - 2 <= room else " "
    head, *lines = text_table(sides, left=0, gap=gap)
    above = columns[0].above or ("",) * len(lines)
    out = [head]
    for line, names in zip(lines, above, strict=True):
        for name in names.splitlines():
            indent = " " * (len(name) - len(name.lstrip()))
            out += wrap(indent, name.strip(), room)
        out.append(line)
    return out


def wrap(label: str, text: str, width: int = WIDTH) -> list[str]:
    """Return the lines of a text after a label, the following ones indented below it."""
    return textwrap.wrap(
        text, width, initial_indent=label, subsequent_indent=" " * len(label),
        break_on_hyphens=False,
    ) or [label.rstrip()]  # fmt: skip


def hanging(text: str, width: int = WIDTH) -> list[str]:
    """Return the lines of a text, those that are too long going on below, two columns further in.

    Examples
    --------
    >>> hanging("engine\\n  eliminated: batch (6 levels)", width=20)
    ['engine', '  eliminated: batch', '    (6 levels)']
    """
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  ",
            break_on_hyphens=False,
        ) or [""]  # fmt: skip
    return lines


def described(rows: list[tuple[str, str]]) -> list[str]:
    """Return the lines of a list of names and texts, which are wrapped beside the names."""
    width = max(display_width(head) for head, _ in rows) + 2
    lines = []
    for head, text in rows:
        label = pad(head, width) + text[: len(text) - len(text.lstrip())]
        lines += wrap(label, text.strip())
    return lines


def as_text(table: Finished, width: int = WIDTH) -> str:
    """Return a table as text of at most `width` columns."""
    shown = bool(table.columns and table.columns[0].cells)
    table = _narrowed(table, width) if shown else table
    lines = textwrap.wrap(table.heading, width)
    longest = max((display_width(label) for label, _ in table.formulas), default=0)
    for label, formula in table.formulas:
        lines += wrap(f"{label}:{' ' * (longest - display_width(label) + 1)}", formula, width)
    if not shown:
        lines.append("(no rows)")
    else:
        for panel in _panels(table.columns, table.named, width):
            lines += _body(panel, width)
    for note in table.notes:
        lines += [note] if note.startswith("[") else wrap("Note: ", note, width)
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------
# Other forms
# ---------------------------------------------------------------------------------------------


def _plain(table: Finished) -> tuple[list[tuple[str, ...]], int]:
    """Return head and cells of each column, and how many of the first are flush left."""
    left = next((i for i, c in enumerate(table.columns) if not c.text), len(table.columns))
    return [(c.head, *c.cells) for c in table.columns], left


def as_html(table: Finished) -> str:
    """Return a table in HTML; everything is escaped."""
    columns, left = _plain(table)
    out = [f"<p><b>{escape(table.heading)}</b></p>"] if table.heading else []
    if table.formulas:
        lines = [f"{escape(k)}: <code>{escape(v)}</code>" for k, v in table.formulas]
        out.append(f"<p>{'<br>'.join(lines)}</p>")
    if columns:
        texts = [i for i, column in enumerate(table.columns) if column.text]
        out.append(html_table(columns, left=left, texts=texts))
    if table.notes:
        out.append(f"<p><small>{'<br>'.join(map(escape, table.notes))}</small></p>")
    return f'<div class="mixlm-table">{"".join(out)}</div>'


def as_markdown(table: Finished) -> str:
    """Return a table in Markdown."""
    columns, left = _plain(table)
    out = [f"**{markdown_text(table.heading)}**", ""] if table.heading else []
    if table.formulas:
        out += [f"- {markdown_text(k)}: `{v}`" for k, v in table.formulas] + [""]
    if columns:
        out += markdown_table(columns, left=left)
    for note in table.notes:
        out += ["", markdown_text(note)]
    return "\n".join(out)


def as_latex(table: Finished) -> str:
    """Return a table in LaTeX; it needs the package booktabs."""
    columns, left = _plain(table)
    out = ["% needs \\usepackage{booktabs}"]
    if table.heading:
        out += [rf"\noindent\textbf{{{latex_text(table.heading)}}}", ""]
    for label, formula in table.formulas:
        out += [rf"\noindent {latex_text(label)}: \texttt{{{latex_text(formula)}}}", ""]
    if columns:
        out += [r"\noindent", *latex_table(columns, left=left)]
    for note in table.notes:
        out += ["", rf"\noindent{{\footnotesize {latex_text(note)}}}"]
    return "\n".join(out)
