"""The linear model beside a mixed one, and tables that compare random parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.inference.models.mixture import lr_statistic, mixture_label, mixture_p, naive_p
from mixlm_sparse.inference.models.smaller import formula_of, refit_with
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.structured import require_random_effects
from mixlm_sparse.solve.system import PenalizedSystem

RANDOM_COLUMNS = [
    "npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)", "Pr(>Chibar2)", "mixture",
]  # fmt: skip
# What the row of the model that others are tested against has nothing to say of.
LR_TEST = ("LRT", "Df", "Pr(>Chisq)", "Pr(>Chibar2)")
P_VALUES = {"boundary": "Pr(>Chibar2)", "naive": "Pr(>Chisq)"}


def linear_criterion(system: PenalizedSystem, *, reml: bool) -> float:
    """Return the criterion of the linear model with the same fixed part: all variances zero."""
    products = system.products
    nu = products.n - products.p if reml else products.n
    sigma = None if system.held is None else system.held.sigma
    if sigma is None:
        d = nu * (1.0 + float(np.log(2.0 * np.pi * products.yy / nu)))
    else:
        d = nu * float(np.log(2.0 * np.pi * sigma**2)) + products.yy / sigma**2
    d -= products.log_weight_sum
    return d + system.log_det_R_x if reml else d


def linear_parameters(system: PenalizedSystem) -> int:
    """Return how many parameters that linear model has: coefficients, and sigma if it is free."""
    return system.p + (system.held is None or system.held.sigma is None)


@result_table()
def lr_vs_lm(fit: FittedModel) -> pd.DataFrame:
    """Test all random effects together: LR test against the linear model, as Stata prints.

    Returns
    -------
    DataFrame with the columns of `ranova`, rows "linear model" and "mixed model".

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.lr_vs_lm()
    LR test against the linear model: chi2(3) = 150.04
                  npar  logLik     AIC      LRT  Df  Pr(>Chisq)  Pr(>Chibar2)
    linear model     3  -946.8  1899.7  150.035   3      <2e-16        <2e-16
    mixed model      6  -871.8  1755.6
    Note: by REML; Pr(>Chisq) ignores that variances cannot be negative,
          Pr(>Chibar2) takes it into account by the mixture
    Note: mixture of linear model: 1/2 chi2(2) + 1/2 chi2(3), upper bound
    """
    require_random_effects(fit, "lr_vs_lm")
    require_imperfect(fit)
    system = fit.system
    n_linear = linear_parameters(system)
    if fit.matrices.law is None:
        linear = linear_criterion(system, reml=fit.reml)
    else:  # the linear model with the same residual structure
        smaller = without_random_effects(fit)
        linear, n_linear = smaller.criterion, smaller.n_determined
    df = fit.n_determined - n_linear
    statistic = lr_statistic(linear, fit.criterion)
    effects = sum(len(term.column_names) for term in fit.matrices.terms)
    effects = min(effects, df)  # id() has one variance for all its effects
    table = pd.DataFrame(
        [
            random_row(n_linear, -0.5 * linear, statistic, df, effects),
            (fit.n_par, fit.llf, fit.aic, *[np.nan] * 4, ""),
        ],
        columns=RANDOM_COLUMNS,
        index=["linear model", "mixed model"],
    )
    name = "chibar2(01)" if df == 1 else f"chi2({df})"
    table.attrs["blank"] = dict.fromkeys(LR_TEST, ("mixed model",))
    describe_random(table, f"LR test against the linear model: {name} = {statistic:.2f}", fit)
    return table


def without_random_effects(fit: FittedModel) -> FittedModel:
    """Fit the model without its random effects, with the same residual structure."""
    formula = formula_of(fit, "lr_vs_lm")
    return refit_with(fit, replace(formula, random=()), random=False)


def random_row(
    n_par: int, llf: float, statistic: float, df: int, effects: int
) -> tuple[int, float, float, float, float, float, float, str]:
    """Return the row of a smaller model in a table of `RANDOM_COLUMNS`.

    Parameters
    ----------
    n_par, llf : of the smaller model; statistic, df : of the comparison.
    effects : random effects (variances) left out.
    """
    return (
        n_par, llf, 2.0 * n_par - 2.0 * llf, statistic, float(df), naive_p(statistic, df),
        mixture_p(statistic, df), mixture_label(df, effects),
    )  # fmt: skip


def describe_random(table: pd.DataFrame, heading: str, fit: FittedModel) -> None:
    """Give a table of `RANDOM_COLUMNS` its heading and note."""
    table.attrs["heading"] = heading
    table.attrs["note"] = (
        f"by {'REML' if fit.reml else 'ML'}; Pr(>Chisq) ignores that variances cannot be "
        "negative, Pr(>Chibar2) takes it into account by the mixture"
    )
    if not fit.identification.complete:
        table.attrs["note"] += f"; {fit.identification.sentence}"


def require_imperfect(fit: FittedModel) -> None:
    """Raise an OptionError for a fit without residual, which has no likelihood."""
    if fit.unbounded:
        raise OptionError(
            "the fixed effects fit the response exactly, so that no likelihoods can be compared"
        )
    if not np.isfinite(fit.criterion):
        raise OptionError(
            "fixed and random effects together fit the response exactly: sigma is zero, and "
            "likelihoods without bound cannot be compared"
        )
