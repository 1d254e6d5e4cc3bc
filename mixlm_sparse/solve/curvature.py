"""Curvature of the criterion in the working parameters (phi, log sigma): the only Hessian.

With D(phi) the profiled criterion, sigma^2 = pwrss / nu and q = d log pwrss / dphi * nu,

    H = [ D'' + q q' / nu    -2 q ]          (m + 1, m + 1) in (phi, log sigma)
        [      -2 q'          4 nu ]

D'' comes from central differences of the exact gradient, q from exact derivatives of products.  H
needs sigma to be the best one at phi, not phi to be an optimum.  The asymptotic covariance of
(phi, log sigma) is 2 H^{-1}; anything else (standard deviations, correlations, variances of
coefficients) follows by the delta method from `Chart.covariance_slopes` and `ProductDerivatives`,
and does not depend on units, origins or coding of predictors, because phi does not.

The criterion is even in each column of a factor, so that the formulas need no exception for a
variance of zero: the differences reach across the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.fused.differences import HESSIAN_STEP, MULTIPLES, derivative
from mixlm_sparse.solve.criterion import residual_df, slopes_each
from mixlm_sparse.solve.held import HeldCoordinates
from mixlm_sparse.solve.product_derivatives import ProductDerivatives, product_derivatives
from mixlm_sparse.solve.system import PenalizedSystem

# Gradients (s, m) at s points (s, m).
Gradients = Callable[[Matrix], Matrix]

EVALUATIONS_PER_PARAMETER = len(MULTIPLES)
# Curvature that levels of the factor (of the residual: rows) would give a parameter of order one;
# a direction with less than this share of it is not seen by the criterion.
FLAT_RTOL = 1e-7
# Step of forward differences in units in which a change of one matters, and curvature in these
# units, 1 where all is well, from which on the Hessian is looked at closely.
SCREEN_STEP = 1e-3
SUSPICIOUS = 0.05
# Where nothing is left to the residuals, a variance with a larger share of theirs is not known.
RESIDUAL_SHARE = 1e-3
# Curvature below minus this share is no rounding error: the point is no minimum.
NEGATIVE_RTOL = 1e-6


def phi_scales(phi: Vector, system: PenalizedSystem) -> Vector:
    """Return (m,) the size of a change of phi that matters.

    It is the size of phi itself or, where that is nearly zero, the relative standard deviation
    that the mean of a group's residuals has anyway.
    """
    chart = system.chart
    out = np.ones(phi.size)
    for template, part, floor in zip(
        chart.templates, chart.slices, _step_floors(system), strict=True
    ):
        out[part] = template.working_scales(phi[part], floor)
    return out


def step_floors(system: PenalizedSystem) -> Vector:
    """Return, per term, the size of a step where there is no random effect: see `phi_scales`."""
    return np.array(_step_floors(system))


def _step_floors(system: PenalizedSystem) -> list[float]:
    factors, n = system.products.blocks.factors, system.n
    return [math.sqrt(factors[place.factor].n_levels / n) for place in system.products.layout]


def profiled_hessian(phi: Vector, system: PenalizedSystem, *, reml: bool) -> Matrix:
    """Return the Hessian (m, m) of the profiled criterion in phi.

    Central differences of fourth order of the exact gradient, 4 m evaluations.
    """
    gradients = profiled_gradients(system, reml=reml)
    return differences(gradients, phi, phi_scales(phi, system))


def profiled_gradients(
    system: PenalizedSystem, *, reml: bool, log_sigma: float | None = None
) -> Gradients:
    """Return the gradients of the criterion at s points, (s, m) -> (s, m).

    Parameters
    ----------
    log_sigma : log of a residual standard deviation that is held; None profiles sigma out.
    """
    chart = system.chart

    def gradients(at: Matrix) -> Matrix:
        merged = slopes_each(chart.lambdas_each(at), system, reml=reml, log_sigma=log_sigma)
        return chart.pull_back_each(at, merged)

    return gradients


def one_by_one(gradient: Callable[[Vector], Vector]) -> Gradients:
    """Return the gradients (s, m) at s points (s, m), one after another."""
    return lambda at: np.array([gradient(point) for point in at])


def downward_direction(H: Matrix, scales: Vector) -> Vector | None:
    """Return a step (m,) of the size of `scales` along which H (m, m) curves downwards, if any."""
    values, vectors = np.linalg.eigh(H * np.outer(scales, scales))
    if values[0] >= -NEGATIVE_RTOL * max(float(values[-1]), 1.0):
        return None
    step: Vector = scales * vectors[:, 0]
    return step


def may_curve_down(gradients: Gradients, phi: Vector, guess: Matrix) -> bool:
    """Say whether the Hessian may have an eigenvalue that is not clearly positive.

    Forward differences are enough for that, along directions in which the guess is the identity:
    where it is good, all eigenvalues are near one; m + 1 evaluations.

    Parameters
    ----------
    gradients : at s points, (s, m) -> (s, m).
    guess : (m, m) of the Hessian, positive definite.
    """
    steps = np.linalg.inv(np.linalg.cholesky(guess))  # rows
    found = gradients(np.vstack([phi, phi + SCREEN_STEP * steps]))
    M = (found[1:] - found[0]) @ steps.T / SCREEN_STEP
    if not np.isfinite(M).all():
        return True
    return bool(np.linalg.eigvalsh(0.5 * (M + M.T))[0] < SUSPICIOUS)


def _hessian_at_sigma(phi: Vector, sigma: float, system: PenalizedSystem, *, reml: bool) -> Matrix:
    """Return the Hessian (m, m) in phi of the criterion with sigma held."""
    gradients = profiled_gradients(system, reml=reml, log_sigma=float(np.log(sigma)))
    return differences(gradients, phi, phi_scales(phi, system))


def differences(gradients: Gradients, phi: Vector, scales: Vector) -> Matrix:
    """Return central differences of fourth order (m, m) of a gradient, (s, m) -> (s, m)."""
    m, steps = phi.size, np.diag(HESSIAN_STEP * scales)
    at = np.concatenate([phi + size * steps for size in MULTIPLES])
    H: Matrix = derivative(gradients(at).reshape(len(MULTIPLES), m, m), scales[:, None])
    return 0.5 * (H + H.T)


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Curvature:
    """Curvature of the criterion in (phi, log sigma) at a point, and what follows from it.

    Parameters
    ----------
    phi : (m,) working parameters; sigma : the best residual standard deviation there.
    hessian : (m + 1, m + 1) in (phi, log sigma); where parameters are held, in the free ones.
    covariance : (m + 1, m + 1) asymptotic covariance of (phi, log sigma), 2 H^{-1} on the
        directions that have curvature.
    flat : (m + 1, f) directions of (phi, log sigma) without curvature: what the data do not
        determine, and columns of a factor without influence beside a variance of zero.
    negative : whether the criterion curves downwards in a direction: no minimum.
    derivatives : of [X y]'V^{-1}[X y] by phi.
    units : (m + 1,) in which a parameter that the data determine has a curvature of order one.
    """

    phi: Vector
    sigma: float
    hessian: Matrix
    covariance: Matrix
    flat: Matrix
    negative: bool
    derivatives: ProductDerivatives
    units: Vector

    def __repr__(self) -> str:
        flat = f", {self.flat.shape[1]} directions flat" if self.flat.shape[1] else ""
        return in_brackets(f"Curvature: {self.phi.size} parameters and log sigma{flat}")


def curvature_at(
    phi: Vector, system: PenalizedSystem, *, reml: bool, sigma: float | None = None
) -> Curvature:
    """Compute the curvature in (phi, log sigma), with the best sigma at phi.

    Parameters
    ----------
    phi : (m,) working parameters.
    sigma : a value that sigma is held at; its log then has no variance.

    Raises
    ------
    NotPositiveDefiniteError : the criterion is not defined near phi.
    """
    if system.held is not None and sigma is not None:
        return _held_curvature(phi, sigma, system, reml=reml)
    m = phi.size
    nu = residual_df(system, reml=reml)
    derivatives = product_derivatives(phi, system)
    pwrss = derivatives.solution.pwrss
    H = np.zeros((m + 1, m + 1))
    H[m, m] = 4.0 * nu
    if sigma is None:
        q = nu / pwrss * derivatives.pwrss
        H[:m, :m] = profiled_hessian(phi, system, reml=reml) + np.outer(q, q) / nu
        H[:m, m] = H[m, :m] = -2.0 * q
    else:
        H[:m, :m] = _hessian_at_sigma(phi, sigma, system, reml=reml)
    # units in which a parameter that the data determine has a curvature of order one
    own = phi_scales(phi, system) / np.sqrt(parameter_levels(system))
    units = np.append(own, 1.0 / np.sqrt(4.0 * nu))
    return finished(H, units, phi, sigma, derivatives, nu)


def finished(
    H: Matrix, units: Vector, phi: Vector, sigma: float | None, derivatives: ProductDerivatives,
    nu: int,
) -> Curvature:
    """Return the curvature with Hessian H (m + 1, m + 1), log sigma last.

    Parameters
    ----------
    units : (m + 1,) in which a parameter that the data determine has a curvature of order one.
    sigma : a value that sigma is held at, or None.
    """
    pwrss = derivatives.solution.pwrss
    values, vectors = np.linalg.eigh(H * np.outer(units, units))
    top = max(float(values[-1]), 1.0)
    seen = values > FLAT_RTOL * top
    B = vectors * units[:, None]
    covariance = 2.0 * (B[:, seen] / values[seen]) @ B[:, seen].T
    if sigma is not None:
        covariance[-1, -1] = 0.0
    return Curvature(
        phi=phi,
        sigma=float(np.sqrt(pwrss / nu)) if sigma is None else sigma,
        hessian=H,
        covariance=covariance,
        flat=B[:, ~seen] / np.sqrt((B[:, ~seen] ** 2).sum(axis=0)),
        negative=bool((values < -NEGATIVE_RTOL * top).any()),
        derivatives=derivatives,
        units=units,
    )


def held_scales(coordinates: HeldCoordinates, y: Vector) -> Vector:
    """Return (f,) the size of a change of the free coordinates that matters."""
    phi, _, _ = coordinates.expand(y)
    out: Vector = np.append(phi_scales(phi, coordinates.system), 1.0)[coordinates.free]
    return out


def _held_hessian(coordinates: HeldCoordinates, y: Vector, *, reml: bool) -> Matrix:
    """Return the Hessian (f, f) of the criterion in what is free."""

    def gradient(at: Vector) -> Vector:
        return coordinates.value_and_gradient(at, reml=reml)[1]

    return differences(one_by_one(gradient), y, held_scales(coordinates, y))


def _held_curvature(
    phi: Vector, sigma: float, system: PenalizedSystem, *, reml: bool
) -> Curvature:
    """Compute the curvature where parameters are held: 2 B H_y^{-1} B' in (phi, log sigma)."""
    coordinates = HeldCoordinates.of(system)
    y = coordinates.reduce(phi, sigma)
    _, _, B = coordinates.expand(y)
    H = _held_hessian(coordinates, y, reml=reml)
    nu = residual_df(system, reml=reml)
    own = phi_scales(phi, system) / np.sqrt(parameter_levels(system))
    units = np.append(own, 1.0 / np.sqrt(4.0 * nu))[coordinates.free]
    values, vectors = np.linalg.eigh(H * np.outer(units, units))
    top = max(float(values.max(initial=0.0)), 1.0)
    seen = values > FLAT_RTOL * top
    free = B @ (vectors * units[:, None])
    return Curvature(
        phi=phi,
        sigma=sigma,
        hessian=H,
        covariance=2.0 * (free[:, seen] / values[seen]) @ free[:, seen].T,
        flat=free[:, ~seen] / np.sqrt((free[:, ~seen] ** 2).sum(axis=0)),
        negative=bool((values < -NEGATIVE_RTOL * top).any()),
        derivatives=product_derivatives(phi, system),
        units=units,
    )


