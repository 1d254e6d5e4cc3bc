"""A dense Schur complement that is eliminated in steps which leave out what is zero.

Where levels meet in communities (students and lecturers of departments, patients and doctors of
hospitals), S is dense enough to be one matrix, and still most of its factor can be zero: in an
order of least degree, communities come first, one after the other, and what joins them last.  S
stays one matrix in that order, C ordered; each step eliminates its own columns J in place,

    L_JJ L_JJ' = S_JJ,   L_RJ = S_RJ L_JJ^{-T},   S_RR -= L_RJ L_RJ'

for the rows R that they reach.  The factor is an ordinary lower triangle, zero elsewhere.  Entries
of S^{-1} where the factor is not zero follow backwards (see `selected`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import blas, lapack

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import IntVector, Matrix
from mixlm_sparse.engines.blocked.rest import RestFactor
from mixlm_sparse.engines.compiled import inside, njit
from mixlm_sparse.engines.dense import NOT_POSITIVE_DEFINITE
from mixlm_sparse.engines.interface import PairBlock
from mixlm_sparse.engines.multifrontal.elimination import postorder
from mixlm_sparse.engines.multifrontal.frontal_tree import merged_supernodes
from mixlm_sparse.engines.threads import large_block

# Below this order nothing is won by leaving out zeros, above that one the order takes long.
STEPS_FROM, STEPS_TO = 400, 6_000
# Steps are taken if their multiply-adds are below this share of those of the whole matrix.
STEPS_SHARE = 0.6
# What finding the order may cost, as a share of the multiply-adds of the whole factor.
ORDER_SHARE = 0.05
# Words of 64 bits that say whom each eliminated level meets, at most.
MOST_WORDS = 4_000_000
# In nanoseconds: a step (five calls of BLAS and LAPACK), an entry passed on.
STEP_COST, PASSING_COST, ZERO_SHARE = 20_000.0, 2.0, 0.5

Nodes = tuple[IntVector, IntVector]


@dataclass(frozen=True, eq=False, slots=True)
class Steps:
    """An order of elimination.

    Parameters
    ----------
    first : (nodes,) the first scalar column of every node.
    starts : (S + 1,) first column of each step.
    rows : per step, the later columns that it reaches, ascending.
    """

    first: IntVector
    starts: np.ndarray
    rows: list[IntVector]

    @property
    def work(self) -> float:
        """Multiply-adds of a factorization."""
        w = np.diff(self.starts).astype(np.float64)
        m = w + [r.size for r in self.rows]
        return float((m**3 - (m - w) ** 3).sum() / 6.0)

    def factorize(self, S: Matrix) -> float:
        """Replace the lower triangle of S (m, m) by its factor; return log|S|.

        Raises
        ------
        NotPositiveDefiniteError : S is not positive definite.
        """
        logdet = 0.0
        for a, b, R in self._walk():
            with large_block(b - a):
                U, info = lapack.dpotrf(S[a:b, a:b].T, lower=0, clean=0)
            diagonal = np.diagonal(U)
            if info != 0 or not np.isfinite(diagonal).all():
                raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
            logdet += 2.0 * float(np.log(diagonal).sum())
            S[a:b, a:b] = U.T
            if R.size:
                half = blas.dtrsm(1.0, U, S[R, a:b].T, lower=0, trans_a=1, overwrite_b=1)
                S[R, a:b] = half.T
                _subtract(blas.dsyrk(1.0, half, trans=1, lower=0).T, R, S)
        return logdet

    def inverse(self, L: Matrix) -> Matrix:
        """Return S^{-1} (m, m) where the factor is not zero, lower triangle, from the factor."""
        P = L.copy()
        for a, b, R in reversed(list(self._walk())):
            U = np.asfortranarray(P[a:b, a:b].T)
            with large_block(b - a):
                own, info = lapack.dpotri(U, lower=0)
            if info != 0:
                raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
            if R.size:
                E = blas.dtrsm(1.0, U, P[R, a:b].T, lower=0)
                reached = np.empty((R.size, R.size))
                _gather(P, R, reached)
                X = blas.dsymm(-1.0, reached.T, E, side=1, lower=0)
                P[R, a:b] = X.T
                own -= blas.dgemm(1.0, E, X, trans_b=1)
            P[a:b, a:b] = own.T
        return P

    def _walk(self) -> zip[tuple[int, int, IntVector]]:
        return zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), self.rows, strict=True)


def in_steps(
    rest: Sequence[RestFactor],
    met: Sequence[Sequence[PairBlock]],
    pairs: Mapping[tuple[int, int], PairBlock],
) -> tuple[list[RestFactor], Steps | None]:
    """Return the rest with its columns in an order that leaves much of S zero, if there is one.

    Parameters
    ----------
    met : per eliminated factor, its pairs with every factor of the rest.
    pairs : those among the rest.
    """
    nodes = np.concatenate([[0], np.cumsum([r.n_levels for r in rest])])
    cliques = [
        [(pair.rows, pair.cols + nodes[b]) for b, pair in enumerate(some)] for some in met
    ]
    edges = [(pair.rows + nodes[a], pair.cols + nodes[b]) for (a, b), pair in pairs.items()]
    widths = np.repeat([r.width for r in rest], [r.n_levels for r in rest])
    steps = find_steps(cliques, edges, widths)
    if steps is None:
        return list(rest), None
    placed = [replace(r, at=steps.first[nodes[b] : nodes[b + 1]]) for b, r in enumerate(rest)]
    return placed, steps


def find_steps(
    cliques: Sequence[Sequence[Nodes]], edges: Sequence[Nodes], widths: IntVector
) -> Steps | None:
    """Return an order in which much of the factor is zero, if there is one.

    Parameters
    ----------
    cliques : per eliminated factor, (level, node) of what meets; all nodes of a level are joined.
    edges : pairs of nodes that are joined.
    widths : (nodes,) scalar columns of each.
    """
    n, order = widths.size, int(widths.sum())
    words = -(-n // 64)
    levels = [max(int(rows.max()) for rows, _ in some) + 1 for some in cliques if some]
    if not STEPS_FROM <= order <= STEPS_TO or sum(levels) * words > MOST_WORDS:
        return None
    joined = np.zeros((n, words), np.uint64)
    for some, count in zip(cliques, levels, strict=True):
        met = np.zeros((count, words), np.uint64)
        for level, node in some:
            _meet(level, node, met)
        for level, node in some:
            _join(level, node, met, joined)
    for one, other in edges:
        _meet(one, other, joined)
        _meet(other, one, joined)
    budget = ORDER_SHARE * float(n) ** 3 / 6.0
    nodes, border = _least_degree(joined, budget)
    if n - border > 0.95 * n:
        return None
    parent, counts = _tree(joined, nodes, border)
    post = postorder(parent)
    rank = np.empty(n, np.int64)
    rank[post] = np.arange(n)
    parent = np.where(parent[post] >= 0, rank[parent[post]], -1)
    columns, starts, _, _ = merged_supernodes(
        parent, counts[post], supernode_cost=STEP_COST, passing_cost=PASSING_COST,
        zero_share=ZERO_SHARE,
    )  # fmt: skip
    nodes = nodes[post][columns]
    first = np.empty(n, np.int32)
    first[nodes] = np.cumsum(widths[nodes]) - widths[nodes]
    found = []
    for last in nodes[starts[1:] - 1].tolist():
        bits = np.unpackbits(joined[last].view(np.uint8), bitorder="little")[:n]
        reached = np.flatnonzero(bits)
        at = np.repeat(first[reached], widths[reached])
        within = np.arange(at.size) - np.repeat(
            np.cumsum(widths[reached]) - widths[reached], widths[reached]
        )
        found.append(np.sort(at + within))
    ends = np.append(first[nodes[starts[:-1]]], order)
    steps = Steps(first, ends, found)
    return steps if steps.work <= STEPS_SHARE * float(order) ** 3 / 6.0 else None


@njit
def _meet(row, node, met):  # type: ignore[no-untyped-def]
    for t in range(row.shape[0]):
        c = np.uint64(node[t])
        met[row[t], np.int64(c >> np.uint64(6))] |= np.uint64(1) << (c & np.uint64(63))


@njit
def _join(row, node, met, joined):  # type: ignore[no-untyped-def]
    for t in range(row.shape[0]):
        for w in range(met.shape[1]):
            joined[node[t], w] |= met[row[t], w]


@njit
def _least_degree(joined, budget):  # type: ignore[no-untyped-def]
    # Least degree with exact fill, on sets of bits; what is left when all of it is joined, or when
    # the budget is used up, comes last.  Rows of eliminated nodes keep whom they reach.
    one, last = np.uint64(1), np.uint64(63)
    n, words = joined.shape
    live = np.zeros(words, np.uint64)
    degree = np.zeros(n, np.int64)
    order = np.empty(n, np.int64)
    place = np.full(n, -1, np.int64)
    near = np.empty(n, np.int64)
    for v in range(n):
        bit = one << (np.uint64(v) & last)
        live[v >> 6] |= bit
        joined[v, v >> 6] &= ~bit
    for v in range(n):
        degree[v] = _members(joined[v], near)
    k, spent = 0, 0.0
    while k < n and spent < budget:
        v = -1
        for u in range(n):
            if place[u] < 0 and (v < 0 or degree[u] < degree[v]):
                v = u
        if degree[v] == n - k - 1:
            break
        order[k] = v
        place[v] = k
        k += 1
        live[v >> 6] &= ~(one << (np.uint64(v) & last))
        for w in range(words):
            joined[v, w] &= live[w]
        count = _members(joined[v], near)
        for i in range(count):
            u = near[i]
            total = np.uint64(0)
            for w in range(words):
                x = (joined[u, w] | joined[v, w]) & live[w]
                joined[u, w] = x
                x = x - ((x >> one) & np.uint64(0x5555555555555555))
                x = (x & np.uint64(0x3333333333333333)) + (
                    (x >> np.uint64(2)) & np.uint64(0x3333333333333333)
                )
                x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
            joined[u, u >> 6] &= ~(one << (np.uint64(u) & last))
            degree[u] = np.int64(total) - 1
        spent += count * words + n
    border = k
    for u in range(n):
        if place[u] < 0:
            order[k] = u
            k += 1
    for i in range(border, n):  # all of it joined
        for w in range(words):
            joined[order[i], w] = live[w] if i < n - 1 else np.uint64(0)
        live[order[i] >> 6] &= ~(one << (np.uint64(order[i]) & last))
        for w in range(words):
            joined[order[i], w] &= live[w]
    return order, border


@inside
def _members(bits, out):  # type: ignore[no-untyped-def]
    count = 0
    for w in range(bits.shape[0]):
        x = bits[w]
        if x:
            for b in range(64):
                if (x >> np.uint64(b)) & np.uint64(1):
                    out[count] = (w << 6) + b
                    count += 1
    return count


@njit
def _tree(joined, order, border):  # type: ignore[no-untyped-def]
    # parent: the first of those that a node reaches; entries of its column of the factor
    n = order.shape[0]
    place = np.empty(n, np.int64)
    for k in range(n):
        place[order[k]] = k
    parent = np.full(n, -1, np.int64)
    counts = np.empty(n, np.int64)
    near = np.empty(n, np.int64)
    for k in range(n):
        if k >= border:
            counts[k] = n - k
            if k < n - 1:
                parent[k] = k + 1
            continue
        count = _members(joined[order[k]], near)
        counts[k] = count + 1
        for i in range(count):
            p = place[near[i]]
            if parent[k] < 0 or p < parent[k]:
                parent[k] = p
    return parent, counts


@njit
def _subtract(block, rows, S):  # type: ignore[no-untyped-def]
    for i in range(rows.shape[0]):
        r = rows[i]
        for j in range(i + 1):
            S[r, rows[j]] -= block[i, j]


@njit
def _gather(S, rows, out):  # type: ignore[no-untyped-def]
    for i in range(rows.shape[0]):
        r = rows[i]
        for j in range(i + 1):
            out[i, j] = S[r, rows[j]]
