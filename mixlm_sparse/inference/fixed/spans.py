"""Spans of columns: what is independent, what is left over.

Rank is decided on columns of equal length, so that units have no say, by the tolerance that decides
which columns of X a fit keeps.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.products.basis import RANK_RTOL

# Columns shorter than this share of the longest are zero.  An indicator of a cell is as long as the
# square root of its summed weights, so that one row among 1e20 would still be seen; a combination
# of columns that cancels (the cell has no row) leaves rounding errors, 1e-15 to 1e-13.
EMPTY_RTOL = 1e-10


def with_unit_length(M: Matrix, longest: float = 0.0) -> Matrix:
    """Return the columns of M (p, r) at length one, those that are zero as zeros.

    Parameters
    ----------
    longest : length that rounding is measured on, where columns were computed as differences of
        others in the same unit.
    """
    lengths = column_lengths(M)
    empty = (lengths <= EMPTY_RTOL * longest) | (lengths == 0.0)
    out: Matrix = np.where(empty, 0.0, M / np.where(empty, 1.0, lengths))
    return out


def column_lengths(M: Matrix) -> Vector:
    """Return the lengths (r,) of the columns of M (p, r), without overflow."""
    largest = np.abs(M).max(axis=0, initial=0.0)
    scale = np.where(largest > 0.0, largest, 1.0)
    scaled = M / scale
    out: Vector = scale * np.sqrt((scaled * scaled).sum(axis=0))
    return out


def span_and_complement(M: Matrix) -> tuple[Matrix, Matrix]:
    """Return orthonormal bases of the span of the columns of M (p, r), and of what is left.

    Returns
    -------
    span : (p, rank); complement : (p, p - rank), all a with M'a = 0.
    """
    p = M.shape[0]
    if M.size == 0 or not M.any():
        return np.zeros((p, 0)), np.eye(p)
    factors = scipy.linalg.qr(M, mode="full", pivoting=True)
    Q = np.asarray(factors[0], dtype=np.float64)
    diagonal = np.abs(np.diag(factors[1]))
    rank = int((diagonal > RANK_RTOL * diagonal[0]).sum())
    return Q[:, :rank], Q[:, rank:]


def beyond(M: Matrix, others: Matrix) -> Matrix:
    """Return an orthonormal basis of what the columns of M (p, r) add to those of `others`.

    Columns count by their own length, so that a column that `others` nearly contain adds nothing.
    """
    span, _ = span_and_complement(with_unit_length(others))
    unit = with_unit_length(M)
    left = unit - span @ (span.T @ unit)
    left -= span @ (span.T @ left)
    left = np.where(column_lengths(left) > RANK_RTOL, left, 0.0)
    if not left.any():
        return np.zeros((M.shape[0], 0))
    U, sizes, _ = np.linalg.svd(left, full_matrices=False)
    out: Matrix = U[:, sizes > RANK_RTOL * np.sqrt(left.shape[1])]
    return out
