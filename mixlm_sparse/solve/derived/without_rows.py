"""The theta-free products of a model without some of its rows, by subtraction.

With E the rows [Q y_f] that leave, in the orthonormal working basis, the rest has the Gram matrix

    [I  0 ]
    [0  yy] - E'WE = R'R

and R turns the old working columns into the new orthonormal ones.  Products by level lose what the
rows contributed to them; a level that loses all its rows stays, with blocks of zeros, which neither
the criterion nor the estimates notice.  Only the rows that leave enter the arithmetic.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import scipy.linalg

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.design.columns import ArrayColumns, ColumnSource
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.solve.products.basis import triangular_inverse
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.rows import Without
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

# A pivot of the Gram matrix of the rest below this share of the old one has lost too many digits
# (or a coefficient its last row): the products are formed anew from the rows.
PIVOT_FLOOR = 1e-6


class Deletion:
    """Makes systems without some rows of one system.

    Parameters
    ----------
    system : the system of all rows; not changed.
    """

    def __init__(self, system: PenalizedSystem) -> None:
        self._system = system
        products = system.products
        n_levels = [f.n_levels for f in products.blocks.factors]
        self._keys = {
            (g, h): pair.rows.astype(np.int64) * n_levels[h] + pair.cols
            for (g, h), pair in products.blocks.pairs.items()
        }

    @cached_property
    def _working_rows(self) -> tuple[Matrix, list[Matrix]]:
        """[Q y_f] (n, p + 1) and z~ per factor (n, K) of all rows."""
        products = self._system.products
        E = np.empty((products.n, products.p + 1))
        Z = [np.empty((products.n, f.width)) for f in products.blocks.factors]
        R_inverse = triangular_inverse(products.R_x) if products.p else np.zeros((0, 0))
        Rz_inverse = [triangular_inverse(Rz) for Rz in products.Rz]
        for rows in self._system.rows():
            E[rows.slice, :-1] = rows.X @ R_inverse
            E[rows.slice, -1] = rows.target - rows.X @ products.beta_ols
            for t, (place, inverse) in enumerate(zip(products.layout, Rz_inverse, strict=True)):
                Z[place.factor][rows.slice, place.columns] = rows.z(t) @ inverse
        return E, Z

    def without(self, rows: np.ndarray) -> PenalizedSystem:
        """Return the system without the given rows (positions among the rows used, ascending)."""
        system = self._system
        matrices, old = system.matrices, system.products
        if system.whitened is not None:  # rows are whitened anew for every rho
            return penalized_system(_rest(matrices, rows), self._engine_name)
        rest = Without(system.row_source, rows)
        E_all, Z_all = self._working_rows
        E = E_all[rows]
        R = self._remaining_factor(E, rows)
        if R is None or system.several_levels:
            estimation = getattr(system.engine, "estimation", None)
            return penalized_system(
                matrices, self._engine_name, source=rest, estimation=estimation
            )
        p = old.p
        R_inverse = triangular_inverse(R[:p, :p]) if p else np.zeros((0, 0))
        turn = np.zeros((p + 1, p + 1))
        turn[:p, :p] = R_inverse
        turn[:p, p] = -R_inverse @ R[:p, p]
        turn[p, p] = 1.0
        blocks = self._remaining_blocks(E, [z[rows] for z in Z_all], rows, turn)
        shift = R_inverse @ R[:p, p]
        if p:
            shift = scipy.linalg.solve_triangular(old.R_x, shift)
        products: Products = replace(
            old,
            n=old.n - rows.size,
            log_weight_sum=old.log_weight_sum + matrices.residual.log_det(rows),
            R_x=R[:p, :p] @ old.R_x,
            beta_ols=old.beta_ols + shift,
            yy=float(R[p, p]) ** 2,
            blocks=blocks,
        )
        return replace(
            system,
            products=products,
            engine=system.engine.reload(products.blocks),
            cross=None,
            source=rest,
        )

    def _remaining_factor(self, E: Matrix, rows: np.ndarray) -> Matrix | None:
        """Return R (p + 1, p + 1) of the rest, or None where too few digits are left."""
        old = self._system.products
        S = np.eye(old.p + 1)
        S[-1, -1] = old.yy
        S -= E.T @ self._system.matrices.residual.weigh(E, rows)
        scale = np.append(np.ones(old.p), max(old.yy, np.finfo(np.float64).tiny))
        try:
            R: Matrix = np.asarray(np.linalg.cholesky(S).T, dtype=np.float64)
        except np.linalg.LinAlgError:
            return None
        return None if (np.diag(R) ** 2 < PIVOT_FLOOR * scale).any() else R

    def _remaining_blocks(
        self, E: Matrix, Z: list[Matrix], rows: np.ndarray, turn: Matrix
    ) -> BlockSystem:
        """Return the products by level less those of the rows, in the new columns of X."""
        matrices, old = self._system.matrices, self._system.products.blocks
        WZ = [matrices.residual.weigh(z, rows) for z in Z]
        codes = [factor.codes[rows] for factor in matrices.factors]
        factors = []
        for f, z, wz, code in zip(old.factors, Z, WZ, codes, strict=True):
            ztz, ztx = f.ztz.copy(), f.ztx.copy()
            np.subtract.at(ztz, code, z[:, :, None] * wz[:, None, :])
            np.subtract.at(ztx, code, wz[:, :, None] * E[:, None, :])
            factors.append(FactorBlock(f.label, ztz, np.matmul(ztx, turn)))
        pairs = {}
        for (g, h), pair in old.pairs.items():
            key = codes[g].astype(np.int64) * old.factors[h].n_levels + codes[h]
            values = pair.values.copy()
            at = np.searchsorted(self._keys[g, h], key)
            np.subtract.at(values, at, WZ[g][:, :, None] * Z[h][:, None, :])
            pairs[g, h] = PairBlock(pair.rows, pair.cols, values)
        return BlockSystem(tuple(factors), pairs)

    @property
    def _engine_name(self) -> str:
        name = self._system.engine.name
        return name if name in ("cholmod", "krylov") else "auto"


def _rest(matrices: ModelMatrices, rows: np.ndarray) -> ModelMatrices:
    """Return the design without the given rows; levels and visits keep their places."""
    kept = np.setdiff1d(np.arange(matrices.nobs), rows)
    everything = slice(0, matrices.nobs)

    def columns(source: ColumnSource) -> ArrayColumns:
        return ArrayColumns(source.names, source.block(everything)[kept])

    return replace(
        matrices,
        y=matrices.y[kept],
        fixed=columns(matrices.fixed),
        factors=tuple(factor.take(kept) for factor in matrices.factors),
        terms=tuple(replace(term, columns=columns(term.columns)) for term in matrices.terms),
        weights=None if matrices.weights is None else matrices.weights[kept],
        offset=None if matrices.offset is None else matrices.offset[kept],
        nobs=int(kept.size),
        rows=kept if matrices.rows is None else matrices.rows[kept],
        law=None if matrices.law is None else matrices.law.take(kept),
    )
