"""The user's choices of contrasts, read and checked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from mixlm_sparse.common.checks import plain_name
from mixlm_sparse.common.errors import DataError, FormulaWarning, OptionError, caller_level
from mixlm_sparse.design.columns import Part
from mixlm_sparse.design.contrasts import Contrast, as_contrast
from mixlm_sparse.design.headers import unknown_column
from mixlm_sparse.design.table import Table
from mixlm_sparse.formula.syntax import plain_text

__all__ = ["check_contrasts", "read_contrasts"]


def read_contrasts(contrasts: Mapping[str, Any] | None) -> dict[str, Contrast]:
    """Return the choices of contrasts by name of the factor, checked."""
    if contrasts is None:
        return {}
    if not isinstance(contrasts, Mapping):
        raise OptionError(
            'contrasts must be a dictionary from names of factors, such as {"f": "sum"}'
        )
    names = {name: plain_name(name) for name in contrasts if isinstance(name, str)}
    if len(names) < len(contrasts):
        raise OptionError("the keys of contrasts must be names of factors, such as {'f': 'sum'}")
    return {names[name]: as_contrast(names[name], choice) for name, choice in contrasts.items()}


def check_contrasts(choices: dict[str, Contrast], fixed: Part, table: Table, warn: bool) -> None:
    """Raise or warn if contrasts are given for what is no factor of the fixed part."""
    if not choices:
        return
    used = {plain_text(operand.variable) for operands in fixed.terms for operand in operands}
    for name in choices:
        if name in used:
            continue
        if name not in table.header:
            raise DataError(f"contrasts: {unknown_column(name, table.header)}")
        if not warn:
            continue
        warnings.warn(
            f"contrasts are given for '{name}', which is no factor of the fixed part: "
            f"they have no effect",
            FormulaWarning,
            stacklevel=caller_level(),
        )
