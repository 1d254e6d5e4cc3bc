"""Null vectors of a correlation of visits beside which few groups leave no residual.

With C of s visits, v = B c its null vector (B the directions in which it may lie), and G_g the
columns (s, r) of a group that explain its response y_g (s,), the fixed effects and random ones:

    fitted:     v'(y_g - G_g b) = 0,  g = 1 .. K,           K equations in c and b,
    dependent:  sum_g w_g (v'D_g) = 0,                      r equations in c and w,

the second where v makes the rows v'D_g dependent.  Both are solved by Newton steps of least length,
from several v.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector

__all__ = ["dependent", "fitted", "opens_no_polygon", "opens_no_roots", "spanned"]

NEWTON_STEPS = 30
# Equations in quantities of size one hold to this; a singular value below the second is none.
SOLVED, NO_VALUE = 1e-10, 1e-8
# No part of v may be smaller than this share of its largest; nor may its polygon be flatter.
LEAST_PART, FLAT = 1e-3, 1e-3
# Starts besides those that the data suggest.
DRAWN = 6


def opens_no_polygon(v: Vector) -> bool:
    """Say whether a correlation matrix has v (s,), and no part of it, for its null vector.

    Unit vectors u_i with sum v_i u_i = 0 close a polygon with sides |v_i|.
    """
    size = np.abs(v)
    if size.size == 2:
        return bool(abs(size[0] - size[1]) <= FLAT * size[0])
    return bool(
        size.min() > LEAST_PART * size.max() and 2.0 * size.max() < (1.0 - FLAT) * size.sum()
    )


def opens_no_roots(v: Vector) -> bool:
    """Say whether a Toeplitz correlation has v (s,) for its only null vector.

    It is a mixture of s - 1 frequencies, the roots of the polynomial v, all on the unit circle.
    """
    size = np.abs(v)
    if size.min() <= LEAST_PART * size.max():  # groups without a visit would count, too
        return False
    roots = np.roots(v)
    apart = np.abs(roots[:, None] - roots) + 2.0 * np.eye(roots.size)
    return bool((np.abs(np.abs(roots) - 1.0) <= 1e-6).all() and apart.min() > FLAT)


def spanned(v: Vector, G: Array3) -> Matrix:
    """Return v'G_g of every group, (K, r), for G (K, s, r)."""
    return np.asarray(np.einsum("s,gsr->gr", v, G))


def fitted(G: Array3, y: Matrix, B: Matrix, possible: Callable[[Vector], bool]) -> Vector | None:
    """Return v (s,) of length one with v'(y_g - G_g b) = 0 for some b; None if none is found.

    Parameters
    ----------
    G, y : (K, s, r), (K, s) of groups with rows at all visits.
    B : (s, k) orthonormal directions in which v lies.
    possible : whether a correlation matrix has v for its null vector.
    """
    F, z = np.einsum("sk,gsr->gkr", B, G), y @ B
    for c in _starts(z):
        b = np.zeros(G.shape[2])
        for _ in range(NEWTON_STEPS):
            E = z - F @ b
            r = E @ c
            if np.abs(r).max() <= SOLVED * max(1.0, float(np.abs(b).max(initial=0.0))):
                if possible(B @ c):
                    return np.asarray(B @ c)
                break
            J = np.hstack([E, -np.einsum("k,gkr->gr", c, F)])
            step = np.linalg.lstsq(J, -r, rcond=None)[0]
            c, b = c + step[: c.size], b + step[c.size :]
            c = c / np.linalg.norm(c)
    return None


def dependent(
    D: Array3, y: Matrix, B: Matrix, possible: Callable[[Vector], bool]
) -> Iterator[Vector]:
    """Yield v (s,) of length one that make the rows v'D_g dependent.

    Parameters
    ----------
    D : (K, s, r); y : (K, s), for the first v alone.
    """
    F = np.einsum("sk,gsr->gkr", B, D)
    for c in _starts(y @ B):
        w = np.linalg.svd(np.einsum("k,gkr->gr", c, F))[0][:, -1]
        for _ in range(NEWTON_STEPS):
            of_w, of_c = np.einsum("g,gkr->kr", w, F), np.einsum("k,gkr->gr", c, F)
            r = w @ of_c
            if np.abs(r).max() <= SOLVED:
                if possible(B @ c):
                    yield np.asarray(B @ c)
                break
            step = np.linalg.lstsq(np.vstack([of_w, of_c]).T, -r, rcond=None)[0]
            c, w = c + step[: c.size], w + step[c.size :]
            c, w = c / np.linalg.norm(c), w / np.linalg.norm(w)


def _starts(z: Matrix) -> list[Vector]:
    """Return directions (k,) to begin with: of the least of the responses z (K, k), and drawn."""
    out = list(np.linalg.svd(z)[2][::-1])
    if len(out) > 1:
        drawn = np.random.default_rng(1).normal(size=(DRAWN, len(out)))
        out += list(drawn / np.linalg.norm(drawn, axis=1)[:, None])
    return out
