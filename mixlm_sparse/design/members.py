"""Rows that carry several levels of a factor, each with a weight.

With ordinary groups row i of the matrix M (n, L) of rows and levels has one 1; here it has any
weights m_i, and a term with the columns z has the rows m_i (x) z_i in Z: the effects of the row are
sum_j m_ij b_j.  Weights are what they are: rows that add up to one give every row the variance of
one level if it has one, and less the more levels share it.

`RowLevels` is either form; the functions below are what the solver asks of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.types import IntVector, Matrix, Vector

__all__ = [
    "Members", "RowLevels", "Slots", "effect_matrix", "join_levels", "known_part",
    "random_part", "summed_squares", "unknown_levels",
]  # fmt: skip

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Members:
    """Several levels a row, with weights: M by rows, without its zeros.

    Attributes
    ----------
    starts : (n + 1,) where the levels of each row begin.
    levels : (m,) ascending within a row.
    weights : (m,) not zero.
    n_levels : number of levels.
    """

    starts: Positions
    levels: IntVector
    weights: Vector
    n_levels: int

    @staticmethod
    def of(matrix: Any) -> Members:
        """Return the rows of a sparse matrix (n, L)."""
        M = sp.csr_array(matrix).astype(np.float64, copy=True)
        M.sum_duplicates()
        M.eliminate_zeros()
        M.sort_indices()
        return Members(
            M.indptr.astype(np.int64), M.indices.astype(np.int32), M.data, int(M.shape[1])
        )

    def __len__(self) -> int:
        return self.starts.size - 1

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Members:
        if isinstance(rows, slice):
            first, stop, step = rows.indices(len(self))
            assert step == 1
            lo, hi = int(self.starts[first]), int(self.starts[max(stop, first)])
            starts = self.starts[first : max(stop, first) + 1] - lo
            return Members(starts, self.levels[lo:hi], self.weights[lo:hi], self.n_levels)
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        at = np.arange(int(ends[-1]) if ends.size else 0) - np.repeat(ends - counts, counts)
        at += np.repeat(self.starts[:-1][rows], counts)
        starts = np.concatenate([[0], ends]).astype(np.int64)
        return Members(starts, self.levels[at], self.weights[at], self.n_levels)

    @property
    def counts(self) -> Positions:
        """(n,) levels of every row."""
        return np.diff(self.starts)

    @property
    def row(self) -> Positions:
        """(m,) row of every entry."""
        return np.repeat(np.arange(len(self)), self.counts)

    def relabelled(self, place: NDArray[np.integer[Any]], n_levels: int) -> Members:
        """Return the same rows with level j called place[j] (L,)."""
        return self.with_levels(place[self.levels], n_levels)

    def with_levels(self, codes: NDArray[np.integer[Any]], n_levels: int) -> Members:
        """Return the same rows and weights with other levels, (m,) one for each entry."""
        M = sp.csr_array((self.weights, codes, self.starts), shape=(len(self), n_levels))
        return Members.of(M)

    def matrix(self) -> sp.csr_array:
        """Return M, (n, L)."""
        return sp.csr_array(
            (self.weights, self.levels, self.starts), shape=(len(self), self.n_levels)
        )


@dataclass(frozen=True, eq=False, slots=True)
class Slots:
    """Several levels a row whose columns differ: place s of row i belongs to level levels[i, s].

    The columns of such rows are (n, S k), place by place; those of empty places are zero.

    Attributes
    ----------
    levels : (n, S) ascending within a row, -1 where a place is empty, empty places last.
    """

    levels: IntVector

    def __len__(self) -> int:
        return int(self.levels.shape[0])

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Slots:
        return Slots(self.levels[rows])


# One level a row (-1 where it is not known), or several.
RowLevels = IntVector | Members | Slots


def known_part(levels: RowLevels, n_levels: int) -> tuple[Members, Vector]:
    """Return rows with their first n_levels alone, and squared weights of their others, (n,)."""
    if isinstance(levels, Members):
        row, code, weight = levels.row, levels.levels, levels.weights
        there = code < n_levels
    else:
        assert isinstance(levels, np.ndarray)
        row, code, weight = np.arange(levels.size), levels, np.ones(levels.size)
        there = code >= 0
    n = len(levels)
    counts = np.bincount(row[there], minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    squares = np.bincount(row[~there], weight[~there] ** 2, minlength=n).astype(np.float64)
    return Members(starts, code[there], weight[there], n_levels), squares


def unknown_levels(levels: RowLevels, n_levels: int) -> NDArray[np.bool_]:
    """Say which rows (n,) have a level beyond the first n_levels, or -1."""
    if isinstance(levels, Members):
        others = levels.levels >= n_levels
        return np.bincount(levels.row, others, minlength=len(levels)) > 0
    if isinstance(levels, Slots):
        return np.zeros(len(levels), dtype=bool)
    return levels < 0


def random_part(z: Matrix, levels: RowLevels, b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return z_i'b of the levels of every row.

    Parameters
    ----------
    z : (n, k) columns of a term, (n, S k) for `Slots`.
    levels : of the n rows.  Level -1, or one beyond the last of `b`, takes the last of `b`.
    b : (L, k) effects, or (L, k, r).

    Returns
    -------
    (n,) or (n, r) array.
    """
    if isinstance(levels, Slots):
        k = b.shape[1]
        total = np.zeros((len(levels), *b.shape[2:]))
        for s in range(levels.levels.shape[1]):
            total += random_part(z[:, s * k : (s + 1) * k], levels.levels[:, s], b)
        return total
    if b.ndim == 2:
        out: NDArray[np.float64] = np.einsum("ik,ik->i", z, _gathered(levels, b))
        return out
    total = np.zeros((len(levels), b.shape[2]))
    for a in range(z.shape[1]):
        total += z[:, a, None] * _gathered(levels, b[:, a])
    return total


