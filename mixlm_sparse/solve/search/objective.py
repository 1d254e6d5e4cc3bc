"""The criterion as the optimizers see it: a function of phi (see `chart`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import evaluate
from mixlm_sparse.solve.pls import solve_at
from mixlm_sparse.solve.system import PenalizedSystem

# A criterion that is still falling where random effects are this much larger than the noise means
# that there is no noise.
SATURATED = 2e5
# Share of the residual sum of squares of least squares below which nothing is left.
NOTHING_LEFT = 1e-8

Progress = Callable[[int, float, Vector], object]


class SaturatedError(Exception):
    """Internal: the random effects fit the response exactly, and the search runs to infinity."""


@dataclass
class Objective:
    """Value and gradient in phi, with counts, the best point seen and the progress callback.

    A point where the criterion is not defined has the value infinity.  `rotations`, per term, turn
    the working columns: phi then parameterizes Q'T~.
    """

    system: PenalizedSystem
    reml: bool
    progress: Progress | None = None
    n_values: int = 0
    n_gradients: int = 0
    best_value: float = float("inf")
    best_phi: Vector = field(default_factory=lambda: np.empty(0))
    history: list[float] = field(default_factory=list)
    rotations: list[Matrix] | None = None

    def merged(self, phi: Vector) -> list[Matrix]:
        """Return the working Lambda per grouping factor, (K, K)."""
        return self.system.chart.merge(self.factors(phi))

    def factors(self, phi: Vector) -> list[Matrix]:
        """Return the working Lambda per term, (k, k)."""
        out = self.system.chart.factors(phi)
        if self.rotations is not None:
            out = [Q @ T for Q, T in zip(self.rotations, out, strict=True)]
        return out

    def rotate(self, phi: Vector) -> Vector:
        """Turn the working columns to the principal axes at phi, and return phi in them.

        Lower triangular factors are a poor chart near a singular covariance unless its null space
        lies in the last columns; along the principal axes T is diagonal, in decreasing order.
        """
        rotations, parts = [], []
        for template, T in zip(self.system.templates, self.factors(phi), strict=True):
            if template.closed_under == "linear" and template.k > 1:
                axes, sizes, _ = np.linalg.svd(T)
                rotations.append(axes)
                parts.append(template.theta_of(np.diag(sizes)))
            else:
                rotations.append(np.eye(template.k))
                parts.append(template.theta_of(T))
        self.rotations = rotations
        return np.concatenate(parts)

    def unrotate(self, phi: Vector) -> Vector:
        """Return phi in the working columns as they were, and forget the rotations."""
        if self.rotations is None:
            return phi
        out = self.system.chart.parameters_of(self.factors(phi))
        self.rotations = None
        return out

    def value(self, phi: Vector) -> float:
        """Return the criterion at phi (m,)."""
        if self._too_far(phi):
            return math.inf
        return self._solve(phi, self.merged(phi), gradient=False)[0]

    def value_and_gradient(self, phi: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (m,) at phi (m,)."""
        if self._too_far(phi):
            return math.inf, np.full(phi.size, np.nan)
        value, G = self._solve(phi, self.merged(phi), gradient=True)
        if not math.isfinite(value):
            return value, np.full(phi.size, np.nan)
        return value, self._pull_back(phi, G)

    def _too_far(self, phi: Vector) -> bool:
        """Say whether a step leads to where nothing is left to the residuals.

        Raises
        ------
        SaturatedError : the criterion is lower there than anywhere before: it has no minimum.
        """
        if float(np.abs(phi).max()) <= SATURATED:
            return False
        lambdas = self.merged(phi)
        try:
            if solve_at(lambdas, self.system).pwrss > NOTHING_LEFT * self.system.products.yy:
                return False  # large beside columns that nearly cancel, not beside the noise
        except NotPositiveDefiniteError:
            return True
        if self._solve(None, lambdas, gradient=False)[0] < self.best_value:
            raise SaturatedError
        return True

    def _pull_back(self, phi: Vector, G: Sequence[Matrix]) -> Vector:
        chart = self.system.chart
        blocks: Sequence[Matrix] = chart.split(G)
        if self.rotations is not None:
            blocks = [Q.T @ block for Q, block in zip(self.rotations, blocks, strict=True)]
        return chart.pull_back(phi, blocks)

    def at_factors(self, lambdas: list[Matrix]) -> tuple[float, list[Matrix]]:
        """Return the criterion and its derivative at any square factors, per term."""
        value, G = self._solve(None, lambdas, gradient=True)
        return value, self.system.chart.split(G)

    def _solve(
        self, phi: Vector | None, lambdas: list[Matrix], *, gradient: bool
    ) -> tuple[float, list[Matrix]]:
        self.n_values += 1
        try:
            self.n_gradients += gradient
            value, G = evaluate(lambdas, self.system, reml=self.reml, gradient=gradient)
            if not math.isfinite(value):
                return float("inf"), []
        except NotPositiveDefiniteError:
            return float("inf"), []
        if phi is not None:
            self.history.append(value)
            if value < self.best_value:
                self.best_value, self.best_phi = value, phi.copy()
            if self.progress is not None:
                theta = self.system.chart.theta_of_phi(phi, self.rotations)
                self.progress(self.n_values, value, theta)
        return value, G
