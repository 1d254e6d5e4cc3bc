"""Attributes of a fit that R has functions for: `fit.nobs` is the number, and so is `fit.nobs()`.

Each is what it was, an int, a float or a Series, that also answers a call; whatever is computed
from it, copied or pickled is plain.  `fit.summary` without a call shows the summary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial, update_wrapper
from inspect import getattr_static
from typing import Any

import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.model.fitted import FittedModel

# The attributes, and what there is for those that R's functions take arguments for.
CALLED = {
    "fixef": "fit.fixef has no arguments",
    "params": "fit.params has no arguments",
    "nobs": "fit.nobs has no arguments",
    "sigma": "fit.sigma has no arguments",
    "deviance": "write fit.refit_ml().deviance for the deviance of a fit by REML",
    "resid": "write fit.residuals('pearson') for other kinds",
}


def _require_nothing(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise an OptionError for arguments; pandas calls what can be called with its own objects."""
    if kwargs or any(isinstance(value, str | bool | int | float | None) for value in args):
        remedy = CALLED.get(name, "leave them out")
        raise OptionError(f"fit.{name} is an attribute, without arguments: {remedy}")


class _Whole(int):
    name = "nobs"

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        _require_nothing(self.name, args, kwargs)
        return int(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


class _Real(float):
    name = "sigma"

    def __call__(self, *args: Any, **kwargs: Any) -> float:
        _require_nothing(self.name, args, kwargs)
        return float(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)


class _LikeASeries(type):
    """pandas compares types by ==, and the series below is one for all that tests ask."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is pd.Series

    def __hash__(cls) -> int:
        return type.__hash__(cls)


class _Series(pd.Series, metaclass=_LikeASeries):
    _metadata = ["called"]  # noqa: RUF012 (pandas's own list)
    called = "fixef"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _require_nothing(self.called, args, kwargs)
        return pd.Series(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copy.copy, (pd.Series(self),)  # a plain one, wherever it is read


def as_called(name: str, value: Any) -> Any:
    """Return a value that answers a call as well."""
    if isinstance(value, pd.Series):
        series = _Series(value)
        object.__setattr__(series, "called", name)
        return series
    number: Any = _Whole(value) if isinstance(value, int) else _Real(value)
    number.name = name
    return number


class _Shown:
    """A method that shows its result where it is printed without being called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.function
        bound = update_wrapper(_Bound(self.function, instance), self.function)
        del bound.__wrapped__  # whose signature has the fit as well
        return bound


class _Bound(partial):  # type: ignore[type-arg]
    def __repr__(self) -> str:
        return str(self())

    def _repr_html_(self) -> str:
        return str(self()._repr_html_())

    def __reduce__(self) -> Any:  # as a method is pickled
        return getattr, (self.args[0], self.func.__name__)


def answer_calls(cls: type[FittedModel]) -> None:
    """Let the attributes of a class of fits answer calls, and its summary show itself."""
    for name in CALLED:
        inherited = getattr_static(FittedModel, name)

        def read(fit: FittedModel, name: str = name, inherited: Any = inherited) -> Any:
            return as_called(name, inherited.__get__(fit, type(fit)))

        read.__doc__ = inherited.__doc__
        setattr(cls, name, property(read, doc=inherited.__doc__))
    setattr(cls, "summary", _Shown(cls.__dict__["summary"]))  # noqa: B010 (its type is that above)
