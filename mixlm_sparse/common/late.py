"""What a floor above gives to results of a floor below, found when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# The module that gives results their plots, with a function `attach_plots` that does so.
PLOTS = "mixlm_sparse.api.pictures"


class LatePlots:
    """`result.plot` until the plots are attached: of a result that was unpickled, say."""

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        import_module(PLOTS).attach_plots()
        return instance.plot  # type: ignore[attr-defined]
