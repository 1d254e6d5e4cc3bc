"""The largest of several correlated t statistics: multivariate-t adjustment, Dunnett's test.

With R = A A' (k, r) the correlations of k contrasts and s^2 ~ chi2(df) / df independent of z ~
N(0, I_r), the statistics are T = A z / s.  In polar coordinates z = rho v, |v| = 1, T_i = w_i rho /
s with w = A v, and rho^2 / (r s^2) ~ F(r, df) is independent of v: with

    G(w) = P(w rho / s > c)   (|w| for two-sided tests)

a sample of directions v serves every c and every df.  What is averaged is the overlap,

    P(max T > c) = sum_i P(T_i > c) - E_v[ sum of G(w_i) over all i but the largest ],

as the first sum is known exactly and the second vanishes in the tail.  R may be singular, as that
of all pairs of means is.

The sphere is covered by equidistant angles for r = 2, by a spiral for r = 3, otherwise by the
additive sequence of the square roots of primes; nothing is drawn at random.  Relative errors of
probabilities below .3 are about 1e-8 and 1e-6, then 5e-4 up to r = 6 and 2e-3 at r = 15.

References
----------
Genz and Bretz (2009), Computation of multivariate normal and t probabilities,
doi:10.1007/978-3-642-01689-9, section 4.1; Dunnett (1955), doi:10.1080/01621459.1955.10501294.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from scipy.special import chdtr, chdtrc, fdtr, fdtrc, ndtri, stdtr

from mixlm_sparse.common.types import Matrix, Vector

POINTS = 2**17  # directions
BLOCK = 2**14  # directions at once
BINS = 2**13  # values of w in [-1, 1] that are taken together
RANK_RTOL = 1e-9  # eigenvalues of R below this share of the largest are rounding
GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, eq=False, slots=True)
class MaxT:
    """The distribution of the maximum of k t statistics with given correlations.

    Parameters
    ----------
    values, shares : (bins,) values w of those that are not the largest, and how many there are of
        each in one direction, so that the shares add up to k - 1.
    count, rank : k and r.
    two_sided : whether it is the maximum of |T|.
    """

    values: Vector
    shares: Vector
    count: int
    rank: int
    two_sided: bool

    def exceeds(self, c: float, df: float) -> float:
        """Return P(max > c)."""
        if np.isnan(c) or np.isnan(df):
            return float("nan")
        if self.two_sided and c <= 0.0:
            return 1.0
        single = float(stdtr(df, -c)) * (2.0 if self.two_sided else 1.0)
        overlap = float(self.shares @ self._longer(c, df))
        return min(max(self.count * single - overlap, single), 1.0)

    def _longer(self, c: float, df: float) -> Vector:
        """Return G of each value."""
        w, r = self.values, float(self.rank)
        with np.errstate(divide="ignore", over="ignore"):
            x = np.minimum((c / np.where(w == 0.0, 1e-300, w)) ** 2 / r, 1e300)
        if np.isinf(df):
            above, below = chdtrc(r, r * x), chdtr(r, r * x)
        else:
            above, below = fdtrc(r, df, x), fdtr(r, df, x)
        # a long rho where w and c are positive, a short one where both are negative
        found = np.where(w > 0.0, above, 0.0) if c >= 0.0 else np.where(w < 0.0, below, 1.0)
        return np.asarray(found, dtype=np.float64)

    def quantile(self, level: float, df: float) -> float:
        """Return c with P(max <= c) = level."""
        if np.isnan(df):
            return float("nan")
        tail = 1.0 - level
        low, high = (0.0 if self.two_sided else -1.0), 1.0
        while self.exceeds(high, df) > tail:
            low, high = high, 2.0 * high
        while self.exceeds(low, df) < tail:
            low *= 2.0
        found = scipy.optimize.brentq(
            lambda c: self.exceeds(c, df) - tail, low, high, xtol=1e-10
        )
        return float(found)


def max_t(correlations: Matrix, *, two_sided: bool = True) -> MaxT:
    """Return the distribution of the largest |T| or T.

    Parameters
    ----------
    correlations : (k, k), may be singular.
    """
    sizes, vectors = np.linalg.eigh(correlations)
    used = sizes > RANK_RTOL * sizes[-1]
    A = vectors[:, used] * np.sqrt(sizes[used])
    k, r = A.shape
    counts, sums = np.zeros(BINS), np.zeros(BINS)
    if k > 1:
        for v in _directions(r):
            w = v @ A.T
            w = np.abs(w) if two_sided else w
            largest = w.argmax(axis=1)
            others = np.delete(w.ravel(), np.arange(len(w)) * k + largest)
            bins = np.clip(((others + 1.0) * (0.5 * BINS)).astype(np.int64), 0, BINS - 1)
            counts += np.bincount(bins, minlength=BINS)
            sums += np.bincount(bins, weights=others, minlength=BINS)
    seen = counts > 0.0
    total = max(float(counts.sum()), 1.0)
    return MaxT(
        sums[seen] / counts[seen], counts[seen] * (k - 1) / total, k, r, two_sided
    )


def _directions(r: int) -> Iterator[Matrix]:
    """Yield blocks (m, r) of directions that cover the sphere evenly."""
    if r == 1:
        yield np.array([[1.0], [-1.0]])
        return
    steps = np.sqrt(np.array(_primes(r), dtype=np.float64)) % 1.0
    for start in range(0, POINTS, BLOCK):
        count = np.arange(start, start + BLOCK) + 0.5
        if r == 2:
            angle = count * (2.0 * np.pi / POINTS)
            yield np.column_stack([np.cos(angle), np.sin(angle)])
        elif r == 3:
            height, angle = 1.0 - 2.0 * count / POINTS, 2.0 * np.pi * GOLDEN * count
            radius = np.sqrt(1.0 - height * height)
            yield np.column_stack([height, radius * np.cos(angle), radius * np.sin(angle)])
        else:
            uniform = (count[:, None] * steps) % 1.0
            z = ndtri(np.clip(uniform, 1e-12, 1.0 - 1e-12))
            yield z / np.sqrt((z * z).sum(axis=1))[:, None]


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % p for p in found if p * p <= candidate):
            found.append(candidate)
        candidate += 1
    return found
