"""The part of C that couples an eliminated factor with the dense rest.

An eliminated factor i has L levels of width K; the rest has m scalar columns.  V = C_i,rest is kept
either dense, (L, K, m), or by level: level j meets the scalar columns cols[ptr[j]:ptr[j+1]] and
entry e holds the K-vector V[:, cols[e]].  Both forms go through the same life in one evaluation:

    scale      V = Lambda_i' A_i,rest Lambda_rest
    (absorb)   V -= what the elimination of a nested factor leaves
    whiten     W = L_i^{-1} V
    downdate   S -= W'W
    forward, backward      the two halves of a solve
    inside     L_i^{-T} W S^{-1} W' L_i^{-1}, its part of the diagonal blocks of C^{-1}
    invert     the same, and blocks of C^{-1} between the factor and the rest, from S^{-1}

Multiplying by Lambda_i' is left until the factor is eliminated, where L_i^{-1} Lambda_i' is one
matrix a level, unless another factor is eliminated into it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines.blocked.rest import Rest
from mixlm_sparse.engines.interface import PairBlock


def bmm(a: Array3, b: Array3) -> Array3:
    """Multiply blocks level by level; a (L, r, s) or (r, s), b (L, s, t)."""
    if a.shape[-1] == 1 and a.shape[-2] == 1:
        return a * b
    out: Array3 = np.matmul(a, b)
    return out


def transposed(a: Array3) -> Array3:
    """Transpose each block."""
    return np.swapaxes(a, -1, -2)


class Coupling(Protocol):
    """What the two forms have in common."""

    work: float  # multiply-adds of an evaluation with its gradient

    def reload(self, pairs: Sequence[PairBlock]) -> Coupling: ...
    def scale(self, lam: Matrix, rest: Sequence[Matrix]) -> None: ...
    def absorb(self, child: Coupling, parent: IntVector, Wp: Array3, slot: int) -> None: ...
    def whiten(self, Linv: Array3) -> None: ...
    def downdate(self, rest: Rest, slot: int) -> None: ...
    def multiply(self, own: Array3, rest: Matrix) -> tuple[Array3, Matrix]: ...
    def inside(self, Linv: Array3, rest: Rest, slot: int) -> Array3 | None: ...
    def forward(self, y: Array3) -> Matrix: ...
    def backward(self, x: Matrix) -> Array3: ...
    def invert(
        self,
        Linv: Array3,
        rest: Rest,
        slot: int,
        parents: Sequence[tuple[Coupling, IntVector, Array3, int]],
    ) -> Array3: ...
    def times_inverse_rest(self, other: Coupling, parent: IntVector, slot: int) -> Array3: ...
    def inverse_pairs(self, which: int) -> Array3: ...
    def describe(self) -> str: ...
