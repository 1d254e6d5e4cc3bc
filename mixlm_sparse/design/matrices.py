"""What a model is made of, before anything numerical happens: response, columns, groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.random import CovarianceStructure, covariance_structure
from mixlm_sparse.covariance.residual import Independent, Structured
from mixlm_sparse.design.array_recipe import ArrayRecipe, ArrayTerm
from mixlm_sparse.design.columns import ColumnSource
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.recipe import FormulaRecipe, Recipe
from mixlm_sparse.design.residuals import ResidualState
from mixlm_sparse.design.table import HeldData

__all__ = ["ModelMatrices", "RandomTerm"]


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One random term.

    Attributes
    ----------
    name : lme4's name in VarCorr: `Subject`, and `Subject.1` for the second of the same factor.
    factor : index of the grouping factor in `ModelMatrices.factors`.
    column_names : names of the columns.
    structure : name of its covariance structure, such as "us".
    columns : the columns, block by block.
    places : (k,) of the columns in time, for a structure over times; None for equal steps.
    """

    name: str
    factor: int
    column_names: tuple[str, ...]
    structure: str
    columns: ColumnSource
    places: tuple[int, ...] | None = None

    @property
    def template(self) -> CovarianceStructure:
        """What its part of theta means."""
        return covariance_structure(self.structure, len(self.column_names), self.places)


@dataclass(frozen=True, repr=False)
class ModelMatrices:
    """What a mixed model is made of, before anything numerical happens.

    Attributes
    ----------
    y : (nobs,) response, from which no offset is subtracted.
    fixed : columns of X, all of them (no rank check yet), named as R does.
    factors : distinct grouping factors in order of first use by `terms`.
    terms : random terms in lme4's order.
    weights, offset : (nobs,) or None.
    nobs, n_input : rows used, and rows of the frame.
    rows : positions of the rows used in the frame, None for all.
    na_action : "omit", "exclude" or "raise".
    response_name : the response as R writes it.
    spec : recipe that evaluates the same columns on new rows.
    index : row labels of the frame, if it has some.
    data : the columns that were read, on all rows of the frame; None for a design from arrays.
    law, residuals : of a residual structure, the law of the rows used and what reads new rows.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> matrices = mx.model_matrices("strength ~ 1 + (1 | batch/cask)", mx.datasets.load("Pastes"))
    >>> matrices.nobs, matrices.X.shape, [factor.label for factor in matrices.factors]
    (60, (60, 1), ['cask:batch', 'batch'])
    """

    y: Vector
    fixed: ColumnSource
    factors: tuple[GroupingFactor, ...]
    terms: tuple[RandomTerm, ...]
    weights: Vector | None
    offset: Vector | None
    nobs: int
    n_input: int
    rows: IntVector | None = None
    na_action: str = "omit"
    response_name: str = "y"
    spec: FormulaRecipe | None = None
    index: Any = None
    data: HeldData | None = None
    law: ResidualLaw | None = None
    residuals: ResidualState | None = None

    def __repr__(self) -> str:
        terms = ", ".join(term.name for term in self.terms) or "none"
        return in_brackets(
            f"ModelMatrices of {self.response_name}: {self.nobs} rows, {len(self.fixed.names)} "
            f"fixed columns, random terms {terms}"
        )

    @property
    def recipe(self) -> Recipe:
        """What evaluates the same columns on new rows, with or without a formula."""
        if self.spec is not None:
            return self.spec
        return ArrayRecipe(
            self.fixed.names,
            tuple(ArrayTerm(term.name, term.factor, term.column_names) for term in self.terms),
            self.factors,
            self.offset is not None,
        )

    @property
    def residual(self) -> Independent:
        """Structure of the residuals: independent, with variances sigma^2 / w."""
        return Independent(self.weights) if self.law is None else Structured(self.weights)

    @property
    def X(self) -> Matrix:
        """The fixed-effects matrix (nobs, p), made anew on each access."""
        return self.fixed.block(slice(0, self.nobs))
