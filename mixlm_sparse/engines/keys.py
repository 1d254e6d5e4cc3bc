"""Distinct whole numbers to codes 0, 1, ... in the order in which they appear; more may come."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import IntVector
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.decisions import compiled_pays

__all__ = ["KeyMap"]

Keys = NDArray[np.int64]

# A look-up table by key is used while its range is at most this multiple of the keys seen.
LOOKUP_RANGE = 4
LOOKUP_MINIMUM = 1_000_000
LOOKUP_MOST = 2**27  # entries, 512 MB
FIRST_SIZE = 1024
HASH = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing


@njit
def _lookup_compiled(keys, low, table, values, n, out):  # type: ignore[no-untyped-def]
    # stops at the first key out of range, or for which there is no room
    for i in range(keys.shape[0]):
        place = keys[i] - low
        if place < 0 or place >= table.shape[0]:
            return i, n
        code = table[place]
        if code < 0:
            if n >= values.shape[0]:
                return i, n
            code = n
            table[place] = code
            values[n] = keys[i]
            n += 1
        out[i] = code
    return keys.shape[0], n


@njit
def _hash_compiled(keys, slots, shift, values, n, out):  # type: ignore[no-untyped-def]
    # open addressing; slots hold codes; stops where the table would be more than half full
    mask = slots.shape[0] - 1
    for i in range(keys.shape[0]):
        key = keys[i]
        place = np.int64((np.uint64(key) * HASH) >> np.uint64(shift))
        while True:
            code = slots[place]
            if code < 0:
                if n >= values.shape[0] or 2 * n >= slots.shape[0]:
                    return i, n
                slots[place] = n
                values[n] = key
                code = n
                n += 1
                break
            if values[code] == key:
                break
            place = (place + 1) & mask
        out[i] = code
    return keys.shape[0], n


class KeyMap:
    """A growing map from int64 keys to codes; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values = np.empty(FIRST_SIZE, dtype=np.int64)
        self._n = 0
        self._low = 0
        self._table: IntVector | None = None
        self._slots: IntVector | None = None
        self._sorted: tuple[Keys, IntVector] | None = None

    def __len__(self) -> int:
        return self._n

    @property
    def values(self) -> Keys:
        """(n,) the keys, by code."""
        return self._values[: self._n]

    def encode(self, keys: Keys) -> IntVector:
        """Return the codes of keys (m,); keys that are new get the next codes."""
        out = np.empty(keys.shape[0], dtype=np.int32)
        if not keys.shape[0]:
            return out
        with self._lock:
            if not compiled_pays(8.0 * keys.shape[0]):
                return self._by_sorting(keys)
            start = 0
            while start < keys.shape[0]:
                rest = keys[start:]
                if self._slots is None and self._fits_lookup(rest):
                    done, self._n = _lookup_compiled(
                        rest, self._low, self._table, self._values, self._n, out[start:]
                    )
                else:
                    if self._slots is None:
                        self._make_slots()
                    assert self._slots is not None
                    done, self._n = _hash_compiled(
                        rest, self._slots, 65 - self._slots.size.bit_length(), self._values,
                        self._n, out[start:],
                    )  # fmt: skip
                start += int(done)
                if start < keys.shape[0]:
                    self._grow()
        return out

    def _fits_lookup(self, keys: Keys) -> bool:
        """Make the look-up table wide enough for `keys`; return False if it would be too wide."""
        low, high = int(keys.min()), int(keys.max())
        table = self._table
        if table is not None and self._low <= low and high < self._low + table.size:
            return True
        if table is not None:
            low, high = min(low, self._low), max(high, self._low + table.size - 1)
        elif self._n:  # so far without machine code
            low, high = min(low, int(self.values.min())), max(high, int(self.values.max()))
        span = high - low + 1
        if span > min(max(LOOKUP_RANGE * (self._n + keys.size), LOOKUP_MINIMUM), LOOKUP_MOST):
            self._table = None
            return False
        if table is not None:  # grow by half, so that keys in order do not copy it every time
            high += min(span // 2, LOOKUP_MOST - span)
        self._table = np.full(high - low + 1, -1, dtype=np.int32)
        self._low = low
        self._table[self.values - low] = np.arange(self._n, dtype=np.int32)
        return True

    def _make_slots(self) -> None:
        size = 4 * FIRST_SIZE
        while size < 4 * self._n:
            size *= 2
        self._slots = np.full(size, -1, dtype=np.int32)
        self._refill()

    def _refill(self) -> None:
        assert self._slots is not None
        known = self.values.copy()
        self._slots.fill(-1)
        shift = 65 - self._slots.size.bit_length()
        _hash_compiled(
            known, self._slots, shift, self._values, 0, np.empty(known.size, dtype=np.int32)
        )

    def _grow(self) -> None:
        if self._n >= self._values.size:
            self._values = np.concatenate([self._values, np.empty_like(self._values)])
        if self._slots is not None and 2 * self._n >= self._slots.size:
            self._slots = np.full(4 * self._slots.size, -1, dtype=np.int32)
            self._refill()

    def _by_sorting(self, keys: Keys) -> IntVector:
        """Encode without machine code: by a sorted list of the keys."""
        if self._sorted is None or self._sorted[0].size != self._n:
            order = np.argsort(self.values, kind="stable").astype(np.int32)
            self._sorted = self.values[order], order
        known, codes = self._sorted
        distinct, inverse = np.unique(keys, return_inverse=True)
        place = np.searchsorted(known, distinct)
        found = np.zeros(distinct.size, dtype=bool)
        if known.size:
            within = np.minimum(place, known.size - 1)
            found = known[within] == distinct
        own = np.empty(distinct.size, dtype=np.int32)
        if found.any():
            own[found] = codes[place[found]]
        new = distinct[~found]
        own[~found] = self._n + np.arange(new.size, dtype=np.int32)
        if new.size:
            self._values = np.concatenate([self.values, new])
            self._n += new.size
            self._table = self._slots = None
        out: Any = own[inverse]
        return np.asarray(out, dtype=np.int32)
