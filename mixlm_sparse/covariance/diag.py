"""`diag(x | g)`: independent effects, each with its own variance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.structure import CovarianceStructure, structure


@structure("diag")
class Diagonal(CovarianceStructure):
    """Independent effects: theta is the diagonal of T."""

    __slots__ = ()
    words = "independent effects, each with a variance of its own"
    closed_under = "scales"
    correlated = False

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

    def factors_of(self, thetas: Matrix) -> NDArray[np.float64]:
        return thetas[:, :, None] * np.eye(self.k)

    def dT(self, theta: Vector) -> NDArray[np.float64]:
        unit = np.eye(self.k)
        return unit[:, :, None] * unit[:, None, :]

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        return np.diag(dT).copy()

    def theta_of(self, M: Matrix) -> Vector:
        return np.abs(np.diag(M))

    def thetas_of(self, Ms: NDArray[np.float64]) -> Matrix:
        return np.abs(np.diagonal(Ms, axis1=1, axis2=2))

    @property
    def positions(self) -> NDArray[np.intp]:
        out = np.full((self.k, self.k), -1, dtype=np.intp)
        np.fill_diagonal(out, np.arange(self.k))
        return out

    @property
    def covariance_basis(self) -> tuple[Matrix, ...]:
        return tuple(np.diag(row) for row in np.eye(self.k))

    @property
    def can_hold(self) -> bool:
        return True

    def hold(self, parameter: int, value: float, phi: Vector) -> tuple[Vector, Vector]:
        out = phi.copy()
        out[parameter] = value
        return out, np.zeros(self.n_theta)

    def held_coordinate(self, parameter: int) -> int:
        return parameter
