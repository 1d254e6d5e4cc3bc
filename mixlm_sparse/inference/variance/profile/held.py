"""The criterion with one parameter held at a value, as an unconstrained function of the rest.

A standard deviation or correlation is held in the factor itself.  With its effects ordered first,
the relative covariance of the term is P T T'P' and

    sd_i     = sigma |T[0, 0]|
    corr_ij  = T[1, 0] / |T[1]|         (effect j first, effect i second)

so that holding it removes one element of T (or leaves only the length of a row free) and every
value of the rest is a covariance matrix.  Engines take any square factor, so P needs no undoing.
A coefficient is held by taking its column out of X and b times it out of y, on the products: with
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
from mixlm_sparse.model.parameters import VarianceParameter
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


def _undefined(x: Vector) -> tuple[float, Vector]:
    return math.inf, np.full(x.size, np.nan)


def _off_saddle(phi: Vector, system: PenalizedSystem) -> Vector:
    """Return phi with vanishing diagonal elements moved away from zero."""
    out = phi.copy()
    near_zero = (system.lower == 0.0) & (np.abs(phi) < SADDLE)
    out[near_zero] = OFF_SADDLE
    return out


def _coefficients(blocks: list[Matrix], system: PenalizedSystem) -> Vector:
    working = solve_at(system.chart.merge(blocks), system)
    return user_beta(working.beta, system.products)


class HeldSigma:
    """sigma held; x is phi."""

    def __init__(self, system: PenalizedSystem, phi: Vector, *, reml: bool) -> None:
        self.system = system
        self._phi = phi
        self._reml = reml

    def start(self) -> Vector:
        return _off_saddle(self._phi, self.system)

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        lambdas = self.system.chart.merge(self.system.chart.factors(x))
        try:
            value, G, _ = joint_criterion(lambdas, math.log(c), self.system, reml=self._reml)
        except NotPositiveDefiniteError:
            return _undefined(x)
        if not math.isfinite(value):
            return _undefined(x)
        return value, self.system.chart.pull_back(x, self.system.chart.split(G))

    def state(self, c: float, x: Vector) -> State:
        return State(self.system.chart.factors(x), c)

    def beta(self, c: float, x: Vector) -> Vector:
        return _coefficients(self.system.chart.factors(x), self.system)


class HeldInFactor:
    """A standard deviation or correlation held in its term's factor.

    x holds phi of the other terms, then the free elements of the term's factor, then log sigma.
    Elements are counted in units in which they are of order one; lengths of the rows that make a
    correlation are logs, so that they cannot change sign.
    """

    def __init__(
        self,
        system: PenalizedSystem,
        phi: Vector,
        sigma: float,
        parameter: VarianceParameter,
        *,
        reml: bool,
    ) -> None:
        self.system = system
        self._phi = phi
        self._sigma = sigma
        self._reml = reml
        self._parameter = parameter
        term = parameter.term
        template = system.templates[term]
        k = template.k
        first = [parameter.column]
        if parameter.kind == "cor":
            first.append(parameter.row)
        self._order = np.array(first + [i for i in range(k) if i not in first])
        self._Rz = system.products.Rz[term]
        self._units = 1.0 / np.sqrt((self._Rz**2).sum(axis=0))[self._order]
        self._others = np.ones(phi.size, dtype=bool)
        self._others[system.chart.slices[term]] = False
        self._identity = template.closed_under == "one scale"
        rows, columns = np.tril_indices(k)
        if template.closed_under != "linear":
            rows = columns = np.arange(k)
        held = 1 if parameter.kind == "sd" else 2
        free = (rows > 0) | (columns > 0)
        if parameter.kind == "cor":
            free = rows >= held
        if self._identity:
            free = np.zeros(rows.size, dtype=bool)
        self._rows, self._columns = rows[free], columns[free]
        self._row_units = self._units[self._rows]

    def start(self) -> Vector:
        system, par = self.system, self._parameter
        phi = _off_saddle(self._phi, system)
        T = np.linalg.solve(self._Rz, system.chart.factors(phi)[par.term])[self._order]
        # rotate to lower triangular in the new order, with a positive diagonal
        L = np.asarray(np.linalg.qr(T.T, mode="r")).T if np.triu(T, 1).any() else T
        L = L * np.where(np.diag(L) < 0.0, -1.0, 1.0)
        parts = [phi[self._others]]
        if par.kind == "cor":
            lengths = np.sqrt((L[:2] ** 2).sum(axis=1))
            parts.append(np.log(lengths / self._units[:2]))
        parts.append(L[self._rows, self._columns] / self._row_units)
        parts.append(np.array([math.log(self._sigma)]))
        return np.concatenate(parts)

    def _split(self, x: Vector) -> tuple[Vector, Vector, Vector, float]:
        """Return phi of all terms (the held one's unset), log lengths, elements, log sigma."""
        phi = np.zeros(self._others.size)
        n_others = int(self._others.sum())
        phi[self._others] = x[:n_others]
        n_lengths = 2 if self._parameter.kind == "cor" else 0
        lengths = x[n_others : n_others + n_lengths]
        return phi, lengths, x[n_others + n_lengths : -1], float(x[-1])

    def _factor(self, c: float, lengths: Vector, elements: Vector, log_sigma: float) -> Matrix:
        """Return the relative factor (k, k) with rows in the new order."""
        k = self._order.size
        L = np.zeros((k, k))
        L[self._rows, self._columns] = elements * self._row_units
        if self._parameter.kind == "sd":
            if self._identity:
                return np.eye(k) * (c * math.exp(-log_sigma))
            L[0, 0] = c * math.exp(-log_sigma)
        else:
            a, s = np.exp(lengths) * self._units[:2]
            L[0, 0] = a
            L[1, 0] = s * c
            L[1, 1] = s * math.sqrt(max(1.0 - c * c, 0.0))
        return L

    def _blocks(self, c: float, x: Vector) -> tuple[list[Matrix], Matrix, Vector, float]:
        phi, lengths, elements, log_sigma = self._split(x)
        L = self._factor(c, lengths, elements, log_sigma)
        T = np.empty_like(L)
        T[self._order] = L
        blocks = self.system.chart.factors(phi)
        blocks[self._parameter.term] = self._Rz @ T
        return blocks, L, phi, log_sigma

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        system, par = self.system, self._parameter
        with np.errstate(over="ignore"):
            blocks, L, phi, log_sigma = self._blocks(c, x)
        try:
            value, merged, slope = joint_criterion(
                system.chart.merge(blocks), log_sigma, system, reml=self._reml
            )
        except (NotPositiveDefiniteError, OverflowError):
            return _undefined(x)
        if not math.isfinite(value):
            return _undefined(x)
        dL = (self._Rz.T @ system.chart.split(merged)[par.term])[self._order]
        parts = [system.chart.pull_back(phi, system.chart.split(merged))[self._others]]
        if par.kind == "cor":
            # lengths are logs: d/d log a = a d/da
            parts.append((dL[:2] * L[:2]).sum(axis=1))
        parts.append(dL[self._rows, self._columns] * self._row_units)
        if par.kind == "sd":
            held = np.trace(dL) if self._identity else dL[0, 0]
            slope -= float(held) * L[0, 0]
        parts.append(np.array([slope]))
        return value, np.concatenate(parts)

    def state(self, c: float, x: Vector) -> State:
        blocks, _, _, log_sigma = self._blocks(c, x)
        return State(blocks, math.exp(log_sigma))

    def beta(self, c: float, x: Vector) -> Vector:
        return _coefficients(self._blocks(c, x)[0], self.system)


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
        return _off_saddle(self._phi, self.system)

    def value_and_gradient(self, c: float, x: Vector) -> tuple[float, Vector]:
        reduced = self._reduced(c)
        try:
            lambdas = reduced.chart.merge(reduced.chart.factors(x))
            value, G = evaluate(lambdas, reduced, reml=False, gradient=True)
        except NotPositiveDefiniteError:
            return _undefined(x)
        if not math.isfinite(value):
            return _undefined(x)
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
        out[self._rest] = _coefficients(reduced.chart.factors(x), reduced)
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
