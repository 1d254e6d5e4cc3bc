"""The design of some rows of a design, in any order and as often as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.design.build import ModelMatrices
from mixlm_sparse.design.columns import ColumnSource
from mixlm_sparse.design.grouping import GroupingFactor


def taken_rows(
    matrices: ModelMatrices,
    rows: NDArray[np.integer[Any]],
    *,
    fixed: ColumnSource,
    terms: Sequence[ColumnSource],
    factors: Sequence[GroupingFactor],
) -> ModelMatrices:
    """Return a design with the response, weights and offset of the given rows.

    Parameters
    ----------
    rows : (n',) positions among the rows of `matrices`.
    fixed, terms : columns of X, and of every random term, on these rows.
    factors : the grouping factors on these rows.
    """
    weights, offset = (
        None if values is None else values[rows] for values in (matrices.weights, matrices.offset)
    )
    return replace(
        matrices,
        y=matrices.y[rows],
        fixed=fixed,
        factors=tuple(factors),
        terms=tuple(
            replace(term, columns=columns)
            for term, columns in zip(matrices.terms, terms, strict=True)
        ),
        weights=weights,
        offset=offset,
        nobs=rows.size,
    )
