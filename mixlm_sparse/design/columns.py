"""Columns of a model matrix, evaluated for a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.design.contrasts import Contrast, contrast_table
from mixlm_sparse.design.variables import Rows, Variable, Variables
from mixlm_sparse.design.writers import (
    Coded,
    Interaction,
    OneColumn,
    Ones,
    SeveralColumns,
    Writer,
)
from mixlm_sparse.formula.limits import require_within
from mixlm_sparse.formula.syntax import Expr, deparse, plain_text
from mixlm_sparse.formula.terms import Term

__all__ = [
    "ArrayColumns", "ColumnSource", "DesignColumns", "Operand", "Part", "learn_part", "no_columns",
]  # fmt: skip

INTERCEPT = "(Intercept)"


class ColumnSource(Protocol):
    """Named columns over n rows, of which blocks can be had."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    def block(self, rows: slice) -> Matrix:
        """Return the rows asked for as an (m, k) C-contiguous array of float64."""
        ...


class ArrayColumns:
    """Columns of an array that exists already.

    Parameters
    ----------
    names : names of the columns.
    array : (n, k) array.
    """

    def __init__(self, names: Sequence[str], array: Any) -> None:
        values = np.asarray(array, dtype=np.float64)
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or values.shape[1] != len(names):
            raise DataError(f"{len(names)} names for an array of shape {values.shape}")
        self.names = tuple(names)
        self.array = np.ascontiguousarray(values)

    def block(self, rows: slice) -> Matrix:
        """Return the rows asked for, (m, k)."""
        return np.ascontiguousarray(self.array[rows])


@dataclass(frozen=True, slots=True)
class Operand:
    """One variable within one term, as the fit has learned it.

    Attributes
    ----------
    variable : its expression.
    names : names of its columns.
    levels, table : for a factor, the levels and the rows that code them, (levels, k).
    as_levels : numbers are read as a factor here.
    """

    variable: Expr
    names: tuple[str, ...]
    levels: tuple[str, ...] = ()
    table: Matrix | None = None
    as_levels: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """The columns of the fixed part or of one random term, as learned.

    Attributes
    ----------
    terms : the operands of every term; the first varies fastest among the columns.
    names : names of all columns.
    assign : for every column its term, counted from 1; 0 is the intercept.
    term_labels : names of the terms.
    places : where the columns stand in time, for a structure over times (see `design.places`).
    """

    intercept: bool
    terms: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...]
    assign: tuple[int, ...]
    term_labels: tuple[str, ...]
    places: tuple[int, ...] | None = None


def learn_part(
    intercept: bool,
    terms: Sequence[Term],
    variables: Variables,
    contrasts: dict[str, Contrast],
    *,
    as_levels: bool = False,
) -> Part:
    """Decide the coding of every factor and the names of all columns.

    Parameters
    ----------
    contrasts : choices by name of the variable.
    as_levels : read numeric variables as factors (structures over time points).
    """
    if not terms:
        return Part(True, (), (INTERCEPT,), (0,), ()) if intercept else Part(False, (), (), (), ())
    loaded = {expr: variables.get(expr, as_levels=as_levels) for term in terms for expr in term}
    if not contrasts and all(variable.codes is None for variable in loaded.values()):
        widths = tuple([variable.width for variable in loaded.values()])
        return _part_of_numbers(intercept, tuple(terms), widths)
    return _learn_part(intercept, terms, loaded, contrasts, as_levels)


@lru_cache(maxsize=256)
def _part_of_numbers(intercept: bool, terms: tuple[Term, ...], widths: tuple[int, ...]) -> Part:
    """Return a part without factors, which depends on the formula alone: kept for the next fit.

    Parameters
    ----------
    widths : of the variables, in the order in which the terms name them.
    """
    named = dict.fromkeys(expr for term in terms for expr in term)
    loaded = {
        expr: Variable(plain_text(expr), width=width)
        for expr, width in zip(named, widths, strict=True)
    }
    return _learn_part(intercept, terms, loaded, {}, False)


def _learn_part(
    intercept: bool,
    terms: Sequence[Term],
    loaded: dict[Expr, Variable],
    contrasts: dict[str, Contrast],
    as_levels: bool,
) -> Part:
    part = _learn_named(intercept, terms, loaded, contrasts, as_levels, plain_text)
    if len(set(part.names)) == len(part.names) and len(set(part.term_labels)) == len(terms):
        return part
    # a column may be called `a:b` beside the interaction a:b
    return _learn_named(intercept, terms, loaded, contrasts, as_levels, deparse)


def _learn_named(
    intercept: bool,
    terms: Sequence[Term],
    loaded: dict[Expr, Variable],
    contrasts: dict[str, Contrast],
    as_levels: bool,
    name_of: Callable[[Expr], str],
) -> Part:
    learned = []
    names = [INTERCEPT] if intercept else []
    assign = [0] if intercept else []
    indicators = _full_indicators(intercept, terms, loaded)
    for position, term in enumerate(terms):
        _require_few_columns(len(names), term, loaded)
        operands = tuple(
            _learn_operand(
                expr,
                loaded[expr],
                name_of(expr),
                (position, place) in indicators,
                contrasts,
                as_levels,
            )
            for place, expr in enumerate(term)
        )
        learned.append(operands)
        combined = list(operands[0].names)
        for operand in operands[1:]:
            combined = [f"{first}:{second}" for second in operand.names for first in combined]
        names += combined
        assign += [position + 1] * len(combined)
    labels = tuple(":".join(map(name_of, term)) for term in terms)
    return Part(intercept, tuple(learned), tuple(names), tuple(assign), labels)


