"""Residual parameters that run away, and whether the criterion falls without end along them.

A standard deviation of the residuals may go to zero beside the others, and a correlation to the
end of its range.  Far out, all else at its best, the criterion is

    d = a h + const,    h the log of what vanishes,

with a whole number a: for the n_s rows of a level of `VarIdent`, a = 2 (n_s - r), r the rank of
what fixed and random effects leave free in these rows.  Where effects reproduce more of them than
that, a covariance being chosen so that they do, a > 0 and there is no minimum.  A search would
crawl to its last evaluation along a valley that gets narrower like exp(h).  By the envelope theorem
a is the slope by h where h is held and everything else at its best; it is asked at three depths, so
that a small standard deviation at which the criterion is least is told from none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.variance import VarIdent
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.solve.search.bfgs import minimize_bfgs
from mixlm_sparse.solve.search.objective import FallsError
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.singular import strata_of_few_groups, stratum_that_falls

__all__ = ["Fall", "Ways", "described", "to_singular"]

# Working parameters of a correlation, or of a covariate, beyond this are far out.
FAR = 5.0
# Beyond this a search along a way that is known to have no end is left at once.
FARTHER = 7.0
# A slope by h, a whole number, that does not end; and how much farther out it is asked again.
FALLING = 0.9
DEPTHS = (0.0, 4.0, 4.0)
# So far out that rounding may leave no criterion; it counts as falling on.
DEEP = 12.0
# Evaluations of each of these searches, for each parameter besides, and at most.
EVALUATIONS, EACH, MOST = 20, 8, 100
TOLERANCE = 1e-5
# How often one way is asked about that has an end, and all together; correlations of visits run
# away together, along none of them.
ASKED, ASKED_ALL, ASKED_VISITS = 2, 8, 2


@dataclass(frozen=True, eq=False, slots=True)
class Fall:
    """A way of rho (n_rho,): h = along'rho falls, by moving against `step`, along'step = 1.

    Parameters
    ----------
    key : tells it from others.
    level : the level of `VarIdent` whose variance vanishes; "" for other ways.
    others : what a step against `step` adds to the log of the standard deviations of the other
        levels.
    """

    key: tuple[str, int]
    name: str
    level: str
    along: Vector
    step: Vector
    others: float = 0.0


class Searched(Protocol):
    """What is asked of the objective of a search here."""

    reml: bool

    @property
    def system(self) -> PenalizedSystem:
        """Return the system."""
        ...

    @property
    def m_theta(self) -> int:
        """Return the number of parameters of the random effects."""
        ...

    def value_and_gradient(self, phi: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient at (phi, rho)."""
        ...

    def curvature(self, phi: Vector) -> Matrix:
        """Return a positive definite guess of the Hessian."""
        ...

    def center(self, rho: Vector) -> float:
        """Return the mean log standard deviation of the rows at rho."""
        ...


class Ways:
    """What is known of the ways along which searches of one objective ran.

    Attributes
    ----------
    falls : those without end that were found; the point (phi, rho) at which each was seen.
    """

    def __init__(self) -> None:
        self.falls: dict[tuple[str, int], tuple[Fall, Vector]] = {}
        self._asked: dict[tuple[str, int], int] = {}
        self._singular: int | None = None
        self._singular_asked = False

    def are_far(self, objective: Searched, x: Vector) -> bool:
        """Say whether there is anything to look at."""
        whitened = objective.system.whitened
        assert whitened is not None
        return bool(_ways(whitened.law, x[objective.m_theta :]))

    def look(self, objective: Searched, x: Vector) -> None:
        """Leave a search at x, (phi, rho), that falls without end.

        Raises
        ------
        FallsError : it does.
        """
        whitened = objective.system.whitened
        assert whitened is not None
        rho = x[objective.m_theta :]
        visits = whitened.law.by_visits
        ends = [way for way in _ways(whitened.law, rho) if not way.level]
        if visits and ends and self.to_singular(objective, rho) is not None:
            self.falls.setdefault(ends[0].key, (ends[0], x))
            raise FallsError(x)
        for way in _ways(whitened.law, rho):
            depth = -float(way.along @ rho)
            if way.key in self.falls:
                # an optimum nearer by is looked for all the same, and a limit that is finite
                if depth > FARTHER and self._slope(objective, x, way) >= FALLING:
                    raise FallsError(self.falls[way.key][1])
                continue
            all_asked = sum(self._asked.values()) >= (ASKED_VISITS if visits else ASKED_ALL)
            if all_asked or self._asked.get(way.key, 0) >= ASKED:
                continue
            self._asked[way.key] = self._asked.get(way.key, 0) + 1
            seen = _falls(objective, x, way)
            if seen is not None:
                self.falls[way.key] = way, seen
                raise FallsError(seen)

    def to_singular(self, objective: Searched, rho: Vector) -> int | None:
        """Return the stratum of which the rows show that it falls without end there."""
        if not self._singular_asked:
            whitened = objective.system.whitened
            assert whitened is not None
            frame, few = whitened.frame, strata_of_few_groups(whitened.frame)
            if few:
                sd = Whitening.of(whitened.law, rho, centered=True).sd
                self._singular = stratum_that_falls(frame, sd, few, reml=objective.reml)
            self._singular_asked = True
        return self._singular

    @property
    def correlated(self) -> bool:
        """Return whether a correlation goes to the end of its range without end."""
        return any(not way.level for way, _ in self.falls.values())

    @staticmethod
    def _slope(objective: Searched, x: Vector, way: Fall) -> float:
        gradient = objective.value_and_gradient(x)[1]
        return float(gradient[objective.m_theta :] @ way.step)

    def levels(self) -> set[str]:
        """Return the levels of `VarIdent` whose variance vanishes without end."""
        return {way.level for way, _ in self.falls.values() if way.level}


