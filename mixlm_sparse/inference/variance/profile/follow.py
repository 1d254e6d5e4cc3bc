"""Step along the profile of one parameter, both ways from its estimate."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.variance.profile.curve import ParameterProfile
from mixlm_sparse.inference.variance.profile.held import Held, State
from mixlm_sparse.model.parameters import VarianceParameter, parameter_values
from mixlm_sparse.solve.search.bfgs import minimize_bfgs

# Points per side up to the largest zeta; splines through them are exact to about 1e-5.
POINTS = 8
# A step that moves zeta by more than this many spacings is halved and tried again.
TOO_FAR = 2.0
MAX_POINTS = 60
# An inner search ends when a Newton step would win less than this; the step is taken and its gain
# counted as predicted, which is right to a tenth or so with the curvature that is carried along.
INNER_TOLERANCE = 1e-6
INNER_EVALUATIONS = 200
# The same where a variance may be on its way off zero: curvature is then far less than what is
# carried along, and a step wins far more than is predicted.
NEAR_SADDLE_TOLERANCE = 1e-9
# Of the differences that the curvature at the estimate is formed from.
CURVATURE_STEP = 1e-3
# What a diagonal element that may be on a saddle is off it when a search begins, by the criterion.
LEAVING = 0.05
# A criterion this far below the optimum's is another, better optimum.
BETTER = 1e-5


@dataclass(frozen=True, slots=True)
class Target:
    """The parameter that is held.

    Parameters
    ----------
    kind : "sd", "cor", "sigma", "residual" or "beta"; name : as tables print it.
    estimate : where zeta is zero; bounds : least and greatest value.
    spread : first guess of its standard error.
    place : index among the variance parameters, those of the residuals after sigma, or of the
        coefficient.
    """

    kind: str
    name: str
    estimate: float
    bounds: tuple[float, float]
    spread: float
    place: int


@dataclass(slots=True)
class Point:
    """A point of a profile: |zeta|, and where the criterion is least with the parameter held.

    beta (p,) is NaN where the REML criterion is profiled.
    """

    zeta: float
    state: State
    beta: Vector


def positive(H: Matrix) -> Matrix:
    """Return a positive definite matrix for any (d, d); the identity if it is not finite."""
    if not np.isfinite(H).all():
        return np.eye(H.shape[0])
    values, vectors = np.linalg.eigh(0.5 * (H + H.T))
    floor = 1e-3 * max(float(np.abs(values).max(initial=0.0)), 1e-6)
    out: Matrix = (vectors * np.maximum(np.abs(values), floor)) @ vectors.T
    return out


class Follow:
    """Steps along one profile, both ways from the estimate."""

    def __init__(
        self,
        target: Target,
        held: Held,
        parameters: tuple[VarianceParameter, ...],
        least: float,
        z_max: float,
        *,
        reml: bool,
    ) -> None:
        self.target = target
        self.held = held
        self.n_evaluations = 0
        self.x0 = held.start()
        self.ceiling: Point | None = None
        self.least = least
        self.inverse: NDArray[Any] | None = None
        self.zero: Point | None = None
        self.asked: list[tuple[Point, float, Vector]] = []
        self._parameters = parameters
        self._z_max = z_max
        self._reml = reml
        self._notes: list[str] = []
        self._points: list[tuple[float, float, Point]] = []  # value, signed zeta, where

    @cached_property
    def hessian(self) -> Matrix:
        """(d, d) positive definite curvature at the estimate, by differences of the gradient."""
        c, x = self.inside, self.x0
        H = np.empty((x.size, x.size))
        for i, e in enumerate(CURVATURE_STEP * np.eye(x.size)):
            up = self._call(c, x + e)[1]
            down = self._call(c, x - e)[1]
            H[i] = (up - down) / (2.0 * CURVATURE_STEP)
        return positive(H)

    @cached_property
    def least_sizes(self) -> Vector:
        """(d,) sizes of diagonal elements that are seen, by the curvature at the estimate."""
        return np.where(self.held.even, np.sqrt(2.0 * LEAVING / np.diag(self.hessian)), 0.0)

    def _off_saddle(self, x: Vector) -> Vector:
        """Return a guess x (d,) with no diagonal element so small that its slope is not seen.

        A variance that is zero at the estimate often is not farther along the curve: the criterion
        is even in it, and a search that begins at zero stays there, on a saddle.
        """
        sizes = self.least_sizes
        return np.where(np.abs(x) < sizes, np.copysign(sizes, x), x)

    def tolerance(self, guess: Vector) -> float:
        """Return what a Newton step may win at the end of a search from a guess (d,)."""
        near = (np.abs(guess) <= self.least_sizes) & self.held.even
        return NEAR_SADDLE_TOLERANCE if near.any() else INNER_TOLERANCE

    @property
    def inside(self) -> float:
        """The estimate, moved off a bound, where a derivative by the rest may not exist."""
        c, (lower, upper) = self.target.estimate, self.target.bounds
        if self.target.kind == "sigma":
            return c
        margin = 0.1 * self.target.spread
        return min(max(c, lower + margin), upper - margin)

    def _call(self, c: float, x: Vector) -> tuple[float, Vector]:
        self.n_evaluations += 1
        return self.held.value_and_gradient(c, x)

    def solve(self, c: float, guess: Vector) -> tuple[float, Vector]:
        """Minimize over the rest; return zeta^2 and x."""
        if guess.size == 0:
            return self._call(c, guess)[0] - self.least, guess
        found = minimize_bfgs(
            lambda x: self._call(c, x),
            guess,
            self.hessian,
            inverse=self.inverse,
            tolerance=self.tolerance(guess),
            max_evaluations=INNER_EVALUATIONS,
        )
        if found.status != "converged":
            self.inverse = None
            return found.value - self.least, found.x
        self.inverse = found.inverse  # changes little from point to point
        step = found.inverse @ found.gradient
        return found.value - found.decrement - self.least, found.x - step

    def begin(self) -> None:
        """Put down the point at the estimate."""
        at_estimate = self.point(self.target.estimate, 0.0, self.x0)
        self._points.append((self.target.estimate, 0.0, at_estimate))

    def followed(self) -> ParameterProfile:
        """Follow both sides, one point after another."""
        self.begin()
        return self.curve((self._side(-1.0), self._side(1.0)))

    def _side(self, sign: float) -> bool:
        self.inverse = None
        steps = self.steps(sign)
        try:
            asked = next(steps)
            while True:
                asked = steps.send(self.solve(*asked))
        except StopIteration as end:
            return bool(end.value)

    def curve(self, reached: tuple[bool, bool]) -> ParameterProfile:
        """Return the curve of all points that were found."""
        self._points.sort(key=lambda point: point[0])
        values = np.array([c for c, _, _ in self._points])
        zeta = np.array([z for _, z, _ in self._points])
        if (np.diff(zeta) < -1e-4).any():
            self._note("zeta is not monotone: the criterion has more than one minimum")
        return ParameterProfile(
            kind=self.target.kind,
            name=self.target.name,
            estimate=self.target.estimate,
            values=values,
            zeta=zeta,
            others=self._others(values, [point for _, _, point in self._points]),
            bounds=self.target.bounds,
            reached=reached,
            note="; ".join(self._notes),
        )

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def point(self, c: float, zeta: float, x: Vector) -> Point:
        """Return the point at a value and the rest; asked where the value was held last."""
        beta = np.full(self.held.system.p, np.nan) if self._reml else self.held.beta(c, x)
        return Point(zeta, self.held.state(c, x), beta)

    def _others(self, values: Vector, points: list[Point]) -> Matrix:
        """Return all parameters at r points; the held one also where it has no influence."""
        states = [point.state for point in points]
        blocks = [np.array(T) for T in zip(*(state.blocks for state in states), strict=True)]
        found = parameter_values(
            self._parameters,
            self.held.system.chart.user_factors(blocks),
            np.array([state.sigma for state in states]),
        )
        found = np.column_stack([found, np.array([state.residual for state in states])])
        if self.target.kind != "beta":
            found[:, self.target.place] = values
        return np.column_stack([found, np.array([point.beta for point in points])])

    def at_zero(self) -> Generator[tuple[float, Vector], tuple[float, Vector], bool]:
        """Ask for the least criterion with the held standard deviation at zero."""
        drop, x = yield 0.0, self.x0
        self.zero = self.point(0.0, math.sqrt(max(drop, 0.0)), x)
        return True

    def steps(
        self, sign: float
    ) -> Generator[tuple[float, Vector], tuple[float, Vector], bool]:
        """Follow one side; return whether zeta got past the largest that is asked for.

        Yields values and guesses of the rest, and is sent what `solve` returns there.
        """
        z_max = self._z_max
        spacing = z_max / POINTS
        bound = self.target.bounds[0] if sign < 0.0 else self.target.bounds[1]
        last: list[tuple[float, float, Vector]] = [(self.target.estimate, 0.0, self.x0)]
        if self.target.estimate == bound:
            return False
        step = spacing * self.target.spread
        for _ in range(MAX_POINTS):
            c0, z0, _ = last[-1]
            c = c0 + sign * step
            at_bound = sign * (c - bound) >= 0.0
            if self.target.kind == "sigma" and sign < 0.0 and c <= 0.3 * c0:
                c, at_bound = 0.5 * c0, False  # zeta is infinite at zero
            elif at_bound:
                c = bound
            drop, x = yield c, self._off_saddle(self._predicted(last, c))
            if drop < -BETTER:
                self._note(
                    "the criterion is lower elsewhere: refit with another start or optimizer"
                )
            z = math.sqrt(max(drop, 0.0)) if math.isfinite(drop) else math.inf
            if self.ceiling is not None and z > self.ceiling.zeta:
                for at in {c, bound}:
                    self._points.append((at, sign * self.ceiling.zeta, self.ceiling))
                return self.ceiling.zeta >= z_max
            moved = z - z0
            if not math.isfinite(z) or moved > TOO_FAR * spacing:
                if abs(c - c0) > max(1e-6 * self.target.spread, 1e-15 * abs(c0)):
                    step = 0.5 * abs(c - c0)
                    if math.isfinite(z) and moved > 0.0:
                        step = abs(c - c0) * max(0.1, min(0.6, spacing / moved))
                    continue
            if not math.isfinite(z):
                self._note("the criterion is not defined beyond the last point")
                return False
            last.append((c, z, x))
            self._points.append((c, sign * z, self.point(c, z, x)))
            if z >= z_max * (1.0 + 1e-9):
                return True
            if at_bound:
                return False
            growth = 2.5 if moved <= 0.0 else min(2.5, max(0.3, spacing / moved))
            if z + moved * growth < z_max < z + 1.2 * moved * growth:
                growth *= 1.25  # do not stop just short of the end
            step = abs(c - c0) * growth
        self._note("the profile is too flat to be followed to its end")
        return False

    def _predicted(self, last: list[tuple[float, float, Vector]], c: float) -> Vector:
        """Extrapolate the rest along the path."""
        if len(last) < 3:
            # the first point may sit beside a saddle: no direction to be had from it
            return last[-1][2]
        (c1, _, x1), (c2, _, x2) = last[-2], last[-1]
        share = min((c - c2) / (c2 - c1), 2.0)
        out: Vector = x2 + share * (x2 - x1)
        if len(last) > 3 and share < 2.0:  # a parabola through three points: an evaluation less
            c0, _, x0 = last[-3]
            bend = (x2 - x1) / (c2 - c1) - (x1 - x0) / (c1 - c0)
            out = out + (c - c2) * (c - c1) / (c2 - c0) * bend
        return out
