"""The system of a model without some of its rows, by subtraction from its products.

With independent residuals the products of the rows that leave are subtracted (see
`products.downdate`).  With a residual structure there are two answers: for parameters that are
estimated again the rows leave before they are whitened, and nothing of the design is formed anew;
for parameters as they are the products of the groups that lose rows are subtracted, and those of
what is left of these groups added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.design.columns import ColumnSource
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.solve.products.basis import response_less, triangular_inverse
from mixlm_sparse.solve.products.downdate import Downdate, WorkingRows
from mixlm_sparse.solve.products.meetings import entries_of
from mixlm_sparse.solve.rows import Without, read_rows
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system, require_few_parameters
from mixlm_sparse.solve.whitened.without_rows import kept_products, rest_of_frame

Rows = NDArray[np.integer[Any]]


class Deletion:
    """Makes systems without some rows of one system.

    Parameters
    ----------
    system : the system of all rows; not changed.
    """

    def __init__(self, system: PenalizedSystem) -> None:
        self._system = system
        self._downdate = Downdate(system.products)

    def without(self, rows: Rows) -> PenalizedSystem:
        """Return the system without the given rows (positions among the rows used, ascending)."""
        if self._system.whitened is not None:
            return self._structured(rows)
        return self._independent(rows)

    def with_rho_kept(self, rows: Rows) -> PenalizedSystem:
        """Return the system without the given rows, at the residual parameters of the system.

        With a residual structure it is that of whitened rows, and knows no other parameters.
        """
        system = self._system
        if system.whitened is None:
            return self._independent(rows)
        products = kept_products(system.whitened, self._downdate, rows)
        if products is None:
            return self._structured(rows)
        return PenalizedSystem(
            replace(system.matrices, law=None, weights=None), products, system.templates,
            system.engine.reload(products.blocks), system.may_fuse,
            source=_Whitened(self, rows, products.n), may_compile=system.may_compile,
        )  # fmt: skip

    def _independent(self, rows: Rows) -> PenalizedSystem:
        system = self._system
        old, residual = system.products, system.matrices.residual
        rest = Without(system.row_source, rows)
        E, Z = self._working_rows
        levels = [factor.row_levels for factor in system.matrices.factors]
        leaving = WorkingRows(
            residual.whiten(E[rows], rows),
            tuple(residual.whiten(z[rows], rows) for z in Z),
            tuple(entries_of(own[rows]) for own in levels),
        )
        products = self._downdate.changed(
            leaving, n=old.n - rows.size,
            log_weight_sum=old.log_weight_sum + residual.log_det(rows),
        )  # fmt: skip
        if products is None:
            return penalized_system(
                system.matrices, self._engine_name, source=rest,
                estimation=getattr(system.engine, "estimation", None),
            )  # fmt: skip
        return replace(
            system,
            products=products,
            engine=system.engine.reload(products.blocks),
            cross=None,
            source=rest,
        )

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
            E[rows.slice, -1] = response_less(rows.target, rows.X, products.beta_ols)
            for t, (place, inverse) in enumerate(zip(products.layout, Rz_inverse, strict=True)):
                Z[place.factor][rows.slice, place.columns] = rows.z(t) @ inverse
        return E, Z

    def _structured(self, rows: Rows) -> PenalizedSystem:
        """Return the system of the rest, whitened at the rho at hand and ready for others."""
        system = self._system
        whitened = system.whitened
        assert whitened is not None
        kept = np.delete(np.arange(system.n), rows)
        law = whitened.law.take(kept)
        matrices = _rest(system.matrices, kept, law)
        frame = rest_of_frame(whitened.frame, rows, kept, law)
        if frame is None:
            return penalized_system(matrices, self._engine_name)
        require_few_parameters(kept.size, system.p, system.n_theta, law.n_rho)
        rest = frame.at(whitened.rho, centered=whitened.whitening.centered)
        return PenalizedSystem(
            matrices, rest.products, system.templates, system.engine.reload(rest.products.blocks),
            system.may_fuse, whitened=rest, may_compile=system.may_compile,
        )  # fmt: skip

    @property
    def _engine_name(self) -> str:
        name = self._system.engine.name
        return name if name in ("cholmod", "krylov") else "auto"


@dataclass(frozen=True, eq=False, slots=True)
class _Whitened:
    """The whitened rows that are left, made when they are asked for."""

    deletion: Deletion
    rows: Rows
    n: int

    def blocks(self, *arguments: Any, **options: Any) -> Any:
        """Yield the rows in order (see `RowSource`)."""
        return self.deletion.without(self.rows).white_source.blocks(*arguments, **options)


@dataclass(frozen=True, eq=False, slots=True)
class _KeptRows:
    """Some rows of a source of columns, read when they are asked for."""

    source: ColumnSource
    rows: Rows

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    def block(self, rows: slice) -> Matrix:
        """Return the rows asked for, (m, k)."""
        return read_rows(self.source, self.rows[rows])


def _rest(matrices: ModelMatrices, kept: Rows, law: ResidualLaw) -> ModelMatrices:
    """Return the design of the rows that are kept; levels and visits keep their places."""
    return replace(
        matrices,
        y=matrices.y[kept],
        fixed=_KeptRows(matrices.fixed, kept),
        factors=tuple(factor.take(kept) for factor in matrices.factors),
        terms=tuple(
            replace(term, columns=_KeptRows(term.columns, kept)) for term in matrices.terms
        ),
        weights=None if matrices.weights is None else matrices.weights[kept],
        offset=None if matrices.offset is None else matrices.offset[kept],
        nobs=int(kept.size),
        rows=kept.astype(np.int32) if matrices.rows is None else matrices.rows[kept],
        law=law,
    )
