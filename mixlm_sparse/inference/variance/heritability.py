"""Heritability: the share of one variance in their sum, with its standard error and interval.

    h^2 = tau_a^2 / (sum_t tau_t^2 + sigma^2)

over the terms of the model, one variance each.  Its logit is close to normal: limits by the delta
method are symmetric there.  For the profile, h^2 is held by

    theta_a^2 = h^2 / (1 - h^2) (1 + sum_{t != a} theta_t^2)

and the other theta adapt; sigma is profiled out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixlm_sparse.common.checks import listed, require_level, require_one_of
from mixlm_sparse.common.errors import NotPositiveDefiniteError, OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Vector
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.inference.variance.delta import variance_scale
from mixlm_sparse.model.structured import require_independent, require_random_effects
from mixlm_sparse.solve.criterion import evaluate
from mixlm_sparse.solve.search.bfgs import minimize_bfgs
from mixlm_sparse.solve.system import PenalizedSystem

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

METHODS = ("profile", "wald")
# h^2 is looked for up to this close to 0 and 1.
EDGE = 1e-6
TOLERANCE = 1e-10


@result_table()
def heritability(
    fit: FittedModel, group: str | None = None, *, level: float = 0.95, method: str = "profile"
) -> pd.DataFrame:
    """Return the heritability, or any share of one variance in the sum of all.

    The variance of a term whose levels are related by `known=` is that of a level with A_jj = 1,
    an animal that is not inbred; `icc()` gives shares of the average row instead.

    Parameters
    ----------
    group : component whose share is asked for, as `varcorr` names it; by default the one with a
        known covariance.
    level : coverage.
    method : "profile", by the criterion that was minimized (REML or ML), or "wald", by the delta
        method on the scale of the logit.

    Returns
    -------
    DataFrame with one row and columns estimate, std_error, lower, upper; the standard error is that
    of the delta method.  A limit that the criterion does not reach is 0 or 1.

    Raises
    ------
    OptionError : no such component, or more than one that it could be; a term with several effects;
        parameters that are held.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> fit.heritability("Batch").round(3)
           estimate  std_error  lower  upper
    Batch     0.418      0.216  0.069  0.819
    """
    require_independent(fit, "heritability")
    require_random_effects(fit, "heritability")
    level = require_level("level", level)
    require_one_of("method", method, METHODS)
    if fit.unbounded or fit.optimum.no_residual:
        raise OptionError("the model leaves no residual: there are no shares of the variance")
    if fit.system.held is not None:
        raise OptionError("heritability() of a fit with fixed= is not available: use icc()")
    t = _term(fit, group)
    name = fit.matrices.terms[t].name
    estimate, error = _delta(fit, t)
    z = float(ndtri(0.5 + 0.5 * level))
    if method == "wald":
        lower, upper = _logit_limits(estimate, error, z)
    else:
        with one_blas_thread():
            lower, upper = _Profile(fit, t).limits(estimate, error, z)
    out = pd.DataFrame(
        {"estimate": estimate, "std_error": error, "lower": lower, "upper": upper}, index=[name]
    )
    out.attrs["heading"] = f"Share of the variance of {name} in the sum of all"
    criterion = "the REML criterion" if fit.reml else "the deviance"
    how = f"by the profile of {criterion}" if method == "profile" else "by the delta method"
    out.attrs["notes"] = [f"{percent(level)} interval {how}"]
    return out


def _term(fit: FittedModel, group: str | None) -> int:
    """Return which term is meant."""
    matrices = fit.matrices
    names = [term.name for term in matrices.terms]
    wide = [term.name for term in matrices.terms if len(term.column_names) > 1]
    if wide:
        raise OptionError(
            f"heritability is of models with one variance a term, and {wide[0]} has several "
            "effects: use icc()"
        )
    if group is not None:
        return names.index(require_one_of("group", group, names))
    known = [
        t for t, term in enumerate(matrices.terms)
        if matrices.factors[term.factor].known is not None
    ]  # fmt: skip
    candidates = known if known else list(range(len(names)))
    if len(candidates) != 1:
        raise OptionError(f"say of which group: {listed(names, quoted=True)}")
    return candidates[0]


def _delta(fit: FittedModel, t: int) -> tuple[float, float]:
    """Return h^2 and its standard error; NaN where h^2 is zero or the error is not defined."""
    at = variance_scale(fit)
    variances = at.estimates**2  # one sd for each term, then sigma
    total = float(variances.sum())
    h = float(variances[t] / total)
    # d h / d log sd
    slopes = 2.0 * (h * (np.arange(variances.size) == t) - h * variances / total)
    gradient = slopes @ at.jacobian
    if at.boundary[t] or fit.curvature.negative:
        return h, math.nan
    return h, float(np.sqrt(max(gradient @ fit.curvature.covariance @ gradient, 0.0)))


def _logit_limits(h: float, error: float, z: float) -> tuple[float, float]:
    if not 0.0 < h < 1.0:
        return math.nan, math.nan
    half = z * error / (h * (1.0 - h))
    centre = math.log(h / (1.0 - h))
    return 1.0 / (1.0 + math.exp(half - centre)), 1.0 / (1.0 + math.exp(-half - centre))


class _Profile:
    """The criterion with h^2 held, least over the other variances."""

    def __init__(self, fit: FittedModel, t: int) -> None:
        self.system: PenalizedSystem = fit.system
        self.reml = fit.reml
        self.t = t
        self.least = fit.criterion
        self.scales = np.array([float(Rz[0, 0]) for Rz in fit.system.chart.Rz])
        phi = np.abs(fit.optimum.phi)
        others = np.arange(phi.size) != t
        self.x = np.maximum(phi[others], 1e-2)
        self.others = others

    def _phi(self, h: float, x: Vector) -> tuple[Vector, Vector]:
        """Return phi (m,) and the slopes (m - 1,) of its held coordinate."""
        theta = x / self.scales[self.others]
        share = h / (1.0 - h)
        held = math.sqrt(share * (1.0 + float(theta @ theta)))
        phi = np.empty(self.others.size)
        phi[self.others] = x
        phi[self.t] = held * self.scales[self.t]
        slopes = np.zeros(x.size)
        if held > 0.0:
            slopes = self.scales[self.t] * share * theta / held / self.scales[self.others]
        return phi, slopes

    def drop(self, h: float) -> float:
        """Return by how much the criterion is above its least where h^2 is held."""
        chart = self.system.chart

        def function(x: Vector) -> tuple[float, Vector]:
            phi, slopes = self._phi(h, x)
            try:
                value, G = evaluate(
                    chart.lambdas(phi), self.system, reml=self.reml, gradient=True
                )
            except NotPositiveDefiniteError:
                return math.inf, np.full(x.size, np.nan)
            gradient = chart.pull_back(phi, chart.split(G))
            return value, gradient[self.others] + gradient[self.t] * slopes

        if not self.x.size:
            return function(self.x)[0] - self.least
        levels = [self.system.products.blocks.factors[p.factor].n_levels for p in chart.layout]
        guess = np.diag(2.0 * np.array(levels, dtype=np.float64)[self.others])
        found = minimize_bfgs(
            function, self.x, guess, tolerance=TOLERANCE, max_evaluations=200
        )
        self.x = np.where(np.abs(found.x) < 1e-3, 1e-2, np.abs(found.x))
        return found.value - self.least

    def limits(self, h: float, error: float, z: float) -> tuple[float, float]:
        """Return where the criterion is z^2 above its least, 0 or 1 where it is nowhere."""
        from scipy.optimize import brentq  # takes long to load

        start = self.x

        def side(end: float) -> float:
            self.x = start

            def excess(at: float) -> float:
                return self.drop(at) - z * z

            if abs(h - end) <= EDGE or excess(end) <= 0.0:
                return round(end)
            if excess(h) >= 0.0:  # a level of almost nothing
                return h
            near = h
            step = (end - h) / 16.0
            if math.isfinite(error) and error > 0.0:
                step = math.copysign(min(0.5 * z * error, abs(end - h)), end - h)
            while True:
                far = near + step
                if (end - far) * (end - h) <= 0.0:
                    far = end
                if excess(far) > 0.0:
                    return float(brentq(excess, near, far, xtol=1e-7, rtol=1e-7))
                near, step = far, 1.5 * step

        return side(EDGE), side(1.0 - EDGE)
