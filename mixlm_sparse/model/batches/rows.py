"""The rows of a model in batches, walked over again after the fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.covariance.residual import Independent
from mixlm_sparse.design.batches.design import BatchDesign, BatchRows, GroupCoder
from mixlm_sparse.design.batches.levels import LevelMap
from mixlm_sparse.design.batches.opened import Opened
from mixlm_sparse.design.batches.pieces import read_piece
from mixlm_sparse.design.table import Column, Table
from mixlm_sparse.model.rowless import BATCHES, NoRows
from mixlm_sparse.solve.rows import BLOCK_ROWS, InMemory, RowBlock

__all__ = ["Batches", "as_rows"]

# Whole columns are read again only where they have at most so many rows, 160 MB for each.
MOST_AT_ONCE = 20_000_000

CHANGED = (
    "the data are not those that the model was fitted to: {what}; fit the model again, or keep the "
    "data as they are as long as the fit is used"
)


def as_rows(batch: BatchRows, codes: Sequence[IntVector], terms: Sequence[int]) -> InMemory:
    """Return a batch as rows to walk over.

    Parameters
    ----------
    codes : per factor, in the order of the design.
    terms : per random term of the design, its place in the formula.
    """
    return InMemory(
        n=batch.n,
        fixed=batch.fixed,
        terms=tuple(batch.terms[place] for place in terms),
        codes=codes,
        y=batch.y,
        offset=batch.offset,
        residual=Independent(batch.weights),
    )


@dataclass(frozen=True, eq=False)
class Batches:
    """Rows that are read from their source anew in every walk.

    Parameters
    ----------
    n : rows that the model uses.
    opened, design, coder : of the passes that the products were formed in.
    terms, factors : places in the formula of the terms and factors of the design.
    places : per factor of the design, the level of every code of `coder`.
    """

    n: int
    opened: Opened
    design: BatchDesign
    coder: GroupCoder
    terms: tuple[int, ...]
    factors: tuple[int, ...]
    places: tuple[IntVector, ...]

    def __reduce__(self) -> tuple[type[NoRows], tuple[int, Any]]:
        return NoRows, (self.n, BATCHES)  # a source need not be there in another process

    def walk(self, *, ordered: bool = False) -> Iterator[tuple[InMemory, Table, IntVector, int]]:
        """Yield the rows used of each batch, its columns on all rows, and where the rows are.

        That is their places in the batch, and the place of the batch's first row in the data.

        Parameters
        ----------
        ordered : what is made of the rows is put beside what another walk gives.
        """
        if not self.opened.source.again:
            raise DataError(
                "the data could be read once only, and the rows are needed again here: give lmer a "
                "function that returns the iterator anew"
            )
        start = n = 0
        names, optional = self.opened.names, self.opened.optional
        watch = self.opened.watch(ordered=ordered)
        for piece in self.opened.pieces():
            table = read_piece(piece, names, optional)
            watch.add(table)
            batch = self.design.rows(table, self.coder)
            if batch is not None:
                codes = [self._levels(g, batch.codes[old]) for g, old in enumerate(self.factors)]
                n += batch.n
                if n > self.n:
                    raise DataError(CHANGED.format(what=f"there are more than {self.n} rows"))
                yield as_rows(batch, codes, self.terms), table, _places(batch), start
            start += table.n
        if n != self.n:
            raise DataError(CHANGED.format(what=f"there are {n} rows instead of {self.n}"))
        watch.end()

    def columns(self, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Column]:
        """Return columns of the formula on all rows used, read again.

        Raises
        ------
        RowsAbsentError : there are more than `MOST_AT_ONCE` rows, or the formula names no such
            column.
        """
        known = (*self.opened.names, *self.opened.optional)
        names = tuple(names)
        if self.n > MOST_AT_ONCE or any(name not in known for name in names):
            BATCHES.say()
        parts: dict[str, list[Column]] = {}
        for _, table, places, _ in self.walk(ordered=True):
            for name in (*names, *(name for name in optional if name not in names)):
                if name in table.columns:
                    parts.setdefault(name, []).append(table.columns[name].take(places))
        return {name: _joined(name, columns) for name, columns in parts.items()}

    def _levels(self, factor: int, codes: IntVector) -> IntVector:
        places = self.places[factor]
        if codes.size and int(codes.max()) >= places.size:
            raise DataError(CHANGED.format(what="a grouping factor has a new level"))
        out: IntVector = places[codes]
        return out

    def blocks(
        self, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
    ) -> Iterator[RowBlock]:
        """Yield all rows in order, at most `size` at a time, with the kept columns of X."""
        start = 0
        for rows, _, _, _ in self.walk(ordered=True):
            for first in range(0, rows.n, size):
                stop = min(first + size, rows.n)
                there = slice(start + first, start + stop)
                yield RowBlock(rows, slice(first, stop), there, kept)
            start += rows.n


def _joined(name: str, columns: list[Column]) -> Column:
    """Return one column of those of all batches, whose levels may be numbered in different ways."""
    if columns[0].kind != "factor":
        values = np.concatenate([column.values for column in columns])
        return Column(name, columns[0].kind, values)
    known = LevelMap(name)
    codes = np.concatenate([known.encode(column) for column in columns])
    levels, order = known.finish()
    return Column(name, "factor", order[codes], levels, known.ordered)


def _places(batch: BatchRows) -> IntVector:
    return np.arange(batch.n, dtype=np.int32) if batch.rows is None else batch.rows
