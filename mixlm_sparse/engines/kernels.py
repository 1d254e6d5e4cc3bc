"""Hot loops over levels, each with a NumPy form and a compiled form (see `compiled`).

Both forms are tested against each other.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.dense import NOT_POSITIVE_DEFINITE

Places = NDArray[np.intp]

# ---------------------------------------------------------------------------------------------
# Group sums: Z'WZ and Z'W[X y] of one factor, by level
# ---------------------------------------------------------------------------------------------

# Up to this size a dense indicator matrix (levels x rows) is the quickest way to sum by group.
DENSE_INDICATOR_CELLS = 40_000
# From so many numbers on a sparse one takes less than a pass for each column, in the same order.
SPARSE_INDICATOR_FROM = 20_000
# Up to so many possible pairs of levels (or four for each row) it is marked which of them occur.
PRESENT_CELLS = 100_000


# Sums of more numbers than this do not stay in the cache between two rows of a level.
CACHED_SUMS = 100_000
TOUCHED_ROWS = 32


@njit
def _group_products_compiled(codes, Z, D, ztz, ztx):  # type: ignore[no-untyped-def]
    # Z (m, K) unweighted; D (m, K + P) weighted columns [wZ | w[X y]]
    m, K = Z.shape
    P = D.shape[1] - K
    wide = ztz.size + ztx.size > CACHED_SUMS
    touched = 0.0
    for start in range(0, m, TOUCHED_ROWS):
        stop = min(start + TOUCHED_ROWS, m)
        if wide:  # fetch the sums of some rows at once: the memory then works on all of them
            for i in range(start, stop):
                j = codes[i]
                touched += ztz[j, 0, 0] + ztx[j, 0, 0] + ztx[j, K - 1, P - 1]
        for i in range(start, stop):
            j = codes[i]
            for a in range(K):
                z = Z[i, a]
                if z != 0.0:
                    for b in range(a + 1):
                        ztz[j, a, b] += z * D[i, b]
                    for c in range(P):
                        ztx[j, a, c] += z * D[i, K + c]
    return touched  # so that the reading is not taken for useless


def products_compiled(work: float) -> bool:
    """Say whether products by level, of `work` multiply-adds, are to be formed in machine code."""
    return compiled_pays(work, _group_products_compiled)


def sum_by_group(codes: IntVector, values: Matrix, n_groups: int) -> Matrix:
    """Sum the rows of `values` (m, c) by group: (n_groups, c)."""
    m = codes.shape[0]
    if m * n_groups <= DENSE_INDICATOR_CELLS:
        indicator = np.zeros((n_groups, m))
        indicator[codes, np.arange(m)] = 1.0
        return indicator @ values
    if values.size >= SPARSE_INDICATOR_FROM:
        at = np.arange(m + 1, dtype=np.int32)
        sparse = sp.csr_array((np.ones(m), codes, at), shape=(m, n_groups))
        return np.asarray(sparse.T @ values)
    out = np.empty((n_groups, values.shape[1]))
    places = codes.astype(np.intp, copy=False)  # once, and not for every column
    for c in range(values.shape[1]):
        out[:, c] = np.bincount(places, weights=values[:, c], minlength=n_groups)
    return out


def add_group_products(
    codes: IntVector, Z: Matrix, D: Matrix, ztz: Array3, ztx: Array3, *, compiled: bool
) -> None:
    """Add the rows of a block to a factor's products, in place.

    Parameters
    ----------
    codes : (m,) level of each row.
    Z : (m, K) model columns of the factor.
    D : (m, K + P) weighted columns [WZ, W[X y]].
    ztz : (L, K, K), only the lower triangle of each block is updated; ztx : (L, K, P).
    """
    K = Z.shape[1]
    if compiled:
        _group_products_compiled(codes, Z, D, ztz, ztx)
        return
    L, P = ztz.shape[0], D.shape[1] - K
    left, right = _factors_of_products(K, P)
    sums = sum_by_group(codes, Z.take(left, axis=1) * D.take(right, axis=1), L)
    at = 0
    for a in range(K):
        ztz[:, a, : a + 1] += sums[:, at : at + a + 1]
        at += a + 1
    ztx += sums[:, at:].reshape(L, K, P)


@lru_cache(maxsize=64)
def _factors_of_products(K: int, P: int) -> tuple[Places, Places]:
    """Return the columns of Z and of D whose products are summed: lower triangles, then Z by P."""
    low_r, low_c = np.tril_indices(K)
    left = np.concatenate([low_r, np.repeat(np.arange(K), P)])
    right = np.concatenate([low_c, K + np.tile(np.arange(P), K)])
    for places in (left, right):
        places.flags.writeable = False  # one array for all who ask
    return left, right


# ---------------------------------------------------------------------------------------------
# Pairs of levels that occur together
# ---------------------------------------------------------------------------------------------


def pair_index(
    g: IntVector, h: IntVector, n_g: int, n_h: int
) -> tuple[IntVector, IntVector, IntVector]:
    """Find the distinct pairs (g[i], h[i]), sorted by (g, h).

    Returns
    -------
    rows, cols : (npairs,) the pairs.
    index : (n,) the pair of each row.
    """
    if n_g * n_h <= max(4 * g.size, PRESENT_CELLS):
        key = g.astype(np.int64) * n_h + h
        present = np.zeros(n_g * n_h, dtype=bool)
        present[key] = True
        distinct = np.flatnonzero(present)
        position = np.empty(present.size, dtype=np.int32)
        position[distinct] = np.arange(distinct.size, dtype=np.int32)
        return (
            (distinct // n_h).astype(np.int32),
            (distinct % n_h).astype(np.int32),
            position[key],
        )
    # two stable counting sorts, by h, then by g, put equal pairs next to each other
    by_h = sorted_by(h, n_h)
    order = by_h[sorted_by(g[by_h], n_g)]
    rows, cols = g[order], h[order]
    new = np.empty(order.size, dtype=bool)
    new[:1] = True
    np.not_equal(rows[1:], rows[:-1], out=new[1:])
    new[1:] |= cols[1:] != cols[:-1]
    index = np.empty(order.size, dtype=np.int32)
    index[order] = np.cumsum(new, dtype=np.int32) - np.int32(1)
    return (
        rows[new].astype(np.int32, copy=False),
        cols[new].astype(np.int32, copy=False),
        index,
    )


def sorted_by(codes: IntVector, n_groups: int) -> IntVector:
    """Return the stable order of codes (n,) below n_groups, in time n + n_groups.

    SciPy sorts entries like this where it turns rows of a sparse matrix, here of one each, to
    columns.
    """
    at = np.arange(codes.size + 1, dtype=np.int32)
    one = sp.csr_array((np.ones(codes.size, dtype=bool), codes, at), shape=(codes.size, n_groups))
    order: IntVector = one.tocsc().indices
    return order


@njit
def _pair_products_compiled(index, Zg, WZh, out):  # type: ignore[no-untyped-def]
    m, Kg = Zg.shape
    Kh = WZh.shape[1]
    for i in range(m):
        s = index[i]
        for a in range(Kg):
            z = Zg[i, a]
            if z != 0.0:
                for b in range(Kh):
                    out[s, a, b] += z * WZh[i, b]


def add_pair_products(
    index: IntVector, Zg: Matrix, WZh: Matrix, out: Array3, *, compiled: bool
) -> None:
    """Add Z_g[i]' W Z_h[i] of each row to the block of its pair, in place; out (npairs, Kg, Kh)."""
    if compiled:
        _pair_products_compiled(index, Zg, WZh, out)
        return
    m, Kg = Zg.shape
    Kh = WZh.shape[1]
    products = (Zg[:, :, None] * WZh[:, None, :]).reshape(m, Kg * Kh)
    out += sum_by_group(index, products, out.shape[0]).reshape(out.shape)


