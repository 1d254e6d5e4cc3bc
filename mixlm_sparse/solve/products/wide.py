"""Products of a design whose fixed part has hundreds of columns, nearly all of them zeros in a row.

The columns are two kinds: d filled ones (the intercept, numbers), and those of factors with many
levels and their interactions, of which a row has a few entries.  The filled ones and the response
get an orthonormal basis among themselves; the others stay as they are, for indicators are nearly
orthogonal.  With X~ = [E S], y~ beside E,

    [X~ y~]'W[X~ y~]  of  E'WE (d + 1, d + 1), E'WS and S'WS, which is sparse,
    Z'W[X~ y~]        of  Z'WE by level, and Z'WS, a sparse product,

so that nothing of the size rows x columns is filled in, and a pass costs what the entries cost.
Rows may come at once or in batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.design.sparse_columns import SPARSE_SHARE, WIDE, filled_columns
from mixlm_sparse.engines.columns import LevelEntries, SparseColumns
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.engines.kernels import products_compiled
from mixlm_sparse.solve.products.accumulate import (
    CrossProducts,
    LevelSums,
    merged_columns,
    semidefinite_cholesky,
)
from mixlm_sparse.solve.products.basis import (
    Basis,
    regular_basis,
    require_squares,
    response_less,
    stack_qr,
    term_basis,
    term_layout,
    triangular_inverse,
)
from mixlm_sparse.solve.products.meetings import Entries, entries_of
from mixlm_sparse.solve.rows import NUMPY_BLOCK_ROWS, InMemory, RowBlock, RowSource

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["Filled", "WideRows", "filled_part", "keeps_digits", "wide_basis", "wide_products"]

# A column of which earlier ones leave less than the first share of its length is a combination of
# them, as far as squares tell; one between the two has lost digits by squaring.
DEPENDENT, LOST = 1e-6, 1e-4

Filled = IntVector


def filled_part(matrices: ModelMatrices, source: InMemory) -> Filled | None:
    """Return which columns of a wide fixed part are filled; None if it is narrow, or not sparse."""
    p = len(matrices.fixed.names)
    if p < WIDE:
        return None
    found = filled_columns(source.fixed, SPARSE_SHARE)
    if found is None:  # an array: its first rows tell
        first = sp.csr_array(source.fixed.block(slice(0, min(source.n, NUMPY_BLOCK_ROWS // 8))))
        counts = np.bincount(first.indices, minlength=p)
        if first.nnz > SPARSE_SHARE * first.shape[0] * p:
            return None
        found = np.flatnonzero(counts > SPARSE_SHARE * first.shape[0]).astype(np.int32)
    return found if found.size <= SPARSE_SHARE * p else None


class WideRows:
    """[X~ y~] of blocks of rows, filled and sparse columns apart, and the sums of their products.

    Parameters
    ----------
    basis : in which the filled columns are orthonormal; of `wide_basis`.
    filled : (d,) their places among all columns.
    """

    def __init__(self, basis: Basis, filled: Filled) -> None:
        self.filled = filled
        self.p = basis.R.shape[0]
        self.sparse = np.setdiff1d(np.arange(self.p, dtype=np.int32), filled)
        self._turn = triangular_inverse(basis.R[np.ix_(filled, filled)])
        self._d = basis.d[filled]
        d = filled.size
        self._ee = np.zeros((d + 1, d + 1))
        self._es = np.zeros((d + 1, self.sparse.size))
        self._ss = sp.csr_array((self.sparse.size, self.sparse.size))

    def block(self, rows: RowBlock) -> tuple[Matrix, sp.csr_array]:
        """Return [E y~] (m, d + 1) and W S (m, p - d); their products are added to the sums."""
        X = rows.sparse_X.tocsc()
        own = X[:, self.filled].toarray()
        E = np.empty((len(rows), self.filled.size + 1))
        np.matmul(own, self._turn, out=E[:, :-1])
        E[:, -1] = response_less(rows.target, own, self._d)
        S = sp.csr_array(X[:, self.sparse])
        WS = sp.csr_array(S.multiply(rows.weights[:, None])) if rows.has_weights else S
        self._ee += E.T @ rows.weighted(E)
        self._es += (WS.T @ E).T
        self._ss = self._ss + sp.csr_array(S.T @ WS)
        return E, WS

    def add(self, other: WideRows) -> None:
        """Add the sums of other rows, in the same basis."""
        self._ee += other._ee
        self._es += other._es
        self._ss = self._ss + other._ss

    def factor(self) -> Matrix:
        """Return the factor of [X~ y~]'W[X~ y~], (p + 1, p + 1) upper triangular."""
        out = np.zeros((self.p + 1, self.p + 1))
        at, rest = np.append(self.filled, self.p), self.sparse
        out[np.ix_(at, at)] = self._ee
        out[np.ix_(at, rest)] = self._es
        out[np.ix_(rest, at)] = self._es.T
        entries = self._ss.tocoo()
        out[rest[entries.row], rest[entries.col]] = entries.data
        return semidefinite_cholesky(out, least=DEPENDENT**2)

    def by_level(
        self, entries: Entries, z: Matrix, WS: sp.csr_array, n_levels: int
    ) -> sp.csr_array:
        """Return Z'WS (L K, p - d) of some rows.

        Parameters
        ----------
        z : (m, K), or what `Entries.columns` takes, of the rows of WS.
        """
        values = entries.columns(z)
        K = values.shape[1]
        at = entries.level.astype(np.int64)[:, None] * K + np.arange(K)
        n = WS.shape[0]
        ptr = K * (np.arange(n + 1) if entries.starts is None else entries.starts)
        Z = sp.csr_array((values.ravel(), at.ravel(), ptr), shape=(n, n_levels * K))
        return sp.csr_array(Z.T @ WS)

    def joined(self, of_filled: Array3, sums: sp.csr_array) -> SparseColumns:
        """Return Z'W[X~ y~] of the sums Z'W[E y~] (L, K, d + 1) and Z'WS (L K, p - d)."""
        L, K, width = of_filled.shape
        at = np.append(self.filled, self.p)
        own = sums.tocoo()
        rows = np.concatenate([own.row, np.repeat(np.arange(L * K), width)])
        cols = np.concatenate([self.sparse[own.col], np.tile(at, L * K)])
        data = np.concatenate([own.data, of_filled.ravel()])
        return SparseColumns(sp.csr_array((data, (rows, cols)), shape=(L * K, self.p + 1)), K)


