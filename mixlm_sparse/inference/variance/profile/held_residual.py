"""One parameter held in a model with a residual structure; rho is searched with the rest.

A natural parameter f_k of the residuals is held by the working parameter that it is a monotone
function of: rho_k = h(c, the rest of rho) with f_k(rho) = c, so that

    d rho_k / d rho_j = -(df_k / d rho_j) / (df_k / d rho_k).

For a correlation of an unstructured matrix visits are renumbered, its two being the first, where
C_12 = w / sqrt(1 + w^2) whatever the other parameters are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import scipy

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.visits import Unstructured
from mixlm_sparse.inference.variance.profile.held import (
    Flags,
    HeldVariance,
    State,
    off_saddle,
    undefined,
)
from mixlm_sparse.solve.criterion import profiled_sigma
from mixlm_sparse.solve.pls import solve_at, user_beta
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.criterion import evaluate_whitened
from mixlm_sparse.solve.whitened.held_column import HeldWhitenedColumn

# Working parameters beyond this are not told from their limit.
FARTHEST = 40.0
# A value this close to an end, as a share of the range, is the end.
AT_END = 1e-14


def residual_bounds(law: ResidualLaw, k: int) -> tuple[float, float]:
    """Return the least and greatest value that natural parameter k can have."""
    if law.parameters[k].link != "working":
        return -1.0, 1.0
    with np.errstate(over="ignore"):
        unit = abs(law.from_working(k, 1.0) - law.from_working(k, -1.0))
        ends = []
        for sign in (-1.0, 1.0):
            near, far = law.from_working(k, 600.0 * sign), law.from_working(k, 700.0 * sign)
            settled = abs(far - near) <= 1e-9 * unit
            ends.append(round(far, 12) if settled else math.copysign(math.inf, far - near))
    return min(ends), max(ends)


class HeldBesideResiduals:
    """A standard deviation, correlation or sigma held; x is that of `inner`, then rho."""

    def __init__(
        self, inner: HeldVariance, system: PenalizedSystem, rho: Vector, *, reml: bool
    ) -> None:
        self.system = system
        self._inner = inner
        self._rho = rho
        self._reml = reml

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        return np.concatenate([self._inner.start(), self._rho])

    @property
    def even(self) -> Flags:
        """Return which of x (d,) are diagonal elements of factors."""
        return np.concatenate([self._inner.even, np.zeros(self._rho.size, dtype=bool)])

    def _parts(self, x: Vector) -> tuple[Vector, Vector]:
        cut = x.size - self._rho.size
        return x[:cut], x[cut:]

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        own, rho = self._parts(x)
        if float(np.abs(rho).max()) > FARTHEST:
            return undefined(x)
        try:
            there = self.system.at_rho(rho)
            value, gradient = self._inner.value_and_gradient(c, own, there)
            if not math.isfinite(value):
                return undefined(x)
            state = self._inner.state(c, own)
            slopes = evaluate_whitened(
                there.chart.merge(state.blocks), there, reml=self._reml,
                log_sigma=math.log(state.sigma),
            )[2]  # fmt: skip
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            return undefined(x)
        return value, np.concatenate([gradient, slopes])

    def state(self, c: float, x: Vector) -> State:
        """Return the factors, sigma and natural parameters of the residuals at this point."""
        own, rho = self._parts(x)
        inner = self._inner.state(c, own)
        assert self.system.whitened is not None
        return State(inner.blocks, inner.sigma, self.system.whitened.law.natural(rho)[0])

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        own, rho = self._parts(x)
        there = self.system.at_rho(rho)
        at = solve_at(there.chart.merge(self._inner.state(c, own).blocks), there)
        return user_beta(at.beta, there.products)


class _Centered:
    """What holds a residual parameter or a coefficient: phi by the centered law, sigma profiled.

    x is (phi, what is free of rho).
    """

    def __init__(
        self, system: PenalizedSystem, phi: Vector, rho: Vector, *, reml: bool
    ) -> None:
        assert system.whitened is not None
        self.system = system
        self._reml = reml
        self._rho = rho
        self._m = phi.size
        self._phi = off_saddle(system.chart.scaled(phi, 1.0 / _size(system, rho)), system)

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        raise NotImplementedError

    @property
    def even(self) -> Flags:
        """Return which of x (d,) are diagonal elements of factors."""
        of_rho = np.zeros(self.start().size - self._m, dtype=bool)
        return np.concatenate([self.system.lower == 0.0, of_rho])

    def rho(self, c: float, x: Vector) -> tuple[Vector, Vector]:
        """Return rho (n_rho,) at this point and what a slope by rho_k adds to the free ones."""
        raise NotImplementedError

    def at(self, c: float, rho: Vector) -> PenalizedSystem:
        """Return the system whose criterion this is."""
        return self.system.at_rho(rho, centered=True)

    def free(self, slopes: Vector, change: Vector) -> Vector:
        """Return the derivative by what is free of rho from that by rho."""
        return slopes

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        phi = x[: self._m]
        try:
            rho, change = self.rho(c, x)
            if float(np.abs(rho).max()) > FARTHEST:
                return undefined(x)
            there = self.at(c, rho)
            value, G, slopes, _ = evaluate_whitened(
                there.chart.lambdas(phi), there, reml=self._reml
            )
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            return undefined(x)
        if not math.isfinite(value):
            return undefined(x)
        own = there.chart.pull_back(phi, there.chart.split(G)) if phi.size else phi
        return value, np.concatenate([own, self.free(slopes, change)])

    def _solved(self, c: float, x: Vector) -> tuple[PenalizedSystem, State, Vector]:
        phi = x[: self._m]
        rho, _ = self.rho(c, x)
        there = self.at(c, rho)
        found = solve_at(there.chart.lambdas(phi), there)
        size = _size(there, rho)
        sigma = profiled_sigma(found.pwrss, there, reml=self._reml) / size
        blocks = there.chart.factors(there.chart.scaled(phi, size))
        return there, State(blocks, sigma, self.natural(rho)), found.beta

    def natural(self, rho: Vector) -> Vector:
        """Return the natural parameters of the residuals in the user's order."""
        assert self.system.whitened is not None
        return self.system.whitened.law.natural(rho)[0]

    def state(self, c: float, x: Vector) -> State:
        """Return the factors, sigma and natural parameters of the residuals at this point."""
        return self._solved(c, x)[1]

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        there, _, beta = self._solved(c, x)
        return user_beta(beta, there.products)


