"""Follow the profile of each parameter outward from the optimum."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.threads import blas_threads
from mixlm_sparse.inference.variance.components import variance_components
from mixlm_sparse.inference.variance.profile.curve import ParameterProfile, Profile
from mixlm_sparse.inference.variance.profile.held import (
    Held,
    HeldCoefficient,
    HeldInFactor,
    HeldSigma,
)
from mixlm_sparse.model.parameters import (
    VarianceParameter,
    chosen_names,
    parameter_values,
    relative_lengths,
    require_level,
    variance_parameters,
)
from mixlm_sparse.solve.joint import user_factors, working_factors
from mixlm_sparse.solve.search.bfgs import minimize_bfgs
from mixlm_sparse.solve.search.search import Optimum, optimize

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel
    from mixlm_sparse.solve.pls import PenalizedSystem

# Points per side up to the largest zeta; splines through them are exact to about 1e-5.
POINTS = 8
# A step that moves zeta by more than this many spacings is halved and tried again.
TOO_FAR = 2.0
MAX_POINTS = 60
# An inner search ends when a Newton step would win less than this.
INNER_TOLERANCE = 1e-9
INNER_EVALUATIONS = 200
# A criterion this far below the optimum's is another, better optimum.
BETTER = 1e-5
# Structures whose standard deviations and correlations can be held.
HELD_STRUCTURES = ("us", "diag", "id")


def profile(
    fit: FittedModel,
    which: object = None,
    *,
    level_max: float = 0.999,
    reml: bool = False,
    n_jobs: int = 1,
    progress: Progress = None,
) -> Profile:
    """Profile the deviance of a fit.  See `VarianceInferenceMethods.profile`."""
    began = time.perf_counter()
    level_max = require_level(level_max, "level_max")
    if fit.perfect:
        raise OptionError(
            "the fixed effects fit the response exactly: sigma is zero and nothing can be profiled"
        )
    if reml and not fit.reml:
        raise OptionError(
            "reml=True profiles the REML criterion, but the fit is by ML: profile "
            "fit.refit_reml(), or leave reml out"
        )
    parameters = variance_parameters(fit.system)
    known = [par.name for par in parameters]
    coefficients = [] if reml else list(fit.system.x_names)
    if reml and which is not None:
        # a coefficient by name deserves its own answer
        asked = chosen_names(which, known + list(fit.system.x_names), "which")
        if any(name in fit.system.x_names for name in asked):
            raise OptionError(
                "coefficients have no REML profile, for the criterion depends on the fixed part: "
                "leave reml=True out, or name variance parameters only"
            )
    names = chosen_names(which, known + coefficients, "which")
    structured = [
        par.name
        for par in parameters
        if par.term >= 0
        and fit.matrices.terms[par.term].structure not in HELD_STRUCTURES
        and par.name in names
    ]
    if structured and which is not None:
        raise OptionError(
            f"{structured[0]} belongs to a structured term, whose parameters are functions of "
            "fewer ones and cannot be held one at a time: use method='wald' or method='boot'"
        )
    names = [name for name in names if name not in structured]

    base = _ml_or_reml(fit, reml)
    system = fit.system

    def work(tasks: range) -> list[tuple[ParameterProfile, int]]:
        with blas_threads(system.engine.dense_order, system.q):
            return [_Task(fit, base, parameters, names[i], level_max, reml).run() for i in tasks]

    results, _ = run(work, len(names), 1, n_jobs=n_jobs, progress=progress)
    return Profile(
        curves=tuple(curve for curve, _ in results),
        parameters=tuple(known + list(fit.system.x_names)),
        level_max=level_max,
        reml=reml,
        n_evaluations=sum(count for _, count in results),
        seconds=time.perf_counter() - began,
    )


class _Base:
    """The unconstrained optimum that profiles start from."""

    def __init__(self, fit: FittedModel, optimum: Optimum, sigma: float, reml: bool) -> None:
        self.phi = optimum.phi
        self.criterion = optimum.criterion
        self.sigma = sigma
        self.reml = reml
        self.fit = fit
        self.standard_errors = variance_components(fit)["std_error"].to_numpy()


def _ml_or_reml(fit: FittedModel, reml: bool) -> _Base:
    base = fit if reml else fit.refit_ml()
    # ends of profiles are differences of criteria: start from the last digit
    optimum = base.optimum
    if optimum.optimizer not in ("bfgs", "lbfgsb"):
        optimum = optimize(base.system, reml=reml, start=optimum.theta)
    return _Base(base, optimum, base.sigma, reml)


class _Task:
    """The profile of one parameter."""

    def __init__(
        self,
        fit: FittedModel,
        base: _Base,
        parameters: tuple[VarianceParameter, ...],
        name: str,
        level_max: float,
        reml: bool,
    ) -> None:
        self.base = base
        self.parameters = parameters
        self.name = name
        self.z_max = float(ndtri(0.5 + 0.5 * level_max))
        self.reml = reml
        self.n_evaluations = 0
        self._system = fit.system

    def run(self) -> tuple[ParameterProfile, int]:
        """Return the profile and the number of evaluations it took."""
        return self._curve(self._system), self.n_evaluations

    def _curve(self, system: PenalizedSystem) -> ParameterProfile:
        base = self.base
        blocks = working_factors(base.phi, system)
        at_optimum = parameter_values(self.parameters, user_factors(blocks, system), base.sigma)
        variance = {
            par.name: (par, value) for par, value in zip(self.parameters, at_optimum, strict=True)
        }
        if self.name in variance:
            par, estimate = variance[self.name]
            bounds = par.bounds
            held: Held
            if par.kind == "sigma":
                held = HeldSigma(system, base.phi, reml=self.reml)
            else:
                held = HeldInFactor(system, base.phi, base.sigma, par, reml=self.reml)
            spread = self._spread(par, estimate)
        else:
            column = list(system.x_names).index(self.name)
            estimate = float(base.fit.solution.beta[column])
            bounds = (-math.inf, math.inf)
            held = HeldCoefficient(system, base.phi, column)
            spread = float(base.fit.standard_errors[column])
        if math.isnan(estimate):
            return self._undefined(bounds)
        follow = _Follow(self, held, estimate, bounds, spread)
        if self.name in variance and par.kind == "cor":
            follow.ceiling = self._ceiling(par, variance, system)
        return follow.curve()

    def _ceiling(
        self,
        par: VarianceParameter,
        variance: dict[str, tuple[VarianceParameter, float]],
        system: PenalizedSystem,
    ) -> _Point:
        """Return the least criterion with one of the two standard deviations at zero.

        There every value of the correlation is as good as any other, so no profile of it rises
        above; a search that stays inside would not notice.
        """
        points = []
        for sd, value in variance.values():
            if sd.kind == "sd" and sd.term == par.term and sd.row in (par.row, par.column):
                held = HeldInFactor(system, self.base.phi, self.base.sigma, sd, reml=self.reml)
                follow = _Follow(self, held, float(value), sd.bounds, self._spread(sd, value))
                drop, x = follow.solve(0.0, follow.x0)
                points.append(_Point(0.0, math.sqrt(max(drop, 0.0)), x, held))
        return min(points, key=lambda point: point.zeta)

    def _spread(self, par: VarianceParameter, estimate: float) -> float:
        """Return a first guess of the standard error."""
        se = float(self.base.standard_errors[self.parameters.index(par)])
        if math.isfinite(se) and se > 0.0:
            return min(se, 0.3) if par.kind == "cor" else min(se, 0.5 * max(estimate, 1e-300))
        if par.kind == "cor":
            return 0.2
        length = relative_lengths(self.base.fit.system)[par.term][par.row]
        return 0.2 * self.base.sigma / float(length)

    def _undefined(self, bounds: tuple[float, float]) -> ParameterProfile:
        width = len(self.parameters) + self._system.p
        return ParameterProfile(
            name=self.name,
            estimate=math.nan,
            values=np.empty(0),
            zeta=np.empty(0),
            others=np.empty((0, width)),
            bounds=bounds,
            reached=(False, False),
            note="undefined: a standard deviation is estimated as zero",
        )


@dataclass(frozen=True, slots=True)
class _Point:
    """A point of a profile: held value, |zeta|, the rest, and the function it is a minimum of."""

    value: float
    zeta: float
    x: Vector
    held: Held


class _Follow:
    """Steps along one profile, both ways from the estimate."""

    def __init__(
        self,
        task: _Task,
        held: Held,
        estimate: float,
        bounds: tuple[float, float],
        spread: float,
    ) -> None:
        self.task = task
        self.held = held
        self.estimate = estimate
        self.bounds = bounds
        self.spread = spread
        self.least = task.base.criterion
        self.notes: list[str] = []
        self.x0 = held.start()
        self.hessian = self._hessian(self.x0)
        self.points: list[tuple[float, float, _Point]] = []  # value, signed zeta, where
        self.ceiling: _Point | None = None

    def _hessian(self, x: Vector) -> Matrix:
        """Return a positive definite curvature at x, by differences of the gradient."""
        c = self._inside(self.estimate)
        d = x.size
        H = np.empty((d, d))
        step = 1e-3
        for i in range(d):
            e = np.zeros(d)
            e[i] = step
            up = self._call(c, x + e)[1]
            down = self._call(c, x - e)[1]
            H[i] = (up - down) / (2.0 * step)
        if not np.isfinite(H).all():
            return np.eye(d)
        values, vectors = np.linalg.eigh(0.5 * (H + H.T))
        floor = 1e-3 * max(float(np.abs(values).max(initial=0.0)), 1e-6)
        out: Matrix = (vectors * np.maximum(np.abs(values), floor)) @ vectors.T
        return out

    def _inside(self, c: float) -> float:
        """Return c moved off a bound, where a derivative by the rest may not exist."""
        lower, upper = self.bounds
        if self.task.name == "sigma":
            return c
        margin = 0.1 * self.spread
        return min(max(c, lower + margin), upper - margin)

    def _call(self, c: float, x: Vector) -> tuple[float, Vector]:
        self.task.n_evaluations += 1
        return self.held.value_and_gradient(c, x)

    def solve(self, c: float, guess: Vector) -> tuple[float, Vector]:
        """Minimize over the rest; return zeta^2 and x."""
        if guess.size == 0:
            return self._call(c, guess)[0] - self.least, guess
        found = minimize_bfgs(
            lambda x: self._call(c, x),
            guess,
            self.hessian,
            tolerance=INNER_TOLERANCE,
            max_evaluations=INNER_EVALUATIONS,
        )
        return found.value - self.least, found.x

    def curve(self) -> ParameterProfile:
        at_estimate = _Point(self.estimate, 0.0, self.x0, self.held)
        self.points.append((self.estimate, 0.0, at_estimate))
        reached = self._side(-1.0), self._side(1.0)
        self.points.sort(key=lambda point: point[0])
        values = np.array([c for c, _, _ in self.points])
        zeta = np.array([z for _, z, _ in self.points])
        if (np.diff(zeta) < -1e-4).any():
            self._note("zeta is not monotone: the criterion has more than one minimum")
        return ParameterProfile(
            name=self.task.name,
            estimate=self.estimate,
            values=values,
            zeta=zeta,
            others=np.array([self._others(c, point) for c, _, point in self.points]),
            bounds=self.bounds,
            reached=reached,
            note="; ".join(self.notes),
        )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _others(self, c: float, point: _Point) -> Vector:
        """Return all parameters at a point; the held one is c also where it has no influence."""
        task = self.task
        state = point.held.state(point.value, point.x)
        found = parameter_values(
            task.parameters, user_factors(state.blocks, self.held.system), state.sigma
        )
        for at, par in enumerate(task.parameters):
            if par.name == task.name:
                found[at] = c
        beta = np.full(self.held.system.p, np.nan)
        if not task.reml:
            beta = point.held.beta(point.value, point.x)
        return np.concatenate([found, beta])

    def _side(self, sign: float) -> bool:
        """Follow one side; return whether zeta got past the largest that is asked for."""
        z_max = self.task.z_max
        spacing = z_max / POINTS
        bound = self.bounds[0] if sign < 0.0 else self.bounds[1]
        last: list[tuple[float, float, Vector]] = [(self.estimate, 0.0, self.x0)]
        if self.estimate == bound:
            return False
        step = spacing * self.spread
        for _ in range(MAX_POINTS):
            c0, z0, _ = last[-1]
            c = c0 + sign * step
            at_bound = sign * (c - bound) >= 0.0
            if self.task.name == "sigma" and sign < 0.0 and c <= 0.3 * c0:
                c, at_bound = 0.5 * c0, False  # zeta is infinite at zero
            elif at_bound:
                c = bound
            drop, x = self.solve(c, self._predicted(last, c))
            if drop < -BETTER:
                self._note(
                    "the criterion is lower elsewhere: refit with another start or optimizer"
                )
            z = math.sqrt(max(drop, 0.0)) if math.isfinite(drop) else math.inf
            if self.ceiling is not None and z > self.ceiling.zeta:
                for at in {c, bound}:
                    self.points.append((at, sign * self.ceiling.zeta, self.ceiling))
                return self.ceiling.zeta >= z_max
            moved = z - z0
            if not math.isfinite(z) or moved > TOO_FAR * spacing:
                if abs(c - c0) > 1e-6 * max(abs(c0), self.spread):
                    step = 0.5 * abs(c - c0)
                    if math.isfinite(z) and moved > 0.0:
                        step = abs(c - c0) * max(0.1, min(0.6, spacing / moved))
                    continue
            if not math.isfinite(z):
                self._note("the criterion is not defined beyond the last point")
                return False
            last.append((c, z, x))
            self.points.append((c, sign * z, _Point(c, z, x, self.held)))
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
        return out
