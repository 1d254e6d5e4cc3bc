"""What all fused evaluations share: a small Cholesky factor, and beta and sigma profiled out."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.compiled import inside, njit


class FusedValue(NamedTuple):
    """Parts of the criterion at one Lambda; ldRX2 is for the working columns of X."""

    ldL2: float
    ldRX2: float
    pwrss: float
    least_pivot: float  # of S, relative to [X y]'W[X y]
    gradient: list[Matrix]  # per factor, (K, K)
    Omega: Matrix  # (P, P) of the gradient; its last row is enough for beta
    factor: Matrix | None = None  # (P, P) of S, whose lower triangle holds R_X'; small models'

    @property
    def beta(self) -> Vector:
        """(p,) coefficients of the working columns."""
        out: Vector = -self.Omega[-1, :-1] / self.Omega[-1, -1]
        return out


@inside
def cholesky(C, n):  # type: ignore[no-untyped-def]
    # The lower triangle of C (n, n) becomes its factor L; returns sum log diag L, NaN if there is
    # none.
    logdet = 0.0
    for a in range(n):
        for b in range(a + 1):
            s = C[a, b]
            for c in range(b):
                s -= C[a, c] * C[b, c]
            if a == b:
                if not (s > 0.0 and s < np.inf):
                    return np.nan
                C[a, a] = np.sqrt(s)
                logdet += np.log(C[a, a])
            else:
                C[a, b] = s / C[b, b]
    return logdet


@inside
def inverse_of_factor(L, n, T):  # type: ignore[no-untyped-def]
    # T (n, n), upper triangle: L^{-1} transposed, so that inner loops run along rows
    for a in range(n):
        T[a, a] = 1.0 / L[a, a]
        for b in range(a + 1, n):
            s = 0.0
            for c in range(a, b):
                s -= L[b, c] * T[a, c]
            T[a, b] = s / L[b, b]


@inside
def inverse(T, n, out):  # type: ignore[no-untyped-def]
    # (L L')^{-1} = L^{-T} L^{-1} from the T of `inverse_of_factor`
    for a in range(n):
        for b in range(a + 1):
            s = 0.0
            for c in range(a, n):
                s += T[a, c] * T[b, c]
            out[a, b] = s
            out[b, a] = s


@inside
def half_solve(L, n, V):  # type: ignore[no-untyped-def]
    # V (n, P) becomes L^{-1} V.  Products of these keep the digits that C^{-1} V, formed with an
    # inverse, loses by the condition of C where random effects are many times the noise.
    for a in range(n):
        for c in range(V.shape[1]):
            s = V[a, c]
            for b in range(a):
                s -= L[a, b] * V[b, c]
            V[a, c] = s / L[a, a]


@inside
def back_solve(L, n, V, U):  # type: ignore[no-untyped-def]
    # U (n, P) = L^{-T} V
    for a in range(n - 1, -1, -1):
        for c in range(V.shape[1]):
            s = V[a, c]
            for b in range(a + 1, n):
                s -= L[b, a] * U[b, c]
            U[a, c] = s / L[a, a]


@njit
def profile(S, floor, nu, reml, Omega, out):  # type: ignore[no-untyped-def]
    # S (P,P), lower triangle set; on return it holds the factor.  Omega (P,P) is overwritten, with
    # nu / pwrss in the place of 1 / sigma^2, or -nu where nu is negative.
    # out[1:]: ldRX2, pwrss, failed, least pivot relative to 1 (X) and to yy (y)
    P = S.shape[0]
    p = P - 1
    out[3] = 1.0
    least = 1.0
    yy = out[4]
    ldRX2 = cholesky(S, p)
    if not ldRX2 < np.inf:
        return
    for a in range(p):
        least = min(least, S[a, a] * S[a, a])
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
    share = nu / pwrss if nu >= 0.0 else -nu
    for c in range(P):
        for d in range(P):
            Omega[c, d] = share * contrast[c] * contrast[d]
    if reml:
        T = np.empty((p, p))
        Cov = np.empty((p, p))
        inverse_of_factor(S, p, T)
        inverse(T, p, Cov)
        for a in range(p):
            for b in range(p):
                Omega[a, b] += Cov[a, b]


def profile_plain(
    S: Matrix, yy: float, floor: float, nu: float, *, reml: bool
) -> tuple[float, float, float, Matrix, Matrix] | None:
    """Profile beta and sigma out as `profile` does, in NumPy.

    Parameters
    ----------
    S : (P, P), of which the lower triangle is read.
    nu : n or n - p; where it is negative, -1 / sigma^2 at a sigma that is given.

    Returns
    -------
    ldRX2, pwrss, least pivot, Omega (P, P), factor of S (P, P); None where there is no factor.
    """
    p = S.shape[0] - 1
    chol, info = lapack.dpotrf(S, lower=1, clean=1)
    nothing = info == p + 1  # is left of the response beside rounding: any last pivot will do
    if nothing:
        S = S.copy()
        S[p, p] = 2.0 * yy + 1.0
        chol, info = lapack.dpotrf(S, lower=1, clean=1)
    *diagonal, last = chol.diagonal().tolist()
    if info != 0 or not math.isfinite(sum(diagonal) + last):
        return None
    ldRX2, least = 2.0 * sum(map(math.log, diagonal)), min([1.0, *diagonal]) ** 2
    pwrss = 0.0 if nothing else last * last
    if not pwrss > floor:
        pwrss = floor
    weight = nu / pwrss if nu >= 0.0 else -nu
    if weight == np.inf:  # nothing at all is left of the response
        weight = 0.0
    # the last row of L^{-1} is (-beta, 1) / last, the others are those of R_X^{-T}
    half, _ = lapack.dtrtri(chol, lower=1)
    half[p] *= last * math.sqrt(weight)
    rows = half if reml else half[p:]
    Omega = rows.T @ rows
    share = pwrss / yy if yy > 0.0 else 1.0  # of what the fixed part leaves of the response
    return ldRX2, pwrss, min(least, share), Omega, chol


class StackedValues(NamedTuple):
    """Derivatives of the criterion at s Lambda: least pivots (s,) and, per factor, (s, K, K)."""

    least_pivot: Vector
    gradient: list[Array3]


def profile_each(
    S: Array3, yy: float, floor: float, nu: float, *, reml: bool
) -> tuple[Vector, Array3] | None:
    """Do what `profile_plain` does for each of s matrices S (s, P, P).

    Returns
    -------
    least pivots (s,), Omega (s, P, P); None where one of them has no factor.
    """
    least: list[float] = []
    Omega: list[Matrix] = []
    for one in S:  # NumPy's stacks take no triangular form
        found = profile_plain(one, yy, floor, nu, reml=reml)
        if found is None:
            return None
        least.append(found[2])
        Omega.append(found[3])
    return np.array(least), np.array(Omega)
