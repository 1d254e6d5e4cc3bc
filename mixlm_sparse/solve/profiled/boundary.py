"""Optima on the boundary: certify them, leave false ones, and land on them exactly.

At a stationary point whose covariance Sigma = T T' is singular, first-order optimality over
positive semidefinite matrices asks for v'Mv >= 0 on the null space of Sigma, M = dd/dSigma.  The
criterion's gradient in T cannot see this (it vanishes there, by symmetry), so T's null columns are
set to t v: their derivative is 2 t M v.  One evaluation tells for every term at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.described import Edges
from mixlm_sparse.covariance.structure import Closure
from mixlm_sparse.solve.chart import Chart, surely_regular
from mixlm_sparse.solve.profiled.axes import same_covariance
from mixlm_sparse.solve.search.bfgs import ROUNDING
from mixlm_sparse.solve.search.objective import BoundaryReport
from mixlm_sparse.solve.system import PenalizedSystem

# Singular values of a working factor below this are looked at as candidates for zero.
NULL_ATOL = 1e-3
# The probe; small enough that M is constant over it.
PROBE = 1e-3
# The first step off a false boundary.
ESCAPE_STEP = 0.1
# What is won by it at least, if a search is to find the way from there; else it is gone farther.
FLAT = 1e-3
DOUBLINGS = 12
# What a step along such a slope wins at least, if it is worth a search.
WON = 1e-8
# A standard deviation, relative to the noise or to the largest one, that may be one of those.
SMALL_SD = 0.5
# First steps off a structure without variance, and correlations with which they are tried.
FIRST_STEPS = (0.1, 0.03, 0.01, 0.003)
MOST_DIRECTIONS = 3
# Distances from a true one at which a second valley is looked for.
VALLEYS = (0.25, 0.5, 1.0, 2.0, 4.0)


class Criterion(Protocol):
    """What is asked of the criterion here."""

    @property
    def system(self) -> PenalizedSystem:
        """Return the system."""
        ...

    def value(self, phi: Vector) -> float:
        """Return the criterion at phi (m,)."""
        ...

    def noise(self, phi: Vector) -> float:
        """Return how uncertain a value at phi is beyond its rounding."""
        ...

    def at_factors(self, lambdas: list[Matrix]) -> tuple[float, list[Matrix]]:
        """Return the criterion and its derivative at any square factors, per term."""
        ...


def _null_directions(T: Matrix, closure: Closure) -> tuple[Matrix, Matrix] | None:
    """Return (T with its null part removed, the null directions as columns), or None."""
    k = T.shape[0]
    if closure == "linear" and k > 1:
        if surely_regular(T, float(T.diagonal().prod()), NULL_ATOL):  # T is triangular
            return None
        left, values, _ = np.linalg.svd(T)
        null = values < NULL_ATOL
        if not null.any():
            return None
        kept = left[:, ~null] * values[~null]
        return np.hstack([kept, np.zeros((k, int(null.sum())))]), left[:, null]
    null = np.abs(np.diag(T)) < NULL_ATOL
    if not null.any():
        return None
    return np.where(null[None, :], 0.0, T), np.eye(k)[:, null]


def _zero_columns(T: Matrix, count: int) -> NDArray[np.intp]:
    """Return the first `count` columns of T (k, k) that are zero."""
    return np.flatnonzero(~np.abs(T).any(axis=0))[:count]


def _probe(T: Matrix, directions: Matrix) -> Matrix:
    """Return T (k, k) with its zero columns moved a little along the directions (k, d)."""
    probe = T.copy()
    probe[:, _zero_columns(T, directions.shape[1])] = PROBE * directions
    return probe


def _way_off(
    T: Matrix, directions: Matrix, gradient: Matrix, closure: Closure, threshold: float
) -> Matrix:
    """Return T moved along the directions in which the criterion curves down; T if there is none.

    Parameters
    ----------
    gradient : (k, k) of the criterion at the probe of T.
    threshold : a curvature above it does not count.
    """
    step = T.copy()
    zero_columns = _zero_columns(T, directions.shape[1])
    M = directions.T @ gradient[:, zero_columns] / (2.0 * PROBE)
    if closure == "linear":
        curvature, vectors = np.linalg.eigh(0.5 * (M + M.T))
    elif closure == "scales":
        curvature, vectors = np.diag(M), np.eye(M.shape[0])
    else:  # one parameter moves all columns together
        curvature, vectors = np.full(M.shape[0], np.trace(M)), np.eye(M.shape[0])
    for c in np.flatnonzero(curvature < threshold):
        step[:, zero_columns[c]] = ESCAPE_STEP * (directions @ vectors[:, c])
    return step


def settle_boundary(
    objective: Criterion, phi: Vector, value: float, *, curved: bool = False
) -> BoundaryReport:
    """Certify an optimum on the boundary, or find the way off a false one.

    Parameters
    ----------
    objective : the criterion.
    phi, value : the point where the search ended.
    curved : whether the Hessian there is clearly positive: no small standard deviation is then on a
        slope that is nearly zero.
    """
    system = objective.system
    chart = system.chart
    blocks = chart.factors(phi)
    closures = [template.closed_under for template in system.templates]
    edges = [t.edges(phi[part]) for t, part in zip(chart.templates, chart.slices, strict=True)]
    if any(found is not None for found in edges):
        phi, value, escaped = _settle_edges(objective, phi, value, edges)
        if escaped:
            return BoundaryReport(phi, value, True)
        blocks = chart.factors(phi)
    null = [
        _null_directions(T, c) if edge is None else None
        for T, c, edge in zip(blocks, closures, edges, strict=True)
    ]
    if all(found is None for found in null):
        if curved:
            return BoundaryReport(phi, value, False)
        return _hardly_off(objective, blocks, closures, phi, value)

    at_zero = [T if found is None else found[0] for T, found in zip(blocks, null, strict=True)]
    snapped = _with_factors(chart, at_zero, null, phi)
    there = all(same_covariance(T, T0) for T, T0 in zip(blocks, at_zero, strict=True))
    snapped_value = value if there else objective.value(snapped)
    unsure = max(ROUNDING * abs(value), objective.noise(phi))
    if not there and snapped_value > value + unsure:
        # small, yet not zero: an ordinary optimum; on the boundary itself it would be rounding
        return BoundaryReport(phi, value, False)

    probes = [
        T if found is None else _probe(T, found[1]) for T, found in zip(at_zero, null, strict=True)
    ]
    _, G = objective.at_factors(chart.merge(probes))
    if not G:
        return BoundaryReport(snapped, snapped_value, False)
    # what a first step could win must stand out from rounding
    threshold = -unsure / ESCAPE_STEP**2 - 1e-7
    escape = [
        T if found is None else _way_off(T, found[1], gradient, closure, threshold)
        for T, found, gradient, closure in zip(at_zero, null, G, closures, strict=True)
    ]
    if all(np.array_equal(T, step) for T, step in zip(at_zero, escape, strict=True)):
        beyond = _second_valley(objective, at_zero, null, snapped, snapped_value)
        if beyond.escaped:
            return beyond
        return _hardly_off(objective, at_zero, closures, snapped, snapped_value)
    # Walk off until the criterion is below the false boundary's.
    def off(size: float) -> tuple[float, Vector]:
        moved = [T + size * (step - T) for T, step in zip(at_zero, escape, strict=True)]
        there = _with_factors(chart, moved, null, phi)
        return objective.value(there), there

    for size in (1.0, 0.3, 0.1, 0.03, 0.01):
        candidate_value, candidate = off(size)
        if candidate_value < snapped_value - unsure:
            if snapped_value - candidate_value < FLAT:
                candidate_value, candidate = _farther(off, snapped_value, size)
            return BoundaryReport(candidate, candidate_value, True)
    return BoundaryReport(snapped, snapped_value, False)


def beside_boundary(objective: Criterion, phi: Vector, value: float) -> BoundaryReport:
    """Look off small standard deviations only, where the boundary itself was settled before."""
    system = objective.system
    closures = [template.closed_under for template in system.templates]
    return _hardly_off(objective, system.chart.factors(phi), closures, phi, value)


def _hardly_off(
    objective: Criterion, blocks: list[Matrix], closures: list[Closure], phi: Vector, value: float
) -> BoundaryReport:
    """Look whether a small standard deviation wants to be larger, where the slope is nearly zero.

    A criterion that is nearly flat from zero to some size has no slope that a search could see.
    What is small is relative to the noise, or to the largest effects: beside these a variance of
    the same levels is seen at their size only.
    """
    chart = objective.system.chart
    small = SMALL_SD * max(1.0, chart.size(phi))
    for t, (T, closure) in enumerate(zip(blocks, closures, strict=True)):
        if T.shape[0] == 1 or (
            closure == "scales" and chart.templates[t].edges(phi[chart.slices[t]]) is None
        ):
            axes, sizes = np.eye(T.shape[0]), np.abs(np.diag(T))
        elif closure == "linear":
            axes, sizes, _ = np.linalg.svd(T)
        else:
            continue
        least = int(np.where(sizes < NULL_ATOL, np.inf, sizes).argmin())
        if not NULL_ATOL <= sizes[least] < small:
            continue

        def off(
            size: float, t: int = t, axes: Matrix = axes, sizes: Vector = sizes, least: int = least
        ) -> tuple[float, Vector]:
            moved = sizes.copy()
            moved[least] *= size
            there = phi.copy()
            there[chart.slices[t]] = chart.templates[t].working_of(axes * moved)
            return objective.value(there), there

        unsure = max(ROUNDING * abs(value), objective.noise(phi))
        twice = off(2.0)[0]
        if not twice - value < FLAT:
            continue  # no slope that a search does not see
        at_zero = off(0.0)
        if twice < value - unsure:
            best = _farther(off, at_zero[0], 1.0)
        else:
            # even along it: with s times the size, about that at zero + a s^2 + b s^4
            b = ((twice - at_zero[0]) / 4.0 - (value - at_zero[0])) / 3.0
            a = value - at_zero[0] - b
            best = at_zero
            if math.isfinite(b) and a < 0.0 < b and value - at_zero[0] + a * a / (4.0 * b) > WON:
                best = min(best, off(math.sqrt(-0.5 * a / b)), key=lambda one: one[0])
        if best[0] < value - max(unsure, WON):
            return BoundaryReport(best[1], best[0], True)
    return BoundaryReport(phi, value, False)


def _farther(
    off: Callable[[float], tuple[float, Vector]], at_zero: float, size: float
) -> tuple[float, Vector]:
    """Return the lowest value that is found along a direction which hardly falls, and where.

    From a point next to the boundary a search would go nowhere: the slope there is nearly zero, and
    guesses of the curvature are far too large.  The criterion is even along the direction, so that
    a x^2 + b x^4 through two sizes shows where it is least.
    """
    best = before = off(size)
    for _ in range(DOUBLINGS):
        here = off(2.0 * size)
        size *= 2.0
        if not here[0] < best[0] or at_zero - here[0] > FLAT:
            break
        best = before = here
    best = min(best, here, key=lambda one: one[0])
    one, two = 0.25 * size * size, size * size
    b = ((here[0] - at_zero) / two - (before[0] - at_zero) / one) / (two - one)
    a = (before[0] - at_zero) / one - b * one
    if math.isfinite(b) and a < 0.0 < b:
        best = min(best, off(math.sqrt(-0.5 * a / b)), key=lambda one: one[0])
    return best


def _with_factors(
    chart: Chart, factors: list[Matrix], null: list[tuple[Matrix, Matrix] | None], phi: Vector
) -> Vector:
    """Return phi (m,) with the parameters of the terms with null directions read off factors."""
    out = phi.copy()
    for template, part, M, found in zip(
        chart.templates, chart.slices, factors, null, strict=True
    ):
        if found is not None:
            out[part] = template.working_of(M)
    return out


def _settle_edges(
    objective: Criterion, phi: Vector, value: float, edges: list[Edges | None]
) -> tuple[Vector, float, bool]:
    """Put phi on the edges that it is close to, or find a lower criterion off them.

    Returns
    -------
    phi, its value, and whether it is off an edge, to be searched on.
    """
    slices = objective.system.chart.slices
    snapped = phi.copy()
    for part, edge in zip(slices, edges, strict=True):
        if edge is not None:
            snapped[part] = edge.snapped
    if not np.array_equal(snapped, phi):
        there = objective.value(snapped)
        if there > value + ROUNDING * abs(value):
            return phi, value, False  # small, yet not zero: an ordinary optimum
        phi, value = snapped, there
    found = _off_zero(objective, phi, value, edges)
    if found is not None:
        return *found, True
    for part, edge in zip(slices, edges, strict=True):
        for inside in () if edge is None else edge.inside:
            candidate = phi.copy()
            candidate[part] = inside
            there = objective.value(candidate)
            if there < value - ROUNDING * abs(value):
                return candidate, there, True
    return phi, value, False


def _off_zero(
    objective: Criterion, phi: Vector, value: float, edges: list[Edges | None]
) -> tuple[Vector, float] | None:
    """Return a lower point off a structure without any variance, and its value; None if none.

    Where T is zero the correlations have no influence, and a search ends there with any of them.
    At T = p I one gradient has M = dd/dS = G / (2 p); the structure says where its S falls most.
    """
    chart = objective.system.chart
    blocks = chart.factors(phi)
    empty = [
        t for t, (edge, T) in enumerate(zip(edges, blocks, strict=True))
        if edge is not None and not T.any()
    ]  # fmt: skip
    if not empty:
        return None
    probes = [PROBE * np.eye(T.shape[0]) if t in empty else T for t, T in enumerate(blocks)]
    _, G = objective.at_factors(chart.merge(probes))
    for t in empty if G else ():
        template, part = chart.templates[t], chart.slices[t]
        for slope, other in template.off_zero(G[t] / (2.0 * PROBE))[:MOST_DIRECTIONS]:
            for size in FIRST_STEPS if slope < 0.0 else ():
                candidate = phi.copy()
                candidate[part] = other * size**template.powers
                there = objective.value(candidate)
                if there < value - ROUNDING * abs(value):
                    return candidate, there
    return None


def _second_valley(
    objective: Criterion,
    at_zero: list[Matrix],
    null: list[tuple[Matrix, Matrix] | None],
    phi: Vector,
    value: float,
) -> BoundaryReport:
    """Look for a lower valley beyond a true boundary: very unequal groups can have one."""
    system = objective.system
    for t, found in enumerate(null):
        if found is None:
            continue
        zero_columns = np.flatnonzero(~np.abs(at_zero[t]).any(axis=0))[: found[1].shape[1]]
        for size in VALLEYS:
            blocks = [T.copy() for T in at_zero]
            if system.templates[t].closed_under == "linear":
                blocks[t][:, zero_columns] = size * found[1]
            else:
                blocks[t] = blocks[t] + size * (found[1] @ found[1].T)
            candidate = _with_factors(system.chart, blocks, null, phi)
            candidate_value = objective.value(candidate)
            if candidate_value < value - max(ROUNDING * abs(value), objective.noise(phi)):
                return BoundaryReport(candidate, candidate_value, True)
    return BoundaryReport(phi, value, False)


def at_bounds(
    chart: Chart, phi: Vector, theta_of: Callable[[Vector], Vector], names: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """Return the names of the parameters at a bound, and what they are there in words.

    Standard deviations of zero, correlations at a bound, or as large as those beside allow.
    """
    if chart.copies and phi[chart.lower == 0.0].all():  # then theta has no zero there either
        return (), ""
    theta = theta_of(phi)
    angle = (chart.powers == 0.0) & (np.abs(phi) == 0.5 * np.pi)
    zero = (chart.lower == 0.0) & (theta == 0.0)
    said = []
    if zero.any():
        said.append(f"{', '.join(np.array(names)[zero].tolist())} is zero")
    said += [
        f"{names[i]} is {theta[i]:.4g}, as far as it can go"
        for i in np.flatnonzero(angle).tolist()
    ]
    return tuple(np.array(names, dtype=object)[zero | angle].tolist()), "; ".join(said)
