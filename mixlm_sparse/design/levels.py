"""Distinct values to levels: codes, order and names."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.types import IntVector

__all__ = ["factorize", "level_labels", "native"]

# Look-up tables are used for whole-number keys whose range is at most this multiple of the rows.
LOOKUP_RANGE = 4
LOOKUP_MINIMUM = 1_000_000
MAX_INT64 = 2**63 - 1


def factorize(values: Any) -> tuple[IntVector, NDArray[Any]]:
    """Return codes (n,) into the sorted distinct values, and those values.

    Whole numbers in a moderate range go through a look-up table: three passes, no hashing.
    """
    if isinstance(values, np.ndarray) and values.size and values.dtype.kind in "iub":
        keys = values.view(np.int8) if values.dtype.kind == "b" else values
        low, high = int(keys.min()), int(keys.max())
        span = high - low + 1
        # unsigned numbers at the top of their range have no room in the index arithmetic
        if span <= max(LOOKUP_RANGE * values.size, LOOKUP_MINIMUM) and high <= MAX_INT64:
            # differences of small types could overflow; of 64-bit ones they cannot, given the span
            if keys.dtype.itemsize < 8:
                keys = keys.astype(np.int64)
            shifted = keys - keys.dtype.type(low) if low else keys
            present = np.zeros(span, dtype=bool)
            present[shifted] = True
            found = np.flatnonzero(present)
            if found.size == span:
                codes = shifted.astype(np.int32)
            else:
                lookup = np.empty(span, dtype=np.int32)
                lookup[found] = np.arange(found.size, dtype=np.int32)
                codes = lookup[shifted]
            uniques = found + low
            return codes, uniques.astype(bool) if values.dtype.kind == "b" else uniques
    codes, uniques = pd.factorize(values, sort=True)
    found = np.asarray(uniques)
    if found.dtype.kind == "f":
        found = found + found.dtype.type(0)  # a zero has no sign, whichever row came first
    return codes.astype(np.int32), found


def native(values: Any) -> Any:
    """Return an array or a Series in the byte order of this machine.

    Files of FITS, NetCDF and others are read in theirs, for which pandas has no hash tables.
    """
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype) and not dtype.isnative:
        return values.astype(dtype.newbyteorder("="))
    return values


def level_labels(levels: Any) -> tuple[str, ...]:
    """Return the names of levels: whole numbers without a decimal point, truth as R writes it.

    Numbers have 15 digits, as in R, or as many as keep them apart.
    """
    labels = tuple([_label(level) for level in levels])
    if getattr(levels, "dtype", None) == np.float64 and len(set(labels)) < len(labels):
        return tuple([repr(level) for level in np.asarray(levels).tolist()])
    return labels


def _label(level: Any) -> str:
    if isinstance(level, str):
        return level
    if isinstance(level, (bool, np.bool_)):
        return "TRUE" if level else "FALSE"
    if isinstance(level, (float, np.floating)):
        number = float(level)
        return str(int(number)) if number.is_integer() else f"{number:.15g}"
    if isinstance(level, (datetime.date, np.datetime64)):
        return str(pd.Timestamp(level)).removesuffix(" 00:00:00")
    if isinstance(level, np.timedelta64):
        return str(pd.Timedelta(level))
    return str(level)
