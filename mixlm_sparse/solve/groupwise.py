"""Least squares in every group of rows on its own, all groups of one size at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector

# A column that keeps less than this share of its length beside the columns before it counts as
# their combination, as in R's `lm`.
COLLINEAR_RTOL = 1e-7


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class GroupFits:
    """Least squares of m responses on the same p columns in each of L groups.

    Coefficients that the rows of a group do not determine are NaN; those that they do (which are
    the same whichever columns are left out) and fitted values, sums of squares and degrees of
    freedom are there all the same.

    Parameters
    ----------
    coefficients : (L, p, m).
    solutions : (L, p, m) `coefficients`, or where these are not determined those of least length
        among all that fit best, of columns brought to length one.
    unscaled : (L, p, p) inverse of X'WX of each group, NaN for coefficients not determined.
    rss : (L, m) weighted residual sums of squares.
    nobs : (L,) rows of each group.
    rank : (L,) columns of each group that are no combinations of others.
    """

    coefficients: Array3
    solutions: Array3
    unscaled: Array3
    rss: Matrix
    nobs: NDArray[np.int64]
    rank: NDArray[np.int64]

    def __repr__(self) -> str:
        groups, columns, responses = self.coefficients.shape
        return f"<GroupFits: {groups} groups, {columns} columns, {responses} responses>"

    @property
    def full_rank(self) -> NDArray[np.bool_]:
        """(L,) whether the coefficients of the group are determined."""
        out: NDArray[np.bool_] = self.rank == self.unscaled.shape[1]
        return out

    @property
    def df(self) -> NDArray[np.int64]:
        """(L,) residual degrees of freedom, nobs - rank."""
        out: NDArray[np.int64] = self.nobs - self.rank
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
    GroupFits : coefficients are NaN that depend on which columns are left out, where a group has
        fewer rows than columns, or columns that are linear combinations of each other.
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
        np.zeros((n_levels, p, m)),
        np.full((n_levels, p, p), np.nan),
        np.zeros((n_levels, m)),
        counts,
        np.zeros(n_levels, dtype=np.int64),
    )
    done = np.zeros(n_levels, dtype=bool)
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
        out.solutions[groups] = beta
        out.rank[groups] = p
        done[groups] = True
    for g in np.flatnonzero(~done & (counts > 0)).tolist():
        rows = order[starts[g] : starts[g] + counts[g]]
        length = np.linalg.norm(X[rows], axis=0)
        length[length == 0.0] = 1.0
        U, s, Vt = np.linalg.svd(X[rows] / length, full_matrices=False)
        # what the rule above takes for a combination has at most p - 1 columns of its own
        rank = min(int((s > COLLINEAR_RTOL * s.max(initial=0.0)).sum()), max(p - 1, 0))
        half = Vt[:rank].T / s[:rank] / length[:, None]
        out.solutions[g] = half @ (U[:, :rank].T @ Y[rows])
        out.rss[g] = ((Y[rows] - X[rows] @ out.solutions[g]) ** 2).sum(axis=0)
        out.rank[g] = rank
        # e_j is in the row space: its part there has length one
        known = np.flatnonzero((Vt[:rank] ** 2).sum(axis=0) > 1.0 - COLLINEAR_RTOL)
        out.coefficients[g, known] = out.solutions[g, known]
        out.unscaled[g][np.ix_(known, known)] = (half @ half.T)[np.ix_(known, known)]
    return out
