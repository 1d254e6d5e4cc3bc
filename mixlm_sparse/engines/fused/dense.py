"""Criterion and gradient of a small model with several factors, C as one dense matrix.

The two sweeps of `levels`, over all columns at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.fused.profile import (
    FusedValue,
    back_solve,
    cholesky,
    half_solve,
    inverse,
    inverse_of_factor,
    profile,
)
from mixlm_sparse.engines.interface import BlockSystem


@njit
def sweep_dense(A, first, count, width, lams, X, yy, M, Cinv, U, S, out):  # type: ignore[no-untyped-def]
    # A (q,q) = Z'WZ, X (q,P) = Z'W[X y]; factor g has count[g] levels from column first[g] on.
    # M (q,q) = A Lambda, Cinv (q,q), U (q,P) and S (P,P) are overwritten.
    q, P = X.shape
    p = P - 1
    out[3] = 1.0
    out[4] = yy
    for g in range(first.shape[0]):
        K = width[g]
        for j in range(count[g]):
            at = first[g] + j * K
            for i in range(q):
                for b in range(K):
                    s = 0.0
                    for c in range(K):
                        s += A[i, at + c] * lams[g, c, b]
                    M[i, at + b] = s
    L = np.empty((q, q))
    V = np.empty((q, P))
    for g in range(first.shape[0]):
        K = width[g]
        for j in range(count[g]):
            at = first[g] + j * K
            for a in range(K):
                for i in range(at + K):
                    s = 0.0
                    for c in range(K):
                        s += lams[g, c, a] * M[at + c, i]
                    L[at + a, i] = s
                for c in range(P):
                    s = 0.0
                    for b in range(K):
                        s += lams[g, b, a] * X[at + b, c]
                    V[at + a, c] = s
    for a in range(q):
        L[a, a] += 1.0
    logdet = cholesky(L, q)
    if not logdet < np.inf:
        return
    T = np.empty((q, q))
    inverse_of_factor(L, q, T)
    inverse(T, q, Cinv)
    half_solve(L, q, V)
    for c in range(P):
        for d in range(c + 1):
            s = 0.0
            for a in range(q):
                s -= V[a, c] * V[a, d]
            S[c, d] = s
    back_solve(L, q, V, U)
    for c in range(p):
        S[c, c] += 1.0
    S[p, p] += yy
    out[0] = 2.0 * logdet
    out[3] = 0.0


@njit
def gradient_dense(first, count, width, X, M, Cinv, U, Omega, G):  # type: ignore[no-untyped-def]
    q, P = X.shape
    RO = np.empty((q, P))
    R = np.empty(P)
    for i in range(q):
        for c in range(P):
            s = X[i, c]
            for b in range(q):
                s -= M[i, b] * U[b, c]
            R[c] = s
        for c in range(P):
            s = 0.0
            for d in range(P):
                s += R[d] * Omega[d, c]
            RO[i, c] = s
    for g in range(first.shape[0]):
        K = width[g]
        G[g, :, :] = 0.0
        for j in range(count[g]):
            at = first[g] + j * K
            for a in range(K):
                for b in range(K):
                    s = 0.0
                    for c in range(q):
                        s += M[at + a, c] * Cinv[c, at + b]
                    for c in range(P):
                        s -= RO[at + a, c] * U[at + b, c]
                    G[g, a, b] += 2.0 * s


class DenseProducts:
    """Products of a small model with several grouping factors.

    Parameters
    ----------
    blocks : Z'WZ and Z'W[X y].
    yy, floor : as in `SingleFactor`.

    Attributes
    ----------
    A, X : (q, q) Z'WZ and (q, P) Z'W[X y].
    count, width, first : per factor, its levels, their width, its first column.
    """

    def __init__(self, blocks: BlockSystem, yy: float, floor: float) -> None:
        factors = blocks.factors
        self.count = np.array([f.n_levels for f in factors])
        self.width = np.array([f.width for f in factors])
        self.first = np.concatenate([[0], np.cumsum(self.count * self.width)[:-1]])
        self.order = blocks.q
        q, P = blocks.q, factors[0].columns
        self.X = np.concatenate([f.ztx.reshape(-1, P) for f in factors])
        self.A = np.zeros((q, q))
        for g, f in enumerate(factors):
            at = self.columns(g, np.arange(f.n_levels))
            self.A[at[:, :, None], at[:, None, :]] = f.ztz
        for (g, h), pair in blocks.pairs.items():
            rows, cols = self.columns(g, pair.rows), self.columns(h, pair.cols)
            self.A[rows[:, :, None], cols[:, None, :]] = pair.values
            self.A[cols[:, :, None], rows[:, None, :]] = np.swapaxes(pair.values, 1, 2)
        self.yy = yy
        self.floor = floor

    def columns(self, g: int, codes: np.ndarray) -> np.ndarray:
        """Return the scalar columns of some levels of factor g, (len(codes), width)."""
        K = int(self.width[g])
        out: np.ndarray = int(self.first[g]) + codes[:, None] * K + np.arange(K)
        return out


class SmallDense(DenseProducts):
    """Buffers and products of a small model with several grouping factors; see `DenseProducts`."""

    def __init__(self, blocks: BlockSystem, yy: float, floor: float) -> None:
        super().__init__(blocks, yy, floor)
        q, P = self.X.shape
        self._M = np.empty((q, q))
        self._Cinv = np.empty((q, q))
        self._U = np.empty((q, P))
        n_factors, K = self.width.size, int(self.width.max())
        self._lams = np.zeros((n_factors, K, K))
        self._G = np.empty((n_factors, K, K))
        self._out = np.empty(5)

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: float, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C or S has no factor.

        Parameters
        ----------
        nu : n or n - p; where it is negative, -1 / sigma^2 at a sigma that is given.
        """
        for g, lam in enumerate(lambdas):
            K = lam.shape[0]
            self._lams[g, :K, :K] = lam
        out = self._out
        P = self.X.shape[1]
        S, Omega = np.empty((P, P)), np.empty((P, P))  # go out with the value
        layout = (self.first, self.count, self.width)
        sweep_dense(
            self.A, *layout, self._lams, self.X, self.yy, self._M, self._Cinv, self._U,
            S, out,
        )  # fmt: skip
        if out[3] == 0.0:
            profile(S, self.floor, float(nu), reml, Omega, out)
        if out[3] != 0.0:
            return None
        G: list[Matrix] = []
        if gradient:
            gradient_dense(*layout, self.X, self._M, self._Cinv, self._U, Omega, self._G)
            G = [self._G[g, :K, :K].copy() for g, K in enumerate(self.width)]
        return FusedValue(
            float(out[0]), float(out[1]), float(out[2]), float(out[4]), G, Omega, S
        )
