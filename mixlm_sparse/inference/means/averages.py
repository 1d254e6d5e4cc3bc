"""Averages of the rows of a reference grid over the factors that are not named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.estimable import estimable, warn_not_estimable
from mixlm_sparse.inference.means.grid import ReferenceGrid
from mixlm_sparse.model.fitted import FittedModel

WEIGHTS = ("equal", "proportional", "outer", "cells", "flat")


@dataclass(frozen=True, eq=False, slots=True)
class Averages:
    """Rows of the grid, averaged.

    Parameters
    ----------
    cells : (r) values of the predictors named.
    L : (r, p_all); offset : (r,).
    averaged_over : factors averaged over.
    at : values at which the others are held; of several, the mean is taken.
    """

    cells: pd.DataFrame
    L: Matrix
    offset: Vector
    averaged_over: tuple[str, ...]
    at: dict[str, tuple[Any, ...]]


def averages(
    fit: FittedModel, grid: ReferenceGrid, names: tuple[str, ...], weights: str,
    *, warn: bool = True,
) -> Averages:  # fmt: skip
    """Average the grid over the factors that are not among `names`, the first of which is fastest.

    Parameters
    ----------
    weights : "equal" for each level; "proportional" to the rows with each combination of the
        factors averaged over; "outer", to the products of the rows with each of their levels;
        "cells", to the rows of each cell itself; "flat", equal for cells that have rows.
    warn : of averages that are not estimable.
    """
    require_one_of("weights", weights, WEIGHTS)
    rest = [name for name in grid.predictors if name not in names]
    over = tuple(
        name
        for name in rest
        if grid.predictors[name].categorical
        and len(grid.predictors[name].values) > 1
        and not any(name in grid.within.get(inner, ()) for inner in names)
    )
    share = _shares(grid, names, over, weights) if over else np.ones(grid.size)
    sizes = [len(grid.predictors[name].values) for name in names]
    place = np.zeros(grid.size, dtype=np.int64)
    if names:
        place = np.ravel_multi_index([grid.codes[name] for name in names], sizes, order="F")
    # combinations that nesting rules out have no row in the table
    exist, place = np.unique(place, return_inverse=True)
    L, offset = np.zeros((exist.size, grid.X.shape[1])), np.zeros(exist.size)
    total = np.bincount(place, weights=share, minlength=exist.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = share / total[place]
    counted = share > 0.0  # a cell that does not occur does not make an average inestimable
    np.add.at(L, place[counted], grid.X[counted] * share[counted, None])
    np.add.at(offset, place[counted], grid.offset[counted] * share[counted])
    L[total == 0.0] = np.nan
    cells = _cells(grid, names, exist)
    if warn:
        _warn_of_cells(fit, grid, cells, L, place, counted)
    held = {
        name: grid.predictors[name].values
        for name in rest
        if name not in over
    }
    return Averages(cells, L, offset, over, held)


def _shares(
    grid: ReferenceGrid, names: tuple[str, ...], over: tuple[str, ...], weights: str
) -> Vector:
    """Return the weight of each cell of the grid before it is scaled, (cells,)."""
    if weights == "equal":
        return np.ones(grid.size)
    if weights == "proportional":
        return _rows_in(grid, over)
    if weights == "outer":
        out = np.ones(grid.size)
        for name in over:
            out = out * _rows_in(grid, (name,))
        return out
    factors = tuple(name for name in (*names, *over) if grid.predictors[name].categorical)
    found = _rows_in(grid, factors)
    return (found > 0.0).astype(np.float64) if weights == "flat" else found


def _rows_in(grid: ReferenceGrid, factors: tuple[str, ...]) -> Vector:
    """Return for each cell how often its combination of these factors occurs in the data."""
    sizes = [len(grid.predictors[name].values) for name in factors]
    in_data = np.array([grid.predictors[name].codes() for name in factors])
    there = (in_data >= 0).all(axis=0)
    rows = np.ravel_multi_index(list(in_data[:, there]), sizes, order="F")
    each = grid.predictors[factors[0]].counts if factors else None
    counts = np.bincount(
        rows, None if each is None else each[there], minlength=int(np.prod(sizes))
    )
    cells = np.ravel_multi_index([grid.codes[name] for name in factors], sizes, order="F")
    out: Vector = counts[cells].astype(np.float64)
    return out


def _cells(grid: ReferenceGrid, names: tuple[str, ...], exist: np.ndarray) -> pd.DataFrame:
    """Return the values of predictors for combinations given by number, the first one fastest."""
    sizes = [len(grid.predictors[name].values) for name in names]
    codes = np.unravel_index(exist, sizes, order="F") if names else ()
    return pd.DataFrame(
        {
            name: [grid.predictors[name].values[i] for i in own.tolist()]
            for name, own in zip(names, codes, strict=True)
        },
        index=range(exist.size),
    )


def _warn_of_cells(
    fit: FittedModel,
    grid: ReferenceGrid,
    cells: pd.DataFrame,
    L: Matrix,
    place: np.ndarray,
    counted: np.ndarray,
) -> None:
    """Warn of rows of the table that are not estimable, and name the cells that make them so."""
    missed = np.flatnonzero(~estimable(fit, L))
    if not missed.size:
        return
    labels = [
        ", ".join(f"{name} = {cells[name].iloc[i]}" for name in cells.columns) or "the mean"
        for i in missed.tolist()
    ]
    unknown = counted & np.isin(place, missed) & ~estimable(fit, grid.X)
    empty = [grid.label(cell) for cell in np.flatnonzero(unknown)[:3].tolist()]
    names = "; ".join(text for text in empty if text) or "columns of X"
    warn_not_estimable(
        fit,
        labels,
        f"the data do not determine {names}: average over what occurs with "
        "weights='proportional', fix levels with at=, or remove an interaction from the formula",
    )
