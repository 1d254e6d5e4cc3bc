"""Variables of a model on given rows: numbers, at once or block by block, and coded factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, FormulaError
from mixlm_sparse.design.contrasts import Contrast
from mixlm_sparse.design.evaluate import FactorValue, Scope, as_factor, evaluate
from mixlm_sparse.design.finite import require_finite
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.table import Column
from mixlm_sparse.design.times import in_time, is_text
from mixlm_sparse.formula.syntax import Call, Expr, Name, deparse, names_in, plain_text, walk

__all__ = ["BLOCK_ROWS", "Rows", "Variable", "Variables"]

BLOCK_ROWS = 65_536  # rows evaluated at a time when a computed column is checked
KEEP_NUMBERS = 2_000_000  # a computed variable of at most so many numbers is computed only once

Rows = Callable[[slice], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Stored:
    """Numbers that exist already, (n,) or (n, k); unlike a bound method it is copied as data."""

    values: NDArray[Any]

    def __call__(self, rows: slice) -> NDArray[Any]:
        return np.asarray(self.values[rows])


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the model.

    Attributes
    ----------
    name : as R writes it.
    get : rows -> (m,) or (m, k) numbers, for a numeric variable; None for a factor.
    width : number of columns of a numeric variable; 0 stands for a plain vector.
    codes, labels : of a factor; `used` tells which levels occur (None: all).
    """

    name: str
    get: Rows | None = None
    width: int = 0
    codes: NDArray[Any] | None = None
    labels: tuple[str, ...] = ()
    used: NDArray[np.bool_] | None = None
    ordered: bool = False
    contrast: Contrast | None = None

    @property
    def is_factor(self) -> bool:
        return self.codes is not None

    def used_labels(self) -> tuple[str, ...]:
        """Return the labels of the levels that occur, in order."""
        if self.used is None:
            return self.labels
        return tuple(self.labels[level] for level in np.flatnonzero(self.used).tolist())


class _Deferred:
    """A computed variable that is evaluated for the rows asked for, and remembers the last ones."""

    def __init__(self, expr: Expr, scope: Scope) -> None:
        self.expr = expr
        self.scope = scope
        self.names = names_in(expr)
        self.last: tuple[slice, NDArray[Any]] | None = None

    def __call__(self, rows: slice) -> NDArray[Any]:
        last = self.last  # read once: another thread may replace it
        if last is not None and last[0] == rows:
            return last[1]
        scope = self.scope.rows(rows, self.names)
        values = _as_numbers(evaluate(self.expr, scope), self.expr, scope.n)
        self.last = (rows, values)
        return values


class Variables:
    """The variables on the rows of one scope; each is evaluated at most once."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._numbers_or_factor: dict[Expr, Variable] = {}
        self._factors: dict[Expr, Variable] = {}
        self._values: dict[Expr, FactorValue] = {}

    def get(self, expr: Expr, *, as_levels: bool = False) -> Variable:
        """Return the variable `expr`; with `as_levels`, numbers become a factor."""
        store = self._factors if as_levels else self._numbers_or_factor
        variable = store.get(expr)
        if variable is None:
            variable = self._factor(expr) if as_levels else self._load(expr)
            store[expr] = variable
        return variable

    def factor_value(self, expr: Expr) -> FactorValue:
        """Return `expr` as codes and levels, for grouping."""
        value = self._values.get(expr)
        if value is None:
            column = self.column(expr)
            if column is not None and column.kind == "datetime":
                expr_as_factor = Call("factor", (expr,))
                value = evaluate(expr_as_factor, self.scope)
            else:
                value = evaluate(expr, self.scope)
                if not isinstance(value, FactorValue):
                    value = as_factor(value, deparse(expr))
            assert isinstance(value, FactorValue)
            self._values[expr] = value
        return value

    def column(self, expr: Expr) -> Column | None:
        """Return the column that `expr` names, if it names one."""
        return self.scope.columns.get(expr.id) if isinstance(expr, Name) else None

    def _factor(self, expr: Expr) -> Variable:
        value = self.factor_value(expr)
        return _coded(plain_text(expr), in_time(value) if is_text(self.column(expr)) else value)

    def _load(self, expr: Expr) -> Variable:
        name = plain_text(expr)
        if isinstance(expr, Name):
            value = evaluate(expr, self.scope)
            if isinstance(value, np.ndarray) and value.dtype.kind != "b":
                require_finite(value, expr)
                return Variable(name, _Stored(value))
            return self._of_value(expr, name, value)
        return self._computed(expr, name)

    def _of_value(self, expr: Expr, name: str, value: Any) -> Variable:
        if isinstance(value, FactorValue):
            return _coded(name, value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "b" and value.ndim == 1:
            return Variable(name, codes=value.view(np.int8), labels=("FALSE", "TRUE"))
        numbers = _as_numbers(value, expr, self.scope.n)
        require_finite(numbers, expr)
        return Variable(name, _Stored(numbers), 0 if numbers.ndim == 1 else numbers.shape[1])

    def _computed(self, expr: Expr, name: str) -> Variable:
        n = self.scope.n
        own = any(isinstance(node, Call) and node.function in self.scope.env for node in walk(expr))
        if n > BLOCK_ROWS and not own:  # a function of the user may look at all rows
            head = self.scope.rows(slice(0, BLOCK_ROWS), names_in(expr))
            value = evaluate(expr, head)
            if isinstance(value, np.ndarray) and value.dtype.kind != "b":
                width = 0 if value.ndim == 1 else value.shape[1]
                if n * max(width, 1) > KEEP_NUMBERS:
                    deferred = _Deferred(expr, self.scope)
                    for start in range(0, n, BLOCK_ROWS):
                        require_finite(deferred(slice(start, start + BLOCK_ROWS)), expr)
                    return Variable(name, deferred, width)
        return self._of_value(expr, name, evaluate(expr, self.scope))


def _coded(name: str, value: FactorValue) -> Variable:
    labels = level_labels(value.levels)
    used = used_levels(value.codes, len(labels))
    return Variable(
        name,
        codes=value.codes,
        labels=labels,
        used=used,
        ordered=value.ordered,
        contrast=value.contrast,
    )


def used_levels(codes: NDArray[Any], size: int) -> NDArray[np.bool_] | None:
    """Return which levels occur, None if all do."""
    try:
        counts = np.bincount(codes, minlength=size)[:size]
    except ValueError:  # a negative code
        raise DataError(
            "a grouping expression gives missing values where its columns have none: group by a "
            "column, or by an expression that is defined on every row"
        ) from None
    return None if np.count_nonzero(counts) == size else counts > 0


def _as_numbers(value: Any, expr: Expr, n: int) -> NDArray[Any]:
    if isinstance(value, np.ndarray) and value.shape[:1] == (n,):
        return value if value.dtype == np.float64 else value.astype(np.float64)
    if isinstance(value, FactorValue):
        raise DataError(f"{deparse(expr)} must be numeric, but it is a factor or text")
    raise FormulaError(f"{deparse(expr)} is not a variable: it has no value for each row")
