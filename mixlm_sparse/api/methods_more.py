"""Variance parameters, profiles, smaller models, robust covariances and influence as methods.

Each method is one call of a function of a sibling module.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mixlm_sparse.common.parallel import Progress
from mixlm_sparse.inference.cases.influence import Influence, influence
from mixlm_sparse.inference.fixed.robust import RobustCovariance, robust
from mixlm_sparse.inference.models.diagnostics import (
    AllFits,
    all_fit,
    random_effects_pca,
    singularity,
)
from mixlm_sparse.inference.models.drop1 import drop1
from mixlm_sparse.inference.models.linear import lr_vs_lm
from mixlm_sparse.inference.models.ranova import ranova
from mixlm_sparse.inference.models.step import StepResult, step
from mixlm_sparse.inference.variance.components import variance_components
from mixlm_sparse.inference.variance.confint import confint
from mixlm_sparse.inference.variance.profile.compute import profile
from mixlm_sparse.inference.variance.profile.curve import Profile
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.notes import SINGULAR_TOL


class VarianceInferenceMethods(FittedModel):
    """Methods of a fit: variance parameters, profiles, smaller models, robustness, influence."""

    # -- variance parameters ------------------------------------------------------------------

    def variance_components(
        self, level: float = 0.95, scale: str = "sd", pairs: str | None = None
    ) -> pd.DataFrame:
        """Return variance components with standard errors and Wald intervals.

        The covariance of (log sd, atanh correlation, log sigma) comes from the exact Hessian of the
        log-likelihood that was maximized; limits are symmetric on that scale and transformed back,
        as Stata's `mixed` prints them.  Limits of a covariance are symmetric themselves.

        Parameters
        ----------
        level : coverage between 0 and 1.
        scale : "sd" or "variance".
        pairs : "correlation" or "covariance"; by default the one that goes with the scale.

        Returns
        -------
        DataFrame with columns grp, var1, var2, estimate, std_error, lower, upper, note.  A
        parameter on the boundary (a standard deviation of zero, a correlation of one) has no
        standard error: NaN, and `note` says so; `confint()` gives it limits.

        Raises
        ------
        OptionError : unknown scale, or a level outside of (0, 1).

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
        >>> fit.variance_components()[["estimate", "std_error", "lower", "upper"]].round(2)
                              estimate  std_error  lower  upper
        sd_(Intercept)|Batch     42.00      17.06  18.95  93.09
        sigma                    49.51       7.15  37.31  65.70
        """
        return variance_components(self, level, scale, pairs)

    def profile(
        self,
        which: Any = None,
        *,
        level_max: float = 0.999,
        reml: bool = False,
        n_jobs: int = 1,
        progress: Progress = None,
    ) -> Profile:
        """Profile the deviance: hold one parameter at a time and let the others adapt.

        zeta = sign(value - estimate) sqrt(d(value) - d(estimate)) is a straight line where the
        likelihood is quadratic.  As in lme4, d is the ML deviance also after REML.

        Parameters
        ----------
        which : names of parameters, "theta_" (standard deviations, correlations, sigma) or "beta_"
            (coefficients); None for all.
        level_max : largest level for which limits will be read off.
        reml : profile the REML criterion; variance parameters only.
        n_jobs : processes, -1 for all cores.
        progress : called with (done, total) parameters; returning False ends the work.

        Returns
        -------
        Profile : `.confint(level)`, `.to_frame()`, `.zeta`, and a `ParameterProfile` by name.  A
            curve that does not rise enough before a bound (0, or -1 and 1) ends there: the limit is
            the bound and `note` says so.

        Raises
        ------
        OptionError : unknown name, a level outside of (0, 1), reml=True for coefficients or for a
            fit by ML.
        """
        return profile(
            self, which, level_max=level_max, reml=reml, n_jobs=n_jobs, progress=progress
        )

    def confint(
        self,
        method: str = "profile",
        level: float = 0.95,
        parm: Any = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Return intervals of all parameters.

        Parameters
        ----------
        method : "profile"; "wald" (variance parameters as `variance_components`, coefficients by
            the normal distribution); "boot" (parametric bootstrap).
        level : coverage between 0 and 1.
        parm : names, "theta_" or "beta_"; None for all.
        **options : for "profile": reml, n_jobs, progress; for "boot": nsim (500), seed, boot_type
            ("percentile", "basic", "normal", "bca"), n_jobs, progress.

        Returns
        -------
        DataFrame with columns lower, upper and a row for each parameter: `sd_(Intercept)|Subject`,
        `cor_Days.(Intercept)|Subject`, `sigma`, then the coefficients.  attrs["notes"] tells, by
        name, of limits that are bounds.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
        >>> fit.confint().round(2)
                                lower    upper
        sd_(Intercept)|Batch    12.20    84.06
        sigma                   38.23    67.66
        (Intercept)           1486.45  1568.55
        """
        return confint(self, method, level, parm, **options)

    # -- smaller models -----------------------------------------------------------------------

    def ranova(self, reduce_terms: bool = True) -> pd.DataFrame:
        """Test each random term by comparison with the model without it.

        Parameters
        ----------
        reduce_terms : take one effect out of a term, (Days | Subject) to (1 | Subject), as
            lmerTest; otherwise whole terms.

        Returns
        -------
        DataFrame with columns npar, logLik, AIC, LRT, Df, Pr(>Chisq), Pr(>Chibar2), mixture.  The
        criterion stays that of the fit (REML).  Pr(>Chisq) is the naive p; Pr(>Chibar2) takes into
        account that a variance cannot be negative, by the mixture that is named; "upper bound"
        marks mixtures that bound p from above, for more than one effect is left out.
        """
        return ranova(self, reduce_terms)

    def drop1(
        self, scope: Any = None, test: str = "lrt", ddf: str = "satterthwaite"
    ) -> pd.DataFrame:
        """Test each fixed term that can be left out without breaking a margin.

        Parameters
        ----------
        scope : labels of terms; None for all that are part of no other term.
        test : "lrt" (both models by ML), "F" (tests in this fit) or "none" (AIC alone).
        ddf : method of the F tests: "satterthwaite" or "kenward-roger".
        """
        return drop1(self, scope, test, ddf)

    def step(
        self,
        alpha_random: float = 0.1,
        alpha_fixed: float = 0.05,
        reduce_random: bool = True,
        reduce_fixed: bool = True,
        ddf: str = "satterthwaite",
        p: str = "naive",
    ) -> StepResult:
        """Eliminate random effects, then fixed ones, the least significant first.

        Parameters
        ----------
        alpha_random, alpha_fixed : terms with a larger p are eliminated.
        reduce_random, reduce_fixed : whether to eliminate any.
        ddf : method of the F tests of fixed terms.
        p : for random effects "naive" (as lmerTest) or "boundary" (the mixture).

        Returns
        -------
        StepResult : tables `random` and `fixed`, the model found as `fit`.  The last random term
            stays, for without it the model is a linear one.
        """
        return step(self, alpha_random, alpha_fixed, reduce_random, reduce_fixed, ddf, p)

    def lr_vs_lm(self) -> pd.DataFrame:
        """Test all random effects together: LR test against the linear model, as Stata prints.

        Returns
        -------
        DataFrame with the columns of `ranova`, rows "linear model" and "mixed model".
        """
        return lr_vs_lm(self)

    # -- robustness ---------------------------------------------------------------------------

    def robust(self, cluster: Any = None, type: str = "CR2") -> RobustCovariance:
        """Return the cluster-robust covariance of the coefficients.

        Parameters
        ----------
        cluster : a grouping factor, a column of the data or an array; by default the grouping
            factor in which all others are nested.
        type : "CR0" (plain sandwich), "CR1" (times G / (G - 1)) or "CR2" (unbiased if the model
            is right; as clubSandwich).

        Returns
        -------
        RobustCovariance : `.table()` with Satterthwaite (Bell-McCaffrey) df, `.cov`, `.bse`.

        Raises
        ------
        OptionError : random effects cross the clusters, or no factor contains all others and no
            cluster is named.

        Notes
        -----
        No n x n matrix is formed.  A cluster costs the cube of its number of random effects plus p;
        with prior weights that of its rows.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.robust().table()[["estimate", "std_error", "df"]].round(3)
                     estimate  std_error    df
        (Intercept)   251.405      6.825  17.0
        Days           10.467      1.546  17.0
        """
        return robust(self, cluster, type)

    # -- diagnosis ----------------------------------------------------------------------------

    def singularity(self, tol: float = SINGULAR_TOL) -> pd.DataFrame:
        """Judge each random term for singularity, free of scale and as lme4 does.

        Parameters
        ----------
        tol : standard deviations below this share of the residual's count as zero.

        Returns
        -------
        DataFrame by term: effects, smallest_sd (of a combination of the term's effects, relative
        to sigma, over columns of length one), singular, lme4_theta (smallest diagonal element of
        the raw factor, which depends on a predictor's unit), lme4_singular, reason.
        """
        return singularity(self, tol)

    def rePCA(self, scaled: bool = False) -> dict[str, pd.DataFrame]:
        """Return principal components of the random-effects covariance by grouping factor.

        Parameters
        ----------
        scaled : weigh each effect by the length of its column, so that components do not depend on
            a predictor's unit; lme4 does not.

        Returns
        -------
        dict from grouping factor to a DataFrame with rows PC1, PC2, ... and columns sd (relative to
        sigma), proportion, cumulative, and the loading of each effect.
        """
        return random_effects_pca(self, scaled)

    def all_fit(self, optimizers: Any = None, *, progress: Progress = None) -> AllFits:
        """Fit again by every optimizer, side by side.

        Parameters
        ----------
        optimizers : names, or None for all.
        progress : called with (done, total); returning False ends early.

        Returns
        -------
        AllFits : `.to_frame()` with criterion, its excess over the best, evaluations, seconds,
            status and estimates; `.spread()` the largest differences; a mapping to the fits.
        """
        return all_fit(self, optimizers, progress=progress)

    def influence(
        self,
        group: Any = None,
        *,
        refit: bool = True,
        n_jobs: int = 1,
        progress: Progress = None,
    ) -> Influence:
        """Leave out each row, or each group, and estimate again.

        Rows leave by subtraction from the products, so that a deletion costs no pass over the data;
        the search starts from this fit's theta.

        Parameters
        ----------
        group : a grouping factor, a column of the data or an array; None for single rows.
        refit : estimate theta again; False keeps it, which is quicker and misses what the rows do
            to the variances.
        n_jobs : processes, -1 for all cores.
        progress : called with (done, total); returning False ends early and keeps what is done.

        Returns
        -------
        Influence : `.dfbetas()`, `.cooks_distance()`, `.mdffits()`, `.covratio()`,
            `.variance_change()`, `.estimates()`, `.to_frame()`.
        """
        return influence(self, group, refit=refit, n_jobs=n_jobs, progress=progress)
