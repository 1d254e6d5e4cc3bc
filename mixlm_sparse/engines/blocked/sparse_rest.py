"""The Schur complement as a sparse matrix, where its predicted fill makes that cheaper."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.engines.blocked.rest import Adjacency, RestFactor
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.interface import BlockSystem, PairBlock
from mixlm_sparse.engines.multifrontal.cholesky import SparseCholesky
from mixlm_sparse.engines.multifrontal.elimination import lower_pattern, predicted_fill
from mixlm_sparse.engines.multifrontal.ordering import clique_order

# Sparse is chosen if its predicted work is below this share of the dense one: it runs at a lower
# rate, and its bookkeeping is not in the count.
SPARSE_SHARE = 0.15
# Below this order dense is always right.
SPARSE_FROM = 400
# More pairs of columns than this share of all are not worth the symbolic analysis.
CLIQUE_SHARE = 0.15


@njit
def _rank_update_at(ptr, position, W, values):  # type: ignore[no-untyped-def]
    n_levels = ptr.shape[0] - 1
    K = W.shape[1]
    t = 0
    for j in range(n_levels):
        for e in range(ptr[j], ptr[j + 1]):
            for f in range(ptr[j], e + 1):
                s = 0.0
                for a in range(K):
                    s += W[e, a] * W[f, a]
                values[position[t]] -= s
                t += 1


@njit
def _times_inverse_at(ptr, position, E, values, out):  # type: ignore[no-untyped-def]
    n_levels = ptr.shape[0] - 1
    K = E.shape[1]
    t = 0
    for j in range(n_levels):
        for e in range(ptr[j], ptr[j + 1]):
            for f in range(ptr[j], e + 1):
                p = values[position[t]]
                t += 1
                for a in range(K):
                    out[e, a] += E[f, a] * p
                    if f != e:
                        out[f, a] += E[e, a] * p


class SparseRest:
    """S on a fixed sparse pattern: what the rest's own products and the eliminated levels touch."""

    def __init__(
        self,
        system: BlockSystem,
        factors: Sequence[RestFactor],
        pairs: dict[tuple[int, int], PairBlock],
        adjacency: Sequence[Adjacency],
        cliques: Sequence[tuple[IntVector, IntVector]],
        cholesky: SparseCholesky,
        locate: Callable[[IntVector, IntVector], np.ndarray],
        *,
        flops: float,
        compiled: bool,
    ) -> None:
        self.work = 3.0 * flops
        self.fill = cholesky.tree.nnz
        self._system = system
        self._factors = factors
        self._pairs = pairs
        self._adjacency = adjacency
        self._compiled = compiled
        self._cholesky = cholesky
        self.order = sum(r.n_levels * r.width for r in factors)
        self._cliques = cliques
        self._clique_place = [
            locate(at.cols[e], at.cols[f]) for at, (e, f) in zip(adjacency, cliques, strict=True)
        ]
        self._diagonal_place = []
        self._pair_place = {}
        for a, r in enumerate(factors):
            at = r.block_columns(np.arange(r.n_levels, dtype=np.int32))
            shape = (r.n_levels, r.width, r.width)
            self._diagonal_place.append(
                locate(
                    np.broadcast_to(at[:, :, None], shape), np.broadcast_to(at[:, None, :], shape)
                )
            )
            for b in range(a + 1, len(factors)):
                pair = pairs[a, b]
                rows = r.block_columns(pair.rows)
                cols = factors[b].block_columns(pair.cols)
                shape = pair.values.shape
                self._pair_place[a, b] = locate(
                    np.broadcast_to(rows[:, :, None], shape),
                    np.broadcast_to(cols[:, None, :], shape),
                )
        diagonal = np.arange(self.order, dtype=np.int32)
        self._unit_place = locate(diagonal, diagonal)
        self._values = np.zeros(self._unit_place[-1] + 1)
        self._inverse: Vector | None = None

    def reload(self, system: BlockSystem, pairs: dict[tuple[int, int], PairBlock]) -> SparseRest:
        twin = copy.copy(self)
        twin._system, twin._pairs = system, pairs
        twin._cholesky = self._cholesky.twin()
        twin._values = np.zeros_like(self._values)
        twin._inverse = None
        return twin

    def set(self, lambdas: Sequence[Matrix]) -> None:
        values = self._values
        values.fill(0.0)
        self._inverse = None
        for a, (r, lam) in enumerate(zip(self._factors, lambdas, strict=True)):
            ztz = self._system.factors[r.index].ztz
            values[self._diagonal_place[a]] = np.matmul(np.matmul(lam.T, ztz), lam)
            for b in range(a + 1, len(self._factors)):
                block = np.matmul(np.matmul(lam.T, self._pairs[a, b].values), lambdas[b])
                values[self._pair_place[a, b]] = block
        values[self._unit_place] += 1.0

    def downdate(self, slot: int, W: Matrix) -> None:
        place = self._clique_place[slot]
        if self._compiled:
            _rank_update_at(self._adjacency[slot].ptr, place, W, self._values)
            return
        e, f = self._cliques[slot]
        update = np.einsum("ta,ta->t", W[e], W[f])
        self._values -= np.bincount(place, weights=update, minlength=self._values.size)

    def factorize(self) -> float:
        self._cholesky.factorize(self._values)
        return self._cholesky.logdet

    def solve(self, rhs: Matrix) -> Matrix:
        return self._cholesky.solve(rhs)

    def invert(self) -> None:
        if self._inverse is None:
            self._inverse = self._cholesky.selected_inverse_on_pattern()

    def times_inverse(self, slot: int, E: Matrix) -> Matrix:
        assert self._inverse is not None
        place = self._clique_place[slot]
        out = np.zeros_like(E)
        if self._compiled:
            _times_inverse_at(self._adjacency[slot].ptr, place, E, self._inverse, out)
            return out
        e, f = self._cliques[slot]
        p = self._inverse[place]
        off = e != f
        for a in range(E.shape[1]):
            out[:, a] = np.bincount(e, weights=E[f, a] * p, minlength=E.shape[0])
            out[:, a] += np.bincount(f[off], weights=(E[e, a] * p)[off], minlength=E.shape[0])
        return out

    def diagonal_blocks(self, which: int) -> Array3:
        assert self._inverse is not None
        out: Array3 = self._inverse[self._diagonal_place[which]]
        return out

    def pair_blocks(self, a: int, b: int) -> Array3:
        assert self._inverse is not None
        out: Array3 = self._inverse[self._pair_place[a, b]]
        return out

    def describe(self) -> str:
        share = self._cholesky.tree.nnz / (0.5 * self.order * (self.order + 1.0))
        return (
            f"sparse Schur complement of order {self.order}, "
            f"its factor {100.0 * share:.1f}% of a dense one"
        )


