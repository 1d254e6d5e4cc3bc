"""Designs whose response comes from elsewhere: from a matrix of responses or from a simulation.

The formula then needs no left side, and a column of that name, should there be one, is not read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.build import columns_asked
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.readers import hold
from mixlm_sparse.design.rows import RowArgument
from mixlm_sparse.design.table import HeldData
from mixlm_sparse.formula.parse import formula_text, parse_formula
from mixlm_sparse.formula.syntax import Name, deparse
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.data import ROLES, held_call
from mixlm_sparse.model.run import matrices_of

__all__ = ["columns_of", "right_side", "with_given_response"]


def right_side(formula: str) -> str:
    """Return the formula's text after `~`; the left side may be missing."""
    parsed = parse_formula(formula_text(formula), require_response=False)
    return parsed.text.split("~", 1)[1].strip()


def quoted(name: str) -> str:
    """Return a column's name as a formula may write it, whatever characters it has."""
    if "`" in name:
        raise FormulaError(f"the column {name!r} has a backtick in its name: rename it")
    return deparse(Name(name))


def columns_of(call: ModelCall) -> HeldData:
    """Return the columns that a call reads, without the response."""
    formula = parse_formula(f"~ {right_side(call.formula)}", require_response=False)
    arguments = [RowArgument(role, getattr(call, role)) for role in ROLES
                 if getattr(call, role) is not None]  # fmt: skip
    data = hold(call.data, *columns_asked(formula, arguments))
    for argument in arguments:
        if argument.text is None:
            argument.column(data.table, data.table.index)  # raises if it does not fit
    return data


def with_given_response(
    call: ModelCall,
    y: Vector | None = None,
    name: str = "y",
    columns: HeldData | None = None,
    *,
    warn: bool = True,
) -> tuple[ModelMatrices, ModelCall]:
    """Evaluate the right side of a call's formula beside a response that is given.

    Parameters
    ----------
    call : its formula may lack a left side.
    y : one value for each row of the data, NaN where missing; None stands for zeros.
    name : of the response in the new formula.
    columns : of `columns_of`, if they are at hand.
    warn : whether to warn of a formula that means something other than it seems to.

    Returns
    -------
    matrices, call : the call names the response and holds its column, and can be fitted again.
    """
    found = columns_of(call) if columns is None else columns
    while name in found.table.columns:
        name = f"{name}_"
    data = found.with_column(name, np.zeros(found.table.n) if y is None else y)
    complete = held_call(
        replace(
            call, formula=f"{quoted(name)} ~ {right_side(call.formula)}", data=data, response=None
        )
    )
    return matrices_of(complete, warn=warn), complete
