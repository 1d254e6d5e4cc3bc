"""Accumulators of products: filled by blocks of rows, added to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.design.grouping import MemberFactor
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.columns import SparseColumns
from mixlm_sparse.engines.dense import times
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock, summed_columns
from mixlm_sparse.solve.products.basis import (
    Basis,
    TermLayout,
    find_basis,
    response_less,
    stack_qr,
    term_layout,
    triangular_inverse,
)
from mixlm_sparse.solve.products.meetings import entries_of, find_meetings, pairs_of_entries
from mixlm_sparse.solve.rows import (
    BLOCK_ROWS,
    NUMPY_BLOCK_ROWS,
    InMemory,
    RowBlock,
    RowSource,
    every_level,
)

if TYPE_CHECKING:
    from mixlm_sparse.design.grouping import GroupingFactor
    from mixlm_sparse.design.matrices import ModelMatrices

PANEL = 128  # rows of a factor that are formed at a time


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """Products of all rows seen so far; a value that can be added to another.

    Parameters
    ----------
    basis : the basis that the products are formed in.
    n, log_weight_sum : rows seen; sum(log w), 0 without weights.
    R : (p + 1, p + 1) upper triangular factor of [X~ y~]'W[X~ y~].
    blocks : Z~'WZ~ and Z~'W[X~ y~] by level.
    layout : per term, its place in the merged blocks.
    levels : per factor, the labels of its levels; None as long as nothing was added.
    """

    basis: Basis
    n: int
    log_weight_sum: float
    R: Matrix
    blocks: BlockSystem
    layout: tuple[TermLayout, ...]
    levels: tuple[tuple[str, ...], ...] | None
    matrices: ModelMatrices | None = None

    def level_labels(self, factor: int) -> tuple[str, ...]:
        """Return the labels of a factor's levels, in the order of its blocks."""
        if self.levels is not None:
            return self.levels[factor]
        assert self.matrices is not None
        return tuple(self.matrices.factors[factor].levels)

    def update(self, batch: ModelMatrices) -> CrossProducts:
        """Return the products with the rows of `batch` added (same formula, same columns)."""
        return self + cross_products(batch, basis=self.basis)

    def __add__(self, other: CrossProducts) -> CrossProducts:
        return _merge(self, other)


def cross_products(
    matrices: ModelMatrices,
    *,
    source: RowSource | None = None,
    basis: Basis | None = None,
    compiled: bool | None = None,
) -> CrossProducts:
    """Form the products of the rows of a design.

    Parameters
    ----------
    matrices : the design: names, terms, levels.
    source : the rows, whose columns are evaluated by blocks; by default those of `matrices`.
    basis : the basis to use; by default one is found, which reads the rows twice.
    compiled : force the compiled kernels on or off.
    """
    if source is None:
        source = InMemory.of(matrices)
    n = source.n
    P = len(matrices.fixed.names) + 1
    layout = term_layout(matrices)
    widths = [0] * len(matrices.factors)
    for place in layout:
        widths[place.factor] += place.width
    if compiled is None:
        compiled = kernels.products_compiled(
            n * (P * P + sum(K * (K + P) + 8 * len(widths) for K in widths))
        )
    block_rows = BLOCK_ROWS if compiled else NUMPY_BLOCK_ROWS
    # columns of a few rows are evaluated once for both walks
    few = tuple(source.blocks(size=block_rows)) if n <= block_rows else None
    own_basis = basis is None
    if basis is None:
        basis = find_basis(matrices, few or source.blocks(size=block_rows), n)
    B = triangular_inverse(basis.R)
    Bz = [triangular_inverse(R) for R in basis.Rz]
    for place, term_inverse in zip(layout, Bz, strict=True):
        if term_inverse.shape[0] != place.width:
            raise DataError("the basis belongs to a model with other random-effects columns")

    sums = LevelSums(matrices.factors, source, widths, P, compiled=compiled)
    gram = np.zeros((P, P))
    stacked: Matrix | None = None
    log_weight_sum = 0.0
    for rows in few or source.blocks(size=block_rows):
        block = np.empty((len(rows), P))
        np.matmul(rows.X, B, out=block[:, :-1])
        block[:, -1] = response_less(rows.target, rows.X, basis.d)
        weighted = rows.weighted(block)
        log_weight_sum += rows.log_weight_sum
        if own_basis:
            gram += block.T @ weighted
        else:
            stacked = stack_qr(stacked, rows.root_weighted(block))
        sums.add(rows, merged_columns(rows, layout, widths, Bz), weighted)
    R = semidefinite_cholesky(gram) if own_basis else stacked
    assert R is not None
    return CrossProducts(
        basis=basis,
        n=n,
        log_weight_sum=log_weight_sum,
        R=R,
        blocks=sums.blocks(),
        layout=layout,
        levels=None,
        matrices=matrices,
    )