def sparse_rest(
    system: BlockSystem,
    factors: Sequence[RestFactor],
    pairs: dict[tuple[int, int], PairBlock],
    adjacency: Sequence[Adjacency],
    *,
    compiled: bool,
) -> SparseRest | None:
    """Return the sparse form where its predicted work makes it worth while, else None."""
    m = sum(r.n_levels * r.width for r in factors)
    all_pairs = 0.5 * m * (m + 1.0)
    in_cliques = sum(float((np.diff(at.ptr) ** 2).sum()) / 2.0 for at in adjacency)
    if m < SPARSE_FROM or in_cliques > CLIQUE_SHARE * max(all_pairs, 40.0 * m):
        return None
    cliques = [_pairs_within_levels(at.ptr) for at in adjacency]
    low: list[np.ndarray] = []
    high: list[np.ndarray] = []
    for at, (e, f) in zip(adjacency, cliques, strict=True):
        low.append(at.cols[f])
        high.append(at.cols[e])
    for a, r in enumerate(factors):
        columns = r.block_columns(np.arange(r.n_levels, dtype=np.int32))
        i, k = np.triu_indices(r.width, 1)
        low.append(columns[:, i].ravel())
        high.append(columns[:, k].ravel())
        for b in range(a + 1, len(factors)):
            pair = pairs[a, b]
            rows, cols = r.block_columns(pair.rows), factors[b].block_columns(pair.cols)
            low.append(np.repeat(rows, cols.shape[1], axis=1).ravel())
            high.append(np.tile(cols, (1, rows.shape[1])).ravel())
    pattern = lower_pattern(np.concatenate(high), np.concatenate(low), m)
    order = _order(factors, pairs, adjacency, m)
    fill = predicted_fill(pattern, order)
    if fill.flops > SPARSE_SHARE * m**3 / 6.0:
        return None
    key = np.repeat(np.arange(m, dtype=np.int64), np.diff(pattern.indptr)) * m + pattern.indices

    def locate(row: IntVector, col: IntVector) -> np.ndarray:
        wanted = np.minimum(row, col).astype(np.int64) * m + np.maximum(row, col)
        return np.searchsorted(key, wanted)

    return SparseRest(
        system,
        factors,
        pairs,
        adjacency,
        cliques,
        SparseCholesky(pattern, order),
        locate,
        flops=fill.flops,
        compiled=compiled,
    )


def _order(
    factors: Sequence[RestFactor],
    pairs: dict[tuple[int, int], PairBlock],
    adjacency: Sequence[Adjacency],
    m: int,
) -> IntVector:
    """Order the columns of the rest: a level of the chain, a pair, a level are a clique each."""
    clique: list[np.ndarray] = []
    member: list[np.ndarray] = []
    n_cliques = 0

    def add(count: np.ndarray, columns: np.ndarray) -> None:
        nonlocal n_cliques
        clique.append(n_cliques + np.repeat(np.arange(count.size), count))
        member.append(columns.ravel())
        n_cliques += count.size

    for at in adjacency:
        add(np.diff(at.ptr), at.cols)
    for (a, b), pair in pairs.items():
        columns = np.hstack(
            [factors[a].block_columns(pair.rows), factors[b].block_columns(pair.cols)]
        )
        add(np.full(columns.shape[0], columns.shape[1]), columns)
    for r in factors:
        if r.width > 1:
            columns = r.block_columns(np.arange(r.n_levels, dtype=np.int32))
            add(np.full(r.n_levels, r.width), columns)
    return clique_order(np.concatenate(clique), np.concatenate(member), m)


def _pairs_within_levels(ptr: np.ndarray) -> tuple[IntVector, IntVector]:
    """Return all pairs (e, f), f <= e, of entries of one level, in the order of the kernels."""
    count = np.diff(ptr)
    position = np.arange(int(ptr[-1])) - np.repeat(ptr[:-1], count)
    repeats = position + 1
    e = np.repeat(np.arange(int(ptr[-1]), dtype=np.int32), repeats)
    within = np.arange(e.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    f = (np.repeat(ptr[:-1], count)[e] + within).astype(np.int32)
    return e, f
