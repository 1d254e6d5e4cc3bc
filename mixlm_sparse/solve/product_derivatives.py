"""Derivatives of M = [X y]'V^{-1}[X y] by the working parameters phi, exactly.

They are wanted in the working columns [X y] G,

    G = [ R_X^{-1}  -beta ]
        [    0        1   ]

in which M itself is the identity, with pwrss as its last entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.dense import product, times
from mixlm_sparse.engines.fused.bordered import Bordered, BorderedFixed
from mixlm_sparse.solve.pls import WorkingSolution, residual_products, solve_at, solve_bordered
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = [
    "BorderedDerivatives", "ProductDerivatives", "product_derivatives", "solution_columns",
]  # fmt: skip

# From this share of the columns on, forms along rows are taken from all products at once.
FEW_ROWS = 0.25


@dataclass(eq=False)
class ProductDerivatives:
    """The derivatives at a solution.

    Parameters
    ----------
    solution : the solution at phi.
    products : (m, p + 1, p + 1), G'(dM / dphi)G.
    pwrss : (m,) derivative of the penalized residual sum of squares.
    """

    solution: WorkingSolution
    products: Array3
    pwrss: Vector

    def along(self, Z: Matrix) -> Matrix:
        """Return z G'(dM / dphi)G z' (m, r) for the rows z of Z (r, p)."""
        r, p = Z.shape
        forms = [((Z @ M[:p, :p]) * Z).sum(axis=1) for M in self.products]
        return np.array(forms).reshape(len(self.products), r)  # either may be none


class BorderedDerivatives(ProductDerivatives):
    """The same of many levels beside many sparse columns, none of which is filled in.

    All products take p^3 operations a parameter, and are formed if they are asked for; forms along
    few rows take what the entries take.
    """

    def __init__(
        self, phi: Vector, system: PenalizedSystem, solution: WorkingSolution, at: Bordered
    ) -> None:
        self.solution = solution
        self._at, self._phi, self._system = at, phi, system
        self._found: Array3 | None = None
        last = np.append(-solution.beta, 1.0)[:, None]
        self.pwrss = self._forms(last)[:, 0]

    @property
    def products(self) -> Array3:  # type: ignore[override]
        """(m, p + 1, p + 1), G'(dM / dphi)G."""
        if self._found is None:
            G = self._raw(solution_columns(self.solution))
            p1 = G.shape[0]
            out = np.zeros((self._phi.size, p1, p1))
            for part, slopes, place in self._parts():
                M = self._fused.slope(self._at, self.solution.lambdas, *place)
                turned = product(np.ascontiguousarray(G.T), product(M, G))
                out[part] += slopes[:, None, None] * turned
            self._found = out
        return self._found

    def along(self, Z: Matrix) -> Matrix:
        """Return z G'(dM / dphi)G z' (m, r) for the rows z of Z (r, p)."""
        r, p = Z.shape
        if self._found is not None or r > FEW_ROWS * p:
            return super().along(Z)
        columns = np.zeros((p + 1, r))
        columns[:p] = scipy.linalg.solve_triangular(self.solution.R_X, Z.T)
        return self._forms(columns)

    def _forms(self, columns: Matrix) -> Matrix:
        """Return c'(dM / dphi)c (m, r) for working columns c of (p + 1, r)."""
        raw = self._raw(columns)
        out = np.zeros((self._phi.size, raw.shape[1]))
        seen = self._fused.seen(self._at, self.solution.lambdas, raw)
        for part, slopes, (g, a, b) in self._parts():
            R, U = seen[g]
            out[part] -= slopes[:, None] * 2.0 * (R[:, a] * U[:, b]).sum(axis=0)
        return out

    @property
    def _fused(self) -> BorderedFixed:
        fused = self._system.fused
        assert isinstance(fused, BorderedFixed)
        return fused

    def _raw(self, columns: Matrix) -> Matrix:
        """Return working columns (p + 1, r) as combinations of the columns as they are."""
        out = columns.copy()
        out[:-1] = scipy.linalg.solve_triangular(self._fused.turn, out[:-1])
        return out

    def _parts(self) -> Iterator[tuple[slice, Vector, tuple[int, int, int]]]:
        """Yield, per entry of a Lambda, parameters, their slopes there, factor, row and column."""
        chart = self._system.chart
        for t, (part, place) in enumerate(zip(chart.slices, chart.layout, strict=True)):
            slopes = chart.factor_slopes(t, self._phi)
            for a, b in np.argwhere(slopes.any(axis=0)).tolist():
                yield part, slopes[:, a, b], (place.factor, place.first + a, place.first + b)


def solution_columns(solution: WorkingSolution) -> Matrix:
    """Return G (p + 1, p + 1)."""
    p = solution.beta.size
    G = np.zeros((p + 1, p + 1))
    if p:
        G[:p, :p] = scipy.linalg.solve_triangular(solution.R_X, np.eye(p))
    G[:, p] = np.append(-solution.beta, 1.0)
    return G


def product_derivatives(phi: Vector, system: PenalizedSystem) -> ProductDerivatives:
    """Differentiate [X y]'V^{-1}[X y] by phi, exactly.

    With R = Z'V^{-1}[X y] and U = Lambda'R, of which both are at hand,
    dM / dT[a, b] = -sum_j (R_j[a]' U_j[b] + U_j[b]' R_j[a]) over the levels j of the term.  G is
    taken to R and U: of fixed effects between groups, beside large random effects, M and dM keep
    few digits where G'MG keeps all.
    """
    chart = system.chart
    bordered = solve_bordered(chart.lambdas(phi), system)
    if bordered is not None:
        return BorderedDerivatives(phi, system, *bordered)
    with system.lock:
        solution = solve_at(chart.lambdas(phi), system)
        residuals = residual_products(solution, system)
    p, G = system.p, solution_columns(solution)
    out = np.zeros((phi.size, p + 1, p + 1))
    for t, (part, place) in enumerate(zip(chart.slices, chart.layout, strict=True)):
        R = times(residuals[place.factor][:, place.columns], G)
        U = times(solution.U[place.factor][:, place.columns], G)
        slopes = chart.factor_slopes(t, phi)
        for a, b in np.argwhere(slopes.any(axis=0)).tolist():
            half = R[:, a].T @ U[:, b]
            out[part] -= slopes[:, a, b, None, None] * (half + half.T)
    return ProductDerivatives(solution, out, out[:, p, p].copy())
