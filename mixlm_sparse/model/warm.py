"""Where further fits of a fit begin, and how far they look: decided here for all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.base import FitBase
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.singularity import is_singular
from mixlm_sparse.solve.search.control import Control

__all__ = ["options_of_refits", "quiet", "warm_start"]


def warm_start(fit: FitBase) -> Vector | None:
    """Return theta and rho of a fit to start from; None, a moment estimate, if it is singular.

    A singular theta is a saddle of another criterion, a bad place to start from.
    """
    if is_singular(fit.system, fit.theta):
        return None
    return np.concatenate([fit.theta, fit.optimum.rho])


def options_of_refits(fit: FitBase, *, reml: bool) -> FitOptions:
    """Return the options of refits to data that resemble those of a fit, made by the thousand.

    They begin where the fit ended.  Where the criterion of the model may have several valleys, they
    look for others only if the fit itself has found another one, or is no place to begin at: data
    drawn from it, or all of its rows but a few, have their optimum near its own.
    """
    start = warm_start(fit)
    options = replace(quiet(fit.options), reml=reml, start=start)
    if start is None or not fit.optimum.converged or fit.optimum.second_valley is not None:
        return options
    return replace(options, control=replace(options.control, second_looks=False))


def quiet(options: FitOptions) -> FitOptions:
    """Return the options for fits that come by the thousand: no start, progress or warnings."""
    control = replace(options.control, warn=False)
    assert isinstance(control, Control)
    return replace(options, start=None, progress=None, control=control)
