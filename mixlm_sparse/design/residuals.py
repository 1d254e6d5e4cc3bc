"""Columns of the residual structure: from names and rows to a law.

What the fit learns (visits in their order, levels of strata and of variances, a typical distance)
is kept as `ResidualState`, with which new rows are read later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.correlation import Correlation, Places
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.variance import Values, VarianceFunction, VarIdent, VarPower
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.residual_checks import require_carried, typical_distance
from mixlm_sparse.design.residual_columns import (
    combined,
    learn_times,
    matched,
    new_times,
    numbers,
)
from mixlm_sparse.design.table import Column

__all__ = [
    "ResidualState", "columns_of_residuals", "learn_residuals", "read_residuals",
    "require_structures",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class ResidualState:
    """The residual structure of a fit as it reads rows.

    Parameters
    ----------
    correlation, variance : as the user wrote them.
    places : visits and scales learned.
    step : for times that are whole numbers, (first, unit): place = (time - first) / unit.
    strata : labels of the levels of `by`; ("",) without.
    values : levels and scale of the variance function.
    """

    correlation: Correlation | None
    variance: VarianceFunction | None
    places: Places
    step: tuple[float, float]
    strata: tuple[str, ...]
    values: Values


def require_structures(residual: object, variance: object) -> None:
    """Raise an OptionError unless these are structures of residuals, or None."""
    if residual is not None and not isinstance(residual, Correlation):
        raise OptionError(
            f"residual is {shown(residual)}: use a structure such as "
            'mx.AR1(time="visit", group="patient")'
        )
    if variance is not None and not isinstance(variance, VarianceFunction):
        raise OptionError(
            f"variance is {shown(variance)}: use mx.VarIdent(by=...), "
            "mx.VarPower(covariate=...) or mx.VarExp(covariate=...)"
        )


def columns_of_residuals(
    correlation: Correlation | None, variance: VarianceFunction | None
) -> tuple[str, ...]:
    """Return the names of the columns that the residual structure reads."""
    names = () if correlation is None else correlation.all_columns
    return tuple(dict.fromkeys(names + (() if variance is None else variance.columns)))


# -- laws ----------------------------------------------------------------------------------------


def learn_residuals(
    correlation: Correlation | None,
    variance: VarianceFunction | None,
    columns: Mapping[str, Column],
    n: int,
    weights: Vector | None,
    *,
    warn: bool = True,
) -> tuple[ResidualLaw, ResidualState] | tuple[None, None]:
    """Read the residual structure of the rows of a fit, and learn what reads new rows.

    Both are None for independent residuals without a variance function.

    Parameters
    ----------
    columns : without missing cells, on the rows used.
    warn : of times that are text, whose order is a guess.

    Raises
    ------
    DataError : times that occur twice in a group, that are no (whole) numbers, strata that are not
        constant in a group, parameters that the data do not carry.
    """
    if correlation is None and variance is None:
        return None, None
    t, places, step = np.zeros(0), Places(), (0.0, 1.0)
    strata: tuple[str, ...] = ("",)
    group, of_row = np.arange(n), np.zeros(n, dtype=np.intp)
    if correlation is not None:
        t, places, step = learn_times(correlation, columns, n, warn=warn)
        group = _groups(correlation, columns, n)
        if correlation.columns("by"):
            of_row, strata = combined(correlation.columns("by"), columns)
    values, x = _learn_variance(variance, columns, n)
    law = _law(correlation, places, t, group, of_row, strata, variance, values, x, weights, columns)
    if correlation is not None:
        largest = int(law.sizes.max())
        places = Places(places.labels, places.visits, typical_distance(correlation, law), largest)
        law = _law(
            correlation, places, t, group, of_row, strata, variance, values, x, weights, columns
        )
        require_carried(correlation, law)
    return law, ResidualState(correlation, variance, places, step, strata, values)


def read_residuals(
    state: ResidualState, columns: Mapping[str, Column], n: int, weights: Vector | None
) -> ResidualLaw:
    """Return the law of new rows, with the parameters of the fit.

    Raises
    ------
    DataError : as `learn_residuals`, and for levels that the fit does not know.
    """
    correlation, variance = state.correlation, state.variance
    t, group, of_row = np.zeros(0), np.arange(n), np.zeros(n, dtype=np.intp)
    if correlation is not None:
        t = new_times(correlation, state.places, columns, n)
        group = _groups(correlation, columns, n)
        if correlation.columns("by"):
            of_row = matched(correlation.columns("by"), columns, state.strata, "by")
    x: NDArray[Any] = np.zeros(0)
    if isinstance(variance, VarIdent):
        x = matched(variance.columns, columns, state.values.levels, "the variance's")
    elif variance is not None:
        x = _covariate(variance, columns)
    return _law(
        correlation, state.places, t, group, of_row, state.strata, variance, state.values, x,
        weights, columns,
    )  # fmt: skip


def _groups(
    correlation: Correlation, columns: Mapping[str, Column], n: int
) -> NDArray[np.intp]:
    names = correlation.columns("group")
    return combined(names, columns)[0] if names else np.zeros(n, dtype=np.intp)


def _law(
    correlation: Correlation | None,
    places: Places,
    t: NDArray[np.float64],
    group: NDArray[np.intp],
    of_row: NDArray[np.intp],
    strata: tuple[str, ...],
    variance: VarianceFunction | None,
    values: Values,
    x: NDArray[Any],
    weights: Vector | None,
    columns: Mapping[str, Column],
) -> ResidualLaw:
    keys: list[Vector] = []
    if correlation is not None:
        keys = list((t.T if t.ndim == 2 else t[None])[::-1])
    order = np.lexsort((*keys, group))
    counts = np.bincount(group) if group.size else np.zeros(0, dtype=np.intp)
    starts = np.append(0, np.cumsum(counts)).astype(np.intp)
    stratum = np.zeros(counts.size, dtype=np.intp)
    if correlation is not None:
        _require_distinct(correlation, t, order, group, columns)
        stratum[group] = of_row
        if (stratum[group] != of_row).any():
            row = int(np.flatnonzero(stratum[group] != of_row)[0])
            raise DataError(
                f"by='{':'.join(correlation.columns('by'))}' changes within group "
                f"{_label_of(correlation, columns, row)}: the levels of by must be constant in a "
                "group"
            )
    return ResidualLaw(
        n=int(group.size), correlation=correlation, places=places, t=t, order=order, starts=starts,
        strata=strata, stratum=stratum, variance=variance, values=values, x=x, weights=weights,
    )  # fmt: skip


def _label_of(correlation: Correlation, columns: Mapping[str, Column], row: int) -> str:
    names = correlation.columns("group")
    if not names:
        return "of all rows"
    codes, labels = combined(names, columns)
    return f"'{labels[codes[row]]}' of '{':'.join(names)}'"


def _require_distinct(
    correlation: Correlation,
    t: NDArray[np.float64],
    order: NDArray[np.intp],
    group: NDArray[np.intp],
    columns: Mapping[str, Column],
) -> None:
    if correlation.time_kind == "none" or order.size < 2:
        return
    sorted_t, sorted_group = t[order], group[order]
    same = sorted_t[1:] == sorted_t[:-1]
    if same.ndim == 2:
        same = same.all(axis=1)
    twice = np.flatnonzero(same & (sorted_group[1:] == sorted_group[:-1]))
    if not twice.size:
        return
    row = int(order[twice[0]])
    argument = correlation.place_argument
    names = correlation.columns(argument)
    where = ", ".join(
        f"{name} = {_cell(columns[name], row)}" for name in names
    )
    number = twice.size
    raise DataError(
        f"group {_label_of(correlation, columns, row)} has two rows at {where}"
        f"{f' ({number} such pairs in all)' if number > 1 else ''}: {type(correlation).__name__} "
        f"needs one row for each {argument} in a group; drop or average repeats, or name further "
        "columns in group"
    )


def _cell(column: Column, row: int) -> str:
    value = column.values[row]
    if column.kind == "factor":
        return level_labels([column.levels[int(value)]])[0]
    return level_labels([value])[0]


def _covariate(variance: VarianceFunction, columns: Mapping[str, Column]) -> Vector:
    name, kind = variance.columns[0], type(variance).__name__
    x = numbers(name, columns[name], f"the covariate of {kind}", "use VarIdent(by=...) for levels")
    if isinstance(variance, VarPower):
        if (x == 0.0).any():
            raise DataError(
                f"the covariate '{name}' of VarPower is zero in {int((x == 0.0).sum())} rows, "
                "where a power is zero or infinite: use VarExp, or shift the covariate"
            )
        return np.log(np.abs(x))
    return x


def _learn_variance(
    variance: VarianceFunction | None, columns: Mapping[str, Column], n: int
) -> tuple[Values, NDArray[Any]]:
    if variance is None:
        return Values(), np.zeros(0)
    kind = type(variance).__name__
    if isinstance(variance, VarIdent):
        codes, levels = combined(variance.columns, columns)
        by = ":".join(variance.columns)
        if len(levels) < 2:
            raise DataError(f"'{by}' of VarIdent has one level: leave variance out")
        counts = np.bincount(codes)
        if int(counts.min()) < 2:
            few = levels[int(np.argmin(counts))]
            raise DataError(
                f"level '{few}' of '{by}' has one row, from which VarIdent cannot tell a standard "
                "deviation: combine levels"
            )
        return Values(levels), codes
    x = _covariate(variance, columns)
    spread = float(x.std())
    if not spread > 1e-12 * max(float(np.abs(x).max()), 1e-300):
        raise DataError(
            f"the covariate '{variance.columns[0]}' of {kind} is constant: leave variance out"
        )
    return Values((), spread), x
