"""Pieces of a recipe to JSON and back: numbers, text and lists only."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.columns import Operand, Part
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.transforms import CubicState, PolyState, ScaleState, SplineState, State
from mixlm_sparse.formula.syntax import Expr, deparse, walk

__all__ = [
    "expressions_by_text",
    "factor_from_dict",
    "factor_to_dict",
    "part_from_dict",
    "part_to_dict",
    "state_from_dict",
    "state_to_dict",
]

_LEVEL_TYPES = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|(datetime|timedelta)64\[\w+\]")
_STATES: dict[str, type[Any]] = {
    "scale": ScaleState,
    "poly": PolyState,
    "spline": SplineState,
    "cubic": CubicState,
}


def expressions_by_text(expressions: Iterable[Expr]) -> dict[str, Expr]:
    """Return all expressions inside of those of a formula, by what R writes for them."""
    return {deparse(node): node for expr in expressions for node in walk(expr)}


def state_to_dict(state: State) -> dict[str, Any]:
    """Return a memorized transform as plain data."""
    kind = next(kind for kind, cls in _STATES.items() if isinstance(state, cls))
    values = {item.name: _plain(getattr(state, item.name)) for item in fields(state)}
    return {"kind": kind, **values}


def state_from_dict(saved: Mapping[str, Any]) -> State:
    """Return the memorized transform of `state_to_dict`."""
    values = {name: value for name, value in saved.items() if name != "kind"}
    for name, value in values.items():
        if isinstance(value, list):
            nested = bool(value) and isinstance(value[0], list)
            values[name] = np.asarray(value, dtype=float) if nested else tuple(value)
    cls = _STATES.get(saved["kind"])
    if cls is None:
        raise DataError(
            f"the saved transform '{saved['kind']}' is unknown: it is of a later version"
        )
    state: State = cls(**values)
    return state


def part_to_dict(part: Part) -> dict[str, Any]:
    """Return the learned columns of a part as plain data."""
    return {
        "intercept": part.intercept,
        "names": list(part.names),
        "assign": list(part.assign),
        "term_labels": list(part.term_labels),
        "places": None if part.places is None else list(part.places),
        "terms": [
            [
                {
                    "variable": deparse(operand.variable),
                    "names": list(operand.names),
                    "levels": list(operand.levels),
                    "table": _plain(operand.table),
                    "as_levels": operand.as_levels,
                }
                for operand in term
            ]
            for term in part.terms
        ],
    }


def part_from_dict(saved: Mapping[str, Any], known: Mapping[str, Expr]) -> Part:
    """Return the part of `part_to_dict`; `known` are the expressions of the formula by text."""
    terms = tuple(
        tuple(
            Operand(
                known[operand["variable"]],
                tuple(operand["names"]),
                tuple(operand["levels"]),
                None if operand["table"] is None else np.asarray(operand["table"], dtype=float),
                operand["as_levels"],
            )
            for operand in term
        )
        for term in saved["terms"]
    )
    return Part(
        saved["intercept"],
        terms,
        tuple(saved["names"]),
        tuple(saved["assign"]),
        tuple(saved["term_labels"]),
        None if saved.get("places") is None else tuple(saved["places"]),
    )


def factor_to_dict(factor: GroupingFactor) -> dict[str, Any]:
    """Return the levels of a grouping factor as plain data; which rows have them is left out."""
    return {
        "label": factor.label,
        "n_levels": factor.n_levels,
        "tables": [_levels_to_plain(table) for table in factor.tables],
        "keys": None if factor.keys is None else factor.keys.tolist(),
    }


def factor_from_dict(saved: Mapping[str, Any]) -> GroupingFactor:
    """Return the grouping factor of `factor_to_dict`, without rows."""
    return GroupingFactor(
        saved["label"],
        np.empty(0, dtype=np.int32),
        saved["n_levels"],
        tuple(_levels_from_plain(table) for table in saved["tables"]),
        None if saved["keys"] is None else np.asarray(saved["keys"], dtype=np.int64),
    )


def _levels_to_plain(levels: Any) -> Any:
    """Return text as a list, other levels with their type; text where the type is an odd one."""
    values = np.asarray(levels)
    if values.dtype.kind in "iufb":
        return {"type": str(values.dtype), "values": values.tolist()}
    if values.dtype.kind in "Mm":
        return {"type": str(values.dtype), "values": values.astype(np.int64).tolist()}
    if len(values) and all(type(value) is datetime.date for value in values):
        return {"type": "date", "values": [value.isoformat() for value in values]}
    return list(level_labels(levels))


def _levels_from_plain(saved: Any) -> NDArray[Any]:
    if isinstance(saved, list):
        if not all(isinstance(value, str) for value in saved):
            raise DataError("the saved levels are not text: the file is damaged")
        return np.asarray(saved, dtype=object)
    kind, values = saved["type"], saved["values"]
    if kind == "date":
        return np.array([datetime.date.fromisoformat(value) for value in values], dtype=object)
    if _LEVEL_TYPES.fullmatch(kind) is None:
        raise DataError(f"the saved levels have the unknown type '{kind}': the file is damaged")
    if kind.startswith(("datetime", "timedelta")):
        return np.asarray(values, dtype=np.int64).astype(kind)
    return np.asarray(values, dtype=kind)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
