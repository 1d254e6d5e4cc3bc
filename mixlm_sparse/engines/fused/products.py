"""Products of a small model in one compiled call: its basis, sums by level, their orthonormal form.

The arithmetic of a few hundred rows takes microseconds, and the calls into NumPy around it a
hundred times as long.  What is done stands in `solve.products`: `basis.find_basis` (a QR of the
rows), `accumulate.cross_products` (sums in that basis) and `final.orthonormal_products`.  Here it
is done for regular models alone; where columns are combinations of others, are empty or leave the
range of numbers, the call says so and those functions decide.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.engines.compiled import inside, njit

LINEAR, SCALES, ONE_SCALE = 0, 1, 2
CLOSURES = {"linear": LINEAR, "scales": SCALES, "one scale": ONE_SCALE}
# Places in a row of the table of terms.
FIRST, COLUMNS, FACTOR, PLACE, CLOSURE = range(5)
# Columns shorter than this are left to NumPy's form, which knows what to say of them.
SHORTEST = 1e-140
LEAST_PIVOT = 1e-30
# Rows that are summed by themselves, so that rounding does not grow with the number of rows: where
# residuals are small beside the response, it is what is left of them.
SUMMED = 32


@inside
def r_factor(A, m):  # type: ignore[no-untyped-def]
    # The upper triangle of the first m rows of A (n, m), n >= m, becomes the factor of a QR, by
    # Householder's reflections with LAPACK's signs; what is below is overwritten.
    n = A.shape[0]
    w = np.empty(m)
    for j in range(m):
        tail = 0.0
        for i in range(j + 1, n):
            tail += A[i, j] * A[i, j]
        if tail == 0.0:
            continue
        head = A[j, j]
        beta = np.sqrt(head * head + tail)
        if head >= 0.0:
            beta = -beta
        scale = 1.0 / (head - beta)
        for c in range(j + 1, m):
            w[c] = A[j, c]
        for i in range(j + 1, n):
            v = A[i, j] * scale
            A[i, j] = v
            for c in range(j + 1, m):
                w[c] += v * A[i, c]
        tau = (beta - head) / beta
        for c in range(j + 1, m):
            w[c] *= tau
            A[j, c] -= w[c]
        for i in range(j + 1, n):
            v = A[i, j]
            for c in range(j + 1, m):
                A[i, c] -= v * w[c]
        A[j, j] = beta


@inside
def upper_inverse(R, k, out):  # type: ignore[no-untyped-def]
    # out (k, k) = R^{-1} for a regular upper triangular R, with zeros below
    for b in range(k):
        for a in range(k):
            out[a, b] = 0.0
        out[b, b] = 1.0 / R[b, b]
        for a in range(b - 1, -1, -1):
            s = 0.0
            for c in range(a + 1, b + 1):
                s += R[a, c] * out[c, b]
            out[a, b] = -s / R[a, a]


@inside
def regular(R, k, rtol):  # type: ignore[no-untyped-def]
    # Whether every column of an upper triangular R (k, k) has a direction of its own.
    for b in range(k):
        length = 0.0
        for a in range(b + 1):
            length += R[a, b] * R[a, b]
        if not abs(R[b, b]) > rtol * np.sqrt(length):
            return False
    return True


@inside
def term_bases(A, n, terms, at, rtol, Rz):  # type: ignore[no-untyped-def]
    # Rz (T, k, k) of every term from the factor A of all columns; False where one is not regular.
    m = A.shape[1]
    for t in range(terms.shape[0]):
        first, k = terms[t, FIRST], terms[t, COLUMNS]
        own = np.empty((m, k))
        lengths = np.empty(k)
        mean = 0.0
        for b in range(k):
            s = 0.0
            for a in range(m):
                own[a, b] = A[a, at[first + b]] / np.sqrt(n) if a <= at[first + b] else 0.0
                s += own[a, b] * own[a, b]
            lengths[b] = np.sqrt(s)
            mean += s / k
        for a in range(k):
            for b in range(k):
                Rz[t, a, b] = 0.0
            Rz[t, a, a] = np.sqrt(mean) if terms[t, CLOSURE] == ONE_SCALE else lengths[a]
        if terms[t, CLOSURE] == LINEAR and k > 1:
            r_factor(own, k)
            for a in range(k):
                if not abs(own[a, a]) > rtol * lengths[a]:
                    return False
                sign = -1.0 if own[a, a] < 0.0 else 1.0
                for b in range(a, k):
                    Rz[t, a, b] = sign * own[a, b]
    return True


@njit
def small_products(rows, p, weights, codes, sizes, terms, at, rtol):  # type: ignore[no-untyped-def]
    # rows (n, p + 1 + k): X, the response less offset, the columns of the terms one after another;
    # weights (n,) or empty; codes (G, n); sizes (G, 2): levels and width of every factor; terms
    # (T, 5); at (k,): the column of X of the same name as each column of a term, -1 for none.
    # Returns whether the model is regular, (R, d, Rz) of the basis, the factor of [X~ y~], Z~'WZ~
    # and Z~'W[X~ y~] of all factors one after another, z~ (n, k) of the rows, and R_x, beta_ols,
    # (yy, y_length) and Z~'W[Q y_f] of the orthonormal form.
    # Long, because its parts share their arrays, and each further kernel is compiled by itself.
    n, P, G = rows.shape[0], p + 1, codes.shape[0]
    k = rows.shape[1] - P
    at = at.copy()
    extra = 0
    for c in range(k):
        if at[c] < 0:
            extra += 1
    m = P + extra
    starts, starts_x = np.zeros(G + 1, np.int64), np.zeros(G + 1, np.int64)
    before = np.zeros(G + 1, np.int64)
    for g in range(G):
        L, K = sizes[g, 0], sizes[g, 1]
        starts[g + 1] = starts[g] + L * K * K
        starts_x[g + 1] = starts_x[g] + L * K * P
        before[g + 1] = before[g] + K
    R, d, Rz = np.zeros((p, p)), np.zeros(p), np.zeros((terms.shape[0], k, k))
    Rc, ztz, ztx = np.zeros((P, P)), np.zeros(starts[G]), np.zeros(starts_x[G])
    Zt = np.zeros((n, k))
    R_x, beta, numbers, ztf = np.zeros((p, p)), np.zeros(p), np.zeros(2), np.zeros(starts_x[G])
    basis, final = (R, d, Rz), (R_x, beta, numbers, ztf)
    failed = (False, basis, Rc, ztz, ztx, Zt, final)

    # the basis
    A = np.zeros((max(n, m), m))
    place = P
    for c in range(k):
        if at[c] < 0:
            at[c] = place
            place += 1
    for i in range(n):
        root = np.sqrt(weights[i]) if weights.size > 0 else 1.0
        for c in range(P):
            A[i, c] = root * rows[i, c]
        for c in range(k):
            if at[c] >= P:
                A[i, at[c]] = root * rows[i, P + c]
    r_factor(A, m)
    total = 0.0
    for c in range(m):
        length = 0.0
        for a in range(c + 1):
            length += A[a, c] * A[a, c]
        if not length > SHORTEST * SHORTEST:
            return failed
        total += length
    if not total < np.inf or not regular(A, p, rtol):
        return failed
    if not term_bases(A[:m], n, terms, at, rtol, Rz):
        return failed
    for b in range(p):
        for a in range(b + 1):
            R[a, b] = A[a, b]
    for a in range(p - 1, -1, -1):
        s = A[a, p]
        for b in range(a + 1, p):
            s -= R[a, b] * d[b]
        d[a] = s / R[a, a]

    # sums in that basis
    B, Bz = np.empty((p, p)), np.empty((terms.shape[0], k, k))
    upper_inverse(R, p, B)
    for t in range(terms.shape[0]):
        upper_inverse(Rz[t], terms[t, COLUMNS], Bz[t])
    gram, part, x, wx = np.zeros((P, P)), np.zeros((P, P)), np.empty(P), np.empty(P)
    for i in range(n):
        if i % SUMMED == 0:
            for a in range(P):
                for b in range(a + 1):
                    gram[a, b] += part[a, b]
                    part[a, b] = 0.0
        w = weights[i] if weights.size > 0 else 1.0
        fitted = 0.0
        for b in range(p):
            s = 0.0
            for a in range(b + 1):
                s += rows[i, a] * B[a, b]
            x[b] = s
            fitted += rows[i, b] * d[b]
        x[p] = rows[i, p] - fitted
        for a in range(P):
            wx[a] = w * x[a]
            for b in range(a + 1):
                part[a, b] += x[b] * wx[a]
        for t in range(terms.shape[0]):
            first, own = P + terms[t, FIRST], before[terms[t, FACTOR]] + terms[t, PLACE]
            for b in range(terms[t, COLUMNS]):
                s = 0.0
                for a in range(b + 1):
                    s += rows[i, first + a] * Bz[t, a, b]
                Zt[i, own + b] = s
        for g in range(G):
            K = sizes[g, 1]
            zz, zx = starts[g] + codes[g, i] * K * K, starts_x[g] + codes[g, i] * K * P
            for a in range(K):
                z = Zt[i, before[g] + a]
                for b in range(a + 1):
                    ztz[zz + a * K + b] += z * (w * Zt[i, before[g] + b])
                for c in range(P):
                    ztx[zx + a * P + c] += z * wx[c]
    for g in range(G):
        K = sizes[g, 1]
        for j in range(sizes[g, 0]):
            for a in range(K):
                for b in range(a):
                    ztz[starts[g] + (j * K + b) * K + a] = ztz[starts[g] + (j * K + a) * K + b]
    for a in range(P):
        for b in range(a + 1):
            s = gram[a, b] + part[a, b]
            own = gram[a, a] + part[a, a]
            for c in range(b):
                s -= Rc[c, a] * Rc[c, b]
            if a > b:
                Rc[b, a] = s / Rc[b, b]
            elif s > LEAST_PIVOT * own:
                Rc[a, a] = np.sqrt(s)
            else:
                return failed

    # the orthonormal form
    for a in range(p):
        for b in range(a, p):
            s = 0.0
            for c in range(a, b + 1):
                s += Rc[a, c] * R[c, b]
            R_x[a, b] = s
    if not regular(R_x, p, rtol):
        return failed
    fits, delta = 0.0, np.empty(p)
    for a in range(p):
        s = Rc[a, p]
        for b in range(a, p):
            s += R_x[a, b] * d[b]
        fits += s * s
    for a in range(p - 1, -1, -1):
        s = Rc[a, p]
        for b in range(a + 1, p):
            s -= R_x[a, b] * delta[b]
        delta[a] = s / R_x[a, a]
        beta[a] = d[a] + delta[a]
    M = np.zeros((P, P))
    upper_inverse(Rc, p, M)
    for a in range(p):
        for b in range(a, p):
            M[a, p] -= R[a, b] * delta[b]
    M[p, p] = 1.0
    for a in range(p):
        if R_x[a, a] < 0.0:
            for b in range(a, p):
                R_x[a, b] = -R_x[a, b]
            for b in range(a + 1):
                M[b, a] = -M[b, a]
    for j in range(starts_x[G] // P):
        for c in range(P):
            s = 0.0
            for a in range(c + 1):
                s += ztx[j * P + a] * M[a, c]
            ztf[j * P + c] = s
    numbers[0] = Rc[p, p] * Rc[p, p]
    numbers[1] = np.sqrt(fits + numbers[0])
    return (True, basis, Rc, ztz, ztx, Zt, final)
