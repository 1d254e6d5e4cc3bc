"""Variance functions: standard deviations of the residuals that differ, sd_i = sigma s_i(rho).

    VarIdent      s = 1 for the first level, a ratio for every other
    VarPower      s = |x|^power
    VarExp        s = exp(rate x)

A function is known by log s_i = sum_k f_k(row i) omega_k, linear in working parameters omega, so
that its derivative by omega is f.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.correlation import _names

__all__ = ["Values", "VarExp", "VarIdent", "VarPower", "VarianceFunction", "variance_function"]


@dataclass(frozen=True, slots=True)
class Values:
    """What a variance function has learned from the columns of the fit.

    Parameters
    ----------
    levels : names of the levels, the first being the reference.
    scale : a typical size of the covariate's part of log s, in which omega is of order one.
    """

    levels: tuple[str, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class VarianceFunction(ABC):
    """Standard deviations of the residuals relative to sigma; see the subclasses."""

    name: ClassVar[str] = ""
    words: ClassVar[str] = ""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are named."""

    @abstractmethod
    def parameters(self, values: Values) -> tuple[str, ...]:
        """Return the names of the natural parameters."""

    @abstractmethod
    def log_sd(self, x: NDArray[Any], omega: Vector, values: Values) -> Vector:
        """Return log s (n,) of rows with levels or covariates x (n,)."""

    @abstractmethod
    def contract(self, x: NDArray[Any], core: Vector, values: Values) -> Vector:
        """Return sum_i core_i dlog s_i / d omega, (r,)."""

    @abstractmethod
    def natural(self, omega: Vector, values: Values) -> tuple[Vector, Matrix]:
        """Return the natural parameters (r,) and their derivative (r, r) by omega."""

    def start(self, values: Values) -> Vector:
        """Return omega of equal variances."""
        return np.zeros(len(self.parameters(values)))

    def to_dict(self) -> dict[str, Any]:
        """Return the function as plain data."""
        key = "by" if hasattr(self, "by") else "covariate"
        value = getattr(self, key)
        return {"name": self.name, key: list(value) if isinstance(value, tuple) else value}


_REGISTRY: dict[str, type[VarianceFunction]] = {}
_Function = TypeVar("_Function", bound=type[VarianceFunction])


def _enter(name: str) -> Callable[[_Function], _Function]:
    def enter(cls: _Function) -> _Function:
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


def variance_function(name: str) -> type[VarianceFunction]:
    """Return the variance function of that name."""
    if name not in _REGISTRY:
        raise OptionError(f"there is no variance function '{name}'")
    return _REGISTRY[name]


@answering_calls
@_enter("ident")
@dataclass(frozen=True, slots=True)
class VarIdent(VarianceFunction):
    """A standard deviation of its own for every level of a factor.

    sigma is that of the first level; the parameters are the ratios of the others to it.

    Parameters
    ----------
    by : column (or columns, for every combination of their levels).

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> teeth = mx.datasets.load("Orthodont")
    >>> by_sex = mx.VarIdent(by="Sex")
    >>> fit = mx.lmer("distance ~ age * Sex + (1 | Subject)", teeth, variance=by_sex)
    >>> fit.residual_structure.round(3)
           parameter  estimate  std_error  lower  upper
    0  ratio(Female)     0.468      0.076  0.341  0.642
    """

    words = "a standard deviation for each level"

    by: str | tuple[str, ...]

    def __post_init__(self) -> None:
        _names("by of VarIdent", self.by, several=True)
        if not isinstance(self.by, str):
            object.__setattr__(self, "by", tuple(self.by))

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.by,) if isinstance(self.by, str) else self.by

    def parameters(self, values: Values) -> tuple[str, ...]:
        return tuple(f"ratio({level})" for level in values.levels[1:])

    def log_sd(self, x: NDArray[Any], omega: Vector, values: Values) -> Vector:
        out: Vector = np.append(0.0, omega)[x]
        return out

    def contract(self, x: NDArray[Any], core: Vector, values: Values) -> Vector:
        sums = np.bincount(x, weights=core, minlength=len(values.levels))
        return np.asarray(sums[1:], dtype=np.float64)

    def natural(self, omega: Vector, values: Values) -> tuple[Vector, Matrix]:
        ratio = np.exp(omega)
        return ratio, np.diag(ratio)

    def __str__(self) -> str:
        by = f'"{self.by}"' if isinstance(self.by, str) else list(self.by)
        return f"VarIdent(by={by})"


class ByCovariate(VarianceFunction):
    """log s = omega x / scale, x the covariate or its logarithm."""

    __slots__ = ()
    covariate: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.covariate,)

    def log_sd(self, x: NDArray[Any], omega: Vector, values: Values) -> Vector:
        out: Vector = x * (omega[0] / values.scale)
        return out

    def contract(self, x: NDArray[Any], core: Vector, values: Values) -> Vector:
        return np.array([float(x @ core) / values.scale])

    def natural(self, omega: Vector, values: Values) -> tuple[Vector, Matrix]:
        return omega / values.scale, np.eye(1) / values.scale

    def __str__(self) -> str:
        return f'{type(self).__name__}(covariate="{self.covariate}")'


@answering_calls
@_enter("power")
@dataclass(frozen=True, slots=True)
class VarPower(ByCovariate):
    """sd = sigma |x|^power: sigma is the standard deviation at |x| = 1.

    Parameters
    ----------
    covariate : column of numbers, none of them zero.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fev = mx.datasets.load("fev_data")
    >>> grows = mx.VarPower(covariate="VISITN")
    >>> fit = mx.lmer("FEV1 ~ AVISIT * ARMCD + (1 | USUBJID)", fev, variance=grows)
    >>> fit.residual_structure.round(3)
      parameter  estimate  std_error  lower  upper
    0     power     0.385       0.08  0.228  0.543
    """

    words = "a power of the covariate"

    covariate: str

    def __post_init__(self) -> None:
        _names("covariate of VarPower", self.covariate, several=False)

    def parameters(self, values: Values) -> tuple[str, ...]:
        return ("power",)


@answering_calls
@_enter("exp")
@dataclass(frozen=True, slots=True)
class VarExp(ByCovariate):
    """sd = sigma exp(rate x): sigma is the standard deviation at x = 0.

    Parameters
    ----------
    covariate : column of numbers.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fev = mx.datasets.load("fev_data")
    >>> grows = mx.VarExp(covariate="VISITN")
    >>> fit = mx.lmer("FEV1 ~ AVISIT * ARMCD + (1 | USUBJID)", fev, variance=grows)
    >>> fit.residual_structure.round(3)
      parameter  estimate  std_error  lower  upper
    0      rate     0.217      0.036  0.148  0.287
    """

    words = "exponential in the covariate"

    covariate: str

    def __post_init__(self) -> None:
        _names("covariate of VarExp", self.covariate, several=False)

    def parameters(self, values: Values) -> tuple[str, ...]:
        return ("rate",)
