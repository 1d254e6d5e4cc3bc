"""Dense blocks by SciPy's BLAS and LAPACK, in place: multiply, factor, solve, invert.

Matrices are C ordered and their lower triangle counts; LAPACK sees the transpose, whose upper
triangle that is, so that nothing is copied.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.threads import large_block

NOT_POSITIVE_DEFINITE = (
    "Lambda'Z'WZ Lambda + I is not positive definite in floating point: theta is too large or "
    "not finite; check the scale of the columns and the start value"
)


# From so many columns on, one product of all levels reads the other factor once, not once a level.
TOGETHER = 64


def times(blocks: Array3, M: Matrix) -> Array3:
    """Return blocks (L, K, P) times M (P, r)."""
    P = blocks.shape[2]
    if P < TOGETHER:
        out: Array3 = np.matmul(blocks, M)
        return out
    return (blocks.reshape(-1, P) @ M).reshape(*blocks.shape[:2], M.shape[1])


def sum_of_products(left: Array3, right: Array3) -> Matrix:
    """Return sum_j left_j right_j of blocks (L, a, c) and (L, c, b)."""
    # one product of matrices: for small blocks einsum's search for a path costs more than the sum
    out: Matrix = np.swapaxes(left, 0, 1).reshape(left.shape[1], -1) @ right.reshape(
        -1, right.shape[2]
    )
    return out


def symmetric_from_lower(S: Matrix) -> None:
    """Copy the lower triangle of S (m, m) to the upper one, in place and by tiles."""
    m = S.shape[0]
    step = 512
    for i in range(0, m, step):
        tile = S[i : i + step, i : i + step]
        low = np.tril(tile, -1)
        tile[:] = low + low.T + np.diag(np.diag(tile))
        if i + step < m:
            S[i : i + step, i + step :] = S[i + step :, i : i + step].T


def subtract_gram(S: Matrix, W: Matrix) -> None:
    """Subtract W'W from the lower triangle of S (m, m), in place; W (rows, m)."""
    with large_block(S.shape[0]):
        out = scipy.linalg.blas.dsyrk(-1.0, W.T, beta=1.0, c=S.T, lower=0, overwrite_c=1)
    if not np.shares_memory(out, S):
        S[:] = out.T


def product(A: Matrix, B: Matrix) -> Matrix:
    """Return A B for C ordered A (r, m) and B (m, s), C ordered."""
    with large_block(min(A.shape[0], *B.shape)):
        out: Matrix = scipy.linalg.blas.dgemm(1.0, B.T, A.T).T
    return out


def potrf_lower(S: Matrix) -> float:
    """Factor a symmetric matrix (m, m) in place; return log|S|.

    S must be C ordered with its lower triangle set; on return the lower triangle holds L.  (LAPACK
    sees the transpose, whose upper triangle this is: no copy is made.)

    Raises
    ------
    NotPositiveDefiniteError : S is not positive definite.
    """
    if S.shape[0] == 0:
        return 0.0
    with large_block(S.shape[0]):
        factor, info = scipy.linalg.lapack.dpotrf(S.T, lower=0, clean=0, overwrite_a=1)
    diagonal = np.diagonal(factor)
    if info != 0 or not np.isfinite(diagonal).all():
        raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
    if not np.shares_memory(factor, S):
        S[:] = factor.T
    return 2.0 * float(np.log(diagonal).sum())


def potrs_lower(chol: Matrix, rhs: Matrix) -> Matrix:
    """Solve (L L') x = rhs (m, r) from the factor that `potrf_lower` left."""
    if chol.shape[0] == 0:
        return rhs.copy()
    x, info = scipy.linalg.lapack.dpotrs(chol.T, rhs, lower=0)
    if info != 0:
        raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
    out: Matrix = x
    return out


def half_solve_rows(chol: Matrix, W: Matrix) -> Matrix:
    """Return W L^{-T} (rows, m) from the factor that `potrf_lower` left, C ordered."""
    if chol.shape[0] == 0:
        return W.copy()
    with large_block(min(W.shape)):
        out: Matrix = scipy.linalg.blas.dtrsm(1.0, chol.T, W.T, lower=0, trans_a=1).T
    return out


def symmetric_times(P: Matrix, rhs: Matrix) -> Matrix:
    """Return P rhs for a symmetric P (m, m) of which the lower triangle is set; rhs (m, r)."""
    if P.shape[0] == 0:
        return rhs.copy()
    with large_block(min(rhs.shape)):
        out: Matrix = scipy.linalg.blas.dsymm(1.0, P.T, rhs, lower=0)
    return out


def potri_lower(chol: Matrix, *, both: bool, overwrite: bool = False) -> Matrix:
    """Return (L L')^{-1} from the factor that `potrf_lower` left, C ordered.

    The lower triangle is set; the upper one too if `both`.
    """
    if chol.shape[0] == 0:
        return chol.copy()
    with large_block(chol.shape[0]):
        inverse, info = scipy.linalg.lapack.dpotri(chol.T, lower=0, overwrite_c=int(overwrite))
    if info != 0:
        raise NotPositiveDefiniteError(NOT_POSITIVE_DEFINITE)
    out: Matrix = inverse.T
    if both:
        symmetric_from_lower(out)
    return out
