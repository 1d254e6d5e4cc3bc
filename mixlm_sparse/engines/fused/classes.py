"""Levels that have the same block of Z'WZ, evaluated once for all of them.

In a balanced design all levels of a grouping factor have one block A, and with a random intercept
alone there are as many blocks as sizes of groups.  Let class c hold n_c levels with the block A_c,
and let x_j = Z_j'W[X y] (K, P) be what is a level's own.  With C_c = Lambda'A_c Lambda + I and
U_c = C_c^{-1} Lambda' (K, K), what an evaluation needs of the levels is in

    M_c = sum_j vec(x_j) vec(x_j)'       (KP, KP), does not depend on theta

    log|C| = sum_c n_c log|C_c|
    [X y]'V^{-1}[X y] = [X y]'W[X y] - sum_c sum_ab (Lambda U_c)_ab M_c[a., b.]
    dd/dLambda = 2 sum_c { n_c A_c Lambda C_c^{-1} - (I - A_c Lambda U_c) H_c U_c' }
    H_c[a, b] = sum_st Omega_st M_c[as, bt]

so that it costs the same however many levels there are (see `levels` for the sweeps over them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Vector
from mixlm_sparse.engines.compiled import inside, njit
from mixlm_sparse.engines.fused.profile import (
    back_solve,
    cholesky,
    half_solve,
    inverse,
    inverse_of_factor,
)

# So many levels are looked at before all are.
SAMPLE = 512
# Blocks that differ by less, in units of the rounding of the largest number, are the same.
SAME_UNITS = 16.0
# Grid that a block's mark is rounded to, relative to the largest one.
GRID = 2.0**-40


@dataclass(frozen=True, slots=True)
class Classes:
    """Levels by their blocks.

    Parameters
    ----------
    blocks : (C, K, K) blocks of Z'WZ that differ.
    count : (C,) levels of each.
    code : (L,) the class of each level.
    """

    blocks: Array3
    count: Vector
    code: NDArray[np.int64]

    def gram(self, ztx: Array3) -> Array3:
        """Return M (C, KP, KP) from Z'W[X y] (L, K, P)."""
        L, K, P = ztx.shape
        rows = ztx.reshape(L, K * P)
        if self.count.size == 1:
            return np.ascontiguousarray((rows.T @ rows)[None])
        order = np.argsort(self.code, kind="stable")
        stops = np.cumsum(self.count).astype(np.int64)
        parts = np.split(rows[order], stops[:-1])
        return np.stack([part.T @ part for part in parts])


