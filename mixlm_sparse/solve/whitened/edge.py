"""A criterion that is least at the end of the range of a correlation of visits.

Beside random effects V is regular where R is not, and the criterion may be least there: with omega
the working parameters (logarithms, far out) of what vanishes,

    d = d_end + c exp(-2 |omega|).

The curvature falls with the slope, so that a quasi-Newton search makes short steps in a valley that
gets ever narrower.  Where the slope says that little is left, the way to the end is gone at once.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["at_end", "bounded", "farther"]

# Parameters beyond this may be on their way to the end; and where it is reached: what is left is
# exp(-17) of the criterion's changes there, and rounding does not count yet.
FAR, END = 3.0, 8.5
# What is left of the criterion there at most; large changes need a farther end, to the last one.
LEFT, LAST = 1e-6, 11.0
# Parameters from here on are there.
AT_END = 8.0
# A slope above this is not that of a way which has an end nearby.
SLOPE = 0.5


class Searched(Protocol):
    """What is asked of the objective of a search here."""

    @property
    def system(self) -> PenalizedSystem:
        """Return the system."""
        ...

    @property
    def m_theta(self) -> int:
        """Return the number of parameters of the random effects."""
        ...

    def value(self, phi: Vector) -> float:
        """Return the criterion at (phi, rho)."""
        ...

    def value_and_gradient(self, phi: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient at (phi, rho)."""
        ...


def at_end(law: ResidualLaw, rho: Vector) -> bool:
    """Say whether correlations of visits are at their end: how the criterion curves is rounding."""
    own = np.abs(rho[: law.variance_part.start])
    return law.by_visits and bool(own.max(initial=0.0) >= AT_END)


def bounded(objective: Searched, x: Vector) -> bool:
    """Say whether correlations at x, (phi, rho), are not far, or the criterion ends there."""
    far = _far(objective, x)
    return not far.any() or _outward(x, far, objective.value_and_gradient(x)[1]) < SLOPE


def farther(objective: Searched, x: Vector) -> Vector:
    """Return x, (phi, rho), with correlations of visits at their end if that is lower; else x."""
    far = _far(objective, x)
    size = np.abs(x[far]).max(initial=0.0)
    if not far.any() or size >= LAST:
        return x
    value, gradient = objective.value_and_gradient(x)
    outward = _outward(x, far, gradient)
    if not 0.0 < outward < SLOPE:
        return x
    # the criterion has outward / 2 to fall
    end = np.clip(size + np.log(outward / (2.0 * LEFT)) / 2.0, END, LAST)
    if size >= end:
        return x
    moved = x.copy()
    moved[far] += np.sign(x[far]) * (end - size)
    return moved if objective.value(moved) < value else x


def _far(objective: Searched, x: Vector) -> NDArray[np.bool_]:
    """Return which of (phi, rho) are correlations that may be on their way to the end."""
    whitened = objective.system.whitened
    assert whitened is not None
    m = objective.m_theta
    correlations = np.zeros(x.size, dtype=bool)
    correlations[m : m + whitened.law.variance_part.start] = True
    return correlations & (np.abs(x) > FAR)


def _outward(x: Vector, far: NDArray[np.bool_], gradient: Vector) -> float:
    """Return the slope outwards of all together: what a visit has left beside several is one."""
    return -float(gradient[far] @ np.sign(x[far]))
