"""Criterion and gradient in few compiled sweeps, where nothing need be kept sparse.

Two kinds of models repay this: those with one grouping factor, in which nothing couples the levels
but beta (C is block diagonal, two sweeps over (K, K) blocks), and small ones with several factors,
whose C is treated as one dense matrix.  Calls into NumPy would cost a small model more than its
arithmetic, and a large one the memory of its intermediates.

Both gather S = [X y]'V^{-1}[X y] in a first sweep, read pwrss, beta and Omega off its Cholesky
factor, and form the gradient in a second (see `mixlm_sparse.solve.criterion` for the formulas).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.interface import BlockSystem
from mixlm_sparse.engines.kernels import njit


class FusedValue(NamedTuple):
    """Parts of the criterion at one Lambda; ldRX2 is for the working columns of X."""

    ldL2: float
    ldRX2: float
    pwrss: float
    least_pivot: float  # of S, relative to [X y]'W[X y]
    gradient: list[Matrix]  # per factor, (K, K)


@njit
def _profile(S, floor, nu, reml, Omega, out):  # type: ignore[no-untyped-def]
    # S (P,P), lower triangle set; on return it holds the factor.  Omega (P,P) is overwritten.
    # out[1:]: ldRX2, pwrss, failed, least pivot relative to 1 (X) and to yy (y)
    P = S.shape[0]
    p = P - 1
    out[3] = 1.0
    ldRX2 = 0.0
    least = 1.0
    yy = out[4]
    for a in range(p):
        for b in range(a + 1):
            s = S[a, b]
            for c in range(b):
                s -= S[a, c] * S[b, c]
            if a == b:
                if not (s > 0.0 and s < np.inf):
                    return
                least = min(least, s)
                S[a, a] = np.sqrt(s)
                ldRX2 += np.log(S[a, a])
            else:
                S[a, b] = s / S[b, b]
    pwrss = S[p, p]
    for b in range(p):
        s = S[p, b]
        for c in range(b):
            s -= S[p, c] * S[b, c]
        S[p, b] = s / S[b, b]
        pwrss -= S[p, b] * S[p, b]
    if not pwrss > floor:
        pwrss = floor
    out[1] = 2.0 * ldRX2
    out[2] = pwrss
    out[3] = 0.0
    out[4] = min(least, pwrss / yy)
    contrast = np.empty(P)  # (-beta, 1)
    contrast[p] = 1.0
    for b in range(p - 1, -1, -1):
        s = -S[p, b]
        for c in range(b + 1, p):
            s -= S[c, b] * contrast[c]
        contrast[b] = s / S[b, b]
    for c in range(P):
        for d in range(P):
            Omega[c, d] = nu / pwrss * contrast[c] * contrast[d]
    if reml:
        Rinv = np.zeros((p, p))  # inverse of the lower factor
        for a in range(p):
            Rinv[a, a] = 1.0 / S[a, a]
            for b in range(a + 1, p):
                s = 0.0
                for c in range(a, b):
                    s -= S[b, c] * Rinv[c, a]
                Rinv[b, a] = s / S[b, b]
        for a in range(p):
            for b in range(p):
                s = 0.0
                for c in range(max(a, b), p):
                    s += Rinv[c, a] * Rinv[c, b]
                Omega[a, b] += s


@njit
def _sweep_levels(ztz, ztx, yy, lam, U, Cinv, S, out):  # type: ignore[no-untyped-def]
    # ztz (L,K,K), ztx (L,K,P), lam (K,K); U (L,K,P), Cinv (L,K,K) and S (P,P) are overwritten.
    L, K, P = ztx.shape
    p = P - 1
    AL = np.empty((K, K))
    chol = np.empty((K, K))
    inv = np.empty((K, K))
    V = np.empty((K, P))
    S[:, :] = 0.0
    for c in range(p):
        S[c, c] = 1.0
    S[p, p] = yy
    out[3] = 1.0
    out[4] = yy
    logdet = 0.0
    for j in range(L):
        for a in range(K):
            for b in range(K):
                s = 0.0
                for c in range(K):
                    s += ztz[j, a, c] * lam[c, b]
                AL[a, b] = s
        for a in range(K):
            for b in range(a + 1):
                s = 1.0 if a == b else 0.0
                for c in range(K):
                    s += lam[c, a] * AL[c, b]
                for c in range(b):
                    s -= chol[a, c] * chol[b, c]
                if a == b:
                    if not (s > 0.0 and s < np.inf):
                        return
                    chol[a, a] = np.sqrt(s)
                    logdet += np.log(chol[a, a])
                else:
                    chol[a, b] = s / chol[b, b]
        for a in range(K):  # inverse of the factor
            inv[a, a] = 1.0 / chol[a, a]
            for b in range(a + 1, K):
                s = 0.0
                for c in range(a, b):
                    s -= chol[b, c] * inv[c, a]
                inv[b, a] = s / chol[b, b]
        for a in range(K):
            for b in range(a + 1):
                s = 0.0
                for c in range(a, K):
                    s += inv[c, a] * inv[c, b]
                Cinv[j, a, b] = s
                Cinv[j, b, a] = s
        for a in range(K):
            for c in range(P):
                s = 0.0
                for b in range(K):
                    s += lam[b, a] * ztx[j, b, c]
                V[a, c] = s
        for a in range(K):
            for c in range(P):
                s = 0.0
                for b in range(K):
                    s += Cinv[j, a, b] * V[b, c]
                U[j, a, c] = s
        for c in range(P):
            for d in range(c + 1):
                s = 0.0
                for a in range(K):
                    s += V[a, c] * U[j, a, d]
                S[c, d] -= s
    out[0] = 2.0 * logdet
    out[3] = 0.0


@njit
def _gradient_levels(ztz, ztx, lam, U, Cinv, Omega, G):  # type: ignore[no-untyped-def]
    L, K, P = ztx.shape
    AL = np.empty((K, K))
    G[:, :] = 0.0
    B = np.empty((K, P))
    R = np.empty((K, P))
    for j in range(L):
        for a in range(K):
            for c in range(P):
                s = 0.0
                for b in range(K):
                    s += lam[a, b] * U[j, b, c]
                B[a, c] = s
        for a in range(K):
            for c in range(P):
                s = ztx[j, a, c]
                for b in range(K):
                    s -= ztz[j, a, b] * B[b, c]
                R[a, c] = s
        for a in range(K):
            for b in range(K):
                s = 0.0
                for c in range(K):
                    s += ztz[j, a, c] * lam[c, b]
                AL[a, b] = s
        for a in range(K):
            for c in range(P):
                s = 0.0
                for d in range(P):
                    s += R[a, d] * Omega[d, c]
                B[a, c] = s
        for a in range(K):
            for b in range(K):
                s = 0.0
                for c in range(K):
                    s += AL[a, c] * Cinv[j, c, b]
                for c in range(P):
                    s -= B[a, c] * U[j, b, c]
                G[a, b] += 2.0 * s


@njit
def _sweep_dense(A, first, count, width, lams, X, yy, M, Cinv, U, S, out):  # type: ignore[no-untyped-def]
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
    logdet = 0.0
    for a in range(q):
        L[a, a] += 1.0
        for b in range(a + 1):
            s = L[a, b]
            for c in range(b):
                s -= L[a, c] * L[b, c]
            if a == b:
                if not (s > 0.0 and s < np.inf):
                    return
                L[a, a] = np.sqrt(s)
                logdet += np.log(L[a, a])
            else:
                L[a, b] = s / L[b, b]
    # inverse of the factor, transposed so that the inner loops run along rows
    T = np.zeros((q, q))
    for a in range(q):
        T[a, a] = 1.0 / L[a, a]
        for b in range(a + 1, q):
            s = 0.0
            for c in range(a, b):
                s -= L[b, c] * T[a, c]
            T[a, b] = s / L[b, b]
    for a in range(q):
        for b in range(a + 1):
            s = 0.0
            for c in range(a, q):
                s += T[a, c] * T[b, c]
            Cinv[a, b] = s
            Cinv[b, a] = s
    for a in range(q):
        for c in range(P):
            s = 0.0
            for b in range(q):
                s += Cinv[a, b] * V[b, c]
            U[a, c] = s
    for c in range(P):
        for d in range(c + 1):
            s = 0.0
            for a in range(q):
                s -= V[a, c] * U[a, d]
            S[c, d] = s
    for c in range(p):
        S[c, c] += 1.0
    S[p, p] += yy
    out[0] = 2.0 * logdet
    out[3] = 0.0


@njit
def _gradient_dense(first, count, width, X, M, Cinv, U, Omega, G):  # type: ignore[no-untyped-def]
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


class SingleFactor:
    """Buffers and products of a model with one grouping factor.

    Parameters
    ----------
    ztz : (L, K, K).
    ztx : (L, K, p + 1).
    yy, floor : residual sum of squares of least squares, and the least pwrss that is not rounding.
    """

    def __init__(self, ztz: Array3, ztx: Array3, yy: float, floor: float) -> None:
        self._ztz = np.ascontiguousarray(ztz)
        self._ztx = np.ascontiguousarray(ztx)
        self._yy = yy
        self._floor = floor
        self._U = np.empty_like(self._ztx)
        self._Cinv = np.empty_like(self._ztz)
        P = self._ztx.shape[2]
        self._S = np.empty((P, P))
        self._Omega = np.empty((P, P))
        self._out = np.empty(5)

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: int, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C or S has no factor."""
        lam = np.ascontiguousarray(lambdas[0])
        out = self._out
        _sweep_levels(self._ztz, self._ztx, self._yy, lam, self._U, self._Cinv, self._S, out)
        if out[3] == 0.0:
            _profile(self._S, self._floor, float(nu), reml, self._Omega, out)
        if out[3] != 0.0:
            return None
        G: list[Matrix] = []
        if gradient:
            G = [np.empty(lam.shape)]
            _gradient_levels(self._ztz, self._ztx, lam, self._U, self._Cinv, self._Omega, G[0])
        return FusedValue(float(out[0]), float(out[1]), float(out[2]), float(out[4]), G)


