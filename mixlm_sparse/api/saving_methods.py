"""Saving, as a method of a fit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from mixlm_sparse.model.saved.model import save_fit

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["SavingMethods"]


class SavingMethods:
    """Saving a fit to a file."""

    def save(self, path: str | os.PathLike[str], *, include_data: bool = True) -> None:
        """Save the fit; `mx.load(path)` brings it back.

        The file is a zip archive of JSON and arrays, without pickle.  It appears under its name
        when it is complete; a file of this name that was there is replaced then.

        Parameters
        ----------
        path : of the file, by custom "name.mixlm".
        include_data : also store the columns of the data that the formula uses, so that the loaded
            fit can do all that this one can.  Without them the file holds estimates, levels of the
            grouping factors, random effects by way of sums over the rows, and prior weights and
            offset, but neither response nor predictors: summary, tests, variance components and
            predictions for new data work, and what needs the rows says so.

        Raises
        ------
        SavedFitError : the data have a column of a kind that cannot be stored.
        OSError : the file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
        >>> path = os.path.join(tempfile.mkdtemp(), "dyestuff.mixlm")
        >>> fit.save(path)
        >>> mx.load(path).criterion == fit.criterion
        True
        """
        save_fit(cast("FittedModel", self), path, include_data=include_data)
