"""Hypotheses of the terms of a model: sequential, of type II and of type III.

Type I takes the terms as written: each is tested after those before it, which is what a triangular
factor of X'X says.  Type II tests a term after all terms that do not contain it.  Type III tests
estimable functions that are orthogonal to those of the terms that contain it, defined by the model
with an indicator for every level, so that the answer does not depend on the coding of factors.

A term is contained in another one if both have the same covariates, and the other has all of its
factors and at least one more.

All of it is computed from the coding tables of the fit: no row of data is looked at, except where
columns of X were dropped.

References
----------
SAS Institute (1978), Tests of hypotheses in fixed-effects linear models, report R-101; Kuznetsova,
Brockhoff and Christensen (2017), doi:10.18637/jss.v082.i13.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.linalg

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.solve.rows import BLOCK_ROWS, row_blocks

TYPES = {"1": 1, "I": 1, "2": 2, "II": 2, "3": 3, "III": 3}
ZERO_TOL = 1e-9  # entries this far below the largest of a matrix are rounding errors
SPAN_TOL = 1e-8  # a column that others miss by more than this is not in their span
RANK_RTOL = 1e-7  # as in the fit: below this share of its length a column repeats earlier ones


@dataclass(frozen=True, eq=False, slots=True)
class TermHypothesis:
    """L beta = 0 for one term; L (q, p) may lack rank."""

    label: str
    L: Matrix


@dataclass(frozen=True, slots=True)
class _Factor:
    """A factor within a term: its coding table (levels, k)."""

    name: object
    table: Matrix

    @property
    def indicators(self) -> bool:
        levels, k = self.table.shape
        return levels == k and bool((self.table == np.eye(levels)).all())

    @property
    def treatment(self) -> bool:
        levels, k = self.table.shape
        return levels == k + 1 and bool((self.table == np.eye(levels)[:, 1:]).all())


@dataclass(frozen=True, slots=True)
class _Term:
    """One term: its operands in the order in which its columns run, first fastest.

    Parameters
    ----------
    widths : columns of each operand; factors : by position of the operand; covariates : position of
        each numeric operand by its expression.
    first : its first column among all columns of X.
    """

    label: str
    widths: tuple[int, ...]
    factors: dict[int, _Factor]
    covariates: dict[object, int]
    first: int

    @property
    def factor_names(self) -> frozenset[object]:
        return frozenset(f.name for f in self.factors.values())

    @property
    def covariate_names(self) -> frozenset[object]:
        return frozenset(self.covariates)

    def columns(self) -> np.ndarray:
        """Return the positions of its columns in X, one axis for each operand."""
        size = int(np.prod(self.widths, dtype=np.int64))
        return self.first + np.arange(size).reshape(self.widths, order="F")


def anova_type(value: object) -> int:
    """Return 1, 2 or 3.

    Raises
    ------
    OptionError : another type.
    """
    found = TYPES.get(str(value).upper())
    if found is None or isinstance(value, bool):
        raise OptionError(
            f"type is {value!r}: use 1 (sequential), 2 or 3, or the Roman numeral as text"
        )
    return found


def term_hypotheses(fit: FittedModel, kind: int) -> tuple[list[TermHypothesis], str]:
    """Return the hypotheses of all terms that have a coefficient, and a note ("" for none)."""
    names = fit.system.x_names
    p = len(names)
    identity = np.eye(p)
    terms, assign = _terms_of(fit)
    columns = [np.flatnonzero(assign == i + 1) for i in range(len(terms))]
    present = [i for i in range(len(terms)) if columns[i].size]
    if kind == 1:
        R = _with_unit_diagonal(_unweighted_factor(fit))
        return [TermHypothesis(terms[i].label, R[columns[i]]) for i in present], ""
    containing = [[j for j in present if _contains(terms[j], terms[i])] for i in range(len(terms))]
    if kind == 2:
        R = _unweighted_factor(fit) if any(containing[i] for i in present) else identity
        return [
            TermHypothesis(terms[i].label, _type_two(R, i, columns, containing[i], p))
            for i in present
        ], ""
    simple = [TermHypothesis(terms[i].label, identity[columns[i]]) for i in present]
    treatment = all(f.indicators or f.treatment for term in terms for f in term.factors.values())
    if treatment and not any(containing[i] for i in present) and not fit.system.dropped:
        return simple, ""
    found = _type_three(fit, terms, containing)
    if found is None:
        return simple, (
            "a factor has fewer contrasts than its levels call for, so that type III hypotheses "
            "are not defined: the coefficients of each term were tested instead"
        )
    return [TermHypothesis(terms[i].label, found[i]) for i in present], ""


def _terms_of(fit: FittedModel) -> tuple[list[_Term], np.ndarray]:
    """Return the terms, and for each kept column the number of its term (0 for the intercept)."""
    kept = list(fit.system.products.kept)
    spec = fit.matrices.spec
    if spec is None:
        names = fit.matrices.fixed.names
        terms, assign = [], []
        for place, name in enumerate(names):
            if name == "(Intercept)":
                assign.append(0)
                continue
            terms.append(_Term(name, (1,), {}, {name: 0}, place))
            assign.append(len(terms))
        return terms, np.array(assign, dtype=np.int64)[kept]
    part = spec.fixed
    terms = []
    first = 1 if part.intercept else 0
    for label, operands in zip(part.term_labels, part.terms, strict=True):
        factors = {
            place: _Factor(o.variable, o.table)
            for place, o in enumerate(operands)
            if o.table is not None
        }
        covariates: dict[object, int] = {
            o.variable: place for place, o in enumerate(operands) if o.table is None
        }
        widths = tuple(len(o.names) for o in operands)
        terms.append(_Term(label, widths, factors, covariates, first))
        first += int(np.prod(widths, dtype=np.int64))
    return terms, np.array(part.assign, dtype=np.int64)[kept]


def _contains(larger: _Term, smaller: _Term) -> bool:
    return (
        larger.covariate_names == smaller.covariate_names
        and smaller.factor_names < larger.factor_names
    )


def _unweighted_factor(fit: FittedModel) -> Matrix:
    """Return the triangular factor (p, p) of X'X."""
    R_x = fit.system.products.R_x
    if fit.matrices.weights is None or fit.system.p == 0:
        return R_x
    gram = np.zeros_like(R_x)
    for Q in _orthonormal_blocks(fit):
        gram += Q.T @ Q
    out: Matrix = np.linalg.cholesky(gram).T @ R_x
    return out


