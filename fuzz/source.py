"""Decisions read from bytes: equal bytes make equal decisions, and any bytes will do."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# what arithmetic, formats and parsers stumble over
NUMBERS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 1e-8, 1e8, 1e-300, 1e300, 5e-324, 1.7976931348623157e308,
    float("inf"), float("-inf"), float("nan"), 2.0**53, -(2.0**63), 1e-17, 100.0,
)  # fmt: skip


class Source:
    """Bytes that are used up from the front; after the end come zeros."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Bytes that are not used."""
        return max(len(self._data) - self._at, 0)

    def take(self, count: int) -> bytes:
        """Return the next bytes, filled up with zeros."""
        part = self._data[self._at : self._at + count]
        self._at += count
        return part.ljust(count, b"\0")

    def below(self, n: int) -> int:
        """Return a whole number from 0 to n - 1."""
        return int.from_bytes(self.take(1 if n <= 256 else 4), "little") % n

    def flag(self) -> bool:
        """Return a truth value."""
        return bool(self.below(2))

    def pick(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.below(len(values))]

    def number(self) -> float:
        """Return a number: an awkward one, a small one, or any."""
        kind = self.below(4)
        if kind == 0:
            return self.pick(NUMBERS)
        if kind == 1:
            found: float = struct.unpack("<d", self.take(8))[0]
            return found
        return self.below(256) / 16 - 8

    def text(self, most: int = 40) -> str:
        """Return a text of at most `most` bytes."""
        return self.take(min(self.below(256), most, self.left)).decode("utf-8", "replace")

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.left)
