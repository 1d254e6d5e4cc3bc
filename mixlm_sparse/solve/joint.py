"""The criterion with sigma as a parameter of its own, and its exact gradient.

    d(Lambda, sigma) = log|L|^2 [+ log|R_X|^2] + nu log(2 pi sigma^2) + pwrss / sigma^2 - sum(log w)

At sigma^2 = pwrss / nu it is the profiled criterion.  Its derivative in Lambda is that of the
profiled criterion with nu / pwrss replaced by 1 / sigma^2; in log sigma it is
2 nu - 2 pwrss / sigma^2.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import gradient_of
from mixlm_sparse.solve.pls import CANCELLATION_LIMIT, PenalizedSystem, solve_at


def joint_criterion(
    lambdas: list[Matrix], log_sigma: float, system: PenalizedSystem, *, reml: bool
) -> tuple[float, list[Matrix], float]:
    """Evaluate the criterion and its gradient at working factors and a residual sd.

    Parameters
    ----------
    lambdas : per grouping factor, (K, K), relative to sigma.
    log_sigma : log of the residual standard deviation.

    Returns
    -------
    value : the criterion.
    G : its derivative by every working factor, (K, K) each.
    slope : its derivative by log sigma.

    Raises
    ------
    NotPositiveDefiniteError : as `solve_at`.
    """
    with system.lock:
        return _joint_criterion(lambdas, log_sigma, system, reml=reml)


def _joint_criterion(
    lambdas: list[Matrix], log_sigma: float, system: PenalizedSystem, *, reml: bool
) -> tuple[float, list[Matrix], float]:
    nu = system.n - system.p if reml else system.n
    sigma_sq = math.exp(2.0 * log_sigma)
    fused = system.fused
    if fused is not None:
        # the gradient is affine in nu, so two values of nu give it for every sigma
        with_data = fused.evaluate(lambdas, nu, reml=reml, gradient=True)
        if with_data is not None and with_data.least_pivot >= CANCELLATION_LIMIT:
            without = fused.evaluate(lambdas, 0, reml=reml, gradient=True)
            assert without is not None
            share = with_data.pwrss / (nu * sigma_sq)
            G = [
                a + share * (b - a)
                for a, b in zip(without.gradient, with_data.gradient, strict=True)
            ]
            ldRX2 = with_data.ldRX2 + system.log_det_R_x
            value = _value(with_data.ldL2, ldRX2, with_data.pwrss, log_sigma, system, reml=reml)
            return value, G, 2.0 * (nu - with_data.pwrss / sigma_sq)
    solution = solve_at(lambdas, system)
    pwrss = solution.pwrss
    value = _value(solution.ldL2, solution.ldRX2, pwrss, log_sigma, system, reml=reml)
    # gradient_of weighs the data by nu / pwrss
    G = gradient_of(replace(solution, pwrss=nu * sigma_sq), system, reml=reml)
    return value, G, 2.0 * (nu - pwrss / sigma_sq)


def _value(
    ldL2: float,
    ldRX2: float,
    pwrss: float,
    log_sigma: float,
    system: PenalizedSystem,
    *,
    reml: bool,
) -> float:
    nu = system.n - system.p if reml else system.n
    d = ldL2 + nu * (math.log(2.0 * math.pi) + 2.0 * log_sigma)
    d += pwrss * math.exp(-2.0 * log_sigma) - system.products.log_weight_sum
    return d + ldRX2 if reml else d


def working_factors(phi: Vector, system: PenalizedSystem) -> list[Matrix]:
    """Return the working factor T~ (k, k) of every term at phi (m,)."""
    return [t.factor(phi[s]) for t, s in zip(system.templates, system.theta_slices, strict=True)]


def user_factors(blocks: list[Matrix], system: PenalizedSystem) -> list[Matrix]:
    """Return the factors in the user's columns, Rz^{-1} T~, (k, k) each; not triangular."""
    return [
        np.asarray(np.linalg.solve(Rz, T), dtype=np.float64)
        for Rz, T in zip(system.products.Rz, blocks, strict=True)
    ]


def phi_gradient(phi: Vector, G: list[Matrix], system: PenalizedSystem) -> Vector:
    """Pull the derivative by working factors back to phi, (m,)."""
    parts = [
        template.pull_back(phi[s], block)
        for template, s, block in zip(
            system.templates, system.theta_slices, system.split(G), strict=True
        )
    ]
    return np.concatenate(parts)
