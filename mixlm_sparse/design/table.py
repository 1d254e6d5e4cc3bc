"""One column of any kind of data as plain NumPy arrays, and a few of them as a table."""

from __future__ import annotations

import copy
import decimal
import math
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.finite import square_sum
from mixlm_sparse.design.levels import level_labels, native
from mixlm_sparse.design.membership import Membership

__all__ = [
    "Column", "HeldData", "Table", "as_column", "factor_column", "masked_column", "own_index",
    "sorted_factor",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column as arrays.

    Attributes
    ----------
    kind : "number", "bool", "factor", "datetime" or "membership".
    values : (n,) numbers or truth values; for a factor, codes into `levels`, -1 where missing; for
        a membership, which of its rows each row is.
    levels : values of the levels in their order, for a factor; the `Membership`.
    ordered : whether the levels are ordered (R then uses polynomial contrasts).
    missing : (n,) bool, or None if nothing is missing.
    """

    name: str
    kind: str
    values: NDArray[Any]
    levels: Any = None
    ordered: bool = False
    missing: NDArray[np.bool_] | None = None

    def take(self, rows: IntVector | slice) -> Column:
        """Return the rows asked for; a slice gives a view."""
        missing = None if self.missing is None else self.missing[rows]
        return Column(self.name, self.kind, self.values[rows], self.levels, self.ordered, missing)

    def copy(self) -> Column:
        """Return the column with arrays of its own."""
        missing = None if self.missing is None else self.missing.copy()
        values = self.values.copy()
        levels = self.levels
        levels = own_index(levels) if isinstance(levels, pd.Index) else copy.copy(levels)
        return Column(self.name, self.kind, values, levels, self.ordered, missing)


def own_index(index: pd.Index[Any]) -> pd.Index[Any]:
    """Return an index that nothing done to the one given changes, its name included."""
    text = index.dtype
    # the numbers of a range are not stored, and Arrow's text cannot be written to
    fixed = isinstance(index, pd.RangeIndex) or (
        isinstance(text, pd.StringDtype) and text.storage == "pyarrow"
    )
    return index.view() if fixed else index.copy(deep=True)


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that were asked for, and what is known of the frame around them."""

    n: int
    columns: dict[str, Column]
    names: frozenset[str]
    header: Any
    index: Any = None


@dataclass(frozen=True, eq=False, slots=True)
class HeldData:
    """Columns that a model has read: nothing that happens to their frame changes them.

    Made by `readers.hold`, and read like any frame.

    Attributes
    ----------
    table : the columns, on all rows.
    source : where further columns are, or None.  A pandas frame is held by a shallow copy, which
        pandas copies when the frame is written to; other frames may change.

    A pickled copy holds the columns alone.
    """

    table: Table
    source: Any = None

    def __deepcopy__(self, memo: object) -> HeldData:
        return self

    def __reduce__(self) -> tuple[type[HeldData], tuple[Table]]:
        return HeldData, (self.table,)

    def with_column(self, name: str, values: NDArray[np.float64]) -> HeldData:
        """Return these columns and one more, (n,) numbers with NaN where they are missing."""
        columns = {**self.table.columns, name: as_column(name, values).copy()}
        table = Table(
            self.table.n, columns, frozenset(columns), (*self.table.header, name), self.table.index
        )
        return HeldData(table, self.source)


def as_column(name: str, values: Any) -> Column:
    """Read an array, list, pandas Series or extension array as a column called `name`."""
    if type(values) is np.ndarray and values.ndim == 1:
        return _from_array(name, values)
    if isinstance(values, Membership):
        return Column(name, "membership", np.arange(len(values), dtype=np.int32), values)
    if isinstance(values, (pd.Series, pd.Index)):
        values = values.array
    if isinstance(values, pd.Categorical):
        _require_distinct_names(name, values.categories)
        return factor_column(name, values.codes, values.categories, values.ordered)
    if isinstance(values, pd.arrays.NumpyExtensionArray):
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        return masked_column(name, np.asarray(values.filled(0)), mask)
    if not isinstance(values, pd.api.extensions.ExtensionArray):
        given = values
        try:
            values = np.asarray(None if isinstance(given, range) else given)
        except (ValueError, MemoryError):  # rows of different lengths, or ranges without end
            values = np.asarray(None)
        if values.dtype.kind in "US" and not isinstance(given, np.ndarray):
            values = np.asarray(given, dtype=object)  # else a missing value would become text
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise DataError(
                f"column '{name}' has {values.ndim} dimensions: give one value for each row"
            )
        return _from_array(name, values)
    return _from_extension(name, values)


def _from_array(name: str, values: NDArray[Any]) -> Column:
    values = native(values)
    kind = values.dtype.kind
    if kind == "f":
        # one pass decides in the usual case; the squares of finite numbers may still overflow
        missing = None
        if not math.isfinite(square_sum(values)):
            missing = np.isnan(values)
            if not missing.any():
                missing = None
        return Column(name, "number", values, missing=missing)
    if kind in "iu":
        return Column(name, "number", values)
    if kind == "b":
        return Column(name, "bool", values)
    if kind in "Mm":
        missing = np.isnat(values)
        return Column(name, "datetime", values, missing=missing if missing.any() else None)
    if kind in "US":
        return _text(name, values.astype(str).astype(object))
    if kind == "O":
        return _from_objects(name, values)
    raise DataError(
        f"column '{name}' has type {values.dtype}, which no model can use: convert it to a number"
    )


def _from_objects(name: str, values: NDArray[Any]) -> Column:
    try:
        return _of_content(name, values)
    except decimal.InvalidOperation:  # of a number that every operation refuses
        raise DataError(
            f"column '{name}' holds a signaling NaN, Decimal('sNaN'): make it None"
        ) from None


def _of_content(name: str, values: NDArray[Any]) -> Column:
    content = pd.api.types.infer_dtype(values, skipna=True)
    if content in ("string", "empty"):
        return _text(name, values)
    missing = np.asarray(pd.isna(values))
    if content in ("floating", "mixed-integer-float", "decimal"):
        return masked_column(name, np.where(missing, 0, values).astype(np.float64), missing)
    if content == "integer":
        return masked_column(name, _whole_numbers(name, np.where(missing, 0, values)), missing)
    if content == "boolean":
        return masked_column(name, np.where(missing, False, values).astype(bool), missing)
    if content in ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period"):
        return Column(name, "datetime", values, missing=missing if missing.any() else None)
    types = list(dict.fromkeys(type(value) for value in values[~missing].tolist()))
    if types == [uuid.UUID]:
        return _text(name, values)
    if len(types) == 1:
        remedy = "column.str.decode('utf-8')" if types[0] is bytes else "column.astype(str)"
        raise DataError(
            f"column '{name}' holds values of type {types[0].__name__}, which no model can use: "
            f"convert it to numbers or to text first, for example by {remedy}"
        )
    listed = ", ".join(kind.__name__ for kind in types[:4])
    raise DataError(
        f"column '{name}' mixes values of different types ({listed}): "
        f"convert it to numbers or to text first"
    )


def _whole_numbers(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers of any size as the type that holds them exactly."""
    for dtype in (np.int64, np.uint64):
        try:
            return np.asarray(values.astype(dtype))
        except OverflowError:
            continue
    try:
        numbers = values.astype(np.float64)
    except OverflowError:
        raise DataError(
            f"column '{name}' has whole numbers beyond 1e308: convert it to another unit"
        ) from None
    if any(int(number) != value for number, value in zip(numbers, values, strict=True)):
        raise DataError(
            f"column '{name}' has whole numbers of more than 64 bits: "
            f"convert it to text if they are names, or to decimal numbers if they are quantities"
        )
    return np.asarray(numbers)


def _require_distinct_names(name: str, levels: Any) -> None:
    """Refuse categories such as 1 and "1", which could not be told apart by name."""
    if levels.dtype != object or levels.inferred_type in ("string", "empty"):
        return
    labels = level_labels(levels)
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise DataError(
            f"two categories of column '{name}' have the same name '{twice}': rename one of them"
        )


def _from_extension(name: str, values: Any) -> Column:
    kind = getattr(values.dtype, "kind", "O")
    if kind in "iufb":
        missing = np.asarray(values.isna())
        if not missing.any():
            return _from_array(name, np.asarray(values.to_numpy(dtype=_plain_type(values.dtype))))
        filled = values.to_numpy(dtype=_plain_type(values.dtype), na_value=0)
        return masked_column(name, np.asarray(filled), missing)
    if kind in "Mm" or isinstance(values.dtype, (pd.DatetimeTZDtype, pd.PeriodDtype)):
        missing = np.asarray(values.isna())
        return Column(name, "datetime", values, missing=missing if missing.any() else None)
    if pd.api.types.is_string_dtype(values.dtype):
        return _text(name, values)
    return _from_objects(name, np.asarray(values.astype(object)))


def _plain_type(dtype: Any) -> np.dtype[Any]:
    plain = getattr(dtype, "numpy_dtype", None)
    return np.dtype(np.float64) if plain is None or plain.kind not in "iufb" else plain


def masked_column(name: str, values: NDArray[Any], missing: NDArray[np.bool_]) -> Column:
    kind = "bool" if values.dtype.kind == "b" else "number"
    if values.dtype.kind == "f":
        missing = missing | np.isnan(values)
    return Column(name, kind, values, missing=missing if missing.any() else None)


def factor_column(name: str, codes: NDArray[Any], levels: Any, ordered: bool | None) -> Column:
    missing = None
    if codes.size and codes.min() < 0:
        missing = codes < 0
    return Column(name, "factor", codes, levels, bool(ordered), missing)


def _text(name: str, values: Any) -> Column:
    codes, uniques = pd.factorize(values)
    levels = np.asarray(uniques, dtype=object)
    if not all(isinstance(level, str) and level.isascii() for level in levels) and _broken(levels):
        # pandas 2 takes all text that is no Unicode for one
        codes, levels = _told_apart(np.asarray(values, dtype=object))
    return sorted_factor(name, codes, levels)


def _broken(levels: NDArray[Any]) -> bool:
    """Say whether text holds halves of surrogate pairs."""
    try:
        "".join(level for level in levels if isinstance(level, str)).encode()
    except UnicodeEncodeError:
        return True
    return False


def _told_apart(values: NDArray[Any]) -> tuple[IntVector, NDArray[Any]]:
    """Return codes and levels of text as Python compares it; -1 is missing."""
    missing = np.asarray(pd.isna(values)).tolist()
    known: dict[Any, int] = {}
    codes = [
        -1 if gone else known.setdefault(value, len(known))
        for value, gone in zip(values.tolist(), missing, strict=True)
    ]
    levels = np.empty(len(known), dtype=object)
    levels[:] = list(known)
    return np.asarray(codes, dtype=np.int32), levels


def sorted_factor(name: str, codes: NDArray[Any], uniques: NDArray[Any]) -> Column:
    """Return a factor with its levels in sorted order, as R's `factor` does."""
    order = np.argsort(uniques, kind="stable")
    rank = np.empty(order.size + 1, dtype=np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    rank[-1] = -1  # the code -1 of a missing value picks the last entry
    return factor_column(name, rank[codes], uniques[order], False)
