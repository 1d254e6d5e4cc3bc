"""Designs whose response comes from elsewhere: from a matrix of responses or from a simulation.

The formula then needs no left side, and a column of that name, should there be one, is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.build import ModelMatrices
from mixlm_sparse.design.readers import open_table
from mixlm_sparse.design.rows import RowArgument
from mixlm_sparse.design.table import Column
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.model.run import ModelCall, matrices_of

__all__ = ["columns_of", "right_side", "with_given_response"]


def right_side(formula: str) -> str:
    """Return the formula's text after `~`; the left side may be missing."""
    parsed = parse_formula(formula, require_response=False)
    return parsed.text.split("~", 1)[1].strip()


def quoted(name: str) -> str:
    """Return a column's name as a formula may write it, whatever characters it has."""
    if "`" in name:
        raise FormulaError(f"the column {name!r} has a backtick in its name: rename it")
    return f"`{name}`"


def columns_of(call: ModelCall) -> tuple[dict[str, Any], int]:
    """Return the columns that a call reads, without the response, as arrays; and how many rows.

    Categories keep their order, so that the design is the one that the frame itself gives.
    """
    formula = parse_formula(f"~ {right_side(call.formula)}", require_response=False)
    optional: list[str] = []
    for role, value in (
        ("weights", call.weights), ("offset", call.offset), ("subset", call.subset),
    ):  # fmt: skip
        if isinstance(value, str):
            optional += RowArgument(role, value).possible_names
    names = [name for name in formula.names if name != "pi"]
    optional += [name for name in formula.names if name == "pi"]
    table = open_table(call.data, names, optional)
    for role, value in (
        ("weights", call.weights), ("offset", call.offset), ("subset", call.subset),
    ):  # fmt: skip
        if value is not None and not isinstance(value, str):
            # the columns below have no row labels to compare with any more
            RowArgument(role, value).column(table, table.index)
    return {name: _array(column) for name, column in table.columns.items()}, table.n


def _array(column: Column) -> Any:
    missing = column.missing
    if column.kind == "factor":
        levels = pd.Index(column.levels)
        codes = column.values.astype(np.int64)
        return pd.Categorical.from_codes(codes, levels, ordered=column.ordered)
    if missing is None or column.kind == "datetime":
        return column.values
    if column.kind == "bool":
        return pd.arrays.BooleanArray(column.values.astype(bool), missing)
    return np.where(missing, np.nan, column.values)


def with_given_response(
    call: ModelCall,
    y: Vector | None = None,
    name: str = "y",
    columns: tuple[dict[str, Any], int] | None = None,
) -> tuple[ModelMatrices, ModelCall]:
    """Evaluate the right side of a call's formula beside a response that is given.

    Parameters
    ----------
    call : its formula may lack a left side.
    y : one value for each row of the data, NaN where missing; None stands for zeros.
    name : of the response in the new formula.
    columns : of `columns_of`, if they are at hand.

    Returns
    -------
    matrices, call : the call names the response and holds its column, and can be fitted again.
    """
    found, n = columns_of(call) if columns is None else columns
    while name in found:
        name = f"{name}_"
    data: Mapping[str, Any] = {**found, name: np.zeros(n) if y is None else y}
    complete = replace(
        call, formula=f"{quoted(name)} ~ {right_side(call.formula)}", data=data, response=None
    )
    return matrices_of(complete), complete
