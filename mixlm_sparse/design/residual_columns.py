"""Columns of a residual structure as levels, numbers, times and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.correlation import Correlation, Places
from mixlm_sparse.covariance.visits import Toeplitz, Unstructured
from mixlm_sparse.design.evaluate import FactorValue
from mixlm_sparse.design.levels import factorize, level_labels
from mixlm_sparse.design.table import Column
from mixlm_sparse.design.times import EXACT, in_time, is_text, warn_of_order

__all__ = ["combined", "learn_times", "matched", "new_times", "numbers"]

MOST_VISITS = 2000
LARGEST = 1e100  # of numbers whose squares are summed


# -- levels --------------------------------------------------------------------------------------


def _levels(
    column: Column, *, times: bool = False
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return codes (n,) and names of all levels of a column, in their order (in time)."""
    if column.kind == "membership":
        raise DataError(
            f"'{column.name}' is a membership, several levels a row: residuals are grouped by a "
            "column with one"
        )
    if column.kind == "factor" and times and is_text(column):
        value = in_time(FactorValue(column.values, column.levels))
        return value.codes.astype(np.intp), level_labels(value.levels)
    if column.kind == "factor":
        return column.values.astype(np.intp), level_labels(column.levels)
    codes, levels = factorize(column.values)
    return codes.astype(np.intp), level_labels(levels)


