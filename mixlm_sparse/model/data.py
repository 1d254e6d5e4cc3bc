"""The columns of a fit's data: the one place that reads them.

A fit holds the columns that its formula and arguments name (`ModelMatrices.data`), so that nothing
that happens to the user's frame afterwards changes a result.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from mixlm_sparse.common.checks import plain_name
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.design.build import columns_asked, functions_of
from mixlm_sparse.design.contrasts import as_contrast
from mixlm_sparse.design.known import read_known
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.readers import hold, open_table
from mixlm_sparse.design.residuals import columns_of_residuals
from mixlm_sparse.design.rows import RowArgument, restrict
from mixlm_sparse.design.table import Column, HeldData, Table
from mixlm_sparse.design.whitelist import check_functions
from mixlm_sparse.formula.parse import parse_formula

if TYPE_CHECKING:
    from mixlm_sparse.model.batches.rows import Batches
    from mixlm_sparse.model.call import ModelCall

__all__ = [
    "ROLES", "all_rows", "columns_of_call", "data_column", "data_columns", "held_call",
    "held_data",
]  # fmt: skip

ROLES = ("weights", "offset", "subset")


class HasMatrices(Protocol):
    """A fit, or a list of fits to groups."""

    @property
    def matrices(self) -> ModelMatrices:
        """The design."""
        ...


def held_call(call: ModelCall) -> ModelCall:
    """Return the call with columns, arrays and choices of its own, read once.

    Raises
    ------
    FormulaError, DataError, OptionError : as `model_matrices`.
    """
    formula = parse_formula(call.formula, require_response=False, require_random=False)
    env = functions_of(call.env)
    check_functions(formula.expressions, env)
    given = {role: getattr(call, role) for role in ROLES}
    arguments = {
        role: RowArgument(role, value) for role, value in given.items() if value is not None
    }
    names, optional = columns_asked(formula, arguments.values())
    if call.response is not None:  # its column is not needed any more, and need not exist
        names, optional = [], [*names, *optional]
    optional = [*optional, *columns_of_residuals(call.residual, call.variance)]
    data = hold(call.data, names, optional)
    columns: dict[str, Any] = {
        role: argument.column(data.table, data.table.index)
        for role, argument in arguments.items()
        if argument.text is None
    }
    contrasts = held_contrasts(call.contrasts)
    known = read_known(call.known)
    fixed = dict(call.fixed) if isinstance(call.fixed, Mapping) else call.fixed
    return replace(
        call, data=data, contrasts=contrasts, env=env or None, known=known, fixed=fixed,
        **columns,
    )  # fmt: skip


def held_contrasts(contrasts: Any) -> Any:
    """Return contrasts that nothing changes from outside."""
    if not isinstance(contrasts, dict):
        return contrasts
    return {name: copy.deepcopy(as_contrast(name, choice)) for name, choice in contrasts.items()}


def held_data(source: HasMatrices) -> HeldData:
    """Return the columns that a fit holds.

    Raises
    ------
    OptionError : the fit was made from matrices.
    SavedFitError : the fit was saved without its data.
    """
    data = source.matrices.data
    if data is None:
        raise OptionError(
            "this fit was made from matrices and knows no data frame: give an array with one value "
            "for each row, or fit by lmer with a formula and data"
        )
    return data


def all_rows(source: HasMatrices, names: Iterable[str], optional: Iterable[str] = ()) -> Table:
    """Return columns on all rows of the data, by plain or backticked names.

    Parameters
    ----------
    optional : names of columns that need not exist.

    Raises
    ------
    DataError : there is no such column.
    OptionError, SavedFitError : there are no data.
    """
    data = held_data(source)
    return open_table(data, map(plain_name, names), map(plain_name, optional))


def data_columns(
    source: HasMatrices, names: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, Column]:
    """Return columns of the model on the rows used, where no cell of theirs is missing.

    The arguments are those of `all_rows`.
    """
    rows = _batches(source)
    if rows is not None:
        return rows.columns(map(plain_name, names), map(plain_name, optional))
    return restrict(all_rows(source, names, optional).columns, source.matrices.rows)


def data_column(source: HasMatrices, name: str) -> Column:
    """Return any column on the rows used, by its plain or backticked name.

    Cells of a column that the model does not use may be missing.
    """
    batches = _batches(source)
    if batches is not None:
        return batches.columns((plain_name(name),))[plain_name(name)]
    column = all_rows(source, (name,)).columns[plain_name(name)]
    rows = source.matrices.rows
    return column if rows is None else column.take(rows)


def _batches(source: HasMatrices) -> Batches | None:
    """Return the rows of a fit that come in batches."""
    rows = getattr(getattr(source, "system", None), "source", None)
    if rows is None:
        return None
    from mixlm_sparse.model.batches.rows import Batches  # loaded where there are such rows

    return rows if isinstance(rows, Batches) else None


def columns_of_call(call: Any) -> Table:
    """Return the columns that a held call reads."""
    formula = parse_formula(call.formula, require_response=False, require_random=False)
    given = [getattr(call, role) for role in ROLES]
    arguments = [
        RowArgument(role, value)
        for role, value in zip(ROLES, given, strict=True)
        if isinstance(value, str)
    ]
    names, optional = columns_asked(formula, arguments)
    optional = [*optional, *columns_of_residuals(call.residual, call.variance)]
    if call.response is not None:
        names, optional = [], [*names, *optional]
    return open_table(call.data, names, optional)
