"""`ar1(0 + f | g)`: an autoregressive process over the levels of a factor of times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.natural import Natural, mean_of
from mixlm_sparse.covariance.structure import Closure, CovarianceStructure, structure

MOST_TERMS = 1000  # added one by one
SMALL = 1e-4


@structure("ar1")
@dataclass(frozen=True)
class AutoRegressive(Natural):
    """Correlation phi^|t_i - t_j| of the i-th and j-th effect, one standard deviation.

    With phi = sin x and d_j = t_j - t_(j-1) the steps between the effects that there are,

        L_i0 = phi^(t_i - t_0),    L_ij = phi^(t_i - t_j) sqrt(1 - phi^(2 d_j))
        sqrt(1 - phi^(2 d)) = cos x sqrt(1 + phi^2 + ... + phi^(2 (d - 1)))

    Where all steps are even the sign of phi does not show, and phi is |sin x|.

    Parameters
    ----------
    places : (k,) times t of the effects, whole numbers that ascend; empty for 0, 1, ..., k - 1.
    """

    words = "first-order autoregression over the levels, one variance"
    closed_under: ClassVar[Closure] = "one scale"
    over_levels = True
    hom = True
    rho_label = "phi"

    places: tuple[int, ...] = ()

    @classmethod
    def at_places(cls, places: tuple[int, ...]) -> CovarianceStructure:
        first = tuple(range(len(places)))
        return cls.of_size(len(places)) if places == first else cls(len(places), places)

    @cached_property
    def _steps(self) -> NDArray[np.intp]:
        """(k - 1,) steps from each effect to the next."""
        return np.diff(self.places) if self.places else np.ones(self.k - 1, dtype=np.intp)

    @cached_property
    def _even(self) -> bool:
        return bool((self._steps % 2 == 0).all())

    @property
    def rho_bounds(self) -> tuple[float, float]:
        return (0.0 if self._even else -1.0), 1.0

    def rho_at(self, x: Vector) -> tuple[Vector, Matrix]:
        sine, cosine = np.sin(x), np.cos(x)
        if self._even:
            return np.abs(sine), (np.where(sine < 0.0, -1.0, 1.0) * cosine)[:, None]
        return sine, cosine[:, None]

    def x_of(self, rho: Vector) -> Vector:
        least = self.rho_bounds[0]
        if not least - 1e-12 <= rho[0] <= 1.0 + 1e-12:
            raise NotPositiveDefiniteError(
                f"an autoregression of {rho[0]:.4g} is not possible: it must be between "
                f"{least:g} and 1"
            )
        return np.arcsin(np.clip(rho, least, 1.0))

    def root(self, x: Vector) -> tuple[Matrix, Array3]:
        sine, cosine = float(np.sin(x[0])), float(np.cos(x[0]))
        at = np.append(0, np.cumsum(self._steps))
        lag = np.subtract.outer(at, at)
        below = lag >= 0
        lag = np.maximum(lag, 0)
        power = np.where(below, sine**lag, 0.0)
        slope = np.where(below & (lag > 0), lag * sine ** np.maximum(lag - 1, 0), 0.0) * cosine
        # what is new at each effect, cos x times the root of a sum of even powers
        size, d_size = np.ones(self.k - 1), np.zeros(self.k - 1)
        for d in np.unique(self._steps[self._steps > 1]).tolist():
            total, d_total = even_powers(sine, cosine, d)
            size[self._steps == d] = np.sqrt(total)
            d_size[self._steps == d] = 0.5 * d_total / np.sqrt(total)
        new = np.append(1.0, cosine * size)
        d_new = np.append(0.0, -sine * size + cosine * d_size)
        return power * new, (slope * new + power * d_new)[None]

    def nearest(self, C: Matrix) -> Vector:
        r = np.diag(C, -1)
        each = np.sign(r) ** self._steps * np.abs(r) ** (1.0 / self._steps)
        return np.clip([mean_of(each)], self.rho_bounds[0], 1.0)


def even_powers(sine: float, cosine: float, d: int) -> tuple[float, float]:
    """Return S = 1 + s^2 + ... + s^(2 (d - 1)) for s = sin x, and its derivative in x.

    With c = cos x, S = (1 - (1 - c^2)^d) / c^2 = sum_k C(d, k + 1) (-c^2)^k, and

        dS/dx = 2 s c dS/d(s^2),    dS/d(s^2) = (S - d s^(2 (d - 1))) / c^2

    of which the difference loses its digits where d c^2 is small; there the series is taken.
    """
    if d <= MOST_TERMS:
        m = np.arange(d)
        total = float((sine ** (2 * m)).sum())
        return total, float((2 * m[1:] * sine ** (2 * m[1:] - 1)).sum()) * cosine
    c_sq = cosine**2
    if d * c_sq < SMALL:
        first = [math.comb(d, k) for k in range(2, 6)]
        total = d - c_sq * (first[0] - c_sq * (first[1] - c_sq * first[2]))
        slope = first[0] - c_sq * (2 * first[1] - c_sq * (3 * first[2] - c_sq * 4 * first[3]))
        return float(total), float(2.0 * sine * cosine * slope)
    log = math.log1p(-c_sq) if c_sq < 1.0 else -math.inf
    total = -math.expm1(d * log) / c_sq
    slope = (total - d * math.exp((d - 1) * log)) / c_sq
    return total, 2.0 * sine * cosine * slope


@structure("ar1", "hom = FALSE")
@dataclass(frozen=True)
class HeterogeneousAutoRegressive(AutoRegressive):
    """Correlation phi^|t_i - t_j|, a standard deviation for each effect."""

    words = "first-order autoregression over the levels, a variance for each"
    closed_under: ClassVar[Closure] = "scales"
    hom = False
