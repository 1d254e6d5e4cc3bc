"""Profiles of small models, all of their points' searches in step.

Both sides of every curve are lanes, each of which goes from point to point as `Follow` says.  What
the lanes ask for next is evaluated in the same calls of NumPy, and the quasi-Newton steps of all
are taken together; they are those of `solve.search.bfgs`.  Where a step is not accepted at once,
which is rare, the point is left to that search.  A lane's numbers do not depend on those beside it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.lockstep.arrays import along, product
from mixlm_sparse.engines.fused.lockstep.held import HeldCriteria
from mixlm_sparse.inference.variance.profile.curve import ParameterProfile
from mixlm_sparse.inference.variance.profile.follow import (
    CURVATURE_STEP,
    INNER_EVALUATIONS,
    INNER_TOLERANCE,
    Follow,
    Point,
    positive,
)
from mixlm_sparse.inference.variance.profile.held import State
from mixlm_sparse.inference.variance.profile.lanes import Lanes, can_be_lane, kind_of_lane
from mixlm_sparse.inference.variance.profile.targets import Base, prepared
from mixlm_sparse.solve.profiled.lockstep import held_criteria, lockstep_serves
from mixlm_sparse.solve.search.bfgs import ARMIJO, CURVATURE, EPS, ROUNDING
from mixlm_sparse.solve.system import PenalizedSystem

MAX_STEP = 2.0  # of `minimize_bfgs`

Flags = NDArray[np.bool_]
Steps = Generator[tuple[float, Vector], tuple[float, Vector], bool]


class FollowInStep(Follow):
    """Steps along one profile, whose points are formed at the end, with those of the others."""

    failed = False

    def point(self, c: float, zeta: float, x: Vector) -> Point:
        """Return a point that is filled in later."""
        out = Point(zeta, State([], math.nan), np.full(self.held.system.p, np.nan))
        self.asked.append((out, c, x))
        return out

    def formed(self, state: State, beta: Vector, c: float) -> tuple[State, Vector]:
        """Return a point's state and coefficients, the held one as it is held."""
        if self.target.kind == "beta":
            beta[self.target.place] = c
        return state, beta


@dataclass(eq=False, slots=True)
class Chain:
    """One side of a profile, or a single point of it, as a lane.

    Parameters
    ----------
    follow : whose it is; steps : what it asks for, a value and a guess at a time.
    side : -1 or 1; 0 for a single point.
    after : chains that come first, with standard deviations of a correlation at zero.
    """

    follow: FollowInStep
    steps: Steps
    side: float = 0.0
    after: Sequence[Chain] = ()
    reached: bool | None = None
    request: tuple[float, Vector] = field(default=(math.nan, np.zeros(0)))


def profiles_in_step(
    base: Base, names: Sequence[str], z_max: float
) -> dict[str, tuple[ParameterProfile, int]]:
    """Return the profiles that can be followed in step, and their evaluations, by name."""
    system = base.fit.system
    if not lockstep_serves(system):
        return {}
    follows = {name: own for name in names if (own := _follow(base, name, z_max)) is not None}
    if not follows:
        return {}
    zeros: dict[str, Chain] = {}
    chains: list[Chain] = []
    for follow in follows.values():
        after = []
        for name in base.deviations_of(follow.target):
            own = follows.get(name) or _follow(base, name, z_max)
            assert own is not None
            zeros.setdefault(name, Chain(own, own.at_zero()))
            after.append(zeros[name])
        chains += [Chain(follow, follow.steps(side), side, after) for side in (-1.0, 1.0)]
    every = sorted([*zeros.values(), *chains], key=lambda chain: kind_of_lane(chain.follow.held))
    order = list(dict.fromkeys(chain.follow for chain in every))
    criteria = held_criteria(system, reml=base.reml)
    set_curvatures(order, system, criteria)
    for follow in follows.values():
        follow.begin()
    follow_in_step(every, system, criteria)
    form_points(order, system, criteria, reml=base.reml)
    out = {}
    for left, right in zip(chains[::2], chains[1::2], strict=True):
        follow = left.follow
        if not any(chain.follow.failed for chain in (left, *left.after)):
            curve = follow.curve((bool(left.reached), bool(right.reached)))
            out[curve.name] = curve, follow.n_evaluations
    return out


