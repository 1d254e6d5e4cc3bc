"""The final, orthonormal form of the products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.dense import times
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.solve.products.accumulate import CrossProducts
from mixlm_sparse.solve.products.basis import RANK_RTOL, TermLayout, triangular_inverse


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
    def pwrss_floor(self) -> float:
        """The least pwrss that is more than the rounding of y leaves.

        Rounding can make a vanishing remainder negative.
        """
        rounding = (np.finfo(np.float64).eps * self.y_length) ** 2
        return float(max(rounding, np.finfo(np.float64).tiny))


def kept_columns(R: Matrix) -> tuple[int, ...]:
    """Return the columns of X that are not combinations of earlier ones, from its factor (p, p)."""
    p = R.shape[1]
    lengths = np.sqrt((R * R).sum(axis=0))
    if p == 0 or (np.abs(np.diag(R)) > RANK_RTOL * lengths).all():
        return tuple(range(p))
    Q = np.zeros((R.shape[0], 0))
    kept: list[int] = []
    for j in range(p):
        left = R[:, j] - Q @ (Q.T @ R[:, j])
        left -= Q @ (Q.T @ left)
        length = float(np.sqrt(left @ left))
        if length > RANK_RTOL * lengths[j]:
            Q = np.column_stack([Q, left / length])
            kept.append(j)
    return tuple(kept)


def orthonormal_products(cross: CrossProducts) -> Products:
    """Bring accumulated products to their final form; decides which columns of X are kept."""
    basis = cross.basis
    p = basis.R.shape[0]
    Rxx, Rxy = cross.R[:p, :p], cross.R[:p, p]
    R_columns = Rxx @ basis.R  # X = Q (R_columns) in the coordinates of the accumulated factor
    kept = kept_columns(R_columns)
    dropped = [j for j in range(p) if j not in kept]
    if dropped:
        Q, R_x = np.linalg.qr(R_columns[:, list(kept)])
    else:
        Q, R_x = np.eye(p), R_columns  # triangular as it is
    signs = np.where(np.diag(R_x) < 0.0, -1.0, 1.0)
    Q, R_x = Q * signs, R_x * signs[:, None]
    R_inverse = triangular_inverse(R_x) if len(kept) else np.zeros((0, 0))
    d_dropped = basis.d[dropped]
    v = Rxy + R_columns[:, dropped] @ d_dropped
    delta = R_inverse @ (Q.T @ v)
    beta_ols = basis.d[list(kept)] + delta
    residual = v - Q @ (Q.T @ v)
    M = np.zeros((p + 1, len(kept) + 1))
    M[:p, :-1] = basis.R[:, list(kept)] @ R_inverse
    M[:p, -1] = basis.R[:, dropped] @ d_dropped - basis.R[:, list(kept)] @ delta
    M[p, -1] = 1.0
    fitted = R_columns @ basis.d + Rxy
    r_yy = float(cross.R[p, p])
    return Products(
        n=cross.n,
        log_weight_sum=cross.log_weight_sum,
        kept=kept,
        R_x=R_x,
        D=R_inverse @ (Q.T @ R_columns[:, dropped]),
        beta_ols=beta_ols,
        yy=r_yy * r_yy + float(residual @ residual),
        y_length=float(np.sqrt(fitted @ fitted + r_yy * r_yy)),
        blocks=BlockSystem(
            factors=tuple(
                FactorBlock(f.label, f.ztz, times(f.ztx, M)) for f in cross.blocks.factors
            ),
            pairs=cross.blocks.pairs,
        ),
        layout=cross.layout,
        Rz=basis.Rz,
    )
