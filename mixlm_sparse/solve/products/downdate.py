"""Products of other rows from those at hand: what leaves is subtracted, what joins is added.

With E the rows [Q y_f] that leave and F those that join, both with independent residuals and in the
orthonormal columns of the products, the new rows have the Gram matrix

    [I  0 ]
    [0  yy] - E'E + F'F = R'R

and R turns the old columns into the new orthonormal ones.  Products by level lose and win what the
rows contributed; a level that loses all its rows stays, with blocks of zeros, which neither the
criterion nor the estimates notice.  Only rows that leave or join enter the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.solve.products.basis import triangular_inverse
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.products.meetings import Entries, pairs_of_entries

__all__ = ["Downdate", "Turn", "WorkingRows", "gram_of"]

# A pivot of the Gram matrix of the rest below this share of the old one has lost too many digits
# (or a coefficient its last row): the products are formed anew from the rows.
PIVOT_FLOOR = 1e-6


@dataclass(frozen=True, eq=False, slots=True)
class WorkingRows:
    """Rows with independent residuals of variance sigma^2, in the columns of products.

    Parameters
    ----------
    E : (m, p + 1) of [Q y_f].
    Z : per factor, z~ (m, K), by place where rows have several (see `Slots`).
    entries : per factor, the levels of the rows.
    """

    E: Matrix
    Z: tuple[Matrix, ...]
    entries: tuple[Entries, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Turn:
    """From the columns [Q y_f] of some rows to those of others.

    Parameters
    ----------
    R : (p + 1, p + 1) with R'R the Gram matrix of the other rows in these columns.
    matrix : (p + 1, p + 1); rows of the old columns times it are rows of the new ones.
    """

    R: Matrix
    matrix: Matrix

    @staticmethod
    def of(gram: Matrix, yy: float) -> Turn | None:
        """Return the turn to rows of a Gram matrix; None where too few digits are left.

        Parameters
        ----------
        yy : square of the last column before, on which the last pivot is measured.
        """
        p = len(gram) - 1
        scale = np.append(np.ones(p), max(yy, np.finfo(np.float64).tiny))
        try:
            R: Matrix = np.asarray(np.linalg.cholesky(gram).T, dtype=np.float64)
        except np.linalg.LinAlgError:
            return None
        if (np.diag(R) ** 2 < PIVOT_FLOOR * scale).any():
            return None
        inverse = triangular_inverse(R[:p, :p]) if p else np.zeros((0, 0))
        matrix = np.zeros((p + 1, p + 1))
        matrix[:p, :p] = inverse
        matrix[:p, p] = -inverse @ R[:p, p]
        matrix[p, p] = 1.0
        return Turn(R, matrix)

    def products(
        self, old: Products, *, n: int, log_weight_sum: float, blocks: BlockSystem
    ) -> Products:
        """Return the products of the other rows; `blocks` are in their columns."""
        p = old.p
        shift = -self.matrix[:p, p]
        if p:
            shift = scipy.linalg.solve_triangular(old.R_x, shift)
        return replace(
            old,
            n=n,
            log_weight_sum=log_weight_sum,
            R_x=self.R[:p, :p] @ old.R_x,
            beta_ols=old.beta_ols + shift,
            yy=float(self.R[p, p]) ** 2,
            blocks=blocks,
        )


def gram_of(old: Products, leaving: Matrix, joining: Matrix | None = None) -> Matrix:
    """Return the Gram matrix (p + 1, p + 1) of rows in the columns of the old ones.

    Parameters
    ----------
    leaving, joining : (m, p + 1) rows of [Q y_f].
    """
    S = np.eye(old.p + 1)
    S[-1, -1] = old.yy
    S -= leaving.T @ leaving
    return S if joining is None else S + joining.T @ joining


class Downdate:
    """Makes the products of other rows.

    Parameters
    ----------
    products : of the rows at hand; not changed.
    """

    def __init__(self, products: Products) -> None:
        self._products = products
        n_levels = [f.n_levels for f in products.blocks.factors]
        self._keys = {
            (g, h): pair.rows.astype(np.int64) * n_levels[h] + pair.cols
            for (g, h), pair in products.blocks.pairs.items()
        }

    def changed(
        self, leaving: WorkingRows, joining: WorkingRows | None = None, *, n: int,
        log_weight_sum: float,
    ) -> Products | None:
        """Return the products after rows have left and others have joined.

        Levels that meet in rows that join have met before.

        Returns
        -------
        The products of n rows; None where too few digits are left.
        """
        old = self._products
        joins = None if joining is None else joining.E
        turn = Turn.of(gram_of(old, leaving.E, joins), old.yy)
        if turn is None:
            return None
        factors = [(f.ztz.copy(), f.ztx.copy()) for f in old.blocks.factors]
        pairs = {key: pair.values.copy() for key, pair in old.blocks.pairs.items()}
        self._add(leaving, -1.0, factors, pairs)
        if joining is not None:
            self._add(joining, 1.0, factors, pairs)
        blocks = BlockSystem(
            tuple(
                FactorBlock(f.label, ztz, np.matmul(ztx, turn.matrix))
                for f, (ztz, ztx) in zip(old.blocks.factors, factors, strict=True)
            ),
            {
                key: PairBlock(pair.rows, pair.cols, pairs[key])
                for key, pair in old.blocks.pairs.items()
            },
        )
        return turn.products(old, n=n, log_weight_sum=log_weight_sum, blocks=blocks)

    def _add(
        self,
        rows: WorkingRows,
        sign: float,
        factors: list[tuple[Array3, Array3]],
        pairs: dict[tuple[int, int], Array3],
    ) -> None:
        """Add sign times the products of rows, in place."""
        columns = [own.columns(z) for own, z in zip(rows.entries, rows.Z, strict=True)]
        for own, z, (ztz, ztx) in zip(rows.entries, columns, factors, strict=True):
            signed = sign * z
            np.add.at(ztz, own.level, signed[:, :, None] * z[:, None, :])
            np.add.at(ztx, own.level, signed[:, :, None] * own.of_rows(rows.E)[:, None, :])
        for (g, h), values in pairs.items():
            first, second = rows.entries[g], rows.entries[h]
            left, right = sign * columns[g], columns[h]
            a: NDArray[np.integer] = first.level
            b: NDArray[np.integer] = second.level
            found = pairs_of_entries(first, None if g == h else second)
            if found is not None:
                i, j = found
                a, b, left, right = a[i], b[j], left[i], right[j]
            key = a.astype(np.int64) * self._products.blocks.factors[h].n_levels + b
            at = np.searchsorted(self._keys[g, h], key)
            np.add.at(values, at, left[:, :, None] * right[:, None, :])
