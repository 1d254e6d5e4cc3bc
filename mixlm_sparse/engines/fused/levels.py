"""Criterion and gradient of a model with one grouping factor, in two compiled sweeps.

Nothing couples the levels but beta: C is block diagonal.  A first sweep over the (K, K) blocks
gathers S = [X y]'V^{-1}[X y]; pwrss, beta and Omega are read off its Cholesky factor, and a second
sweep forms the gradient (see `mixlm_sparse.solve.criterion` for the formulas).  Where many levels
have the same block of Z'WZ, the sweeps are over the blocks that differ (see `classes`).  Calls into
NumPy would cost a small model more than its arithmetic, and a large one the memory of its
intermediates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.fused.classes import classes_of, gradient_classes, sweep_classes
from mixlm_sparse.engines.fused.profile import (
    FusedValue,
    cholesky,
    half_solve,
    inverse_of_factor,
    profile,
    profile_plain,
)

# Sums over levels are made of partial sums over so many, so that rounding does not grow with the
# number of levels: a criterion of 3e7 over a million levels keeps the digits that the search needs.
CHUNK = 1024
# Numbers of Z'W[X y] from which a sweep takes many times as long as a few calls of NumPy.
LONG_SWEEP = 20_000


@njit
def sweep_levels(ztz, ztx, yy, lam, U, Cinv, S, out):  # type: ignore[no-untyped-def]
    # ztz (L,K,K), ztx (L,K,P), lam (K,K); U (L,K,P), Cinv (L,K,K) and S (P,P) are overwritten.
    # Long, because the loops over a level share its small arrays, and a view of them for each call
    # would cost more than the arithmetic.
    L, K, P = ztx.shape
    p = P - 1
    AL = np.empty((K, K))
    C = np.empty((K, K))
    T = np.empty((K, K))
    V = np.empty((K, P))
    total = np.zeros((P, P))
    S[:, :] = 0.0
    for c in range(p):
        S[c, c] = 1.0
    S[p, p] = yy
    out[3] = 1.0
    out[4] = yy
    logdet, logdets = 0.0, 0.0
    for j in range(L):
        if j % CHUNK == 0:
            logdets += logdet
            logdet = 0.0
            for c in range(P):
                for d in range(c + 1):
                    total[c, d] += S[c, d]
                    S[c, d] = 0.0
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
                C[a, b] = s
        logdet += cholesky(C, K)
        if not logdet < np.inf:
            return
        inverse_of_factor(C, K, T)
        for a in range(K):  # as `inverse` does, without the cost of a view
            for b in range(a + 1):
                s = 0.0
                for c in range(a, K):
                    s += T[a, c] * T[b, c]
                Cinv[j, a, b] = s
                Cinv[j, b, a] = s
        for a in range(K):
            for c in range(P):
                s = 0.0
                for b in range(K):
                    s += lam[b, a] * ztx[j, b, c]
                V[a, c] = s
        half_solve(C, K, V)
        for c in range(P):
            for d in range(c + 1):
                s = 0.0
                for a in range(K):
                    s += V[a, c] * V[a, d]
                S[c, d] -= s
        for a in range(K - 1, -1, -1):  # as `back_solve` does, without the cost of a view
            for c in range(P):
                s = V[a, c]
                for b in range(a + 1, K):
                    s -= C[b, a] * U[j, b, c]
                U[j, a, c] = s / C[a, a]
    for c in range(P):
        for d in range(c + 1):
            S[c, d] += total[c, d]
    out[0] = 2.0 * (logdets + logdet)
    out[3] = 0.0


@njit
def gradient_levels(ztz, ztx, lam, U, Cinv, Omega, G):  # type: ignore[no-untyped-def]
    L, K, P = ztx.shape
    AL = np.empty((K, K))
    G[:, :] = 0.0
    total = np.zeros((K, K))
    B = np.empty((K, P))
    R = np.empty((K, P))
    for j in range(L):
        if j % CHUNK == 0:
            for a in range(K):
                for b in range(K):
                    total[a, b] += G[a, b]
                    G[a, b] = 0.0
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
    for a in range(K):
        for b in range(K):
            G[a, b] += total[a, b]


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
        self.yy = yy
        self.floor = floor
        P = self._ztx.shape[2]
        self.classes = classes_of(self._ztz, P)
        if self.classes is None:
            self._U = np.empty_like(self._ztx)
            self._Cinv = np.empty_like(self._ztz)
        else:
            self.gram = self.classes.gram(self._ztx)
            self._U = np.empty_like(self.classes.blocks)
            self._Cinv = np.empty_like(self.classes.blocks)
        # beside long sweeps, calls of NumPy cost less than the compilation of one more kernel
        self._kernel = self._ztx.size < LONG_SWEEP or profile.kept()
        self._out = np.empty(5)

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: float, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C or S has no factor.

        Parameters
        ----------
        nu : n or n - p; where it is negative, -1 / sigma^2 at a sigma that is given.
        """
        lam = np.ascontiguousarray(lambdas[0])
        out, classes, inside = self._out, self.classes, (self._Cinv, self._U)
        P = self._ztx.shape[2]
        S, Omega = np.empty((P, P)), np.empty((P, P))  # go out with the value
        if classes is None:
            sweep_levels(self._ztz, self._ztx, self.yy, lam, self._U, self._Cinv, S, out)
        else:
            own = (classes.blocks, classes.count, self.gram)
            sweep_classes(*own, self.yy, lam, *inside, S, out)
        if out[3] != 0.0:
            return None
        if self._kernel:
            profile(S, self.floor, float(nu), reml, Omega, out)
            if out[3] != 0.0:
                return None
            ldRX2, pwrss, least = float(out[1]), float(out[2]), float(out[4])
        else:
            found = profile_plain(S, self.yy, self.floor, float(nu), reml=reml)
            if found is None:
                return None
            ldRX2, pwrss, least, Omega, S = found
        G: list[Matrix] = []
        if gradient:
            G = [np.empty(lam.shape)]
            if classes is None:
                gradient_levels(self._ztz, self._ztx, lam, self._U, self._Cinv, Omega, G[0])
            else:
                gradient_classes(*own, lam, *inside, Omega, G[0])
        return FusedValue(float(out[0]), ldRX2, pwrss, least, G, Omega, S)
