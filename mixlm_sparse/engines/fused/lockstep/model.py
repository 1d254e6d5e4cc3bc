"""Criterion and gradient of many responses, each at its own phi (see `engines.fused.descent`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.descent import EPS, ROUNDING, SATURATED, UNITS
from mixlm_sparse.engines.fused.found import Term
from mixlm_sparse.engines.fused.lockstep.arrays import (
    factor,
    lower_inverse,
    product,
    transposed,
)

Places = NDArray[np.int64]  # (s,) responses that are worked on, among all of the block


class Sums(Protocol):
    """The design and the products with a block of responses (see `levels` and `dense`)."""

    def take(self, at: Places) -> Sums:
        """Return the same with some of the responses."""
        ...

    def sweep(self, lambdas: list[Array3], S: Array3) -> tuple[Vector, Any]:
        """Subtract from S what the random effects take; return log|C| and what slopes need."""
        ...

    def slopes(self, lambdas: list[Array3], swept: Any, Omega: Array3) -> list[Array3]:
        """Return the derivatives by every Lambda, (K, K, r)."""
        ...


class Evaluation(NamedTuple):
    """The criterion of s responses.

    Parameters
    ----------
    value : (s,), inf where it is given up.
    slopes : by every Lambda, (K, K, s).
    pwrss, pivot : (s,); the least pivot, relative to [Q y_f]'W[Q y_f].
    factors : (P, P, s) what `FoundMany.factors` has.
    """

    value: Vector
    slopes: list[Array3]
    pwrss: Vector
    pivot: Vector
    factors: Array3


@dataclass(frozen=True, eq=False, slots=True)
class Law:
    """What responses share beside their products.

    Parameters
    ----------
    terms : the random terms.
    widths : per grouping factor, its K.
    nu : n or n - p; constant : what the criterion has beside log|C|, log|R_X|^2 and pwrss.
    least_pivot : pivots below this lose too many digits.
    """

    terms: Sequence[Term]
    widths: Sequence[int]
    nu: float
    constant: float
    least_pivot: float
    reml: bool


def factors_at(phi: Matrix, terms: Sequence[Term]) -> list[Array3]:
    """Return T (k, k, s) of every term at phi (m, s)."""
    out = []
    for term in terms:
        T = np.zeros((*term.position.shape, phi.shape[1]))
        for (a, b), number in np.ndenumerate(term.position):
            if number >= 0:
                T[a, b] = phi[number]
        out.append(T)
    return out


class Model:
    """A block of r responses in search, and where each of them is.

    Attributes
    ----------
    values : (r,) evaluations.
    given_up : (r,) searches that are left to the engines.
    pwrss, pivot, factors : of the last evaluation of each.
    turns : per term, (k, k, r) rotations of its working columns, where any was turned.
    turned : (r,) whose columns are.
    """

    def __init__(self, law: Law, sums: Sums, yy: Vector, floor: Vector, p: int) -> None:
        r = yy.size
        self.law, self._sums, self._yy, self._floor, self.p = law, sums, yy, floor, p
        self.m = 1 + max(int(term.position.max()) for term in law.terms)
        self.values = np.zeros(r, dtype=np.int64)
        self.given_up = np.zeros(r, dtype=bool)
        self.turned = np.zeros(r, dtype=bool)
        self.turns: list[Array3] = []
        self.pwrss, self.pivot = np.full(r, np.nan), np.ones(r)
        self.factors = np.zeros((p + 1, p + 1, r))
        self._taken: tuple[Places, Sums, Vector, Vector] | None = None
        self._places = [np.nonzero(term.position >= 0) for term in law.terms]
        self._numbers = [
            term.position[place] for term, place in zip(law.terms, self._places, strict=True)
        ]

    # -- factors ------------------------------------------------------------------------------

    def factors_of(self, phi: Matrix) -> list[Array3]:
        """Return T (k, k, s) of every term at phi (m, s)."""
        return factors_at(phi, self.law.terms)

    def turned_factors(self, phi: Matrix, at: Places) -> list[Array3]:
        """Return T in the working columns as they were before they were turned."""
        out = self.factors_of(phi)
        if self.turned[at].any():
            out = [product(Q[..., at], T) for Q, T in zip(self.turns, out, strict=True)]
        return out

    def merged(self, factors: Sequence[Array3]) -> list[Array3]:
        """Return every Lambda (K, K, s) of the factors of the terms."""
        if len(factors) == len(self.law.widths):
            return [T for _, T in sorted(
                zip([term.factor for term in self.law.terms], factors, strict=True),
                key=lambda one: one[0],
            )]  # fmt: skip
        out = [np.zeros((K, K, factors[0].shape[2])) for K in self.law.widths]
        for term, T in zip(self.law.terms, factors, strict=True):
            own = slice(term.column, term.column + T.shape[0])
            out[term.factor][own, own] = T
        return out

    def split(self, merged: Sequence[Array3]) -> list[Array3]:
        """Return the parts (k, k, s) of every term of (K, K, s) matrices."""
        out = []
        for term in self.law.terms:
            own = slice(term.column, term.column + term.position.shape[0])
            out.append(merged[term.factor][own, own])
        return out

    def pull_back(self, slopes: Sequence[Array3]) -> Matrix:
        """Return the derivatives by phi (m, s) from those by every T (k, k, s)."""
        out = np.zeros((self.m, slopes[0].shape[2]))
        for g, place, numbers in zip(slopes, self._places, self._numbers, strict=True):
            own = g[place]
            for i, number in enumerate(numbers.tolist()):
                out[number] += own[i]
        return out

    # -- the function -------------------------------------------------------------------------

    def value_at(self, phi: Matrix, at: Places) -> tuple[Vector, Matrix]:
        """Return criterion (s,) and gradient (m, s) of responses at phi (m, s)."""
        found = self.evaluate(self.merged(self.turned_factors(phi, at)), at)
        far = (np.abs(phi) > SATURATED).any(axis=0)
        self.given_up[at] |= far | ~np.isfinite(found.value)
        self.pwrss[at], self.pivot[at] = found.pwrss, found.pivot
        self.factors[..., at] = found.factors
        G = self.split(found.slopes)
        if self.turned[at].any():
            G = [product(transposed(Q[..., at]), g) for Q, g in zip(self.turns, G, strict=True)]
        return np.where(far, np.inf, found.value), self.pull_back(G)

    def noise(self, value: Vector, at: Places) -> Vector:
        """Return how uncertain the criteria (s,) are that were evaluated last."""
        squares = UNITS * EPS * self.law.nu / self.pivot[at]
        return np.maximum(ROUNDING * np.abs(value), squares)

    def evaluate(self, lambdas: list[Array3], at: Places) -> Evaluation:
        """Return the criterion at any factors Lambda (K, K, s); the evaluations are counted."""
        self.values[at] += 1
        if at.size == 1:  # sums over one column would be taken in another order
            found = self._evaluate([np.repeat(lam, 2, axis=2) for lam in lambdas], at.repeat(2))
            return Evaluation(
                found.value[:1], [G[..., :1] for G in found.slopes], found.pwrss[:1],
                found.pivot[:1], found.factors[..., :1],
            )  # fmt: skip
        return self._evaluate(lambdas, at)

    def _evaluate(self, lambdas: list[Array3], at: Places) -> Evaluation:
        p, s, law = self.p, at.size, self.law
        sums, yy, floor = self._products(at)
        S = np.zeros((p + 1, p + 1, s))
        for c in range(p):
            S[c, c] = 1.0
        S[p, p] = yy
        log_det, swept = sums.sweep(lambdas, S)
        L = factor(S, p)
        pivots = [L[c, c] for c in range(p)]
        ldRX2 = np.zeros(s)
        least = np.ones(s)
        for pivot in pivots:
            ldRX2 += 2.0 * np.log(pivot)
            least = np.minimum(least, pivot * pivot)
        pwrss = np.where(L[p, p] > floor, L[p, p], floor)
        least = np.minimum(least, pwrss / yy)
        value = log_det + law.nu * (1.0 + np.log(2.0 * np.pi * pwrss / law.nu)) + law.constant
        if law.reml:
            value = value + ldRX2
        good = np.isfinite(value) & np.isfinite(ldRX2) & (least >= law.least_pivot)
        half = lower_inverse(L[:p, :p])
        contrast = np.ones((p + 1, 1, s))
        if p:
            contrast[:p] = -product(transposed(half), L[p, :p, None])
        Omega = (law.nu / pwrss) * product(contrast, transposed(contrast))
        if law.reml and p:
            Omega[:p, :p] += product(transposed(half), half)
        L[p, p] = S[p, p]
        return Evaluation(
            np.where(good, value, np.inf), sums.slopes(lambdas, swept, Omega), pwrss, least, L
        )

    def _products(self, at: Places) -> tuple[Sums, Vector, Vector]:
        """Return the products of some responses; they are kept for the next step."""
        if self._taken is None or not np.array_equal(self._taken[0], at):
            if at.size == self._yy.size and np.array_equal(at, np.arange(at.size)):
                self._taken = at, self._sums, self._yy, self._floor
            else:
                self._taken = at, self._sums.take(at), self._yy[at], self._floor[at]
        return self._taken[1:]
