"""The frozen recipe of a model matrix: what the fit has learned, applied to new rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.design.columns import ColumnSource, DesignColumns, Part
from mixlm_sparse.design.evaluate import Scope
from mixlm_sparse.design.grouping import GroupingFactor, encode_groups, grouping_factor
from mixlm_sparse.design.members import RowLevels
from mixlm_sparse.design.readers import open_table
from mixlm_sparse.design.response import add_offsets, response_vector
from mixlm_sparse.design.rows import RowArgument, missing_cells, restrict, row_numbers
from mixlm_sparse.design.saved import (
    expressions_by_text,
    factor_from_dict,
    factor_to_dict,
    part_from_dict,
    part_to_dict,
    state_from_dict,
    state_to_dict,
)
from mixlm_sparse.design.transforms import State
from mixlm_sparse.design.variables import Variables
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import Expr, deparse
from mixlm_sparse.formula.terms import MixedFormula, group_labels, names_of

__all__ = ["EvaluatedDesign", "FactorSpec", "FormulaRecipe", "Recipe", "TermSpec"]


@dataclass(frozen=True, slots=True)
class FactorSpec:
    """A grouping factor: its components and the levels of the fit."""

    label: str
    components: tuple[Expr, ...]
    known: GroupingFactor = field(repr=False)


@dataclass(frozen=True, slots=True)
class TermSpec:
    """A random term: its columns, and the index of its grouping factor."""

    name: str
    factor: int
    structure: str
    part: Part


@dataclass(frozen=True)
class EvaluatedDesign:
    """New rows, as the recipe of the fit sees them.

    Attributes
    ----------
    nobs, n_input : rows evaluated, and rows of the frame.
    rows : positions of the rows evaluated (no cell missing), None for all.
    fixed : columns of the fixed part, all before the rank check of the fit; None if not asked for.
    terms : columns of the random terms asked for, by index of the term.
    codes : (nobs,) int32 by index of the grouping factor; -1 for levels unknown to the fit.
        Of rows with several levels, these with their weights.
    unknown : labels of these levels, by index of the grouping factor.
    offset : (nobs,) sum of the offsets of formula and argument, or None.
    y, weights : (nobs,), if asked for.
    """

    nobs: int
    n_input: int
    rows: IntVector | None
    fixed: ColumnSource | None
    terms: dict[int, ColumnSource]
    codes: dict[int, RowLevels]
    unknown: dict[int, list[str]]
    offset: Vector | None
    y: Vector | None
    weights: Vector | None
    index: Any = None

    @property
    def X(self) -> Matrix:
        """All rows of the fixed part, (nobs, p)."""
        if self.fixed is None:
            raise DataError("the fixed part was not asked for")
        return self.fixed.block(slice(0, self.nobs))

    def pad(self, values: Vector) -> Vector:
        """Return `values`, of the rows evaluated, on all rows of the input; NaN elsewhere."""
        if self.rows is None:
            return values
        padded = np.full((self.n_input, *values.shape[1:]), np.nan)
        padded[self.rows] = values
        return padded


class Recipe(Protocol):
    """What a fit has learned, applied to new rows: names, levels and states, no rows."""

    @property
    def offset_name(self) -> str | None:
        """Return the column or expression of the offset, if it was given as text."""
        ...

    def without_offset(self) -> Recipe:
        """Return the recipe without the offset of the argument."""
        ...

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
        """Apply the recipe to new rows."""
        ...

    def effects(self, data: Any, term: int) -> EvaluatedDesign:
        """Return the columns of a random term alone, as the fixed part of the result."""
        ...

    def own_groups(self, data: Any, rows: IntVector | None, n: int, factor: int) -> GroupingFactor:
        """Return a grouping factor of new rows (n of them) with levels of its own."""
        ...

    def missing_counts(self, data: Any, fixed: bool, terms: Sequence[int]) -> dict[str, int]:
        """Return how many cells are missing, by column."""
        ...


@dataclass(frozen=True)
class FormulaRecipe:
    """Recipe of the model matrices of a fit by formula.

    It holds expressions, levels, contrasts and memorized transforms as plain data, no closures
    (except for the functions that the user gave as `env`).

    Attributes
    ----------
    formula : the formula.
    fixed : columns of the fixed part; `fixed.assign` tells the term of each.
    terms : random terms in lme4's order.
    factors : grouping factors in order of first use by `terms`.
    states : memorized transforms, by their call.
    weights_name, offset_name : the arguments, if they were strings.
    """

    formula: MixedFormula
    fixed: Part
    terms: tuple[TermSpec, ...]
    factors: tuple[FactorSpec, ...]
    states: dict[Expr, State] = field(default_factory=dict)
    weights_name: str | None = None
    offset_name: str | None = None
    env: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

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
        """Apply the recipe to new rows.

        Parameters
        ----------
        data : frame with the columns that the parts asked for name.
        fixed : whether to evaluate the fixed part.
        terms : indices of the random terms to evaluate; None for all.
        response, weights : whether to evaluate these; their columns must then exist.
        offset : whether to evaluate offsets; that of the argument only if it was a string.
        offset_values : (n,) array to be used in place of the argument's offset.

        Returns
        -------
        EvaluatedDesign : rows with a missing cell in a column used are left out; `rows` tells which
            are there, and `pad` brings results back to the rows of the input.

        Raises
        ------
        DataError : a column does not exist, or a factor of the fixed part has an unknown level.
        """
        wanted = tuple(range(len(self.terms))) if terms is None else tuple(terms)
        factors = tuple(dict.fromkeys(self.terms[t].factor for t in wanted))
        weights_argument = RowArgument.of("weights", self.weights_name if weights else None)
        known = self.offset_name if offset_values is None else offset_values
        offset_argument = RowArgument.of("offset", known if offset else None)

        expressions = self._expressions(fixed, wanted, factors, response, offset)
        names = names_of(expressions)
        arguments = [a for a in (weights_argument, offset_argument) if a is not None]
        optional = tuple(name for a in arguments for name in a.possible_names)
        constants = tuple(name for name in names if name == "pi")
        table = open_table(
            data,
            tuple(name for name in names if name != "pi"),
            (*optional, *constants),
        )
        missing = missing_cells(table.columns.values(), table.n)
        rows = None if missing is None else np.flatnonzero(~missing).astype(np.int32)
        n = table.n if rows is None else rows.size
        scope = Scope(restrict(table.columns, rows), n, self.states, self.env)
        variables = Variables(scope)

        codes: dict[int, RowLevels] = {}
        unknown: dict[int, list[str]] = {}
        for index in factors:
            spec = self.factors[index]
            if n:
                codes[index], unknown[index] = encode_groups(spec.known, spec.components, variables)
            else:
                codes[index], unknown[index] = np.empty(0, dtype=np.int32), []
        total = row_numbers(offset_argument, table, scope, rows)
        if offset:
            total = add_offsets(self.formula.fixed.offsets, variables, total)
        return EvaluatedDesign(
            nobs=n,
            n_input=table.n,
            rows=rows,
            fixed=DesignColumns(self.fixed, variables) if fixed else None,
            terms={t: DesignColumns(self.terms[t].part, variables) for t in wanted},
            codes=codes,
            unknown=unknown,
            offset=total,
            y=response_vector(self.formula, variables) if response else None,
            weights=row_numbers(weights_argument, table, scope, rows),
            index=table.index,
        )

    def without_offset(self) -> FormulaRecipe:
        """Return the recipe without the offset of the argument."""
        return replace(self, offset_name=None)

    def effects(self, data: Any, term: int) -> EvaluatedDesign:
        """Return the columns of a random term alone, as the fixed part of the result."""
        alone = replace(self, fixed=self.terms[term].part)
        return alone.evaluate(data, terms=(), offset=False)

    def own_groups(self, data: Any, rows: IntVector | None, n: int, factor: int) -> GroupingFactor:
        """Return a grouping factor of new rows (n of them) with levels of its own."""
        spec = self.factors[factor]
        table = open_table(data, names_of(spec.components))
        scope = Scope(restrict(table.columns, rows), n, self.states, self.env)
        return grouping_factor(spec.label, spec.components, Variables(scope))

    def missing_counts(self, data: Any, fixed: bool, terms: Sequence[int]) -> dict[str, int]:
        """Return how many cells are missing, by column."""
        factors = tuple(dict.fromkeys(self.terms[t].factor for t in terms))
        names = names_of(self._expressions(fixed, tuple(terms), factors, False, fixed))
        table = open_table(data, tuple(name for name in names if name != "pi"))
        return {
            name: int(column.missing.sum())
            for name, column in table.columns.items()
            if column.missing is not None
        }

    def fixed_columns(self, data: Any) -> ColumnSource:
        """Return the columns of the fixed part on new rows without missing cells."""
        design = self.evaluate(data, terms=(), offset=False)
        if design.rows is not None or design.fixed is None:
            raise DataError("cells are missing in the new data: drop these rows")
        return design.fixed

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data for JSON; functions of `env` by their names only."""
        return {
            "formula": self.formula.text,
            "fixed": part_to_dict(self.fixed),
            "terms": [
                {
                    "name": term.name,
                    "factor": term.factor,
                    "structure": term.structure,
                    "part": part_to_dict(term.part),
                }
                for term in self.terms
            ],
            "factors": [factor_to_dict(factor.known) for factor in self.factors],
            "states": [
                {"call": deparse(call), **state_to_dict(state)}
                for call, state in self.states.items()
            ],
            "weights_name": self.weights_name,
            "offset_name": self.offset_name,
            "env": sorted(self.env),
        }

    @classmethod
    def from_dict(
        cls, saved: Mapping[str, Any], env: Mapping[str, Callable[..., Any]] | None = None
    ) -> FormulaRecipe:
        """Return the recipe of `to_dict`.

        Parameters
        ----------
        saved : what `to_dict` returned, perhaps by way of JSON.
        env : the functions that the formula used besides the built-in ones.

        Raises
        ------
        DataError : one of these functions is not given.
        """
        functions = dict(env or {})
        absent = [name for name in saved["env"] if name not in functions]
        if absent:
            raise DataError(
                f"the saved formula uses the function '{absent[0]}': pass it again as "
                f"env={{'{absent[0]}': function}}"
            )
        formula = parse_formula(saved["formula"], require_response=False, require_random=False)
        known = expressions_by_text(formula.expressions)
        labels = group_labels(formula.random)
        components = {
            label: random.components for label, random in zip(labels, formula.random, strict=True)
        }
        return cls(
            formula=formula,
            fixed=part_from_dict(saved["fixed"], known),
            terms=tuple(
                TermSpec(
                    term["name"],
                    term["factor"],
                    term["structure"],
                    part_from_dict(term["part"], known),
                )
                for term in saved["terms"]
            ),
            factors=tuple(
                FactorSpec(factor["label"], components[factor["label"]], factor_from_dict(factor))
                for factor in saved["factors"]
            ),
            states={
                known[state["call"]]: state_from_dict(
                    {name: value for name, value in state.items() if name != "call"}
                )
                for state in saved["states"]
            },
            weights_name=saved["weights_name"],
            offset_name=saved["offset_name"],
            env=functions,
        )

    def _expressions(
        self,
        fixed: bool,
        terms: tuple[int, ...],
        factors: tuple[int, ...],
        response: bool,
        offset: bool,
    ) -> list[Expr]:
        found: list[Expr] = []
        if response and self.formula.response is not None:
            found.append(self.formula.response)
        parts = ([self.fixed] if fixed else []) + [self.terms[t].part for t in terms]
        found += [operand.variable for part in parts for term in part.terms for operand in term]
        for index in factors:
            found += self.factors[index].components
        if offset:
            found += self.formula.fixed.offsets
        return found
