"""The quasi-Newton descent of many responses: `bfgs` of `engines.fused.descent`, by masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.descent import (
    ARMIJO,
    CLOSE,
    CONVERGED,
    CURVATURE,
    EPS,
    LIMIT,
    MAX_LINE_SEARCH,
    MAX_STEP,
    STALLED,
)
from mixlm_sparse.engines.fused.lockstep.arrays import along, inverse, product
from mixlm_sparse.engines.fused.lockstep.model import Model, Places

Flags = NDArray[np.bool_]


@dataclass(eq=False, slots=True)
class Descent:
    """Where s descents are, or ended.

    Parameters
    ----------
    x, gradient : (m, s); value, decrement : (s,).
    status : (s,) CONVERGED, STALLED or LIMIT.
    here : (s,) whether the last evaluation was at x.
    """

    x: Matrix
    value: Vector
    gradient: Matrix
    decrement: Vector
    status: NDArray[np.int64]
    here: Flags


@dataclass(eq=False, slots=True)
class _Lines:
    """The line searches of the descents that go on; every array ends with them.

    Parameters
    ----------
    at : (s,) which descent it is.
    H, H0 : (m, m, s) inverse Hessians, and those at the start; fresh : whether it is that.
    searching : whether a line search is under way; the others begin one.
    step, slope : along which; noise : how uncertain the value is.
    alpha, low, high, slope_low, value_low : where it is.
    best, best_alpha, point, there : the best trial, with its x and gradient.
    trials, used, most, more : evaluations of the line search and the descent, their limit, and what
        is added to that near the end.
    """

    at: Places
    x: Matrix
    value: Vector
    gradient: Matrix
    here: Flags
    H: Array3
    H0: Array3
    fresh: Flags
    searching: Flags
    step: Matrix
    slope: Vector
    noise: Vector
    alpha: Vector
    low: Vector
    high: Vector
    slope_low: Vector
    value_low: Vector
    best: Vector
    best_alpha: Vector
    point: Matrix
    there: Matrix
    trials: NDArray[np.int64]
    used: NDArray[np.int64]
    most: NDArray[np.int64]
    more: NDArray[np.int64]

    def keep(self, kept: Flags) -> None:
        """Leave the others out."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name)[..., kept])


def descend(
    x: Matrix,
    hessian: Array3,
    most: NDArray[np.int64],
    more: NDArray[np.int64],
    tolerance: float,
    model: Model,
    at: Places,
) -> Descent:
    """Descend from x (m, s); where a search is given up, what is returned has no meaning.

    Parameters
    ----------
    hessian : (m, m, s) guesses of the Hessian there.
    most, more : (s,) evaluations, and those that are added near the end.
    at : (s,) responses.
    """
    value, gradient = model.value_at(x, at)
    H0, good = inverse(hessian)
    model.given_up[at] |= ~good
    lines = _begun(x, value, gradient, H0, most, more)
    s = at.size
    ended = Descent(
        x.copy(), value.copy(), gradient.copy(), np.zeros(s), np.full(s, STALLED),
        np.ones(s, dtype=bool),
    )  # fmt: skip
    lines.keep(~model.given_up[at])
    while lines.at.size:
        status, decrement = _begin_steps(lines, tolerance, model, at)
        _leave(lines, status, decrement, ended)
        if not lines.at.size:
            break
        point = lines.x + lines.alpha * lines.step
        trial, slopes = model.value_at(point, at[lines.at])
        over, accepted = _judge(lines, point, trial, slopes)
        status = _move(lines, over, accepted)
        gone = model.given_up[at[lines.at]]
        status[gone] = STALLED
        _leave(lines, status, -0.5 * lines.slope, ended)
    return ended


