"""Null vectors of a residual correlation beside which few groups leave no residual.

With C of s visits, v = B c its null vector (B the directions in which it may lie), and G_g the
columns (s, r) of a group that explain its response y_g (s,), the fixed effects and random ones:

    fitted:     v'(y_g - G_g b) = 0,  g = 1 .. K,           K equations in c and b,
    dependent:  sum_g w_g (v'D_g) = 0,                      r equations in c and w,

the second where v makes the rows v'D_g dependent.  Both are solved for c by Levenberg-Marquardt
steps from several v, b and w being the best there: with E_g = y_g - G_g b the derivative of what is
left of the first is, but for a part that vanishes at a solution, (I - Q Q') B'E (Golub and Pereyra
1973, Kaufman 1975), Q an orthonormal basis of the rows v'G_g; of the second (I - V V') w'D B, V the
right singular vectors of these rows, the last left out, that belongs to w.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector

__all__ = [
    "NullVectors", "dependent", "fitted", "of_levels", "of_toeplitz", "of_unstructured", "spanned",
]  # fmt: skip

STEPS = 30
# Damping of the steps at first, what a step that is taken or refused does to it, and its limits.
DAMPING, LESS, MORE, LEAST, MOST = 1e-2, 0.1, 10.0, 1e-15, 1e6
# Equations in quantities of size one hold to this; a singular value below the second is none.
SOLVED, NO_VALUE = 1e-10, 1e-8
# No part of v may be smaller than this share of its largest; nor may its polygon be flatter.
LEAST_PART, FLAT = 1e-3, 1e-3
# Starts besides those that the data suggest.
DRAWN = 12


@dataclass(frozen=True, eq=False, slots=True)
class NullVectors:
    """The null vectors that a correlation may have.

    Parameters
    ----------
    possible : whether a vector (s,) is one, and none of its parts is zero.
    spaces : orthonormal B (s, k) with the null vectors B c, and one such c (k,), of each kind.
    """

    possible: Callable[[Vector], bool]
    spaces: tuple[tuple[Matrix, Vector], ...]


def of_unstructured(s: int) -> NullVectors:
    """Return those of an unstructured correlation of s visits.

    Unit vectors u_i with sum v_i u_i = 0 close a polygon with sides |v_i|; a pair has (1, 1) or
    (1, -1).
    """
    ones = np.ones(s) / np.sqrt(s)
    return NullVectors(
        _opens_no_polygon, _symmetric(s) if s == 2 else ((np.eye(s), ones),)
    )


def of_toeplitz(T: int, visits: Sequence[int]) -> NullVectors:
    """Return those of a Toeplitz correlation of T visits that are zero at all but some visits.

    It is a mixture of T - 1 frequencies, the roots of the polynomial v, all on the unit circle, so
    that v is symmetric or antisymmetric.

    Parameters
    ----------
    visits : (s,) in order; as many from the first as from the last.
    """

    def possible(v: Vector) -> bool:
        whole = np.zeros(T)
        whole[list(visits)] = v
        return _has_all_parts(v) and _opens_no_roots(whole)

    return NullVectors(possible, _symmetric(len(visits)))


def of_levels(s: int) -> NullVectors:
    """Return those of equal correlations, summed by the s levels that have a variance each.

    D C D has the null vector D^-1 1 in the largest groups: any positive numbers of the levels.
    """

    def possible(v: Vector) -> bool:
        return bool((v > 0.0).all() or (v < 0.0).all()) and _has_all_parts(v)

    return NullVectors(possible, ((np.eye(s), np.ones(s) / np.sqrt(s)),))


def _symmetric(s: int) -> tuple[tuple[Matrix, Vector], ...]:
    """Return the spaces of symmetric and antisymmetric vectors (s,).

    Equally spaced frequencies have the null vector (1, .., 1), or (1, 0, .., 0, -1).
    """
    ones, ends = np.ones(s) / np.sqrt(s), np.eye(s)[0] - np.eye(s)[-1]
    out = []
    for sign, middle in ((1.0, ones), (-1.0, ends / np.sqrt(2.0))):
        values, vectors = np.linalg.eigh(np.eye(s) + sign * np.eye(s)[::-1])
        B = vectors[:, values > 1.0]
        out.append((B, B.T @ middle))
    return tuple(out)


def _has_all_parts(v: Vector) -> bool:
    """Say whether no part of v is zero: groups without it would count, too."""
    size = np.abs(v)
    return bool(size.min() > LEAST_PART * size.max())


def _opens_no_polygon(v: Vector) -> bool:
    size = np.abs(v)
    if size.size == 2:
        return bool(abs(size[0] - size[1]) <= FLAT * size[0])
    return _has_all_parts(v) and bool(2.0 * size.max() < (1.0 - FLAT) * size.sum())


def _opens_no_roots(v: Vector) -> bool:
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

    def left(c: Vector) -> tuple[Vector, Matrix, float]:
        rows = np.einsum("k,gkr->gr", c, F)
        U, values, Vt = np.linalg.svd(rows, full_matrices=False)
        kept = values > NO_VALUE
        Q = U[:, kept]
        b = Vt[kept].T @ ((Q.T @ (z @ c)) / values[kept])
        E = z - F @ b
        return E @ c, E - Q @ (Q.T @ E), max(1.0, float(np.abs(b).max(initial=0.0)))

    for c in _starts(z):
        found = _solved(left, c)
        if found is not None and possible(B @ found):
            return np.asarray(B @ found)
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

    def left(c: Vector) -> tuple[Vector, Matrix, float]:
        U, _, Vt = np.linalg.svd(np.einsum("k,gkr->gr", c, F))
        last = U.shape[1] - 1
        V, by_c = Vt[:last].T, np.einsum("g,gkr->rk", U[:, last], F)
        return by_c @ c, by_c - V @ (V.T @ by_c), 1.0

    for c in _starts(y @ B):
        found = _solved(left, c)
        if found is not None and possible(B @ found):
            yield np.asarray(B @ found)


def _solved(
    left: Callable[[Vector], tuple[Vector, Matrix, float]], c: Vector
) -> Vector | None:
    """Return c (k,) of length one where nothing is left, if steps from c end at one.

    Parameters
    ----------
    left : c -> what is left, its derivative, and the size of the quantities in it.
    """
    damping = DAMPING
    r, J, size = left(c)
    for _ in range(STEPS):
        if np.abs(r).max() <= SOLVED * size:
            return c
        moved = c - np.linalg.solve(J.T @ J + damping * np.eye(c.size), J.T @ r)
        moved /= np.linalg.norm(moved)
        there = left(moved)
        if there[0] @ there[0] < r @ r:
            c, (r, J, size), damping = moved, there, max(LESS * damping, LEAST)
        else:
            damping *= MORE
            if damping > MOST:
                break
    return None


def _starts(z: Matrix) -> list[Vector]:
    """Return directions (k,) to begin with: of the least of the responses z (K, k), and drawn."""
    out = list(np.linalg.svd(z)[2][::-1])
    if len(out) > 1:
        drawn = np.random.default_rng(1).normal(size=(DRAWN, len(out)))
        out += list(drawn / np.linalg.norm(drawn, axis=1)[:, None])
    return out
