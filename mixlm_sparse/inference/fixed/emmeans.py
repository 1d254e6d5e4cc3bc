"""Estimated marginal means and marginal slopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_level, require_names, require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.estimable import estimable, warn_not_estimable
from mixlm_sparse.inference.fixed.grid import ReferenceGrid, reference_grid, rows_of_design
from mixlm_sparse.inference.fixed.marginal_means import MarginalMeans
from mixlm_sparse.inference.fixed.methods import require_ddf
from mixlm_sparse.inference.fixed.predictors import PREDICTOR, Predictor, predictors_of
from mixlm_sparse.model.fitted import FittedModel

WEIGHTS = ("equal", "proportional")
# Slopes are central differences over this share of the covariate's range: exact for lines and
# parabolas, and to about 1e-8 for smooth curves.
SLOPE_STEP = 1e-4


def emmeans(
    fit: FittedModel,
    specs: str | Sequence[str],
    *,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    ddf: str | None = "satterthwaite",
    weights: str = "equal",
    level: float = 0.95,
) -> MarginalMeans:
    """Return estimated marginal means.

    The reference grid crosses the levels of all factors of the fixed part with the means of its
    covariates (columns of the data, before any transformation; a covariate of which only a
    comparison enters is one as well); predictions on it, without random effects, are averaged over
    the factors not named.  An offset is part of them, at the means of its columns, or at its own
    mean if it was given as an array.  Where a factor lies within another one (each of its levels
    occurs with one level of the other only), the grid has no other combinations, and averages are
    over those that exist.

    Parameters
    ----------
    specs : one or several predictors.
    by : predictors that separate families of comparisons.
    at : other values, such as {"x": [0, 1]} or {"f": "b"}.
    ddf : "satterthwaite"; "kenward-roger" (a fit by ML is fitted again by REML, with a warning);
        "normal" for the normal distribution.
    weights : "equal", or "proportional" to the rows at each combination of the factors
        averaged over.
    level : coverage of the intervals.

    Returns
    -------
    MarginalMeans : prints as a table; has `to_frame()`, `test()`, `pairs(adjust="tukey")` and
    `contrast(weights)`.  What the data do not determine (a cell without rows counts in it) is NaN,
    with a RankDeficiencyWarning that names the cell.

    Raises
    ------
    OptionError : a predictor that the fixed part does not have; a fit from matrices.
    SavedFitError : the fit was saved without its data.
    """
    ddf_name, level = require_ddf(ddf), require_level("level", level)
    predictors = predictors_of(fit)
    wanted, grouping = _names(specs, by, predictors)
    grid = reference_grid(fit, predictors, at)
    return _averaged(fit, grid, "emmean", wanted, grouping, weights, ddf_name, level)


def emtrends(
    fit: FittedModel,
    variable: str,
    *,
    specs: str | Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    ddf: str | None = "satterthwaite",
    weights: str = "equal",
    level: float = 0.95,
) -> MarginalMeans:
    """Return slopes of a covariate on the reference grid, averaged as in `emmeans`.

    Parameters
    ----------
    variable : the covariate; where it enters through a curve, the slope is at its mean unless
        `at` says otherwise.
    by : predictors that the slopes are given for, and that `pairs` compares; with `specs`,
        those that separate families of comparisons.
    specs, at, ddf, weights, level : as in `emmeans`.
    """
    ddf_name, level = require_ddf(ddf), require_level("level", level)
    predictors = predictors_of(fit)
    (variable,) = require_names("variable", [variable], list(predictors), PREDICTOR)
    predictor = predictors[variable]
    if predictor.categorical:
        raise OptionError(
            f"{variable!r} is a factor, which has no slope: use emmeans({variable!r}).pairs()"
        )
    wanted, grouping = _names(specs, by, predictors)
    if specs is None:  # slopes by group are what is to be compared
        wanted, grouping = grouping, ()
    grid = reference_grid(fit, predictors, at)
    values = predictor.column.values.astype(np.float64)
    spread = float(np.ptp(values))
    step = SLOPE_STEP * (spread if spread > 0.0 else max(abs(float(values[0])), 1.0))
    center = np.asarray(grid.values(variable), dtype=np.float64)
    (X, offset), (X_below, offset_below) = (
        rows_of_design(
            fit, grid.predictors, grid.codes, grid.size, **{variable: center + sign * step}
        )
        for sign in (1.0, -1.0)
    )
    # the step that was taken, after rounding
    taken = ((center + step) - (center - step))[:, None]
    slopes = replace(
        grid,
        X=(X - X_below) / taken,
        offset=(offset - offset_below) / taken[:, 0],
    )
    return _averaged(
        fit, slopes, f"{variable}.trend", wanted, grouping, weights, ddf_name, level
    )


def _names(
    specs: Any, by: Any, predictors: Mapping[str, Predictor]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names given as specs and by, each once."""
    specs = [] if specs is None else [specs] if isinstance(specs, str) else specs
    by = [] if by is None else [by] if isinstance(by, str) else by
    known = list(predictors)
    wanted = require_names("specs", specs, known, PREDICTOR, empty=True)
    grouping = require_names("by", by, known, PREDICTOR, empty=True)
    repeated = [name for name in grouping if name in wanted]
    if repeated:
        raise OptionError(f"{repeated[0]!r} is named twice: leave it out of specs or of by")
    return tuple(wanted), tuple(grouping)


def _averaged(
    fit: FittedModel,
    grid: ReferenceGrid,
    what: str,
    specs: tuple[str, ...],
    by: tuple[str, ...],
    weights: str,
    ddf: str,
    level: float,
) -> MarginalMeans:
    require_one_of("weights", weights, WEIGHTS)
    names = [*specs, *by]
    rest = [name for name in grid.predictors if name not in names]
    averaged = tuple(
        name
        for name in rest
        if grid.predictors[name].categorical
        and len(grid.predictors[name].values) > 1
        and not any(name in grid.within.get(inner, ()) for inner in names)
    )
    share = np.ones(grid.size)
    if weights == "proportional" and averaged:
        share = _proportions(grid, averaged)
    # the first of the names varies fastest, whatever their order in the formula
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
    _warn_of_cells(fit, grid, cells, L, place, counted)
    return MarginalMeans(
        fit=fit,
        what=what,
        cells=cells,
        by=by,
        L=L,
        offset=offset,
        ddf=ddf,
        level=level,
        averaged_over=averaged,
        at={
            name: grid.predictors[name].values
            for name in rest
            if name not in averaged and len(grid.predictors[name].values) == 1
        },
        within=grid.within,
    )


def _cells(grid: ReferenceGrid, names: list[str], exist: np.ndarray) -> pd.DataFrame:
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


def _proportions(grid: ReferenceGrid, averaged: tuple[str, ...]) -> Vector:
    """Return for each cell how often its combination of the averaged factors occurs in the data."""
    sizes = [len(grid.predictors[name].values) for name in averaged]
    in_data = np.array([grid.predictors[name].codes() for name in averaged])
    inside = in_data[:, (in_data >= 0).all(axis=0)]
    rows = np.ravel_multi_index(list(inside), sizes, order="F")
    counts = np.bincount(rows, minlength=int(np.prod(sizes)))
    cells = np.ravel_multi_index([grid.codes[name] for name in averaged], sizes, order="F")
    out: Vector = counts[cells].astype(np.float64)
    return out
