"""Names that users of R, statsmodels and scikit-learn type on a fit.

A name that says exactly what an attribute or method of the fit says is answered with it; another
one with an AttributeError that says what to write.  They are no part of the interface: completion
does not offer them and type checkers do not know them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import OptionError, UnknownArgumentError
from mixlm_sparse.model.fitted import FittedModel

# The same thing by another name.
SAME = {
    "fe_params": "fixef", "coefficients": "fixef", "bse_fe": "bse", "isSingular": "is_singular",
    "refitML": "refit_ml", "get_ME": "getME", "allFit": "all_fit",
    "fitted_values": "fittedvalues", "lsmeans": "emmeans", "ls_means": "emmeans",
    "vcov": "cov_params",
}  # fmt: skip
# R's functions of a fit: called, they give what an attribute holds.
CALLED = {
    "VarCorr": "varcorr", "logLik": "llf", "loglik": "llf", "AIC": "aic", "BIC": "bic",
    "REMLcrit": "criterion", "df_residual": "df_resid", "isREML": "reml", "ngrps": "ngroups",
    "fitted": "fittedvalues",
}  # fmt: skip
# What there is under another form.
ANSWERS = {
    "df": "write fit.df_resid, or fit.df_coefficients() for the tests of the coefficients",
    "model": "write fit.matrices for the design, fit.getME('X') for its arrays",
    "data": "a fit keeps the columns that it used: write fit.augment()",
    "frame": "a fit keeps the columns that it used: write fit.augment()",
    "t_test": "write fit.contest(L, joint=False)",
    "f_test": "write fit.contest(L)",
    "wald_test_terms": "write fit.anova()",
    "get_prediction": "write fit.predict(newdata, interval='confidence')",
    "summary2": "write fit.summary()",
    "coef_": "write fit.fixef",
    "intercept_": "write fit.fixef['(Intercept)']",
    "score": "write fit.r2()",
    "rsquared": "write fit.r2()",
    "fit": "lmer has fitted it already",
    "bootMer": "write fit.bootstrap(nsim)",
    "qqnorm": "write fit.plot.qq()",
    "dotplot": "write fit.plot.caterpillar()",
    "hist": "write fit.plot.kinds() for the plots that there are, fit.convergence for the search",
    "rand": "write fit.ranova()",
    "performance": "write fit.r2(), fit.icc() or fit.glance()",
    "r_squared": "write fit.r2()",
    "model_frame": "write fit.augment(), which has the columns that the fit used",
    "head": "write fit.augment().head() for the rows, fit.summary() for the fit",
    "describe": "write fit.summary()",
    "info": "write fit.summary()",
    "columns": "write fit.fixef.index for the coefficients",
    "shape": "write fit.nobs and len(fit.fixef)",
    "to_frame": "write fit.tidy() for the estimates, fit.augment() for the rows",
    "to_csv": "write fit.tidy().to_csv(path), fit.augment().to_csv(path)",
    "to_excel": "write fit.tidy().to_excel(path)",
    "to_html": "write fit.summary().to_html()",
    "to_latex": "write fit.summary().to_latex()",
    "to_markdown": "write fit.summary().to_markdown()",
    "to_pickle": "write fit.save(path)",
    "emmip": "write fit.emmeans(['arm', 'visit']).plot.interaction()",
    "vcomp": "write fit.varcorr, which has every term, or fit.variance_components()",
    "bse_re": "write fit.variance_components(scale='var'), which has their standard errors",
    "estimate": "write fit.contest(L), or fit.emmeans('factor').contrast(...)",
    "lincom": "write fit.contest(L, joint=False)",
    "testparm": "write fit.contest(L), or fit.joint_tests()",
    "margins": "write fit.emmeans('factor'), or fit.emtrends('x') for slopes",
    "marginsplot": "write fit.emmeans('factor').plot()",
    "pairs": "write fit.emmeans('factor').pairs()",
    "contrast": "write fit.emmeans('factor').contrast('pairwise'), or fit.contest(L)",
    "cooks": "write fit.cooks_distance()",
    "dfbetas": "write fit.influence('group').dfbetas()",
    "plot_residuals": "write fit.plot.residuals()",
    "resid_pearson": "write fit.residuals('pearson')",
    "terms": "write fit.formula, or fit.anova() for tests of the terms",
    "call": "write fit.formula and fit.options",
    # statsmodels
    "normalized_cov_params": "write fit.cov_params()",
    "use_t": "write ddf='normal' for z tests, ddf='satterthwaite' for t tests",
    "df_model": "write len(fit.fixef) - 1, or fit.n_par for all parameters",
    "df_modelwc": "write len(fit.fixef), or fit.n_par for all parameters",
    "k_constant": "write '(Intercept)' in fit.fixef",
    "k_vc": "write fit.theta_names, which has every variance parameter",
    "t_test_pairwise": "write fit.emmeans('factor').pairs()",
    "profile_re": "write fit.profile(), or fit.confint()",
    "params_object": "write fit.fixef, fit.varcorr and fit.theta",
    "use_sqrt": "write fit.theta, which parametrizes by the Cholesky factor",
    "freepat": "write fixed={'sd_(Intercept)|g': 1.0} in lmer to hold parameters",
    "cov_pen": "no penalties are known; write fixed={...} in lmer to hold parameters",
    "fe_pen": "no penalties are known; write fixed={...} in lmer to hold parameters",
    "remove_data": "write fit.save(path, include_data=False)",
    "load": "write mx.load(path)",
    "initialize": "a fit never changes; write fit.update(...)",
    "get_nlfun": "write mx.deviance_function(formula, data).gradient",
    "score_obsv": "write fit.convergence, which has the gradient at the optimum",
    "hessv": "write fit.curvature, the Hessian at the optimum",
    "covjac": "write fit.robust(), cluster-robust covariances",
    "covjhj": "write fit.robust(), cluster-robust covariances",
    "bsejac": "write fit.robust(), cluster-robust standard errors",
    "bsejhj": "write fit.robust(), cluster-robust standard errors",
    "llnull": "write fit.update('. ~ 1 + (1 | g)').llf for the model you compare with",
    "llr": "write mx.anova(null, fit), or fit.lr_vs_lm()",
    "llr_pvalue": "write mx.anova(null, fit), or fit.lr_vs_lm()",
    "set_null_options": "write mx.anova(null, fit)",
    "pseudo_rsquared": "write fit.r2()",
    "get_robustcov_results": "write fit.robust()",
}  # fmt: skip


def other_name(fit: FittedModel, name: str) -> Any:
    """Answer a name that a fit does not have.

    Raises
    ------
    AttributeError : with what to write, where that is known.
    """
    if name in SAME:
        return getattr(fit, SAME[name])
    if name in CALLED:
        value = getattr(fit, CALLED[name])
        if isinstance(value, bool):
            return _Called(value)
        if isinstance(value, int):
            return _CalledInteger(value)
        return _CalledNumber(value) if isinstance(value, float) else _Called(value)
    if name in COMPUTED:
        return COMPUTED[name](fit)
    raise AttributeError(missing(name, dir(fit)))


def missing(name: str, known: list[str]) -> str:
    """Return the message for a name that a fit does not have."""
    fact = f"a fit has no {name!r}"
    if name in ANSWERS:
        return f"{fact}: {ANSWERS[name]}"
    near = get_close_matches(name, known, n=1)
    return f"{fact}: did you mean {near[0]!r}?" if near else fact


def no_entries(fit: FittedModel, key: object) -> UnknownArgumentError:
    """Return the error for `fit[key]`."""
    if isinstance(key, str) and key in fit.fixef.index:
        remedy = f"write fit.fixef[{key!r}]"
    elif isinstance(key, str) and key in fit.ngroups:
        remedy = f"write fit.ranef()[{key!r}], fit.coef()[{key!r}] or fit.varcorr[{key!r}]"
    else:
        remedy = "write fit.fixef[name] for a coefficient"
    return UnknownArgumentError(f"a fit has no entries such as {shown(key)}: {remedy}")


class _Called:
    """A value that R has a function for: `fit.VarCorr()` is `fit.varcorr`; uncalled, so is it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value

    def __repr__(self) -> str:
        return repr(self.value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value, name)

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        return np.asarray(self.value).__array__(*args, **options)


