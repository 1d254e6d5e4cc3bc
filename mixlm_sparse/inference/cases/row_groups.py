"""Groups of rows: a grouping factor of the model, a column of its data, or an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import plain_name, require_same_index, shape_of, shown
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.model.data import data_column
from mixlm_sparse.model.fitted import FittedModel


@dataclass(frozen=True, eq=False, slots=True)
class RowGroups:
    """Groups of the rows used.

    Parameters
    ----------
    name : of the grouping.
    codes : (n,) group of each row; labels : the groups, in the type that the data have.
    """

    name: str
    codes: IntVector
    labels: tuple[Any, ...]


def row_groups(fit: FittedModel, given: Any, argument: str) -> RowGroups:
    """Read groups of rows.

    Parameters
    ----------
    given : name of a grouping factor or of a column of the data, or one label for each row used or
        for each row of the data.
    argument : how the caller's argument is called.

    Raises
    ------
    OptionError, DataError : there is no such column; wrong length; missing labels.
    """
    matrices = fit.matrices
    labels = [f.label for f in matrices.factors]
    if isinstance(given, str) and plain_name(given) in labels:
        factor = matrices.factors[labels.index(plain_name(given))]
        return RowGroups(factor.label, factor.codes, tuple(factor.index.tolist()))
    if isinstance(given, str):
        name, values = plain_name(given), _column(fit, given, argument, labels)
    elif len(shape_of(given)) != 1:
        raise OptionError(
            f"{argument} is {shown(given)}, of shape {shape_of(given)}: give one label for each row"
        )
    else:
        for index in (matrices.index, _used_index(matrices)):
            require_same_index(argument, given, index)
        values = np.asarray(given)
        name = str(getattr(given, "name", None) or argument)
    if values.ndim != 1:
        raise OptionError(f"{argument} has shape {values.shape}: give one label for each row")
    if values.shape[0] == matrices.n_input and matrices.rows is not None:
        values = values[matrices.rows]
    if values.shape[0] != matrices.nobs:
        raise DataError(
            f"{argument} has {values.shape[0]} values, the model {matrices.nobs} rows used of "
            f"{matrices.n_input}: give one value for each"
        )
    try:
        codes, levels = pd.factorize(values)
    except TypeError:  # lists, dictionaries
        raise OptionError(
            f"{argument} is {shown(given)}: its labels must be numbers, texts or dates"
        ) from None
    if (codes < 0).any():
        raise DataError(f"{name} has missing values in the rows used: leave those rows out")
    # dates stay dates, which NumPy's lists would make numbers of
    found = pd.Index(levels) if levels.dtype.kind in "mM" else levels
    return RowGroups(name, codes.astype(np.int32), tuple(found.tolist()))


def _used_index(matrices: ModelMatrices) -> Any:
    """Return the labels of the rows used, None if they have none or all are used."""
    index, rows = matrices.index, matrices.rows
    return None if index is None or rows is None else index[rows]


def _column(fit: FittedModel, name: str, argument: str, labels: list[str]) -> Any:
    """Return the values of a column of the data on the rows used."""
    try:
        column = data_column(fit, name)
    except (DataError, OptionError):
        raise OptionError(
            f"{argument} is {name!r}, which is neither a grouping factor ({', '.join(labels)}) "
            "nor a column of the data: give one of these or an array"
        ) from None
    if column.kind == "factor":
        codes = np.asarray(column.values, dtype=np.int64)
        return pd.Index(column.levels).take(codes, allow_fill=True, fill_value=np.nan)
    if column.missing is None:
        return column.values
    return pd.Series(column.values).mask(column.missing).array


def is_nested(inner: IntVector, outer: IntVector) -> bool:
    """Return whether all rows of each level of `inner` are in one level of `outer`; (n,) codes."""
    first = np.full(int(inner.max(initial=-1)) + 1, -1, dtype=np.int64)
    first[inner[::-1]] = outer[::-1]
    return bool((first[inner] == outer).all())
