"""The residual structure of a fit as plain data of its file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.covariance.correlation import registered
from mixlm_sparse.covariance.variance import variance_function
from mixlm_sparse.model.fitted import FittedModel

__all__ = ["structure_from", "structure_to"]


def structure_to(fit: FittedModel, *, include_data: bool) -> dict[str, Any] | None:
    """Return the structure, and whether the formula has random terms; None for a usual fit.

    Raises
    ------
    OptionError : the data are to be left out, of which the whitened rows are made again.
    """
    call = fit.call
    if call is None or (call.residual is None and call.variance is None and call.random):
        return None
    if fit.matrices.law is not None and not include_data:
        raise OptionError(
            "a fit with a residual structure is saved with its data, from which its rows are "
            "whitened again: leave include_data out"
        )
    return {
        "residual": None if call.residual is None else call.residual.to_dict(),
        "variance": None if call.variance is None else call.variance.to_dict(),
        "random": call.random,
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
