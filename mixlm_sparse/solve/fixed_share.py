"""What the fixed part takes of the random effects: R = Z'WQ, Q an orthonormal basis of X.

`information` needs products of the rows R_j (K, p) of levels, R_j R_l' on the pattern of Z'WZ and
the sum of their second moments over all pairs of levels, which are

    sum_jl (R_j R_l')[a, c] (R_j R_l')[b, d] = <H_ab, H_cd>,    H_ab = sum_j R_j[a]'R_j[b]  (p, p).

Of many levels beside many sparse columns, R = F T^{-1} (see `engines.columns`), and with
S_ab = F_a'F_b sparse and G = (T'T)^{-1},

    R_j R_l' = F_j G F_l',    <H_ab, H_cd> = sum of S_ab times G S_cd G, entry by entry.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines.columns import level_forms
from mixlm_sparse.engines.dense import potri_lower, product
from mixlm_sparse.solve.products.final import Products

__all__ = ["FilledShare", "FixedShare", "SparseShare", "fixed_share"]

# Numbers that one pass over blocks holds at a time.
PASS_NUMBERS = 2**22


class FixedShare(Protocol):
    """The rows R_j of the levels of all factors."""

    def pairs_at_a_time(self, g: int, h: int) -> int:
        """Return how many pairs of levels `met` is best asked for."""
        ...

    def met(self, g: int, h: int, rows: IntVector, cols: IntVector) -> Array3:
        """Return R_j R_l' (m, K_g, K_h) of pairs of levels, which are sorted by row."""
        ...

    def total(self, g: int) -> Matrix:
        """Return sum_j R_j R_j' (K, K)."""
        ...

    def everywhere(self, g: int, h: int) -> Matrix:
        """Return the second moments over all pairs of levels, (K_g, K_g, K_h, K_h)."""
        ...


def fixed_share(products: Products) -> FixedShare:
    """Return the share of the fixed part of a model."""
    if products.sparse:
        return SparseShare(products)
    return FilledShare([f.ztx[:, :, :-1] for f in products.blocks.factors])


class FilledShare:
    """R as arrays.

    Parameters
    ----------
    R : per factor, (L, K, p).
    """

    def __init__(self, R: list[Array3]) -> None:
        self._R = R

    def pairs_at_a_time(self, g: int, h: int) -> int:
        """Return how many pairs of levels `met` is best asked for."""
        _, K, p = self._R[g].shape
        H = self._R[h].shape[1]
        return int(max(1, PASS_NUMBERS // (K * H + (K + H) * p)))

    def met(self, g: int, h: int, rows: IntVector, cols: IntVector) -> Array3:
        """Return R_j R_l' (m, K_g, K_h) of pairs of levels."""
        out: Array3 = np.matmul(self._R[g][rows], np.swapaxes(self._R[h][cols], 1, 2))
        return out

    def total(self, g: int) -> Matrix:
        """Return sum_j R_j R_j' (K, K)."""
        sides = np.swapaxes(self._R[g], 0, 1).reshape(self._R[g].shape[1], -1)
        out: Matrix = sides @ sides.T
        return out

    def everywhere(self, g: int, h: int) -> Matrix:
        """Return the second moments over all pairs of levels, (K_g, K_g, K_h, K_h)."""
        R, S = self._R[g], self._R[h]
        p = R.shape[2]
        step = max(1, PASS_NUMBERS // (max(R.shape[1], S.shape[1]) ** 2 * p))
        out = np.zeros((R.shape[1], R.shape[1], S.shape[1], S.shape[1]))
        for start in range(0, p, step):
            part = slice(start, start + step)
            left = _pair_moments(R[:, :, part], R)
            right = left if S is R else _pair_moments(S[:, :, part], S)
            out += (left @ right.T).reshape(out.shape)
        return out


def _pair_moments(R: Array3, S: Array3) -> Matrix:
    """Return sum_j R_j[a, u] S_j[b, v] as ((a, b), (u, v))."""
    L, K, u = R.shape
    v = S.shape[2]
    both = R.reshape(L, K * u).T @ S.reshape(L, K * v)
    out: Matrix = both.reshape(K, u, K, v).transpose(0, 2, 1, 3).reshape(K * K, u * v)
    return out


class SparseShare:
    """R = F T^{-1} of many levels and many sparse columns; see the module's docstring."""

    def __init__(self, products: Products) -> None:
        self._F: list[sp.csr_array] = []
        self._widths = [f.width for f in products.blocks.factors]
        turn = np.eye(products.p)
        for f in products.blocks.factors:
            own = f.sparse
            assert own is not None
            assert own.turn is not None
            self._F.append(sp.csr_array(own.entries[:, :-1]))
            turn = own.turn
        self._turn = turn
        self._forms: dict[int, Array3] = {}
        self._beside: dict[int, Matrix] = {}

    @cached_property
    def _G(self) -> Matrix:
        return potri_lower(np.tril(self._turn.T), both=True)

    def _own(self, g: int) -> Array3:
        if g not in self._forms:
            self._forms[g] = level_forms(self._F[g], self._G, self._widths[g])
        return self._forms[g]

    def pairs_at_a_time(self, g: int, h: int) -> int:
        """Return how many pairs of levels `met` is best asked for."""
        return int(max(1, PASS_NUMBERS // (self._widths[g] * self._F[h].shape[0])))

    def met(self, g: int, h: int, rows: IntVector, cols: IntVector) -> Array3:
        """Return R_j R_l' (m, K_g, K_h) of pairs of levels, which are sorted by row."""
        if g == h and rows is cols:
            return self._own(g)[rows]
        if not rows.size:
            return np.zeros((0, self._widths[g], self._widths[h]))
        if h not in self._beside:
            self._beside[h] = np.ascontiguousarray((self._F[h] @ self._G).T)
        K, H = self._widths[g], self._widths[h]
        first, last = int(rows[0]), int(rows[-1]) + 1
        every = self._F[g][first * K : last * K] @ self._beside[h]
        out: Array3 = every.reshape(last - first, K, -1, H)[rows - first, :, cols]
        return out

    def total(self, g: int) -> Matrix:
        """Return sum_j R_j R_j' (K, K)."""
        out: Matrix = self._own(g).sum(axis=0)
        return out

    def everywhere(self, g: int, h: int) -> Matrix:
        """Return the second moments over all pairs of levels, (K_g, K_g, K_h, K_h)."""
        K, H = self._widths[g], self._widths[h]
        left, right = self._effects(g), self._effects(h)
        out = np.zeros((K, K, H, H))
        for c in range(H):
            for d in range(c + 1):
                S = sp.csr_array(right[c].T @ right[d]).toarray()
                X = product(product(self._G, S), self._G)
                for a in range(K):
                    for b in range(K):
                        own = sp.csr_array(left[a].T @ left[b])
                        out[a, b, c, d] = own.multiply(X).sum()
                        out[b, a, d, c] = out[a, b, c, d]
        return out

    def _effects(self, g: int) -> list[sp.csr_array]:
        return [sp.csr_array(self._F[g][a :: self._widths[g]]) for a in range(self._widths[g])]
