"""The criterion as the optimizers see it: a function of working parameters.

phi parameterizes Lambda for the working columns z~ = z Rz^{-1}, which have length one on average,
as theta does for the user's columns.  For an unstructured term the two are related by
T = Rz^{-1} T~ up to rotation, so the search does not notice units or origins of predictors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mixlm_sparse._types import Matrix, Vector
from mixlm_sparse.deviance import evaluate
from mixlm_sparse.errors import NotPositiveDefiniteError
from mixlm_sparse.pls import PenalizedSystem

# Random effects this much larger than the noise mean that there is no noise.
SATURATED = 1e7

Progress = Callable[[int, float, Vector], object]


def theta_of_phi(phi: Vector, system: PenalizedSystem) -> Vector:
    """Return the theta in bounds that means the same covariance as phi; both (m,)."""
    out = np.empty_like(phi)
    for template, part, Rz in zip(
        system.templates, system.theta_slices, system.products.Rz, strict=True
    ):
        T = template.factor(phi[part])
        out[part] = template.theta_of(np.asarray(np.linalg.solve(Rz, T), dtype=np.float64))
    return out


def phi_of_theta(theta: Vector, system: PenalizedSystem) -> Vector:
    """Return the phi in bounds that means the same covariance as theta; both (m,)."""
    out = np.empty_like(theta)
    for template, part, Rz in zip(
        system.templates, system.theta_slices, system.products.Rz, strict=True
    ):
        out[part] = template.theta_of(Rz @ template.factor(theta[part]))
    return out


class SaturatedError(Exception):
    """Internal: the random effects fit the response exactly, and the search runs to infinity."""


@dataclass
class Objective:
    """Value and gradient in phi, with counts, the best point seen and the progress callback.

    A point where the criterion is not defined has the value infinity.
    """

    system: PenalizedSystem
    reml: bool
    progress: Progress | None = None
    n_values: int = 0
    n_gradients: int = 0
    best_value: float = float("inf")
    best_phi: Vector = field(default_factory=lambda: np.empty(0))
    history: list[float] = field(default_factory=list)

    def merged(self, phi: Vector) -> list[Matrix]:
        """Return the working Lambda per grouping factor, (K, K)."""
        system = self.system
        return system.merge(
            [
                template.factor(phi[part])
                for template, part in zip(system.templates, system.theta_slices, strict=True)
            ]
        )

    def value(self, phi: Vector) -> float:
        """Return the criterion at phi (m,)."""
        if float(np.abs(phi).max()) > SATURATED:
            raise SaturatedError
        return self._solve(phi, self.merged(phi), gradient=False)[0]

    def value_and_gradient(self, phi: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (m,) at phi (m,)."""
        if float(np.abs(phi).max()) > SATURATED:
            raise SaturatedError
        value, G = self._solve(phi, self.merged(phi), gradient=True)
        if not math.isfinite(value):
            return value, np.full(phi.size, np.nan)
        return value, self._pull_back(phi, G)

    def _pull_back(self, phi: Vector, G: Sequence[Matrix]) -> Vector:
        system = self.system
        return np.concatenate(
            [
                template.pull_back(phi[part], block)
                for template, part, block in zip(
                    system.templates, system.theta_slices, system.split(G), strict=True
                )
            ]
        )

    def at_factors(self, lambdas: list[Matrix]) -> tuple[float, list[Matrix]]:
        """Return the criterion and its derivative at any square factors, per term."""
        value, G = self._solve(None, lambdas, gradient=True)
        return value, self.system.split(G)

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
                self.progress(self.n_values, value, theta_of_phi(phi, self.system))
        return value, G
