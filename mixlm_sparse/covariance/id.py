"""`id(x | g)`: independent effects with one variance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.structure import CovarianceStructure, structure


@structure("id")
class Identity(CovarianceStructure):
    """Independent effects with one common variance: T = theta I."""

    __slots__ = ()
    words = "independent effects with one variance"
    closed_under = "one scale"
    correlated = False

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

    def factors_of(self, thetas: Matrix) -> NDArray[np.float64]:
        return thetas[:, :, None] * np.eye(self.k)

    def dT(self, theta: Vector) -> NDArray[np.float64]:
        return np.eye(self.k)[None]

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        return np.array([np.trace(dT)])

    def theta_of(self, M: Matrix) -> Vector:
        return np.abs(M[:1, 0])

    def thetas_of(self, Ms: NDArray[np.float64]) -> Matrix:
        return np.abs(Ms[:, :1, 0])

    @property
    def positions(self) -> NDArray[np.intp]:
        return np.eye(self.k, dtype=np.intp) - 1

    @property
    def covariance_basis(self) -> tuple[Matrix, ...]:
        return (np.eye(self.k),)

    @property
    def can_hold(self) -> bool:
        return True

    def hold(self, parameter: int, value: float, phi: Vector) -> tuple[Vector, Vector]:
        out = phi.copy()
        out[0] = value
        return out, np.zeros(self.n_theta)

    def held_coordinate(self, parameter: int) -> int:
        return 0
