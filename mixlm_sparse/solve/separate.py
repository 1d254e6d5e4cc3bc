"""Random effects far larger than the noise: what is within and what is between separates.

Let P project on the columns of Z (r of them independent), in the metric of the weights.  With
[X y] = P [X y] + [X y]_w the parts are orthogonal, V^{-1} [X y]_w = [X y]_w, and

    [X y]'V^{-1}[X y] = [X y]_w'W[X y]_w + (P [X y])'V^{-1}(P [X y])
    log|V| = log|I + Lambda'Z'WZ Lambda|

hold exactly.  Where every direction of Lambda is large, the unit matrix counts for nothing beside
Z Lambda Lambda'Z' on the columns of Z: with Lambda = c Lambda_0, up to a relative 1 / s^2, s the
least singular value of Lambda_0 in columns of length one times the root of a level's rows,

    log|C(Lambda)| = log|C(Lambda_0)| + 2 r log c
    U(Lambda) = C^{-1}Lambda'Z'W[X y] = U(Lambda_0) / c
    (P [X y])'V^{-1}(P [X y]) = U(Lambda)'U(Lambda)

so that numbers of the size of Lambda_0 are enough for any c; a step of refinement leaves of U what
rounding leaves.  Formed at Lambda itself, C keeps no
digit of the unit matrix beyond 1e8, and where columns of Z depend on each other (crossed and
nested factors, levels with fewer rows than effects) that is all that there is in some directions.

The first term does not depend on theta: its last pivot is the residual sum of squares of y on
[X Z], on n - rank[X Z] degrees of freedom, which is what sigma is estimated from, however small it
is beside the random effects; below the rounding of the response there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.design.members import effect_matrix, random_part
from mixlm_sparse.engines.interface import Engine
from mixlm_sparse.solve.products.basis import (
    positive_diagonal,
    response_less,
    stack_qr,
    triangular_inverse,
)
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.rows import RowBlock

# The size of Lambda_0: 1e-8 is neglected, and 1e-8 is what rounding leaves of a unit matrix.
FAR = 1e4
# Each pass divides what is left of the columns of Z by 1e8 times the rows of a level.
PASSES = 3
# What columns of X, of length one, have within groups counts from here on.
WITHIN_RTOL = 1e-12
# A residual below this multiple of the response's rounding is none.
ROUNDING_UNITS = 4.0


@dataclass(frozen=True, eq=False)
class Separated:
    """The part of [X y] outside of the columns of Z.

    Parameters
    ----------
    R : (p + 1, p + 1) upper triangular, R'R = [X y]_w'W[X y]_w in the working columns.
    B : per factor, (L, K, p + 1), P [X y] = Z B; one of many where columns of Z depend.
    rank : of Z.
    rank_within : number of fixed effects that the rows within groups tell apart.
    rounding : length that the rounding of the response alone can give the last column.
    """

    R: Matrix
    B: list[Array3]
    rank: int
    rank_within: int
    rounding: float

    @property
    def nothing_left(self) -> bool:
        """Whether random and fixed effects together fit the response exactly."""
        return abs(float(self.R[-1, -1])) <= self.rounding


def scale_beyond(lambdas: list[Matrix]) -> float:
    """Return c >= 1 with Lambda / c as large as need be; 1 where a direction is not large."""
    # lower triangular: an upper bound, and cheap
    if not lambdas or any(lam[0, 0] < FAR for lam in lambdas):
        return 1.0
    least = min(float(np.linalg.svd(lam, compute_uv=False)[-1]) for lam in lambdas)
    return max(least / FAR, 1.0)


Rows = Callable[[], Iterator[RowBlock]]


def separate(products: Products, engine: Engine, walk: Rows) -> Separated:
    """Take the columns of Z out of [X y].

    Parameters
    ----------
    engine : of these products; it is factored anew.
    walk : over the rows, with the columns of X that are kept.
    """
    factors = products.blocks.factors
    p = products.p
    lambdas = [FAR * np.eye(f.width) for f in factors]
    B = [np.zeros((f.n_levels, f.width, p + 1)) for f in factors]
    engine.factorize(lambdas)
    inside = engine.trace_products(lambdas)
    for _ in range(PASSES):
        ZE = [np.zeros_like(b) for b in B]
        for rows, E, z in remainders(products, walk(), B):
            weighted = rows.weighted(E)
            for g, f in enumerate(factors):
                for a in range(f.width):
                    Z = effect_matrix(z[g], rows.levels(g), a, f.n_levels)
                    ZE[g][:, a] += np.asarray(Z.T @ weighted)
        U = engine.solve([FAR * v for v in ZE])
        B = [b + FAR * u for b, u in zip(B, U, strict=True)]
    R: Matrix | None = None
    for rows, E, _ in remainders(products, walk(), B):
        R = stack_qr(R, rows.root_weighted(E))
    assert R is not None
    rank = sum(FAR * float(np.trace(M)) for M in inside)  # tr(I - C^{-1})
    eps = float(np.finfo(np.float64).eps)
    # columns between groups have nothing within but rounding, which would still count at 1 / theta
    left, sizes, right = np.linalg.svd(R[:, :p], full_matrices=False)
    seen = sizes > WITHIN_RTOL
    R[:, :p] = (left[:, seen] * sizes[seen]) @ right[seen]
    return Separated(
        R=positive_diagonal(stack_qr(None, R)),
        B=B,
        rank=round(rank),
        rank_within=int(seen.sum()),
        rounding=ROUNDING_UNITS * eps * products.y_length,
    )


def stacked(U: list[Array3]) -> Matrix:
    """Return the factor (p + 1, p + 1) of the rows of all U."""
    R: Matrix | None = None
    for u in U:
        R = stack_qr(R, u.reshape(-1, u.shape[2]))
    assert R is not None
    return R


def remainders(
    products: Products, blocks: Iterator[RowBlock], B: list[Array3]
) -> Iterator[tuple[RowBlock, Matrix, list[Matrix]]]:
    """Walk over the rows of E = [X y] - Z B, in the working columns.

    Parameters
    ----------
    blocks : the rows, with the columns of X that are kept.
    B : per factor, (L, K, p + 1).

    Yields
    ------
    rows : the block.
    E : (m, p + 1).
    z : per factor, (m, K) its rows of Z, place by place where they have several levels.
    """
    p = products.p
    R_inverse = triangular_inverse(products.R_x) if p else np.zeros((0, 0))
    Rz_inverse = [triangular_inverse(Rz) for Rz in products.Rz]
    for rows in blocks:
        E = np.empty((len(rows), p + 1))
        E[:, :p] = rows.X @ R_inverse
        E[:, p] = response_less(rows.target, rows.X, products.beta_ols)
        places = [rows.places(g) for g in range(len(B))]
        z = [
            np.empty((len(rows), S, f.width))
            for S, f in zip(places, products.blocks.factors, strict=True)
        ]
        for t, (place, inverse) in enumerate(zip(products.layout, Rz_inverse, strict=True)):
            columns = rows.z(t).reshape(len(rows), -1, place.width)
            z[place.factor][:, :, place.columns] = columns @ inverse
        flat = [own.reshape(len(rows), -1) for own in z]
        for g, own in enumerate(flat):
            E -= random_part(own, rows.levels(g), B[g])
        yield rows, E, flat
