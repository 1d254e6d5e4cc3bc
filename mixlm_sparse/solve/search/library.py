"""Searches of other libraries, as many times as they win something."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.derivative_free import minimize_bobyqa, minimize_cobyqa
from mixlm_sparse.solve.search.objective import Objective


def library_search(
    method: str,
    objective: Objective,
    phi: Vector,
    control: Control,
    limit: int,
) -> tuple[Vector, float]:
    """Search by a named method from phi; return the best point and its value."""
    lower = objective.working_lower
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
