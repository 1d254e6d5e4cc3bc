"""Systems for other responses of one design: products with y alone are formed anew.

The design, Z'WZ, Z'WX, X'WX, the symbolic work and the engine are shared.  With X = Q R_x and
Q'WQ = I, a response needs

    beta_ols = R_x^{-1} Q'W(y - o),    y_f = y - o - X beta_ols,    yy = y_f'W y_f,
    Z~'W y_f = Rz^{-T} Z'W y_f

for which r responses take three passes over the rows, and no factorization.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.solve.system import PenalizedSystem


@dataclass(frozen=True, slots=True)
class ResponseBlock:
    """Products of r responses with the design.

    Parameters
    ----------
    Y : (n, r).
    beta_ols : (p, r) least-squares coefficients.
    yy, y_length : (r,) residual sum of squares of least squares, and length of sqrt(W)(y - offset).
    zy : per factor, (L, K, r) Z~'W y_f.
    """

    Y: Matrix
    beta_ols: Matrix
    yy: Vector
    y_length: Vector
    zy: tuple[Array3, ...]


def response_block(system: PenalizedSystem, Y: Matrix) -> ResponseBlock:
    """Form the products of responses Y (n, r) without missing values."""
    products = system.products
    r = Y.shape[1]
    residual = np.empty(Y.shape)
    squares = np.zeros(r)
    for rows in system.rows():
        target = Y[rows.slice] - rows.offset[:, None]
        residual[rows.slice] = target
        squares += (target * rows.weighted(target)).sum(axis=0)

    # least squares twice: the second pass takes out what rounding left in the first
    beta = np.zeros((products.p, r))
    for _ in range(2 if products.p else 0):
        right = np.zeros((products.p, r))
        for rows in system.rows():
            right += rows.X.T @ rows.weighted(residual[rows.slice])
        half = scipy.linalg.solve_triangular(products.R_x, right, trans="T")
        step = scipy.linalg.solve_triangular(products.R_x, half)
        beta += step
        for rows in system.rows():
            residual[rows.slice] -= rows.X @ step

    yy = np.zeros(r)
    factors = products.blocks.factors
    sums = [np.zeros((f.width, f.n_levels, r)) for f in factors]
    for rows in system.rows():
        weighted = rows.weighted(residual[rows.slice])
        yy += (residual[rows.slice] * weighted).sum(axis=0)
        ends = np.arange(len(rows) + 1)
        for t, place in enumerate(products.layout):
            z, codes = rows.z(t), rows.codes(place.factor)
            shape = (len(rows), factors[place.factor].n_levels)
            for a in range(place.width):
                Z = sp.csr_array((z[:, a], codes, ends), shape=shape)
                sums[place.factor][place.first + a] += Z.T @ weighted
    zy = [np.empty((f.n_levels, f.width, r)) for f in factors]
    for place, Rz in zip(products.layout, products.Rz, strict=True):
        raw = sums[place.factor][place.columns].reshape(place.width, -1)
        # z~ = z Rz^{-1}
        flat = scipy.linalg.solve_triangular(Rz, raw, trans="T", check_finite=False)
        shaped = flat.reshape(place.width, -1, r).transpose(1, 0, 2)
        zy[place.factor][:, place.columns] = shaped
    return ResponseBlock(Y, beta, yy, np.sqrt(squares), tuple(zy))


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
    return system.with_products(products, replace(system.matrices, y=block.Y[:, i]))


def with_response(system: PenalizedSystem, y: Vector) -> PenalizedSystem:
    """Return the system for another response (n,); the design and the engine are shared."""
    return system_for(system, response_block(system, y[:, None]), 0)
