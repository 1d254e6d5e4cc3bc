"""The criterion with one parameter held at a value, as an unconstrained function of the rest.

Standard deviations and correlations are held in the factor of their term (see `held_factor`), a
coefficient on the products (see `solve.derived.held_coefficient`).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import evaluate, joint_criterion
from mixlm_sparse.solve.derived.held_coefficient import HeldColumn
from mixlm_sparse.solve.pls import CANCELLATION_LIMIT, solve_at, user_beta
from mixlm_sparse.solve.products.basis import triangular_inverse
from mixlm_sparse.solve.system import PenalizedSystem

# Columns of a factor below this are started here instead: a zero column is a saddle.
SADDLE = 1e-3
OFF_SADDLE = 0.05


Flags = NDArray[np.bool_]


class State:
    """A point of the model: working factors per term, sigma, natural parameters of residuals."""

    __slots__ = ("blocks", "residual", "sigma")

    def __init__(
        self, blocks: list[Matrix], sigma: float, residual: Vector | None = None
    ) -> None:
        self.blocks = blocks
        self.sigma = sigma
        self.residual = np.zeros(0) if residual is None else residual


class Held(Protocol):
    """One parameter held; what is free is x (d,)."""

    system: PenalizedSystem

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        ...

    @property
    def even(self) -> Flags:
        """Return which of x (d,) are diagonal elements of factors: at zero each is a saddle."""
        ...

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        ...

    def state(self, c: float, x: Vector) -> State:
        """Return the factors and sigma at this point."""
        ...

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        ...


class HeldVariance(Held, Protocol):
    """A standard deviation, correlation or sigma held; the system may be one of the same chart."""

    def value_and_gradient(
        self, c: float, x: Vector, system: PenalizedSystem | None = None
    ) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), of another system if one is given."""
        ...


def undefined(x: Vector) -> tuple[float, Vector]:
    """Return value and gradient where the criterion is not defined."""
    return math.inf, np.full(x.size, np.nan)


def off_saddle(phi: Vector, system: PenalizedSystem) -> Vector:
    """Return phi with vanishing diagonal elements moved away from zero."""
    out = phi.copy()
    near_zero = (system.lower == 0.0) & (np.abs(phi) < SADDLE)
    out[near_zero] = OFF_SADDLE
    return out


def coefficients(blocks: list[Matrix], system: PenalizedSystem) -> Vector:
    """Return the coefficients (p,) at working factors per term."""
    return user_beta(solved_at(blocks, system)[0], system.products)


def solved_at(blocks: list[Matrix], system: PenalizedSystem) -> tuple[Vector, float]:
    """Return the coefficients (p,) of the working columns and pwrss at working factors per term."""
    lambdas = system.chart.merge(blocks)
    if system.fused is not None:
        with system.lock:
            found = system.fused.evaluate(lambdas, system.n, reml=False, gradient=False)
        if found is not None and found.least_pivot >= CANCELLATION_LIMIT:
            return found.beta, found.pwrss
    working = solve_at(lambdas, system)
    return working.beta, working.pwrss


class HeldSigma:
    """sigma held; x is phi."""

    def __init__(self, system: PenalizedSystem, phi: Vector, *, reml: bool) -> None:
        self.system = system
        self._phi = phi
        self._reml = reml

    def start(self) -> Vector:
        return off_saddle(self._phi, self.system)

    @property
    def even(self) -> Flags:
        return np.asarray(self.system.lower == 0.0)

    def value_and_gradient(
        self, c: float, x: Vector, system: PenalizedSystem | None = None
    ) -> tuple[float, Vector]:
        system = self.system if system is None else system
        lambdas = system.chart.merge(system.chart.factors(x))
        try:
            value, G, _ = joint_criterion(lambdas, math.log(c), system, reml=self._reml)
        except NotPositiveDefiniteError:
            return undefined(x)
        if not math.isfinite(value):
            return undefined(x)
        return value, system.chart.pull_back(x, system.chart.split(G))

    def state(self, c: float, x: Vector) -> State:
        return State(self.system.chart.factors(x), c)

    def beta(self, c: float, x: Vector) -> Vector:
        return coefficients(self.system.chart.factors(x), self.system)


class HeldCoefficient:
    """A coefficient held; x is phi, sigma and the other coefficients are profiled out.  ML.

    Attributes
    ----------
    column : its place among the kept columns.
    row : (p,) coefficients of the working columns in it.
    """

    def __init__(self, system: PenalizedSystem, phi: Vector, column: int) -> None:
        self.system = system
        self._phi = phi
        self.column = column
        self._last: tuple[float, Vector, tuple[list[Matrix], Vector, float]] | None = None

    @cached_property
    def _held(self) -> HeldColumn:
        return HeldColumn(self.system, self.column)

    @cached_property
    def row(self) -> Vector:
        out: Vector = triangular_inverse(self.system.products.R_x)[self.column]
        return out

    def start(self) -> Vector:
        return off_saddle(self._phi, self.system)

    @property
    def even(self) -> Flags:
        return np.asarray(self.system.lower == 0.0)

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        reduced = self._held.at(c)
        try:
            lambdas = reduced.chart.merge(reduced.chart.factors(x))
            value, G = evaluate(lambdas, reduced, reml=False, gradient=True)
        except NotPositiveDefiniteError:
            return undefined(x)
        if not math.isfinite(value):
            return undefined(x)
        return value, reduced.chart.pull_back(x, reduced.chart.split(G))

    def _solved(self, c: float, x: Vector) -> tuple[list[Matrix], Vector, float]:
        """Return the factors, the other coefficients of the working columns and pwrss."""
        if self._last is None or self._last[0] != c or self._last[1] is not x:
            reduced = self._held.at(c)
            blocks = reduced.chart.factors(x)
            self._last = c, x, (blocks, *solved_at(blocks, reduced))
        return self._last[2]

    def state(self, c: float, x: Vector) -> State:
        blocks, _, pwrss = self._solved(c, x)
        return State(blocks, math.sqrt(pwrss / self.system.n))

    def beta(self, c: float, x: Vector) -> Vector:
        out = np.empty(self.system.p)
        out[self.column] = c
        out[self._held.rest] = user_beta(self._solved(c, x)[1], self._held.at(c).products)
        return out
