"""The search where parameters are held: the joint criterion in what is left free."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mixlm_sparse.common.errors import DataError, NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import joint_criterion, residual_df
from mixlm_sparse.solve.curvature import held_scales
from mixlm_sparse.solve.held import HeldCoordinates
from mixlm_sparse.solve.profiled.boundary import settle_boundary
from mixlm_sparse.solve.profiled.legs import Legs
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.valleys import other_starts
from mixlm_sparse.solve.search.bfgs import ROUNDING, BfgsResult
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.optimum import Optimum, record
from mixlm_sparse.solve.search.search import default_limit
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem


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
    given: bool,
    reml: bool,
    control: Control,
    objective: ProfiledObjective,
    began: float,
) -> Optimum:
    """Minimize the criterion over what is not held.

    Parameters
    ----------
    phi : (m,) start, or None for a moment estimate.
    given : whether it is the user's, beside which no other valleys are looked for.
    objective : of the same system; gives the record its names, counts and progress.

    Raises
    ------
    DataError : the criterion is not defined at the values that are held.
    """
    coordinates = HeldCoordinates.of(system)
    search = HeldSearch(coordinates, objective, reml, control)
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
        for group in other_starts(system, singular=singular, phi=phi_found):
            again = search.from_point(group[0].phi, sigma)
            if again.value < best.value - ROUNDING * abs(best.value):
                best = again
    best, falls = search.legs.off_saddle(best)
    phi_found, log_sigma, _ = coordinates.expand(best.x)
    gradient = np.zeros(system.n_theta + 1)
    gradient[coordinates.free] = best.gradient
    status: Status | None = None
    if not best.decrement <= max(control.gradient_tolerance, ROUNDING * abs(best.value)):
        reached = objective.n_values >= search.limit
        status = Status.LIMIT if reached else Status.NOT_CONVERGED
    elif falls:
        status = Status.SADDLE
    found = record(
        objective, phi_found, best.value, gradient[:-1], best.decrement, status, "bfgs", began
    )
    return replace(found, sigma=held.sigma or math.exp(log_sigma))


def held_criterion(
    optimum: Optimum, system: PenalizedSystem
) -> Callable[[Vector], tuple[float, Vector]]:
    """Return the criterion and its gradient as a function of phi (m,), at the optimum's sigma."""
    chart, reml, sigma = system.chart, optimum.reml, optimum.sigma
    assert sigma is not None
    log_sigma = math.log(sigma)
    held = system.held
    assert held is not None
    taken = [
        chart.slices[hold.term].start + chart.templates[hold.term].held_coordinate(hold.parameter)
        for hold in held.holds
    ]

    def criterion(phi: Vector) -> tuple[float, Vector]:
        value, G, _ = joint_criterion(chart.lambdas(phi), log_sigma, system, reml=reml)
        gradient = chart.pull_back(phi, chart.split(G))
        gradient[taken] = 0.0
        return value, gradient

    return criterion


class HeldSearch:
    """Value and gradient in y, and legs of search.

    Parameters
    ----------
    noise : what rounding makes of the criterion; a smaller decrease is not looked for.
    """

    def __init__(
        self,
        coordinates: HeldCoordinates,
        objective: ProfiledObjective,
        reml: bool,
        control: Control,
        *,
        noise: float = 0.0,
    ) -> None:
        self.coordinates = coordinates
        self.objective = objective
        self.reml = reml
        # of a number of its own, each start has so many; a number that was given is for all
        self.each = None if control.max_evaluations else 2 * default_limit("bfgs", objective.m)
        self.limit = control.max_evaluations or 0
        self.legs = Legs(
            self,
            scales=lambda y: held_scales(coordinates, y),
            settle=self.settle,
            left=lambda: self.limit - objective.n_values,
            tolerance=max(control.tolerance, noise),
            check=control.check_boundary,
        )

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
        if self.each is not None:
            self.limit = self.objective.n_values + self.each
        return self.legs.from_point(self.coordinates.reduce(phi, sigma))

    def settle(self, y: Vector, value: float) -> tuple[Vector, bool]:
        """Look at the boundary of phi, at the sigma of y."""
        phi, log_sigma, _ = self.coordinates.expand(y)
        judged = _AtSigma(self.coordinates.system, log_sigma, self.reml)
        found = settle_boundary(judged, phi, value)
        return self.coordinates.reduce(found.phi, math.exp(log_sigma)), found.escaped
