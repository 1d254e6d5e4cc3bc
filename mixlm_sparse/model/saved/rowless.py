"""What stands for the rows of a fit that was saved without them: it says so when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mixlm_sparse.common.errors import SavedFitError
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.solve.rows import BLOCK_ROWS, RowBlock

__all__ = ["AbsentColumns", "AbsentFrame", "FactorWithoutRows", "MatricesWithoutRows", "NoRows"]

WITHOUT_DATA = (
    "this fit was saved without its data, and the rows are needed here: load it with "
    "mx.load(path, data=frame), or save it with include_data=True"
)


def _absent() -> NoReturn:
    raise SavedFitError(WITHOUT_DATA)


@dataclass(frozen=True, slots=True)
class NoRows:
    """A source of rows that are not there.

    Parameters
    ----------
    n : how many they were.
    """

    n: int

    def blocks(
        self, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
    ) -> Iterator[RowBlock]:
        """Raise a SavedFitError."""
        _absent()


@dataclass(frozen=True, slots=True)
class AbsentColumns:
    """Columns of which only the names are known."""

    names: tuple[str, ...]

    def block(self, rows: slice) -> Matrix:
        """Raise a SavedFitError."""
        _absent()


@dataclass(frozen=True, eq=False)
class FactorWithoutRows(GroupingFactor):
    """A grouping factor of which the levels are known, but not which rows have them."""

    def __getattribute__(self, name: str) -> Any:
        if name == "codes":
            _absent()
        return super().__getattribute__(name)


@dataclass(frozen=True, eq=False)
class MatricesWithoutRows(ModelMatrices):
    """A design whose response and columns are not there."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("y", "data"):
            _absent()
        return super().__getattribute__(name)


class AbsentFrame(Mapping[str, Any]):
    """Stands for the data of a fit that was saved without them."""

    def __getitem__(self, name: str) -> Any:
        _absent()

    def __contains__(self, name: object) -> bool:
        _absent()

    def __iter__(self) -> Iterator[str]:
        _absent()

    def __len__(self) -> int:
        _absent()
