"""A method that shows its result where it is printed without a call: `fit.summary`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any


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


def shows_uncalled(cls: type, name: str) -> None:
    """Let a method of a class show its result where it is printed without a call."""
    setattr(cls, name, _Shown(cls.__dict__[name]))
