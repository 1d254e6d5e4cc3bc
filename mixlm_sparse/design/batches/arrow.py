"""Arrow in, columns out. The only module that imports pyarrow.

Numbers without missing cells are read where they lie; text is encoded by Arrow, so that no row
becomes a Python object.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, MissingPackageError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.table import Column, as_column, masked_column

__all__ = [
    "TextLevels", "arrow", "column_of", "is_text", "kind_of", "mark_texts", "marked_texts",
    "readable", "text_positions",
]  # fmt: skip

TEXTS = b"mixlm_sparse.text"


def arrow(module: str = "") -> Any:
    """Return pyarrow, or one of its modules.

    Raises
    ------
    MissingPackageError : it is not installed.
    """
    try:
        return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ImportError as error:
        raise MissingPackageError(
            "data in batches of this kind are read by pyarrow: pip install pyarrow"
        ) from error


class TextLevels:
    """Distinct texts of a batch, held by Arrow; they become Python objects only if asked for.

    Parameters
    ----------
    values : pyarrow array of texts without missing ones.
    declared : whether the data give them an order of their own (a dictionary, an Enum).
    """

    dtype = np.dtype(object)

    def __init__(self, values: Any, declared: bool) -> None:
        self.values = values
        self.declared = declared

    @cached_property
    def texts(self) -> NDArray[Any]:
        """The texts as Python objects."""
        return np.asarray(self.values.to_pylist(), dtype=object)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: Any) -> Any:
        return self.texts[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts.tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.texts


def kind_of(dtype: Any) -> str:
    """Return what a column of an Arrow type is to a model: number, bool, text, ... or ""."""
    types = arrow("types")
    if types.is_dictionary(dtype):
        return kind_of(dtype.value_type)
    if types.is_boolean(dtype):
        return "bool"
    if types.is_integer(dtype) or types.is_floating(dtype) or types.is_decimal(dtype):
        return "number"
    if is_text(dtype):
        return "text"
    if types.is_temporal(dtype):
        return "datetime"
    return "null" if types.is_null(dtype) else ""


def is_text(dtype: Any) -> bool:
    """Say whether an Arrow type is that of text."""
    return re.fullmatch(r"(large_)?(string|utf8)(_view)?", str(dtype)) is not None


def column_of(name: str, values: Any, *, declared: bool = True) -> Column:
    """Return an Arrow array, in one piece, as a column.

    Parameters
    ----------
    declared : whether the order of a dictionary is meant; it is not where the reader made it.

    Raises
    ------
    DataError : its type is one that no model can use.
    """
    pa = arrow()
    dtype = values.type
    kind = kind_of(dtype)
    if pa.types.is_dictionary(dtype):
        return _factor(name, values, declared)
    if kind == "text":
        if str(dtype).endswith("view"):
            values = values.cast(pa.large_string())
        return _factor(name, values.dictionary_encode(), declared=False)
    if kind == "null":
        return Column(name, "number", np.zeros(len(values)), missing=np.ones(len(values), bool))
    if kind == "":
        raise DataError(
            f"column '{name}' has type {dtype}, which no model can use: convert it to a number or "
            "to text"
        )
    if pa.types.is_decimal(dtype):
        values = values.cast(pa.float64())
    elif str(dtype) == "halffloat":  # which older versions cast to nothing
        absent = np.asarray(values.is_null().to_numpy(zero_copy_only=False), dtype=bool)
        halves = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
        values = pa.array(halves, mask=absent if values.null_count else None)
    missing = None
    if values.null_count:
        missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if kind == "datetime":
        zone = pa.types.is_timestamp(dtype) and dtype.tz is not None
        times = _with_zone(values) if zone else values.to_numpy(zero_copy_only=False)
        return Column(name, "datetime", times, missing=missing)
    if missing is None:
        return as_column(name, values.to_numpy(zero_copy_only=False))
    filled = values.fill_null(False if kind == "bool" else 0)
    return masked_column(name, filled.to_numpy(zero_copy_only=False), missing)


def _with_zone(values: Any) -> NDArray[Any]:
    """Return times of a zone as pandas has them, one object for each distinct time."""
    encoded = values.dictionary_encode()
    distinct = np.empty(len(encoded.dictionary) + 1, dtype=object)
    distinct[:-1] = list(encoded.dictionary.to_pandas())
    codes = encoded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)
    out: NDArray[Any] = distinct[codes]
    return out


def _factor(name: str, encoded: Any, declared: bool) -> Column:
    pa = arrow()
    indices, values = encoded.indices, encoded.dictionary
    missing = None
    if indices.null_count:
        missing = np.asarray(indices.is_null().to_numpy(zero_copy_only=False), dtype=bool)
        indices = indices.cast(pa.int32()).fill_null(-1)
    codes = indices.cast(pa.int32()).to_numpy(zero_copy_only=False)
    if values.null_count:  # a missing cell may also stand in the dictionary
        absent = np.asarray(values.is_null().to_numpy(zero_copy_only=False), dtype=bool)
        places = np.append(np.where(absent, -1, np.cumsum(~absent) - 1), -1).astype(np.int32)
        codes, values = places[codes], values.drop_null()
        missing = codes < 0
    levels: Any
    if kind_of(values.type) == "text":
        if str(values.type).endswith("view"):
            values = values.cast(pa.large_string())
        levels = TextLevels(values, declared)
    else:
        levels = column_of(name, values).values
        if declared and levels.dtype.kind in "iuf":
            levels = pd.Index(levels)  # categories of numbers, in the order of the data
    return Column(name, "factor", codes, levels, bool(encoded.type.ordered), missing)


def mark_texts(batch: Any, names: frozenset[str]) -> Any:
    """Return a batch that says which of its dictionaries are text without an order of its own."""
    if not names:
        return batch
    return batch.replace_schema_metadata({TEXTS: json.dumps(sorted(names)).encode()})


def marked_texts(batch: Any) -> frozenset[str]:
    """Return the names that `mark_texts` has left."""
    found = (batch.schema.metadata or {}).get(TEXTS, b"[]")
    return frozenset(json.loads(found))


def text_positions(known: Any, wanted: Any) -> IntVector:
    """Return the place of each text of `wanted` among `known`, -1 where it is not there."""
    pa, compute = arrow(), arrow("compute")
    if wanted.type != known.type:
        wanted = wanted.cast(known.type)
    found = compute.index_in(wanted, value_set=known)
    places: IntVector = found.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
    return places


def readable(error: Exception) -> str:
    """Return the first line of an Arrow error."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"

