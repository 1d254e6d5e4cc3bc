"""Systems for other responses of one design: products with y alone are formed anew.

The design, Z'WZ, Z'WX, X'WX, the symbolic work and the engine are shared.  With X = Q R_x and
Q'WQ = I, a response needs

    beta_ols = R_x^{-1} Q'W(y - o),    y_f = y - o - X beta_ols,    yy = y_f'W y_f,
    Z~'W y_f = Rz^{-T} Z'W y_f

for which r responses take three passes over the rows, and no factorization.  Of sparse responses
only the elements that are stored are touched, in one pass: see `sparse_response`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.solve.derived.sparse_response import (
    effect_columns,
    in_working_columns,
    sparse_products,
    stored_column,
)
from mixlm_sparse.solve.products.basis import SMALLEST, without_squares
from mixlm_sparse.solve.system import PenalizedSystem

ResponseColumns = Matrix | sp.csc_array

# Length of a response whose square is a number still.
GREATEST = math.sqrt(np.finfo(np.float64).max)
# Columns are summed by the multiple of this: BLAS and NumPy sum one column, and the last of an odd
# number, in another order.
ABREAST = 8


@dataclass(frozen=True, slots=True)
class ResponseBlock:
    """Products of r responses with the design.

    Parameters
    ----------
    Y : (n, r), dense or sparse.
    beta_ols : (p, r) least-squares coefficients.
    yy, y_length : (r,) residual sum of squares of least squares, and length of sqrt(W)(y - offset).
    zy : per factor, (L, K, r) Z~'W y_f.
    trouble : why a response, by its place, has no products: its squares are no numbers.  Its
        products are zero here.
    """

    Y: ResponseColumns
    beta_ols: Matrix
    yy: Vector
    y_length: Vector
    zy: tuple[Array3, ...]
    trouble: dict[int, str] = field(default_factory=dict)

    def y(self, i: int) -> Vector:
        """Return response i, (n,)."""
        if isinstance(self.Y, np.ndarray):
            out: Vector = self.Y[:, i]
            return out
        return stored_column(self.Y, i)


def not_finite(Y: ResponseColumns) -> NDArray[np.int64]:
    """Count the missing and infinite values of each response, (r,)."""
    if isinstance(Y, np.ndarray):
        return np.asarray((~np.isfinite(Y)).sum(axis=0), dtype=np.int64)
    bad = np.flatnonzero(~np.isfinite(Y.data))
    columns = np.searchsorted(Y.indptr, bad, side="right") - 1
    return np.bincount(columns, minlength=Y.shape[1]).astype(np.int64)


def response_block(
    system: PenalizedSystem, Y: ResponseColumns, *, abreast: int = ABREAST
) -> ResponseBlock:
    """Form the products of responses Y (n, r); what is not finite in them counts as zero.

    Rows must be independent.  The digits of a response do not depend on those beside it.
    """
    assert system.whitened is None
    with np.errstate(over="ignore", invalid="ignore"):
        found = _block(system, Y, abreast)
    length = found.y_length
    beyond = ~(length <= GREATEST) | ((length > 0.0) & (length < SMALLEST))
    if not beyond.any():
        return found
    for i in np.flatnonzero(beyond).tolist():
        size = float(length[i])
        found.trouble[i] = (
            without_squares("the response", size)
            if size < SMALLEST
            else "the squares of the response, times the weights, leave the range of numbers: use "
            "another unit"
        )
        found.beta_ols[:, i], found.yy[i], found.y_length[i] = 0.0, 0.0, 0.0
        for values in found.zy:
            values[:, :, i] = 0.0
    return found


def _block(system: PenalizedSystem, Y: ResponseColumns, abreast: int) -> ResponseBlock:
    if isinstance(Y, np.ndarray):
        finite = np.isfinite(Y)
        return _dense_block(system, Y if finite.all() else np.where(finite, Y, 0.0), abreast)
    if not np.isfinite(Y.data).all():
        data = np.where(np.isfinite(Y.data), Y.data, 0.0)
        Y = sp.csc_array((data, Y.indices, Y.indptr), shape=Y.shape)
    found, exact = sparse_products(system, Y)
    for i in np.flatnonzero(~exact).tolist():
        one = _dense_block(system, stored_column(Y, i)[:, None], 1)
        found.beta_ols[:, i], found.yy[i] = one.beta_ols[:, 0], one.yy[0]
        found.y_length[i] = one.y_length[0]
        for to, values in zip(found.zy, one.zy, strict=True):
            to[:, :, i] = values[:, :, 0]
    return ResponseBlock(Y, found.beta_ols, found.yy, found.y_length, found.zy)


def _dense_block(system: PenalizedSystem, Y: Matrix, abreast: int) -> ResponseBlock:
    products = system.products
    n, given = Y.shape
    r = given + -given % abreast
    residual = np.zeros((n, r))
    squares = np.zeros(r)
    for rows in system.rows():
        target = residual[rows.slice]
        target[:, :given] = Y[rows.slice] - rows.offset[:, None]
        squares += (target * rows.weighted(target)).sum(axis=0)

    # least squares twice: the second pass takes out what rounding left in the first
    beta = np.zeros((products.p, r))
    for _ in range(2 if products.p else 0):
        right = np.zeros((products.p, r))
        for rows in system.rows():
            right += rows.design.T @ rows.weighted(residual[rows.slice])
        half = scipy.linalg.solve_triangular(products.R_x, right, trans="T")
        step = scipy.linalg.solve_triangular(products.R_x, half)
        beta += step
        for rows in system.rows():
            residual[rows.slice] -= rows.fixed_part(step)

    yy = np.zeros(r)
    factors = products.blocks.factors
    sums = [np.zeros((f.width, f.n_levels, r)) for f in factors]
    for rows in system.rows():
        weighted = rows.weighted(residual[rows.slice])
        yy += (residual[rows.slice] * weighted).sum(axis=0)
        for factor, column, Z in effect_columns(system, rows):
            sums[factor][column] += Z.T @ weighted
    zy = in_working_columns(system, [np.ascontiguousarray(s[:, :, :given]) for s in sums])
    length = _lengths(system, Y, squares[:given])
    return ResponseBlock(Y, np.ascontiguousarray(beta[:, :given]), yy[:given], length, zy)


def _lengths(system: PenalizedSystem, Y: Matrix, squares: Vector) -> Vector:
    """Return the lengths of sqrt(W)(Y - o), (r,), also where their `squares` are no numbers."""
    length: Vector = np.sqrt(squares)
    lost = np.flatnonzero(~((length >= SMALLEST) & np.isfinite(length)))
    if not lost.size:
        return length
    largest, scaled = np.zeros(lost.size), np.zeros(lost.size)
    for rows in system.rows():
        target = rows.root_weighted(Y[rows.slice, lost] - rows.offset[:, None])
        np.maximum(largest, np.abs(target).max(axis=0), out=largest)
    unit = np.where(largest > 0.0, largest, 1.0)
    for rows in system.rows() if largest.any() else ():
        target = rows.root_weighted(Y[rows.slice, lost] - rows.offset[:, None]) / unit
        scaled += (target * target).sum(axis=0)
    length[lost] = largest * np.sqrt(scaled)
    return length


def system_for(system: PenalizedSystem, block: ResponseBlock, i: int) -> PenalizedSystem:
    """Return the system of response i of a block; design and engine are shared."""
    old = system.products
    factors = []
    for f, zy in zip(old.blocks.factors, block.zy, strict=True):
        ztx = f.ztx.copy()
        ztx[:, :, -1] = zy[:, :, i]
        factors.append(FactorBlock(f.label, f.ztz, ztx))
    products = replace(
        old,
        beta_ols=block.beta_ols[:, i],
        yy=float(block.yy[i]),
        y_length=float(block.y_length[i]),
        blocks=BlockSystem(tuple(factors), old.blocks.pairs),
    )
    matrices = replace(system.matrices, y=block.y(i))
    return system.with_products(products, matrices, same_design=True)


def with_response(system: PenalizedSystem, y: Vector) -> PenalizedSystem:
    """Return the system for another response (n,); the design and the engine are shared.

    With a residual structure, at the same rho.

    Raises
    ------
    DataError : the squares of y are no numbers.
    """
    if system.whitened is not None:
        offset = system.matrices.offset
        frame = system.whitened.frame.with_target(y if offset is None else y - offset)
        whitened = frame.at(system.whitened.rho, centered=system.whitened.whitening.centered)
        return PenalizedSystem(
            replace(system.matrices, y=y), whitened.products, system.templates,
            system.engine.reload(whitened.products.blocks), system.may_fuse, whitened=whitened,
        )  # fmt: skip
    block = response_block(system, y[:, None], abreast=1)
    for trouble in block.trouble.values():
        raise DataError(trouble)
    return system_for(system, block, 0)
