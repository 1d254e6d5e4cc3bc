"""One grouping factor: the criterion and its gradient in one compiled pass over the levels.

With a single factor C is block diagonal and nothing couples the levels but beta, so an evaluation
is two sweeps over (K, K) blocks: the first gathers log|C| and [X y]'V^{-1}[X y], the second, with
beta known, the gradient.  For small models this spares the calls, for large ones the memory.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse._types import Array3, Matrix
from mixlm_sparse.factor.kernels import njit


@njit
def _evaluate(ztz, ztx, yy, floor, lam, nu, reml, want_gradient, U, Cinv, G, out):  # type: ignore[no-untyped-def]
    # ztz (L,K,K), ztx (L,K,P), lam (K,K); U (L,K,P), Cinv (L,K,K) and G (K,K) are overwritten.
    # out: ldL2, ldRX2, pwrss, failed, least pivot relative to 1 (X) and to yy (y)
    L, K, P = ztx.shape
    p = P - 1
    AL = np.empty((K, K))
    chol = np.empty((K, K))
    inv = np.empty((K, K))
    V = np.empty((K, P))
    S = np.zeros((P, P))
    for c in range(p):
        S[c, c] = 1.0
    S[p, p] = yy
    out[3] = 1.0
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
    # Cholesky of S, lower; its last row holds the right-hand side and sqrt(pwrss)
    ldRX2 = 0.0
    out[4] = 0.0
    least = 1.0
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
    out[4] = min(least, pwrss / yy)
    out[3] = 0.0
    if not want_gradient:
        return
    Omega = np.zeros((P, P))
    a_vec = np.empty(P)
    a_vec[p] = 1.0
    for b in range(p - 1, -1, -1):  # beta by back substitution
        s = S[p, b]
        for c in range(b + 1, p):
            s -= S[c, b] * (-a_vec[c])
        a_vec[b] = -s / S[b, b]
    for c in range(P):
        for d in range(P):
            Omega[c, d] = nu / pwrss * a_vec[c] * a_vec[d]
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


class SingleFactor:
    """Buffers and products of a model with one grouping factor.

    Parameters
    ----------
    ztz : (L, K, K).
    ztx : (L, K, p + 1).
    yy, floor : residual sum of squares of least squares, and the least pwrss that is not rounding.
    cancellation_limit : least relative pivot of [X y]'V^{-1}[X y] that is taken from here.
    """

    def __init__(
        self, ztz: Array3, ztx: Array3, yy: float, floor: float, cancellation_limit: float
    ) -> None:
        self._ztz = np.ascontiguousarray(ztz)
        self._ztx = np.ascontiguousarray(ztx)
        self._yy = yy
        self._floor = floor
        self._cancellation_limit = cancellation_limit
        self._U = np.empty_like(self._ztx)
        self._Cinv = np.empty_like(self._ztz)
        self._out = np.empty(5)

    def evaluate(
        self, lam: Matrix, nu: int, *, reml: bool, gradient: bool
    ) -> tuple[float, float, float, Matrix] | None:
        """Return ldL2, ldRX2, pwrss and the gradient (K, K).

        None where a factor does not exist or too many digits have cancelled (the caller then takes
        the careful way).
        """
        K = self._ztz.shape[1]
        G = np.empty((K, K))
        _evaluate(
            self._ztz,
            self._ztx,
            self._yy,
            self._floor,
            np.ascontiguousarray(lam),
            float(nu),
            reml,
            gradient,
            self._U,
            self._Cinv,
            G,
            self._out,
        )
        if self._out[3] != 0.0 or self._out[4] < self._cancellation_limit:
            return None
        return float(self._out[0]), float(self._out[1]), float(self._out[2]), G
