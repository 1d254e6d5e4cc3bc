"""Tests of coefficients and of their combinations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed, require_bool, require_level
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.inference.fixed.estimable import kept_part, warn_not_estimable
from mixlm_sparse.inference.fixed.hypotheses import Hypotheses, read_hypotheses
from mixlm_sparse.inference.fixed.methods import (
    HEADINGS,
    IN_TITLES,
    joint_test,
    linear_tests,
    moments,
    reason_of,
    require_ddf,
)
from mixlm_sparse.inference.fixed.moments import (
    NOTHING_TO_TEST,
    JointTest,
)
from mixlm_sparse.inference.fixed.satterthwaite import satterthwaite_work
from mixlm_sparse.inference.fixed.tests import (
    CHI2_COLUMNS,
    METHODS,
    SingleTests,
    chi2_p,
    f_table,
    require_residual,
)
from mixlm_sparse.model.fitted import FittedModel

# A default must not keep the user waiting: beyond this many multiply-adds, some ten seconds, a
# summary does without degrees of freedom.  Counted, not timed: a busy machine changes no summary.
DEFAULT_WORK = 2e10
HYPOTHESES = "Linear hypotheses about the fixed effects"


# ---------------------------------------------------------------------------------------------
# Each coefficient
# ---------------------------------------------------------------------------------------------


def coefficient_tests(fit: FittedModel, ddf: str | None = "auto") -> SingleTests:
    """Test every coefficient against zero, for the summary.

    Parameters
    ----------
    ddf : as in `contest`; "auto" is Satterthwaite unless that would take more than
        `DEFAULT_WORK`, in which case the note says so.
    """
    note = ""
    if isinstance(ddf, str) and ddf == "auto":
        ddf = "satterthwaite"
        work = satterthwaite_work(fit)
        if work > DEFAULT_WORK:
            ddf = "none"
            note = (
                "degrees of freedom and p-values were left out: Satterthwaite's would take about "
                f"{work:.0e} operations here; ask for them with summary(ddf='satterthwaite'), or "
                "for z tests with summary(ddf='normal')"
            )
    name = require_ddf(ddf)
    if name == "none" or fit.system.p == 0 or fit.perfect:
        nothing = np.full(fit.system.p, np.nan)
        return SingleTests(
            fit.solution.beta, fit.standard_errors, nothing, fit.t_ratios, nothing, note=note
        )
    return linear_tests(fit, np.eye(fit.system.p), ddf=name)


def pvalues(fit: FittedModel) -> pd.Series[float]:
    """Two-sided p-values (p,) of the fixed effects with Satterthwaite's degrees of freedom.

    Computed when asked for first; other methods: `tidy(ddf=...)`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.pvalues.map("{:.3g}".format)
    (Intercept)    1.17e-17
    Days           3.26e-06
    dtype: str
    """
    return _by_name(fit, linear_tests(fit, np.eye(fit.system.p)).p_value)


def df_coefficients(fit: FittedModel, ddf: str | None = "satterthwaite") -> pd.Series[float]:
    """Return the degrees of freedom of each fixed effect, (p,).

    Parameters
    ----------
    ddf : "satterthwaite", "kenward-roger", "normal" (infinite) or "none" (NaN).

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> exam = mx.datasets.load("Exam")
    >>> fit = mx.lmer("normexam ~ standLRT + schgend + (standLRT | school)", exam)
    >>> fit.df_coefficients().round(1)
    (Intercept)     63.3
    standLRT        56.3
    schgendboys     57.4
    schgendgirls    54.6
    dtype: float64
    """
    return _by_name(fit, linear_tests(fit, np.eye(fit.system.p), ddf=ddf).df)


def vcov_adjusted(fit: FittedModel) -> pd.DataFrame:
    """Return Kenward and Roger's adjusted covariance (p, p) of the fixed effects.

    A fit by ML is fitted again by REML, with a RefitWarning.  NaN for coefficients whose standard
    error the data do not determine.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mx.datasets.load("Penicillin"))
    >>> fit.vcov_adjusted().round(4)
                 (Intercept)
    (Intercept)       0.6538
    """
    names = list(fit.system.x_names)
    known = fit.has_error(np.eye(len(names)))
    V = np.where(known[:, None] & known, moments(fit, "kenward-roger").vcov, np.nan)
    return pd.DataFrame(V, index=names, columns=names)


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
    if isinstance(ddf, str) and ddf == "auto":
        ddf = "satterthwaite" if satterthwaite_work(fit) <= DEFAULT_WORK else "normal"
    tests = linear_tests(fit, np.eye(fit.system.p), ddf=ddf)
    lower, upper = tests.interval(level)
    table = pd.DataFrame({"lower": lower, "upper": upper}, index=list(fit.system.x_names))
    method = METHODS["normal" if require_ddf(ddf) == "none" else require_ddf(ddf)]
    table.attrs["heading"] = f"{percent(level)} Wald intervals by {method}"
    table.attrs["note"] = tests.note
    return table


def _by_name(fit: FittedModel, values: Any) -> pd.Series[float]:
    return pd.Series(values, index=list(fit.system.x_names), dtype=np.float64)


# ---------------------------------------------------------------------------------------------
# Combinations
# ---------------------------------------------------------------------------------------------


@result_table()
def contest(
    fit: FittedModel,
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
        from names to weights, text such as "Days = 0" or "A - B", or a list of these.  Names may
        be put in backticks.  Columns of X that were left out as combinations of others may be
        named as well.
    rhs : value of each hypothesis, a number or (q,).
    joint : one F test of all rows; otherwise a t test of each.
    ddf : "satterthwaite" (as lmerTest), "kenward-roger" (as pbkrtest; a fit by ML is fitted again
        by REML, with a warning), "sas" (Satterthwaite's, several rows together as in SAS and mmrm),
        "normal" (z and chi-squared tests), "none" or None (no tests).
    level : coverage of the intervals of single tests.

    Returns
    -------
    DataFrame with columns Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F) or, for single tests,
    estimate, std_error, df, statistic, p_value, lower, upper (of the estimate L beta).  What the
    data do not determine (it depends on which columns were left out) is NaN, with 0 NumDF and a
    RankDeficiencyWarning.  Without rows in L the table has none.

    Raises
    ------
    OptionError : a width that does not match, unknown names, text that is not linear, hypotheses
        that contradict each other or say nothing.

    Notes
    -----
    Satterthwaite's DenDF of several rows together belong to the hypothesis, not to the rows that
    express it; lmerTest's depend on the rows, and differ a little on unbalanced data.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.contest("Days = 10", joint=False)[["estimate", "df", "p_value"]].round(3)
               estimate    df  p_value
    Days = 10    10.467  17.0    0.766
    """
    joint = require_bool("joint", joint)
    level = require_level("level", level)
    name = require_ddf(ddf)
    given, why = _hypotheses(fit, L, rhs)
    if not joint:
        tests = linear_tests(fit, given.L, given.rhs, ddf=name)
        table = tests.to_frame(given.labels, level=level)
        table.attrs["heading"] = f"{HYPOTHESES}, {HEADINGS[name] or IN_TITLES[name]}"
        return _with_note(table, tests.note, why)
    require_residual(fit)
    if not given.labels:
        table = f_table(fit, [], [])
        table.attrs["heading"] = f"{HYPOTHESES}, {IN_TITLES[name]}"
        return table
    method = moments(fit, name)
    found = NOTHING_TO_TEST if why else joint_test(fit, method, given.L, given.rhs)
    _require_hypothesis(found, why)
    table = f_table(fit, [found], ["; ".join(given.labels)], test=name != "none")
    table.attrs["heading"] = f"{HYPOTHESES}, {IN_TITLES[name]}"
    return _with_note(table, method.note, why, reason_of(fit, [found]))


