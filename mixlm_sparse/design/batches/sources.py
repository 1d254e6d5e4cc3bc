"""Where batches of rows come from: Parquet, Arrow, duckdb, polars, iterators of frames.

Every source gives pieces with the columns asked for, and tells whether it can be walked again.
Pieces are turned into columns by `read`, which may run in another thread.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.batches.arrow import arrow, readable
from mixlm_sparse.design.batches.cluster import Partitions, is_dask
from mixlm_sparse.design.batches.parquet import Dataset, parquet_source
from mixlm_sparse.design.batches.pieces import piece_rows, polars

__all__ = ["Source", "batch_source", "is_batched"]

# Tables, relations and lazy frames of at most so many rows are read whole, so that the fit has its
# rows at hand.
WHOLE_ROWS = 2_000_000


class Source(Protocol):
    """Rows in pieces."""

    @property
    def again(self) -> bool:
        """Whether the pieces can be walked over more than once."""
        ...

    @property
    def rows(self) -> int | None:
        """Number of rows, if it is known before they are read."""
        ...

    @property
    def known_rows(self) -> int | None:
        """Number of rows, if it costs nothing to know."""
        ...

    @property
    def header(self) -> tuple[str, ...] | None:
        """Names of the columns, if they are known before the first piece."""
        ...

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield the pieces in order, with the columns `names` and perhaps others."""
        ...


def is_batched(data: Any) -> bool:
    """Say whether `data` are batches rather than one frame.

    A pyarrow Table, a duckdb relation or a polars LazyFrame counts as one frame if it has at most
    `WHOLE_ROWS` rows.
    """
    kind = _kind(data)
    if kind == "table":
        return bool(data.num_rows > WHOLE_ROWS)
    if kind in ("duckdb", "lazy"):
        rows = batch_source(data).rows
        return rows is not None and rows > WHOLE_ROWS
    return kind is not None


def _kind(data: Any) -> str | None:
    """Return what kind of source `data` is; None for a frame, or for what cannot be read."""
    if isinstance(data, pd.DataFrame):
        return None
    if isinstance(data, (Dataset, Reader, Relation, Lazy, Frames, Gone, Partitions)):
        return "source"
    if isinstance(data, (str, os.PathLike)):
        return "path"
    if isinstance(data, Mapping):
        return None
    if is_dask(data):
        return "dask"
    module, name = type(data).__module__.partition(".")[0], type(data).__name__
    if module == "pyarrow":
        known = {"Table": "table", "RecordBatch": "table", "RecordBatchReader": "reader"}
        return "dataset" if name.endswith("Dataset") else known.get(name)
    if "duckdb" in module.lstrip("_") and name == "DuckDBPyRelation":
        return "duckdb"
    if module == "polars":
        return "lazy" if name == "LazyFrame" else None
    if isinstance(data, Iterator):
        return "iterator"
    if callable(data):
        return "function"
    return None


def batch_source(data: Any) -> Source:
    """Return the source that `data` stand for.

    Raises
    ------
    DataError : no such file, not Parquet, or parts of it with other columns.
    """
    kind = _kind(data)
    if kind == "source":
        source: Source = data
        return source
    if kind == "path":
        return parquet_source(data)
    if kind == "dataset":
        return Dataset(data, "the dataset")
    if kind == "table":
        table = data if type(data).__name__ == "Table" else arrow().Table.from_batches([data])
        return Dataset(arrow("dataset").dataset(table), "the table")
    if kind == "reader":
        return Reader(data)
    if kind == "dask":
        return Partitions(data)
    if kind == "duckdb":
        return Relation(data)
    if kind == "lazy":
        return Lazy(data)
    if kind == "function":
        _require_no_arguments(data)
        return Frames(data, True)
    if kind == "iterator":
        return Frames(lambda: data, False)
    return Frames(lambda: iter([data]), True)  # one frame