def _require_few_columns(before: int, term: Term, loaded: dict[Expr, Variable]) -> None:
    """Refuse an interaction whose columns are too many to be named, let alone filled in."""
    sizes = [
        len(loaded[expr].labels) if loaded[expr].is_factor else max(loaded[expr].width, 1)
        for expr in term
    ]
    require_within(before + math.prod(sizes), "columns", f"with {plain_text(*term)} a part has")


def _full_indicators(
    intercept: bool, terms: Sequence[Term], loaded: dict[Expr, Variable]
) -> set[tuple[int, int]]:
    """Return (term, place) of every factor that is coded by full indicators.

    R's rule: a factor v of a term T gets contrasts if T without v is empty or is contained in a
    term before T. Without an intercept, the first factor of all gets indicators.
    """
    full = set()
    sets = [frozenset(term) for term in terms]
    for position, term in enumerate(terms):
        if len(term) == 1:
            continue
        for place, expr in enumerate(term):
            if loaded[expr].is_factor:
                rest = sets[position] - {expr}
                if not any(rest <= before for before in sets[:position]):
                    full.add((position, place))
    if not intercept:
        for position, term in enumerate(terms):
            for place, expr in enumerate(term):
                if loaded[expr].is_factor:
                    full.add((position, place))
                    return full
    return full


def _learn_operand(
    expr: Expr,
    variable: Variable,
    name: str,
    indicators: bool,
    contrasts: dict[str, Contrast],
    as_levels: bool,
) -> Operand:
    if not variable.is_factor:
        if variable.name in contrasts:
            raise DataError(
                f"contrasts are given for '{name}', which is numeric: write factor({name}) in the "
                f"formula, and give the contrasts for that"
            )
        if variable.width <= 1:
            return Operand(expr, (name,))
        return Operand(expr, tuple(f"{name}{place + 1}" for place in range(variable.width)))
    labels = variable.used_labels()
    if len(labels) < 2:
        level = f", '{labels[0]}'" if labels else ""
        raise DataError(
            f"the factor '{name}' has {len(labels)} level in the rows used{level}; contrasts need "
            f"at least 2: remove the term"
        )
    contrast: Contrast | None = None
    if not indicators:
        contrast = contrasts.get(variable.name) or variable.contrast
        if contrast is None:
            contrast = Contrast("poly" if variable.ordered else "treatment")
    table, suffixes = contrast_table(name, labels, contrast)
    return Operand(expr, tuple(name + suffix for suffix in suffixes), labels, table, as_levels)


def no_columns(n: int) -> ArrayColumns:
    """Return a source of n rows without a column."""
    return ArrayColumns((), np.empty((n, 0)))


class DesignColumns:
    """The columns of a part on the rows of given variables; nothing is evaluated before `block`.

    Parameters
    ----------
    part : what the fit has learned.
    variables : variables on the rows in question, of the fit or new ones.
    """

    def __init__(self, part: Part, variables: Variables) -> None:
        self.names = part.names
        self.n = variables.scope.n
        self._width = len(part.names)
        self.writers: list[Writer] = []
        column = 0
        if part.intercept:
            self.writers.append(Ones())
            column = 1
        for operands in part.terms:
            getters = tuple(_getter(operand, variables) for operand in operands)
            width = 1
            for operand in operands:
                width *= len(operand.names)
            self.writers.append(_writer(column, column + width, getters))
            column += width

    def block(self, rows: slice) -> Matrix:
        """Return the rows asked for, (m, k) C-contiguous."""
        block = np.empty((len(range(*rows.indices(self.n))), self._width))
        for write in self.writers:
            write(block, rows)
        return block


def _writer(start: int, stop: int, operands: tuple[Rows, ...]) -> Writer:
    if len(operands) > 1:
        return Interaction(start, stop, operands)
    if stop == start + 1:
        return OneColumn(start, operands[0])
    return SeveralColumns(start, stop, operands[0])


def _getter(operand: Operand, variables: Variables) -> Rows:
    """Return the function rows -> values of one operand, (m,) or (m, k)."""
    table = operand.table
    if table is None:
        variable = variables.get(operand.variable)
        if variable.get is None:
            raise DataError(
                f"'{variable.name}' was numeric in the fit and is not in the new data: convert it"
            )
        if max(variable.width, 1) != len(operand.names):
            raise DataError(
                f"'{variable.name}' had {len(operand.names)} columns in the fit and has "
                f"{max(variable.width, 1)} in the new data"
            )
        return variable.get
    variable = variables.get(operand.variable, as_levels=operand.as_levels)
    if not variable.is_factor:
        variable = variables.get(operand.variable, as_levels=True)
    codes = variable.codes
    assert codes is not None
    if variable.labels != operand.levels:
        table = _recoded(table, operand.levels, variable)
    entries = np.ascontiguousarray(table[:, 0]) if table.shape[1] == 1 else table
    return Coded(entries, codes)


def _recoded(table: Matrix, levels: tuple[str, ...], variable: Variable) -> Matrix:
    """Return the rows of the table in the order of the codes of `variable`."""
    position = {label: place for place, label in enumerate(levels)}
    recoded = np.zeros((len(variable.labels), table.shape[1]))
    for code, label in enumerate(variable.labels):
        place = position.get(label)
        if place is not None:
            recoded[code] = table[place]
        elif variable.used is None or variable.used[code]:
            raise DataError(
                f"the factor '{variable.name}' has the level '{label}', which the fit has not "
                f"seen; it knows {listed(levels, quoted=True)}: "
                f"drop these rows, or fit the model with them"
            )
    return recoded
