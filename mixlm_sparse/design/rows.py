"""Which rows of a frame are used: subset and missing cells; and arguments that go with the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed, require_same_index, shape_of
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import IntVector, Vector
from mixlm_sparse.design.evaluate import Scope, evaluate
from mixlm_sparse.design.table import Column, Table, as_column
from mixlm_sparse.design.whitelist import check_functions
from mixlm_sparse.formula.grammar import parse_expression
from mixlm_sparse.formula.syntax import Expr, Name, deparse, names_in

__all__ = ["RowArgument", "missing_cells", "restrict", "subset_mask", "used_rows"]


class RowArgument:
    """One of the arguments `weights`, `offset` and `subset`: a column, an expression or an array.

    A string is a column of the data if there is one of that name, else an expression.
    """

    def __init__(self, role: str, value: Any) -> None:
        self.role = role
        self.text = value if isinstance(value, str) else None
        self.array = None if isinstance(value, str) else value
        self._expr: Expr | None = None
        self._column: Column | None = None
        if self.text is not None and not self.text.strip():
            raise OptionError(f"{role} is an empty string: give a column name, or None")

    @staticmethod
    def of(role: str, value: Any) -> RowArgument | None:
        """Return the argument, None where there is none."""
        return None if value is None else RowArgument(role, value)

    @property
    def possible_names(self) -> tuple[str, ...]:
        """Columns that the argument may refer to."""
        if self.text is None:
            return ()
        try:
            return (self.text, *names_in(parse_expression(self.text)))
        except ValueError:  # an odd column name need not be an expression
            return (self.text,)

    def expression(self, table: Table, env: Mapping[str, Any]) -> Expr:
        """Return the expression, once it is known which columns there are."""
        assert self.text is not None
        if self._expr is None:
            if self.text in table.names:
                self._expr = Name(self.text)
            else:
                self._expr = parse_expression(self.text)
                check_functions((self._expr,), env)
        return self._expr

    def column(self, table: Table, index: Any) -> Column:
        """Return an array argument as a column, aligned with the rows of the data."""
        value: Any = self.array
        if self._column is not None:
            return self._column
        require_same_index(self.role, value, index)
        if isinstance(value, Column):  # read before, and held since
            column = value
        elif not shape_of(value):
            raise OptionError(
                f"{self.role} must be a column name or an array with one value for each row"
            )
        else:
            column = as_column(self.role, value).copy()
        if column.values.shape[0] != table.n:
            raise DataError(
                f"{self.role} has {column.values.shape[0]} values, but the data have {table.n} rows"
            )
        self._column = column
        return column


def subset_mask(argument: RowArgument, table: Table, env: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return which rows `subset` asks for; a missing value asks for none, as in R."""
    if argument.text is None:
        column = argument.column(table, table.index)
        value: Any = column.values
        missing = column.missing
    else:
        expr = argument.expression(table, env)
        columns = {name: table.columns[name] for name in names_in(expr) if name in table.columns}
        value = evaluate(expr, Scope(columns, table.n, {}, env))
        missing = missing_cells(columns.values(), table.n)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "b" or value.ndim != 1:
        what = f"'{argument.text}'" if argument.text else "the array"
        raise DataError(
            f"subset must be true or false for each row, which {what} is not: "
            f"write a comparison such as 'Days > 1', or pass an array of booleans"
        )
    return value if missing is None else value & ~missing


def missing_cells(columns: Any, n: int) -> NDArray[np.bool_] | None:
    """Return which rows have a missing cell in any of the columns, None if none has."""
    found: NDArray[np.bool_] | None = None
    for column in columns:
        if column.missing is not None:
            found = column.missing if found is None else found | column.missing
    return found


def used_rows(
    table: Table,
    columns: Mapping[str, Column],
    chosen: NDArray[np.bool_] | None,
    na_action: str,
) -> IntVector | None:
    """Return the positions of the rows used, None if all rows are.

    Parameters
    ----------
    columns : those in which a cell must not be missing.
    chosen : rows that `subset` leaves.

    Raises
    ------
    DataError : no row is left, or a cell is missing and `na_action` is "raise".
    """
    missing = missing_cells(columns.values(), table.n)
    if missing is not None and chosen is not None:
        missing = missing & chosen
    if missing is not None and na_action == "raise" and missing.any():
        cells = []
        for name, column in columns.items():
            if column.missing is not None:
                within = column.missing if chosen is None else column.missing & chosen
                if within.any():
                    cells.append(f"'{name}' ({int(within.sum())})")
        raise DataError(
            f"cells are missing in {listed(cells)}: fill them in, drop the rows, or use "
            f'na_action="omit"'
        )
    if table.n == 0:
        raise DataError("the data have no rows: check how they were read or filtered")
    if missing is None and chosen is None:
        return None
    keep = np.ones(table.n, dtype=bool) if chosen is None else chosen
    if chosen is not None and not chosen.any():
        raise DataError(f"subset leaves none of the {table.n} rows: check the condition")
    if missing is not None:
        keep = keep & ~missing
    rows = np.flatnonzero(keep)
    if rows.size == 0:
        counts = {
            name: int(column.missing.sum())
            for name, column in columns.items()
            if column.missing is not None
        }
        worst = max(counts, key=counts.__getitem__)
        raise DataError(
            f"no rows are left after dropping those with missing cells; "
            f"'{worst}' has {counts[worst]} missing of {table.n}: check its values, or leave it out"
        )
    return None if rows.size == table.n else rows.astype(np.int32)


def restrict(columns: Mapping[str, Column], rows: IntVector | None) -> dict[str, Column]:
    """Return the columns on the rows used, without missing cells."""
    if rows is None:
        return {
            name: column if column.missing is None else _complete(column)
            for name, column in columns.items()
        }
    return {name: _complete(column.take(rows)) for name, column in columns.items()}


def _complete(column: Column) -> Column:
    return Column(column.name, column.kind, column.values, column.levels, column.ordered, None)


def row_numbers(
    argument: RowArgument | None,
    table: Table,
    scope: Scope,
    rows: IntVector | None,
) -> Vector | None:
    """Return the numbers of `weights` or `offset` on the rows used, NaN where missing."""
    if argument is None:
        return None
    if argument.text is not None:
        expr = argument.expression(table, scope.env)
        name = deparse(expr)
        value = evaluate(expr, scope)
    else:
        name = argument.role
        column = argument.column(table, table.index)
        value = column.values
        if column.missing is not None:
            value = np.where(column.missing, np.nan, value) if column.kind == "number" else value
        if rows is not None:
            value = value[rows]
        if column.kind == "factor":
            value = None
    if not isinstance(value, np.ndarray) or value.shape != (scope.n,) or (
        value.dtype.kind not in "iufb"
    ):  # fmt: skip
        raise DataError(f"{argument.role}: '{name}' must be numeric, one value for each row")
    return value if value.dtype == np.float64 else value.astype(np.float64)
