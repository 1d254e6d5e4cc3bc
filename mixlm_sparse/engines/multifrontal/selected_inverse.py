"""Entries of (L L')^{-1} on the pattern of L, without forming the inverse: Takahashi's recursion.

For a supernode with columns J and rows R below them, and Sigma = (L L')^{-1},

    Y = L[R, J] L[J, J]^{-1}
    Sigma[R, J] = -Sigma[R, R] Y
    Sigma[J, J] = L[J, J]^{-T} L[J, J]^{-1} - Y' Sigma[R, J]

where Sigma[R, R] lies in the front of the parent.  Parents come before children, so the dense
trailing part of L, a root, is one call of LAPACK's potri.

References
----------
Takahashi, Fagan, Chen (1973); Erisman and Tinney (1975), doi:10.1145/360680.360704;
Campbell and Davis (1995), Computing the sparse inverse subset, University of Florida TR-95-021.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas, lapack

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.multifrontal.frontal_tree import FrontalTree, Step
from mixlm_sparse.engines.multifrontal.fronts import (
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
    take_from_front,
    trapezoid,
)
from mixlm_sparse.engines.threads import large_block


def selected_inverse(
    values: Vector, tree: FrontalTree, *, arena: Vector | None = None, compiled: bool | None = None
) -> Vector:
    """Return (L L')^{-1} on the pattern of L.

    Parameters
    ----------
    values : (nnz,) values of L, laid out by `tree`.
    arena : (arena_size,) workspace to reuse; its content is overwritten.
    compiled : use the compiled form for the small fronts; by default when that pays.

    Returns
    -------
    (nnz,) values in the layout of L: the lower triangle of the inverse.

    Raises
    ------
    NotPositiveDefiniteError : a diagonal entry of L is zero or not finite.
    """
    if compiled is None:
        compiled = compiled_form_pays(tree)
    out = np.empty(tree.nnz)
    if arena is None:
        arena = np.empty(tree.arena_size)
    for step in reversed(tree.steps):
        if step.big:
            _big_front(values, tree, int(step.members[0]), arena, out, compiled=compiled)
        elif compiled:
            members = step.members
            w = tree.starts[members + 1] - tree.starts[members]
            below = tree.row_ptr[members + 1] - tree.row_ptr[members] - w
            _small_fronts(
                members,
                tree.starts,
                tree.row_ptr,
                tree.relative,
                tree.parent,
                tree.column_ptr,
                tree.arena,
                values,
                arena,
                out,
                np.empty((int(below.max()), int(below.max()))),
                np.empty((int(below.max()), int(w.max()))),
                np.empty((int(w.max()), int(w.max()))),
            )
        else:
            _small_fronts_numpy(values, tree, step, arena, out)
    return out


def _big_front(
    values: Vector, tree: FrontalTree, s: int, arena: Vector, out: Vector, *, compiled: bool
) -> None:
    w = int(tree.starts[s + 1] - tree.starts[s])
    lo, hi = int(tree.row_ptr[s]), int(tree.row_ptr[s + 1])
    m = hi - lo
    front = front_view(tree, arena, s)
    if m == w:
        block = np.empty((m, m), order="F") if front is None else front
        load_columns(tree, values, s, block, add=False)
        with large_block(m):
            inverse, info = lapack.dpotri(block, lower=1, overwrite_c=1)
        _check(info)
        if front is not None and not np.shares_memory(inverse, front):
            front[:] = inverse
        store_columns(tree, out, s, inverse)
        return
    panel = np.zeros((m, w), order="F")
    load_columns(tree, values, s, panel, add=False)
    chol = np.asfortranarray(panel[:w])
    parent = front_view(tree, arena, int(tree.parent[s]))
    assert parent is not None  # s is its child
    below = take_from_front(parent, tree.relative[lo + w : hi], compiled=compiled)
    with large_block(w):
        Y = blas.dtrsm(1.0, chol, panel[w:], side=1, lower=1)
        X = blas.dsymm(-1.0, below, Y, side=0, lower=1)
        inverse, info = lapack.dpotri(chol, lower=1)
        panel[:w] = inverse - blas.dgemm(1.0, Y, X, trans_a=1)
    _check(info)
    panel[w:] = X
    store_columns(tree, out, s, panel)
    if front is not None:
        front[:, :w] = panel
        front[w:, w:] = below


def _check(info: int) -> None:
    if info != 0:
        raise NotPositiveDefiniteError(
            "a diagonal entry of the Cholesky factor is zero: the inverse does not exist; "
            "check the start value of theta"
        )


@njit
def _small_fronts(  # type: ignore[no-untyped-def]
    members, starts, row_ptr, relative, parent, column_ptr, arena_at, L, arena, out, G, Y, M
):
    # Long, because in three functions (supernodes of one column, which most are, those of several)
    # it compiles half a second longer, 1.7 s for 1.1.
    for k in range(members.shape[0] - 1, -1, -1):
        s = members[k]
        first = starts[s]
        w = starts[s + 1] - first
        lo = row_ptr[s]
        m = row_ptr[s + 1] - lo
        r = m - w
        own = arena_at[s]
        p = parent[s]
        at_p = 0
        m_p = 0
        if r > 0:
            at_p = arena_at[p]
            m_p = row_ptr[p + 1] - row_ptr[p]
        if w == 1:
            at = column_ptr[first]
            d = L[at]
            for i in range(r):
                out[at + 1 + i] = 0.0
            # X = -Sigma[R, R] Y from the lower triangle alone
            for j in range(r):
                y = L[at + 1 + j] / d
                base = at_p + relative[lo + 1 + j] * m_p
                x = -arena[base + relative[lo + 1 + j]] * y
                for i in range(j + 1, r):
                    g = arena[base + relative[lo + 1 + i]]
                    x -= g * (L[at + 1 + i] / d)
                    out[at + 1 + i] -= g * y
                    if own >= 0:
                        arena[own + (1 + j) * m + 1 + i] = g
                out[at + 1 + j] += x
                if own >= 0:
                    arena[own + (1 + j) * m + 1 + j] = arena[base + relative[lo + 1 + j]]
            x = 1.0 / (d * d)
            for j in range(r):
                x -= out[at + 1 + j] * (L[at + 1 + j] / d)
            out[at] = x
            if own >= 0:
                for i in range(m):
                    arena[own + i] = out[at + i]
            continue
        # several columns: column t of the supernode begins at column_ptr[first + t]
        for j in range(r):
            base = at_p + relative[lo + w + j] * m_p
            for i in range(j, r):
                g = arena[base + relative[lo + w + i]]
                G[i, j] = g
                G[j, i] = g
                if own >= 0:
                    arena[own + (w + j) * m + w + i] = g
        for t in range(w - 1, -1, -1):
            at = column_ptr[first + t] - t
            d = L[at + t]
            for i in range(r):
                y = L[at + w + i]
                for u in range(t + 1, w):
                    y -= Y[i, u] * L[at + u]
                Y[i, t] = y / d
        # M = L[J, J]^{-1}
        for t in range(w):
            M[t, t] = 1.0 / L[column_ptr[first + t]]
            for i in range(t + 1, w):
                x = 0.0
                for u in range(t, i):
                    x -= L[column_ptr[first + u] + i - u] * M[u, t]
                M[i, t] = x / L[column_ptr[first + i]]
        for t in range(w):
            at = column_ptr[first + t] - t
            for i in range(r):
                x = 0.0
                for j in range(r):
                    x -= G[i, j] * Y[j, t]
                out[at + w + i] = x
        for t in range(w):
            at = column_ptr[first + t] - t
            for i in range(t, w):
                x = 0.0
                for u in range(i, w):
                    x += M[u, i] * M[u, t]
                for j in range(r):
                    x -= Y[j, i] * out[at + w + j]
                out[at + i] = x
            if own >= 0:
                for i in range(t, m):
                    arena[own + t * m + i] = out[at + i]


def _small_fronts_numpy(
    values: Vector, tree: FrontalTree, step: Step, arena: Vector, out: Vector
) -> None:
    for members, w, m in chunks(step, tree):
        r = m - w
        place = columns_of(tree, members, w, m)
        block = panels(values, place, w, m)
        if w == 1:
            inverse_chol = 1.0 / block[:, :1]
        else:
            identity = np.broadcast_to(np.eye(w), (members.size, w, w))
            inverse_chol = np.linalg.solve(block[:, :w], identity).astype(np.float64, copy=False)
        result = np.empty((members.size, m, w))
        result[:, :w] = np.matmul(inverse_chol.transpose(0, 2, 1), inverse_chol)
        if r:
            relative, _ = rows_below(tree, members, w, m)
            low = arena[parent_places(tree, members, relative)]
            rows, cols = lower_triangle(r)
            below = np.empty((members.size, r, r))
            below[:, rows, cols] = low
            below[:, cols, rows] = low
            Y = np.matmul(block[:, w:], inverse_chol)
            X = -np.matmul(below, Y)
            result[:, w:] = X
            result[:, :w] -= np.matmul(Y.transpose(0, 2, 1), X)
        entry_rows, entry_cols = trapezoid(w, m)
        entries = result[:, entry_rows, entry_cols]
        out[place] = entries
        with_children = tree.arena[members] >= 0
        if with_children.any():
            own = own_places(tree, members[with_children], m)
            arena[own + entry_cols * m + entry_rows] = entries[with_children]
            if r:
                arena[own + (w + cols) * m + (w + rows)] = low[with_children]
