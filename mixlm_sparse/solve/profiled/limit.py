"""The limit in which nothing is left to the residuals.

A response that is constant within groups, or nearly so, has a criterion that falls without bound
as sigma goes to zero, while the variances of the random effects stay: with sigma^2 theta theta' =
Sigma held, the likelihood is that of the groups' effects alone, and its optimum is their estimate.
It is found by holding sigma at a small share of the response's spread and minimizing the joint
criterion in Sigma; what is left of sigma in the answer is of the order of its square.
"""

from __future__ import annotations

import math

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.criterion import joint_criterion, residual_df
from mixlm_sparse.solve.search.bfgs import minimize_bfgs
from mixlm_sparse.solve.system import PenalizedSystem

# sigma as a share of the standard deviation of the least-squares residuals: its square, 1e-8, is
# lost beside the variances, and enough digits are left where theta is its inverse.
HELD_SHARE = 1e-4
TOLERANCE = 0.0  # to the rounding of the criterion
MAX_EVALUATIONS = 500


def without_residual(system: PenalizedSystem, *, reml: bool) -> tuple[Vector, float]:
    """Estimate the covariances of the random effects where sigma is zero beside them.

    Returns
    -------
    phi : (m,) relative to sigma.
    sigma : the value that sigma is held at.
    """
    products, chart = system.products, system.chart
    spread = math.sqrt(products.yy / residual_df(system, reml=True))
    sigma = HELD_SHARE * spread
    levels = np.empty(chart.m)
    for part, place in zip(chart.slices, chart.layout, strict=True):
        levels[part] = products.blocks.factors[place.factor].n_levels

    def function(x: Vector) -> tuple[float, Vector]:
        phi = x / HELD_SHARE
        try:
            value, G, _ = joint_criterion(
                chart.lambdas(phi), math.log(sigma), system, reml=reml
            )
        except NotPositiveDefiniteError:
            return math.inf, np.full_like(x, np.nan)
        return value, chart.pull_back(phi, chart.split(G)) / HELD_SHARE

    found = minimize_bfgs(
        function,
        chart.start,
        np.diag(2.0 * levels),
        tolerance=TOLERANCE,
        max_evaluations=MAX_EVALUATIONS,
    )
    return chart.reflected(found.x / HELD_SHARE), sigma
