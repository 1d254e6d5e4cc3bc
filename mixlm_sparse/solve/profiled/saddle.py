"""Whether an optimum is a saddle, and the Hessian near it where that costs little.

A search that descends comes to a saddle along a line of symmetry only: the data are the same with
two terms exchanged, with two predictors exchanged, or with a predictor's sign changed.  Where a
gradient costs little, one for each parameter tells; else it is looked for where two parameters are
equal or a covariance is zero.  In small models evaluated by NumPy these gradients come in one pass
for little more than the price of one: near the end of a search they give the Hessian, Newton's
steps from there on, and the answer to this question as well; so does a compiled search, whose own
evaluations take no calls.  Such a Hessian also shows that the data determine all (see `shows_all`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.fused.dense import SmallDense
from mixlm_sparse.engines.fused.found import Found
from mixlm_sparse.engines.fused.levels import SingleFactor
from mixlm_sparse.engines.fused.plain import PlainDense, PlainFactor
from mixlm_sparse.solve.chart import Chart
from mixlm_sparse.solve.curvature import (
    SCREEN_STEP,
    parameter_levels,
    phi_scales,
    profiled_gradients,
)
from mixlm_sparse.solve.profiled.boundary import NULL_ATOL
from mixlm_sparse.solve.search.bfgs import NEAR
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem

# Multiply-adds of a gradient for each parameter that are not noticed in a fit, about a millisecond.
QUICK_WORK = 2e6
# The same for what a compiled search adds, less than a tenth of that.
HARDLY_NOTICED = 1e5
# Standard deviations that differ by less are equal.
SYMMETRIC_RTOL = 1e-4
# Least eigenvalue of a Hessian, in units in which it is about one, that no step nearby makes
# negative; and such a step, in two times what it would win.
CLEARLY_POSITIVE = 0.2
CLOSE = 0.02


@dataclass(frozen=True, eq=False, slots=True)
class Sharp:
    """A Hessian (m, m) that is clearly positive definite, and phi (m,) where it is."""

    phi: Vector
    hessian: Matrix

    def covers(self, phi: Vector, chart: Chart) -> bool:
        """Say whether phi, which is in bounds, is so close that the Hessian there is it, nearly."""
        if self.phi.tolist() == phi.tolist():
            return True
        within = chart.reflected(self.phi)
        signs = np.where(self.phi * within < 0.0, -1.0, 1.0)
        step = signs * (phi - within)
        return bool(step @ self.hessian @ step <= CLOSE)


def shows_all(sharp: Sharp | None, found: Optimum, system: PenalizedSystem) -> bool:
    """Say whether the Hessian at an optimum shows that the data determine every (co)variance.

    Along a direction of (S, sigma^2) in which no law moves (see `judging`) the criterion
    stays as it is.  It is not that of a common factor, so that S / sigma^2 moves along it, and phi
    with that where every factor is regular: the Hessian at an optimum would be zero along it.
    """
    chart = system.chart
    return bool(
        sharp is not None
        and found.status is Status.CONVERGED
        and chart.copies
        and (np.abs(found.phi[chart.lower == 0.0]) > NULL_ATOL).all()
        and sharp.covers(found.phi, chart)
    )


def quick(system: PenalizedSystem, most: float = QUICK_WORK) -> bool:
    """Say whether a gradient for each parameter costs less than what a fit takes anyway."""
    products = system.products
    factors = products.blocks.factors
    if len(factors) == 1:
        f = factors[0]
        work = f.n_levels * f.width**2 * (f.width + products.p + 1)
    else:
        work = system.q**3
    return bool(system.chart.m * work <= most)


def together(system: PenalizedSystem) -> bool:
    """Say whether a gradient for each parameter costs next to nothing.

    In NumPy they are made in the same calls, in machine code a call is short.
    """
    fused = PlainFactor | PlainDense | SingleFactor | SmallDense
    return isinstance(system.fused, fused) and quick(system)


def sharp_hessian(
    phi: Vector, gradient: Vector, system: PenalizedSystem, *, reml: bool, near: bool = False
) -> Matrix | None:
    """Return the Hessian (m, m) by forward differences; None unless it is clearly positive.

    Parameters
    ----------
    near : return None as well where a step from phi wins much, by a Hessian of about one.
    """
    scales = phi_scales(phi, system)
    units = scales / np.sqrt(parameter_levels(system))
    if near:
        slopes = gradient * units
        if not 0.5 * (slopes @ slopes) <= NEAR:
            return None
    steps = SCREEN_STEP * scales
    try:
        moved = profiled_gradients(system, reml=reml)(phi + np.diag(steps))
    except NotPositiveDefiniteError:
        return None
    H = (moved - gradient) / steps[:, None]
    return _clearly_positive(0.5 * (H + H.T), units)


def sharp_of(found: Found, system: PenalizedSystem) -> Sharp | None:
    """Return the Hessian where a compiled search ended, if it has one that is clearly positive."""
    if found.hessian is None:
        return None
    H = _clearly_positive(found.hessian, found.scales / np.sqrt(parameter_levels(system)))
    return None if H is None else Sharp(found.phi, H)


def _clearly_positive(H: Matrix, units: Vector) -> Matrix | None:
    """Return a Hessian H (m, m) if no step nearby makes an eigenvalue negative, else None.

    Parameters
    ----------
    units : (m,) in which it is about one.
    """
    scaled = H * (units[:, None] * units)
    scaled.flat[:: units.size + 1] -= CLEARLY_POSITIVE
    # no factor: an eigenvalue is less, or a number is none
    return H if lapack.dpotrf(scaled, lower=1)[1] == 0 and math.isfinite(H.sum()) else None


def symmetric_each(phis: Matrix, system: PenalizedSystem) -> NDArray[np.bool_]:
    """Return `symmetric` for each row of phi (r, m), of factors that are copies of it."""
    out = np.zeros(len(phis), dtype=bool)
    sds = []
    for template, T in zip(system.templates, system.chart.stacked_factors(phis), strict=True):
        own = np.abs(np.diagonal(T, axis1=1, axis2=2))
        sd = np.sqrt((T * T).sum(axis=2))
        if template.closed_under == "one scale":
            sds.append(sd[:, :1])
            continue
        sds.append(np.where(own > 0.0, sd, np.nan))
        if template.closed_under == "linear":
            small = np.abs(T) <= SYMMETRIC_RTOL * sd[:, :, None]
            pair = (own[:, :, None] > 0.0) & (own[:, None] > 0.0)
            out |= (small & pair & np.tri(template.k, k=-1, dtype=bool)).any(axis=(1, 2))
    ordered = np.sort(np.concatenate(sds, axis=1), axis=1)  # NaN comes last, and equals nothing
    lower, upper = ordered[:, :-1], ordered[:, 1:]
    return np.asarray(out | (upper - lower <= SYMMETRIC_RTOL * upper).any(axis=1))


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
