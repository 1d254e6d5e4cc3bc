"""Many responses at the boundary (see `engines.fused.boundary`): certified there, or led off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.boundary import (
    ESCAPE_STEP,
    NULL_ATOL,
    PROBE,
    SAME_ENTRY,
    SHRINK,
    VALLEYS,
)
from mixlm_sparse.engines.fused.descent import ROUNDING
from mixlm_sparse.engines.fused.found import Term
from mixlm_sparse.engines.fused.lockstep.arrays import (
    eigen,
    lower_triangular,
    product,
    transposed,
)
from mixlm_sparse.engines.fused.lockstep.model import Model, Places, factors_at

Flags = NDArray[np.bool_]

# As in `solve.profiled.boundary`: a standard deviation that may want to be larger, where the slope
# is nearly zero.
SMALL_SD = 0.5


def parameters_of(factors: Sequence[Array3], terms: Sequence[Term], m: int) -> Matrix:
    """Return phi (m, s) in bounds with the covariances of any square factors (k, k, s)."""
    phi = np.zeros((m, factors[0].shape[2]))
    for T, term in zip(factors, terms, strict=True):
        linear = term.closure == "linear"
        own = lower_triangular(T) if linear else T
        for a in range(T.shape[0] - 1, -1, -1):
            for b in np.flatnonzero(term.position[a] >= 0).tolist():
                phi[term.position[a, b]] = own[a, b] if linear else np.abs(own[a, b])
    return phi


def principal_axes(phi: Matrix, model: Model, at: Places) -> Matrix:
    """Turn the working columns to the principal axes of every unstructured term; return phi."""
    terms = model.law.terms
    if not model.turns:
        r = model.values.size
        model.turns = [
            np.repeat(np.eye(term.position.shape[0])[:, :, None], r, axis=2) for term in terms
        ]
    factors = []
    working = model.turned_factors(phi, at)
    for t, (term, T, M) in enumerate(zip(terms, model.factors_of(phi), working, strict=True)):
        k = term.position.shape[0]
        if term.closure != "linear" or k == 1:
            factors.append(T)
            continue
        sizes, axes = eigen(product(M, transposed(M)))
        D = np.zeros_like(T)
        for a in range(k):
            D[a, a] = np.sqrt(np.maximum(sizes[a], 0.0))
        model.turns[t][..., at] = axes
        factors.append(D)
    model.turned[at] = True
    return parameters_of(factors, terms, model.m)


def unturn(phi: Matrix, model: Model, at: Places) -> Matrix:
    """Return phi in the working columns as they were, which come back."""
    factors = model.turned_factors(phi, at)
    model.turned[at] = False
    for Q in model.turns:
        Q[..., at] = np.eye(Q.shape[0])[:, :, None]
    return parameters_of(factors, model.law.terms, model.m)


def without_small(phi: Matrix, cut: float, model: Model) -> Matrix:
    """Return phi with zero columns of T for those whose diagonal is below the cut."""
    out = phi.copy()
    for term in model.law.terms:
        if term.closure == "one scale":
            continue
        for b in range(term.position.shape[0]):
            small = np.abs(phi[term.position[b, b]]) < cut
            for i in term.position[:, b]:
                if i >= 0:
                    out[i, small] = 0.0
    return out


@dataclass(frozen=True, eq=False, slots=True)
class _Null:
    """The null part of one term's factors.

    Parameters
    ----------
    kept : (k, k, s) the factors without it: its columns are zero.
    directions : (k, k, s) in the columns that are zero.
    zero : (k, s) which columns are.
    """

    kept: Array3
    directions: Array3
    zero: Flags


def _null_part(T: Array3, term: Term) -> _Null:
    k, s = T.shape[0], T.shape[2]
    if term.closure != "linear" or k == 1:
        zero = np.abs(np.diagonal(T).T) < NULL_ATOL
        directions = np.repeat(np.eye(k)[:, :, None], s, axis=2)
        return _Null(np.where(zero[None], 0.0, T), directions, zero)
    kept, directions, zero = T.copy(), np.zeros_like(T), np.zeros((k, s), dtype=bool)
    # none is below if determinant and length say so, for no other is larger than the length
    determinant = np.ones(s)
    for a in range(k):
        determinant = determinant * np.abs(T[a, a])
    length = np.sqrt((T * T).reshape(k * k, s).sum(axis=0))
    suspect = np.flatnonzero(~(determinant > 2.0 * NULL_ATOL * length ** (k - 1)))
    if suspect.size:
        own = T[..., suspect]
        sizes, vectors = eigen(product(own, transposed(own)))
        sizes = np.sqrt(np.maximum(sizes, 0.0))
        null = sizes < NULL_ATOL
        any_null = null.any(axis=0)
        to = suspect[any_null]
        kept[..., to] = np.where(null[None], 0.0, sizes[None] * vectors)[..., any_null]
        directions[..., to], zero[:, to] = vectors[..., any_null], null[:, any_null]
    return _Null(kept, directions, zero)


def _same_covariance(T: Array3, other: Array3) -> Flags:
    """Say whether T T' is that of the other factors, up to rounding of every entry."""
    V, W = product(T, transposed(T)), product(other, transposed(other))
    sd = np.sqrt(np.diagonal(V).T)
    return np.asarray((np.abs(V - W) <= SAME_ENTRY * sd[:, None] * sd[None]).all(axis=(0, 1)))


