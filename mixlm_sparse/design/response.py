"""The response and the `offset()` terms of a formula on given rows."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.evaluate import evaluate
from mixlm_sparse.design.finite import require_finite
from mixlm_sparse.design.variables import Variables
from mixlm_sparse.formula.syntax import Expr, deparse, plain_text
from mixlm_sparse.formula.terms import MixedFormula

__all__ = ["add_offsets", "response_vector"]


def response_vector(formula: MixedFormula, variables: Variables) -> Vector:
    """Return the response, (n,); a view of the input where its type allows it."""
    expr = formula.response
    if expr is None:
        raise DataError("the formula has no response")
    value = evaluate(expr, variables.scope)
    name = plain_text(expr)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb":
        raise DataError(
            f"the response '{name}' must be numeric, but it is a factor or text: convert it"
        )
    if value.shape != (variables.scope.n,):
        raise DataError(f"the response '{name}' must be one column")
    y: Vector = value if value.dtype == np.float64 else value.astype(np.float64)
    require_finite(y, expr)
    return y


def add_offsets(
    offsets: tuple[Expr, ...], variables: Variables, total: Vector | None
) -> Vector | None:
    """Return `total` plus the `offset()` terms of the formula."""
    for expr in offsets:
        value = evaluate(expr, variables.scope)
        name = deparse(expr)
        if isinstance(value, (int, float)):
            value = np.full(variables.scope.n, float(value))
        if not isinstance(value, np.ndarray) or value.shape != (variables.scope.n,):
            raise DataError(f"offset({name}) must be numeric, one value for each row")
        values = value.astype(np.float64, copy=False)
        require_finite(values, expr)
        total = values if total is None else total + values
    return total