class SmallDense:
    """Buffers and products of a small model with several grouping factors.

    Parameters
    ----------
    blocks : Z'WZ and Z'W[X y].
    yy, floor : as in `SingleFactor`.
    """

    def __init__(self, blocks: BlockSystem, yy: float, floor: float) -> None:
        factors = blocks.factors
        self._count = np.array([f.n_levels for f in factors])
        self._width = np.array([f.width for f in factors])
        self._first = np.concatenate([[0], np.cumsum(self._count * self._width)[:-1]])
        q, P = blocks.q, factors[0].ztx.shape[2]
        self._X = np.concatenate([f.ztx.reshape(-1, P) for f in factors])
        self._A = np.zeros((q, q))
        for g, f in enumerate(factors):
            at = self._columns(g, np.arange(f.n_levels))
            self._A[at[:, :, None], at[:, None, :]] = f.ztz
        for (g, h), pair in blocks.pairs.items():
            rows, cols = self._columns(g, pair.rows), self._columns(h, pair.cols)
            self._A[rows[:, :, None], cols[:, None, :]] = pair.values
            self._A[cols[:, :, None], rows[:, None, :]] = np.swapaxes(pair.values, 1, 2)
        self._yy = yy
        self._floor = floor
        self._M = np.empty((q, q))
        self._Cinv = np.empty((q, q))
        self._U = np.empty((q, P))
        self._S = np.empty((P, P))
        self._Omega = np.empty((P, P))
        K = int(self._width.max())
        self._lams = np.zeros((len(factors), K, K))
        self._G = np.empty((len(factors), K, K))
        self._out = np.empty(5)

    def _columns(self, g: int, codes: np.ndarray) -> np.ndarray:
        K = int(self._width[g])
        out: np.ndarray = int(self._first[g]) + codes[:, None] * K + np.arange(K)
        return out

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: int, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C or S has no factor."""
        for g, lam in enumerate(lambdas):
            K = lam.shape[0]
            self._lams[g, :K, :K] = lam
        out = self._out
        layout = (self._first, self._count, self._width)
        _sweep_dense(
            self._A, *layout, self._lams, self._X, self._yy, self._M, self._Cinv, self._U,
            self._S, out,
        )  # fmt: skip
        if out[3] == 0.0:
            _profile(self._S, self._floor, float(nu), reml, self._Omega, out)
        if out[3] != 0.0:
            return None
        G: list[Matrix] = []
        if gradient:
            _gradient_dense(*layout, self._X, self._M, self._Cinv, self._U, self._Omega, self._G)
            G = [self._G[g, :K, :K].copy() for g, K in enumerate(self._width)]
        return FusedValue(float(out[0]), float(out[1]), float(out[2]), float(out[4]), G)
