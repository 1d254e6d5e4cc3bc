"""Pieces of a recipe to JSON and back: numbers, text and lists only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.columns import Operand, Part
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.table import level_labels
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
    )


def factor_to_dict(factor: GroupingFactor) -> dict[str, Any]:
    """Return the levels of a grouping factor as plain data; which rows have them is left out."""
    return {
        "label": factor.label,
        "n_levels": factor.n_levels,
        "tables": [list(level_labels(table)) for table in factor.tables],
        "keys": None if factor.keys is None else factor.keys.tolist(),
    }


def factor_from_dict(saved: Mapping[str, Any]) -> GroupingFactor:
    """Return the grouping factor of `factor_to_dict`, without rows."""
    return GroupingFactor(
        saved["label"],
        np.empty(0, dtype=np.int32),
        saved["n_levels"],
        tuple(np.asarray(table, dtype=object) for table in saved["tables"]),
        None if saved["keys"] is None else np.asarray(saved["keys"], dtype=np.int64),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
