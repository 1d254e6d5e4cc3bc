"""The eliminated levels against the rest: compiled loops over the entries of a coupling.

Level j of an eliminated factor meets the scalar columns cols[ptr[j]:ptr[j+1]] of the rest; entry e
holds a K-vector W[e].  The columns of one level of the rest are entries one after another.
"""

from __future__ import annotations

from mixlm_sparse.engines.compiled import njit


@njit
def rank_update(ptr, cols, W, S):  # type: ignore[no-untyped-def]
    # S lower triangle -= W W' summed over levels; cols ascending within a level
    n_levels = ptr.shape[0] - 1
    K = W.shape[1]
    if K == 1:
        for j in range(n_levels):
            for e in range(ptr[j], ptr[j + 1]):
                w = W[e, 0]
                r = cols[e]
                for f in range(ptr[j], e + 1):
                    S[r, cols[f]] -= w * W[f, 0]
        return
    for j in range(n_levels):
        for e in range(ptr[j], ptr[j + 1]):
            r = cols[e]
            for f in range(ptr[j], e + 1):
                s = 0.0
                for a in range(K):
                    s += W[e, a] * W[f, a]
                S[r, cols[f]] -= s


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
def times_by_level(ptr, M, W, out):  # type: ignore[no-untyped-def]
    # out[e] = M_j W[e], j the level of entry e
    K = W.shape[1]
    for j in range(ptr.shape[0] - 1):
        for e in range(ptr[j], ptr[j + 1]):
            for a in range(K):
                s = 0.0
                for b in range(K):
                    s += M[j, a, b] * W[e, b]
                out[e, a] = s


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
