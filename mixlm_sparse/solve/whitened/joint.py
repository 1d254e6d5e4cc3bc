"""The joint covariance of fixed and random effects within residual groups, as columns of rows.

With M = [Z X]'R^{-1}[Z X] + prior, Cov(X beta + Z b - estimates) = sigma^2 [Z X] M^{-1} [Z X]'.
Its part of a residual group is G G' with G of K + p columns, K the effects of the group's levels:
of one level a factor, or of all that the group has of a factor that it crosses,

    G = [Z Lambda S, (X - Z Lambda U) R_X^{-1}],    S S' = the block of C^{-1} of the levels
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.design.members import Slots, random_part
from mixlm_sparse.solve.pls import WorkingSolution
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["joint_columns", "left_out", "residual_columns", "structured_leverage"]


def joint_columns(
    solution: WorkingSolution, system: PenalizedSystem, *, fixed: bool
) -> tuple[Matrix, Matrix]:
    """Return G (n, c) and W G with GG' = Cov(X beta + Z b - estimate) / sigma^2 within groups.

    Parameters
    ----------
    fixed : whether beta is estimated; else it is known.
    """
    whitened = system.whitened
    assert whitened is not None
    n = whitened.A.shape[0]
    out = []
    if solution.lambdas:
        combination, roots = _roots(solution, system)
    p = system.p
    inverse = scipy.linalg.solve_triangular(solution.R_X, np.eye(p)) if p else np.zeros((0, 0))
    for columns, Z in ((whitened.frame.A, whitened.frame.Z), (whitened.A, whitened.Z)):
        parts = [np.zeros((n, 0))]
        start = 0
        if solution.lambdas:
            own = np.zeros((n, roots.shape[2]))
            for z in Z:
                rows = roots[:, start : start + z.shape[1]]
                for a in range(z.shape[1]):
                    own += z[:, a, None] * rows[combination, a]
                start += z.shape[1]
            parts.append(own)
        if fixed and p:
            E = columns[:, :p] @ (whitened.M[:p, :p] @ inverse)
            for z, lam, U, levels in zip(
                Z, solution.lambdas, solution.U, whitened.frame.levels, strict=True
            ):
                E -= random_part(z, levels, np.matmul(lam, U[:, :, :p]) @ inverse)
            parts.append(E)
        out.append(np.hstack(parts))
    return out[0], out[1]


def residual_columns(
    solution: WorkingSolution, system: PenalizedSystem
) -> tuple[Matrix, Matrix]:
    """Return y - X beta - Z Lambda u (n, 1) as it is and whitened."""
    whitened = system.whitened
    assert whitened is not None
    contrast = np.append(-solution.beta, 1.0)
    out = []
    for columns, Z in ((whitened.frame.A, whitened.frame.Z), (whitened.A, whitened.Z)):
        e = columns @ (whitened.M @ contrast)
        for z, lam, U, levels in zip(
            Z, solution.lambdas, solution.U, whitened.frame.levels, strict=True
        ):
            e = e - random_part(z, levels, (U @ contrast) @ lam.T)
        out.append(e[:, None])
    return out[0], out[1]


def _roots(
    solution: WorkingSolution, system: PenalizedSystem
) -> tuple[NDArray[np.intp], Array3]:
    """Return the combination of every row, and Lambda S of every combination, (c, K, K)."""
    whitened = system.whitened
    assert whitened is not None
    engine = system.engine
    # Lambda C^{-1}Lambda' is the same at `factored`, which keeps its digits (see `separate`)
    engine.factorize(solution.factored)
    inverse = engine.selected_inverse()
    combination, levels = whitened.frame.combinations
    # the factor of every place, and where its effects are
    factor = [
        g
        for g, own in enumerate(whitened.frame.levels)
        for _ in range(own.levels.shape[1] if isinstance(own, Slots) else 1)
    ]
    widths = [solution.factored[g].shape[0] for g in factor]
    ends = np.cumsum(widths).tolist()
    at = [slice(end - K, end) for K, end in zip(widths, ends, strict=True)]
    C = np.zeros((levels.shape[0], ends[-1], ends[-1]))
    blocks = system.products.blocks
    for i, g in enumerate(factor):
        there = (levels[:, i] >= 0)[:, None, None]  # an empty place has no part in any row
        own_blocks = inverse.diag[g][levels[:, i]]
        C[:, at[i], at[i]] = np.where(there, own_blocks, np.eye(own_blocks.shape[1]))
    keys = {
        (g, h): pair.rows.astype(np.int64) * blocks.factors[h].n_levels + pair.cols
        for (g, h), pair in blocks.pairs.items()
    }
    for i, g in enumerate(factor):
        for j, h in enumerate(factor[i + 1 :], i + 1):
            both = np.flatnonzero((levels[:, i] >= 0) & (levels[:, j] >= 0))
            if not both.size:
                continue
            key = levels[both, i] * blocks.factors[h].n_levels + levels[both, j]
            block = inverse.pairs[g, h][np.searchsorted(keys[g, h], key)]
            C[both, at[i], at[j]] = block
            C[both, at[j], at[i]] = np.swapaxes(block, 1, 2)
    try:
        S: Array3 = np.asarray(np.linalg.cholesky(C))
    except np.linalg.LinAlgError:
        raise NotPositiveDefiniteError(
            "the covariances of random effects have no digits left"
        ) from None
    for i, g in enumerate(factor):
        S[:, at[i]] = np.matmul(solution.factored[g], S[:, at[i]])
    out: Array3 = S
    return combination, out


def left_out(
    resid: Vector, solution: WorkingSolution, system: PenalizedSystem
) -> tuple[Vector, Vector]:
    """Return what leaving out single rows needs where rows are correlated, (n,) each.

    With K = R^{-1} and M the joint matrix of fixed and random effects, leaving out row i moves
    (beta, b) by -M^{-1}[X Z]'K e_i d_i, and y_i is predicted by the others with the error

        d_i = s_i / (k_i - h_i),    s = K (y - mu),    k_i = K_ii,    h_i = (K G G'K)_ii

    Parameters
    ----------
    resid : (n,) y - mu.

    Returns
    -------
    r : s_i / sqrt(k_i), the residual given the others of its group, in units of sigma.
    h : h_i / k_i, what the effects take of it: with independent rows, the leverage.
    """
    whitened = system.whitened
    assert whitened is not None
    whitening = whitened.whitening
    with system.lock:
        _, WG = joint_columns(solution, system, fixed=True)
    k = whitening.precision_diagonal
    s = whitening.back(whitening.apply(resid[:, None]))[:, 0]
    h = (whitening.back(WG) ** 2).sum(axis=1)
    return s / np.sqrt(k), h / k


def structured_leverage(solution: WorkingSolution, system: PenalizedSystem) -> Vector:
    """Return the diagonal of the matrix that maps y to the fitted values, (n,): G G'R^{-1}."""
    whitened = system.whitened
    assert whitened is not None
    with system.lock:
        G, WG = joint_columns(solution, system, fixed=True)
    out: Vector = (G * whitened.whitening.back(WG)).sum(axis=1)
    return out
