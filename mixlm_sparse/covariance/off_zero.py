"""Which covariance lowers the criterion most where there is none yet."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector

MOST_TURNS = 60  # of the iteration for the standard deviations


def steepest(M: Matrix, C: Array3, *, hom: bool) -> tuple[Vector, Matrix]:
    """Return the least slope off S = 0 for each of several correlation matrices.

    With M = dd/dS at S = 0 the slope along S = D C D is d'(M * C)d, d >= 0: for d held it is linear
    in C, so that the least is at an extreme C.  Of d with |d| = 1 it is looked for by
    d <- (c I - M * C) d, cut off at zero, which never rises where c I - M * C is positive
    definite, from the effects one by one, from their mean and from all principal axes.

    Parameters
    ----------
    M : (k, k).
    C : (r, k, k).
    hom : whether all standard deviations are one number.

    Returns
    -------
    slopes : (r,).
    d : (r, k) of length one.
    """
    r, k = C.shape[:2]
    A = 0.5 * (M + M.T) * C
    if hom:
        return A.sum(axis=(1, 2)) / k, np.full((r, k), k**-0.5)
    values, axes = np.linalg.eigh(A)
    rise = (np.abs(values).max(axis=1)[:, None, None] + 1e-300) * np.eye(k) - A
    plain = np.broadcast_to(np.column_stack([np.eye(k), np.ones(k)]), (r, k, k + 1))
    d = _unit(np.concatenate([plain, np.maximum(axes, 0.0), np.maximum(-axes, 0.0)], axis=2))
    for _ in range(MOST_TURNS):
        d = _unit(np.maximum(rise @ d, 0.0))
    # what began at the steepest rise of all has nowhere to go
    each = np.where(d.any(axis=1), (d * (A @ d)).sum(axis=1), np.inf)
    least = each.argmin(axis=1)
    return each.min(axis=1), np.take_along_axis(d, least[:, None, None], 2)[:, :, 0]


def _unit(d: Array3) -> Array3:
    """Return columns of length one; one of zeros stays."""
    length = np.sqrt((d * d).sum(axis=1, keepdims=True))
    return np.asarray(d / np.where(length > 0.0, length, 1.0), dtype=np.float64)
