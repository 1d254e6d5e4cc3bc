"""Sparse Cholesky factorization that needs no compiler: multifrontal, over a fixed pattern.

The tree of fronts is found once; each factorization then passes dense blocks from the leaves to
the roots.  Big fronts are left to BLAS, small ones of equal shape are worked on together (NumPy)
or one after the other in machine code (numba).

References
----------
Liu (1992), The multifrontal method for sparse matrix solution, doi:10.1137/1034004.
"""

from __future__ import annotations

import copy

import numpy as np
import scipy.sparse as sp
from scipy.linalg import blas, lapack

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.memory import require_memory
from mixlm_sparse.engines.multifrontal.frontal_tree import FrontalTree, Step, analyse
from mixlm_sparse.engines.multifrontal.fronts import (
    add_to_front,
    chunks,
    columns_of,
    compiled_form_pays,
    front_view,
    load_columns,
    lower_triangle,
    own_places,
    panels,
    parent_places,
    rows_below,
    store_columns,
    trapezoid,
)
from mixlm_sparse.engines.multifrontal.selected_inverse import selected_inverse
from mixlm_sparse.engines.threads import large_block

_NOT_PD = (
    "the matrix is not positive definite in floating point: theta is too large or not finite; "
    "check the scale of the columns and the start value"
)


class SparseCholesky:
    """P A P' = L L' for matrices A of one pattern.

    Parameters
    ----------
    pattern : (n, n) CSC, lower triangle with the whole diagonal, rows sorted; values are ignored.
    order : (n,) elimination order; by default one that fills in little.
    compiled : use the compiled form for the small fronts; by default when that pays.

    Attributes
    ----------
    logdet : log|A| of the last factorization.
    order : (n,) row of A that is eliminated as number k.
    """

    def __init__(
        self,
        pattern: sp.csc_array,
        order: IntVector | None = None,
        *,
        compiled: bool | None = None,
    ) -> None:
        n = int(pattern.shape[0])
        col = np.repeat(np.arange(n, dtype=np.int32), np.diff(pattern.indptr))
        row = pattern.indices
        if not pattern.has_sorted_indices or np.any(row < col):
            raise ValueError("SparseCholesky needs the sorted lower triangle of the matrix")
        if np.count_nonzero(row == col) != n:
            raise ValueError("SparseCholesky needs every diagonal entry in the pattern")
        self.order, self.tree = analyse(pattern, order)
        self.compiled = compiled_form_pays(self.tree) if compiled is None else compiled
        rank = np.empty(n, dtype=np.int32)
        rank[self.order] = np.arange(n, dtype=np.int32)
        row, col = rank[row], rank[col]
        # where the entries of A lie among those of L
        self._place = self.tree.locate(np.maximum(row, col), np.minimum(row, col))
        require_memory(
            8.0 * (2.0 * self.tree.nnz + self.tree.arena_size),  # the factor, its inverse, fronts
            f"a sparse factor of order {n}, whose {pattern.nnz} entries fill in to "
            f"{self.tree.nnz},",
            "use engine='krylov', which needs no factor, leave out levels with few rows, or fit on "
            "a machine with more memory",
        )
        self._values = np.empty(self.tree.nnz)
        self._arena = np.empty(self.tree.arena_size)
        self.logdet = float("nan")

    def twin(self) -> SparseCholesky:
        """Return a factorization over the same pattern with numbers of its own."""
        twin = copy.copy(self)
        twin._values = np.empty_like(self._values)
        twin._arena = np.empty_like(self._arena)
        twin.logdet = float("nan")
        return twin

    def factorize(self, values: Vector) -> None:
        """Factor the matrix with these values.

        Parameters
        ----------
        values : (nnz,) in the order of the pattern.

        Raises
        ------
        NotPositiveDefiniteError : there is no Cholesky factor.
        """
        self.logdet = float("nan")
        L = self._values
        L[:] = 0.0
        L[self._place] = values
        for step in self.tree.steps:
            for lo, hi in step.fresh:
                self._arena[lo:hi] = 0.0
            if step.big:
                self._factor_big(int(step.members[0]))
            elif self.compiled:
                tree = self.tree
                failed = _factor_small(
                    step.members,
                    tree.starts,
                    tree.row_ptr,
                    tree.relative,
                    tree.parent,
                    tree.column_ptr,
                    tree.arena,
                    L,
                    self._arena,
                )
                if failed >= 0:
                    raise NotPositiveDefiniteError(_NOT_PD)
            else:
                _factor_small_numpy(L, self.tree, step, self._arena)
        logdet = 2.0 * float(np.log(L[self.tree.column_ptr[:-1]]).sum())
        if not np.isfinite(logdet):
            raise NotPositiveDefiniteError(_NOT_PD)
        self.logdet = logdet

    def _factor_big(self, s: int) -> None:
        tree, L = self.tree, self._values
        w = int(tree.starts[s + 1] - tree.starts[s])
        lo, hi = int(tree.row_ptr[s]), int(tree.row_ptr[s + 1])
        m = hi - lo
        front = front_view(tree, self._arena, s)
        if m == w:
            # a root: all in place
            block = np.zeros((m, m), order="F") if front is None else front
            load_columns(tree, L, s, block, add=True)
            with large_block(m):
                chol, info = lapack.dpotrf(block, lower=1, clean=0, overwrite_a=1)
            if info != 0:
                raise NotPositiveDefiniteError(_NOT_PD)
            store_columns(tree, L, s, chol)
            return
        panel = np.zeros((m, w), order="F") if front is None else front[:, :w].copy(order="F")
        load_columns(tree, L, s, panel, add=True)
        chol, info = lapack.dpotrf(panel[:w], lower=1, clean=1)
        if info != 0:
            raise NotPositiveDefiniteError(_NOT_PD)
        below = blas.dtrsm(1.0, chol, panel[w:], side=1, lower=1, trans_a=1)
        panel[:w] = chol
        panel[w:] = below
        store_columns(tree, L, s, panel)
        if front is None:
            with large_block(min(w, m - w)):
                passed = blas.dsyrk(-1.0, below, lower=1)
        else:
            rest = front[w:, w:].copy(order="F")
            with large_block(min(w, m - w)):
                passed = blas.dsyrk(-1.0, below, beta=1.0, c=rest, lower=1, overwrite_c=1)
        parent = front_view(tree, self._arena, int(tree.parent[s]))
        assert parent is not None  # s is its child
        add_to_front(passed, tree.relative[lo + w : hi], parent, compiled=self.compiled)

    def solve(self, B: Matrix) -> Matrix:
        """Return A^{-1} B; B is (n, m)."""
        x = np.ascontiguousarray(B[self.order], dtype=np.float64)
        tree, L = self.tree, self._values
        if self.compiled:
            _solve(tree.starts, tree.row_ptr, tree.rows, tree.column_ptr, L, x)
        else:
            for step in tree.steps:
                _forward_numpy(L, tree, step, x)
            for step in reversed(tree.steps):
                _backward_numpy(L, tree, step, x)
        out = np.empty_like(x)
        out[self.order] = x
        return out

    def selected_inverse_on_pattern(self) -> Vector:
        """Return the entries of A^{-1} on the pattern of A: (nnz,) in the order of the pattern."""
        inverse = selected_inverse(
            self._values, self.tree, arena=self._arena, compiled=self.compiled
        )
        return inverse[self._place]