class LevelSums:
    """Z~'WZ~ and Z~'W[X~ y~] by level, and by pair of levels that occur together."""

    def __init__(
        self,
        factors: Sequence[GroupingFactor],
        source: RowSource,
        widths: Sequence[int],
        P: int,
        *,
        compiled: bool,
    ) -> None:
        self._factors = factors
        self._compiled = compiled
        self._ztz = [np.zeros((f.n_levels, K, K)) for f, K in zip(factors, widths, strict=True)]
        self._ztx = [np.zeros((f.n_levels, K, P)) for f, K in zip(factors, widths, strict=True)]
        several = any(isinstance(f, MemberFactor) for f in factors)
        levels = every_level(source, len(factors)) if len(factors) > 1 or several else []
        sizes = [f.n_levels for f in factors]
        self._meetings = find_meetings(levels, sizes)
        self._pair_values: dict[tuple[int, int], Array3] = {
            (g, h): np.zeros((meeting.rows.size, widths[g], widths[h]))
            for (g, h), meeting in self._meetings.items()
        }
        # pairs of entries of the rows that were added: blocks come in order
        self._done = dict.fromkeys(self._meetings, 0)

    def add(self, rows: RowBlock, Z: list[Matrix], weighted: Matrix) -> None:
        """Add a block of rows: z~ of each factor (m, K), and W[X~ y~] (m, P)."""
        entries = [entries_of(rows.levels(g)) for g in range(len(Z))]
        WZ = [own.columns(rows.weighted(z)) for own, z in zip(entries, Z, strict=True)]
        Z = [own.columns(z) for own, z in zip(entries, Z, strict=True)]
        for g, (ztz, ztx) in enumerate(zip(self._ztz, self._ztx, strict=True)):
            D = np.concatenate((WZ[g], entries[g].of_rows(weighted)), axis=1)
            kernels.add_group_products(
                entries[g].level, Z[g], D, ztz, ztx, compiled=self._compiled
            )
        for (g, h), values in self._pair_values.items():
            pairs = pairs_of_entries(entries[g], None if g == h else entries[h])
            left, right = Z[g], WZ[h]
            if pairs is not None:
                left, right = left[pairs[0]], right[pairs[1]]
            done = self._done[g, h]
            self._done[g, h] = done + len(left)
            index = self._meetings[g, h].index[done : done + len(left)]
            kernels.add_pair_products(index, left, right, values, compiled=self._compiled)

    def blocks(self) -> BlockSystem:
        """Return the sums."""
        for blocks in self._ztz:
            fill_upper(blocks)
        return BlockSystem(
            factors=tuple(
                FactorBlock(f.label, zz, zx)
                for f, zz, zx in zip(self._factors, self._ztz, self._ztx, strict=True)
            ),
            pairs={
                key: PairBlock(self._meetings[key].rows, self._meetings[key].cols, values)
                for key, values in self._pair_values.items()
            },
        )


