"""Standardized differences: d = difference / sd, with the error of both.

With sd^2 estimated with nu degrees of freedom (Satterthwaite's, nu = 2 v^2 / Var(v) for a variance
v of the fit), Var(log sd) = 1 / (2 nu), and by the delta method

    Var(d) = Var(difference) / sd^2 + d^2 / (2 nu)

as the two are (nearly) independent.

References
----------
Hedges (1981), doi:10.3102/10769986006002107; Westfall, Kenny and Judd (2014),
doi:10.1037/xge0000014 (the total standard deviation for mixed models).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_number
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.text import as_written
from mixlm_sparse.inference.fixed.tests import t_quantile
from mixlm_sparse.inference.means.estimates import Estimates
from mixlm_sparse.inference.variance.shares import around_fixed

KINDS = ("total", "residual")


def standard_deviation(estimates: Estimates, sigma: Any, edf: Any) -> tuple[float, float, str]:
    """Return a standard deviation, its degrees of freedom, and what it is called.

    Parameters
    ----------
    sigma : "total" (residual and random effects of an average row), "residual", or a number.
    edf : degrees of freedom; None takes those that the fit gives; infinite for a known number.
    """
    if isinstance(sigma, str):
        if sigma not in KINDS:
            raise OptionError(f"sigma is {sigma!r}: use 'total', 'residual' or a number")
        total, residual = around_fixed(estimates.fit)
        variance, error = total if sigma == "total" else residual
        if not np.isfinite(variance):
            raise OptionError(f"the data do not determine the {sigma} variance: give a number")
        if not variance > 0.0:
            raise OptionError("there is no variance to measure the differences by: sigma is zero")
        found = 2.0 * (variance / error) ** 2 if error else float("inf")
        sd, name = float(np.sqrt(variance)), f"the {sigma} standard deviation"
    else:
        sd, name = require_number("sigma", sigma, least=1e-150), "the standard deviation given"
        found = float("inf")
    df = found if edf is None else require_number("edf", edf, least=1e-6, finite=False)
    return sd, df, name


def effect_sizes(contrasts: Estimates, sigma: Any, edf: Any, level: float) -> pd.DataFrame:
    """Return the table of standardized contrasts with their intervals."""
    if contrasts.carried:
        raise OptionError(
            "standard deviations are those on the scale of the model: take effect sizes before "
            "regrid"
        )
    sd, nu, name = standard_deviation(contrasts, sigma, edf)
    found = contrasts.tested()
    d = found.estimate / sd
    error = np.sqrt((found.std_error / sd) ** 2 + d**2 / (2.0 * nu))
    half = t_quantile(level, np.where(np.isnan(found.df), np.inf, found.df)) * error
    table = contrasts.cells.copy()
    table["effect_size"], table["std_error"], table["df"] = d, error, found.df
    table["lower"], table["upper"] = d - half, d + half
    about = as_written(round(nu, 1)) if np.isfinite(nu) else "known: infinite"
    table.attrs["labels"] = list(map(str, contrasts.cells.columns))
    table.attrs["notes"] = [
        f"differences divided by {name}, {sd:.5g} (degrees of freedom of it: {about})",
        *([found.note] if found.note else []),
    ]
    return table
