"""Responses of `lmer_many`: their reading, and the rows in which they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mixlm_sparse.common.checks import require_array, require_sound
from mixlm_sparse.common.errors import DataError, MixedModelError, OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.finite import square_sum
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.readers import hold
from mixlm_sparse.design.table import HeldData
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.designs import quoted, with_given_response
from mixlm_sparse.solve.derived.other_response import ResponseColumns, not_finite
from mixlm_sparse.solve.derived.sparse_response import stored_column
from mixlm_sparse.solve.optimize import require_rank
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

__all__ = ["Pattern", "Responses", "patterns_of", "read_responses"]


@dataclass(frozen=True, eq=False, slots=True)
class Responses:
    """Responses by position: an (n, r) matrix, dense or sparse, or separate columns.

    NaN where missing.

    `held` keeps the columns what they were, whatever becomes of their frame.
    """

    names: tuple[str, ...]
    values: Matrix | sp.csc_array | tuple[Vector, ...]
    trouble: dict[int, str]
    held: HeldData | None = None

    @property
    def n(self) -> int:
        if isinstance(self.values, tuple):
            return int(self.values[0].shape[0])
        return int(self.values.shape[0])

    @property
    def stored(self) -> int | None:
        """Elements that a sparse response stores on average; None for dense ones."""
        if isinstance(self.values, sp.csc_array):
            return 1 + self.values.nnz // max(self.values.shape[1], 1)
        return None

    def column(self, i: int) -> Vector:
        if isinstance(self.values, np.ndarray):
            out: Vector = self.values[:, i]
            return out
        if isinstance(self.values, sp.csc_array):
            return stored_column(self.values, i)
        return self.values[i]

    def block(self, members: Sequence[int], used: np.ndarray | None) -> ResponseColumns:
        """Return the responses `members` in the rows `used` (None: all), (rows, len(members))."""
        if isinstance(self.values, sp.csc_array):
            stored = sp.csc_array(self.values[:, list(members)])
            return stored if used is None else sp.csc_array(stored[used])
        if isinstance(self.values, np.ndarray):
            Y = self.values[:, list(members)]
        else:
            Y = np.column_stack([self.values[i] for i in members])
        return Y if used is None else Y[used]


def read_responses(formula: str, data: Any, responses: Any) -> Responses:
    """Read responses given as names of columns, a vector, or an (n, r) matrix or frame.

    Raises
    ------
    DataError : they are not numeric, or have no such shape.
    OptionError : no name, or a name twice.
    """
    if isinstance(responses, str):
        responses = [responses]
    by_name = isinstance(responses, Sequence) and all(isinstance(v, str) for v in responses)
    if by_name:
        return _named_responses(data, list(responses))
    names: tuple[str, ...] | None = None
    if isinstance(responses, pd.Series) and responses.name is not None:
        names = (str(responses.name),)
    listed = getattr(responses, "column_names", getattr(responses, "columns", None))
    if not sp.issparse(responses) and listed is not None:  # a frame of any library
        names = tuple(str(c) for c in listed)
    if sp.issparse(responses) or _all_sparse(responses):
        stored = _stored(responses)
        return Responses(names or _numbered(formula, stored.shape[1]), stored, {})
    if isinstance(responses, pd.DataFrame) and _nullable(responses):
        responses = responses.to_numpy(np.float64, na_value=np.nan)
    remedy = "give names of columns, or an (n, r) matrix of numbers"
    values = require_array("responses", responses, remedy, DataError).copy()
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(
            f"the responses have shape {values.shape}: give names of columns, or an (n, r) matrix "
            "with one column for each response"
        )
    return Responses(names or _numbered(formula, values.shape[1]), values, {})


def _numbered(formula: str, r: int) -> tuple[str, ...]:
    """Return names y1, ..., yr, after the left side if there is one."""
    left = parse_formula(formula, require_response=False).response_name or "y"
    return tuple(f"{left}{i + 1}" for i in range(r))


def _all_sparse(responses: Any) -> bool:
    """Say whether a frame keeps all its columns sparse, with zero as what is not stored."""
    return isinstance(responses, pd.DataFrame) and bool(len(responses.columns)) and all(
        isinstance(dtype, pd.SparseDtype) and dtype.fill_value == 0 for dtype in responses.dtypes
    )


def _nullable(responses: pd.DataFrame) -> bool:
    """Say whether a frame of numbers keeps some of them with pd.NA for what is missing."""
    return all(map(pd.api.types.is_numeric_dtype, responses.dtypes)) and any(
        map(pd.api.types.is_extension_array_dtype, responses.dtypes)
    )


def _stored(responses: Any) -> sp.csc_array:
    """Return sparse responses by columns, copied, numbers as they are stored."""
    if isinstance(responses, pd.DataFrame):
        responses = responses.sparse.to_coo()  # type: ignore[attr-defined]
    if responses.ndim != 2 or not responses.shape[1]:
        raise DataError(
            f"the responses have shape {responses.shape}: give an (n, r) sparse matrix with one "
            "column for each response"
        )
    if responses.dtype.kind not in "biuf":
        raise DataError(
            f"the responses are a sparse matrix of {responses.dtype}: give one of numbers"
        )
    require_sound("responses", responses)
    out = sp.csc_array(responses, copy=True)
    if not out.has_canonical_format:  # elements that stand twice are their sum
        out = out.astype(np.float64)
        out.sum_duplicates()
    return out


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
    suspects: Sequence[int] = range(len(given.names))
    if isinstance(given.values, sp.csc_array):
        suspects = np.flatnonzero(not_finite(given.values)).tolist()
        clean = np.setdiff1d(np.arange(len(given.names)), suspects).tolist()
        if clean:
            groups[b""] = clean
    elif isinstance(given.values, np.ndarray) and given.values.dtype == np.float64:
        with np.errstate(invalid="ignore", over="ignore"):
            fine = np.isfinite(np.einsum("ij,ij->j", given.values, given.values))
        suspects = np.flatnonzero(~fine).tolist()
        if fine.any():
            groups[b""] = np.flatnonzero(fine).tolist()
    for i in suspects:
        name = given.names[i]
        if i in bad:
            continue
        values = given.column(i) if used is None else given.column(i)[used]
        if np.isfinite(square_sum(values)):  # most often nothing is wrong
            groups.setdefault(b"", []).append(i)
            continue
        if np.isinf(values).any():
            bad[i] = (
                f"DataError: the response '{name}' has {int(np.isinf(values).sum())} infinite "
                "values: correct them, or make them missing"
            )
            continue
        missing = np.isnan(values)
        if not np.isfinite(square_sum(np.where(missing, 0.0, values))):
            bad[i] = (
                f"DataError: the squares of the response '{name}' leave the range of numbers: use "
                "another unit"
            )
            continue
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
        system = penalized_system(
            matrices, call.options.engine, estimation=call.options.control.estimation
        )
        require_rank(system, call.options.control)
    except MixedModelError as error:
        return Pattern(tuple(members), None, call, f"{type(error).__name__}: {error}")
    return Pattern(tuple(members), system, call, "")