def _begun(
    x: Matrix, value: Vector, gradient: Matrix, H0: Array3, most: NDArray[np.int64],
    more: NDArray[np.int64],
) -> _Lines:  # fmt: skip
    s = value.size
    zero, none = np.zeros(s), np.zeros(s, dtype=np.int64)
    yes = np.ones(s, dtype=bool)
    return _Lines(
        at=np.arange(s), x=x.copy(), value=value, gradient=gradient, here=yes, H=H0.copy(), H0=H0,
        fresh=yes.copy(), searching=~yes, step=np.zeros_like(x), slope=zero.copy(),
        noise=zero.copy(), alpha=np.ones(s), low=zero.copy(), high=zero.copy(),
        slope_low=zero.copy(), value_low=zero.copy(), best=np.full(s, np.inf),
        best_alpha=zero.copy(), point=x.copy(), there=gradient.copy(), trials=none.copy(),
        used=none + 1, most=most.copy(), more=more.copy(),
    )  # fmt: skip


def _leave(
    lines: _Lines, status: NDArray[np.int64], decrement: Vector, ended: Descent
) -> None:
    """Put down the descents that have a status, and go on with the others."""
    out = status >= 0
    if not out.any():
        return
    to = lines.at[out]
    ended.x[:, to], ended.gradient[:, to] = lines.x[:, out], lines.gradient[:, out]
    ended.value[to], ended.decrement[to] = lines.value[out], decrement[out]
    ended.status[to], ended.here[to] = status[out], lines.here[out]
    lines.keep(~out)


def _begin_steps(
    lines: _Lines, tolerance: float, model: Model, at: Places
) -> tuple[NDArray[np.int64], Vector]:
    """Begin line searches along Newton steps; return statuses, -1 for those that go on."""
    s = lines.at.size
    status = np.full(s, -1)
    new = ~lines.searching
    if not new.any():
        return status, np.zeros(s)
    step = -product(lines.H, lines.gradient[:, None])[:, 0]
    slope = along(lines.gradient * step)
    wrong = new & ~(slope < 0.0)
    if wrong.any():  # from the first guess of the Hessian again
        flat = (lines.gradient == 0.0).all(axis=0)
        status[wrong & flat] = CONVERGED
        status[wrong & ~flat & lines.fresh] = STALLED
        again = wrong & ~flat & ~lines.fresh
        lines.H[..., again] = lines.H0[..., again]
        lines.fresh[again] = True
        step[:, again] = -product(lines.H0[..., again], lines.gradient[:, None, again])[:, 0]
        slope[again] = along(lines.gradient[:, again] * step[:, again])
        status[again & ~(slope < 0.0)] = STALLED
    decrement = np.where(status < 0, -0.5 * slope, 0.0)
    running = new & (status < 0)
    status[running & ((decrement <= tolerance) | (decrement <= EPS * np.abs(lines.value)))] = (
        CONVERGED
    )
    full = new & (status < 0) & (lines.used >= lines.most)
    stop = full & ((lines.more == 0) | (decrement > CLOSE))
    status[stop] = LIMIT
    longer = full & ~stop
    lines.most[longer] += lines.more[longer]
    lines.more[longer] = 0
    longest = (np.abs(step) / np.maximum(1.0, np.abs(lines.x))).max(axis=0)
    shorter = np.where(longest > MAX_STEP, MAX_STEP / longest, 1.0)
    lines.step = np.where(new, shorter * step, lines.step)
    lines.slope = np.where(new, shorter * slope, lines.slope)
    lines.noise = np.where(new, model.noise(lines.value, at[lines.at]), lines.noise)
    lines.alpha = np.where(new, 1.0, lines.alpha)
    lines.low = np.where(new, 0.0, lines.low)
    lines.high = np.where(new, np.inf, lines.high)
    lines.slope_low = np.where(new, lines.slope, lines.slope_low)
    lines.value_low = np.where(new, lines.value, lines.value_low)
    lines.best = np.where(new, np.inf, lines.best)
    lines.trials = np.where(new, 0, lines.trials)
    return status, decrement


