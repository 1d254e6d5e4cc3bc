"""Curvature of the criterion in (phi, rho, log sigma) of a model with a residual structure.

As `solve.curvature`, with x = (phi, rho) in the place of phi: D'' by central differences of the
exact gradient, q = nu dlog pwrss / dx exactly, and the derivative of [X y]'V^{-1}[X y] by rho, on
which degrees of freedom depend, by central differences.  The parameters are those of the law that
is not centered, so that sigma is the user's.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.differences import HESSIAN_STEP, MULTIPLES, derivative
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.curvature import Curvature, finished, parameter_levels, phi_scales
from mixlm_sparse.solve.pls import WorkingSolution
from mixlm_sparse.solve.product_derivatives import (
    ProductDerivatives,
    product_derivatives,
    solution_columns,
)
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.criterion import evaluate_whitened, pwrss_slopes

__all__ = ["curvature_without_rows", "whitened_curvature"]


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

    own = product_derivatives(phi, system)
    solution = own.solution
    H = np.zeros((m + r + 1, m + r + 1))
    H[-1, -1] = 4.0 * nu
    H[:-1, :-1], by_rho = _differences(x, m, scales, system, reml=reml, log_sigma=log_sigma)
    G = solution_columns(solution)
    products = np.concatenate([own.products, np.matmul(np.matmul(G.T, by_rho), G)])
    pwrss = np.concatenate([own.pwrss, pwrss_slopes(solution, system)])
    derivatives = ProductDerivatives(solution, products, pwrss)
    if sigma is None:
        q = nu / solution.pwrss * pwrss
        H[:-1, :-1] += np.outer(q, q) / nu
        H[:-1, -1] = H[-1, :-1] = -2.0 * q
    information = np.sqrt(np.maximum(np.diag(whitened.whitening.information()[0]), 1.0))
    units = np.concatenate(
        [phi_scales(phi, system) / np.sqrt(parameter_levels(system)), 1.0 / information]
    )
    return finished(H, np.append(units, 1.0 / np.sqrt(4.0 * nu)), x, sigma, derivatives, nu)


def curvature_without_rows(
    phi: Vector,
    system: PenalizedSystem,
    hessian: Matrix,
    units: Vector,
    by_rho: tuple[Array3, Vector],
    *,
    reml: bool,
    sigma: float | None = None,
) -> Curvature:
    """Return the curvature of `whitened_curvature` from what of it needs rows.

    Parameters
    ----------
    hessian, units : of that curvature.
    by_rho : its derivatives by rho, of products (n_rho, p + 1, p + 1) and pwrss (n_rho,).
    """
    assert system.whitened is not None
    own = product_derivatives(phi, system)
    products, pwrss = by_rho
    derivatives = ProductDerivatives(
        own.solution, np.concatenate([own.products, products]), np.concatenate([own.pwrss, pwrss])
    )
    x = np.concatenate([phi, system.whitened.rho])
    return finished(hessian, units, x, sigma, derivatives, residual_df(system, reml=reml))


def _differences(
    x: Vector, m: int, scales: Vector, system: PenalizedSystem, *, reml: bool,
    log_sigma: float | None,
) -> tuple[Matrix, Array3]:
    """Return the Hessian in x = (phi, rho) and d [X y]'V^{-1}[X y] / d rho.

    Central differences of fourth order of the exact gradient and of the form, from the same
    evaluations; the form (n_rho, p + 1, p + 1) is in the working columns of `system`.  A parameter
    at the end of its range, beyond which the criterion is not defined, has no curvature: zeros.
    """
    whitened = system.whitened
    assert whitened is not None
    chart = system.chart

    def at(moved: Vector) -> tuple[Vector, Matrix]:
        rho = moved[m:]
        there = system.at_rho(rho) if (rho != whitened.rho).any() else system
        _, G, slopes, solution = evaluate_whitened(
            chart.lambdas(moved[:m]), there, reml=reml, log_sigma=log_sigma
        )
        assert there.whitened is not None
        half = _factor(solution) @ np.linalg.solve(there.whitened.M, whitened.M)
        gradient = np.concatenate([chart.pull_back(moved[:m], chart.split(G)), slopes])
        return gradient, half.T @ half

    P = system.p + 1
    H, forms = np.zeros((x.size, x.size)), np.zeros((x.size - m, P, P))
    there = np.ones(x.size, dtype=bool)
    for i, scale in enumerate(scales):
        steps = np.array(MULTIPLES) * HESSIAN_STEP * scale
        try:
            found = [at(x + step * (np.arange(x.size) == i)) for step in steps]
        except NotPositiveDefiniteError:
            there[i] = False
            continue
        gradients, values = zip(*found, strict=True)
        H[i] = derivative(gradients, scale)
        if i >= m:
            forms[i - m] = derivative(values, scale)
    H = np.where(there[:, None] & there, H, 0.0)
    return 0.5 * (H + H.T), forms


def _factor(solution: WorkingSolution) -> Matrix:
    """Return the (p + 1, p + 1) triangular factor of [X y]'V^{-1}[X y] in the working columns."""
    p = solution.beta.size
    R = np.zeros((p + 1, p + 1))
    R[:p, :p] = solution.R_X
    R[:p, p] = solution.R_X @ solution.beta
    R[p, p] = np.sqrt(solution.pwrss)
    return R
