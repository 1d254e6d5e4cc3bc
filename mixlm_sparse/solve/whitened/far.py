"""An optimum far out in phi beside one at a limit of the residual correlation.

A correlation near one makes of the residuals another effect of the groups, much larger than what is
left within them: a valley of its own, from which no search goes far out.  Whether there is another
is asked of what is within groups, with residuals of no correlation.
"""

from __future__ import annotations

import math

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.search.objective import FarStart
from mixlm_sparse.solve.whitened.objective import WhitenedObjective

# Where an optimum may have another one far out beside it: by the size of its random effects or rho,
# and by what the response is beside what is left of it within groups.
SUSPECT_SIZE, SUSPECT_RHO = 100.0, 5.0
LARGE_EFFECTS = 1e3


def far_beside(objective: WhitenedObjective, x: Vector) -> FarStart | None:
    """Return a start far out in phi beside an optimum x, (phi, rho); None where there is none."""
    m, system = objective.m_theta, objective.system
    if objective.beyond or not m:
        return None
    if system.chart.size(x[:m]) < SUSPECT_SIZE and np.abs(x[m:]).max(initial=0.0) < SUSPECT_RHO:
        return None
    assert system.whitened is not None
    rho = system.whitened.law.start
    there = objective.at(rho).system
    apart = there.apart
    if apart.nothing_left:
        return None
    df = max(there.n - apart.rank - apart.rank_within, 1)
    within = abs(float(apart.R[-1, -1])) / math.sqrt(df)
    if math.sqrt(there.products.yy / residual_df(there, reml=True)) < LARGE_EFFECTS * within:
        return None
    before, objective.best_phi = objective.best_phi, np.concatenate([x[:m], rho])
    far = objective.far_out()
    objective.best_phi = before
    return far
