"""The form of the document of a saved fit: which keys there are, and what kind each value has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixlm_sparse.model.saved.archive import Archive

__all__ = ["require_form"]

NUMBER = (int, float)
OPTIONAL_TEXT = (str, type(None))
ARGUMENT = (str, dict, type(None))  # a name, an array, nothing

# A dict lists keys, a list holds the one kind of its entries, a tuple lists kinds.
FORM: dict[str, Any] = {
    "format": str,
    "version": int,
    "formula": str,
    "engine": str,
    "matrices": {
        "response": str,
        "nobs": int,
        "n_input": int,
        "na_action": str,
        "fixed": [str],
        "terms": [{"name": str, "factor": int, "columns": [str], "structure": str}],
        "factors": [{"label": str, "n_levels": int}],
        "spec": (dict, type(None)),
    },
    "products": {
        "n": int,
        "log_weight_sum": NUMBER,
        "kept": [int],
        "yy": NUMBER,
        "y_length": NUMBER,
        "factors": [str],
        "pairs": [[int]],
        "layout": [[int]],
    },
    "optimum": {
        "criterion": (int, float, str),
        "predicted_decrease": (int, float, str),
        "status": str,
        "message": str,
        "advice": str,
        "optimizer": str,
        "n_evaluations": int,
        "n_gradients": int,
        "seconds": (int, float, str),
        "at_boundary": [str],
        "reml": bool,
    },
    "options": {"reml": bool, "optimizer": str, "engine": str, "control": dict},
    "notes": [{"category": str, "text": str}],
    "call": (dict, type(None)),
    "data": OPTIONAL_TEXT,
}
CALL: dict[str, Any] = {
    "formula": str,
    "na_action": str,
    "contrasts": (dict, type(None)),
    "response": bool,
    "weights": ARGUMENT,
    "offset": ARGUMENT,
    "subset": ARGUMENT,
}
FRAME: dict[str, Any] = {
    "n": int,
    "columns": [{"name": str, "kind": str}],
    "index": (dict, type(None)),
}


def require_form(document: Mapping[str, Any], archive: Archive) -> None:
    """Raise a SavedFitError that names the first value of the wrong kind."""
    _check(document, FORM, "", archive)
    call = document["call"]
    if call is not None:
        _check(call, CALL, "call", archive)
    if document["data"] == "frame":
        _check(call, {"frame": FRAME}, "call", archive)


def _check(value: Any, form: Any, place: str, archive: Archive) -> None:
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise archive.broken(f"{place or 'it'} is no object")
        for key, inner in form.items():
            if key not in value:
                raise archive.broken(f"{place}.{key} is missing".lstrip("."))
            _check(value[key], inner, f"{place}.{key}".lstrip("."), archive)
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise archive.broken(f"{place} is no list")
        for entry in value:
            _check(entry, form[0], place, archive)
    else:
        kinds = form if isinstance(form, tuple) else (form,)
        if type(value) not in kinds:  # True is no number here
            raise archive.broken(f"{place} is a {type(value).__name__}")
