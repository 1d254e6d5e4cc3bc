"""The part of C that couples an eliminated factor with the dense rest.

An eliminated factor i has L levels of width K; the rest has m scalar columns.  V = C_i,rest is kept
either dense, (L, K, m), or by level: level j meets the scalar columns cols[ptr[j]:ptr[j+1]] and
entry e holds the K-vector V[:, cols[e]].  Both forms go through the same life in one evaluation:

    scale      V = Lambda_i' A_i,rest Lambda_rest
    (absorb)   V -= what the elimination of a nested factor leaves
    whiten     W = L_i^{-1} V
    downdate   S -= W'W
    forward, backward      the two halves of a solve
    invert     blocks of C^{-1} between the factor and the rest, from S^{-1}
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines import dense, kernels
from mixlm_sparse.engines.blocked.dense_rest import DenseRest
from mixlm_sparse.engines.blocked.rest import Adjacency, Rest, RestFactor
from mixlm_sparse.engines.interface import BLAS_SHARE, PairBlock


def bmm(a: Array3, b: Array3) -> Array3:
    """Multiply blocks level by level; a (L, r, s) or (r, s), b (L, s, t)."""
    if a.shape[-1] == 1 and a.shape[-2] == 1:
        return a * b
    out: Array3 = np.matmul(a, b)
    return out


def transposed(a: Array3) -> Array3:
    """Transpose each block."""
    return np.swapaxes(a, -1, -2)


class Coupling(Protocol):
    """What the two forms have in common."""

    work: float  # multiply-adds of an evaluation with its gradient

    def reload(self, pairs: Sequence[PairBlock]) -> Coupling: ...
    def scale(self, lam: Matrix, rest: Sequence[Matrix]) -> None: ...
    def absorb(self, child: Coupling, parent: IntVector, Wp: Array3, slot: int) -> None: ...
    def whiten(self, Linv: Array3) -> None: ...
    def downdate(self, rest: Rest, slot: int) -> None: ...
    def forward(self, y: Array3) -> Matrix: ...
    def backward(self, x: Matrix) -> Array3: ...
    def invert(
        self,
        Linv: Array3,
        rest: Rest,
        slot: int,
        parents: Sequence[tuple[Coupling, IntVector, Array3, int]],
    ) -> Array3: ...
    def times_inverse_rest(self, other: Coupling, parent: IntVector, slot: int) -> Array3: ...
    def inverse_pairs(self, which: int) -> Array3: ...
    def describe(self) -> str: ...


class DenseCoupling:
    """V as a dense (L, K, m) array: for small systems and where most level pairs occur."""

    def __init__(
        self,
        n_levels: int,
        width: int,
        rest: Sequence[RestFactor],
        pairs: Sequence[PairBlock],
        *,
        compiled: bool,
    ) -> None:
        self._compiled = compiled
        m = sum(r.n_levels * r.width for r in rest)
        self._rest = rest
        self._load(np.zeros((n_levels, width, m)), pairs)
        self._E: Array3 = np.empty(0)
        self.inverse: Array3 = np.empty(0)  # (L, K, m) blocks of C^{-1}
        self.work = self.W.size * (2.0 * width + 2.0 * m * BLAS_SHARE)

    def _load(self, A: Array3, pairs: Sequence[PairBlock]) -> None:
        for r, pair in zip(self._rest, pairs, strict=True):
            cols = r.first + pair.cols[:, None] * r.width + np.arange(r.width)
            within = np.arange(A.shape[1])[None, :, None]
            A[pair.rows[:, None, None], within, cols[:, None, :]] = pair.values
        self._pairs = pairs
        self._A = A
        self.W = np.empty_like(A)

    def reload(self, pairs: Sequence[PairBlock]) -> DenseCoupling:
        twin = copy.copy(self)
        twin._load(np.zeros_like(self._A), pairs)
        return twin

    def scale(self, lam: Matrix, rest: Sequence[Matrix]) -> None:
        L, K, _ = self._A.shape
        if K == 1:
            np.multiply(self._A, lam[0, 0], out=self.W)
        else:
            np.matmul(lam.T, self._A, out=self.W)
        for r, lam_r in zip(self._rest, rest, strict=True):
            if r.width == 1:
                self.W[:, :, r.columns] *= lam_r[0, 0]
            else:
                part = self.W[:, :, r.columns].reshape(L * K * r.n_levels, r.width)
                self.W[:, :, r.columns] = (part @ lam_r).reshape(L, K, r.n_levels * r.width)

    def absorb(self, child: Coupling, parent: IntVector, Wp: Array3, slot: int) -> None:
        assert isinstance(child, DenseCoupling)
        update = np.matmul(transposed(Wp), child.W)  # (L_child, K, m)
        L, K, m = self.W.shape
        self.W -= kernels.sum_by_group(parent, update.reshape(-1, K * m), L).reshape(L, K, m)

    def whiten(self, Linv: Array3) -> None:
        self.W = bmm(Linv, self.W)

    def downdate(self, rest: Rest, slot: int) -> None:
        assert isinstance(rest, DenseRest)  # a dense coupling makes everything fill
        dense.subtract_gram(rest.S, self.W.reshape(-1, rest.order))

    def forward(self, y: Array3) -> Matrix:
        m = self.W.shape[2]
        out: Matrix = self.W.reshape(-1, m).T @ y.reshape(-1, y.shape[2])
        return out

    def backward(self, x: Matrix) -> Array3:
        L, K, m = self.W.shape
        out: Array3 = (self.W.reshape(-1, m) @ x).reshape(L, K, x.shape[1])
        return out

    def invert(
        self,
        Linv: Array3,
        rest: Rest,
        slot: int,
        parents: Sequence[tuple[Coupling, IntVector, Array3, int]],
    ) -> Array3:
        assert isinstance(rest, DenseRest)
        assert rest.P is not None
        L, K, m = self.W.shape
        E = bmm(transposed(Linv), self.W)
        X = dense.product(E.reshape(-1, m), rest.P).reshape(L, K, m)
        for other, parent, E_parent, _ in parents:
            assert isinstance(other, DenseCoupling)
            X += np.matmul(E_parent, other.inverse[parent])
        self._E = E
        self.inverse = -X
        out: Array3 = np.matmul(X, transposed(E))
        return out

    def times_inverse_rest(self, other: Coupling, parent: IntVector, slot: int) -> Array3:
        assert isinstance(other, DenseCoupling)
        out: Array3 = np.matmul(self._E, transposed(other.inverse)[parent])
        return out

    def inverse_pairs(self, which: int) -> Array3:
        r, pair = self._rest[which], self._pairs[which]
        if self._compiled:
            blocks = np.empty(pair.values.shape)
            kernels.gather_blocks(self.inverse, pair.rows, pair.cols, r.first, blocks)
            return blocks
        cols = r.first + pair.cols[:, None] * r.width + np.arange(r.width)
        K = self.W.shape[1]
        out: Array3 = self.inverse[
            pair.rows[:, None, None], np.arange(K)[None, :, None], cols[:, None, :]
        ]
        return out

    def describe(self) -> str:
        return "dense"


class SparseCoupling:
    """V by level: for large systems in which a level meets few of the other levels."""

    def __init__(
        self,
        n_levels: int,
        width: int,
        rest: Sequence[RestFactor],
        pairs: Sequence[PairBlock],
    ) -> None:
        self._rest = rest
        self._m = sum(r.n_levels * r.width for r in rest)
        level = np.concatenate(
            [np.repeat(p.rows, r.width) for r, p in zip(rest, pairs, strict=True)]
        )
        cols = np.concatenate(
            [
                (r.first + p.cols[:, None] * r.width + np.arange(r.width, dtype=np.int32)).ravel()
                for r, p in zip(rest, pairs, strict=True)
            ]
        ).astype(np.int32)
        values = np.concatenate([transposed(p.values).reshape(-1, width) for p in pairs])
        if len(rest) == 1:
            position = np.arange(cols.size)  # one factor: sorted already
        else:
            order = np.lexsort((cols, level))
            position = np.empty_like(order)
            position[order] = np.arange(order.size)
            level, cols, values = level[order], cols[order], values[order]
        self._cols = np.ascontiguousarray(cols)
        self._level = np.ascontiguousarray(level)
        self._A = np.ascontiguousarray(values)
        self._ptr = np.zeros(n_levels + 1, dtype=np.int64)
        np.cumsum(np.bincount(level, minlength=n_levels), out=self._ptr[1:])
        # where the entries of each pair block went: (npairs, K_rest)
        self._position: list[np.ndarray] = []
        start = 0
        for r, p in zip(rest, pairs, strict=True):
            stop = start + p.rows.size * r.width
            self._position.append(position[start:stop].reshape(-1, r.width))
            start = stop
        self._contiguous = len(rest) == 1
        self.W = np.empty_like(self._A)
        self._E: Matrix = np.empty(0)
        self.inverse: Matrix = np.empty(0)  # (entries, K) blocks of C^{-1}
        meetings = float((np.diff(self._ptr).astype(np.float64) ** 2).sum())
        self.work = 2.0 * width * (self.W.size + meetings)
        self._maps: dict[int, np.ndarray] = {}

    def reload(self, pairs: Sequence[PairBlock]) -> SparseCoupling:
        twin = copy.copy(self)
        twin._A = np.empty_like(self._A)
        for position, pair in zip(self._position, pairs, strict=True):
            twin._A[position] = transposed(pair.values)
        twin.W = np.empty_like(self.W)
        return twin

    # keys make a (level, column) entry findable from a nested factor's coupling
    def _keys(self) -> np.ndarray:
        out: np.ndarray = self._level.astype(np.int64) * self._m + self._cols
        return out

    def map_to(self, other: SparseCoupling, parent: IntVector, slot: int) -> None:
        """Remember where each entry of this coupling lands in its parent's, under `slot`."""
        mine = parent[self._level].astype(np.int64) * self._m + self._cols
        self._maps[slot] = np.searchsorted(other._keys(), mine)

    def scale(self, lam: Matrix, rest: Sequence[Matrix]) -> None:
        K = self._A.shape[1]
        if K == 1:
            np.multiply(self._A, lam[0, 0], out=self.W)
        else:
            np.matmul(self._A, lam, out=self.W)
        for r, lam_r, position in zip(self._rest, rest, self._position, strict=True):
            if self._contiguous:
                block = self.W.reshape(-1, r.width, K)
                if r.width == 1:
                    block *= lam_r[0, 0]
                else:
                    block[:] = np.matmul(lam_r.T, block)
            elif r.width == 1:
                self.W[position[:, 0]] *= lam_r[0, 0]
            else:
                self.W[position] = np.matmul(lam_r.T, self.W[position])

    def absorb(self, child: Coupling, parent: IntVector, Wp: Array3, slot: int) -> None:
        assert isinstance(child, SparseCoupling)
        # entry e of the child adds Wp(level)' W[e] to the entry it maps to
        update = np.einsum("eab,ea->eb", Wp[child._level], child.W)
        target = child._maps[slot]
        for b in range(self.W.shape[1]):
            self.W[:, b] -= np.bincount(target, weights=update[:, b], minlength=self.W.shape[0])

    def whiten(self, Linv: Array3) -> None:
        if self.W.shape[1] == 1:
            self.W *= Linv[self._level, 0]
        else:
            self.W = np.einsum("eab,eb->ea", Linv[self._level], self.W)

    def _csr(self, a: int) -> sp.csr_array:
        return kernels.csr(self._ptr, self._cols, self.W[:, a], self._m)

    @property
    def adjacency(self) -> Adjacency:
        """Which columns of the rest every level meets."""
        return Adjacency(self._ptr, self._cols)

    def downdate(self, rest: Rest, slot: int) -> None:
        rest.downdate(slot, self.W)

    def forward(self, y: Array3) -> Matrix:
        out = np.zeros((self._m, y.shape[2]))
        for a in range(self.W.shape[1]):
            out += self._csr(a).T @ y[:, a, :]
        return out

    def backward(self, x: Matrix) -> Array3:
        K = self.W.shape[1]
        return np.stack([self._csr(a) @ x for a in range(K)], axis=1)

    def invert(
        self,
        Linv: Array3,
        rest: Rest,
        slot: int,
        parents: Sequence[tuple[Coupling, IntVector, Array3, int]],
    ) -> Array3:
        K = self.W.shape[1]
        E = np.empty_like(self.W)
        if K == 1:
            np.multiply(self.W, Linv[self._level, 0], out=E)
        else:
            E = np.einsum("eba,eb->ea", Linv[self._level], self.W)
        X = rest.times_inverse(slot, E)
        for other, _, E_parent, later in parents:
            assert isinstance(other, SparseCoupling)
            X += np.einsum("eab,eb->ea", E_parent[self._level], other.inverse[self._maps[later]])
        self._E = E
        self.inverse = -X
        n_levels = self._ptr.size - 1
        products = (X[:, :, None] * E[:, None, :]).reshape(-1, K * K)
        return self._sum_by_level(products).reshape(n_levels, K, K)

    def _sum_by_level(self, values: Matrix) -> Matrix:
        # levels without an entry must give 0, which reduceat does not
        padded = np.vstack([values, np.zeros((1, values.shape[1]))])
        sums = np.add.reduceat(padded, self._ptr[:-1], axis=0)
        sums[self._ptr[:-1] == self._ptr[1:]] = 0.0
        out: Matrix = sums
        return out

    def times_inverse_rest(self, other: Coupling, parent: IntVector, slot: int) -> Array3:
        assert isinstance(other, SparseCoupling)
        n_levels = self._ptr.size - 1
        inverse = other.inverse[self._maps[slot]]
        K, Kh = self._E.shape[1], inverse.shape[1]
        products = (self._E[:, :, None] * inverse[:, None, :]).reshape(-1, K * Kh)
        return self._sum_by_level(products).reshape(n_levels, K, Kh)

    def inverse_pairs(self, which: int) -> Array3:
        # (npairs, K_rest, K) -> (npairs, K, K_rest)
        return np.ascontiguousarray(transposed(self.inverse[self._position[which]]))

    def describe(self) -> str:
        per_level = self._cols.size / max(1, self._ptr.size - 1)
        return f"by level, {per_level:.1f} of {self._m} columns a level"
