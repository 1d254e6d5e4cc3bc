"""Estimated marginal means, marginal slopes, and comparisons among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import studentized_range

from mixlm_sparse.common.checks import (
    require_bool,
    require_level,
    require_number,
    require_one_of,
    unknown_name,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import ResultTable, as_result, result_table
from mixlm_sparse.common.text import as_written
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.grid import (
    ReferenceGrid,
    as_names,
    codes_on,
    predictors_of,
    reference_grid,
    rows_of_design,
)
from mixlm_sparse.inference.fixed.methods import linear_tests, require_ddf
from mixlm_sparse.inference.fixed.tests import t_quantile
from mixlm_sparse.model.fitted import FittedModel

ADJUSTMENTS = ("tukey", "holm", "bonferroni", "none")
WEIGHTS = ("equal", "proportional")
# Slopes are central differences over this share of the covariate's range: exact for lines and
# parabolas, and to about 1e-8 for smooth curves.
SLOPE_STEP = 1e-4
METHODS = {
    "satterthwaite": "Satterthwaite",
    "kenward-roger": "Kenward-Roger",
    "normal": "normal",
    "none": "normal limits",
}
NO_MORE_THAN_ROUNDING = 1e-14  # a mean of a centred covariate
TUKEY_MAX_DF = 1e5  # beyond it the studentized range is that of infinite df


@dataclass(frozen=True, eq=False)
class MarginalMeans:
    """Estimates at cells of the reference grid, averaged over the other factors.

    Prints as its table.  `pairs` compares the cells of each `by` group with each other.

    Parameters
    ----------
    fit : the fit.
    what : "emmean" or the name of the slope's column, "x.trend".
    cells : (r) values of the predictors of the table.
    by : those that separate families of comparisons.
    L : (r, p) combinations of coefficients; offset : (r,) added to them.
    ddf, level : degrees of freedom and coverage.
    averaged_over : factors averaged over; weights : how.
    """

    fit: FittedModel
    what: str
    cells: pd.DataFrame
    by: tuple[str, ...]
    L: Matrix
    offset: Vector
    ddf: str
    level: float
    averaged_over: tuple[str, ...] = ()
    at: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Return the table: predictors, estimate, std_error, df, lower, upper."""
        tests = linear_tests(self.fit, self.L, ddf=self.ddf)
        lower, upper = tests.interval(self.level)
        table = self.cells.copy()
        table[self.what] = tests.estimate + self.offset
        table["std_error"] = tests.std_error
        table["df"] = tests.df if self.ddf != "normal" else np.inf
        table["lower"] = lower + self.offset
        table["upper"] = upper + self.offset
        return table

    @result_table("Tests of marginal means")
    def test(self, null: float = 0.0) -> pd.DataFrame:
        """Test each estimate against `null`: estimate, std_error, df, statistic, p_value."""
        null = require_number("null", null)
        tests = linear_tests(self.fit, self.L, null - self.offset, ddf=self.ddf)
        table = self.cells.copy()
        table[self.what] = tests.estimate + self.offset
        table["std_error"] = tests.std_error
        table["df"] = tests.df
        table["statistic"] = tests.statistic
        table["p_value"] = tests.p_value
        return table

    @result_table("Pairwise comparisons")
    def pairs(
        self, adjust: str = "tukey", *, reverse: bool = False, conf_int: bool = False
    ) -> pd.DataFrame:
        """Compare every two cells of each group.

        Parameters
        ----------
        adjust : of the p-values (and limits) within each group: "tukey", "holm", "bonferroni" or
            "none".
        reverse : later minus earlier instead of earlier minus later.
        conf_int : also return simultaneous limits (for Holm, Bonferroni's).

        Returns
        -------
        DataFrame with the columns of `by`, contrast, estimate, std_error, df, statistic, p_value
        and, if asked for, lower and upper.
        """
        require_one_of("adjust", adjust, ADJUSTMENTS)
        reverse, conf_int = require_bool("reverse", reverse), require_bool("conf_int", conf_int)
        labels = self._labels()
        tables = []
        for key, rows in self._families():
            if len(rows) < 2:
                continue
            # pairs of the first cell with all others, then of the second, ...
            first, second = np.triu_indices(len(rows), 1)
            if reverse:
                second, first = np.tril_indices(len(rows), -1)[::-1]
            a, b = rows[first], rows[second]
            tests = linear_tests(
                self.fit, self.L[a] - self.L[b], self.offset[b] - self.offset[a], ddf=self.ddf
            )
            estimate = tests.estimate + self.offset[a] - self.offset[b]
            table = pd.DataFrame({name: [key[name]] * len(a) for name in self.by})
            table["contrast"] = [
                f"{labels[i]} - {labels[j]}" for i, j in zip(a, b, strict=True)
            ]
            table["estimate"] = estimate
            table["std_error"] = tests.std_error
            table["df"] = tests.df
            table["statistic"] = tests.statistic
            table["p_value"] = adjusted_p(
                tests.statistic, tests.df, tests.p_value, adjust, len(rows)
            )
            if conf_int:
                half = tests.std_error * critical_value(
                    self.level, tests.df, adjust, len(rows), len(a)
                )
                table["lower"], table["upper"] = estimate - half, estimate + half
            tables.append(table)
        if not tables:
            raise OptionError(
                "there is only one cell in each group, so that there is nothing to compare: name a "
                "factor, or values of a covariate with at="
            )
        out = pd.concat(tables, ignore_index=True)
        out.attrs["note"] = f"p-values adjusted by {adjust}" if adjust != "none" else ""
        return out

    @result_table("Contrasts of marginal means")
    def contrast(self, weights: Any, *, rhs: float = 0.0) -> pd.DataFrame:
        """Test combinations of the cells.

        Parameters
        ----------
        weights : (r,) or (k, r) numbers, one for each row of the table.
        rhs : value under the hypothesis.
        """
        rhs = require_number("rhs", rhs)
        try:
            M = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        except (TypeError, ValueError, OverflowError, MemoryError):
            raise OptionError("the weights are not numeric: give a number for each cell") from None
        r = self.L.shape[0]
        if M.ndim != 2 or M.shape[1] != r:
            raise OptionError(
                f"the contrast has {M.shape[-1]} weights, the table has {r} rows: give one for each"
            )
        # a cell that is not estimable has no say where its weight is zero
        idle = np.isnan(self.L).any(axis=1) & ~M.any(axis=0)
        used = np.where(idle.reshape(-1, 1), 0.0, self.L)
        shift = M @ self.offset
        tests = linear_tests(self.fit, M @ used, rhs - shift, ddf=self.ddf)
        return pd.DataFrame(
            {
                "estimate": tests.estimate + shift,
                "std_error": tests.std_error,
                "df": tests.df,
                "statistic": tests.statistic,
                "p_value": tests.p_value,
            }
        )

    def _labels(self) -> list[str]:
        names = [name for name in self.cells.columns if name not in self.by]
        rows = self.cells[names].to_numpy(dtype=object) if names else np.empty((len(self.cells), 0))
        return [" ".join(_text(value) for value in row) for row in rows]

    def _families(self) -> list[tuple[dict[str, Any], np.ndarray]]:
        if not self.by:
            return [({}, np.arange(len(self.cells)))]
        keys = [tuple(row) for row in self.cells[list(self.by)].to_numpy(dtype=object)]
        out = []
        for key in dict.fromkeys(keys):
            rows = np.array([i for i, other in enumerate(keys) if other == key])
            out.append((dict(zip(self.by, key, strict=True)), rows))
        return out

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return str(self._table().to_html())

    def _table(self) -> ResultTable:
        what = "Marginal means" if self.what == "emmean" else f"Marginal slopes of {self.what[:-6]}"
        notes = [f"degrees of freedom: {METHODS[self.ddf]}; level {self.level:g}"]
        if self.averaged_over:
            notes.append(f"averaged over the levels of {', '.join(self.averaged_over)}")
        if self.at:
            notes.append("at " + ", ".join(f"{k} = {_text(v[0])}" for k, v in self.at.items()))
        return as_result(self.to_frame(), heading=what, notes=notes)