class HeldResidual(_Centered):
    """A natural parameter of the residuals held; x is phi and the rest of rho."""

    def __init__(
        self, system: PenalizedSystem, phi: Vector, rho: Vector, k: int, *, reml: bool
    ) -> None:
        assert system.whitened is not None
        law = system.whitened.law
        self._k, self._order = k, np.arange(law.places.T)
        if isinstance(law.correlation, Unstructured) and k < law.variance_part.start:
            system, rho = self._renumbered(system, rho, k)
            self._k = law.part(k // law.n_correlation).start
        self._bounds = residual_bounds(law, k)
        super().__init__(system, phi, rho, reml=reml)

    def _renumbered(
        self, system: PenalizedSystem, rho: Vector, k: int
    ) -> tuple[PenalizedSystem, Vector]:
        """Make the two visits of correlation k the first; return system and rho for that."""
        assert system.whitened is not None
        frame = system.whitened.frame
        law = frame.law
        T = law.places.T
        pair = [int(i[k % law.n_correlation]) for i in np.triu_indices(T, 1)]
        self._order = np.array(pair + [i for i in range(T) if i not in pair])
        place = np.argsort(self._order)
        law = replace(law, t=place[law.t.astype(np.intp)].astype(np.float64))
        turned = rho.copy()
        for s in range(len(law.strata)):
            C = np.eye(T)
            upper = np.triu_indices(T, 1)
            C[upper] = law.natural(rho)[0][law.part(s)]
            C = np.triu(C, 1) + np.triu(C, 1).T + np.eye(T)
            turned[law.part(s)] = Unstructured.omega_of(C[np.ix_(self._order, self._order)])
        whitened = replace(frame, law=law).at(rho=turned, centered=False)
        return replace(system, whitened=whitened, products=whitened.products), turned

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        return np.concatenate([self._phi, np.delete(self._rho, self._k)])

    def rho(self, c: float, x: Vector) -> tuple[Vector, Vector]:
        assert self.system.whitened is not None
        law, k = self.system.whitened.law, self._k
        rho = np.insert(x[self._m :], k, 0.0)

        def off(omega: float) -> float:
            rho[k] = omega
            return float(law.natural(rho)[0][k]) - c

        ends = off(-FARTHEST), off(FARTHEST)
        low, high = self._bounds
        room = AT_END * (high - low) if math.isfinite(high - low) else 0.0
        if min(c - low, high - c) <= room:  # the end of the range, where nothing moves with it
            rho[k] = FARTHEST if abs(ends[1]) < abs(ends[0]) else -FARTHEST
            return rho, np.zeros(rho.size - 1)
        if not ends[0] * ends[1] < 0.0:
            raise NotPositiveDefiniteError("the others leave no room for this value")
        rho[k] = scipy.optimize.brentq(off, -FARTHEST, FARTHEST, xtol=1e-14, rtol=1e-14)
        slopes = law.natural(rho)[1][k]
        if not abs(slopes[k]) > 0.0:
            raise NotPositiveDefiniteError("the value is at the end of its range")
        return rho, np.delete(-slopes / slopes[k], k)

    def free(self, slopes: Vector, change: Vector) -> Vector:
        out: Vector = np.delete(slopes, self._k) + slopes[self._k] * change
        return out

    def natural(self, rho: Vector) -> Vector:
        assert self.system.whitened is not None
        law = self.system.whitened.law
        out = law.natural(rho)[0]
        if not np.array_equal(self._order, np.arange(self._order.size)):
            T, upper = law.places.T, np.triu_indices(law.places.T, 1)
            place = np.argsort(self._order)
            for s in range(len(law.strata)):
                C = np.zeros((T, T))
                C[upper] = out[law.part(s)]
                out[law.part(s)] = (C + C.T)[np.ix_(place, place)][upper]
        return out


class HeldWhitenedCoefficient(_Centered):
    """A coefficient held; x is (phi, rho), sigma and the others are profiled out.  ML."""

    def __init__(self, system: PenalizedSystem, phi: Vector, rho: Vector, column: int) -> None:
        super().__init__(system, phi, rho, reml=False)
        self._column = column
        self._held = HeldWhitenedColumn(system, column)

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        return np.concatenate([self._phi, self._rho])

    def rho(self, c: float, x: Vector) -> tuple[Vector, Vector]:
        return x[self._m :], x[:0]

    def at(self, c: float, rho: Vector) -> PenalizedSystem:
        return self._held.at(c, rho)

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        out = np.empty(self.system.p)
        out[self._column] = c
        out[self._held.rest] = super().beta(c, x)
        return out


def _size(system: PenalizedSystem, rho: Vector) -> float:
    """Return the sigma of the centered law over the user's."""
    assert system.whitened is not None
    law = system.whitened.law
    if law.variance is None:
        return 1.0
    log_sd = law.variance.log_sd(law.x, rho[law.variance_part], law.values)
    return math.exp(float(log_sd.mean()))
