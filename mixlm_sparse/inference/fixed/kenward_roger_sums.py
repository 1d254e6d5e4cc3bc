"""The sums over the levels that Kenward and Roger's method needs.

The variance of y is sigma^2 V with V = sum_i gamma_i G_i + W^{-1}, where G_i = sum_j Z_j E_i Z_j'
over the levels j of a grouping factor, and the E_i are symmetric matrices (k, k) whose combinations
are the covariances of a term, or the directions in which they move where they are no linear space.
Everything that V^{-1} enters is a product with R = Z'V^{-1}X, (q, p), and B = Z'V^{-1}Z, (q, q):

    X'V^{-1}G_iV^{-1}X = sum_j R_j'E_i R_j,   X'V^{-1}G_iV^{-1}G_jV^{-1}X = (E_i R)'B(E_j R)

and tr(V^{-1}G_iV^{-1}G_j) is a sum of products of blocks of B.

All of it is in the working columns of the terms.  The covariances of an unstructured term are all
symmetric matrices in whatever columns, so that its E_i are taken in the orthonormal ones: where a
predictor has its origin does not enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.inference.fixed.components import PairLookup, batches, projected_products
from mixlm_sparse.solve.held import HeldCoordinates
from mixlm_sparse.solve.pls import WorkingSolution
from mixlm_sparse.solve.system import PenalizedSystem


@dataclass(frozen=True, slots=True)
class Direction:
    """One variance or covariance: its factor and E (K, K) in the factor's working columns."""

    factor: int
    E: Matrix


def covariance_directions(
    system: PenalizedSystem, phi: Vector, lambdas: list[Matrix]
) -> list[Direction]:
    """List the parameters, in units of the size that the covariances have.

    Of a term of which something is held they are the derivatives by its phi as they are, which
    `free_of_held` combines.
    """
    out = []
    chart = system.chart
    held = {hold.term for hold in system.held.holds} if system.held is not None else set()
    for t, (template, part, place, Rz) in enumerate(
        zip(chart.templates, chart.slices, chart.layout, chart.Rz, strict=True)
    ):
        if t in held:
            T = template.factor_at(phi[part])
            for slope in template.slopes_at(phi[part]):
                whole = np.zeros((chart.widths[place.factor],) * 2)
                whole[place.columns, place.columns] = slope @ T.T + T @ slope.T
                out.append(Direction(place.factor, whole))
            continue
        lam = lambdas[place.factor][place.columns, place.columns]
        sd = np.sqrt(1.0 + (lam * lam).sum(axis=1))
        K = chart.widths[place.factor]
        basis = template.covariance_basis
        if basis is None:
            matrices = template.tangents(phi[part])
        elif template.closed_under == "linear":
            matrices = basis  # symmetric matrices stay symmetric matrices in other columns
        else:
            matrices = tuple(Rz @ E @ Rz.T for E in basis)
        for own in matrices:
            E = np.zeros((K, K))
            size = float(np.abs(own).max())
            if size > 0.0:
                own = own / size  # whatever the unit of a predictor
                E[place.columns, place.columns] = np.abs(own * np.outer(sd, sd)).max() * own
            out.append(Direction(place.factor, E))
    return out


def free_of_held(
    system: PenalizedSystem, phi: Vector, sigma: float, *, last: Literal["V", "W"]
) -> Matrix:
    """Return which combinations of the parameters are free where some are held, (r + 1, f).

    With y the free coordinates, B = d (phi, log sigma) / dy and V relative to sigma^2,

        d (sigma^2 V) / dy_k = sum_i B_ik dV / dphi_i + 2 B_(log sigma)k V

    over the terms of which something is held; of the others all directions are free.

    Parameters
    ----------
    last : what the last parameter is: V itself, or W^{-1}, V less the part of all random effects.
    """
    assert system.held is not None
    chart = system.chart
    coordinates = HeldCoordinates.of(system)
    free = coordinates.free.tolist()
    B = coordinates.expand(coordinates.reduce(phi, sigma))[2]
    touched = {hold.term for hold in system.held.holds}
    places, first = [], 0
    for t, (template, part) in enumerate(zip(chart.templates, chart.slices, strict=True)):
        basis = template.covariance_basis
        count = part.stop - part.start
        if t not in touched:
            count = len(template.tangents(phi[part]) if basis is None else basis)
        places.append(slice(first, first + count))
        first += count
    columns = []
    for t, (part, place) in enumerate(zip(chart.slices, places, strict=True)):
        if t not in touched:
            columns += list(np.eye(first + 1)[place])
            continue
        for k, coordinate in enumerate(free):
            if part.start <= coordinate < part.stop:
                column = np.zeros(first + 1)
                column[place] = B[part, k]
                columns.append(column)
    if chart.m in free:
        k = free.index(chart.m)
        column = np.zeros(first + 1)
        column[-1] = 2.0
        for t in touched:
            part = chart.slices[t]
            column[places[t]] = B[part, k]
            if last == "W":
                column[places[t]] += (chart.powers * phi)[part]
        columns.append(column)
    return np.array(columns).reshape(-1, first + 1).T


