"""The columns of the data that a fit uses, to numbers and text and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import SavedFitError
from mixlm_sparse.design.contrasts import Contrast, as_contrast
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.membership import Joined, Membership
from mixlm_sparse.design.rows import RowArgument
from mixlm_sparse.design.table import Column, Table
from mixlm_sparse.model.saved.archive import KINDS, Archive, Arrays
from mixlm_sparse.model.saved.members import members_from, members_to

__all__ = [
    "argument_from",
    "argument_to",
    "column_from",
    "column_to",
    "contrasts_from",
    "contrasts_to",
    "frame_from",
    "frame_to",
    "part_of_data",
]

DATE = "date"
TIMES = "Mm"  # kinds of arrays that hold points and spans of time


# ---------------------------------------------------------------------------------------------
# Columns
# ---------------------------------------------------------------------------------------------


def frame_to(table: Table, arrays: Arrays) -> dict[str, Any]:
    """Return what describes the columns; their values are added to `arrays`."""
    columns = [
        column_to(column, f"data.{i}", arrays) for i, column in enumerate(table.columns.values())
    ]
    return {"n": table.n, "columns": columns, "index": _index_to(table.index, arrays)}


def frame_from(saved: Mapping[str, Any], archive: Archive) -> Any:
    """Return the columns as a frame, beside it the memberships that no frame can hold."""
    n = int(saved["n"])
    columns, memberships = {}, {}
    for i, about in enumerate(saved["columns"]):
        if about["kind"] == "membership":
            memberships[about["name"]] = _membership_from(about, f"data.{i}", archive, n)
        else:
            columns[about["name"]] = column_from(about, f"data.{i}", archive, n)
    frame = pd.DataFrame(columns, index=_index_from(saved["index"], archive, n))
    return Joined(frame, memberships) if memberships else frame


def part_of_data(document: Mapping[str, Any], array: str) -> str:
    """Return what an array of a saved fit holds, in words: a column of the data by its name."""
    place, _, rest = array.partition(".")[2].partition(".")
    if array.startswith("data.") and rest and place.isdecimal():
        try:
            name = document["call"]["frame"]["columns"][int(place)]["name"]
        except (LookupError, TypeError, ValueError):  # of a document made by anyone
            return f"the array {array!r:.60}"
        return f"column {name!r:.60} of the data"
    return f"the array {array!r:.60}"


def _membership_to(column: Column, key: str, arrays: Arrays) -> dict[str, Any]:
    given: Membership = column.levels
    arrays |= members_to(given.members[column.values], key)
    about: dict[str, Any] = {"name": column.name, "kind": column.kind, "signed": given.signed}
    labels = np.asarray(given.labels)
    if labels.dtype.kind in KINDS:
        arrays[f"{key}.labels"] = labels
    else:
        about["labels"] = [str(label) for label in level_labels(given.labels)]
    return about


def _membership_from(
    about: Mapping[str, Any], key: str, archive: Archive, n: int
) -> Membership:
    labels = about.get("labels")
    if labels is None:
        labels = archive.array(f"{key}.labels", None)
    labels = np.asarray(labels, dtype=object if isinstance(labels, list) else None)
    members = members_from(key, n, len(labels), archive)
    return Membership(labels, members, signed=bool(about["signed"]))


def column_to(column: Column, key: str, arrays: Arrays) -> dict[str, Any]:
    """Return what describes a column; its values are added to `arrays` under the key."""
    if column.kind == "membership":
        return _membership_to(column, key, arrays)
    values = np.asarray(column.values)
    if column.kind == "datetime" and values.dtype.kind in TIMES:
        arrays[f"{key}.values"] = values.view(np.int64)
        return {"name": column.name, "kind": column.kind, "dtype": values.dtype.str[1:]}
    if column.kind == "datetime" and pd.api.types.infer_dtype(values, skipna=True) == "date":
        days = values.astype("datetime64[D]")
        arrays[f"{key}.values"] = days.view(np.int64)
        return {"name": column.name, "kind": column.kind, "dtype": DATE}
    if column.kind == "datetime":
        column = _as_factor(column)
        values = np.asarray(column.values)
    if values.dtype.kind not in KINDS:
        raise SavedFitError(
            f"column '{column.name}' has type {values.dtype}, which cannot be stored: convert it "
            "to numbers or text and fit again, or save with include_data=False"
        )
    arrays[f"{key}.values"] = values
    if column.missing is not None and column.kind != "factor":
        arrays[f"{key}.missing"] = np.asarray(column.missing, dtype=bool)
    about: dict[str, Any] = {"name": column.name, "kind": column.kind}
    if column.kind == "factor":
        about["ordered"] = column.ordered
        levels = np.asarray(column.levels)
        if levels.dtype.kind in KINDS:
            arrays[f"{key}.levels"] = levels
        else:
            about["levels"] = [str(label) for label in level_labels(column.levels)]
    return about


def _as_factor(column: Column) -> Column:
    """Return times as a factor of their names, in their order."""
    codes, levels = pd.factorize(np.asarray(column.values), sort=True)
    return Column(column.name, "factor", codes, level_labels(levels))


def column_from(about: Mapping[str, Any], key: str, archive: Archive, n: int) -> Any:
    """Return the values (n,) of the column of `column_to` as a frame has them."""
    values = archive.array(f"{key}.values", n)
    if about["kind"] == "datetime":
        is_date = about["dtype"] == DATE  # datetime.date, which pandas keeps as objects
        dtype = np.dtype("M8[D]" if is_date else about["dtype"])
        if dtype.kind not in TIMES or values.dtype != np.int64:
            raise archive.broken(f"column {about['name']!r:.40} holds no times")
        times = values.view(dtype)
        return times.astype(object) if is_date else times
    if about["kind"] == "factor":
        levels = about.get("levels")
        if levels is None:
            levels = archive.array(f"{key}.levels", None)
        return pd.Categorical.from_codes(values, pd.Index(levels), ordered=bool(about["ordered"]))
    if f"{key}.missing" not in archive:
        return values
    missing = archive.array(f"{key}.missing", n)
    if values.dtype.kind == "f":
        return np.where(missing, np.nan, values)
    if values.dtype.kind == "b":
        return pd.arrays.BooleanArray(values, missing)
    return pd.arrays.IntegerArray(values, missing)


def _index_to(index: Any, arrays: Arrays) -> dict[str, Any] | None:
    """Return what describes row labels that are numbers or text; others are left out."""
    if not isinstance(index, pd.Index) or isinstance(index, pd.RangeIndex | pd.MultiIndex):
        return None
    name = index.name if isinstance(index.name, str) else None
    values = index.to_numpy()
    if values.dtype.kind in KINDS:
        arrays["data.index"] = values
        return {"name": name}
    labels = index.to_list()
    if all(isinstance(label, str) for label in labels):
        return {"name": name, "labels": labels}
    return None


def _index_from(saved: Mapping[str, Any] | None, archive: Archive, n: int) -> pd.Index[Any]:
    if saved is None:
        return pd.RangeIndex(n)
    labels = saved.get("labels")
    if labels is None:
        labels = archive.array("data.index", n)
    index: pd.Index[Any] = pd.Index(labels, name=saved["name"])
    return index


# ---------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------


def argument_to(role: str, value: Any, table: Table, arrays: Arrays) -> Any:
    """Return a string as it is; an array is added to `arrays`, aligned with the rows."""
    if value is None or isinstance(value, str):
        return value
    column = RowArgument(role, value).column(table, table.index)
    return {"array": column_to(column, f"argument.{role}", arrays)}


def argument_from(role: str, saved: Any, archive: Archive, n: int) -> Any:
    """Return the argument of `argument_to`."""
    if saved is None or isinstance(saved, str):
        return saved
    return column_from(saved["array"], f"argument.{role}", archive, n)


def contrasts_to(contrasts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the choices of contrasts as plain data."""
    if not contrasts:
        return None
    out = {}
    for factor, choice in contrasts.items():
        contrast = as_contrast(factor, choice)
        out[str(factor)] = {
            "kind": contrast.kind,
            "reference": contrast.reference,
            "matrix": None if contrast.matrix is None else contrast.matrix.tolist(),
            "names": list(contrast.names),
            "rows": None if contrast.rows is None else list(contrast.rows),
        }
    return out


def contrasts_from(saved: Mapping[str, Any] | None) -> dict[str, Contrast] | None:
    """Return the choices of `contrasts_to`."""
    if saved is None:
        return None
    return {
        factor: Contrast(
            about["kind"],
            about["reference"],
            None if about["matrix"] is None else np.asarray(about["matrix"], dtype=np.float64),
            tuple(about["names"]),
            None if about["rows"] is None else tuple(about["rows"]),
        )
        for factor, about in saved.items()
    }
