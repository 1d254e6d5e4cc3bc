"""The criterion in 60 digits, from the marginal covariance: shares no code with the package."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext

import numpy as np

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
DIGITS = 60


def decimals(values) -> np.ndarray:
    """Return floats as exact decimals, an array of objects."""
    return np.vectorize(lambda v: Decimal(float(v)), otypes=[object])(np.asarray(values))


def cholesky(S: np.ndarray) -> np.ndarray:
    """Return the lower triangular factor (n, n)."""
    n = len(S)
    L = np.full((n, n), Decimal(0), dtype=object)
    for j in range(n):
        L[j, j] = (S[j, j] - sum(L[j, :j] ** 2)).sqrt()
        for i in range(j + 1, n):
            L[i, j] = (S[i, j] - (L[i, :j] @ L[j, :j] if j else 0)) / L[j, j]
    return L


def criterion(
    y, X, terms: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], *, reml: bool
) -> Decimal:
    """Return the profiled criterion.

    Parameters
    ----------
    terms : per random term (z (n, k), codes (n,), T (k, k)).
    """
    with localcontext() as context:
        context.prec = DIGITS
        B = np.column_stack([decimals(X), decimals(y)])
        n, p = len(B), B.shape[1] - 1
        V = decimals(np.eye(n))
        for z, codes, T in terms:
            zT = decimals(z) @ decimals(T)
            V = V + np.where(codes[:, None] == codes, zT @ zT.T, Decimal(0))
        L = cholesky(V)
        for i in range(n):
            B[i] = (B[i] - (L[i, :i] @ B[:i] if i else 0)) / L[i, i]
        R = cholesky(B.T @ B)
        nu = n - p if reml else n
        d = 2 * sum(L[i, i].ln() for i in range(n))
        d += nu * (1 + (2 * PI * R[p, p] ** 2 / nu).ln())
        return d + 2 * sum(R[i, i].ln() for i in range(p)) if reml else d