def _text(value: Any) -> str:
    if isinstance(value, float) and abs(value) < NO_MORE_THAN_ROUNDING:
        return "0"
    return as_written(value)


def emmeans(
    fit: FittedModel,
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
    ddf : "satterthwaite"; "kenward-roger" (a fit by ML is fitted again by REML, with a warning);
        "normal" for the normal distribution.
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
    ddf_name, level = require_ddf(ddf), require_level("level", level)
    predictors = predictors_of(fit)
    grouping = as_names(by, "by")
    wanted = as_names(specs, "specs")
    _check_names((*wanted, *grouping), predictors)
    grid = reference_grid(fit, predictors, at)
    return _averaged(fit, grid, "emmean", wanted, grouping, weights, ddf_name, level)


def emtrends(
    fit: FittedModel,
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
    ddf_name, level = require_ddf(ddf), require_level("level", level)
    predictors = predictors_of(fit)
    _check_names((variable,), predictors)
    predictor = predictors[variable]
    if predictor.categorical:
        raise OptionError(
            f"{variable!r} is a factor, which has no slope: use emmeans({variable!r}).pairs()"
        )
    grouping = as_names(by, "by")
    wanted = as_names(specs, "specs")
    if specs is None:  # slopes by group are what is to be compared
        wanted, grouping = grouping, ()
    _check_names((*wanted, *grouping), predictors)
    grid = reference_grid(fit, predictors, at)
    values = predictor.column.values.astype(np.float64)
    spread = float(np.ptp(values))
    step = SLOPE_STEP * (spread if spread > 0.0 else max(abs(float(values[0])), 1.0))
    center = grid.cells[variable].to_numpy(dtype=np.float64)
    sides, offsets = [], []
    for sign in (1.0, -1.0):
        columns: dict[str, Any] = {name: grid.cells[name].tolist() for name in grid.cells.columns}
        columns[variable] = center + sign * step
        L, offset = rows_of_design(fit, grid.predictors, columns, len(grid.cells))
        sides.append(L)
        offsets.append(offset)
    # the step that was taken, after rounding
    taken = ((center + step) - (center - step))[:, None]
    slopes = replace(
        grid,
        L=(sides[0] - sides[1]) / taken,
        offset=(offsets[0] - offsets[1]) / taken[:, 0],
    )
    return _averaged(
        fit, slopes, f"{variable}.trend", wanted, grouping, weights, ddf_name, level
    )


def _check_names(names: Sequence[str], predictors: Mapping[str, Any]) -> None:
    for name in names:
        if name not in predictors:
            raise unknown_name(name, list(predictors), "predictor of the fixed part")
    repeated = [name for i, name in enumerate(names) if name in names[:i]]
    if repeated:
        raise OptionError(f"{repeated[0]!r} is named twice: leave it out of specs or of by")


def _averaged(
    fit: FittedModel,
    grid: ReferenceGrid,
    what: str,
    specs: tuple[str, ...],
    by: tuple[str, ...],
    weights: str,
    ddf: str,
    level: float,
) -> MarginalMeans:
    if weights not in WEIGHTS:
        raise OptionError(f"weights is {weights!r}: use 'equal' or 'proportional'")
    shown = [*specs, *by]
    rest = [name for name in grid.predictors if name not in shown]
    averaged = tuple(
        name
        for name in rest
        if grid.predictors[name].categorical and len(grid.predictors[name].values) > 1
    )
    share = np.ones(len(grid.cells))
    if weights == "proportional" and averaged:
        share = _proportions(grid, averaged)
    # the first of the names varies fastest, whatever their order in the formula
    sizes = [len(grid.predictors[name].values) for name in shown]
    place = np.zeros(len(grid.cells), dtype=np.int64)
    stride = 1
    for name, size in zip(shown, sizes, strict=True):
        position = {value: i for i, value in enumerate(grid.predictors[name].values)}
        place += stride * np.array([position[v] for v in grid.cells[name]], dtype=np.int64)
        stride *= size
    L = np.zeros((stride, grid.L.shape[1]))
    offset, total = np.zeros(stride), np.zeros(stride)
    np.add.at(total, place, share)
    counted = share > 0.0  # a cell that does not occur does not make an average inestimable
    np.add.at(L, place[counted], grid.L[counted] * share[counted, None])
    np.add.at(offset, place, grid.offset * share)
    cells = pd.DataFrame(
        {
            name: [grid.predictors[name].values[i] for i in codes]
            for name, codes in zip(
                shown,
                np.unravel_index(np.arange(stride), sizes, order="F") if sizes else (),
                strict=True,
            )
        },
        index=range(stride),
    )
    return MarginalMeans(
        fit=fit,
        what=what,
        cells=cells,
        by=by,
        L=L / total[:, None],
        offset=offset / total,
        ddf=ddf,
        level=level,
        averaged_over=averaged,
        at={
            name: grid.predictors[name].values
            for name in rest
            if name not in averaged and len(grid.predictors[name].values) == 1
        },
    )


def _proportions(grid: ReferenceGrid, averaged: tuple[str, ...]) -> Vector:
    """Return for each cell how often its combination of the averaged factors occurs in the data."""
    key_of_cell = np.zeros(len(grid.cells), dtype=np.int64)
    key_of_row: np.ndarray | None = None
    inside: np.ndarray | None = None
    stride = 1
    for name in averaged:
        predictor = grid.predictors[name]
        position = {value: i for i, value in enumerate(predictor.values)}
        key_of_cell += stride * np.array([position[v] for v in grid.cells[name]], dtype=np.int64)
        codes = codes_on(predictor, predictor.values)
        key_of_row = stride * codes if key_of_row is None else key_of_row + stride * codes
        inside = codes >= 0 if inside is None else inside & (codes >= 0)
        stride *= len(predictor.values)
    assert key_of_row is not None
    assert inside is not None
    counts = np.bincount(key_of_row[inside], minlength=stride)
    out: Vector = counts[key_of_cell].astype(np.float64)
    return out


# ---------------------------------------------------------------------------------------------
# Multiplicity
# ---------------------------------------------------------------------------------------------


def adjusted_p(statistic: Vector, df: Vector, p: Vector, adjust: str, means: int) -> Vector:
    """Adjust the p-values (k,) of all pairs of `means` means."""
    known = ~np.isnan(p)
    out = np.array(p, dtype=np.float64)
    count = int(known.sum())
    if adjust == "none" or count == 0:
        return out
    if adjust == "bonferroni":
        out[known] = np.minimum(1.0, count * p[known])
    elif adjust == "holm":
        order = np.flatnonzero(known)[np.argsort(p[known], kind="stable")]
        factors = np.arange(count, 0, -1)
        out[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    elif means > 2:  # two means are one comparison
        q = np.sqrt(2.0) * np.abs(statistic[known])
        out[known] = studentized_range.sf(q, means, np.minimum(df[known], TUKEY_MAX_DF))
        # the integral can fall short of the single test by rounding
        out[known] = np.clip(out[known], p[known], 1.0)
    return out


def critical_value(level: float, df: Vector, adjust: str, means: int, pairs: int) -> Vector:
    """Return half widths of simultaneous intervals in standard errors, (k,)."""
    df = np.where(np.isnan(df), np.inf, df)
    if adjust == "none" or (adjust == "tukey" and means == 2):
        return t_quantile(level, df)
    if adjust in ("bonferroni", "holm"):
        return t_quantile(1.0 - (1.0 - level) / pairs, df)
    distinct, place = np.unique(np.minimum(df, TUKEY_MAX_DF).round(6), return_inverse=True)
    quantiles = np.array([studentized_range.ppf(level, means, d) for d in distinct])
    out: Vector = quantiles[place] / np.sqrt(2.0)
    return out
