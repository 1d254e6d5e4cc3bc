"""Pieces of a source, of whatever library, as columns."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mixlm_sparse.design.batches.arrow import arrow, column_of, marked_texts
from mixlm_sparse.design.headers import repeated_column, unknown_column
from mixlm_sparse.design.readers import open_table
from mixlm_sparse.design.table import Table

__all__ = ["piece_rows", "polars", "read_piece", "require_columns"]

# Numbers of a piece: large enough to repay what is done once a piece, 64 MB.
PIECE_NUMBERS = 8_000_000
MOST_ROWS, LEAST_ROWS = 1_048_576, 16_384


def piece_rows(width: int) -> int:
    """Return the rows of a piece with `width` columns."""
    return int(min(max(PIECE_NUMBERS // max(width, 1), LEAST_ROWS), MOST_ROWS))


def polars() -> Any:
    """Return polars, which has been imported if one of its frames is at hand."""
    return sys.modules["polars"]


def read_piece(piece: Any, names: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Return the columns of a piece.

    Raises
    ------
    DataError : a column does not exist or has a type that no model can use.
    """
    module, kind = type(piece).__module__.partition(".")[0], type(piece).__name__
    if module == "polars" and kind == "DataFrame":
        piece = _polars_to_arrow(piece, (*names, *optional))
    elif module != "pyarrow":
        return open_table(piece, names, optional)
    header = tuple(piece.schema.names)
    wanted = [name for name in optional if name in header and name not in names]
    texts = marked_texts(piece)
    require_columns(names, header)
    columns = {}
    for name in (*names, *wanted):
        if header.count(name) > 1:
            raise repeated_column(name)
        values = piece.column(name)
        if hasattr(values, "chunks"):
            values = _one_piece(values)
        columns[name] = column_of(name, values, declared=name not in texts)
    return Table(piece.num_rows, columns, frozenset(columns), header)


def require_columns(names: Sequence[str], header: Sequence[str] | None) -> None:
    """Raise a DataError unless all columns are in a header, if it is known."""
    if header is None:
        return
    for name in names:
        if name not in header:
            raise unknown_column(name, header)


def _one_piece(values: Any) -> Any:
    if values.num_chunks == 1:
        return values.chunk(0)
    if arrow().types.is_dictionary(values.type):
        values = values.unify_dictionaries()
    whole = values.combine_chunks()
    return whole.chunk(0) if hasattr(whole, "chunks") and whole.num_chunks else whole


def _polars_to_arrow(frame: Any, names: Sequence[str]) -> Any:
    """Return a polars frame as Arrow; only an Enum keeps an order of its levels."""
    pl = polars()
    frame = frame.select([name for name in dict.fromkeys(names) if name in frame.columns])
    texts = [
        pl.col(name).cast(pl.String)
        for name, dtype in frame.schema.items()
        if dtype == pl.Categorical
    ]
    return frame.with_columns(texts).to_arrow()
