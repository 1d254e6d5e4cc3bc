"""Criteria of a profile's points side by side: lane l has a parameter held at a value of its own.

Every lane has as many free parameters x as the model has theta.  What a parameter means in the
factor of its term is that of `held_factor`; sigma and coefficients are held beside phi (`held`).
Lanes that hold the same kind of parameter of the same term go through the same calls of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.lockstep.arrays import along, product, transposed
from mixlm_sparse.engines.fused.lockstep.held import HeldCriteria, HeldValues, Holding
from mixlm_sparse.inference.variance.profile.held import (
    Held,
    HeldCoefficient,
    HeldSigma,
    State,
)
from mixlm_sparse.inference.variance.profile.held_factor import HeldInFactor
from mixlm_sparse.solve.products.basis import triangular_inverse
from mixlm_sparse.solve.system import PenalizedSystem

Flags = NDArray[np.bool_]


def can_be_lane(held: Held) -> bool:
    """Say whether there is a group for what is held."""
    return isinstance(held, HeldSigma | HeldCoefficient | HeldInFactor)


def kind_of_lane(held: Held) -> tuple[int, int]:
    """Return what lanes have in common that can stand in one group."""
    if isinstance(held, HeldInFactor):
        return held.parameter.term, int(held.correlation)
    return -1, 0


class Lanes:
    """Criteria of one model, s of them; values are set lane by lane.

    Parameters
    ----------
    held : (s,) what each lane holds, those of a kind side by side (see `kind_of_lane`).
    values : (s,) at which.
    """

    def __init__(
        self, held: Sequence[Held], values: Sequence[float], system: PenalizedSystem,
        criteria: HeldCriteria,
    ) -> None:  # fmt: skip
        s = len(held)
        self._system, self._criteria = system, criteria
        self.values = np.array(values, dtype=np.float64)
        self._groups: list[tuple[slice, _Phi | _InFactor]] = []
        first = 0
        for (term, _), own in groupby(held, key=kind_of_lane):
            some = list(own)
            at = slice(first, first + len(some))
            group = _Phi(some, criteria) if term < 0 else _InFactor(some, criteria)
            self._groups.append((at, group))
            first = at.stop
        self._sigma = np.array([not isinstance(one, HeldCoefficient) for one in held])
        self._contrast = np.zeros((system.p, s))
        for lane, one in enumerate(held):
            if isinstance(one, HeldCoefficient):
                self._contrast[:, lane] = one.row
        self._ols = np.array([
            system.products.beta_ols[one.column] if isinstance(one, HeldCoefficient) else 0.0
            for one in held
        ])  # fmt: skip
        for lane in range(s):
            self.hold(lane, float(self.values[lane]))

    def hold(self, lane: int, value: float) -> None:
        """Hold the parameter of a lane at another value."""
        self.values[lane] = value
        for at, group in self._groups:
            if at.start <= lane < at.stop:
                group.hold(lane - at.start, value)

    def _placed(self, x: Matrix) -> tuple[list[Array3], Holding]:
        """Return T of every term (k, k, s), and what is held."""
        log_sigma = np.zeros(x.shape[1])
        parts = []
        for at, group in self._groups:
            factors, log_sigma[at] = group.factors(x[:, at], self.values[at])
            parts.append(factors)
        factors = parts[0] if len(parts) == 1 else [
            np.concatenate(own, axis=2) for own in zip(*parts, strict=True)
        ]  # fmt: skip
        return factors, Holding(self._sigma, log_sigma, self._contrast, self.values - self._ols)

    def __call__(self, x: Matrix, going: Flags | None = None) -> tuple[Vector, Matrix]:
        """Return criteria (s,) and gradients (m, s) at x (m, s); inf where there is none.

        Parameters
        ----------
        going : (s,) lanes that are asked for; what is returned for others has no meaning.
        """
        model = self._criteria
        factors, holding = self._placed(x)
        lambdas = model.merged(factors)
        if going is None or not model.costly or going.all():
            found = model.held_at(lambdas, holding)
        else:
            at = np.flatnonzero(going)
            some = model.held_at([lam[..., at] for lam in lambdas], holding.take(at))
            found = _spread(some, at, going.size)
        slopes = model.split(found.slopes)
        gradient = [
            group.gradient([G[..., at] for G in slopes], found.log_sigma_slope[at])
            for at, group in self._groups
        ]
        return found.value, np.concatenate(gradient, axis=1)

    def states(self, x: Matrix) -> tuple[list[State], Matrix, list[bool]]:
        """Return the points of the model at x (m, s), coefficients (s, p), and if there is one."""
        factors, holding = self._placed(x)
        found = self._criteria.held_at(self._criteria.merged(factors), holding)
        sigma = np.where(
            self._sigma, np.exp(holding.log_sigma), np.sqrt(found.pwrss / self._criteria.law.nu)
        )
        products = self._system.products
        beta = found.beta
        if products.p:
            beta = product(triangular_inverse(products.R_x)[..., None], beta[:, None])[:, 0]
        states = [
            State([T[..., lane] for T in factors], float(sigma[lane])) for lane in range(sigma.size)
        ]
        return states, products.beta_ols + beta.T, np.isfinite(found.value).tolist()


def _spread(found: HeldValues, at: NDArray[np.intp], s: int) -> HeldValues:
    """Return numbers of some lanes where they are among all s."""

    def placed(part: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((*part.shape[:-1], s))
        out[..., at] = part
        return out

    return HeldValues(
        placed(found.value), [placed(G) for G in found.slopes], placed(found.log_sigma_slope),
        placed(found.pwrss), placed(found.beta),
    )  # fmt: skip


class _Phi:
    """Lanes whose x is phi: sigma is held, or a coefficient."""

    def __init__(self, held: Sequence[Held], model: HeldCriteria) -> None:
        self._model = model
        self._sigma = np.array([isinstance(one, HeldSigma) for one in held])

    def hold(self, lane: int, value: float) -> None:
        """Do nothing: values are taken as they are."""

    def factors(self, x: Matrix, values: Vector) -> tuple[list[Array3], Vector]:
        return self._model.factors_of(x), np.log(np.where(self._sigma, values, 1.0))

    def gradient(self, slopes: list[Array3], by_sigma: Vector) -> Matrix:
        return self._model.pull_back(slopes)


class _Wedges(NamedTuple):
    """Per lane, the edge and the direction across it (3, s), and the angle (s,) of the wedge."""

    edge: Matrix
    across: Matrix
    angle: Vector


class _InFactor:
    """Lanes that hold standard deviations, or correlations, of one term (see `held_factor`)."""

    def __init__(self, held: Sequence[Held], model: HeldCriteria) -> None:
        own = [one for one in held if isinstance(one, HeldInFactor)]
        first, s = own[0], len(own)
        self._held, self._model, self._term = own, model, first.parameter.term
        self._Q = np.stack([one.rotation for one in own], axis=2)
        self._length = np.array([one.length for one in own])
        self._others = np.flatnonzero(first.others)
        self._rows, self._columns = first.free
        self._identity, self._correlation = first.identity, first.correlation
        self._wedges = _Wedges(np.zeros((3, s)), np.zeros((3, s)), np.zeros(s))
        self._L = self._Q
        self._slopes = np.zeros((2, 3, s))

    def hold(self, lane: int, value: float) -> None:
        """Set the wedge of a correlation."""
        if self._correlation:
            s = math.sqrt(max((1.0 - value) * (1.0 + value), 0.0))
            edge, across, angle = self._held[lane].wedge(value, s)
            self._wedges.edge[:, lane], self._wedges.across[:, lane] = edge, across
            self._wedges.angle[lane] = angle

    def factors(self, x: Matrix, values: Vector) -> tuple[list[Array3], Vector]:
        """Return T of every term (k, k, s), and log sigma (s,)."""
        n, k, s = self._others.size, self._Q.shape[0], x.shape[1]
        phi = np.zeros((x.shape[0], s))
        phi[self._others] = x[:n]
        out, log_sigma = self._model.factors_of(phi), x[-1]
        L = np.zeros((k, k, s))
        if self._correlation:
            share = expit(x[n + 1])
            radius, angle = np.exp(x[n]), self._wedges.angle * share
            cos, sin = np.cos(angle), np.sin(angle)
            y = radius * (cos * self._wedges.edge + sin * self._wedges.across)
            turned = radius * (cos * self._wedges.across - sin * self._wedges.edge)
            L[self._rows, self._columns] = x[n + 2 : -1]
            L[0, 0], L[1, 0], L[1, 1] = y
            self._slopes = np.stack([y, turned * (self._wedges.angle * share * (1.0 - share))])
        elif self._identity:
            L[np.arange(k), np.arange(k)] = values * np.exp(-log_sigma) / self._length
        else:
            L[self._rows, self._columns] = x[n:-1]
            L[0, 0] = values * np.exp(-log_sigma) / self._length
        self._L = L
        out[self._term] = product(self._Q, L)
        return out, log_sigma

    def gradient(self, slopes: list[Array3], by_sigma: Vector) -> Matrix:
        """Return the derivative by x (m, s) from those by every T and by log sigma."""
        dL = product(transposed(self._Q), slopes[self._term])
        parts = [self._model.pull_back(slopes)[self._others]]
        if self._correlation:
            triple = np.stack([dL[0, 0], dL[1, 0], dL[1, 1]])
            parts.append(along((self._slopes * triple).swapaxes(0, 1)))
        else:
            # sigma |r| L[0, 0] is held, so that L[0, 0] falls as sigma grows
            own = along(np.diagonal(dL).T) if self._identity else dL[0, 0]
            by_sigma = by_sigma - own * self._L[0, 0]
        return np.concatenate([*parts, dL[self._rows, self._columns], by_sigma[None]])