# ---------------------------------------------------------------------------------------------
# Small blocks, all levels at once
# ---------------------------------------------------------------------------------------------


@njit
def _block_cholesky_compiled(blocks):  # type: ignore[no-untyped-def]
    L, K, _ = blocks.shape
    logdet = 0.0
    for j in range(L):
        for a in range(K):
            s = blocks[j, a, a]
            for c in range(a):
                s -= blocks[j, a, c] * blocks[j, a, c]
            if not (s > 0.0 and s < np.inf):
                return np.nan
            d = np.sqrt(s)
            blocks[j, a, a] = d
            logdet += np.log(d)
            for b in range(a + 1, K):
                t = blocks[j, b, a]
                for c in range(a):
                    t -= blocks[j, b, c] * blocks[j, a, c]
                blocks[j, b, a] = t / d
            for b in range(a + 1, K):
                blocks[j, a, b] = 0.0
    return 2.0 * logdet


def blocks_compiled(work: float) -> bool:
    """Say whether small blocks are to be worked on in machine code, `work` multiply-adds in all."""
    return compiled_pays(work, _block_cholesky_compiled)


def block_cholesky(blocks: Array3, *, compiled: bool) -> float:
    """Replace each (K, K) block of (L, K, K) by its lower Cholesky factor; return sum log|block|.

    Raises
    ------
    NotPositiveDefiniteError : a block has no Cholesky factor.
    """
    if compiled:
        logdet = float(_block_cholesky_compiled(blocks))
        if np.isnan(logdet):
            raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
        return logdet
    if blocks.shape[1] == 1:
        flat = blocks[:, 0, 0]
        if not (np.isfinite(flat).all() and (flat > 0.0).all()):
            raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
        np.sqrt(flat, out=flat)
        return 2.0 * float(np.log(flat).sum())
    try:
        blocks[:] = np.linalg.cholesky(blocks)
    except np.linalg.LinAlgError:
        raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE) from None
    logdet = 2.0 * float(np.log(np.diagonal(blocks, axis1=1, axis2=2)).sum())
    if not np.isfinite(logdet):
        raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
    return logdet


