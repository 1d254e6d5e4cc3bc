"""Least squares in every group of rows on its own, all groups of one size at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector

# A column that keeps less than this share of its length beside the columns before it counts as
# their combination, as in R's `lm`.
COLLINEAR_RTOL = 1e-7


@dataclass(frozen=True, eq=False, slots=True)
class GroupFits:
    """Least squares of m responses on the same p columns in each of L groups.

    Groups that cannot be fitted have NaN.

    Parameters
    ----------
    coefficients : (L, p, m).
    unscaled : (L, p, p) inverse of X'WX of each group.
    rss : (L, m) weighted residual sums of squares.
    nobs : (L,) rows of each group.
    full_rank : (L,) whether the group could be fitted.
    """

    coefficients: Array3
    unscaled: Array3
    rss: Matrix
    nobs: NDArray[np.int64]
    full_rank: NDArray[np.bool_]

    @property
    def df(self) -> NDArray[np.int64]:
        """(L,) residual degrees of freedom; 0 where a group was not fitted."""
        out: NDArray[np.int64] = np.where(self.full_rank, self.nobs - self.unscaled.shape[1], 0)
        return out


def fit_groups(
    y: Vector | Matrix, X: Matrix, codes: IntVector, n_levels: int, weights: Vector | None = None
) -> GroupFits:
    """Regress `y` on `X` in each group.

    Parameters
    ----------
    y : (n,) or (n, m) responses.
    X : (n, p) columns.
    codes : (n,) group of each row, 0 to n_levels - 1.
    weights : (n,) positive, or None.

    Returns
    -------
    GroupFits : NaN for groups with fewer rows than columns, or with columns that are linear
        combinations of each other within the group.
    """
    Y = y[:, None] if y.ndim == 1 else y
    p, m = X.shape[1], Y.shape[1]
    if weights is not None:
        root = np.sqrt(weights)[:, None]
        Y, X = Y * root, X * root
    counts = np.bincount(codes, minlength=n_levels)
    order = np.argsort(codes, kind="stable")
    starts = np.cumsum(counts) - counts
    out = GroupFits(
        np.full((n_levels, p, m), np.nan),
        np.full((n_levels, p, p), np.nan),
        np.full((n_levels, m), np.nan),
        counts,
        np.zeros(n_levels, dtype=bool),
    )
    for size in np.unique(counts).tolist():
        if size < max(p, 1):
            continue
        groups = np.flatnonzero(counts == size)
        rows = order[starts[groups][:, None] + np.arange(size)]
        Xg, Yg = X[rows], Y[rows]
        Q, R = np.linalg.qr(Xg)
        kept = np.abs(np.diagonal(R, axis1=1, axis2=2))
        full = (kept > COLLINEAR_RTOL * np.linalg.norm(Xg, axis=1)).all(axis=1)
        groups, Xg, Yg, Q, R = groups[full], Xg[full], Yg[full], Q[full], R[full]
        R_inv = np.linalg.solve(R, np.broadcast_to(np.eye(p), R.shape))
        beta = R_inv @ (np.swapaxes(Q, 1, 2) @ Yg)
        out.coefficients[groups] = beta
        out.unscaled[groups] = R_inv @ np.swapaxes(R_inv, 1, 2)
        out.rss[groups] = ((Yg - Xg @ beta) ** 2).sum(axis=1)
        out.full_rank[groups] = True
    return out
