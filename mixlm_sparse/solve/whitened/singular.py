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

Which random effects have a variance is open, so that each choice of them is looked at.  The null
vectors of unstructured and Toeplitz correlations are those of `null_vectors`; the latter's may be
zero at some visits, whose rows are not needed then.

With one correlation for all pairs, D C D has in the largest groups the null vector D^-1 1 alone, of
m rows.  Summed by the s levels that have a standard deviation each, columns [X Z y]_g are those of
s visits, with a v of s positive numbers: any, for a level of `VarIdent` each; else s = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.variance import VarIdent
from mixlm_sparse.covariance.visits import CompoundSymmetry, Toeplitz, Unstructured
from mixlm_sparse.solve.whitened.frame import WhitenedFrame
from mixlm_sparse.solve.whitened.null_vectors import (
    NO_VALUE,
    SOLVED,
    NullVectors,
    dependent,
    fitted,
    of_levels,
    of_toeplitz,
    of_unstructured,
    spanned,
)

__all__ = ["null_vector", "strata_of_few_groups", "stratum_that_falls"]

# Sets of visits that are looked at, those with fewest groups first; all sets of so many visits.
MOST_PATTERNS, ALL_SETS = 16, 5
# More groups than this are not looked at: they need as many random effects to be fitted.
MOST_GROUPS = 40
# Grouping factors of which each choice is looked at.
MOST_FACTORS = 3
# How far v like nearly all others is from one that is possible for certain; the first that is, too.
APART = (0.5, 0.2, 0.05)


@dataclass(frozen=True, eq=False, slots=True)
class _Groups:
    """Groups with the same null vectors.

    Parameters
    ----------
    rows : (K, m) those that have a part in them.
    kind : the null vectors (s,).
    sums : (K, m, s) what the rows are summed by, where s is not the rows.
    """

    rows: NDArray[np.intp]
    kind: NullVectors
    sums: Array3 | None = None

    def of(self, columns: Array3) -> Array3:
        """Return columns (K, m, r) as (K, s, r)."""
        if self.sums is None:
            return columns
        return np.asarray(np.einsum("gms,gmr->gsr", self.sums, columns))


def strata_of_few_groups(frame: WhitenedFrame) -> list[int]:
    """Return the strata of a correlation in which the equations may be solved.

    Groups with rows at all T visits are among those of every set of visits: with more of them than
    T - 1 and the effects no set has few enough.
    """
    law = frame.law
    if isinstance(law.correlation, CompoundSymmetry):
        largest, unknown = law.places.largest, max(len(law.values.levels) - 1, 0)
        if largest == 1:
            return []
    elif isinstance(law.correlation, Unstructured | Toeplitz):
        largest, unknown = law.places.T, law.places.T - 1
    else:
        return []
    whole = np.bincount(law.stratum[law.sizes == largest], minlength=len(law.strata))
    random = sum(f.n_levels * f.width for f in frame.plain.blocks.factors)
    most = min(unknown + frame.A.shape[1] - 1 + random, MOST_GROUPS)
    return [int(stratum) for stratum in np.flatnonzero(whole <= most)]


def stratum_that_falls(
    frame: WhitenedFrame, sd: Vector, strata: list[int], *, reml: bool
) -> int | None:
    """Return the stratum as whose correlation becomes singular the criterion falls without end.

    Parameters
    ----------
    sd : (n,) standard deviations of the residuals at which it is asked.
    strata : those of few groups.
    """
    A = frame.A / sd[:, None]
    size = np.sqrt((A * A).mean(axis=0))
    if not size[-1] > 0.0:
        return None
    A = A / np.where(size > 0.0, size, 1.0)
    equal = isinstance(frame.law.correlation, CompoundSymmetry)
    for stratum in strata:
        for some in (_largest if equal else _complete)(frame.law, stratum):
            XY = some.of(A[some.rows])
            for Z in _random_effects(frame, some.rows, sd):
                v = null_vector(XY[:, :, :-1], some.of(Z), XY[:, :, -1], some.kind, reml=reml)
                if v is not None:
                    return stratum
    return None


