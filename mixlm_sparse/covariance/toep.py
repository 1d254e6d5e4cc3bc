"""`toep(0 + f | g)`: a correlation for each distance between levels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.natural import ROUNDING, TURNS, Natural, mean_of
from mixlm_sparse.covariance.structure import Closure, structure


@structure("toep")
class Toeplitz(Natural):
    """Correlation rho_|i - j| of the i-th and j-th effect, a standard deviation for each.

    The partial autocorrelations r_m = sin x_m, m = 1 .. k - 1, can have any values from -1 to 1,
    whereas the rho_m must go together.  With the coefficients a_m of the best prediction of an
    effect from the m before it (Durbin and Levinson),

        a_m,m = r_m,    a_m,j = a_(m-1),j - r_m a_(m-1),(m-j)
        L_0 = e_0,    L_i = sum_j a_i,j L_(i-j) + (cos x_1 ... cos x_i) e_i

    are the rows of L, polynomials in sines and cosines, and rho_m = L_m0.

    References
    ----------
    Barndorff-Nielsen and Schou (1973), doi:10.1016/0047-259X(73)90030-4, for the map.
    """

    __slots__ = ()
    words = "Toeplitz: a correlation for each distance between levels, a variance for each level"
    closed_under: ClassVar[Closure] = "scales"
    over_levels = True

    @property
    def n_rho(self) -> int:
        return self.k - 1

    @property
    def rho_bounds(self) -> tuple[float, float]:
        return -1.0, 1.0

    def rho_at(self, x: Vector) -> tuple[Vector, Matrix]:
        L, by = self.root(x)
        return L[1:, 0].copy(), by[:, 1:, 0].T.copy()

    def x_of(self, rho: Vector) -> Vector:
        x, possible = self._partial(rho)
        if not possible:
            raise NotPositiveDefiniteError(
                "the correlations "
                f"{', '.join(f'{value:.4g}' for value in rho)} of a Toeplitz structure are those "
                "of no covariance matrix"
            )
        return x

    def folded(self, x: Vector) -> Vector:
        # rho depends on the sines alone; to go through rho would lose the x after one near its end
        out: Vector = np.arcsin(np.sin(x))
        return out

    def _partial(self, rho: Vector) -> tuple[Vector, bool]:
        """Return x, clipped to what is possible, and whether it was."""
        x, possible = np.zeros(self.n_rho), True
        a, left = np.zeros(0), 1.0
        for m, value in enumerate(rho):
            rest = float(value) - float(a @ rho[:m][::-1])
            if left <= 1e-14:  # all that follows is determined
                possible = possible and abs(rest) < 1e-6
                r = 0.0
            else:
                possible = possible and abs(rest) <= left + ROUNDING
                r = min(max(rest / left, -1.0), 1.0)
            x[m] = np.arcsin(r)
            a = np.append(a - r * a[::-1], r)
            left *= (1.0 - r) * (1.0 + r)
        return x, possible

    def hold_rho(self, at: int, value: float, x: Vector) -> tuple[float, Vector]:
        # rho_m = (what the shorter lags predict) + (what is left) r_m
        lower = np.append(x[:at], 0.0)
        padded = np.concatenate([lower, np.zeros(self.n_rho - at - 1)])
        predicted = float(self.rho_at(padded)[0][at])
        left = float(np.prod(np.cos(x[:at]) ** 2))
        if not abs(value - predicted) <= left + ROUNDING:
            raise NotPositiveDefiniteError(
                f"a correlation of {value:.4g} at distance {at + 1} does not go with the others"
            )
        r = min(max((value - predicted) / left, -1.0), 1.0) if left > 0.0 else 0.0
        padded[at] = np.arcsin(r)
        return float(padded[at]), self.slopes_of_held(at, padded)

    def root(self, x: Vector) -> tuple[Matrix, Array3]:
        k, n = self.k, self.n_rho
        sine, cosine = np.sin(x), np.cos(x)
        L, by = np.zeros((k, k)), np.zeros((n, k, k))
        L[0, 0] = 1.0
        a, da = np.zeros(0), np.zeros((n, 0))
        left, dleft = 1.0, np.zeros(n)
        for i in range(1, k):
            m = i - 1
            r, unit = float(sine[m]), np.arange(n) == m
            dr = np.where(unit, cosine[m], 0.0)
            da = np.column_stack([da - r * da[:, ::-1] - dr[:, None] * a[::-1], dr])
            a = np.append(a - r * a[::-1], r)
            dleft = dleft * cosine[m] - np.where(unit, left * r, 0.0)
            left *= float(cosine[m])
            earlier = L[:i][::-1]  # L_(i-1), ..., L_0
            L[i] = a @ earlier
            by[:, i] = da @ earlier + np.einsum("j,njc->nc", a, by[:, :i][:, ::-1])
            L[i, i] = left
            by[:, i, i] = dleft
        return L, by

    @property
    def extreme_roots(self) -> list[Vector]:
        """Return those of cosines, rho_m = cos(m w), which all others are mixtures of."""
        lags = np.arange(1, self.k)
        return [self._partial(np.cos(lags * (0.5 * np.pi + turn)))[0] for turn in TURNS]

    def nearest(self, C: Matrix) -> Vector:
        means = np.array([mean_of(np.diag(C, -m)) for m in range(1, self.k)])
        return self.rho_at(self._partial(means)[0])[0]


@structure("toep", "hom = TRUE")
class HomogeneousToeplitz(Toeplitz):
    """Correlation rho_|i - j| and one standard deviation."""

    __slots__ = ()
    words = "Toeplitz: a correlation for each distance between levels, one variance"
    closed_under: ClassVar[Closure] = "one scale"
    hom = True

    @property
    def covariance_basis(self) -> tuple[Matrix, ...]:
        k = self.k
        bands = (np.eye(k, k=m) for m in range(1, k))
        return np.eye(k), *(band + band.T for band in bands)
