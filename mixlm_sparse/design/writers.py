"""What fills in the columns of a model matrix, term by term; plain data that can be pickled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.design.variables import Rows

__all__ = [
    "Coded", "Interaction", "OneColumn", "Ones", "SeveralColumns", "Writer", "terms_written",
]  # fmt: skip


class Writer(Protocol):
    """Writes some columns of a block; plain data, so that columns can be copied and pickled."""

    def __call__(self, block: Matrix, rows: slice) -> None:
        """Write the values on `rows` into the columns of `block`."""
        ...


@dataclass(frozen=True, slots=True)
class Ones:
    """The intercept, always the first column."""

    def __call__(self, block: Matrix, rows: slice) -> None:
        block[:, 0] = 1.0


@dataclass(frozen=True, slots=True)
class OneColumn:
    place: int
    get: Rows

    def __call__(self, block: Matrix, rows: slice) -> None:
        values = self.get(rows)
        block[:, self.place] = values if values.ndim == 1 else values[:, 0]


@dataclass(frozen=True, slots=True)
class SeveralColumns:
    start: int
    stop: int
    get: Rows

    def __call__(self, block: Matrix, rows: slice) -> None:
        block[:, self.start : self.stop] = self.get(rows)


@dataclass(frozen=True, slots=True)
class Interaction:
    """Products of the columns of several operands; the first operand varies fastest."""

    start: int
    stop: int
    operands: tuple[Rows, ...]

    def __call__(self, block: Matrix, rows: slice) -> None:
        product = self.operands[0](rows)
        for other in self.operands[1:]:
            factor = other(rows)
            if product.ndim == 1 and factor.ndim == 1:
                product = np.multiply(product, factor, dtype=np.float64)
            else:
                left = product[:, None, None] if product.ndim == 1 else product[:, None, :]
                right = factor[:, None, None] if factor.ndim == 1 else factor[:, :, None]
                product = left * right
                product = product.reshape(len(product), product.shape[1] * product.shape[2])
        block[:, self.start : self.stop] = product if product.ndim == 2 else product[:, None]


@dataclass(frozen=True)
class Coded:
    """A factor: the row of `table` that codes its level, (m,) or (m, k)."""

    table: NDArray[Any]
    codes: NDArray[Any]

    @cached_property
    def entries(self) -> sp.csr_array:
        """(levels, k) the table with its nonzero entries alone."""
        return sp.csr_array(self.table if self.table.ndim == 2 else self.table[:, None])

    def __call__(self, rows: slice) -> NDArray[Any]:
        return np.asarray(self.table[self.codes[rows]])


def terms_written(writers: Sequence[Writer]) -> Iterator[tuple[int, int, tuple[Rows, ...]]]:
    """Yield first and last column of every term, and its operands; the intercept has none."""
    for write in writers:
        if isinstance(write, Interaction):
            yield write.start, write.stop, write.operands
        elif isinstance(write, SeveralColumns):
            yield write.start, write.stop, (write.get,)
        elif isinstance(write, OneColumn):
            yield write.place, write.place + 1, (write.get,)
        else:
            yield 0, 1, ()
