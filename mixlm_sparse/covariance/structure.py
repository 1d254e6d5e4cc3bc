"""What a covariance structure of a random term is, and the registry in which it is found by name.

A structure maps its part of theta to the (k, k) lower-triangular relative covariance factor T,
Cov(b_j) = sigma^2 T T', and pulls a derivative with respect to T back to theta.  Only T is seen by
the engines.  Searches and second derivatives see the working parameters phi of a structure, which
have no bounds: theta itself where T is a copy of theta and the criterion is even across its bounds,
smooth functions of it otherwise.  Formula and design ask the registry which names there are; nobody
else compares names: what differs between structures is a property of theirs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import FormulaError, OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.described import Edges, NaturalParameter

__all__ = [
    "Closure", "CovarianceStructure", "covariance_structure", "structure", "structure_class",
    "structure_key", "structure_names",
]  # fmt: skip

Closure = Literal["linear", "scales", "one scale"]


@dataclass(frozen=True, slots=True)
class CovarianceStructure(ABC):
    """Template of the relative covariance factor of one term.

    A structure is a subclass with the abstract members below, entered by `@structure(name)`.

    Attributes
    ----------
    k : columns of the term.
    name : what stands before the bracket in a formula.
    arguments : what stands in the bracket after the columns, such as "hom = TRUE"; often nothing.
    words : the structure in words.
    closed_under : what may be done to the columns so that the covariance of the new effects has
        the same structure: any regular "linear" map, "scales" of each column, or "one scale" for
        all.  The search works on columns that are changed in this way, and asks this before it
        turns them or looks for zero variances.
    correlated : whether correlations are parameters; where not, they are zero by definition.
    over_levels : numbers left of the bar are read as the levels of a factor (of times).
    """

    name: ClassVar[str] = ""
    arguments: ClassVar[str] = ""
    words: ClassVar[str] = ""
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

    @classmethod
    def of_size(cls, k: int) -> CovarianceStructure:
        """Return the template for k columns; with few of them it may be that of another one."""
        return cls(k)

    @classmethod
    def at_places(cls, places: tuple[int, ...]) -> CovarianceStructure:
        """Return the template for effects at places (k,) in time, from 0 on; here without gaps."""
        if places != tuple(range(len(places))):
            raise FormulaError(f"{cls.name}(...) needs an effect at every place, without gaps")
        return cls.of_size(len(places))

    @classmethod
    def written(cls, inside: str) -> str:
        """Return a term as a formula has it: `inside` is "columns | group"."""
        more = f", {cls.arguments}" if cls.arguments else ""
        return f"({inside})" if cls.name == "us" else f"{cls.name}({inside}{more})"

    @property
    def n_theta(self) -> int:
        """Return the number of parameters."""
        return int(self.start.size)

    @property
    def n_variances(self) -> int:
        """Return how many of the parameters are variances, bounded by zero."""
        return min(self.k, self.n_theta)

    @property
    def upper(self) -> Vector:
        """Return the (n_theta,) upper bounds; inf where there is none."""
        return np.full(self.n_theta, np.inf)

    # -- working parameters -----------------------------------------------------------------------

    def working(self, theta: Vector) -> Vector:
        """Return the working parameters (n_theta,) of theta: theta itself unless overridden."""
        return theta

    def theta_at(self, phi: Vector) -> Vector:
        """Return the theta that working parameters mean."""
        return phi

    def factor_at(self, phi: Vector) -> Matrix:
        """Return T (k, k) at working parameters; smooth, also where theta is at a bound."""
        return self.factor(phi)

    def slopes_at(self, phi: Vector) -> NDArray[np.float64]:
        """Return the derivatives (n_theta, k, k) of `factor_at`."""
        return self.dT(phi)

    def pull_back_at(self, phi: Vector, dT: Matrix) -> Vector:
        """Return d/dphi (n_theta,) from the derivative (k, k) by every element of T."""
        return self.pull_back(phi, dT)

    def working_of(self, M: Matrix) -> Vector:
        """Return working parameters with T T' = M M', or as close as the structure comes."""
        return self.working(self.theta_of(M))

    def reflected(self, phi: Vector) -> Vector:
        """Return the working parameters that theta in bounds has, with the same covariance."""
        return self.theta_of(self.factor(phi))

    def mapped(self, theta: Vector, M: Matrix) -> Vector:
        """Return the theta in bounds of M T, for a map M (k, k) that `closed_under` allows."""
        return self.theta_of(M @ self.factor(theta))

    @property
    def powers(self) -> Vector:
        """Return the powers (n_theta,) of s by which phi is multiplied where T becomes s T."""
        return np.ones(self.n_theta)

    @property
    def second_start(self) -> Vector | None:
        """Return another phi (n_theta,) to search from if the first ends at an edge, or None."""
        return None

    def with_correlation(self, r: float, phi: Vector) -> Vector | None:
        """Return phi with neighbouring effects correlated by r, where a structure is about that."""
        return None

    def other_faces(self, phi: Vector) -> list[Vector]:
        """Return phi with its correlations on every other edge, where there are more than two."""
        return []

    @property
    def generic(self) -> Vector:
        """Return a phi (n_theta,) at which the covariance moves as it does nearly everywhere."""
        return self.working(self.start)

    def working_scales(self, phi: Vector, floor: float) -> Vector:
        """Return (n_theta,) the size of a change of phi that matters.

        Parameters
        ----------
        floor : the size of T where T is zero.
        """
        T = self.factor(phi)
        rows = np.maximum(np.sqrt((T * T).sum(axis=1)), floor)
        # phi moves the rows of T that it stands in
        moved = self.dT(phi).any(axis=2)
        out = np.where(moved, rows, np.inf).min(axis=1)
        return np.where(np.isfinite(out), out, 1.0)

    def tangents(self, phi: Vector) -> tuple[Matrix, ...]:
        """Return symmetric (k, k) matrices that span the directions in which T T' moves at phi."""
        T, slopes = self.factor_at(phi), self.slopes_at(phi)
        return tuple(slope @ T.T + T @ slope.T for slope in slopes)

    @property
    def can_hold(self) -> bool:
        """Return whether `hold` can set every natural parameter."""
        return False

    def hold(self, parameter: int, value: float, phi: Vector) -> tuple[Vector, Vector]:
        """Return phi with one coordinate set so that a natural parameter has a value.

        Parameters
        ----------
        parameter : index in `natural_parameters`.
        value : of T T' itself: a standard deviation in the columns that phi is for, or a
            correlation.

        Returns
        -------
        phi : (n_theta,) with the coordinate `held_coordinate(parameter)` changed.
        slopes : (n_theta,) derivatives of that coordinate by the other ones; 0 by itself.

        Raises
        ------
        NotPositiveDefiniteError : the rest of phi leaves no room for the value.
        NotImplementedError : the structure cannot hold this parameter.
        """
        raise NotImplementedError

    def held_coordinate(self, parameter: int) -> int:
        """Return which coordinate of phi `hold` sets; see there."""
        raise NotImplementedError

    def edges(self, phi: Vector) -> Edges | None:
        """Say which edges phi is on; None where zero columns of T tell everything."""
        return None

    def off_zero(self, M: Matrix) -> list[tuple[float, Vector]]:
        """Return slopes off T = 0 and their phi, steepest first; M (k, k) is d/d(T T')."""
        return []

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