def merged_columns(
    rows: RowBlock, layout: Sequence[TermLayout], widths: Sequence[int], Bz: Sequence[Matrix]
) -> list[Matrix]:
    """Return z~ of each grouping factor, (m, K)."""
    out: list[Matrix | None] = [None] * len(widths)
    for t, (place, inverse) in enumerate(zip(layout, Bz, strict=True)):
        z = rows.z(t)
        if place.width > 1:
            z = z @ inverse
        elif inverse[0, 0] != 1.0:
            z = z * inverse[0, 0]
        if place.width == widths[place.factor]:
            out[place.factor] = np.ascontiguousarray(z)
            continue
        merged = out[place.factor]
        if merged is None:
            merged = out[place.factor] = np.empty((z.shape[0], widths[place.factor]))
        merged[:, place.columns] = z
    return [z for z in out if z is not None]


def fill_upper(blocks: Array3) -> None:
    """Mirror the lower triangle of each block (L, K, K)."""
    K = blocks.shape[1]
    for a in range(K):
        for b in range(a):
            blocks[:, b, a] = blocks[:, a, b]


def semidefinite_cholesky(gram: Matrix, *, least: float = 1e-30) -> Matrix:
    """Return upper triangular R with R'R = gram; a direction without length gets a zero row.

    The Gram matrix is formed in an orthonormal basis, so nothing is lost by squaring.

    Parameters
    ----------
    least : pivots below this share of their diagonal are none: what rounding leaves of the columns
        that are combinations of others, where these have no orthonormal basis.
    """
    P = gram.shape[0]
    own = np.maximum(gram.diagonal(), 1e-300)
    lower, info = scipy.linalg.lapack.dpotrf(gram, lower=1, clean=1)
    R: Matrix = lower.T
    if info == 0 and (R.diagonal() ** 2 > least * own).all():
        return R
    R = np.zeros((P, P))
    rest = gram.copy()
    for start in range(0, P, PANEL):
        stop = min(start + PANEL, P)
        panel = rest[start:stop, start:stop]
        said = np.ones(stop - start, dtype=bool)
        for j in range(stop - start):
            pivot = panel[j, j]
            if pivot <= least * own[start + j]:
                said[j] = False
                continue
            row = panel[j, j:] / np.sqrt(pivot)
            R[start + j, start + j : stop] = row
            panel[j:, j:] -= np.outer(row, row)
        if stop < P and said.any():
            at = start + np.flatnonzero(said)
            T = R[np.ix_(at, at)]
            right = scipy.linalg.solve_triangular(T, rest[at, stop:], trans="T")
            R[at, stop:] = right
            rest[stop:, stop:] -= right.T @ right
    return R


def _merge(a: CrossProducts, b: CrossProducts) -> CrossProducts:
    if a.layout != b.layout or a.R.shape != b.R.shape:
        raise DataError(
            "products of two different models cannot be added: use the same formula, the same "
            "contrasts and the same factor levels in the fixed part for every batch"
        )
    levels: list[tuple[str, ...]] = []
    places: list[IntVector] = []
    for g in range(len(a.blocks.factors)):
        known = {label: i for i, label in enumerate(a.level_labels(g))}
        place = [known.setdefault(label, len(known)) for label in b.level_labels(g)]
        levels.append(tuple(known))
        places.append(np.array(place, dtype=np.int32))
    own = [np.arange(f.n_levels, dtype=np.int32) for f in a.blocks.factors]
    return replace(
        merged_at(a, b, own, places, [len(known) for known in levels]), levels=tuple(levels)
    )


