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
from mixlm_sparse.engines.blocked.least_degree import Nodes, by_tree, graph_of, least_degree
from mixlm_sparse.engines.blocked.rest import RestFactor
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.dense import NOT_POSITIVE_DEFINITE
from mixlm_sparse.engines.interface import PairBlock
from mixlm_sparse.engines.multifrontal.frontal_tree import merged_supernodes
from mixlm_sparse.engines.threads import large_block

# Below this order nothing is won by leaving out zeros, above that one the order takes long.
STEPS_FROM, STEPS_TO = 400, 6_000
# Steps are taken if their multiply-adds are below this share of those of the whole matrix.
STEPS_SHARE = 0.6
# With a larger share of S not zero no order comes below that: L holds at least the lower triangle
# of S, and n columns of d n / 2 entries on average take at least n (d n)^2 / 8 multiply-adds.
FULLEST = 0.9
# What finding the order may cost, as a share of the multiply-adds of the whole factor.
ORDER_SHARE = 0.05
# Words of 64 bits that say whom each eliminated level meets, at most.
MOST_WORDS = 4_000_000
# In nanoseconds: a step (five calls of BLAS and LAPACK), an entry passed on.
STEP_COST, PASSING_COST, ZERO_SHARE = 20_000.0, 2.0, 0.5


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
    some = [level_and_node for level_and_node in cliques if level_and_node]
    levels = sum(max(int(rows.max()) for rows, _ in pairs) + 1 for pairs in some)
    if not STEPS_FROM <= order <= STEPS_TO or levels * -(-n // 64) > MOST_WORDS:
        return None
    joined = graph_of(some, edges, n, FULLEST)
    if joined is None:
        return None
    supernodes, last = least_degree(joined, ORDER_SHARE * float(n) ** 3 / 6.0)
    if last.size > 0.95 * n:
        return None
    if last.size:
        supernodes.append((last, last[:0]))
    nodes, parent, counts, owner = by_tree(supernodes, n)
    columns, starts, _, _ = merged_supernodes(
        parent, counts,
        supernode_cost=STEP_COST, passing_cost=PASSING_COST, zero_share=ZERO_SHARE,
    )  # fmt: skip
    nodes = nodes[columns]
    first = np.empty(n, np.int32)
    first[nodes] = np.cumsum(widths[nodes]) - widths[nodes]
    found = []
    for s in owner[columns[starts[1:] - 1]].tolist():
        reached = supernodes[s][1]
        at = np.repeat(first[reached], widths[reached])
        within = np.arange(at.size) - np.repeat(
            np.cumsum(widths[reached]) - widths[reached], widths[reached]
        )
        found.append(np.sort(at + within))
    ends = np.append(first[nodes[starts[:-1]]], order)
    steps = Steps(first, ends, found)
    return steps if steps.work <= STEPS_SHARE * float(order) ** 3 / 6.0 else None


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
