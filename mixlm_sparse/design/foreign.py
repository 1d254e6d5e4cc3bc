"""Frames of polars, pyarrow, duckdb and others. The only module that imports narwhals.

Loaded where there is such a frame: narwhals takes longer to load than a small fit takes.
"""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.headers import unknown_column
from mixlm_sparse.design.table import (
    Column,
    Table,
    as_column,
    factor_column,
    masked_column,
    sorted_factor,
)

__all__ = ["open_foreign"]


def open_foreign(data: Any, names: tuple[str, ...], optional: tuple[str, ...]) -> Table:
    """Read the columns `names` of a frame that narwhals knows, and those of `optional` it has.

    Raises
    ------
    DataError : it knows no such data, or a column does not exist or occurs twice.
    """
    try:
        frame = nw.from_native(data)
        header = frame.collect_schema().names()
    except nw.exceptions.DuplicateError:
        raise DataError("the data have two columns of one name: rename one of them") from None
    except TypeError:
        remedy = "pass a pandas, polars, pyarrow or duckdb frame, or a dictionary of arrays"
        if type(data).__name__ == "Series":
            remedy = "a row is data.loc[[label]], a column data[['name']]; or " + remedy
        raise DataError(
            f"data of type {type(data).__name__} are not a data frame: {remedy}"
        ) from None
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


def _narwhals_column(name: str, series: Any) -> Column:
    dtype = series.dtype
    if isinstance(dtype, nw.Decimal):
        series = series.cast(nw.Float64)
        dtype = series.dtype
    if dtype in (nw.Int128, nw.UInt128):  # NumPy has no such type
        return as_column(name, np.asarray(series.to_list(), dtype=object))
    if dtype == nw.Boolean or dtype.is_numeric():
        missing = None
        if series.null_count():
            missing = np.asarray(series.is_null().to_numpy(), dtype=bool)
            series = series.fill_null(False if dtype == nw.Boolean else 0)
        values = np.asarray(series.to_numpy())
        if missing is None:
            return as_column(name, values)
        return masked_column(name, values.astype(bool) if dtype == nw.Boolean else values, missing)
    if dtype in (nw.Categorical, nw.Enum, nw.String):
        return _narwhals_factor(name, series)
    if dtype.is_temporal():
        missing = np.asarray(series.is_null().to_numpy(), dtype=bool)
        values = np.asarray(series.to_numpy())
        return Column(name, "datetime", values, missing=missing if missing.any() else None)
    if dtype.is_nested():
        raise DataError(
            f"column '{name}' holds lists or records, which no model can use: give one number or "
            "text for each row"
        )
    return as_column(name, np.asarray(series.to_list(), dtype=object))


def _narwhals_factor(name: str, series: Any) -> Column:
    """Read text and categories; only an Enum or a pyarrow dictionary has an order of its own.

    Codes of a polars Categorical depend on what the process has read before, so its levels are
    sorted.
    """
    native = series.to_native()
    if series.implementation.is_polars():
        declared = True
        if series.dtype != nw.Enum:
            texts = sorted(native.unique().drop_nulls().cast(str).to_list())
            series = series.cast(nw.String).cast(nw.Enum(texts))
            native = series.to_native()
            declared = False
        levels = np.asarray(series.dtype.categories, dtype=object)
        codes = native.to_physical()
        codes = codes.cast(int).fill_null(-1).to_numpy()
        return factor_column(name, codes, pd.Index(levels) if declared else levels, False)
    if series.implementation.is_pyarrow():
        encoded = native if series.dtype == nw.Categorical else native.dictionary_encode()
        merged = encoded.unify_dictionaries().combine_chunks()
        if hasattr(merged, "chunks"):  # an empty column stays chunked
            merged = merged.chunk(0)
        # duckdb's codes are unsigned and have no room for -1
        codes = merged.indices.cast("int32").fill_null(-1).to_numpy(zero_copy_only=False)
        values = np.asarray(merged.dictionary.to_pylist(), dtype=object)
        if series.dtype == nw.Categorical:
            return factor_column(name, codes, pd.Index(values), merged.type.ordered)
        return sorted_factor(name, codes.astype(np.intp), values)
    if series.implementation.is_pandas_like():
        return as_column(name, series.to_pandas())
    return as_column(name, np.asarray(series.to_list(), dtype=object))
