"""Predicted values, their standard errors and intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mixlm_sparse.common.checks import require_bool, require_level, require_one_of, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.members import unknown_levels
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.predict.effects import Selection, select_effects, whole_terms
from mixlm_sparse.model.predict.estimable import estimable_rows, warn_of_cells
from mixlm_sparse.model.predict.residuals import forecast as forecast_of
from mixlm_sparse.model.predict.residuals import residual_variances
from mixlm_sparse.model.predict.rows import (
    DesignRows,
    design_rows,
    joined_rows,
    prior_weights,
    refuse_unknown_levels,
)
from mixlm_sparse.model.predict.undetermined import undetermined
from mixlm_sparse.model.predict.variance import mean_variance, prior_variance

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel
    from mixlm_sparse.solve.solution import PlsSolution

__all__ = ["linear_predictor", "predict"]

INTERVALS = ("confidence", "prediction")


def predict(
    fit: FittedModel,
    newdata: Any = None,
    re_form: str | None = None,
    allow_new_levels: bool | str = False,
    random_only: bool = False,
    se: bool = False,
    interval: str | None = None,
    level: float = 0.95,
    offset: Any = None,
    na_action: str | None = None,
    weights: Any = None,
    forecast: bool = False,
    membership: Any = None,
) -> pd.Series[float] | pd.DataFrame:
    """Predict the response, on the rows of the fit or on new ones.

    Parameters
    ----------
    newdata : a frame of any supported kind; None for the rows of the fit.
    re_form : random effects that count: None for all, "population" for none, or random terms
        of the model such as "~ (1 | Subject)", of which columns may be left out.
    allow_new_levels : groups that the fit has not seen: True predicts with random effects of zero,
        whose variance counts in `se` and intervals; "nan" gives NaN; by default they are refused.
    random_only : the random effects only, without fixed part and offset.
    se : standard errors too.
    interval : "confidence" for the mean x'beta + z'b, "prediction" for a new response, which
        adds the residual variance (divided by its prior weight) and the variance of the random
        effects that `re_form` leaves out.
    level : coverage of the interval.
    offset : replaces the offset of the call: a number, the name of a column of `newdata`, or an
        array.  Needed for new data if the call's offset was an array.
    na_action : new rows with missing cells: "pass" (the default) gives NaN, "omit" leaves them
        out, "raise" refuses them.
    weights : prior weights of new rows, for "prediction": a number, a name or an array; by
        default the column that the fit used.
    forecast : of new rows whose residuals are correlated with those of the fit (`residual=`), the
        expectation given the latter: with AR1, the next visit of a patient leans towards where the
        last one was.  All random effects count; `se` is that of the conditional mean, and
        "prediction" has the variance that is left.
    membership : of new rows in several levels, {"school": W}, as in `lmer`; without it a column of
        `newdata` says which one level each row has.

    Returns
    -------
    Series (n,) with the index of the rows used (of all rows with na_action="exclude"), or that of
    `newdata`; with `se` or `interval` a DataFrame with columns fit, se, lower, upper.  `se` is
    that of the mean, also beside a prediction interval; without `interval` the limits are those
    of the mean.

    Raises
    ------
    DataError : a column does not exist, or a level is not known to the fit.
    FormulaError : `re_form` names what the fit does not have.
    OptionError : an unknown interval, level or na_action.

    Warns
    -----
    RankDeficiencyWarning : rows whose mean the data do not determine, as cells that do not occur in
        a model with their interaction; they are NaN, and the warning names them.

    Notes
    -----
    Standard errors come from the joint covariance of (beta^ - beta, b^ - b) given theta and
    sigma: that these are estimated is not counted.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> new = {"Days": [0.0, 10.0], "Subject": ["308", "309"]}
    >>> fit.predict(new).round(2)
    0    253.66
    1    229.48
    dtype: float64
    >>> fit.predict(new, interval="confidence").round(1)
         fit    se  lower  upper
    0  253.7  12.3  229.6  277.7
    1  229.5  15.9  198.4  260.5
    """
    if interval is not None:
        require_one_of("interval", interval, INTERVALS)
    level = require_level("level", level)
    for name, flag in (("se", se), ("random_only", random_only), ("forecast", forecast)):
        require_bool(name, flag)
    _require_levels_choice(allow_new_levels)
    newdata = joined_rows(newdata, membership)
    selection = select_effects(re_form, fit.matrices)
    rows = design_rows(
        fit,
        newdata,
        fixed=not random_only,
        terms=whole_terms(selection),
        offset=offset,
        na_action=na_action,
    )
    if not allow_new_levels:
        refuse_unknown_levels(rows, fit)
    mean = linear_predictor(fit, rows, selection)
    unknown = _unknown(fit, newdata, rows, new_levels=allow_new_levels == "nan")
    mean[unknown] = np.nan
    ahead = None
    if forecast:
        _require_whole(re_form, random_only)
        ahead = forecast_of(fit, newdata, rows, weights)
        mean = mean + ahead.shift
    if not se and interval is None:
        return pd.Series(rows.align(mean), index=rows.labels())
    used = rows if ahead is None else ahead.rows
    unit_sq = unit_of_theta(fit) ** 2

    def of_mean(solution: PlsSolution) -> Vector:
        return mean_variance(solution, used, selection)

    def left_out(solution: PlsSolution) -> Vector | float:
        return 0.0 if random_only else _left_out(fit, newdata, rows, selection, solution)

    here = of_mean(fit.solution)
    variance = unit_sq * here
    fixed = None
    if not rows.terms and not random_only and not fit.identification.complete:
        fixed = np.concatenate([block.X for block in used.blocks(fit.system.products.kept)])
    variance[unknown | undetermined(fit, of_mean, fixed)] = np.nan
    spread = variance
    if interval == "prediction":
        own = _residual_part(fit, newdata, rows, weights) if ahead is None else ahead.variance
        spread = unit_sq * (here + left_out(fit.solution)) + fit.scale * own
        hidden = undetermined(fit, lambda solution: of_mean(solution) + left_out(solution))
        spread[unknown | hidden] = np.nan
    half = float(ndtri(0.5 + 0.5 * level)) * np.sqrt(spread)
    columns = {"fit": mean, "se": np.sqrt(variance), "lower": mean - half, "upper": mean + half}
    return pd.DataFrame(
        {name: rows.align(values) for name, values in columns.items()}, index=rows.labels()
    )


def _require_whole(re_form: str | None, random_only: bool) -> None:
    if re_form is not None or random_only:
        raise OptionError(
            "a forecast is the expectation given the data of the fit, with all random effects: "
            "leave re_form and random_only out"
        )


def _residual_part(
    fit: FittedModel, newdata: Any, rows: DesignRows, weights: Any
) -> Vector | float:
    """Return the variance of the residuals relative to sigma^2."""
    if fit.matrices.law is not None:
        return residual_variances(fit, newdata, rows, weights)
    w = prior_weights(fit, newdata, rows, weights)
    return 1.0 if w is None else 1.0 / w


def _require_levels_choice(allow: object) -> None:
    if not (isinstance(allow, bool | np.bool_) or (isinstance(allow, str) and allow == "nan")):
        raise OptionError(f'allow_new_levels is {shown(allow)}: use True, False or "nan"')


def _unknown(
    fit: FittedModel, newdata: Any, rows: DesignRows, *, new_levels: bool
) -> NDArray[np.bool_]:
    """Say which rows (n,) have no prediction: not estimable, or of `new_levels`; warn of cells."""
    out = np.zeros(rows.n, dtype=bool)
    estimable = estimable_rows(fit, rows)
    if estimable is not None:
        warn_of_cells(fit, newdata, rows, estimable)
        out |= ~estimable
    if new_levels:
        for t in rows.terms:
            factor = fit.matrices.terms[t].factor
            out |= unknown_levels(rows.codes[factor], fit.matrices.factors[factor].n_levels)
    return out


def linear_predictor(fit: FittedModel, rows: DesignRows, selection: Selection) -> Vector:
    """Return x'beta + offset + z'b of the selected effects, (n,); unknown levels count zero."""
    solution = fit.solution
    # one more level, of zeros, which code -1 finds
    b = {
        t: np.vstack([solution.b(t) * selection[t], np.zeros((1, selection[t].size))])
        for t in rows.terms
    }
    out = np.empty(rows.n)
    for block in rows.blocks(fit.system.products.kept):
        mean = np.zeros(len(block)) if rows.fixed is None else block.fixed_part(solution.beta)
        for t in rows.terms:
            mean += block.random_part(t, fit.matrices.terms[t].factor, b[t])
        out[block.slice] = mean + block.offset
    return out


def _left_out(
    fit: FittedModel,
    newdata: Any,
    rows: DesignRows,
    selection: Selection,
    solution: PlsSolution,
) -> Vector | float:
    """Return the variance / sigma^2 of the effects that `re_form` leaves out, (n,).

    They are unknown, not zero, and a new response has them.  Only their columns are needed, not
    their grouping factors.
    """
    left_out = tuple(~chosen for chosen in selection)
    terms, m = whole_terms(left_out), fit.matrices
    if not terms:
        return 0.0
    if newdata is None:
        own = replace(
            rows,
            terms={t: fit.matrices.terms[t].columns for t in terms},
            codes={m.terms[t].factor: m.factors[m.terms[t].factor].row_levels for t in terms},
        )
        return prior_variance(solution, own, left_out)
    total = np.zeros(rows.n_input)
    for t in terms:
        if fit.system.several_levels:  # how many levels a row has counts
            several = m.recipe.evaluate(newdata, fixed=False, terms=(t,), offset=False)
            own = replace(rows, n=several.nobs, terms=several.terms, codes=several.codes)
            total += several.pad(prior_variance(solution, own, left_out))
            continue
        design = m.recipe.effects(newdata, t)
        assert design.fixed is not None
        own = replace(rows, n=design.nobs, terms={t: design.fixed}, codes={})
        total += design.pad(prior_variance(solution, own, left_out))
    return total if rows.rows is None else total[rows.rows]
