"""A cheap start for the search, and a guess of the curvature there.

Both come from the products alone, factor by factor, as if the factors were orthogonal to each
other.  They decide how many evaluations a fit takes, never where it ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.interface import taken_by_columns
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.system import PenalizedSystem

# Relative standard deviations of the start are kept within these.
START_RANGE = (0.1, 10.0)
# The noise takes at least this share of the residual variance at the start.
MIN_NOISE_SHARE = 0.1
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
        share = np.empty(place.width)
        for c in range(place.width):
            column = place.first + c
            a = f.ztz[:, column, column]
            r = f.response[:, column]
            taken = taken_by_columns(f)[:, column]
            free = np.maximum(a - taken, 0.0)
            excess = float((r * r).sum()) / s_sq - float(free.sum())
            weight = float((free * a).sum() - free.sum())
            share[c] = max(excess / weight, 0.0) if weight > 0.0 else 0.0
        shares.append(share)
    total = sum(float(share.sum()) for share in shares)
    noise = max(1.0 - total, MIN_NOISE_SHARE)
    out = []
    for share, template in zip(shares, system.templates, strict=True):
        relative = np.clip(np.sqrt(share / noise), *START_RANGE)
        out.append(template.working_of(np.diag(relative)))
    return np.concatenate(out)


def expected_hessian(
    phi: Vector,
    system: PenalizedSystem,
    *,
    reml: bool,
    rotations: Sequence[Matrix] | None = None,
) -> Matrix:
    """Return a positive definite guess (m, m) of the criterion's Hessian at phi.

    For one factor, with D_j = A_j - A_j Lambda C_j^{-1} Lambda'A_j and
    dSigma_i = dLambda_i Lambda' + Lambda dLambda_i', the expected Hessian is
    sum_j tr(D_j dSigma_i D_j dSigma_k) - t_i t_k / nu, t_i = sum_j tr(D_j dSigma_i).
    """
    products = system.products
    chart = system.chart
    nu = residual_df(system, reml=reml)
    m = phi.size
    if rotations is None:
        rotations = [np.eye(t.k) for t in system.templates]
    lambdas = chart.merge([Q @ T for Q, T in zip(rotations, chart.factors(phi), strict=True)])
    derivatives: list[list[tuple[int, Matrix]]] = [[] for _ in products.blocks.factors]
    for template, part, place, Q in zip(
        system.templates, chart.slices, products.layout, rotations, strict=True
    ):
        for i, dT in enumerate(template.slopes_at(phi[part])):
            dLambda = np.zeros_like(lambdas[place.factor])
            dLambda[place.columns, place.columns] = Q @ dT
            derivatives[place.factor].append((part.start + i, dLambda))
    H = np.zeros((m, m))
    t = np.zeros(m)
    for f, lam, found in zip(products.blocks.factors, lambdas, derivatives, strict=True):
        stride = -(-f.n_levels // MAX_LEVELS)
        A = f.ztz[::stride]
        scale = f.n_levels / A.shape[0]
        K = f.width
        AL = np.matmul(A, lam)
        C = np.matmul(lam.T, AL) + np.eye(K)
        D = A - np.matmul(AL, np.linalg.solve(C, np.swapaxes(AL, 1, 2)))
        flat = D.reshape(-1, K * K)
        # sum_j D[a, b] D[c, d] by (b, c) and (a, d)
        E = (flat.T @ flat).reshape(K, K, K, K).transpose(1, 2, 0, 3).reshape(K * K, K * K)
        own = [i for i, _ in found]
        half = np.matmul(np.array([d for _, d in found]), lam.T)
        sigma = (half + np.swapaxes(half, 1, 2)).reshape(len(found), K * K)
        t[own] = scale * (sigma @ flat.sum(axis=0))
        H[np.ix_(own, own)] = scale * (sigma @ E @ sigma.T)
    H -= np.outer(t, t) / nu
    # Directions without expected curvature (a zero column) get some, or the first step is infinite.
    values, vectors = np.linalg.eigh(0.5 * (H + H.T))
    floor = 1e-2 * max(float(values.max()), 1e-8)
    out: Matrix = (vectors * np.maximum(values, floor)) @ vectors.T
    return out
