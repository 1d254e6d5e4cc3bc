"""The criterion with one parameter held at a value, as an unconstrained function of the rest.

Standard deviations and correlations are held in the factor of their term (see `held_factor`).  A
coefficient is held by taking its column out of X and b times it out of y, on the products: with
Q orthonormal and the column's own direction last in Q, y - b x has the residual y_f + delta q, and
nothing of length n is touched.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.solve.criterion import evaluate, joint_criterion
from mixlm_sparse.solve.pls import solve_at, user_beta
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.system import PenalizedSystem

if TYPE_CHECKING:
    from mixlm_sparse.design.build import ModelMatrices

# Columns of a factor below this are started here instead: a zero column is a saddle.
SADDLE = 1e-3
OFF_SADDLE = 0.05


class State:
    """A point of the model: working factors per term and sigma."""

    __slots__ = ("blocks", "sigma")

    def __init__(self, blocks: list[Matrix], sigma: float) -> None:
        self.blocks = blocks
        self.sigma = sigma


class Held(Protocol):
    """One parameter held; what is free is x (d,)."""

    system: PenalizedSystem

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        ...

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        ...

    def state(self, c: float, x: Vector) -> State:
        """Return the factors and sigma at this point."""
        ...

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        ...


def undefined(x: Vector) -> tuple[float, Vector]:
    """Return value and gradient where the criterion is not defined."""
    return math.inf, np.full(x.size, np.nan)


def off_saddle(phi: Vector, system: PenalizedSystem) -> Vector:
    """Return phi with vanishing diagonal elements moved away from zero."""
    out = phi.copy()
    near_zero = (system.lower == 0.0) & (np.abs(phi) < SADDLE)
    out[near_zero] = OFF_SADDLE
    return out


def coefficients(blocks: list[Matrix], system: PenalizedSystem) -> Vector:
    """Return the coefficients (p,) at working factors per term."""
    working = solve_at(system.chart.merge(blocks), system)
    return user_beta(working.beta, system.products)


class HeldSigma:
    """sigma held; x is phi."""

    def __init__(self, system: PenalizedSystem, phi: Vector, *, reml: bool) -> None:
        self.system = system
        self._phi = phi
        self._reml = reml

    def start(self) -> Vector:
        return off_saddle(self._phi, self.system)

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        lambdas = self.system.chart.merge(self.system.chart.factors(x))
        try:
            value, G, _ = joint_criterion(lambdas, math.log(c), self.system, reml=self._reml)
        except NotPositiveDefiniteError:
            return undefined(x)
        if not math.isfinite(value):
            return undefined(x)
        return value, self.system.chart.pull_back(x, self.system.chart.split(G))

    def state(self, c: float, x: Vector) -> State:
        return State(self.system.chart.factors(x), c)

    def beta(self, c: float, x: Vector) -> Vector:
        return coefficients(self.system.chart.factors(x), self.system)


class HeldCoefficient:
    """A coefficient held; x is phi, sigma and the other coefficients are profiled out.  ML."""

    def __init__(self, system: PenalizedSystem, phi: Vector, column: int) -> None:
        self.system = system
        self._phi = phi
        self._column = column
        products = system.products
        p = products.p
        self._rest = [j for j in range(p) if j != column]
        # X with the column last: its own direction q is the last column of Q turned
        turn, R = np.linalg.qr(products.R_x[:, [*self._rest, column]])
        signs = np.where(np.diag(R) < 0.0, -1.0, 1.0)
        self._turn, self._R = turn * signs, R * signs[:, None]
        self._turned = [
            np.concatenate([np.matmul(f.ztx[:, :, :-1], self._turn), f.ztx[:, :, -1:]], axis=2)
            for f in products.blocks.factors
        ]
        self._at: tuple[float, PenalizedSystem] | None = None

    def _reduced(self, b: float) -> PenalizedSystem:
        """Return the system without the column, for the response y - b x."""
        if self._at is not None and self._at[0] == b:
            return self._at[1]
        system, products = self.system, self.system.products
        delta = self._R[-1, -1] * (products.beta_ols[self._column] - b)
        blocks = []
        for f, turned in zip(products.blocks.factors, self._turned, strict=True):
            ztx = np.delete(turned, -2, axis=2)
            ztx[:, :, -1] += delta * turned[:, :, -2]
            blocks.append(FactorBlock(f.label, f.ztz, ztx))
        reduced: Products = replace(
            products,
            kept=tuple(products.kept[j] for j in self._rest),
            R_x=self._R[:-1, :-1],
            beta_ols=self._beta_ols(b),
            yy=products.yy + delta * delta,
            blocks=BlockSystem(tuple(blocks), products.blocks.pairs),
        )
        offset = _HeldOffset(system.matrices, products.kept[self._column], b)
        matrices = replace(system.matrices, offset=cast("Vector", offset))
        found = system.with_products(reduced, matrices)
        self._at = b, found
        return found

    def _beta_ols(self, b: float) -> Vector:
        """Return the least-squares coefficients of the other columns for y - b x."""
        products = self.system.products
        if not self._rest:
            return np.empty(0)
        shift = products.beta_ols[self._column] - b
        # X_rest beta + x beta_j - b x: the part of shift * x in the span of the rest
        part = np.linalg.solve(self._R[:-1, :-1], self._R[:-1, -1] * shift)
        out: Vector = products.beta_ols[self._rest] + part
        return out

    def start(self) -> Vector:
        return off_saddle(self._phi, self.system)

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        reduced = self._reduced(c)
        try:
            lambdas = reduced.chart.merge(reduced.chart.factors(x))
            value, G = evaluate(lambdas, reduced, reml=False, gradient=True)
        except NotPositiveDefiniteError:
            return undefined(x)
        if not math.isfinite(value):
            return undefined(x)
        return value, reduced.chart.pull_back(x, reduced.chart.split(G))

    def state(self, c: float, x: Vector) -> State:
        reduced = self._reduced(c)
        blocks = reduced.chart.factors(x)
        pwrss = solve_at(reduced.chart.merge(blocks), reduced).pwrss
        return State(blocks, math.sqrt(pwrss / reduced.n))

    def beta(self, c: float, x: Vector) -> Vector:
        reduced = self._reduced(c)
        out = np.empty(self.system.p)
        out[self._column] = c
        out[self._rest] = coefficients(reduced.chart.factors(x), reduced)
        return out


class _HeldOffset:
    """The offset b x (+ the model's own), evaluated only for the rows that are asked for.

    Rows are read again only where products have lost their digits, so nothing of length n is kept.
    """

    def __init__(self, matrices: ModelMatrices, column: int, b: float) -> None:
        self._matrices = matrices
        self._column = column
        self._b = b

    def __getitem__(self, rows: slice) -> Vector:
        out: Vector = self._b * self._matrices.fixed.block(rows)[:, self._column]
        own = self._matrices.offset
        return out if own is None else out + own[rows]
