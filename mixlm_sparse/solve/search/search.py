"""Choose a search, run it, certify where it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from mixlm_sparse.common.checks import (
    listed,
    require_bool,
    require_count,
    require_instance,
    require_number,
    require_one_of,
    require_vector,
    shown,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.solve.identification import require_residuals_apart
from mixlm_sparse.solve.pls import PERFECT_FIT_RTOL
from mixlm_sparse.solve.search.bfgs import ROUNDING, minimize_bfgs
from mixlm_sparse.solve.search.boundary import settle_boundary
from mixlm_sparse.solve.search.derivative_free import minimize_bobyqa, minimize_cobyqa
from mixlm_sparse.solve.search.fused import minimize_fused
from mixlm_sparse.solve.search.objective import (
    SATURATED,
    Objective,
    Progress,
    SaturatedError,
)
from mixlm_sparse.solve.search.optimum import Optimum, limit, perfect_fit, report
from mixlm_sparse.solve.search.start import expected_hessian, moment_start
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.search.valleys import other_starts
from mixlm_sparse.solve.system import PenalizedSystem

# A start beyond this is refused; one beyond SATURATED is replaced by the moment estimate.
LARGEST_START = 1e7
# Minima of the criterion that differ by less are the same valley.
SAME_VALLEY = 1e-4
OPTIMIZERS = ("auto", "bfgs", "lbfgsb", "bobyqa", "cobyqa")
# Evaluations (more with many parameters) after which a search that has not ended turns its axes.
LEG_EVALUATIONS = 12



@dataclass(frozen=True, slots=True)
class Control:
    """Settings of the search; the defaults reach the tight optimum.

    Parameters
    ----------
    max_evaluations : evaluations of the criterion before the search gives up; None chooses by
        optimizer and number of parameters.
    tolerance : a gradient search ends when a Newton step predicts a smaller decrease of the
        criterion than this.
    xtol, ftol : a derivative-free search ends when steps of the (scaled) parameters, or changes of
        the criterion, are below these.
    gradient_tolerance : largest predicted decrease, computed from the exact gradient, with which an
        optimum is called converged.
    check_boundary : test optima on the boundary and leave false ones.
    warn : emit warnings about singular fits, dropped columns, scales and convergence.
    """

    max_evaluations: int | None = None
    tolerance: float = 1e-12
    xtol: float = 1e-8
    ftol: float = 1e-11
    gradient_tolerance: float = 1e-6
    check_boundary: bool = True
    warn: bool = True

    def __post_init__(self) -> None:
        if self.max_evaluations is not None:
            # NLopt takes Python's numbers only
            count = require_count("max_evaluations", self.max_evaluations)
            object.__setattr__(self, "max_evaluations", count)
        for name in ("tolerance", "xtol", "ftol", "gradient_tolerance"):
            number = require_number(name, getattr(self, name), least=0.0, example="1e-8")
            object.__setattr__(self, name, number)
        for name in ("check_boundary", "warn"):
            object.__setattr__(self, name, require_bool(name, getattr(self, name)))


def optimize(
    system: PenalizedSystem,
    *,
    reml: bool = True,
    start: Vector | None = None,
    optimizer: str = "auto",
    control: Control | None = None,
    progress: Progress | None = None,
) -> Optimum:
    """Minimize the profiled criterion over theta.

    Parameters
    ----------
    system : theta-free products and the engine.
    reml : restricted likelihood instead of the likelihood.
    start : (m,) theta to start from; by default a moment estimate.
    optimizer : "auto" and "bfgs" use the exact gradient; "lbfgsb" is SciPy's; "bobyqa" (NLopt) and
        "cobyqa" (SciPy) work without derivatives.
    control : tolerances and limits.
    progress : called with (evaluation, criterion, theta) at every evaluation.

    Raises
    ------
    OptionError : unknown optimizer, or a start of the wrong length or outside the bounds.
    DataError : random effects that cannot be told from the residuals.
    """
    began = time.perf_counter()
    require_instance("system", system, PenalizedSystem, "use mx.penalized_system(matrices)")
    require_bool("reml", reml)
    require_one_of("optimizer", optimizer, OPTIMIZERS)
    control = Control() if control is None else control
    require_instance("control", control, Control, "use mx.Control(...)")
    if progress is not None and (isinstance(progress, type) or not callable(progress)):
        raise OptionError(
            f"progress is {shown(progress)}: use a function of (evaluation, criterion, theta)"
        )
    require_residuals_apart(system)
    phi = _start(system, start)
    method = "bfgs" if optimizer == "auto" else optimizer
    objective = Objective(system, reml, progress)
    perfect = _perfect_fit(system)
    if perfect is not None:
        return perfect_fit(system, objective, perfect, method, began)

    with one_blas_thread():
        try:
            found = _search(system, objective, phi, method, control, began)
            if start is not None and found.status is Status.NOT_CONVERGED:
                # a start in a desert: the criterion falls towards the optimum, hardly visibly
                found = _better(
                    found, _search(system, objective, None, method, control, began)
                )
            elif start is None and method == "bfgs":
                found = _second_looks(found, system, objective, method, control, began)
            return found
        except SaturatedError:
            return limit(system, objective, method, began)


def _better(found: Optimum, again: Optimum) -> Optimum:
    """Return the lower of two optima, with the costs of both."""
    lower = again.criterion < found.criterion - ROUNDING * abs(found.criterion)
    if not lower and not (again.converged and not found.converged):
        again = replace(
            found,
            n_evaluations=again.n_evaluations,
            n_gradients=again.n_gradients,
            seconds=again.seconds,
            history=again.history,
        )
    return again


def _second_looks(
    found: Optimum,
    system: PenalizedSystem,
    objective: Objective,
    method: str,
    control: Control,
    began: float,
) -> Optimum:
    """Search from elsewhere where the structure says so; the lowest is kept, all are told."""
    singular = found.status is Status.SINGULAR
    ends = [("moment estimate", found.criterion)]
    best = found
    objective.best_value = min(objective.best_value, found.criterion)
    for group in other_starts(system, singular=singular):
        values = [objective.value(start.phi) for start in group]
        start = group[int(np.argmin(values))]
        again = _search(system, objective, start.phi, method, control, began)
        ends.append((start.name, again.criterion))
        best = _better(best, again)
    if len(ends) == 1:
        return found
    others = [value for _, value in ends if value > best.criterion + SAME_VALLEY]
    return replace(
        best,
        tried=tuple(f"{name}: {value:.6f}" for name, value in ends),
        second_valley=min(others, default=None),
    )


def _search(
    system: PenalizedSystem,
    objective: Objective,
    phi: Vector | None,
    method: str,
    control: Control,
    began: float,
) -> Optimum:
    reml = objective.reml
    limit = control.max_evaluations or default_limit(method, system.n_theta)
    if method == "bfgs":
        fused = minimize_fused(
            objective,
            phi,
            tolerance=control.tolerance,
            limit=max(limit - objective.n_values, 1),
            check_boundary=control.check_boundary,
        )
        if fused is not None:
            return report(
                system, objective, fused.phi, fused.value, fused.gradient, fused.decrease,
                fused.limit_reached, method, control.gradient_tolerance, began,
            )  # fmt: skip
    phi = moment_start(system) if phi is None else phi
    value, gradient, decrease, reached_limit = np.inf, np.zeros_like(phi), np.inf, False
    hessian = expected_hessian(phi, system, reml=reml)
    for _ in range(5):  # each pass but the last left a false boundary behind
        left = max(limit - objective.n_values, 1)
        if method == "bfgs":
            phi, value, gradient, decrease = _gradient_search(
                objective, phi, hessian, control.tolerance, left
            )
            reached_limit = objective.n_values >= limit
        else:
            phi, value = _other_search(method, objective, phi, system, control, left)
            reached_limit = objective.n_values >= limit
            gradient = np.full_like(phi, np.nan)
        if not control.check_boundary or not np.isfinite(value):
            break
        settled = settle_boundary(objective, phi, value)
        moved = settled.phi is not phi
        phi, value = settled.phi, settled.value
        if moved:
            gradient = np.full_like(phi, np.nan)
        if not settled.escaped or reached_limit:
            break
        hessian = expected_hessian(phi, system, reml=reml)
    if not np.isfinite(gradient).all():
        value, gradient = objective.value_and_gradient(phi)
        curvature = expected_hessian(phi, system, reml=reml)
        decrease = 0.5 * float(gradient @ np.linalg.solve(curvature, gradient))
    return report(
        system, objective, phi, value, gradient, decrease, reached_limit, method,
        control.gradient_tolerance, began,
    )  # fmt: skip


def _gradient_search(
    objective: Objective, phi: Vector, hessian: Matrix, tolerance: float, limit: int
) -> tuple[Vector, float, Vector, float]:
    """Search by quasi-Newton, turning to the principal axes when a leg takes long.

    Returns
    -------
    phi, value, gradient, predicted decrease, where the search ended.
    """
    end = objective.n_values + limit
    leg = max(LEG_EVALUATIONS, 6 + phi.size // 2)
    while True:
        left = end - objective.n_values
        found = minimize_bfgs(
            objective.value_and_gradient,
            phi,
            hessian,
            tolerance=tolerance,
            max_evaluations=min(leg, left),
        )
        if found.status != "limit" or left <= leg:
            break
        phi = objective.rotate(found.x)
        hessian = expected_hessian(
            phi, objective.system, reml=objective.reml, rotations=objective.rotations
        )
        leg *= 2
    if objective.rotations is None:
        return found.x, found.value, found.gradient, found.decrement
    phi = objective.unrotate(found.x)
    value, gradient = objective.value_and_gradient(phi)
    return phi, value, gradient, found.decrement


def _start(system: PenalizedSystem, start: Vector | None) -> Vector | None:
    """Return phi (m,) of the user's start; None for a moment estimate."""
    if start is None:
        return None
    names = listed(system.theta_names)
    theta = require_vector("start", start, system.n_theta, of=f"the parameters {names}")
    if (theta < system.lower).any():
        raise OptionError(
            f"start must not be below the bounds {system.lower.tolist()} of {names}"
        )
    phi = system.chart.phi_of_theta(theta)
    size = float(np.abs(phi).max())
    if size > LARGEST_START:
        raise OptionError(
            f"start is so large that nothing would be left to the residuals: the values of {names} "
            "are standard deviations relative to the residual one"
        )
    return phi if size < SATURATED else None


