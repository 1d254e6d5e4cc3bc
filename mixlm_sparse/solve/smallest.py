"""Of all covariances that fit the data equally well, the smallest.

Where the data do not determine the covariances of the random effects, the criterion is the same
on a set of them: those of the search, plus any combination of the directions c that no law moves
with (see `judging`), as far as they stay covariances.  Where a search ends there is chance.
Taken instead is the point of least length,

    minimize sum_t |S_t|^2    over S = S_found + sum_i x_i c_i,  all S_t positive semidefinite,

lengths in the working columns, which know no unit and (for an unstructured term) no origin of a
predictor.  The set is convex and the length strictly so: there is one such point, whatever the
start.  A variance that fixed effects hide is zero there; two that stand for the same effects are
equal.

References
----------
Boyle and Dykstra (1986), doi:10.1007/978-1-4613-9940-7_3, for the projection on two convex sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.criterion import evaluate
from mixlm_sparse.solve.information import Seen, information_of
from mixlm_sparse.solve.judging import unseen
from mixlm_sparse.solve.search.bfgs import ROUNDING
from mixlm_sparse.solve.search.optimum import ZERO_SIGMA, Optimum
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem

# Value and gradient by what is free, at phi (m,).
Criterion = Callable[[Vector], tuple[float, Vector]]

MAX_STEPS = 20_000
TOLERANCE = 1e-13  # of the covariances, relative to the largest
# Pivots of a covariance below this share of the largest variance are zero.
PIVOT_RTOL = 1e-12
# Steps, in units of the largest (co)variance, to other covariances along a direction.
SIDES = (1.0, -1.0, 0.3, -0.3, 0.03, -0.03)
# A direction with less than this of the residual variance has none of it.
RESIDUAL_PART = 1e-7
# The criterion is the same at both points, up to this: directions that are hardly seen (eigenvalues
# of the information near 1e-12) change it by 1e-6, and where a search ends among them is chance.
SAME_CRITERION = 2e-6


def smallest(
    optimum: Optimum, system: PenalizedSystem, criterion: Criterion | None = None
) -> Optimum:
    """Return the optimum with the smallest covariances that fit as well.

    Parameters
    ----------
    optimum : where a search ended.
    system : with a residual structure, at the optimum's rho.
    criterion : value and gradient by all that is free, as a function of phi (m,); by default the
        profiled one.
    """
    finite = np.isfinite(optimum.theta).all()
    if optimum.status is Status.PERFECT or ZERO_SIGMA in optimum.at_boundary or not finite:
        return optimum
    if not system.templates:
        return optimum
    seen = information_of(system, reml=optimum.reml)
    null, tolerance = unseen(system, reml=optimum.reml, phi=optimum.phi)
    if not null.shape[1] or np.abs(null[-1]).max() > RESIDUAL_PART:
        return optimum
    if any(template.covariance_basis is None for template in system.templates):
        return optimum
    N, places = _directions(system, seen, null)
    Q, _ = np.linalg.qr(N)
    S = _covariances(system, optimum.phi)
    moved = _least(S, Q, places)
    phi = _phi_of(system, moved, places, PIVOT_RTOL * float(np.abs(S).max()))
    largest = float(np.abs(N).max())
    free = [bool((np.abs(N[place]) > tolerance * largest).any()) for place in places]
    holds = () if system.held is None else system.held.holds
    if any(free[hold.term] for hold in holds):  # on the way, what is held would change
        return optimum
    at = _profiled(system, reml=optimum.reml) if criterion is None else criterion
    return _moved(optimum, system, phi, free, at)


def others(phi: Vector, system: PenalizedSystem, *, reml: bool) -> list[Vector]:
    """Return theta (m,) of other covariances that fit as well as those of phi (m,).

    One to the side of each direction that the data do not see, and one with larger variances.

    What differs between them and phi is not determined.  Directions that move the residual variance
    have none, nor has one to whose sides there are no covariances.
    """
    null, _ = unseen(system, reml=reml, phi=phi)
    if not null.shape[1] or np.abs(null[-1]).max() > RESIDUAL_PART:
        return []
    if any(template.covariance_basis is None for template in system.templates):
        return []
    N, places = _directions(system, information_of(system, reml=reml), null)
    S = _covariances(system, phi)
    top = max(float(np.abs(S).max()), 1.0)
    Q, _ = np.linalg.qr(N)
    unit = np.concatenate([np.eye(template.k).ravel() for template in system.chart.templates])
    inward = Q @ (Q.T @ unit)  # towards larger variances
    out = []
    for c in [inward, *(N / np.abs(N).max(axis=0)).T]:
        sides = (S + top * (a * inward + b * c) for a in (0.0, 1.0) for b in SIDES)
        side = next((s for s in sides if _least_eigenvalue(s, places) >= -TOLERANCE * top), None)
        if side is not None:
            moved = _phi_of(system, side, places, PIVOT_RTOL * top)
            out.append(system.chart.theta_of_phi(moved))
    return out


def _directions(
    system: PenalizedSystem, seen: Seen, null: Matrix
) -> tuple[Matrix, list[slice]]:
    """Return what directions of the parameters do to all covariances, and each term's place."""
    sizes = [template.k**2 for template in system.chart.templates]
    stops = np.cumsum(sizes)
    places = [slice(int(stop) - size, int(stop)) for stop, size in zip(stops, sizes, strict=True)]
    N = np.zeros((int(stops[-1]), null.shape[1]))
    for value, generator in zip(null[:-1] / seen.scale[:-1, None], seen.generators, strict=True):
        N[places[generator.term]] += np.outer(generator.E.ravel(), value)
    return N, places


