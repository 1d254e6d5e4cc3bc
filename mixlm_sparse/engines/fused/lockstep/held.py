"""Criteria of one response, each with sigma or a coefficient held at a value of its own.

With L = [R_X 0; r' .] the factor of S = [Q y]'V^{-1}[Q y] (see `model`) and a coefficient c'beta
held at t, the least-squares coefficients move along V_beta c, V_beta = (R_X'R_X)^{-1}:

    beta = beta^ - V_beta c (c'beta^ - t) / c'V_beta c
    pwrss = pwrss^ + (c'beta^ - t)^2 / c'V_beta c

which is the least squares of y - b x on the other columns, whatever the column of X is.  With sigma
held the criterion is that of `solve.criterion`,

    log|C| [+ log|R_X|^2 for REML] + nu log(2 pi sigma^2) + pwrss / sigma^2,

else sigma^2 = pwrss / nu.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.lockstep.arrays import (
    along,
    factor,
    lower_inverse,
    product,
    transposed,
)
from mixlm_sparse.engines.fused.lockstep.model import Law, Model, Sums

__all__ = ["HeldCriteria", "HeldValues", "Holding"]

Flags = NDArray[np.bool_]


class Holding(NamedTuple):
    """What is held in each of s criteria.

    Parameters
    ----------
    sigma : (s,) whether sigma is, or is searched for beside what is held; else it is profiled out.
    log_sigma : (s,), of no meaning where it is profiled out.
    contrast, target : (p, s) c and (s,) t of the working columns; c is zero where no coefficient is
        held.
    """

    sigma: Flags
    log_sigma: Vector
    contrast: Matrix
    target: Vector

    def take(self, at: NDArray[np.intp]) -> Holding:
        """Return what is held in some of the criteria."""
        return Holding(
            self.sigma[at], self.log_sigma[at], self.contrast[:, at], self.target[at]
        )


class HeldValues(NamedTuple):
    """Criteria (s,), slopes by every Lambda (K, K, s) and by log sigma (s,), pwrss, beta (p, s)."""

    value: Vector
    slopes: list[Array3]
    log_sigma_slope: Vector
    pwrss: Vector
    beta: Matrix


class HeldCriteria(Model):
    """The criterion of one response at s points, with something held at each.

    Parameters
    ----------
    law : what criteria share; sums : the products of one response.
    yy, floor : its residual sum of squares by least squares, and the least pwrss.
    costly : whether a point takes longer than the calls that many points share.
    """

    def __init__(
        self, law: Law, sums: Sums, yy: float, floor: float, p: int, *, costly: bool
    ) -> None:
        super().__init__(law, sums, np.array([yy]), np.array([floor]), p)
        self.costly = costly

    def held_at(self, lambdas: list[Array3], holding: Holding) -> HeldValues:
        """Return the criteria at any factors Lambda (K, K, s); inf where there is none."""
        if lambdas[0].shape[2] == 1:  # sums over one column would be taken in another order
            twice = holding.take(np.zeros(2, dtype=np.intp))
            found = self.held_at([lam.repeat(2, axis=2) for lam in lambdas], twice)
            return HeldValues(
                found.value[:1], [G[..., :1] for G in found.slopes], found.log_sigma_slope[:1],
                found.pwrss[:1], found.beta[:, :1],
            )  # fmt: skip
        p, s, law = self.p, lambdas[0].shape[2], self.law
        yy, floor = float(self._yy[0]), float(self._floor[0])
        S = np.zeros((p + 1, p + 1, s))
        for c in range(p):
            S[c, c] = 1.0
        S[p, p] = yy
        sums = self._of(s)
        log_det, swept = sums.sweep(lambdas, S)
        L = factor(S, p)
        pwrss, ldRX2, least = L[p, p], np.zeros(s), np.ones(s)
        for c in range(p):
            ldRX2 += 2.0 * np.log(L[c, c])
            least = np.minimum(least, L[c, c] * L[c, c])
        half = lower_inverse(L[:p, :p])
        beta = np.zeros((p, s))
        if p:
            beta = product(transposed(half), L[p, :p, None])[:, 0]
            u = product(half, holding.contrast[:, None])
            size = along(u[:, 0] * u[:, 0])
            held = size > 0.0
            off = along(holding.contrast * beta) - holding.target
            off = np.where(held, off / np.where(held, size, 1.0), 0.0)
            beta = beta - off * product(transposed(half), u)[:, 0]
            pwrss = pwrss + off * off * size
        pwrss = np.where(pwrss > floor, pwrss, floor)
        least = np.minimum(least, pwrss / yy)
        share = np.where(holding.sigma, np.exp(-2.0 * holding.log_sigma), law.nu / pwrss)
        log_sigma = np.where(holding.sigma, holding.log_sigma, 0.5 * np.log(pwrss / law.nu))
        value = log_det + law.constant + pwrss * share
        value = value + law.nu * (np.log(2.0 * np.pi) + 2.0 * log_sigma)
        if law.reml:
            value = value + ldRX2
        good = np.isfinite(value) & np.isfinite(ldRX2) & (least >= law.least_pivot)
        contrast = np.ones((p + 1, 1, s))
        contrast[:p, 0] = -beta
        Omega = share * product(contrast, transposed(contrast))
        if law.reml and p:
            Omega[:p, :p] += product(transposed(half), half)
        return HeldValues(
            np.where(good, value, np.inf), sums.slopes(lambdas, swept, Omega),
            2.0 * (law.nu - pwrss * share), pwrss, beta,
        )  # fmt: skip

    def _of(self, s: int) -> Sums:
        """Return the products of the response s times over; the last ones are kept."""
        if self._taken is None or self._taken[0].size != s:
            at = np.zeros(s, dtype=np.int64)
            self._taken = at, self._sums.take(at), self._yy[at], self._floor[at]
        return self._taken[1]
