"""Whether the rows of the fit determine a prediction.

Columns of X that are combinations of earlier ones are dropped, X_d = X_k D.  A new row (x_k, x_d)
has an estimable mean if and only if it keeps that relation: then, and only then, the mean is the
same whichever columns are dropped.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import RankDeficiencyWarning, caller_level
from mixlm_sparse.common.text import format_number
from mixlm_sparse.design.columns import INTERCEPT
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.readers import open_table
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.model.predict.rows import DesignRows

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["estimable_rows", "warn_of_cells"]

# Columns count as combinations when they miss less than 1e-7 of their length.
ESTIMABLE_RTOL = 1e-6
SHOWN_CELLS = 3
SHOWN_COLUMNS = 6


def estimable_rows(fit: FittedModel, rows: DesignRows) -> NDArray[np.bool_] | None:
    """Return which rows have an estimable mean, (n,); None if all have."""
    if not rows.new or rows.fixed is None or not fit.system.dropped:
        return None
    D, kept = fit.system.products.D, list(fit.system.products.kept)
    dropped = [j for j in range(len(rows.fixed.names)) if j not in set(kept)]
    products = fit.system.products
    # the root mean square of each dropped column, against which rounding is judged
    usual = np.sqrt(((products.R_x @ D) ** 2).sum(axis=0) / products.n)
    out = np.empty(rows.n, dtype=bool)
    for block in rows.blocks():
        X = block.X
        missed = np.abs(X[:, dropped] - X[:, kept] @ D)
        scale = usual + np.abs(X[:, dropped]) + np.abs(X[:, kept]) @ np.abs(D)
        out[block.slice] = (missed <= ESTIMABLE_RTOL * scale).all(axis=1)
    return None if out.all() else out


def warn_of_cells(
    fit: FittedModel, newdata: Any, rows: DesignRows, estimable: NDArray[np.bool_]
) -> None:
    """Warn that rows are predicted as NaN, and name their cells."""
    bad = np.flatnonzero(~estimable)
    cells = list(dict.fromkeys(_cell(fit, newdata, rows, int(i)) for i in bad[:1000]))
    shown = "; ".join(cells[:SHOWN_CELLS])
    more = f" and {len(cells) - SHOWN_CELLS} more" if len(cells) > SHOWN_CELLS else ""
    warnings.warn(
        f"{bad.size} of {rows.n} new rows {'is' if bad.size == 1 else 'are'} predicted as NaN: the "
        f"data do not determine the mean at {shown}{more}, which rests on coefficients that were "
        "dropped; predict where there are data, or leave terms out of the formula",
        RankDeficiencyWarning,
        stacklevel=caller_level(),
    )


def _cell(fit: FittedModel, newdata: Any, rows: DesignRows, i: int) -> str:
    """Name the predictors of one row: "a = a4, b = b4"."""
    spec = fit.matrices.spec
    if spec is None:  # a fit of matrices knows columns alone
        assert rows.fixed is not None
        values = rows.fixed.block(slice(i, i + 1))[0].tolist()
        named = [(n, v) for n, v in zip(rows.fixed.names, values, strict=True) if n != INTERCEPT]
        more = ", ..." if len(named) > SHOWN_COLUMNS else ""
        return ", ".join(f"{n} = {format_number(v, 4)}" for n, v in named[:SHOWN_COLUMNS]) + more
    names = names_of([operand.variable for term in spec.fixed.terms for operand in term])
    at = i if rows.rows is None else int(rows.rows[i])
    parts = []
    for name, column in open_table(newdata, (), names).columns.items():
        value = column.values[at]
        if column.kind == "factor":
            text = level_labels([column.levels[value]])[0]
        elif column.kind == "number":
            text = format_number(float(value), 4)
        else:
            text = level_labels([value])[0]
        parts.append(f"{name} = {text}")
    return ", ".join(parts)
