"""The criterion of a model with a residual structure, and its exact gradient in Lambda and rho.

With Cov(e) = sigma^2 R(rho), the criterion of `solve.criterion` of the whitened rows has log|R| in
the place of -sum(log w).  By rho it changes through R alone,

    dd / d rho_k = d log|R| / d rho_k + d tr(G'R^{-1}G) / d rho_k,   G held,
    GG' = Z Lambda C^{-1} Lambda'Z' + F F' [REML: + E (R_X'R_X)^{-1} E']

    F = (y - X beta - Z Lambda u) / sigma,    E = X - Z Lambda C^{-1} Lambda'Z'R^{-1}X

since pwrss is at its least in (beta, u), and log|C| + log|R_X|^2 = log|M| + const with
M = [Z X]'R^{-1}[Z X] + prior, d log|M| = tr(M^{-1} d([Z X]'R^{-1}[Z X])).  Only parts of GG' within
residual groups count, and

    z_i'Lambda [C^{-1}] Lambda'z_j = (z_i'Lambda S)(z_j'Lambda S)',   S S' = the block of C^{-1}

of the levels of a group, which is on the pattern of Z'R^{-1}Z: G has K + p + 1 columns, K the
effects of all levels that a group has, and the gradient in all of rho costs one pass over n rows of
them (`Whitening.squares_slopes`), whatever the number of parameters.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import criterion_of, residual_df, slopes_of_factors
from mixlm_sparse.solve.pls import WorkingSolution, solve_at
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.joint import joint_columns, residual_columns

__all__ = ["evaluate_whitened", "pwrss_slopes"]


def evaluate_whitened(
    lambdas: list[Matrix], system: PenalizedSystem, *, reml: bool, log_sigma: float | None = None
) -> tuple[float, list[Matrix], Vector, WorkingSolution]:
    """Return the criterion and its derivatives.

    Parameters
    ----------
    lambdas : per grouping factor, (K, K), relative to sigma.
    system : at one rho.
    log_sigma : log of sigma; None profiles it out.

    Returns
    -------
    value : the criterion.
    G : its derivative by every working factor, (K, K) each.
    slopes : (n_rho,) its derivative by rho.
    solution : at these factors.

    Raises
    ------
    NotPositiveDefiniteError : as `solve_at`.
    """
    with system.lock:
        at = solve_at(lambdas, system)
        nu = residual_df(system, reml=reml)
        sigma_sq = at.pwrss / nu if log_sigma is None else float(np.exp(2.0 * log_sigma))
        value = criterion_of(at, system, reml=reml, log_sigma=log_sigma)
        G = slopes_of_factors(at, system, sigma_sq, reml=reml) if lambdas else []
        slopes = _slopes(at, system, sigma_sq, reml=reml)
    return value, G, slopes, at


def pwrss_slopes(solution: WorkingSolution, system: PenalizedSystem) -> Vector:
    """Return the derivative of the penalized residual sum of squares by rho, (n_rho,)."""
    whitened = system.whitened
    assert whitened is not None
    plain, white = residual_columns(solution, system)
    out: Vector = whitened.whitening.squares_slopes(plain, white)
    return out


def _slopes(
    solution: WorkingSolution, system: PenalizedSystem, sigma_sq: float, *, reml: bool
) -> Vector:
    whitened = system.whitened
    assert whitened is not None
    plain, white = residual_columns(solution, system)
    scale = 1.0 / np.sqrt(sigma_sq)
    G, WG = joint_columns(solution, system, fixed=reml)
    slopes: Vector = whitened.whitening.slopes(
        np.hstack([plain * scale, G]), np.hstack([white * scale, WG])
    )
    return slopes
