"""The form of the document of a saved fit: which keys there are, and what kind each value has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixlm_sparse.model.saved.archive import Archive

__all__ = ["PRODUCTS_FORM", "require_fit_form", "require_form", "require_many_form"]

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
# the learned columns of a part of the formula, and the recipe of all of them
PART: dict[str, Any] = {
    "intercept": bool,
    "names": [str],
    "assign": [int],
    "term_labels": [str],
    "terms": [
        [
            {
                "variable": str,
                "names": [str],
                "levels": list,
                "table": (list, type(None)),
                "as_levels": bool,
            }
        ]
    ],
}
LEVELS: dict[str, Any] = {
    "label": str,
    "n_levels": int,
    "tables": [(list, dict)],
    "keys": (list, type(None)),
}
SPEC: dict[str, Any] = {
    "formula": str,
    "fixed": PART,
    "terms": [{"name": str, "factor": int, "structure": str, "part": PART}],
    "factors": [LEVELS],
    "states": [{"call": str, "kind": str}],
    "weights_name": OPTIONAL_TEXT,
    "offset_name": OPTIONAL_TEXT,
    "env": [str],
}
PRODUCTS_FORM: dict[str, Any] = {
    "formula": str,
    "arguments": {
        "weights": OPTIONAL_TEXT,
        "offset": OPTIONAL_TEXT,
        "subset": OPTIONAL_TEXT,
        "na_action": str,
    },
    "env": [str],
    "given": [str],
    "fixed": PART,
    "parts": [PART],
    "states": [{"call": str, "kind": str}],
    "factors": [LEVELS],
    "n": int,
    "n_input": int,
    "log_weight_sum": NUMBER,
    "blocks": {"factors": [str], "pairs": [[int]]},
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
STRUCTURE: dict[str, Any] = {
    "residual": (dict, type(None)),
    "variance": (dict, type(None)),
    "random": bool,
}
RESIDUALS: dict[str, Any] = {
    "length": NUMBER,
    "labels": [str],
    "visits": [NUMBER],
    "scale": NUMBER,
    "step": [NUMBER],
    "strata": [str],
    "levels": [str],
    "level_scale": NUMBER,
    "crossed": [str],
}


MANY: dict[str, Any] = {
    "formula": str,
    "reml": bool,
    "complete": bool,
    "names": [str],
    "theta_names": [str],
    "x_names": [str],
    "status": [str],
    "message": [str],
    "options": {"reml": bool, "optimizer": str, "engine": str, "control": dict},
    "matrices": (dict, type(None)),
    "call": (dict, type(None)),
    "data": OPTIONAL_TEXT,
    "responses": OPTIONAL_TEXT,
}
MANY_MATRICES: dict[str, Any] = {
    "n_input": int,
    "factors": [{"label": str, "n_levels": int}],
    "spec": {"env": [str], "factors": [LEVELS]},
}


def require_many_form(document: Mapping[str, Any], archive: Archive) -> None:
    """Raise a SavedFitError that names the first value of the wrong kind in fits of many."""
    _check(document, MANY, "", archive)
    if document["call"] is not None:
        _check(document["call"], {**CALL, "frame": FRAME}, "call", archive)
        _check(document["matrices"], MANY_MATRICES, "matrices", archive)
        if document["data"] != "frame":
            raise archive.broken("its data are no frame")


def require_fit_form(document: Mapping[str, Any], archive: Archive) -> None:
    """Raise a SavedFitError that names the first value of the wrong kind in a saved fit."""
    require_form(document, archive, FORM)
    if document["matrices"]["spec"] is not None:
        _check(document["matrices"]["spec"], SPEC, "matrices.spec", archive)
    call = document["call"]
    if call is not None:
        _check(call, CALL, "call", archive)
    for key, form in (("structure", STRUCTURE), ("residuals", RESIDUALS)):
        if document.get(key) is not None:
            _check(document[key], form, key, archive)
    if document.get("kept") is not None:
        _check(document["kept"], {}, "kept", archive)
        for name, about in document["kept"].items():
            _check(about, {}, f"kept.{name}", archive)
    if document["data"] == "frame":
        _check(call, {"frame": FRAME}, "call", archive)


def require_form(document: Mapping[str, Any], archive: Archive, form: Mapping[str, Any]) -> None:
    """Raise a SavedFitError that names the first value which is not of the form."""
    _check(document, form, "", archive)


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
