"""The design of a model whose rows come in batches: what is known of it before its groups are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import IntVector, Vector
from mixlm_sparse.design.batches.levels import GroupLevels, LevelMap, level_map
from mixlm_sparse.design.build import (
    GivenArguments,
    needed_columns,
    offset_of_rows,
    weights_of_rows,
)
from mixlm_sparse.design.columns import DesignColumns, Part
from mixlm_sparse.design.evaluate import Scope
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.random_terms import arrange_random_terms, check_group
from mixlm_sparse.design.recipe import FormulaRecipe
from mixlm_sparse.design.response import response_vector
from mixlm_sparse.design.rows import missing_cells, restrict, subset_mask
from mixlm_sparse.design.table import Table
from mixlm_sparse.design.transforms import State
from mixlm_sparse.design.variables import Variables
from mixlm_sparse.formula.syntax import Expr, names_in
from mixlm_sparse.formula.terms import MixedFormula, group_labels

__all__ = ["BatchArguments", "BatchDesign", "BatchRows", "GroupCoder"]

WORDS = {"factor": "text", "bool": "true or false", "datetime": "a time"}


@dataclass(frozen=True)
class BatchArguments:
    """The arguments of a model that go with rows: names or expressions, not arrays."""

    weights: str | None = None
    offset: str | None = None
    subset: str | None = None
    na_action: str = "omit"

    @staticmethod
    def of(weights: Any, offset: Any, subset: Any, na_action: str) -> BatchArguments:
        """Return the arguments.

        Raises
        ------
        OptionError : one of them is an array, of which batches have no share.
        """
        for role, value in (("weights", weights), ("offset", offset), ("subset", subset)):
            if value is not None and not isinstance(value, str):
                raise OptionError(
                    f"{role} is an array, but the data come in batches, whose rows are not counted "
                    f"beforehand: make it a column of the data, and give its name"
                )
        return BatchArguments(weights, offset, subset, na_action)

    def given(self) -> GivenArguments:
        """Return weights, offset and subset, ready to be evaluated."""
        return GivenArguments.of(self.weights, self.offset, self.subset)


@dataclass(frozen=True, eq=False)
class BatchRows:
    """The rows of one batch that the model uses.

    Attributes
    ----------
    n, n_input : rows used, and rows of the batch.
    rows : positions of the rows used, None for all.
    codes : per grouping factor in the formula's order, (n,) levels in the order of appearance.
    used : per coded variable, the labels that occur.
    """

    n: int
    n_input: int
    rows: IntVector | None
    y: Vector
    offset: Vector | None
    weights: Vector | None
    fixed: DesignColumns
    terms: tuple[DesignColumns, ...]
    codes: tuple[IntVector, ...]
    used: Mapping[Expr, frozenset[str]]


class GroupCoder:
    """The grouping factors of a model, whose levels are met batch by batch."""

    def __init__(self, formula: MixedFormula) -> None:
        labels = group_labels(formula.random)
        components = {
            label: random.components for label, random in zip(labels, formula.random, strict=True)
        }
        self._maps: dict[Expr, LevelMap] = {
            expr: level_map(expr) for parts in components.values() for expr in parts
        }
        self._groups = {label: GroupLevels(label, parts) for label, parts in components.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the factors, in the order of the formula."""
        return tuple(self._groups)

    def sizes(self) -> tuple[int, ...]:
        """Return the numbers of levels met so far."""
        return tuple(len(group) for group in self._groups.values())

    def encode(self, variables: Variables) -> tuple[IntVector, ...]:
        """Return the codes of every factor."""
        return tuple(group.encode(variables, self._maps) for group in self._groups.values())

    def finish(self) -> tuple[dict[str, GroupingFactor], list[IntVector]]:
        """Return the factors, and per factor the place of each code among the sorted levels."""
        found = [group.finish() for group in self._groups.values()]
        return {factor.label: factor for factor, _ in found}, [places for _, places in found]


