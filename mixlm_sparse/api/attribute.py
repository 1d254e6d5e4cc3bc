"""Attributes of a class that functions of other rooms compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

T = TypeVar("T")


class Attribute(property, Generic[T]):
    """A property read by a function of the object; type checkers see what the function returns.

    Parameters
    ----------
    read : function of the object; its docstring is the attribute's.
    """

    if TYPE_CHECKING:

        def __init__(self, read: Callable[[Any], T]) -> None: ...

        @overload
        def __get__(self, instance: None, owner: type | None = None) -> Attribute[T]: ...

        @overload
        def __get__(self, instance: object, owner: type | None = None) -> T: ...

        def __get__(self, instance: object, owner: type | None = None) -> Any: ...
