"""Fits to files."""

from __future__ import annotations

import os

from mixlm_sparse.common.checks import require_bool, require_path
from mixlm_sparse.inference.kept import KEEPERS
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.saved.model import write_fit

__all__ = ["save"]


def save(fit: FittedModel, path: str | os.PathLike[str], *, include_data: bool = True) -> None:
    """Save the fit; `mx.load(path)` brings it back.

    The file is a zip archive of JSON and arrays, without pickle.  It appears under its name
    when it is complete; a file of this name that was there is replaced then.

    Parameters
    ----------
    path : of the file, by custom "name.mixlm".
    include_data : also store the columns of the data that the formula uses, so that the loaded
        fit can do all that this one can.  Without them the file holds estimates, levels of the
        grouping factors, random effects by way of sums over the rows, the cells of factors and the
        means of covariates, and prior weights and offset, but neither response nor predictors:
        summary, tests, intervals, marginal means and predictions for new data give the same
        numbers, and what needs the rows says so.  Of a residual structure or `known=` this takes
        the curvature and Kenward and Roger's moments, which are computed now if they were not;
        moments that would take some seconds, or a fit by REML in the place of ML, are left out.

    Raises
    ------
    SavedFitError : the data have a column of a kind that cannot be stored.
    OptionError : the fit needs its rows, and they are to be left out.
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
    path = require_path("path", path)
    include_data = require_bool("include_data", include_data)
    write_fit(fit, path, include_data=include_data, keepers=KEEPERS)
