"""Columns of a model matrix with their nonzero entries alone, where factors have many levels.

A row of a factor's columns has as many entries as its level's row of contrasts, one as a rule,
whatever the number of levels; products of columns have products of these.  Nothing of the size
rows x columns is ever filled in.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.columns import ColumnSource, DesignColumns
from mixlm_sparse.design.variables import Rows
from mixlm_sparse.design.writers import Coded, terms_written

__all__ = ["SPARSE_SHARE", "WIDE", "filled_columns", "mostly_zeros", "sparse_block"]

# From so many columns on, those with few entries are taken with these alone.
WIDE = 300
SPARSE_SHARE = 0.1  # largest share of entries that are not zero, and of filled columns
FILLED_NUMBERS = 6_000_000  # entries of other sources that are filled in at a time


def filled_columns(source: ColumnSource, share: float) -> IntVector | None:
    """Return the columns with entries in most rows, ascending; None where that is not known.

    Parameters
    ----------
    share : a factor whose contrasts have a larger share of entries counts as filled.
    """
    if not isinstance(source, DesignColumns):
        return None
    out: list[int] = []
    for start, stop, operands in terms_written(source.writers):
        sparse = any(
            isinstance(operand, Coded)
            and operand.table.ndim == 2
            and operand.entries.nnz <= share * operand.table.size
            for operand in operands
        )
        if not sparse:
            out += range(start, stop)
    return np.array(out, dtype=np.int32)


def mostly_zeros(source: ColumnSource) -> bool:
    """Say whether columns are many, and nearly all of them zeros in a row."""
    if len(source.names) < WIDE:
        return False
    filled = filled_columns(source, SPARSE_SHARE)
    return filled is not None and filled.size <= SPARSE_SHARE * len(source.names)


def sparse_block(source: ColumnSource, rows: slice) -> sp.csr_array:
    """Return the rows asked for, (m, k)."""
    first, stop, _ = rows.indices(rows.stop)
    m, k = stop - first, len(source.names)
    if not isinstance(source, DesignColumns):
        step = max(FILLED_NUMBERS // max(k, 1), 1)
        parts = [
            sp.csr_array(source.block(slice(at, min(at + step, stop))))
            for at in range(first, stop, step)
        ]
        return sp.csr_array(sp.vstack(parts, format="csr")) if parts else sp.csr_array((0, k))
    parts = []
    for _, _, operands in terms_written(source.writers):
        if not operands:
            parts.append(sp.csr_array(np.ones((m, 1))))
            continue
        product = _values(operands[0], rows)
        for other in operands[1:]:
            product = _products(product, _values(other, rows))
        parts.append(product)
    return sp.csr_array(sp.hstack(parts, format="csr")) if parts else sp.csr_array((m, k))


def _values(operand: Rows, rows: slice) -> sp.csr_array:
    """Return the columns of one operand, (m, k)."""
    if isinstance(operand, Coded):
        return sp.csr_array(operand.entries[operand.codes[rows]])
    values = np.asarray(operand(rows), dtype=np.float64)
    return sp.csr_array(values if values.ndim == 2 else values[:, None])


def _products(left: sp.csr_array, right: sp.csr_array) -> sp.csr_array:
    """Return all products of a column of `left` (m, a) and one of `right` (m, b), (m, a b).

    The columns of `left` vary fastest, as in `DesignColumns`.
    """
    m, a = left.shape
    of_left, of_right = np.diff(left.indptr), np.diff(right.indptr)
    counts = of_left.astype(np.int64) * of_right
    starts = np.concatenate([[0], np.cumsum(counts)])
    row = np.repeat(np.arange(m), counts)
    place = np.arange(starts[-1]) - starts[row]
    at_left = left.indptr[row] + place % of_left[row]
    at_right = right.indptr[row] + place // of_left[row]
    columns = right.indices[at_right].astype(np.int64) * a + left.indices[at_left]
    values = left.data[at_left] * right.data[at_right]
    return sp.csr_array((values, columns, starts), shape=(m, a * right.shape[1]))
