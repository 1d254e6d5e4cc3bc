"""C = Lambda' Z'WZ Lambda + I as a sparse matrix: blocks in, blocks out, over a fixed pattern.

With known covariances of levels the constant part is Q (x) I in the place of I: its pattern joins
that of Z'WZ, its values are written first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.engines.interface import (
    BlockSystem,
    Penalties,
    SelectedInverse,
    require_same_pattern,
)
from mixlm_sparse.engines.multifrontal.elimination import lower_pattern, predicted_fill
from mixlm_sparse.engines.multifrontal.ordering import clique_order

Positions = NDArray[np.int64]

# Up to this many cells a block's congruence is one matrix product with Lambda (x) Lambda; above,
# its K^4 multiply-adds cost more than the two products of K^3.
KRONECKER_CELLS = 36
# Levels that meet more others than this multiple of the root of their number may go last.
MANY_MET_FACTOR = 10.0
# A known precision with more entries than this share of all is dense.
DENSE_SHARE = 0.25


class BlockPattern:
    """The lower triangle of C in CSC form and the place of every block in it.

    Parameters
    ----------
    system : Z'WZ in blocks.
    penalties : per factor what stands in the place of the identity, or None; () for none.

    Attributes
    ----------
    matrix : (q, q) CSC, lower triangle, both sorted and with its whole diagonal; `values` writes
        into its data.
    """

    def __init__(self, system: BlockSystem, penalties: Penalties = ()) -> None:
        self.system = system
        self.penalties = tuple(penalties)
        widths = [f.width for f in system.factors]
        sizes = [f.n_levels * f.width for f in system.factors]
        self.offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        self.q = int(self.offsets[-1])
        rows: list[Positions] = []
        cols: list[Positions] = []
        for g, factor in enumerate(system.factors):
            a, b = np.tril_indices(widths[g])
            first = self.offsets[g] + np.arange(factor.n_levels, dtype=np.int64) * widths[g]
            rows.append((first[:, None] + a).ravel())
            cols.append((first[:, None] + b).ravel())
        self._pair_keys = sorted(system.pairs)
        for g, h in self._pair_keys:
            pair = system.pairs[g, h]
            # g < h, or the level of g the lower one: below the diagonal as (row of h, column of g)
            at_g = self.offsets[g] + pair.rows.astype(np.int64) * widths[g]
            at_h = self.offsets[h] + pair.cols.astype(np.int64) * widths[h]
            a, b = (index.ravel() for index in np.indices((widths[g], widths[h])))
            rows.append((at_h[:, None] + b).ravel())
            cols.append((at_g[:, None] + a).ravel())
        n_blocks = len(rows)
        constants: list[Vector] = []
        for g, penalty in enumerate(self.penalties):
            if penalty is not None:
                low = sp.tril(penalty.precision).tocoo()
                within = np.arange(widths[g])
                rows.append((self.offsets[g] + low.row[:, None] * widths[g] + within).ravel())
                cols.append((self.offsets[g] + low.col[:, None] * widths[g] + within).ravel())
                constants.append(np.repeat(low.data, widths[g]))
        row = np.concatenate(rows)
        col = np.concatenate(cols)
        ends = np.cumsum([r.size for r in rows])[:-1]
        # scatter[k]: where the entries of the k-th array of blocks lie in the data of `matrix`
        if constants:  # on the pattern of Z'WZ or beside it
            keys, place = np.unique(col * self.q + row, return_inverse=True)
            row, col = keys % self.q, keys // self.q
            order = np.arange(row.size)
        else:
            order = np.lexsort((row, col))
            place = np.empty(row.size, dtype=np.int64)
            place[order] = np.arange(row.size)
        scatter = np.split(place, ends)
        self._scatter = scatter[:n_blocks]
        counts = np.bincount(col, minlength=self.q)
        indices = row[order]
        indptr = np.concatenate(([0], np.cumsum(counts)))
        if max(row.size, self.q) < 2**31:
            indices, indptr = indices.astype(np.int32), indptr.astype(np.int32)
        self.matrix = sp.csc_array((np.zeros(row.size), indices, indptr), shape=(self.q, self.q))
        self._diagonal = self.matrix.indptr[:-1]
        self._constant = self._penalty_at(scatter[n_blocks:], constants, row.size)
        self.log_penalty = sum(
            penalty.log_det * widths[g]
            for g, penalty in enumerate(self.penalties)
            if penalty is not None
        )

    def _penalty_at(
        self, places: Sequence[Positions], precisions: Sequence[Vector], size: int
    ) -> Vector | None:
        """Return what is added to the data of `matrix`; None where that is the identity."""
        if not precisions:
            return None
        out = np.zeros(size)
        for g in range(len(self.system.factors)):
            if g >= len(self.penalties) or self.penalties[g] is None:
                own = slice(int(self.offsets[g]), int(self.offsets[g + 1]))
                out[self._diagonal[own]] = 1.0
        for where, value in zip(places, precisions, strict=True):
            out[where] = value
        return out

    def reload(self, system: BlockSystem) -> BlockPattern:
        """Return the pattern with the numbers of another system; they must fit."""
        require_same_pattern(self.system, system)
        twin = copy.copy(self)
        twin.system = system
        old = self.matrix
        twin.matrix = sp.csc_array((np.ones_like(old.data), old.indices, old.indptr), old.shape)
        return twin

    def elimination_order(self) -> IntVector:
        """Return a fill-reducing order of the q columns, found on the graph of the levels."""
        factors = self.system.factors
        levels = np.concatenate(([0], np.cumsum([f.n_levels for f in factors])))
        largest = int(np.argmax(np.diff(levels)))
        if self._constant is None and (largest, largest) not in self.system.pairs:
            order = _level_order(self.system, levels)
        else:
            order = _penalized_order(self.system, self.penalties, levels)
        width = np.repeat([f.width for f in factors], [f.n_levels for f in factors])
        first = np.concatenate(([0], np.cumsum(width)))[:-1]
        ordered = width[order]
        start = np.repeat(first[order], ordered)
        within = np.arange(self.q) - np.repeat(np.cumsum(ordered) - ordered, ordered)
        out: IntVector = (start + within).astype(np.int32)
        return out

    def values(self, lambdas: Sequence[Matrix]) -> Vector:
        """Write C into the data of `matrix` and return them: (nnz,).

        Parameters
        ----------
        lambdas : per factor, (K, K); any square matrix.
        """
        data: Vector = self.matrix.data
        constant = self._constant
        if constant is not None:
            data[:] = constant
        k = 0
        for factor, Lambda in zip(self.system.factors, lambdas, strict=True):
            a, b = np.tril_indices(factor.width)
            self._write(k, _congruence(Lambda, factor.ztz, Lambda, a, b).ravel())
            k += 1
        for g, h in self._pair_keys:
            blocks = self.system.pairs[g, h].values
            a, b = (index.ravel() for index in np.indices(blocks.shape[1:]))
            self._write(k, _congruence(lambdas[g], blocks, lambdas[h], a, b).ravel())
            k += 1
        if constant is None:
            data[self._diagonal] += 1.0
        return data

    def _write(self, k: int, values: Vector) -> None:
        """Put the k-th array of blocks in its place, on top of what is constant there."""
        if self._constant is None:
            self.matrix.data[self._scatter[k]] = values
        else:
            self.matrix.data[self._scatter[k]] += values

    def blocks(self, entries: Vector) -> SelectedInverse:
        """Gather the blocks of a symmetric matrix from its entries on the pattern: (nnz,)."""
        diag: list[Array3] = []
        for k, factor in enumerate(self.system.factors):
            K = factor.width
            a, b = np.tril_indices(K)
            low = entries[self._scatter[k]].reshape(factor.n_levels, a.size)
            block = np.empty((factor.n_levels, K, K))
            block[:, a, b] = low
            block[:, b, a] = low
            diag.append(block)
        pairs: dict[tuple[int, int], Array3] = {}
        for k, key in enumerate(self._pair_keys, start=len(diag)):
            pairs[key] = entries[self._scatter[k]].reshape(self.system.pairs[key].values.shape)
        return SelectedInverse(diag, pairs)

    def stack(self, rhs: Sequence[Array3]) -> Matrix:
        """Return the right-hand sides (L, K, m) of all factors as one matrix (q, m)."""
        return np.concatenate([r.reshape(r.shape[0] * r.shape[1], r.shape[2]) for r in rhs])

    def unstack(self, x: Matrix) -> list[Array3]:
        """Return (q, m) as one array (L, K, m) per factor."""
        return [
            np.ascontiguousarray(x[lo:hi]).reshape(f.n_levels, f.width, x.shape[1])
            for f, lo, hi in zip(
                self.system.factors, self.offsets[:-1], self.offsets[1:], strict=True
            )
        ]


def _penalized_order(
    system: BlockSystem, penalties: Penalties, levels: Positions
) -> IntVector:
    """Order the levels of all factors where levels of one are tied to each other.

    The rows of a root of Q are cliques of levels, and pairs that meet are edges.  Levels of a
    dense Q go last, in their order: whatever else is done, they fill in with each other.
    """
    total = int(levels[-1])
    cliques: list[Positions] = []
    members: list[Positions] = []
    count = 0
    last: list[Positions] = []
    for g, penalty in enumerate(penalties):
        if penalty is None:
            continue
        n = int(levels[g + 1] - levels[g])
        if penalty.precision.nnz > DENSE_SHARE * n * n:
            last.append(np.arange(levels[g], levels[g + 1]))
            continue
        root = penalty.root.tocoo()
        cliques.append(root.row.astype(np.int64) + count)
        members.append(root.col.astype(np.int64) + levels[g])
        count += n
    at_end = np.zeros(total, dtype=bool)
    for own in last:
        at_end[own] = True
    for (g, h), pair in system.pairs.items():
        row, col = levels[g] + pair.rows, levels[h] + pair.cols
        free = ~(at_end[row] | at_end[col])
        edge = np.arange(int(free.sum())) + count
        cliques += [edge, edge]
        members += [row[free], col[free]]
        count += edge.size
    nothing = np.empty(0, dtype=np.int64)
    order = clique_order(
        np.concatenate([nothing, *cliques]), np.concatenate([nothing, *members]), total
    )
    return np.concatenate([order[~at_end[order]], *last]).astype(np.int32)


def _level_order(system: BlockSystem, levels: Positions) -> IntVector:
    """Order the levels of all factors; those of factor g are numbered from `levels[g]` on.

    The levels of the largest factor do not meet each other: they go first, and each leaves a clique
    of the levels that it meets.  One that meets very many would fill in what is left of the others;
    such levels go last if that is cheaper.
    """
    total = int(levels[-1])
    largest = int(np.argmax(np.diff(levels)))
    lo, hi = int(levels[largest]), int(levels[largest + 1])
    row, col = (
        np.concatenate([np.empty(0, dtype=np.int64), *parts])
        for parts in (
            [levels[h] + pair.cols for (_, h), pair in system.pairs.items()],
            [levels[g] + pair.rows for (g, _), pair in system.pairs.items()],
        )
    )
    from_row = (row >= lo) & (row < hi)
    row, col = np.where(from_row, col, row), np.where(from_row, row, col)
    of_largest = (col >= lo) & (col < hi)
    edge = np.arange(np.count_nonzero(~of_largest)) + (hi - lo)
    clique = np.concatenate((col[of_largest] - lo, edge, edge))
    member = np.concatenate((row[of_largest], row[~of_largest], col[~of_largest]))
    member = np.where(member >= hi, member - (hi - lo), member)

    def ordered(kept: Positions, last: Positions) -> IntVector:
        used = np.ones(hi - lo + edge.size, dtype=bool)
        used[last] = False
        entries = used[clique]
        rest = clique_order(clique[entries], member[entries], total - (hi - lo))
        rest = np.where(rest >= lo, rest + (hi - lo), rest)
        return np.concatenate((lo + kept, rest, lo + last)).astype(np.int32)

    met = np.bincount(col[of_largest] - lo, minlength=hi - lo)
    all_first = ordered(np.arange(hi - lo), np.empty(0, dtype=np.int64))
    many = met > max(16.0, MANY_MET_FACTOR * np.sqrt(total))
    if not many.any():
        return all_first
    some_last = ordered(np.flatnonzero(~many), np.flatnonzero(many))
    graph = lower_pattern(row, col, total)
    cheaper = predicted_fill(graph, some_last).flops < predicted_fill(graph, all_first).flops
    return some_last if cheaper else all_first


def _congruence(left: Matrix, blocks: Array3, right: Matrix, a: Positions, b: Positions) -> Matrix:
    """Return entries (a, b) of left' block right for each block: (n, a.size)."""
    n, Kg, Kh = blocks.shape
    if Kg * Kh == 1:
        scaled: Matrix = blocks.reshape(n, 1) * (left[0, 0] * right[0, 0])
        return scaled
    if Kg * Kh <= KRONECKER_CELLS:
        # (left' B right)[a, b] = sum_cd left[c, a] B[c, d] right[d, b]
        columns = (left[:, None, a] * right[None, :, b]).reshape(Kg * Kh, a.size)
        product: Matrix = blocks.reshape(n, Kg * Kh) @ columns
        return product
    half = blocks.reshape(n * Kg, Kh) @ right
    full: Array3 = np.matmul(left.T, half.reshape(n, Kg, Kh))
    picked: Matrix = full[:, a, b]
    return picked
