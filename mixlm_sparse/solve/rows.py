"""The one walk over rows: by blocks, with kept columns, offset and weights worked in.

    for block in rows_of(matrices, kept):
        total += block.X.T @ block.weighted(block.target)

Everything that touches rows one by one goes through here, so that what a row is (which columns of X
count, what is subtracted from the response, what a missing weight means) is said once.  A fit walks
over the rows of its `RowSource` by `system.rows()`: rows in memory, some of these, or none that are
there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.covariance.residual import INDEPENDENT, Independent, Positions
from mixlm_sparse.design.members import (
    RowLevels,
    Slots,
    join_levels,
    random_part,
    summed_squares,
)
from mixlm_sparse.design.sparse_columns import mostly_zeros, sparse_block

if TYPE_CHECKING:
    from mixlm_sparse.design.columns import ColumnSource
    from mixlm_sparse.design.matrices import ModelMatrices

# Rows in a block: large enough to amortize calls, small enough to stay in the cache.
BLOCK_ROWS = 16_384
# bincount pays for every group in every call, so the NumPy form takes larger bites.
NUMPY_BLOCK_ROWS = 131_072


class RowBlock:
    """Rows of a source that follow one another; columns are evaluated when they are asked for.

    Parameters
    ----------
    held : what the rows are read from.
    at : where they are there, a slice or ascending positions (m,).
    slice : positions of the rows among those of the source.
    kept : columns of X that the block has; None for all.
    shift : (column, b), where b times a column of X is one more offset.
    """

    def __init__(
        self,
        held: InMemory,
        at: Positions,
        slice: slice,
        kept: Sequence[int] | None = None,
        shift: tuple[int, float] | None = None,
    ) -> None:
        self._held = held
        self._at = at
        self.slice = slice
        self._kept = kept
        self._shift = shift

    def __len__(self) -> int:
        return int(self.slice.stop) - int(self.slice.start)

    @cached_property
    def _every_column(self) -> Matrix:
        return read_rows(self._held.fixed, self._at)

    @cached_property
    def X(self) -> Matrix:
        """(m, p) columns of the fixed part that are kept, as the user wrote them."""
        X, kept = self._every_column, self._kept
        return X if kept is None or len(kept) == X.shape[1] else X[:, list(kept)]

    @cached_property
    def sparse_X(self) -> sp.csr_array:
        """(m, p) the same with its nonzero entries alone; nothing of that size is filled in."""
        if not isinstance(self._at, slice):
            return sp.csr_array(self.X)
        X, kept = sparse_block(self._held.fixed, self._at), self._kept
        return X if kept is None or len(kept) == X.shape[1] else sp.csr_array(X[:, list(kept)])

    @property
    def design(self) -> Any:
        """(m, p) X for products: sparse where it is wide, so that nothing is filled in."""
        sparse = isinstance(self._at, slice) and mostly_zeros(self._held.fixed)
        return self.sparse_X if sparse else self.X

    def fixed_part(self, beta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return X beta, (m,) or (m, r), for beta (p,) or (p, r)."""
        out: NDArray[np.float64] = self.design @ beta
        return out

    @cached_property
    def y(self) -> Vector:
        """(m,) response."""
        return self._held.y[self._at]

    @cached_property
    def offset(self) -> Vector:
        """(m,) offset; zeros where there is none."""
        offset = self._held.offset
        own = np.zeros(len(self)) if offset is None else offset[self._at]
        if self._shift is None:
            return own
        column, b = self._shift
        out: Vector = b * self._every_column[:, column] + own
        return out

    @cached_property
    def target(self) -> Vector:
        """(m,) response less offset."""
        if self._held.offset is None and self._shift is None:
            return self.y
        return self.y - self.offset

    @cached_property
    def weights(self) -> Vector:
        """(m,) prior weights; ones where there are none."""
        return self._held.residual.weights_of(self._at)

    @property
    def has_weights(self) -> bool:
        """Whether rows have prior weights."""
        return self._held.residual.weights is not None

    @cached_property
    def sqrt_w(self) -> Vector:
        """(m,) square roots of the weights."""
        return np.sqrt(self.weights)

    @property
    def log_weight_sum(self) -> float:
        """Sum of log w, exactly 0 without weights."""
        return -self._held.residual.log_det(self._at)

    def weighted(self, values: Vector) -> Vector:
        """Return W values for values (m, ...); the values themselves without weights."""
        return self._held.residual.weigh(values, self._at)

    def root_weighted(self, values: Vector) -> Vector:
        """Return sqrt(W) values for values (m, ...); the values themselves without weights."""
        return self._held.residual.whiten(values, self._at)

    def z(self, term: int) -> Matrix:
        """Return the columns of a random term, (m, k), as the user wrote them."""
        return read_rows(self._held.terms[term], self._at)

    def levels(self, factor: int) -> RowLevels:
        """Return the levels of a grouping factor, one a row or several."""
        return self._held.codes[factor][self._at]

    def places(self, factor: int) -> int:
        """Return how often the columns of the terms of a factor stand in a row (see `Slots`)."""
        found = self.levels(factor)
        return int(found.levels.shape[1]) if isinstance(found, Slots) else 1

    def codes(self, factor: int) -> IntVector:
        """Return the one level of every row, (m,).

        Raises
        ------
        OptionError : rows have several.
        """
        found = self.levels(factor)
        if isinstance(found, np.ndarray):
            return found
        raise OptionError(
            "this needs rows with one level of every grouping factor, and here they have several "
            "(membership=, or residual groups that cross a factor)"
        )

    def sized(self, term: int, factor: int) -> Matrix:
        """Return the columns of a term (m, k) with the lengths of their rows of Z."""
        squares = summed_squares(self.levels(factor))
        z = self.z(term)
        return z if isinstance(squares, float) else z * np.sqrt(squares)[:, None]

    def random_part(self, term: int, factor: int, b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return z'b of a term with effects b (L, k), (m,), or (L, k, r), (m, r)."""
        return random_part(self.z(term), self.levels(factor), b)

    def taken(self, rows: IntVector, start: int) -> RowBlock:
        """Return some of the rows, ascending positions in this block, counted from `start`."""
        at = rows + self._at.start if isinstance(self._at, slice) else self._at[rows]
        return RowBlock(
            self._held, at, slice(start, start + rows.size), self._kept, self._shift
        )

    def shifted(self, column: int, b: float, kept: Sequence[int] | None) -> RowBlock:
        """Return the block with b times a column of X as one more offset."""
        return RowBlock(self._held, self._at, self.slice, kept, (column, b))


def read_rows(columns: ColumnSource, at: Positions) -> Matrix:
    """Return rows of a source of columns; those between ascending positions are read and left."""
    if isinstance(at, slice):
        return columns.block(at)
    if not at.size:
        return columns.block(slice(0, 0))
    first = int(at[0])
    return np.ascontiguousarray(columns.block(slice(first, int(at[-1]) + 1))[at - first])


class RowSource(Protocol):
    """Rows that can be walked over, as often as is asked."""

    @property
    def n(self) -> int:
        """Return the number of rows."""
        ...

    def blocks(
        self, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
    ) -> Iterator[RowBlock]:
        """Yield all rows in order, at most `size` at a time, with the kept columns of X."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class InMemory:
    """Rows whose response and codes are arrays; columns may be computed block by block.

    Parameters
    ----------
    n : number of rows.
    fixed : columns of the fixed part.
    terms : per random term, its columns; of new rows those that were asked for.
    codes : per grouping factor, (n,) the level of every row, or several levels.
    y : (n,); empty for rows without a response.
    offset : (n,) or None.
    residual : structure of the residuals; prior weights are in it.
    """

    n: int
    fixed: ColumnSource
    terms: Sequence[ColumnSource] | Mapping[int, ColumnSource]
    codes: Sequence[RowLevels] | Mapping[int, RowLevels]
    y: Vector
    offset: Vector | None = None
    residual: Independent = INDEPENDENT

    @staticmethod
    def of(matrices: ModelMatrices) -> InMemory:
        """Return the rows of a design."""
        return InMemory(
            n=matrices.nobs,
            fixed=matrices.fixed,
            terms=tuple(term.columns for term in matrices.terms),
            codes=tuple(factor.row_levels for factor in matrices.factors),
            y=matrices.y,
            offset=matrices.offset,
            residual=matrices.residual,
        )

    def blocks(
        self, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
    ) -> Iterator[RowBlock]:
        """Yield all rows in order, at most `size` at a time, with the kept columns of X."""
        for start in range(0, self.n, size):
            part = slice(start, min(start + size, self.n))
            yield RowBlock(self, part, part, kept)

    def whole(self) -> RowBlock:
        """Return all rows as one block."""
        return RowBlock(self, slice(0, self.n), slice(0, self.n))


@dataclass(frozen=True, eq=False, slots=True)
class Without:
    """The rows of a source without some of them; nothing is copied before it is asked for.

    Parameters
    ----------
    source : all rows.
    rows : ascending positions of those that are left out.
    """

    source: RowSource
    rows: NDArray[np.integer[Any]]

    @property
    def n(self) -> int:
        return self.source.n - self.rows.size

    def blocks(
        self, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
    ) -> Iterator[RowBlock]:
        """Yield the rows that remain, in order, with the kept columns of X."""
        start = 0
        for block in self.source.blocks(kept, size=size):
            first, stop = np.searchsorted(self.rows, [block.slice.start, block.slice.stop])
            left_out = self.rows[first:stop] - block.slice.start
            rest = np.delete(np.arange(len(block), dtype=np.int32), left_out)
            if rest.size:
                yield block.taken(rest, start)
                start += rest.size


@dataclass(frozen=True, eq=False, slots=True)
class Shifted:
    """The rows of a source with b x as one more offset, x a column of the fixed part.

    Parameters
    ----------
    source : the rows.
    column : place of x among all columns of X.
    b : its coefficient.
    """

    source: RowSource
    column: int
    b: float

    @property
    def n(self) -> int:
        return self.source.n

    def blocks(
        self, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
    ) -> Iterator[RowBlock]:
        """Yield all rows in order, with the kept columns of X."""
        for block in self.source.blocks(size=size):
            yield block.shifted(self.column, self.b, kept)


def rows_of(
    matrices: ModelMatrices, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
) -> Iterator[RowBlock]:
    """Walk over the rows of a design.

    Parameters
    ----------
    kept : columns of X that the blocks have, such as `system.products.kept`; None for all.
    size : rows in a block.
    """
    return InMemory.of(matrices).blocks(kept, size=size)


def every_level(source: RowSource, n_factors: int) -> Sequence[RowLevels]:
    """Return the levels of every grouping factor on all rows of a source."""
    if isinstance(source, InMemory):
        return [source.codes[g] for g in range(n_factors)]
    blocks = [[block.levels(g) for g in range(n_factors)] for block in source.blocks()]
    return [join_levels(parts) for parts in zip(*blocks, strict=True)]
