"""What stands for rows that a fit does not have: it says why when it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NoReturn

from mixlm_sparse.common.errors import MixedModelError, RowsAbsentError, SavedFitError
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.solve.rows import BLOCK_ROWS, RowBlock

__all__ = [
    "BATCHES", "CLUSTER", "PRODUCTS", "SAVED", "SUMMED", "AbsentColumns", "AbsentFrame",
    "AbsentValues", "FactorWithoutRows", "MatricesWithoutRows", "NoRows", "Reason", "Rowless",
    "SummedValues", "with_parts",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there are no rows, and what to do about it."""

    text: str
    error: type[MixedModelError]

    def say(self) -> NoReturn:
        """Raise the error."""
        raise self.error(self.text)


SAVED = Reason(
    "this fit was saved without its data, and the rows are needed here: load it with "
    "mx.load(path, data=frame), or save it with include_data=True",
    SavedFitError,
)
SUMMED = Reason(
    "the rows of this fit came in batches or were summed before, and are not in its file: load it "
    "with mx.load(path, data=frame), where the frame has them",
    SavedFitError,
)
PRODUCTS = Reason(
    "this fit was made from products, which hold no rows, and rows are needed here: fit the data "
    "themselves by lmer, or give them to fit.predict(data)",
    RowsAbsentError,
)
CLUSTER = Reason(
    "the rows of this fit lie in the partitions of a Dask DataFrame, and rows are needed here: "
    "take a part of them, frame.partitions[i].compute(), and give it to fit.predict(part)",
    RowsAbsentError,
)
BATCHES = Reason(
    "the rows of this fit come in batches and are not held, and all of them are needed at once "
    "here: use fit.stream(...) for results by row, or fit a frame of fewer rows",
    RowsAbsentError,
)


@dataclass(frozen=True, slots=True)
class NoRows:
    """A source of rows that are not there.

    Parameters
    ----------
    n : how many they were.
    why : the reason.
    """

    n: int
    why: Reason = SAVED

    def blocks(
        self, kept: Sequence[int] | None = None, *, size: int = BLOCK_ROWS
    ) -> Iterator[RowBlock]:
        """Raise the error of the reason."""
        self.why.say()


@dataclass(frozen=True, slots=True)
class AbsentColumns:
    """Columns of which only the names are known."""

    names: tuple[str, ...]
    why: Reason = SAVED

    def block(self, rows: slice) -> Matrix:
        """Raise the error of the reason."""
        self.why.say()


@dataclass(frozen=True, slots=True)
class AbsentValues:
    """Weights or offsets that the model has, and that are not at hand."""

    why: Reason

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        self.why.say()

    def __getitem__(self, rows: Any) -> NoReturn:
        self.why.say()

    def __len__(self) -> NoReturn:
        self.why.say()


class Rowless:
    """What has fields of rows that are not there: asked for one of them, it says why."""

    ROWS: ClassVar[frozenset[str]] = frozenset()
    why: Reason

    def __getattribute__(self, name: str) -> Any:
        if name in type(self).ROWS:
            self.why.say()
        return super().__getattribute__(name)


@dataclass(frozen=True, slots=True)
class SummedValues(AbsentValues):
    """Numbers of which mean, standard deviation, least and largest are known."""

    average: float
    sd: float
    least: float
    largest: float

    def astype(self, dtype: Any, **options: Any) -> SummedValues:
        return self

    def mean(self, **options: Any) -> float:
        return self.average

    def std(self, **options: Any) -> float:
        return self.sd

    def min(self, **options: Any) -> float:
        return self.least

    def max(self, **options: Any) -> float:
        return self.largest


@dataclass(frozen=True, eq=False)
class FactorWithoutRows(Rowless, GroupingFactor):
    """A grouping factor of which the levels are known, but not which rows have them."""

    ROWS = frozenset({"codes"})
    why: Reason = SAVED


@dataclass(frozen=True, eq=False, repr=False)
class MatricesWithoutRows(Rowless, ModelMatrices):
    """A design whose response and columns are not there."""

    ROWS = frozenset({"y", "data"})
    why: Reason = SAVED


def with_parts(matrices: ModelMatrices, **parts: Any) -> ModelMatrices:
    """Return a design, with or without rows, with other parts, such as its random terms."""
    own = {one.name: object.__getattribute__(matrices, one.name) for one in fields(matrices)}
    return type(matrices)(**{**own, **parts})


@dataclass(frozen=True, eq=False)
class AbsentFrame(Mapping[str, Any]):
    """Stands for the data of a fit that has none."""

    why: Reason = SAVED

    def __getitem__(self, name: str) -> Any:
        self.why.say()

    def __contains__(self, name: object) -> bool:
        self.why.say()

    def __iter__(self) -> Iterator[str]:
        self.why.say()

    def __len__(self) -> int:
        self.why.say()
