"""What files of fits of many responses hold beside their results: texts, and the responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.api.responses import Responses
from mixlm_sparse.model.saved.archive import Archive, Arrays

__all__ = ["FIRST_VERSION", "FORMAT", "FORMAT_VERSION", "coded", "responses_from", "responses_to"]

FORMAT = "mixlm_sparse.api.lmer_many"
FORMAT_VERSION = 2
FIRST_VERSION = 2  # files have had checksums from the beginning

DENSE, SPARSE = "dense", "sparse"
NUMBERS = "biuf"  # kinds of arrays that responses may be


def coded(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the different texts, and the place of each among them."""
    places: dict[str, int] = {}
    codes = np.array([places.setdefault(text, len(places)) for text in texts], dtype=np.int32)
    return list(places), codes


def responses_to(given: Responses, arrays: Arrays) -> str:
    """Add the responses to `arrays`; return how they are stored."""
    values = given.values
    if isinstance(values, sp.csc_array):
        arrays["responses.values"] = values.data
        arrays["responses.rows"] = values.indices.astype(np.int64)
        arrays["responses.starts"] = values.indptr.astype(np.int64)
        return SPARSE
    arrays["responses"] = values if isinstance(values, np.ndarray) else np.column_stack(values)
    return DENSE


def responses_from(kind: object, r: int, n: int, archive: Archive) -> Any:
    """Return the r responses of n rows that `responses_to` wrote."""
    if kind == DENSE:
        dense = archive.array("responses", n, r)
        _require_numbers(dense, archive)
        return dense
    if kind != SPARSE:
        raise archive.broken("its responses are stored in no known way")
    starts = archive.starts("responses.starts", r)
    count = int(starts[-1])
    rows = archive.positions("responses.rows", count, n)
    values = archive.array("responses.values", count)
    _require_numbers(values, archive)
    column = np.repeat(np.arange(r), np.diff(starts))
    if ((np.diff(rows) <= 0) & (np.diff(column) == 0)).any():
        raise archive.broken("the rows of the responses are not in order")
    matrix = sp.csc_array((values, rows.astype(np.int64), starts), shape=(n, r))
    matrix.has_canonical_format = True
    return matrix


def _require_numbers(values: NDArray[Any], archive: Archive) -> None:
    if values.dtype.kind not in NUMBERS:
        raise archive.broken("its responses are no numbers")