@dataclass
class Sums:
    """Sums over components.

    traces : (r, r) tr(V^{-1}G_iV^{-1}G_j); first : (r,) tr(V^{-1}G_i); P : (r, p, p); Q : (r, r, p,
    p).
    """

    traces: Matrix
    first: Vector
    P: Array3
    Q: np.ndarray


def accumulate(
    system: PenalizedSystem, phi: Vector, solution: WorkingSolution, R: list[Array3]
) -> Sums:
    """Sum over the levels.

    Parameters
    ----------
    phi, solution : where V is.
    R : per factor, (L, K, p) Z'V^{-1}X in any columns of X.
    """
    blocks = system.products.blocks
    parameters = covariance_directions(system, phi, solution.lambdas)
    r, p = len(parameters), system.p
    widths = [f.width for f in blocks.factors]
    pieces = Sums(
        np.zeros((r, r)), np.zeros(r), np.zeros((r, p, p)), np.zeros((r, r, p, p))
    )
    lookup = PairLookup(blocks)
    for levels in batches(blocks):
        count = levels[0].shape[0]
        sizes = [lev.shape[1] * K for lev, K in zip(levels, widths, strict=True)]
        stops = np.cumsum(sizes)
        places = [
            slice(int(stop) - size, int(stop)) for stop, size in zip(stops, sizes, strict=True)
        ]
        B = projected_products(lookup, levels, widths, places, solution.factored)
        B /= solution.scale**2
        # E_i R: (components, levels x K, p) per parameter
        ER = [
            np.matmul(parameter.E, R[parameter.factor][levels[parameter.factor]]).reshape(
                count, sizes[parameter.factor], p
            )
            for parameter in parameters
        ]
        moments = {}
        for g in range(len(widths)):
            for h in range(g, len(widths)):
                moments[g, h] = _second_moments(B[:, places[g], places[h]], widths[g], widths[h])
        for i, a in enumerate(parameters):
            own = _blocks_on_diagonal(B[:, places[a.factor], places[a.factor]], widths[a.factor])
            pieces.first[i] += float((own * a.E).sum())
            flat_R = R[a.factor][levels[a.factor]].reshape(-1, p)
            pieces.P[i] -= flat_R.T @ ER[i].reshape(-1, p)
            for j in range(i + 1):
                b = parameters[j]
                g, h = a.factor, b.factor
                N = moments[g, h] if g <= h else moments[h, g].transpose(2, 3, 0, 1)
                pieces.traces[i, j] += float(np.einsum("ab,cd,abcd->", a.E, b.E, N))
                BER = np.matmul(B[:, places[g], places[h]], ER[j])
                pieces.Q[i, j] += ER[i].reshape(-1, p).T @ BER.reshape(-1, p)
    for i in range(r):
        for j in range(i):
            pieces.traces[j, i] = pieces.traces[i, j]
            pieces.Q[j, i] = pieces.Q[i, j].T
    return pieces


def _second_moments(B: Array3, K: int, M: int) -> np.ndarray:
    """Return sum over pairs of levels of B_lm[a, c] B_lm[b, d] as (a, b, c, d)."""
    count, rows, cols = B.shape
    flat = B.reshape(count, rows // K, K, cols // M, M)
    out = np.empty((K, K, M, M))
    for a in range(K):
        for c in range(M):
            left = flat[:, :, a, :, c]
            for b in range(K):
                for d in range(M):
                    if (b, d) < (a, c):
                        out[a, b, c, d] = out[b, a, d, c]
                    else:
                        out[a, b, c, d] = np.einsum("nij,nij->", left, flat[:, :, b, :, d])
    return out


def _blocks_on_diagonal(B: Array3, K: int) -> Array3:
    count, size, _ = B.shape
    levels = size // K
    flat = B.reshape(count, levels, K, levels, K)
    out: Array3 = np.einsum("nlalb->nlab", flat).reshape(-1, K, K)
    return out
