"""Numbers and columns as text.

One rule for all tables: a column shows `digits` significant digits of its smallest number, with the
same number of decimals in every row, so that the eye can run down the decimal points.  Where that
would make the column wider than `MAX_WIDTH`, each number is written with `digits` significant
digits of its own, in scientific notation if need be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MAX_WIDTH = 11  # widest fixed-point number; beyond it a column changes to significant digits
NEGLIGIBLE = 1e-12  # a number this far below the largest of its column prints as zero


def decimals_needed(values: Iterable[float], digits: int, negligible: float = NEGLIGIBLE) -> int:
    """Return how many decimals show `digits` significant digits of the smallest number.

    Zeros, missing and infinite numbers have no say, nor has rounding noise: what is below
    `negligible` times the largest number.
    """
    sizes = [abs(v) for v in values if math.isfinite(v) and v != 0.0]
    if not sizes:
        return 0
    floor = max(sizes) * negligible
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


def text_table(
    columns: Sequence[Sequence[str]], *, left: int = 1, indent: str = "", gap: str = " "
) -> list[str]:
    """Return the lines of a table; each column is its header followed by its cells.

    Parameters
    ----------
    columns : equally long sequences of text.
    left : how many of the first columns are flush left; the others are flush right.
    """
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        cells = [
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + gap.join(cells)).rstrip())
    return lines


def abbreviate(name: str, width: int) -> str:
    """Shorten a coefficient name for the head of a correlation matrix.

    Lower-case vowels go first, then the end, so that what tells the names apart stays longest.

    Examples
    --------
    >>> abbreviate("(Intercept)", 6), abbreviate("Days", 6), abbreviate("temperature", 6)
    ('(Intr)', 'Days', 'tmprtr')
    """
    if name == "(Intercept)" and width >= 6:
        return "(Intr)"
    if len(name) <= width:
        return name
    kept = list(name)
    for i in range(len(kept) - 1, 0, -1):
        if len(kept) <= width:
            break
        if kept[i] in "aeiou":
            del kept[i]
    return "".join(kept)[:width]


def truncate(text: str, width: int) -> str:
    """Cut `text` to `width` characters, the last of them an ellipsis where something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"
