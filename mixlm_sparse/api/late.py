"""Methods of the fit whose modules are loaded when one of them is asked for first.

A fit needs neither tests nor tables nor plots to be made: what they import would take longer than
the first fit itself.
"""

from __future__ import annotations

from importlib import import_module
from types import FunctionType
from typing import Any

from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.engines.threads import calm


class Late:
    """A module of the package, not loaded yet: its attributes are `LateMethod`s.

    Parameters
    ----------
    module : its name within the package.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> LateMethod:
        return LateMethod(f"{__name__.partition('.')[0]}.{self._module}", name)


class LateMethod:
    """A function of a module, which is loaded when the function is asked for or called.

    Asked for on a class, it leaves its place there to the function, as every method answers
    keywords and runs with one BLAS thread.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._attribute = self._name = name
        self._function: Any = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    @property
    def function(self) -> Any:
        """The function, or a class that is called like one."""
        if self._function is None:
            found = getattr(import_module(self._module), self._name)
            if isinstance(found, FunctionType):
                found = answers_unknown_keywords(calm(found), self._attribute)
            self._function = found
        return self._function

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        function = self.function
        for cls in (type(instance) if owner is None else owner).__mro__:
            if cls.__dict__.get(self._attribute) is self:
                setattr(cls, self._attribute, function)
        return function.__get__(instance, owner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        if name == "__doc__":  # what help() shows is the function's
            return self.function.__doc__
        return super().__getattribute__(name)