def _used(
    codes: NDArray[np.intp], labels: tuple[str, ...]
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Leave out levels without rows."""
    present = np.bincount(codes, minlength=len(labels)) > 0
    place = np.cumsum(present) - 1
    kept = tuple(label for label, here in zip(labels, present.tolist(), strict=True) if here)
    return place[codes], kept


def combined(
    names: Sequence[str], columns: Mapping[str, Column]
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return codes (n,) and names of the combinations of levels that occur, first one slowest."""
    codes, labels = _used(*_levels(columns[names[0]]))
    for name in names[1:]:
        more, further = _used(*_levels(columns[name]))
        both = codes * len(further) + more
        all_labels = tuple(f"{a}:{b}" for a in labels for b in further)
        codes, labels = _used(both, all_labels)
    return codes, labels


def matched(
    names: Sequence[str], columns: Mapping[str, Column], known: tuple[str, ...], what: str
) -> NDArray[np.intp]:
    """Return the codes of new rows among levels of the fit."""
    codes, labels = combined(names, columns)
    place = {label: i for i, label in enumerate(known)}
    unknown = [label for label in labels if label not in place]
    if unknown:
        raise DataError(
            f"{what} '{':'.join(names)}' has levels that the fit does not know: "
            f"{listed(unknown, 5)}; there are {listed(known, 8)}"
        )
    return np.array([place[label] for label in labels], dtype=np.intp)[codes]


def numbers(name: str, column: Column, role: str, remedy: str) -> Vector:
    if column.kind not in ("number", "bool"):
        what = "dates" if column.kind == "datetime" else "text"
        raise DataError(f"{role} '{name}' holds {what}, but must be numbers: {remedy}")
    values = column.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{role} '{name}' holds infinite values: correct them, or drop the rows")
    size = float(np.abs(values).max(initial=0.0))
    if size > LARGEST:
        raise DataError(
            f"{role} '{name}' holds values of {size:.0e}, whose squares and sums exceed the "
            "numbers of a computer: change its unit"
        )
    return values


# -- times ---------------------------------------------------------------------------------------


def _whole(name: str, column: Column, correlation: Correlation) -> Vector:
    kind = type(correlation).__name__
    role = f"the time of {kind}"
    if column.kind == "datetime":
        raise DataError(
            f"{role} '{name}' holds dates: number the visits (a factor or whole numbers), or use "
            "CAR1 with the days between them as numbers"
        )
    values = numbers(name, column, role, "use a factor of visits, or whole numbers")
    odd = values[values != np.round(values)]
    if odd.size:
        remedy = (
            "use CAR1 or Exponential, which take times of any kind"
            if correlation.time_kind == "whole"
            else "make it a factor of visits"
        )
        raise DataError(
            f"{role} '{name}' holds {odd[0]:g}, which is no whole number: {remedy}, or number the "
            "visits"
        )
    if np.abs(values).max(initial=0.0) >= EXACT:
        raise DataError(
            f"{role} '{name}' holds whole numbers beyond 2^53, which cannot be told apart: count "
            "from the first, or number the visits"
        )
    return values


def learn_times(
    correlation: Correlation, columns: Mapping[str, Column], n: int, *, warn: bool = False
) -> tuple[NDArray[np.float64], Places, tuple[float, float]]:
    """Return the place of every row, what was learned, and the unit of whole numbers."""
    kind = correlation.time_kind
    none = (0.0, 1.0)
    if kind == "none":
        return np.zeros(n), Places(), none
    if kind == "position":
        return _positions(correlation, columns), Places(), none
    name = correlation.columns("time")[0]
    column = columns[name]
    if kind == "number":
        role = f"the time of {type(correlation).__name__}"
        remedy = "convert it, for example to days since the start"
        if column.kind == "factor":
            remedy = "convert it, or use AR1, which takes a factor of visits"
            groups = correlation.columns("group")
            if len(groups) == 1 and columns[groups[0]].kind == "number":
                named = f"{type(correlation).__name__}(time={groups[0]!r}, group={name!r})"
                remedy = f"the time comes first, and then the group: {named}"
        return numbers(name, column, role, remedy), Places(), none
    keeps_gaps = kind == "whole" or isinstance(correlation, Toeplitz)
    if column.kind == "factor":
        codes, labels = _levels(column, times=True)
        if warn and is_text(column) and not isinstance(correlation, Unstructured):
            warn_of_order(name, _used(codes, labels)[1], type(correlation).__name__)
        if not keeps_gaps:
            codes, labels = _used(codes, labels)
        elif isinstance(correlation, Toeplitz):
            low, high = int(codes.min()), int(codes.max())
            codes, labels = codes - low, labels[low : high + 1]
        return codes.astype(np.float64), Places(labels), none
    values = _whole(name, column, correlation)
    if kind == "whole":
        return values, Places(), none
    distinct = np.unique(values)
    if isinstance(correlation, Toeplitz) and distinct.size > 1:
        unit = float(np.gcd.reduce(np.diff(distinct).astype(np.int64)))
        first = float(distinct[0])
        count = round((float(distinct[-1]) - first) / unit) + 1
        if count > MOST_VISITS:
            raise DataError(
                f"the time '{name}' of Toeplitz spans {count:,} steps of {unit:g}, and each lag is "
                f"a parameter: at most {MOST_VISITS:,} are taken; number the visits"
            )
        visits = first + unit * np.arange(count)
        return (
            (values - first) / unit,
            Places(level_labels(visits), tuple(visits.tolist())),
            (first, unit),
        )
    places = Places(level_labels(distinct), tuple(distinct.tolist()))
    return np.searchsorted(distinct, values).astype(np.float64), places, none


def _positions(correlation: Correlation, columns: Mapping[str, Column]) -> NDArray[np.float64]:
    role = f"the position of {type(correlation).__name__}"
    return np.column_stack(
        [
            numbers(name, columns[name], role, "convert it to coordinates")
            for name in correlation.columns("position")
        ]
    )


def new_times(
    correlation: Correlation, places: Places, columns: Mapping[str, Column], n: int
) -> NDArray[np.float64]:
    """Return the places of new rows, visits as the fit numbers them."""
    kind = correlation.time_kind
    if kind in ("none", "position", "number") or (kind == "whole" and not places.labels):
        return learn_times(correlation, columns, n)[0]
    name = correlation.columns("time")[0]
    if columns[name].kind != "factor" and places.visits:
        values = _whole(name, columns[name], correlation)
        visits = np.asarray(places.visits)
        at = np.searchsorted(visits, values)
        at = np.minimum(at, visits.size - 1)
        off = values[visits[at] != values]
        if off.size:
            raise DataError(
                f"the time '{name}' has a visit {off[0]:g} that the fit does not know: there are "
                f"{listed(places.labels, 8)}"
            )
        return at.astype(np.float64)
    return matched((name,), columns, places.labels, "the time").astype(np.float64)