def wide_basis(matrices: ModelMatrices, source: RowSource, filled: Filled) -> Basis:
    """Find the basis of some rows: the filled columns orthonormal, the others as they are."""
    p = len(matrices.fixed.names)
    stacked: Matrix | None = None
    factors: list[Matrix | None] = [None] * len(matrices.terms)
    for rows in source.blocks(size=NUMPY_BLOCK_ROWS):
        block = np.column_stack([rows.sparse_X.tocsc()[:, filled].toarray(), rows.target])
        stacked = stack_qr(stacked, rows.root_weighted(block))
        for t, term in enumerate(matrices.terms):
            own = rows.root_weighted(rows.sized(t, term.factor))
            factors[t] = stack_qr(factors[t], own)
    assert stacked is not None
    names = [matrices.fixed.names[j] for j in filled.tolist()]
    require_squares(stacked, [*names, matrices.response_name or "y"])
    own_R, own_d = regular_basis(stacked[: filled.size + 1, : filled.size + 1])
    R, d = np.eye(p), np.zeros(p)
    R[np.ix_(filled, filled)], d[filled] = own_R, own_d
    root = np.sqrt(source.n)
    Rz = tuple(
        term_basis(found / root, term.template.closed_under)
        for found, term in zip(factors, matrices.terms, strict=True)
        if found is not None
    )
    return Basis(R=R, d=d, Rz=Rz)


def keeps_digits(R: Matrix) -> bool:
    """Say whether a factor of `WideRows` is as exact as one of the rows themselves."""
    lengths = np.sqrt((R * R).sum(axis=0))
    left = np.abs(np.diag(R))[:-1]
    lost = (left > 0.0) & (left < LOST * lengths[:-1])
    return not bool(lost.any())


def wide_products(matrices: ModelMatrices, source: RowSource) -> CrossProducts | None:
    """Form the products of a design with a wide, sparse fixed part; None if it is not that."""
    if not isinstance(source, InMemory) or matrices.law is not None:
        return None
    filled = filled_part(matrices, source)
    if filled is None:
        return None
    layout = term_layout(matrices)
    widths = widths_of(matrices)
    basis = wide_basis(matrices, source, filled)
    wide = WideRows(basis, filled)
    P = filled.size + 1
    compiled = products_compiled(source.n * sum(K * (K + P) for K in widths))
    sums = LevelSums(matrices.factors, source, widths, P, compiled=compiled)
    Bz = [triangular_inverse(R) for R in basis.Rz]
    sparse = [LevelEntries(K, wide.sparse.size) for K in widths]
    levels = [f.n_levels for f in matrices.factors]
    log_weight_sum = 0.0
    for rows in source.blocks(size=NUMPY_BLOCK_ROWS):
        E, WS = wide.block(rows)
        merged = merged_columns(rows, layout, widths, Bz)
        sums.add(rows, merged, rows.weighted(E))
        for g, z in enumerate(merged):
            sparse[g].grow(levels[g])
            sparse[g].add(wide.by_level(entries_of(rows.levels(g)), z, WS, levels[g]))
        log_weight_sum += rows.log_weight_sum
    R = wide.factor()
    if not keeps_digits(R):
        return None  # nearly dependent columns: by orthogonal rotations instead
    blocks = sums.blocks()
    factors = [
        FactorBlock(f.label, f.ztz, wide.joined(f.ztx, found.total(f.n_levels)))
        for f, found in zip(blocks.factors, sparse, strict=True)
    ]
    return CrossProducts(
        basis=basis,
        n=source.n,
        log_weight_sum=log_weight_sum,
        R=R,
        blocks=BlockSystem(tuple(factors), blocks.pairs),
        layout=layout,
        levels=None,
        matrices=matrices,
    )


def widths_of(matrices: ModelMatrices) -> list[int]:
    """Return the effects a level of every grouping factor."""
    widths = [0] * len(matrices.factors)
    for place in term_layout(matrices):
        widths[place.factor] += place.width
    return widths