@result_table("Wald test, chi-squared by the normal distribution")
def wald_test(fit: FittedModel, L: Any = None, *, rhs: Any = 0.0) -> pd.DataFrame:
    """Test hypotheses together by Wald's chi-squared.

    Parameters
    ----------
    L, rhs : as in `contest`; by default all coefficients but the intercept are zero, Stata's
        "Wald chi2".

    Returns
    -------
    DataFrame with columns chi2, df, p_value; NaN with 0 df where the hypothesis is not estimable.

    Raises
    ------
    OptionError : as in `contest`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> fit.wald_test(["recipeB", "recipeC"])
    Wald test, chi-squared by the normal distribution
                       chi2  df  p_value
    recipeB; recipeC  0.619   2   0.7338
    """
    names = fit.system.x_names
    why = ""
    if L is None:
        slopes = [i for i, name in enumerate(names) if name != "(Intercept)"]
        if not slopes:
            raise OptionError(
                "the model has no coefficient but the intercept: say which hypothesis to test, "
                "such as wald_test('(Intercept) = 0')"
            )
        matrix, right = np.eye(len(names))[slopes], np.zeros(len(slopes))
        label = "all coefficients but the intercept" if len(slopes) < len(names) else "all"
    else:
        given, why = _hypotheses(fit, L, rhs)
        if not given.labels:
            return pd.DataFrame(columns=list(CHI2_COLUMNS), dtype=np.float64)
        matrix, right, label = given.L, given.rhs, "; ".join(given.labels)
    require_residual(fit)
    model = moments(fit, "normal")
    found = NOTHING_TO_TEST if why else joint_test(fit, model, matrix, right)
    _require_hypothesis(found, why)
    chi2, df = found.F * found.num_df if found.num_df else np.nan, found.num_df
    row = dict(zip(CHI2_COLUMNS, ([chi2], [df], [chi2_p(chi2, df)]), strict=True))
    table = pd.DataFrame(row, index=[label])
    return _with_note(table, why, reason_of(fit, [found]))


def _hypotheses(fit: FittedModel, L: Any, rhs: Any) -> tuple[Hypotheses, str]:
    """Read hypotheses, in the kept columns; rows of NaN, with the reason, where not estimable."""
    kept = list(fit.system.products.kept)
    given = read_hypotheses(L, fit.matrices.fixed.names, rhs, kept=kept)
    rows = kept_part(fit, given.L)
    missed = np.isnan(rows).any(axis=1)
    why = ""
    if missed.any():
        why = warn_not_estimable(
            fit,
            [f"'{given.labels[i]}'" for i in np.flatnonzero(missed)],
            f"columns of X are combinations of each other ({listed(fit.system.dropped, 3)} "
            f"{'was' if len(fit.system.dropped) == 1 else 'were'} left out), and the value depends "
            "on which of them are left out: test a combination that the data determine, or remove "
            "terms from the formula",
        )
    return Hypotheses(rows, given.rhs, given.labels), why


def _require_hypothesis(found: JointTest, why: str) -> None:
    if not found.num_df and not why:
        raise OptionError(
            "the contrast is zero in every coefficient, so that there is nothing to test: "
            "give at least one weight that is not zero"
        )


def _with_note(table: pd.DataFrame, *notes: str) -> pd.DataFrame:
    table.attrs["note"] = "; ".join(note for note in notes if note)
    return table
