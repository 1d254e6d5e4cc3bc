"""What a floor above gives to results of a floor below, found when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# The module that gives results their plots, with a function `attach_plots` that does so.
PLOTS = "mixlm_sparse.api.pictures"


class LatePlots(property):
    """`result.plot` until it is asked for first: the plots of all results are attached then."""

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        import_module(PLOTS).attach_plots()
        return getattr(owner if instance is None else instance, "plot")  # noqa: B009 (not declared)
