"""Products of a design whose fixed part has hundreds of columns, nearly all of them zeros in a row.

Columns of factors with many levels are never multiplied out: X is held with its nonzero entries,
X'WX and Z'WX are sparse products, and only these, whose size does not depend on n, are dense.  The
basis centres and scales what is no indicator; indicators are nearly orthogonal as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.compiled import compiled_pays
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.solve.products.accumulate import (
    CrossProducts,
    LevelSums,
    merged_columns,
    semidefinite_cholesky,
)
from mixlm_sparse.solve.products.basis import (
    Basis,
    stack_qr,
    term_basis,
    term_layout,
    triangular_inverse,
)
from mixlm_sparse.solve.products.meetings import entries_of
from mixlm_sparse.solve.rows import InMemory, RowSource

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["wide_products"]

WIDE = 300  # columns from which on X is taken as sparse, if it is
SPARSE_SHARE = 0.1  # largest share of entries that are not zero
BLOCK_NUMBERS = 6_000_000  # entries of X that are filled in at a time


class SparseRows:
    """X~ with its nonzero entries, y~, weights, and the basis that they are in."""

    def __init__(self, X: sp.csr_array, y: Vector, weights: Vector, basis: Basis) -> None:
        self.X, self.y, self.weights, self.basis = X, y, weights, basis
        self.weighted = sp.csr_array(X.multiply(weights[:, None]))

    def gram(self) -> Matrix:
        """Return [X~ y~]'W[X~ y~], (p + 1, p + 1)."""
        p = self.X.shape[1]
        out = np.empty((p + 1, p + 1))
        out[:p, :p] = (self.X.T @ self.weighted).toarray()
        out[:p, p] = out[p, :p] = self.weighted.T @ self.y
        out[p, p] = self.y @ (self.weights * self.y)
        return out

    def by_level(self, Z: sp.csr_array) -> Matrix:
        """Return Z'WX~, (q, p), for Z (n, q)."""
        out: Matrix = (Z.T @ self.weighted).toarray()
        return out


def wide_products(matrices: ModelMatrices, source: RowSource) -> CrossProducts | None:
    """Form the products of a design with a wide, sparse fixed part; None if it is not that."""
    if not isinstance(source, InMemory) or matrices.law is not None:
        return None
    rows = _sparse_rows(matrices, source)
    if rows is None:
        return None
    layout = term_layout(matrices)
    widths = [0] * len(matrices.factors)
    for place in layout:
        widths[place.factor] += place.width
    compiled = compiled_pays(source.n * sum(K * (K + 9.0) for K in widths))
    sums = LevelSums(matrices.factors, source, widths, 1, compiled=compiled)
    Bz = [triangular_inverse(R) for R in rows.basis.Rz]
    Z: list[list[Matrix]] = [[] for _ in widths]
    log_weight_sum = 0.0
    for block in source.blocks():
        merged = merged_columns(block, layout, widths, Bz)
        sums.add(block, merged, block.weighted(rows.y[block.slice][:, None]))
        log_weight_sum += block.log_weight_sum
        for own, z in zip(Z, merged, strict=True):
            own.append(z)
    blocks = sums.blocks()
    factors = []
    for g, f in enumerate(blocks.factors):
        z, K = np.vstack(Z[g]), widths[g]
        entries = entries_of(matrices.factors[g].row_levels)
        at = entries.level.astype(np.int64)[:, None] * K + np.arange(K)
        ptr = K * (np.arange(len(z) + 1) if entries.starts is None else entries.starts)
        shape = (len(z), f.n_levels * K)
        matrix = sp.csr_array((entries.columns(z).ravel(), at.ravel(), ptr), shape=shape)
        ztx = rows.by_level(matrix).reshape(f.n_levels, K, -1)
        factors.append(FactorBlock(f.label, f.ztz, np.concatenate([ztx, f.ztx], axis=2)))
    return CrossProducts(
        basis=rows.basis,
        n=source.n,
        log_weight_sum=log_weight_sum,
        R=semidefinite_cholesky(rows.gram()),
        blocks=BlockSystem(tuple(factors), blocks.pairs),
        layout=layout,
        levels=None,
        matrices=matrices,
    )


def _sparse_rows(matrices: ModelMatrices, source: RowSource) -> SparseRows | None:
    """Read the rows of a wide design; None if the fixed part is narrow, or not sparse."""
    p = len(matrices.fixed.names)
    if p < WIDE:
        return None
    pieces: list[sp.csr_array] = []
    targets, weights = [], []
    filled = 0
    for rows in source.blocks(size=max(BLOCK_NUMBERS // p, 1)):
        piece = sp.csr_array(rows.X)
        filled += piece.nnz
        if not pieces and filled > SPARSE_SHARE * len(rows) * p:
            return None
        pieces.append(piece)
        targets.append(rows.target)
        weights.append(rows.weights)
    X = sp.csr_array(sp.vstack(pieces, format="csr"))
    y, w = np.concatenate(targets), np.concatenate(weights)
    R, d = np.eye(p), np.zeros(p)
    columns = X.tocsc()
    total = float(w.sum())
    intercept = matrices.fixed.names[0] == "(Intercept)"
    if intercept:
        d[0] = float(w @ y) / total
    counts = np.diff(columns.indptr)
    for j in range(int(intercept), p):
        part = slice(columns.indptr[j], columns.indptr[j + 1])
        values = columns.data[part]
        if not values.size:
            continue
        if intercept and counts[j] > SPARSE_SHARE * y.size:
            own = w[columns.indices[part]]
            mean = float(own @ values) / total
            if counts[j] == y.size:
                R[0, j] = mean
                values = values - mean
            columns.data[part] = values
        length = float(np.sqrt(np.mean(values**2)))
        if length > 0.0:
            R[j, j] = length
            columns.data[part] = values / length
    return SparseRows(
        sp.csr_array(columns.tocsr()), y - d[0] if intercept else y, w,
        Basis(R=R, d=d, Rz=_term_bases(matrices, source)),
    )  # fmt: skip


def _term_bases(matrices: ModelMatrices, source: RowSource) -> tuple[Matrix, ...]:
    factors: list[Matrix | None] = [None] * len(matrices.terms)
    for rows in source.blocks():
        for t in range(len(factors)):
            own = rows.sized(t, matrices.terms[t].factor)
            factors[t] = stack_qr(factors[t], rows.root_weighted(own))
    root = np.sqrt(source.n)
    return tuple(
        term_basis(R / root, term.template.closed_under)
        for R, term in zip(factors, matrices.terms, strict=True)
        if R is not None
    )