def _gathered(levels: IntVector | Members, b: Matrix) -> Matrix:
    """Return sum_j m_ij b_j, (n, r), for b (L, r)."""
    if isinstance(levels, Members):
        at = np.minimum(levels.levels, b.shape[0] - 1)
        M = sp.csr_array((levels.weights, at, levels.starts), shape=(len(levels), b.shape[0]))
        return np.asarray(M @ b)
    return b[levels]


def effect_matrix(z: Matrix, levels: RowLevels, a: int, n_levels: int) -> sp.csr_array:
    """Return the columns of Z of effect number a of a term, (n, L): one for each level.

    Parameters
    ----------
    z, levels : as in `random_part`.
    """
    n = z.shape[0]
    if isinstance(levels, Slots):
        there = levels.levels >= 0
        k = z.shape[1] // levels.levels.shape[1]
        data = z[:, a::k][there]
        starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        return sp.csr_array((data, levels.levels[there], starts), shape=(n, n_levels))
    if isinstance(levels, Members):
        data = levels.weights * z[levels.row, a]
        return sp.csr_array((data, levels.levels, levels.starts), shape=(n, n_levels))
    return sp.csr_array((z[:, a], levels, np.arange(n + 1)), shape=(n, n_levels))


def summed_squares(levels: RowLevels) -> Vector | float:
    """Return sum_j m_ij^2 (n,), the variance of a row's effect in units of that of one level."""
    if isinstance(levels, Members):
        squares = np.bincount(levels.row, levels.weights**2, minlength=len(levels))
        return squares.astype(np.float64)
    return 1.0


def join_levels(parts: Sequence[RowLevels]) -> RowLevels:
    """Return the levels of rows that follow one another."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Members):
        members = [part for part in parts if isinstance(part, Members)]
        counts = np.concatenate([part.counts for part in members])
        return Members(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([part.levels for part in members]),
            np.concatenate([part.weights for part in members]),
            first.n_levels,
        )
    codes = [part for part in parts if isinstance(part, np.ndarray)]
    assert len(codes) == len(parts)
    return np.concatenate(codes)
