"""`gls`: generalized least squares, a linear model with correlated or unequal residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.progress import SearchProgress
from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.variance import VarianceFunction
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.formula.parse import formula_text
from mixlm_sparse.formula.terms import MixedFormula
from mixlm_sparse.model.base import announced, fit_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.run import assemble, solve_system
from mixlm_sparse.solve.search.control import Control


@answers_unknown_keywords
@calm
def gls(
    formula: str | MixedFormula,
    data: Any,
    residual: Correlation | None = None,
    variance: VarianceFunction | None = None,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    start: Any = None,
    optimizer: str = "auto",
    control: Control | None = None,
    progress: SearchProgress = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
) -> LinearMixedFit:
    """Fit a linear model without random effects, by generalized least squares.

        y ~ N(X beta, sigma^2 R(rho))

    With `Unstructured` and `VarIdent` by visit this is the MMRM of clinical trials.

    Parameters
    ----------
    formula : R's syntax without random terms, "FEV1 ~ RACE + SEX + ARMCD * AVISIT".
    data : as in `lmer`.
    residual : correlation of the residuals within groups: `mx.AR1`, `mx.CAR1`,
        `mx.CompoundSymmetry`, `mx.Unstructured`, `mx.Toeplitz`, `mx.AnteDependence`,
        `mx.Exponential` or `mx.Gaussian`.
    variance : standard deviations that differ: `mx.VarIdent`, `mx.VarPower` or `mx.VarExp`.
    reml, weights, offset, subset, na_action, contrasts, optimizer, control, progress, env : as in
        `lmer`.
    start : None; the search begins at independent residuals.

    Returns
    -------
    LinearMixedFit : the fit of `lmer`, without random effects; `residual_structure` is the table of
        the residual parameters.

    Raises
    ------
    FormulaError, DataError, OptionError : with the remedy.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> ortho = mx.datasets.load("Orthodont")
    >>> fit = mx.gls(
    ...     "distance ~ age * Sex", ortho, residual=mx.CompoundSymmetry(group="Subject")
    ... )
    >>> round(fit.criterion, 3)
    433.757
    """
    options = FitOptions(
        reml=reml, start=start, optimizer=optimizer,
        control=Control() if control is None else control, progress=progress,
    )  # fmt: skip
    call = ModelCall(
        formula=formula_text(formula), data=data, weights=weights, offset=offset, subset=subset,
        na_action=na_action, contrasts=contrasts, env=env, options=options, residual=residual,
        variance=variance, random=False,
    )  # fmt: skip
    system, call = assemble(call)
    optimum, solution = solve_system(system, call.options)
    fit = fit_of(
        LinearMixedFit, system, optimum, call.options, call.formula, call, solution=solution
    )
    return announced(fit)
