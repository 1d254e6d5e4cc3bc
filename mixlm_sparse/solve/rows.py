"""The one walk over rows: by blocks, with kept columns, offset and weights worked in.

    for block in rows_of(matrices, kept):
        total += block.X.T @ block.weighted(block.target)

Everything that touches rows one by one goes through here, so that what a row is (which columns of X
count, what is subtracted from the response, what a missing weight means) is said once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.covariance.residual import INDEPENDENT, Independent

if TYPE_CHECKING:
    from mixlm_sparse.design.build import ModelMatrices
    from mixlm_sparse.design.columns import ColumnSource

# Rows in a block: large enough to amortize calls, small enough to stay in the cache.
BLOCK_ROWS = 16_384
# bincount pays for every group in every call, so the NumPy form takes larger bites.
NUMPY_BLOCK_ROWS = 131_072


class RowBlock:
    """Consecutive rows of a source; columns are evaluated when they are asked for.

    Parameters
    ----------
    source : where the rows are.
    rows : positions among the rows of the source.

    Attributes
    ----------
    slice : positions of the rows.
    """

    def __init__(self, source: InMemory, rows: slice) -> None:
        self._source = source
        self.slice = rows

    def __len__(self) -> int:
        return int(self.slice.stop) - int(self.slice.start)

    @cached_property
    def X(self) -> Matrix:
        """(m, p) columns of the fixed part that are kept, as the user wrote them."""
        X = self._source.fixed.block(self.slice)
        kept = self._source.kept
        return X if kept is None or len(kept) == X.shape[1] else X[:, list(kept)]

    @cached_property
    def y(self) -> Vector:
        """(m,) response."""
        return self._source.y[self.slice]

    @cached_property
    def offset(self) -> Vector:
        """(m,) offset; zeros where there is none."""
        offset = self._source.offset
        return np.zeros(len(self)) if offset is None else offset[self.slice]

    @cached_property
    def target(self) -> Vector:
        """(m,) response less offset."""
        return self.y if self._source.offset is None else self.y - self.offset

    @cached_property
    def weights(self) -> Vector:
        """(m,) prior weights; ones where there are none."""
        return self._source.residual.weights_of(self.slice)

    @cached_property
    def sqrt_w(self) -> Vector:
        """(m,) square roots of the weights."""
        return np.sqrt(self.weights)

    @property
    def log_weight_sum(self) -> float:
        """Sum of log w, exactly 0 without weights."""
        return -self._source.residual.log_det(self.slice)

    def weighted(self, values: Vector) -> Vector:
        """Return W values for values (m, ...); the values themselves without weights."""
        return self._source.residual.weigh(values, self.slice)

    def root_weighted(self, values: Vector) -> Vector:
        """Return sqrt(W) values for values (m, ...); the values themselves without weights."""
        return self._source.residual.whiten(values, self.slice)

    def z(self, term: int) -> Matrix:
        """Return the columns of a random term, (m, k), as the user wrote them."""
        return self._source.terms[term].block(self.slice)

    def codes(self, factor: int) -> IntVector:
        """Return the levels of a grouping factor, (m,)."""
        return self._source.codes[factor][self.slice]


class RowSource(Protocol):
    """Rows that can be walked over, as often as is asked."""

    @property
    def n(self) -> int:
        """Return the number of rows."""
        ...

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[RowBlock]:
        """Yield all rows in order, at most `size` at a time."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class InMemory:
    """Rows whose response and codes are arrays; columns may be computed block by block.

    Parameters
    ----------
    n : number of rows.
    fixed : columns of the fixed part.
    terms : per random term, its columns.
    codes : per grouping factor, (n,) the level of every row.
    y : (n,).
    offset : (n,) or None.
    residual : structure of the residuals; prior weights are in it.
    kept : columns of the fixed part that blocks have; None for all.
    """

    n: int
    fixed: ColumnSource
    terms: Sequence[ColumnSource]
    codes: Sequence[IntVector]
    y: Vector
    offset: Vector | None = None
    residual: Independent = INDEPENDENT
    kept: Sequence[int] | None = None

    @staticmethod
    def of(matrices: ModelMatrices, kept: Sequence[int] | None = None) -> InMemory:
        """Return the rows of a design."""
        return InMemory(
            n=matrices.nobs,
            fixed=matrices.fixed,
            terms=tuple(term.columns for term in matrices.terms),
            codes=tuple(factor.codes for factor in matrices.factors),
            y=matrices.y,
            offset=matrices.offset,
            residual=matrices.residual,
            kept=kept,
        )

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[RowBlock]:
        """Yield all rows in order, at most `size` at a time."""
        for start in range(0, self.n, size):
            yield RowBlock(self, slice(start, min(start + size, self.n)))

    def whole(self) -> RowBlock:
        """Return all rows as one block."""
        return RowBlock(self, slice(0, self.n))


def rows_of(
    matrices: ModelMatrices, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
) -> Iterator[RowBlock]:
    """Walk over the rows of a design.

    Parameters
    ----------
    kept : columns of X that the blocks have, such as `system.products.kept`; None for all.
    size : rows in a block.
    """
    return InMemory.of(matrices, kept).blocks(size)


def row_blocks(n: int, size: int) -> Iterator[slice]:
    """Cut 0..n into slices of at most `size` rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
