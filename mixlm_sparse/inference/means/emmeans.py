"""Estimated marginal means and marginal slopes of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import (
    plain_name,
    require_bool,
    require_level,
    require_names,
    require_number,
    require_one_of,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.inference.fixed.methods import require_ddf
from mixlm_sparse.inference.means.adjustments import require_adjust
from mixlm_sparse.inference.means.averages import Averages, averages
from mixlm_sparse.inference.means.counterfactual import counterfactual_averages
from mixlm_sparse.inference.means.grid import ReferenceGrid, reference_grid, rows_of_design
from mixlm_sparse.inference.means.interacting import cautions
from mixlm_sparse.inference.means.marginal_means import MarginalMeans
from mixlm_sparse.inference.means.predictors import PREDICTOR, Predictor, predictors_of, reduced
from mixlm_sparse.inference.means.specs import Specs, read_specs
from mixlm_sparse.inference.means.transformations import (
    NAMED,
    Transformation,
    named_transformation,
    transformation_of,
)
from mixlm_sparse.inference.variance.shares import around_fixed
from mixlm_sparse.model.fitted import FittedModel

SCALES = ("link", "response")
# Slopes are central differences over this share of the covariate's range: exact for lines and
# parabolas, and to about 1e-8 for smooth curves.
SLOPE_STEP = 1e-4


def emmeans(
    fit: FittedModel,
    specs: str | Sequence[str] | None,
    *,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    cov_reduce: Any = True,
    ddf: str | None = "satterthwaite",
    weights: str = "equal",
    adjust: str | None = "none",
    type: str = "link",
    tran: str | None = None,
    bias_adjust: bool = False,
    sigma: float | None = None,
    level: float = 0.95,
    counterfactuals: str | Sequence[str] | None = None,
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
    specs : one or several predictors, or text as in R: "~ a | b", "pairwise ~ a" (which prints the
        contrasts as well, and has them as `.contrasts`).
    by : predictors that separate families of comparisons.
    at : other values, such as {"x": [0, 1]} or {"f": "b"}.
    cov_reduce : how covariates that `at` does not name are held: True at their means, False at each
        of their values, a function such as `np.median` or `np.quantile` with several values, or a
        dictionary of these by name.
    ddf : "satterthwaite"; "kenward-roger" (a fit by ML is fitted again by REML, with a warning);
        "normal" for the normal distribution.
    weights : of the levels averaged over: "equal"; "proportional" to the rows with each combination
        of them; "outer", to the products of the rows with each level of each; "cells", to the rows
        of each cell of the grid; "flat", equal over cells that have rows.
    adjust : of the table's limits, as in `MarginalMeans.contrast`.
    type : "link", the scale of the model, or "response": a response that the formula transforms
        (`log(y)`, `log(y + 1)`, `log10`, `log2`, `log1p`, `sqrt(y)`, `I(y^2)`, `1/y`, `exp`) is
        brought back, limits with it; standard errors by the delta method; contrasts of logarithms
        become ratios.
    tran : what was done to the response before it came into the data: "log", "sqrt", ...
    bias_adjust : estimate the mean of the data instead of what a mean on the scale of the model
        goes back to; `sigma` is the standard deviation of rows around it (None: the total one).
    level : coverage of the intervals.
    counterfactuals : predictors that are set to each of their levels on every row of the data, all
        else as it is there; means are then averages over rows instead of over the grid.

    Returns
    -------
    MarginalMeans : prints as a table; has `to_frame()`, `confint()`, `test()`, `pairs()`,
    `contrast()`, `joint()`, `letters()` and `eff_size()`.  What the data do not determine (a cell
    without rows counts in it) is NaN, with a RankDeficiencyWarning that names the cell.

    Raises
    ------
    OptionError : a predictor that the fixed part does not have; a fit from matrices; a scale that
        there is no way back from.
    SavedFitError : the fit was saved without its data.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> fit.emmeans("recipe")
    Marginal means
    recipe  emmean  std_error    df   lower   upper
    A       33.122      1.737  42.0  29.617  36.627
    B       31.644      1.737  42.0  28.139  35.150
    C       31.600      1.737  42.0  28.095  35.105
    Note: degrees of freedom: Satterthwaite; level 0.95
    Note: averaged over the levels of temperature
    Note: recipe interacts with temperature: averages over it may mislead
    >>> fit.emmeans("recipe").pairs().round(3)[["contrast", "estimate", "p_value"]]
      contrast  estimate  p_value
    0    A - B     1.478     0.82
    1    A - C     1.522     0.81
    2    B - C     0.044     1.00
    """
    ddf_name, level = require_ddf(ddf), require_level("level", level)
    predictors = predictors_of(fit)
    wanted = read_specs(specs, by, list(predictors))
    back = _transformation(fit, require_one_of("type", type, SCALES), tran)
    spread = 0.0
    if require_bool("bias_adjust", bias_adjust):
        if type != "response" or back is None:
            raise OptionError("bias_adjust is for type='response' of a transformed response")
        spread = (
            float(np.sqrt(around_fixed(fit)[0][0]))
            if sigma is None
            else require_number("sigma", sigma, least=0.0)
        )
    basis = ""
    if counterfactuals is None:
        grid = grid_of(fit, predictors, at, cov_reduce)
        means = _averaged(fit, grid, "emmean", wanted, weights, ddf_name, level)
    else:
        if weights != "equal" or cov_reduce is not True:
            raise OptionError(
                "counterfactuals are averages over the rows of the data: leave out weights= and "
                "cov_reduce="
            )
        found, basis = counterfactual_averages(fit, predictors, counterfactuals, wanted, at)
        means = _means(fit, found, "emmean", wanted, ddf_name, level)
    return replace(
        means, adjust=require_adjust(adjust), transform=back, type=type, spread=spread, basis=basis
    )


