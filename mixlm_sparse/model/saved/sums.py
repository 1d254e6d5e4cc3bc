"""Checksums of the parts of a saved file: they show damage.

Who changes a part on purpose can write a new sum as well, so that nothing is believed for its sum:
what loading checks beside them stands in `check`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["SUMS", "Summed", "array_sum", "document_sum"]

SUMS = "checksums"  # the key of the document: SHA-256, in hexadecimal digits, by name of the part


class Summed:
    """A stream that is read or written, with the sum of what has passed."""

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self._stream, self._sum = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read from the stream."""
        assert self._stream is not None
        content = self._stream.read(size)
        self._sum.update(content)
        return content

    def write(self, content: bytes) -> int:
        """Take what is written; it is summed and goes nowhere."""
        self._sum.update(content)
        return len(content)

    def digits(self) -> str:
        """Return the sum."""
        return self._sum.hexdigest()


def array_sum(array: NDArray[Any]) -> str:
    """Return the sum of an array, of the bytes that its member holds."""
    sink = Summed()
    npy.write_array(sink, np.ascontiguousarray(array), allow_pickle=False)
    return sink.digits()


def document_sum(document: Mapping[str, Any]) -> str:
    """Return the sum of what a JSON document says but for its sums.

    The document is written in one way: keys in order, no spaces, ASCII; so that how a file is
    indented plays no part.
    """
    rest = {key: value for key, value in document.items() if key != SUMS}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
