"""Refusal of NaN, infinity, and numbers whose squares are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.formula.syntax import Expr, Name, deparse

__all__ = [
    "powers_within_range",
    "require_finite",
    "require_range",
    "require_weight_range",
    "square_sum",
]

SMALLEST_WEIGHT = 1e-150


def square_sum(values: NDArray[Any]) -> float:
    """Return the sum of squares, not finite if a number or the sum is not; one pass.

    It warns of nothing: products of BLAS do not look at the flags of the processor.
    """
    if values.dtype.itemsize < 8:  # what is large for half precision is not for the model
        values = values.astype(np.float64)
    return float(np.vdot(values, values))


def require_range(values: NDArray[Any], what: str) -> None:
    """Refuse finite numbers whose squares do not add up to a number.

    Parameters
    ----------
    what : what they are, for the message.

    Raises
    ------
    DataError : the sum of squares is beyond 1e308.
    """
    if values.dtype.kind == "f" and not math.isfinite(square_sum(values)):
        largest = float(np.abs(values).max())
        raise DataError(
            f"{what} has values up to {largest:.3g}, and their squares leave the range of numbers: "
            "use another unit"
        )


@contextmanager
def powers_within_range(what: str) -> Iterator[None]:
    """Say of which values powers are taken, where these leave the range of numbers.

    Raises
    ------
    DataError : a power overflows.
    """
    try:
        with np.errstate(over="raise"):
            yield
    except FloatingPointError:
        raise DataError(
            f"{what} has values whose powers leave the range of numbers: use another unit"
        ) from None


def require_weight_range(weights: NDArray[Any], what: str) -> None:
    """Refuse positive weights that are too large or too small to compute with."""
    require_range(weights, what)
    if weights.min() < SMALLEST_WEIGHT:
        raise DataError(
            f"{what} has weights down to {float(weights.min()):.3g}: multiply all of them by a "
            "constant, which changes sigma and nothing else"
        )


def require_finite(values: NDArray[Any], expr: Expr) -> None:
    """Refuse NaN and infinity that an expression makes of values that are not missing."""
    if values.dtype.kind != "f" or math.isfinite(square_sum(values)):
        return
    if np.isfinite(values).all():
        require_range(values, f"column '{expr.id}'" if isinstance(expr, Name) else deparse(expr))
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
