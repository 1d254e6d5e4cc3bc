"""Quasi-Newton minimization with an exact gradient.

The criterion is even in the sign of every column of a covariance factor, so the bound "diagonal not
negative" is a choice among equivalent minima, not a constraint: the search runs unbounded and the
answer is reflected into bounds afterwards.  A variance that wants to be zero is then an ordinary
minimum, reached as fast as any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from mixlm_sparse.common.types import Matrix, Vector

# Sufficient decrease and curvature of the line search; loose, for one evaluation is the usual cost.
ARMIJO = 1e-4
CURVATURE = 0.9
# Differences of the criterion below this multiple of its rounding are decided by slopes.
EPS = float(np.finfo(np.float64).eps)
ROUNDING = 64.0 * EPS
MAX_LINE_SEARCH = 25
# A predicted decrease below which an exact Hessian is worth its price, and steps that it may take.
NEAR = 5e-3
NEWTON_STEPS = 4
# A predicted decrease below which a search that has no evaluations left gets a few more.
CLOSE, CLOSE_STEPS = 1e-3, 4
# A predicted decrease down to which a better guess of the Hessian is asked for at every step.
RENEW_ABOVE = 1e-4


@dataclass(frozen=True, slots=True)
class BfgsResult:
    """Where the search ended: x (m,), its value, gradient (m,) and Newton decrement.

    `inverse` (m, m) is what the search knows of the inverse Hessian there.
    """

    x: Vector
    value: float
    gradient: Vector
    decrement: float
    status: str  # "converged", "stalled" or "limit"
    inverse: NDArray[Any]


def minimize_bfgs(
    function: Callable[[Vector], tuple[float, Vector]],
    x0: Vector,
    guess: Matrix | Callable[[Vector, Vector], Matrix],
    *,
    tolerance: float,
    max_evaluations: int,
    more: int = 0,
    inverse: NDArray[Any] | None = None,
    max_step: float = 2.0,
    noise: Callable[[Vector], float] | None = None,
    sharpen: Callable[[Vector, Vector], Matrix | None] | None = None,
    renew: Callable[[Vector], Matrix | None] | None = None,
    known: Callable[[Vector, float, float], None] | None = None,
) -> BfgsResult:
    """Minimize a smooth function.

    Parameters
    ----------
    function : returns value and gradient (m,); an infinite value where it is not defined.
    x0 : (m,) start.
    guess : (m, m) positive definite guess of the Hessian at the start, or a function that returns
        it from x0 and the gradient there.
    tolerance : the search ends when the decrease that a Newton step predicts, g'H^{-1}g / 2, is
        below this or below the rounding of the value.
    more : evaluations beyond `max_evaluations` where the end is near then.
    inverse : (m, m) what an earlier search close by knew of the inverse Hessian; `guess` is then
        what a search is restarted with that finds nothing lower.
    max_step : bound on the largest change of a coordinate in one step, relative to its size or 1.
    noise : how uncertain values near x are beyond their rounding; slopes decide below that.
    sharpen : returns the Hessian at x with this gradient, where that costs little and it is
        positive definite; asked once, near the end, from where on steps are Newton's.
    renew : returns a positive definite guess of the Hessian at x, where the function was evaluated
        last, or None; asked at every step until the end is near.
    known : told of x, the value there and the predicted decrease at every step; may end the search
        by an exception.

    References
    ----------
    Nocedal and Wright (2006), Numerical Optimization, chapter 6; Hager and Zhang (2005),
    doi:10.1137/030601880, for the line search near rounding.
    """
    # Long, because the step and its line search share all of their state, and the compiled form of
    # it (engines/fused) is read beside it, line by line.
    x = x0.copy()
    value, gradient = function(x)
    evaluations = 1
    if not math.isfinite(value):  # nothing says where to go
        return BfgsResult(x, value, gradient, np.inf, "stalled", np.eye(x.size))
    hessian = guess(x, gradient) if callable(guess) else guess
    H: NDArray[Any] = _inverse(hessian) if inverse is None else inverse
    fresh, renewed = inverse is None, False
    while True:
        step = -(H @ gradient)
        slope = float(gradient @ step)
        if renew is not None and not renewed and -0.5 * slope > RENEW_ABOVE:
            renewed, better = True, renew(x)
            if better is not None:
                hessian, H, fresh = better, _inverse(better), True
                continue
        if not slope < 0.0:
            if float(np.abs(gradient).max(initial=0.0)) == 0.0:
                return BfgsResult(x, value, gradient, 0.0, "converged", H)
            H, fresh = _inverse(hessian), True
            step = -(H @ gradient)
            slope = float(gradient @ step)
        if -0.5 * slope <= max(tolerance, EPS * abs(value)):
            return BfgsResult(x, value, gradient, -0.5 * slope, "converged", H)
        if known is not None:
            known(x, value, -0.5 * slope)
        if sharpen is not None and -0.5 * slope <= NEAR:
            sharp, sharpen = sharpen(x, gradient), None
            if sharp is not None:
                hessian, H, fresh = sharp, _inverse(sharp), True
                max_evaluations += NEWTON_STEPS  # they are few
                continue
        if evaluations >= max_evaluations:
            if not more or -0.5 * slope > CLOSE:
                return BfgsResult(x, value, gradient, -0.5 * slope, "limit", H)
            max_evaluations, more = max_evaluations + more, 0
        shorter = min(1.0, max_step / float(np.abs(step / np.maximum(1.0, np.abs(x))).max()))
        step, slope = shorter * step, shorter * slope

        unsure = max(ROUNDING * abs(value), 0.0 if noise is None else noise(x))
        alpha, low, high = 1.0, 0.0, np.inf
        slope_low, value_low = slope, value
        best: tuple[float, Vector, float] | None = None  # value, gradient, alpha
        accepted = False
        for _ in range(MAX_LINE_SEARCH):
            trial, trial_gradient = function(x + alpha * step)
            evaluations += 1
            trial_slope = float(trial_gradient @ step) if math.isfinite(trial) else np.inf
            if trial < (value if best is None else best[0]):
                best = trial, trial_gradient, alpha
            armijo = trial <= value + ARMIJO * alpha * slope
            flat = trial <= value + unsure and trial_slope <= (2.0 * ARMIJO - 1.0) * slope
            if not (armijo or flat):
                high = alpha
                alpha = _interpolate(low, value_low, slope_low, alpha, trial, trial_slope)
            elif trial_slope < CURVATURE * slope:
                low, value_low, slope_low = alpha, trial, trial_slope
                alpha = 0.5 * (low + high) if math.isfinite(high) else 2.5 * alpha
            else:
                best = trial, trial_gradient, alpha
                accepted = True
                break
            if evaluations >= max_evaluations:
                break
        if best is None:
            full = evaluations >= max_evaluations
            if fresh or full:
                status = "limit" if full else "stalled"
                return BfgsResult(x, value, gradient, -0.5 * slope, status, H)
            H, fresh = _inverse(hessian), True
            continue
        trial, trial_gradient, alpha = best
        s = alpha * step
        y = trial_gradient - gradient
        sy = float(s @ y)
        if accepted and sy > 1e-10 * math.sqrt(float(s @ s) * float(y @ y)):
            H, fresh = _updated(H, s, y, sy), False
        x, value, gradient, renewed = x + s, trial, trial_gradient, False


def _inverse(H: Matrix) -> Matrix:
    """Return H^{-1} (m, m), as NumPy does, whose call takes longer than the inverse."""
    _, _, out, info = lapack.dgesv(H, np.eye(H.shape[0]))
    if info != 0:
        raise np.linalg.LinAlgError("Singular matrix")
    return np.asarray(out)


def _updated(H: NDArray[Any], s: Vector, y: Vector, sy: float) -> Matrix:
    """Return the inverse Hessian after a step s that changed the gradient by y."""
    rho = 1.0 / sy
    Hy = H @ y
    cross = (rho * Hy)[:, None] * s
    along = ((1.0 + rho * float(y @ Hy)) * rho) * s
    out: Matrix = H + along[:, None] * s - cross - cross.T
    return out


def _interpolate(a: float, fa: float, da: float, b: float, fb: float, db: float) -> float:
    """Return the minimum of the cubic (or parabola) through two points, kept inside them."""
    width = b - a
    if not math.isfinite(fb):
        return a + 0.1 * width
    best = a - 0.5 * da * width * width / (fb - fa - da * width) if fb - fa != da * width else b
    if math.isfinite(db):
        theta = 3.0 * (fa - fb) / width + da + db
        inside = theta * theta - da * db
        if inside >= 0.0:
            root = math.sqrt(inside)
            denominator = db - da + 2.0 * root
            if denominator != 0.0:
                best = b - width * (db + root - theta) / denominator
    return float(min(max(best, a + 0.1 * width), a + 0.9 * width))
