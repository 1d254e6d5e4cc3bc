"""Standard deviations and correlations as functions of the working parameters, with derivatives.

With A = Rz^{-1} T~ the root of a term's relative covariance S = A A' in the user's columns, and
u, v two of its rows,

    log sd    log sigma + log|u|
    atanh r   asinh(l21 / l22),  l21 = u'v / |v|,  l22 = |w|,  w = u - (u'v / v'v) v
    logit/2   (log(r - l) - log(1 - r)) / 2, of a correlation that several pairs share and that
              cannot be below l; with l = -1 it is atanh r

where l22 is the part of u that v does not explain.  The second form keeps its digits where a
correlation is close to one only because the predictor's origin is far away: l22 does not notice it.
All derivatives by (phi, log sigma) are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.parameters import (
    ZERO_SD_RTOL,
    VarianceParameter,
    estimated_values,
    variance_parameters,
)
from mixlm_sparse.solve.products.basis import triangular_inverse

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

# A combination of parameters that moves by this share along a direction without curvature is not
# determined.
MOVES_RTOL = 1e-3
AT_ZERO = "estimated as zero: on the boundary, no standard error"
BESIDE_ZERO = "undefined: a standard deviation is estimated as zero"
AT_BOUND = "estimated as {bound:.4g}: on the boundary, no standard error"
NO_OPTIMUM = "the Hessian is not positive definite: the fit is not at an optimum"
FLAT = "the criterion is flat in this direction: no standard error"
AT_ONE = "estimated as +1 or -1: on the boundary, no standard error"


@dataclass(frozen=True, eq=False, slots=True)
class VarianceScale:
    """The variance parameters of a fit on the scales on which they are close to normal.

    Parameters
    ----------
    parameters : what they are.
    estimates : (v,) standard deviations, correlations (NaN where undefined) and sigma.
    transformed : (v,) log sd, atanh correlation (or half a logit), log sigma; NaN on the boundary.
    jacobian : (v, m + 1) derivatives of `transformed` by (phi, log sigma), with rho between them
        where there is a residual structure; zeros on the boundary.
    covariances : (v,) covariances, for correlations.
    covariance_slopes : (v, m + 1) their derivatives by (phi, log sigma).
    boundary : per parameter, why it has no quadratic neighbourhood; "" where it has one.
    """

    parameters: tuple[VarianceParameter, ...]
    estimates: Vector
    transformed: Vector
    jacobian: Matrix
    covariances: Vector
    covariance_slopes: Matrix
    boundary: tuple[str, ...]


def variance_scale(fit: FittedModel) -> VarianceScale:
    """Evaluate all variance parameters of a fit with their derivatives by (phi, log sigma)."""
    chart, phi, sigma = fit.system.chart, fit.optimum.phi, unit_of_theta(fit)
    log_sigma = float(np.log(sigma)) if sigma > 0.0 else np.nan
    parameters = variance_parameters(fit.system)
    estimates = estimated_values(fit, parameters)
    v, m = len(parameters), phi.size + fit.system.n_rho  # rho stands between phi and log sigma
    transformed, jacobian = np.full(v, np.nan), np.zeros((v, m + 1))
    covariances, covariance_slopes = np.full(v, np.nan), np.zeros((v, m + 1))
    boundary = _boundary(fit, parameters)
    working = chart.factors(phi)
    inverses = [triangular_inverse(Rz) for Rz in chart.Rz]
    roots = [inverse @ T for inverse, T in zip(inverses, working, strict=True)]
    slopes = [np.matmul(R, chart.factor_slopes(t, phi)) for t, R in enumerate(inverses)]
    for at, par in enumerate(parameters):
        if par.kind == "sigma":
            transformed[at], jacobian[at, m] = log_sigma, 1.0
            continue
        A, dA, part = roots[par.term], slopes[par.term], chart.slices[par.term]
        if par.kind == "cor":
            covariances[at] = sigma**2 * float(A[par.row] @ A[par.column])
            dcov = dA[:, par.row] @ A[par.column] + dA[:, par.column] @ A[par.row]
            covariance_slopes[at, part] = sigma**2 * dcov
            covariance_slopes[at, m] = 2.0 * covariances[at]
        if boundary[at]:
            continue
        if par.kind == "sd":
            u = A[par.row]
            transformed[at] = log_sigma + 0.5 * np.log(u @ u)
            jacobian[at, part] = dA[:, par.row] @ u / (u @ u)
            jacobian[at, m] = 1.0
        elif par.least > -1.0:
            r = float(estimates[at])
            u, v = A[par.row], A[par.column]
            change = _correlation_slope(u, v, dA[:, par.row], dA[:, par.column], r)
            transformed[at] = 0.5 * np.log((r - par.least) / (1.0 - r))
            jacobian[at, part] = change * 0.5 * (1.0 / (r - par.least) + 1.0 / (1.0 - r))
        else:
            transformed[at], jacobian[at, part] = _atanh_correlation(A, dA, par.row, par.column)
    return VarianceScale(
        parameters, estimates, transformed, jacobian, covariances, covariance_slopes, boundary
    )


def _correlation_slope(u: Vector, v: Vector, du: Matrix, dv: Matrix, r: float) -> Vector:
    """Return the derivatives (n_theta,) of the correlation r of effects with roots u and v."""
    product = float(np.sqrt((u @ u) * (v @ v)))
    change: Vector = (du @ v + dv @ u) / product - r * (du @ u / (u @ u) + dv @ v / (v @ v))
    return change


def _atanh_correlation(A: Matrix, dA: Array3, i: int, j: int) -> tuple[float, Vector]:
    """Return atanh of the correlation of effects i and j, and its derivatives (n_theta,)."""
    u, v, du, dv = A[i], A[j], dA[:, i], dA[:, j]
    length = float(np.sqrt(v @ v))
    slope = float(u @ v) / length**2
    w = u - slope * v
    more = float(w @ v) / length**2  # what rounding left
    slope, w = slope + more, w - more * v
    l21, l22 = slope * length, float(np.sqrt(w @ w))
    ratio = l21 / l22
    dl21 = du @ v / length + dv @ w / length
    dl22 = (du - slope * dv) @ w / l22
    derivative = (dl21 - ratio * dl22) / (l22 * np.hypot(1.0, ratio))
    return float(np.arcsinh(ratio)), derivative


def _boundary(fit: FittedModel, parameters: tuple[VarianceParameter, ...]) -> tuple[str, ...]:
    """Say of each parameter why it is on the boundary of its range.

    A standard deviation counts over what the other effects of its term leave of its column, and a
    correlation over the two columns made orthonormal, so that neither the unit nor the origin of a
    predictor decides.
    """
    chart = fit.system.chart
    working = chart.factors(fit.optimum.phi)
    inverses = [triangular_inverse(Rz) for Rz in chart.Rz]
    roots = [inverse @ T for inverse, T in zip(inverses, working, strict=True)]
    zero = set()
    for par in parameters:
        if par.kind == "sd":
            size = float(np.linalg.norm(roots[par.term][par.row]))
            if size < ZERO_SD_RTOL * float(np.linalg.norm(inverses[par.term][par.row])):
                zero.add((par.term, par.row))
    notes = []
    for par in parameters:
        note = ""
        if (par.term, par.row) in zero and par.kind == "sd":
            note = AT_ZERO
        elif par.kind == "cor" and par.shared:
            template, part = chart.templates[par.term], chart.slices[par.term]
            theta = template.theta_at(fit.optimum.phi[part])
            value = theta[par.index]
            if {(par.term, effect) for effect in (par.row, par.column)} & zero:
                note = BESIDE_ZERO
            elif min(value - par.least, 1.0 - value) < ZERO_SD_RTOL**2:
                note = AT_BOUND.format(bound=par.least if value < 0.5 else 1.0)
        elif par.kind == "cor":
            pair = [par.column, par.row]
            two = np.linalg.qr(chart.Rz[par.term][:, pair], mode="r") @ roots[par.term][pair]
            if {(par.term, effect) for effect in pair} & zero:
                note = BESIDE_ZERO
            elif np.linalg.svd(two, compute_uv=False)[-1] < ZERO_SD_RTOL:
                note = AT_ONE
        notes.append(note)
    return tuple(notes)


def moves(gradient: Vector, flat: Matrix) -> bool:
    """Say whether a function with this gradient (m + 1,) moves along one of the flat directions."""
    largest = float(np.abs(gradient).max(initial=0.0))
    return bool(np.abs(gradient @ flat).max(initial=0.0) > MOVES_RTOL * max(largest, 1e-300))
