"""The criterion with variance parameters held at values: a function of what is left free.

    y = (the free coordinates of phi, log sigma unless it is held)
    z(y) = (phi, log sigma),    B = dz / dy

A standard deviation tau is held in the units of the response: its coordinate of phi follows sigma,
tau / sigma = sd(phi).  A correlation holds a coordinate of phi, by what the others are where they
must go together.  The criterion is the joint one of `criterion`, its gradient B'(gradient in z).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import joint_criterion
from mixlm_sparse.solve.hold import Hold
from mixlm_sparse.solve.system import PenalizedSystem


@dataclass(frozen=True, eq=False)
class HeldCoordinates:
    """The map from y to (phi, log sigma).

    Parameters
    ----------
    system : the model; only its chart is used.
    holds : what is held of the terms.
    sigma : what the residual standard deviation is held at; None leaves it free.
    """

    system: PenalizedSystem
    holds: tuple[Hold, ...]
    sigma: float | None

    @cached_property
    def _held(self) -> tuple[tuple[Hold, int], ...]:
        """The holds with their coordinates of phi, ascending: later ones may depend on earlier."""
        chart = self.system.chart
        found = [
            (
                hold,
                chart.slices[hold.term].start
                + chart.templates[hold.term].held_coordinate(hold.parameter),
            )
            for hold in self.holds
        ]
        return tuple(sorted(found, key=lambda pair: pair[1]))

    @cached_property
    def free(self) -> Vector:
        """The free coordinates of (phi, log sigma), (f,) of whole numbers."""
        m = self.system.chart.m
        taken = {at for _, at in self._held} | ({m} if self.sigma is not None else set())
        return np.array([i for i in range(m + 1) if i not in taken], dtype=np.intp)

    @classmethod
    def of(cls, system: PenalizedSystem) -> HeldCoordinates:
        """Return the map of a system with its own parameters held."""
        held = system.held
        assert held is not None
        return cls(system, held.holds, held.sigma)

    def reduce(self, phi: Vector, sigma: float) -> Vector:
        """Return y (f,) of a point."""
        out: Vector = np.append(phi, math.log(sigma))[self.free]
        return out

    def expand(self, y: Vector) -> tuple[Vector, float, Matrix]:
        """Return phi (m,), log sigma and B (m + 1, f) at y (f,).

        Raises
        ------
        NotPositiveDefiniteError : correlations that are held leave no room for the others here.
        """
        chart = self.system.chart
        m = chart.m
        z, B = np.zeros(m + 1), np.zeros((m + 1, self.free.size))
        z[self.free] = y
        B[self.free, np.arange(self.free.size)] = 1.0
        if self.sigma is not None:
            z[m] = math.log(self.sigma)
        for hold, at in self._held:
            template, part = chart.templates[hold.term], chart.slices[hold.term]
            value = hold.value
            if hold.kind == "sd":
                scale = float(np.abs(chart.Rz[hold.term][hold.effect, hold.effect]))
                value = value * scale * math.exp(-z[m])
            z[part], slopes = template.hold(hold.parameter, value, z[part])
            B[at] = slopes @ B[part]
            if hold.kind == "sd":
                B[at] -= chart.powers[at] * z[at] * B[m]
        return z[:m], float(z[m]), B

    def value_and_gradient(
        self, y: Vector, *, reml: bool, system: PenalizedSystem | None = None
    ) -> tuple[float, Vector]:
        """Return the criterion and its gradient (f,) at y; infinite where it is not defined.

        Parameters
        ----------
        system : another one with the same chart, such as that of a held coefficient.
        """
        system = self.system if system is None else system
        nothing = math.inf, np.full(y.size, np.nan)
        try:
            with np.errstate(over="ignore"):
                phi, log_sigma, B = self.expand(y)
            value, G, slope = joint_criterion(
                system.chart.lambdas(phi), log_sigma, system, reml=reml
            )
        except (NotPositiveDefiniteError, OverflowError):
            return nothing
        if not math.isfinite(value):
            return nothing
        gradient = np.append(system.chart.pull_back(phi, system.chart.split(G)), slope)
        return value, gradient @ B
