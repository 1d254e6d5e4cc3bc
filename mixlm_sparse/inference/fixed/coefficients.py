"""Tests of coefficients and of their combinations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit
from scipy.stats import chi2
from scipy.stats import f as f_distribution

from mixlm_sparse.common.checks import require_level, require_one_of
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.ddf import (
    CoefficientMoments,
    NormalMoments,
    independent_combinations,
    satterthwaite,
    satterthwaite_work,
)
from mixlm_sparse.inference.fixed.hypotheses import read_hypotheses
from mixlm_sparse.inference.fixed.kenward_roger import kenward_roger
from mixlm_sparse.inference.fixed.tests import METHODS, TestColumns
from mixlm_sparse.model.fitted import FittedModel

DDF = ("satterthwaite", "kenward-roger", "normal", "none")
F_COLUMNS = ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]
# A default must not keep the user waiting: beyond this many multiply-adds, some ten seconds, a
# summary does without degrees of freedom.  Counted, not timed: a busy machine changes no summary.
DEFAULT_WORK = 2e10


def require_ddf(ddf: str | None) -> str:
    """Return the canonical name of a method; unique beginnings and "KR" are taken for the name.

    Raises
    ------
    OptionError : the method is not known, or the beginning is that of several.
    """
    if ddf is None:
        return "none"
    if isinstance(ddf, str):
        folded = ddf.lower().replace("_", "-").replace(" ", "-")
        folded = "kenward-roger" if folded == "kr" else folded
        meant = [name for name in DDF if folded and name.startswith(folded)]
        if len(meant) == 1:
            return meant[0]
    return str(require_one_of("ddf", ddf, DDF))


def moments(fit: FittedModel, ddf: str | None = "satterthwaite") -> CoefficientMoments:
    """Return estimates, covariance and degrees of freedom of `fit` by one of the methods.

    Parameters
    ----------
    ddf : "satterthwaite", "kenward-roger", "normal" or "none" (the last two are the same here).
    """
    name = require_ddf(ddf)
    if name in ("normal", "none") or fit.perfect or fit.system.p == 0:
        vcov = fit.scale * fit.solution.vcov_unscaled
        return NormalMoments(fit.solution.beta, vcov, fit.sigma, label=name)
    return kenward_roger(fit) if name == "kenward-roger" else satterthwaite(fit)


def two_sided_p(statistic: Vector, df: Vector) -> Vector:
    """Return P(|T| > |statistic|), from Student's t or, for infinite df, the normal."""
    with np.errstate(invalid="ignore"):
        return np.asarray(2.0 * stdtr(df, -np.abs(statistic)), dtype=np.float64)