@njit
def _factor_small(  # type: ignore[no-untyped-def]
    members, starts, row_ptr, relative, parent, column_ptr, arena_at, L, arena
):
    for k in range(members.shape[0]):
        s = members[k]
        first = starts[s]
        w = starts[s + 1] - first
        lo = row_ptr[s]
        m = row_ptr[s + 1] - lo
        own = arena_at[s]
        for t in range(w):
            at = column_ptr[first + t] - t
            if own >= 0:
                for i in range(t, m):
                    L[at + i] += arena[own + t * m + i]
            for u in range(t):
                at_u = column_ptr[first + u] - u
                x = L[at_u + t]
                for i in range(t, m):
                    L[at + i] -= x * L[at_u + i]
            d = L[at + t]
            if not (d > 0.0 and d < np.inf):
                return s
            d = np.sqrt(d)
            L[at + t] = d
            for i in range(t + 1, m):
                L[at + i] /= d
        if m == w:
            continue
        p = parent[s]
        at_p = arena_at[p]
        m_p = row_ptr[p + 1] - row_ptr[p]
        for j in range(w, m):
            base = at_p + relative[lo + j] * m_p
            if own >= 0:
                for i in range(j, m):
                    arena[base + relative[lo + i]] += arena[own + j * m + i]
            for u in range(w):
                at_u = column_ptr[first + u] - u
                x = L[at_u + j]
                for i in range(j, m):
                    arena[base + relative[lo + i]] -= x * L[at_u + i]
    return -1


