"""What the stateful transforms of a formula learn from the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError, FormulaError
from mixlm_sparse.design.evaluate import (
    Scope,
    as_factor,
    constant_of,
    dummy_columns,
    evaluate,
    vector_of,
)
from mixlm_sparse.design.finite import require_finite
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.transforms import TRANSFORMS, State, learn
from mixlm_sparse.formula.syntax import Call, Expr, Name, deparse, names_in, walk

__all__ = ["learn_states"]


def learn_states(
    expr: Expr,
    scope: Scope,
    states: dict[Expr, State],
    learning: Callable[[tuple[str, ...]], Scope],
) -> None:
    """Learn every stateful transform inside of `expr`, inner ones first.

    Parameters
    ----------
    scope : the rows that the model uses; `scope.states` must be `states`, which is filled.
    learning : names of columns to the scope of all rows in which none of them is missing.  A
        transform learns from these, used or not, as in R.
    """
    if isinstance(expr, Name):
        return
    for node in reversed(list(walk(expr))):
        if isinstance(node, Call) and node.function == "dummy" and "dummy" not in scope.env:
            _check_dummy(node, scope)
        if not isinstance(node, Call) or node.function not in TRANSFORMS or node in states:
            continue
        if node.function in scope.env:
            continue
        text = deparse(node)
        if not node.args:
            raise FormulaError(f"{text} needs a variable as its first argument")
        rows = learning(names_in(node.args[0]))
        x = vector_of(evaluate(node.args[0], rows), rows, text)
        finite = np.isfinite(x)
        if not finite.all():  # which is an error in the rows used only
            require_finite(vector_of(evaluate(node.args[0], scope), scope, text), node.args[0])
            x = x[finite]
        positional = [constant_of(argument, text) for argument in node.args[1:]]
        named = {name: constant_of(value, text) for name, value in node.keywords}
        states[node] = learn(node.function, x, positional, named, text)


def _check_dummy(expr: Call, scope: Scope) -> None:
    text = deparse(expr)
    dummy_columns(expr, scope, text)
    labels = level_labels(as_factor(evaluate(expr.args[0], scope), text).levels)
    wanted = constant_of(expr.args[1], text)
    for label in level_labels(wanted if isinstance(wanted, tuple) else (wanted,)):
        if label not in labels:
            known = listed(labels, quoted=True)
            raise DataError(f"{text}: there is no level '{label}'; the levels are {known}")
