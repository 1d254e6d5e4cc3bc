"""Value of an expression on some rows, by walking over its syntax tree.

Only what the tables below name can be reached; nothing is handed to Python's `eval`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, FormulaError
from mixlm_sparse.design.contrasts import CONTRASTS, Contrast, named_contrast
from mixlm_sparse.design.levels import factorize, level_labels
from mixlm_sparse.design.table import Column
from mixlm_sparse.design.transforms import TRANSFORMS, State
from mixlm_sparse.design.whitelist import ELEMENTWISE, without_numpy
from mixlm_sparse.formula.syntax import (
    Binary,
    Call,
    Expr,
    Name,
    Number,
    Paren,
    Text,
    Truth,
    Unary,
    deparse,
    names_in,
)

__all__ = [
    "FactorValue",
    "Scope",
    "as_factor",
    "constant_of",
    "dummy_columns",
    "evaluate",
    "vector_of",
]

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "^": np.power,
    "%%": np.mod,
    "%/%": np.floor_divide,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LOGICAL = {"&": np.logical_and, "&&": np.logical_and, "|": np.logical_or, "||": np.logical_or}
_CONSTANTS = {"pi": math.pi}


@dataclass(frozen=True, slots=True)
class FactorValue:
    """A factor: codes (n,) into `levels` (values, in order)."""

    codes: NDArray[Any]
    levels: Any
    ordered: bool = False
    contrast: Contrast | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Where names are looked up.

    Attributes
    ----------
    columns : the rows in question of every column.
    n : number of these rows.
    states : what stateful transforms have learned, by the call.
    env : functions that the user added.
    """

    columns: Mapping[str, Column]
    n: int
    states: Mapping[Expr, State] = field(default_factory=dict)
    env: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def rows(self, rows: slice, names: tuple[str, ...]) -> Scope:
        """Return the scope of a slice of the rows, for the columns `names`."""
        columns = {name: self.columns[name].take(rows) for name in names if name in self.columns}
        size = len(range(*rows.indices(self.n)))
        return Scope(columns, size, self.states, self.env)


def evaluate(expr: Expr, scope: Scope) -> Any:
    """Return the value of `expr` on the rows of `scope`.

    Returns
    -------
    (n,) or (n, k) array of numbers, (n,) array of truth values, FactorValue, or a constant.
    """
    if isinstance(expr, Name):
        return _column(expr, scope)
    if isinstance(expr, (Number, Text, Truth)):
        return expr.value
    if isinstance(expr, Paren):
        return evaluate(expr.inner, scope)
    with np.errstate(all="ignore"):
        if isinstance(expr, Unary):
            value = evaluate(expr.operand, scope)
            if expr.op == "!":
                return np.logical_not(_truth(value, expr))
            value = _numbers(value, expr)
            return -value if expr.op == "-" else value
        if isinstance(expr, Binary):
            return _binary(expr, scope)
        return _call(expr, scope)


def _column(expr: Name, scope: Scope) -> Any:
    column = scope.columns.get(expr.id)
    if column is None:
        if expr.id in _CONSTANTS:
            return _CONSTANTS[expr.id]
        raise DataError(f"the data have no column '{expr.id}'")
    if column.kind == "factor":
        return FactorValue(column.values, column.levels, column.ordered)
    if column.kind == "membership":
        raise DataError(
            f"'{expr.id}' is a membership, several levels a row: it stands on the right of a "
            f"bar, as in (1 | {deparse(expr)}), and nowhere else"
        )
    if column.kind == "datetime":
        raise DataError(
            f"column '{expr.id}' holds dates or times: convert it to a number, such as days since "
            f"the start, or write factor({deparse(expr)}) for one level a date"
        )
    return column.values


def _binary(expr: Binary, scope: Scope) -> Any:
    left, right = evaluate(expr.left, scope), evaluate(expr.right, scope)
    if expr.op in _ARITHMETIC:
        return _ARITHMETIC[expr.op](*_alike(expr, _numbers(left, expr), _numbers(right, expr)))
    if expr.op in _LOGICAL:
        return _LOGICAL[expr.op](*_alike(expr, _truth(left, expr), _truth(right, expr)))
    if expr.op in _COMPARISONS:
        return _compare(expr, left, right)
    if expr.op == "%in%":
        choices = right if isinstance(right, tuple) else (right,)
        if not all(isinstance(choice, (int, float, str)) for choice in choices):
            raise FormulaError(f"the right side of {deparse(expr)} must be constants: c(1, 2)")
        found = [_compare(expr, left, choice, "==") for choice in choices]
        return np.logical_or.reduce(found)
    raise FormulaError(f"'{expr.op}' has no meaning inside of {deparse(expr)}")


def _alike(expr: Expr, *values: Any) -> tuple[Any, ...]:
    """Return the values, unless they have different numbers of columns."""
    if len({value.shape for value in values if isinstance(value, np.ndarray)}) > 1:
        raise FormulaError(
            f"{deparse(expr)} combines columns of different number: one of them, such as "
            "poly(), makes several; use it as a term of its own"
        )
    return values