def _require_no_arguments(function: Callable[..., Any]) -> None:
    """Raise a DataError if a function given as data cannot be called without arguments."""
    try:
        inspect.signature(function).bind()
    except ValueError:  # a function that does not tell
        return
    except TypeError as error:
        raise DataError(
            f"the function given as data is called without arguments, and cannot be ({error}): "
            "give lambda: f(...) with what it needs"
        ) from None


@dataclass(frozen=True, eq=False)
class Gone:
    """Stands for a source that stayed behind in another process."""

    again: bool = True
    rows: int | None = None
    known_rows: int | None = None
    header: tuple[str, ...] | None = None

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Raise a DataError."""
        raise DataError(
            "this is a copy of a fit whose data come in batches; their source is in the process "
            "that fitted the model: ask there, or give data= anew"
        )


class _Stays:
    """A source that cannot go to another process: a copy there says so."""

    def __reduce__(self) -> tuple[type[Gone], tuple[()]]:
        return Gone, ()


@dataclass(frozen=True, eq=False)
class Reader(_Stays):
    """A pyarrow RecordBatchReader, which can be read once."""

    data: Any
    again: bool = False
    rows: int | None = None
    known_rows: int | None = None

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.data.schema.names)

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield record batches."""
        wanted = [name for name in names if name in self.header]
        try:
            for batch in self.data:
                yield batch.select(wanted)
        except (OSError, ValueError) as error:
            raise DataError(f"the batches end too early: {readable(error)}") from error


@dataclass(frozen=True, eq=False)
class Relation(_Stays):
    """A duckdb relation; the query runs anew in every pass, with the columns asked for."""

    data: Any
    again: bool = True
    known_rows: int | None = None

    @property
    def rows(self) -> int | None:
        """Number of rows, counted by duckdb."""
        return int(self.data.aggregate("count(*)").fetchall()[0][0])

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.data.columns)

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield record batches."""
        wanted = [name for name in names if name in self.header]
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in wanted)
        query = self.data.project(quoted or "1")
        # duckdb has renamed it, oldest last
        names_of_reader = ("to_arrow_reader", "fetch_record_batch", "fetch_arrow_reader")
        reader = next(name for name in names_of_reader if hasattr(query, name))
        yield from getattr(query, reader)(piece_rows(len(wanted)))


@dataclass(frozen=True, eq=False)
class Lazy(_Stays):
    """A polars LazyFrame; the query runs anew in every pass, with the columns asked for."""

    data: Any
    again: bool = True
    known_rows: int | None = None

    @property
    def rows(self) -> int | None:
        """Number of rows, counted by polars."""
        return int(self.data.select(polars().len()).collect().item())

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.data.collect_schema().names())

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield polars frames."""
        query = self.data.select([name for name in names if name in self.header])
        size = piece_rows(len(names))
        if hasattr(query, "collect_batches"):
            yield from query.collect_batches(chunk_size=size, maintain_order=True)
        else:
            yield from query.collect().iter_slices(size)


# -- frames -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Frames(_Stays):
    """Frames from an iterator, or from a function that returns one."""

    open: Callable[[], Any]
    again: bool
    rows: int | None = None
    known_rows: int | None = None
    header: tuple[str, ...] | None = None

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield the frames."""
        found = self.open()
        one = hasattr(found, "schema") and not hasattr(found, "__next__")
        if one or isinstance(found, (pd.DataFrame, Mapping)):
            found = [found]  # the function returns one frame
        try:
            walk = iter(found)
        except TypeError:
            raise DataError(
                f"the function given as data returns a {type(found).__name__}: let it return an "
                "iterator of frames, such as pandas.read_csv(path, chunksize=100_000)"
            ) from None
        if self.again and walk is found and getattr(self, "_last", None) is found:
            raise DataError(
                "the function given as data returns the same iterator at every call, which is "
                "used up after the first: let it make a new one"
            )
        object.__setattr__(self, "_last", found)
        yield from walk
