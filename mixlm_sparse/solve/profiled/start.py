"""A cheap start for the search, and a guess of the curvature there.

They come from the products alone and decide how many evaluations a fit takes, never where it ends.
A moment estimate goes factor by factor, as if the factors were orthogonal to each other, and so
does the guess.  Where that costs little, squares of the residuals of least squares are set equal to
their expectations, all at once; in balanced designs that is the optimum already.  (The compiled
search, for which an evaluation costs a microsecond, begins at moment estimates.)  Of these
equations the right side alone depends on the response: see `engines.fused.lockstep.start`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.linalg import lapack

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.structure import CovarianceStructure
from mixlm_sparse.engines.fused.lockstep.start import SquaresEquations
from mixlm_sparse.engines.interface import taken_by_columns
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.information import Places, generators, gram
from mixlm_sparse.solve.search.bfgs import EPS
from mixlm_sparse.solve.system import PenalizedSystem

# Relative standard deviations of the start are kept within these.
START_RANGE = (0.1, 10.0)
# The noise takes at least this share of the residual variance at the start.
MIN_NOISE_SHARE = 0.1
# The same where squares are set equal to their expectations, which is not a guess.
LEAST_NOISE = 1e-3
# Least pivot of the equations, in units of lengths, from which on they tell the variances apart.
LEAST_PIVOT = 1e-3
# Levels looked at; more would not change the guess.
MAX_LEVELS = 4096


def moment_start(system: PenalizedSystem) -> Vector:
    """Return phi (m,) by matching squared level totals of the residuals to their expectation.

    With r_j = z_j'W y_f for one column, s^2 the residual variance of least squares and rho the
    share of a column's variance in it, E r_j^2 = s^2 (a_j - rho a_j + rho a_j^2), a_j = z_j'Wz_j
    less what X takes.
    """
    products = system.products
    s_sq = products.yy / max(products.n - products.p, 1)
    if not s_sq > 0.0:
        return system.chart.start
    shares: list[Vector] = []
    for place in products.layout:
        f = products.blocks.factors[place.factor]
        a = np.diagonal(f.ztz, axis1=1, axis2=2)[:, place.columns]
        r, taken = f.response[:, place.columns], taken_by_columns(f)[:, place.columns]
        free = np.maximum(a - taken, 0.0)
        alone = free.sum(axis=0)
        excess = (r * r).sum(axis=0) / s_sq - alone
        weight = (free * a).sum(axis=0) - alone
        share = np.zeros(place.width)
        np.divide(excess, weight, out=share, where=weight > 0.0)
        shares.append(np.maximum(share, 0.0))
    total = sum(float(share.sum()) for share in shares)
    noise = max(1.0 - total, MIN_NOISE_SHARE)
    out = []
    for share, template in zip(shares, system.templates, strict=True):
        relative = np.clip(np.sqrt(share / noise), *START_RANGE)
        out.append(template.working_of(np.diag(relative)))
    return np.concatenate(out)


def quadratic_start(system: PenalizedSystem) -> Vector | None:
    """Return phi (m,) at which squares of the residuals of least squares are as expected.

    With P = I - QQ', Q an orthonormal basis of X, and Cov(y) = sum_k s_k G_k, where G_i = Z E_i Z'
    for a basis E_i of the covariances of all terms and G_0 = I is the residual's,

        y'P G_i P y = sum_k s_k tr(P G_i P G_k)

    is solved for s.  In balanced designs these are the estimates of the analysis of variance, and
    REML's where none of them is negative.

    Returns
    -------
    None where variances cannot be told apart like this, or little is, or may be, left to the
    residuals.

    References
    ----------
    Rao (1971), doi:10.1016/0047-259X(71)90019-4, with the residual variance alone as the prior.
    """
    products = system.products
    equations = _equations(system) if products.yy > 0.0 else None
    if equations is None:
        return None
    places, length, J = equations
    q = np.empty(places.size + 1)
    q[-1] = products.yy
    for g, E in places.E.items():
        r = products.blocks.factors[g].response
        q[places.at[g]] = E @ (r.T @ r).ravel()
    chol, s, info = lapack.dposv(J, q / length, lower=1)
    if info != 0 or not chol.diagonal().min() >= LEAST_PIVOT:
        return None
    s = s / length
    if not s[-1] * max(products.n - products.p, 1) > LEAST_NOISE * products.yy:
        return None
    relative = s / s[-1]
    merged = {
        g: (relative[places.at[g]] @ E).reshape(2 * (products.blocks.factors[g].width,))
        for g, E in places.E.items()
    }
    return np.concatenate(
        [
            _working_near(merged[place.factor][place.columns, place.columns], template)
            for place, template in zip(products.layout, system.templates, strict=True)
        ]
    )


def quadratic_equations(system: PenalizedSystem) -> SquaresEquations | None:
    """Return the equations of `quadratic_start`, solved for any response of the design."""
    equations = _equations(system)
    if equations is None:
        return None
    places, length, J = equations
    chol, info = lapack.dpotrf(J, lower=1, clean=1)
    if info != 0 or not chol.diagonal().min() >= LEAST_PIVOT:
        return None
    half, _ = lapack.dtrtri(chol, lower=1)
    half = half / length
    widths = [f.width for f in system.products.blocks.factors]
    bases = [
        np.asarray(places.E[g] @ np.eye(K * K)).reshape(-1, K, K) for g, K in enumerate(widths)
    ]
    return SquaresEquations(
        half.T @ half,
        bases,
        [places.at[g] for g in range(len(widths))],
        LEAST_NOISE / max(system.n - system.p, 1),
    )


def _equations(system: PenalizedSystem) -> tuple[Places, Vector, Matrix] | None:
    """Return generators, their lengths (g + 1,), and J (g + 1, g + 1) in units of these."""
    products = system.products
    if system.known or system.held is not None:
        return None
    if system.q + products.p >= products.n:
        return None  # effects can be all of the response: towards that no search should begin
    if any(template.covariance_basis is None for template in system.templates):
        return None
    places = Places.of(generators(system))
    J = gram(system, places, project=True)
    length = np.sqrt(np.maximum(J.diagonal(), 0.0))
    if not length.all():
        return None
    return places, length, J / (length[:, None] * length)


def _working_near(S: Matrix, template: CovarianceStructure) -> Vector:
    """Return working parameters of a symmetric S (k, k) with its variances within a range."""
    if template.closed_under != "linear" or template.k == 1:
        return template.working_of(np.diag([_in_range(s) for s in S.diagonal().tolist()]))
    chol, info = lapack.dpotrf(S, lower=1, clean=1)
    if info == 0:
        size, determinant = float(S.trace()), float(chol.diagonal().prod()) ** 2
        # none of the variances is above their sum, nor the least below this share of it
        least = determinant / size ** (template.k - 1)
        if size <= START_RANGE[1] ** 2 and least >= START_RANGE[0] ** 2:
            return template.working_of(chol)
    values, axes = np.linalg.eigh(S)
    return template.working_of(axes * np.array([_in_range(s) for s in values.tolist()]))


def _in_range(variance: float) -> float:
    """Return a standard deviation within the range that searches begin in."""
    return min(max(math.sqrt(max(variance, 0.0)), START_RANGE[0]), START_RANGE[1])


def expected_hessian(
    phi: Vector,
    system: PenalizedSystem,
    *,
    reml: bool,
    rotations: Sequence[Matrix] | None = None,
) -> Matrix:
    """Return a positive definite guess (m, m) of the criterion's Hessian at phi."""
    H = expected_information(phi, system, reml=reml, rotations=rotations)
    # Directions without expected curvature (a zero column) get some, or the first step is infinite.
    values, vectors = np.linalg.eigh(0.5 * (H + H.T))
    floor = 1e-2 * max(float(values[-1]), 1e-8)
    out: Matrix = (vectors * np.maximum(values, floor)) @ vectors.T
    return out


