"""Sums over the blocks of Z'WZ that every evaluation needs: Z'WZ B, and traces for the gradient."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.dense import sum_of_products
from mixlm_sparse.engines.interface import BlockSystem, SelectedInverse
from mixlm_sparse.engines.kernels import sum_by_group

# Where the least singular value of Lambda is at least this, traces are read off the diagonal blocks
# of C^{-1}: differences of those from I are then known to 14 digits of a level's share.
REGULAR = 1e-2


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
    without_pairs: Collection[tuple[int, int]] = (),
    compiled: bool = False,
) -> list[Array3]:
    """Return Z'WZ B; B[g] is (L_g, K_g, m).

    Products among the factors in `without` are left out, as are those of `without_pairs`, keys of
    the system's pairs.
    """
    out = []
    for g, (f, b) in enumerate(zip(system.factors, B, strict=True)):
        if g in without:
            out.append(np.zeros_like(b))
        else:
            out.append(f.ztz * b if f.width == 1 else np.matmul(f.ztz, b))
    for (g, h), pair in system.pairs.items():
        if (g in without and h in without) or (g, h) in without_pairs:
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


def irregular(lambdas: Sequence[Matrix]) -> frozenset[int]:
    """Return the factors whose traces cannot be read off the diagonal blocks of C^{-1}."""
    return frozenset(
        g
        for g, lam in enumerate(lambdas)
        if not (
            abs(lam[0, 0]) >= REGULAR
            if lam.shape[0] == 1
            else np.linalg.svd(lam, compute_uv=False)[-1] >= REGULAR
        )
    )


def traces_by_diagonals(
    lambdas: Sequence[Matrix], diag: Sequence[Array3], without: Collection[int] = ()
) -> list[Matrix]:
    """Return sum_j [Z'WZ Lambda C^{-1}]_jj = Lambda^{-T} sum_j (I - [C^{-1}]_jj) of every factor.

    For factors in `without`, zeros: for they have no Lambda^{-1} that could be used.
    """
    out = []
    for g, (lam, blocks) in enumerate(zip(lambdas, diag, strict=True)):
        if g in without:
            out.append(np.zeros(lam.shape))
            continue
        L, K, _ = blocks.shape
        out.append(np.linalg.solve(lam.T, L * np.eye(K) - blocks.sum(axis=0)))
    return out


def trace_products(
    system: BlockSystem,
    lambdas: Sequence[Matrix],
    inverse: SelectedInverse,
    *,
    of: Collection[int] | None = None,
    without: Collection[int] = (),
    compiled: bool = False,
) -> list[Matrix]:
    """Return sum_j [Z'WZ Lambda C^{-1}]_jj over the levels of every factor, (K, K) each.

    Parameters
    ----------
    of : the factors that are asked for, others have zeros; None for all.
    without : products among these factors are left out.
    """
    wanted = range(len(system.factors)) if of is None else of
    out = []
    for g, (f, lam, diag) in enumerate(zip(system.factors, lambdas, inverse.diag, strict=True)):
        if g in without or g not in wanted:
            out.append(np.zeros((f.width, f.width)))
        elif f.width == 1:
            out.append(np.full((1, 1), float(np.vdot(f.ztz, diag)) * lam[0, 0]))
        else:
            out.append(sum_of_products(np.matmul(f.ztz, lam), diag))
    for (g, h), pair in system.pairs.items():
        if (g in without and h in without) or (g not in wanted and h not in wanted):
            continue
        A, M = pair.values, inverse.pairs[g, h]
        if A.shape[1] == 1 and A.shape[2] == 1:
            both = float(np.vdot(A, M))
            to_g, to_h = both * lambdas[h], both * lambdas[g]
        elif compiled:
            to_g, to_h = np.zeros_like(out[g]), np.zeros_like(out[h])
            lam_g, lam_h = np.ascontiguousarray(lambdas[g]), np.ascontiguousarray(lambdas[h])
            _trace_pairs(A, np.ascontiguousarray(M), lam_g, lam_h, to_g, to_h)
        else:
            # [A Lambda C^{-1}]_gg += A_gh Lambda_h [C^{-1}]_hg, and the same with both exchanged
            to_g = sum_of_products(np.matmul(A, lambdas[h]), np.swapaxes(M, 1, 2))
            to_h = sum_of_products(np.matmul(np.swapaxes(A, 1, 2), lambdas[g]), M)
        if g in wanted:
            out[g] += to_g
        if h in wanted:
            out[h] += to_h
    return out
