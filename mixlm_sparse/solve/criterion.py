"""The profiled criterion and its exact gradient.

With LL' = C = Lambda'Z'WZ Lambda + I, nu = n for ML and n - p for REML,

    d(theta) = log|L|^2 [+ log|R_X|^2 for REML] + nu (1 + log(2 pi pwrss / nu)) - sum(log w)

and, with T the (k, k) factor of one term, sums over its levels j, A = Z'WZ,

    dd/dT = 2 sum_j [A Lambda C^{-1}]_jj - 2 sum_j R_j Omega U_j'

    U = C^{-1} Lambda'Z'W[X y],  R = Z'W([X y] - Z Lambda U)
    Omega = (nu / pwrss) a a' [+ diag((R_X'R_X)^{-1}, 0) for REML],  a = (-beta, 1)

Only blocks of C^{-1} on the pattern of A enter, and no factor T^{-1}: the formula holds at singular
Lambda as it does elsewhere.

References
----------
Bates et al. (2015), doi:10.18637/jss.v067.i01, equations 30 to 42, for the criterion.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.pls import (
    CANCELLATION_LIMIT,
    PenalizedSystem,
    WorkingSolution,
    residual_products,
    solve_at,
    user_beta,
)


def criterion_of(solution: WorkingSolution, system: PenalizedSystem, *, reml: bool) -> float:
    """Return the criterion of a solved system."""
    return _criterion(solution.ldL2, solution.ldRX2, solution.pwrss, system, reml=reml)


def _criterion(
    ldL2: float, ldRX2: float, pwrss: float, system: PenalizedSystem, *, reml: bool
) -> float:
    nu = system.n - system.p if reml else system.n
    d = ldL2 + nu * (1.0 + math.log(2.0 * math.pi * pwrss / nu))
    if reml:
        d += ldRX2
    return d - system.products.log_weight_sum


def gradient_of(solution: WorkingSolution, system: PenalizedSystem, *, reml: bool) -> list[Matrix]:
    """Return the derivative of the criterion with respect to every working Lambda, (K, K) each.

    The engine must hold the factor at `solution`.
    """
    p = system.p
    nu = system.n - p if reml else system.n
    a = np.append(-solution.beta, 1.0)
    Omega = (nu / solution.pwrss) * np.outer(a, a)
    if reml and p:
        R_inverse = scipy.linalg.solve_triangular(solution.R_X, np.eye(p))
        Omega[:p, :p] += R_inverse @ R_inverse.T
    traces = system.engine.trace_products(solution.lambdas)
    residuals = residual_products(solution, system)
    out = []
    for trace, R, U in zip(traces, residuals, solution.U, strict=True):
        RO = (R.reshape(-1, p + 1) @ Omega).reshape(R.shape)
        out.append(2.0 * (trace - np.tensordot(RO, U, axes=([0, 2], [0, 2]))))
    return out


def evaluate(
    lambdas: list[Matrix], system: PenalizedSystem, *, reml: bool, gradient: bool
) -> tuple[float, list[Matrix]]:
    """Return the criterion and, if asked for, its derivative by every working Lambda, (K, K) each.

    Raises
    ------
    NotPositiveDefiniteError : as `solve_at`.
    """
    nu = system.n - system.p if reml else system.n
    with system.lock:
        fused = system.fused
        if fused is not None:
            found = fused.evaluate(lambdas, nu, reml=reml, gradient=gradient)
            if found is not None and found.least_pivot >= CANCELLATION_LIMIT:
                ldRX2 = found.ldRX2 + system.log_det_R_x
                value = _criterion(found.ldL2, ldRX2, found.pwrss, system, reml=reml)
                return value, found.gradient
        solution = solve_at(lambdas, system)
        value = criterion_of(solution, system, reml=reml)
        return value, gradient_of(solution, system, reml=reml) if gradient else []


def profiled_criterion(theta: Vector, system: PenalizedSystem, *, reml: bool = True) -> float:
    """Evaluate the criterion at `theta`, with beta and sigma profiled out.

    Parameters
    ----------
    theta : (m,) dimensionless: factors of the random-effects covariance relative to sigma.
    system : theta-free products and the symbolic factor.
    reml : restricted likelihood instead of the likelihood.

    Raises
    ------
    NotPositiveDefiniteError : X'WX downdated by Z is singular at this theta.
    """
    return evaluate(system.rotated_lambdas(theta)[0], system, reml=reml, gradient=False)[0]


def criterion_and_gradient(
    theta: Vector, system: PenalizedSystem, *, reml: bool = True
) -> tuple[float, Vector]:
    """Evaluate the criterion and its exact gradient (m,) at `theta`."""
    lambdas, rotations = system.rotated_lambdas(theta)
    value, merged = evaluate(lambdas, system, reml=reml, gradient=True)
    # Rz T = T~ Q, so the derivative by T is Rz' (derivative by T~) Q
    parts = [
        template.pull_back(theta[part], Rz.T @ block @ Q)
        for template, part, Rz, block, Q in zip(
            system.templates,
            system.theta_slices,
            system.products.Rz,
            system.split(merged),
            rotations,
            strict=True,
        )
    ]
    return value, np.concatenate(parts)


class DevianceFunction:
    """The criterion as a function of theta, the counterpart of lme4's devFunOnly.

    Calling it with theta (m,) returns the criterion.

    Attributes
    ----------
    theta0 : (m,) the start value, Lambda = I.
    lower : (m,) lower bounds.
    theta_names : names of the parameters.
    """

    def __init__(self, system: PenalizedSystem, *, reml: bool = True) -> None:
        self.system = system
        self.reml = reml
        self.theta0 = system.theta0
        self.lower = system.lower
        self.theta_names = system.theta_names

    def _checked(self, theta: object) -> Vector:
        value = np.asarray(theta, dtype=np.float64)
        if value.shape != self.theta0.shape:
            raise OptionError(
                f"theta has shape {value.shape}, the model has {self.theta0.size} parameters: "
                f"{', '.join(self.theta_names)}"
            )
        return value

    def __call__(self, theta: object) -> float:
        return profiled_criterion(self._checked(theta), self.system, reml=self.reml)

    def gradient(self, theta: object) -> Vector:
        """Return the exact gradient (m,) at theta."""
        return criterion_and_gradient(self._checked(theta), self.system, reml=self.reml)[1]

    def parts(self, theta: object) -> dict[str, object]:
        """Return ldL2, ldRX2, wrss, ussq, pwrss and beta (p,) at theta."""
        system = self.system
        solution = solve_at(system.rotated_lambdas(self._checked(theta))[0], system)
        contrast = np.append(-solution.beta, 1.0)
        ussq = float(sum(((u @ contrast) ** 2).sum() for u in solution.U))  # Q keeps lengths
        return {
            "ldL2": solution.ldL2,
            "ldRX2": solution.ldRX2,
            "wrss": max(solution.pwrss - ussq, 0.0),
            "ussq": ussq,
            "pwrss": solution.pwrss,
            "beta": user_beta(solution.beta, system.products),
        }
