"""Denominator degrees of freedom after Satterthwaite, and the interface that all methods share.

With the deviance as a function of the variance parameters vp = (phi, log sigma), beta profiled out,
let H be its Hessian at the optimum, A = 2 H^{-1} the asymptotic covariance of vp (see
`solve.curvature`), V(vp) the covariance of beta and g the gradient of l'V l in vp.  The variance of
the estimated l'V l is g'A g, that of a scaled chi-squared variable on

    df = 2 (l'V l)^2 / g'A g

degrees of freedom.  phi are the working parameters, which know no unit and no origin of a
predictor, and neither do the degrees of freedom.

References
----------
Giesbrecht and Burns (1985), doi:10.2307/2530872; Fai and Cornelius (1996),
doi:10.1080/00949659608811740; Kuznetsova, Brockhoff and Christensen (2017),
doi:10.18637/jss.v082.i13.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.solve.curvature import EVALUATIONS_PER_PARAMETER

# Contrasts whose variance is below this share of the largest are combinations of the others.
CONTRAST_RANK_TOL = float(np.sqrt(np.finfo(np.float64).eps))
EQUAL_DF_RTOL = 1e-8  # degrees of freedom that differ by less are equal


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

    def variance(self, L: Matrix) -> Vector:
        """Return the variance of each of the combinations L beta, (r,)."""
        ...

    def df(self, L: Matrix) -> Vector:
        """Return the degrees of freedom of each of the combinations L beta, (r,)."""
        ...

    def joint(self, L: Matrix, rhs: Vector) -> JointTest:
        """Test L beta = rhs; L (r, p) may lack rank."""
        ...


def independent_combinations(
    L: Matrix, rhs: Vector, beta: Vector, vcov: Matrix
) -> tuple[Matrix, Vector, Vector]:
    """Rotate hypotheses so that their estimates are uncorrelated, and drop those that repeat.

    Returns
    -------
    L : (q, p); difference : (q,) L beta - rhs; variance : (q,).
    """
    covariance = L @ vcov @ L.T
    # Eigenvectors in the units of L, which the degrees of freedom of a joint test depend on.
    values, vectors = np.linalg.eigh(covariance)
    keep = values > CONTRAST_RANK_TOL * max(float(values[-1]), 0.0)
    P = vectors[:, keep].T
    size = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    size[size == 0.0] = 1.0
    scaled, scaled_vectors = np.linalg.eigh(covariance / np.outer(size, size))
    independent = scaled > CONTRAST_RANK_TOL * max(float(scaled[-1]), 0.0)
    if independent.sum() != keep.sum():
        # Rows of wildly different units must not decide each other's rank.
        keep, values, P = independent, scaled, scaled_vectors[:, independent].T / size
    return P @ L, P @ (L @ beta - rhs), values[keep]


@dataclass(frozen=True, eq=False)
class NormalMoments:
    """Infinite degrees of freedom: z and chi-squared tests."""

    beta: Vector
    vcov: Matrix
    sigma: float
    label: str = "normal"
    note: str = ""

    def variance(self, L: Matrix) -> Vector:
        return _row_forms(L, self.vcov)

    def df(self, L: Matrix) -> Vector:
        return np.full(L.shape[0], np.inf)

    def joint(self, L: Matrix, rhs: Vector) -> JointTest:
        _, difference, variance = independent_combinations(L, rhs, self.beta, self.vcov)
        q = difference.size
        return JointTest(_mean(difference**2 / variance), q, np.inf)


@dataclass(frozen=True, eq=False)
class SatterthwaiteMoments:
    """Degrees of freedom after Satterthwaite.

    Parameters
    ----------
    beta : (p,) fixed effects.
    half : (p, p) with half half' = (X'V^{-1}X)^{-1}, V relative to sigma^2.
    sigma : residual standard deviation.
    slopes : (m, p, p) derivatives by phi of X'V^{-1}X, between half' and half.
    A : (m + 1, m + 1) asymptotic covariance of (phi, log sigma).
    note : what the user should know, or "".
    """

    beta: Vector
    half: Matrix
    sigma: float
    slopes: Array3
    A: Matrix
    note: str = ""
    label: str = "Satterthwaite"

    @cached_property
    def vcov(self) -> Matrix:
        out: Matrix = self.sigma**2 * (self.half @ self.half.T)
        return out

    def variance(self, L: Matrix) -> Vector:
        out: Vector = self.sigma**2 * ((L @ self.half) ** 2).sum(axis=1)
        return out

    def gradients(self, L: Matrix) -> Matrix:
        """Return the gradient of l'V l in (phi, log sigma) for every row l of L, (r, m + 1)."""
        z = L @ self.half
        out = np.empty((L.shape[0], self.slopes.shape[0] + 1))
        # V = (X'V^{-1}X)^{-1}, so its derivative is -V (slope) V
        for i, slope in enumerate(self.slopes):
            out[:, i] = -(self.sigma**2) * ((z @ slope) * z).sum(axis=1)
        out[:, -1] = 2.0 * self.sigma**2 * (z * z).sum(axis=1)
        return out

    def vcov_jacobian(self) -> Array3:
        """Return the derivatives of the covariance of beta by (phi, log sigma), (m + 1, p, p)."""
        by_phi = -(self.sigma**2) * np.matmul(np.matmul(self.half, self.slopes), self.half.T)
        return np.concatenate([by_phi, 2.0 * self.vcov[None]])

    def df(self, L: Matrix) -> Vector:
        g = self.gradients(L)
        uncertainty = ((g @ self.A) * g).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 * self.variance(L) ** 2 / uncertainty, dtype=np.float64)

    def joint(self, L: Matrix, rhs: Vector) -> JointTest:
        rotated, difference, variance = independent_combinations(L, rhs, self.beta, self.vcov)
        F = _mean(difference**2 / variance)
        return JointTest(F, difference.size, joint_df(self.df(rotated)))


