"""Conjugate gradients for many right-hand sides side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix

# Residual at which a solution is exact for all that is done with it; quadratic forms are far more.
RESIDUAL_RTOL = 1e-12
MOST_STEPS = 2000
NOT_CONVERGED = (
    "conjugate gradients have not converged in {steps} steps: random effects are too large beside "
    "the residuals for engine='krylov'"
)


def conjugate_gradients(
    apply: Callable[[Matrix], Matrix], B: Matrix, *, tolerance: float = RESIDUAL_RTOL
) -> Matrix:
    """Return M^{-1} B, (m, r).

    Parameters
    ----------
    apply : returns M X of X (m, r), M symmetric and positive definite.
    tolerance : residual, as a share of the right-hand side, at which a solution is taken.

    Raises
    ------
    NotPositiveDefiniteError : M is not, or there is no end within `MOST_STEPS`.
    """
    X = np.zeros_like(B)
    R = B.copy()
    squares = (R * R).sum(axis=0)
    if not np.isfinite(squares).all():
        raise NotPositiveDefiniteError("Lambda'Z'WZ Lambda + I is not finite")
    least = tolerance**2 * squares
    P = R.copy()
    for _ in range(MOST_STEPS):
        going = np.flatnonzero(squares > least)
        if not going.size:
            return X
        Q = apply(P[:, going])
        curvature = (P[:, going] * Q).sum(axis=0)
        if not (curvature > 0.0).all():
            raise NotPositiveDefiniteError(
                "Lambda'Z'WZ Lambda + I is not positive definite in floating point"
            )
        step = squares[going] / curvature
        X[:, going] += step * P[:, going]
        R[:, going] -= step * Q
        fresh = (R[:, going] ** 2).sum(axis=0)
        P[:, going] = R[:, going] + (fresh / squares[going]) * P[:, going]
        squares[going] = fresh
    raise NotPositiveDefiniteError(NOT_CONVERGED.format(steps=MOST_STEPS))
