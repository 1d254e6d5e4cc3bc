"""The next call of a fit: the same one with some arguments changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.formula.update import updated_formula
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.solve.search.search import Control

__all__ = ["SEARCH_NAMES", "changed_call", "options_for_another", "split_changes"]

OPTION_NAMES = tuple(f.name for f in fields(FitOptions))
# What can be changed without a formula and data.
SEARCH_NAMES = tuple(sorted(name for name in OPTION_NAMES if name != "engine"))
MODEL_NAMES = tuple(
    f.name for f in fields(ModelCall)
    if f.name not in ("options", "response", "formula", "data")
)  # fmt: skip


def options_for_another(options: FitOptions, **changes: Any) -> FitOptions:
    """Return the options of a fit for the next; what was said for one search is left out."""
    return replace(options, **{"start": None, "progress": False, **changes})


def split_changes(
    options: FitOptions, changes: Mapping[str, Any]
) -> tuple[FitOptions, dict[str, Any]]:
    """Tell what concerns the search from what concerns the model.

    Returns
    -------
    options, of_model : the options with their changes worked in, and the other changes.

    Raises
    ------
    OptionError : an argument that `lmer` does not have.
    """
    unknown = sorted(set(changes) - set(OPTION_NAMES) - set(MODEL_NAMES))
    if unknown:
        raise OptionError(
            f"update knows no argument {', '.join(map(repr, unknown))}: use formula, data, "
            + ", ".join(sorted({*OPTION_NAMES, *MODEL_NAMES}))
        )
    of_search = {name: value for name, value in changes.items() if name in OPTION_NAMES}
    if "control" in of_search and of_search["control"] is None:
        of_search["control"] = Control()
    of_search.setdefault("progress", None)
    of_model = {name: value for name, value in changes.items() if name in MODEL_NAMES}
    return options_for_another(options, **of_search).checked(), of_model


def changed_call(
    call: ModelCall,
    options: FitOptions,
    formula: str | None,
    data: Any,
    of_model: Mapping[str, Any],
) -> ModelCall:
    """Return the call with a formula (`.` stands for the old side), data or arguments changed.

    A response of `refit` stays as long as the formula's does and the data are the same.
    """
    new = replace(call, options=options, **of_model)
    if formula is not None:
        text = updated_formula(call.formula, formula)
        same_response = _left_side(text) == _left_side(call.formula)
        new = replace(new, formula=text, response=call.response if same_response else None)
    return new if data is None else replace(new, data=data, response=None)


def _left_side(formula: str) -> str:
    """Return the response as the formula's reader writes it."""
    return updated_formula(formula, ". ~ .").partition("~")[0].strip()
