"""Sums over the levels of one grouping factor for many responses, each at its own Lambda.

Let A_j = Z_j'WZ_j (K, K), x_j = Z_j'WQ (K, p) and y_j = Z_j'W y_f (K,) of level j, of which y_j
alone depends on the response.  With C_j = Lambda'A_j Lambda + I = L L' and

    N_j = Lambda C_j^{-1} Lambda' = H'H,   B_j = Lambda C_j^{-1} = H'L^{-1},   H = L^{-1} Lambda'

the profiled criterion takes

    log|C| = sum_j log|C_j|
    S = [Q y_f]'V^{-1}[Q y_f] = [Q y_f]'W[Q y_f] - sum_j [x_j y_j]'N_j [x_j y_j]

and, with Omega of the profiled coefficients (see `engines.fused.profile`) and
F_j = [x_j y_j] Omega [x_j y_j]' (K, K),

    dd/dLambda = 2 sum_j (A_j - (I - A_j N_j) F_j) B_j.

Of x_j only the products x_j[a, s] x_j[b, t] are needed, which no response changes: they are
coefficients of the entries of N_j in S, and of those of Omega in F_j.  Levels with the same block A
are one (see `engines.fused.classes`): their products are summed, those with the response too, and
A_j counts as often as there are members.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.classes import classes_of
from mixlm_sparse.engines.fused.lockstep.arrays import (
    Array,
    factor,
    lower_inverse,
    product,
    transposed,
)

# Numbers (levels times K^3 times responses) that are worked on at once: what a step takes and makes
# stays in the cache.  Sums go over the levels one by one, however many are worked on at once.
CHUNK = 32_768


@dataclass(frozen=True, eq=False, slots=True)
class Swept:
    """What the gradient takes of the first sweep: chunks of levels, with N and B (n, K, K, r)."""

    chunks: list[slice]
    inner: list[Array]
    outer: list[Array]


class LevelSums:
    """The design of one grouping factor, and products with the responses of a block.

    Parameters
    ----------
    ztz, ztx : (L, K, K) and (L, K, p + 1); the last column is not read.
    zy : (L, K, r).
    """

    def __init__(self, ztz: Array3, ztx: Array3, zy: Array3) -> None:
        L, K, P = ztx.shape
        self.p, self.K = P - 1, K
        x = ztx[:, :, : P - 1]
        classes = classes_of(ztz, P)
        self._rows, self._columns = np.tril_indices(K)  # (a, b) with a >= b
        self.upper, self.right = np.tril_indices(self.p)
        self._twice = np.where(self._rows == self._columns, 1.0, 2.0)
        self.blocks = ztz if classes is None else classes.blocks
        self.members = np.ones(L) if classes is None else classes.count
        code = None if classes is None else classes.code
        n = self.blocks.shape[0]
        a, b, s, t = self._rows, self._columns, self.upper, self.right
        both = (
            x[:, a[:, None], s] * x[:, b[:, None], t] + x[:, a[:, None], t] * x[:, b[:, None], s]
        )  # (L, ab, st)
        both = _summed(both, code, n)
        # coefficients of N in S, and of Omega in F: a pair stands for both of its orders
        self._of_inner = both * (0.5 * self._twice)[None, :, None]
        self._of_omega = both * np.where(s == t, 0.5, 1.0)
        self._x = x
        self._zy: Array3 | None = zy if classes is None else None
        self._cross: Array | None = None
        self._squares: Array | None = None
        if code is not None:
            self._squares = np.zeros((n, a.size, zy.shape[2]))
            self._cross = np.zeros((n, a.size, self.p, zy.shape[2]))
            for c in range(n):
                self._sum_members(c, np.flatnonzero(code == c), zy)

    def _sum_members(self, c: int, members: NDArray[np.int64], zy: Array3) -> None:
        """Form the products with the responses of the levels of one block, in order."""
        assert self._cross is not None
        assert self._squares is not None
        a, b = self._rows, self._columns
        both = np.where(a == b, 0.0, 1.0)[:, None, None]
        step = max(1, CHUNK // (a.size * (self.p + 1) * zy.shape[2]))
        for lo in range(0, members.size, step):
            some = members[lo : lo + step]
            own, x = zy[some], self._x[some][..., None]
            self._squares[c] = _added(self._squares[c], own[:, a], own[:, b])
            if self.p:
                cross = x[:, a] * own[:, b, None]
                cross += both * (x[:, b] * own[:, a, None])
                self._cross[c] = np.add.reduce(
                    np.concatenate([self._cross[c][None], cross]), axis=0
                )

    def take(self, at: NDArray[np.int64]) -> LevelSums:
        """Return the same with some of the responses."""
        twin = object.__new__(LevelSums)
        vars(twin).update(vars(self))
        for name in ("_zy", "_cross", "_squares"):
            own = getattr(self, name)
            setattr(twin, name, None if own is None else own[..., at])
        return twin

    def sweep(self, lambdas: list[Array3], S: Array3) -> tuple[Vector, Swept]:
        """Subtract from S (P, P, r), whose lower triangle counts, what the levels take.

        Returns
        -------
        log|C| (r,), not finite where there is no factor, and what `slopes` needs.
        """
        lam, p, K = lambdas[0], self.p, self.K
        r = lam.shape[2]
        step = max(1, CHUNK // (K**3 * r))
        bounds = [*range(0, self.blocks.shape[0], step), self.blocks.shape[0]]
        swept = Swept([slice(lo, hi) for lo, hi in pairwise(bounds)], [], [])
        turned = transposed(lam)
        log_det, fixed = np.zeros(r), np.zeros((self.upper.size, r))
        of_response, cross = np.zeros(r), np.zeros((p, r))
        for part in swept.chunks:
            A = self.blocks[part][..., None]
            C = product(turned, product(A, lam))
            for a in range(K):
                C[..., a, a, :] += 1.0
            L = factor(C)
            pivots = L[:, 0, 0]
            for a in range(1, K):
                pivots = pivots * L[:, a, a]
            log_det = _added(log_det, np.log(pivots), 2.0 * self.members[part, None])
            half = lower_inverse(L)
            H = product(half, turned)
            N, B = product(transposed(H), H), product(transposed(H), half)
            swept.inner.append(N)
            swept.outer.append(B)
            packed = N[:, self._rows, self._columns]
            if p:
                coefficients = self._of_inner[part].reshape(-1, fixed.shape[0], 1)
                fixed = _added(fixed, coefficients, packed.reshape(-1, 1, r))
            if self._zy is not None:
                y = self._zy[part]
                Ny = product(N, y[:, :, None])[:, :, 0]
                of_response = _added(of_response, y.reshape(-1, r), Ny.reshape(-1, r))
                if p:
                    x = self._x[part].reshape(-1, p, 1)
                    cross = _added(cross, x, Ny.reshape(-1, 1, r))
                continue
            assert self._cross is not None
            assert self._squares is not None
            twice = packed * self._twice[:, None]
            squares = self._squares[part].reshape(-1, r)
            of_response = _added(of_response, twice.reshape(-1, r), squares)
            if p:
                crossed = self._cross[part].reshape(-1, p, r)
                cross = _added(cross, packed.reshape(-1, 1, r), crossed)
        S[self.upper, self.right] -= fixed
        S[p, :p] -= cross
        S[p, p] -= of_response
        return log_det, swept

    def slopes(self, lambdas: list[Array3], swept: Any, Omega: Array3) -> list[Array3]:
        """Return the derivatives by Lambda, (K, K, r)."""
        r = Omega.shape[2]
        G = np.zeros((self.K, self.K, r))
        own = Omega[self.upper, self.right]
        for part, N, B in zip(swept.chunks, swept.inner, swept.outer, strict=True):
            A = self.blocks[part][..., None]
            F = self._forms(part, own, Omega)
            R = F - product(product(A, N), F)
            D = A * self.members[part][:, None, None, None] - R
            G = np.add.reduce(np.concatenate([G[None], product(D, B)]), axis=0)
        return [2.0 * G]

    def _forms(self, part: slice, own: Matrix, Omega: Array3) -> Array:
        """Return [x y] Omega [x y]' (n, K, K, r) of some levels."""
        p, r, K = self.p, Omega.shape[2], self.K
        a, b = self._rows, self._columns
        n = part.stop - part.start
        packed = np.zeros((n, a.size, r))
        if p:
            weighted = self._of_omega[part].transpose(2, 0, 1)[..., None] * own[:, None, None]
            packed += np.add.reduce(weighted, axis=0)
        if self._zy is not None:
            y = self._zy[part]
            # z'y_f + y_f'z + omega y_f y_f' with z = x Omega[., y]
            z = (0.5 * Omega[p, p]) * y
            if p:
                x = self._x[part].transpose(2, 0, 1)[..., None]
                z = z + np.add.reduce(x * Omega[p, :p, None, None], axis=0)
            packed += z[:, a] * y[:, b] + y[:, a] * z[:, b]
        else:
            assert self._cross is not None
            assert self._squares is not None
            packed += Omega[p, p] * self._squares[part]
            if p:
                crossed = self._cross[part].transpose(2, 0, 1, 3) * Omega[p, :p, None, None]
                packed += np.add.reduce(crossed, axis=0) * (2.0 / self._twice)[:, None]
        F = np.empty((n, K, K, r))
        F[:, a, b] = packed
        F[:, b, a] = packed
        return F


def _added(total: Array, left: Array, right: Array) -> Array:
    """Return a total with left * right (n, ...) added to it, one after another."""
    terms = np.empty((left.shape[0] + 1, *total.shape))
    terms[0] = total
    np.multiply(left, right, out=terms[1:])
    out: Array = np.add.reduce(terms, axis=0)
    return out


def _summed(values: Array, code: NDArray[np.int64] | None, n: int) -> Array:
    """Return the sums (n, ...) of values (L, ...) by class; the values where there are none."""
    if code is None:
        return values
    out = np.zeros((n, *values.shape[1:]))
    np.add.at(out, code, values)
    return out
