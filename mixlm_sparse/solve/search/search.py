"""Choose a search, run it, certify where it ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.search.bfgs import ROUNDING, minimize_bfgs
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.descent import gradient_search
from mixlm_sparse.solve.search.library import library_search
from mixlm_sparse.solve.search.objective import (
    FallsError,
    FarStart,
    KnownError,
    NoMinimumError,
    Objective,
    Start,
)
from mixlm_sparse.solve.search.optimum import Optimum, limit, perfect_fit, record, report
from mixlm_sparse.solve.search.status import Status

# Minima of the criterion that differ by less are the same valley.
SAME_VALLEY = 1e-4
# Of two ends that differ by less the first is kept: rounding does not choose among equals, such as
# those of parameters that the data do not determine.
SAME_VALUE = 1e-8
MAX_PASSES = 5
# A search goes on from the boundary where a Newton step would win more: the step there may leave a
# slope behind.
SLOPE_LEFT = 1e-7
FEW_EVALUATIONS = 4
# Where the function is known to fall without end, searches for an optimum besides are shorter, and
# so many of them may end at none.
FEWER = 3
MOST_FAILED = 3
# Steps off a saddle that are tried, relative to the size of the parameters.
SADDLE_STEPS = (0.5, 0.05)


def search(
    objective: Objective,
    phi: Vector | None,
    *,
    given: bool,
    method: str,
    control: Control,
    began: float,
) -> Optimum:
    """Minimize an objective and say how its optimum is known.

    Parameters
    ----------
    phi : (m,) start, or None for the objective's own.
    given : whether the user gave a start; other valleys are then looked for only where a start
        decides (`Objective.many_valleys`).
    method : "bfgs", "lbfgsb", "bobyqa" or "cobyqa".
    began : `time.perf_counter()` at the beginning.
    """
    perfect = objective.perfect()
    if perfect is not None:
        return perfect_fit(objective, perfect, method, began)
    if objective.m == 0:  # a linear model: nothing to search for
        nothing = np.zeros(0)
        value = objective.value(nothing)
        return record(objective, nothing, value, nothing, 0.0, None, method, began)
    try:
        found = _first(objective, phi, method, control, began)
        if given and found.status is Status.NOT_CONVERGED:
            # a start in a desert: the criterion falls towards the optimum, hardly visibly
            found = better(found, _search(objective, None, method, control, began))
        elif _looks_again(method, control) and (not given or objective.many_valleys):
            found = _second_looks(found, objective, method, control, began, given=given)
        return _leave_saddle(found, objective, method, control, began, given=given)
    except NoMinimumError:
        far = objective.far_out()
        if far is None:
            return limit(objective, method, began)
        return search_far(far, objective, control, began)


def _first(
    objective: Objective, phi: Vector | None, method: str, control: Control, began: float
) -> Optimum:
    """Search from phi; where the function falls without end, say so at the point where it did."""
    try:
        return _search(objective, phi, method, control, began)
    except FallsError as fall:
        value, gradient = objective.value_and_gradient(fall.phi)
        return record(
            objective, fall.phi, value, gradient, np.inf, Status.NO_MINIMUM, method, began,
        )  # fmt: skip


def _looks_again(method: str, control: Control) -> bool:
    return method == "bfgs" and control.second_looks


def _leave_saddle(
    found: Optimum,
    objective: Objective,
    method: str,
    control: Control,
    began: float,
    *,
    given: bool,
) -> Optimum:
    """Search on from a point that is a minimum along the gradient only; say so if that fails."""
    for _ in range(MAX_PASSES):
        if not (found.converged and control.check_boundary):
            return found
        # a search that has hardly moved was begun at such a point
        stayed = given and found.n_evaluations <= FEW_EVALUATIONS
        step = objective.downhill(found.phi, whatever_it_costs=stayed)
        if step is None:
            return found
        sides = [found.phi + size * step for size in SADDLE_STEPS]
        sides += [found.phi - size * step for size in SADDLE_STEPS]
        values = [objective.value(side) for side in sides]
        best = sides[int(np.argmin(values))]
        try:
            again = better(found, _search(objective, best, method, control, began))
        except FallsError:
            return found
        if again.criterion == found.criterion:
            break
        found = replace(again, tried=found.tried, second_valley=found.second_valley)
    return record(
        objective, found.phi, found.criterion, found.gradient, found.predicted_decrease,
        Status.SADDLE, method, began,
    )  # fmt: skip


def better(found: Optimum, again: Optimum) -> Optimum:
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
    found: Optimum, objective: Objective, method: str, control: Control, began: float, *,
    given: bool,
) -> Optimum:
    """Search from elsewhere where the structure says so; the lowest is kept, all are told."""
    singular = found.status is Status.SINGULAR
    falls = found.status is Status.NO_MINIMUM
    at = objective.start() if falls else found.phi
    groups = objective.other_starts(singular=singular, phi=at, several=False)
    if not (groups or given):
        objective.best_value, objective.best_phi = found.criterion, found.phi
        return found
    value = -np.inf if falls else found.criterion
    ends = [("the start given" if given else "moment estimate", value)]
    best, far = found, objective.beyond
    certified = found if found.converged else None
    if found.converged:
        objective.known.add(found.criterion, objective.place(found.phi))
    valleys = [] if falls else [value]
    if given:
        groups = [[Start("moment estimate", objective.start())], *groups]
    looked_all_over, failed = not groups, 0
    while groups:
        group, *groups = groups
        # another valley may be far out though the one that was found is not
        objective.beyond, objective.best_value = False, np.inf
        values = [_value(objective, start.phi) for start in group]
        start = group[int(np.argmin(values))]
        again = None
        try:
            if np.isfinite(min(values)):
                again = look(objective, start.phi, method, control, began)
        except KnownError as back:
            ends.append((start.name, back.value))
            valleys.append(back.value)
        if again is not None:
            ends.append((start.name, again.criterion))
            deeper = again.criterion - best.criterion
            if best.status is Status.NO_MINIMUM:
                best = again if again.converged else best
            elif abs(deeper) <= SAME_VALLEY:
                if deeper < -SAME_VALUE or not best.converged:
                    best = better(best, again)
            elif deeper < 0.0:
                best, far = again, objective.beyond
            if again.converged:
                objective.known.add(again.criterion, objective.place(again.phi))
                valleys.append(again.criterion)
                if certified is None or again.criterion < certified.criterion - SAME_VALLEY:
                    certified = again
            elif objective.falls:  # what is left is the lowest optimum, if there is any
                failed += 1
                groups = groups if failed < MOST_FAILED else []
        looked_all_over = looked_all_over or objective.falls
        if not (groups or looked_all_over) and np.ptp(valleys or [0.0]) > SAME_VALLEY:
            looked_all_over = True
            groups = objective.other_starts(singular=singular, phi=best.phi, several=True)
    objective.known.forget()
    if objective.falls and certified is not None and not best.converged:
        best = certified
    objective.beyond, objective.best_value, objective.best_phi = far, best.criterion, best.phi
    if len(ends) == 1:
        return found
    full = best is not found and best.status is Status.LIMIT and control.max_evaluations is None
    if full and not objective.falls:
        more = look(objective, best.phi, method, control, began)
        best = best if more is None else better(best, more)
    best = replace(
        best, n_evaluations=objective.n_values, n_gradients=objective.n_gradients,
        history=tuple(objective.history),
    )  # fmt: skip
    others = [value for _, value in ends if value > best.criterion + SAME_VALLEY]
    return replace(
        best,
        tried=tuple(f"{name}: {value:.6f}" for name, value in ends),
        second_valley=min(others, default=None),
    )


def _value(objective: Objective, phi: Vector) -> float:
    try:
        return objective.value(phi)
    except NoMinimumError:
        return np.inf


def look(
    objective: Objective, phi: Vector, method: str, control: Control, began: float
) -> Optimum | None:
    """Search from phi; None where nothing is left to the residuals on the way down."""
    try:
        return _search(objective, phi, method, control, began)
    except FallsError:
        return None
    except NoMinimumError:
        far = objective.far_out()
        return None if far is None else search_far(far, objective, control, began)


def _search(
    objective: Objective,
    phi: Vector | None,
    method: str,
    control: Control,
    began: float,
) -> Optimum:
    # of a number of its own, each start has so many; a number that was given is for all
    own = default_limit(method, objective.m) // (FEWER if objective.falls else 1)
    limit = control.max_evaluations or objective.n_values + own
    if method == "bfgs":
        fused = objective.at_once(
            phi,
            tolerance=control.tolerance,
            limit=max(limit - objective.n_values, 1),
            check_boundary=control.check_boundary,
        )
        if fused is not None:
            return report(
                objective, fused.phi, fused.value, fused.gradient, fused.decrease,
                fused.limit_reached, method, control.gradient_tolerance, began,
            )  # fmt: skip
    phi = objective.start() if phi is None else phi
    value, gradient, decrease, reached_limit = np.inf, np.zeros_like(phi), np.inf, False
    for _ in range(MAX_PASSES):  # each pass but the last left a false boundary behind
        left = max(limit - objective.n_values, 1)
        if method == "bfgs":
            phi, value, gradient, decrease = gradient_search(objective, phi, control, left)
            reached_limit = objective.n_values >= limit
        else:
            phi, value = library_search(method, objective, phi, control, left)
            reached_limit = objective.n_values >= limit
            gradient = np.full_like(phi, np.nan)
        if not control.check_boundary or not np.isfinite(value):
            break
        if reached_limit and control.max_evaluations and np.inf > decrease > SLOPE_LEFT:
            break  # a number that was given is kept where there is no optimum to be certified
        settled = objective.settle(phi, value)
        moved = settled.phi is not phi
        phi, value = settled.phi, settled.value
        if moved:
            gradient = np.full_like(phi, np.nan)
        if reached_limit:
            break
        on_boundary = moved and not settled.escaped and method == "bfgs" and objective.turns
        if on_boundary:
            value, gradient, decrease = _with_decrease(objective, phi)
        if not settled.escaped and not (on_boundary and decrease > SLOPE_LEFT):
            break
    if not np.isfinite(gradient).all():
        value, gradient, decrease = _with_decrease(objective, phi)
    return report(
        objective, phi, value, gradient, decrease, reached_limit, method,
        control.gradient_tolerance, began,
    )  # fmt: skip


def _with_decrease(objective: Objective, phi: Vector) -> tuple[float, Vector, float]:
    """Return value, gradient (m,) and predicted decrease at phi."""
    value, gradient = objective.value_and_gradient(phi)
    curvature = objective.curvature(phi)
    return value, gradient, 0.5 * float(gradient @ np.linalg.solve(curvature, gradient))


def search_far(
    start: FarStart, objective: Objective, control: Control, began: float
) -> Optimum:
    """Search where parameters differ by orders of magnitude, in units of their size."""
    phi, limit = start.phi, default_limit("bfgs", objective.m) + objective.n_values
    for _ in range(MAX_PASSES):
        units = np.maximum(np.abs(phi), 1.0)

        def function(x: Vector, units: Vector = units) -> tuple[float, Vector]:
            value, gradient = objective.value_and_gradient(units * x)
            return value, units * gradient

        def noise(x: Vector, units: Vector = units) -> float:
            return objective.noise(units * x)

        found = minimize_bfgs(
            function,
            phi / units,
            start.hessian,
            tolerance=control.tolerance,
            max_evaluations=max(limit - objective.n_values, 1),
            noise=noise,
        )
        phi, value = units * found.x, found.value
        reached_limit = objective.n_values >= limit
        if not control.check_boundary or reached_limit or not np.isfinite(value):
            break
        settled = objective.settle(phi, value)
        phi, value = settled.phi, settled.value
        if not settled.escaped:
            break
    value, gradient = objective.value_and_gradient(phi)
    units = np.maximum(np.abs(phi), 1.0)
    scaled = units * gradient
    decrease = 0.5 * float(scaled @ np.linalg.solve(start.hessian, scaled))
    return report(
        objective, phi, value, gradient, decrease, reached_limit, "bfgs",
        control.gradient_tolerance, began,
    )  # fmt: skip


def default_limit(method: str, m: int) -> int:
    """Return how many evaluations a search over m parameters may take."""
    return 100 + 50 * m if method in ("bfgs", "lbfgsb") else 2000 + 500 * m * m
