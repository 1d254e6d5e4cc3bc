"""Numbers and columns as text.

One rule for all tables: a column shows `digits` significant digits of its smallest number, with the
same number of decimals in every row, so that the eye can run down the decimal points.  Where that
would make the column wider than `MAX_WIDTH`, each number is written with `digits` significant
digits of its own, in scientific notation if need be.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence

MAX_WIDTH = 11  # widest fixed-point number; beyond it a column changes to significant digits
NEGLIGIBLE = 1e-12  # a number this far below the largest of its column prints as zero
ELLIPSIS = "…"
UNIQUE_GROWTH = 4  # characters by which an abbreviation may grow before it is cut otherwise


def decimals_needed(values: Iterable[float], digits: int, negligible: float = NEGLIGIBLE) -> int:
    """Return how many decimals show `digits` significant digits of the smallest number.

    Zeros, missing and infinite numbers have no say, nor has rounding noise: what is below
    `negligible` times the largest number.
    """
    sizes = [abs(v) for v in values if math.isfinite(v) and v != 0.0]
    if not sizes:
        return 0
    # a share of the largest that is a number of the column again counts, however it was rounded
    floor = max(sizes) * negligible * (1.0 - 1e-12)
    smallest = min(s for s in sizes if s >= floor)
    return max(0, digits - 1 - math.floor(math.log10(smallest)))


def format_column(
    values: Sequence[float],
    digits: int = 4,
    *,
    alongside: Sequence[float] = (),
    negligible: float = NEGLIGIBLE,
) -> list[str]:
    """Return `values` as text with common decimals.

    Parameters
    ----------
    values : the numbers; NaN prints as "NaN".
    digits : significant digits of the smallest number.
    alongside : numbers of another column that must share the decimals (estimate and its error).
    negligible : numbers below this share of the largest are rounding noise and print as zero.

    Examples
    --------
    >>> format_column([251.40510, 10.46729], alongside=[6.82456, 1.54579])
    ['251.405', '10.467']
    >>> format_column([1.5e-9, 0.002])
    ['1.5e-09', '0.002']
    """
    together = [*values, *alongside]
    decimals = decimals_needed(together, digits, negligible)
    wide = max((len(f"{v:.{decimals}f}") for v in together if math.isfinite(v)), default=0)
    if wide <= MAX_WIDTH:
        return [_fixed(v, decimals) for v in values]
    return [format_number(v, digits) for v in values]


def format_fixed(values: Sequence[float], decimals: int) -> list[str]:
    """Return `values` with a fixed number of decimals, or in scientific notation where too wide."""
    return [
        text if len(text := _fixed(v, decimals)) <= MAX_WIDTH else f"{v:.{decimals}e}"
        for v in values
    ]


def format_number(value: float, digits: int = 5) -> str:
    """Return one number with `digits` significant digits.

    Examples
    --------
    >>> format_number(1743.62827, 6), format_number(123456789.0), format_number(float("nan"))
    ('1743.63', '1.2346e+08', 'NaN')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return f"{value:.{digits}g}"


def format_criterion(value: float) -> str:
    """Return a criterion with one decimal, as lme4 prints it; very large ones stay exact."""
    return format_number(value) if not math.isfinite(value) else f"{value:.1f}"


def _fixed(value: float, decimals: int) -> str:
    """Return a number with `decimals` decimals; an exact zero is "0", and no zero has a sign."""
    if value == 0.0:
        return "0"
    if not math.isfinite(value):
        return format_number(value)
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0.0 else text


def as_written(value: object) -> str:
    """Return a value as a user would write it: 10000000 for 1e7, 0.1 for 0.1, text as it is.

    Examples
    --------
    >>> as_written(1e7), as_written(2.5), as_written(1 / 3), as_written(1e-9), as_written("a")
    ('10000000', '2.5', '0.333333', '1e-09', 'a')
    """
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    whole = value == round(value) and abs(value) < 1e15
    return f"{value:.0f}" if whole else f"{value:.6g}"


# ---------------------------------------------------------------------------------------------
# Width: what a terminal shows, where a Chinese character takes two columns and an accent none
# ---------------------------------------------------------------------------------------------


def display_width(text: str) -> int:
    """Return how many columns of a terminal `text` takes.

    Examples
    --------
    >>> display_width("Days"), display_width("反应时"), display_width("e\N{COMBINING ACUTE ACCENT}")
    (4, 6, 1)
    """
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int, *, left: bool = True) -> str:
    """Return `text` with blanks up to `width` columns, flush left or flush right."""
    blanks = " " * (width - display_width(text))
    return text + blanks if left else blanks + text


