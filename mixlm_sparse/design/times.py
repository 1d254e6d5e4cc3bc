"""Times of structures: the order of levels that are text, and where columns stand in time.

A factor keeps the order of its levels.  Text has none: where it is one number in the same words,
such as t1, t2, t10, the number decides; elsewhere numbers inside of texts sort as numbers, and a
warning says what order was taken.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError, FormulaWarning, caller_level
from mixlm_sparse.design.evaluate import FactorValue
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.table import Column

__all__ = ["EXACT", "in_time", "is_text", "places_of", "warn_of_order"]

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
UNIT_RTOL = 1e-6  # times are multiples of their smallest step up to this share of it
EXACT = 2**53  # whole numbers below are what they seem to be
MAX_PLACES = 10**9  # so many steps are no autoregression


def is_text(column: Column | None) -> bool:
    """Say whether the levels of a column are text that was sorted, not categories with an order."""
    if column is None or column.kind != "factor":
        return False
    declared = isinstance(column.levels, pd.Index) or getattr(column.levels, "declared", False)
    return not declared


def in_time(value: FactorValue) -> FactorValue:
    """Return a factor of text with its levels in the order of the numbers in them."""
    labels = level_labels(value.levels)
    order = np.array(sorted(range(len(labels)), key=lambda i: _key(labels[i])), dtype=np.intp)
    if (order == np.arange(order.size)).all():
        return value
    rank = np.empty(order.size + 1, dtype=np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    rank[-1] = -1  # missing
    levels = np.asarray(value.levels, dtype=object)[order]
    return FactorValue(rank[value.codes], levels, value.ordered, value.contrast)


def _key(label: str) -> tuple[tuple[int, float, str], ...]:
    return tuple(
        (0, float(piece), "") if place % 2 else (1, 0.0, piece)
        for place, piece in enumerate(_NUMBER.split(label))
    )


def warn_of_order(name: str, labels: Sequence[str], structure: str) -> None:
    """Warn that times are text, and of the order that was taken, unless numbers say it."""
    pieces = [_NUMBER.split(label) for label in labels]
    words = {tuple(piece[::2]) for piece in pieces}
    if len(words) == 1 and all(len(piece) == 3 for piece in pieces):
        return
    warnings.warn(
        f"the times '{name}' of {structure} are text, taken in the order "
        f"{' < '.join(labels[:8])}{' < ...' if len(labels) > 8 else ''}: make the column a "
        "categorical, pd.Categorical(values, categories=[...]), to say another order, or this one",
        FormulaWarning,
        stacklevel=caller_level(),
    )


def places_of(levels: Any, used: NDArray[np.bool_] | None, numbers: bool) -> tuple[int, ...]:
    """Return where the levels that occur stand in time, whole numbers from 0 on.

    Parameters
    ----------
    levels : values of all levels, in order.
    used : which of them occur; None for all.
    numbers : whether they are times that are numbers: then what is between them counts, in the
        greatest common divisor of whole numbers and in the smallest step of others; else a level
        is a step, also one without rows.

    Raises
    ------
    DataError : numbers that are not equally spaced, up to gaps.
    """
    at = np.arange(len(levels)) if used is None else np.flatnonzero(used)
    if not numbers or at.size < 2:
        return tuple((at - at[:1]).tolist())
    times = np.asarray(levels, dtype=np.float64)[at]
    with np.errstate(over="ignore"):
        steps = np.diff(times)
    whole = (times == np.round(times)).all() and np.abs(times).max() < EXACT
    unit = float(np.gcd.reduce(steps.astype(np.int64)) if whole else steps.min())
    with np.errstate(all="ignore"):  # what overflows is no place either
        since = times - times[0]
        places = np.round(since / unit)
        near = np.abs(places * unit - since).max() <= UNIT_RTOL * unit
    if not (places[-1] <= MAX_PLACES and near):
        odd = listed(level_labels(times), 4)
        raise DataError(
            f"times must be equally spaced, up to gaps, and are {odd}: write factor(...) around "
            "them for one step from each to the next, or use residual=mx.CAR1(...), which takes "
            "any times"
        )
    return tuple(int(place) for place in places)
