"""The table of tests: of single combinations and of several together.

Every table of tests in the package (summary, tidy, contest, marginal means, robust standard errors,
maketables) has these columns and takes its p-values and limits from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc, fdtrc, stdtr, stdtrit

from mixlm_sparse.common.checks import require_level
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.fixed.moments import JointTest
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.fitted import FittedModel

TEST_COLUMNS = ("estimate", "std_error", "df", "statistic", "p_value")
LIMIT_COLUMNS = ("lower", "upper")
F_COLUMNS = ("Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)")
CHI2_COLUMNS = ("chi2", "df", "p_value")


def two_sided_p(statistic: Vector, df: Vector) -> Vector:
    """Return P(|T| > |statistic|), from Student's t or, for infinite df, the normal."""
    with np.errstate(invalid="ignore"):
        return np.asarray(2.0 * stdtr(df, -np.abs(statistic)), dtype=np.float64)


def t_quantile(level: float, df: Vector) -> Vector:
    """Return the half width of a two-sided interval in standard errors."""
    return np.asarray(stdtrit(df, 0.5 + 0.5 * level), dtype=np.float64)


def f_p(F: float, num_df: float, den_df: float) -> float:
    """Return P(F distribution > F); chi-squared for infinite df, NaN for unknown ones."""
    if not num_df or np.isnan(den_df):
        return float("nan")
    if np.isinf(den_df):
        return chi2_p(F * num_df, num_df)
    return float(fdtrc(num_df, den_df, F))


def chi2_p(statistic: float, df: float) -> float:
    """Return P(chi-squared > statistic)."""
    return float(chdtrc(df, statistic)) if df else float("nan")

METHODS = {
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "kenward-roger": "Kenward-Roger's degrees of freedom",
    "sas": "Satterthwaite's degrees of freedom as in SAS",
    "normal": "the normal distribution",
}


@dataclass(frozen=True, eq=False, slots=True)
class SingleTests:
    """Single tests of combinations of coefficients, all arrays (r,).

    Without a test (ddf "none", or a perfect fit) df and p_value are NaN.

    Parameters
    ----------
    estimate, std_error, df, statistic, p_value : the columns; infinite df stand for the normal
        distribution.
    heading : the method, for the title of a table; note : what the user should know, or "".
    """

    estimate: Vector
    std_error: Vector
    df: Vector
    statistic: Vector
    p_value: Vector
    heading: str = ""
    note: str = ""

    @property
    def shown(self) -> bool:
        """Whether there is anything to show but estimates and standard errors."""
        return bool(self.heading)

    def shifted(self, by: Vector | float) -> SingleTests:
        """Return the same tests of estimates that something known is added to."""
        return replace(self, estimate=self.estimate + by)

    def interval(self, level: float) -> tuple[Vector, Vector]:
        """Return lower and upper limits; by the normal distribution where there is no df."""
        df = np.where(np.isnan(self.df), np.inf, self.df)
        half = t_quantile(require_level("level", level), df) * self.std_error
        return self.estimate - half, self.estimate + half

    def columns(self, *, level: float | None = None, tests: bool = True) -> dict[str, Vector]:
        """Return the columns by name.

        Parameters
        ----------
        level : coverage of the limits; None leaves them out.
        tests : with statistic and p_value.
        """
        names = TEST_COLUMNS if tests else TEST_COLUMNS[:3]
        out: dict[str, Vector] = {name: getattr(self, name) for name in names}
        if level is not None:
            out.update(zip(LIMIT_COLUMNS, self.interval(level), strict=True))
        return out

    def to_frame(
        self,
        index: Sequence[str] | None = None,
        *,
        level: float | None = None,
        tests: bool = True,
        names: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Return the table; `names` renames columns."""
        table = pd.DataFrame(
            self.columns(level=level, tests=tests), index=None if index is None else list(index)
        )
        if names:
            table = table.rename(columns=dict(names))
        table.attrs["note"] = self.note
        return table


def single_tests(
    estimate: Vector, std_error: Vector, df: Vector, rhs: Vector | float = 0.0, **words: str
) -> SingleTests:
    """Test estimates (r,) against `rhs`; NaN df are no test."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        statistic = (estimate - rhs) / std_error
    return SingleTests(estimate, std_error, df, statistic, two_sided_p(statistic, df), **words)


def require_residual(fit: FittedModel) -> None:
    """Raise a DataError if the fixed effects reproduce the response, which leaves no error."""
    if fit.perfect:
        raise DataError(
            "the fixed effects reproduce the response exactly, so that there is no error variance "
            "to test them against: check whether the response was computed from the predictors"
        )


def f_table(
    fit: FittedModel, found: Sequence[JointTest], labels: Sequence[Any], *, test: bool = True
) -> pd.DataFrame:
    """Return joint tests as a table, one row each; what cannot be tested has no df and is NaN.

    Sums of squares are those that give Wald's F when divided by their df and by sigma^2.

    Parameters
    ----------
    found : the tests; labels : names of the rows.
    test : with degrees of freedom and p; otherwise these are NaN.
    """
    rows, unit = [], unit_of_theta(fit)
    for one in found:
        mean_sq = unit * (one.F / one.scale * unit)
        df = one.den_df if test else float("nan")
        sum_sq = mean_sq * one.num_df if one.num_df else float("nan")
        rows.append((sum_sq, mean_sq, one.num_df, df, one.F, f_p(one.F, one.num_df, df)))
    table = pd.DataFrame(rows, columns=list(F_COLUMNS), index=pd.Index(list(labels), dtype=object))
    return table.astype(dict.fromkeys(F_COLUMNS, np.float64) | {"NumDF": np.int64})
