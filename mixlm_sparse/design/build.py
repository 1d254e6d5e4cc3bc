"""Formula and data frame to `ModelMatrices`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mixlm_sparse.common.checks import (
    NA_ACTIONS,
    require_bool,
    require_mapping,
    require_one_of,
    shown,
)
from mixlm_sparse.common.errors import (
    DataError,
    OptionError,
)
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.types import IntVector, Vector
from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.variance import VarianceFunction
from mixlm_sparse.design.choices import check_contrasts, read_contrasts
from mixlm_sparse.design.columns import DesignColumns, learn_part
from mixlm_sparse.design.evaluate import Scope
from mixlm_sparse.design.finite import require_range, require_weight_range
from mixlm_sparse.design.headers import unknown_column
from mixlm_sparse.design.known import read_known
from mixlm_sparse.design.learn import learn_states
from mixlm_sparse.design.matrices import ModelMatrices, RandomTerm
from mixlm_sparse.design.random_terms import learn_random_terms
from mixlm_sparse.design.readers import hold
from mixlm_sparse.design.recipe import (
    FormulaRecipe,
    TermSpec,
)
from mixlm_sparse.design.residuals import (
    columns_of_residuals,
    learn_residuals,
    require_structures,
)
from mixlm_sparse.design.response import add_offsets, response_vector
from mixlm_sparse.design.rows import (
    RowArgument,
    missing_cells,
    restrict,
    row_numbers,
    subset_mask,
    used_rows,
)
from mixlm_sparse.design.swapped import warn_of_swapped
from mixlm_sparse.design.table import HeldData, Table
from mixlm_sparse.design.texts import warn_of_removals, warn_of_texts
from mixlm_sparse.design.transforms import State
from mixlm_sparse.design.variables import Variables
from mixlm_sparse.design.whitelist import check_functions
from mixlm_sparse.formula.grammar import parse_expression
from mixlm_sparse.formula.parse import formula_text, parse_formula
from mixlm_sparse.formula.syntax import Expr, names_in
from mixlm_sparse.formula.terms import MixedFormula

__all__ = ["columns_asked", "model_matrices"]


@answers_unknown_keywords
def model_matrices(
    formula: str | MixedFormula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    warn: bool = True,
    residual: Correlation | None = None,
    variance: VarianceFunction | None = None,
    require_random: bool = True,
    known: Mapping[str, Any] | None = None,
) -> ModelMatrices:
    """Read the columns that a formula names, and arrange them as lme4 does.

    Parameters
    ----------
    formula : lme4 formula.
    data : pandas, polars, pyarrow or duckdb frame, or a dictionary of arrays.
    weights, offset : column name, expression, or (n,) array aligned with the rows of `data`.
    subset : column name, expression such as ``"Days > 1"``, or (n,) array of booleans.
    na_action : what to do with rows that have a missing cell in a column used: "omit" them,
        "exclude" them (results are padded with NaN) or "raise" an error.
    contrasts : contrasts of factors in the fixed part, by name: "treatment", "sum", "helmert",
        "poly", ("treatment", level), or a matrix with one row for each level. Ordered factors have
        polynomial contrasts unless told otherwise, others treatment contrasts.
    env : functions that the formula may use besides the built-in ones, by name. They take and
        return arrays, and must treat each row alone for predictions to be right.
    warn : whether to warn of a formula that means something other than it seems to.
    residual, variance : correlation and variances of the residuals, as in `lmer`.
    require_random : whether a formula without a random term is an error.
    known : covariances between the levels of grouping factors, as in `lmer`.

    Raises
    ------
    FormulaError : the formula cannot be read or uses a function that is not allowed.
    DataError : the data do not fit the formula.

    Examples
    --------
    >>> frame = {"y": [1.0, 2, 3, 4], "x": [0.0, 1, 0, 1], "g": ["a", "a", "b", "b"]}
    >>> matrices = model_matrices("y ~ x + (1 | g)", frame)
    >>> matrices.fixed.names, matrices.factors[0].levels
    (('(Intercept)', 'x'), ['a', 'b'])
    """
    warn = require_bool("warn", warn)
    formula = _read(formula, require_random)
    require_structures(residual, variance)
    require_one_of("na_action", na_action, NA_ACTIONS)
    env = functions_of(env)
    check_functions(formula.expressions, env)
    given = GivenArguments.of(weights, offset, subset)

    structured = columns_of_residuals(residual, variance)
    held, table, needed = _open(formula, data, given, structured)
    chosen = None if given.subset is None else subset_mask(given.subset, table, env)
    rows = used_rows(table, needed, chosen, na_action)
    n = table.n if rows is None else rows.size
    states: dict[Expr, State] = {}
    scope = Scope(restrict(table.columns, rows), n, states, env)
    _learn_transforms(formula, table, scope, states)
    variables = Variables(scope)
    y = response_vector(formula, variables)
    choices = read_contrasts(contrasts)
    fixed = learn_part(formula.fixed.intercept, formula.fixed.terms, variables, choices)
    check_contrasts(choices, fixed, table, warn)
    term_specs, factor_specs = learn_random_terms(formula, variables, n, warn, read_known(known))
    spec = FormulaRecipe(formula, fixed, term_specs, factor_specs, states, *given.names, env)
    w = weights_of_rows(given.weights, table, scope, rows)
    law, state = learn_residuals(residual, variance, scope.columns, n, w, warn=warn)
    matrices = ModelMatrices(
        y=y,
        fixed=DesignColumns(fixed, variables),
        factors=tuple(factor.known for factor in factor_specs),
        terms=tuple(_evaluated(term, variables) for term in term_specs),
        weights=w,
        offset=offset_of_rows(given.offset, formula, table, variables, rows),
        nobs=n,
        n_input=table.n,
        rows=rows,
        na_action=na_action,
        response_name=formula.response_name,
        spec=spec,
        index=table.index,
        data=held,
        law=law,
        residuals=state,
    )
    if warn:
        warn_of_removals(formula.fixed)
        warn_of_texts(matrices)
        warn_of_swapped(matrices)
    return matrices


class GivenArguments(NamedTuple):
    """The arguments that go with the rows; None where there is none."""

    weights: RowArgument | None
    offset: RowArgument | None
    subset: RowArgument | None

    @property
    def names(self) -> tuple[str | None, str | None]:
        """What weights and offset were called, where they were given as text."""
        return (
            None if self.weights is None else self.weights.text,
            None if self.offset is None else self.offset.text,
        )

    @staticmethod
    def of(weights: Any, offset: Any, subset: Any) -> GivenArguments:
        """Return what the user gave, for example the name of a column, as arguments."""
        return GivenArguments(
            RowArgument.of("weights", weights),
            RowArgument.of("offset", offset),
            RowArgument.of("subset", subset),
        )


def _read(formula: str | MixedFormula, require_random: bool) -> MixedFormula:
    require_random = require_bool("require_random", require_random)
    if isinstance(formula, MixedFormula):
        return formula
    return parse_formula(formula_text(formula), require_random=require_random)


def _evaluated(term: TermSpec, variables: Variables) -> RandomTerm:
    columns = DesignColumns(term.part, variables)
    part = term.part
    return RandomTerm(term.name, term.factor, part.names, term.structure, columns, part.places)


def _learn_transforms(
    formula: MixedFormula, table: Table, scope: Scope, states: dict[Expr, State]
) -> None:
    def learning(names: tuple[str, ...]) -> Scope:
        return _complete_rows(names, table, scope)

    for expr in formula.expressions:
        learn_states(expr, scope, states, learning)


def _complete_rows(names: tuple[str, ...], table: Table, used: Scope) -> Scope:
    """Return the rows, used or not, in which none of the columns is missing."""
    columns = {name: table.columns[name] for name in names if name in table.columns}
    missing = missing_cells(columns.values(), table.n)
    if missing is None and used.n == table.n:
        return used
    rows = None if missing is None else np.flatnonzero(~missing).astype(np.int32)
    n = table.n if rows is None else rows.size
    return Scope(restrict(columns, rows), n, used.states, used.env)


def columns_asked(
    formula: MixedFormula, arguments: Iterable[RowArgument | None]
) -> tuple[list[str], list[str]]:
    """Return the columns that a model needs, and those that it reads if they are there."""
    optional = [
        name for argument in arguments if argument is not None for name in argument.possible_names
    ]
    optional += [name for name in formula.names if name == "pi"]  # a column may be called pi
    return [name for name in formula.names if name != "pi"], optional


def _open(
    formula: MixedFormula, data: Any, given: GivenArguments, structured: tuple[str, ...]
) -> tuple[HeldData, Table, dict[str, Any]]:
    """Return what is held, the columns of this model, and those that must have no missing cell."""
    names, optional = columns_asked(formula, given)
    held = hold(data, names, (*optional, *structured))
    for name in structured:
        if name not in held.table.columns:
            raise DataError(_unknown_for_residuals(name, held.table.header))
    own = {name: held.table.columns[name] for name in (*names, *optional, *structured)
           if name in held.table.columns}  # fmt: skip
    whole = held.table
    table = Table(whole.n, own, frozenset(own), whole.header, whole.index)
    return held, table, needed_columns(formula, table, given, structured)


def needed_columns(
    formula: MixedFormula,
    table: Table,
    given: GivenArguments,
    structured: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the columns in which a cell must not be missing.

    Parameters
    ----------
    structured : columns of the residual structure.

    Raises
    ------
    DataError : an argument names a column that does not exist.
    """
    read = {*formula.names, *structured}
    needed = {name: column for name, column in table.columns.items() if name in read}
    for argument in given:
        if argument is None or argument.text is None or argument.text in table.names:
            continue
        # neither a column nor an expression of columns: say which of them does not exist
        inner = names_in(parse_expression(argument.text))
        absent = [name for name in inner if name not in table.names and name != "pi"]
        if absent or not inner:
            name = absent[0] if absent else argument.text
            raise DataError(f"{argument.role}: {unknown_column(name, table.header)}")
    for argument in (given.weights, given.offset):  # a missing weight is a missing cell, as in lme4
        if argument is None:
            continue
        if argument.text is None:
            needed[argument.role] = argument.column(table, table.index)
        else:
            used = [argument.text] if argument.text in table.names else argument.possible_names[1:]
            needed |= {name: table.columns[name] for name in used if name in table.columns}
    return needed


