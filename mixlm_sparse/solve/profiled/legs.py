"""A search in legs: quasi-Newton, a look at the boundary, a look at the curvature.

For functions that are not an `Objective`: the joint criterion with parameters or sigma held.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.curvature import downward_direction
from mixlm_sparse.solve.search.bfgs import ROUNDING, BfgsResult, minimize_bfgs
from mixlm_sparse.solve.search.search import SADDLE_STEPS

STEP = 1e-4  # of differences of the gradient
FLOOR = 1e-3  # least curvature of a guess, as a share of the largest
LEGS = 5  # each but the last left a false boundary or a saddle behind


@dataclass(frozen=True, eq=False)
class Legs:
    """A function of x (f,), and what is known of it.

    Parameters
    ----------
    function : value and gradient; infinite where it is not defined.
    scales : sizes of changes of x (f,) that matter.
    settle : of a point and its value: the point on the boundary that it is close to, or one off a
        false boundary, and whether it is such a one; the point itself where it is neither.
    left : how many evaluations may still be made.
    tolerance : as in `minimize_bfgs`.
    check : whether boundary and curvature are looked at.
    """

    function: Callable[[Vector], tuple[float, Vector]]
    scales: Callable[[Vector], Vector]
    settle: Callable[[Vector, float], tuple[Vector, bool]]
    left: Callable[[], int]
    tolerance: float
    check: bool = True

    def from_point(self, x: Vector) -> BfgsResult:
        """Search from x (f,), and on from false boundaries."""
        found = self._leg(x)
        for _ in range(LEGS):
            if not (self.check and x.size and math.isfinite(found.value)):
                break
            moved, escaped = self.settle(found.x, found.value)
            if np.array_equal(moved, found.x):
                break
            value, gradient = self.function(moved)
            if escaped and value < found.value - ROUNDING * abs(found.value):
                found = self._leg(moved)
                continue
            if value <= found.value + ROUNDING * abs(found.value):  # snapped to the boundary
                found = replace(found, x=moved, value=value, gradient=gradient)
            break
        return found

    def off_saddle(self, found: BfgsResult) -> tuple[BfgsResult, bool]:
        """Search on from a point that is a minimum along the gradient only.

        Returns
        -------
        where that ended, and whether the function still curves downwards there.
        """
        for _ in range(LEGS):
            if not (self.check and found.x.size and math.isfinite(found.value)):
                return found, False
            scales = self.scales(found.x)
            H = self._differences(found.x, scales)
            step = downward_direction(H, scales) if np.isfinite(H).all() else None
            if step is None:
                return found, False
            sides = [found.x + size * step for size in SADDLE_STEPS]
            sides += [found.x - size * step for size in SADDLE_STEPS]
            values = [self.function(side)[0] for side in sides]
            again = self.from_point(sides[int(np.argmin(values))])
            if not again.value < found.value - ROUNDING * abs(found.value):
                break
            found = again
        return found, True

    def _leg(self, x: Vector) -> BfgsResult:
        if not x.size:
            value, gradient = self.function(x)
            return BfgsResult(x, value, gradient, 0.0, "converged", np.zeros((0, 0)))
        guess = self._guess(x)
        return minimize_bfgs(
            self.function, x, guess, tolerance=self.tolerance, max_evaluations=max(self.left(), 1)
        )

    def _guess(self, x: Vector) -> Matrix:
        """Return a positive definite guess (f, f) of the Hessian at x, by differences."""
        scales = self.scales(x)
        H = self._differences(x, scales)
        if not np.isfinite(H).all():
            return np.diag(1.0 / scales**2)
        values, vectors = np.linalg.eigh(H)
        floor = FLOOR * max(float(np.abs(values).max()), 1e-6)
        out: Matrix = (vectors * np.maximum(np.abs(values), floor)) @ vectors.T
        return out

    def _differences(self, x: Vector, scales: Vector) -> Matrix:
        """Return the Hessian (f, f) at x by differences of the gradient."""
        H = np.empty((x.size, x.size))
        for i, scale in enumerate(scales):
            step = np.where(np.arange(x.size) == i, STEP * scale, 0.0)
            H[i] = (self.function(x + step)[1] - self.function(x - step)[1]) / (2.0 * STEP * scale)
        return 0.5 * (H + H.T)
