"""Rows drawn again: cases, whole groups, or all rows but one group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.columns import ArrayColumns
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.recipe import FactorSpec, FormulaRecipe
from mixlm_sparse.inference.cases.row_groups import is_nested

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["GroupDraw", "RowDraw", "group_draw", "top_factor"]

Rows = NDArray[np.intp]


class RowDraw:
    """The design of a fit with its columns at hand, from which rows are drawn."""

    def __init__(self, matrices: ModelMatrices) -> None:
        everything = slice(0, matrices.nobs)
        self.matrices = matrices
        self._X = matrices.fixed.block(everything)
        self._Z = [term.columns.block(everything) for term in matrices.terms]

    def take(
        self, rows: Rows, copies: IntVector | None = None, nested: Any = None
    ) -> ModelMatrices:
        """Return the design of the rows drawn, (n',) positions.

        Parameters
        ----------
        copies : (n',) number of the draw that a row belongs to; levels of the `nested` factors
            count anew in every draw.
        nested : indices of these factors.

        Raises
        ------
        DataError : a grouping factor has fewer than two levels left.
        """
        m = self.matrices
        factors = tuple(
            _taken(f, rows, copies if copies is not None and g in nested else None)
            for g, f in enumerate(m.factors)
        )
        weights, offset = (
            None if values is None else values[rows] for values in (m.weights, m.offset)
        )
        return replace(
            m,
            y=m.y[rows],
            fixed=ArrayColumns(m.fixed.names, self._X[rows]),
            factors=factors,
            terms=tuple(
                replace(term, columns=ArrayColumns(term.column_names, z[rows]))
                for term, z in zip(m.terms, self._Z, strict=True)
            ),
            weights=weights,
            offset=offset,
            nobs=rows.size,
            n_input=rows.size,
            rows=None,
            na_action="omit",
            spec=None if m.spec is None else _spec_of(m.spec, factors),
            index=None,
            data=None,
        )


def _taken(
    factor: GroupingFactor, rows: Rows, copies: IntVector | None
) -> GroupingFactor:
    codes = factor.codes[rows].astype(np.int64)
    if copies is not None:
        codes = codes + factor.n_levels * copies.astype(np.int64)
    distinct, new = np.unique(codes, return_inverse=True)
    if distinct.size < 2:
        raise DataError(f"the rows drawn have one level of '{factor.label}' only")
    names = np.array(factor.levels, dtype=object)[distinct % factor.n_levels]
    seen: dict[str, int] = {}
    labels = []
    for name in names.tolist():
        count = seen[name] = seen.get(name, 0) + 1
        labels.append(name if count == 1 else f"{name}#{count}")
    return GroupingFactor(
        factor.label, new.astype(np.int32), int(distinct.size), (np.array(labels, dtype=object),)
    )


def _spec_of(spec: FormulaRecipe, factors: tuple[GroupingFactor, ...]) -> FormulaRecipe:
    """Return the recipe with the levels of the rows drawn.

    The levels of combinations are not looked up again by their parts: predictions of a statistic
    count them as new.
    """
    out = []
    for known, factor in zip(spec.factors, factors, strict=True):
        if len(known.components) > 1:
            factor = GroupingFactor(
                factor.label, factor.codes, 1, known.known.tables, np.array([-1], dtype=np.int64)
            )
        out.append(FactorSpec(known.label, known.components, factor))
    return replace(spec, factors=tuple(out))


def top_factor(fit: FittedModel, by: str | None = None) -> int:
    """Return the index of the factor whose groups are drawn.

    Parameters
    ----------
    by : its name; by default the factor in which all others are nested.

    Raises
    ------
    OptionError : there is no factor of that name, or none in which the others are nested.
    """
    factors = fit.matrices.factors
    labels = [f.label for f in factors]
    known = ", ".join(f"'{label}'" for label in labels)
    if by is not None:
        if by not in labels:
            raise OptionError(f"by is {by!r}: use one of the grouping factors, {known}")
        return labels.index(by)
    order = sorted(range(len(factors)), key=lambda g: factors[g].n_levels)
    top = order[0]
    if not all(is_nested(factors[g].codes, factors[top].codes) for g in order[1:]):
        raise OptionError(
            f"the grouping factors {known} are crossed: say whose groups are to be drawn, "
            f'by="{labels[top]}" for example'
        )
    return top


class GroupDraw:
    """Whole groups of one factor; a group drawn twice counts as two groups.

    Parameters
    ----------
    fit : the fit.
    top : index of the factor whose groups are drawn; the levels of factors nested in it are drawn
        with it, those of crossed factors stay what they are.
    """

    def __init__(self, fit: FittedModel, top: int) -> None:
        factors = fit.matrices.factors
        factor = factors[top]
        self.n_groups = factor.n_levels
        self.nested = {
            g for g, f in enumerate(factors) if g == top or is_nested(f.codes, factor.codes)
        }
        order = np.argsort(factor.codes, kind="stable")
        stops = np.cumsum(np.bincount(factor.codes, minlength=factor.n_levels))
        self.rows_of = np.split(order, stops[:-1])

    def rows(self, groups: Rows) -> tuple[Rows, IntVector]:
        """Return the rows of the groups drawn, and the number of the draw of each row."""
        chosen = [self.rows_of[j] for j in groups.tolist()]
        sizes = [rows.size for rows in chosen]
        draw = np.repeat(np.arange(len(chosen), dtype=np.int32), sizes)
        return np.concatenate(chosen), draw


def group_draw(fit: FittedModel, by: str | None) -> GroupDraw:
    """Return the groups of the factor `by`."""
    return GroupDraw(fit, top_factor(fit, by))
