"""The first pass over batches: levels of factors and what stateful transforms learn."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import entries, listed, require_mapping
from mixlm_sparse.common.errors import DataError, FormulaError, OptionError
from mixlm_sparse.covariance.random import structure_class
from mixlm_sparse.design.batches.cluster import Partitions, reduce_partitions
from mixlm_sparse.design.batches.design import BatchArguments, BatchDesign, used_of_batch
from mixlm_sparse.design.batches.learner import TransformLearner
from mixlm_sparse.design.batches.levels import LevelMap
from mixlm_sparse.design.batches.opened import Opened
from mixlm_sparse.design.batches.pieces import read_piece
from mixlm_sparse.design.batches.sources import Source
from mixlm_sparse.design.build import functions_of
from mixlm_sparse.design.choices import check_contrasts, read_contrasts
from mixlm_sparse.design.columns import learn_part
from mixlm_sparse.design.contrasts import Contrast
from mixlm_sparse.design.evaluate import Scope
from mixlm_sparse.design.learn import learn_states
from mixlm_sparse.design.random_terms import learn_random
from mixlm_sparse.design.rows import restrict
from mixlm_sparse.design.table import Column, Table, factor_column
from mixlm_sparse.design.texts import warn_of_removals
from mixlm_sparse.design.transforms import TRANSFORMS, State
from mixlm_sparse.design.variables import Variables
from mixlm_sparse.design.whitelist import check_functions
from mixlm_sparse.formula.syntax import Call, Expr, Name, deparse, names_in, walk
from mixlm_sparse.formula.terms import MixedFormula, names_of

__all__ = ["learn_design"]

CODING = ("factor", "as.factor", "ordered", "C", "dummy")


def learn_design(
    opened: Opened,
    formula: MixedFormula,
    arguments: BatchArguments,
    *,
    contrasts: Mapping[str, Any] | None = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    levels: Mapping[str, Any] | None = None,
    without: Mapping[Expr, frozenset[str]] | None = None,
    warn: bool = True,
) -> BatchDesign:
    """Learn levels and transforms, in one pass over the columns that need it, if any do.

    Parameters
    ----------
    levels : levels of factors of the fixed part by column, in order; what is given is not looked
        for, and need not occur.
    without : levels that no row used has, by variable, as a pass over all columns has shown.

    Raises
    ------
    DataError : a pass is needed, and the source can be read once only.
    """
    functions = functions_of(env)
    check_functions(formula.expressions, functions)
    given = {
        name: _given_levels(name, value)
        for name, value in require_mapping("levels", levels, '{"f": ["a", "b"]}').items()
    }
    coded = _coded_names(formula, opened.first, functions)
    calls = _transforms(formula, functions)
    wanted = [name for name in coded if name not in given]
    maps = {name: LevelMap(name) for name in wanted}
    learners = {call: TransformLearner(call) for call in calls}
    if wanted or calls:
        _require_again(opened.source, wanted, calls)
        _look(opened, maps, learners, functions)
    states: dict[Expr, State] = {call: learner.finish() for call, learner in learners.items()}
    found = {name: _levels_column(name, known) for name, known in maps.items()}
    found |= {name: given[name] for name in coded if name in given}
    table = _example(opened, formula, arguments, functions, found)
    scope = Scope(table.columns, table.n, states, functions)
    for expr in formula.expressions:
        if not set(names_in(expr)) <= set(scope.columns):
            continue
        learn_states(expr, scope, states, lambda names: scope)
    variables = _Learned(scope, without or {})
    choices: dict[str, Contrast] = read_contrasts(contrasts)
    fixed = learn_part(formula.fixed.intercept, formula.fixed.terms, variables, choices)
    check_contrasts(choices, fixed, opened.first, warn)
    if warn:
        warn_of_removals(formula.fixed)
    parts = tuple(learn_random(random, variables, warn) for random in formula.random)
    made_of = names_of(expr for expr, _ in _column_expressions(formula))
    kinds = {
        name: table.columns[name].kind for name in made_of
        if name in table.columns and name not in coded
    }  # fmt: skip
    return BatchDesign(
        formula, arguments, functions, opened.names, opened.optional, states, fixed, parts,
        frozenset(given), kinds,
    )  # fmt: skip


class _Learned(Variables):
    """Variables of the example rows, without levels that no row of the data has."""

    def __init__(self, scope: Scope, without: Mapping[Expr, frozenset[str]]) -> None:
        super().__init__(scope)
        self._without = without

    def get(self, expr: Expr, *, as_levels: bool = False) -> Any:
        variable = super().get(expr, as_levels=as_levels)
        absent = self._without.get(expr)
        if absent is None or not variable.is_factor:
            return variable
        used = np.array([label not in absent for label in variable.labels])
        return replace(variable, used=used if variable.used is None else used & variable.used)


# -- what has to be learned ---------------------------------------------------------------------


def _column_expressions(formula: MixedFormula) -> Iterator[tuple[Expr, bool]]:
    """Yield the variables of the fixed part and of random terms, and whether as levels."""
    for term in formula.fixed.terms:
        yield from ((expr, False) for expr in term)
    for random in formula.random:
        as_levels = structure_class(random.structure).over_levels
        for term in random.terms:
            yield from ((expr, as_levels) for expr in term)


def _coded_names(
    formula: MixedFormula, first: Table, env: Mapping[str, Callable[..., Any]]
) -> list[str]:
    """Return the columns whose levels decide about columns of the model."""
    found: dict[str, None] = {}
    for expr, as_levels in _column_expressions(formula):
        for node in walk(expr):
            if not isinstance(node, Call) or node.function not in CODING or not node.args:
                continue
            inner = names_of([node.args[0]])
            if node.function in env:
                continue
            if len(inner) != 1:
                raise DataError(
                    f"{deparse(node)} makes levels of several columns, which batches cannot: make "
                    "it a column of the data"
                )
            found[inner[0]] = None
        for name in names_of([expr]):
            kind = first.columns[name].kind if name in first.columns else ""
            if kind == "factor" or (isinstance(expr, Name) and as_levels and kind != "bool"):
                found[name] = None
    return list(found)


def _transforms(formula: MixedFormula, env: Mapping[str, Callable[..., Any]]) -> list[Call]:
    found: dict[Call, None] = {}
    for expr in formula.expressions:
        for node in walk(expr):
            if not isinstance(node, Call) or node.function not in TRANSFORMS:
                continue
            if node.function in env:
                continue
            if not node.args:
                raise FormulaError(f"{deparse(node)} needs a variable as its first argument")
            found[node] = None
    for call in found:
        inner = [node for node in walk(call.args[0]) if isinstance(node, Call)]
        if any(node.function in TRANSFORMS for node in inner):
            raise DataError(
                f"{deparse(call)} has one transform inside of another, which batches cannot learn "
                "in one pass: make the inner one a column of the data"
            )
    return list(found)


def _require_again(source: Source, names: Sequence[str], calls: Sequence[Call]) -> None:
    if source.again:
        return
    what = [f"the levels of '{name}'" for name in names]
    what += [f"what {deparse(call)} learns" for call in calls]
    remedy = "give a function that returns the iterator anew"
    if not calls:
        text = ", ".join(f'"{name}": [...]' for name in names)
        remedy += f", or use mx.cross_products(..., levels={{{text}}}) and mx.fit_products"
    raise DataError(
        f"{listed(what)} must be known before the rows are summed, which takes a pass of its own, "
        f"and the data can be read once only: {remedy}"
    )


def _look(
    opened: Opened,
    maps: Mapping[str, LevelMap],
    learners: Mapping[Call, TransformLearner],
    env: Mapping[str, Callable[..., Any]],
) -> None:
    names = list(maps)
    for call in learners:
        names += names_of([call.args[0]])
    names = [name for name in dict.fromkeys(names) if name in opened.first.columns]
    if isinstance(opened.source, Partitions):
        each = partial(_found_in, list(maps), list(learners), env)
        found = reduce_partitions(opened.source.columns(names), each, _joined)
        for name, columns in found[0].items():
            for column in columns:
                maps[name].encode(column)
        for learner, other in zip(learners.values(), found[1], strict=True):
            learner.join(other)
        return
    watch = opened.watch(names)
    for piece in opened.pieces(names):
        table = read_piece(piece, names)
        watch.add(table)
        for name, known in maps.items():
            column = _present(table.columns[name])
            if column.values.size:
                known.encode(column)
        for learner in learners.values():
            learner.add(table, env)
    watch.end()


Found = tuple[dict[str, list[Column]], list[TransformLearner]]


def _present(column: Column) -> Column:
    if column.missing is None:
        return column
    rows = np.flatnonzero(~column.missing).astype(np.int32)
    return restrict({column.name: column}, rows)[column.name]


def _found_in(
    coded: list[str], calls: list[Call], env: Mapping[str, Callable[..., Any]], piece: Any
) -> Found:
    """Return one row for each level, and what transforms learn, of one partition."""
    names = [*coded, *(name for call in calls for name in names_of([call.args[0]]))]
    table = read_piece(piece, list(dict.fromkeys(names)))
    columns: dict[str, list[Column]] = {}
    for name in coded:
        column = _present(table.columns[name])
        _, first = np.unique(column.values, return_index=True)
        columns[name] = [column.take(np.sort(first).astype(np.int32))] if first.size else []
    learners = [TransformLearner(call) for call in calls]
    for learner in learners:
        learner.add(table, env)
    return columns, learners


def _joined(a: Found, b: Found) -> Found:
    for learner, other in zip(a[1], b[1], strict=True):
        learner.join(other)
    return {name: columns + b[0][name] for name, columns in a[0].items()}, a[1]


# -- example rows, from which names and coding are read -----------------------------------------


def _given_levels(name: str, value: Any) -> Column:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise OptionError(f'levels["{name}"] must be the levels in order, such as ["a", "b"]')
    listed_levels = entries(f'levels["{name}"]', value if isinstance(value, range) else list(value))
    if not all(isinstance(level, Hashable) for level in listed_levels):
        raise OptionError(f'levels["{name}"] must be numbers, texts or dates, such as ["a", "b"]')
    if len(set(listed_levels)) < len(listed_levels):
        raise OptionError(f'levels["{name}"] has a level twice')
    if len(listed_levels) < 2:
        raise OptionError(f'levels["{name}"] needs at least two levels')
    index = pd.Index(listed_levels)
    if index.dtype.kind in "iufb" and not isinstance(value, pd.CategoricalDtype):
        return Column(name, "bool" if index.dtype.kind == "b" else "number", index.to_numpy())
    levels = pd.Index(listed_levels, dtype=object)  # the order is the user's
    return factor_column(name, np.arange(len(listed_levels)), levels, False)


def _levels_column(name: str, known: LevelMap) -> Column:
    """Return one row for each level, in order."""
    levels, _ = known.finish()
    if known.kind in ("number", "bool"):
        return Column(name, known.kind, levels)
    declared = known.declared
    if declared is None:
        return factor_column(name, np.arange(len(levels)), levels, known.ordered)
    at = {value: place for place, value in enumerate(declared)}
    codes = np.array([at[value] for value in np.asarray(levels).tolist()])
    return factor_column(name, codes, pd.Index(list(declared), dtype=object), known.ordered)


def _example(
    opened: Opened,
    formula: MixedFormula,
    arguments: BatchArguments,
    env: Mapping[str, Callable[..., Any]],
    coded: Mapping[str, Column],
) -> Table:
    """Return rows that have every level of coded columns, beside the values of one row."""
    others = [
        name
        for name in dict.fromkeys(
            name for expr, _ in _column_expressions(formula) for name in names_of([expr])
        )
        if name in opened.first.columns and name not in coded
    ]
    m = max([1, *(column.values.size for column in coded.values())])
    columns = {name: _padded(column, m) for name, column in coded.items()}
    if others:
        first, row = _first_used(opened, formula, arguments, env)
        for name in others:
            columns[name] = restrict(
                {name: first.columns[name]}, np.full(m, row, dtype=np.int32)
            )[name]
    return Table(m, columns, frozenset(columns), opened.first.header)


def _padded(column: Column, m: int) -> Column:
    places = np.minimum(np.arange(m, dtype=np.int32), column.values.size - 1)
    if not column.values.size:
        raise DataError(
            f"column '{column.name}' has only missing cells: leave it out, or fill it in"
        )
    return column.take(places)


def _first_used(
    opened: Opened,
    formula: MixedFormula,
    arguments: BatchArguments,
    env: Mapping[str, Callable[..., Any]],
) -> tuple[Table, int]:
    """Return a piece and the place of a row in it that the model uses."""

    def used(table: Table) -> int | None:
        rows, n = used_of_batch(formula, table, arguments.given(), "omit", env)
        return None if n == 0 else (0 if rows is None else int(rows[0]))

    row = used(opened.first)
    if row is not None:
        return opened.first, row
    if opened.source.again:
        for piece in opened.pieces():
            table = read_piece(piece, opened.names, opened.optional)
            if table.n and (row := used(table)) is not None:
                return table, row
        raise DataError(
            "no rows are left after dropping those with missing cells and those that subset "
            "leaves out: check the values and the condition"
        )
    raise DataError(
        "no row of the first batch is used, so that the kind of its columns cannot be told, and "
        "the data can be read once only: give a function that returns the iterator anew"
    )
