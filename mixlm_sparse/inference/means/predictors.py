"""The columns of the data that the fixed part uses, with their values on a reference grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import (
    entries,
    listed,
    plain_name,
    require_mapping,
    shown,
    unknown_name,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.rows import RowArgument
from mixlm_sparse.design.table import Column
from mixlm_sparse.formula.syntax import Binary, Expr, Name, Paren, Unary
from mixlm_sparse.formula.syntax import Call as CallOf
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.inference.cases.row_groups import is_nested
from mixlm_sparse.model.data import data_columns
from mixlm_sparse.model.fitted import FittedModel

# What is true or false of numbers does not make levels of them.
LOGICAL = frozenset({"<", ">", "<=", ">=", "==", "!=", "&", "&&", "|", "||", "!", "%in%"})
PREDICTOR = "predictor of the fixed part"
KEPT_AS = "predictors"  # of `fit.kept`, where the rows are gone


@dataclass(frozen=True, eq=False, slots=True)
class Predictor:
    """A column of the data that the fixed part uses.

    Parameters
    ----------
    values : levels of a factor in their order, or the values of a covariate on the grid.
    categorical : whether it is a factor (or truth values, or numbers read as a factor).
    column : the rows used; where they are gone, their distinct combinations of levels.
    counts : (c,) rows of each combination; None where the column has the rows themselves.
    """

    name: str
    values: tuple[Any, ...]
    categorical: bool
    column: Column
    counts: Vector | None = None

    def codes(self) -> np.ndarray:
        """Return for each row used the position of its value in `values`, -1 for others."""
        column = self.column
        if column.kind == "factor":
            labels = level_labels(list(self.values))
            place = {label: i for i, label in enumerate(labels)}
            lookup = np.array([place.get(label, -1) for label in level_labels(column.levels)])
            found: np.ndarray = lookup[column.values]
            return found
        out = np.full(column.values.shape[0], -1)
        for i, value in enumerate(self.values):
            out[column.values == value] = i
        return out

    def at(self, values: Any) -> Predictor:
        """Return the predictor with other values on the grid.

        Raises
        ------
        OptionError : no value, a level that there is not, or what is no finite number.
        """
        given = entries(f"at[{self.name!r}]", values)
        if not given:
            raise OptionError(f"at gives no value for {self.name!r}: give at least one")
        if self.categorical:
            labels = level_labels(list(self.values))
            known = {str(label): v for label, v in zip(labels, self.values, strict=True)}
            wanted = [str(level_labels([value])[0]) for value in given]
            for label in wanted:
                if label not in known:
                    raise OptionError(
                        f"{self.name!r} has no level {label!r}: use one of {listed(known)}"
                    )
            return replace(self, values=tuple(dict.fromkeys(known[label] for label in wanted)))
        try:
            if any(isinstance(value, complex | np.complexfloating) for value in given):
                raise TypeError
            numbers = tuple(float(value) for value in given)
        except (TypeError, ValueError, OverflowError):
            numbers = (float("nan"),)
        if not np.isfinite(numbers).all():
            raise OptionError(
                f"at gives {shown(values)} for the covariate {self.name!r}: give finite numbers"
            )
        return replace(self, values=tuple(dict.fromkeys(numbers)))


@dataclass(frozen=True, eq=False, slots=True)
class KeptColumns:
    """What is left of the predictors of a fit without rows.

    Parameters
    ----------
    columns : of factors the distinct combinations of levels (c,), of covariates `SummedValues`.
    counts : (c,) rows of each combination.
    offset : mean over the rows of an offset that was given as an array.
    """

    columns: dict[str, Column]
    counts: Vector
    offset: float


def predictors_of(fit: FittedModel) -> dict[str, Predictor]:
    """Return the columns of the data that the fixed part and its offsets use, by plain name.

    Raises
    ------
    OptionError : the fit was made from matrices.
    SavedFitError : the fit was saved without its data.
    """
    spec = fit.matrices.spec
    if spec is None or fit.call is None:
        raise OptionError(
            "this fit was made from matrices, so that it is not known which columns are factors: "
            "fit it by lmer with a formula and data, or use contest with a matrix"
        )
    operands = [operand for term in spec.fixed.terms for operand in term]
    names = names_of([operand.variable for operand in operands])
    offsets = [*names_of(spec.formula.fixed.offsets)]
    argument = spec.offset_name
    if argument is not None:
        offsets += RowArgument("offset", argument).possible_names
    kept: KeptColumns | None = fit.kept.get(KEPT_AS)
    if kept is None:
        columns = data_columns(fit, names, [name for name in offsets if name not in names])
    else:
        columns = kept.columns
    if argument in columns:  # a column of that name comes before an expression
        offsets = [*names_of(spec.formula.fixed.offsets), argument]
    coded = {n for o in operands if o.table is not None for n in _levels_of(o.variable)}
    numeric = {n for o in operands if o.table is None for n in names_of([o.variable])}
    levels = {
        o.variable.id: o.levels
        for o in operands
        if o.table is not None and isinstance(o.variable, Name)
    }
    out = {}
    for name in dict.fromkeys([*names, *offsets]):
        column = columns.get(name)
        if column is None:
            continue  # a constant, or one of two readings of the offset
        categorical = column.kind in ("factor", "bool") or (name in coded and name not in numeric)
        values = _values(column, categorical, levels.get(name))
        out[name] = Predictor(
            name, values, categorical, column, None if kept is None else kept.counts
        )
    return out


def _levels_of(expr: Expr) -> Iterator[str]:
    """Yield the columns whose own values are levels of a coded variable."""
    if isinstance(expr, Name):
        yield expr.id
    elif isinstance(expr, Paren | Unary) or (isinstance(expr, Binary) and expr.op not in LOGICAL):
        if not (isinstance(expr, Unary) and expr.op in LOGICAL):
            yield from names_of([expr])
    elif isinstance(expr, CallOf) and expr.args:
        yield from _levels_of(expr.args[0])


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


def with_values(predictors: Mapping[str, Predictor], at: Any) -> dict[str, Predictor]:
    """Return the predictors with the values that `at` gives by name.

    Raises
    ------
    OptionError : no mapping, an unknown name, values that do not suit.
    """
    chosen = dict(predictors)
    if at is not None and not isinstance(at, Mapping):
        raise OptionError(f"at is {shown(at)}: use a dictionary such as {{'x': [0, 1]}}")
    for given, values in require_mapping("at", at, '{"x": [0, 1]}').items():
        name = plain_name(given) if isinstance(given, str) else given
        if name not in chosen:
            raise unknown_name(given, list(predictors), PREDICTOR)
        chosen[name] = predictors[name].at(values)
    return chosen


def nested_pairs(predictors: Sequence[Predictor]) -> dict[tuple[str, str], dict[Any, Any]]:
    """Return which factors lie within which others in the data.

    Returns
    -------
    By (inner, outer) the level of the outer one for each level of the inner one.
    """
    codes = {p.name: p.codes() for p in predictors}
    out = {}
    for inner in predictors:
        for outer in predictors:
            if inner is outer or len(outer.values) < 2:
                continue
            first = np.full(len(inner.values), -1)
            seen = codes[inner.name] >= 0
            own, other = codes[inner.name][seen], codes[outer.name][seen]
            if is_nested(own, other):
                first[own] = other
                out[inner.name, outer.name] = {
                    value: outer.values[place] if place >= 0 else None
                    for value, place in zip(inner.values, first.tolist(), strict=True)
                }
    return out


def reduced(
    predictors: Mapping[str, Predictor], cov_reduce: Any, at: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values on the grid of those covariates that are not held at their means.

    Parameters
    ----------
    cov_reduce : True or None for means; False for every value in the data; a function of the
        values that returns a number or several; or a dictionary from names to one of these.
    at : covariates whose values are given otherwise.

    Raises
    ------
    OptionError : none of these, an unknown name, a function that returns no finite numbers.
    """
    if isinstance(cov_reduce, Mapping):
        chosen = {}
        for name, how in require_mapping("cov_reduce", cov_reduce, '{"x": np.median}').items():
            if plain_name(name) not in predictors:
                raise unknown_name(name, list(predictors), PREDICTOR)
            chosen[plain_name(name)] = how
    else:
        chosen = {name: cov_reduce for name, p in predictors.items() if not p.categorical}
    out = {}
    for name, how in chosen.items():
        if name in at or how is None or how is True:
            continue
        values = predictors[name].column.values
        if predictors[name].categorical:
            raise OptionError(f"cov_reduce names {name!r}, a factor: choose levels with at=")
        if how is False:
            out[name] = np.unique(values)
        elif callable(how) and not isinstance(how, type):
            out[name] = _several(how(values.astype(np.float64)))
        else:
            raise OptionError(
                f"cov_reduce is {shown(how)}: use True for means, False for all values, a function "
                "such as np.median, or a dictionary of these"
            )
    return out


def _several(found: Any) -> Any:
    several = isinstance(found, Sequence | np.ndarray | pd.Series) and not isinstance(found, str)
    return list(found) if several and np.ndim(found) else [found]