def _compare(expr: Binary, left: Any, right: Any, op: str | None = None) -> Any:
    compare = _COMPARISONS[op or expr.op]
    swapped = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
    if isinstance(right, FactorValue) and not isinstance(left, FactorValue):
        left, right = right, left
        name = op or expr.op
        compare = _COMPARISONS[swapped.get(name, name)]
    if not isinstance(left, FactorValue):
        if isinstance(left, str) or isinstance(right, str):
            raise FormulaError(f"{deparse(expr)} compares numbers with text")
        return compare(*_alike(expr, _numbers(left, expr), _numbers(right, expr)))
    labels = level_labels(left.levels)
    if isinstance(right, FactorValue):
        if labels != level_labels(right.levels) or compare not in (operator.eq, operator.ne):
            raise FormulaError(f"{deparse(expr)}: only factors with equal levels can be compared")
        return compare(left.codes, right.codes)
    label = right if isinstance(right, str) else level_labels([right])[0]
    if compare in (operator.eq, operator.ne):
        code = labels.index(label) if label in labels else -2
        return compare(left.codes, code)
    if not left.ordered or label not in labels:
        raise FormulaError(f"{deparse(expr)}: the factor has no order, or no level '{label}'")
    return compare(left.codes, labels.index(label))


def _call(expr: Call, scope: Scope) -> Any:
    name = expr.function
    text = deparse(expr)
    if name in scope.env:
        return _own_function(expr, scope, text)
    name = without_numpy(name)
    if name in TRANSFORMS:
        state = scope.states.get(expr)
        if state is None:
            raise FormulaError(f"{text} has not been learned")
        columns = state.apply(vector_of(evaluate(expr.args[0], scope), scope, text))
        return columns[:, 0] if columns.ndim == 2 and columns.shape[1] == 1 else columns
    if name == "C":
        return _coded(expr, scope, text)
    if name in ("factor", "as.factor", "ordered"):
        return _factor(expr, scope, text)
    if name == "dummy":
        return dummy_columns(expr, scope, text)
    if name == "c":
        return tuple(constant_of(argument, text) for argument in expr.args)
    values = [evaluate(argument, scope) for argument in expr.args]
    if name == "log":
        named = dict(expr.keywords)
        base = values[1] if len(values) == 2 else None
        if "base" in named:
            base = evaluate(named.pop("base"), scope)
        if named or not 1 <= len(values) <= 2:
            raise FormulaError(f"{text}: log() takes a variable and perhaps a base")
        numbers = _alike(expr, *(_numbers(v, expr) for v in (values[0], base) if v is not None))
        return np.log(numbers[0]) if base is None else np.log(numbers[0]) / np.log(numbers[1])
    if expr.keywords:
        raise FormulaError(f"{text} has no argument '{expr.keywords[0][0]}'")
    if name in ("pmin", "pmax"):
        if len(values) < 2:
            raise FormulaError(f"{text} needs at least two arguments")
        reduce = np.minimum if name == "pmin" else np.maximum
        numbers = _alike(expr, *(_numbers(value, expr) for value in values))
        return functools.reduce(reduce, numbers)
    if len(values) != 1:
        raise FormulaError(f"{text} takes one argument, not {len(values)}")
    if name == "I":
        return values[0]
    return ELEMENTWISE[name](_numbers(values[0], expr))


def _own_function(expr: Call, scope: Scope, text: str) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, FactorValue):
            return np.asarray(level_labels(value.levels), dtype=object)[value.codes]
        return value

    arguments = [plain(evaluate(argument, scope)) for argument in expr.args]
    named = {name: plain(evaluate(value, scope)) for name, value in expr.keywords}
    try:
        result = np.asarray(scope.env[expr.function](*arguments, **named))
    except Exception as error:
        raise FormulaError(f"{text} failed: {type(error).__name__}: {error}") from error
    if result.ndim not in (1, 2) or result.shape[0] != scope.n or result.dtype.kind not in "iufb":
        raise FormulaError(
            f"{text} must return one number for each of the {scope.n} rows, or a matrix of them; "
            f"it returned an array of type {result.dtype} and shape {result.shape}"
        )
    return result if result.dtype.kind == "b" else result.astype(np.float64, copy=False)


def _coded(expr: Call, scope: Scope, text: str) -> FactorValue:
    if not expr.args:
        raise FormulaError(f"{text} needs a factor as its first argument")
    value = as_factor(evaluate(expr.args[0], scope), text)
    named = dict(expr.keywords)
    choices = list(expr.args[1:])
    if "contr" in named:
        choices.append(named.pop("contr"))
    if named or len(choices) > 1:
        raise FormulaError(f"{text}: write C(factor, contrast), such as C(f, sum)")
    if not choices:
        return value
    return FactorValue(value.codes, value.levels, value.ordered, _contrast(choices[0], text))


