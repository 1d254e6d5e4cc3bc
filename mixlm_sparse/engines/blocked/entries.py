"""The eliminated levels against the rest: compiled loops over the entries of a coupling.

Level j of an eliminated factor meets the scalar columns cols[ptr[j]:ptr[j+1]] of the rest; entry e
holds a K-vector W[e].  The columns of one level of the rest are entries one after another.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines.compiled import njit


@njit
def _rank_update_one(ptr, cols, W, S):  # type: ignore[no-untyped-def]
    # of one column; two entries at a time share what they read
    for j in range(ptr.shape[0] - 1):
        lo, hi = ptr[j], ptr[j + 1]
        e = lo
        while e < hi:
            two = e + 1 < hi
            w, r = W[e, 0], cols[e]
            if two:
                v, q = W[e + 1, 0], cols[e + 1]
                for f in range(lo, e):
                    x, c = W[f, 0], cols[f]
                    S[r, c] -= w * x
                    S[q, c] -= v * x
                S[q, r] -= w * v
                S[q, q] -= v * v
            else:
                for f in range(lo, e):
                    S[r, cols[f]] -= w * W[f, 0]
            S[r, r] -= w * w
            e += 2


@njit
def _rank_update_two(ptr, cols, W, S):  # type: ignore[no-untyped-def]
    # of two columns: a loop over them would be most of the time
    for j in range(ptr.shape[0] - 1):
        lo, hi = ptr[j], ptr[j + 1]
        e = lo
        while e < hi:
            two = e + 1 < hi
            w0, w1, r = W[e, 0], W[e, 1], cols[e]
            if two:
                v0, v1, q = W[e + 1, 0], W[e + 1, 1], cols[e + 1]
                for f in range(lo, e):
                    x, y, c = W[f, 0], W[f, 1], cols[f]
                    S[r, c] -= w0 * x + w1 * y
                    S[q, c] -= v0 * x + v1 * y
                S[q, r] -= w0 * v0 + w1 * v1
                S[q, q] -= v0 * v0 + v1 * v1
            else:
                for f in range(lo, e):
                    S[r, cols[f]] -= w0 * W[f, 0] + w1 * W[f, 1]
            S[r, r] -= w0 * w0 + w1 * w1
            e += 2


@njit
def _rank_update_more(ptr, cols, W, S):  # type: ignore[no-untyped-def]
    K = W.shape[1]
    for j in range(ptr.shape[0] - 1):
        for e in range(ptr[j], ptr[j + 1]):
            r = cols[e]
            for f in range(ptr[j], e + 1):
                s = 0.0
                for a in range(K):
                    s += W[e, a] * W[f, a]
                S[r, cols[f]] -= s


def rank_update(ptr: np.ndarray, cols: IntVector, W: Matrix, S: Matrix) -> None:
    """Subtract W W', summed over levels, from the lower triangle of S (m, m), in place.

    Parameters
    ----------
    ptr, cols : the entries of every level; cols ascend within a level.
    W : (entries, K).
    """
    kernel = {1: _rank_update_one, 2: _rank_update_two}.get(W.shape[1], _rank_update_more)
    kernel(ptr, cols, W, S)


@njit
def times_inverse(ptr, cols, E, P, out):  # type: ignore[no-untyped-def]
    # out[e] = sum_f E[f] P[cols f, cols e] within a level; P symmetric, lower triangle stored
    n_levels = ptr.shape[0] - 1
    K = E.shape[1]
    if K == 1:
        for j in range(n_levels):
            for e in range(ptr[j], ptr[j + 1]):
                r = cols[e]
                x = E[e, 0]
                s = 0.0
                for f in range(ptr[j], e):
                    p = P[r, cols[f]]
                    s += E[f, 0] * p
                    out[f, 0] += x * p
                out[e, 0] += s + x * P[r, r]
        return
    for j in range(n_levels):
        for e in range(ptr[j], ptr[j + 1]):
            r = cols[e]
            for f in range(ptr[j], e):
                p = P[r, cols[f]]
                for a in range(K):
                    out[e, a] += E[f, a] * p
                    out[f, a] += E[e, a] * p
            p = P[r, r]
            for a in range(K):
                out[e, a] += E[e, a] * p


@njit
def _inside_one(ptr, cols, W, P, out):  # type: ignore[no-untyped-def]
    # of one column; two entries at a time share what they read
    for j in range(ptr.shape[0] - 1):
        lo, hi = ptr[j], ptr[j + 1]
        total = 0.0
        e = lo
        while e < hi:
            two = e + 1 < hi
            w, r, s = W[e, 0], cols[e], 0.0
            if two:
                v, q, u = W[e + 1, 0], cols[e + 1], 0.0
                for f in range(lo, e):
                    x, c = W[f, 0], cols[f]
                    s += x * P[r, c]
                    u += x * P[q, c]
                total += v * (2.0 * (u + w * P[q, r]) + v * P[q, q])
            else:
                for f in range(lo, e):
                    s += W[f, 0] * P[r, cols[f]]
            total += w * (2.0 * s + w * P[r, r])
            e += 2
        out[j, 0, 0] = total


@njit
def _inside_two(ptr, cols, W, P, out):  # type: ignore[no-untyped-def]
    # of two columns: a loop over them would be most of the time
    for j in range(ptr.shape[0] - 1):
        lo, hi = ptr[j], ptr[j + 1]
        t00, t10, t11 = 0.0, 0.0, 0.0
        e = lo
        while e < hi:
            two = e + 1 < hi
            w0, w1, r = W[e, 0], W[e, 1], cols[e]
            s0, s1 = 0.0, 0.0
            if two:
                v0, v1, q = W[e + 1, 0], W[e + 1, 1], cols[e + 1]
                u0, u1 = 0.0, 0.0
                for f in range(lo, e):
                    x, y, c = W[f, 0], W[f, 1], cols[f]
                    p, g = P[r, c], P[q, c]
                    s0 += x * p
                    s1 += y * p
                    u0 += x * g
                    u1 += y * g
                g, p = P[q, r], 0.5 * P[q, q]
                u0 += g * w0 + p * v0
                u1 += g * w1 + p * v1
                t00 += 2.0 * v0 * u0
                t10 += v1 * u0 + v0 * u1
                t11 += 2.0 * v1 * u1
            else:
                for f in range(lo, e):
                    p = P[r, cols[f]]
                    s0 += W[f, 0] * p
                    s1 += W[f, 1] * p
            p = 0.5 * P[r, r]
            s0 += p * w0
            s1 += p * w1
            t00 += 2.0 * w0 * s0
            t10 += w1 * s0 + w0 * s1
            t11 += 2.0 * w1 * s1
            e += 2
        out[j, 0, 0], out[j, 1, 1] = t00, t11
        out[j, 0, 1], out[j, 1, 0] = t10, t10


@njit
def _inside_more(ptr, cols, W, P, out):  # type: ignore[no-untyped-def]
    K = W.shape[1]
    s = np.empty(K)
    for j in range(ptr.shape[0] - 1):
        for a in range(K):
            for b in range(K):
                out[j, a, b] = 0.0
        for e in range(ptr[j], ptr[j + 1]):
            r = cols[e]
            for a in range(K):
                s[a] = 0.5 * P[r, r] * W[e, a]
            for f in range(ptr[j], e):
                p = P[r, cols[f]]
                for a in range(K):
                    s[a] += W[f, a] * p
            for a in range(K):
                for b in range(K):
                    out[j, a, b] += W[e, a] * s[b] + s[a] * W[e, b]


def inside_levels(ptr: np.ndarray, cols: IntVector, W: Matrix, P: Matrix) -> Array3:
    """Return sum_ef W[e] P[cols e, cols f] W[f]' over the entries of every level, (L, K, K).

    Parameters
    ----------
    P : (m, m) symmetric, of which the lower triangle is set.
    """
    K = W.shape[1]
    out = np.empty((ptr.size - 1, K, K))
    {1: _inside_one, 2: _inside_two}.get(K, _inside_more)(ptr, cols, W, P, out)
    return out


@njit
def scale_entries(first, A, lam, W):  # type: ignore[no-untyped-def]
    # W[e + b] = sum_c lam[c, b] A[e + c], e the first entry of a level of the rest
    n, K, Kr = first.shape[0], A.shape[1], lam.shape[0]
    for t in range(n):
        e = first[t]
        for b in range(Kr):
            for a in range(K):
                s = 0.0
                for c in range(Kr):
                    s += lam[c, b] * A[e + c, a]
                W[e + b, a] = s


@njit
def times_by_level(ptr, M, W):  # type: ignore[no-untyped-def]
    # W[e] becomes M_j W[e], j the level of entry e
    K = W.shape[1]
    w = np.empty(K)
    for j in range(ptr.shape[0] - 1):
        for e in range(ptr[j], ptr[j + 1]):
            for a in range(K):
                w[a] = W[e, a]
            for a in range(K):
                s = 0.0
                for b in range(K):
                    s += M[j, a, b] * w[b]
                W[e, a] = s


@njit
def products_by_level(ptr, X, E, out):  # type: ignore[no-untyped-def]
    # out[j] += X[e] E[e]' over the entries of level j
    K = X.shape[1]
    for j in range(ptr.shape[0] - 1):
        for e in range(ptr[j], ptr[j + 1]):
            for a in range(K):
                for b in range(K):
                    out[j, a, b] += X[e, a] * E[e, b]


@njit
def gather_blocks(whole, rows, cols, first, out):  # type: ignore[no-untyped-def]
    # out[t] (K, Kh) = whole[rows[t], :, first + cols[t] Kh :], whole (L, K, m)
    n, K, Kh = out.shape
    for t in range(n):
        at = first + cols[t] * Kh
        for a in range(K):
            for b in range(Kh):
                out[t, a, b] = whole[rows[t], a, at + b]
