"""Sums over the blocks of Z'WZ that every evaluation needs: Z'WZ B, and traces for the gradient."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.dense import sum_of_products
from mixlm_sparse.engines.interface import BlockSystem, SelectedInverse
from mixlm_sparse.engines.kernels import sum_by_group


@njit
def _multiply_pairs(rows, cols, values, Bg, Bh, out_g, out_h):  # type: ignore[no-untyped-def]
    # out_g[row] += V Bh[col], out_h[col] += V' Bg[row] over the pairs: one pass over V
    n, Kg, Kh = values.shape
    m = Bg.shape[2]
    for t in range(n):
        i, j = rows[t], cols[t]
        for a in range(Kg):
            for b in range(Kh):
                v = values[t, a, b]
                for c in range(m):
                    out_g[i, a, c] += v * Bh[j, b, c]
                    out_h[j, b, c] += v * Bg[i, a, c]


@njit
def _trace_pairs(A, M, lam_g, lam_h, out_g, out_h):  # type: ignore[no-untyped-def]
    # out_g += A Lambda_h M', out_h += A' Lambda_g M over the pairs
    n, Kg, Kh = A.shape
    for t in range(n):
        for a in range(Kg):
            for d in range(Kh):
                s = 0.0
                for c in range(Kh):
                    s += A[t, a, c] * lam_h[c, d]
                for b in range(Kg):
                    out_g[a, b] += s * M[t, b, d]
        for a in range(Kh):
            for d in range(Kg):
                s = 0.0
                for c in range(Kg):
                    s += A[t, c, a] * lam_g[c, d]
                for b in range(Kh):
                    out_h[a, b] += s * M[t, d, b]


def multiply(
    system: BlockSystem,
    B: Sequence[Array3],
    *,
    without: Collection[int] = (),
    compiled: bool = False,
) -> list[Array3]:
    """Return Z'WZ B; B[g] is (L_g, K_g, m).

    Products among the factors in `without` are left out.
    """
    out = []
    for g, (f, b) in enumerate(zip(system.factors, B, strict=True)):
        if g in without:
            out.append(np.zeros_like(b))
        else:
            out.append(f.ztz * b if f.width == 1 else np.matmul(f.ztz, b))
    for (g, h), pair in system.pairs.items():
        if g in without and h in without:
            continue
        values = pair.values
        scalar = values.shape[1] == 1 and values.shape[2] == 1
        if compiled and not scalar:
            _multiply_pairs(pair.rows, pair.cols, values, B[g], B[h], out[g], out[h])
            continue
        to_g, to_h = B[h][pair.cols], B[g][pair.rows]
        if scalar:
            to_g, to_h = values * to_g, values * to_h
        else:
            to_g = np.matmul(values, to_g)
            to_h = np.matmul(np.swapaxes(values, 1, 2), to_h)
        out[g] += _sum_rows(pair.rows, to_g, out[g].shape)
        out[h] += _sum_rows(pair.cols, to_h, out[h].shape)
    return out


def _sum_rows(codes: np.ndarray, values: Array3, shape: tuple[int, ...]) -> Array3:
    flat = values.reshape(values.shape[0], -1)
    return sum_by_group(codes, flat, shape[0]).reshape(shape)


def trace_products(
    system: BlockSystem,
    lambdas: Sequence[Matrix],
    inverse: SelectedInverse,
    *,
    without: Collection[int] = (),
    compiled: bool = False,
) -> list[Matrix]:
    """Return sum_j [Z'WZ Lambda C^{-1}]_jj over the levels of every factor, (K, K) each.

    Products among the factors in `without` are left out.
    """
    out = []
    for g, (f, lam, diag) in enumerate(zip(system.factors, lambdas, inverse.diag, strict=True)):
        if g in without:
            out.append(np.zeros((f.width, f.width)))
        elif f.width == 1:
            out.append(np.full((1, 1), float(np.vdot(f.ztz, diag)) * lam[0, 0]))
        else:
            out.append(sum_of_products(np.matmul(f.ztz, lam), diag))
    for (g, h), pair in system.pairs.items():
        if g in without and h in without:
            continue
        A, M = pair.values, inverse.pairs[g, h]
        if A.shape[1] == 1 and A.shape[2] == 1:
            both = float(np.vdot(A, M))
            out[g] += both * lambdas[h][0, 0]
            out[h] += both * lambdas[g][0, 0]
            continue
        if compiled:
            lam_g, lam_h = np.ascontiguousarray(lambdas[g]), np.ascontiguousarray(lambdas[h])
            _trace_pairs(A, np.ascontiguousarray(M), lam_g, lam_h, out[g], out[h])
            continue
        # [A Lambda C^{-1}]_gg += A_gh Lambda_h [C^{-1}]_hg, and the same with g and h exchanged
        out[g] += sum_of_products(np.matmul(A, lambdas[h]), np.swapaxes(M, 1, 2))
        out[h] += sum_of_products(np.matmul(np.swapaxes(A, 1, 2), lambdas[g]), M)
    return out
