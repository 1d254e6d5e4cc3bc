"""Columns of text that may be meant otherwise: numbers and dates in words, cells that are empty.

Text is a factor, as in R.  A factor of `64.1`, `77.6`, ... fits without an error, with a
coefficient for every number, and an empty text is a level like others; both are said.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import FormulaWarning, caller_level
from mixlm_sparse.common.text import see
from mixlm_sparse.design.columns import Part
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.table import Column
from mixlm_sparse.design.times import is_text
from mixlm_sparse.formula.syntax import Name, deparse
from mixlm_sparse.formula.terms import FixedPart

__all__ = [
    "removal_messages", "text_messages", "warn_of_levels", "warn_of_removals", "warn_of_texts",
]  # fmt: skip

# A number, perhaps with a unit of a few characters behind it.
NUMBER = re.compile(
    r"\s*[-+]?(?:\d+(?P<mark>[.,])?\d*|(?P<first>[.,])\d+)(?:[eE][-+]?\d+)?\s*\D{0,4}"
)
DATE = re.compile(r"\s*(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})\b.*")
MOST = 0.9  # if so large a share of the levels are numbers, the column is one of numbers
FEWEST = 8  # levels below which a factor may well be called by numbers
ROWS_A_LEVEL = 2.0  # whole numbers that repeat less are no levels
PAGE = see("text-columns")
# What programs write into cells that are missing.
MISSING = ("", " ", "<NA>", "N/A", "NULL", "NaN", "NaT", "n/a", "nan", "null")


def text_messages(matrices: ModelMatrices) -> list[str]:
    """Return messages about columns of text that the model takes as factors."""
    if matrices.spec is None or matrices.data is None:
        return []
    columns = matrices.data.table.columns
    texts = {
        name: columns[name]
        for name in matrices.spec.formula.names
        if name in columns and is_text(columns[name])
    }
    if not texts:
        return []
    found = [_missing_message(column) for column in texts.values()]
    found += [
        _number_message(texts[name], matrices.nobs)
        for name in dict.fromkeys(_predictors(matrices))
        if name in texts
    ]
    return [message for message in found if message]


def removal_messages(fixed: FixedPart) -> list[str]:
    """Return messages about terms that the formula takes away and does not have."""
    return [
        f"the formula takes away {deparse(expr)}, which it does not have: leave it out, or check "
        "its name"
        for expr in fixed.missed
    ]


def warn_of_removals(fixed: FixedPart) -> None:
    """Emit the messages as warnings."""
    for message in removal_messages(fixed):
        warnings.warn(message, FormulaWarning, stacklevel=caller_level())


def warn_of_texts(matrices: ModelMatrices) -> None:
    """Emit the messages as warnings."""
    for message in text_messages(matrices):
        warnings.warn(message, FormulaWarning, stacklevel=caller_level())


def warn_of_levels(parts: Iterable[Part], columns: Mapping[str, Column], nobs: float) -> None:
    """Emit warnings of rows that come in batches: levels are known, not how many rows have them.

    Parameters
    ----------
    parts : the columns of the fixed part and of random terms, with their levels.
    columns : of some of the rows.
    nobs : rows of the fit.
    """
    said = set()
    for name, levels in _by_name(parts):
        if name in said or name not in columns or not is_text(columns[name]):
            continue
        said.add(name)
        whole = Column(name, "factor", np.empty(0, dtype=np.int32), levels=levels)
        if message := _number_message(whole, nobs):
            warnings.warn(message, FormulaWarning, stacklevel=caller_level())


def _predictors(matrices: ModelMatrices) -> Iterator[str]:
    """Yield the columns that stand in the fixed part and in random terms by their name alone."""
    spec: Any = matrices.spec
    for name, _ in _by_name((spec.fixed, *(term.part for term in spec.terms))):
        yield name


def _by_name(parts: Iterable[Part]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the columns that stand in the parts by their name alone, with their levels."""
    for part in parts:
        for operands in part.terms:
            yield from ((o.variable.id, o.levels) for o in operands if isinstance(o.variable, Name))


def _missing_message(column: Column) -> str:
    levels: NDArray[Any] = np.asarray(column.levels, dtype=object)  # sorted
    if not levels.size or not isinstance(levels[0], str):
        return ""
    places = np.searchsorted(levels, np.array(MISSING, dtype=object))
    found = [
        (mark, place)
        for mark, place in zip(MISSING, places.tolist(), strict=True)
        if place < levels.size and levels[place] == mark
    ]
    if not found:
        return ""
    marks = listed([repr(mark) for mark, _ in found])
    rows = int(np.isin(column.values, [place for _, place in found]).sum())
    one = len(found) == 1
    return (
        f"'{column.name}' is text with the level{'' if one else 's'} {marks} in {rows} "
        f"row{'' if rows == 1 else 's'}, {'a level' if one else 'levels'} like others: make these "
        f"cells missing (None), if nothing is known there, or the column a categorical{PAGE}"
    )


def _number_message(column: Column, nobs: float) -> str:
    levels = [str(level) for level in column.levels]
    if len(levels) < FEWEST:
        return ""
    matches = [NUMBER.fullmatch(level) for level in levels]
    numbers = sum(match is not None for match in matches)
    fractions = any(match is not None and (match["mark"] or match["first"]) for match in matches)
    dates = sum(DATE.fullmatch(level) is not None for level in levels)
    if dates >= MOST * len(levels):
        what, to = "dates", "to dates, and these to a number such as days since the start"
        others = [level for level in levels if DATE.fullmatch(level) is None]
    elif numbers >= MOST * len(levels) and (fractions or ROWS_A_LEVEL * len(levels) > nobs):
        what, to = "numbers", "to numbers"
        others = [level for level, at in zip(levels, matches, strict=True) if at is None]
    else:
        return ""
    examples = [level for level in levels if level not in others]
    besides = f", besides {listed([repr(level) for level in others], 4)}" if others else ""
    return (
        f"'{column.name}' is text and stands in the formula as a factor with {len(levels)} levels, "
        f"which are {what} such as {listed([repr(level) for level in examples[:3]])}{besides}: "
        f"convert the column {to}, or write factor({deparse(Name(column.name))}) if they are levels"
        f"{PAGE}"
    )
