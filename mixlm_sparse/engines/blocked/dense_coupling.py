"""The coupling with the rest as a dense array: for small systems, and where most pairs occur."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines import dense, kernels
from mixlm_sparse.engines.blocked import entries
from mixlm_sparse.engines.blocked.coupling import Coupling, bmm, transposed
from mixlm_sparse.engines.blocked.dense_rest import DenseRest
from mixlm_sparse.engines.blocked.rest import Rest, RestFactor
from mixlm_sparse.engines.interface import BLAS_SHARE, PairBlock


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
        self._V = np.empty_like(A)
        self.W = np.empty_like(A)

    def reload(self, pairs: Sequence[PairBlock]) -> DenseCoupling:
        twin = copy.copy(self)
        twin._load(np.zeros_like(self._A), pairs)
        return twin

    def scale(self, lam: Matrix, rest: Sequence[Matrix]) -> None:
        L, K, _ = self._A.shape
        for r, lam_r in zip(self._rest, rest, strict=True):
            if r.width == 1:
                np.multiply(self._A[:, :, r.columns], lam_r[0, 0], out=self._V[:, :, r.columns])
            elif len(self._rest) == 1:
                flat = self._V.reshape(-1, r.width)
                np.matmul(self._A.reshape(-1, r.width), lam_r, out=flat)
            else:
                part = self._A[:, :, r.columns].reshape(L * K * r.n_levels, r.width)
                self._V[:, :, r.columns] = (part @ lam_r).reshape(L, K, r.n_levels * r.width)
        self._left: Matrix | None = lam.T

    def absorb(self, child: Coupling, parent: IntVector, Wp: Array3, slot: int) -> None:
        assert isinstance(child, DenseCoupling)
        if self._left is not None:
            self._V = bmm(self._left, self._V)
            self._left = None
        update = np.matmul(transposed(Wp), child.W)  # (L_child, K, m)
        L, K, m = self._V.shape
        self._V -= kernels.sum_by_group(parent, update.reshape(-1, K * m), L).reshape(L, K, m)

    def whiten(self, Linv: Array3) -> None:
        M = Linv if self._left is None else bmm(Linv, self._left)
        if M.shape[1] == 1:
            np.multiply(M, self._V, out=self.W)
        else:
            np.matmul(M, self._V, out=self.W)

    def downdate(self, rest: Rest, slot: int) -> None:
        assert isinstance(rest, DenseRest)  # a dense coupling makes everything fill
        dense.subtract_gram(rest.S, self.W.reshape(-1, rest.order))

    def multiply(self, own: Array3, rest: Matrix) -> tuple[Array3, Matrix]:
        """Return A rest (L, K, r) and A' own (m, r)."""
        L, K, m = self._A.shape
        A = self._A.reshape(-1, m)
        return (A @ rest).reshape(L, K, -1), A.T @ own.reshape(L * K, -1)

    def inside(self, Linv: Array3, rest: Rest, slot: int) -> Array3 | None:
        """Return L_i^{-T} W S^{-1} W' L_i^{-1} (L, K, K) from the factor of S, if it is there."""
        assert isinstance(rest, DenseRest)
        L, K, m = self.W.shape
        half = rest.half_solve_rows(self.W.reshape(-1, m))
        if half is None:
            return None
        if K == 1:
            inner = np.einsum("jm,jm->j", half, half)[:, None, None]
        else:
            half3 = half.reshape(L, K, m)
            inner = np.matmul(half3, transposed(half3))
        return bmm(transposed(Linv), bmm(inner, Linv))

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
        P = rest.whole_inverse
        L, K, m = self.W.shape
        if not parents:
            Y = dense.product(self.W.reshape(-1, m), P).reshape(L, K, m)
            self.inverse = bmm(-transposed(Linv), Y)
            inner = np.matmul(Y, transposed(self.W))
            return bmm(transposed(Linv), bmm(inner, Linv))
        E = bmm(transposed(Linv), self.W)
        X = dense.product(E.reshape(-1, m), P).reshape(L, K, m)
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
            entries.gather_blocks(self.inverse, pair.rows, pair.cols, r.first, blocks)
            return blocks
        cols = r.first + pair.cols[:, None] * r.width + np.arange(r.width)
        K = self.W.shape[1]
        out: Array3 = self.inverse[
            pair.rows[:, None, None], np.arange(K)[None, :, None], cols[:, None, :]
        ]
        return out

    def describe(self) -> str:
        return "dense"