def merged_at(
    a: CrossProducts,
    b: CrossProducts,
    places_a: Sequence[IntVector],
    places_b: Sequence[IntVector],
    sizes: Sequence[int],
) -> CrossProducts:
    """Return the sum of two products of one layout, in the basis of the one with more rows.

    Parameters
    ----------
    places_a, places_b : per factor, the place of each level in the sum.
    sizes : numbers of levels of the sum.
    """
    basis = a.basis if a.n >= b.n else b.basis
    a, b = in_basis(a, basis), in_basis(b, basis)
    factors = []
    for fa, fb, at_a, at_b, size in zip(
        a.blocks.factors, b.blocks.factors, places_a, places_b, sizes, strict=True
    ):
        ztz = np.zeros((size, *fa.ztz.shape[1:]))
        ztz[at_a] = fa.ztz
        ztz[at_b] += fb.ztz
        factors.append(FactorBlock(fa.label, ztz, summed_columns(fa, at_a, fb, at_b, size)))
    pairs = {}
    for (g, h), pa in a.blocks.pairs.items():
        if g == h:
            raise DataError(
                f"products of a membership of '{a.blocks.factors[g].label}' cannot be added: give "
                "all rows at once"
            )
        pb = b.blocks.pairs[g, h]
        n_h = sizes[h]
        key_a = places_a[g][pa.rows].astype(np.int64) * n_h + places_a[h][pa.cols]
        key_b = places_b[g][pb.rows].astype(np.int64) * n_h + places_b[h][pb.cols]
        distinct = np.union1d(key_a, key_b)
        values = np.zeros((distinct.size, *pa.values.shape[1:]))
        values[np.searchsorted(distinct, key_a)] = pa.values
        values[np.searchsorted(distinct, key_b)] += pb.values
        pairs[g, h] = PairBlock(
            (distinct // n_h).astype(np.int32), (distinct % n_h).astype(np.int32), values
        )
    return CrossProducts(
        basis=basis,
        n=a.n + b.n,
        log_weight_sum=a.log_weight_sum + b.log_weight_sum,
        R=stack_qr(a.R, b.R),
        blocks=BlockSystem(tuple(factors), pairs),
        layout=a.layout,
        levels=None,
    )


def _columns_in(f: FactorBlock, A: Matrix, M: Matrix | None) -> Array3 | SparseColumns:
    """Return A'Z'W[X y] M of every level."""
    if f.sparse is not None and M is None:
        return f.sparse.turned(A)
    turned = np.matmul(A.T, f.ztx)
    return turned if M is None else times(turned, M)


def in_basis(products: CrossProducts, basis: Basis) -> CrossProducts:
    """Express products in another basis; exact linear maps, nothing is read again."""
    old = products.basis
    if old is basis:
        return products
    P = products.R.shape[0]
    # X~_new = X R_new^{-1} = X~_old (R_old R_new^{-1})
    # y~_new = y~_old + X~_old R_old (d_old - d_new)
    M: Matrix | None = None
    if basis.R is not old.R or basis.d is not old.d:
        M = np.eye(P)
        M[:-1, :-1] = old.R @ triangular_inverse(basis.R) if P > 1 else M[:-1, :-1]
        M[:-1, -1] = old.R @ (old.d - basis.d)
    N = [Ro @ triangular_inverse(Rn) for Ro, Rn in zip(old.Rz, basis.Rz, strict=True)]
    maps = [np.zeros((f.width, f.width)) for f in products.blocks.factors]
    for place, block in zip(products.layout, N, strict=True):
        maps[place.factor][place.columns, place.columns] = block
    factors = tuple(
        FactorBlock(
            f.label,
            np.matmul(np.matmul(A.T, f.ztz), A),
            _columns_in(f, A, M),
        )
        for f, A in zip(products.blocks.factors, maps, strict=True)
    )
    pairs = {
        (g, h): PairBlock(
            pair.rows, pair.cols, np.matmul(np.matmul(maps[g].T, pair.values), maps[h])
        )
        for (g, h), pair in products.blocks.pairs.items()
    }
    return replace(
        products,
        basis=basis,
        R=products.R if M is None else np.asarray(np.linalg.qr(products.R @ M, mode="r")),
        blocks=BlockSystem(factors, pairs),
    )
