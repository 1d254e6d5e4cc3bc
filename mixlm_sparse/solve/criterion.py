"""The Gaussian criterion, profiled or with sigma as a parameter, and its exact gradient.

With LL' = C = Lambda'Z'WZ Lambda + I, nu = n for ML and n - p for REML,

    d(Lambda, sigma) = log|L|^2 [+ log|R_X|^2 for REML] + nu log(2 pi sigma^2) + pwrss / sigma^2
                       - sum(log w)

which is least at sigma^2 = pwrss / nu: the profiled criterion is

    d(Lambda) = log|L|^2 [+ log|R_X|^2 for REML] + nu (1 + log(2 pi pwrss / nu)) - sum(log w)

and, with T the (k, k) factor of one term, sums over its levels j, A = Z'WZ,

    dd/dT = 2 sum_j [A Lambda C^{-1}]_jj - 2 sum_j R_j Omega U_j'

    U = C^{-1} Lambda'Z'W[X y],  R = Z'W([X y] - Z Lambda U)
    Omega = a a' / sigma^2 [+ diag((R_X'R_X)^{-1}, 0) for REML],  a = (-beta, 1)

    dd/d log sigma = 2 nu - 2 pwrss / sigma^2

with sigma^2 = pwrss / nu in the profiled one.  Only blocks of C^{-1} on the pattern of A enter, and
no factor T^{-1}: the formula holds at singular Lambda as it does elsewhere.  Where Lambda is
regular, engines may take Lambda^{-T} sum_j (I - [C^{-1}]_jj) for the first sum.

References
----------
Bates et al. (2015), doi:10.18637/jss.v067.i01, equations 30 to 42, for the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from mixlm_sparse.common.keywords import answering_methods
from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.dense import sum_of_products, times
from mixlm_sparse.engines.fused.plain import PlainDense, PlainFactor
from mixlm_sparse.solve.pls import (
    CANCELLATION_LIMIT,
    WorkingSolution,
    require_theta,
    residual_products,
    solve_at,
    spherical,
    user_beta,
)
from mixlm_sparse.solve.system import PenalizedSystem

# Numbers of s evaluations up to which they are made in the same calls of NumPy.
TOGETHER_NUMBERS = 500_000


def residual_df(system: PenalizedSystem, *, reml: bool) -> int:
    """Return nu: n for ML, n - p for REML."""
    return system.n - system.p if reml else system.n


def profiled_sigma(pwrss: float, system: PenalizedSystem, *, reml: bool) -> float:
    """Return sqrt(pwrss / nu), the residual standard deviation that fits best."""
    return math.sqrt(pwrss / residual_df(system, reml=reml))


def _criterion(
    ldL2: float,
    ldRX2: float,
    pwrss: float,
    system: PenalizedSystem,
    *,
    reml: bool,
    log_sigma: float | None,
) -> float:
    """Return the criterion from its parts; `log_sigma` None profiles sigma out."""
    nu = residual_df(system, reml=reml)
    if log_sigma is None:
        data = nu * (1.0 + math.log(2.0 * math.pi * pwrss / nu))
    else:
        data = nu * (math.log(2.0 * math.pi) + 2.0 * log_sigma)
        data += pwrss * math.exp(-2.0 * log_sigma)
    d = ldL2 + data - system.products.log_weight_sum
    return d + ldRX2 if reml else d


def criterion_of(
    solution: WorkingSolution, system: PenalizedSystem, *, reml: bool, log_sigma: float | None
) -> float:
    """Return the criterion at a solution; `log_sigma` None profiles sigma out."""
    return _criterion(
        solution.ldL2, solution.ldRX2, solution.pwrss, system, reml=reml, log_sigma=log_sigma
    )


@dataclass(frozen=True, eq=False, slots=True)
class Evaluation:
    """The profiled criterion at given Lambda, and what it was formed of.

    Parameters
    ----------
    value : the criterion.
    slopes : its derivative by every working Lambda, (K, K) each; none if not asked for.
    solution, residuals : the solution and Z'W([X y] - Z Lambda U), (L, K, p + 1) per factor; None
        where the evaluation is fused, or no derivative was asked for.
    """

    value: float
    slopes: list[Matrix]
    solution: WorkingSolution | None = None
    residuals: list[Array3] | None = None


def slopes_of_factors(
    solution: WorkingSolution,
    system: PenalizedSystem,
    sigma_sq: float,
    *,
    reml: bool,
    residuals: list[Array3] | None = None,
) -> list[Matrix]:
    """Return the derivative of the criterion by every working Lambda, (K, K) each.

    The engine must hold the factor at `solution`.

    Parameters
    ----------
    residuals : `residual_products` at the solution, if they are at hand.
    """
    p = system.p
    # Omega = G G': the two halves stay apart, for where random effects are large the fixed effects
    # between groups have entries of 1 / theta in R and U, and of theta in R_X^{-1}
    G = np.zeros((p + 1, p + 1 if reml else 1))
    G[:, -1] = np.append(-solution.beta, 1.0) / math.sqrt(sigma_sq)
    if reml and p:
        G[:p, :p] = scipy.linalg.lapack.dtrtri(solution.R_X)[0]
    traces = system.engine.trace_products(solution.factored)
    if solution.scale > 1.0:
        traces = [trace / solution.scale for trace in traces]
    out = []
    if residuals is None:
        residuals = residual_products(solution, system)
    for trace, R, U in zip(traces, residuals, solution.U, strict=True):
        out.append(2.0 * (trace - sum_of_products(times(R, G), np.swapaxes(times(U, G), 1, 2))))
    return out


def evaluate(
    lambdas: list[Matrix], system: PenalizedSystem, *, reml: bool, gradient: bool
) -> tuple[float, list[Matrix]]:
    """Return the profiled criterion and, if asked for, its derivative by every working Lambda.

    Parameters
    ----------
    lambdas : per grouping factor, (K, K), relative to sigma.

    Raises
    ------
    NotPositiveDefiniteError : as `solve_at`.
    """
    found = evaluation_at(lambdas, system, reml=reml, gradient=gradient)
    return found.value, found.slopes


def evaluation_at(
    lambdas: list[Matrix], system: PenalizedSystem, *, reml: bool, gradient: bool
) -> Evaluation:
    """Return what `evaluate` does, with what it was formed of."""
    nu = residual_df(system, reml=reml)
    with system.lock:
        fused = system.fused
        if fused is not None:
            found = fused.evaluate(lambdas, nu, reml=reml, gradient=gradient)
            if found is not None and found.least_pivot >= CANCELLATION_LIMIT:
                ldRX2 = found.ldRX2 + system.log_det_R_x
                value = _criterion(
                    found.ldL2, ldRX2, found.pwrss, system, reml=reml, log_sigma=None
                )
                return Evaluation(value, found.gradient)
        at = solve_at(lambdas, system)
        value = _criterion(at.ldL2, at.ldRX2, at.pwrss, system, reml=reml, log_sigma=None)
        if not gradient:
            return Evaluation(value, [])
        R = residual_products(at, system)
        slopes = slopes_of_factors(at, system, at.pwrss / nu, reml=reml, residuals=R)
        return Evaluation(value, slopes, at, R)


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
    nu = residual_df(system, reml=reml)
    sigma_sq = math.exp(2.0 * log_sigma)
    with system.lock:
        fused = system.fused
        if fused is not None:
            found = fused.evaluate(lambdas, -1.0 / sigma_sq, reml=reml, gradient=True)
            if found is not None and found.least_pivot >= CANCELLATION_LIMIT:
                ldRX2 = found.ldRX2 + system.log_det_R_x
                value = _criterion(
                    found.ldL2, ldRX2, found.pwrss, system, reml=reml, log_sigma=log_sigma
                )
                return value, found.gradient, 2.0 * (nu - found.pwrss / sigma_sq)
        at = solve_at(lambdas, system)
        value = _criterion(at.ldL2, at.ldRX2, at.pwrss, system, reml=reml, log_sigma=log_sigma)
        G = slopes_of_factors(at, system, sigma_sq, reml=reml)
        return value, G, 2.0 * (nu - at.pwrss / sigma_sq)


def slopes_each(
    lambdas: Sequence[Array3],
    system: PenalizedSystem,
    *,
    reml: bool,
    log_sigma: float | None = None,
) -> list[Array3]:
    """Return the criterion's derivatives by every working Lambda at s points, (s, K, K) each.

    Parameters
    ----------
    lambdas : per grouping factor, (s, K, K), relative to sigma.
    log_sigma : log of a residual standard deviation that is held; None profiles sigma out.

    Raises
    ------
    NotPositiveDefiniteError : as `solve_at`.
    """
    s = lambdas[0].shape[0] if lambdas else 0
    with system.lock:
        fused = system.fused
        if isinstance(fused, PlainFactor | PlainDense) and s * fused.size <= TOGETHER_NUMBERS:
            nu = -math.exp(-2.0 * log_sigma) if log_sigma is not None else residual_df(
                system, reml=reml
            )
            found = fused.evaluate_each(lambdas, nu, reml=reml)
            if found is not None and found.least_pivot.min() >= CANCELLATION_LIMIT:
                return found.gradient
    each = []
    for i in range(s):
        at = [lam[i] for lam in lambdas]
        if log_sigma is None:
            each.append(evaluate(at, system, reml=reml, gradient=True)[1])
        else:
            each.append(joint_criterion(at, log_sigma, system, reml=reml)[1])
    return [np.array(G) for G in zip(*each, strict=True)]


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
    lambdas = system.chart.lambdas_of_theta(theta)[0]
    return evaluate(lambdas, system, reml=reml, gradient=False)[0]


def criterion_and_gradient(
    theta: Vector, system: PenalizedSystem, *, reml: bool = True
) -> tuple[float, Vector]:
    """Evaluate the criterion and its exact gradient (m,) at `theta`."""
    chart = system.chart
    lambdas, rotations = chart.lambdas_of_theta(theta)
    value, merged = evaluate(lambdas, system, reml=reml, gradient=True)
    # Rz T = T~ Q, so the derivative by T is Rz' (derivative by T~) Q
    slopes = [
        Rz.T @ block @ Q
        for Rz, block, Q in zip(chart.Rz, chart.split(merged), rotations, strict=True)
    ]
    return value, chart.theta_pull_back(theta, slopes)


@answering_methods
class DevianceFunction:
    """The criterion as a function of theta, the counterpart of lme4's devFunOnly.

    Calling it with theta (m,) returns the criterion; `value_and_gradient` is what optimizers take.

    Attributes
    ----------
    theta0 : (m,) the start value, Lambda = I.
    lower : (m,) lower bounds.
    theta_names : names of the parameters.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> d = mx.deviance_function("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> d.theta0, d.lower, d.theta_names
    (array([1.]), array([0.]), ('Batch.(Intercept)',))
    >>> round(d([0.8]), 4), d.gradient([0.8]).round(3)
    (319.6716, array([-0.735]))
    >>> round(d.parts([0.8])["pwrss"], 1)
    72248.5
    """

    def __init__(self, system: PenalizedSystem, *, reml: bool = True) -> None:
        self.system = system
        self.reml = reml
        self.theta0 = system.theta0
        self.lower = system.lower
        self.theta_names = system.theta_names

    def __repr__(self) -> str:
        kind = "REML criterion" if self.reml else "ML deviance"
        return in_brackets(f"DevianceFunction: {kind} of {', '.join(self.theta_names)}")

    def _checked(self, theta: object) -> Vector:
        return require_theta("theta", theta, self.system)

    def __call__(self, theta: object) -> float:
        return profiled_criterion(self._checked(theta), self.system, reml=self.reml)

    def gradient(self, theta: object) -> Vector:
        """Return the exact gradient (m,) at theta."""
        return criterion_and_gradient(self._checked(theta), self.system, reml=self.reml)[1]

    def value_and_gradient(self, theta: object) -> tuple[float, Vector]:
        """Return the criterion and its exact gradient (m,) at theta, which share their work."""
        return criterion_and_gradient(self._checked(theta), self.system, reml=self.reml)

    def parts(self, theta: object) -> dict[str, object]:
        """Return ldL2, ldRX2, wrss, ussq, pwrss and beta (p,) at theta."""
        system = self.system
        solution = solve_at(system.chart.lambdas_of_theta(self._checked(theta))[0], system)
        contrast = np.append(-solution.beta, 1.0)[:, None]
        u = spherical(solution.along(contrast), system)
        ussq = float(sum((own**2).sum() for own in u))  # Q keeps lengths
        return {
            "ldL2": solution.ldL2,
            "ldRX2": solution.ldRX2,
            "wrss": max(solution.pwrss - ussq, 0.0),
            "ussq": ussq,
            "pwrss": solution.pwrss,
            "beta": user_beta(solution.beta, system.products),
        }
