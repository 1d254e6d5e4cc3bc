"""Curvature of the criterion in (phi, rho, log sigma) of a model with a residual structure.

As `solve.curvature`, with x = (phi, rho) in the place of phi: D'' by central differences of the
exact gradient, q = nu dlog pwrss / dx exactly, and the derivative of [X y]'V^{-1}[X y] by rho, on
which degrees of freedom depend, by central differences.  The parameters are those of the law that
is not centered, so that sigma is the user's.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.curvature import (
    HESSIAN_STEP,
    Curvature,
    ProductDerivatives,
    differences,
    finished,
    parameter_levels,
    phi_scales,
    product_derivatives,
)
from mixlm_sparse.solve.pls import WorkingSolution, solve_at
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.criterion import evaluate_whitened, pwrss_slopes

__all__ = ["whitened_curvature"]


def whitened_curvature(
    phi: Vector, system: PenalizedSystem, *, reml: bool, sigma: float | None = None
) -> Curvature:
    """Compute the curvature in (phi, rho, log sigma) at the system's rho.

    Returns
    -------
    Curvature : its phi is (phi, rho); `derivatives` are by both.
    """
    whitened = system.whitened
    assert whitened is not None
    rho = whitened.rho
    m, r = phi.size, rho.size
    nu = residual_df(system, reml=reml)
    x = np.concatenate([phi, rho])
    scales = np.concatenate([phi_scales(phi, system), np.ones(r)])
    log_sigma = None if sigma is None else float(np.log(sigma))

    def gradient(at: Vector) -> Vector:
        moved = system.at_rho(at[m:]) if (at[m:] != rho).any() else system
        chart = system.chart
        _, G, slopes, _ = evaluate_whitened(
            chart.lambdas(at[:m]), moved, reml=reml, log_sigma=log_sigma
        )
        return np.concatenate([chart.pull_back(at[:m], chart.split(G)), slopes])

    own = product_derivatives(phi, system)
    solution = own.solution
    products = np.concatenate([own.products, _product_slopes(phi, system)])
    pwrss = np.concatenate([own.pwrss, pwrss_slopes(solution, system)])
    derivatives = ProductDerivatives(solution, products, pwrss)
    H = np.zeros((m + r + 1, m + r + 1))
    H[-1, -1] = 4.0 * nu
    H[:-1, :-1] = differences(gradient, x, scales)
    if sigma is None:
        q = nu / solution.pwrss * pwrss
        H[:-1, :-1] += np.outer(q, q) / nu
        H[:-1, -1] = H[-1, :-1] = -2.0 * q
    information = np.sqrt(np.maximum(np.diag(whitened.whitening.information()[0]), 1.0))
    units = np.concatenate(
        [phi_scales(phi, system) / np.sqrt(parameter_levels(system)), 1.0 / information]
    )
    return finished(H, np.append(units, 1.0 / np.sqrt(4.0 * nu)), x, sigma, derivatives, nu)


def _product_slopes(phi: Vector, system: PenalizedSystem) -> Array3:
    """Return the derivatives of [X y]'V^{-1}[X y] by rho, (n_rho, p + 1, p + 1).

    In the working columns of `system`; differences of fourth order.
    """
    whitened = system.whitened
    assert whitened is not None
    rho = whitened.rho
    lambdas = system.chart.lambdas(phi)

    def form(at: Vector) -> Matrix:
        moved = system.at_rho(at)
        assert moved.whitened is not None
        R = _factor(solve_at(lambdas, moved))
        half = R @ np.linalg.inv(moved.whitened.M) @ whitened.M
        return half.T @ half

    P = system.p + 1
    out = np.empty((rho.size, P, P))
    for k in range(rho.size):
        values = []
        for step in (1.0, -1.0, 2.0, -2.0):
            at = rho.copy()
            at[k] += step * HESSIAN_STEP
            values.append(form(at))
        near, far = values[0] - values[1], values[2] - values[3]
        out[k] = (8.0 * near - far) / (12.0 * HESSIAN_STEP)
    return out


def _factor(solution: WorkingSolution) -> Matrix:
    """Return the (p + 1, p + 1) triangular factor of [X y]'V^{-1}[X y] in the working columns."""
    p = solution.beta.size
    R = np.zeros((p + 1, p + 1))
    R[:p, :p] = solution.R_X
    R[:p, p] = solution.R_X @ solution.beta
    R[p, p] = np.sqrt(solution.pwrss)
    return R
