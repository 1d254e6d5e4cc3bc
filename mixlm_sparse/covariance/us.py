"""`us(x | g)`, which `(x | g)` stands for: a general covariance matrix."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.structure import CovarianceStructure, structure


@lru_cache(maxsize=64)
def _lower_triangle_by_columns(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    # (0,0), (1,0), ..., (k-1,0), (1,1), ...
    cols, rows = np.triu_indices(k)
    return rows, cols


@lru_cache(maxsize=64)
def above_diagonal(k: int) -> NDArray[np.bool_]:
    """Return which elements (k, k) lie above the diagonal."""
    return np.tri(k, dtype=bool).T & ~np.eye(k, dtype=bool)


@lru_cache(maxsize=64)
def _symmetric_basis(k: int) -> tuple[Matrix, ...]:
    """Return a basis of the symmetric matrices (k, k): variances, then covariances."""
    unit = np.eye(k)
    pairs = [(a, b) for a in range(k) for b in range(a)]
    return (
        *(np.diag(row) for row in unit),
        *(np.outer(unit[a], unit[b]) + np.outer(unit[b], unit[a]) for a, b in pairs),
    )


@structure("us")
class Unstructured(CovarianceStructure):
    """General positive semidefinite covariance: theta is the lower triangle of T by columns."""

    __slots__ = ()
    words = "a general covariance matrix"
    closed_under = "linear"

    def _triangle(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
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

    def factors_of(self, thetas: Matrix) -> NDArray[np.float64]:
        T = np.zeros((thetas.shape[0], self.k, self.k))
        rows, cols = self._triangle()
        T[:, rows, cols] = thetas
        return T

    def dT(self, theta: Vector) -> NDArray[np.float64]:
        rows, cols = self._triangle()
        out = np.zeros((self.n_theta, self.k, self.k))
        out[np.arange(self.n_theta), rows, cols] = 1.0
        return out

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        out: Vector = dT[self._triangle()]
        return out

    def theta_of(self, M: Matrix) -> Vector:
        # M = T Q with orthogonal Q: the transpose of a QR, its diagonal made nonnegative; LAPACK
        # keeps Q above it
        T = lapack.dgeqrf(M.T)[0].T if np.count_nonzero(M[above_diagonal(self.k)]) else M
        diagonal = T.diagonal()
        if np.count_nonzero(diagonal < 0.0):
            T = T * np.where(diagonal < 0.0, -1.0, 1.0)
        out: Vector = T[self._triangle()]
        return out

    def thetas_of(self, Ms: NDArray[np.float64]) -> Matrix:
        Ts = Ms
        if np.triu(Ms, 1).any():  # what is triangular already comes back as it is
            Ts = np.swapaxes(np.linalg.qr(np.swapaxes(Ms, 1, 2), mode="r"), 1, 2)
        signs = np.where(np.diagonal(Ts, axis1=1, axis2=2) < 0.0, -1.0, 1.0)
        rows, cols = self._triangle()
        out: Matrix = (Ts * signs[:, None, :])[:, rows, cols]
        return out

    def working_scales(self, phi: Vector, floor: float) -> Vector:
        T = self.factor(phi)
        rows = np.maximum(np.sqrt((T * T).sum(axis=1)), floor)
        out: Vector = rows[self._triangle()[0]]  # each parameter stands in one row
        return out

    @property
    def positions(self) -> NDArray[np.intp]:
        out = np.full((self.k, self.k), -1, dtype=np.intp)
        out[self._triangle()] = np.arange(self.n_theta)
        return out

    @property
    def covariance_basis(self) -> tuple[Matrix, ...]:
        return _symmetric_basis(self.k)

    @property
    def can_hold(self) -> bool:
        return self.k == 1

    def hold(self, parameter: int, value: float, phi: Vector) -> tuple[Vector, Vector]:
        if self.k > 1:
            raise NotImplementedError  # a row of T, in columns that are turned
        return np.array([value]), np.zeros(1)

    def held_coordinate(self, parameter: int) -> int:
        return parameter
