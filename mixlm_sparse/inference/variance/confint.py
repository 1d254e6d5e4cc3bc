"""Intervals of all parameters by profile, Wald or bootstrap, in one table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_level, require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.late import LatePlots
from mixlm_sparse.common.tables import ResultTable, result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.inference.fixed.coefficients import conf_int
from mixlm_sparse.inference.resample.bootstrap import bootstrap
from mixlm_sparse.inference.variance.components import random_components, undetermined
from mixlm_sparse.inference.variance.delta import variance_scale
from mixlm_sparse.inference.variance.profile.compute import profile
from mixlm_sparse.inference.variance.residual_structure import residual_table
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.parameters import (
    chosen_names,
    parameter_kinds,
    residual_names,
    residual_values,
)

METHODS = ("profile", "wald", "boot")
BOOTSTRAP_OPTIONS = ("nsim", "seed", "boot_type")


class Intervals(ResultTable):
    """Intervals of parameters: a data frame that prints as a table and has a plot."""

    plot = LatePlots()


@result_table(kind=Intervals)
def confint(
    fit: FittedModel,
    method: str = "profile",
    level: float = 0.95,
    parm: Any = None,
    **options: Any,
) -> pd.DataFrame:
    """Return intervals of all parameters.

    Parameters
    ----------
    method : "profile"; "wald" (variance parameters as `variance_components`, coefficients by
        the normal distribution); "boot" (parametric bootstrap).
    level : coverage between 0 and 1; `alpha` is taken as well, 1 - level.
    parm : names, "theta_" or "beta_"; None for all.
    **options : for "profile": reml, n_jobs, progress; for "boot": nsim (500), seed, boot_type
        ("percentile", "basic", "normal", "bca"), n_jobs, progress.

    Returns
    -------
    DataFrame with columns lower, upper and a row for each parameter: `sd_(Intercept)|Subject`,
    `cor_Days.(Intercept)|Subject`, `sigma`, then the coefficients.  A coefficient keeps its name:
    beside a predictor called sigma the residual standard deviation is `sd_Residual`.
    attrs["notes"] tells, by name, of limits that are bounds, and of parameters that the data do
    not determine, which are NaN.

    Raises
    ------
    OptionError : unknown method, name or option; a level outside of (0, 1).

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> fit.confint().round(2)
                            lower    upper
    sd_(Intercept)|Batch    12.20    84.06
    sigma                   38.23    67.66
    (Intercept)           1486.45  1568.55
    """
    if "alpha" in options:
        level = 1.0 - require_level("alpha", options.pop("alpha"))
    level = require_level("level", level)
    method = _method(fit, method)
    allowed = {
        "profile": ("reml", "n_jobs", "progress"),
        "wald": (),
        "boot": (*BOOTSTRAP_OPTIONS, "n_jobs", "progress"),
    }[method]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise OptionError(
            f"confint by {method!r} knows no argument {', '.join(map(repr, unknown))}: use "
            f"level, parm{''.join(', ' + name for name in allowed)}"
        )
    if method == "profile":
        if parm is not None:  # an unknown name is said to be one of this function's argument
            parm = chosen_names(parm, parameter_kinds(fit))
        curves = profile(fit, parm, level_max=level, **options)
        heading = f"{percent(level)} profile-likelihood intervals"
        return _table(fit, curves.confint(level), heading)
    names = chosen_names(parm, parameter_kinds(fit))
    reasons = undetermined(fit)
    if method == "wald":
        variances = random_components(fit, level)[["lower", "upper", "note"]]
        coefficients = conf_int(fit, level=level, ddf="normal").assign(note="")
        heading = f"{percent(level)} Wald intervals, of coefficients by the normal distribution"
        limits = pd.DataFrame(
            pd.concat([variances, _residual_limits(fit, level), coefficients]).loc[names]
        )
    else:
        boot_type = options.pop("boot_type", "percentile")
        draws = bootstrap(fit, **{"nsim": 500, **options})
        found = draws.confint(level, type=boot_type, parm=names)
        heading = str(found.attrs.get("heading", ""))
        limits = pd.DataFrame(found).assign(note="")
    hidden = np.array([name in reasons for name in names])
    limits = limits.assign(
        lower=limits["lower"].mask(hidden),
        upper=limits["upper"].mask(hidden),
        note=[reasons.get(name, limits["note"].iloc[i]) for i, name in enumerate(names)],
    )
    return _table(fit, limits, heading)


def _method(fit: FittedModel, method: object) -> str:
    """Return the method; a parameter or a level in its place is told where it belongs."""
    folded = method.lower() if isinstance(method, str) else method
    if isinstance(folded, str) and folded in METHODS:
        return folded
    if isinstance(method, str) and method in parameter_kinds(fit):
        raise OptionError(f"method is {method!r}, a parameter: write fit.confint(parm={method!r})")
    if isinstance(method, float) and 0.0 < method < 1.0:
        raise OptionError(f"method is {method}, a level: write fit.confint(level={method})")
    return str(require_one_of("method", method, METHODS))


def _residual_limits(fit: FittedModel, level: float) -> pd.DataFrame:
    """Return the limits of the parameters of the residual structure, with columns of `_table`."""
    table = residual_table(fit, level)
    reasons = table.attrs.get("notes", {})
    notes = [reasons.get(name, "") for name in table["parameter"]]
    limits = pd.DataFrame(table)[["lower", "upper"]].assign(note=notes)
    return limits.set_axis(list(residual_names(fit.system)), axis=0)


def _table(fit: FittedModel, limits: pd.DataFrame, heading: str) -> pd.DataFrame:
    """Return the columns lower and upper; what stands out goes to attrs["notes"]."""
    out = limits[["lower", "upper"]].astype("float64")
    out.attrs["heading"] = heading
    kinds = parameter_kinds(fit)
    residual = residual_values(fit.system)
    values = np.concatenate([variance_scale(fit).estimates, residual, fit.solution.beta])
    estimates = dict(zip(kinds, values.tolist(), strict=True))
    out.attrs["kinds"] = {name: kinds[name] for name in out.index}
    out.attrs["estimates"] = {name: estimates[name] for name in out.index}
    out.attrs["notes"] = {str(name): text for name, text in limits["note"].items() if text}
    return out