def _covariances(system: PenalizedSystem, phi: Vector) -> Vector:
    return np.concatenate([(T @ T.T).ravel() for T in system.chart.factors(phi)])


def _phi_of(system: PenalizedSystem, S: Vector, places: list[slice], zero: float) -> Vector:
    """Return the parameters of semidefinite covariances; pivots below `zero` are none."""
    templates = system.chart.templates
    roots = [
        _root(S[place].reshape(template.k, template.k), zero)
        for template, place in zip(templates, places, strict=True)
    ]
    return system.chart.parameters_of(roots)


def _profiled(system: PenalizedSystem, *, reml: bool) -> Criterion:
    chart = system.chart

    def criterion(phi: Vector) -> tuple[float, Vector]:
        value, G = evaluate(chart.lambdas(phi), system, reml=reml, gradient=True)
        return value, chart.pull_back(phi, chart.split(G))

    return criterion


def _root(S: Matrix, zero: float) -> Matrix:
    """Return the lower triangular root of a semidefinite S (k, k) with no column below a zero."""
    left, T = S.copy(), np.zeros(S.shape)
    for j in range(S.shape[0]):
        if left[j, j] > zero:
            T[j:, j] = left[j:, j] / np.sqrt(left[j, j])
            left -= np.outer(T[:, j], T[:, j])
    return T


def _moved(
    optimum: Optimum,
    system: PenalizedSystem,
    phi: Vector,
    undetermined: list[bool],
    criterion: Criterion,
) -> Optimum:
    """Return the record of the same optimum at another phi; unchanged if it does not fit as well.

    A variance that is zero because that is the smallest is not on the boundary of what fits.
    """
    chart = system.chart
    theta = chart.theta_of_phi(phi)
    value, gradient = criterion(phi)
    if np.isfinite(optimum.criterion):
        allowed = SAME_CRITERION + ROUNDING * abs(value)
        if not value <= optimum.criterion + allowed:
            return optimum
        value = min(value, optimum.criterion)
    else:
        value = optimum.criterion
    chosen = np.concatenate(
        [np.full(part.stop - part.start, free) for part, free in
         zip(chart.slices, undetermined, strict=True)]
    )  # fmt: skip
    at = (system.lower == 0.0) & (theta == 0.0) & ~chosen
    zero = tuple(np.array(system.theta_names)[at].tolist())
    status, message, advice = optimum.status, optimum.message, optimum.advice
    if status is Status.SINGULAR:
        status = Status.SINGULAR if zero else Status.CONVERGED
        message = status.message.format(edge=f"{', '.join(zero)} is zero")
        advice = status.advice
    return replace(
        optimum, theta=theta, phi=phi, criterion=value, gradient=gradient, at_boundary=zero,
        status=status, message=message, advice=advice,
    )  # fmt: skip


def _least(S: Vector, Q: Matrix, places: list[slice]) -> Vector:
    """Return the point of least length of S + span Q with positive semidefinite parts."""
    free = S - Q @ (Q.T @ S)  # of the affine set: the least point if it is in the cone
    top = float(np.abs(S).max())
    if _least_eigenvalue(free, places) >= -TOLERANCE * top or not top > 0.0:
        return free
    if Q.shape[1] == 1:
        # on the way from S, which is in the cone, to `free`: the last point that still is
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            inside = _least_eigenvalue(S + middle * (free - S), places) >= 0.0
            low, high = (middle, high) if inside else (low, middle)
        out: Vector = S + low * (free - S)
        return out
    x, correction = np.zeros_like(S), np.zeros_like(S)
    for _ in range(MAX_STEPS):
        y = free + Q @ (Q.T @ x)  # in the affine set, which needs no correction
        z = y + correction
        new = _in_cone(z, places)
        correction = z - new
        step = float(np.abs(new - x).max())
        x = new
        if step <= TOLERANCE * top:
            break
    return x


def _in_cone(S: Vector, places: list[slice]) -> Vector:
    out = np.empty_like(S)
    for place in places:
        k = round((place.stop - place.start) ** 0.5)
        values, vectors = np.linalg.eigh(S[place].reshape(k, k))
        out[place] = ((vectors * np.maximum(values, 0.0)) @ vectors.T).ravel()
    return out


def _least_eigenvalue(S: Vector, places: list[slice]) -> float:
    least = np.inf
    for place in places:
        k = round((place.stop - place.start) ** 0.5)
        least = min(least, float(np.linalg.eigvalsh(S[place].reshape(k, k))[0]))
    return least
