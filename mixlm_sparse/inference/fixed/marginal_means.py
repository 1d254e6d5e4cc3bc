"""Marginal means and slopes as a result: a table, tests, comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_bool, require_number, require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import ResultTable, as_result, result_table
from mixlm_sparse.common.text import as_written
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.estimable import kept_part
from mixlm_sparse.inference.fixed.methods import linear_tests
from mixlm_sparse.inference.fixed.multiplicity import ADJUSTMENTS, adjusted_p, critical_value
from mixlm_sparse.inference.fixed.tests import SingleTests
from mixlm_sparse.model.fitted import FittedModel

METHODS = {
    "satterthwaite": "Satterthwaite",
    "kenward-roger": "Kenward-Roger",
    "normal": "normal",
    "none": "normal limits",
}
NO_MORE_THAN_ROUNDING = 1e-14  # a mean of a centred covariate


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
    L : (r, p_all) combinations of the coefficients of all columns of X; offset : (r,) added.
    ddf, level : degrees of freedom and coverage.
    averaged_over : factors averaged over.
    at : values at which the others are held.
    within : factors that lie within others, with these others.
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
    within: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Return the table: predictors, estimate, std_error, df, lower, upper."""
        found = self._tests(self.L, self.offset).columns(level=self.level, tests=False)
        return self._beside_cells(found)

    @result_table("Tests of marginal means")
    def test(self, null: float = 0.0) -> pd.DataFrame:
        """Test each estimate against `null`: estimate, std_error, df, statistic, p_value."""
        null = require_number("null", null)
        return self._beside_cells(self._tests(self.L, self.offset, null).columns())

    def _beside_cells(self, columns: dict[str, Vector]) -> pd.DataFrame:
        table = self.cells.copy()
        for name, values in columns.items():
            table[self.what if name == "estimate" else name] = values
        return table

    def _tests(self, L: Matrix, offset: Vector, null: float = 0.0) -> SingleTests:
        """Test combinations (k, p_all) plus a known offset (k,); NaN where not estimable."""
        rows = kept_part(self.fit, L)
        return linear_tests(self.fit, rows, null - offset, ddf=self.ddf).shifted(offset)

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
            tests = self._tests(self.L[a] - self.L[b], self.offset[a] - self.offset[b])
            table = pd.DataFrame({name: [key[name]] * len(a) for name in self.by})
            table["contrast"] = [
                f"{labels[i]} - {labels[j]}" for i, j in zip(a, b, strict=True)
            ]
            for name, values in tests.columns().items():
                table[name] = values
            table["p_value"] = adjusted_p(
                tests.statistic, tests.df, tests.p_value, adjust, len(rows)
            )
            if conf_int:
                half = tests.std_error * critical_value(
                    self.level, tests.df, adjust, len(rows), len(a)
                )
                table["lower"], table["upper"] = tests.estimate - half, tests.estimate + half
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
        try:
            M = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        except (TypeError, ValueError, OverflowError, MemoryError):
            raise OptionError("the weights are not numeric: give a number for each cell") from None
        r = self.L.shape[0]
        if M.ndim != 2 or M.shape[1] != r:
            raise OptionError(
                f"the contrast has {M.shape[-1]} weights, the table has {r} rows: give one for each"
            )
        rhs = require_number("rhs", rhs)
        return self._tests(M @ self.L, M @ self.offset, rhs).to_frame()

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
        for inner, outer in self.within.items():
            notes.append(f"levels of {inner} within those of {', '.join(outer)}")
        if self.at:
            notes.append("at " + ", ".join(f"{k} = {_text(v[0])}" for k, v in self.at.items()))
        return as_result(self.to_frame(), heading=what, notes=notes)


def _text(value: Any) -> str:
    if isinstance(value, float) and abs(value) < NO_MORE_THAN_ROUNDING:
        return "0"
    return as_written(value)
