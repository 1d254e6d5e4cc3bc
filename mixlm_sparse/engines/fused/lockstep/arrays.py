"""Small matrices of many responses, (..., a, b, r): products, factors, inverses, eigenvalues.

A matrix that responses share has a last axis of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector

__all__ = [
    "along", "eigen", "factor", "inverse", "lower_inverse", "lower_triangular", "product",
    "transposed",
]  # fmt: skip

Array = NDArray[np.float64]


def along(parts: Iterable[Array]) -> Array:
    """Return the sum of an array over its first axis, one after another."""
    return reduce(np.add, parts)


def transposed(A: Array) -> Array:
    """Return the transposes of matrices (..., a, b, r)."""
    return np.swapaxes(A, -3, -2)


def product(A: Array, B: Array) -> Array:
    """Return A B of matrices (..., a, c, r) and (..., c, b, r)."""
    out = A[..., :, 0, None, :] * B[..., None, 0, :, :]
    for c in range(1, A.shape[-2]):
        out += A[..., :, c, None, :] * B[..., None, c, :, :]
    return out


def factor(A: Array, steps: int | None = None) -> Array:
    """Return the lower Cholesky factors of matrices (..., n, n, r).

    Where there is none, what comes out is not finite or has a zero pivot.  What is above the
    diagonal is of no meaning.

    Parameters
    ----------
    steps : columns that are eliminated; what is left of the others stands in their places.
    """
    n = A.shape[-2]
    L = A.copy()
    for c in range(n if steps is None else steps):
        pivot = np.sqrt(L[..., c, c, :])
        L[..., c, c, :] = pivot
        if c + 1 < n:
            column = L[..., c + 1 :, c, :]
            column /= pivot[..., None, :]
            L[..., c + 1 :, c + 1 :, :] -= column[..., :, None, :] * column[..., None, :, :]
    return L


def lower_inverse(L: Array) -> Array:
    """Return the inverses of lower triangular matrices (..., n, n, r)."""
    n = L.shape[-2]
    out = np.zeros_like(L)
    for a in range(n):
        head = 1.0 / L[..., a, a, :]
        out[..., a, a, :] = head
        if a:
            row = product(L[..., a : a + 1, :a, :], out[..., :a, :a, :])
            out[..., a, :a, :] = -row[..., 0, :, :] * head[..., None, :]
    return out


def inverse(A: Array3) -> tuple[Array3, NDArray[np.bool_]]:
    """Return the inverses of positive definite matrices (n, n, r), and whether there is one."""
    L = factor(A)
    half = lower_inverse(L)
    good = np.isfinite(half).all(axis=(0, 1)) & np.isfinite(L).all(axis=(0, 1))
    return product(transposed(half), half), np.asarray(good)


def eigen(A: Array3) -> tuple[Matrix, Array3]:
    """Return eigenvalues (n, r), descending, and vectors (n, n, r) of symmetric matrices.

    What is not finite counts as zero: its response is given up elsewhere.
    """
    n = A.shape[0]
    if n == 1:
        return A[0].copy(), np.ones_like(A)
    bad = ~np.isfinite(A).all(axis=(0, 1))
    stacked = np.ascontiguousarray(np.moveaxis(np.where(bad, 0.0, A), 2, 0))
    values, vectors = np.linalg.eigh(stacked)
    return values[:, ::-1].T.copy(), np.moveaxis(vectors[:, :, ::-1], 0, 2).copy()


def lower_triangular(M: Array3) -> Array3:
    """Return the lower triangular L (k, k, r) with L L' = M M', and no negative diagonal."""
    k = M.shape[0]
    if k == 1:
        return np.abs(M)
    bad = ~np.isfinite(M).all(axis=(0, 1))
    stacked = np.ascontiguousarray(np.moveaxis(np.where(bad, 0.0, M), 2, 0))
    R = np.linalg.qr(np.swapaxes(stacked, 1, 2), mode="r")
    signs: Vector = np.where(np.diagonal(R, axis1=1, axis2=2) < 0.0, -1.0, 1.0)
    return np.moveaxis(np.swapaxes(R, 1, 2) * signs[:, None, :], 0, 2).copy()
