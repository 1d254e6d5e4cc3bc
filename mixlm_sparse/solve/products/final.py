"""The final, orthonormal form of the products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.columns import SparseColumns
from mixlm_sparse.engines.fused.absorbed import MOST_EFFECTS
from mixlm_sparse.engines.fused.bordered import border_order
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, times_columns
from mixlm_sparse.engines.memory import require_memory
from mixlm_sparse.solve.products.accumulate import CrossProducts
from mixlm_sparse.solve.products.basis import (
    RANK_RTOL,
    TermLayout,
    column_lengths,
    triangular_inverse,
)

# Beside many sparse columns, up to so many effects of the other grouping factors are taken into one
# dense border with them.
MOST_BESIDE = 5_000


@dataclass(frozen=True, slots=True)
class Products:
    """Products in their final, orthonormal form, ready for a penalized system.

    X[:, kept] = Q R_x with Q'WQ = I, and y - offset = X[:, kept] beta_ols + y_f with Q'W y_f = 0;
    `blocks` holds Z~'W[Q y_f].

    Parameters
    ----------
    kept : indices of the columns of X that are not combinations of earlier ones.
    R_x : (p, p) upper triangular.
    D : (p, dropped) the other columns are combinations of these: X[:, dropped] = X[:, kept] D.
    beta_ols : (p,) least-squares coefficients.
    yy : y_f'W y_f, the residual sum of squares of least squares.
    y_length : length of sqrt(W)(y - offset), the scale that rounding errors are measured on.
    """

    n: int
    log_weight_sum: float
    kept: tuple[int, ...]
    R_x: Matrix
    D: Matrix
    beta_ols: Vector
    yy: float
    y_length: float
    blocks: BlockSystem
    layout: tuple[TermLayout, ...]
    Rz: tuple[Matrix, ...]

    @property
    def p(self) -> int:
        return len(self.kept)

    @property
    def sparse(self) -> bool:
        """Whether Z'W[X y] is held with its entries alone (see `engines.columns`)."""
        return any(f.sparse is not None for f in self.blocks.factors)

    @property
    def pwrss_floor(self) -> float:
        """The least pwrss that is more than the rounding of y leaves.

        Rounding can make a vanishing remainder negative.
        """
        rounding = (np.finfo(np.float64).eps * self.y_length) ** 2
        return float(max(rounding, np.finfo(np.float64).tiny))


def kept_columns(R: Matrix) -> tuple[int, ...]:
    """Return the columns of X that are not combinations of earlier ones, from its factor (p, p)."""
    p = R.shape[1]
    lengths = column_lengths(R)
    own = np.abs(R.diagonal()) > RANK_RTOL * lengths
    if own.all():
        return tuple(range(p))
    # columns before the first that is none span the first coordinates: what counts is beyond these
    first = int(np.argmin(own))
    kept = list(range(first))
    beyond = R[first:, first:]
    basis = np.zeros((p - first, beyond.shape[0]))
    n = 0
    for j in range(first, p):
        Q, left = basis[:n], beyond[:, j - first]
        for _ in range(2):
            left = left - (Q @ left) @ Q
        length = float(np.sqrt(left @ left))
        if length > RANK_RTOL * lengths[j]:
            basis[n] = left / length
            n += 1
            kept.append(j)
    return tuple(kept)


def stays_sparse(blocks: BlockSystem, p: int) -> bool:
    """Say whether Z'W[X y] of p columns is to stay with its entries alone.

    Fewer effects than columns are better taken out of the fixed part; and the border of what is not
    eliminated level by level is dense.
    """
    if not all(f.sparse is not None for f in blocks.factors) or blocks.own_pairs:
        return False
    return blocks.q > min(p, MOST_EFFECTS) and border_order(blocks) - p - 1 <= MOST_BESIDE


def require_room(effects: int, columns: int) -> None:
    """Raise an EngineError if Z'W[X y] as an array, turned and solved, does not fit into memory.

    Parameters
    ----------
    effects, columns : its size.
    """
    require_memory(
        3.0 * 8.0 * effects * columns,
        f"a fixed part of {columns - 1} columns beside {effects} random effects, whose products "
        "are one matrix,",
        "put a factor of many levels into the random part, or leave out levels with few rows",
    )


