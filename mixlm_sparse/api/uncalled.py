"""A method that shows its result where it is printed without a call: `fit.summary`."""

from __future__ import annotations

from functools import partial, update_wrapper
from typing import Any


class _Shown:
    """A method that shows its result where it is printed without being called."""

    def __init__(self, method: Any) -> None:
        self._method = method  # of a module that may be loaded later

    def __getattribute__(self, name: str) -> Any:
        if name == "__doc__":
            return self._method.__doc__
        return super().__getattribute__(name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        function = self._method.__get__(None, owner)
        if instance is None:
            return function
        bound = update_wrapper(_Bound(function, instance), function)
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
