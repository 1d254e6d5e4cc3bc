"""Lines over one variable at the typical values of the others: of groups, of least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.design.columns import Part
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.recipe import FormulaRecipe
from mixlm_sparse.formula.grammar import parse_expression
from mixlm_sparse.formula.syntax import Expr
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots.data import GroupedData, column, numbers, random_columns, terms_of
from mixlm_sparse.solve.groupwise import fit_groups
from mixlm_sparse.solve.rows import InMemory


def parts_of(fit: FittedModel) -> list[Part]:
    """Return the recipes of the fixed part and of the random terms.

    Raises
    ------
    OptionError : the fit was made from matrices.
    """
    spec = fit.matrices.spec
    if spec is None or fit.call is None:
        raise OptionError(
            "this plot evaluates the formula at other values, and the fit was made from matrices: "
            "use lmer with a formula and data"
        )
    return [spec.fixed, *(term.part for term in spec.terms)]


def numeric_names(part: Part) -> list[str]:
    """Return the numeric columns of the data that a part is made of, in order."""
    return list(
        dict.fromkeys(
            name
            for operands in part.terms
            for operand in operands
            if operand.table is None
            for name in names_of([operand.variable])
        )
    )


def coded_numbers(source: GroupedData) -> set[str]:
    """Return the numeric columns that the model takes as categories, as `year` in factor(year)."""
    spec = source.matrices.spec
    if spec is None:
        return set()
    names = names_of(
        [
            operand.variable
            for part in (spec.fixed, *(term.part for term in spec.terms))
            for operands in part.terms
            for operand in operands
            if operand.table is not None
        ]
    )
    return {name for name in names if column(source, name, "data").kind == "number"}


def default_x(fit: FittedModel, factor: int | None = None) -> str:
    """Return the first numeric predictor of the random terms of a factor, else of the fixed."""
    fixed, *random = parts_of(fit)
    chosen = [random[t] for t in terms_of(fit, factor)] if factor is not None else random
    for part in (*chosen, fixed):
        names = numeric_names(part)
        if names:
            return names[0]
    raise OptionError("the model has no numeric predictor to draw lines over: name one with x=")


def _rows_of(codes: IntVector, groups: Sequence[int]) -> list[NDArray[np.intp]]:
    """Return the rows of each group asked for."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    ends = np.cumsum(counts)
    return [order[ends[j] - counts[j] : ends[j]] for j in groups]


def offset_columns(spec: FormulaRecipe) -> tuple[str, ...]:
    """Return the columns that offsets are made of."""
    named = [] if spec.offset_name is None else [parse_expression(spec.offset_name)]
    return names_of([*spec.formula.fixed.offsets, *named])


def weight_columns(spec: FormulaRecipe) -> tuple[str, ...]:
    """Return the columns that prior weights are made of."""
    return () if spec.weights_name is None else names_of([parse_expression(spec.weights_name)])


def typical_rows(
    source: GroupedData,
    names: Sequence[str],
    x: str,
    codes: IntVector | None,
    groups: Sequence[int],
) -> pd.DataFrame:
    """Return one typical row per group: means of numbers, the most frequent level of factors.

    Parameters
    ----------
    codes : (n,) group of each row; None for one group of all rows.
    groups : the groups wanted.
    """
    out: dict[str, Any] = {}
    coded = coded_numbers(source)
    rows = [np.arange(source.matrices.nobs)] if codes is None else _rows_of(codes, groups)
    for name in names:
        if name == x:
            continue
        found = column(source, name, "data")
        values = found.values
        if name in coded:
            out[name] = [_most_frequent(values[r]) for r in rows]
        elif found.kind == "number":
            out[name] = [float(np.mean(values[r])) for r in rows]
        elif found.kind == "bool":
            out[name] = [bool(np.mean(values[r]) > 0.5) for r in rows]
        elif found.kind == "factor":
            frequent = [int(np.bincount(values[r]).argmax()) for r in rows]
            out[name] = pd.Categorical.from_codes(frequent, categories=pd.Index(found.levels))
        else:
            raise OptionError(f"'{name}' is a date: lines over other variables need numbers")
    return pd.DataFrame(out, index=range(len(rows)))


def _most_frequent(values: Vector) -> float:
    kinds, counts = np.unique(values, return_counts=True)
    return float(kinds[counts.argmax()])


@dataclass(frozen=True, eq=False, slots=True)
class GroupLines:
    """Curves over a grid of x, (G, m) for G groups.

    Parameters
    ----------
    population : the fixed part at the typical values of each group; group : with its random
        effects; own : least squares in the group alone, NaN where it cannot be fitted.
    """

    x: Matrix
    population: Matrix
    group: Matrix
    own: Matrix


