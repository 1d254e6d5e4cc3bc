"""Designs of which names, terms and levels are known, and the rows are elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.batches.design import BatchArguments, BatchDesign
from mixlm_sparse.design.columns import Part
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.matrices import ModelMatrices, RandomTerm
from mixlm_sparse.design.recipe import FormulaRecipe
from mixlm_sparse.formula.terms import MixedFormula, group_labels
from mixlm_sparse.model.rowless import (
    AbsentColumns,
    AbsentValues,
    FactorWithoutRows,
    MatricesWithoutRows,
    Reason,
)

__all__ = ["draft_matrices", "matrices_without_rows"]


def draft_matrices(
    design: BatchDesign, labels: tuple[str, ...], why: Reason
) -> ModelMatrices:
    """Return a design in the order of the formula, of which the levels are not known yet."""
    none = np.empty(0, dtype=np.int32)
    factors = tuple(GroupingFactor(label, none, 0) for label in labels)
    terms = tuple(
        _term(part, labels.index(label), label, random.structure, why)
        for part, label, random in zip(
            design.parts, group_labels(design.formula.random), design.formula.random, strict=True
        )
    )
    return MatricesWithoutRows(
        y=np.empty(0),
        fixed=AbsentColumns(design.fixed.names, why),
        factors=factors,
        terms=terms,
        weights=None,
        offset=None,
        nobs=0,
        n_input=0,
        why=why,
    )


def _term(part: Part, factor: int, name: str, structure: str, why: Reason) -> RandomTerm:
    columns = AbsentColumns(part.names, why)
    return RandomTerm(name, factor, part.names, structure, columns, part.places)


def matrices_without_rows(
    spec: FormulaRecipe, n: int, n_input: int, arguments: BatchArguments, why: Reason
) -> ModelMatrices:
    """Return the design of a recipe whose rows are not held.

    Parameters
    ----------
    n, n_input : rows used, and rows of the data.
    arguments : weights and offset of the model.
    """
    none: IntVector = np.empty(0, dtype=np.int32)
    formula: MixedFormula = spec.formula
    absent: Any = AbsentValues(why)
    has_offset = arguments.offset is not None or bool(formula.fixed.offsets)
    return MatricesWithoutRows(
        y=np.empty(0),
        fixed=AbsentColumns(spec.fixed.names, why),
        factors=tuple(
            FactorWithoutRows(
                f.label, none, f.known.n_levels, f.known.tables, f.known.keys, f.known.known, why
            )
            for f in spec.factors
        ),
        terms=tuple(
            _term(term.part, term.factor, term.name, term.structure, why) for term in spec.terms
        ),
        weights=None if arguments.weights is None else absent,
        offset=absent if has_offset else None,
        nobs=n,
        n_input=n,
        na_action=arguments.na_action,
        response_name=formula.response_name,
        spec=spec,
        why=why,
    )
