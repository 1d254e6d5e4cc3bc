"""Residual structures: Cov(e) = sigma^2 R(rho).  Prior weights are the first: R = W^{-1}.

Whoever walks over rows multiplies them by R^{-1/2} through `whiten`; everything after that works
with independent rows of equal variance and never sees weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector

__all__ = ["INDEPENDENT", "Independent", "Positions", "Residual"]

# Rows that follow one another, or ascending positions of rows.
Positions = slice | NDArray[np.integer[Any]]
NO_RHO = np.empty(0)


class Residual(Protocol):
    """Structure of the residuals of the rows of a model."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters rho."""
        ...

    @property
    def start(self) -> Vector:
        """Values (n_rho,) at which the search starts."""
        ...

    @property
    def lower(self) -> Vector:
        """Lower bounds (n_rho,) of the parameters."""
        ...

    def whiten(self, values: Vector, rows: Positions, rho: Vector = NO_RHO) -> Vector:
        """Return R^{-1/2} values, for values (m, ...) of consecutive rows.

        Where rows are correlated, `rows` holds whole groups.
        """
        ...

    def log_det(self, rows: Positions, rho: Vector = NO_RHO) -> float:
        """Return log|R| of these rows."""
        ...

    def draw(self, noise: Vector, rows: Positions, rho: Vector = NO_RHO) -> Vector:
        """Return R^{1/2} noise: independent standard normal (m, ...) to residuals over sigma."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Independent:
    """Independent residuals with variances sigma^2 / w; there is no rho.

    Parameters
    ----------
    weights : (n,) positive prior weights, or None for ones.
    """

    weights: Vector | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def start(self) -> Vector:
        return NO_RHO

    @property
    def lower(self) -> Vector:
        return NO_RHO

    def weights_of(self, rows: Positions) -> Vector:
        """Return w of these rows, (m,); ones where there are no weights."""
        if self.weights is None:
            return np.ones(rows.stop - rows.start if isinstance(rows, slice) else rows.size)
        return self.weights[rows]

    def weigh(self, values: Vector, rows: Positions) -> Vector:
        """Return W values for values (m, ...); the values themselves without weights."""
        return values if self.weights is None else values * _aligned(self.weights[rows], values)

    def whiten(self, values: Vector, rows: Positions, rho: Vector = NO_RHO) -> Vector:
        """Return sqrt(W) values for values (m, ...); the values themselves without weights."""
        if self.weights is None:
            return values
        return values * _aligned(np.sqrt(self.weights[rows]), values)

    def log_det(self, rows: Positions, rho: Vector = NO_RHO) -> float:
        """Return -sum log w of these rows, exactly 0 without weights."""
        return 0.0 if self.weights is None else -float(np.log(self.weights[rows]).sum())

    def draw(self, noise: Vector, rows: Positions, rho: Vector = NO_RHO) -> Vector:
        """Return noise / sqrt(w)."""
        if self.weights is None:
            return noise
        return noise / _aligned(np.sqrt(self.weights[rows]), noise)


INDEPENDENT = Independent()  # without weights


@dataclass(frozen=True, eq=False, slots=True)
class Structured(Independent):
    """Residuals with a structure of their own: what asks for independent rows is refused.

    Whoever walks over the rows of such a model has to ask its system, whose rows are whitened.
    """

    def _refused(self) -> OptionError:
        return OptionError(
            "this is not available for a fit with a residual structure (residual=, variance=): it "
            "would need rows whose residuals are independent"
        )

    def weights_of(self, rows: slice | NDArray[np.integer[Any]]) -> Vector:
        raise self._refused()

    def weigh(self, values: Vector, rows: slice | NDArray[np.integer[Any]]) -> Vector:
        raise self._refused()

    def whiten(
        self, values: Vector, rows: slice | NDArray[np.integer[Any]], rho: Vector = NO_RHO
    ) -> Vector:
        raise self._refused()

    def log_det(self, rows: slice | NDArray[np.integer[Any]], rho: Vector = NO_RHO) -> float:
        raise self._refused()

    def draw(
        self, noise: Vector, rows: slice | NDArray[np.integer[Any]], rho: Vector = NO_RHO
    ) -> Vector:
        raise self._refused()


def _aligned(w: Vector, values: Vector) -> Vector:
    return w.reshape(-1, *(1,) * (values.ndim - 1))