def _judge(
    lines: _Lines, point: Matrix, trial: Vector, slopes: Matrix
) -> tuple[Flags, Flags]:
    """Judge one trial of every line search; return which are over, and which accept it."""
    alpha, value, slope = lines.alpha, lines.value, lines.slope
    lines.used += 1
    lines.trials += 1
    trial_slope = along(slopes * lines.step)
    better = (trial < value) & (trial < lines.best)
    armijo = trial <= value + ARMIJO * alpha * slope
    flat = (trial <= value + lines.noise) & (trial_slope <= (2.0 * ARMIJO - 1.0) * slope)
    short = armijo | flat
    accepted = short & ~(trial_slope < CURVATURE * slope)
    taken = better | accepted
    lines.best = np.where(taken, trial, lines.best)
    lines.best_alpha = np.where(taken, alpha, lines.best_alpha)
    lines.point = np.where(taken, point, lines.point)
    lines.there = np.where(taken, slopes, lines.there)
    if not accepted.all():
        inside = _interpolated(
            lines.low, lines.value_low, lines.slope_low, alpha, trial, trial_slope
        )
        lines.high = np.where(short, lines.high, alpha)
        lines.low = np.where(short, alpha, lines.low)
        lines.value_low = np.where(short, trial, lines.value_low)
        lines.slope_low = np.where(short, trial_slope, lines.slope_low)
        between = np.where(lines.high < np.inf, 0.5 * (lines.low + lines.high), 2.5 * alpha)
        lines.alpha = np.where(short, between, inside)
    over = accepted | (lines.trials >= MAX_LINE_SEARCH) | (lines.used >= lines.most)
    return over, accepted


def _move(lines: _Lines, over: Flags, accepted: Flags) -> NDArray[np.int64]:
    """Move to the best trials where line searches are over; return statuses, -1 for going on."""
    status = np.full(lines.at.size, -1)
    lines.searching = ~over
    nowhere = over & ~(lines.best < np.inf)
    if nowhere.any():
        full = lines.used >= lines.most
        status[nowhere & full] = LIMIT
        status[nowhere & ~full & lines.fresh] = STALLED
        again = nowhere & ~full & ~lines.fresh
        lines.H[..., again] = lines.H0[..., again]
        lines.fresh[again] = True
    moved = over & ~nowhere
    step, y = lines.best_alpha * lines.step, lines.there - lines.gradient
    sy, lengths = along(step * y), along(step * step) * along(y * y)
    learns = moved & accepted & (sy > 1e-10 * np.sqrt(lengths))
    if learns.any():
        Hy = product(lines.H, y[:, None])[:, 0]
        rho = 1.0 / np.where(learns, sy, 1.0)
        cross = (rho * Hy)[:, None] * step[None]
        along_step = ((1.0 + rho * along(y * Hy)) * rho * step)[:, None] * step[None]
        lines.H = np.where(
            learns, lines.H + along_step - cross - np.swapaxes(cross, 0, 1), lines.H
        )
        lines.fresh &= ~learns
    lines.x = np.where(moved, lines.point, lines.x)
    lines.gradient = np.where(moved, lines.there, lines.gradient)
    lines.value = np.where(moved, lines.best, lines.value)
    lines.here = np.where(moved, accepted, lines.here)
    return status


def _interpolated(
    a: Vector, fa: Vector, da: Vector, b: Vector, fb: Vector, db: Vector
) -> Vector:
    """Return the minima of the cubics (or parabolas) through two points, kept inside them."""
    width = b - a
    bend = fb - fa - da * width
    best = np.where(bend != 0.0, a - 0.5 * da * width * width / bend, b)
    theta = 3.0 * (fa - fb) / width + da + db
    inside = theta * theta - da * db
    root = np.sqrt(np.maximum(inside, 0.0))
    below = db - da + 2.0 * root
    cubic = np.isfinite(db) & (inside >= 0.0) & (below != 0.0)
    best = np.where(cubic, b - width * (db + root - theta) / below, best)
    best = np.where(np.isfinite(fb), best, a)
    return np.minimum(np.maximum(best, a + 0.1 * width), a + 0.9 * width)
