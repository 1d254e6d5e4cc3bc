"""Bootstrap draws as an xarray Dataset, the form that ArviZ and its plots read."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import MissingPackageError

__all__ = ["Draws", "to_xarray"]


class Draws(Protocol):
    """What is read of a bootstrap."""

    @property
    def method(self) -> str: ...
    @property
    def original(self) -> pd.Series[float]: ...
    @property
    def samples(self) -> pd.DataFrame: ...
    @property
    def nsim(self) -> int: ...


def to_xarray(bootstrap: Draws) -> Any:
    """Return the draws as an xarray Dataset: a variable for each parameter, (chain, draw).

    There is one chain, and `draw` counts the replicates; those that failed are left out.
    `attrs` has the method and the estimates.

    Raises
    ------
    MissingPackageError : xarray is not installed.

    Examples
    --------
    >>> import arviz  # doctest: +SKIP
    >>> arviz.summary(boot.to_xarray(), kind="stats")  # doctest: +SKIP
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise MissingPackageError(
            "to_xarray needs xarray: pip install xarray (or arviz, which brings it)"
        ) from error
    samples = bootstrap.samples
    done = np.flatnonzero(samples.notna().all(axis=1).to_numpy())
    return xr.Dataset(
        {
            str(name): (("chain", "draw"), samples[name].to_numpy()[None, done])
            for name in samples.columns
        },
        coords={"chain": [0], "draw": done},
        attrs={
            "inference_library": "mixlm_sparse",
            "method": f"{bootstrap.method} bootstrap",
            "replicates": bootstrap.nsim,
            "estimate": bootstrap.original.to_numpy(),
        },
    )