def structure(name: str, arguments: str = "") -> Callable[[_Structure], _Structure]:
    """Enter a class as the covariance structure `name`: formulas may say `name(x | g)` then.

    Parameters
    ----------
    arguments : "hom = TRUE" or "hom = FALSE" enters a second form, `name(x | g, hom = TRUE)`;
        anything else one that formulas cannot name.

    Raises
    ------
    OptionError : the name is no word, or another structure has it.
    """
    if not name.isidentifier():
        raise OptionError(f"a structure cannot be called '{name}': use letters, digits and _")

    def enter(cls: _Structure) -> _Structure:
        key = _key(name, arguments)
        known: Any = _REGISTRY.get(key)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise OptionError(
                f"there is a covariance structure '{name}' already: choose another name"
            )
        cls.name = name
        cls.arguments = arguments
        _REGISTRY[key] = cls
        return cls

    return enter


def _key(name: str, arguments: str) -> str:
    return f"{name}({arguments})" if arguments else name


def structure_names() -> tuple[str, ...]:
    """Return the names of the structures that there are."""
    return tuple(sorted({cls.name for cls in _REGISTRY.values()}))


def structure_key(name: str, arguments: Mapping[str, bool]) -> str:
    """Return under which key the registry has `name(x | g, hom = TRUE)`: "cs(hom = TRUE)".

    An argument that is the default anyway is left out.

    Raises
    ------
    FormulaError : the structure has no such argument.
    """
    structure_class(name)
    if not arguments:
        return name
    forms = {cls.arguments for cls in _REGISTRY.values() if cls.name == name} - {"", "natural"}
    for argument, value in arguments.items():
        if len(arguments) > 1 or argument != "hom" or not forms:
            takes = "hom" if forms else "none"
            raise FormulaError(
                f"{name}(x | g) has no argument '{argument}': it takes {takes}; leave it out"
            )
        key = _key(name, f"hom = {'TRUE' if value else 'FALSE'}")
        return key if key in _REGISTRY else name
    return name


def structure_class(key: str) -> type[CovarianceStructure]:
    """Return the class of a structure, by the key that `structure_key` gives.

    Raises
    ------
    FormulaError : there is no such structure.
    """
    try:
        return _REGISTRY[key]
    except KeyError:
        raise FormulaError(
            f"'{key}' is not a covariance structure of random effects: "
            f"use one of {', '.join(structure_names())}"
        ) from None


def covariance_structure(
    name: str, k: int, places: tuple[int, ...] | None = None
) -> CovarianceStructure:
    """Return the template of structure `name`, a key of the registry, for a term of `k` columns.

    Parameters
    ----------
    places : (k,) of the columns in time, from 0 on; None for one step from each to the next.

    Raises
    ------
    FormulaError : there is no such structure, or it takes no such places.
    """
    cls = structure_class(name)
    return cls.of_size(k) if places is None else cls.at_places(places)
