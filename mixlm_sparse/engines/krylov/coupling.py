"""Z'WZ seen from the eliminated factor: its levels against the scalar columns of all others.

    Z'WZ = [ A_ee  A_er ]     A_ee (L, K, K) blocks of the eliminated factor e
           [ A_re  A_rr ]     A_er by level: level i meets cols[ptr[i]:ptr[i + 1]]; the entry of
                              column c there is the K-vector A_er[i, :, c]

Vectors are kept side by side, (rows, r), so that one pass over the entries serves all of them: the
passes are bound by the memory that the entries take, not by arithmetic.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.blocked.pairs import oriented_pair
from mixlm_sparse.engines.blocked.rest import RestFactor
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.interface import BlockSystem, PairBlock
from mixlm_sparse.engines.threads import idle_cores

# Numbers that a pass without machine code holds at a time.
CHUNK_NUMBERS = 2**22
# Vectors that one pass takes: more do not fit into the cache together with their products.
VECTORS_AT_ONCE = 16
# Entries times vectors from which a second thread repays its start.
THREADS_FROM = 2e7


@njit
def _gather(ptr, cols, values, X, out):  # type: ignore[no-untyped-def]
    # out[i, a] = sum_e values[e, a] X[cols[e]]
    L, K, r = out.shape
    for i in range(L):
        for e in range(ptr[i], ptr[i + 1]):
            x = X[cols[e]]
            for a in range(K):
                v = values[e, a]
                for c in range(r):
                    out[i, a, c] += v * x[c]


@njit
def _scatter(ptr, cols, values, P, out):  # type: ignore[no-untyped-def]
    # out[cols[e]] += values[e]' P[i]
    L, K, r = P.shape
    for i in range(L):
        for e in range(ptr[i], ptr[i + 1]):
            y = out[cols[e]]
            for a in range(K):
                v = values[e, a]
                for c in range(r):
                    y[c] += v * P[i, a, c]


@njit
def _through(ptr, cols, values, F, X, weights, out, Q):  # type: ignore[no-untyped-def]
    # p = A_er X, level by level; out += A_re F p; Q[i] += p diag(weights) p' (no weights: no Q)
    L, K, _ = F.shape
    r = X.shape[1]
    p = np.zeros((K, r))
    f = np.zeros((K, r))
    for i in range(L):
        p[:] = 0.0
        for e in range(ptr[i], ptr[i + 1]):
            x = X[cols[e]]
            for a in range(K):
                v = values[e, a]
                for c in range(r):
                    p[a, c] += v * x[c]
        for a in range(K):
            for c in range(r):
                f[a, c] = F[i, a, 0] * p[0, c]
            for b in range(1, K):
                for c in range(r):
                    f[a, c] += F[i, a, b] * p[b, c]
        for e in range(ptr[i], ptr[i + 1]):
            y = out[cols[e]]
            for a in range(K):
                v = values[e, a]
                for c in range(r):
                    y[c] += v * f[a, c]
        if weights.shape[0] == r:
            for a in range(K):
                for b in range(K):
                    s = 0.0
                    for c in range(r):
                        s += weights[c] * p[a, c] * p[b, c]
                    Q[i, a, b] += s


@njit
def _spread(rows, cols, values, H, out):  # type: ignore[no-untyped-def]
    # out[rows[t]] += V H[cols[t]] V'
    n, K, width = values.shape
    half = np.zeros(width)
    for t in range(n):
        i, j = rows[t], cols[t]
        for b in range(K):
            for c in range(width):
                s = 0.0
                for d in range(width):
                    s += H[j, c, d] * values[t, b, d]
                half[c] = s
            for a in range(K):
                s = 0.0
                for c in range(width):
                    s += values[t, a, c] * half[c]
                out[i, a, b] += s


@dataclass(frozen=True, eq=False)
class Coupling:
    """Products of one data set, as the eliminated factor sees them; constant in Lambda.

    Parameters
    ----------
    eliminated : index of the factor whose block of C is inverted in closed form.
    rest : the other factors, with their scalar columns.
    ztz : (L, K, K) diagonal blocks of the eliminated factor.
    ptr, cols, values : the entries of A_er by level; (L + 1,), (E,), (E, K).
    pairs : the same in blocks, one for each factor of the rest, levels of e in the rows.
    A_rr : (m, m) products among the rest; diagonal : per factor of the rest its (L, H, H).
    """

    eliminated: int
    rest: tuple[RestFactor, ...]
    ztz: Array3
    ptr: np.ndarray
    cols: IntVector
    values: Matrix
    pairs: tuple[PairBlock, ...]
    A_rr: sp.csr_array
    diagonal: tuple[Array3, ...]
    compiled: bool

    @property
    def m(self) -> int:
        """Scalar columns of the rest."""
        return int(self.A_rr.shape[0])

    def gather(self, X: Matrix) -> Array3:
        """Return A_er X, (L, K, r), of X (m, r)."""
        L, K, _ = self.ztz.shape
        out = np.zeros((L, K, X.shape[1]))
        if self.compiled:
            _gather(self.ptr, self.cols, self.values, np.ascontiguousarray(X), out)
            return out
        for a in range(K):
            out[:, a] = self._by_column(a) @ X
        return out

    def scatter(self, P: Array3) -> Matrix:
        """Return A_re P, (m, r), of P (L, K, r)."""
        out = np.zeros((self.m, P.shape[2]))
        if self.compiled:
            _scatter(self.ptr, self.cols, self.values, np.ascontiguousarray(P), out)
            return out
        for a in range(P.shape[1]):
            out += self._by_column(a).T @ P[:, a]
        return out

    def through(self, F: Array3, X: Matrix, weights: Vector, Q: Array3) -> Matrix:
        """Return A_re F A_er X, (m, r), of X (m, r) in one pass over the entries.

        Parameters
        ----------
        F : (L, K, K).
        weights : (r,) to add p diag(weights) p' of every level to Q (L, K, K), p = A_er X;
            or none, (0,).
        """
        r = X.shape[1]
        if not self.compiled:
            P = self.gather(X)
            if weights.size:
                Q += np.matmul(P * weights, np.swapaxes(P, 1, 2))
            return self.scatter(np.matmul(F, P))
        out = np.zeros_like(X, order="C")
        if r <= VECTORS_AT_ONCE and r * self.values.size < THREADS_FROM:
            _through(self.ptr, self.cols, self.values, F, np.ascontiguousarray(X), weights, out, Q)
            return out

        def part(columns: slice) -> Array3:
            mine = np.zeros((self.m, columns.stop - columns.start))
            own = np.zeros_like(Q) if weights.size else Q
            _through(
                self.ptr, self.cols, self.values, F, np.ascontiguousarray(X[:, columns]),
                weights[columns], mine, own,
            )  # fmt: skip
            out[:, columns] = mine
            return own

        shared = max(2, -(-r // VECTORS_AT_ONCE)) if r > 1 else 1
        bounds = np.linspace(0, r, shared + 1).astype(int)
        slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        found = _on_idle_cores(part, slices)
        if weights.size:
            for own in found:  # in the order of the columns: the same digits on any machine
                Q += own
        return out

    def take_diagonal(self, which: int, F: Array3, out: Array3) -> None:
        """Subtract the diagonal blocks of A_re F A_er of one factor of the rest, in place."""
        pair = self.pairs[which]
        self._add_congruences(pair.cols, pair.rows, np.swapaxes(pair.values, 1, 2), -F, out)

    def spread(self, which: int, H: Array3, out: Array3) -> None:
        """Add sum_j A_ij H_j A_ji over the levels j of one factor of the rest, in place."""
        pair = self.pairs[which]
        self._add_congruences(pair.rows, pair.cols, pair.values, H, out)

    def _add_congruences(
        self, at: IntVector, of: IntVector, values: Array3, H: Array3, out: Array3
    ) -> None:
        """Add V_t H[of_t] V_t' to out[at_t] over the pairs t, in place."""
        if self.compiled:
            _spread(at, of, values, np.ascontiguousarray(H), out)
            return
        for part in _chunks(values):
            V = values[part]
            blocks = np.matmul(np.matmul(V, H[of[part]]), np.swapaxes(V, 1, 2))
            out += _summed(at[part], blocks, out.shape[0])

    def _by_column(self, a: int) -> sp.csr_array:
        return kernels.csr(self.ptr, self.cols, self.values[:, a], self.m)


