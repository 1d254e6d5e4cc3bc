"""Terms of the fixed part and hypotheses about them: types I and II, and leaving one out.

Type I takes the terms as written: each is tested after those before it, which is what a triangular
factor of X'X says.  Type II tests a term after all terms that do not contain it.  Type III (see
`type_three`) tests estimable functions that are orthogonal to those of the terms that contain it.

A term is contained in another one if both have the same covariates, and the other has all of its
factors and at least one more.

A hypothesis is a set of directions a in the coordinates Q'WE[y], X[:, kept] = Q R_x: a'Q'WX beta =
0.  Which columns were left out, in which order they came and how factors are coded does not enter.
Where the model has no intercept but its columns span the constant, as in `0 + a + b`, types II and
III and leaving out treat it as the model with an intercept that it is: `a + b`.  Type I then tests
what is written, the first term against nothing.

No row of data is looked at, except where columns of X were dropped.

References
----------
SAS Institute (1978), Tests of hypotheses in fixed-effects linear models, report R-101; Kuznetsova,
Brockhoff and Christensen (2017), doi:10.18637/jss.v082.i13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.estimable import column_coordinates
from mixlm_sparse.inference.fixed.spans import beyond, span_and_complement, with_unit_length
from mixlm_sparse.model.fitted import FittedModel

SPAN_TOL = 1e-8  # a column that others miss by more than this is not in their span

KEPT_AS = "unweighted"  # of `fit.kept`, where the rows are gone


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor within a term: its coding table (levels, k)."""

    name: object
    table: Matrix

    @property
    def plain(self) -> bool:
        """Whether it is coded by indicators, of all levels or of all but the first."""
        levels, k = self.table.shape
        unit = np.eye(levels)
        return k in (levels, levels - 1) and bool((self.table == unit[:, levels - k :]).all())

    @property
    def constant(self) -> Vector | None:
        """Weights (k,) with which its columns add up to one in every level; None if none do."""
        ones = np.ones(self.table.shape[0])
        weights = np.linalg.lstsq(self.table, ones, rcond=None)[0]
        if np.abs(self.table @ weights - ones).max() > SPAN_TOL:
            return None
        return np.asarray(weights, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class FixedTerm:
    """One term: its operands in the order in which its columns run, first fastest.

    Parameters
    ----------
    widths : columns of each operand; factors : by position of the operand; covariates : position of
        each numeric operand by its expression.
    first : its first column among all columns of X.
    """

    label: str
    widths: tuple[int, ...]
    factors: dict[int, Factor]
    covariates: dict[object, int]
    first: int

    @property
    def factor_names(self) -> frozenset[object]:
        return frozenset(f.name for f in self.factors.values())

    @property
    def covariate_names(self) -> frozenset[object]:
        return frozenset(self.covariates)

    @property
    def size(self) -> int:
        return int(np.prod(self.widths, dtype=np.int64))

    def columns(self) -> np.ndarray:
        """Return the positions of its columns in X, one axis for each operand."""
        return self.first + np.arange(self.size).reshape(self.widths, order="F")

    def contains(self, other: FixedTerm) -> bool:
        """Return whether `other` is a margin of this term."""
        return (
            other.covariate_names == self.covariate_names
            and other.factor_names < self.factor_names
        )

    def constant(self) -> Vector | None:
        """Weights (size,) with which its columns add up to the constant; None if they do not."""
        if self.covariates:
            return None
        weights = np.ones(1)
        for place in range(len(self.widths)):
            own = self.factors[place].constant
            if own is None:
                return None
            weights = np.multiply.outer(weights, own)
        return weights.reshape(self.widths).ravel(order="F")


@dataclass(frozen=True, eq=False, slots=True)
class FixedTerms:
    """The terms of a fit and their columns.

    Parameters
    ----------
    terms : in the order of the formula.
    owner : (p_all,) for each column of X the number of its term, from 1; 0 for the intercept.
    constant : (p_all,) weights with which the columns of X add up to the constant, or None.
    coordinates : (p, p_all) Q'WX.
    """

    fit: FittedModel
    terms: tuple[FixedTerm, ...]
    owner: np.ndarray
    constant: Vector | None
    coordinates: Matrix

    @property
    def intercept(self) -> bool:
        return bool((self.owner == 0).any())

    def containing(self, term: int) -> list[int]:
        """Return the terms that contain a term."""
        return [j for j, other in enumerate(self.terms) if other.contains(self.terms[term])]

    def others(self, term: int, *, containing: bool) -> Matrix:
        """Return the columns of X that do not belong to a term, with the constant, in coordinates.

        Parameters
        ----------
        containing : whether the columns of terms that contain it count as others.
        """
        without = [term, *([] if containing else self.containing(term))]
        columns = self.coordinates[:, ~np.isin(self.owner, [i + 1 for i in without])]
        if self.intercept or self.constant is None:
            return columns
        return np.column_stack([self.coordinates @ self.constant, columns])

    def own(self, term: int) -> Matrix:
        """Return the columns of a term in coordinates."""
        return self.coordinates[:, self.owner == term + 1]

    def in_coefficients(self, directions: Matrix) -> Matrix:
        """Return directions (p, q) as rows L (q, p) about the kept coefficients."""
        out: Matrix = directions.T @ self.coordinates[:, list(self.fit.system.products.kept)]
        return out

    def coefficients(self, term: int) -> Matrix | None:
        """Return L (q, p) that names the coefficients of a term, where that is its hypothesis.

        It is where nothing was left out, and no constant is hidden in the columns of factors.
        """
        if self.fit.system.dropped or not (self.intercept or self.constant is None):
            return None
        identity: Matrix = np.eye(self.fit.system.p)[self.owner == term + 1]
        return identity


def fixed_terms(fit: FittedModel) -> FixedTerms:
    """Return the terms of the fixed part; of a fit from matrices, one for each column."""
    spec = fit.matrices.spec
    names = fit.matrices.fixed.names
    terms: list[FixedTerm] = []
    if spec is None:
        owner = []
        for place, name in enumerate(names):
            if name == "(Intercept)":
                owner.append(0)
                continue
            terms.append(FixedTerm(name, (1,), {}, {name: 0}, place))
            owner.append(len(terms))
        return FixedTerms(
            fit, tuple(terms), np.array(owner, dtype=np.int64), None, column_coordinates(fit)
        )
    part = spec.fixed
    first = 1 if part.intercept else 0
    constant: Vector | None = np.eye(len(names))[0] if part.intercept else None
    for label, operands in zip(part.term_labels, part.terms, strict=True):
        factors = {
            place: Factor(o.variable, o.table)
            for place, o in enumerate(operands)
            if o.table is not None
        }
        covariates: dict[object, int] = {
            o.variable: place for place, o in enumerate(operands) if o.table is None
        }
        widths = tuple(len(o.names) for o in operands)
        term = FixedTerm(label, widths, factors, covariates, first)
        if constant is None and (weights := term.constant()) is not None:
            constant = np.zeros(len(names))
            constant[first : first + term.size] = weights
        terms.append(term)
        first += term.size
    owner_of = np.array(part.assign, dtype=np.int64)
    return FixedTerms(fit, tuple(terms), owner_of, constant, column_coordinates(fit))


# ---------------------------------------------------------------------------------------------
# Hypotheses: L (q, p) about the kept coefficients, one matrix a term; no rows where none is left
# ---------------------------------------------------------------------------------------------


def type_one(model: FixedTerms) -> list[Matrix]:
    """Return for each term what it adds to those before it."""
    kept = list(model.fit.system.products.kept)
    R = np.linalg.qr(unweighted_root(model) @ model.coordinates[:, kept], mode="r")
    owner = model.owner[kept]
    return [np.asarray(R[owner == i + 1]) for i in range(len(model.terms))]


def type_two(model: FixedTerms) -> list[Matrix]:
    """Return for each term what it adds to the terms that do not contain it."""
    root: Matrix | None = None
    out = []
    for i in range(len(model.terms)):
        named = None if model.containing(i) else model.coefficients(i)
        if named is None:
            root = unweighted_root(model) if root is None else root
            added = beyond(root @ model.own(i), root @ model.others(i, containing=False))
            named = model.in_coefficients(root.T @ added)
        out.append(named)
    return out


def left_out(model: FixedTerms, term: int) -> Matrix:
    """Return what a model without the term cannot say: the hypothesis of leaving it out."""
    named = model.coefficients(term)
    if named is not None:
        return named
    return model.in_coefficients(_without(model, term)[1])


def kept_and_left_out(model: FixedTerms, label: str) -> tuple[Matrix, Matrix]:
    """Return orthonormal bases of what a model without the term spans, and of what it does not.

    Returns
    -------
    B (p, s), C (p, p - s) : in the coordinates Q'WX.
    """
    return _without(model, [term.label for term in model.terms].index(label))


def _without(model: FixedTerms, term: int) -> tuple[Matrix, Matrix]:
    others = with_unit_length(model.others(term, containing=True))
    return span_and_complement(others)


def unweighted_root(model: FixedTerms) -> Matrix:
    """Return U (p, p) upper triangular with U'U = Q'Q: X'X instead of X'WX."""
    fit = model.fit
    p, kept = fit.system.p, list(fit.system.products.kept)
    if (fit.matrices.weights is None and fit.matrices.law is None) or p == 0:
        return np.eye(p)
    sums: Mapping[str, Matrix] | None = fit.kept.get(KEPT_AS)
    if sums is not None:
        return sums["U"]
    gram = np.zeros((p, p))
    inverse = np.linalg.inv(model.coordinates[:, kept])
    for block in fit.system.rows():
        Q = block.X @ inverse
        gram += Q.T @ Q
    return np.asarray(np.linalg.cholesky(gram).T, dtype=np.float64)
