"""What tests of the fixed effects need, whatever the method of their degrees of freedom.

With Cov(beta) = sigma^2 half half', a hypothesis L beta = rhs is a set of directions: the rows of
Z = L half span it, and estimates along orthonormal directions are uncorrelated with variance
sigma^2.  Statistics and degrees of freedom are functions of these directions, so that neither the
units of the data nor the way in which a hypothesis is written has a say; sizes in the units of the
response come in last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.spans import column_lengths
from mixlm_sparse.solve.solution import PlsSolution

# Directions of a joint hypothesis that are shorter than this, its rows being of length one, are
# combinations of the others.
DIRECTION_RTOL = 1e-7
# By this share of their size, or of the estimates' in standard errors, values may contradict each
# other: what is left of rounding when a hypothesis is repeated in other words.
CONTRADICTION_RTOL = 1e-6


@dataclass(frozen=True, slots=True)
class JointTest:
    """An F test.

    Parameters
    ----------
    F : the statistic; num_df, den_df : its degrees of freedom.
    scale : factor that F contains so that it has an F distribution; F / scale is Wald's.
    """

    F: float
    num_df: int
    den_df: float
    scale: float = 1.0


NOTHING_TO_TEST = JointTest(float("nan"), 0, float("nan"))


class CoefficientMoments(Protocol):
    """Estimates, their covariance and degrees of freedom by one method.

    Attributes
    ----------
    label : how tables call the method.
    beta : (p,) estimates, vcov : (p, p) their covariance, sigma : residual standard deviation.
    note : what the user should know, or "".
    """

    @property
    def label(self) -> str: ...

    @property
    def beta(self) -> Vector: ...

    @property
    def vcov(self) -> Matrix: ...

    @property
    def sigma(self) -> float: ...

    @property
    def note(self) -> str: ...

    def along(self, L: Matrix) -> Matrix:
        """Return Z = L half (r, p), sigma^2 half half' the model-based covariance of beta."""
        ...

    def covariance(self, L: Matrix) -> Matrix:
        """Return the covariance of the combinations L beta, (r, r)."""
        ...

    def std_error(self, L: Matrix) -> Vector:
        """Return the standard error of each of the combinations L beta, (r,)."""
        ...

    def df(self, L: Matrix) -> Vector:
        """Return the degrees of freedom of each of the combinations L beta, (r,)."""
        ...

    def joint(self, L: Matrix, rhs: Vector) -> JointTest:
        """Test L beta = rhs; L (r, p) may lack rank."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Directions:
    """A joint hypothesis as orthonormal directions.

    Parameters
    ----------
    basis : (q, p) orthonormal rows; the combinations of beta are basis half^{-1} beta.
    difference : (q,) estimates of these combinations minus their values under the hypothesis, in
        residual standard deviations.
    """

    basis: Matrix
    difference: Vector

    @property
    def q(self) -> int:
        return int(self.difference.size)


def directions(moments: CoefficientMoments, L: Matrix, rhs: Vector) -> Directions:
    """Return the directions of L beta = rhs, repetitions left out.

    Raises
    ------
    OptionError : no coefficients agree with all values.
    """
    Z = moments.along(L)
    lengths = column_lengths(Z.T)
    said = lengths > 0.0
    empty = ~said
    difference = (L @ moments.beta - rhs) / moments.sigma
    if (difference[empty] != 0.0).any():
        raise OptionError(
            "a contrast that is zero in every coefficient is said to have a value other than zero: "
            "leave it out"
        )
    if not said.any():
        return Directions(np.zeros((0, Z.shape[1])), np.zeros(0))
    unit = Z[said] / lengths[said, None]
    with np.errstate(over="ignore"):  # a value beyond all bounds is infinitely far away
        difference = difference[said] / lengths[said]
    # few rows: a basis of their span, not of all p directions
    U, sizes, Vt = np.linalg.svd(unit, full_matrices=unit.shape[0] > unit.shape[1])
    keep = sizes > DIRECTION_RTOL * float(sizes[0])
    rank = int(keep.sum())
    with np.errstate(over="ignore"):
        values = rhs[said] / lengths[said] / moments.sigma
    # rows that repeat others must repeat their values as well
    left = U[:, rank:].T @ difference
    size = max(float(np.abs(difference).max()), float(np.abs(values).max()), 1e-300)
    if left.size and values.any() and float(np.abs(left).max()) > CONTRADICTION_RTOL * size:
        raise OptionError(
            "the hypotheses contradict each other: no coefficients agree with all of them; leave "
            "one out, or correct its value"
        )
    return Directions(Vt[:rank], (U[:, :rank].T @ difference) / sizes[:rank])


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelMoments:
    """The covariance of the model, sigma^2 half half'; methods say what df go with it.

    Parameters
    ----------
    solution : which has the fixed effects and (X'V^{-1}X)^{-1} = half half', V relative to sigma^2.
    sigma : residual standard deviation.
    label : how tables call the method.
    note : what the user should know, or "".
    """

    solution: PlsSolution
    sigma: float
    label: str
    note: str = ""

    @property
    def beta(self) -> Vector:
        return self.solution.beta

    @property
    def half(self) -> Matrix:
        """(p, p), formed when it is asked for: `along` does without."""
        return self.solution.RX_inv

    def along(self, L: Matrix) -> Matrix:
        return self.solution.times_RX_inv(L)

    def covariance(self, L: Matrix) -> Matrix:
        Z = self.sigma * self.along(L)
        out: Matrix = Z @ Z.T
        return out

    @property
    def vcov(self) -> Matrix:
        scaled = self.sigma * self.half
        out: Matrix = scaled @ scaled.T
        return out

    def std_error(self, L: Matrix) -> Vector:
        # sigma |half'l|: no square leaves the range of numbers
        return self.sigma * column_lengths(self.along(L).T)

    def joint(self, L: Matrix, rhs: Vector) -> JointTest:
        found = directions(self, L, rhs)
        if found.q == 0:
            return NOTHING_TO_TEST
        return JointTest(mean_square(found.difference), found.q, self.denominator_df(found))

    def df(self, L: Matrix) -> Vector:
        raise NotImplementedError

    def denominator_df(self, found: Directions) -> float:
        """Return the denominator degrees of freedom of the F test of these directions."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, kw_only=True)
class NormalMoments(ModelMoments):
    """Infinite degrees of freedom: z and chi-squared tests."""

    label: str = "normal"

    def df(self, L: Matrix) -> Vector:
        return np.full(L.shape[0], np.inf)

    def denominator_df(self, found: Directions) -> float:
        return np.inf


def mean_square(values: Vector) -> float:
    """Return the mean of the squares."""
    return float(np.mean(values * values))
