"""A Dask DataFrame: something is made of every partition where it lies, and pairs are joined.

Dask is not imported: the frame brings what is needed, and its collections do the work.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mixlm_sparse.common.errors import DataError, MissingPackageError

__all__ = ["Partitions", "is_dask", "reduce_partitions"]

T = TypeVar("T")


def is_dask(data: Any) -> bool:
    """Say whether `data` is a Dask DataFrame."""
    module = type(data).__module__.partition(".")[0]
    return module in ("dask", "dask_expr") and hasattr(data, "to_delayed")


def _dask() -> Any:
    try:
        return importlib.import_module("dask")
    except ImportError as error:  # a frame is at hand, but not the library that it is of
        raise MissingPackageError(
            "a Dask DataFrame needs dask: pip install 'dask[dataframe]'"
        ) from error


@dataclass(frozen=True, eq=False)
class Partitions:
    """A Dask DataFrame as a source; walked over here only where that takes few rows."""

    data: Any
    again: bool = True
    rows: int | None = None
    known_rows: int | None = None

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(map(str, self.data.columns))

    def columns(self, names: Sequence[str]) -> Any:
        """Return the frame with those of its columns that are named."""
        return self.data[[name for name in self.data.columns if name in names]]

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield the partitions, one by one."""
        for part in self.columns(names).to_delayed():
            yield part.compute()


def reduce_partitions(
    data: Any, each: Callable[[Any], T], join: Callable[[T, T], T]
) -> T:
    """Apply `each` to every partition, and join the results two by two, all on the cluster.

    A task that a worker has lost is done again by another, from the partition; results are values,
    so that nothing is counted twice.

    Raises
    ------
    DataError : the frame has no partitions.
    """
    delayed = _dask().delayed
    parts = [delayed(each)(part) for part in data.to_delayed()]
    if not parts:
        raise DataError("the Dask DataFrame has no partitions: check how it was read")
    while len(parts) > 1:
        pairs = [
            delayed(join)(parts[i], parts[i + 1]) if i + 1 < len(parts) else parts[i]
            for i in range(0, len(parts), 2)
        ]
        parts = pairs
    result: T = parts[0].compute()
    return result