def _with_unit_diagonal(R: Matrix) -> Matrix:
    out: Matrix = R / np.diag(R)[:, None]
    return out


def _orthonormal_blocks(fit: FittedModel) -> Iterator[Matrix]:
    matrices = fit.matrices
    kept = list(fit.system.products.kept)
    R_x = fit.system.products.R_x
    for rows in row_blocks(matrices.nobs, BLOCK_ROWS):
        X = matrices.fixed.block(rows)[:, kept]
        yield scipy.linalg.solve_triangular(R_x, X.T, trans="T").T


def _type_two(
    R: Matrix, term: int, columns: Sequence[np.ndarray], containing: Sequence[int], p: int
) -> Matrix:
    own = columns[term]
    if not containing:
        identity: Matrix = np.eye(p)[own]
        return identity
    last = np.concatenate([own, *(columns[j] for j in containing)])
    others = np.setdiff1d(np.arange(p), last)
    order = np.concatenate([others, last])
    reordered = np.asarray(np.linalg.qr(R[:, order], mode="r"))
    rows = _with_unit_diagonal(reordered)[others.size : others.size + own.size]
    L = np.empty_like(rows)
    L[:, order] = rows
    return L


# ---------------------------------------------------------------------------------------------
# Type III
# ---------------------------------------------------------------------------------------------