@dataclass(frozen=True, eq=False)
class BatchDesign:
    """What is known of a model before its rows are walked over.

    Attributes
    ----------
    formula, arguments, env : the call.
    names, optional : columns to be read, and those read if they are there.
    states : what stateful transforms have learned.
    fixed : columns of the fixed part.
    parts : columns of each random term, in the formula's order.
    given : variables whose levels the user has given, which need not occur.
    kinds : per column that columns of the model are made of, whether it is a number, text, ...
    """

    formula: MixedFormula
    arguments: BatchArguments
    env: Mapping[str, Callable[..., Any]]
    names: tuple[str, ...]
    optional: tuple[str, ...]
    states: dict[Expr, State]
    fixed: Part
    parts: tuple[Part, ...]
    given: frozenset[str] = frozenset()
    kinds: Mapping[str, str] = field(default_factory=dict)

    def rows(self, table: Table, groups: GroupCoder) -> BatchRows | None:
        """Evaluate the rows of a batch; None if the model uses none of them."""
        given = self.arguments.given()
        rows, n = used_of_batch(self.formula, table, given, self.arguments.na_action, self.env)
        if n == 0:
            return None
        scope = Scope(restrict(table.columns, rows), n, self.states, self.env)
        self._require_kinds(table)
        variables = Variables(scope)
        y = response_vector(self.formula, variables)
        fixed = DesignColumns(self.fixed, variables)
        terms = tuple(DesignColumns(part, variables) for part in self.parts)
        return BatchRows(
            n=n,
            n_input=table.n,
            rows=rows,
            y=y,
            offset=offset_of_rows(given.offset, self.formula, table, variables, rows),
            weights=weights_of_rows(given.weights, table, scope, rows),
            fixed=fixed,
            terms=terms,
            codes=groups.encode(variables),
            used=self._used(variables),
        )

    def _require_kinds(self, table: Table) -> None:
        """Raise a DataError if a column has become one of another kind."""
        for name, kind in self.kinds.items():
            column = table.columns.get(name)
            if column is not None and column.kind != kind:
                raise DataError(
                    f"column '{name}' is {WORDS.get(kind, kind)} in some batches and "
                    f"{WORDS.get(column.kind, column.kind)} in others: give it one type, for "
                    "example by astype in what makes the batches"
                )

    def _used(self, variables: Variables) -> dict[Expr, frozenset[str]]:
        out = {}
        for part in (self.fixed, *self.parts):
            for operands in part.terms:
                for operand in operands:
                    if operand.table is None or operand.variable in out:
                        continue
                    found = variables.get(operand.variable, as_levels=operand.as_levels)
                    out[operand.variable] = frozenset(found.used_labels())
        return out

    def unused(self, used: Mapping[Expr, frozenset[str]]) -> dict[Expr, frozenset[str]]:
        """Return learned levels that no row used has, by variable; not those that were given."""
        out = {}
        for part in (self.fixed, *self.parts):
            for operands in part.terms:
                for operand in operands:
                    if operand.table is None or set(names_in(operand.variable)) & self.given:
                        continue
                    rest = frozenset(operand.levels) - used.get(operand.variable, frozenset())
                    if rest and rest != {"TRUE"} and rest != {"FALSE"}:
                        out[operand.variable] = rest
        return out

    def recipe(self, groups: Mapping[str, GroupingFactor]) -> FormulaRecipe:
        """Return the recipe of the model, its terms in lme4's order."""
        for group in groups.values():
            check_group(group)
        terms, factors = arrange_random_terms(self.formula, groups, self.parts)
        return FormulaRecipe(
            self.formula, self.fixed, terms, factors, self.states,
            self.arguments.weights, self.arguments.offset, self.env,
        )  # fmt: skip


def used_of_batch(
    formula: MixedFormula,
    table: Table,
    given: GivenArguments,
    na_action: str,
    env: Mapping[str, Callable[..., Any]],
) -> tuple[IntVector | None, int]:
    """Return which rows of a batch are used, None for all, and how many."""
    needed = needed_columns(formula, table, given)
    chosen = None if given.subset is None else subset_mask(given.subset, table, env)
    missing = missing_cells(needed.values(), table.n)
    if missing is None and chosen is None:
        return None, table.n
    keep = np.ones(table.n, dtype=bool) if chosen is None else chosen
    if missing is not None:
        if na_action == "raise" and (missing & keep).any():
            cells = [f"'{name}'" for name, column in needed.items() if column.missing is not None]
            raise DataError(
                f"cells are missing in {listed(cells)}: fill them in, drop the rows, or use "
                f'na_action="omit"'
            )
        keep = keep & ~missing
    rows = np.flatnonzero(keep)
    return (None if rows.size == table.n else rows.astype(np.int32)), int(rows.size)