def _contrast(expr: Expr, text: str) -> Contrast:
    known: Contrast | None = None
    reference: str | None = None
    if isinstance(expr, (Name, Text)):
        known = named_contrast(expr.id if isinstance(expr, Name) else expr.value)
    elif isinstance(expr, Call):
        known = named_contrast(expr.function)
        arguments = [*expr.args, *(value for key, value in expr.keywords if key == "reference")]
        if len(arguments) != len(expr.args) + len(expr.keywords) or len(arguments) > 1:
            known = None
        elif arguments:
            if known is None or known.kind != "treatment":
                known = None
            value = constant_of(arguments[0], text)
            reference = value if isinstance(value, str) else level_labels([value])[0]
    if known is None:
        raise FormulaError(
            f"the contrast {deparse(expr)} in {text} is not known: use one of "
            f'{", ".join(CONTRASTS)}, or Treatment("level")'
        )
    return Contrast(known.kind, reference)


def _factor(expr: Call, scope: Scope, text: str) -> FactorValue:
    if len(expr.args) != 1:
        raise FormulaError(f"{text} takes one variable, and perhaps levels = c(...)")
    argument = expr.args[0]
    if isinstance(argument, Name) and argument.id in scope.columns:
        column = scope.columns[argument.id]
        value = FactorValue(*factorize(column.values)) if column.kind == "datetime" else None
    else:
        value = None
    if value is None:
        value = as_factor(evaluate(argument, scope), text)
    ordered = value.ordered or expr.function == "ordered"
    levels = None
    for name, keyword in expr.keywords:
        if name == "levels":
            levels = constant_of(keyword, text)
        elif name == "ordered":
            ordered = bool(constant_of(keyword, text))
        else:
            raise FormulaError(f"{text} has no argument '{name}': it takes levels and ordered")
    if levels is None:
        return FactorValue(value.codes, value.levels, ordered)
    chosen = level_labels(levels if isinstance(levels, tuple) else (levels,))
    labels = level_labels(value.levels)
    absent = [label for label in labels if label not in chosen]
    if absent:
        raise DataError(
            f"{text} leaves out the level '{absent[0]}' that the data have: add it, or drop its "
            f"rows with subset="
        )
    lookup = np.array([chosen.index(label) for label in labels], dtype=np.int32)
    return FactorValue(lookup[value.codes], np.asarray(chosen, dtype=object), ordered)


def dummy_columns(expr: Call, scope: Scope, text: str) -> Any:
    if len(expr.args) != 2 or expr.keywords:
        raise FormulaError(f'{text}: write dummy(factor, "level")')
    value = as_factor(evaluate(expr.args[0], scope), text)
    wanted = constant_of(expr.args[1], text)
    labels = level_labels(value.levels)
    columns = []
    for label in level_labels(wanted if isinstance(wanted, tuple) else (wanted,)):
        code = labels.index(label) if label in labels else -2  # new data need not have the level
        columns.append((value.codes == code).astype(np.float64))
    return columns[0] if len(columns) == 1 else np.column_stack(columns)


def as_factor(value: Any, text: str) -> FactorValue:
    """Return `value` as a factor; numbers and truth values become sorted levels."""
    if isinstance(value, FactorValue):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return FactorValue(*factorize(value))
    raise FormulaError(f"{text} is not one value for each row, which a factor needs")


def _numbers(value: Any, expr: Expr) -> Any:
    """Return numbers as float64: whole numbers must neither overflow nor wrap around."""
    if isinstance(value, np.ndarray):
        return value if value.dtype == np.float64 else value.astype(np.float64)
    if isinstance(value, (bool, int, float)):
        return float(value)
    if isinstance(value, FactorValue):
        names = ", ".join(f"'{name}'" for name in names_in(expr))
        raise DataError(
            f"{deparse(expr)} needs numbers, but a factor or text is among {names}: "
            f"convert it in the data frame"
        )
    raise FormulaError(f"{deparse(expr)} needs numbers, not {value!r}")


def _truth(value: Any, expr: Expr) -> Any:
    if isinstance(value, bool) or (isinstance(value, np.ndarray) and value.dtype.kind == "b"):
        return value
    return _numbers(value, expr) != 0


def vector_of(value: Any, scope: Scope, text: str) -> NDArray[np.float64]:
    if isinstance(value, FactorValue):
        raise DataError(f"{text} needs numbers, but its variable is a factor or text")
    if not isinstance(value, np.ndarray) or value.shape != (scope.n,):
        raise FormulaError(f"{text} needs one variable as its first argument")
    return value if value.dtype == np.float64 else value.astype(np.float64)


def constant_of(expr: Expr, text: str) -> Any:
    """Return the value of an argument that must not depend on the data."""
    if names_in(expr):
        raise FormulaError(
            f"the argument {deparse(expr)} of {text} must be a constant, not a column"
        )
    return evaluate(expr, Scope({}, 0))