def joint_df(nu: Vector) -> float:
    """Return the denominator df of an F test from those (q,) of its uncorrelated single tests.

    The expectation of F is matched: E = sum nu / (nu - 2), df = 2 E / (E - q).  Where a single test
    has two or fewer, its square has no expectation, and neither may F: df = 2.
    """
    if nu.size == 0:
        return float("nan")
    if np.isnan(nu).any():
        return float("nan")
    smallest, largest = float(nu.min()), float(nu.max())
    if nu.size == 1 or smallest == largest or smallest >= (1.0 - EQUAL_DF_RTOL) * largest:
        return float(nu.mean())
    if not (nu > 2.0).all():
        return 2.0
    # E - q without cancellation
    excess = float((2.0 / (nu - 2.0)).sum())
    return 2.0 * (nu.size + excess) / excess if excess > 0.0 else float("inf")


def _row_forms(L: Matrix, M: Matrix) -> Vector:
    out: Vector = ((L @ M) * L).sum(axis=1)
    return out


def _mean(values: Vector) -> float:
    return float(values.mean()) if values.size else float("nan")


# ---------------------------------------------------------------------------------------------
# Of a fit
# ---------------------------------------------------------------------------------------------

_SATTERTHWAITE: WeakKeyDictionary[FittedModel, SatterthwaiteMoments] = WeakKeyDictionary()


def satterthwaite(fit: FittedModel) -> SatterthwaiteMoments:
    """Return what Satterthwaite's method needs of `fit`; computed once, then kept."""
    found = _SATTERTHWAITE.get(fit)
    if found is None:
        curvature = fit.curvature
        derivatives = curvature.derivatives
        p = fit.system.p
        half = fit.solution.RX_inv
        # R_X here is that of the working columns, half that of the user's: half = R_x^{-1} R_X^{-1}
        inner = np.linalg.solve(derivatives.solution.R_X, np.eye(p)) if p else np.zeros((0, 0))
        slopes = np.matmul(np.matmul(inner.T, derivatives.products[:, :p, :p]), inner)
        note = ""
        if curvature.negative:
            note = (
                "the deviance curves downwards in a direction of the variance parameters: the fit "
                "is no minimum, and degrees of freedom are not to be trusted"
            )
        found = SatterthwaiteMoments(
            fit.solution.beta, half, fit.sigma, slopes, curvature.covariance, note
        )
        _SATTERTHWAITE[fit] = found
    return found


def satterthwaite_work(fit: FittedModel) -> float:
    """Count the multiply-adds that `satterthwaite(fit)` takes; 0 if it was called before."""
    if fit in _SATTERTHWAITE:
        return 0.0
    return fit.system.engine.work * (EVALUATIONS_PER_PARAMETER * fit.theta.size + 2)
