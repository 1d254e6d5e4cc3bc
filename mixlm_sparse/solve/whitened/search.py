"""The optimum of a model with a residual structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.solve.pls import LARGEST_FACTOR
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.objective import Progress
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.search import SAME_VALLEY, better, look, search, search_far
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.smallest import smallest
from mixlm_sparse.solve.solution import PlsSolution, solve_pls
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.falls import described, to_singular
from mixlm_sparse.solve.whitened.far import end_of_ridge, far_at_first, far_beside
from mixlm_sparse.solve.whitened.objective import WhitenedObjective
from mixlm_sparse.solve.whitened.starts import AT_LIMIT, at_limit

__all__ = ["optimize_whitened", "solution_at"]

FAR_OUT = "random effects far out"
# Shares of residual parameters at which a solution is tried where rounding leaves none.
CLOSER = (1.0, 0.95, 0.9, 0.8, 0.6, 0.4)


def optimize_whitened(
    system: PenalizedSystem,
    start: Vector | None,
    *,
    given: bool,
    reml: bool,
    method: str,
    control: Control,
    progress: Progress | None,
    began: float,
) -> Optimum:
    """Minimize the criterion over (theta, rho).

    Parameters
    ----------
    system : at any rho.
    start : (m,) phi or (m + n_rho,) phi and rho, relative to sigma; None for a moment estimate.
    given : whether it is the user's, beside which no other valleys are looked for.

    Returns
    -------
    Optimum : theta and phi of the random effects, relative to sigma; rho of the residuals;
        `gradient` by all of them.
    """
    objective = WhitenedObjective(system, reml, progress)
    m = system.n_theta
    x = None if start is None else _centered(objective, start)
    looks = not given and method == "bfgs" and control.second_looks
    found = _far_at_first(objective, control, began) if looks and x is None else None
    if found is None:
        found = search(
            objective, x, given=given, method=method, control=control, began=began
        )
    if looks:
        far = far_beside(objective, found.phi)
        if far is not None:
            found = _lower(found, search_far(far, objective, control, began))
    rho = found.phi[m:]
    there = system.at_rho(rho, centered=True)

    def criterion(phi: Vector) -> tuple[float, Vector]:
        return objective.value_and_gradient(np.concatenate([phi, rho]))

    moved = smallest(replace(found, phi=found.phi[:m], theta=found.theta[:m]), there, criterion)
    found = replace(moved, phi=np.concatenate([moved.phi, rho]))
    found = _without_end(
        replace(found, phi=np.concatenate([found.phi[:m], rho])), objective,
        singular=None if given else objective.ways.to_singular(objective, rho),
    )  # fmt: skip
    if not found.converged:
        found = _where_it_solves(found, objective)
        rho = found.phi[m:]
    phi, size = _relative_to_sigma(found.phi, objective)
    return replace(
        found,
        theta=system.chart.theta_of_phi(phi),
        phi=phi,
        rho=rho,
        sigma=None if found.sigma is None else found.sigma / size,
    )


def _relative_to_sigma(x: Vector, objective: WhitenedObjective) -> tuple[Vector, float]:
    """Return phi (m,) relative to sigma itself, and by what factor it is larger.

    sigma of the centered law is larger by this factor, what is relative to it smaller.
    """
    m = objective.m_theta
    size = float(np.exp(objective.center(x[m:])))
    return objective.system.chart.scaled(x[:m], size), size


def _where_it_solves(found: Optimum, objective: WhitenedObjective) -> Optimum:
    """Return the end of a search that is no optimum, or a point before it at which it solves.

    On the way to where the likelihood grows without end rows have variances of e^-30 of others':
    whether anything can be factorized there is a matter of rounding.
    """
    system, m = objective.system, objective.m_theta
    for share in CLOSER:
        x = np.concatenate([found.phi[:m], share * found.phi[m:]])
        try:
            phi, _ = _relative_to_sigma(x, objective)
            PlsSolution(system.chart.theta_of_phi(phi), system.at_rho(x[m:]))
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            continue
        if share == 1.0:
            break
        value, gradient = objective.value_and_gradient(x)
        return replace(found, phi=x, criterion=value, gradient=gradient)
    return found


def _far_at_first(
    objective: WhitenedObjective, control: Control, began: float
) -> Optimum | None:
    """Return the lowest optimum from starts far out; None if there are none, or it is no optimum.

    Where searches from there run along the ridge, they run to its end: no random effects, and a
    correlation next to one.
    """
    found: Optimum | None = None
    starts = far_at_first(objective)
    for far in starts:
        objective.beyond = True
        again = search_far(far, objective, control, began)
        found = again if found is None else _lower(found, again, FAR_OUT)
        if not again.converged:
            break
    if found is not None:
        before = objective.best_value, objective.best_phi
        last = _at_end_of_ridge(objective, found, control, began)
        if last is not None:
            return last
        if found.converged:
            objective.beyond = True
            objective.best_value, objective.best_phi = before
            return found
    objective.beyond, objective.best_value = False, np.inf
    return None


def _at_end_of_ridge(
    objective: WhitenedObjective, found: Optimum, control: Control, began: float
) -> Optimum | None:
    """Return the optimum at the end of the ridge, if it is as low as what was found on it."""
    end = end_of_ridge(objective, found.phi)
    if end is None:
        return None
    on_ridge = objective.system.chart.size(found.phi[: objective.m_theta]) > 0.0
    # a search that is satisfied on the ridge may be next to an end that is as low
    if found.converged and not (on_ridge and objective.value(end) <= found.criterion):
        return None
    objective.beyond, objective.best_value = False, np.inf
    last = look(objective, end, "bfgs", control, began)
    as_low = last is not None and last.converged and last.criterion <= found.criterion
    return last if as_low else None


def _lower(found: Optimum, again: Optimum, name: str = "moment estimate") -> Optimum:
    """Return the lower of two optima, the second of which was begun far out; both are told.

    Parameters
    ----------
    name : what the first was begun with.
    """
    valleys = sorted((found.criterion, again.criterion))
    other = found.second_valley
    if valleys[1] > valleys[0] + SAME_VALLEY:
        other = valleys[1] if other is None else min(other, valleys[1])
    first = found.tried or (f"{name}: {found.criterion:.6f}",)
    return replace(
        better(found, again),
        tried=(*first, f"{FAR_OUT}: {again.criterion:.6f}"),
        second_valley=other,
    )


def _without_end(
    found: Optimum, objective: WhitenedObjective, *, singular: int | None
) -> Optimum:
    """Say of what was found that the criterion falls without end along the residual parameters.

    Parameters
    ----------
    singular : stratum of which the rows show that it does, at a singular correlation.
    """
    falls = [way for way, _ in objective.ways.falls.values()]
    whitened = objective.system.whitened
    assert whitened is not None
    law, rho = whitened.law, found.phi[objective.m_theta :]
    size = np.abs(rho[: law.variance_part.start]).max(initial=0.0)
    correlation = any(not way.level for way in falls)
    visits = law.by_visits
    ran = singular is not None or (visits and size > at_limit(law) and not found.converged)
    if not (falls or ran) or found.status in (Status.PERFECT, Status.NO_RESIDUAL):
        return found
    if visits and (correlation or ran):
        T = law.places.T
        whole = int((law.sizes == T).sum())
        edge = (
            f"the correlation matrix of the visits becomes singular; {whole} of {law.sizes.size} "
            f"groups have rows at all {T} visits"
        )
        remedy = (
            f"use a structure with fewer parameters, such as {_smaller(law)}, or leave out visits "
            "with few rows"
        )
    else:
        way = falls[0] if falls or singular is None else to_singular(law, singular)
        edge, remedy = described(way, law, random=objective.m_theta > 0)
    status = Status.LOCAL if found.converged else Status.NO_MINIMUM
    return replace(
        found, status=status, message=status.message.format(edge=edge),
        advice=status.advice.format(remedy=remedy),
    )  # fmt: skip


def _smaller(law: ResidualLaw) -> str:
    """Name structures with fewer parameters than that of a law."""
    names = ("AnteDependence", "Toeplitz", "AR1")
    own = type(law.correlation).__name__
    rest = names[names.index(own) + 1 :] if own in names else names
    return " or ".join(rest) if len(rest) < 3 else "AnteDependence, Toeplitz or AR1"


def solution_at(optimum: Optimum, system: PenalizedSystem) -> PlsSolution:
    """Solve at an optimum; with a residual structure, the solution's system has its rho."""
    if system.whitened is not None:
        system = system.at_rho(optimum.rho)
    if not (np.abs(optimum.phi) <= LARGEST_FACTOR).all():
        return solve_pls(optimum.theta, system)  # which says what is wrong with it
    return PlsSolution(optimum.theta.copy(), system)


def _centered(objective: WhitenedObjective, start: Vector) -> Vector:
    """Return (phi, rho) with phi relative to the sigma of the centered law."""
    system = objective.system
    assert system.whitened is not None
    m = system.n_theta
    rho = start[m:] if start.size > m else system.whitened.law.start
    rho = np.clip(rho, -0.5 * AT_LIMIT, 0.5 * AT_LIMIT)
    whitened = objective.at(rho).system.whitened
    assert whitened is not None
    size = float(np.exp(-whitened.whitening.center))
    phi = system.chart.scaled(start[:m], size)
    return np.concatenate([phi, rho])