def _on_idle_cores(task: Callable[[slice], Any], parts: list[slice]) -> list[Any]:
    """Return what a task makes of every part, by threads if cores have nothing else to do."""
    cores = min(idle_cores(), len(parts))
    if cores < 2:
        return [task(part) for part in parts]
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(task, parts))


def _chunks(values: Array3) -> list[slice]:
    n, K, H = values.shape
    step = max(1, CHUNK_NUMBERS // max(K, H) ** 2)
    return [slice(start, start + step) for start in range(0, n, step)]


def _summed(codes: IntVector, blocks: Array3, n: int) -> Array3:
    flat = blocks.reshape(blocks.shape[0], -1)
    return kernels.sum_by_group(codes, flat, n).reshape(n, *blocks.shape[1:])


def order_of_elimination(system: BlockSystem) -> tuple[int, list[RestFactor]]:
    """Return the factor to eliminate, the one with most effects, and the others in their order."""
    factors = system.factors
    sizes = [f.n_levels * f.width for f in factors]
    e = int(np.argmax(sizes))
    rest: list[RestFactor] = []
    first = 0
    for g, size in enumerate(sizes):
        if g != e:
            rest.append(RestFactor(g, factors[g].n_levels, factors[g].width, first))
            first += size
    return e, rest


def coupling_of(system: BlockSystem, *, compiled: bool) -> Coupling:
    """Eliminate the factor with most effects, and sort the products by it."""
    factors = system.factors
    e, rest = order_of_elimination(system)
    pairs = []
    for r in rest:
        pair = oriented_pair(system, e, r.index)
        assert pair is not None  # two factors of one data set always share a row
        pairs.append(pair)
    ptr, cols, values = _entries(rest, pairs, factors[e].n_levels, factors[e].width)
    return Coupling(
        eliminated=e,
        rest=tuple(rest),
        ztz=factors[e].ztz,
        ptr=ptr,
        cols=cols,
        values=values,
        pairs=tuple(pairs),
        A_rr=_products_of_rest(system, rest),
        diagonal=tuple(factors[r.index].ztz for r in rest),
        compiled=compiled,
    )


def _entries(
    rest: list[RestFactor], pairs: list[PairBlock], n_levels: int, width: int
) -> tuple[np.ndarray, IntVector, Matrix]:
    ptr = np.zeros(n_levels + 1, dtype=np.int64)
    for r, pair in zip(rest, pairs, strict=True):
        ptr[1:] += r.width * np.bincount(pair.rows, minlength=n_levels)
    np.cumsum(ptr, out=ptr)
    if len(rest) == 1 and rest[0].width == 1:  # sorted by level, and nothing is copied
        return ptr, pairs[0].cols, pairs[0].values.reshape(-1, width)
    cols = [r.block_columns(p.cols).ravel() for r, p in zip(rest, pairs, strict=True)]
    values = [np.swapaxes(p.values, 1, 2).reshape(-1, width) for p in pairs]
    if len(rest) == 1:
        return ptr, cols[0], np.ascontiguousarray(values[0])
    level = [np.repeat(p.rows, r.width) for r, p in zip(rest, pairs, strict=True)]
    order = np.argsort(np.concatenate([np.empty(0, dtype=np.int32), *level]), kind="stable")
    every = np.concatenate([np.empty(0, dtype=np.int32), *cols])
    entries = np.concatenate([np.empty((0, width)), *values])
    return ptr, every[order], np.ascontiguousarray(entries[order])


def _products_of_rest(system: BlockSystem, rest: list[RestFactor]) -> sp.csr_array:
    """Return A_rr (m, m), both triangles."""
    m = sum(r.n_levels * r.width for r in rest)
    rows, cols = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.int32)]
    values = [np.empty(0)]

    def add(at: IntVector, to: IntVector, blocks: Array3) -> None:
        rows.append(np.broadcast_to(at[:, :, None], blocks.shape).ravel())
        cols.append(np.broadcast_to(to[:, None, :], blocks.shape).ravel())
        values.append(blocks.ravel())

    for a, r in enumerate(rest):
        own = r.block_columns(np.arange(r.n_levels, dtype=np.int32))
        add(own, own, system.factors[r.index].ztz)
        for s in rest[a + 1 :]:
            pair = oriented_pair(system, r.index, s.index)
            assert pair is not None
            at, to = r.block_columns(pair.rows), s.block_columns(pair.cols)
            add(at, to, pair.values)
            add(to, at, np.swapaxes(pair.values, 1, 2))
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))
    return sp.csr_array(entries, shape=(m, m))
