"""Tables of F tests of the fixed-effects terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.inference.fixed.estimable import warn_not_estimable
from mixlm_sparse.inference.fixed.methods import (
    IN_TITLES,
    joint_test,
    moments,
    reason_of,
    require_ddf,
)
from mixlm_sparse.inference.fixed.terms import fixed_terms, left_out, type_one, type_two
from mixlm_sparse.inference.fixed.tests import f_table, require_residual
from mixlm_sparse.inference.fixed.type_three import type_three
from mixlm_sparse.model.fitted import FittedModel

TYPES = {"1": 1, "I": 1, "SEQUENTIAL": 1, "2": 2, "II": 2, "3": 3, "III": 3, "MARGINAL": 3}


def anova_type(value: object) -> int:
    """Return 1, 2 or 3.

    Raises
    ------
    OptionError : another type.
    """
    known = isinstance(value, str | int | np.integer) and not isinstance(value, bool)
    found = TYPES.get(str(value).upper()) if known else None
    if found is None:
        raise OptionError(
            f"type is {value!r}: use 1 (sequential), 2 or 3 (marginal), or the Roman numeral as "
            "text"
        )
    return found


def term_hypotheses(fit: FittedModel, kind: int) -> tuple[dict[str, Matrix], str]:
    """Return L (q, p) about the kept coefficients for each term, and a note ("" for none)."""
    model = fixed_terms(fit)
    note = ""
    if kind == 1:
        found = type_one(model)
    elif kind == 2:
        found = type_two(model)
    else:
        found, note = type_three(model)
    return {term.label: L for term, L in zip(model.terms, found, strict=True)}, note


@result_table()
def anova_table(
    fit: FittedModel, *, type: Any = 3, ddf: str | None = "satterthwaite"
) -> pd.DataFrame:
    """Test every term of the fixed part.

    Parameters
    ----------
    type : 1, "I" or "sequential" tests the terms one after the other, 2 or "II" each after those
        that do not contain it, 3, "III" or "marginal" each by marginal contrasts.
    ddf : as in `contest`.

    Returns
    -------
    DataFrame with columns Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F), one row for each term;
    `attrs["heading"]` says what it is.  A term of which the data determine nothing beside the
    others has 0 NumDF and NaN, with a RankDeficiencyWarning.

    Raises
    ------
    OptionError : unknown type or ddf.
    DataError : the fixed effects reproduce the response.
    """
    kind = anova_type(type)
    name = require_ddf(ddf)
    hypotheses, note = term_hypotheses(fit, kind)
    table, more = hypotheses_table(fit, hypotheses, name)
    if name == "none":
        table = table.drop(columns=["DenDF", "Pr(>F)"])
    table.attrs["heading"] = f"Type {'I' * kind} analysis of variance {IN_TITLES[name]}"
    table.attrs["note"] = "; ".join(text for text in (note, more) if text)
    return table


def removal_table(fit: FittedModel, terms: list[str], ddf: str | None) -> tuple[pd.DataFrame, str]:
    """Test leaving out each of the terms, given by label; F table and note."""
    model = fixed_terms(fit)
    labels = [term.label for term in model.terms]
    found = {label: left_out(model, labels.index(label)) for label in terms}
    return hypotheses_table(fit, found, require_ddf(ddf))


def hypotheses_table(
    fit: FittedModel, hypotheses: dict[str, Matrix], ddf: str
) -> tuple[pd.DataFrame, str]:
    """Test L beta = 0 for each entry; return the F table and a note."""
    require_residual(fit)
    method = moments(fit, ddf)
    found = [joint_test(fit, method, L) for L in hypotheses.values()]
    empty = [label for label, one in zip(hypotheses, found, strict=True) if not one.num_df]
    why = ""
    if empty:
        why = warn_not_estimable(
            fit,
            [f"the term {label}" for label in empty],
            "its columns are combinations of those of other terms, or no rows tell its levels "
            "apart: remove it from the formula, or test it without the others",
        )
    table = f_table(fit, found, list(hypotheses), test=ddf != "none")
    notes = (method.note, why, reason_of(fit, found))
    return table, "; ".join(text for text in notes if text)
