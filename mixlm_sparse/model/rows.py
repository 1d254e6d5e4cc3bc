"""Results with one value for each row: on the rows used, or on all rows of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.matrices import ModelMatrices

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["padded", "row_index", "row_series"]


def padded(matrices: ModelMatrices, values: NDArray[Any]) -> NDArray[Any]:
    """Return values (n, ...) of the rows used as results have them.

    With na_action="exclude" rows that were not used are filled in with NaN, so that there is one
    entry for each row of the data; otherwise there is one for each row used.
    """
    rows = matrices.rows
    if matrices.na_action != "exclude" or rows is None:
        return values
    out = np.full((matrices.n_input, *values.shape[1:]), np.nan)
    out[rows] = values
    return out


def row_index(matrices: ModelMatrices) -> pd.Index[Any]:
    """Return the labels of the rows that results have; positions where the data have no labels."""
    index: pd.Index[Any] = (
        matrices.index
        if isinstance(matrices.index, pd.Index)
        else pd.RangeIndex(matrices.n_input)
    )
    rows = matrices.rows
    if matrices.na_action == "exclude" or rows is None:
        return index
    used: pd.Index[Any] = index.take(rows)
    return used


def row_series(matrices: ModelMatrices, values: Vector) -> pd.Series[float]:
    """Return values (n,) of the rows used as a Series that joins with the data."""
    # a copy, which pandas 3 makes anyway: what is handed out is the user's
    return pd.Series(
        padded(matrices, values), index=row_index(matrices), dtype=np.float64, copy=True
    )