class _CalledNumber(float):
    """A number that R has a function for: `fit.logLik()` is `fit.llf`, and so is `fit.logLik`."""

    def __call__(self) -> float:
        return float(self)


class _CalledInteger(int):
    """A whole number that R has a function for."""

    def __call__(self) -> int:
        return int(self)


def _one_group(fit: FittedModel, name: str) -> str:
    if len(fit.ngroups) > 1:
        raise OptionError(
            f"{name} is for one grouping factor, the fit has {', '.join(fit.ngroups)}: write "
            "fit.ranef() and fit.varcorr, which have all of them by name"
        )
    return next(iter(fit.ngroups))


def _random_effects(fit: FittedModel) -> dict[Any, pd.Series[float]]:
    """Return the random effects by level, as statsmodels has them."""
    frame = fit.ranef()[_one_group(fit, "random_effects")]
    return {level: frame.iloc[i] for i, level in enumerate(frame.index)}


def _cov_re(fit: FittedModel) -> pd.DataFrame:
    """Return the covariance of the random effects, as statsmodels has it."""
    _one_group(fit, "cov_re")
    names = list(fit.varcorr)
    if len(names) > 1:
        raise OptionError("cov_re is for one random term: write fit.varcorr, which has each")
    found: pd.DataFrame = fit.varcorr[names[0]]
    return found


def _random_effects_cov(fit: FittedModel) -> dict[Any, pd.DataFrame]:
    """Return the conditional covariance of the random effects by level, as statsmodels has it."""
    group = _one_group(fit, "random_effects_cov")
    effects, covariances = fit.ranef(cond_var=True)
    frame = effects[group]
    return {
        level: pd.DataFrame(covariance, index=frame.columns, columns=frame.columns)
        for level, covariance in zip(frame.index, covariances[group], strict=True)
    }


def _k_re(fit: FittedModel) -> int:
    """Return the number of random effects of a group."""
    return len(_cov_re(fit))


COMPUTED: dict[str, Callable[[FittedModel], Any]] = {
    "random_effects": _random_effects,
    "random_effects_cov": _random_effects_cov,
    "cov_re": _cov_re,
    "cov_re_unscaled": lambda fit: _cov_re(fit) / fit.scale,
    "k_fe": lambda fit: len(fit.fixef),
    "k_re": _k_re,
    "k_re2": lambda fit: _k_re(fit) * (_k_re(fit) + 1) // 2,
    "method": lambda fit: "REML" if fit.reml else "ML",
    "converged": lambda fit: fit.convergence.converged,
}