def _follow(base: Base, name: str, z_max: float) -> FollowInStep | None:
    """Return what follows a profile in step; None where it is not followed so, or not at all."""
    target, held = prepared(base, name)
    if math.isnan(target.estimate) or not can_be_lane(held):
        return None
    return FollowInStep(target, held, base.parameters, base.criterion, z_max, reml=base.reml)


def set_curvatures(
    follows: Sequence[FollowInStep], system: PenalizedSystem, criteria: HeldCriteria
) -> None:
    """Give every curve, those of a kind side by side, its curvature by differences."""
    m = follows[0].x0.size
    held = [one.held for one in follows for _ in range(2 * m)]
    values = [one.inside for one in follows for _ in range(2 * m)]
    step = CURVATURE_STEP * np.concatenate([np.eye(m), -np.eye(m)])
    x = np.concatenate([(one.x0 + step).T for one in follows], axis=1)
    with np.errstate(all="ignore"):
        gradient = Lanes(held, values, system, criteria)(x)[1]
    for i, one in enumerate(follows):
        own = gradient[:, 2 * m * i : 2 * m * (i + 1)]
        one.n_evaluations += 2 * m
        one.hessian = positive((own[:, :m] - own[:, m:]).T / (2.0 * CURVATURE_STEP))


def follow_in_step(
    chains: Sequence[Chain], system: PenalizedSystem, criteria: HeldCriteria
) -> None:
    """Follow all chains to their ends; chains of a kind stand side by side."""
    with np.errstate(all="ignore"):
        _Search(chains, Lanes(
            [chain.follow.held for chain in chains],
            [chain.follow.target.estimate for chain in chains], system, criteria,
        )).run()  # fmt: skip


