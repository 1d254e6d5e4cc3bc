"""Whether an optimum is a saddle, and the Hessian near it where that costs little.

A search that descends comes to a saddle along a line of symmetry only: the data are the same with
two terms exchanged, with two predictors exchanged, or with a predictor's sign changed.  Where a
gradient costs little, one for each parameter tells; else it is looked for where two parameters are
equal or a covariance is zero.  In small models evaluated by NumPy these gradients come in one pass
for little more than the price of one: near the end of a search they give the Hessian, Newton's
steps from there on, and the answer to this question as well.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.fused.plain import PlainDense, PlainFactor
from mixlm_sparse.solve.curvature import (
    SCREEN_STEP,
    parameter_levels,
    phi_scales,
    profiled_gradients,
)
from mixlm_sparse.solve.system import PenalizedSystem

# Multiply-adds of a gradient for each parameter that are not noticed in a fit, about a millisecond.
QUICK_WORK = 2e6
# Standard deviations that differ by less are equal.
SYMMETRIC_RTOL = 1e-4
# Least eigenvalue of a Hessian, in units in which it is about one, that no step nearby makes
# negative; and such a step, in two times what it would win.
CLEARLY_POSITIVE = 0.2
CLOSE = 0.02


def quick(system: PenalizedSystem) -> bool:
    """Say whether a gradient for each parameter costs less than what a fit takes anyway."""
    products = system.products
    factors = products.blocks.factors
    if len(factors) == 1:
        f = factors[0]
        work = f.n_levels * f.width**2 * (f.width + products.p + 1)
    else:
        work = system.q**3
    return bool(system.chart.m * work <= QUICK_WORK)


def together(system: PenalizedSystem) -> bool:
    """Say whether a gradient for each parameter costs little more than one."""
    return isinstance(system.fused, PlainFactor | PlainDense) and quick(system)


def sharp_hessian(
    phi: Vector, gradient: Vector, system: PenalizedSystem, *, reml: bool
) -> Matrix | None:
    """Return the Hessian (m, m) by forward differences; None unless it is clearly positive."""
    scales = phi_scales(phi, system)
    try:
        moved = profiled_gradients(system, reml=reml)(phi + np.diag(SCREEN_STEP * scales))
    except NotPositiveDefiniteError:
        return None
    H = (moved - gradient) / (SCREEN_STEP * scales[:, None])
    H = 0.5 * (H + H.T)
    units = scales / np.sqrt(parameter_levels(system))
    if not np.isfinite(H).all():
        return None
    least = np.linalg.eigvalsh(H * np.outer(units, units))[0]
    return H if least >= CLEARLY_POSITIVE else None


def symmetric(phi: Vector, system: PenalizedSystem) -> bool:
    """Say whether two standard deviations are equal, or effects that vary uncorrelated."""
    sds: list[float] = []
    for template, T in zip(system.templates, system.chart.factors(phi), strict=True):
        own = np.abs(np.diag(T))
        sd = np.sqrt((T * T).sum(axis=1))
        tied = template.closed_under == "one scale"  # equal by the structure
        sds += (sd[:1] if tied else sd[own > 0.0]).tolist()
        if template.closed_under != "linear":
            continue
        for i in range(template.k):
            for j in range(i):
                if own[i] > 0.0 and own[j] > 0.0 and abs(T[i, j]) <= SYMMETRIC_RTOL * sd[i]:
                    return True
    ordered = sorted(sds)
    return any(
        upper - lower <= SYMMETRIC_RTOL * upper
        for lower, upper in pairwise(ordered)
    )