def _largest(law: ResidualLaw, stratum: int) -> Iterator[_Groups]:
    """Yield the largest groups of equal correlations, whose rows are summed by levels.

    Pairs have a null vector at the other end, too: their difference.
    """
    m = law.places.largest
    first = law.starts[:-1][(law.sizes == m) & (law.stratum == stratum)]
    if not 0 < first.size <= MOST_GROUPS:
        return
    rows = law.order[first[:, None] + np.arange(m)]
    level = law.x[rows] if isinstance(law.variance, VarIdent) else np.zeros(rows.shape, np.intp)
    sums = (level[:, :, None] == np.unique(level)).astype(np.float64)
    kind = of_levels(sums.shape[2])
    yield _Groups(rows, kind, sums)
    if m == 2:
        yield _Groups(rows, kind, sums * np.array([1.0, -1.0])[:, None])


def _complete(law: ResidualLaw, stratum: int) -> Iterator[_Groups]:
    """Yield, by set of visits, the groups that have all."""
    T = law.places.T
    place = np.full((law.sizes.size, T), -1, dtype=np.intp)
    place[law.group_of, law.t.astype(np.intp)] = np.arange(law.n)
    at = place[law.stratum == stratum]
    few = []
    for visits in _sets(law, at >= 0):
        K = int((at[:, visits] >= 0).all(axis=1).sum())
        if 0 < K <= MOST_GROUPS:
            few.append((K, -len(visits), visits))
    toeplitz = isinstance(law.correlation, Toeplitz)
    for _, _, visits in sorted(few)[:MOST_PATTERNS]:
        own = at[:, visits]
        kind = of_toeplitz(T, visits) if toeplitz else of_unstructured(len(visits))
        yield _Groups(own[(own >= 0).all(axis=1)], kind)


def _sets(law: ResidualLaw, there: NDArray[np.bool_]) -> Iterator[tuple[int, ...]]:
    """Yield the sets of visits whose correlations may have a null vector; there (groups, T)."""
    T = law.places.T
    if isinstance(law.correlation, Toeplitz):
        inner = range(1, T - 1) if T <= ALL_SETS else ()
        yield tuple(range(T))
        for size in range(len(inner)):
            for some in combinations(inner, size):
                if all(T - 1 - visit in some for visit in some):
                    yield (0, *some, T - 1)
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


def null_vector(
    X: Array3, Z: Array3, y: Matrix, kind: NullVectors, *, reml: bool
) -> Vector | None:
    """Return v (s,) of length one along which the criterion falls without end, if one is found.

    Parameters
    ----------
    X, Z, y : (K, s, p), (K, s, q), (K, s) of the groups with rows at all visits.
    kind : the null vectors that the correlation may have.
    """
    K = y.shape[0]
    possible = kind.possible
    G = _independent(np.concatenate([X, Z], axis=2))
    counted = G if reml else _independent(Z)
    y = _left(G, y)
    for B, middle in kind.spaces:
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


def _left(G: Array3, y: Matrix) -> Matrix:
    """Return what G leaves of y (K, s), of size one: its unit and origin do not matter then."""
    flat = G.reshape(y.size, -1)
    left = y.ravel() - flat @ (flat.T @ y.ravel())
    left -= flat @ (flat.T @ left)
    size = np.sqrt(np.mean(left * left))
    return np.asarray(left / size if size > 0.0 else left).reshape(y.shape)


def _rank(M: Matrix) -> int:
    """Return the number of singular values of M (K, r) that are not rounding."""
    if not M.size:
        return 0
    return int((np.linalg.svd(M, compute_uv=False) > NO_VALUE).sum())


def _explained(G: Matrix, y: Vector) -> bool:
    """Say whether y (K,) is a combination of the columns of G (K, r)."""
    left = y - G @ np.linalg.lstsq(G, y, rcond=NO_VALUE)[0]
    return bool(np.abs(left).max() <= np.sqrt(SOLVED) * max(1.0, float(np.abs(y).max())))
