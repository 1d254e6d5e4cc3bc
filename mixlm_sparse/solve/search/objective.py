"""What a search knows of the function that it minimizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.search.known import Known

Progress = Callable[[int, float, Vector], object]


class NoMinimumError(Exception):
    """Internal: the search runs far away from the origin, perhaps to infinity."""


class FallsError(NoMinimumError):
    """Internal: the search has come to where the function falls without end.

    Parameters
    ----------
    phi : (m,) where that was seen.
    """

    def __init__(self, phi: Vector) -> None:
        super().__init__()
        self.phi = phi


class KnownError(Exception):
    """Internal: the search has come back to an optimum that is known.

    Parameters
    ----------
    value : of the function there.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True, eq=False, slots=True)
class Start:
    """Another place to search from: its name for the report, and phi (m,)."""

    name: str
    phi: Vector


@dataclass(frozen=True, eq=False, slots=True)
class FarStart:
    """Where a search far from the origin begins.

    Parameters
    ----------
    phi : (m,) near the optimum.
    hessian : (m, m) guess of the Hessian in phi / max(|phi|, 1).
    """

    phi: Vector
    hessian: Matrix


@dataclass(frozen=True, slots=True)
class BoundaryReport:
    """What was found: phi (m,) to go on from, its value, and whether it is to be searched on."""

    phi: Vector
    value: float
    escaped: bool


class Found(Protocol):
    """Where a search ended that was made in one call.

    Attributes
    ----------
    phi, gradient : (m,).
    value, decrease : of the function, and what a Newton step from here would win.
    limit_reached : whether the number of evaluations ended the search.
    """

    @property
    def phi(self) -> Vector: ...
    @property
    def gradient(self) -> Vector: ...
    @property
    def value(self) -> float: ...
    @property
    def decrease(self) -> float: ...
    @property
    def limit_reached(self) -> bool: ...


class Objective(Protocol):
    """A function of phi (m,), parameters of order one, that is even across its bounds.

    Attributes
    ----------
    reml : whether it is the restricted criterion; for the record.
    n_values, n_gradients : evaluations so far, and those with a gradient.
    best_value, best_phi : the lowest point seen.
    beyond : whether the search is for an optimum far from the origin (`far_out` says so).
    history : value at each evaluation.
    known : optima at which other searches may end.
    rotations : turns of the axes, per term; None in the axes as they were.
    """

    reml: bool
    n_values: int
    n_gradients: int
    best_value: float
    best_phi: Vector
    beyond: bool
    history: list[float]
    known: Known
    rotations: list[Matrix] | None

    @property
    def m(self) -> int:
        """Return the number of parameters."""
        ...

    @property
    def falls(self) -> bool:
        """Return whether the function is known to fall without end somewhere."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of theta."""
        ...

    @property
    def working_lower(self) -> Vector:
        """Return the lower bounds (m,) of phi."""
        ...

    # -- the function -----------------------------------------------------------------------

    def value(self, phi: Vector) -> float:
        """Return the value at phi; infinite where it is not defined."""
        ...

    def value_and_gradient(self, phi: Vector) -> tuple[float, Vector]:
        """Return the value and the gradient (m,) at phi.

        Raises
        ------
        NoMinimumError : the function is falling so far from the origin that the minimum is to be
            looked for there (`far_out`), if there is any.
        """
        ...

    def curvature(self, phi: Vector) -> Matrix:
        """Return a positive definite guess (m, m) of the Hessian at phi."""
        ...

    def guess(self, phi: Vector, gradient: Vector) -> Matrix:
        """Return a positive definite guess (m, m) of the Hessian at phi, where a search begins."""
        ...

    def sharpen(self, phi: Vector, gradient: Vector) -> Matrix | None:
        """Return the Hessian (m, m) at phi, if it costs little there and is positive definite."""
        ...

    def renew(self, phi: Vector) -> Matrix | None:
        """Return a good guess of the Hessian (m, m) at phi, evaluated last, if it costs little."""
        ...

    def place(self, phi: Vector) -> Matrix:
        """Return what tells optima apart, whatever the axes (see `known`)."""
        ...

    def radial_decrease(self, phi: Vector, gradient: Vector) -> float:
        """Return what a change of scale alone would win at least."""
        ...

    # -- parameters ---------------------------------------------------------------------------

    def theta_of(self, phi: Vector) -> Vector:
        """Return phi as the user's theta."""
        ...

    def on_the_boundary(self, phi: Vector) -> tuple[tuple[str, ...], str]:
        """Return the names of the parameters at a bound, and what they are there in words."""
        ...

    def reflect(self, phi: Vector) -> Vector:
        """Return the equivalent phi within bounds."""
        ...

    @property
    def turns(self) -> bool:
        """Return whether `rotate` is all that a leg's end is for: near the end it is left out."""
        ...

    @property
    def rotated(self) -> bool:
        """Return whether phi is in turned axes."""
        ...

    def rotate(self, phi: Vector) -> Vector:
        """Turn to the principal axes at phi, and return phi in them."""
        ...

    def without_small(self, phi: Vector, cut: float) -> Vector:
        """Return phi with zero for the directions whose standard deviation is below `cut`."""
        ...

    def unrotate(self, phi: Vector) -> Vector:
        """Return phi in the axes as they were, and go back to them."""
        ...

    # -- where to search ----------------------------------------------------------------------

    def start(self) -> Vector:
        """Return a cheap start."""
        ...

    def other_starts(
        self, *, singular: bool, phi: Vector, several: bool
    ) -> list[list[Start]]:
        """Return groups of starts; of each group the best one is searched from.

        Parameters
        ----------
        singular : whether the optimum found is on the boundary.
        phi : (m,) the optimum found.
        several : whether searches from those starts have found several valleys: then others, all
            over the place; none where a search costs much.
        """
        ...

    @property
    def many_valleys(self) -> bool:
        """Return whether a start that was given may lead to another valley than the best one."""
        ...

    def settle(self, phi: Vector, value: float) -> BoundaryReport:
        """Certify an optimum on the boundary, or find the way off a false one."""
        ...

    def downhill(self, phi: Vector, *, whatever_it_costs: bool) -> Vector | None:
        """Return a step (m,) along which the function curves downwards at phi, if it does.

        Parameters
        ----------
        whatever_it_costs : look also where a search hardly ever ends at such a point.
        """
        ...

    def at_once(
        self, phi: Vector | None, *, tolerance: float, limit: int, check_boundary: bool
    ) -> Found | None:
        """Search in one call, from phi or a cheap start; None where that cannot be done."""
        ...

    def at_zero(self) -> Vector:
        """Return the phi (m,) at which all standard deviations are zero."""
        ...

    def perfect(self) -> str | None:
        """Say why there is nothing to search for, if so; the optimum is then zero."""
        ...

    def far_out(self) -> FarStart | None:
        """Go where the minimum is far from the origin; None if there is none at all."""
        ...

    def noise(self, phi: Vector) -> float:
        """Return how uncertain a value at phi is beyond the rounding of the number itself."""
        ...

    def without_minimum(self) -> tuple[Vector, float]:
        """Return the limit of a function that has no minimum: phi, and sigma held there."""
        ...
