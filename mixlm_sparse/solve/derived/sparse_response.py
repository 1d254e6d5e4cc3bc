"""Products of sparse responses with a design, without making them dense.

What is stored of Y (n, r) enters X'WY, Z'WY and the squares of Y directly; least squares is taken
out afterwards, with X = Q R_x and h = Q'W(y - o):

    yy = |y - o|_W^2 - h'h,    Z~'W y_f = Rz^{-T} Z'W(y - o) - (Z~'WQ) h,    beta_ols = R_x^{-1} h

These are differences, which lose the digits by which the terms exceed what is left.  Responses that
lose more than four of them, and designs whose columns are nearly dependent, are marked: the caller
takes their residuals row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.design.members import effect_matrix
from mixlm_sparse.solve.rows import RowBlock
from mixlm_sparse.solve.system import PenalizedSystem

# yy / |y - o|^2 below which a response is taken row by row.
LEAST_SHARE = 1e-4
# Condition of R_x beyond which all are.
GREATEST_CONDITION = 1e4


@dataclass(frozen=True, slots=True)
class SparseProducts:
    """What `other_response.ResponseBlock` has, of sparse responses.

    Parameters
    ----------
    beta_ols : (p, r); yy, y_length : (r,); zy : per factor, (L, K, r).
    """

    beta_ols: Matrix
    yy: Vector
    y_length: Vector
    zy: tuple[Array3, ...]


def stored_column(Y: sp.csc_array, i: int) -> Vector:
    """Return column i as a dense vector, (n,)."""
    out = np.zeros(Y.shape[0])
    at = slice(Y.indptr[i], Y.indptr[i + 1])
    out[Y.indices[at]] = Y.data[at]
    return out


def in_working_columns(system: PenalizedSystem, sums: list[Array3]) -> tuple[Array3, ...]:
    """Return Rz^{-T} Z'WY per factor, (L, K, r), from Z'WY in the user's columns, (K, L, r)."""
    products = system.products
    out = [np.empty((s.shape[1], s.shape[0], s.shape[2])) for s in sums]
    for place, Rz in zip(products.layout, products.Rz, strict=True):
        part = sums[place.factor][place.columns]
        # z~ = z Rz^{-1}
        flat = scipy.linalg.solve_triangular(
            Rz, part.reshape(place.width, -1), trans="T", check_finite=False
        )
        out[place.factor][:, place.columns] = flat.reshape(part.shape).transpose(1, 0, 2)
    return tuple(out)


def effect_columns(
    system: PenalizedSystem, rows: RowBlock
) -> Iterator[tuple[int, int, sp.csr_array]]:
    """Yield, for every column of every term, its factor, its place there and Z (rows, levels)."""
    products = system.products
    for t, place in enumerate(products.layout):
        z, levels = rows.z(t), rows.levels(place.factor)
        n_levels = products.blocks.factors[place.factor].n_levels
        for a in range(place.width):
            yield place.factor, place.first + a, effect_matrix(z, levels, a, n_levels)


def sparse_products(
    system: PenalizedSystem, Y: sp.csc_array
) -> tuple[SparseProducts, NDArray[np.bool_]]:
    """Form the products of sparse responses Y (n, r), all values finite.

    Returns
    -------
    products, exact : exact (r,) is False where too many digits cancel.
    """
    products = system.products
    p, r = products.p, Y.shape[1]
    factors = products.blocks.factors
    by_rows = sp.csr_array(Y)
    squares, right = np.zeros(r), np.zeros((p, r))
    sums = [np.zeros((f.width, f.n_levels, r)) for f in factors]
    for rows in system.rows():
        part = by_rows[rows.slice]
        weights = np.repeat(rows.weights, np.diff(part.indptr))
        weighted = sp.csr_array((part.data * weights, part.indices, part.indptr), shape=part.shape)
        squares += np.bincount(part.indices, part.data * weighted.data, minlength=r)
        right += np.asarray(weighted.T @ rows.X).T
        offset = rows.offset
        weighted_offset = rows.weighted(offset)
        crossed = np.asarray(weighted.T @ offset)
        squares += float(offset @ weighted_offset) - 2.0 * crossed
        right -= (rows.X.T @ weighted_offset)[:, None]
        for factor, column, Z in effect_columns(system, rows):
            total = sums[factor][column]
            total += (Z.T @ weighted).toarray()
            total -= np.asarray(Z.T @ weighted_offset)[:, None]
    h = right
    beta = right
    condition = 1.0
    if p:
        h = scipy.linalg.solve_triangular(products.R_x, right, trans="T")
        beta = scipy.linalg.solve_triangular(products.R_x, h)
        condition = float(np.linalg.cond(products.R_x / np.linalg.norm(products.R_x, axis=0)))
    yy = squares - (h * h).sum(axis=0)
    exact = yy > LEAST_SHARE * squares
    if condition > GREATEST_CONDITION:
        exact[:] = False
    exact |= (np.diff(Y.indptr) == 0) & (squares == 0.0)  # zeros alone: nothing cancels
    zy = in_working_columns(system, sums)
    for values, f in zip(zy, factors, strict=True):
        values -= np.einsum("jkp,pr->jkr", f.ztx[:, :, :p], h)
    return SparseProducts(beta, np.maximum(yy, 0.0), np.sqrt(np.maximum(squares, 0.0)), zy), exact
