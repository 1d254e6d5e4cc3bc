"""Small dense algebra for the compiled search: eigenvalues, triangular forms, inverses."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.engines.compiled import inside
from mixlm_sparse.engines.fused.profile import cholesky, inverse, inverse_of_factor


@inside
def symmetric_eigen(A, n, values, vectors):  # type: ignore[no-untyped-def]
    # Jacobi's method; A (n, n) is overwritten, values descend, vectors[:, i] belongs to values[i]
    for i in range(n):
        for j in range(n):
            vectors[i, j] = 1.0 if i == j else 0.0
    for _ in range(60):
        off = 0.0
        size = 0.0
        for i in range(n):
            size += A[i, i] * A[i, i]
            for j in range(i):
                off += A[i, j] * A[i, j]
        if off <= 1e-32 * size:
            break
        for i in range(n - 1):
            for j in range(i + 1, n):
                if A[i, j] == 0.0:
                    continue
                tau = (A[j, j] - A[i, i]) / (2.0 * A[i, j])
                t = 1.0 / (abs(tau) + np.sqrt(1.0 + tau * tau))
                if tau < 0.0:
                    t = -t
                c = 1.0 / np.sqrt(1.0 + t * t)
                s = t * c
                for k in range(n):
                    x, y = A[k, i], A[k, j]
                    A[k, i], A[k, j] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = A[i, k], A[j, k]
                    A[i, k], A[j, k] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = vectors[k, i], vectors[k, j]
                    vectors[k, i], vectors[k, j] = c * x - s * y, s * x + c * y
    for i in range(n):
        values[i] = A[i, i]
    for i in range(n - 1):  # largest first
        top = i
        for j in range(i + 1, n):
            if values[j] > values[top]:
                top = j
        if top != i:
            values[i], values[top] = values[top], values[i]
            for k in range(n):
                vectors[k, i], vectors[k, top] = vectors[k, top], vectors[k, i]


@inside
def invert_symmetric(A, n, out):  # type: ignore[no-untyped-def]
    # out = A^{-1} of a positive definite A (n, n); False where there is none
    L = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            L[i, j] = A[i, j]
    if not cholesky(L, n) < np.inf:
        return False
    T = np.empty((n, n))
    inverse_of_factor(L, n, T)
    inverse(T, n, out)
    return True


@inside
def lower_triangular(M, k):  # type: ignore[no-untyped-def]
    # M (k, k) becomes the lower triangular L with L L' = M M' and a diagonal that is not negative
    v = np.empty(k)
    for i in range(k):
        tail = 0.0
        for j in range(i + 1, k):
            tail += M[i, j] * M[i, j]
        if tail > 0.0:
            length = np.sqrt(M[i, i] * M[i, i] + tail)
            head = M[i, i] + length if M[i, i] >= 0.0 else M[i, i] - length
            scale = 0.0
            for j in range(i, k):
                v[j] = head if j == i else M[i, j]
                scale += v[j] * v[j]
            for r in range(i, k):
                s = 0.0
                for j in range(i, k):
                    s += M[r, j] * v[j]
                s *= 2.0 / scale
                for j in range(i, k):
                    M[r, j] -= s * v[j]
            for j in range(i + 1, k):
                M[i, j] = 0.0
        if M[i, i] < 0.0:
            for r in range(i, k):
                M[r, i] = -M[r, i]