def default_limit(method: str, m: int) -> int:
    """Return how many evaluations a search over m parameters may take."""
    return 100 + 50 * m if method in ("bfgs", "lbfgsb") else 2000 + 500 * m * m


def _other_search(
    method: str,
    objective: Objective,
    phi: Vector,
    system: PenalizedSystem,
    control: Control,
    limit: int,
) -> tuple[Vector, float]:
    lower = system.chart.lower
    if method == "lbfgsb":
        return _lbfgsb(objective, phi, lower, limit)
    search = minimize_bobyqa if method == "bobyqa" else minimize_cobyqa
    return search(
        objective.value,
        phi,
        lower,
        xtol=control.xtol,
        ftol=control.ftol,
        max_evaluations=limit,
    )


def _lbfgsb(
    objective: Objective, phi: Vector, lower: Vector, limit: int
) -> tuple[Vector, float]:
    """Search by SciPy's L-BFGS-B, started again while that wins something."""
    from scipy.optimize import minimize

    def value_and_gradient(x: Vector) -> tuple[float, Vector]:
        value, gradient = objective.value_and_gradient(x)
        if not np.isfinite(value):
            return 1e300, np.zeros_like(x)
        return value, gradient

    bounds = [(None if np.isneginf(b) else float(b), None) for b in lower]
    for _ in range(3):
        before = objective.best_value
        minimize(
            value_and_gradient,
            phi,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxfun": limit, "ftol": 1e-15, "gtol": 1e-7, "maxcor": 30},
        )
        phi = objective.best_phi
        if before - objective.best_value < 1e-9 or objective.n_values >= limit:
            break
    return objective.best_phi, objective.best_value


def _perfect_fit(system: PenalizedSystem) -> str | None:
    """Say why there is nothing to estimate, if the fixed part leaves no residual."""
    products = system.products
    if np.sqrt(products.yy) > PERFECT_FIT_RTOL * products.y_length and products.yy > 0.0:
        return None
    steep = products.R_x @ np.where(
        np.array(system.x_names) == "(Intercept)", 0.0, products.beta_ols
    )
    if float(np.sqrt(steep @ steep)) <= PERFECT_FIT_RTOL * products.y_length:
        return "the response is constant"
    return "the fixed effects fit the response exactly"