def settle(
    phi: Matrix, value: Vector, model: Model, at: Places
) -> tuple[Matrix, Vector, Flags, Flags]:
    """Certify phi (m, s) on the boundary, or find the way off.

    Returns
    -------
    phi, value, whether it has moved, and whether the search has to go on.
    """
    s = at.size
    phi, value = phi.copy(), value.copy()
    moved, escaped = np.zeros(s, dtype=bool), np.zeros(s, dtype=bool)
    terms = model.law.terms
    factors = model.factors_of(phi)
    null = [_null_part(T, term) for T, term in zip(factors, terms, strict=True)]
    some = np.flatnonzero(np.logical_or.reduce([part.zero.any(axis=0) for part in null]))
    if not some.size:
        return phi, value, moved, escaped
    own = at[some]
    null = [
        _Null(part.kept[..., some], part.directions[..., some], part.zero[:, some]) for part in null
    ]
    noise = model.noise(value[some], own)
    there = np.logical_and.reduce(
        [_same_covariance(T[..., some], part.kept) for T, part in zip(factors, null, strict=True)]
    )
    candidate = parameters_of([part.kept for part in null], terms, model.m)
    at_zero, _ = model.value_at(candidate, own)
    # small, yet not zero: an ordinary optimum; at zero it would be rounding
    stays = np.isfinite(at_zero) & (there | (at_zero <= value[some] + noise))
    some, own = some[stays], own[stays]
    null = [
        _Null(part.kept[..., stays], part.directions[..., stays], part.zero[:, stays])
        for part in null
    ]
    at_zero, noise = at_zero[stays], noise[stays]
    if not some.size:
        return phi, value, moved, escaped
    before = value[some]
    phi[:, some], value[some], moved[some] = candidate[:, stays], at_zero, True
    step, false = _ways_off(before, null, model, own)
    for trials in (_shrunk(null, step), _beyond(null, terms)):
        left = np.flatnonzero(false & ~model.given_up[own])
        false = ~false
        for trial, tried in trials:
            go = left[tried[left] & ~escaped[some[left]]]
            if not go.size:
                continue
            candidate = parameters_of([T[..., go] for T in trial], terms, model.m)
            lower, _ = model.value_at(candidate, own[go])
            better = lower < at_zero[go] - noise[go]
            to = some[go[better]]
            phi[:, to], value[to], escaped[to] = candidate[:, better], lower[better], True
    return phi, value, moved, escaped


def _ways_off(
    value: Vector, null: Sequence[_Null], model: Model, at: Places
) -> tuple[list[Array3], Flags]:
    """Return factors off false boundaries, and which boundaries are false.

    At T's null columns of PROBE v the derivative by Lambda shows M = dd/dSigma on the null space.
    """
    probes = [
        np.where(part.zero[None], PROBE * part.directions, part.kept) for part in null
    ]
    found = model.evaluate(model.merged(probes), at)
    model.given_up[at] |= ~np.isfinite(found.value)
    threshold = -ROUNDING * np.abs(value) / (ESCAPE_STEP * ESCAPE_STEP) - 1e-7
    false = np.zeros(at.size, dtype=bool)
    steps = []
    for term, part, G in zip(model.law.terms, null, model.split(found.slopes), strict=True):
        k = part.zero.shape[0]
        pair = part.zero[:, None] & part.zero[None]
        M = np.where(pair, product(transposed(part.directions), G) / (2.0 * PROBE), 0.0)
        diagonal = np.diagonal(M).T
        vectors = np.repeat(np.eye(k)[:, :, None], at.size, axis=2)
        if term.closure == "linear" and k > 1:
            symmetric = 0.5 * (M + transposed(M))
            # the columns that are not zero come first, with the largest eigenvalues
            top = 1.0 + np.abs(symmetric).max(axis=(0, 1))
            for a in range(k):
                symmetric[a, a] += np.where(part.zero[a], 0.0, k * top)
            curvature, vectors = eigen(symmetric)
        elif term.closure == "one scale":
            curvature = np.repeat(M[np.arange(k), np.arange(k)].sum(axis=0)[None], k, axis=0)
        else:
            curvature = diagonal
        down = part.zero & (curvature < threshold)
        false |= down.any(axis=0)
        way = ESCAPE_STEP * product(part.directions, np.where(part.zero[:, None], vectors, 0.0))
        steps.append(np.where(down[None], way, part.kept))
    return steps, false


