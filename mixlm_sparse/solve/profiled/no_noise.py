"""The limit of sigma going to zero where random effects alone can be the law of the response.

With S = Lambda Lambda' sigma^2 held, V = Z S Z' + sigma^2 W^{-1}.  Where Z S Z' is regular on the
contrasts K'y that the criterion is about (REML: K'X = 0; ML: all of y), which needs as many
independent columns of Z there as there are contrasts, the criterion has a limit for sigma -> 0,

    d(S, sigma) = d(S, 0) + sigma^2 dd/d(sigma^2) + ...,    dd/d log sigma = 2 sigma^2 dd/d(sigma^2)

and may be least there: one row for each level of a structure over times, a slope and an intercept
with two rows a group, a known covariance with one record a level.  Relative to sigma all
random effects are infinite, so that a search in theta runs away without an end.  Here sigma is held
at a small share of the spread of the response, the joint criterion is minimized in S, and the
first-order term is taken off; the point is the optimum if it is not above the one that was found in
theta, and if the criterion does not fall with sigma.

With few rows there can be an S whose range has fewer dimensions than there are contrasts and holds
the response all the same.  The criterion then has no minimum, and an optimum that is found says so;
by ML it never has one where fixed and random effects fit any response together, but not the latter
alone (see `fits_everything`).
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.criterion import joint_criterion, residual_df
from mixlm_sparse.solve.held import HeldCoordinates
from mixlm_sparse.solve.profiled.held_search import HeldSearch
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.runaway import can_be_all, fits_everything
from mixlm_sparse.solve.profiled.valleys import other_starts
from mixlm_sparse.solve.search.bfgs import ROUNDING, BfgsResult
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.optimum import ZERO_SIGMA, Optimum, record
from mixlm_sparse.solve.search.search import SAME_VALLEY, look
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["without_noise"]

# sigma is held at one of these shares of the residual standard deviation of least squares: the
# first at which it is small, so that the criterion changes with log sigma by no more than this.
# What is neglected is of the order of the square of that; rounding grows as sigma gets smaller.
SHARES = ((1e-3, 1e-3), (1e-4, 1e-2), (1e-5, 1e-2))
# A slope by log sigma, a whole number, that does not end.
FALLING = 0.9
# A random effect of at most this size beside the held sigma goes to zero with it.
NO_EFFECT = 1.0
# Effects that are smaller than this beside sigma leave a residual that can be told.
ORDINARY = 100.0
# With more rows the limit is looked at only if random effects are this much larger than the noise.
MANY_ROWS = 5_000
FAR = 30.0
EDGE = "sigma goes to zero, beside random effects that fit the response exactly"
REMEDY = "drop a random term: the rows are too few for this many effects"
ADVICE = (
    "the rows do not tell a residual from the random effects, which have one for every row: sigma "
    "is zero in this fit, and what is said of the random effects holds with that"
)


def without_noise(
    found: Optimum,
    system: PenalizedSystem,
    objective: ProfiledObjective,
    *,
    control: Control,
    began: float,
) -> Optimum:
    """Return the optimum with sigma = 0 where the criterion is least there, else `found`.

    Parameters
    ----------
    found : where a search in theta ended, perhaps at a criterion without a minimum.
    """
    reml = found.reml
    runaway = found.status is Status.NO_RESIDUAL
    far = runaway or not found.converged or system.chart.size(found.phi) > FAR
    if found.status is Status.PERFECT or not (far or system.n <= MANY_ROWS):
        return found
    if not (can_be_all(system, reml=reml) or fits_everything(system, reml=reml)):
        return found
    spread = math.sqrt(system.products.yy / residual_df(system, reml=True))
    if runaway:
        found = _ordinary(found, system, objective, control, began)
    objective.rotations = None
    starts = _starts(found, system, 1.0 / SHARES[0][0])
    for (share, settled), (following, _) in zip(SHARES, [*SHARES[1:], SHARES[-1]], strict=True):
        sigma = share * spread
        noise = _rounding(system, 1.0 / share)
        held = HeldCoordinates(system, (), sigma)
        search = HeldSearch(held, objective, reml, control, noise=noise)
        ends = _valleys([search.from_point(start, sigma) for start in starts])
        best = ends[0]
        starts = [system.chart.scaled(end.x, share / following) for end in ends]
        if not math.isfinite(best.value):
            return found
        tolerance = control.gradient_tolerance + noise
        best = _without_small(best, search, objective, tolerance)
        slope = _slope(best.x, sigma, system, reml=reml)
        if abs(slope) <= settled:
            break
    else:
        return _local(found, best.value, slope)
    value = best.value - 0.5 * slope
    unsure = control.gradient_tolerance + ROUNDING * abs(value) + noise
    above = value - found.criterion if math.isfinite(found.criterion) else -math.inf
    lower = above <= unsure + _rounding(system, system.chart.size(found.phi))
    # beside effects of ordinary size a sigma of zero must be better, not as good: where the data
    # tell sigma and an effect apart in no way, the ridge goes down to zero and is flat
    ordinary = math.isfinite(found.criterion) and system.chart.size(found.phi) < ORDINARY
    if slope < -unsure and found.status is Status.NO_RESIDUAL:
        objective.to_the_end, objective.best_value = True, math.inf
        again = look(objective, best.x, "bfgs", control, began)
        return found if again is None else again
    if not lower or slope < -unsure or (ordinary and above >= -unsure):
        return found
    objective.best_value = min(objective.best_value, value)
    enough = max(control.gradient_tolerance, ROUNDING * abs(value), noise)
    status = None if best.decrement <= enough else Status.NOT_CONVERGED
    at = record(objective, best.x, value, best.gradient, best.decrement, status, "bfgs", began)
    if status is None:
        zero = (*at.at_boundary, ZERO_SIGMA)
        edge = f"{at.message.partition(': ')[2]}; sigma is zero" if at.at_boundary else (
            "sigma is zero"
        )
        at = replace(
            at, status=Status.SINGULAR, message=Status.SINGULAR.message.format(edge=edge),
            advice=ADVICE, at_boundary=zero,
        )  # fmt: skip
    return replace(at, sigma=sigma, optimizer=found.optimizer, seconds=time.perf_counter() - began)


def _local(found: Optimum, value: float, slope: float) -> Optimum:
    """Return an optimum that says so if the criterion has no minimum.

    Where S is singular on the contrasts and the response lies in its range, the criterion falls
    with log sigma by a whole number, that of the contrasts which S leaves out, and without end.

    Parameters
    ----------
    value, slope : at the least sigma that it was held at, the slope by log sigma.
    """
    falls = slope > FALLING and value < found.criterion
    if not (falls and found.status in (Status.CONVERGED, Status.SINGULAR)):
        return found
    return replace(
        found, status=Status.LOCAL, message=Status.LOCAL.message.format(edge=EDGE),
        advice=Status.LOCAL.advice.format(remedy=REMEDY),
    )  # fmt: skip


def _slope(phi: Vector, sigma: float, system: PenalizedSystem, *, reml: bool) -> float:
    """Return dd/d log sigma with S held: Lambda, which is relative to sigma, falls as it rises."""
    chart = system.chart
    _, G, at_factors = joint_criterion(chart.lambdas(phi), math.log(sigma), system, reml=reml)
    gradient = chart.pull_back(phi, chart.split(G))
    return at_factors - float((chart.powers * phi) @ gradient)


def _rounding(system: PenalizedSystem, size: float) -> float:
    """Return what rounding makes of the criterion at random effects of this size beside sigma.

    Columns of Z that depend on each other leave to Lambda'Z'WZ Lambda + I the unit matrix alone.
    """
    return system.q * float(np.finfo(np.float64).eps) * size**2


def _without_small(
    best: BfgsResult, search: HeldSearch, objective: ProfiledObjective, tolerance: float
) -> BfgsResult:
    """Return the point without effects that are no larger than the held sigma, if it is as low."""
    x = objective.without_small(best.x, NO_EFFECT)
    if np.array_equal(x, best.x):
        return best
    value, gradient = search(x)
    if not value <= best.value + tolerance:
        return best
    return replace(best, x=x, value=value, gradient=gradient)


def _ordinary(
    found: Optimum,
    system: PenalizedSystem,
    objective: ProfiledObjective,
    control: Control,
    began: float,
) -> Optimum:
    """Return the lowest optimum with a residual that there is besides, `found` without one."""
    best = found
    for group in other_starts(system, singular=True) if control.second_looks else ():
        objective.best_value = math.inf
        again = look(objective, group[0].phi, "bfgs", control, began)
        if again is not None and again.converged and (
            best is found or again.criterion < best.criterion
        ):
            best = again
    return best


def _valleys(ends: list[BfgsResult]) -> list[BfgsResult]:
    """Return where searches ended, the lowest first, one of each valley."""
    out: list[BfgsResult] = []
    for end in sorted(ends, key=lambda one: one.value):
        if not out or end.value > out[-1].value + SAME_VALLEY:
            out.append(end)
    return out


def _starts(found: Optimum, system: PenalizedSystem, large: float) -> list[Vector]:
    """Return random effects of the size of the response, and those where the search was."""
    chart = system.chart
    starts: list[Vector] = [chart.scaled(chart.start, large)]
    seconds = [template.second_start for template in chart.templates]
    if any(second is not None for second in seconds):
        other = chart.start.copy()
        for part, second in zip(chart.slices, seconds, strict=True):
            if second is not None:
                other[part] = second
        starts.append(chart.scaled(other, large))
    size = chart.size(found.phi)
    if size > 0.0:
        starts.append(chart.scaled(found.phi, large / size))
    return starts
