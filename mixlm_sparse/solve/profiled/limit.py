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
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import joint_criterion, residual_df
from mixlm_sparse.solve.curvature import phi_scales
from mixlm_sparse.solve.pls import PERFECT_FIT_RTOL
from mixlm_sparse.solve.profiled.boundary import settle_boundary
from mixlm_sparse.solve.profiled.legs import Legs
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
    at = _AtHeldSigma(system, HELD_SHARE * spread, reml)
    evaluations = [MAX_EVALUATIONS]

    def function(x: Vector) -> tuple[float, Vector]:
        evaluations[0] -= 1
        return at.value_and_gradient(x)

    def settle(x: Vector, value: float) -> tuple[Vector, bool]:
        found = settle_boundary(at, x, value)
        return found.phi, found.escaped

    legs = Legs(
        function,
        scales=lambda x: phi_scales(x, system),
        settle=settle,
        left=lambda: evaluations[0],
        tolerance=TOLERANCE,
    )
    found, _ = legs.off_saddle(legs.from_point(chart.start))
    return chart.reflected(found.x * at.larger), at.sigma


@dataclass(frozen=True, eq=False)
class _AtHeldSigma:
    """The joint criterion with sigma held, in x: phi of the size of the response's spread.

    Parameters
    ----------
    sigma : what it is held at, `HELD_SHARE` of the spread.
    """

    system: PenalizedSystem
    sigma: float
    reml: bool

    @cached_property
    def larger(self) -> Vector:
        """(m,) what x is multiplied by to get phi, which is relative to sigma."""
        out: Vector = (1.0 / HELD_SHARE) ** self.system.chart.powers
        return out

    def value(self, phi: Vector) -> float:
        return self.value_and_gradient(phi)[0]

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        chart, phi = self.system.chart, x * self.larger
        value, slopes = self._at(chart.lambdas(phi))
        if not slopes:
            return math.inf, np.full_like(x, np.nan)
        return value, chart.pull_back(phi, slopes) * self.larger

    def at_factors(self, lambdas: list[Matrix]) -> tuple[float, list[Matrix]]:
        value, slopes = self._at([lam / HELD_SHARE for lam in lambdas])
        return value, [slope / HELD_SHARE for slope in slopes]

    def _at(self, lambdas: list[Matrix]) -> tuple[float, list[Matrix]]:
        try:
            log_sigma = math.log(self.sigma)
            value, G, _ = joint_criterion(lambdas, log_sigma, self.system, reml=self.reml)
        except NotPositiveDefiniteError:
            return math.inf, []
        return value, self.system.chart.split(G)

    def noise(self, phi: Vector) -> float:
        nu = residual_df(self.system, reml=self.reml)
        return nu * float(np.finfo(np.float64).eps) / HELD_SHARE


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


def radial_decrease(phi: Vector, gradient: Vector, system: PenalizedSystem) -> float:
    """Return what scaling one term would win at least.

    With r = phi'g of a term, the slope in the log of its size, and a curvature of at most 4 L k
    there, that is r^2 / (8 L k).  Far out, where the criterion grows like the log of phi, the
    gradient itself is as small as near an optimum.
    """
    chart = system.chart
    factors = system.products.blocks.factors
    return max(
        float((chart.powers * phi)[part] @ gradient[part]) ** 2
        / (8.0 * place.width * factors[place.factor].n_levels)
        for part, place in zip(chart.slices, chart.layout, strict=True)
    )


def fitted_exactly(system: PenalizedSystem) -> str | None:
    """Say why there is nothing to estimate, if the fixed part leaves no residual."""
    products = system.products
    if np.sqrt(products.yy) > PERFECT_FIT_RTOL * products.y_length and products.yy > 0.0:
        return None
    steep = products.R_x @ np.where(
        np.array(system.x_names) == "(Intercept)", 0.0, products.beta_ols
    )
    if float(np.sqrt(steep @ steep)) <= PERFECT_FIT_RTOL * products.y_length:
        return "the response is constant"
    return "the fixed effects fit the response exactly"
