"""A source of batches that has been looked into: its pieces, pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.batches.design import BatchArguments
from mixlm_sparse.design.batches.parquet import Dataset
from mixlm_sparse.design.batches.pieces import read_piece, require_columns
from mixlm_sparse.design.batches.seen import Pass, Seen
from mixlm_sparse.design.batches.sources import Source
from mixlm_sparse.design.build import columns_asked
from mixlm_sparse.design.table import Column, Table
from mixlm_sparse.formula.terms import MixedFormula

__all__ = ["Opened", "open_batches"]

MOST_AHEAD = 8  # pieces of a source that is read once, held to see what columns are


@dataclass(frozen=True, eq=False)
class Opened:
    """A source of which the first piece has been read.

    Attributes
    ----------
    first : a piece with rows, the first in which no column is missing as a whole, if there is one.
    ahead : pieces taken from a source that can be read once only.
    seen : the rows as the passes so far have found them.
    """

    source: Source
    names: tuple[str, ...]
    optional: tuple[str, ...]
    first: Table
    ahead: tuple[Any, ...]
    rest: Iterator[Any] | None
    seen: Seen = field(default_factory=Seen)

    def watch(self, names: Sequence[str] | None = None, *, ordered: bool = False) -> Pass:
        """Return what is to be told of the pieces of a pass, which must be those of the others."""
        both = (*self.names, *self.optional) if names is None else names
        return self.seen.begin(both, ordered=ordered)

    def pieces(self, names: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield all pieces; with fewer columns if the source can be read again."""
        if self.source.again:
            wanted = (*self.names, *self.optional) if names is None else names
            yield from self.source.pieces(tuple(dict.fromkeys(wanted)))
            return
        yield from self.ahead
        if self.rest is not None:
            yield from self.rest


def open_batches(source: Source, formula: MixedFormula, arguments: BatchArguments) -> Opened:
    """Read the first piece of a source that has rows.

    Raises
    ------
    DataError : a column does not exist, or there are no rows.
    """
    names, optional = columns_asked(formula, arguments.given())
    both = tuple(dict.fromkeys((*names, *optional)))
    require_columns(names, source.header)
    walk = source.pieces(both)
    ahead: list[Any] = []
    table: Table | None = None
    for piece in walk:
        found = read_piece(piece, names, optional)
        ahead.append(piece)
        if found.n:
            empty = any(_is_empty(column) for column in found.columns.values())
            if table is None or not empty:
                table = found
            if not empty or (not source.again and len(ahead) >= MOST_AHEAD):
                break
        if source.again:
            ahead.clear()
    if table is None:
        raise DataError("the data have no rows: check how they were read or filtered")
    if source.again:
        getattr(walk, "close", lambda: None)()
        files = isinstance(source, Dataset)  # which stay as they are
        return Opened(source, tuple(names), tuple(optional), table, (), None, Seen(not files))
    return Opened(source, tuple(names), tuple(optional), table, tuple(ahead), walk)


def _is_empty(column: Column) -> bool:
    """Say whether no cell is there, so that nothing can be told of what the column holds."""
    return column.missing is not None and bool(column.missing.all())
