"""Hypotheses of type III.

The model with an indicator for every level (and combination of levels) has the columns X M; an
estimable function is l = N'a with N = Q'WX M in orthonormal coordinates.  For a term t let

    E_t   all a whose l is zero on the parameters of terms that are neither t nor contain it
    U_t   the sum of the E_s over the terms s that contain t

The hypothesis of type III of t is what of E_t is orthogonal, as a vector l, to U_t.  Neither the
coding of factors nor the names of their levels enter, nor which columns a fit leaves out; where
cells are empty or terms are combinations of others, E_t is smaller, perhaps empty.

References
----------
SAS Institute (1978), Tests of hypotheses in fixed-effects linear models, report R-101.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.spans import (
    column_lengths,
    span_and_complement,
    with_unit_length,
)
from mixlm_sparse.inference.fixed.terms import SPAN_TOL, FixedTerm, FixedTerms

TOO_FEW_CONTRASTS = (
    "a factor has fewer contrasts than its levels call for, so that type III hypotheses are not "
    "defined: the coefficients of each term were tested instead"
)


def type_three(model: FixedTerms) -> tuple[list[Matrix], str]:
    """Return L (q, p) for each term, and a note ("" for none)."""
    count = range(len(model.terms))
    containing = [model.containing(i) for i in count]
    named = [model.coefficients(i) for i in count]
    plain = all(f.plain for term in model.terms for f in term.factors.values())
    if plain and not any(containing) and all(L is not None for L in named):
        return [L for L in named if L is not None], ""
    blocks = _indicators(model)
    note = ""
    if blocks is None:
        note = TOO_FEW_CONTRASTS
        if all(L is not None for L in named):
            return [L for L in named if L is not None], note
        blocks = [np.eye(model.owner.size)[:, model.owner == i + 1] for i in count]
    N = [model.coordinates @ M for M in blocks]
    first = model.coordinates @ model.constant[:, None] if model.constant is not None else None
    if first is None and model.intercept:
        first = model.coordinates[:, model.owner == 0]
    # the columns of a term have one unit
    unit = [with_unit_length(M, float(column_lengths(M).max(initial=0.0))) for M in N]
    E = []
    for i in count:
        others = [unit[j] for j in count if j != i and j not in containing[i]]
        if first is not None:
            others.append(with_unit_length(first))
        p = model.coordinates.shape[0]
        E.append(span_and_complement(np.hstack([np.zeros((p, 0)), *others]))[1])
    return [
        model.in_coefficients(_beside(E[i], [E[s] for s in containing[i]], N[i], N, containing[i]))
        for i in count
    ], note


def _beside(
    E: Matrix, above: list[Matrix], own: Matrix, N: list[Matrix], containing: list[int]
) -> Matrix:
    """Return what of E (p, e) is orthogonal to the spaces above it, as functions of parameters."""
    if not above or not E.shape[1]:
        return E
    U = span_and_complement(np.hstack(above))[0]
    if not U.shape[1]:
        return E
    # on the parameters of other terms all of these are zero
    columns = np.hstack([own, *(N[s] for s in containing)])
    inner = (E.T @ columns) @ (columns.T @ U)
    turn = np.linalg.qr(inner, mode="complete")[0]
    out: Matrix = E @ turn[:, U.shape[1] :]
    return out


def _indicators(model: FixedTerms) -> list[Matrix] | None:
    """Express the indicators of every term in the columns of X, M (p_all, r); None if impossible.

    A term of a model without its margins may not span its own indicators.
    """
    out = []
    for term in model.terms:
        M = _term_indicators(term, model)
        if M is None:
            return None
        out.append(M)
    return out


Expansion = dict[tuple[int, ...], list[tuple[int, float]]]


def _term_indicators(term: FixedTerm, model: FixedTerms) -> Matrix | None:
    """Express the indicators of one term's cells (times its covariates) in the columns of X."""
    covariates = list(term.covariates)
    combinations = list(product(*(range(term.widths[term.covariates[c]]) for c in covariates)))
    values, expansions = _values_on_cells(term, model, combinations)
    if not values:
        return None
    G = np.column_stack(values)
    cells = G.shape[0]
    solution = np.linalg.lstsq(G, np.eye(cells), rcond=None)[0]
    if np.abs(G @ solution - np.eye(cells)).max() > SPAN_TOL:
        return None
    # write the columns in the order of the term's operands, first fastest
    shape = [
        term.factors[place].table.shape[0] if place in term.factors else term.widths[place]
        for place in range(len(term.widths))
    ]
    size = int(np.prod(shape, dtype=np.int64))
    order = np.arange(size).reshape(shape, order="F")
    M = np.zeros((model.owner.size, size))
    for combination in combinations:
        index: list[Any] = [slice(None)] * len(shape)
        for name, place in zip(covariates, combination, strict=True):
            index[term.covariates[name]] = place
        targets = order[tuple(index)].ravel(order="F")
        for row, expansion in zip(solution, expansions, strict=True):
            for j, share in expansion[combination]:
                M[j, targets] += share * row
    return M