def _solved(R: Matrix, right: Matrix) -> Matrix:
    """Return R^{-1} right for an upper triangular R (k, k) and right (k,) or (k, r)."""
    if not right.size:
        return right
    # straight to LAPACK, whose matrices lie by columns: R'x of the transposed one
    out, info = scipy.linalg.lapack.dtrtrs(R.T, right, lower=1, trans=1)
    if info:
        raise NotPositiveDefiniteError("a basis of the model columns is singular")
    solution: Matrix = out
    return solution


def orthonormal_products(cross: CrossProducts, *, may_be_sparse: bool = False) -> Products:
    """Bring accumulated products to their final form; decides which columns of X are kept.

    Parameters
    ----------
    may_be_sparse : leave Z'W[X y] of many levels and many sparse columns with its entries alone.
    """
    basis = cross.basis
    p = basis.R.shape[0]
    Rxx, Rxy = cross.R[:p, :p], cross.R[:p, p]
    own = sp.csr_array(basis.R) if basis.is_sparse else basis.R
    # X = Q (R_columns) in the coordinates of the accumulated factor
    R_columns = np.ascontiguousarray(Rxx @ own)
    kept = kept_columns(R_columns)
    whole = len(kept) == p  # no column is a combination of others
    dropped = [] if whole else sorted(set(range(p)) - set(kept))
    Q: Matrix | None = None
    R_x = R_columns
    if not whole:
        Q, R_x = np.linalg.qr(R_columns[:, list(kept)])
    signs = np.where(R_x.diagonal() < 0.0, -1.0, 1.0)
    R_x = R_x * signs[:, None]
    v = Rxy if whole else Rxy + R_columns[:, dropped] @ basis.d[dropped]

    def chosen(columns: Matrix) -> Matrix:
        return columns if whole else columns[..., list(kept)]

    def along(columns: Matrix) -> Matrix:
        # Q'columns: Q is diag(signs) where R_columns is triangular as it is
        out: Matrix = signs * (columns if Q is None else Q.T @ columns).T
        return out.T

    in_Q = along(v)
    delta = _solved(R_x, in_Q)
    beta_ols = chosen(basis.d) + delta
    M = np.zeros((p + 1, len(kept) + 1))
    if Q is None:  # basis.R R_x^{-1}
        M[:p, :-1] = triangular_inverse(Rxx) * signs if p else 0.0
    else:
        R_inverse = triangular_inverse(R_x) if len(kept) else np.zeros((0, 0))
        M[:p, :-1] = chosen(basis.R) @ R_inverse
    M[:p, -1] = -(chosen(basis.R) @ delta)
    if not whole:
        M[:p, -1] += basis.R[:, dropped] @ basis.d[dropped]
    M[p, -1] = 1.0
    sparse = may_be_sparse and stays_sparse(cross.blocks, len(kept))
    turn = along(chosen(Rxx)) if sparse else None
    if not sparse and any(f.sparse is not None for f in cross.blocks.factors):
        require_room(cross.blocks.q, len(kept) + 1)

    def columns(f: FactorBlock) -> Array3 | SparseColumns:
        own = f.sparse
        if own is not None and turn is not None:
            last = sp.csr_array((own.entries @ M[:, -1])[:, None])
            entries = sp.hstack([own.entries[:, list(kept)], last], format="csr")
            return SparseColumns(sp.csr_array(entries), own.width, turn)
        return times_columns(f, M)

    fitted = R_columns @ basis.d + Rxy
    r_yy = float(cross.R[p, p])
    residual = np.zeros(0) if Q is None else v - Q @ (signs * in_Q)
    return Products(
        n=cross.n,
        log_weight_sum=cross.log_weight_sum,
        kept=kept,
        R_x=R_x,
        D=np.empty((p, 0)) if whole else _solved(R_x, along(R_columns[:, dropped])),
        beta_ols=beta_ols,
        yy=r_yy * r_yy + float(residual @ residual),
        y_length=float(np.sqrt(fitted @ fitted + r_yy * r_yy)),
        blocks=BlockSystem(
            factors=tuple(FactorBlock(f.label, f.ztz, columns(f)) for f in cross.blocks.factors),
            pairs=cross.blocks.pairs,
        ),
        layout=cross.layout,
        Rz=basis.Rz,
    )