def functions_of(env: Any) -> dict[str, Callable[..., Any]]:
    """Return the functions that the user adds to formulas, checked."""
    functions = require_mapping("env", env, '{"double": lambda x: 2 * x}')
    for name, function in functions.items():
        if not callable(function):
            raise OptionError(f"env[{name!r}] is {shown(function)}: give a function of arrays")
    return dict(functions)  # nothing that is done to the mapping afterwards changes a fit


def weights_of_rows(
    argument: RowArgument | None, table: Table, scope: Scope, rows: IntVector | None
) -> Vector | None:
    """Return the prior weights of the rows used, checked."""
    if argument is None:
        return None
    name = argument.text or "weights"
    weights = row_numbers(argument, table, scope, rows)
    assert weights is not None
    if not np.isfinite(weights).all():
        raise DataError(_bad_weights(name, "undefined or infinite"))
    if weights.min() <= 0:
        kind = "negative" if weights.min() < 0 else "zero"
        raise DataError(_bad_weights(name, kind))
    require_weight_range(weights, name)
    return weights


def _bad_weights(name: str, kind: str) -> str:
    return f"'{name}' has {kind} weights, but a weight must be positive: drop these rows"


def offset_of_rows(
    argument: RowArgument | None,
    formula: MixedFormula,
    table: Table,
    variables: Variables,
    rows: IntVector | None,
) -> Vector | None:
    """Return the offsets of the rows used, of the argument and of the formula, checked."""
    total = row_numbers(argument, table, variables.scope, rows)
    if total is not None and not np.isfinite(total).all():
        raise DataError("the offset is not finite: correct its values, or drop the rows")
    if total is not None:
        require_range(total, "the offset")
    return add_offsets(formula.fixed.offsets, variables, total)

def _unknown_for_residuals(name: str, header: Any) -> str:
    """Say that the data lack a column that a structure names, which may be a formula of nlme's."""
    text = f"residuals: {unknown_column(name, header)}"
    if any(sign in name for sign in "~|:"):
        text += (
            ' (structures name columns: time="visit", group="patient"; several as a tuple, '
            'group=("site", "patient"))'
        )
    return text

