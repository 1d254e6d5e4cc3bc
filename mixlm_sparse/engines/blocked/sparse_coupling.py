"""The coupling with the rest by level: for large systems in which a level meets few others."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.blocked import entries
from mixlm_sparse.engines.blocked.coupling import Coupling, bmm, transposed
from mixlm_sparse.engines.blocked.dense_rest import DenseRest
from mixlm_sparse.engines.blocked.rest import Adjacency, Rest, RestFactor
from mixlm_sparse.engines.interface import PairBlock


class SparseCoupling:
    """V by level: for large systems in which a level meets few of the other levels."""

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
        self._rest = rest
        self._m = sum(r.n_levels * r.width for r in rest)
        level = np.concatenate(
            [np.repeat(p.rows, r.width) for r, p in zip(rest, pairs, strict=True)]
        )
        cols = np.concatenate(
            [
                r.block_columns(p.cols).ravel()
                for r, p in zip(rest, pairs, strict=True)
            ]
        ).astype(np.int32)
        values = np.concatenate([transposed(p.values).reshape(-1, width) for p in pairs])
        self._contiguous = len(rest) == 1 and rest[0].at is None
        if self._contiguous:
            position = np.arange(cols.size)  # one factor: sorted already
        else:
            by_column = kernels.sorted_by(cols, self._m)
            order = by_column[kernels.sorted_by(level[by_column], n_levels)]
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
        self.W = np.empty_like(self._A)
        self._E: Matrix = np.empty(0)
        self._X: Matrix = np.empty(0)  # (entries, K) blocks of C^{-1}, with the other sign
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
        self._left: Matrix | None = lam.T
        for r, lam_r, position in zip(self._rest, rest, self._position, strict=True):
            if r.width == 1 and self._contiguous:
                np.multiply(self._A, lam_r[0, 0], out=self.W)
            elif r.width == 1:
                at = position[:, 0]
                self.W[at] = lam_r[0, 0] * self._A[at]
            elif self._compiled:  # the columns of a level are entries one after another
                lam_r = np.ascontiguousarray(lam_r)
                entries.scale_entries(position[:, 0], self._A, lam_r, self.W)
            else:
                self.W[position] = np.matmul(lam_r.T, self._A[position])

    def absorb(self, child: Coupling, parent: IntVector, Wp: Array3, slot: int) -> None:
        assert isinstance(child, SparseCoupling)
        if self._left is not None:
            self.W = self.W @ self._left.T
            self._left = None
        # entry e of the child adds Wp(level)' W[e] to the entry it maps to
        update = np.einsum("eab,ea->eb", Wp[child._level], child.W)
        target = child._maps[slot]
        for b in range(self.W.shape[1]):
            self.W[:, b] -= np.bincount(target, weights=update[:, b], minlength=self.W.shape[0])

    def whiten(self, Linv: Array3) -> None:
        self._times(Linv if self._left is None else bmm(Linv, self._left), self.W)

    def _times(self, M: Array3, out: Matrix) -> None:
        """Replace out[e] (entries, K) by M_j out[e], j the level of entry e; M (L, K, K)."""
        if out.shape[1] == 1:
            out *= M[self._level, 0]
        elif self._compiled:
            entries.times_by_level(self._ptr, np.ascontiguousarray(M), out)
        else:
            out[:] = np.einsum("eab,eb->ea", M[self._level], out)

    def _csr(self, a: int) -> sp.csr_array:
        return kernels.csr(self._ptr, self._cols, self.W[:, a], self._m)

    def multiply(self, own: Array3, rest: Matrix) -> tuple[Array3, Matrix]:
        """Return A rest (L, K, r) and A' own (m, r)."""
        to_own, to_rest = np.empty_like(own), np.zeros_like(rest)
        for a in range(self._A.shape[1]):
            A = kernels.csr(self._ptr, self._cols, self._A[:, a], self._m)
            to_own[:, a] = A @ rest
            to_rest += A.T @ own[:, a]
        return to_own, to_rest

    def inside(self, Linv: Array3, rest: Rest, slot: int) -> Array3 | None:
        """Return L_i^{-T} W S^{-1} W' L_i^{-1} (L, K, K); None where `invert` is as cheap."""
        inner = rest.inside(slot, self.W) if isinstance(rest, DenseRest) else None
        return None if inner is None else bmm(transposed(Linv), bmm(inner, Linv))

    @property
    def inverse(self) -> Matrix:
        """(entries, K) blocks of C^{-1} between the factor and the rest."""
        out: Matrix = -self._X
        return out

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
        E = self.W.copy()
        self._times(transposed(Linv), E)
        X = rest.times_inverse(slot, E)
        for other, _, E_parent, later in parents:
            assert isinstance(other, SparseCoupling)
            X -= np.einsum("eab,eb->ea", E_parent[self._level], other._X[self._maps[later]])
        self._E, self._X = E, X
        n_levels = self._ptr.size - 1
        if self._compiled:
            out = np.zeros((n_levels, K, K))
            entries.products_by_level(self._ptr, X, E, out)
            return out
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
        return np.ascontiguousarray(-transposed(self._X[self._position[which]]))

    def describe(self) -> str:
        per_level = self._cols.size / max(1, self._ptr.size - 1)
        return f"by level, {per_level:.1f} of {self._m} columns a level"