def _factor_small_numpy(L: Vector, tree: FrontalTree, step: Step, arena: Vector) -> None:
    for members, w, m in chunks(step, tree):
        r = m - w
        place = columns_of(tree, members, w, m)
        block = panels(L, place, w, m)
        entry_rows, entry_cols = trapezoid(w, m)
        with_children = np.flatnonzero(tree.arena[members] >= 0)
        if with_children.size:
            own = own_places(tree, members[with_children], m)
            received = arena[own + entry_cols * m + entry_rows]
            block[with_children[:, None], entry_rows, entry_cols] += received
        top = block[:, :w]
        if w == 1:
            if not (np.isfinite(top).all() and (top > 0.0).all()):
                raise NotPositiveDefiniteError(_NOT_PD)
            np.sqrt(top, out=top)
            block[:, 1:] /= top
        else:
            try:
                chol = np.linalg.cholesky(top)
            except np.linalg.LinAlgError:
                raise NotPositiveDefiniteError(_NOT_PD) from None
            if r:
                below = np.linalg.solve(chol, block[:, w:].transpose(0, 2, 1))
                block[:, w:] = below.transpose(0, 2, 1)
            block[:, :w] = chol
        L[place] = block[:, entry_rows, entry_cols]
        if r:
            below = block[:, w:]
            rows, cols = lower_triangle(r)
            if w == 1:
                passed = -(below[:, rows, 0] * below[:, cols, 0])
            else:
                passed = -np.matmul(below, below.transpose(0, 2, 1))[:, rows, cols]
            if with_children.size:
                passed[with_children] += arena[own + (w + cols) * m + (w + rows)]
            relative, _ = rows_below(tree, members, w, m)
            # children of one parent meet in the same entries
            np.add.at(arena, parent_places(tree, members, relative).ravel(), passed.ravel())


@njit
def _solve(starts, row_ptr, rows, column_ptr, L, x):  # type: ignore[no-untyped-def]
    n_super = starts.shape[0] - 1
    n_rhs = x.shape[1]
    for s in range(n_super):
        for j in range(starts[s], starts[s + 1]):
            at = column_ptr[j]
            below = row_ptr[s] + j - starts[s]
            for c in range(n_rhs):
                x[j, c] /= L[at]
            for i in range(1, row_ptr[s + 1] - below):
                v = L[at + i]
                k = rows[below + i]
                for c in range(n_rhs):
                    x[k, c] -= v * x[j, c]
    for s in range(n_super - 1, -1, -1):
        for j in range(starts[s + 1] - 1, starts[s] - 1, -1):
            at = column_ptr[j]
            below = row_ptr[s] + j - starts[s]
            for i in range(1, row_ptr[s + 1] - below):
                v = L[at + i]
                k = rows[below + i]
                for c in range(n_rhs):
                    x[j, c] -= v * x[k, c]
            for c in range(n_rhs):
                x[j, c] /= L[at]


def _forward_numpy(L: Vector, tree: FrontalTree, step: Step, x: Matrix) -> None:
    # x <- L^{-1} x
    for members, w, m in chunks(step, tree):
        if w == m and members.size == 1:
            _packed_solve(L, tree, int(members[0]), x, transposed=False)
            continue
        block = panels(L, columns_of(tree, members, w, m), w, m)
        own = tree.starts[members][:, None] + np.arange(w)
        top = np.linalg.solve(block[:, :w], x[own])
        x[own] = top
        if m > w:
            _, rows = rows_below(tree, members, w, m)
            np.subtract.at(x, rows, np.matmul(block[:, w:], top))


def _backward_numpy(L: Vector, tree: FrontalTree, step: Step, x: Matrix) -> None:
    # x <- L^{-T} x
    for members, w, m in chunks(step, tree):
        if w == m and members.size == 1:
            _packed_solve(L, tree, int(members[0]), x, transposed=True)
            continue
        block = panels(L, columns_of(tree, members, w, m), w, m)
        own = tree.starts[members][:, None] + np.arange(w)
        top = x[own]
        if m > w:
            _, rows = rows_below(tree, members, w, m)
            top = top - np.matmul(block[:, w:].transpose(0, 2, 1), x[rows])
        x[own] = np.linalg.solve(block[:, :w].transpose(0, 2, 1), top)


def _packed_solve(L: Vector, tree: FrontalTree, s: int, x: Matrix, *, transposed: bool) -> None:
    # the columns of a root are a packed lower triangle: no dense copy of it is needed
    lo, hi = int(tree.starts[s]), int(tree.starts[s + 1])
    packed = L[tree.column_ptr[lo] : tree.column_ptr[hi]]
    for c in range(x.shape[1]):
        x[lo:hi, c] = blas.dtpsv(hi - lo, packed, x[lo:hi, c], lower=1, trans=int(transposed))
