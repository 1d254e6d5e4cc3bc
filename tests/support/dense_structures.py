"""Models with a residual structure from dense matrices: V = Z G Z' + R, nothing of the package.

R is built entry by entry from the natural parameters, V is inverted, and the criterion is the
textbook one.  Test modules only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Entry = Callable[[int, int], float]


def correlation_matrix(group: Sequence[object], entry: Entry) -> Array:
    """C (n, n): `entry(i, j)` for rows of one group, one on the diagonal, zero elsewhere."""
    n = len(group)
    C = np.eye(n)
    for i in range(n):
        for j in range(i):
            if group[i] == group[j]:
                C[i, j] = C[j, i] = entry(i, j)
    return C


@dataclass(frozen=True)
class DenseFit:
    """Criterion, estimates and what tests need, at given V relative to sigma^2."""

    criterion: float
    beta: Array
    sigma_sq: float
    vcov: Array
    residual: Array


def dense_fit(y: Array, X: Array, V: Array, *, reml: bool) -> DenseFit:
    """Profile beta and sigma out of y ~ N(X beta, sigma^2 V)."""
    n, p = X.shape
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    unscaled = np.linalg.inv(information)
    beta = unscaled @ X.T @ inverse @ y
    e = y - X @ beta
    nu = n - p if reml else n
    square = float(e @ inverse @ e)
    value = np.linalg.slogdet(V)[1] + nu * (1.0 + np.log(2.0 * np.pi * square / nu))
    if reml:
        value += np.linalg.slogdet(information)[1]
    sigma_sq = square / nu
    return DenseFit(float(value), beta, sigma_sq, sigma_sq * unscaled, e)


def dense_kenward_roger(
    X: Array, V: Array, first: Sequence[Array], second: dict[tuple[int, int], Array]
) -> tuple[Array, Array]:
    """Adjusted covariance (p, p) and W (r, r) of Kenward and Roger (1997), by their formulas.

    V, its first derivatives and its second ones (zero where missing) contain sigma^2.
    """
    inverse = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ inverse @ X)
    r = len(first)
    P = [-X.T @ inverse @ D @ inverse @ X for D in first]
    Q = [[X.T @ inverse @ a @ inverse @ b @ inverse @ X for b in first] for a in first]
    information = np.empty((r, r))
    for i in range(r):
        for j in range(r):
            information[i, j] = 0.5 * (
                np.trace(inverse @ first[i] @ inverse @ first[j])
                - 2.0 * np.trace(Phi @ Q[i][j])
                + np.trace(Phi @ P[i] @ Phi @ P[j])
            )
    W = np.linalg.inv(information)
    change = np.zeros_like(Phi)
    for i in range(r):
        for j in range(r):
            part = Q[i][j] - P[i] @ Phi @ P[j]
            D = second.get((i, j), second.get((j, i)))
            if D is not None:
                part = part - 0.25 * X.T @ inverse @ D @ inverse @ X
            change += W[i, j] * part
    return Phi + 2.0 * Phi @ change @ Phi, W

def covariance_derivatives(
    V: Callable[[Array], Array], eta: Array
) -> tuple[list[Array], dict[tuple[int, int], Array]]:
    """First and second derivatives of V by differences."""
    r = eta.size
    size = 1e-4 * np.maximum(np.abs(eta), 0.1)
    unit = np.diag(size)
    first = [(V(eta + unit[k]) - V(eta - unit[k])) / (2 * size[k]) for k in range(r)]
    second = {}
    for i in range(r):
        for j in range(i, r):
            if i == j:
                value = (V(eta + unit[i]) - 2 * V(eta) + V(eta - unit[i])) / size[i] ** 2
            else:
                value = (
                    V(eta + unit[i] + unit[j]) - V(eta + unit[i] - unit[j])
                    - V(eta - unit[i] + unit[j]) + V(eta - unit[i] - unit[j])
                ) / (4 * size[i] * size[j])  # fmt: skip
            second[i, j] = value
    return first, second


def dense_kr_df(X: Array, V: Array, first: Sequence[Array], row: Array) -> float:
    """Denominator df of row'beta by Kenward and Roger (1997), their formulas for one row."""
    _, W = dense_kenward_roger(X, V, first, {})
    inverse = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ inverse @ X)
    Theta = np.outer(row, row) / (row @ Phi @ row)
    parts = [Theta @ Phi @ (-X.T @ inverse @ D @ inverse @ X) @ Phi for D in first]
    traces = np.array([np.trace(a) for a in parts])
    A1 = traces @ W @ traces
    A2 = sum(W[i, j] * np.trace(a @ b) for i, a in enumerate(parts) for j, b in enumerate(parts))
    B = 0.5 * (A1 + 6.0 * A2)
    g = (2.0 * A1 - 5.0 * A2) / (3.0 * A2)
    c1, c2, c3 = (c / (3.0 + 2.0 * (1.0 - g)) for c in (g, 1.0 - g, 3.0 - g))
    E, Var = 1.0 / (1.0 - A2), 2.0 * (1.0 + c1 * B) / ((1.0 - c2 * B) ** 2 * (1.0 - c3 * B))
    rho = Var / (2.0 * E**2)
    return float(4.0 + 3.0 / (rho - 1.0))

