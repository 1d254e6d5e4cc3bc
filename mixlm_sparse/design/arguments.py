"""Arguments of the functions of a formula: numbers, whole numbers, truth values, sequences."""

from __future__ import annotations

import math
from typing import Any

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.formula.limits import require_within

__all__ = ["Argument", "flag_of", "number_of", "sequence_of", "whole_of"]

Argument = float | bool | str | tuple[Any, ...] | None


def number_of(name: str, value: Any, text: str) -> float:
    """Return a number; `text` is the call as the user wrote it, for messages."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FormulaError(f"the argument '{name}' of {text} must be a number")
    return float(value)


def whole_of(name: str, value: Any, text: str, minimum: int) -> int:
    """Return a whole number from `minimum` to the most columns that a basis may have."""
    number = number_of(name, value, text)
    if not math.isfinite(number) or number != int(number) or number < minimum:
        raise FormulaError(
            f"the argument '{name}' of {text} must be a whole number, at least {minimum}"
        )
    require_within(int(number), "basis_columns", f"'{name}' asks {text} for")
    return int(number)


def flag_of(name: str, value: Any, text: str) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise FormulaError(f"the argument '{name}' of {text} must be TRUE or FALSE")
    return value


def sequence_of(name: str, value: Any, text: str) -> tuple[float, ...]:
    """Return numbers, one or several."""
    values = value if isinstance(value, tuple) else (value,)
    require_within(len(values), "basis_columns", f"'{name}' asks {text} for")
    return tuple(number_of(name, item, text) for item in values)