@njit
def _block_inverse_compiled(chol, out):  # type: ignore[no-untyped-def]
    # out[j] = lower triangle of L^{-1}
    L, K, _ = chol.shape
    for j in range(L):
        for a in range(K):
            out[j, a, a] = 1.0 / chol[j, a, a]
            for b in range(a + 1, K):
                s = 0.0
                for c in range(a, b):
                    s -= chol[j, b, c] * out[j, c, a]
                out[j, b, a] = s / chol[j, b, b]
                out[j, a, b] = 0.0


def block_lower_inverse(chol: Array3, *, compiled: bool) -> Array3:
    """Return the inverse of each lower-triangular block (L, K, K).

    The blocks are factors of I + (positive semidefinite), so their inverses are bounded by 1 and
    multiplying by them is as stable as substitution.
    """
    out = np.empty_like(chol)
    if compiled:
        _block_inverse_compiled(chol, out)
        return out
    K = chol.shape[1]
    if K == 1:
        np.divide(1.0, chol, out=out)
        return out
    out[:] = 0.0
    if K == 2:
        first, second = 1.0 / chol[:, 0, 0], 1.0 / chol[:, 1, 1]
        out[:, 0, 0], out[:, 1, 1] = first, second
        out[:, 1, 0] = -chol[:, 1, 0] * first * second
        return out
    for a in range(K):
        out[:, a, a] = 1.0 / chol[:, a, a]
        for b in range(a + 1, K):
            s = np.einsum("jc,jc->j", chol[:, b, a:b], out[:, a:b, a])
            out[:, b, a] = -s / chol[:, b, b]
    return out


def csr(ptr: np.ndarray, cols: IntVector, values: np.ndarray, n_columns: int) -> sp.csr_array:
    """Return the matrix with these entries by row."""
    return sp.csr_array((np.ascontiguousarray(values), cols, ptr), shape=(ptr.size - 1, n_columns))
