"""The compiled search's start and its guess of the curvature (see `solve.profiled.start`)."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.engines.compiled import inlined, inside
from mixlm_sparse.engines.fused.descent import (
    COLUMN,
    COLUMNS,
    FACTOR,
    FIRST_LEVEL,
    NU,
    TURNED,
    WIDTH,
    YY,
    set_factors,
)
from mixlm_sparse.engines.fused.profile import cholesky
from mixlm_sparse.engines.fused.small import symmetric_eigen

LEAST_START, GREATEST_START = 0.1, 10.0
MIN_NOISE_SHARE = 0.1
MAX_LEVELS = 4096
FLOOR = 1e-2


@inside
def moment_start(df, phi, model):  # type: ignore[no-untyped-def]
    # phi (m,) by matching squared level totals of the residuals to their expectation
    ztz, ztx, terms, layout = model.ztz, model.ztx, model.terms, model.layout
    P = ztx.shape[2]
    s_sq = model.scalars[YY] / df
    n_terms = terms.shape[0]
    share = np.zeros((n_terms, ztz.shape[1]))
    total = 0.0
    for t in range(n_terms):
        for c in range(terms[t, 0, COLUMNS]):
            at = terms[t, 0, COLUMN] + c
            f = terms[t, 0, FACTOR]
            squares, expected, weight = 0.0, 0.0, 0.0
            for j in range(layout[FIRST_LEVEL, f], layout[FIRST_LEVEL, f + 1]):
                a, r = ztz[j, at, at], ztx[j, at, P - 1]
                free = a
                for d in range(P - 1):
                    free -= ztx[j, at, d] * ztx[j, at, d]
                if free < 0.0:
                    free = 0.0
                squares += r * r
                expected += free
                weight += free * a
            if weight - expected > 0.0:
                share[t, c] = (squares / s_sq - expected) / (weight - expected)
            if not share[t, c] > 0.0:
                share[t, c] = 0.0
            total += share[t, c]
    noise = 1.0 - total
    if noise < MIN_NOISE_SHARE:
        noise = MIN_NOISE_SHARE
    for i in range(phi.shape[0]):
        phi[i] = 0.0
    for t in range(n_terms):
        for c in range(terms[t, 0, COLUMNS] - 1, -1, -1):  # of one parameter the first counts
            relative = np.sqrt(share[t, c] / noise)
            if relative < LEAST_START:
                relative = LEAST_START
            if relative > GREATEST_START:
                relative = GREATEST_START
            phi[terms[t, 1 + c, c]] = relative


@inlined
def second_moments(ztz, count, lo, hi, K, lams, g, E, total):  # type: ignore[no-untyped-def]
    # E[ab, cd] = sum_j n_j D_ab D_cd, total = sum_j n_j D, D = A - A Lambda C^{-1} Lambda'A, over
    # blocks A_j of n_j levels. Returns the number of levels over that of those looked at.
    stride = -(-(hi - lo) // MAX_LEVELS)
    C, W, D = np.empty((K, K)), np.empty((K, K)), np.empty(K * K)
    for e in range(K * K):
        total[e] = 0.0
        for f in range(K * K):
            E[e, f] = 0.0
    levels, seen = 0.0, 0.0
    for j in range(lo, hi):
        levels += count[j]
    for j in range(lo, hi, stride):
        seen += count[j]
        for a in range(K):
            for b in range(K):
                s = 0.0
                for c in range(K):
                    s += lams[0, g, c, a] * ztz[j, c, b]
                W[a, b] = s  # Lambda'A
        for a in range(K):
            for b in range(a + 1):
                s = 1.0 if a == b else 0.0
                for c in range(K):
                    s += W[a, c] * lams[0, g, c, b]
                C[a, b] = s
        if not cholesky(C, K) < np.inf:
            return 0.0
        for b in range(K):
            for a in range(K):
                s = W[a, b]
                for c in range(a):
                    s -= C[a, c] * W[c, b]
                W[a, b] = s / C[a, a]
        for a in range(K):
            for b in range(K):
                s = ztz[j, a, b]
                for c in range(K):
                    s -= W[c, a] * W[c, b]
                D[a * K + b] = s
                total[a * K + b] += count[j] * s
        for e in range(K * K):
            for f in range(K * K):
                E[e, f] += count[j] * D[e] * D[f]
    return levels / seen


@inside
def expected_hessian(phi, H, model):  # type: ignore[no-untyped-def]
    # H (m, m): a positive definite guess of the criterion's Hessian at phi; False where it fails.
    # Long, because every further function costs half a second to compile.
    ztz, terms, layout, lams, turn = (
        model.blocks, model.terms, model.layout, model.factors, model.turn,
    )  # fmt: skip
    turned = model.state[TURNED] != 0
    m = phi.shape[0]
    set_factors(phi, model)
    trace = np.zeros(m)
    for i in range(m):
        for j in range(m):
            H[i, j] = 0.0
    for f in range(layout.shape[1] - 1):
        K = layout[WIDTH, f]
        E, total = np.empty((K * K, K * K)), np.empty(K * K)
        lo, hi = layout[FIRST_LEVEL, f], layout[FIRST_LEVEL, f + 1]
        if model.gram.shape[0] > 0:
            lo, hi = 0, ztz.shape[0]
        scale = second_moments(ztz, model.members, lo, hi, K, lams, f, E, total)
        if not scale > 0.0:
            return False
        sigma = np.zeros((m, K, K))  # dLambda Lambda' + Lambda dLambda' by each parameter
        mine = np.zeros(m, np.bool_)
        for t in range(terms.shape[0]):
            if terms[t, 0, FACTOR] != f:
                continue
            c, k = terms[t, 0, COLUMN], terms[t, 0, COLUMNS]
            for a in range(k):
                for b in range(k):
                    i = terms[t, 1 + a, b]
                    if i < 0:
                        continue
                    mine[i] = True
                    for d in range(k):  # dLambda has Q[:, a] in column b
                        x = 1.0 if d == a else 0.0
                        if turned:
                            x = turn[t, d, a]
                        if x == 0.0:
                            continue
                        for e in range(K):
                            y = x * lams[0, f, e, c + b]
                            sigma[i, c + d, e] += y
                            sigma[i, e, c + d] += y
        left = np.empty((K, K))
        for i in range(m):
            if not mine[i]:
                continue
            for e in range(K * K):
                trace[i] += scale * total[e] * sigma[i, e // K, e % K]
            for a in range(K):
                for d in range(K):
                    s = 0.0
                    for b in range(K):
                        for c in range(K):
                            s += E[a * K + b, c * K + d] * sigma[i, b, c]
                    left[a, d] = scale * s
            for j in range(m):
                if mine[j]:
                    s = 0.0
                    for a in range(K):
                        for d in range(K):
                            s += left[a, d] * sigma[j, a, d]
                    H[i, j] = s
    for i in range(m):
        for j in range(m):
            H[i, j] -= trace[i] * trace[j] / model.scalars[NU]
    # Directions without expected curvature (a zero column) get some.
    A, values, vectors = np.empty((m, m)), np.empty(m), np.empty((m, m))
    for i in range(m):
        for j in range(m):
            A[i, j] = 0.5 * (H[i, j] + H[j, i])
    symmetric_eigen(A, m, values, vectors)
    least = FLOOR * 1e-8
    if values[0] > 1e-8:
        least = FLOOR * values[0]
    for e in range(m):
        if values[e] < least:
            values[e] = least
    for i in range(m):
        for j in range(m):
            s = 0.0
            for e in range(m):
                s += vectors[i, e] * values[e] * vectors[j, e]
            H[i, j] = s
    return True