def expected_information(
    phi: Vector,
    system: PenalizedSystem,
    *,
    reml: bool,
    rotations: Sequence[Matrix] | None = None,
) -> Matrix:
    """Return the expected Hessian (m, m) of the criterion at phi, as if factors were orthogonal.

    For one factor, with D_j = A_j - A_j Lambda C_j^{-1} Lambda'A_j and
    dSigma_i = dLambda_i Lambda' + Lambda dLambda_i', the expected Hessian is
    sum_j tr(D_j dSigma_i D_j dSigma_k) - t_i t_k / nu, t_i = sum_j tr(D_j dSigma_i).
    """
    products = system.products
    chart = system.chart
    nu = residual_df(system, reml=reml)
    m = phi.size
    factors, slopes = chart.factors(phi), [
        template.slopes_at(phi[part])
        for template, part in zip(system.templates, chart.slices, strict=True)
    ]
    if rotations is not None:
        factors = [Q @ T for Q, T in zip(rotations, factors, strict=True)]
        slopes = [np.matmul(Q, dT) for Q, dT in zip(rotations, slopes, strict=True)]
    lambdas = chart.merge(factors)
    own: list[list[int]] = [[] for _ in lambdas]
    found: list[list[Array3]] = [[] for _ in lambdas]
    for part, place, dT in zip(chart.slices, products.layout, slopes, strict=True):
        K = lambdas[place.factor].shape[0]
        dLambda = dT
        if place.width < K:
            dLambda = np.zeros((len(dT), K, K))
            dLambda[:, place.columns, place.columns] = dT
        own[place.factor] += range(part.start, part.stop)
        found[place.factor].append(dLambda)
    H = np.zeros((m, m))
    t = np.zeros(m)
    for f, lam, at, parts in zip(products.blocks.factors, lambdas, own, found, strict=True):
        stride = -(-f.n_levels // MAX_LEVELS)
        A = f.ztz[::stride]
        scale = f.n_levels / A.shape[0]
        K = f.width
        AL = np.matmul(A, lam)
        C = np.matmul(lam.T, AL)
        # far out the unit matrix is lost beside it; its rounding keeps C regular
        rounding = EPS * np.trace(C, axis1=1, axis2=2)
        C += (1.0 + rounding)[:, None, None] * np.eye(K)
        D = A - np.matmul(AL, np.linalg.solve(C, np.swapaxes(AL, 1, 2)))
        flat = D.reshape(-1, K * K)
        # sum_j D[a, b] D[c, d] by (b, c) and (a, d)
        E = (flat.T @ flat).reshape(K, K, K, K).transpose(1, 2, 0, 3).reshape(K * K, K * K)
        half = np.matmul(parts[0] if len(parts) == 1 else np.concatenate(parts), lam.T)
        sigma = (half + np.swapaxes(half, 1, 2)).reshape(len(at), K * K)
        t[at] = scale * (sigma @ flat.sum(axis=0))
        rows = np.array(at)[:, None]
        H[rows, at] = scale * (sigma @ E @ sigma.T)
    H -= t[:, None] * t / nu
    return H
