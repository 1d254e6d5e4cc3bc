"""The Schur complement of the factors that are not eliminated in closed form.

    S = Lambda_r' A_rr Lambda_r + I - sum_i W_i'W_i

is kept dense (factored by LAPACK in place) or sparse (multifrontal Cholesky), whichever the fill
predicted from its pattern makes cheaper.  Both forms answer the same questions: factor, solve, and
the entries of S^{-1} on the pattern of what entered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines.interface import BlockSystem, PairBlock


@dataclass(frozen=True, slots=True)
class RestFactor:
    """One factor of the rest: its index in the system, its sizes, its scalar columns.

    These begin at `first` and follow each other, or level j begins at `at[j]` (see `steps`).
    """

    index: int
    n_levels: int
    width: int
    first: int
    at: IntVector | None = None

    @property
    def columns(self) -> slice | IntVector:
        if self.at is not None:
            return self.block_columns(np.arange(self.n_levels, dtype=np.int32)).ravel()
        return slice(self.first, self.first + self.n_levels * self.width)

    def block_columns(self, codes: IntVector) -> IntVector:
        """Return the scalar columns of some levels, (len(codes), width)."""
        if self.at is not None:
            start = self.at[codes][:, None]
        else:
            start = self.first + codes.astype(np.int32)[:, None] * np.int32(self.width)
        return np.asarray(start + np.arange(self.width, dtype=np.int32), dtype=np.int32)


def gathered(parts: Sequence[Matrix], factors: Sequence[RestFactor]) -> Matrix:
    """Return the rows (m, r) of the rest from those of each factor, levels one after another."""
    m = sum(r.n_levels * r.width for r in factors)
    out = np.empty((m, parts[0].shape[1]))
    for part, r in zip(parts, factors, strict=True):
        out[r.columns] = part
    return out


@dataclass(frozen=True, slots=True)
class Adjacency:
    """Which scalar columns of the rest every level of an eliminated factor meets."""

    ptr: np.ndarray  # (levels + 1,)
    cols: IntVector  # ascending within a level


class Rest(Protocol):
    """What the two forms have in common."""

    work: float  # multiply-adds of an evaluation with its gradient
    fill: int  # entries of the factor

    def reload(
        self, system: BlockSystem, pairs: dict[tuple[int, int], PairBlock]
    ) -> Rest: ...
    def set(self, lambdas: Sequence[Matrix]) -> None: ...
    def downdate(self, slot: int, W: Matrix) -> None: ...
    def factorize(self) -> float: ...
    def solve(self, rhs: Matrix) -> Matrix: ...
    def invert(self) -> None: ...
    def times_inverse(self, slot: int, E: Matrix) -> Matrix: ...
    def diagonal_blocks(self, which: int) -> Array3: ...
    def pair_blocks(self, a: int, b: int) -> Array3: ...
    def describe(self) -> str: ...
