"""Tests and tables of a fit as methods; each calls one function of a sibling module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.inference.fixed.anova import anova_table
from mixlm_sparse.inference.fixed.coefficients import contest, linear_tests, moments, wald_test
from mixlm_sparse.inference.fixed.emmeans import MarginalMeans, marginal_means, marginal_slopes
from mixlm_sparse.inference.models.compare import compare_models
from mixlm_sparse.inference.variance.shares import icc, r_squared
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.tables.tidy import augment, glance, group_sizes, tidy


class InferenceMethods(FittedModel):
    """Methods of a fit: tests of coefficients and terms, marginal means, tables.

    Where a method takes `ddf`, the choices are

    "satterthwaite"
        t and F tests with Satterthwaite's degrees of freedom, as lmerTest (default);
    "kenward-roger"
        Kenward and Roger's adjusted covariance and degrees of freedom, as pbkrtest; a fit by ML is
        fitted again by REML, with a warning;
    "normal"
        z and chi-squared tests, as Stata's `mixed` by default;
    "none" or None
        no tests.
    """

    # -- coefficients -------------------------------------------------------------------------

    @property
    def pvalues(self) -> pd.Series[float]:
        """Two-sided p-values of the fixed effects with Satterthwaite's degrees of freedom.

        Computed when asked for first; other methods: `tidy(ddf=...)`.
        """
        return self._named(linear_tests(self, np.eye(self.system.p)).p_value)

    def df_coefficients(self, ddf: str | None = "satterthwaite") -> pd.Series[float]:
        """Return the degrees of freedom of each fixed effect.

        Parameters
        ----------
        ddf : see the class.
        """
        return self._named(linear_tests(self, np.eye(self.system.p), ddf=ddf).df)

    def vcov_adjusted(self) -> pd.DataFrame:
        """Return Kenward and Roger's adjusted covariance (p, p) of the fixed effects."""
        names = list(self.system.x_names)
        return pd.DataFrame(moments(self, "kenward-roger").vcov, index=names, columns=names)

    def conf_int(self, level: float = 0.95, *, ddf: str | None = "normal") -> pd.DataFrame:
        """Return Wald intervals of the fixed effects.

        Parameters
        ----------
        level : coverage between 0 and 1.
        ddf : "normal" (as lme4's and Stata's Wald intervals), "satterthwaite" or "kenward-roger".

        Returns
        -------
        DataFrame with columns lower, upper.
        """
        lower, upper = linear_tests(self, np.eye(self.system.p), ddf=ddf).interval(level)
        return pd.DataFrame({"lower": lower, "upper": upper}, index=list(self.system.x_names))

    def contest(
        self,
        L: Any,
        *,
        rhs: Any = 0.0,
        joint: bool = True,
        ddf: str | None = "satterthwaite",
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Test linear hypotheses about the fixed effects, L beta = rhs.

        Parameters
        ----------
        L : a (q, p) or (p,) matrix, a DataFrame with columns named by coefficients, a dictionary
            from names to weights, text such as "Days = 0" or "A - B", or a list of these.
        rhs : value of each hypothesis, a number or (q,).
        joint : one F test of all rows; otherwise a t test of each.
        ddf : see the class.
        level : coverage of the intervals of single tests.

        Returns
        -------
        DataFrame with columns Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F) or, for single tests,
        estimate, std_error, df, statistic, p_value, lower, upper (of the estimate L beta).

        Raises
        ------
        OptionError : a width that does not match, unknown names, text that is not linear.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.contest("Days = 10", joint=False)[["estimate", "df", "p_value"]].round(3)
                   estimate    df  p_value
        Days = 10    10.467  17.0    0.766
        """
        return contest(self, L, rhs=rhs, joint=joint, ddf=ddf, level=level)

    def wald_test(self, L: Any = None, *, rhs: Any = 0.0) -> pd.DataFrame:
        """Test hypotheses together by Wald's chi-squared.

        Parameters
        ----------
        L, rhs : as in `contest`; by default all coefficients but the intercept are zero, Stata's
            "Wald chi2".

        Returns
        -------
        DataFrame with columns chi2, df, p_value.
        """
        return wald_test(self, L, rhs=rhs)

    # -- terms and models ---------------------------------------------------------------------

    def anova(
        self,
        *others: FittedModel,
        type: Any = 3,
        ddf: str | None = "satterthwaite",
        refit: bool = True,
        names: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Test each term of the fixed part or, with other fits, compare the models.

        Parameters
        ----------
        *others : further fits to the same rows: likelihood-ratio tests, see `mx.anova`.
        type : 1 or "I" tests the terms one after the other, 2 or "II" each after those that do not
            contain it, 3 or "III" each by marginal contrasts, whatever the coding of factors.
        ddf : see the class.
        refit, names : of the comparison: fit REML models again by ML; names of its rows.

        Returns
        -------
        DataFrame with columns Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F), one row for each
        term; `attrs["heading"]` says what it is.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.anova()[["NumDF", "DenDF", "F value"]].round(2)
              NumDF  DenDF  F value
        Days      1   17.0    45.85
        """
        if others:
            return compare_models(self, *others, refit=refit, names=names)
        return anova_table(self, type=type, ddf=ddf)

    # -- marginal means -----------------------------------------------------------------------

    def emmeans(
        self,
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
        covariates (columns of the data, before any transformation); predictions on it, without
        random effects, are averaged over the factors not named.

        Parameters
        ----------
        specs : one or several predictors.
        by : predictors that separate families of comparisons.
        at : other values, such as {"x": [0, 1]} or {"f": "b"}.
        ddf : see the class.
        weights : "equal", or "proportional" to the rows at each combination of the factors
            averaged over.
        level : coverage of the intervals.

        Returns
        -------
        MarginalMeans : prints as a table; has `to_frame()`, `test()`, `pairs(adjust="tukey")` and
        `contrast(weights)`.  What is not estimable is NaN.

        Raises
        ------
        OptionError : a predictor that the fixed part does not have; a fit from matrices.
        """
        return marginal_means(self, specs, by=by, at=at, ddf=ddf, weights=weights, level=level)

    def emtrends(
        self,
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
        return marginal_slopes(
            self, variable, specs=specs, by=by, at=at, ddf=ddf, weights=weights, level=level
        )

    # -- tables -------------------------------------------------------------------------------

    def tidy(
        self,
        effects: str | Sequence[str] = "fixed",
        *,
        ddf: str | None = "satterthwaite",
        conf_int: bool = False,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Return estimates as a table of one row each.

        Parameters
        ----------
        effects : "fixed", "ran_pars" (standard deviations and correlations), "ran_vals" (predicted
            random effects), or several of them.
        ddf : for fixed effects, see the class.
        conf_int : add conf_low and conf_high, and standard errors of the random parameters.
        level : coverage.

        Returns
        -------
        DataFrame with columns effect, group, term, estimate, std_error, statistic, df, p_value and,
        if asked for, conf_low, conf_high; with "ran_vals" also level.
        """
        return tidy(self, effects, ddf=ddf, conf_int=conf_int, level=level)

    def glance(self) -> pd.DataFrame:
        """Return the figures of the fit as one row: nobs, sigma, llf, aic, bic, criterion, ..."""
        return glance(self)

    def augment(self) -> pd.DataFrame:
        """Return the rows used: the columns of the formula and what the fit says of each row.

        Columns .fitted, .resid, .fixed (without random effects), .hat, .cooksd, .std_resid
        (sqrt(w) (y - mu) / sigma), and .weights and .offset where there are any.  With
        na_action="exclude" all rows of the data, with NaN in those not used.
        """
        return augment(self)

    def group_sizes(self) -> pd.DataFrame:
        """Return, for each grouping factor, its levels and the rows per level.

        Columns levels, min, mean, median, max.
        """
        return group_sizes(self)

    # -- shares of variance -------------------------------------------------------------------

    def icc(self, *, level: float = 0.95) -> pd.DataFrame:
        """Return intraclass correlations.

        Parameters
        ----------
        level : coverage of the intervals (delta method on the logit scale; NaN at 0 and 1).

        Returns
        -------
        DataFrame with columns estimate, std_error, lower, upper.  Row "adjusted" is the share of
        random effects in the variance that fixed effects leave, "unadjusted" their share in the
        whole variance, and one row for each grouping factor is its share in what fixed effects
        leave.  Random slopes count with the variance that they add to the rows on average; with
        prior weights the residual variance is that of an average row.
        """
        return icc(self, level=level)

    def r2(self, *, level: float = 0.95) -> pd.DataFrame:
        """Return Nakagawa's R².

        Parameters
        ----------
        level : coverage of the intervals (delta method on the logit scale).

        Returns
        -------
        DataFrame with columns estimate, std_error, lower, upper; "marginal" is the share of fixed
        effects in the variance, "conditional" that of fixed and random effects.
        """
        return r_squared(self, level=level)
