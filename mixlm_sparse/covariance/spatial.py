"""Correlation that falls with distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.correlation import (
    HARDLY_ANY,
    PairMoments,
    Places,
    correlation_structure,
)
from mixlm_sparse.covariance.serial import LARGEST_LOG, Lagged

__all__ = ["Exponential", "Gaussian"]


class Spatial(Lagged):
    """C = f(d / range), d the Euclidean distance of two positions (in one or more columns)."""

    __slots__ = ()

    def parameters(self, places: Places) -> tuple[str, ...]:
        return ("range",)

    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        length = places.scale * np.exp(np.clip(omega, -LARGEST_LOG, LARGEST_LOG))
        return length, np.diag(length)

    def near(self, moments: PairMoments, places: Places) -> Vector:
        # places.scale is about the distance of neighbours
        r = float(np.clip(moments.serial, 0.05, 0.95))
        return np.array([-np.log(-np.log(r))])

    def weak(self, places: Places) -> Vector:
        return np.array([-np.log(-np.log(HARDLY_ANY))])

    def distance(self, t: NDArray[np.float64]) -> Array3:
        apart = t[:, :, None, :] - t[:, None, :, :]
        return np.asarray(np.sqrt((apart * apart).sum(axis=-1)))


@answering_calls
@correlation_structure("exp")
@dataclass(frozen=True, slots=True)
class Exponential(Spatial):
    """Cor(e_i, e_j) = exp(-d / range), d the distance of the two rows.

    Parameters
    ----------
    position : column of positions, or several columns (coordinates).
    group : column (or columns) whose levels are independent of each other; None for one map.
    by : column (or columns) each of whose levels has a range of its own.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> rats = mx.datasets.load("BodyWeight")
    >>> near = mx.Exponential(position="Time", group="Rat")
    >>> mx.lmer("weight ~ Time * Diet + (1 | Rat)", rats, residual=near).residual_structure.round(1)
      parameter  estimate  std_error  lower  upper
    0     range      37.5       31.9    7.1  198.5
    """

    words = "exponential in distance"
    place_argument = "position"
    time_kind = "position"

    position: str | tuple[str, ...]
    group: str | tuple[str, ...] | None = None
    by: str | tuple[str, ...] | None = None

    def of_lag(self, d: Vector, omega: float, places: Places) -> tuple[Vector, Vector]:
        scaled = d * (np.exp(-np.clip(omega, -40.0, 40.0)) / places.scale)
        value = np.exp(-scaled)
        return value, value * scaled


@answering_calls
@correlation_structure("gau")
@dataclass(frozen=True, slots=True)
class Gaussian(Spatial):
    """Cor(e_i, e_j) = exp(-(d / range)^2), d the distance of the two rows.

    Parameters
    ----------
    position, group, by : as in `Exponential`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> rats = mx.datasets.load("BodyWeight")
    >>> near = mx.Gaussian(position="Time", group="Rat")
    >>> mx.lmer("weight ~ Time * Diet + (1 | Rat)", rats, residual=near).residual_structure.round(1)
      parameter  estimate  std_error  lower  upper
    0     range       2.1        0.4    1.4    3.2
    """

    words = "Gaussian in distance"
    place_argument = "position"
    time_kind = "position"

    position: str | tuple[str, ...]
    group: str | tuple[str, ...] | None = None
    by: str | tuple[str, ...] | None = None

    def of_lag(self, d: Vector, omega: float, places: Places) -> tuple[Vector, Vector]:
        squared = (d * (np.exp(-np.clip(omega, -40.0, 40.0)) / places.scale)) ** 2
        value = np.exp(-squared)
        return value, 2.0 * value * squared
