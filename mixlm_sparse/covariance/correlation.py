"""What a structure of residual correlation is: C(rho) of the rows of a group, and its derivative.

A user writes `AR1(time="visit", group="patient")`: names of columns, nothing more.  The design
turns the columns into `Places` (what was learned from the data of the fit: visits, strata, scale)
and a place t of every row.  A structure answers for groups of equal size at once

    C = correlation(t, omega)                  (groups, m, m)
    dC / d omega contracted with any core      sum_g <K_g, dC_g / d omega_k>,  (r,)

where omega (r,) are unconstrained working parameters of order one, so that every search step stays
inside the positive definite matrices.  `natural` maps omega to what is reported (phi, rho(1,2),
range) with the derivative.  Structures with the Markov property (AR1, CAR1, ante-dependence,
exponential on a line) also say how a row depends on the one before it in its group,

    a = Cor(t, t-),    y_t - a y_{t-}  has variance 1 - a^2 and is independent of the past,

so that whitening costs two multiplications a row, whatever the length of a group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Array3, Matrix, Vector

__all__ = [
    "Correlation", "Link", "PairMoments", "Places", "correlation_structure", "registered",
    "structures",
]  # fmt: skip

# A correlation of neighbours that is none: what it changes in the criterion is not seen.
HARDLY_ANY = 1e-7

Link = Literal["working", "atanh"]
TimeKind = Literal["none", "visits", "whole", "number", "position"]


@dataclass(frozen=True, slots=True)
class Places:
    """What a structure has learned from the columns of the fit.

    Parameters
    ----------
    labels : names of the visits in their order; empty where times are numbers.
    visits : (T,) their numbers, for times that are whole numbers; empty for a factor.
    scale : a typical distance in time or space, in which omega is of order one.
    largest : rows of the largest group.
    """

    labels: tuple[str, ...] = ()
    visits: tuple[float, ...] = ()
    scale: float = 1.0
    largest: int = 1

    @property
    def T(self) -> int:
        """Number of visits."""
        return len(self.labels)


@dataclass(frozen=True, eq=False, slots=True)
class PairMoments:
    """Correlations of residuals of one group, estimated by their products.

    Parameters
    ----------
    by_visit : (T, T) of pairs of visits, 0 where no group has both; None where there are no visits.
    serial : of neighbours in time, those that are not far apart; step : their mean distance.
    overall : of all pairs.
    """

    by_visit: Matrix | None
    serial: float
    step: float
    overall: float

    @classmethod
    def falling(cls, r: float, places: Places) -> PairMoments:
        """Return moments of correlations that are r for neighbours and fall with the distance."""
        lag = np.abs(np.subtract.outer(np.arange(places.T), np.arange(places.T)))
        return cls(r**lag if places.T else None, r, places.scale, r)


def _names(argument: str, value: Any, *, several: bool) -> None:
    one = isinstance(value, str) and value != ""
    many = (
        several
        and isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(item, str) and item for item in value)
    )
    if not one and not many:
        example = "'x' or ['x', 'y']" if several else "'day'"
        raise OptionError(
            f"{argument} is {shown(value)}: give the name of a column, such as {example}"
        )


@dataclass(frozen=True, slots=True)
class Correlation(ABC):
    """Correlation of the residuals within groups; see the subclasses for what users write.

    Attributes
    ----------
    name : how files and messages call it.
    words : in words, for summaries.
    time_kind : what the column of `place_argument` may hold.
    linear : whether C is linear in the natural parameters, so that they have no second derivative.
    """

    name: ClassVar[str] = ""
    words: ClassVar[str] = ""
    place_argument: ClassVar[str] = "time"
    time_kind: ClassVar[TimeKind] = "whole"
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("group", "by") and value is None:
                continue
            several = one.name in ("position", "by", "group")
            _names(f"{one.name} of {type(self).__name__}", value, several=several)
            if isinstance(value, list):
                object.__setattr__(self, one.name, tuple(value))

    def columns(self, argument: str) -> tuple[str, ...]:
        """Return the columns that an argument names."""
        value = getattr(self, argument, None)
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else tuple(value)

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Return all columns that are named."""
        return tuple(
            dict.fromkeys(name for one in fields(self) for name in self.columns(one.name))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the structure as plain data."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {"name": self.name, **{
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
        }}  # fmt: skip

    def __str__(self) -> str:
        given = ", ".join(
            f"{one.name}={_written(getattr(self, one.name))}"
            for one in fields(self)
            if getattr(self, one.name) is not None
        )
        return f"{type(self).__name__}({given})"

    # -- parameters ---------------------------------------------------------------------------

    @abstractmethod
    def parameters(self, places: Places) -> tuple[str, ...]:
        """Return the names of the natural parameters (r,)."""

    def start(self, places: Places) -> Vector:
        """Return omega (r,) to start from: weak correlation."""
        return np.zeros(len(self.parameters(places)))

    def near(self, moments: PairMoments, places: Places) -> Vector | None:
        """Return omega (r,) near correlations estimated by products; None for `start`."""
        return None

    def weak(self, places: Places) -> Vector | None:
        """Return omega (r,) of hardly any correlation, where none is an end of the range."""
        return None

    @abstractmethod
    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        """Return the natural parameters (r,) and their derivative (r, r) by omega."""

    def links(self, places: Places) -> tuple[Link, ...]:
        """Say on which scale an interval of each parameter is symmetric.

        "working" is the parameter's own omega, of which it is a monotone function.
        """
        return tuple("working" for _ in self.parameters(places))

    def from_working(self, at: int, omega: float, places: Places) -> float:
        """Return natural parameter `at` where its own omega has this value."""
        values = np.full(len(self.parameters(places)), omega)
        return float(self.natural(values, places)[0][at])

    # -- the matrices -------------------------------------------------------------------------

    @abstractmethod
    def correlation(self, t: NDArray[np.float64], omega: Vector, places: Places) -> Array3:
        """Return C (groups, m, m) of places t: (groups, m), or (groups, m, d) positions."""

    @abstractmethod
    def contract(
        self, t: NDArray[np.float64], omega: Vector, places: Places, core: Array3
    ) -> Vector:
        """Return sum_g <core_g, dC_g / d omega_k>, (r,); core (groups, m, m)."""

    @abstractmethod
    def slopes(self, t: NDArray[np.float64], omega: Vector, places: Places) -> NDArray[np.float64]:
        """Return dC / d omega, (groups, r, m, m)."""

    def steps(
        self, t: Vector, before: Vector, omega: Vector, places: Places
    ) -> tuple[Vector, list[tuple[int, NDArray[np.intp] | slice, Vector]]] | None:
        """Return how rows depend on the one before; None without the Markov property.

        Parameters
        ----------
        t, before : (s,) places of the rows and of the rows before them.

        Returns
        -------
        a : (s,) correlation of the two.
        slopes : (parameter, rows, da / d omega) for every parameter.
        """
        return None

    @property
    def markov(self) -> bool:
        """Whether `steps` answers."""
        return type(self).steps is not Correlation.steps


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"'


_REGISTRY: dict[str, type[Correlation]] = {}
_Structure = TypeVar("_Structure", bound=type[Correlation])


def correlation_structure(name: str) -> Callable[[_Structure], _Structure]:
    """Enter a class as the residual correlation `name`, under which files know it."""

    def enter(cls: _Structure) -> _Structure:
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


def registered(name: str) -> type[Correlation]:
    """Return the structure of that name."""
    if name not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY))
        raise OptionError(f"there is no residual structure '{name}': there are {known}")
    return _REGISTRY[name]


def structures() -> tuple[type[Correlation], ...]:
    """Return all structures that there are."""
    return tuple(_REGISTRY[name] for name in sorted(_REGISTRY))
