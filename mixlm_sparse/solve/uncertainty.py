"""How uncertain an optimum is because the log-determinant is estimated from random vectors.

With g_s the slope of the criterion by phi that the s-th of G independent groups of vectors gives,
H the Hessian of the criterion and phi^ the minimum of the mean over the groups,

    Cov(phi^) ~ H^{-1} [sum_s (g_s - g)(g_s - g)' / (G (G - 1))] H^{-1}

to which comes where the search has stopped, the step H^{-1} g that it left undone, squared.  Theta
and beta follow by the delta method.  The Hessian is the expected one, factor by factor
(see `profiled.start`), which is no further off than the estimate of such a spread is.  It has
nothing to do with the sample: standard errors of estimates are those of any fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import profiled_sigma
from mixlm_sparse.solve.curvature import phi_scales
from mixlm_sparse.solve.product_derivatives import product_derivatives
from mixlm_sparse.solve.profiled.start import expected_hessian
from mixlm_sparse.solve.system import PenalizedSystem

# Step of the differences of theta and phi, of which one is a smooth function of the other.
CHART_STEP = 1e-5


@dataclass(frozen=True, eq=False, slots=True)
class EstimationError:
    """Standard errors that random vectors leave.

    Parameters
    ----------
    criterion : of the criterion.
    theta : (m,) of theta; beta : (p,) of the kept fixed effects, both with what the search left.
    beta_share : largest of `beta`, as a share of the coefficient's standard error from the sample.
    vectors : how many random vectors there were.
    """

    criterion: float
    theta: Vector
    beta: Vector
    beta_share: float = 0.0
    vectors: int = 0

    @property
    def none(self) -> bool:
        """Whether everything is exact."""
        return self.criterion == 0.0


def estimation_error(
    phi: Vector, gradient: Vector, system: PenalizedSystem, *, reml: bool, sigma: float | None
) -> EstimationError:
    """Return what random vectors leave uncertain at an optimum; zeros where nothing is estimated.

    Parameters
    ----------
    phi, gradient : (m,) where the search stopped, and the slope of the criterion there.
    sigma : that is held; None where it is profiled out.
    """
    engine = system.engine
    if engine.exact or not phi.size:
        return EstimationError(0.0, np.zeros(phi.size), np.zeros(system.p))
    from mixlm_sparse.engines.krylov.engine import KrylovEngine  # loaded, where it is in use

    assert isinstance(engine, KrylovEngine)
    chart = system.chart
    with system.lock:
        derivatives = product_derivatives(phi, system)  # leaves the engine at phi
        criterion = engine.logdet_error
        groups = engine.trace_errors()
    if not groups:
        return EstimationError(0.0, np.zeros(phi.size), np.zeros(system.p))
    slopes = np.array(
        [chart.pull_back(phi, chart.split([2.0 * G for G in group])) for group in groups]
    )
    centered = slopes - slopes.mean(axis=0)
    centered /= np.sqrt(len(groups) * (len(groups) - 1.0))
    undone = np.where(np.isfinite(gradient), gradient, 0.0)
    parts = np.vstack([centered, undone])
    half = np.linalg.solve(expected_hessian(phi, system, reml=reml), parts.T)

    p = system.p
    beta: Matrix = np.zeros((p, phi.size))
    errors = np.ones(p)
    if p:
        # d beta = R_X^{-1} (G'dM G) in the working columns: see `ProductDerivatives`
        R_X = derivatives.solution.R_X
        working = scipy.linalg.solve_triangular(R_X, derivatives.products[:, :p, p].T)
        beta = scipy.linalg.solve_triangular(system.products.R_x, working)
        inverse = scipy.linalg.solve_triangular(R_X, np.eye(p))
        if sigma is None:
            sigma = profiled_sigma(derivatives.solution.pwrss, system, reml=reml)
        errors = sigma * _lengths(scipy.linalg.solve_triangular(system.products.R_x, inverse))
    of_beta = _lengths(beta @ half)
    return EstimationError(
        criterion=criterion,
        theta=_lengths(_theta_slopes(phi, system) @ half),
        beta=of_beta,
        beta_share=float((of_beta / np.where(errors > 0.0, errors, np.inf)).max(initial=0.0)),
        vectors=engine.n_vectors,
    )


def _lengths(parts: Matrix) -> Vector:
    out: Vector = np.sqrt((parts * parts).sum(axis=1))
    return out


def _theta_slopes(phi: Vector, system: PenalizedSystem) -> Matrix:
    """Return d theta / d phi, (m, m), by differences of the chart."""
    scales = phi_scales(phi, system)
    columns = []
    for i, scale in enumerate(scales):
        step = np.zeros(phi.size)
        step[i] = CHART_STEP * scale
        ahead, behind = system.chart.theta_of_phi(phi + step), system.chart.theta_of_phi(phi - step)
        columns.append((ahead - behind) / (2.0 * step[i]))
    return np.array(columns).T