def parameter_levels(system: PenalizedSystem) -> Vector:
    """Return (m,) the number of levels that each parameter is estimated from."""
    chart = system.chart
    out = np.empty(chart.m)
    for part, place in zip(chart.slices, chart.layout, strict=True):
        out[part] = system.products.blocks.factors[place.factor].n_levels
    return out


def residual_share(curvature: Curvature, system: PenalizedSystem, Z: Matrix) -> Vector:
    """Return the share (r,) of variances that goes with the residual's alone.

    With the random effects' standard deviations tau = phi sigma held, dlog Var / dlog sigma is 2
    for what is judged within groups and 0 for what is judged between them; the share is half.

    Parameters
    ----------
    Z : (r, p) combinations in the working columns, z = l R_x^{-1} R_X^{-1}.
    """
    # along d/dlog s of X'V^{-1}X, between half' and half
    along = curvature.phi * system.chart.powers
    lengths = (Z * Z).sum(axis=1)
    slopes = along @ curvature.derivatives.along(Z)
    with np.errstate(invalid="ignore"):
        out: Vector = 1.0 + 0.5 * slopes / np.where(lengths > 0.0, lengths, np.nan)
    return out


def known_without_residual(
    curvature: Curvature, system: PenalizedSystem, Z: Matrix
) -> NDArray[np.bool_]:
    """Say which variances (r,) of Z, as in `residual_share`, are known where sigma is zero."""
    return ~(residual_share(curvature, system, Z) > RESIDUAL_SHARE)


def hessian_eigenvalues(
    phi: Vector, system: PenalizedSystem, *, reml: bool, sigma: float | None = None
) -> Vector:
    """Return the eigenvalues, ascending, of the criterion's Hessian on the free parameters.

    Parameters of columns that are zero are not free; the working parameters are of order one, so
    the values can be compared with each other.
    """
    chart = system.chart
    if system.held is not None and sigma is not None:
        coordinates = HeldCoordinates.of(system)
        y = coordinates.reduce(phi, sigma)
        return np.asarray(np.linalg.eigvalsh(_held_hessian(coordinates, y, reml=reml)))
    if sigma is None:
        H = profiled_hessian(phi, system, reml=reml)
    else:  # where that is zero in the limit, the profiled criterion has no minimum
        H = _hessian_at_sigma(phi, sigma, system, reml=reml)
    live = [np.broadcast_to(np.abs(T).any(axis=0) * 1.0, T.shape) for T in chart.factors(phi)]
    free = chart.pull_back(phi, live) != 0.0
    return np.asarray(np.linalg.eigvalsh(H[np.ix_(free, free)]), dtype=np.float64)
