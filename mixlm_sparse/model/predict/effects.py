"""Which random effects a prediction counts: `re_form` read against the terms of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import FormulaError, OptionError
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import plain_text
from mixlm_sparse.formula.terms import RandomPart

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["Selection", "all_effects", "no_effects", "select_effects", "whole_terms"]

# Per random term, which of its columns count: (k,) bool.
Selection = tuple[NDArray[np.bool_], ...]

POPULATION = ("population", "pop", "none", "fixed", "~0", "~ 0", "~1", "~ 1", "NA", "~NA")
INTERCEPT = "(Intercept)"


def all_effects(matrices: ModelMatrices) -> Selection:
    """Return the selection of every random effect."""
    return tuple(np.ones(len(term.column_names), dtype=bool) for term in matrices.terms)


def no_effects(matrices: ModelMatrices) -> Selection:
    """Return the selection of no random effect."""
    return tuple(np.zeros(len(term.column_names), dtype=bool) for term in matrices.terms)


def whole_terms(selection: Selection) -> list[int]:
    """Return the indices of the terms of which at least one column is selected."""
    return [t for t, chosen in enumerate(selection) if chosen.any()]


def select_effects(re_form: object, matrices: ModelMatrices) -> Selection:
    """Read `re_form`.

    Parameters
    ----------
    re_form : None for all random effects, "population" (or "~0", NaN for R's NA) for none, or
        random terms of the formula such as "~ (1 | g)", of which some columns may be left out.
    matrices : the design of the fit.

    Raises
    ------
    OptionError : `re_form` is no text.
    FormulaError : it names a term or a column that the fit does not have.
    """
    if re_form is None:
        return all_effects(matrices)
    if re_form is pd.NA or (isinstance(re_form, float) and np.isnan(re_form)):
        return no_effects(matrices)  # R's NA
    if not matrices.terms and (not isinstance(re_form, str) or re_form.strip() not in POPULATION):
        raise OptionError(
            f"re_form is {shown(re_form)}, and this model has no random effects: leave it out"
        )
    if not isinstance(re_form, str):
        raise OptionError(
            f"re_form is {re_form!r}: use None (all random effects), \"population\" (none) or a "
            f'formula of random terms such as "~ {_written(matrices)[0]}"'
        )
    text = re_form.strip()
    if text in POPULATION:
        return no_effects(matrices)
    formula = parse_formula(
        text if text.startswith("~") else f"~ {text}", require_response=False
    )
    if formula.response is not None or formula.fixed.terms or formula.fixed.offsets:
        raise FormulaError(
            f"re_form '{text}' has a fixed part or a response: give random terms only, such as "
            f"'~ {_written(matrices)[0]}'"
        )
    chosen = no_effects(matrices)
    for part in formula.random:
        _choose(part, matrices, chosen)
    return chosen


def _choose(part: RandomPart, matrices: ModelMatrices, chosen: Selection) -> None:
    """Mark the columns of one requested term."""
    candidates = [
        t for t, term in enumerate(matrices.terms)
        if _same_group(part.label, matrices.factors[term.factor].label)
    ]  # fmt: skip
    if not candidates:
        known = ", ".join(f"'{factor.label}'" for factor in matrices.factors)
        raise FormulaError(
            f"re_form asks for {part}, but the fit has no random effects of '{part.label}': its "
            f"grouping factors are {known}"
        )
    wanted = [INTERCEPT] if part.intercept else []
    wanted += [plain_text(*term) for term in part.terms]
    for label in wanted:
        found = False
        for t in candidates:
            columns = _columns_of(t, label, part, matrices)
            chosen[t][columns] = True
            found |= bool(columns.any())
        if not found:
            have = ", ".join(
                f"'{name}'" for t in candidates for name in matrices.terms[t].column_names
            )
            raise FormulaError(
                f"re_form asks for '{label}' in {part}, which the fit does not have: the effects "
                f"of '{part.label}' are {have}"
            )


def _columns_of(
    t: int, label: str, part: RandomPart, matrices: ModelMatrices
) -> NDArray[np.bool_]:
    """Return which columns (k,) of term t belong to the requested `label`."""
    term = matrices.terms[t]
    names = np.array(term.column_names, dtype=object)
    if matrices.spec is None or label == INTERCEPT:
        return np.asarray(names == label)
    fitted = matrices.spec.terms[t].part
    same = [
        i + 1 for i, name in enumerate(fitted.term_labels)
        if set(name.split(":")) == set(label.split(":"))
    ]  # fmt: skip
    columns = np.isin(np.array(fitted.assign), same)
    by_contrasts = any(
        operand.table is not None and len(operand.names) < len(operand.levels)
        for i in same
        for operand in fitted.terms[i - 1]
    )
    if columns.any() and by_contrasts and fitted.intercept and not part.intercept:
        raise FormulaError(
            f"re_form asks for {part}, but '{label}' is coded by contrasts to an intercept in the "
            f"fit: ask for (1 + {label} | {part.label})"
        )
    return columns


def _same_group(asked: str, label: str) -> bool:
    return asked == label or set(asked.split(":")) == set(label.split(":"))


def _written(matrices: ModelMatrices) -> list[str]:
    """Return every random term as a user would write it."""
    out = []
    for term in matrices.terms:
        inner = ["1" if name == INTERCEPT else name for name in term.column_names]
        out.append(f"({' + '.join(inner)} | {matrices.factors[term.factor].label})")
    return out
