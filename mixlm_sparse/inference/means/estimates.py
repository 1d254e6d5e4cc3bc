"""Combinations of coefficients in cells: means, slopes and their contrasts, with their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.text import as_written
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.estimable import kept_part
from mixlm_sparse.inference.fixed.methods import linear_tests, moments
from mixlm_sparse.inference.fixed.tests import SingleTests
from mixlm_sparse.inference.means.adjustments import (
    Family,
    level_within,
    note_across,
    note_of,
    p_across,
    tail_p,
)
from mixlm_sparse.inference.means.transformations import Transformation
from mixlm_sparse.model.fitted import FittedModel

METHODS = {
    "satterthwaite": "Satterthwaite",
    "kenward-roger": "Kenward-Roger",
    "sas": "Satterthwaite, as in SAS",
    "normal": "normal",
    "none": "normal limits",
}
NO_MORE_THAN_ROUNDING = 1e-14  # a mean of a centred covariate
SUM_ATOL = 1e-9  # weights that add up to zero or one to this


@dataclass(frozen=True, slots=True)
class Question:
    """What a table says beside estimates and standard errors.

    Parameters
    ----------
    adjust : see `adjustments`.
    level : coverage of the limits.
    null, side, delta : tests against `null`; with `delta`, of equivalence ("two-sided": closer to
        it than delta), non-inferiority ("greater": above null - delta) or non-superiority.
    tests, limits : which of them are shown.
    across : how the families are adjusted together, see `adjustments`.
    """

    adjust: str
    level: float
    null: float = 0.0
    side: str = "two-sided"
    delta: float = 0.0
    tests: bool = True
    limits: bool = False
    across: str = "none"

    @property
    def equivalence(self) -> bool:
        return self.delta > 0.0 and self.side == "two-sided"

    def statistic(self, ratio: Vector, std_error: Vector) -> Vector:
        """Return the statistic that goes with (estimate - null) / std_error."""
        if not self.delta:
            return ratio
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            margin = self.delta / std_error
        if self.equivalence:
            return np.abs(ratio) - margin
        return ratio + margin if self.side == "greater" else ratio - margin

    @property
    def note(self) -> str:
        """What is tested, unless it is that nothing differs from zero."""
        null = as_written(self.null)
        if not self.tests or (self.side == "two-sided" and not self.delta):
            return f"null hypothesis: {null}" if self.tests and self.null else ""
        margin = as_written(self.delta)
        if self.equivalence:
            return f"tests of equivalence: closer than {margin} to {null}"
        if self.delta:
            words = {"greater": "non-inferiority: above", "less": "non-superiority: below"}
            sign = "-" if self.side == "greater" else "+"
            return f"tests of {words[self.side]} {null} {sign} {margin}"
        return f"one-sided tests: {self.side} than {null}"


@dataclass(frozen=True, eq=False)
class Estimates:
    """Combinations of the coefficients, one for each cell.

    Parameters
    ----------
    fit : the fit.
    what : name of the column of estimates: "emmean", "x.trend" or "estimate".
    cells : (r) values of the predictors of the table, or the names of contrasts.
    by : columns of the cells that separate families.
    L : (r, p_all) combinations of the coefficients of all columns of X; offset : (r,) added.
    ddf, level : degrees of freedom and coverage.
    averaged_over : factors averaged over.
    at : values at which the others are held.
    within : factors that lie within others, with these others.
    adjust : of the table's limits and tests, unless said otherwise.
    method : family of contrasts, "" for means and slopes.
    sums : (r,) what the weights of the means in each row add up to: 1 for means, 0 for differences.
    transform : what was done to the response; type : "link" or "response", the scale shown.
    spread : standard deviation of rows that the scale of the response is corrected for, 0 for none.
    carried : said of means that were taken to another scale for good, otherwise "".
    basis : said of averages over rows of the data, otherwise "".
    cautions : what else is said of the averages, below every table.
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
    adjust: str = "none"
    method: str = ""
    sums: Vector | None = None
    transform: Transformation | None = None
    type: str = "link"
    spread: float = 0.0
    carried: str = ""
    basis: str = ""
    cautions: tuple[str, ...] = ()

    # -- names --------------------------------------------------------------------------------

    def labels(self, by: Sequence[str] | None = None) -> list[str]:
        """Return what each cell is called within its family."""
        by = self.by if by is None else by
        names = [name for name in self.cells.columns if name not in by]
        rows = self.cells[names].to_numpy(dtype=object) if names else np.empty((len(self.cells), 0))
        return [" ".join(written(value) for value in row) for row in rows]

    def families(
        self, by: Sequence[str] | None = None
    ) -> list[tuple[dict[str, Any], np.ndarray]]:
        """Return the values of `by` and the rows of each family."""
        by = self.by if by is None else by
        if not by:
            return [({}, np.arange(len(self.cells)))]
        keys = [tuple(row) for row in self.cells[list(by)].to_numpy(dtype=object)]
        out = []
        for key in dict.fromkeys(keys):
            rows = np.array([i for i, other in enumerate(keys) if other == key])
            out.append((dict(zip(by, key, strict=True)), rows))
        return out

    # -- numbers ------------------------------------------------------------------------------

    def tested(self, null: float = 0.0) -> SingleTests:
        """Test every row against `null`; NaN where not estimable."""
        rows = kept_part(self.fit, self.L)
        found = linear_tests(self.fit, rows, null - self.offset, ddf=self.ddf)
        return found.shifted(self.offset)

    def covariance(self, std_error: Vector) -> Matrix:
        """Return the covariance of the rows (r, r), NaN where a row has no standard error."""
        rows = kept_part(self.fit, self.L)
        unknown = ~np.isfinite(std_error) | (std_error == 0.0)
        rows = np.where(unknown[:, None], 0.0, rows)
        V = moments(self.fit, self.ddf).covariance(rows)
        V[unknown] = V[:, unknown] = np.nan
        out: Matrix = V
        return out

    def table(self, asked: Question) -> pd.DataFrame:
        """Return the table: cells, estimate, std_error, df, then what is asked for."""
        found = self.tested(asked.null)
        statistic = asked.statistic(found.statistic, found.std_error)
        side = "less" if asked.equivalence else asked.side
        p = tail_p(statistic, found.df, side)
        p[np.isnan(found.p_value)] = np.nan
        lower, upper = np.full(p.size, -np.inf), np.full(p.size, np.inf)
        V = self.covariance(found.std_error)
        families = [rows for _, rows in self.families()]
        count = sum(bool(np.isfinite(found.std_error[rows]).any()) for rows in families)
        level = level_within(asked.level, count, asked.across)
        sizes = []
        for rows in families:
            pairs = self.method in ("pairwise", "revpairwise")
            family = Family(V[np.ix_(rows, rows)], pairs, side, asked.equivalence)
            sizes.append(family.size(asked.adjust))
            if asked.tests:
                inside = family.p_values(statistic[rows], found.df[rows], p[rows], asked.adjust)
                p[rows] = p_across(inside, count, asked.across)
            if asked.limits:
                both = Family(family.covariance, pairs, asked.side, asked.equivalence)
                half = both.critical(level, found.df[rows], asked.adjust)
                half = half * found.std_error[rows]
                if asked.side != "less":
                    lower[rows] = found.estimate[rows] - half
                if asked.side != "greater":
                    upper[rows] = found.estimate[rows] + half
        name, note, back = self._scale()
        error = found.std_error
        if back is not None:
            estimate, rate = back.mean(found.estimate, self._sd), back.rate(
                found.estimate, self._sd
            )
            error = np.abs(rate) * error
            ends = np.sort([back.mean(lower, self._sd), back.mean(upper, self._sd)], axis=0)
            lower, upper = ends
        else:
            estimate = found.estimate
        table = self.cells.copy()
        table[name], table["std_error"], table["df"] = estimate, error, found.df
        if asked.tests:
            table["statistic"], table["p_value"] = statistic, p
        if asked.limits:
            table["lower"], table["upper"] = lower, upper
        adjusted = note_of(asked.adjust, sizes, limits=asked.limits, tests=asked.tests)
        across = note_across(asked.across, count, limits=asked.limits, tests=asked.tests)
        said = [adjusted, across, asked.note, note, self.carried, found.note, *self.cautions]
        table.attrs["notes"] = [text for text in said if text]
        table.attrs["labels"] = list(map(str, self.cells.columns))
        return table

    @property
    def _sd(self) -> float:
        return self.spread if self._kind() == "mean" else 0.0

    def _kind(self) -> str:
        """Return "mean" or "difference" if all rows are that, otherwise ""."""
        sums = np.ones(len(self.cells)) if self.sums is None else self.sums
        if (np.abs(sums - 1.0) < SUM_ATOL).all():
            return "mean"
        return "difference" if (np.abs(sums) < SUM_ATOL).all() else ""

    def _scale(self) -> tuple[str, str, Transformation | None]:
        """Return the column's name, a note on the scale, and how to go back to the response."""
        if self.transform is None or (not self.method and self.what != "emmean"):
            return self.what, "", None  # slopes stay what they are
        name, kind = self.transform.name, self._kind()
        if self.type == "link":
            return self.what, f"estimates are on the {name} scale", None
        at = "tests and limits are computed on"
        if kind == "mean":
            corrected = f"; corrected for a spread of {self.spread:.4g}" if self.spread else ""
            return "response", f"back from the {name} scale; {at} it{corrected}", self.transform
        if kind == "difference" and self.transform.ratio:
            plain = Transformation(name, "log", log_base=self.transform.log_base)
            shift = self.transform.shift
            of = f" of mu + {shift:g}" if shift else ""
            return "ratio", f"ratios{of}; {at} the {name} scale", plain
        return self.what, f"estimates are on the {name} scale still", None


def written(value: Any) -> str:
    """Return a value of a predictor for tables; what is rounding error of zero is 0."""
    if isinstance(value, float) and abs(value) < NO_MORE_THAN_ROUNDING:
        return "0"
    return as_written(value)
