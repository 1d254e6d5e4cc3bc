"""Means taken to another scale for good: what is compared afterwards are differences there.

With eta = L beta + o on the scale of the model and m = h(eta) on that of the data, the delta method
at the estimates is a linear combination again,

    m ~ h(eta) + h'(eta) (L beta + o - eta),    rows h'(eta) L, offset h(eta) - h'(eta) L beta

so that tests, limits, contrasts and degrees of freedom go on as before.  "log" takes log m in the
place of m, and shows its differences as ratios of means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.inference.means.estimates import Estimates
from mixlm_sparse.inference.means.transformations import named_transformation

E = TypeVar("E", bound=Estimates)

SCALES = ("response", "log")
CARRIED = "means on the scale of the data, standard errors by the delta method"


def on_scale(means: E, scale: str) -> E:
    """Return means on the scale of the data, or their logarithms.

    Raises
    ------
    OptionError : contrasts or slopes; a mean that has no logarithm.
    """
    require_one_of("scale", scale, SCALES)
    if means.method or means.what not in ("emmean", "response"):
        raise OptionError(
            "regrid is for means: use it before contrast, as means.regrid().contrast('pairwise')"
        )
    eta = means.tested().estimate
    value, rate = eta, np.ones_like(eta)
    back = means.transform
    if back is not None:
        value, rate = back.mean(eta, means.spread), back.rate(eta, means.spread)
    log = named_transformation("log") if scale == "log" else None
    if log is not None:
        if (value <= 0.0).any():
            raise OptionError("a mean is not positive, and has no logarithm: use scale='response'")
        value, rate = np.log(value), rate / value
    return replace(
        means,
        what="response" if log is None else "emmean",
        L=means.L * rate[:, None],
        offset=value - rate * (eta - means.offset),
        transform=log,
        type="link" if log is None else "response",
        spread=0.0,
        carried=CARRIED,
    )
