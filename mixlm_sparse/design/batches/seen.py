"""What the passes over a source have seen: a function or a query may give other rows each time.

A pass is told from another by its number of rows and by a sum over rows of

    h_i = mix(... mix(mix(0, a_i1), a_i2) ..., a_ik)   modulo 2^64

where a_ij are 64 bits that stand for the cell of row i in column j.  The sum knows which cells
stand in one row, and neither the order of the rows nor the cuts between batches.  Where results
go by the place of a row, the sum of (2 i + 1) h_i is compared as well.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.text import printable
from mixlm_sparse.design.table import Column, Table

__all__ = ["Pass", "Seen"]

Bits = NDArray[np.uint64]
Names = tuple[str, ...]

ODD = np.uint64(0x9E3779B97F4A7C15)  # multiplication by an odd number loses nothing
SHIFT = np.uint64(29)
MISSING = np.uint64(0x5851F42D4C957F2D)

OTHER = (
    "the data are not the same in every pass over them: {what}. A function or a query given as "
    "data must give the same rows whenever it is asked: draw, shuffle or filter before, and keep "
    "the result"
)
ORDER = (
    "the rows come in another order in a later pass over the data, and results here go by the "
    "places of the rows: sort them in the function or the query, or use fit.stream(...), which "
    "takes all results of a batch from one pass"
)


@dataclass(eq=False)
class Seen:
    """The rows of a source, as the first passes have found them.

    Parameters
    ----------
    by_value : compare sums over cells too, not only the number of rows.
    """

    by_value: bool = False
    n: int | None = None
    sums: dict[Names, int] = field(default_factory=dict)
    in_order: int | None = None

    def begin(self, names: Sequence[str], *, ordered: bool = False) -> Pass:
        """Return what a pass over columns is to be told of its pieces.

        Parameters
        ----------
        ordered : results of this pass and of others go by the places of the rows; the pieces are
            told in their order.
        """
        own = tuple(names)
        if not self.by_value:
            return Pass(self, (), False)
        inner = (key for key in self.sums if key != own and set(key) <= set(own))
        return Pass(self, (own, *inner), ordered)


class Pass:
    """One pass over a source; pieces may be told by several threads."""

    def __init__(self, seen: Seen, keys: tuple[Names, ...], ordered: bool) -> None:
        self._seen, self._n = seen, 0
        self._in_order = 0 if ordered else None
        self._sums = dict.fromkeys(keys, 0)
        self._lock = threading.Lock()

    def add(self, table: Table) -> None:
        """Take the rows of a piece."""
        own = next(iter(self._sums), ())
        bits = {name: _bits(table.columns[name]) for name in own if name in table.columns}
        found = {}
        for key in self._sums:
            mixed = _mixed([bits[name] for name in key if name in bits], table.n)
            found[key] = int(mixed.sum())
            if key is own and self._in_order is not None:
                place = np.arange(self._n, self._n + table.n, dtype=np.uint64)
                own_sum = int((mixed * (np.uint64(2) * place + np.uint64(1))).sum())
                self._in_order = (self._in_order + own_sum) % 2**64
        with self._lock:
            self._n += table.n
            for key, value in found.items():
                self._sums[key] = (self._sums[key] + value) % 2**64

    def end(self) -> None:
        """Raise a DataError if this whole pass has seen other rows than those before it."""
        seen = self._seen
        if seen.n not in (None, self._n):
            raise DataError(OTHER.format(what=f"{seen.n} rows, and {self._n} in a later pass"))
        for key, value in self._sums.items():
            if seen.sums.setdefault(key, value) != value:
                one = f"column '{key[0]}' has" if len(key) == 1 else "columns have"
                raise DataError(OTHER.format(what=f"{one} other values in a later pass"))
        seen.n = self._n
        if self._in_order is not None:
            if seen.in_order not in (None, self._in_order):
                raise DataError(ORDER)
            seen.in_order = self._in_order


def _mixed(columns: list[Bits], n: int) -> Bits:
    found = np.zeros(n, dtype=np.uint64)
    for bits in columns:
        found ^= bits
        found *= ODD
        found ^= found >> SHIFT
    found *= ODD
    found ^= found >> SHIFT
    return found


def _bits(column: Column) -> Bits:
    """Return 64 bits for each cell, the same whatever type a batch has its numbers or levels in."""
    if column.kind == "factor":
        known = np.append(_of_values(np.asarray(column.levels)), MISSING)  # code -1 is the last
        found: Bits = known[column.values]
        return found
    found = _of_values(column.values)
    if column.missing is not None:
        found[column.missing] = MISSING
    return found


def _of_values(values: Any) -> Bits:
    if getattr(values, "tz", None) is not None:
        values = pd.DatetimeIndex(values).tz_convert("UTC").tz_localize(None)
    values = np.asarray(values)
    if values.dtype.kind in "iufb":
        floats = values.astype(np.float64) + 0.0  # one zero
        found: Bits = floats.view(np.uint64)
        found[np.isnan(floats)] = MISSING
        return found
    if values.dtype.kind in "mM":
        found = values.astype(f"{values.dtype.kind}8[us]").view(np.uint64)
        found[np.isnat(values)] = MISSING
        return found
    texts = np.empty(len(values), dtype=object)
    texts[:] = [str(value) for value in values]
    try:
        bits = pd.util.hash_array(texts, categorize=False)
    except UnicodeEncodeError:  # halves of characters; whole ones have the same bits either way
        texts[:] = [printable(text) for text in texts]
        bits = pd.util.hash_array(texts, categorize=False)
    return np.asarray(bits, dtype=np.uint64)