class _Search:
    """The inner searches of all lanes; numbers of lane l are at [..., l]."""

    def __init__(self, chains: Sequence[Chain], lanes: Lanes) -> None:
        self._chains, self._lanes = chains, lanes
        m, s = chains[0].follow.x0.size, len(chains)
        self._at = np.stack([chain.follow.x0 for chain in chains], axis=1)
        self._H0: Array3 = np.stack(
            [np.linalg.inv(chain.follow.hessian) for chain in chains], axis=2
        )
        self._H = self._H0.copy()
        self._x, self._gradient, self._step = self._at.copy(), np.zeros((m, s)), np.zeros((m, s))
        self._value, self._slope = np.zeros(s), np.zeros(s)
        self._going, self._first = np.zeros(s, dtype=bool), np.ones(s, dtype=bool)
        self._used = np.zeros(s, dtype=np.int64)
        self._tolerance = np.full(s, INNER_TOLERANCE)

    def run(self) -> None:
        """Search until every chain has come to its end."""
        waiting = list(range(len(self._chains)))
        while True:
            for lane in list(waiting):
                chain = self._chains[lane]
                if all(other.reached is not None for other in chain.after):
                    waiting.remove(lane)
                    zeros = [point for own in chain.after if (point := own.follow.zero)]
                    if zeros:
                        chain.follow.ceiling = min(zeros, key=lambda point: point.zeta)
                    self._advance(lane, None)
            if not self._going.any():
                return
            self._evaluate()

    def _evaluate(self) -> None:
        """Evaluate all lanes once, and take their next steps."""
        going = self._going
        value, gradient = self._lanes(self._at, going)
        self._used += going
        trial_slope = along(gradient * self._step)
        short = value <= self._value + ARMIJO * self._slope
        short |= (value <= self._value + ROUNDING * np.abs(self._value)) & (
            trial_slope <= (2.0 * ARMIJO - 1.0) * self._slope
        )
        accepted = short & ~(trial_slope < CURVATURE * self._slope) & ~self._first
        self._learn(accepted, gradient)
        taken = going & (accepted | self._first)
        self._x = np.where(taken, self._at, self._x)
        self._value = np.where(taken, value, self._value)
        self._gradient = np.where(taken, gradient, self._gradient)
        step = -product(self._H, self._gradient[:, None])[:, 0]
        slope = along(self._gradient * step)
        decrement = -0.5 * slope
        nothing = (self._gradient == 0.0).all(axis=0)
        close = decrement <= np.maximum(self._tolerance, EPS * np.abs(self._value))
        ended = taken & np.isfinite(self._value) & (nothing | ((slope < 0.0) & close))
        lost = going & ~ended & ~(taken & (slope < 0.0) & (self._used < INNER_EVALUATIONS))
        longest = (np.abs(step) / np.maximum(1.0, np.abs(self._x))).max(axis=0)
        shorter = np.where(longest > MAX_STEP, MAX_STEP / longest, 1.0)
        self._step, self._slope = shorter * step, shorter * slope
        self._at = np.where(going & ~ended & ~lost, self._x + self._step, self._at)
        self._first[:] = False
        for lane in np.flatnonzero(ended).tolist():
            least = float(self._value[lane] - decrement[lane])
            end = self._x[:, lane] + step[:, lane]
            self._advance(lane, (least - self._chains[lane].follow.least, end))
        for lane in np.flatnonzero(lost).tolist():
            self._alone(lane)

    def _learn(self, accepted: Flags, gradient: Matrix) -> None:
        """Renew the inverse Hessians by the steps that are accepted."""
        y = gradient - self._gradient
        sy = along(self._step * y)
        learns = self._going & accepted
        learns &= sy > 1e-10 * np.sqrt(along(self._step * self._step) * along(y * y))
        if not learns.any():
            return
        Hy = product(self._H, y[:, None])[:, 0]
        rho = 1.0 / np.where(learns, sy, 1.0)
        cross = (rho * Hy)[:, None] * self._step[None]
        on = ((1.0 + rho * along(y * Hy)) * rho * self._step)[:, None] * self._step[None]
        self._H = np.where(learns, self._H + on - cross - np.swapaxes(cross, 0, 1), self._H)

    def _advance(self, lane: int, found: tuple[float, Vector] | None) -> None:
        """Give a chain what was found, and take what it asks for next."""
        chain = self._chains[lane]
        chain.follow.n_evaluations += int(self._used[lane])
        self._used[lane] = 0
        try:
            asked = next(chain.steps) if found is None else chain.steps.send(found)
        except StopIteration as end:
            self._going[lane], chain.reached = False, bool(end.value)
            return
        chain.request = asked
        self._lanes.hold(lane, asked[0])
        self._at[:, lane] = asked[1]
        self._tolerance[lane] = chain.follow.tolerance(asked[1])
        self._going[lane], self._first[lane] = True, True

    def _alone(self, lane: int) -> None:
        """Search for a point by itself."""
        chain = self._chains[lane]
        chain.follow.inverse = self._H[..., lane].copy()
        try:
            found = chain.follow.solve(*chain.request)
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            chain.follow.failed, chain.reached = True, False
            self._going[lane] = False
            return
        known = chain.follow.inverse
        self._H[..., lane] = self._H0[..., lane] if known is None else known
        self._advance(lane, found)


def form_points(
    follows: Sequence[FollowInStep], system: PenalizedSystem, criteria: HeldCriteria, *, reml: bool
) -> None:
    """Fill in all points that were asked for."""
    points = [(one, *asked) for one in follows for asked in one.asked]
    held, values = [one.held for one, *_ in points], [c for *_, c, _ in points]
    x = np.stack([x for *_, x in points], axis=1)
    with np.errstate(all="ignore"):
        found = Lanes(held, values, system, criteria).states(x)
    for (one, point, c, at), state, beta, good in zip(points, *found, strict=True):
        if not good:  # digits are lost: the engine knows what to do
            try:
                alone = Follow.point(one, c, point.zeta, at)
            except (NotPositiveDefiniteError, np.linalg.LinAlgError):
                one.failed = True
                continue
            point.state, point.beta = alone.state, alone.beta
            continue
        point.state, own = one.formed(state, beta, c)
        if not reml:
            point.beta = own
