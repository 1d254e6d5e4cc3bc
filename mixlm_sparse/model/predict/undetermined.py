"""Which variances of predictions the data determine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.smallest import others
from mixlm_sparse.solve.solution import PlsSolution, solve_pls

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

# Variances that differ by less between covariances that fit equally well are the same.
SAME_RTOL = 1e-6


def undetermined(
    fit: FittedModel, variance: Callable[[PlsSolution], Vector], fixed: Matrix | None = None
) -> NDArray[np.bool_] | bool:
    """Say which variances (n,) differ between covariances that fit the data equally well.

    Parameters
    ----------
    variance : the variances / sigma^2 at a solution.
    fixed : (n, p) of x'beta^, where that is all whose variances these are.
    """
    judged = fit.identification
    if judged.complete:
        return False
    if fixed is not None:
        unlike, place = np.unique(fixed, axis=0, return_inverse=True)
        return np.asarray(~judged.coefficients(unlike)[place.ravel()])
    if not judged.residual:
        return True
    here = variance(fit.solution)
    out = np.zeros(here.size, dtype=bool)
    for theta in others(fit.optimum.phi, fit.system, reml=fit.reml):
        there = variance(solve_pls(theta, fit.system))
        out |= np.abs(there - here) > SAME_RTOL * np.maximum(here, there)
    return out