def group_lines(
    fit: FittedModel, factor: int, x: str, groups: Sequence[int], *, grid: int = 40,
    own: bool = True, common: bool = False,
) -> GroupLines:  # fmt: skip
    """Evaluate the lines of some groups over the range of x.

    Parameters
    ----------
    common : over the range of all rows instead of that of the group.
    """
    spec = fit.matrices.spec
    fixed_part = parts_of(fit)[0]
    assert spec is not None
    known = fit.matrices.factors[factor]
    name, values = numbers(fit, x, "x")
    terms = terms_of(fit, factor)
    expressions: list[Expr] = [
        operand.variable
        for part in (fixed_part, *(spec.terms[t].part for t in terms))
        for operands in part.terms
        for operand in operands
    ]
    names = list(names_of([*expressions, *spec.factors[factor].components]))
    names += [name for name in offset_columns(spec) if name not in names]
    if fit.call is not None and fit.call.offset is not None and spec.offset_name is None:
        raise OptionError(
            "the offset of the fit is an array, which has no values along a line: make it a column "
            "of the data, and fit with its name"
        )
    typical = typical_rows(fit, names, name, known.codes, groups)
    picked = np.asarray(groups, dtype=np.intp)
    xs = _grids(values, known, picked, grid, common)
    frame = typical.loc[np.repeat(typical.index.to_numpy(), grid)].reset_index(drop=True)
    frame[x] = xs.ravel()
    design = spec.evaluate(frame, terms=terms, offset=True)
    kept = list(fit.system.products.kept)
    X = design.X
    population = X[:, kept] @ fit.solution.beta
    if design.offset is not None:
        population = population + design.offset
    everything = slice(0, design.nobs)
    place = np.repeat(picked, grid)
    blocks = [design.terms[t].block(everything) for t in terms]
    group = population + sum(
        np.einsum("ik,ik->i", block, fit.solution.b(t)[place])
        for t, block in zip(terms, blocks, strict=True)
    )
    shape = xs.shape
    alone = np.full(shape, np.nan)
    if own:
        alone = _own_lines(fit, factor, x, X, blocks, place).reshape(shape)
        if design.offset is not None:
            alone = alone + design.offset.reshape(shape)
    return GroupLines(xs, population.reshape(shape), group.reshape(shape), alone)


def _grids(
    x: Vector, known: GroupingFactor, groups: NDArray[np.intp], grid: int, common: bool
) -> Matrix:
    """Return even grids over the range of x in each group, or of all rows; (G, grid)."""
    low, high = np.full(known.n_levels, np.inf), np.full(known.n_levels, -np.inf)
    np.minimum.at(low, known.codes, x)
    np.maximum.at(high, known.codes, x)
    low, high = low[groups], high[groups]
    if common:
        low, high = np.full_like(low, x.min()), np.full_like(high, x.max())
    out: Matrix = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, grid)
    return out


def least_squares_lines(
    source: GroupedData, spec: FormulaRecipe, x: str, values: Vector, groups: Sequence[int],
    coefficients: Matrix, *, grid: int = 40,
) -> tuple[Matrix, Matrix]:  # fmt: skip
    """Return x and the least-squares lines of some groups, (G, grid) each.

    Parameters
    ----------
    values : (n,) x on the rows used.
    coefficients : (L, p) of the fixed part, NaN for groups that could not be fitted.
    """
    known = source.matrices.factors[0]
    picked = np.asarray(groups, dtype=np.intp)
    names = list(names_of([o.variable for term in spec.fixed.terms for o in term]))
    names += [name for name in offset_columns(spec) if name not in names]
    typical = typical_rows(source, names, x, known.codes, groups)
    xs = _grids(values, known, picked, grid, False)
    frame = typical.loc[np.repeat(typical.index.to_numpy(), grid)].reset_index(drop=True)
    frame[x] = xs.ravel()
    design = spec.evaluate(frame, terms=())
    lines = np.einsum("ik,ik->i", design.X, coefficients[np.repeat(picked, grid)])
    if design.offset is not None:
        lines = lines + design.offset
    return xs, lines.reshape(xs.shape)


def _own_lines(
    fit: FittedModel,
    factor: int,
    x: str,
    X_new: Matrix,
    Z_new: list[Matrix],
    place: NDArray[np.intp],
) -> Vector:
    """Regress y in every group on the fixed columns of x alone, else on the random columns."""
    part = parts_of(fit)[0]
    alone = [0] if part.intercept else []
    for j, term in enumerate(part.assign):
        if term and set(names_of([o.variable for o in part.terms[term - 1]])) == {x}:
            alone.append(j)
    matrices = fit.matrices
    if len(alone) > (1 if part.intercept else 0):
        old, new = matrices.X[:, alone], X_new[:, alone]
    else:
        old, new = random_columns(fit, factor)[1], np.hstack(Z_new)
    known = matrices.factors[factor]
    y = InMemory.of(matrices).whole().target
    fits = fit_groups(y, old, known.codes, known.n_levels, matrices.weights)
    out: Vector = np.einsum("ik,ik->i", new, fits.coefficients[place, :, 0])
    return out
