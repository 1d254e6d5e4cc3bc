"""Rows to predict on: those of the fit, or new ones seen through the recipe of the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed, require_array, require_one_of, shape_of, shown
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import IntVector, Vector
from mixlm_sparse.design.columns import ColumnSource, no_columns
from mixlm_sparse.design.members import RowLevels
from mixlm_sparse.design.membership import joined
from mixlm_sparse.design.recipe import EvaluatedDesign, Recipe
from mixlm_sparse.solve.rows import InMemory, RowBlock

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["DesignRows", "design_rows", "prior_weights"]

NEW_DATA_NA_ACTIONS = ("pass", "omit", "raise")


@dataclass(frozen=True)
class DesignRows:
    """Rows with all that a prediction needs; n of them have no missing cell.

    Parameters
    ----------
    fixed : all columns of the fixed part, before the rank check; None if not asked for.
    terms : columns of the random terms asked for, by index of the term.
    codes : (n,) by index of the grouping factor; -1 for levels that the fit does not know.  Of rows
        with several levels, these with their weights; unknown ones follow those of the fit.
    unknown : labels of these levels.
    offset : (n,) or None.
    rows : positions of the n rows among `n_input`, None for all.
    padded : whether results are filled in with NaN to `n_input` rows.
    new : whether the rows are not those of the fit.
    """

    n: int
    n_input: int
    rows: IntVector | None
    padded: bool
    fixed: ColumnSource | None
    terms: dict[int, ColumnSource]
    codes: dict[int, RowLevels]
    unknown: dict[int, list[str]]
    offset: Vector | None
    index: Any
    new: bool

    def blocks(self, kept: Sequence[int] | None = None) -> Iterator[RowBlock]:
        """Walk over the n rows, with the kept columns of X (none if they were not asked for)."""
        fixed = no_columns(self.n) if self.fixed is None else self.fixed
        no_response = np.empty(0)
        rows = InMemory(self.n, fixed, self.terms, self.codes, no_response, self.offset)
        return rows.blocks(kept)

    def align(self, values: Vector) -> Vector:
        """Return per-row values (n, ...) as the user is to see them."""
        if self.rows is None or not self.padded:
            return values
        out = np.full((self.n_input, *values.shape[1:]), np.nan)
        out[self.rows] = values
        return out

    def labels(self) -> Any:
        """Return the row labels that go with aligned values, None if there are none."""
        if self.index is None or self.rows is None or self.padded:
            return self.index
        return self.index[self.rows]


def design_rows(
    fit: FittedModel,
    newdata: Any,
    *,
    fixed: bool,
    terms: Sequence[int],
    offset: Any = None,
    na_action: str | None = None,
) -> DesignRows:
    """Return the rows of the fit (`newdata` None), or new rows in the columns of the fit.

    Parameters
    ----------
    fixed : evaluate the fixed part and the offset.
    terms : random terms to evaluate; only their columns must exist.
    offset : replaces that of the call: a number, a name or an array over the rows.
    na_action : for rows with missing cells in new data: "pass" gives NaN, "omit" leaves them out,
        "raise" refuses them.
    """
    if na_action is not None:
        require_one_of("na_action", na_action, NEW_DATA_NA_ACTIONS)
    if newdata is None:
        return _rows_of_fit(fit, fixed, terms, offset)
    recipe = fit.matrices.recipe
    constant: float | None = None
    if offset is None:
        _require_offset(fit, recipe, fixed)
    elif not shape_of(offset) and not isinstance(offset, str):
        constant = _number(offset)
        recipe, offset = recipe.without_offset(), None
    elif not fixed:
        offset = None
    asked = partial(recipe.evaluate, newdata, fixed=fixed, offset=fixed, offset_values=offset)
    try:
        design = asked(terms=terms)
    except DataError as error:
        if fixed and terms and error.absent and _has_columns(asked):
            said = str(error) if str(error).endswith("?") else f"{error};"
            raise DataError(
                f'{said} re_form="population" predicts without random effects'
            ) from None
        raise
    if design.rows is not None and na_action == "raise":
        counts = recipe.missing_counts(newdata, fixed, terms)
        raise DataError(_missing_message(counts, design.n_input, design.nobs))
    total = design.offset
    if fixed and constant:
        total = np.full(design.nobs, constant) if total is None else total + constant
    return DesignRows(
        n=design.nobs,
        n_input=design.n_input,
        rows=design.rows,
        padded=na_action != "omit",
        fixed=design.fixed,
        terms=design.terms,
        codes=design.codes,
        unknown=design.unknown,
        offset=total,
        index=design.index,
        new=True,
    )


def _has_columns(asked: Callable[..., EvaluatedDesign]) -> bool:
    """Say whether new data have all that predictions without random effects take."""
    try:
        asked(terms=())
    except DataError:
        return False
    return True


def _rows_of_fit(
    fit: FittedModel, fixed: bool, terms: Sequence[int], offset: Any
) -> DesignRows:
    m = fit.matrices
    factors = {m.terms[t].factor for t in terms}
    total = m.offset
    if offset is not None:
        total = _offset_of_fit(fit, offset)
    return DesignRows(
        n=m.nobs,
        n_input=m.n_input,
        rows=m.rows,
        padded=m.na_action == "exclude",
        fixed=m.fixed if fixed else None,
        terms={t: m.terms[t].columns for t in terms},
        codes={g: m.factors[g].row_levels for g in factors},
        unknown={g: [] for g in factors},
        offset=total if fixed else None,
        index=m.index,
        new=False,
    )


def _offset_of_fit(fit: FittedModel, offset: Any) -> Vector:
    m = fit.matrices
    if isinstance(offset, str):
        raise OptionError(
            "offset names a column, but no newdata are given: pass the data as newdata, or the "
            "offset as an array"
        )
    values = _numbers("offset", offset)
    if values.ndim == 0:
        return np.full(m.nobs, _number(offset))
    if values.shape == (m.n_input,) and m.rows is not None:
        values = values[m.rows]
    if values.shape != (m.nobs,):
        raise DataError(
            f"offset has shape {values.shape}, the fit has {m.nobs} rows: give one value for each"
        )
    return values


def _numbers(argument: str, value: Any) -> Vector:
    """Return a number, or an array of numbers of any shape."""
    return require_array(argument, value, "use a finite number, the name of a column or an array")


def _number(offset: Any) -> float:
    try:
        value = float(offset)
    except (TypeError, ValueError, OverflowError):
        value = float("nan")
    if not np.isfinite(value):
        raise OptionError(
            f"offset is {shown(offset)}: use a finite number, the name of a column or an array"
        )
    return value


def _require_offset(fit: FittedModel, recipe: Recipe, fixed: bool) -> None:
    given = fit.call.offset if fit.call is not None else None
    if fixed and given is not None and recipe.offset_name is None:
        raise DataError(
            "the fit has an offset that was given as an array, and new rows have none: pass "
            "offset=, an array with one value for each new row (or 0)"
        )


def _missing_message(counts: dict[str, int], n_input: int, n: int) -> str:
    cells = ", ".join(f"'{name}' ({count})" for name, count in counts.items())
    return (
        f"{n_input - n} of {n_input} new rows have missing cells, in {cells}: fill them, or use "
        'na_action="pass", which predicts NaN there'
    )


def joined_rows(newdata: Any, membership: Any) -> Any:
    """Return new rows with the memberships beside them.

    Raises
    ------
    OptionError : there are no new rows.
    """
    if membership is not None and newdata is None:
        raise OptionError("membership is about new rows: give newdata")
    return joined(newdata, membership)


def refuse_unknown_levels(rows: DesignRows, fit: FittedModel) -> None:
    """Raise a DataError that names the levels which the fit does not know, if there are any."""
    for g, labels in rows.unknown.items():
        if not labels:
            continue
        shown = listed(labels, quoted=True)
        name = fit.matrices.factors[g].label
        one = len(labels) == 1
        raise DataError(
            f"the new data have {'the level' if one else 'the levels'} {shown} of "
            f"'{name}', which the fit has not seen: use allow_new_levels=True, which sets "
            f"{'its' if one else 'their'} random effects to zero, allow_new_levels=\"nan\", or "
            're_form="population"'
        )


def new_group_codes(fit: FittedModel, newdata: Any, rows: DesignRows, g: int) -> tuple[
    RowLevels, int
]:
    """Return the codes (n,) of new rows in which unknown levels have codes of their own.

    Returns
    -------
    codes, n_levels : known levels keep their codes; the others follow.
    """
    codes = rows.codes[g]
    n_known = fit.matrices.factors[g].n_levels
    if not rows.unknown[g]:
        return codes, n_known
    if not isinstance(codes, np.ndarray):
        return codes, n_known + len(rows.unknown[g])
    own = fit.matrices.recipe.own_groups(newdata, rows.rows, rows.n, g)
    unknown = codes < 0
    used, inverse = np.unique(own.codes[unknown], return_inverse=True)
    out = codes.copy()
    out[unknown] = n_known + inverse
    return out, n_known + int(used.size)


def prior_weights(
    fit: FittedModel, newdata: Any, rows: DesignRows, weights: Any
) -> Vector | None:
    """Return the prior weights (n,) of the rows, None if the fit has none.

    Parameters
    ----------
    weights : a number, a name or an array over the rows of `newdata`; None takes the column that
        the fit used.
    """
    if weights is None and fit.matrices.weights is None:
        return None
    if newdata is None and weights is None:
        return fit.matrices.weights
    if weights is not None and not isinstance(weights, str):
        if isinstance(weights, pd.Series) and rows.index is not None:
            if len(weights) == len(rows.index) and not weights.index.equals(rows.index):
                raise DataError(
                    "weights is a Series whose index differs from that of the data: align it, or "
                    "pass weights.to_numpy() if the rows are in the same order"
                )
        values = _numbers("weights", weights)
        if values.ndim == 0:
            values = np.full(rows.n, float(values))
        elif values.shape == (rows.n_input,) and rows.rows is not None:
            values = values[rows.rows]
        if values.shape != (rows.n,):
            raise DataError(
                f"weights has shape {values.shape}, expected one value for each of "
                f"{rows.n_input} rows"
            )
    else:
        if newdata is None:
            raise OptionError(
                "weights names a column, but no newdata are given: pass the data as newdata"
            )
        spec = fit.matrices.spec
        name = weights if weights is not None or spec is None else spec.weights_name
        if name is None or spec is None:
            raise DataError(
                "the fit has weights that were given as an array, and new rows have none: pass "
                "weights=, an array with one value for each new row (or 1)"
            )
        bare = replace(spec, weights_name=name)
        found = bare.evaluate(newdata, fixed=False, terms=(), weights=True, offset=False)
        assert found.weights is not None
        values = found.pad(found.weights)
        values = values if rows.rows is None else values[rows.rows]
    if not (values > 0.0).all():
        raise DataError(
            "weights of the new rows must be positive and not missing: correct the values, or "
            "leave those rows out"
        )
    return values
