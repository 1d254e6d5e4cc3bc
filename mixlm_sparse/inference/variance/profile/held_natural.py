"""A parameter of a structured term held at a value, where the structure has it as a coordinate."""

from __future__ import annotations

import math

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.variance.profile.held import (
    SADDLE,
    State,
    coefficients,
    off_saddle,
    undefined,
)
from mixlm_sparse.model.parameters import VarianceParameter
from mixlm_sparse.solve.held import HeldCoordinates, Hold
from mixlm_sparse.solve.system import PenalizedSystem

# A coordinate this close to a quarter turn, a saddle, is started this far from it instead.
OFF_QUARTER = 0.05


class HeldNatural:
    """A standard deviation or correlation held by its coordinate; x is the rest and log sigma."""

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
            par = self._parameter
            hold = Hold(par.term, par.index, par.kind, par.row, c)
            self._last = c, HeldCoordinates(self.system, (hold,), None)
        return self._last[1]

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        phi = off_saddle(self._phi, self.system)
        angles = self.system.chart.powers == 0.0
        quarter = 0.5 * np.pi
        close = angles & (quarter - np.abs(phi) < SADDLE)
        phi[close] = np.sign(phi[close]) * (quarter - OFF_QUARTER)
        return self._at(0.0).reduce(phi, self._sigma)

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        if not math.isfinite(c):
            return undefined(x)
        return self._at(c).value_and_gradient(x, reml=self._reml)

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
