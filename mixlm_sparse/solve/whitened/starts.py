"""Other starts for the search in (phi, rho), where the criterion may have more than one valley.

Residual correlations over their range come first, each beside the random effects that were found,
smaller and larger ones: what one of the two says the other may say as well.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.valleys import SPREAD, anywhere
from mixlm_sparse.solve.search.objective import Start
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened import edge
from mixlm_sparse.solve.whitened.falls import Ways
from mixlm_sparse.solve.whitened.frame import WhitenedFrame

# Working parameters of residuals beyond this, at the end of a search, say that it ran to a limit.
AT_LIMIT = 18.0
AT_LIMIT_OF_VISITS = 8.0
# Random effects beside other residual correlations: as multiples of those found, or (None) I.
THETA_SIZES = (1.0, 0.1, None)
# What is smaller is none beside a correlation; small ones are these, as multiples of I.
LEAST_SIZE, SMALL_SIZE = 0.05, 0.3
# The same beside a level of hardly any variance, of I and of those found.
QUIET_SIZES = (1.0, 4.0)
# Variance of effects, relative to the residuals, from which on these may stand for them.
LARGE_SHARE = 1.0


class Searched(edge.Searched, Protocol):
    """What is asked of the objective of a search here, besides what its ends are asked for."""

    ways: Ways

    @property
    def quick(self) -> bool:
        """Return whether a gradient for each parameter is not noticed."""
        ...

    def at(self, rho: Vector) -> ProfiledObjective:
        """Return the objective in phi at rho."""
        ...


def at_limit(law: ResidualLaw) -> float:
    """Return the size of working parameters from which on they ran to a limit."""
    return AT_LIMIT_OF_VISITS if law.by_visits else AT_LIMIT


def other_starts(
    objective: Searched, *, singular: bool, phi: Vector, several: bool
) -> list[list[Start]]:
    """Return groups of starts that are worth while: see `ProfiledObjective`."""
    system, m = objective.system, objective.m_theta
    whitened = system.whitened
    assert whitened is not None
    law, scaled = whitened.law, system.chart.scaled
    theta, rho = phi[:m], phi[m:]
    if several:
        none = not objective.quick or law.without_noise_at(rho)
        return [] if none else _scattered(system, phi)
    if objective.ways.correlated and law.by_visits:
        return []  # where so many correlations are not told, one search falls as the other
    at_end = np.abs(rho).max(initial=0.0) > at_limit(law) and law.correlated
    if at_end and not (law.by_visits and edge.bounded(objective, phi)):
        return []  # it ran to a limit, and others would
    groups = []
    for name, moved in law.elsewhere(rho, beside=_between_groups(whitened.frame)):
        group = []
        for size in THETA_SIZES if m else (1.0,):
            there = system.chart.start if size is None else scaled(theta, size)
            if m and system.chart.size(there) < LEAST_SIZE:  # from none a search does not leave
                there = scaled(system.chart.start, SMALL_SIZE)
            group.append(Start(name, np.concatenate([there, moved])))
        groups.append(group)
    if m and objective.quick:
        groups += _instead_of_effects(system, phi)
        groups += [
            [
                Start(name, np.concatenate([scaled(there, size), moved]))
                for there in (system.chart.start, theta)
                for size in QUIET_SIZES
            ]
            for name, moved in law.without_noise(rho, system.q, objective.ways.levels())
        ]
    if m:
        inner = objective.at(rho).other_starts(singular=singular, phi=theta, several=False)
        groups += [
            [Start(one.name, np.concatenate([one.phi, rho])) for one in group] for group in inner
        ]
    return groups


def _instead_of_effects(system: PenalizedSystem, x: Vector) -> list[list[Start]]:
    """Return the start (0, rho) at which residual correlations stand for the effects of groups.

    Terms with one level for each group of the residuals have effects of mean variance s, relative
    to that of the residuals.  Beside a variance function the rows of a group have the covariance

        s J + D C D,    nearly (1 + s) D* C* D*,    log D* = log D / sqrt(1 + s),

    where the nearest rows in C* are correlated by (s + r) / (1 + s), by r in C: the level of the
    group is sqrt(1 + s) as large as before, and what D does to it is the same.  Either form may
    have a valley of its own.  Sigma^2 grows by 1 + s, and other terms shrink beside it.  With
    D = I the two are ends of a ridge, which a search follows.
    """
    whitened, chart, m = system.whitened, system.chart, system.n_theta
    assert whitened is not None
    frame, law = whitened.frame, whitened.law
    if law.variance is None or law.n_correlation != 1:
        return []
    phi, s = x[:m].copy(), 0.0
    for T, part, place in zip(chart.factors(x[:m]), chart.slices, chart.layout, strict=True):
        if frame.by_group[place.factor]:
            effects = frame.Z[place.factor][:, place.columns] @ T
            s += float((effects * effects).sum()) / system.n
            phi[part] = 0.0
    if s < LARGE_SHARE:
        return []
    rho = law.closer(x[m:], s)
    rho[law.variance_part] /= math.sqrt(1.0 + s)
    there = np.concatenate([chart.scaled(phi, 1.0 / math.sqrt(1.0 + s)), rho])
    return [[Start("residual correlations instead of effects", there)]]


def _between_groups(frame: WhitenedFrame) -> bool:
    """Say whether random effects correlate rows of different groups of the residuals.

    Within groups they and the residuals stand for the same covariances, singular or not.
    """
    group = frame.law.group_of
    for levels in frame.levels:
        if not isinstance(levels, np.ndarray) or levels.shape != group.shape:
            return True
        last = np.zeros(int(levels.max(initial=0)) + 1, dtype=np.intp)
        last[levels] = group
        if (last[levels] != group).any():
            return True
    return False


def _scattered(system: PenalizedSystem, x: Vector) -> list[list[Start]]:
    """Return starts all over the place."""
    m, rng = system.n_theta, np.random.default_rng(1)
    whitened = system.whitened
    assert whitened is not None
    law = whitened.law
    around = law.start.copy()
    around[law.variance_part] = x[m:][law.variance_part]
    out = []
    for (start,) in anywhere(system.chart, x[:m]):
        rho = around + SPREAD * rng.normal(size=law.n_rho)
        out.append([replace(start, phi=np.append(start.phi, rho))])
    return out
