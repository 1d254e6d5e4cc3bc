"""Denominator degrees of freedom after Satterthwaite, and the interface that all methods share.

With the deviance as a function of the variance parameters vp = (theta, sigma), beta profiled out,

    d(theta, sigma) = log|L|^2 [+ log|R_X|^2 for REML] + nu log(2 pi sigma^2) + pwrss / sigma^2

let H be its Hessian at the optimum, A = 2 H^{-1} the asymptotic covariance of vp, V(vp) the
covariance of beta and g the gradient of l'V l in vp.  The variance of the estimated l'V l is g'A g,
that of a scaled chi-squared variable on

    df = 2 (l'V l)^2 / g'A g

degrees of freedom.  All of it is computed without a row of data: first derivatives of
[X y]'V^{-1}[X y] in theta are sums over levels of products that the gradient needs anyway, and H
comes from central differences of the exact gradient of the profiled criterion D,

    d_tt = D'' + nu q q' / pwrss^2,   d_ts = -2 q / sigma^3,   d_ss = 4 nu / sigma^2,

where q is the gradient of pwrss.  The criterion is even in each column of Lambda, so that the
formulas need no exception for a variance of zero: the differences reach across the bound.

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
from mixlm_sparse.engines.threads import blas_threads
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.solve.criterion import criterion_and_gradient
from mixlm_sparse.solve.pls import WorkingSolution, residual_products, solve_at
from mixlm_sparse.solve.system import PenalizedSystem

# Relative step of the differences.  They are of fourth order: the error of the formula is below
# 1e-10, that of rounding about 1e-16 / 1e-3.
HESSIAN_STEP = 1e-3
EVALUATIONS_PER_PARAMETER = 4
# Directions of (theta, sigma), brought to order one, with a curvature below this (times the
# largest) say nothing about the covariance: a correlation beside a variance of zero, for example.
EIGENVALUE_TOL = 1e-8
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
    slopes : (m, p, p) derivatives by theta of X'V^{-1}X, between half' and half.
    A : (m + 1, m + 1) asymptotic covariance of (theta, sigma).
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
        """Return the gradient of l'V l in (theta, sigma) for every row l of L, (r, m + 1)."""
        z = L @ self.half
        out = np.empty((L.shape[0], self.slopes.shape[0] + 1))
        # V = (X'V^{-1}X)^{-1}, so its derivative is -V (slope) V
        for i, slope in enumerate(self.slopes):
            out[:, i] = -(self.sigma**2) * ((z @ slope) * z).sum(axis=1)
        out[:, -1] = 2.0 * self.sigma * (z * z).sum(axis=1)
        return out

    def vcov_jacobian(self) -> Array3:
        """Return the derivatives of the covariance of beta by (theta, sigma), (m + 1, p, p)."""
        by_theta = -(self.sigma**2) * np.matmul(np.matmul(self.half, self.slopes), self.half.T)
        return np.concatenate([by_theta, (2.0 / self.sigma * self.vcov)[None]])

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
# Derivatives
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class ProductDerivatives:
    """Derivatives of M = [X y]'V^{-1}[X y] by theta, in the working columns of X.

    Parameters
    ----------
    solution : the solution at theta.
    products : (m, p + 1, p + 1).
    pwrss : (m,) derivative of the penalized residual sum of squares.
    """

    solution: WorkingSolution
    products: Array3
    pwrss: Vector


def product_derivatives(theta: Vector, system: PenalizedSystem) -> ProductDerivatives:
    """Differentiate [X y]'V^{-1}[X y] by theta, exactly.

    With R = Z'V^{-1}[X y] and U = Lambda'R, of which both are at hand,
    dM / dT[a, b] = -sum_j (R_j[a]' U_j[b] + U_j[b]' R_j[a]) over the levels j of the term.
    """
    lambdas, rotations = system.chart.lambdas_of_theta(theta)
    solution = solve_at(lambdas, system)
    residuals = residual_products(solution, system)
    P = system.p + 1
    out = np.zeros((system.n_theta, P, P))
    for template, part, place, Rz, Q in zip(
        system.templates,
        system.chart.slices,
        system.products.layout,
        system.products.Rz,
        rotations,
        strict=True,
    ):
        k = place.width
        # the user's columns: z = z~ Rz and Rz T = T~ Q
        R = np.matmul(Rz.T, residuals[place.factor][:, place.columns])
        U = np.matmul(Q.T, solution.U[place.factor][:, place.columns])
        for i in range(k):
            for j in range(k):
                unit = np.zeros((k, k))
                unit[i, j] = 1.0
                weight = template.pull_back(theta[part], unit)
                if not weight.any():
                    continue
                half = R[:, i].T @ U[:, j]
                out[part] -= weight[:, None, None] * (half + half.T)
    a = np.append(-solution.beta, 1.0)
    return ProductDerivatives(solution, out, np.einsum("a,iab,b->i", a, out, a))