def _type_three(
    fit: FittedModel, terms: Sequence[_Term], containing: Sequence[Sequence[int]]
) -> dict[int, Matrix] | None:
    """Return L (q, p) by term; None where the terms do not span their indicators."""
    part_intercept = fit.matrices.spec is not None and fit.matrices.spec.fixed.intercept
    if fit.matrices.spec is None:
        return None
    p_all = len(fit.matrices.fixed.names)
    full = _indicators_in_columns(terms, part_intercept, p_all)
    if full is None:
        return None
    M, term_of_full, in_treatment = full
    C = coordinates_of_all_columns(fit)  # (p, p_all) in an orthonormal basis
    full_coordinates = C @ M
    # the model in treatment coding, its columns among the indicators
    treatment = np.flatnonzero(in_treatment)
    kept = _independent(full_coordinates[:, treatment])
    chosen = treatment[kept]
    F = full_coordinates[:, chosen]
    if F.shape[0] != F.shape[1]:
        return None
    L: Matrix = np.asarray(np.linalg.solve(F, full_coordinates).T)  # (indicators, p)
    L = _without_noise(L)
    owner = term_of_full[chosen]
    for i in sorted(range(len(terms)), key=lambda i: -len(terms[i].widths)):
        own = np.flatnonzero(owner == i + 1)
        above = np.flatnonzero(np.isin(owner, [j + 1 for j in containing[i]]))
        if not own.size or not above.size:
            continue
        coefficients = np.linalg.lstsq(L[:, above], L[:, own], rcond=None)[0]
        L[:, own] = _without_noise(L[:, own] - L[:, above] @ coefficients)
    L = L[chosen]
    to_user = np.linalg.solve(F, fit.system.products.R_x)
    return {i: L[:, owner == i + 1].T @ to_user for i in range(len(terms))}


def coordinates_of_all_columns(fit: FittedModel) -> Matrix:
    """Return all columns of X, dropped ones too, in the orthonormal basis of the kept ones."""
    products = fit.system.products
    names = fit.matrices.fixed.names
    out = np.zeros((products.p, len(names)))
    kept = list(products.kept)
    out[:, kept] = products.R_x
    dropped = [j for j in range(len(names)) if j not in set(kept)]
    if not dropped:
        return out
    matrices = fit.matrices
    for rows in row_blocks(matrices.nobs, BLOCK_ROWS):
        X = matrices.fixed.block(rows)
        Q = scipy.linalg.solve_triangular(products.R_x, X[:, kept].T, trans="T").T
        if matrices.weights is not None:
            Q = Q * matrices.weights[rows, None]
        out[:, dropped] += Q.T @ X[:, dropped]
    return out


def _independent(columns: Matrix) -> np.ndarray:
    """Return the columns that are not combinations of earlier ones."""
    lengths = np.sqrt((columns * columns).sum(axis=0))
    basis = np.zeros((columns.shape[0], 0))
    kept = []
    for j in range(columns.shape[1]):
        left = columns[:, j] - basis @ (basis.T @ columns[:, j])
        left -= basis @ (basis.T @ left)
        length = float(np.sqrt(left @ left))
        if length > RANK_RTOL * max(lengths[j], ZERO_TOL * lengths.max(initial=0.0)):
            basis = np.column_stack([basis, left / length])
            kept.append(j)
    return np.array(kept, dtype=np.int64)


def _without_noise(values: Matrix) -> Matrix:
    out: Matrix = np.where(np.abs(values) < ZERO_TOL * np.abs(values).max(initial=0.0), 0.0, values)
    return out


