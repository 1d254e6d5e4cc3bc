"""`ar1(0 + f | g)`: an autoregressive process over the levels of a factor of times."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.natural import Natural, mean_of
from mixlm_sparse.covariance.structure import Closure, structure


@structure("ar1")
class AutoRegressive(Natural):
    """Correlation phi^|i - j| of the i-th and j-th effect, one standard deviation.

    With phi = sin x: L_i0 = phi^i and L_ij = phi^(i - j) cos x for j >= 1.
    """

    __slots__ = ()
    words = "first-order autoregression over the levels, one variance"
    closed_under: ClassVar[Closure] = "one scale"
    over_levels = True
    hom = True
    rho_label = "phi"

    @property
    def rho_bounds(self) -> tuple[float, float]:
        return -1.0, 1.0

    def rho_at(self, x: Vector) -> tuple[Vector, Matrix]:
        return np.sin(x), np.cos(x)[:, None]

    def x_of(self, rho: Vector) -> Vector:
        if not abs(rho[0]) <= 1.0 + 1e-12:
            raise NotPositiveDefiniteError(
                f"an autoregression of {rho[0]:.4g} is not possible: it must be between -1 and 1"
            )
        return np.arcsin(np.clip(rho, -1.0, 1.0))

    def root(self, x: Vector) -> tuple[Matrix, Array3]:
        k = self.k
        sine, cosine = float(np.sin(x[0])), float(np.cos(x[0]))
        lag = np.subtract.outer(np.arange(k), np.arange(k))
        below = lag >= 0
        lag = np.maximum(lag, 0)
        power = np.where(below, sine**lag, 0.0)
        slope = np.where(below & (lag > 0), lag * sine ** np.maximum(lag - 1, 0), 0.0) * cosine
        L, by = power * cosine, slope * cosine - power * sine
        L[:, 0], by[:, 0] = power[:, 0], slope[:, 0]
        return L, by[None]

    def nearest(self, C: Matrix) -> Vector:
        return np.clip([mean_of(np.diag(C, -1))], -1.0, 1.0)


@structure("ar1", "hom = FALSE")
class HeterogeneousAutoRegressive(AutoRegressive):
    """Correlation phi^|i - j|, a standard deviation for each effect."""

    __slots__ = ()
    words = "first-order autoregression over the levels, a variance for each"
    closed_under: ClassVar[Closure] = "scales"
    hom = False
