"""theta <-> Lambda: one class per covariance structure of a random-effects term.

A structure maps its part of theta to the (k, k) lower-triangular relative covariance factor T,
Cov(b_j) = sigma^2 T T', and pulls a derivative with respect to T back to theta.  Only T is seen by
the engines; only theta is seen by the optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.common.types import Matrix, Vector


class CovarianceStructure(Protocol):
    """Template of one term's relative covariance factor."""

    @property
    def k(self) -> int:
        """Return the number of columns of the term."""
        ...

    @property
    def n_theta(self) -> int:
        """Return the number of parameters."""
        ...

    @property
    def start(self) -> Vector:
        """Return the (n_theta,) value at which T = I."""
        ...

    @property
    def lower(self) -> Vector:
        """Return the (n_theta,) lower bounds; -inf where there is none."""
        ...

    def names(self, group: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return lme4's names of the parameters."""
        ...

    def factor(self, theta: Vector) -> Matrix:
        """Return T (k, k), lower triangular."""
        ...

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        """Return d/dtheta from the (k, k) derivative with respect to every element of T."""
        ...

    def theta_of(self, M: Matrix) -> Vector:
        """Return the theta in bounds with T T' = M M', for a square M of this structure."""
        ...


@lru_cache(maxsize=64)
def _lower_triangle_by_columns(k: int) -> tuple[np.ndarray, np.ndarray]:
    # (0,0), (1,0), ..., (k-1,0), (1,1), ...
    cols, rows = np.triu_indices(k)
    return rows, cols


@dataclass(frozen=True, slots=True)
class Unstructured:
    """General positive semidefinite covariance: theta is the lower triangle of T by columns."""

    k: int

    def _triangle(self) -> tuple[np.ndarray, np.ndarray]:
        return _lower_triangle_by_columns(self.k)

    @property
    def n_theta(self) -> int:
        return self.k * (self.k + 1) // 2

    @property
    def start(self) -> Vector:
        rows, cols = self._triangle()
        return np.asarray(rows == cols, dtype=np.float64)

    @property
    def lower(self) -> Vector:
        rows, cols = self._triangle()
        return np.where(rows == cols, 0.0, -np.inf)

    def names(self, group: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        rows, cols = self._triangle()
        return tuple(
            f"{group}.{columns[r]}" if r == c else f"{group}.{columns[r]}.{columns[c]}"
            for r, c in zip(rows, cols, strict=True)
        )

    def factor(self, theta: Vector) -> Matrix:
        T = np.zeros((self.k, self.k))
        T[self._triangle()] = theta
        return T

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        out: Vector = dT[self._triangle()]
        return out

    def theta_of(self, M: Matrix) -> Vector:
        # M = T Q with orthogonal Q: the transpose of a QR, its diagonal made nonnegative
        T = np.asarray(np.linalg.qr(M.T, mode="r")).T if np.triu(M, 1).any() else M
        signs = np.where(np.diag(T) < 0.0, -1.0, 1.0)
        out: Vector = (T * signs)[self._triangle()]
        return out


@dataclass(frozen=True, slots=True)
class Diagonal:
    """Independent effects: theta is the diagonal of T."""

    k: int

    @property
    def n_theta(self) -> int:
        return self.k

    @property
    def start(self) -> Vector:
        return np.ones(self.k)

    @property
    def lower(self) -> Vector:
        return np.zeros(self.k)

    def names(self, group: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{group}.{c}" for c in columns)

    def factor(self, theta: Vector) -> Matrix:
        return np.diag(theta)

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        return np.diag(dT).copy()

    def theta_of(self, M: Matrix) -> Vector:
        return np.abs(np.diag(M))


@dataclass(frozen=True, slots=True)
class Identity:
    """Independent effects with one common variance: T = theta I."""

    k: int

    @property
    def n_theta(self) -> int:
        return 1

    @property
    def start(self) -> Vector:
        return np.ones(1)

    @property
    def lower(self) -> Vector:
        return np.zeros(1)

    def names(self, group: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        return (f"{group}.id({', '.join(columns)})",)

    def factor(self, theta: Vector) -> Matrix:
        return float(theta[0]) * np.eye(self.k)

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        return np.array([np.trace(dT)])

    def theta_of(self, M: Matrix) -> Vector:
        return np.abs(M[:1, 0])


_STRUCTURES: dict[str, Callable[[int], CovarianceStructure]] = {
    "us": Unstructured,
    "diag": Diagonal,
    "id": Identity,
}


def covariance_structure(name: str, k: int) -> CovarianceStructure:
    """Return the template of structure `name` for a term of `k` columns.

    Raises
    ------
    FormulaError : the structure is not known.
    """
    try:
        return _STRUCTURES[name](k)
    except KeyError:
        raise FormulaError(
            f"covariance structure '{name}' is not available for a random term: "
            f"use one of {', '.join(_STRUCTURES)}"
        ) from None
