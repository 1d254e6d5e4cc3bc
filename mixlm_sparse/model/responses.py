"""Another response for a design: checked, and brought to the rows used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import shape_of
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.finite import require_range
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.table import as_column

__all__ = ["response_for"]


def response_for(matrices: ModelMatrices, y: Any) -> Vector:
    """Check a new response and bring it to the rows used.

    Parameters
    ----------
    y : (n,) for the rows used, or one value for each row of the data, of which the rows used are
        taken.

    Returns
    -------
    (n,) array.

    Raises
    ------
    DataError : wrong length, or values that are missing or infinite.
    """
    values = _numbers(y)
    n, n_input = matrices.nobs, matrices.n_input
    _require_same_index(y, matrices)
    if values.shape == (n_input,) and n_input != n and matrices.rows is not None:
        values = values[matrices.rows]
    if values.shape != (n,):
        expected = f"{n} rows" if n == n_input else f"{n} rows used of {n_input} rows in the data"
        raise DataError(
            f"the new response has shape {values.shape}, the model has {expected}: give one value "
            "for each"
        )
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise DataError(
            f"the new response has {bad} missing or infinite values in the rows used: fill them, "
            "or use update(data=...) to leave those rows out"
        )
    require_range(values, "the new response")
    return np.array(values, dtype=np.float64)  # the fit's own, whatever becomes of `y`


def _numbers(y: Any) -> Vector:
    """Return a response as numbers, NaN where it is missing or masked."""
    shape = shape_of(y)
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        return np.empty(shape if len(shape) != 1 else 0)  # its shape is what is wrong
    if isinstance(y, pd.DataFrame):
        y = y.iloc[:, 0]
    try:
        column = as_column("response", y)
    except DataError:
        column = None
    if column is None or column.kind not in ("number", "bool"):
        raise DataError("the new response is not numeric: give one number for each row")
    values: Vector = column.values.astype(np.float64, copy=False)
    return values if column.missing is None else np.where(column.missing, np.nan, values)


def _require_same_index(y: Any, matrices: ModelMatrices) -> None:
    """Refuse a Series whose labels are not those of the data: its order would be taken silently."""
    if matrices.index is None or not isinstance(y, pd.Series):
        return
    labels = matrices.index
    if len(y) != len(labels) and matrices.rows is not None:
        labels = labels[matrices.rows]
    if len(y) == len(labels) and not y.index.equals(labels):
        raise DataError(
            "the new response is a Series whose index differs from that of the data: align it, or "
            "pass its to_numpy() if the rows are in the same order"
        )