def text_table(
    columns: Sequence[Sequence[str]], *, left: int = 1, indent: str = "", gap: str = " "
) -> list[str]:
    """Return the lines of a table; each column is its header followed by its cells.

    Parameters
    ----------
    columns : equally long sequences of text.
    left : how many of the first columns are flush left; the others are flush right.
    """
    widths = [max(map(display_width, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        cells = [
            pad(cell, width, left=i < left)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + gap.join(cells)).rstrip())
    return lines


# ---------------------------------------------------------------------------------------------
# Names that are too long
# ---------------------------------------------------------------------------------------------


def _start(text: str, width: int) -> str:
    """Return the longest start of `text` that takes at most `width` columns."""
    used = 0
    for place, character in enumerate(text):
        used += _columns(character)
        if used > width:
            return text[:place]
    return text


def _end(text: str, width: int) -> str:
    used = 0
    for place in range(len(text) - 1, -1, -1):
        used += _columns(text[place])
        if used > width:
            return text[place + 1 :]
    return text


def shorten(text: str, width: int) -> str:
    """Cut `text` in the middle to `width` columns: names often differ at their ends.

    Examples
    --------
    >>> shorten("How satisfied are you (staff)", 19)
    'How satis…u (staff)'
    """
    if display_width(text) <= width:
        return text
    room = max(width - 1, 0)
    return _start(text, room - room // 2) + ELLIPSIS + _end(text, room // 2)


def in_brackets(text: str, width: int = 80) -> str:
    """Return what stands for an object that is no result, on one line.

    Examples
    --------
    >>> in_brackets("Optimum: converged")
    '<Optimum: converged>'
    """
    return f"<{shorten(text, width - 2)}>"


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Cut names in the middle to `width` columns; different names stay different.

    Names whose cut forms agree show where they differ, and if that does not do, they are numbered.

    Examples
    --------
    >>> shorten_all(["group of patients A, first visit", "group of patients B, first visit"], 16)
    ['…nts A, …t visit', '…nts B, …t visit']
    """
    return _distinct(names, [_cutter(shorten, width), _from_difference(names, width)], width)


def abbreviate_all(names: Sequence[str], width: int) -> list[str]:
    """Shorten names for the head of a correlation matrix; different names stay different.

    Lower-case vowels go first, then the end.  Names that then agree may be a little longer than
    `width`, and if that does not do, they are cut in the middle.

    Examples
    --------
    >>> abbreviate_all(["(Intercept)", "temperature", "treatment_a", "treatment_b"], 6)
    ['(Intr)', 'tmprtr', 'tre…_a', 'tre…_b']
    """
    widths = range(width, width + UNIQUE_GROWTH + 1)
    ways = [_cutter(cut, w) for w in widths for cut in (abbreviate, shorten)]
    wide = width + UNIQUE_GROWTH
    return _distinct(names, [*ways, _from_difference(names, wide)], wide)


def _cutter(cut: Callable[[str, int], str], width: int) -> Callable[[str], str]:
    return lambda name: cut(name, width)


def _from_difference(names: Sequence[str], width: int) -> Callable[[str], str]:
    """Return a cut that begins shortly before the place where names with one short form differ."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(shorten(name, width), []).append(name)

    def cut(name: str) -> str:
        others = alike[shorten(name, width)]
        first, last = min(others), max(others)
        same = next(
            (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
            min(len(first), len(last)),
        )
        return ELLIPSIS + shorten(name[max(same - 4, 0) :], width - 1)

    return cut


def _distinct(names: Sequence[str], ways: Sequence[Callable[[str], str]], width: int) -> list[str]:
    """Return each name by the first of the ways in which no other name looks the same."""
    out: dict[str, str] = {}
    waiting = list(dict.fromkeys(names))
    for way in ways:
        made = {name: way(name) for name in waiting}
        counts: dict[str, int] = {}
        for text in [*made.values(), *out.values()]:
            counts[text] = counts.get(text, 0) + 1
        out |= {name: text for name, text in made.items() if counts[text] == 1}
        waiting = [name for name in waiting if name not in out]
    taken = set(out.values())
    for name in waiting:
        number = 1
        while (text := _start(name, width - len(f"~{number}")) + f"~{number}") in taken:
            number += 1
        out[name] = text
        taken.add(text)
    return [out[name] for name in names]


def abbreviate(name: str, width: int) -> str:
    """Shorten a coefficient name; see `abbreviate_all`, which keeps several names apart.

    Examples
    --------
    >>> abbreviate("(Intercept)", 6), abbreviate("Days", 6), abbreviate("temperature", 6)
    ('(Intr)', 'Days', 'tmprtr')
    """
    if name == "(Intercept)" and width >= 6:
        return "(Intr)"
    if display_width(name) <= width:
        return name
    kept = list(name)
    for i in range(len(kept) - 1, 0, -1):
        if display_width("".join(kept)) <= width:
            break
        if kept[i] in "aeiou":
            del kept[i]
    return _start("".join(kept), width)


def percent(level: float) -> str:
    """Return a level as text: 95%."""
    return f"{100 * level:.4g}%"


def printable(text: str) -> str:
    """Return `text` with lone surrogates, which no stream can print, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def see(page: str) -> str:
    """Return the end of a message: how to read its page."""
    return f'. See mx.explain("{page}")'
