"""An optimum far out in phi beside one at a limit of the residual correlation.

A correlation near one makes of the residuals another effect of the groups, much larger than what is
left within them: a valley of its own, from which no search goes far out.  Whether there is another
is asked of what is within groups, with residuals of no correlation.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.search.objective import FarStart
from mixlm_sparse.solve.whitened.objective import FARTHEST, WhitenedObjective

# Where an optimum may have another one far out beside it: by the size of its random effects or rho,
# and by what the response is beside what is left of it within groups; the same at first.
SUSPECT_SIZE, SUSPECT_RHO = 100.0, 5.0
LARGE_EFFECTS, LARGE_AT_FIRST = 1e3, 30.0
# Moment estimates of random effects, relative to the noise, are not below this then.
LARGE_START = 2.0


def far_beside(objective: WhitenedObjective, x: Vector) -> FarStart | None:
    """Return a start far out in phi beside an optimum x, (phi, rho); None where there is none."""
    m, system = objective.m_theta, objective.system
    if objective.beyond or not m:
        return None
    if system.chart.size(x[:m]) < SUSPECT_SIZE and np.abs(x[m:]).max(initial=0.0) < SUSPECT_RHO:
        return None
    return _far(objective, LARGE_EFFECTS)


def far_at_first(objective: WhitenedObjective) -> list[FarStart]:
    """Return starts far out in phi where the response says that the optimum is there.

    Next to constant groups, with one correlation of the residuals in time: the search would crawl
    along a ridge on which the correlation, next to one, stands for the groups.
    """
    m, system = objective.m_theta, objective.system
    assert system.whitened is not None
    law = system.whitened.law
    if not m or not law.markov or law.variance is not None or law.by_visits:
        return []
    if system.chart.size(objective.start()[:m]) < LARGE_START:
        return []
    far = _far(objective, LARGE_AT_FIRST)
    if far is None:
        return []
    return [far] + [
        replace(far, phi=np.concatenate([far.phi[:m], rho])) for _, rho in law.elsewhere(law.start)
    ]


def end_of_ridge(objective: WhitenedObjective, x: Vector) -> Vector | None:
    """Return the point (0, rho) that has nearly the covariance of x, (phi, rho), if it is no limit.

    Next to a correlation of one, intercepts of the groups and the level of their residuals are one:
    with D the decay in a unit of time, sigma^2 (theta^2 + 1) and sigma^2 D stay.  D is exp(-rho) of
    `CAR1`, 2 exp(-2 rho) of `AR1`.
    """
    m, system = objective.m_theta, objective.system
    assert system.whitened is not None
    law = system.whitened.law
    out = x.copy()
    out[:m] = 0.0
    steps = [law.natural(x[m:] + up)[0] for up in (0.0, 1.0)]
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.log((1.0 - steps[0]) / (1.0 - steps[1]))
    up = math.log1p(system.chart.size(x[:m]) ** 2) / np.where(rate > 0.5, rate, 2.0)
    out[m:] += up
    return out if np.abs(out[m:]).max() < FARTHEST else None


def _far(objective: WhitenedObjective, large: float) -> FarStart | None:
    m, system = objective.m_theta, objective.system
    assert system.whitened is not None
    rho = system.whitened.law.start
    there = objective.at(rho).system
    apart = there.apart
    if apart.nothing_left:
        return None
    df = max(there.n - apart.rank - apart.rank_within, 1)
    within = abs(float(apart.R[-1, -1])) / math.sqrt(df)
    if math.sqrt(there.products.yy / residual_df(there, reml=True)) < large * within:
        return None
    before, objective.best_phi = objective.best_phi, np.concatenate([np.zeros(m), rho])
    far = objective.far_out()
    objective.best_phi = before
    return far
