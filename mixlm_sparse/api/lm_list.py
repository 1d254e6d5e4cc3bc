"""Least squares in every group on its own: nlme's and lme4's `lmList`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from mixlm_sparse.api.attribute import Attribute
from mixlm_sparse.common.checks import listed, require_bool, require_level
from mixlm_sparse.common.errors import (
    FormulaError,
    OptionError,
    SkippedGroupsWarning,
    caller_level,
)
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result, result_table
from mixlm_sparse.common.text import format_number
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.formula.expand import expand_fixed
from mixlm_sparse.formula.grammar import read_expression
from mixlm_sparse.formula.parse import formula_text
from mixlm_sparse.formula.syntax import Binary, Call, Expr, deparse, strip_parens, walk
from mixlm_sparse.formula.terms import MixedFormula, RandomPart
from mixlm_sparse.report.plots.methods import LmListPlots
from mixlm_sparse.solve.groupwise import GroupFits, fit_groups
from mixlm_sparse.solve.rows import InMemory


@answers_unknown_keywords
@calm
def lm_list(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    warn: bool = True,
) -> LmList:
    """Fit a linear model by least squares in each group.

    Parameters
    ----------
    formula : "y ~ x | g": the model of `y` in each level of `g` (`a:b` for combinations).
    data : a pandas, polars or pyarrow table, a duckdb relation, or a dict of columns.
    weights, offset : name of a column, or an array with one number for each row.
    subset : rows to use: a boolean array, or an expression in the columns.
    na_action : "omit" leaves rows with missing cells out, "exclude" as well, but pads per-row
        results with NaN to the length of the data, "raise" makes them an error.
    contrasts : per factor: "treatment", "sum", "helmert", "poly", or a matrix.
    env : functions that the formula may call, by name.
    warn : warn of groups that do not determine all coefficients; they are in `skipped` all the
        same.  What they leave of residuals and degrees of freedom counts in `sigma`, as in R.

    Returns
    -------
    LmList

    Raises
    ------
    FormulaError : the formula has no group, or random terms.
    DataError : the data do not fit the formula.

    Warns
    -----
    SkippedGroupsWarning : groups have too few rows, or a predictor does not vary in them.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("distance ~ age | Subject", mx.datasets.load("Orthodont"))
    >>> fits.coef().loc[["M16", "F10"]]
             (Intercept)   age
    Subject
    M16            16.95  0.55
    F10            13.55  0.45
    """
    matrices = model_matrices(
        _grouped_formula(formula),
        data,
        weights=weights,
        offset=offset,
        subset=subset,
        na_action=na_action,
        contrasts=contrasts,
        env=env,
    )
    factor = matrices.factors[0]
    y = InMemory.of(matrices).whole().target
    fits = fit_groups(y, matrices.X, factor.codes, factor.n_levels, matrices.weights)
    if not fits.full_rank.any():
        raise OptionError(
            f"no level of '{factor.label}' can be fitted with {matrices.fixed.names}: "
            "use fewer columns or larger groups"
        )
    out = LmList(formula=formula, matrices=matrices, fits=fits, data=data)
    if require_bool("warn", warn) and len(out.skipped):
        warnings.warn(out.skipped_note, SkippedGroupsWarning, stacklevel=caller_level())
    return out


def _grouped_formula(text: str) -> MixedFormula:
    """Read "y ~ x | g" as a formula with one grouping factor."""
    text = formula_text(text, "y ~ x | g")
    usage = "write 'response ~ predictors | group'"
    tree = strip_parens(read_expression(text, what="formula"))
    if not (isinstance(tree, Binary) and tree.op == "~"):
        raise FormulaError(f"the formula '{text}' has no response: {usage}")
    right = tree.right
    if not (isinstance(right, Binary) and right.op == "|"):
        inside = [n for n in walk(right) if isinstance(n, Binary) and n.op in ("|", "||")]
        hint = ", without the parentheses of a random term" if inside else ", or use a linear model"
        raise FormulaError(f"the formula '{text}' has no group: {usage}{hint}")
    fixed, random = expand_fixed(right.left)
    if random:
        raise FormulaError(f"'{random[0]}' is a random term, which least squares has not: {usage}")
    group = strip_parens(right.right)
    if _is_several(group):
        raise FormulaError(
            f"'{deparse(group)}' is more than one grouping factor: name one, such as g, or a:b"
        )
    part = RandomPart(True, (), group)
    response = strip_parens(tree.left)
    return MixedFormula(f"{deparse(response)} ~ {fixed} + {part}", response, fixed, (part,))


def _is_several(group: Expr) -> bool:
    if isinstance(group, Call):
        return False
    return isinstance(group, Binary) and group.op in ("/", "*", "+", "|", "||")


@dataclass(frozen=True, eq=False, repr=False)
class LmList(PrintsAsTable):
    """Separate least-squares fits of one model in each group.

    Parameters
    ----------
    formula : as given.
    matrices : the design of all rows; its one grouping factor has the groups.
    fits : coefficients and sums of squares.
    data : the data frame, for plots against other columns.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("distance ~ age | Subject", mx.datasets.load("Orthodont"))
    >>> round(fits.sigma, 5), fits.df_resid
    (1.31004, 54)
    """

    formula: str
    matrices: ModelMatrices
    fits: GroupFits
    data: Any

    plot = Attribute(LmListPlots)

    # -- what it is ---------------------------------------------------------------------------

    @property
    def group(self) -> str:
        """Name of the grouping factor."""
        return self.matrices.factors[0].label

    @property
    def levels(self) -> list[str]:
        """(L,) names of the groups."""
        return list(self.matrices.factors[0].levels)

    @property
    def names(self) -> tuple[str, ...]:
        """(p,) names of the coefficients."""
        return self.matrices.fixed.names

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.matrices.nobs

    @property
    def group_sizes(self) -> pd.Series[int]:
        """Rows of each group."""
        return pd.Series(self.fits.nobs, index=self._index, name="nobs")

    @property
    def _index(self) -> pd.Index[str]:
        return pd.Index(self.levels, name=self.group)

    def __len__(self) -> int:
        return len(self.levels)

    # -- residual variance --------------------------------------------------------------------

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom of all groups together, also of those in `skipped`."""
        return int(self.fits.df.sum())

    @cached_property
    def sigma(self) -> float:
        """Pooled residual standard deviation: sqrt(sum of RSS / sum of df); NaN without df."""
        if self.df_resid == 0:
            return float("nan")
        return float(np.sqrt(self.fits.rss[:, 0].sum() / self.df_resid))

    @property
    def group_sigma(self) -> pd.Series[float]:
        """Residual standard deviation of each group; NaN without degrees of freedom."""
        df = self.fits.df
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(df > 0, np.sqrt(self.fits.rss[:, 0] / df), np.nan)
        return pd.Series(values, index=self._index, name="sigma")

    # -- coefficients -------------------------------------------------------------------------

    def coef(self) -> pd.DataFrame:
        """Return the coefficients (L, p); NaN for those that the rows of a group do not determine.

        They depend on which columns are left out; R leaves out the last ones and gives numbers for
        the others.
        """
        return self._frame(self.fits.coefficients[:, :, 0])

    def std_errors(self, pool: bool = True) -> pd.DataFrame:
        """Return the standard errors (L, p).

        Parameters
        ----------
        pool : take the pooled residual standard deviation, else that of the group.
        """
        return self._frame(self._standard_errors(require_bool("pool", pool)))

    def _standard_errors(self, pool: bool) -> Matrix:
        root = np.sqrt(np.diagonal(self.fits.unscaled, axis1=1, axis2=2))
        own = self.group_sigma.to_numpy(dtype=np.float64)
        sigma = np.full(len(self), self.sigma) if pool else own
        return np.asarray(sigma[:, None] * root, dtype=np.float64)

    def _df(self, pool: bool) -> Vector:
        return np.full(len(self), self.df_resid, float) if pool else self.fits.df.astype(float)

    def _frame(self, values: Matrix) -> pd.DataFrame:
        return pd.DataFrame(values, index=self._index, columns=list(self.names))

    @result_table("Intervals of least squares by group")
    def conf_int(self, level: float = 0.95, pool: bool = True) -> pd.DataFrame:
        """Return t intervals of all coefficients.

        Parameters
        ----------
        level : coverage between 0 and 1.
        pool : with the pooled residual standard deviation and its degrees of freedom.

        Returns
        -------
        DataFrame with columns lower, upper; rows by group and term.
        """
        table = self.tidy(conf_int=True, level=level, pool=pool)
        index = pd.MultiIndex.from_frame(table[["group", "term"]])
        bounds = table[["conf_low", "conf_high"]].to_numpy()
        return pd.DataFrame(bounds, index=index, columns=["lower", "upper"])

    @result_table("Least squares by group")
    def tidy(
        self, *, pool: bool = True, conf_int: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """Return one row per group and coefficient.

        Parameters
        ----------
        pool : with the pooled residual standard deviation and its degrees of freedom.
        conf_int : add t intervals of coverage `level`.

        Returns
        -------
        DataFrame with columns group, term, estimate, std_error, statistic, df, p_value, and with
        `conf_int` conf_low and conf_high; NaN for coefficients that are not determined.
        """
        level = require_level("level", level)
        pool, conf_int = require_bool("pool", pool), require_bool("conf_int", conf_int)
        estimates = self.fits.coefficients[:, :, 0]
        se = self._standard_errors(pool)
        df = np.where(self._df(pool) > 0, self._df(pool), np.nan)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            t = estimates / se
        p = len(self.names)
        columns: dict[str, Any] = {
            "group": np.repeat(np.array(self.levels, dtype=object), p),
            "term": np.tile(np.array(self.names, dtype=object), len(self)),
            "estimate": estimates.ravel(),
            "std_error": se.ravel(),
            "statistic": t.ravel(),
            "df": np.broadcast_to(df, t.shape).ravel(),
            "p_value": (2.0 * stdtr(df, -np.abs(t))).ravel(),
        }
        if conf_int:
            half = stdtrit(df, 0.5 + 0.5 * level) * se
            columns["conf_low"] = (estimates - half).ravel()
            columns["conf_high"] = (estimates + half).ravel()
        return pd.DataFrame(columns)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per group: nobs, the coefficients, their standard errors, sigma.

        The standard errors (columns "se_...") are from the pooled residual standard deviation;
        `sigma` is that of the group.
        """
        out = self.coef()
        out.insert(0, "nobs", self.group_sizes)
        for name, errors in self.std_errors().items():
            out[f"se_{name}"] = errors
        out["sigma"] = self.group_sigma
        return out

    # -- groups that could not be fitted ------------------------------------------------------

    @cached_property
    @result_table("Groups whose rows do not determine all coefficients")
    def skipped(self) -> pd.DataFrame:
        """Groups whose rows do not determine all coefficients: nobs and reason."""
        out = np.flatnonzero(~self.fits.full_rank)
        p = len(self.names)
        rows = self.fits.nobs[out]
        few = f"fewer rows than the {p} coefficients"
        flat = "columns are linear combinations of each other (a predictor does not vary)"
        return pd.DataFrame(
            {"nobs": rows, "reason": [few if n < p else flat for n in rows.tolist()]},
            index=self._index[out],
        )

    @property
    def skipped_note(self) -> str:
        """How many groups do not determine all coefficients and why; "" if all do."""
        if not len(self.skipped):
            return ""
        counts = self.skipped["reason"].value_counts()
        first = listed(self.skipped.index, 5, quoted=True)
        reasons = "; ".join(f"{count} with {reason}" for reason, count in counts.items())
        return (
            f"{len(self.skipped)} of {len(self)} levels of '{self.group}' do not determine all "
            f"coefficients; the others are NaN: {reasons} ({first}); `skipped` lists them, a mixed "
            "model uses them"
        )

    # -- rows ---------------------------------------------------------------------------------

    @property
    def fittedvalues(self) -> Vector:
        """Fitted values, offset included; also where the coefficients are not determined."""
        codes = self.matrices.factors[0].codes
        beta = self.fits.solutions[codes, :, 0]
        values = np.einsum("ik,ik->i", self.matrices.X, beta)
        if self.matrices.offset is not None:
            values = values + self.matrices.offset
        return self._aligned(values)

    @property
    def resid(self) -> Vector:
        """Response residuals."""
        return self._aligned(self.matrices.y) - self.fittedvalues

    def _aligned(self, values: Vector) -> Vector:
        rows = self.matrices.rows
        if self.matrices.na_action != "exclude" or rows is None:
            return values
        out = np.full(self.matrices.n_input, np.nan)
        out[rows] = values
        return out

    # -- print --------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return the coefficients with standard errors, and the pooled residual, as text."""
        return self._table().text()

    def _table(self) -> ResultTable:
        table = self.to_frame().rename(columns={"nobs": "n"})
        table.index = table.index.map(str)
        notes = [
            f"pooled residual SD: {format_number(self.sigma)} on {self.df_resid} degrees of "
            f"freedom, {self.nobs} rows, {len(table)} groups; it is in the standard errors (se)"
        ]
        return as_result(
            table, heading="Least squares by group", formulas={"Formula": self.formula},
            notes=notes + ([self.skipped_note] if self.skipped_note else []),
        )  # fmt: skip