def _values_on_cells(
    term: FixedTerm, model: FixedTerms, combinations: list[tuple[int, ...]]
) -> tuple[list[Vector], list[Expansion]]:
    """Return what the model offers on the cells of a term's factors.

    Returns
    -------
    values : (cells,) each.
    expansions : for each of them the combination of columns of X, per column of the covariates.
    """
    places = sorted(term.factors)
    levels = [term.factors[place].table.shape[0] for place in places]
    cells = int(np.prod(levels, dtype=np.int64))
    codes = np.array(np.unravel_index(np.arange(cells), levels, order="F")) if levels else (
        np.zeros((0, 1), dtype=np.int64)
    )  # fmt: skip
    code_of = {term.factors[place].name: codes[i] for i, place in enumerate(places)}
    values: list[Vector] = []
    expansions: list[Expansion] = []
    if model.intercept and not term.covariates:
        values.append(np.ones(cells))
        expansions.append({(): [(0, 1.0)]})
    for other in model.terms:
        if other.covariate_names != term.covariate_names:
            continue
        sources = _sources(other, code_of)
        if sources is None:
            continue
        axes = sorted(other.factors)
        for picks in product(*(range(len(sources[axis])) for axis in axes)):
            value, weight = np.ones(cells), np.ones(())
            for axis, pick in zip(axes, picks, strict=True):
                on_cells, own = sources[axis][pick]
                value = value * on_cells
                weight = np.multiply.outer(weight, own)
            values.append(value)
            expansions.append(
                {c: _expansion(other, list(term.covariates), c, weight) for c in combinations}
            )
    return values, expansions


def _expansion(
    other: FixedTerm, covariates: list[object], combination: tuple[int, ...], weight: Any
) -> list[tuple[int, float]]:
    """Return the columns of X and their weights for one column of the covariates."""
    at: list[Any] = [slice(None)] * len(other.widths)
    for name, place in zip(covariates, combination, strict=True):
        at[other.covariates[name]] = place
    positions = other.columns()[tuple(at)]
    flat = zip(positions.ravel().tolist(), np.asarray(weight).ravel().tolist(), strict=True)
    return [(j, w) for j, w in flat if w != 0.0]


def _sources(
    other: FixedTerm, code_of: dict[object, np.ndarray]
) -> dict[int, list[tuple[Vector, Vector]]] | None:
    """Return what each factor of a term offers on the cells: values and weights of its columns.

    A factor that the cells do not have must add up to a constant.
    """
    out: dict[int, list[tuple[Vector, Vector]]] = {}
    for place, factor in other.factors.items():
        table = factor.table
        codes = code_of.get(factor.name)
        if codes is not None:
            unit = np.eye(table.shape[1])
            out[place] = [(table[codes, a], unit[a]) for a in range(table.shape[1])]
            continue
        constant = factor.constant
        if constant is None:
            return None
        out[place] = [(np.ones(1), constant)]
    return out