def _ways(law: ResidualLaw, rho: Vector) -> list[Fall]:
    """Return the ways along which rho (n_rho,) is far out."""
    out = []
    start = law.variance_part.start
    ends = rho[:start] if isinstance(law.variance, VarIdent) else rho
    for i in np.flatnonzero(np.abs(ends) > FAR).tolist():
        step = np.zeros(rho.size)
        step[i] = -math.copysign(1.0, rho[i])
        out.append(Fall((law.names[i], int(step[i])), law.names[i], "", step, step))
    silent = set(law.without_noise_at(rho, FAR))
    for j, level in enumerate(law.values.levels if silent else ()):
        if level not in silent:
            continue
        step, along = np.zeros(rho.size), np.zeros(rho.size)
        others = len(law.values.levels) - 1
        along[start:] = -1.0 / others
        if j:
            along[start + j - 1] = step[start + j - 1] = 1.0
        else:
            step[start:] = -1.0
        out.append(Fall(("level", j), "", level, along, step, 0.0 if j else 1.0))
    return out


def _falls(objective: Searched, x: Vector, way: Fall) -> Vector | None:
    """Return where the slope along a way was first seen, near x, if it does not end; else None."""
    m = objective.m_theta
    normal = np.concatenate([np.zeros(m), way.along])
    step = np.concatenate([np.zeros(m), way.step])
    B = np.linalg.svd(normal[None, :])[2][1:].T  # (m + n_rho, m + n_rho - 1), h held
    first = None
    for depth in DEPTHS:
        x = _moved(objective, x, way, step, depth)
        found = _held(objective, x, B)
        if found is None:
            return first if float(way.along @ x[m:]) < -DEEP else None
        x, slope = found[0], float(found[1] @ step)
        if not slope >= FALLING:
            return None
        first = x if first is None else first
    return first


def _moved(objective: Searched, x: Vector, way: Fall, step: Vector, depth: float) -> Vector:
    """Return x farther out, with the same random effects beside the residuals of other rows."""
    if not depth:
        return x
    m = objective.m_theta
    out: Vector = x - depth * step
    if m and way.level:
        center = objective.center(out[m:]) - objective.center(x[m:])
        size = math.exp(depth * way.others - center)
        out[:m] = objective.system.chart.scaled(x[:m], size)
    return out


def _held(objective: Searched, x: Vector, B: Matrix) -> tuple[Vector, Vector] | None:
    """Return the best point x + B z and the gradient there; None where there is no criterion."""

    def function(z: Vector) -> tuple[float, Vector]:
        value, gradient = objective.value_and_gradient(x + B @ z)
        return value, B.T @ gradient

    if B.shape[1]:
        try:
            guess = B.T @ objective.curvature(x) @ B
        except NotPositiveDefiniteError:
            return None
        found = minimize_bfgs(
            function, np.zeros(B.shape[1]), guess, tolerance=TOLERANCE,
            max_evaluations=min(EVALUATIONS + EACH * B.shape[1], MOST),
        )  # fmt: skip
        x = x + B @ found.x
    value, gradient = objective.value_and_gradient(x)
    return (x, gradient) if math.isfinite(value) else None


def to_singular(law: ResidualLaw, stratum: int) -> Fall:
    """Return the way to the least of the equal correlations of a stratum."""
    at = law.part(stratum).start
    step = np.zeros(law.n_rho)
    step[at] = 1.0
    return Fall((law.names[at], 1), law.names[at], "", step, step)


def described(way: Fall, law: ResidualLaw, *, random: bool) -> tuple[str, str]:
    """Return what vanishes along a way, and what to do about it, in the user's words.

    Parameters
    ----------
    random : whether there are random effects.
    """
    who = "fixed and random effects together" if random else "fixed effects"
    drop = ", or drop a random term" if random else ""
    if way.level:
        by = getattr(law.variance, "by", "")
        name = by if isinstance(by, str) else ", ".join(by)
        return (
            f"the residual standard deviation of {name} = {way.level} goes to zero: {who} "
            "fit its rows exactly",
            f"let VarIdent join {way.level} with another level, or leave variance= out{drop}",
        )
    correlation = way.name in law.names[: law.variance_part.start]
    structure = law.correlation if correlation else law.variance
    return (
        f"the residual parameter {way.name} goes to the end of its range: {who} fit what has no "
        "variance there exactly",
        f"leave {type(structure).__name__} out{drop}",
    )
