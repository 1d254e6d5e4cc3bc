"""The fixed effects and the criterion's parts of a small model, read off its fused evaluation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.pls import CANCELLATION_LIMIT
from mixlm_sparse.solve.products.basis import upper_triangle
from mixlm_sparse.solve.system import PenalizedSystem


class Profiled(NamedTuple):
    """What `WorkingSolution` says of the fixed effects and of the criterion; see there."""

    R_X: Matrix
    beta: Vector
    ldL2: float
    ldRX2: float
    pwrss: float


def profiled_at(lambdas: list[Matrix], system: PenalizedSystem) -> Profiled | None:
    """Profile u and beta out without the engine, in a small model; None where `solve_at` has to.

    That is where there is no such evaluation, or it leaves too few digits.
    """
    products = system.products
    with system.lock:
        fused = system.fused
        if fused is None:
            return None
        found = fused.evaluate(lambdas, -1.0, reml=False, gradient=False)
    if found is None or found.factor is None or found.least_pivot < CANCELLATION_LIMIT:
        return None
    p = products.p
    R_X = upper_triangle(found.factor[:p, :p].T)
    half = found.factor[p, :p]
    beta = lapack.dtrtrs(R_X, half, lower=0)[0] if p else np.empty(0)
    return Profiled(R_X, beta, found.ldL2, found.ldRX2 + system.log_det_R_x, found.pwrss)
