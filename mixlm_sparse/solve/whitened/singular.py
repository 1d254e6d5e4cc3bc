"""Whether residuals of few groups let the likelihood grow without end by a singular correlation.

Let C of the visits S have one null vector, C v = eps v with eps to zero.  Of the K groups with rows
at all of S, log|R| falls by log eps each.  With X the columns of fixed effects and Z those of the
random effects that have a variance, V falls by those that the rows v'Z_g do not reach, and the
residual sum of squares stays finite where

    v'(y_g - X_g beta - Z_g b) = 0,   g = 1 .. K.

The criterion is (K - r) log eps + const then, r the rank of the rows v'[X Z]_g in REML, of v'Z_g in
ML: with K > r it has no minimum, however good the one is that a search finds.  No search is needed
to see it.  For nearly all v the ranks are the same:

    K > r      K less the rank of v'[X Z] equations are left for v,
    K = r      v has to make the rows dependent: those of [X Z y] in REML, those of Z in ML.

Which random effects have a variance is open, so that each choice of them is looked at.  In an
unstructured correlation v is any that closes a polygon (see `null_vectors`), of three or more
visits; of a pair it is (1, 1) or (1, -1).  In a Toeplitz correlation it is symmetric or
antisymmetric, over all visits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.visits import Toeplitz, Unstructured
from mixlm_sparse.solve.whitened.frame import WhitenedFrame
from mixlm_sparse.solve.whitened.null_vectors import (
    NO_VALUE,
    SOLVED,
    dependent,
    fitted,
    opens_no_polygon,
    opens_no_roots,
    spanned,
)

__all__ = ["falls_to_singular", "null_vector", "strata_of_few_groups"]

# Sets of visits that are looked at, those with fewest groups first; all sets of so many visits.
MOST_PATTERNS, ALL_SETS = 16, 5
# More groups than this are not looked at: they need as many random effects to be fitted.
MOST_GROUPS = 40
# Grouping factors of which each choice is looked at.
MOST_FACTORS = 3
# How far v like nearly all others is from one that is possible for certain; the first that is, too.
APART = (0.5, 0.2, 0.05)


def strata_of_few_groups(frame: WhitenedFrame) -> list[int]:
    """Return the strata of a correlation of visits in which the equations may be solved.

    Groups with rows at all T visits are among those of every set of visits: with more of them than
    T - 1 and the effects no set has few enough.
    """
    law = frame.law
    if not isinstance(law.correlation, Unstructured | Toeplitz):
        return []
    whole = np.bincount(law.stratum[law.sizes == law.places.T], minlength=len(law.strata))
    random = sum(f.n_levels * f.width for f in frame.plain.blocks.factors)
    most = min(law.places.T - 2 + frame.A.shape[1] + random, MOST_GROUPS)
    return [int(stratum) for stratum in np.flatnonzero(whole <= most)]


def falls_to_singular(frame: WhitenedFrame, sd: Vector, strata: list[int], *, reml: bool) -> bool:
    """Say whether the criterion falls without end as a correlation of visits becomes singular.

    Parameters
    ----------
    sd : (n,) standard deviations of the residuals at which it is asked.
    strata : those of few groups.
    """
    A = frame.A / sd[:, None]
    size = np.sqrt((A * A).mean(axis=0))
    if not size[-1] > 0.0:
        return False
    A = A / np.where(size > 0.0, size, 1.0)
    toeplitz = isinstance(frame.law.correlation, Toeplitz)
    return any(
        null_vector(A[rows, :-1], Z, A[rows, -1], toeplitz=toeplitz, reml=reml) is not None
        for rows in _complete(frame.law, strata)
        for Z in _random_effects(frame, rows, sd)
    )


def _complete(law: ResidualLaw, strata: list[int]) -> list[NDArray[np.intp]]:
    """Return, by stratum and set of visits, the rows (K, s) of the groups that have all."""
    out = []
    T = law.places.T
    place = np.full((law.sizes.size, T), -1, dtype=np.intp)
    place[law.group_of, law.t.astype(np.intp)] = np.arange(law.n)
    for stratum in strata:
        at = place[law.stratum == stratum]
        few = []
        for visits in _sets(law, at >= 0):
            K = int((at[:, visits] >= 0).all(axis=1).sum())
            if 0 < K <= MOST_GROUPS:
                few.append((K, -len(visits), visits))
        for _, _, visits in sorted(few)[:MOST_PATTERNS]:
            own = at[:, visits]
            out.append(own[(own >= 0).all(axis=1)])
    return out


def _sets(law: ResidualLaw, there: NDArray[np.bool_]) -> Iterator[tuple[int, ...]]:
    """Yield the sets of visits whose correlations may have a null vector; there (groups, T)."""
    T = law.places.T
    if isinstance(law.correlation, Toeplitz):
        yield tuple(range(T))
    elif T <= ALL_SETS:
        for size in range(2, T + 1):
            yield from combinations(range(T), size)
    else:
        for pattern in np.unique(there, axis=0):
            if pattern.sum() > 1:
                yield tuple(np.flatnonzero(pattern).tolist())


def _random_effects(frame: WhitenedFrame, rows: NDArray[np.intp], sd: Vector) -> Iterator[Array3]:
    """Yield the columns (K, s, q) of the effects that some rows have, of each choice of factors."""
    K, s = rows.shape
    flat = rows.ravel()
    parts = []
    for own, z in zip(frame.entries, frame.Z, strict=True):
        columns, at = own.columns(z), own.positions(flat)
        entries = own.take(flat)
        levels, place = np.unique(entries.level, return_inverse=True)
        row = np.arange(flat.size) if entries.row is None else entries.row
        D = np.zeros((flat.size, levels.size, columns.shape[1]))
        D[row, place] = columns[at]
        parts.append((D.reshape(flat.size, -1) / sd[flat, None]).reshape(K, s, -1))
    numbers = range(len(parts))
    sizes = numbers if len(parts) <= MOST_FACTORS else range(1)
    for chosen in (*(one for size in sizes for one in combinations(numbers, size)), tuple(numbers)):
        yield np.concatenate([np.zeros((K, s, 0)), *(parts[i] for i in chosen)], axis=2)


def null_vector(X: Array3, Z: Array3, y: Matrix, *, toeplitz: bool, reml: bool) -> Vector | None:
    """Return v (s,) of length one along which the criterion falls without end, if one is found.

    Parameters
    ----------
    X, Z, y : (K, s, p), (K, s, q), (K, s) of the groups with rows at all visits.
    """
    K, s = y.shape
    possible = opens_no_roots if toeplitz else opens_no_polygon
    G = _independent(np.concatenate([X, Z], axis=2))
    counted = G if reml else _independent(Z)
    for B, middle in _directions(s, toeplitz=toeplitz):
        v = _generic(B, middle, possible)
        if v is None:
            continue
        unknown = B.shape[1] - 1
        if _rank(spanned(v, counted)) < K:
            left = K - _rank(spanned(v, G))
            if left > unknown:
                continue
            found = v if not left else fitted(G, y, B, possible)
            if found is not None:
                return found
            continue
        D = _independent(np.concatenate([G, y[:, :, None]], axis=2)) if reml else counted
        if D.shape[2] - K + 1 > unknown:
            continue
        for v in dependent(D, y, B, possible):
            if _rank(spanned(v, counted)) < K and _explained(spanned(v, G), y @ v):
                return v
    return None


def _directions(s: int, *, toeplitz: bool) -> Iterator[tuple[Matrix, Vector]]:
    """Yield orthonormal B (s, k) with the null vectors B c that a correlation may have, and one c.

    All frequencies that are equally spaced have the null vector (1, .., 1), or (1, 0, .., 0, -1).
    """
    ones = np.ones(s) / np.sqrt(s)
    if not toeplitz and s > 2:
        yield np.eye(s), ones
        return
    ends = np.eye(s)[0] - np.eye(s)[-1]
    for sign, middle in ((1.0, ones), (-1.0, ends / np.sqrt(2.0))):
        values, vectors = np.linalg.eigh(np.eye(s) + sign * np.eye(s)[::-1])
        B = vectors[:, values > 1.0]
        yield B, B.T @ middle


def _generic(B: Matrix, middle: Vector, possible: Callable[[Vector], bool]) -> Vector | None:
    """Return v (s,) of length one of those B c, if any, with which ranks are as mostly."""
    noise = np.random.default_rng(0).normal(size=B.shape[1])
    for apart in APART:
        v: Vector = B @ (middle + apart * noise)
        if possible(v):
            return np.asarray(v / np.linalg.norm(v))
    return None


def _independent(D: Array3) -> Array3:
    """Return orthonormal columns with the span of D (K, s, r), over all rows."""
    K, s, r = D.shape
    flat = D.reshape(K * s, r)
    size = np.sqrt((flat * flat).sum(axis=0))
    flat = flat[:, size > 0.0] / size[size > 0.0]
    if not flat.shape[1]:
        return np.zeros((K, s, 0))
    U, values, _ = np.linalg.svd(flat, full_matrices=False)
    own = U[:, values > NO_VALUE * values[0]]
    return own.reshape(K, s, own.shape[1])


def _rank(M: Matrix) -> int:
    """Return the number of singular values of M (K, r) that are not rounding."""
    if not M.size:
        return 0
    return int((np.linalg.svd(M, compute_uv=False) > NO_VALUE).sum())


def _explained(G: Matrix, y: Vector) -> bool:
    """Say whether y (K,) is a combination of the columns of G (K, r)."""
    left = y - G @ np.linalg.lstsq(G, y, rcond=NO_VALUE)[0]
    return bool(np.abs(left).max() <= np.sqrt(SOLVED) * max(1.0, float(np.abs(y).max())))
