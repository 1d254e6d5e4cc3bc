"""Rows by blocks, with the weights and the offset worked in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector

if TYPE_CHECKING:
    from mixlm_sparse.design.build import ModelMatrices

# Rows in a block: large enough to amortize calls, small enough to stay in the cache.
BLOCK_ROWS = 16_384
# bincount pays for every group in every call, so the NumPy form takes larger bites.
NUMPY_BLOCK_ROWS = 131_072


def row_blocks(n: int, size: int) -> Iterator[slice]:
    """Cut 0..n into slices of at most `size` rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


class Rows:
    """Blocks of rows with the weights and the offset worked in."""

    def __init__(self, matrices: ModelMatrices) -> None:
        self._m = matrices

    def response(self, rows: slice) -> Vector:
        y = self._m.y[rows]
        if self._m.offset is not None:
            y = y - self._m.offset[rows]
        return y

    def weights(self, rows: slice) -> Vector | None:
        return None if self._m.weights is None else self._m.weights[rows]

    def fixed_and_response(self, rows: slice) -> Matrix:
        X = self._m.fixed.block(rows)
        out = np.empty((X.shape[0], X.shape[1] + 1))
        out[:, :-1] = X
        out[:, -1] = self.response(rows)
        return out
