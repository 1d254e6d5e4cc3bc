"""Random effects many times the residuals, and the limit in which nothing is left to these.

Of a response that is nearly constant within groups, what is within groups and what is between them
separates (see `separate`): sigma is estimated from the former alone, and the likelihood of the
latter is that of the groups' effects alone, in Sigma = sigma^2 theta theta'.  The optimum is at
theta of the order of their ratio, however large; a search begins next to it at

    sigma^2 = |y_w|^2 / (n - rank[X Z])    (ML: n - rank Z)

and at the Sigma that is found by holding sigma at a small share of the response's spread and
minimizing the joint criterion; what is left of the held sigma in Sigma is of the order of its
square.  Effects that are no larger than the noise are lost beside the held one, so that they start
at the size of the noise.

Where the response is constant within groups up to its rounding, the criterion falls without bound
as sigma goes to zero, and that Sigma is the estimate.
"""

from __future__ import annotations

import math

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import joint_criterion, residual_df
from mixlm_sparse.solve.curvature import parameter_levels
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

    larger = (1.0 / HELD_SHARE) ** chart.powers

    def function(x: Vector) -> tuple[float, Vector]:
        phi = x * larger
        try:
            value, G, _ = joint_criterion(
                chart.lambdas(phi), math.log(sigma), system, reml=reml
            )
        except NotPositiveDefiniteError:
            return math.inf, np.full_like(x, np.nan)
        return value, chart.pull_back(phi, chart.split(G)) * larger

    found = minimize_bfgs(
        function,
        chart.start,
        np.diag(2.0 * parameter_levels(system)),
        tolerance=TOLERANCE,
        max_evaluations=MAX_EVALUATIONS,
    )
    return chart.reflected(found.x * larger), sigma


def far_start(system: PenalizedSystem, *, reml: bool) -> Vector | None:
    """Return phi (m,) near an optimum at which sigma is small beside all random effects.

    Returns
    -------
    None where fixed and random effects together fit the response exactly.
    """
    apart, chart = system.apart, system.chart
    if apart.nothing_left:
        return None
    df = system.n - apart.rank - (apart.rank_within if reml else 0)
    sigma = abs(float(apart.R[-1, -1])) / math.sqrt(max(df, 1))
    phi, held = without_residual(system, reml=reml)
    blocks: list[Matrix] = []
    for T in chart.factors(phi):
        M = (held / sigma) * T
        root = np.linalg.cholesky(M @ M.T + np.eye(M.shape[0]))
        blocks.append(np.asarray(root, dtype=np.float64))
    return chart.parameters_of(blocks)
