"""One descent: quasi-Newton in legs, between which the axes are turned."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.search.bfgs import CLOSE_STEPS, NEWTON_STEPS, ROUNDING, minimize_bfgs
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.objective import KnownError, Objective

# Evaluations (more with many parameters) after which a search that has not ended turns its axes.
LEG_EVALUATIONS = 8
# Relative standard deviations along the principal axes below which zero is tried.
SMALL = (0.05, 0.01)


def gradient_search(
    objective: Objective, phi: Vector, control: Control, limit: int
) -> tuple[Vector, float, Vector, float]:
    """Search by quasi-Newton, turning to the principal axes when a leg takes long.

    Returns
    -------
    phi, value, gradient, predicted decrease, where the search ended.
    """

    def come_back(x: Vector, value: float, decrease: float) -> None:
        back = objective.known.back_at(objective.place(x), value, decrease)
        if back is not None:
            objective.rotations = None
            raise KnownError(back)

    end = objective.n_values + limit
    leg = max(LEG_EVALUATIONS, 6 + phi.size // 8)
    before, inverse = np.inf, None
    while True:
        left = end - objective.n_values
        found = minimize_bfgs(
            objective.value_and_gradient,
            phi,
            objective.guess,
            tolerance=control.tolerance,
            max_evaluations=min(leg, left),
            more=max(0, min(CLOSE_STEPS, left - leg)) if objective.turns else 0,
            inverse=inverse,
            noise=objective.noise,
            sharpen=objective.sharpen if left > leg + NEWTON_STEPS else None,
            renew=objective.renew,
            known=come_back if objective.known.ends else None,
        )
        if found.status != "limit" or left <= leg or objective.n_values >= end:
            break
        unsure = max(ROUNDING * abs(found.value), objective.noise(found.x))
        if before - found.value <= unsure and found.decrement <= unsure:
            break  # a whole leg has won nothing that can be seen, and no more is to be won
        before = found.value
        phi = objective.rotate(found.x)
        if control.check_boundary:
            phi = _without_small(objective, phi, found.value)
        # where there was nothing to turn, what is known of the curvature holds
        kept = objective.turns and np.array_equal(phi, found.x)
        inverse = found.inverse if kept else None
        leg += 2  # fewer turns later, when the axes are known
    if not objective.rotated:
        return found.x, found.value, found.gradient, found.decrement
    phi = objective.unrotate(found.x)
    value, gradient = objective.value_and_gradient(phi)
    return phi, value, gradient, found.decrement


def _without_small(objective: Objective, phi: Vector, value: float) -> Vector:
    """Return phi without small directions if the criterion is lower there, else phi.

    Where a variance is zero at the optimum the criterion is flat across it, and a search comes near
    by many short steps.  From zero it stays there, since the slope vanishes; whether that is right
    is asked at the end, at the boundary.
    """
    tried = phi
    for cut in SMALL:
        candidate = objective.without_small(phi, cut)
        if np.array_equal(candidate, phi):
            break
        if not np.array_equal(candidate, tried):
            # mostly it is lower, and the next leg asks for the gradient there
            if objective.value_and_gradient(candidate)[0] < value:
                return candidate
        tried = candidate
    return phi