def t_quantile(level: float, df: Vector) -> Vector:
    """Return the half width of a two-sided interval in standard errors."""
    return np.asarray(stdtrit(df, 0.5 + 0.5 * level), dtype=np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class LinearTests:
    """Single tests of combinations of coefficients, all arrays (r,).

    Without a test (ddf "none", or a perfect fit) df and p_value are NaN.
    """

    estimate: Vector
    std_error: Vector
    df: Vector
    statistic: Vector
    p_value: Vector
    label: str
    note: str

    def interval(self, level: float) -> tuple[Vector, Vector]:
        """Return lower and upper limits; by the normal distribution where there is no df."""
        df = np.where(np.isnan(self.df), np.inf, self.df)
        half = t_quantile(require_level("level", level), df) * self.std_error
        return self.estimate - half, self.estimate + half


def linear_tests(
    fit: FittedModel, L: Matrix, rhs: Vector | float = 0.0, *, ddf: str | None = "satterthwaite"
) -> LinearTests:
    """Test each row of L beta = rhs on its own; L (r, p)."""
    method = moments(fit, ddf)
    estimate = L @ method.beta
    error = np.sqrt(method.variance(L))
    none = require_ddf(ddf) == "none" or fit.perfect
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (estimate - rhs) / error
    if fit.perfect:
        statistic = np.full(estimate.size, np.nan)
    df = np.full(estimate.size, np.nan) if none else method.df(L)
    p = two_sided_p(statistic, df)
    return LinearTests(estimate, error, df, statistic, p, method.label, method.note)


def coefficient_tests(fit: FittedModel, ddf: str | None = "auto") -> TestColumns:
    """Test every coefficient against zero, for the summary.

    Parameters
    ----------
    ddf : as in `moments`; "auto" is Satterthwaite unless that would take more than
        `DEFAULT_WORK`, in which case the note says so.
    """
    p = fit.system.p
    if ddf == "auto":
        work = satterthwaite_work(fit)
        if work > DEFAULT_WORK:
            note = (
                "degrees of freedom and p-values were left out: Satterthwaite's would take about "
                f"{work:.0e} operations here; ask for them with summary(ddf='satterthwaite'), or "
                "for z tests with summary(ddf='normal')"
            )
            return TestColumns(None, None, None, None, note=note)
        ddf = "satterthwaite"
    name = require_ddf(ddf)
    if name == "none" or p == 0 or fit.perfect:
        return TestColumns(None, None, None, None)
    tests = linear_tests(fit, np.eye(p), ddf=name)
    heading = {
        "satterthwaite": "t tests with Satterthwaite's degrees of freedom",
        "kenward-roger": "t tests with Kenward-Roger's covariance and degrees of freedom",
        "normal": "z tests, from the normal distribution",
    }[name]
    return TestColumns(
        tests.std_error, tests.statistic, tests.df, tests.p_value, heading, tests.note
    )


@result_table()
def conf_int(
    fit: FittedModel,
    *,
    level: float = 0.95,
    alpha: float | None = None,
    ddf: str | None = "auto",
) -> pd.DataFrame:
    """Return Wald intervals of the fixed effects.

    They agree with the tests of the summary: zero is outside of an interval of 95% if p < 0.05.

    Parameters
    ----------
    level : coverage between 0 and 1.
    alpha : 1 - level, for those who think of it that way; give one of the two.
    ddf : "satterthwaite", "kenward-roger", or "normal" as lme4's and Stata's Wald intervals.
        "auto" is what the summary shows: Satterthwaite, or normal where that takes long.

    Returns
    -------
    DataFrame with columns lower, upper; `attrs["heading"]` says of which kind.

    Raises
    ------
    OptionError : level or alpha outside of (0, 1), both of them, or an unknown method.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.conf_int()
    95% Wald intervals by Satterthwaite's degrees of freedom
                   lower    upper
    (Intercept)  237.007  265.804
    Days           7.206   13.729
    """
    if alpha is not None:
        if level != 0.95:
            raise OptionError(f"level is {level} and alpha is {alpha}: give one of them")
        level = 1.0 - require_level("alpha", alpha)
    level = require_level("level", level)
    if ddf == "auto":
        ddf = "satterthwaite" if satterthwaite_work(fit) <= DEFAULT_WORK else "normal"
    tests = linear_tests(fit, np.eye(fit.system.p), ddf=ddf)
    lower, upper = tests.interval(level)
    table = pd.DataFrame({"lower": lower, "upper": upper}, index=list(fit.system.x_names))
    method = METHODS["normal" if require_ddf(ddf) == "none" else require_ddf(ddf)]
    table.attrs["heading"] = f"{percent(level)} Wald intervals by {method}"
    table.attrs["note"] = tests.note
    return table


def require_residual(fit: FittedModel) -> None:
    """Raise a DataError if the fixed effects reproduce the response, which leaves no error."""
    if fit.perfect:
        raise DataError(
            "the fixed effects reproduce the response exactly, so that there is no error variance "
            "to test them against: check whether the response was computed from the predictors"
        )


def f_row(
    fit: FittedModel, method: CoefficientMoments, L: Matrix, rhs: Vector, *, test: bool
) -> tuple[float, float, float, float, float, float]:
    """Return Sum Sq, Mean Sq, NumDF, DenDF, F and p of L beta = rhs; without `test` no df and p.

    Sums of squares are those that give Wald's F when divided by their df and by sigma^2.
    """
    require_residual(fit)
    found = method.joint(L, rhs)
    F, q, df = found.F, found.num_df, found.den_df
    mean_sq = F / found.scale * fit.scale
    if not test:
        df = float("nan")
    if np.isfinite(df):
        p = float(f_distribution.sf(F, q, df))
    else:
        p = float(chi2.sf(F * q, q)) if np.isinf(df) else float("nan")
    return mean_sq * q, mean_sq, float(q), df, F, p


@result_table("Linear hypotheses about the fixed effects")
def contest(
    fit: FittedModel,
    L: Any,
    *,
    rhs: Any = 0.0,
    joint: bool = True,
    ddf: str | None = "satterthwaite",
    level: float = 0.95,
) -> pd.DataFrame:
    """Test linear hypotheses about the coefficients; see `InferenceMethods.contest`."""
    level = require_level("level", level)
    given = read_hypotheses(L, fit.system.x_names, rhs)
    name = require_ddf(ddf)
    if joint:
        method = moments(fit, name)
        row = f_row(fit, method, given.L, given.rhs, test=name != "none")
        if not row[2]:
            raise OptionError(
                "the contrast is zero in every coefficient, so that there is nothing to test: "
                "give at least one weight that is not zero"
            )
        table = pd.DataFrame([row], columns=F_COLUMNS, index=["; ".join(given.labels)])
        table = table.astype({"NumDF": np.int64})
        table.attrs["note"] = method.note
        return table
    tests = linear_tests(fit, given.L, given.rhs, ddf=name)
    lower, upper = tests.interval(level)
    table = pd.DataFrame(
        {
            "estimate": tests.estimate,
            "std_error": tests.std_error,
            "df": tests.df,
            "statistic": tests.statistic,
            "p_value": tests.p_value,
            "lower": lower,
            "upper": upper,
        },
        index=list(given.labels),
    )
    table.attrs["note"] = tests.note
    return table


@result_table("Wald test")
def wald_test(fit: FittedModel, L: Any = None, *, rhs: Any = 0.0) -> pd.DataFrame:
    """Test hypotheses together by Wald's chi-squared; see `InferenceMethods.wald_test`."""
    names = fit.system.x_names
    if L is None:
        slopes = [i for i, name in enumerate(names) if name != "(Intercept)"]
        if not slopes:
            raise OptionError(
                "the model has no coefficient but the intercept: say which hypothesis to test, "
                "such as wald_test('(Intercept) = 0')"
            )
        matrix = np.eye(len(names))[slopes]
        right = np.zeros(len(slopes))
        label = "all coefficients but the intercept" if len(slopes) < len(names) else "all"
    else:
        given = read_hypotheses(L, names, rhs)
        matrix, right, label = given.L, given.rhs, "; ".join(given.labels)
    require_residual(fit)
    vcov = fit.scale * fit.solution.vcov_unscaled
    _, difference, variance = independent_combinations(matrix, right, fit.solution.beta, vcov)
    statistic = float((difference**2 / variance).sum())
    df = difference.size
    p = float(chi2.sf(statistic, df)) if df else float("nan")
    return pd.DataFrame({"chi2": [statistic], "df": [df], "p_value": [p]}, index=[label])