def classes_of(ztz: Array3, P: int) -> Classes | None:
    """Find the levels with equal blocks (L, K, K); None where too many differ to be worth while."""
    L, K, _ = ztz.shape
    most = L // (K * P)
    flat = ztz.reshape(L, K * K)
    largest = float(np.abs(flat).max(initial=0.0))
    if most < 1 or not 0.0 < largest < np.inf:
        return None
    same = SAME_UNITS * np.finfo(np.float64).eps * largest
    sampled = flat[:: max(1, L // SAMPLE)]
    # a balanced design, whose last level is like the first, as a glance at one number says
    if abs(flat[-1, 0] - flat[0, 0]) <= same and all(
        np.abs(some - flat[0]).max() <= same
        for some in ((flat,) if L <= SAMPLE else (sampled, flat))
    ):
        return Classes(ztz[:1], np.array([float(L)]), np.zeros(L, dtype=np.int64))
    # a mark tells blocks apart, whose numbers are multiplied by ones without a common measure
    weights = np.sqrt(np.arange(2.0, 2.0 + K * K)) / largest
    sample = _marks(sampled, weights)
    known = np.unique(sample)
    if known.size > most or (L > SAMPLE and 2 * known.size > sample.size):
        return None
    marks = sample if len(sampled) == L else _marks(flat, weights)
    at = np.minimum(np.searchsorted(known, marks), known.size - 1)
    new = known[at] != marks
    if new.any():
        known = np.union1d(known, marks[new])
        if known.size > most:
            return None
        at = np.searchsorted(known, marks)
    first = np.empty(known.size, dtype=np.int64)
    first[at[::-1]] = np.arange(L - 1, -1, -1)
    blocks = np.ascontiguousarray(ztz[first])
    unlike = np.abs(flat - flat[first][at]).max()
    if not unlike <= same:
        return None
    count = np.bincount(at, minlength=known.size).astype(np.float64)
    return Classes(blocks, count, at.astype(np.int64))


def _marks(flat: NDArray[np.float64], weights: Vector) -> NDArray[np.float64]:
    return np.asarray(np.rint((flat @ weights) / GRID))


@inside
def _product(A, B, K, out):  # type: ignore[no-untyped-def]
    # out (K, K) = A B
    for a in range(K):
        for b in range(K):
            s = 0.0
            for c in range(K):
                s += A[a, c] * B[c, b]
            out[a, b] = s


@njit
def sweep_classes(blocks, count, M, yy, lam, Cinv, U, S, out):  # type: ignore[no-untyped-def]
    # blocks (C,K,K), count (C,), M (C,KP,KP), lam (K,K); Cinv, U (C,K,K) and S (P,P) are
    # overwritten.
    n_classes, K, _ = blocks.shape
    P = S.shape[0]
    p = P - 1
    AL, C, T = np.empty((K, K)), np.empty((K, K)), np.empty((K, K))
    V = np.empty((K, K))
    for c in range(P):
        for d in range(c + 1):
            S[c, d] = 0.0
        S[c, c] = 1.0
    S[p, p] = yy
    out[3] = 1.0
    out[4] = yy
    logdet = 0.0
    for j in range(n_classes):
        _product(blocks[j], lam, K, AL)
        for a in range(K):
            for b in range(a + 1):
                s = 1.0 if a == b else 0.0
                for c in range(K):
                    s += lam[c, a] * AL[c, b]
                C[a, b] = s
        own = cholesky(C, K)
        if not own < np.inf:
            return
        logdet += count[j] * own
        inverse_of_factor(C, K, T)
        inverse(T, K, Cinv[j])
        for a in range(K):
            for b in range(K):
                V[a, b] = lam[b, a]
        half_solve(C, K, V)
        for a in range(K):
            for b in range(a + 1):
                n = 0.0  # Lambda C^{-1} Lambda', by halves
                for c in range(K):
                    n += V[c, a] * V[c, b]
                for c in range(P):
                    for d in range(c + 1):
                        m = M[j, a * P + c, b * P + d]
                        if a != b:
                            m += M[j, b * P + c, a * P + d]
                        S[c, d] -= n * m
        back_solve(C, K, V, U[j])
    out[0] = 2.0 * logdet
    out[3] = 0.0


@njit
def gradient_classes(blocks, count, M, lam, Cinv, U, Omega, G):  # type: ignore[no-untyped-def]
    n_classes, K, _ = blocks.shape
    P = Omega.shape[0]
    AL, H, R = np.empty((K, K)), np.empty((K, K)), np.empty((K, K))
    G[:, :] = 0.0
    for j in range(n_classes):
        _product(blocks[j], lam, K, AL)
        for a in range(K):
            for b in range(a + 1):
                s = 0.0
                for c in range(P):
                    for d in range(P):
                        s += Omega[c, d] * M[j, a * P + c, b * P + d]
                H[a, b] = s
                H[b, a] = s
        for a in range(K):
            for b in range(K):
                s = H[a, b]
                for c in range(K):
                    t = 0.0
                    for d in range(K):
                        t += U[j, c, d] * H[d, b]
                    s -= AL[a, c] * t
                R[a, b] = s
        for a in range(K):
            for b in range(K):
                s = 0.0
                for c in range(K):
                    s += count[j] * AL[a, c] * Cinv[j, c, b] - R[a, c] * U[j, b, c]
                G[a, b] += 2.0 * s
