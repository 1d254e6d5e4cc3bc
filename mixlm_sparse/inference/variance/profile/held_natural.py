"""A parameter held at a value where it is a coordinate, beside whatever else the fit holds."""

from __future__ import annotations

import math

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.variance.profile.held import (
    SADDLE,
    Flags,
    State,
    coefficients,
    off_saddle,
    undefined,
)
from mixlm_sparse.model.parameters import VarianceParameter
from mixlm_sparse.solve.derived.held_coefficient import HeldColumn
from mixlm_sparse.solve.held import HeldCoordinates
from mixlm_sparse.solve.hold import Hold
from mixlm_sparse.solve.system import PenalizedSystem

# A coordinate this close to a quarter turn, a saddle, is started this far from it instead.
OFF_QUARTER = 0.05


class HeldNatural:
    """A variance parameter held by its coordinate; x is the rest of (phi, log sigma)."""

    def __init__(
        self,
        system: PenalizedSystem,
        phi: Vector,
        sigma: float,
        parameter: VarianceParameter,
        *,
        reml: bool,
    ) -> None:
        self.system = system
        self._phi = phi
        self._sigma = sigma
        self._reml = reml
        self._parameter = parameter
        self._last: tuple[float, HeldCoordinates] | None = None

    def _at(self, c: float) -> HeldCoordinates:
        if self._last is None or self._last[0] != c:
            par, held = self._parameter, self.system.held
            holds = () if held is None else held.holds
            sigma = None if held is None else held.sigma
            if par.kind == "sigma":
                sigma = c
            else:
                holds = (*holds, Hold(par.term, par.index, par.kind, par.row, c))
            self._last = c, HeldCoordinates(self.system, holds, sigma)
        return self._last[1]

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        phi = off_quarter(off_saddle(self._phi, self.system), self.system)
        return self._at(1.0).reduce(phi, self._sigma)

    @property
    def even(self) -> Flags:
        """Return which of x (d,) are diagonal elements of factors."""
        return even_of(self._at(1.0))

    def value_and_gradient(
        self, c: float, x: Vector, system: PenalizedSystem | None = None
    ) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        if not math.isfinite(c):
            return undefined(x)
        return self._at(c).value_and_gradient(x, reml=self._reml, system=system)

    def state(self, c: float, x: Vector) -> State:
        """Return the factors and sigma at this point."""
        phi, log_sigma, _ = self._at(c).expand(x)
        return State(self.system.chart.factors(phi), math.exp(log_sigma))

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        try:
            return coefficients(self.state(c, x).blocks, self.system)
        except NotPositiveDefiniteError:
            return np.full(self.system.p, np.nan)


class HeldCoefficientBeside:
    """A coefficient held beside variance parameters; x is what is free of (phi, log sigma).  ML."""

    def __init__(self, system: PenalizedSystem, phi: Vector, sigma: float, column: int) -> None:
        self.system = system
        self._phi = phi
        self._sigma = sigma
        self._column = column
        self._held = HeldColumn(system, column)
        self._coordinates = HeldCoordinates.of(system)

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        phi = off_quarter(off_saddle(self._phi, self.system), self.system)
        return self._coordinates.reduce(phi, self._sigma)

    @property
    def even(self) -> Flags:
        """Return which of x (d,) are diagonal elements of factors."""
        return even_of(self._coordinates)

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        return self._coordinates.value_and_gradient(x, reml=False, system=self._held.at(c))

    def state(self, c: float, x: Vector) -> State:
        """Return the factors and sigma at this point."""
        phi, log_sigma, _ = self._coordinates.expand(x)
        return State(self.system.chart.factors(phi), math.exp(log_sigma))

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        reduced = self._held.at(c)
        out = np.empty(self.system.p)
        out[self._column] = c
        out[self._held.rest] = coefficients(self.state(c, x).blocks, reduced)
        return out


def even_of(coordinates: HeldCoordinates) -> Flags:
    """Return which of the free coordinates (f,) are diagonal elements of factors."""
    out: Flags = np.append(coordinates.system.lower == 0.0, False)[coordinates.free]
    return out


def off_quarter(phi: Vector, system: PenalizedSystem) -> Vector:
    """Return phi with angles at a quarter turn, where the criterion is even, moved off it."""
    quarter = 0.5 * np.pi
    close = (system.chart.powers == 0.0) & (quarter - np.abs(phi) < SADDLE)
    return np.where(close, np.sign(phi) * (quarter - OFF_QUARTER), phi)
