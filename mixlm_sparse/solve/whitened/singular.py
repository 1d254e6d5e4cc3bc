"""Whether residuals of few groups let the likelihood grow without end by a singular correlation.

Let C of the visits S have one null vector, C v = eps v with eps to zero, in an unstructured
correlation.  Of the K groups with rows at all of S, log|R| falls by log eps each, and what they add
to the residual sum of squares stays finite where

    v'(y_g - X_g beta) = 0,   g = 1 .. K,

K equations in v and beta.  With the random effects at zero the criterion is then (K - r) log eps +
const, r the rank of the rows v'X_g in REML, 0 in ML: with K > r it has no minimum, however good the
one is that a search finds.  With K < |S| there is such a v for every beta; up to K = |S| - 1 + p
there may be one.  No search is needed to see it: the equations are solved by Newton steps of least
length in (v, beta), from the singular vectors of the residuals.

v is the null vector of a correlation matrix where it closes a polygon: no |v_i| is as large as all
others together, since unit vectors u_i with sum v_i u_i = 0 exist then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.visits import Unstructured
from mixlm_sparse.solve.whitened.frame import WhitenedFrame

__all__ = ["falls_to_singular", "null_vector", "strata_of_few_groups"]

# Visits fewer than these are a pair: its null vectors are (1, 1) and (1, -1), nothing to choose.
LEAST_VISITS = 3
# Patterns of visits that are looked at, those with fewest groups first.
MOST_PATTERNS = 12
NEWTON_STEPS = 30
# The equations hold (residuals have a mean square of one) to this.
SOLVED = 1e-10
# No part of v may be smaller than this share of its largest; nor may its polygon be flatter.
LEAST_PART, FLAT = 1e-3, 1e-3


def strata_of_few_groups(frame: WhitenedFrame) -> list[int]:
    """Return the strata of an unstructured correlation in which the equations may be solved.

    Groups with rows at all T visits are among those of every pattern of visits: with more of them
    than T - 2 and the columns of X and y, no pattern has few enough.
    """
    law = frame.law
    if not isinstance(law.correlation, Unstructured):
        return []
    whole = np.bincount(law.stratum[law.sizes == law.places.T], minlength=len(law.strata))
    most = law.places.T - 2 + frame.A.shape[1]
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
    for rows in _complete(frame.law, strata, A.shape[1]):
        K = len(rows)
        v = null_vector(A[rows, :-1], A[rows, -1])
        if v is None:
            continue
        fixed = np.linalg.matrix_rank(np.einsum("s,gsp->gp", v, A[rows, :-1])) if reml else 0
        if K > fixed:
            return True
    return False


def _complete(law: ResidualLaw, strata: list[int], columns: int) -> list[NDArray[np.intp]]:
    """Return, by stratum and pattern of visits, the rows (K, s) of the groups that have all.

    Parameters
    ----------
    columns : of X and y; K is at most s - 2 + columns, else the equations are too many.
    """
    out = []
    T = law.places.T
    place = np.full((law.sizes.size, T), -1, dtype=np.intp)
    place[law.group_of, law.t.astype(np.intp)] = np.arange(law.n)
    for stratum in strata:
        at = place[law.stratum == stratum]
        patterns, groups = np.unique(at >= 0, axis=0, return_counts=True)
        few = []
        for pattern in patterns[patterns.sum(axis=1) >= LEAST_VISITS]:
            K = int(groups[patterns[:, pattern].all(axis=1)].sum())
            if K <= int(pattern.sum()) - 2 + columns:
                few.append((K, pattern))
        for _, pattern in sorted(few, key=lambda one: one[0])[:MOST_PATTERNS]:
            own = at[:, pattern]
            out.append(own[(own >= 0).all(axis=1)])
    return out


def null_vector(X: Array3, y: Matrix) -> Vector | None:
    """Return v (s,) of length one with v'(y_g - X_g beta) = 0 for some beta; None if none is found.

    Parameters
    ----------
    X, y : (K, s, p), (K, s) of groups with rows at all visits.
    """
    s, p = X.shape[1:]
    for first in np.linalg.svd(y)[2][::-1]:
        v: Vector = first
        beta = np.zeros(p)
        for _ in range(NEWTON_STEPS):
            E = y - X @ beta
            r = E @ v
            if np.abs(r).max() <= SOLVED * max(1.0, float(np.abs(beta).max(initial=0.0))):
                if _is_null(v):
                    return v
                break
            J = np.hstack([E, -np.einsum("s,gsp->gp", v, X)])
            step = np.linalg.lstsq(J, -r, rcond=None)[0]
            v, beta = v + step[:s], beta + step[s:]
            v = v / np.linalg.norm(v)
    return None


def _is_null(v: Vector) -> bool:
    """Say whether a correlation matrix has v, and no part of it, for its null vector."""
    size = np.abs(v)
    return bool(
        size.min() > LEAST_PART * size.max() and 2.0 * size.max() < (1.0 - FLAT) * size.sum()
    )
