"""Products of rows that come in batches, whose levels are met in any order.

The basis is found on the first batch and is as good for all rows as needed: a column is shifted by
its regression on earlier columns there, so that what is left is at most sqrt(n / n_first) times its
own spread.  When all rows are in, products go over to the basis of all rows by exact linear maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.columns import LevelEntries, SparseColumns
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.engines.keys import KeyMap
from mixlm_sparse.solve.products.accumulate import (
    CrossProducts,
    fill_upper,
    merged_columns,
    semidefinite_cholesky,
)
from mixlm_sparse.solve.products.basis import (
    Basis,
    find_basis,
    response_less,
    stack_qr,
    term_layout,
    triangular_inverse,
)
from mixlm_sparse.solve.products.meetings import entries_of
from mixlm_sparse.solve.products.wide import (
    Filled,
    WideRows,
    filled_part,
    keeps_digits,
    wide_basis,
)
from mixlm_sparse.solve.rows import BLOCK_ROWS, NUMPY_BLOCK_ROWS, InMemory, RowBlock

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["BatchSums", "DigitsLostError", "Pairs", "sums_from", "sums_of"]

PAIR = np.int64(2**32)
# A column of which earlier ones leave less than this share of its length loses digits by squaring.
GRAM_LEAST = 1e-3


class DigitsLostError(DataError):
    """Sums of squares of sparse columns say too little of those that are nearly dependent."""


def sums_from(
    matrices: ModelMatrices, rows: InMemory, pairs: Pairs, count: int, *, wide: bool = True
) -> list[BatchSums]:
    """Return sums of no rows yet, some for each thread, in a basis found on the first rows.

    Parameters
    ----------
    pairs : codes of pairs of levels, shared by all sums.
    wide : leave the columns of a wide, sparse fixed part as they are; without it they are filled
        in, and turned where they are nearly dependent.
    """
    filled = filled_part(matrices, rows) if wide else None
    if filled is None:
        basis = find_basis(matrices, rows.blocks(size=BLOCK_ROWS), rows.n)
        return [BatchSums(matrices, basis, pairs) for _ in range(count)]
    basis = wide_basis(matrices, rows, filled)
    return [WideBatchSums(matrices, basis, pairs, filled) for _ in range(count)]


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
        self._Bz = [triangular_inverse(R) for R in basis.Rz]
        P = self._P = basis.R.shape[0] + 1
        self.ztz = [np.zeros((0, K, K)) for K in self._widths]
        self.ztx = [np.zeros((0, K, P)) for K in self._widths]
        self.pair_values = {
            (g, h): np.zeros((0, self._widths[g], self._widths[h])) for g, h in pairs.maps
        }

    @cached_property
    def _B(self) -> Matrix:
        return triangular_inverse(self.basis.R)

    def _opened(
        self, source: InMemory, sizes: Sequence[int], P: int
    ) -> tuple[bool, dict[tuple[int, int], IntVector]]:
        """Make room for all levels; return whether machine code pays, and the codes of pairs.

        Parameters
        ----------
        P : columns beside those of the random effects.
        """
        widths = self._widths
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
        return compiled, pair_codes

    def _add_levels(
        self,
        rows: RowBlock,
        weighted: Matrix,
        ztx: list[Array3],
        pair_codes: dict[tuple[int, int], IntVector],
        *,
        compiled: bool,
    ) -> list[Matrix]:
        """Add z'W[z, columns] by level, with the columns `weighted` (m, P); return z~ by factor."""
        self.log_weight_sum += rows.log_weight_sum
        Z = merged_columns(rows, self.layout, self._widths, self._Bz)
        WZ = [rows.weighted(z) for z in Z]
        for g, z in enumerate(Z):
            D = np.hstack([WZ[g], weighted])
            kernels.add_group_products(
                rows.codes(g), z, D, self.ztz[g], ztx[g], compiled=compiled
            )
        for (g, h), values in self.pair_values.items():
            kernels.add_pair_products(
                pair_codes[g, h][rows.slice], Z[g], WZ[h], values, compiled=compiled
            )
        return Z

    def add(self, source: InMemory, sizes: Sequence[int]) -> None:
        """Add the rows of a batch.

        Parameters
        ----------
        sizes : number of levels of each factor known by now; more than any code of these rows.
        """
        P = self._P
        compiled, pair_codes = self._opened(source, sizes, P)
        gram = np.zeros((P, P))
        block_rows = BLOCK_ROWS if compiled else NUMPY_BLOCK_ROWS
        for rows in source.blocks(size=block_rows):
            block = self._block(rows)
            weighted = rows.weighted(block)
            gram += block.T @ weighted
            self._add_levels(rows, weighted, self.ztx, pair_codes, compiled=compiled)
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
        block[:, -1] = response_less(rows.target, X, self.basis.d)
        return block