def _indicators_in_columns(
    terms: Sequence[_Term], intercept: bool, p_all: int
) -> tuple[Matrix, np.ndarray, np.ndarray] | None:
    """Express the model with an indicator for every level in the columns of X.

    Returns
    -------
    M : (p_all, r), the columns with all indicators are X M.
    term : (r,) the number of the term of each, 0 for the intercept.
    in_treatment : (r,) which of them the model in treatment coding has.
    """
    blocks = [np.eye(p_all)[:, :1]] if intercept else []
    owner = [np.zeros(1, dtype=np.int64)] if intercept else []
    treatment = [np.ones(1, dtype=bool)] if intercept else []
    for i, term in enumerate(terms):
        block = _term_indicators(term, terms, intercept, p_all)
        if block is None:
            return None
        M, in_treatment = block
        blocks.append(M)
        owner.append(np.full(M.shape[1], i + 1))
        treatment.append(in_treatment)
    if not blocks:
        return np.zeros((p_all, 0)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    return np.hstack(blocks), np.concatenate(owner), np.concatenate(treatment)


def _term_indicators(
    term: _Term, terms: Sequence[_Term], intercept: bool, p_all: int
) -> tuple[Matrix, np.ndarray] | None:
    """Express the indicators of one term's cells (times its covariates) in the columns of X."""
    places = sorted(term.factors)
    levels = [term.factors[place].table.shape[0] for place in places]
    cells = int(np.prod(levels, dtype=np.int64))
    codes = np.array(np.unravel_index(np.arange(cells), levels, order="F")) if levels else (
        np.zeros((0, 1), dtype=np.int64)
    )  # fmt: skip
    code_of = {term.factors[place].name: codes[i] for i, place in enumerate(places)}
    covariates = list(term.covariates)
    widths = [term.widths[term.covariates[name]] for name in covariates]

    # values on the cells, and for each the combination of columns of X, per covariate column
    values: list[Vector] = []
    expansions: list[dict[tuple[int, ...], list[tuple[int, float]]]] = []
    combinations = list(product(*(range(w) for w in widths)))
    if intercept and not covariates:
        values.append(np.ones(cells))
        expansions.append({(): [(0, 1.0)]})
    for other in terms:
        if other.covariate_names != term.covariate_names:
            continue
        sources = _sources(other, code_of)
        if sources is None:
            continue
        columns = other.columns()
        axes = sorted(other.factors)
        for picks in product(*(range(len(sources[axis])) for axis in axes)):
            value = np.ones(cells)
            weights = []
            for axis, pick in zip(axes, picks, strict=True):
                on_cells, own = sources[axis][pick]
                value = value * on_cells
                weights.append(own)
            expansion = {}
            for combination in combinations:
                at: list[Any] = [slice(None)] * len(other.widths)
                for name, place in zip(covariates, combination, strict=True):
                    at[other.covariates[name]] = place
                positions = columns[tuple(at)]
                weight: Any = np.ones(())
                for w in weights:
                    weight = np.multiply.outer(weight, w)
                flat = zip(positions.ravel().tolist(), weight.ravel().tolist(), strict=True)
                expansion[combination] = [(j, w) for j, w in flat if w != 0.0]
            values.append(value)
            expansions.append(expansion)
    if not values:
        return None
    G = np.column_stack(values)
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
    M = np.zeros((p_all, size))
    in_treatment = np.ones(size, dtype=bool)
    for combination in combinations:
        index: list[Any] = [slice(None)] * len(shape)
        for name, place in zip(covariates, combination, strict=True):
            index[term.covariates[name]] = place
        targets = order[tuple(index)].ravel(order="F")
        for row, expansion in zip(solution, expansions, strict=True):
            for j, share in expansion[combination]:
                M[j, targets] += share * row
    for place, factor in term.factors.items():
        if not factor.indicators:  # treatment contrasts leave the first level out
            base = np.take(order, 0, axis=place).ravel()
            in_treatment[base] = False
    return M, in_treatment


def _sources(
    other: _Term, code_of: dict[object, np.ndarray]
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
        constant = np.linalg.lstsq(table, np.ones(table.shape[0]), rcond=None)[0]
        if np.abs(table @ constant - 1.0).max() > SPAN_TOL:
            return None
        out[place] = [(np.ones(1), np.asarray(constant, dtype=np.float64))]
    return out
