"""Products of rows that come in batches, whose levels are met in any order.

The basis is found on the first batch and is as good for all rows as needed: a column is shifted by
its regression on earlier columns there, so that what is left is at most sqrt(n / n_first) times its
own spread.  When all rows are in, products go over to the basis of all rows by exact linear maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.compiled import compiled_pays
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.engines.keys import KeyMap
from mixlm_sparse.solve.products.accumulate import (
    CrossProducts,
    fill_upper,
    in_basis,
    merged_columns,
    semidefinite_cholesky,
)
from mixlm_sparse.solve.products.basis import (
    Basis,
    find_basis,
    regular_basis,
    stack_qr,
    term_basis,
    term_layout,
    triangular_inverse,
)
from mixlm_sparse.solve.rows import BLOCK_ROWS, NUMPY_BLOCK_ROWS, InMemory, RowBlock

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["BatchSums", "Pairs", "arranged", "first_basis", "settled", "sums_of", "with_levels"]

PAIR = np.int64(2**32)
# A column of which earlier ones leave less than this share of its length loses digits by squaring.
GRAM_LEAST = 1e-3


def first_basis(matrices: ModelMatrices, rows: InMemory) -> Basis:
    """Return a basis found on the first rows."""
    return find_basis(matrices, rows, BLOCK_ROWS)


class Pairs:
    """Codes of the pairs of levels of two factors that occur together, shared by all sums."""

    def __init__(self, n_factors: int) -> None:
        self.maps = {
            (g, h): KeyMap() for g in range(n_factors) for h in range(g + 1, n_factors)
        }

    def encode(self, codes: Sequence[IntVector]) -> dict[tuple[int, int], IntVector]:
        """Return the code of the pair of each row, for all pairs of factors."""
        return {
            (g, h): known.encode(codes[g].astype(np.int64) * PAIR + codes[h])
            for (g, h), known in self.maps.items()
        }


class BatchSums:
    """Z~'WZ~ and Z~'W[X~ y~] by level, and the factor of [X~ y~]; more rows and levels may come."""

    def __init__(self, matrices: ModelMatrices, basis: Basis, pairs: Pairs) -> None:
        self.layout = term_layout(matrices)
        self.basis = basis
        self.n = 0
        self.log_weight_sum = 0.0
        self.R: Matrix | None = None
        self._pairs = pairs
        self._widths = [0] * len(matrices.factors)
        for place in self.layout:
            self._widths[place.factor] += place.width
        self._B = triangular_inverse(basis.R)
        self._Bz = [triangular_inverse(R) for R in basis.Rz]
        P = self._P = basis.R.shape[0] + 1
        self.ztz = [np.zeros((0, K, K)) for K in self._widths]
        self.ztx = [np.zeros((0, K, P)) for K in self._widths]
        self.pair_values = {
            (g, h): np.zeros((0, self._widths[g], self._widths[h])) for g, h in pairs.maps
        }

    def add(self, source: InMemory, sizes: Sequence[int]) -> None:
        """Add the rows of a batch.

        Parameters
        ----------
        sizes : number of levels of each factor known by now; more than any code of these rows.
        """
        P, widths = self._P, self._widths
        compiled = compiled_pays(
            source.n * (P * P + sum(K * (K + P) + 8 * len(widths) for K in widths))
        )
        every = [source.codes[g] for g in range(len(sizes))]
        pair_codes = self._pairs.encode([codes for codes in every if isinstance(codes, np.ndarray)])
        for g, size in enumerate(sizes):
            self.ztz[g] = _grown(self.ztz[g], size)
            self.ztx[g] = _grown(self.ztx[g], size)
        for key, known in self._pairs.maps.items():
            self.pair_values[key] = _grown(self.pair_values[key], len(known))
        gram = np.zeros((P, P))
        block_rows = BLOCK_ROWS if compiled else NUMPY_BLOCK_ROWS
        for rows in source.blocks(size=block_rows):
            block = self._block(rows)
            weighted = rows.weighted(block)
            gram += block.T @ weighted
            self.log_weight_sum += rows.log_weight_sum
            Z = merged_columns(rows, self.layout, widths, self._Bz)
            WZ = [rows.weighted(z) for z in Z]
            for g, z in enumerate(Z):
                D = np.hstack([WZ[g], weighted])
                kernels.add_group_products(
                    rows.codes(g), z, D, self.ztz[g], self.ztx[g], compiled=compiled
                )
            for (g, h), values in self.pair_values.items():
                kernels.add_pair_products(
                    pair_codes[g, h][rows.slice], Z[g], WZ[h], values, compiled=compiled
                )
        R = semidefinite_cholesky(gram)
        if not _keeps_digits(R):  # squaring has lost too many: by orthogonal rotations instead
            R = np.zeros((0, P))
            for rows in source.blocks(size=block_rows):
                R = stack_qr(R, rows.root_weighted(self._block(rows)))
        self.R = stack_qr(self.R, R)
        self.n += source.n

    def _block(self, rows: RowBlock) -> Matrix:
        """Return [X~ y~] of a block of rows, (m, P)."""
        X = rows.X
        block = np.empty((len(rows), self._P))
        np.matmul(X, self._B, out=block[:, :-1])
        block[:, -1] = rows.target
        block[:, -1] -= X @ self.basis.d
        return block


def _keeps_digits(R: Matrix) -> bool:
    """Say whether a factor formed from a Gram matrix has all but its last digits."""
    lengths = np.sqrt((R * R).sum(axis=0))
    return bool((np.abs(np.diag(R)) >= GRAM_LEAST * lengths).all())


def _grown(blocks: Array3, size: int) -> Array3:
    """Return blocks with room for `size` levels; room grows by half, so that copies are few."""
    if blocks.shape[0] >= size:
        return blocks
    room = max(size, blocks.shape[0] + blocks.shape[0] // 2)
    out = np.zeros((room, *blocks.shape[1:]))
    out[: blocks.shape[0]] = blocks
    return out


def _added(all_blocks: Sequence[Array3], size: int) -> Array3:
    """Return the sum of blocks of different numbers of levels, (size, ...)."""
    out = np.zeros((size, *all_blocks[0].shape[1:]))
    for blocks in all_blocks:
        known = min(size, blocks.shape[0])
        out[:known] += blocks[:known]
    return out


def sums_of(parts: Sequence[BatchSums], sizes: Sequence[int], pairs: Pairs) -> CrossProducts:
    """Return the sum of all parts; levels are in the order in which they were met."""
    R: Matrix | None = None
    for part in parts:
        if part.R is not None:
            R = stack_qr(R, part.R)
    assert R is not None
    factors = []
    for g, size in enumerate(sizes):
        ztz = _added([part.ztz[g] for part in parts], size)
        fill_upper(ztz)
        factors.append(FactorBlock("", ztz, _added([part.ztx[g] for part in parts], size)))
    met = {}
    for key, known in pairs.maps.items():
        first, second = np.divmod(known.values, PAIR)
        values = _added([part.pair_values[key] for part in parts], len(known))
        met[key] = PairBlock(first.astype(np.int32), second.astype(np.int32), values)
    return CrossProducts(
        basis=parts[0].basis,
        n=sum(part.n for part in parts),
        log_weight_sum=sum(part.log_weight_sum for part in parts),
        R=R,
        blocks=BlockSystem(tuple(factors), met),
        layout=parts[0].layout,
        levels=None,
    )


def arranged(
    cross: CrossProducts,
    matrices: ModelMatrices,
    terms: Sequence[int],
    factors: Sequence[int],
    places: Sequence[IntVector],
) -> CrossProducts:
    """Return products with terms, factors and levels in another order.

    Parameters
    ----------
    matrices : the design in the new order.
    terms, factors : the old place of every term and factor.
    places : per factor in its old place, the new place (n_seen,) of every level.
    """
    layout = term_layout(matrices)
    columns = [np.empty(f.width, dtype=np.intp) for f in cross.blocks.factors]
    for place, old in zip(layout, terms, strict=True):
        before = cross.layout[old]
        columns[before.factor][place.columns] = np.arange(before.first, before.first + place.width)
    blocks, back = [], []
    for g, old in enumerate(factors):
        f = cross.blocks.factors[old]
        order = np.empty(f.n_levels, dtype=np.int32)
        order[places[old]] = np.arange(f.n_levels, dtype=np.int32)
        chosen = columns[old]
        ztz, ztx = f.ztz[order], f.ztx[order]
        if chosen.size > 1:
            ztz, ztx = ztz[:, chosen][:, :, chosen], ztx[:, chosen]
        label = matrices.factors[g].label
        blocks.append(
            FactorBlock(label, np.ascontiguousarray(ztz), np.ascontiguousarray(ztx))
        )
        back.append(old)
    pairs = {}
    for g in range(len(back)):
        for h in range(g + 1, len(back)):
            a, b = back[g], back[h]
            pair = cross.blocks.pairs[min(a, b), max(a, b)]
            values, rows, cols = pair.values, pair.rows, pair.cols
            if a > b:
                values, rows, cols = values.transpose(0, 2, 1), cols, rows
            values = values[:, columns[a]][:, :, columns[b]]
            rows, cols = places[a][rows], places[b][cols]
            sort = np.lexsort((cols, rows))
            pairs[g, h] = PairBlock(
                np.ascontiguousarray(rows[sort], dtype=np.int32),
                np.ascontiguousarray(cols[sort], dtype=np.int32),
                np.ascontiguousarray(values[sort]),
            )
    basis = Basis(cross.basis.R, cross.basis.d, tuple(cross.basis.Rz[old] for old in terms))
    return replace(
        cross, basis=basis, blocks=BlockSystem(tuple(blocks), pairs), layout=layout, levels=None,
        matrices=matrices,
    )  # fmt: skip


def with_levels(
    blocks: BlockSystem, places: Sequence[IntVector], sizes: Sequence[int]
) -> BlockSystem:
    """Return blocks with more levels, those that no row has of zeros.

    Parameters
    ----------
    places : per factor, the place (n_levels,) of every level among the `sizes` new ones.
    """
    factors = []
    for f, at, size in zip(blocks.factors, places, sizes, strict=True):
        ztz, ztx = np.zeros((size, *f.ztz.shape[1:])), np.zeros((size, *f.ztx.shape[1:]))
        ztz[at], ztx[at] = f.ztz, f.ztx
        factors.append(FactorBlock(f.label, ztz, ztx))
    pairs = {}
    for (g, h), pair in blocks.pairs.items():
        rows, cols = places[g][pair.rows], places[h][pair.cols]
        sort = np.lexsort((cols, rows))
        pairs[g, h] = PairBlock(rows[sort], cols[sort], np.ascontiguousarray(pair.values[sort]))
    return BlockSystem(tuple(factors), pairs)


def settled(cross: CrossProducts, matrices: ModelMatrices) -> CrossProducts:
    """Return products in the basis that `find_basis` gives for all their rows."""
    old = cross.basis
    P = cross.R.shape[0]
    M = np.zeros((P, P))
    M[:-1, :-1] = old.R
    M[:-1, -1] = old.R @ old.d
    M[-1, -1] = 1.0
    R, d = regular_basis(np.triu(cross.R @ M))
    Rz = []
    for t, (place, term) in enumerate(zip(cross.layout, matrices.terms, strict=True)):
        blocks = cross.blocks.factors[place.factor].ztz[:, place.columns, place.columns]
        columns = _root(blocks.sum(axis=0)) @ old.Rz[t]
        Rz.append(term_basis(columns / np.sqrt(cross.n), term.template.closed_under))
    return in_basis(cross, Basis(R=R, d=d, Rz=tuple(Rz)))


def _root(gram: Matrix) -> Matrix:
    """Return a matrix with the given Gram matrix (k, k), which may be singular."""
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    scale = np.where(lengths > 0.0, lengths, 1.0)
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    out: Matrix = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * scale
    return out
