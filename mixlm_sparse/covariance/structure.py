"""What a covariance structure of a random term is, and the registry in which it is found by name.

A structure maps its part of theta to the (k, k) lower-triangular relative covariance factor T,
Cov(b_j) = sigma^2 T T', and pulls a derivative with respect to T back to theta.  Only T is seen by
the engines; only theta is seen by the optimizers.  Formula and design ask the registry which names
there are; nobody else compares names: what differs between structures is a property of theirs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import FormulaError, OptionError
from mixlm_sparse.common.types import Matrix, Vector

__all__ = [
    "Closure",
    "CovarianceStructure",
    "NaturalParameter",
    "covariance_structure",
    "structure",
    "structure_names",
]

Closure = Literal["linear", "scales", "one scale"]


@dataclass(frozen=True, slots=True)
class NaturalParameter:
    """One number of the natural scale: a standard deviation or a correlation of two effects.

    Attributes
    ----------
    kind : "sd" or "cor".
    row, column : which effects of the term; equal for a standard deviation.
    """

    kind: str
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class CovarianceStructure(ABC):
    """Template of the relative covariance factor of one term.

    A structure is a subclass with the abstract members below, entered by `@structure(name)`.

    Attributes
    ----------
    k : columns of the term.
    name : what stands before the bracket in a formula.
    closed_under : what may be done to the columns so that the covariance of the new effects has
        the same structure: any regular "linear" map, "scales" of each column, or "one scale" for
        all.  The search works on columns that are changed in this way, and asks this before it
        turns them or looks for zero variances.
    correlated : whether correlations are parameters; where not, they are zero by definition.
    over_levels : numbers left of the bar are read as the levels of a factor (of times).
    """

    name: ClassVar[str] = ""
    closed_under: ClassVar[Closure] = "one scale"
    correlated: ClassVar[bool] = True
    over_levels: ClassVar[bool] = False

    k: int

    @property
    @abstractmethod
    def start(self) -> Vector:
        """Return the (n_theta,) value at which T = I, or is closest to it."""

    @property
    @abstractmethod
    def lower(self) -> Vector:
        """Return the (n_theta,) lower bounds; -inf where there is none."""

    @abstractmethod
    def names(self, group: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the parameters, lme4's where lme4 has the structure."""

    @abstractmethod
    def factor(self, theta: Vector) -> Matrix:
        """Return T (k, k), lower triangular."""

    @abstractmethod
    def dT(self, theta: Vector) -> NDArray[np.float64]:
        """Return the derivatives (n_theta, k, k) of T."""

    @abstractmethod
    def theta_of(self, M: Matrix) -> Vector:
        """Return the theta in bounds with T T' = M M', for a square M of this structure."""

    def factors_of(self, thetas: Matrix) -> NDArray[np.float64]:
        """Return T (r, k, k) for each of r rows of parameters, (r, n_theta)."""
        return np.array([self.factor(theta) for theta in thetas]).reshape(-1, self.k, self.k)

    def thetas_of(self, Ms: NDArray[np.float64]) -> Matrix:
        """Return the parameters (r, n_theta) of `theta_of` for each of r matrices (r, k, k)."""
        return np.array([self.theta_of(M) for M in Ms]).reshape(-1, self.n_theta)

    @property
    def n_theta(self) -> int:
        """Return the number of parameters."""
        return int(self.start.size)

    def pull_back(self, theta: Vector, dT: Matrix) -> Vector:
        """Return d/dtheta from the (k, k) derivative with respect to every element of T."""
        out: Vector = (self.dT(theta) * dT).sum(axis=(1, 2))
        return out

    @property
    def positions(self) -> NDArray[np.intp] | None:
        """Return which theta each element of T is a copy of, (k, k), -1 where it is zero.

        None where T is not a copy of theta.
        """
        return None

    @property
    def pattern(self) -> NDArray[np.bool_]:
        """Return where T can be different from zero, (k, k)."""
        positions = self.positions
        return np.tri(self.k, dtype=bool) if positions is None else positions >= 0

    @property
    def covariance_basis(self) -> tuple[Matrix, ...] | None:
        """Return symmetric (k, k) matrices whose combinations are the covariances T T'.

        None where the covariances are no linear space.
        """
        return None

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        """Return what `natural` gives, down the columns of the triangle."""
        return tuple(
            NaturalParameter("sd" if row == column else "cor", row, column)
            for column in range(self.k)
            for row in range(column, self.k if self.correlated else column + 1)
        )

    def natural(self, theta: Vector) -> tuple[Vector, Matrix]:
        """Return the natural parameters (r,) and their derivative (r, n_theta).

        Standard deviations are relative to sigma.  A correlation with a zero standard deviation
        is not defined, and a zero standard deviation has no derivative: both are NaN.
        """
        T, dT = self.factor(theta), self.dT(theta)
        covariance = T @ T.T
        change = np.matmul(dT, T.T)
        change = change + np.swapaxes(change, 1, 2)
        sd = np.sqrt(np.diag(covariance))
        with np.errstate(divide="ignore", invalid="ignore"):
            d_sd = np.diagonal(change, axis1=1, axis2=2) / (2.0 * sd)  # (n_theta, k)
            values, slopes = [], []
            for par in self.natural_parameters:
                i, j = par.row, par.column
                if par.kind == "sd":
                    values.append(sd[i])
                    slopes.append(d_sd[:, i])
                    continue
                product = sd[i] * sd[j]
                cor = covariance[i, j] / product
                values.append(np.clip(cor, -1.0, 1.0))
                relative = d_sd[:, i] / sd[i] + d_sd[:, j] / sd[j]
                slopes.append(change[:, i, j] / product - cor * relative)
        return np.array(values), np.array(slopes).reshape(len(values), theta.size)


_REGISTRY: dict[str, type[CovarianceStructure]] = {}
_Structure = TypeVar("_Structure", bound=type[CovarianceStructure])


def structure(name: str) -> Callable[[_Structure], _Structure]:
    """Enter a class as the covariance structure `name`: formulas may say `name(x | g)` then.

    Raises
    ------
    OptionError : the name is no word, or another structure has it.
    """
    if not name.isidentifier():
        raise OptionError(f"a structure cannot be called '{name}': use letters, digits and _")

    def enter(cls: _Structure) -> _Structure:
        known: Any = _REGISTRY.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise OptionError(
                f"there is a covariance structure '{name}' already: choose another name"
            )
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


def structure_names() -> tuple[str, ...]:
    """Return the names of the structures that there are."""
    return tuple(sorted(_REGISTRY))


def covariance_structure(name: str, k: int) -> CovarianceStructure:
    """Return the template of structure `name` for a term of `k` columns.

    Raises
    ------
    FormulaError : there is no such structure.
    """
    try:
        return _REGISTRY[name](k)
    except KeyError:
        raise FormulaError(
            f"'{name}' is not a covariance structure of random effects: "
            f"use one of {', '.join(structure_names())}"
        ) from None