def emtrends(
    fit: FittedModel,
    variable: str,
    *,
    specs: str | Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    cov_reduce: Any = True,
    ddf: str | None = "satterthwaite",
    weights: str = "equal",
    adjust: str | None = "none",
    level: float = 0.95,
) -> MarginalMeans:
    """Return slopes of a covariate on the reference grid, averaged as in `emmeans`.

    Parameters
    ----------
    variable : the covariate; where it enters through a curve, the slope is at its mean unless
        `at` says otherwise.
    by : predictors that the slopes are given for, and that `pairs` compares; with `specs`,
        those that separate families of comparisons.
    specs, at, cov_reduce, ddf, weights, adjust, level : as in `emmeans`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("distance ~ age * Sex + (age | Subject)", mx.datasets.load("Orthodont"))
    >>> slopes = fit.emtrends("age", specs="Sex")
    >>> slopes
    Marginal slopes of age
    Sex     age.trend  std_error    df    lower    upper
    Male      0.78437    0.08600  25.0  0.60726  0.96149
    Female    0.47955    0.10372  25.0  0.26593  0.69316
    Note: degrees of freedom: Satterthwaite; level 0.95
    Note: at age = 11
    >>> slopes.pairs()["p_value"].round(4).tolist()
    [0.0326]
    """
    ddf_name, level = require_ddf(ddf), require_level("level", level)
    predictors = predictors_of(fit)
    (variable,) = require_names("variable", [variable], list(predictors), PREDICTOR)
    predictor = predictors[variable]
    if predictor.categorical:
        raise OptionError(
            f"{variable!r} is a factor, which has no slope: use emmeans({variable!r}).pairs()"
        )
    wanted = read_specs(specs, by, list(predictors))
    if specs is None:  # slopes by group are what is to be compared
        wanted = Specs(wanted.by, ())
    grid = slopes_of(fit, grid_of(fit, predictors, at, cov_reduce), predictor)
    means = _averaged(fit, grid, f"{variable}.trend", wanted, weights, ddf_name, level, variable)
    return replace(means, adjust=require_adjust(adjust))


def grid_of(
    fit: FittedModel, predictors: dict[str, Predictor], at: Any, cov_reduce: Any
) -> ReferenceGrid:
    """Return the reference grid with the values that `at` and `cov_reduce` choose."""
    if not isinstance(at, Mapping) or cov_reduce is True or cov_reduce is None:
        if at is None and cov_reduce is not True and cov_reduce is not None:
            at = reduced(predictors, cov_reduce, {})
        return reference_grid(fit, predictors, at)
    named = {plain_name(name): values for name, values in at.items() if isinstance(name, str)}
    return reference_grid(fit, predictors, {**reduced(predictors, cov_reduce, named), **at})


def slopes_of(fit: FittedModel, grid: ReferenceGrid, predictor: Predictor) -> ReferenceGrid:
    """Return the grid with the derivatives of its rows by a covariate, as differences."""
    values = predictor.column.values.astype(np.float64)
    spread = float(values.max() - values.min())
    step = SLOPE_STEP * (spread if spread > 0.0 else max(abs(float(values.max())), 1.0))
    center = np.asarray(grid.values(predictor.name), dtype=np.float64)
    (X, offset), (X_below, offset_below) = (
        rows_of_design(
            fit, grid.predictors, grid.codes, grid.size, {predictor.name: center + sign * step}
        )
        for sign in (1.0, -1.0)
    )
    # the step that was taken, after rounding
    taken = ((center + step) - (center - step))[:, None]
    return replace(
        grid,
        X=(X - X_below) / taken,
        offset=(offset - offset_below) / taken[:, 0],
    )


def _transformation(fit: FittedModel, type: str, tran: str | None) -> Transformation | None:
    """Return how the response was transformed, as far as it is to be known."""
    if tran is not None:
        name = require_one_of("tran", tran, NAMED)
        return None if name == "none" else named_transformation(name)
    spec = fit.matrices.spec
    response = None if spec is None else spec.formula.response
    try:
        return transformation_of(response)
    except OptionError:
        if type == "response":
            raise
        return None


def _averaged(
    fit: FittedModel,
    grid: ReferenceGrid,
    what: str,
    wanted: Specs,
    weights: str,
    ddf: str,
    level: float,
    *slope_of: str,
) -> MarginalMeans:
    names = (*wanted.names, *wanted.by)
    found = averages(fit, grid, names, weights)
    return replace(
        _means(fit, found, what, wanted, ddf, level),
        within=grid.within,
        cautions=cautions(fit, (*names, *slope_of), found, grid.within),
    )


def _means(
    fit: FittedModel, found: Averages, what: str, wanted: Specs, ddf: str, level: float
) -> MarginalMeans:
    return MarginalMeans(
        fit=fit,
        what=what,
        cells=found.cells,
        by=wanted.by,
        L=found.L,
        offset=found.offset,
        ddf=ddf,
        level=level,
        averaged_over=found.averaged_over,
        at=found.at,
        asked=wanted.method,
    )