def theta_scales(theta: Vector, system: PenalizedSystem) -> Vector:
    """Return (m,) the size of a change of theta that matters, whatever the units of the data.

    It is the size of theta itself or, where that is nearly zero, the relative standard deviation
    that the mean of a group's residuals has anyway.
    """
    weights = system.matrices.weights
    precision = 1.0 if weights is None else float(weights.mean())
    out = np.empty(theta.size)
    for template, part, place, Rz in zip(
        system.templates,
        system.chart.slices,
        system.products.layout,
        system.products.Rz,
        strict=True,
    ):
        k = place.width
        rows_per_level = system.n / system.products.blocks.factors[place.factor].n_levels
        lengths = np.maximum((Rz * Rz).sum(axis=0), np.finfo(np.float64).tiny)
        floor = 1.0 / np.sqrt(rows_per_level * precision * lengths)
        size = np.sqrt((template.factor(theta[part]) ** 2).sum(axis=1))
        row_scale = np.maximum(size, floor)
        # theta moves the rows of T that it stands in
        scales = np.full(part.stop - part.start, np.inf)
        for a in range(k):
            for b in range(k):
                unit = np.zeros((k, k))
                unit[a, b] = 1.0
                moved = template.pull_back(theta[part], unit) != 0.0
                scales[moved] = np.minimum(scales[moved], row_scale[a])
        out[part] = np.where(np.isfinite(scales), scales, 1.0)
    return out


def profiled_hessian(
    theta: Vector, system: PenalizedSystem, scales: Vector, *, reml: bool
) -> Matrix:
    """Return the Hessian (m, m) of the profiled criterion in theta / scales.

    Central differences of fourth order of the exact gradient.
    """
    m = theta.size
    H = np.empty((m, m))
    for i in range(m):
        gradients = []
        for step in (1.0, -1.0, 2.0, -2.0):
            moved = theta.copy()
            moved[i] += step * HESSIAN_STEP * scales[i]
            gradients.append(criterion_and_gradient(moved, system, reml=reml)[1])
        near, far = gradients[0] - gradients[1], gradients[2] - gradients[3]
        H[i] = (8.0 * near - far) / (12.0 * HESSIAN_STEP) * scales
    return 0.5 * (H + H.T)


@dataclass(frozen=True, eq=False, slots=True)
class VarianceCurvature:
    """Curvature of the deviance in (theta, sigma) and what follows from it.

    Parameters
    ----------
    hessian : (m + 1, m + 1) in (theta / scales, sigma / scales).
    scales : (m + 1,) units of theta and sigma.
    covariance : (m + 1, m + 1) asymptotic covariance of (theta, sigma), 2 H^{-1} on the directions
        that have curvature.
    left_out : number of directions without.
    negative : whether one of them has negative curvature: no minimum.
    """

    hessian: Matrix
    scales: Vector
    covariance: Matrix
    left_out: int
    negative: bool


def variance_curvature(
    theta: Vector,
    sigma: float,
    system: PenalizedSystem,
    derivatives: ProductDerivatives,
    *,
    reml: bool,
) -> VarianceCurvature:
    """Compute the Hessian of the deviance in (theta, sigma) at the optimum, and its inverse."""
    m = theta.size
    nu = system.n - system.p if reml else system.n
    theta_units = theta_scales(theta, system)
    scales = np.append(theta_units, sigma)
    q = derivatives.pwrss * theta_units / sigma**2
    H = np.empty((m + 1, m + 1))
    # at the optimum pwrss = nu sigma^2
    H[:m, :m] = profiled_hessian(theta, system, theta_units, reml=reml) + np.outer(q, q) / nu
    H[:m, m] = H[m, :m] = -2.0 * q
    H[m, m] = 4.0 * nu
    # a diagonal of ones, so that no unit decides which direction counts
    length = np.sqrt(np.abs(np.diag(H)))
    length[length == 0.0] = 1.0
    values, vectors = np.linalg.eigh(H / np.outer(length, length))
    tol = EIGENVALUE_TOL * float(values[-1])
    keep = values > tol
    B = vectors[:, keep] * (scales / length)[:, None]
    return VarianceCurvature(
        hessian=H,
        scales=scales,
        covariance=2.0 * (B / values[keep]) @ B.T,
        left_out=int(values.size - keep.sum()),
        negative=bool((values < -tol).any()),
    )


# ---------------------------------------------------------------------------------------------
# Of a fit
# ---------------------------------------------------------------------------------------------

_CURVATURE: WeakKeyDictionary[FittedModel, tuple[ProductDerivatives, VarianceCurvature]] = (
    WeakKeyDictionary()
)
_SATTERTHWAITE: WeakKeyDictionary[FittedModel, SatterthwaiteMoments] = WeakKeyDictionary()


def curvature_of(fit: FittedModel) -> tuple[ProductDerivatives, VarianceCurvature]:
    """Return derivatives and curvature at the optimum of `fit`; computed once, then kept."""
    found = _CURVATURE.get(fit)
    if found is None:
        system = fit.system
        with blas_threads(system.engine.dense_order, system.q):
            derivatives = product_derivatives(fit.theta, system)
            curvature = variance_curvature(
                fit.theta, fit.sigma, system, derivatives, reml=fit.reml
            )
        found = (derivatives, curvature)
        _CURVATURE[fit] = found
    return found


def satterthwaite(fit: FittedModel) -> SatterthwaiteMoments:
    """Return what Satterthwaite's method needs of `fit`; computed once, then kept."""
    found = _SATTERTHWAITE.get(fit)
    if found is None:
        derivatives, curvature = curvature_of(fit)
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


def satterthwaite_seconds(fit: FittedModel) -> float:
    """Estimate how long `satterthwaite(fit)` takes, from the time of the fit's own evaluations."""
    if fit in _SATTERTHWAITE:
        return 0.0
    optimum = fit.optimum
    each = optimum.seconds / max(optimum.n_evaluations, 1)
    return each * (EVALUATIONS_PER_PARAMETER * fit.theta.size + 2)
