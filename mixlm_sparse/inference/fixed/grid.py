"""Reference grids: levels of factors crossed with typical values of covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import unknown_name
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.table import Column
from mixlm_sparse.formula.syntax import Name
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.inference.fixed.estimable import kept_part
from mixlm_sparse.model.data import data_columns
from mixlm_sparse.model.fitted import FittedModel

MAX_CELLS = 200_000
# A combination whose dropped columns miss what the kept ones say by more than this share is not
# estimable.
ESTIMABLE_RTOL = 1e-7


@dataclass(frozen=True, eq=False, slots=True)
class Predictor:
    """A column of the data that the fixed part uses.

    Parameters
    ----------
    values : levels of a factor in their order, or the values of a covariate on the grid.
    categorical : whether it is a factor (or truth values, or numbers read as a factor).
    column : the rows used.
    """

    name: str
    values: tuple[Any, ...]
    categorical: bool
    column: Column


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceGrid:
    """Cells of the grid and their rows of X.

    Parameters
    ----------
    predictors : by name, in the order of the formula.
    cells : one row for each cell, the first predictor varying fastest.
    L : (cells, p) rows of the kept columns of X; NaN where not estimable.
    offset : (cells,).
    """

    predictors: dict[str, Predictor]
    cells: pd.DataFrame
    L: Matrix
    offset: Vector


def predictors_of(fit: FittedModel) -> dict[str, Predictor]:
    """Return the columns of the data that the fixed part uses, with their values in the rows used.

    Raises
    ------
    OptionError : the fit was made from matrices or its data are gone.
    """
    spec = fit.matrices.spec
    if spec is None or fit.call is None:
        raise OptionError(
            "this fit was made from matrices, so that it is not known which columns are factors: "
            "fit it by lmer with a formula and data, or use contest with a matrix"
        )
    operands = [operand for term in spec.fixed.terms for operand in term]
    names = names_of([operand.variable for operand in operands])
    offsets = [name for name in names_of(spec.formula.fixed.offsets) if name not in names]
    if spec.offset_name is not None:
        offsets.append(spec.offset_name)
    columns = data_columns(fit, names, offsets)
    coded = {
        name
        for operand in operands
        if operand.table is not None
        for name in names_of([operand.variable])
    }
    numeric = {
        name
        for operand in operands
        if operand.table is None
        for name in names_of([operand.variable])
    }
    levels = {
        operand.variable.id: operand.levels
        for operand in operands
        if operand.table is not None and isinstance(operand.variable, Name)
    }
    out = {}
    for name in (*names, *dict.fromkeys(offsets)):
        column = columns.get(name)
        if column is None:
            continue  # an offset that is an expression of its own
        categorical = column.kind in ("factor", "bool") or (name in coded and name not in numeric)
        out[name] = Predictor(
            name, _values(column, categorical, levels.get(name)), categorical, column
        )
    return out


def _values(column: Column, categorical: bool, levels: tuple[str, ...] | None) -> tuple[Any, ...]:
    if not categorical:
        return (float(column.values.astype(np.float64).mean()),)
    if column.kind != "factor":
        return tuple(np.unique(column.values).tolist())
    used = np.unique(column.values)
    values = [column.levels[code] for code in used.tolist()]
    if levels is not None:
        by_label = dict(zip(level_labels(values), values, strict=True))
        return tuple(by_label[label] for label in levels if label in by_label)
    return tuple(values)


def codes_on(predictor: Predictor, values: Sequence[Any]) -> np.ndarray:
    """Return for each row used the position of its value in `values`, -1 for others."""
    column = predictor.column
    if column.kind == "factor":
        labels = level_labels(list(values))
        place = {label: i for i, label in enumerate(labels)}
        lookup = np.array([place.get(label, -1) for label in level_labels(column.levels)])
        found: np.ndarray = lookup[column.values]
        return found
    out = np.full(column.values.shape[0], -1)
    for i, value in enumerate(values):
        out[column.values == value] = i
    return out


def as_names(given: str | Sequence[str] | None, what: str) -> tuple[str, ...]:
    """Return names given as one string, several, or None."""
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,)
    names = tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise OptionError(f"{what} is {given!r}: give names of columns")
    return names


def reference_grid(
    fit: FittedModel,
    predictors: dict[str, Predictor],
    at: Mapping[str, Any] | None = None,
) -> ReferenceGrid:
    """Cross the levels of all factors with the means of all covariates.

    Parameters
    ----------
    at : other values by name: numbers for a covariate, some of the levels for a factor.
    """
    chosen = dict(predictors)
    for name, values in (at or {}).items():
        if name not in predictors:
            raise unknown_name(name, list(predictors), "predictor of the fixed part")
        chosen[name] = _with_values(predictors[name], values)
    count = 1
    for predictor in chosen.values():
        count *= len(predictor.values)
    if count > MAX_CELLS:
        raise OptionError(
            f"the reference grid has {count} cells (levels of all factors crossed): fix some "
            f"factors with at={{'name': level}}; at most {MAX_CELLS} cells are formed"
        )
    names = list(chosen)
    rows = list(product(*(chosen[name].values for name in reversed(names))))
    columns = {
        name: [row[len(names) - 1 - i] for row in rows] for i, name in enumerate(names)
    }
    cells = pd.DataFrame(
        {name: pd.Series(columns[name], dtype=object) for name in names}, index=range(count)
    )
    L, offset = rows_of_design(fit, chosen, columns, count)
    return ReferenceGrid(chosen, cells, L, offset)


def _with_values(predictor: Predictor, values: Any) -> Predictor:
    given = list(values) if isinstance(values, list | tuple | np.ndarray | pd.Series) else [values]
    if not given:
        raise OptionError(f"at gives no value for {predictor.name!r}: give at least one")
    if predictor.categorical:
        known = {str(label): value for label, value in _by_label(predictor)}
        out = []
        for value in given:
            label = level_labels([value])[0]
            if label not in known:
                raise OptionError(
                    f"{predictor.name!r} has no level {label!r}: use one of {', '.join(known)}"
                )
            out.append(known[label])
        return Predictor(predictor.name, tuple(out), True, predictor.column)
    try:
        numbers = tuple(float(value) for value in given)
    except (TypeError, ValueError):
        raise OptionError(
            f"at gives {given!r} for the covariate {predictor.name!r}: give numbers"
        ) from None
    return Predictor(predictor.name, numbers, False, predictor.column)


def _by_label(predictor: Predictor) -> list[tuple[str, Any]]:
    return list(zip(level_labels(list(predictor.values)), predictor.values, strict=True))


def rows_of_design(
    fit: FittedModel,
    predictors: Mapping[str, Predictor],
    columns: Mapping[str, Sequence[Any]],
    count: int,
) -> tuple[Matrix, Vector]:
    """Evaluate the fixed part on new cells: rows of the kept columns (count, p), and the offset."""
    spec = fit.matrices.spec
    assert spec is not None
    frame: dict[str, Any] = {}
    for name, values in columns.items():
        predictor = predictors[name]
        if predictor.column.kind == "factor":
            frame[name] = pd.Categorical(
                list(values),
                categories=list(predictor.column.levels),
                ordered=predictor.column.ordered,
            )
        else:
            frame[name] = np.asarray(list(values))
    if not frame:  # the intercept alone
        frame["(cell)"] = np.zeros(count)
    by_name = spec.offset_name is None or spec.offset_name in frame
    offset_values = None if by_name else np.zeros(count)
    design = spec.evaluate(frame, terms=(), offset_values=offset_values)
    X = design.X
    L = kept_part(fit, X)
    offset = np.zeros(count) if design.offset is None else design.offset
    return L, offset
