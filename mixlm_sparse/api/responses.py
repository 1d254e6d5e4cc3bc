"""Responses of `lmer_many`: their reading, and the rows in which they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import DataError, MixedModelError, OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.readers import hold
from mixlm_sparse.design.table import HeldData
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.designs import quoted, with_given_response
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

__all__ = ["Pattern", "Responses", "patterns_of", "read_responses"]


@dataclass(frozen=True, eq=False, slots=True)
class Responses:
    """Responses by position: an (n, r) matrix or separate columns; NaN where missing.

    `held` keeps the columns what they were, whatever becomes of their frame.
    """

    names: tuple[str, ...]
    values: Matrix | tuple[Vector, ...]
    trouble: dict[int, str]
    held: HeldData | None = None

    @property
    def n(self) -> int:
        if isinstance(self.values, np.ndarray):
            return int(self.values.shape[0])
        return int(self.values[0].shape[0])

    def column(self, i: int) -> Vector:
        if isinstance(self.values, np.ndarray):
            out: Vector = self.values[:, i]
            return out
        return self.values[i]


def read_responses(formula: str, data: Any, responses: Any) -> Responses:
    """Read responses given as names of columns, a vector, or an (n, r) matrix or frame.

    Raises
    ------
    DataError : they are not numeric, have no such shape, or another index than the data.
    OptionError : no name, or a name twice.
    """
    if isinstance(responses, str):
        responses = [responses]
    by_name = isinstance(responses, Sequence) and all(isinstance(v, str) for v in responses)
    if by_name:
        return _named_responses(data, list(responses))
    names: tuple[str, ...] | None = None
    if isinstance(responses, pd.DataFrame | pd.Series) and isinstance(data, pd.DataFrame):
        if len(responses) == len(data) and not responses.index.equals(data.index):
            raise DataError(
                "the responses have another index than the data: align them, or pass "
                "responses.to_numpy() if the rows are in the same order"
            )
    if isinstance(responses, pd.Series) and responses.name is not None:
        names = (str(responses.name),)
    if isinstance(responses, pd.DataFrame):
        names = tuple(str(c) for c in responses.columns)
    try:
        values = np.array(responses, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, MemoryError):
        raise DataError(
            "the responses are not numeric: give names of columns, or an (n, r) matrix of numbers"
        ) from None
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(
            f"the responses have shape {values.shape}: give names of columns, or an (n, r) matrix "
            "with one column for each response"
        )
    if names is None:
        left = parse_formula(formula, require_response=False).response_name or "y"
        names = tuple(f"{left}{i + 1}" for i in range(values.shape[1]))
    return Responses(names, values, {})


def _named_responses(data: Any, names: list[str]) -> Responses:
    if not names:
        raise OptionError("responses is empty: give at least one name")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OptionError(f"responses names '{twice}' twice: give every name once")
    held = hold(data, names)
    table = held.table
    columns = []
    trouble = {}
    for i, name in enumerate(names):
        quoted(name)
        column = table.columns[name]
        if column.kind not in ("number", "bool"):
            trouble[i] = (
                f"DataError: the response '{name}' must be numeric, but it is a factor or text: "
                "convert it"
            )
            columns.append(np.full(table.n, np.nan))
            continue
        values = column.values.astype(np.float64, copy=False)
        if column.missing is not None:
            values = np.where(column.missing, np.nan, values)
        columns.append(values)
    return Responses(tuple(names), tuple(columns), trouble, held)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The responses that are missing in the same rows, and their common design."""

    members: tuple[int, ...]
    system: PenalizedSystem | None
    call: ModelCall
    message: str


def patterns_of(
    call: ModelCall,
    columns: HeldData,
    given: Responses,
    shared: ModelMatrices,
) -> list[Pattern]:
    """Group the responses by the rows in which they are missing; make a system for each group."""
    used = shared.rows
    groups: dict[bytes, list[int]] = {}
    bad: dict[int, str] = dict(given.trouble)
    for i, name in enumerate(given.names):
        if i in bad:
            continue
        values = given.column(i) if used is None else given.column(i)[used]
        if np.isinf(values).any():
            bad[i] = (
                f"DataError: the response '{name}' has {int(np.isinf(values).sum())} infinite "
                "values: correct them, or make them missing"
            )
            continue
        missing = np.isnan(values)
        key = np.packbits(missing).tobytes() if missing.any() else b""
        groups.setdefault(key, []).append(i)
    out = [Pattern((i,), None, call, message) for i, message in bad.items()]
    for key, members in groups.items():
        out.append(_pattern(call, columns, given, shared if key == b"" else None, members))
    return out


def _pattern(
    call: ModelCall,
    columns: HeldData,
    given: Responses,
    shared: ModelMatrices | None,
    members: list[int],
) -> Pattern:
    try:
        matrices = shared
        if matrices is None:
            matrices, _ = with_given_response(call, given.column(members[0]), "y", columns)
        # products with a response of zeros are not used
        system = penalized_system(matrices, call.options.engine)
    except MixedModelError as error:
        return Pattern(tuple(members), None, call, f"{type(error).__name__}: {error}")
    return Pattern(tuple(members), system, call, "")
