"""Refusal of NaN and infinity that an expression makes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.formula.syntax import Expr, Name, deparse

__all__ = ["require_finite"]


def require_finite(values: NDArray[Any], expr: Expr) -> None:
    """Refuse NaN and infinity that an expression makes of values that are not missing."""
    if values.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore", over="ignore"):
        total = values.sum()
    if np.isfinite(total) or np.isfinite(values).all():
        return
    finite = np.isfinite(values) if values.ndim == 1 else np.isfinite(values).all(axis=1)
    bad = int(finite.size - finite.sum())
    text = deparse(expr)
    if isinstance(expr, Name):
        raise DataError(
            f"column '{expr.id}' is infinite in {bad} row{'s'[: bad != 1]}: "
            f"correct these cells, or make them missing"
        )
    raise DataError(
        f"{text} is not finite in {bad} row{'s'[: bad != 1]} where its variables are not missing "
        f"(a logarithm of zero, a root of a negative number, a division by zero?): "
        f"correct the values, or drop the rows"
    )
