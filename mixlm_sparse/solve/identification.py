"""What the data determine of a model, and in words what they do not; `judging` finds it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result
from mixlm_sparse.common.types import Matrix, Vector

# Parts of a direction below this share of its largest are rounding.
PART_RTOL = 1e-6
MAX_NAMED = 4  # variances and covariances of one term that are named one by one


@dataclass(frozen=True, eq=False, slots=True)
class Direction:
    """A change of the variance parameters that the data do not see.

    Parameters
    ----------
    covariances : per term, (k, k) the change of the covariance of the user's effects.
    sigma_sq : the change of the residual variance.
    rho : (r,) the change of the natural parameters of a residual structure.
    lost_in_fixed : whether fixed effects hide it, rather than the random columns themselves.
    cov_beta : (p, p) the change of the covariance of the coefficients of the columns Q.
    moves_beta : whether estimates of the coefficients change with it.
    settled : whether a fit is where the variances are smallest along it.
    """

    covariances: tuple[Matrix, ...]
    sigma_sq: float
    rho: Vector
    lost_in_fixed: bool
    cov_beta: Matrix
    moves_beta: bool
    settled: bool = True


@dataclass(frozen=True, eq=False, repr=False)
class Identification(PrintsAsTable):
    """What the data determine of a model.

    Parameters
    ----------
    directions : independent changes of the variance parameters that the data do not see.
    terms : names of the random terms, as a formula has them; columns : their effects.
    lengths : per term, (k,) sizes of the columns, by which changes are compared.
    R_x : (p, p) upper triangular, X = Q R_x.
    residual_names : of the parameters of a residual structure.
    singular : whether the correlations of the residuals are those of a singular matrix.
    """

    directions: tuple[Direction, ...]
    terms: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    lengths: tuple[Vector, ...]
    R_x: Matrix
    residual_names: tuple[str, ...] = ()
    singular: bool = False

    @property
    def complete(self) -> bool:
        """Whether everything is determined."""
        return not self.directions

    @cached_property
    def entries(self) -> tuple[NDArray[np.bool_], ...]:
        """Per term, (k, k): whether each variance and covariance is determined."""
        out = [np.ones(2 * (len(names),), dtype=bool) for names in self.columns]
        for direction in self.directions:
            sizes = [
                np.abs(change) * np.outer(length, length)
                for change, length in zip(direction.covariances, self.lengths, strict=True)
            ]
            top = max((float(size.max()) for size in sizes), default=0.0)
            for known, size in zip(out, sizes, strict=True):
                known &= size <= PART_RTOL * max(top, abs(direction.sigma_sq))
        return tuple(out)

    @cached_property
    def structure(self) -> NDArray[np.bool_]:
        """(r,) whether each parameter of the residual structure is determined."""
        out = np.ones(len(self.residual_names), dtype=bool)
        for direction in self.directions:
            if direction.rho.size:  # else it moves random effects alone
                out &= direction.rho == 0.0
        return out

    @property
    def residual(self) -> bool:
        """Whether the residual variance is determined."""
        return all(direction.sigma_sq == 0.0 for direction in self.directions)

    def to_frame(self) -> pd.DataFrame:
        """Return every variance and covariance, and whether the data determine it.

        Returns
        -------
        DataFrame with columns term, parameter, determined; what is of the residuals comes last.
        """
        rows: list[tuple[str, str, bool]] = []
        for term, names, known in zip(self.terms, self.columns, self.entries, strict=True):
            rows += [
                (term, _parameter(names, i, j), bool(known[i, j]))
                for j in range(len(names))
                for i in range(j, len(names))
            ]
        rows.append(("Residual", "variance", self.residual))
        known_rho = self.structure.tolist()
        rows += [("Residual", *row) for row in zip(self.residual_names, known_rho, strict=True)]
        return pd.DataFrame(rows, columns=["term", "parameter", "determined"])

    def _table(self) -> ResultTable:
        table = self.to_frame()
        table["determined"] = table["determined"].map({True: "yes", False: "no"})
        said = [self.sentence, self.advice] if not self.complete else ["everything is determined"]
        return as_result(table, heading="What the data determine", notes=said)

    def parameter(self, term: int, row: int, column: int) -> bool:
        """Say whether a standard deviation or correlation is determined.

        Parameters
        ----------
        term : index of the random term, -1 for the residual standard deviation.
        row, column : which effects of the term; equal for a standard deviation.
        """
        if term < 0:
            return self.residual
        known = self.entries[term]
        return bool(known[row, column] and known[row, row] and known[column, column])

    def hypothesis(self, L: Matrix) -> bool:
        """Say whether the covariance of L beta, and so its test, is determined; L (r, p)."""
        if not self.directions or not L.size:
            return True
        half = scipy.linalg.solve_triangular(self.R_x, L.T, trans="T").T
        size = np.sqrt((half * half).sum(axis=1))
        for direction in self.directions:
            change = direction.cov_beta
            limit = PART_RTOL * np.abs(change).max(initial=0.0) * np.outer(size, size)
            if (np.abs(half @ change @ half.T) > limit).any():
                return False
        return True

    def coefficients(self, L: Matrix) -> NDArray[np.bool_]:
        """Say for every row l of L (r, p) whether the standard error of l'beta is determined."""
        return np.array([self.hypothesis(row[None]) for row in L], dtype=bool)

    @cached_property
    def involved(self) -> tuple[str, ...]:
        """The random terms whose parameters are not determined, as a formula has them."""
        return tuple(
            term for term, known in zip(self.terms, self.entries, strict=True) if not known.all()
        )

    @cached_property
    def sentence(self) -> str:
        """What is not determined, and why; empty if everything is."""
        if self.complete:
            return ""
        parts = [
            _named(term, names, known)
            for term, names, known in zip(self.terms, self.columns, self.entries, strict=True)
            if not known.all()
        ]
        if not self.residual:
            parts.append("the residual variance")
        if not self.structure.all():
            names = [n for n, ok in zip(self.residual_names, self.structure, strict=True) if not ok]
            plural = "s" if len(names) > 1 else ""
            if len(names) > MAX_NAMED:
                names[MAX_NAMED - 1 :] = ["..."]
            parts.append(f"the residual parameter{plural} {', '.join(names)}")
        return f"the data do not determine {joined(parts)}: {self._reason()}"

    def _reason(self) -> str:
        hidden = [direction for direction in self.directions if direction.lost_in_fixed]
        if self.singular and hidden and all(one.rho.any() for one in hidden):
            reason = (
                "the residual correlations are those of a singular matrix, beside which fixed "
                "effects take what would show them"
            )
        elif hidden:
            reason = "the fixed part has the same effects"
        elif not self.structure.all():
            reason = "they stand for the same covariance, and only combinations of them show"
        elif len(self.involved) > 1 or not self.residual:
            reason = "they stand for the same effects, and only combinations of them show"
        else:
            reason = "its effects show only in combination"
        return reason

    @property
    def advice(self) -> str:
        """What to do about it; empty if everything is determined."""
        if self.complete:
            return ""
        taken = "are those of the smallest"
        if not all(direction.settled for direction in self.directions):
            taken = "depend on which of them the search came to"
        if not self.structure.all():
            remedy = "take a simpler residual structure"
            if self.involved:
                remedy = f"drop {joined(self.involved)}, or {remedy}"
        elif len(self.involved) > 1:
            remedy = f"drop one of {joined(self.involved)}"
        elif all(known.all() or known.size == 1 for known in self.entries):
            remedy = f"drop {self.involved[0]}"
        else:
            remedy = f"use fewer effects in {self.involved[0]}"
        return (
            "other values fit as well, so what depends on them is given as NaN, and random effects "
            f"and draws {taken}: {remedy}"
        )


def joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _named(term: str, names: tuple[str, ...], known: NDArray[np.bool_]) -> str:
    """Name the undetermined entries of one term's covariance."""
    k = len(names)
    if k == 1:
        return f"the variance of {term}"
    pairs = [(i, j) for j in range(k) for i in range(j, k) if not known[i, j]]
    if len(pairs) > MAX_NAMED or len(pairs) == k * (k + 1) // 2:
        return f"the variances and covariances of {term}"
    parts = [f"the {_parameter(names, i, j)}" for i, j in pairs]
    return f"{joined(parts)} in {term}"


def _parameter(names: tuple[str, ...], row: int, column: int) -> str:
    if row == column:
        return f"variance of {names[row]}"
    return f"covariance of {names[column]} and {names[row]}"
