"""Derivative-free searches within bounds: NLopt's BOBYQA and SciPy's COBYQA.

Both work on phi (see `objective`), where every parameter is of order one, and are started again
from where they stopped until that wins nothing: a trust region that shrank too early is the usual
reason for a search that ends above the optimum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixlm_sparse.common.errors import MissingPackageError
from mixlm_sparse.common.types import Vector

# A restart must win more than this, or the search is over.
RESTART_GAIN = 1e-9
MAX_RESTARTS = 5
FIRST_STEP = 0.2
RESTART_STEP = 1e-2


def _restarted(
    search: Callable[[Vector, float], tuple[Vector, float]], x0: Vector
) -> tuple[Vector, float]:
    x, value = search(x0, FIRST_STEP)
    for _ in range(MAX_RESTARTS):
        y, new = search(x, RESTART_STEP)
        gain = value - new
        if new < value:
            x, value = y, new
        if not gain > RESTART_GAIN:
            break
    return x, value


def minimize_bobyqa(
    function: Callable[[Vector], float],
    x0: Vector,
    lower: Vector,
    *,
    xtol: float,
    ftol: float,
    max_evaluations: int,
) -> tuple[Vector, float]:
    """Minimize by Powell's BOBYQA; x0, lower (m,).

    References
    ----------
    Powell (2009), The BOBYQA algorithm for bound constrained optimization without derivatives.

    Raises
    ------
    MissingPackageError : NLopt does not load; some builds of Python have none.
    """
    try:
        import nlopt
    except ImportError as error:
        raise MissingPackageError(
            "optimizer='bobyqa' needs NLopt, which does not load: pip install nlopt, or leave "
            "optimizer out; 'cobyqa' is derivative-free too"
        ) from error

    left = [max_evaluations]

    def search(start: Vector, step: float) -> tuple[Vector, float]:
        optimizer = nlopt.opt(nlopt.LN_BOBYQA, start.size)
        optimizer.set_lower_bounds(lower)
        # NLopt shrinks the step to the distance from a bound, so a start on one must move off it.
        inside = np.where(np.isfinite(lower), np.maximum(start, lower), start)
        best: list[object] = [inside, np.inf]

        def wrapped(x: Vector, _gradient: Vector) -> float:
            left[0] -= 1
            value = function(np.array(x))
            if value < best[1]:  # type: ignore[operator]
                best[0], best[1] = np.array(x), value
            return value if np.isfinite(value) else 1e300

        optimizer.set_min_objective(wrapped)
        optimizer.set_initial_step(np.full(start.size, step))
        optimizer.set_xtol_abs(xtol)
        optimizer.set_ftol_abs(ftol)
        optimizer.set_maxeval(max(left[0], 1))
        try:
            optimizer.optimize(inside)
        except nlopt.RoundoffLimited:
            pass  # the best point seen is the answer; a restart and the gradient will judge it
        return np.asarray(best[0], dtype=np.float64), float(best[1])  # type: ignore[arg-type]

    return _restarted(search, x0)


def minimize_cobyqa(
    function: Callable[[Vector], float],
    x0: Vector,
    lower: Vector,
    *,
    xtol: float,
    ftol: float,
    max_evaluations: int,
) -> tuple[Vector, float]:
    """Minimize by COBYQA as SciPy ships it; x0, lower (m,).

    References
    ----------
    Ragonneau (2022), Model-based derivative-free optimization methods and software.
    """
    from scipy.optimize import Bounds, minimize

    left = [max_evaluations]

    def search(start: Vector, step: float) -> tuple[Vector, float]:
        def wrapped(x: Vector) -> float:
            left[0] -= 1
            value = function(np.array(x))
            return value if np.isfinite(value) else 1e300

        result = minimize(
            wrapped,
            start,
            method="COBYQA",
            bounds=Bounds(lower, np.full(start.size, np.inf)),
            options={
                "initial_tr_radius": step,
                "final_tr_radius": xtol,
                "maxfev": max(left[0], 1),
                "scale": False,
            },
        )
        return np.asarray(result.x, dtype=np.float64), float(result.fun)

    return _restarted(search, x0)
