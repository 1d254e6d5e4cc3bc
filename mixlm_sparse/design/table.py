"""Data frames of any kind in, plain NumPy columns out. The only module that imports narwhals.

Only the columns that are asked for are touched. A pandas frame is read directly; polars, pyarrow,
duckdb and the rest come through narwhals; a dictionary of arrays is read as it is.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import IntVector

__all__ = ["Column", "Table", "as_column", "factorize", "level_labels", "open_table"]

# Look-up tables are used for whole-number keys whose range is at most this multiple of the rows.
LOOKUP_RANGE = 4
LOOKUP_MINIMUM = 1_000_000


@dataclass(frozen=True, slots=True)
class Column:
    """One column as arrays.

    Attributes
    ----------
    kind : "number", "bool", "factor" or "datetime".
    values : (n,) numbers or truth values; for a factor, codes into `levels`, -1 where missing.
    levels : values of the levels in their order, for a factor.
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


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that were asked for, and what is known of the frame around them."""

    n: int
    columns: dict[str, Column]
    names: frozenset[str]
    header: Any
    index: Any = None


def open_table(data: Any, names: Iterable[str], optional: Iterable[str] = ()) -> Table:
    """Read the columns `names` of a frame, and those of `optional` that it has.

    Raises
    ------
    DataError : a column does not exist, occurs twice or has a type that no model can use.
    """
    names = tuple(names)
    extra = tuple(name for name in dict.fromkeys(optional) if name not in names)
    if isinstance(data, pd.DataFrame):
        return _open_pandas(data, names, extra)
    if isinstance(data, Mapping):
        return _open_mapping(data, names, extra)
    return _open_narwhals(data, names, extra)


def _open_pandas(data: pd.DataFrame, names: tuple[str, ...], optional: tuple[str, ...]) -> Table:
    header = data.columns
    unique = header.is_unique
    columns = {}
    for name in names + optional:
        if name not in header:
            if name in optional:
                continue
            hint = " (it is in the index: call reset_index() first)" if (
                name in data.index.names
            ) else ""  # fmt: skip
            raise unknown_column(name, header, hint)
        if not unique and int((header == name).sum()) > 1:
            raise DataError(f"the data have more than one column '{name}': rename the others")
        columns[name] = as_column(name, data[name].array)
    return Table(len(data), columns, frozenset(columns), header, data.index)


def _open_mapping(
    data: Mapping[str, Any], names: tuple[str, ...], optional: tuple[str, ...]
) -> Table:
    columns: dict[str, Column] = {}
    for name in names + optional:
        if name not in data:
            if name in optional:
                continue
            raise unknown_column(name, data)
        columns[name] = as_column(name, data[name])
    sizes = {name: len(column.values) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"'{name}' has {size}" for name, size in sizes.items())
        raise DataError(f"the columns have different lengths: {listed}; make them equal")
    if sizes:
        n = next(iter(sizes.values()))
    else:
        n = len(next(iter(data.values()), ()))
    return Table(n, columns, frozenset(columns), tuple(data))


def _open_narwhals(data: Any, names: tuple[str, ...], optional: tuple[str, ...]) -> Table:
    try:
        frame = nw.from_native(data)
    except TypeError:
        raise DataError(
            f"data of type {type(data).__name__} are not a data frame: "
            "pass a pandas, polars, pyarrow or duckdb frame, or a dictionary of arrays"
        ) from None
    header = frame.collect_schema().names()
    for name in names:
        if name not in header:
            raise unknown_column(name, header)
    wanted = list(names) + [name for name in optional if name in header]
    if isinstance(frame, nw.LazyFrame):
        # a query must return at least one column for its rows to be counted
        frame = frame.select(wanted or header[:1]).collect()
    n = frame.shape[0]
    columns = {name: _narwhals_column(name, frame.get_column(name)) for name in wanted}
    return Table(n, columns, frozenset(columns), tuple(header))


def unknown_column(name: str, header: Iterable[Any], hint: str = "") -> DataError:
    """Return the error for a column that does not exist, with the closest names."""
    known = [str(column) for column in header]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    close += [other for other in known if other.lower() == name.lower() and other not in close]
    if close:
        remedy = "did you mean " + " or ".join(f"'{other}'" for other in close) + "?"
    else:
        shown = ", ".join(f"'{other}'" for other in known[:12]) or "none"
        remedy = f"the columns are {shown}{', ...' if len(known) > 12 else ''}"
    return DataError(f"the data have no column '{name}'{hint}; {remedy}")


def as_column(name: str, values: Any) -> Column:
    """Read an array, list, pandas Series or extension array as a column called `name`."""
    if isinstance(values, (pd.Series, pd.Index)):
        values = values.array
    if isinstance(values, pd.Categorical):
        codes = values.codes
        return _factor(name, codes, values.categories, values.ordered)
    if isinstance(values, pd.arrays.NumpyExtensionArray):
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        return _with_missing(name, np.asarray(values.filled(0)), mask)
    if not isinstance(values, pd.api.extensions.ExtensionArray):
        given = values
        values = np.asarray(given)
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
    kind = values.dtype.kind
    if kind == "f":
        # one pass decides in the usual case; the sum of finite numbers may still overflow
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.add.reduce(values)
        missing = None
        if not np.isfinite(total):
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
    content = pd.api.types.infer_dtype(values, skipna=True)
    if content in ("string", "empty"):
        return _text(name, values)
    if content in ("integer", "floating", "mixed-integer-float", "decimal"):
        missing = np.asarray(pd.isna(values))
        filled = np.where(missing, 0, values)
        try:
            numbers = filled.astype(np.int64 if content == "integer" else np.float64)
        except OverflowError:
            numbers = filled.astype(np.float64)
        return _with_missing(name, numbers, missing)
    if content == "boolean":
        missing = np.asarray(pd.isna(values))
        return _with_missing(name, np.where(missing, False, values).astype(bool), missing)
    if content in ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period"):
        missing = np.asarray(pd.isna(values))
        return Column(name, "datetime", values, missing=missing if missing.any() else None)
    raise DataError(
        f"column '{name}' mixes values of different types ({content}): "
        f"convert it to numbers or to text first"
    )


def _from_extension(name: str, values: Any) -> Column:
    kind = getattr(values.dtype, "kind", "O")
    if kind in "iufb":
        missing = np.asarray(values.isna())
        if not missing.any():
            return _from_array(name, np.asarray(values.to_numpy(dtype=_plain_type(values.dtype))))
        filled = values.to_numpy(dtype=_plain_type(values.dtype), na_value=0)
        return _with_missing(name, np.asarray(filled), missing)
    if kind in "Mm" or isinstance(values.dtype, (pd.DatetimeTZDtype, pd.PeriodDtype)):
        missing = np.asarray(values.isna())
        return Column(name, "datetime", values, missing=missing if missing.any() else None)
    if pd.api.types.is_string_dtype(values.dtype):
        return _text(name, values)
    return _from_objects(name, np.asarray(values.astype(object)))


def _plain_type(dtype: Any) -> np.dtype[Any]:
    plain = getattr(dtype, "numpy_dtype", None)
    return np.dtype(np.float64) if plain is None or plain.kind not in "iufb" else plain


def _with_missing(name: str, values: NDArray[Any], missing: NDArray[np.bool_]) -> Column:
    kind = "bool" if values.dtype.kind == "b" else "number"
    if values.dtype.kind == "f":
        missing = missing | np.isnan(values)
    return Column(name, kind, values, missing=missing if missing.any() else None)


def _factor(name: str, codes: NDArray[Any], levels: Any, ordered: bool | None) -> Column:
    missing = None
    if codes.size and codes.min() < 0:
        missing = codes < 0
    return Column(name, "factor", codes, levels, bool(ordered), missing)


def _text(name: str, values: Any) -> Column:
    codes, uniques = pd.factorize(values)
    return _sorted_factor(name, codes, np.asarray(uniques, dtype=object))


def _sorted_factor(name: str, codes: NDArray[Any], uniques: NDArray[Any]) -> Column:
    """Return a factor with its levels in sorted order, as R's `factor` does."""
    order = np.argsort(uniques, kind="stable")
    rank = np.empty(order.size + 1, dtype=np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    rank[-1] = -1  # the code -1 of a missing value picks the last entry
    return _factor(name, rank[codes], uniques[order], False)


def _narwhals_column(name: str, series: Any) -> Column:
    dtype = series.dtype
    if isinstance(dtype, nw.Decimal):
        series = series.cast(nw.Float64)
        dtype = series.dtype
    if dtype == nw.Boolean or dtype.is_numeric():
        missing = None
        if series.null_count():
            missing = np.asarray(series.is_null().to_numpy(), dtype=bool)
            series = series.fill_null(False if dtype == nw.Boolean else 0)
        values = np.asarray(series.to_numpy())
        if missing is None:
            return _from_array(name, values)
        return _with_missing(name, values.astype(bool) if dtype == nw.Boolean else values, missing)
    if dtype in (nw.Categorical, nw.Enum, nw.String):
        return _narwhals_factor(name, series)
    if dtype.is_temporal():
        missing = np.asarray(series.is_null().to_numpy(), dtype=bool)
        values = np.asarray(series.to_numpy())
        return Column(name, "datetime", values, missing=missing if missing.any() else None)
    return as_column(name, np.asarray(series.to_list(), dtype=object))


def _narwhals_factor(name: str, series: Any) -> Column:
    """Read text and categories; only an Enum or a pyarrow dictionary has an order of its own.

    Codes of a polars Categorical depend on what the process has read before, so its levels are
    sorted.
    """
    native = series.to_native()
    if series.implementation.is_polars():
        if series.dtype != nw.Enum:
            levels = sorted(native.unique().drop_nulls().cast(str).to_list())
            series = series.cast(nw.String).cast(nw.Enum(levels))
            native = series.to_native()
        levels = series.dtype.categories
        codes = native.to_physical()
        codes = codes.cast(int).fill_null(-1).to_numpy()
        return _factor(name, codes, np.asarray(levels, dtype=object), False)
    if series.implementation.is_pyarrow():
        encoded = native if series.dtype == nw.Categorical else native.dictionary_encode()
        merged = encoded.unify_dictionaries().combine_chunks()
        if hasattr(merged, "chunks"):  # an empty column stays chunked
            merged = merged.chunk(0)
        # duckdb's codes are unsigned and have no room for -1
        codes = merged.indices.cast("int32").fill_null(-1).to_numpy(zero_copy_only=False)
        values = np.asarray(merged.dictionary.to_pylist(), dtype=object)
        if series.dtype == nw.Categorical:
            return _factor(name, codes, values, merged.type.ordered)
        return _sorted_factor(name, codes.astype(np.intp), values)
    if series.implementation.is_pandas_like():
        return as_column(name, series.to_pandas())
    return as_column(name, np.asarray(series.to_list(), dtype=object))


def factorize(values: Any) -> tuple[IntVector, NDArray[Any]]:
    """Return codes (n,) into the sorted distinct values, and those values.

    Whole numbers in a moderate range go through a look-up table: three passes, no hashing.
    """
    if isinstance(values, np.ndarray) and values.size and values.dtype.kind in "iub":
        keys = values.view(np.int8) if values.dtype.kind == "b" else values
        low, high = int(keys.min()), int(keys.max())
        span = high - low + 1
        if span <= max(LOOKUP_RANGE * values.size, LOOKUP_MINIMUM):
            # differences of small types could overflow; of 64-bit ones they cannot, given the span
            if keys.dtype.itemsize < 8:
                keys = keys.astype(np.int64)
            shifted = keys - keys.dtype.type(low) if low else keys
            present = np.zeros(span, dtype=bool)
            present[shifted] = True
            found = np.flatnonzero(present)
            if found.size == span:
                codes = shifted.astype(np.int32)
            else:
                lookup = np.empty(span, dtype=np.int32)
                lookup[found] = np.arange(found.size, dtype=np.int32)
                codes = lookup[shifted]
            uniques = found + low
            return codes, uniques.astype(bool) if values.dtype.kind == "b" else uniques
    codes, uniques = pd.factorize(values, sort=True)
    return codes.astype(np.int32), np.asarray(uniques)


def level_labels(levels: Any) -> tuple[str, ...]:
    """Return the names of levels: whole numbers without a decimal point, truth as R writes it."""
    return tuple([_label(level) for level in levels])


def _label(level: Any) -> str:
    if isinstance(level, str):
        return level
    if isinstance(level, (bool, np.bool_)):
        return "TRUE" if level else "FALSE"
    if isinstance(level, (float, np.floating)):
        number = float(level)
        return str(int(number)) if number.is_integer() else f"{number:.15g}"
    if isinstance(level, (datetime.date, np.datetime64)):
        return str(pd.Timestamp(level)).removesuffix(" 00:00:00")
    return str(level)
