"""Z'W[X y] of many levels and many columns with its nonzero entries alone.

A level of few rows meets few of thousands of columns.  The products are held as

    Z'W[X y] = [F T^{-1}  r],    F (L K, p) sparse, T (p, p) upper triangular, r (L K,),

F those of the columns as they are, T the map to columns that are orthonormal.  Nothing of the size
levels x columns is filled in unless `filled` is asked for.

With F_j the K rows of level j, two sums over levels take the squares of their entries:

    sum_j F_j'A_j F_j   (p, p), A_j (K, K) symmetric,
    F_j P F_j'          (K, K) of every level, P (p, p) symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.dense import symmetric_from_lower
from mixlm_sparse.engines.memory import require_memory

__all__ = ["LevelEntries", "SparseColumns", "level_forms", "weighted_gram"]

# Entries that wait to be added to what there is.
WAITING = 2**22
# From this share of entries on, arrays take less memory than entries with their places.
ARRAY_SHARE = 0.35
# Rows of F times P that are held at a time, in numbers.
PASS_NUMBERS = 2**23


@dataclass(frozen=True, eq=False, slots=True)
class SparseColumns:
    """Blocks (L, K, p + 1) of levels; see the module's docstring.

    Parameters
    ----------
    entries : (L K, p + 1) CSR, [F r].
    width : K.
    turn : T; None for the identity.
    """

    entries: sp.csr_array
    width: int
    turn: Matrix | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, K, p + 1)."""
        rows, columns = self.entries.shape
        return rows // self.width, self.width, columns

    def filled(self) -> Array3:
        """Return the blocks as an array (L, K, p + 1).

        Raises
        ------
        EngineError : it does not fit into memory.
        """
        return self.times(np.eye(self.entries.shape[1]))

    def times(self, G: Matrix) -> Array3:
        """Return the blocks times G (p + 1, r), (L, K, r)."""
        if self.turn is not None and len(G) > 1:
            G = np.vstack([scipy.linalg.solve_triangular(self.turn, G[:-1]), G[-1:]])
        rows, K = self.entries.shape[0], self.width
        require_memory(
            8.0 * rows * G.shape[1],
            f"a matrix of {rows} random effects by {G.shape[1]} columns of the fixed part, which "
            "this needs,",
            "leave it out, or put a factor of many levels into the random part",
        )
        out: Matrix = self.entries @ G
        return out.reshape(rows // K, K, G.shape[1])

    def lengths_apart(self) -> Matrix:
        """Return sum_c F[:, c]^2 / |T e_c|^2 (L, K): squared lengths, were the columns orthogonal.

        With an intercept among the columns they are not: none is more than what there is.
        """
        p = self.entries.shape[1] - 1
        sizes = np.ones(p) if self.turn is None else (self.turn**2).sum(axis=0)
        squares = sp.csr_array(self.entries[:, :p])
        squares = sp.csr_array((squares.data**2, squares.indices, squares.indptr), squares.shape)
        out: Matrix = squares @ (1.0 / np.where(sizes > 0.0, sizes, 1.0))
        return out.reshape(self.shape[:2])

    @property
    def response(self) -> Matrix:
        """(L, K) the last column."""
        last: Matrix = self.entries[:, [-1]].toarray()
        return last.reshape(self.shape[:2])

    def chosen(self, order: IntVector, effects: np.ndarray) -> SparseColumns:
        """Return the blocks of levels and effects in another order."""
        rows = order.astype(np.int64)[:, None] * self.width + effects
        entries = sp.csr_array(self.entries[rows.ravel()])
        return replace(self, entries=entries, width=effects.size)

    def placed(self, at: IntVector, size: int) -> SparseColumns:
        """Return blocks (size, K, p + 1) with level j at place at[j]; others are zero."""
        own = self.entries.tocoo()
        rows = at.astype(np.int64)[own.row // self.width] * self.width + own.row % self.width
        shape = (size * self.width, own.shape[1])
        return replace(self, entries=sp.csr_array((own.data, (rows, own.col)), shape=shape))

    def plus(self, other: SparseColumns) -> SparseColumns:
        """Return the sum of two of one shape whose columns are as they are."""
        return replace(self, entries=sp.csr_array(self.entries + other.entries))

    def turned(self, A: Matrix) -> SparseColumns:
        """Return the blocks A'F_j (L, m, p + 1) for A (K, m)."""
        turn = sp.kron(sp.eye_array(self.shape[0]), sp.csr_array(A.T), format="csr")
        return replace(self, entries=sp.csr_array(turn @ self.entries), width=A.shape[1])

    def each(self) -> list[sp.csr_array]:
        """Return F r of the a-th effect of every level, (L, p + 1), for a = 0..K-1."""
        return [sp.csr_array(self.entries[a :: self.width]) for a in range(self.width)]


class LevelEntries:
    """Z'WS (L K, p) summed over blocks of rows; more levels may come.

    Parameters
    ----------
    width, columns : K and p.
    """

    def __init__(self, width: int, columns: int) -> None:
        self._width, self._columns = width, columns
        self._levels = 0
        self._sums = sp.csr_array((0, columns))
        self._waiting: list[sp.csr_array] = []
        self._array: Matrix | None = None

    def grow(self, levels: int) -> None:
        """Make room for that many levels."""
        self._levels = max(levels, self._levels)

    def add(self, found: sp.csr_array) -> None:
        """Add the sums of some rows, of as many levels as were known then."""
        if self._array is not None:
            self._into(found)
            return
        self._waiting.append(found)
        waiting = sum(part.nnz for part in self._waiting)
        if waiting > max(WAITING, self._sums.nnz):
            self._settle()

    def _settle(self) -> None:
        rows = self._levels * self._width
        self._sums = _with_rows(self._sums, rows)
        for part in self._waiting:
            self._sums = sp.csr_array(self._sums + _with_rows(part, rows))
        self._waiting.clear()
        if self._sums.nnz > ARRAY_SHARE * rows * self._columns:
            found, self._sums = self._sums, sp.csr_array((0, self._columns))
            self._array = np.zeros((rows, self._columns))
            self._into(found)

    def _into(self, found: sp.csr_array) -> None:
        assert self._array is not None
        rows = self._levels * self._width
        if self._array.shape[0] < rows:
            room = np.zeros((max(rows, self._array.shape[0] * 3 // 2), self._columns))
            room[: self._array.shape[0]] = self._array
            self._array = room
        own = found.tocoo()
        self._array[own.row, own.col] += own.data

    def total(self, levels: int) -> sp.csr_array:
        """Return the sums (L K, p) of that many levels, which is all of them."""
        self.grow(levels)
        if self._array is None:
            self._settle()
        out = self._sums if self._array is None else sp.csr_array(self._array)
        return _with_rows(out, levels * self._width)


def _with_rows(entries: sp.csr_array, rows: int) -> sp.csr_array:
    """Return the matrix with empty rows below, or without those beyond."""
    ptr = entries.indptr[: rows + 1]
    ptr = np.concatenate([ptr, np.full(rows + 1 - ptr.size, ptr[-1], dtype=ptr.dtype)])
    shape = (rows, entries.shape[1])
    return sp.csr_array((entries.data[: ptr[-1]], entries.indices[: ptr[-1]], ptr), shape=shape)


@njit
def _weighted_gram_compiled(ptr, cols, values, A, out):  # type: ignore[no-untyped-def]
    # the lower triangle of out (m, m) gets sum_j F_j'A_j F_j; columns of a row ascend
    L, K, _ = A.shape
    for j in range(L):
        for a in range(K):
            first, last = ptr[j * K + a], ptr[j * K + a + 1]
            for b in range(a + 1):
                w = A[j, a, b]
                if w == 0.0:
                    continue
                start, stop = ptr[j * K + b], ptr[j * K + b + 1]
                for s in range(first, last):
                    c, x = cols[s], w * values[s]
                    for t in range(start, stop):
                        d = cols[t]
                        if d <= c:
                            out[c, d] += x * values[t]
                if a != b:  # and A_j[b, a]
                    for s in range(start, stop):
                        c, x = cols[s], w * values[s]
                        for t in range(first, last):
                            d = cols[t]
                            if d <= c:
                                out[c, d] += x * values[t]


def weighted_gram(F: sp.csr_array, A: Array3) -> Matrix:
    """Return sum_j F_j'A_j F_j (m, m), C ordered, of which the lower triangle is set.

    Parameters
    ----------
    F : (L K, m), the columns of a row in ascending order; A : (L, K, K) symmetric.
    """
    L, K, _ = A.shape
    m = F.shape[1]
    work = float((np.diff(F.indptr).astype(np.float64) ** 2).sum()) * K
    if compiled_pays(10.0 * work):
        out = np.zeros((m, m))
        _weighted_gram_compiled(F.indptr, F.indices, F.data, np.ascontiguousarray(A), out)
        return out
    turned = sp.bsr_array((A, np.arange(L), np.arange(L + 1)), shape=(L * K, L * K)).tocsr()
    filled: Matrix = (F.T @ sp.csr_array(turned @ F)).toarray()
    return filled


@njit
def _level_forms_compiled(ptr, cols, values, P, out):  # type: ignore[no-untyped-def]
    L, K, _ = out.shape
    for j in range(L):
        for a in range(K):
            for b in range(a + 1):
                total = 0.0
                start, stop = ptr[j * K + b], ptr[j * K + b + 1]
                for s in range(ptr[j * K + a], ptr[j * K + a + 1]):
                    c, part = cols[s], 0.0
                    for t in range(start, stop):
                        part += P[c, cols[t]] * values[t]
                    total += values[s] * part
                out[j, a, b] = total
                out[j, b, a] = total


def level_forms(F: sp.csr_array, P: Matrix, width: int) -> Array3:
    """Return F_j P F_j' (L, K, K) for F (L K, m) and P (m, m) symmetric, both triangles set."""
    rows, m = F.shape
    out = np.empty((rows // width, width, width))
    work = float((np.diff(F.indptr).astype(np.float64) ** 2).sum()) * width
    if compiled_pays(10.0 * work):
        _level_forms_compiled(F.indptr, F.indices, F.data, P, out)
        return out
    step = max(PASS_NUMBERS // max(m * width, 1), 1)
    for start in range(0, rows // width, step):
        own = F[start * width : (start + step) * width]
        Y = np.asarray(own @ P).reshape(-1, width, m)
        for b in range(width):
            left = sp.csr_array(own[b::width])
            for a in range(width):
                part = slice(start, start + left.shape[0])
                out[part, a, b] = np.asarray(left.multiply(Y[:, a]).sum(axis=1)).ravel()
    return out


def both_triangles(S: Matrix) -> Matrix:
    """Return S with its lower triangle copied to the upper one, in place."""
    symmetric_from_lower(S)
    return S
