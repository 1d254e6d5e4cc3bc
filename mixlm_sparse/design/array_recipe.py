"""New rows for a fit that was made from matrices: arrays by name, or a frame with named columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from mixlm_sparse.common.checks import listed, require_array
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.design.columns import INTERCEPT, ArrayColumns
from mixlm_sparse.design.grouping import (
    GroupingFactor,
    match_levels,
    member_factor,
    placed_members,
)
from mixlm_sparse.design.levels import factorize, level_labels
from mixlm_sparse.design.members import RowLevels
from mixlm_sparse.design.membership import signed_membership
from mixlm_sparse.design.recipe import EvaluatedDesign
from mixlm_sparse.design.table import Column, as_column

__all__ = ["ArrayRecipe", "ArrayTerm"]


@dataclass(frozen=True, slots=True)
class ArrayTerm:
    """A random term: its name, its columns, and the index of its grouping factor."""

    name: str
    factor: int
    column_names: tuple[str, ...]


@dataclass(frozen=True)
class ArrayRecipe:
    """Recipe of a fit of matrices.

    New rows are ``{"X": X, "Subject": labels}``: the fixed part, (n, p), and the labels of each
    grouping factor by its name.  The columns of a term (not of an intercept) are ``"Z.Subject"``,
    or those of X that have their names.  A frame with all columns by their names serves too.

    Attributes
    ----------
    names : columns of the fixed part.
    terms, factors : random terms, and the grouping factors with the levels of the fit.
    has_offset : the fit had an offset, so that new rows need one.
    """

    names: tuple[str, ...]
    terms: tuple[ArrayTerm, ...]
    factors: tuple[GroupingFactor, ...]
    has_offset: bool = False

    @property
    def offset_name(self) -> str | None:
        """No column is known for the offset."""
        return None

    def without_offset(self) -> ArrayRecipe:
        """Return the recipe that needs no offset."""
        return replace(self, has_offset=False)

    def evaluate(
        self,
        data: Any,
        *,
        fixed: bool = True,
        terms: Sequence[int] | None = None,
        response: bool = False,
        weights: bool = False,
        offset: bool = True,
        offset_values: Any = None,
    ) -> EvaluatedDesign:
        """Read new rows; see `FormulaRecipe.evaluate`."""
        if response or weights:
            raise DataError("a fit of matrices knows no column of the response or the weights")
        wanted = tuple(range(len(self.terms))) if terms is None else tuple(terms)
        data = _by_name(data)
        if not isinstance(data, Mapping | pd.DataFrame):
            raise DataError(
                f"new rows for a fit of matrices are a dictionary of arrays such as "
                f"{self._example()}, or a DataFrame; not {type(data).__name__}"
            )
        X = self._fixed(data) if fixed else None
        Z = {t: self._random(t, data, X) for t in wanted}
        groups = {
            g: self._labels(g, data) for g in dict.fromkeys(self.terms[t].factor for t in wanted)
        }
        offsets = self._offset(offset, offset_values)
        sizes = {len(block) for block in (X, *Z.values()) if block is not None}
        sizes |= {len(column.values) for column in groups.values()}
        sizes |= {offsets.size} if offsets is not None else set()
        if len(sizes) > 1:
            raise DataError(f"the arrays have different numbers of rows: {listed(sorted(sizes))}")
        n = sizes.pop() if sizes else len(data)
        rows = _complete((X, *Z.values()), groups.values(), n)

        def used(values: Any) -> Any:
            return values if rows is None else values[rows]

        codes: dict[int, RowLevels] = {}
        unknown: dict[int, list[str]] = {}
        for g, column in groups.items():
            codes[g], unknown[g] = _encode(self.factors[g], column, rows)
        n_used = n if rows is None else rows.size
        # an intercept knows its rows from the others
        return EvaluatedDesign(
            nobs=n_used,
            n_input=n,
            rows=rows,
            fixed=None if X is None else ArrayColumns(self.names, used(X)),
            terms={
                t: ArrayColumns(
                    self.terms[t].column_names, np.ones((n_used, 1)) if z is None else used(z)
                )
                for t, z in Z.items()
            },
            codes=codes,
            unknown=unknown,
            offset=None if offsets is None else used(offsets),
            y=None,
            weights=None,
            index=_row_labels(data),
        )

    def effects(self, data: Any, term: int) -> EvaluatedDesign:
        """Return the columns of a random term alone, as the fixed part of the result."""
        data = _by_name(data)
        z = self._random(term, data, None)
        if z is None:
            z = np.ones((len(self._fixed(data)), 1))
        rows = _complete((z,), (), len(z))
        columns = ArrayColumns(self.terms[term].column_names, z if rows is None else z[rows])
        n = len(z) if rows is None else rows.size
        return EvaluatedDesign(n, len(z), rows, columns, {}, {}, {}, None, None, None)

    def own_groups(self, data: Any, rows: IntVector | None, n: int, factor: int) -> GroupingFactor:
        """Return a grouping factor of new rows with levels of its own."""
        data = _by_name(data)
        column = self._labels(factor, data)
        if column.kind == "membership":
            return member_factor(self.factors[factor].label, column.levels, _rows(column, rows))
        codes, levels = _coded(column, rows)
        return GroupingFactor(self.factors[factor].label, codes, len(levels), (levels,))

    def missing_counts(self, data: Any, fixed: bool, terms: Sequence[int]) -> dict[str, int]:
        """Return how many cells are missing, by array."""
        data = _by_name(data)
        counts = {}
        if fixed:
            counts["X"] = int(np.isnan(self._fixed(data)).any(axis=1).sum())
        for g in dict.fromkeys(self.terms[t].factor for t in terms):
            column = self._labels(g, data)
            missing = 0 if column.missing is None else int(column.missing.sum())
            counts[self.factors[g].label] = missing
        return {name: count for name, count in counts.items() if count}

    def _example(self) -> str:
        labels = ", ".join(f"'{factor.label}': labels" for factor in self.factors[:2])
        return f"{{'X': X, {labels}}}"

    def _fixed(self, data: Any) -> Matrix:
        if "X" in data and "X" not in self.names:
            return _numeric("X", data["X"], self.names)
        return self._named("the fixed part", self.names, data)

    def _named(self, what: str, names: tuple[str, ...], data: Any) -> Matrix:
        absent = [name for name in names if name not in data and name != INTERCEPT]
        if absent:
            raise DataError(
                f"the new rows have no '{absent[0]}' for {what}: give arrays such as "
                f"{self._example()}, or a column for each name"
            )
        found = {name: np.asarray(data[name], dtype=np.float64) for name in names if name in data}
        n = len(next(iter(found.values()))) if found else len(data)
        return np.column_stack([found.get(name, np.ones(n)) for name in names])

    def _random(self, t: int, data: Any, X: Matrix | None) -> Matrix | None:
        """Return the columns of a term, (n, k); None for an intercept."""
        term = self.terms[t]
        key = f"Z.{term.name}"
        if key in data:
            return _numeric(key, data[key], term.column_names)
        if term.column_names == (INTERCEPT,):
            return None
        if set(term.column_names) <= set(self.names):
            X = self._fixed(data) if X is None else X
            return X[:, [self.names.index(name) for name in term.column_names]]
        if all(name in data or name == INTERCEPT for name in term.column_names):
            return self._named(f"the term '{term.name}'", term.column_names, data)
        raise DataError(
            f"the new rows have no columns of the random term '{term.name}': give them as '{key}', "
            f"(n, {len(term.column_names)}), for {listed(term.column_names)}"
        )

    def _labels(self, g: int, data: Any) -> Column:
        label = self.factors[g].label
        if label not in data:
            raise DataError(
                f"the new rows have no groups '{label}': give an array of their labels by that name"
            )
        labels = data[label]
        if scipy.sparse.issparse(labels):
            labels = signed_membership(labels, self.factors[g].tables[0])
        return as_column(label, labels)

    def _offset(self, asked: bool, values: Any) -> Vector | None:
        if not asked:
            return None
        if values is None:
            if self.has_offset:
                raise DataError(
                    "the fit has an offset, and new rows have none: pass offset=, an array with "
                    "one value for each new row (or 0)"
                )
            return None
        if isinstance(values, str):
            raise DataError("a fit of matrices knows no columns: give the offset as an array")
        return np.asarray(values, dtype=np.float64)


def _by_name(data: Any) -> Any:
    """Return the columns of a polars frame or an Arrow table by their names; else the data."""
    names = getattr(data, "column_names", getattr(data, "columns", ()))
    if isinstance(data, Mapping | pd.DataFrame) or not all(isinstance(n, str) for n in names):
        return data
    columns = {name: data[name] for name in names}
    if not columns or not all(hasattr(column, "to_numpy") for column in columns.values()):
        return data
    return {name: column.to_numpy() for name, column in columns.items()}


def _complete(
    blocks: Iterable[Matrix | None], columns: Iterable[Column], n: int
) -> IntVector | None:
    """Return the rows in which no cell is missing, None for all."""
    missing = np.zeros(n, dtype=bool)
    for block in blocks:
        if block is not None:
            missing |= np.isnan(block).any(axis=1)
    for column in columns:
        if column.missing is not None:
            missing |= column.missing
    return np.flatnonzero(~missing).astype(np.int32) if missing.any() else None


def _row_labels(data: Any) -> Any:
    frames = [found for found in (data, data.get("X")) if isinstance(found, pd.DataFrame)]
    return frames[0].index if frames else None


def _numeric(what: str, values: Any, names: tuple[str, ...]) -> Matrix:
    """Return an (n, k) array in which cells may be missing."""
    if scipy.sparse.issparse(values):
        values = values.toarray()  # type: ignore[attr-defined]
    if np.ma.isMaskedArray(values):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    array = require_array(what, values, "give a matrix of numbers", DataError)
    if array.ndim == 1 and len(names) == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != len(names):
        raise DataError(
            f"{what} has shape {array.shape}, expected (n, {len(names)}) for {listed(names)}"
        )
    return array


def _rows(column: Column, rows: IntVector | None) -> IntVector:
    """Return which rows of its membership the rows used are."""
    return column.values if rows is None else column.values[rows]


def _coded(column: Column, rows: IntVector | None) -> tuple[IntVector, Any]:
    """Return codes (n,) of the rows and the levels that they are codes of."""
    values = column.values if rows is None else column.values[rows]
    if column.kind == "factor":
        return values.astype(np.int32), column.levels
    return factorize(values)


def _encode(
    known: GroupingFactor, column: Column, rows: IntVector | None
) -> tuple[RowLevels, list[str]]:
    """Return the codes of new rows among known levels, -1 for others, and these others."""
    if column.kind == "membership":
        return placed_members(known, column.levels, _rows(column, rows))
    codes, levels = _coded(column, rows)
    if not codes.size:
        return codes, []
    position = match_levels(known.tables[0], levels)
    result = position[codes].astype(np.int32)
    labels = np.asarray(level_labels(levels), dtype=object)
    return result, list(dict.fromkeys(labels[codes[result < 0]].tolist()))