def _shrunk(
    null: Sequence[_Null], step: Sequence[Array3]
) -> list[tuple[list[Array3], Flags]]:
    """Return what is tried off a false boundary, and for which responses."""
    everywhere = np.ones(null[0].zero.shape[1], dtype=bool)
    return [
        (
            [
                part.kept + shrink * (one - part.kept)
                for part, one in zip(null, step, strict=True)
            ],
            everywhere,
        )
        for shrink in SHRINK
    ]


def _beyond(
    null: Sequence[_Null], terms: Sequence[Term]
) -> list[tuple[list[Array3], Flags]]:
    """Return what is tried beyond a true boundary, and for which responses."""
    out = []
    for t, (term, part) in enumerate(zip(terms, null, strict=True)):
        for size in VALLEYS:
            trial = [other.kept for other in null]
            if term.closure == "linear":
                trial[t] = np.where(part.zero[None], size * part.directions, part.kept)
            else:
                trial[t] = part.kept.copy()
                for a in range(part.zero.shape[0]):
                    trial[t][a, a] += np.where(part.zero[a], size, 0.0)
            out.append((trial, np.asarray(part.zero.any(axis=0))))
    return out


def hardly_off(phi: Matrix, value: Vector, model: Model, at: Places) -> Flags:
    """Say of which ends a small standard deviation wants to be larger.

    A criterion that is nearly flat from zero to some size has no slope that a search could see
    (see `solve.profiled.boundary.beside_boundary`).
    """
    out = np.zeros(at.size, dtype=bool)
    factors = model.factors_of(phi)
    noise = model.noise(value, at)
    for t, (term, T) in enumerate(zip(model.law.terms, factors, strict=True)):
        sizes, axes, least, small = _least(term, T)
        look = np.flatnonzero(~out & small)
        if not look.size:
            continue
        twice = np.where(np.arange(T.shape[0])[:, None] == least[look], 2.0, 1.0)
        trial = [other[..., look] for other in factors]
        trial[t] = axes[..., look] * (sizes[:, look] * twice)[None]
        counted = model.values[at[look]]
        found = model.evaluate(model.merged(trial), at[look])
        model.values[at[look]] = counted  # the search is what it was
        out[look] |= found.value < value[look] - noise[look]
    return out


def small_ones(phi: Matrix, terms: Sequence[Term]) -> Flags:
    """Say at which phi (m, s) `hardly_off` has something to look at."""
    out = np.zeros(phi.shape[1], dtype=bool)
    for term, T in zip(terms, factors_at(phi, terms), strict=True):
        out |= _least(term, T)[3]
    return out


def _least(term: Term, T: Array3) -> tuple[Matrix, Array3, Places, Flags]:
    """Return what T (k, k, s) are along principal axes, sizes (k, s) and axes (k, k, s).

    Returns
    -------
    sizes, axes, the least size (s,) that is not zero, and whether it is small.
    """
    k, _, s = T.shape
    if term.closure == "linear" and k > 1:
        sizes, axes = eigen(product(T, transposed(T)))
        sizes = np.sqrt(np.maximum(sizes, 0.0))
    else:
        sizes = np.abs(np.diagonal(T).T)
        axes = np.repeat(np.eye(k)[:, :, None], s, axis=2)
        if term.closure != "scales":
            return sizes, axes, np.zeros(s, dtype=np.intp), np.zeros(s, dtype=bool)
    seen = np.where(sizes < NULL_ATOL, np.inf, sizes)
    least = seen.argmin(axis=0)
    size = np.take_along_axis(seen, least[None], axis=0)[0]
    return sizes, axes, least, np.asarray(size < SMALL_SD)
