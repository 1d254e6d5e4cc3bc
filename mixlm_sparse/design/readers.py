"""Data frames of any kind in, a table of columns out.

Only the columns that are asked for are touched. A pandas frame is read directly; polars, pyarrow,
duckdb and the rest come through narwhals (see `foreign`); a dictionary of arrays is read as it is,
a list of dictionaries is a list of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed, require_same_index
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.headers import repeated_column, unknown_column
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.membership import Joined
from mixlm_sparse.design.table import Column, HeldData, Table, as_column, own_index

__all__ = ["hold", "open_table"]


def open_table(data: Any, names: Iterable[str], optional: Iterable[str] = ()) -> Table:
    """Read the columns `names` of a frame, and those of `optional` that it has.

    Raises
    ------
    DataError : a column does not exist, occurs twice or has a type that no model can use.
    """
    names, data = tuple(names), _records(data)
    extra = tuple(name for name in dict.fromkeys(optional) if name not in names)
    if isinstance(data, HeldData):
        return _open_held(data, names, extra)
    if isinstance(data, Joined):
        return _open_joined(data, names, extra)
    if isinstance(data, pd.DataFrame):
        return _open_pandas(data, names, extra)
    if isinstance(data, Mapping):
        return _open_mapping(data, names, extra)
    from mixlm_sparse.design.foreign import open_foreign  # narwhals takes longer than a small fit

    return open_foreign(data, names, extra)


def hold(data: Any, names: Iterable[str], optional: Iterable[str] = ()) -> HeldData:
    """Read columns as `open_table` does, for a model that is to keep them.

    They are copied: pandas' copy-on-write does not guard a frame that stands on a NumPy array or an
    Arrow table of the user's (`pd.DataFrame(array, copy=False)`).
    """
    data = _records(data)
    if isinstance(data, HeldData):
        names, optional = tuple(names), tuple(optional)
        if all(name in data.table.columns for name in names + optional):
            return data
        found = open_table(data, names, optional)
        if found.columns.keys() <= data.table.columns.keys():
            return data
        columns = {**data.table.columns, **found.columns}
        table = Table(found.n, columns, frozenset(columns), found.header, found.index)
        return HeldData(table, data.source)
    if isinstance(data, Joined):
        data = Joined(hold(data.data, ()), data.memberships)
    table = open_table(data, names, optional)
    columns = {name: column.copy() for name, column in table.columns.items()}
    source = dict(data) if type(data) is dict else data
    if isinstance(data, pd.DataFrame) and _copies_on_write():
        source = data.copy(deep=False)  # further columns stay what they are as well
    index = None if table.index is None else own_index(table.index)
    return HeldData(Table(table.n, columns, table.names, table.header, index), source)


def _records(data: Any) -> Any:
    """Return a list of rows, each a dictionary, as a frame; other data as they are."""
    if isinstance(data, list | tuple) and data and all(isinstance(row, Mapping) for row in data):
        return pd.DataFrame(data)
    return data


ALWAYS_COPIES_ON_WRITE = int(pd.__version__.partition(".")[0]) >= 3


def _copies_on_write() -> bool:
    if ALWAYS_COPIES_ON_WRITE:
        return True
    return pd.get_option("mode.copy_on_write") is True


def _open_held(data: HeldData, names: tuple[str, ...], optional: tuple[str, ...]) -> Table:
    held = data.table
    asked = [name for name in names + optional if name in held.columns]
    columns = {name: held.columns[name] for name in asked}
    absent = [name for name in names if name not in columns]
    others = [name for name in optional if name not in columns]
    if data.source is None:
        if absent:
            hint = " among those that the fit has kept (pass data= for others)"
            raise unknown_column(absent[0], held.columns, hint)
    elif absent or others:
        further = open_table(data.source, absent, others)
        if further.columns:
            _require_unchanged(data, next(iter(further.columns)))
        columns |= {name: column.copy() for name, column in further.columns.items()}
    columns = {name: columns[name] for name in names + optional if name in columns}
    return Table(held.n, columns, frozenset(columns), held.header, held.index)


def _index_hint(name: str, index: Any) -> str:
    """Say that a name is one of the row labels, of which a model knows nothing."""
    there = isinstance(index, pd.Index) and name in index.names
    return " (it is in the index: call reset_index() first)" if there else ""


def _require_unchanged(data: HeldData, wanted: str) -> None:
    """Raise a DataError if the columns held are not those of the source any more."""
    try:
        now = open_table(data.source, data.table.columns)
    except DataError:
        now = None
    if (
        now is None
        or now.n != data.table.n
        or not all(
            _equal(now.columns[name], column) for name, column in data.table.columns.items()
        )
    ):
        raise DataError(
            f"the data have changed since the model was fitted, so that their column '{wanted}' "
            "cannot be put beside those that the fit keeps: pass data="
        )


def _equal(a: Column, b: Column) -> bool:
    if (a.missing is None) != (b.missing is None):
        return False
    if a.missing is None or b.missing is None:
        return np.array_equal(a.values, b.values)
    there = ~b.missing
    return np.array_equal(a.missing, b.missing) and np.array_equal(a.values[there], b.values[there])


def _open_joined(data: Joined, names: tuple[str, ...], optional: tuple[str, ...]) -> Table:
    """Read the columns of a frame, and memberships beside it."""
    own = data.memberships
    rest = [name for name in names if name not in own]
    table = open_table(data.data, rest, [name for name in optional if name not in own])
    columns = dict(table.columns)
    for name in names + optional:
        if name not in own:
            continue
        given = own[name]
        if len(given) != table.n:
            raise DataError(
                f"membership['{name}'] has {len(given)} rows, and the data have {table.n}: give a "
                "row of weights for each row of the data"
            )
        if given.index is not None:
            require_same_index(
                f"membership['{name}']", pd.DataFrame(index=given.index), table.index
            )
        columns[name] = as_column(name, given)
    columns = {name: columns[name] for name in names + optional if name in columns}
    header = tuple(dict.fromkeys([*table.header, *own]))
    return Table(table.n, columns, frozenset(columns), header, table.index)


def _open_pandas(data: pd.DataFrame, names: tuple[str, ...], optional: tuple[str, ...]) -> Table:
    header = data.columns
    if header.nlevels > 1:
        raise DataError(
            f"the columns of the data have {header.nlevels} levels of names: make one of them, for "
            "example by data.columns = ['_'.join(map(str, name)) for name in data.columns]"
        )
    unique = header.is_unique
    array_at = _column_arrays(data) if unique else None
    columns = {}
    numbered: dict[str, Any] | None = None
    for name in names + optional:
        if array_at is not None:
            try:
                place = header.get_loc(name)
            except KeyError:
                pass
            else:
                columns[name] = as_column(name, array_at(place))
                continue
        if name not in header and numbered is None:
            # a column may be called by a number: `2` in the formula stands for it
            others = [column for column in header if not isinstance(column, str)]
            numbered = dict(zip(level_labels(others), others, strict=True))
        if numbered and name in numbered and name not in header:
            columns[name] = as_column(name, data[numbered[name]].array)
            continue
        if name not in header:
            if name in optional:
                continue
            raise unknown_column(name, header, _index_hint(name, data.index))
        if not unique and int((header == name).sum()) > 1:
            raise repeated_column(name)
        columns[name] = as_column(name, data[name].array)
    return Table(len(data), columns, frozenset(columns), header, data.index)


def _column_arrays(data: pd.DataFrame) -> Callable[[Any], Any] | None:
    """Return what gives a column's array by its place; None where `data[name]` has to.

    A Series takes pandas 25 us, all that is done before the search of a small model 500.
    """
    read = getattr(data, "_get_column_array", None)  # internal: may go, and then Series do
    if read is None or type(data) is not pd.DataFrame:
        return None

    def array_at(place: Any) -> Any:
        values = read(place)
        if isinstance(values, np.ndarray):
            values = values.view()
            values.flags.writeable = False  # as pandas guards what it hands out
        return values

    return array_at


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
    index = _common_index({name: data[name] for name in columns})
    sizes = {name: len(column.values) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        lengths = listed(f"'{name}' has {size}" for name, size in sizes.items())
        raise DataError(f"the columns have different lengths: {lengths}; make them equal")
    if sizes:
        n = next(iter(sizes.values()))
    else:
        n = len(next(iter(data.values()), ()))
    return Table(n, columns, frozenset(columns), tuple(data), index)


def _common_index(values: Mapping[str, Any]) -> Any:
    """Return the index that the Series of a dictionary share, None if there is none."""
    series = {name: value for name, value in values.items() if isinstance(value, pd.Series)}
    first = next(iter(series), None)
    for name, value in series.items():
        if first is not None and not value.index.equals(series[first].index):
            raise DataError(
                f"the columns '{first}' and '{name}' are Series with different indexes: make a "
                f"DataFrame of the dictionary, which aligns them, or give {name}.to_numpy() if the "
                "rows are in the same order"
            )
    return None if first is None else series[first].index
