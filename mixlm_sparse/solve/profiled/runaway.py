"""Searches in theta that run away: what is asked of a point where random effects are very large.

Where random effects alone can be the law of the response the criterion has a limit for sigma going
to zero (see `no_noise`), and may be least there.  In theta that is at infinity, at the end of a
valley that gets narrower: a search would crawl along it to its last evaluation.  It is helped
outwards by steps that multiply all effects, and ends where what is left to win is sigma's alone.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.pls import solve_at
from mixlm_sparse.solve.search.objective import NoMinimumError
from mixlm_sparse.solve.system import PenalizedSystem

# A criterion that is still falling where random effects are this much larger than the noise: the
# optimum is far out, or there is no noise.
SATURATED = 2e4
# The same where random effects alone can be the law of the response: what is lower there is so
# with a sigma of zero, for which there is a search of its own.
RUNAWAY = 1e3
# Random effects from which on steps outwards are tried there, and these.
LARGE = 30.0
OUTWARDS = (30.0, 4.0)
# Share of the residual sum of squares of least squares below which nothing is left.
NOTHING_LEFT = 1e-8


class Searched(Protocol):
    """What is asked of the objective of a search here."""

    beyond: bool
    to_the_end: bool
    best_value: float

    @property
    def system(self) -> PenalizedSystem:
        """Return the system."""
        ...

    @property
    def without_noise(self) -> bool:
        """Return `can_be_all` of the system."""
        ...

    def merged(self, phi: Vector) -> list[Matrix]:
        """Return the working Lambda per grouping factor, (K, K)."""
        ...

    def value(self, phi: Vector) -> float:
        """Return the criterion at phi (m,)."""
        ...

    def value_at(self, lambdas: list[Matrix]) -> float:
        """Return the criterion at factors, wherever they are."""
        ...


def too_far(objective: Searched, phi: Vector) -> bool:
    """Say whether a step leads to where nothing is left to the residuals.

    Raises
    ------
    NoMinimumError : the criterion is lower there than anywhere before: it has no minimum, or one
        with a sigma of zero.
    """
    system = objective.system
    size = system.chart.size(phi)
    if objective.beyond or size <= (SATURATED if objective.to_the_end else RUNAWAY):
        return False
    if not math.isfinite(size):
        return True
    if size <= SATURATED and not objective.without_noise:
        return False
    if system.known:  # with one row a level the criterion has a limit, not a minimum
        return True
    lambdas = objective.merged(phi)
    try:
        left = solve_at(lambdas, system).pwrss
    except NotPositiveDefiniteError:
        return True
    if size > SATURATED and left > NOTHING_LEFT * system.products.yy:
        return False  # large beside columns that nearly cancel, not beside the noise
    if objective.value_at(lambdas) < objective.best_value:
        raise NoMinimumError
    return True


def outwards(objective: Searched, phi: Vector) -> Vector:
    """Return phi with larger effects if the criterion is lower there and sigma may be zero."""
    chart = objective.system.chart
    if objective.to_the_end or not chart.size(phi) > LARGE or not objective.without_noise:
        return phi
    for times in OUTWARDS:
        candidate = chart.scaled(phi, times)
        if objective.value(candidate) < objective.best_value:
            return candidate
    return phi


def can_be_all(system: PenalizedSystem, *, reml: bool) -> bool:
    """Say whether Z S Z' can be regular on what the criterion is about (see `no_noise`)."""
    if system.held is not None or not system.templates:
        return False
    if system.products.blocks.q + (system.p if reml else 0) < system.n:
        return False
    if system.known:  # every row has a level of its own, or the columns count as without A
        return _levels_of_rows(system)
    apart = system.apart
    return system.n - apart.rank - (apart.rank_within if reml else 0) == 0


def fits_everything(system: PenalizedSystem, *, reml: bool) -> bool:
    """Say whether the ML criterion falls without end for any response.

    Where [X Z] has n independent columns and Z fewer, V = Z S Z' + sigma^2 W^{-1} is singular on
    n - rank Z directions as sigma goes to zero, along which X fits the response exactly:
    log|V| goes to minus infinity, and nothing grows.
    """
    products = system.products
    if reml or system.held is not None or system.known or not system.templates:
        return False
    if products.blocks.q + products.p < system.n or not system.engine.exact:
        return False
    rank = system.apart.rank
    return rank < system.n <= rank + system.apart.rank_within


def _levels_of_rows(system: PenalizedSystem) -> bool:
    known = [f.row_levels for f in system.matrices.factors if f.known is not None]
    return any(isinstance(own, np.ndarray) and np.unique(own).size == system.n for own in known)
