"""Attributes of a class that functions of other rooms compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

T = TypeVar("T")


class Attribute(property, Generic[T]):
    """A property read by a function of the object; type checkers see what the function returns.

    Parameters
    ----------
    read : function of the object, perhaps of a module that is loaded later (`late.LateMethod`); its
        docstring is the attribute's.
    """

    if not TYPE_CHECKING:

        def __init__(self, read):
            super().__init__(read, doc="")  # else the docstring would be read at once

        def __getattribute__(self, name):
            return self.fget.__doc__ if name == "__doc__" else super().__getattribute__(name)

    if TYPE_CHECKING:

        def __init__(self, read: Callable[[Any], T]) -> None: ...

        @overload
        def __get__(self, instance: None, owner: type | None = None) -> Attribute[T]: ...

        @overload
        def __get__(self, instance: object, owner: type | None = None) -> T: ...

        def __get__(self, instance: object, owner: type | None = None) -> Any: ...
