"""The search where parameters are held: the joint criterion in what is left free."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mixlm_sparse.common.errors import DataError, NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import joint_criterion, residual_df
from mixlm_sparse.solve.curvature import held_scales
from mixlm_sparse.solve.held import HeldCoordinates
from mixlm_sparse.solve.profiled.boundary import settle_boundary
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.valleys import other_starts
from mixlm_sparse.solve.search.bfgs import ROUNDING, BfgsResult, minimize_bfgs
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.optimum import Optimum, record
from mixlm_sparse.solve.search.search import default_limit
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem

STEP = 1e-4  # of differences of the gradient, for a first guess of the curvature
FLOOR = 1e-3  # least curvature of that guess, as a share of the largest
LEGS = 5  # each but the last left a false boundary behind


@dataclass(frozen=True, eq=False)
class _AtSigma:
    """The criterion in phi at one sigma, as the boundary is judged."""

    system: PenalizedSystem
    log_sigma: float
    reml: bool

    def value(self, phi: Vector) -> float:
        value, _ = self.at_factors(self.system.chart.lambdas(phi))
        return value

    def at_factors(self, lambdas: list[Matrix]) -> tuple[float, list[Matrix]]:
        try:
            value, G, _ = joint_criterion(lambdas, self.log_sigma, self.system, reml=self.reml)
        except NotPositiveDefiniteError:
            return math.inf, []
        return value, self.system.chart.split(G)

    def noise(self, phi: Vector) -> float:
        return 0.0


def optimize_held(
    system: PenalizedSystem,
    phi: Vector | None,
    *,
    reml: bool,
    control: Control,
    objective: ProfiledObjective,
    began: float,
) -> Optimum:
    """Minimize the criterion over what is not held.

    Parameters
    ----------
    phi : (m,) start, or None for a moment estimate.
    objective : of the same system; gives the record its names, counts and progress.

    Raises
    ------
    DataError : the criterion is not defined at the values that are held.
    """
    coordinates = HeldCoordinates.of(system)
    search = _Search(coordinates, objective, reml, control)
    given = phi is not None
    start = objective.start() if phi is None else phi
    held = system.held
    assert held is not None
    sigma = held.sigma
    if sigma is None:
        sigma = math.sqrt(max(system.products.yy, 1e-300) / residual_df(system, reml=True))
    best = search.from_point(start, sigma)
    if not math.isfinite(best.value):
        raise DataError(
            "the likelihood is not defined at the values in fixed=: "
            + ", ".join(f"{name} = {value:g}" for name, value in held.names)
        )
    if not given:
        phi_found, _, _ = coordinates.expand(best.x)
        singular = bool(objective.on_the_boundary(objective.reflect(phi_found))[0])
        for group in other_starts(system, singular=singular):
            again = search.from_point(group[0].phi, sigma)
            if again.value < best.value - ROUNDING * abs(best.value):
                best = again
    phi_found, log_sigma, _ = coordinates.expand(best.x)
    gradient = np.zeros(system.n_theta + 1)
    gradient[coordinates.free] = best.gradient
    status: Status | None = None
    if not best.decrement <= max(control.gradient_tolerance, ROUNDING * abs(best.value)):
        reached = objective.n_values >= search.limit
        status = Status.LIMIT if reached else Status.NOT_CONVERGED
    found = record(
        objective, phi_found, best.value, gradient[:-1], best.decrement, status, "bfgs", began
    )
    return replace(found, sigma=held.sigma or math.exp(log_sigma))


class _Search:
    """Legs of quasi-Newton search in y, with looks at the boundary between them."""

    def __init__(
        self,
        coordinates: HeldCoordinates,
        objective: ProfiledObjective,
        reml: bool,
        control: Control,
    ) -> None:
        self.coordinates = coordinates
        self.objective = objective
        self.reml = reml
        self.control = control
        self.limit = control.max_evaluations or 2 * default_limit("bfgs", objective.m)

    def __call__(self, y: Vector) -> tuple[float, Vector]:
        objective = self.objective
        objective.n_values += 1
        objective.n_gradients += 1
        value, gradient = self.coordinates.value_and_gradient(y, reml=self.reml)
        if math.isfinite(value):
            objective.history.append(value)
            objective.best_value = min(objective.best_value, value)
            if objective.progress is not None:
                phi = self.coordinates.expand(y)[0]
                objective.progress(objective.n_values, value, objective.theta_of(phi))
        return value, gradient

    def from_point(self, phi: Vector, sigma: float) -> BfgsResult:
        """Search from phi (m,) and sigma; what is held takes its own values."""
        system, coordinates = self.coordinates.system, self.coordinates
        y = coordinates.reduce(phi, sigma)
        found = self._leg(y)
        for _ in range(LEGS):
            if not (self.control.check_boundary and y.size and math.isfinite(found.value)):
                break
            at, log_sigma, _ = coordinates.expand(found.x)
            judged = _AtSigma(system, log_sigma, self.reml)
            settled = settle_boundary(judged, at, found.value)
            moved = coordinates.reduce(settled.phi, math.exp(log_sigma))
            if np.array_equal(moved, found.x):
                break
            value, gradient = self(moved)
            if settled.escaped and value < found.value - ROUNDING * abs(found.value):
                found = self._leg(moved)
                continue
            if value <= found.value + ROUNDING * abs(found.value):  # snapped to the boundary
                found = replace(found, x=moved, value=value, gradient=gradient)
            break
        return found

    def _leg(self, y: Vector) -> BfgsResult:
        if not y.size:
            value, gradient = self(y)
            return BfgsResult(y, value, gradient, 0.0, "converged")
        left = max(self.limit - self.objective.n_values, 1)
        return minimize_bfgs(
            self,
            y,
            self._curvature(y),
            tolerance=self.control.tolerance,
            max_evaluations=left,
        )

    def _curvature(self, y: Vector) -> Matrix:
        """Return a positive definite guess (f, f) of the Hessian at y, by differences."""
        scales = held_scales(self.coordinates, y)
        H = np.empty((y.size, y.size))
        for i, scale in enumerate(scales):
            step = np.where(np.arange(y.size) == i, STEP * scale, 0.0)
            H[i] = (self(y + step)[1] - self(y - step)[1]) / (2.0 * STEP * scale)
        if not np.isfinite(H).all():
            return np.diag(1.0 / scales**2)
        values, vectors = np.linalg.eigh(0.5 * (H + H.T))
        floor = FLOOR * max(float(np.abs(values).max()), 1e-6)
        out: Matrix = (vectors * np.maximum(np.abs(values), floor)) @ vectors.T
        return out
