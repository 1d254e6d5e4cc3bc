"""The residual structure of a fit as plain data of its file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixlm_sparse.covariance.correlation import registered
from mixlm_sparse.covariance.variance import variance_function
from mixlm_sparse.model.fitted import FittedModel

__all__ = ["structure_from", "structure_to"]


def structure_to(fit: FittedModel) -> dict[str, Any] | None:
    """Return the structure, and whether the formula has random terms; None for a usual fit."""
    state = fit.matrices.residuals
    residual, variance = (None, None) if state is None else (state.correlation, state.variance)
    random = bool(fit.matrices.terms) if fit.call is None else fit.call.random
    if residual is None and variance is None and (random or fit.call is None):
        return None
    return {
        "residual": None if residual is None else residual.to_dict(),
        "variance": None if variance is None else variance.to_dict(),
        "random": random,
    }


def structure_from(saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of the call that `structure_to` has written."""
    if saved is None:
        return {}
    out: dict[str, Any] = {"random": bool(saved["random"])}
    for role, found in (("residual", registered), ("variance", variance_function)):
        about = saved[role]
        if about is not None:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in about.items()}
            out[role] = found(str(values.pop("name")))(**values)
    return out