class WideBatchSums(BatchSums):
    """The same of a wide fixed part, whose sparse columns are never filled in (see `wide`).

    Parameters
    ----------
    filled : places of the filled columns.
    """

    def __init__(
        self, matrices: ModelMatrices, basis: Basis, pairs: Pairs, filled: Filled
    ) -> None:
        super().__init__(matrices, basis, pairs)
        self.wide = WideRows(basis, filled)
        # beside the filled columns alone
        self.ztx = [np.zeros((0, K, filled.size + 1)) for K in self._widths]
        self._sparse = [LevelEntries(K, self.wide.sparse.size) for K in self._widths]

    def add(self, source: InMemory, sizes: Sequence[int]) -> None:
        """Add the rows of a batch."""
        wide = self.wide
        compiled, pair_codes = self._opened(source, sizes, wide.filled.size + 1)
        for sums, size in zip(self._sparse, sizes, strict=True):
            sums.grow(size)
        for rows in source.blocks(size=NUMPY_BLOCK_ROWS):
            E, WS = wide.block(rows)
            weighted = rows.weighted(E)
            Z = self._add_levels(rows, weighted, self.ztx, pair_codes, compiled=compiled)
            for g, (z, size) in enumerate(zip(Z, sizes, strict=True)):
                self._sparse[g].add(wide.by_level(entries_of(rows.codes(g)), z, WS, size))
        self.n += source.n

    @staticmethod
    def joint_columns(parts: Sequence[WideBatchSums], g: int, size: int) -> SparseColumns:
        """Return Z'W[X~ y~] of factor g of all parts, with its entries alone."""
        every = [part._sparse[g].total(size) for part in parts]
        of_filled = _added([part.ztx[g] for part in parts], size)
        found = sum(every[1:], start=every[0])
        return parts[0].wide.joined(of_filled, sp.csr_array(found))

    @staticmethod
    def joint_factor(parts: Sequence[WideBatchSums]) -> Matrix:
        """Return the factor of [X~ y~]'W[X~ y~] of all parts.

        Raises
        ------
        DigitsLostError : columns are nearly combinations of others.
        """
        whole = parts[0].wide
        for part in parts[1:]:
            whole.add(part.wide)
        R = whole.factor()
        if not keeps_digits(R):
            raise DigitsLostError(
                "a column of the fixed part is so nearly a combination of others that sums over "
                "batches lose its digits, and the data cannot be read again to turn it: give a "
                "file, or a function that returns the iterator anew, or center numbers (for "
                "example I(x - 2000))"
            )
        return R


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


def _stacked(parts: Sequence[BatchSums]) -> Matrix:
    R: Matrix | None = None
    for part in parts:
        if part.R is not None:
            R = stack_qr(R, part.R)
    assert R is not None
    return R


def sums_of(parts: Sequence[BatchSums], sizes: Sequence[int], pairs: Pairs) -> CrossProducts:
    """Return the sum of all parts; levels are in the order in which they were met."""
    wide = [part for part in parts if isinstance(part, WideBatchSums)]
    R = WideBatchSums.joint_factor(wide) if wide else _stacked(parts)
    factors = []
    for g, size in enumerate(sizes):
        ztz = _added([part.ztz[g] for part in parts], size)
        fill_upper(ztz)
        ztx: Array3 | SparseColumns = (
            WideBatchSums.joint_columns(wide, g, size)
            if wide
            else _added([part.ztx[g] for part in parts], size)
        )
        factors.append(FactorBlock("", ztz, ztx))
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
