"""Codings of factors: full indicators, and R's contrasts with R's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed, require_array
from mixlm_sparse.common.errors import DataError, FormulaError
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.transforms import helmert_matrix, polynomial_matrix, sum_matrix

__all__ = ["CONTRASTS", "Contrast", "as_contrast", "contrast_table", "named_contrast"]

CONTRASTS = ("treatment", "sum", "helmert", "poly", "SAS")
_POLYNOMIAL_NAMES = (".L", ".Q", ".C")


@dataclass(frozen=True, slots=True)
class Contrast:
    """A choice of contrasts.

    Attributes
    ----------
    kind : one of `CONTRASTS`, or "matrix".
    reference : level that treatment contrasts leave out, or None for the first.
    matrix, names, rows : for kind "matrix": (levels, k), names of its columns, and labels of
        its rows if it had any.
    """

    kind: str
    reference: str | None = None
    matrix: Matrix | None = None
    names: tuple[str, ...] = ()
    rows: tuple[str, ...] | None = None


def named_contrast(name: str) -> Contrast | None:
    """Return the contrast called `name` ("sum", "contr.sum", "Sum"), None if there is none."""
    bare = name.removeprefix("contr.")
    for kind in CONTRASTS:
        if bare.lower() == kind.lower():
            return Contrast(kind)
    return None


def as_contrast(factor: str, choice: Any) -> Contrast:
    """Read one value of the argument `contrasts`.

    Parameters
    ----------
    choice : a name; ("treatment", level) for treatment contrasts with that level as the base; or a
        levels x k array or DataFrame.
    """
    if isinstance(choice, Contrast):
        return choice
    if isinstance(choice, tuple | list) and len(choice) == 2 and isinstance(choice[0], str):
        return _with_base(factor, choice[0], choice[1])
    if isinstance(choice, str):
        contrast = named_contrast(choice)
        if contrast is None:
            raise DataError(
                f"contrasts for '{factor}': '{choice}' is not known; use one of "
                f"{', '.join(CONTRASTS)}, ('treatment', level) for another base, or a matrix with "
                "one row for each level"
            )
        return contrast
    names: tuple[str, ...] = ()
    rows = None
    if isinstance(choice, pd.DataFrame):
        names = tuple(str(name) for name in choice.columns)
        if not isinstance(choice.index, pd.RangeIndex):
            rows = tuple(str(row) for row in choice.index)
    remedy = (
        f"give one of {', '.join(CONTRASTS)}, ('treatment', level) for another base, or a matrix "
        "of numbers"
    )
    matrix = require_array(f"contrasts for '{factor}'", choice, remedy, DataError)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2:
        raise DataError(f"contrasts for '{factor}' must be a matrix: one row for each level")
    return Contrast("matrix", None, matrix, names or tuple(
        str(column + 1) for column in range(matrix.shape[1])
    ), rows)  # fmt: skip


def _with_base(factor: str, name: str, base: Any) -> Contrast:
    found = named_contrast(name)
    if found is None or found.kind != "treatment":
        raise DataError(
            f"contrasts for '{factor}': {name!r} has no base level; write ('treatment', level)"
        )
    return Contrast("treatment", level_labels([base])[0])


def contrast_table(
    variable: str, labels: tuple[str, ...], contrast: Contrast | None
) -> tuple[Matrix, tuple[str, ...]]:
    """Return the rows that code the levels, (levels, k), and the names of the columns.

    `contrast` None stands for full indicators, one column for each level.
    """
    size = len(labels)
    if contrast is None:
        return np.eye(size), labels
    if contrast.kind == "matrix":
        return _own_matrix(variable, labels, contrast)
    if contrast.kind in ("treatment", "SAS"):
        base = size - 1 if contrast.kind == "SAS" else 0
        if contrast.reference is not None:
            if contrast.reference not in labels:
                raise FormulaError(
                    f"'{variable}' has no level '{contrast.reference}' to serve as reference; "
                    f"its levels are {listed(labels, quoted=True)}"
                )
            base = labels.index(contrast.reference)
        kept = [level for level in range(size) if level != base]
        return np.eye(size)[:, kept], tuple(labels[level] for level in kept)
    if contrast.kind == "poly":
        names = [*_POLYNOMIAL_NAMES, *(f"^{degree}" for degree in range(4, size))]
        return polynomial_matrix(size), tuple(names[: size - 1])
    matrix = sum_matrix(size) if contrast.kind == "sum" else helmert_matrix(size)
    return matrix, tuple(str(column) for column in range(1, size))


def _own_matrix(
    variable: str, labels: tuple[str, ...], contrast: Contrast
) -> tuple[Matrix, tuple[str, ...]]:
    matrix = contrast.matrix
    assert matrix is not None
    if contrast.rows is not None:
        absent = [label for label in labels if label not in contrast.rows]
        if absent:
            raise DataError(
                f"the contrasts for '{variable}' have no row for the level '{absent[0]}': "
                f"label their rows with the levels {listed(labels, quoted=True)}"
            )
        matrix = matrix[[contrast.rows.index(label) for label in labels]]
    if matrix.shape[0] != len(labels):
        raise DataError(
            f"the contrasts for '{variable}' have {matrix.shape[0]} rows, but {len(labels)} "
            f"levels occur in the data: give one row for each of {listed(labels, quoted=True)}"
        )
    if not np.isfinite(matrix).all():
        raise DataError(f"the contrasts for '{variable}' have entries that are not finite")
    with_constant = np.column_stack([np.ones(len(labels)), matrix])
    if np.linalg.matrix_rank(with_constant) < with_constant.shape[1]:
        raise DataError(
            f"the contrasts for '{variable}' are linearly dependent (with the constant): "
            f"use at most {len(labels) - 1} independent columns"
        )
    return matrix, contrast.names
