"""Symbolic analysis of a sparse Cholesky factorization: the elimination tree and the fill.

References
----------
Liu (1990), doi:10.1137/0611010; Gilbert, Ng, Peyton (1994), doi:10.1137/S089547989223921.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.types import IntVector
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.multifrontal.ordering import fill_reducing_order

Positions = NDArray[np.int64]


class Fill(NamedTuple):
    """Size of a Cholesky factor.

    Parameters
    ----------
    nnz_L : entries of L, diagonal included.
    flops : multiply-adds of a factorization.
    widest : entries of its fullest column: the order of the largest dense block.
    """

    nnz_L: int
    flops: float
    widest: int


@njit
def _elimination_tree(n, ptr, idx):  # type: ignore[no-untyped-def]
    # column k of (ptr, idx) lists the rows i < k of the upper triangle
    parent = np.full(n, -1, np.int64)
    ancestor = np.full(n, -1, np.int64)
    for k in range(n):
        for t in range(ptr[k], ptr[k + 1]):
            i = idx[t]
            while i != -1 and i < k:
                up = ancestor[i]
                ancestor[i] = k
                if up == -1:
                    parent[i] = k
                i = up
    return parent


@njit
def postorder(parent):  # type: ignore[no-untyped-def]
    n = parent.shape[0]
    child = np.full(n, -1, np.int64)
    sibling = np.full(n, -1, np.int64)
    roots = -1
    for k in range(n - 1, -1, -1):
        if parent[k] < 0:
            sibling[k] = roots
            roots = k
        else:
            sibling[k] = child[parent[k]]
            child[parent[k]] = k
    order = np.empty(n, np.int64)
    done = 0
    node = roots
    while node >= 0:
        while child[node] >= 0:
            node = child[node]
        # leave `node`, then every ancestor that has no further child
        while True:
            order[done] = node
            done += 1
            if sibling[node] >= 0:
                node = sibling[node]
                break
            node = parent[node]
            if node < 0:
                return order
    return order


@njit
def _column_counts(parent, ptr, idx):  # type: ignore[no-untyped-def]
    # Entries of each column of L, diagonal included, for a postordered tree.  Column j adds a leaf
    # to the row subtree of i when it is the first of its own subtree to meet row i; two leaves
    # of row i share the path above their least common ancestor.
    n = parent.shape[0]
    first = np.arange(n)
    delta = np.zeros(n, np.int64)
    for j in range(n):
        if first[j] == j:
            delta[j] = 1
        if parent[j] >= 0:
            first[parent[j]] = min(first[parent[j]], first[j])
    newest = np.full(n, -1, np.int64)
    previous = np.full(n, -1, np.int64)
    root = np.arange(n)
    for j in range(n):
        if parent[j] >= 0:
            delta[parent[j]] -= 1
        for t in range(ptr[j], ptr[j + 1]):
            i = idx[t]
            if i <= j or first[j] <= newest[i]:
                continue
            newest[i] = first[j]
            delta[j] += 1
            if previous[i] >= 0:
                q = previous[i]
                while root[q] != q:
                    q = root[q]
                r = previous[i]
                while root[r] != q:
                    up = root[r]
                    root[r] = q
                    r = up
                delta[q] -= 1
            previous[i] = j
        if parent[j] >= 0:
            root[j] = parent[j]
    for j in range(n):
        if parent[j] >= 0:
            delta[parent[j]] += delta[j]
    return delta


def lower_pattern(row: IntVector, col: IntVector, n: int) -> sp.csc_array:
    """Return the lower triangle, diagonal included, of the symmetric pattern with these entries."""
    low = np.minimum(row, col)
    high = np.maximum(row, col)
    diagonal = np.arange(n, dtype=low.dtype)
    row = np.concatenate((diagonal, high[low != high]))
    col = np.concatenate((diagonal, low[low != high]))
    matrix = sp.csc_array((np.ones(row.size, dtype=np.int8), (row, col)), shape=(n, n))
    matrix.sort_indices()
    return matrix


def elimination_tree(
    row: IntVector, col: IntVector, n: int, order: IntVector, compiled: bool
) -> tuple[IntVector, sp.csc_array, Positions, Positions]:
    """Postorder: return the refined order, the permuted lower triangle, the tree, the counts."""
    lower = permuted_lower(row, col, n, order)
    upper = sp.csc_array(lower.T)
    upper.sort_indices()
    tree = _elimination_tree if compiled else _elimination_tree.python
    post = postorder if compiled else postorder.python
    count = _column_counts if compiled else _column_counts.python
    parent = tree(n, upper.indptr, upper.indices)
    by_tree = post(parent)
    order = order[by_tree]
    rank = np.empty(n, dtype=np.int64)
    rank[by_tree] = np.arange(n)
    parent = parent[by_tree]
    parent = np.where(parent >= 0, rank[parent], -1)
    lower = permuted_lower(row, col, n, order)
    counts = count(parent, lower.indptr, lower.indices)
    return order, lower, parent, counts


def permuted_lower(row: IntVector, col: IntVector, n: int, order: IntVector) -> sp.csc_array:
    rank = np.empty(n, dtype=np.int32)
    rank[order] = np.arange(n, dtype=np.int32)
    return lower_pattern(rank[row], rank[col], n)


def predicted_fill(pattern: sp.csc_array, order: IntVector | None = None) -> Fill:
    """Return the size of the Cholesky factor of a symmetric matrix, without factoring it.

    Parameters
    ----------
    pattern : (n, n), both triangles or one; the values are ignored.
    order : (n,) elimination order; a fill-reducing one is computed if it is not given.
    """
    n = int(pattern.shape[0])
    if n == 0:
        return Fill(0, 0.0, 0)
    if order is None:
        order = fill_reducing_order(pattern)
    coo = pattern.tocoo()
    _, _, _, counts = elimination_tree(coo.row, coo.col, n, order, compiled_pays(300.0 * coo.nnz))
    size = counts.astype(np.float64)
    flops = float((size * (size + 1.0)).sum() / 2.0)
    return Fill(int(counts.sum()), flops, int(counts.max()))
