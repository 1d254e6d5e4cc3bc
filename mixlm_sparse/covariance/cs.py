"""`cs(x | g)`: compound symmetry, one correlation for all pairs of effects."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.natural import Natural, mean_of
from mixlm_sparse.covariance.structure import Closure, structure


@structure("cs")
class CompoundSymmetry(Natural):
    """One correlation rho, -1 / (k - 1) <= rho <= 1, and a standard deviation for each effect.

    With a = sqrt(1 - rho) and b = sqrt(1 + (k - 1) rho) the Cholesky factor of C is, for columns
    j = 1 .. k - 1 after the first one (1, rho, ..., rho)',

        L_jj = a sqrt((1 + j rho) / (1 + (j - 1) rho)),    the last a b / sqrt(1 + (k - 2) rho)
        L_ij = a rho / sqrt((1 + (j - 1) rho) (1 + j rho)),    i > j

    and with l = -1 / (k - 1), rho = l + (1 - l) (1 + sin x) / 2,

        a = sqrt(1 - l) sin(pi / 4 - x / 2),    b = sqrt((k - 1) (1 - l)) cos(pi / 4 - x / 2).
    """

    __slots__ = ()
    words = "compound symmetry: one correlation for all pairs, a variance for each effect"
    closed_under: ClassVar[Closure] = "scales"

    @property
    def rho_bounds(self) -> tuple[float, float]:
        return -1.0 / (self.k - 1), 1.0

    def rho_at(self, x: Vector) -> tuple[Vector, Matrix]:
        least = self.rho_bounds[0]
        sine = np.sin(x)
        rho = np.where(sine >= 1.0, 1.0, least + (1.0 - least) * 0.5 * (1.0 + sine))
        return np.maximum(rho, least), 0.5 * (1.0 - least) * np.cos(x)[:, None]

    def x_of(self, rho: Vector) -> Vector:
        least = self.rho_bounds[0]
        if not least - 1e-12 <= rho[0] <= 1.0 + 1e-12:
            raise NotPositiveDefiniteError(
                f"a correlation of {rho[0]:.4g} between all pairs of {self.k} effects is not "
                f"possible: it must be between {least:.4g} and 1"
            )
        return np.arcsin(np.clip(2.0 * (rho - least) / (1.0 - least) - 1.0, -1.0, 1.0))

    def root(self, x: Vector) -> tuple[Matrix, Array3]:
        k, least = self.k, self.rho_bounds[0]
        rho, slope = self.rho_at(x)
        half = 0.25 * np.pi - 0.5 * float(x[0])
        up, across = np.sqrt(1.0 - least), np.sqrt((k - 1.0) * (1.0 - least))
        a, b = up * np.sin(half), across * np.cos(half)
        da, db = -0.5 * up * np.cos(half), 0.5 * across * np.sin(half)
        L, by_rho, by_a, by_b = self._parts(float(rho[0]), float(a), float(b))
        return L, (by_rho * slope[0, 0] + by_a * da + by_b * db)[None]

    def _root_of(self, rho: Vector) -> tuple[Matrix, Array3]:
        # from rho itself, which keeps the identity an identity
        x, k = self.x_of(rho), self.k
        a = np.sqrt(max(1.0 - float(rho[0]), 0.0))
        b = np.sqrt(max(1.0 + (k - 1.0) * float(rho[0]), 0.0))
        return self._parts(float(rho[0]), float(a), float(b))[0], self.root(x)[1]

    def _parts(self, rho: float, a: float, b: float) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """Return L and its partial derivatives by rho, a and b, (k, k) each."""
        k = self.k
        L, by_rho, by_a, by_b = (np.zeros((k, k)) for _ in range(4))
        L[0, 0] = 1.0
        L[1:, 0], by_rho[1:, 0] = rho, 1.0
        for j in range(1, k):
            before, here = 1.0 + (j - 1.0) * rho, 1.0 + j * rho
            if j < k - 1:
                ratio = np.sqrt(here / before)
                L[j, j], by_a[j, j] = a * ratio, ratio
                by_rho[j, j] = 0.5 * a * ratio * (j / here - (j - 1.0) / before)
                below = rho / np.sqrt(before * here)
                L[j + 1 :, j], by_a[j + 1 :, j] = a * below, below
                change = 1.0 / np.sqrt(before * here)
                change -= 0.5 * below * ((j - 1.0) / before + j / here)
                by_rho[j + 1 :, j] = a * change
            else:
                root = 1.0 / np.sqrt(before)
                L[j, j], by_a[j, j], by_b[j, j] = a * b * root, b * root, a * root
                by_rho[j, j] = -0.5 * a * b * root * (j - 1.0) / before
        return L, by_rho, by_a, by_b

    @property
    def extreme_roots(self) -> list[Vector]:
        return [np.array([-0.5 * np.pi]), np.array([0.5 * np.pi])]

    def nearest(self, C: Matrix) -> Vector:
        mean = mean_of(C[np.tril_indices(self.k, -1)])
        return np.array([np.clip(mean, self.rho_bounds[0], 1.0)])


@structure("cs", "hom = TRUE")
class HomogeneousCompoundSymmetry(CompoundSymmetry):
    """One correlation and one standard deviation: a covariance a I + b J."""

    __slots__ = ()
    words = "compound symmetry: one correlation for all pairs and one variance"
    closed_under: ClassVar[Closure] = "one scale"
    hom = True

    @property
    def covariance_basis(self) -> tuple[Matrix, ...]:
        return np.eye(self.k), np.ones((self.k, self.k)) - np.eye(self.k)
