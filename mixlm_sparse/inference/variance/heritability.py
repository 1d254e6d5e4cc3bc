"""Heritability: the share of one variance in their sum, with its standard error and interval.

    h^2 = tau_a^2 / (sum_t tau_t^2 + sigma^2 v)

over the terms of the model, one variance each.  v is one, and with a variance function s of the
residuals the average of s_i^2 over the rows, so that sigma^2 v is the residual variance of an
average row; a residual correlation within groups leaves the variances as they are.

The logit of h^2 is close to normal: limits by the delta method are symmetric there.  For the
profile, h^2 is held by

    theta_a^2 = h^2 / (1 - h^2) (v + sum_{t != a} theta_t^2)

and the other theta, and the parameters of the residuals, adapt; sigma is profiled out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixlm_sparse.common.checks import listed, require_level, require_one_of
from mixlm_sparse.common.errors import NotPositiveDefiniteError, OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.inference.variance.delta import FLAT, moves, variance_scale
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.structured import require_random_effects
from mixlm_sparse.solve.criterion import evaluate
from mixlm_sparse.solve.search.bfgs import minimize_bfgs
from mixlm_sparse.solve.whitened.objective import WhitenedObjective

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

METHODS = ("profile", "wald")
# A change of h^2 by this along what the data do not determine is none of rounding.
CHANGE_TOL = 1e-6
# h^2 is looked for up to this close to 0 and 1.
EDGE = 1e-6
TOLERANCE = 1e-10


@result_table()
def heritability(
    fit: FittedModel, group: str | None = None, *, level: float = 0.95, method: str = "profile"
) -> pd.DataFrame:
    """Return the heritability, or any share of one variance in the sum of all.

    The variance of a term whose levels are related by `known=` is that of a level with A_jj = 1,
    an animal that is not inbred, and sigma^2 that of a row with weight one; `icc()` gives shares of
    the average row instead.  Where residual variances differ by `variance=`, the sum has their mean
    over the rows used.  A residual correlation counts with the whole residual variance.

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
    of the delta method.  A limit that the criterion does not reach is 0 or 1.  A share that depends
    on what the data do not determine is NaN, and so is the error of one on the boundary; the notes
    say why.

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
    require_random_effects(fit, "heritability")
    level = require_level("level", level)
    require_one_of("method", method, METHODS)
    if fit.unbounded or fit.optimum.no_residual:
        raise OptionError("the model leaves no residual: there are no shares of the variance")
    if fit.system.held is not None:
        raise OptionError("heritability() of a fit with fixed= is not available: use icc()")
    t = _term(fit, group)
    name = fit.matrices.terms[t].name
    estimate, error, why = _delta(fit, t)
    z = float(ndtri(0.5 + 0.5 * level))
    if math.isnan(estimate):
        lower, upper = math.nan, math.nan
    elif method == "wald":
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
    out.attrs["notes"] = [f"{percent(level)} interval {how}", *([why] if why else [])]
    law = fit.matrices.law
    if law is not None and law.variance is not None:
        out.attrs["notes"].append("residual variance: the mean over the rows")
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


def _residual_part(law: ResidualLaw | None, rho: Vector, *, centered: bool) -> tuple[float, Vector]:
    """Return the mean of s_i^2 over the rows and its derivative (n_rho,) by rho.

    Parameters
    ----------
    centered : s is divided by its geometric mean, as searches have it.
    """
    slopes = np.zeros(rho.size)
    if law is None or law.variance is None:
        return 1.0, slopes
    log_sd = law.variance.log_sd(law.x, rho[law.variance_part], law.values)
    if centered:
        log_sd = log_sd - log_sd.mean()
    squares = np.exp(2.0 * log_sd)
    core = 2.0 * squares / law.n
    if centered:
        core = core - core.mean()
    slopes[law.variance_part] = law.variance.contract(law.x, core, law.values)
    return float(squares.mean()), slopes


def _delta(fit: FittedModel, t: int) -> tuple[float, float, str]:
    """Return h^2, its standard error, and why one of them is NaN."""
    at = variance_scale(fit)
    rho = fit.optimum.rho
    mean, by_rho = _residual_part(fit.matrices.law, rho, centered=False)
    variances = at.estimates**2  # one sd for each term, then sigma
    variances[-1] = unit_of_theta(fit) ** 2 * mean
    total = float(variances.sum())
    h = float(variances[t] / total)
    for direction in fit.identification.directions:
        own = np.array([float(S[0, 0]) for S in direction.covariances])
        change = own[t] - h * (float(own.sum()) + direction.sigma_sq * mean)
        largest = max(abs(direction.sigma_sq), float(np.abs(own).max(initial=0.0)))
        if abs(change) > CHANGE_TOL * largest:
            return math.nan, math.nan, fit.identification.sentence
    # d h / d log sd, and by rho
    slopes = 2.0 * (h * (np.arange(variances.size) == t) - h * variances / total)
    gradient = slopes @ at.jacobian
    m = gradient.size - 1 - rho.size
    gradient[m:-1] -= h * float(variances[-1]) / (mean * total) * by_rho
    if at.boundary[t]:
        return h, math.nan, at.boundary[t]
    if fit.curvature.negative or moves(gradient, fit.curvature.flat):
        return h, math.nan, FLAT
    return h, float(np.sqrt(max(gradient @ fit.curvature.covariance @ gradient, 0.0))), ""


def _logit_limits(h: float, error: float, z: float) -> tuple[float, float]:
    if not 0.0 < h < 1.0:
        return math.nan, math.nan
    half = z * error / (h * (1.0 - h))
    centre = math.log(h / (1.0 - h))
    return 1.0 / (1.0 + math.exp(half - centre)), 1.0 / (1.0 + math.exp(-half - centre))


# the criterion and its gradient at (phi, rho)
Criterion = Callable[[Vector], tuple[float, Vector]]


def _criterion(fit: FittedModel) -> tuple[Criterion, Vector, Matrix]:
    """Return the criterion with sigma profiled out, where it is least, and a guess of its Hessian.

    With a residual structure variance functions are divided by their geometric mean.
    """
    system, chart, phi = fit.system, fit.system.chart, np.abs(fit.optimum.phi)
    if system.whitened is not None:
        objective = WhitenedObjective(system, fit.reml)
        rho = fit.optimum.rho
        there = objective.at(rho).system.whitened
        assert there is not None
        phi = chart.scaled(phi, math.exp(-there.whitening.center))
        at = np.concatenate([phi, rho])
        return objective.value_and_gradient, at, objective.curvature(at)

    def plain(x: Vector) -> tuple[float, Vector]:
        try:
            value, G = evaluate(chart.lambdas(x), system, reml=fit.reml, gradient=True)
        except NotPositiveDefiniteError:
            return math.inf, np.full(x.size, np.nan)
        return value, chart.pull_back(x, chart.split(G))

    levels = [system.products.blocks.factors[place.factor].n_levels for place in chart.layout]
    return plain, phi, np.diag(2.0 * np.array(levels, dtype=np.float64))


class _Profile:
    """The criterion with h^2 held, least over the other parameters."""

    def __init__(self, fit: FittedModel, t: int) -> None:
        self.criterion, at, guess = _criterion(fit)
        self.law = fit.matrices.law
        self.t, self.m = t, fit.optimum.phi.size
        self.least = fit.criterion
        self.scales = np.array([float(Rz[0, 0]) for Rz in fit.system.chart.Rz])
        self.free = np.arange(at.size) != t
        self.guess = guess[np.ix_(self.free, self.free)]
        at[: self.m] = np.maximum(at[: self.m], 1e-2)
        self.x = at[self.free]

    def _whole(self, h: float, x: Vector) -> tuple[Vector, Vector]:
        """Return (phi, rho) and the slopes of its held coordinate by the others."""
        k = self.m - 1  # other theta, then rho
        scales = self.scales[self.free[: self.m]]
        theta, rho = x[:k] / scales, x[k:]
        mean, by_rho = _residual_part(self.law, rho, centered=True)
        share = h / (1.0 - h)
        held = math.sqrt(share * (mean + float(theta @ theta)))
        whole = np.empty(self.free.size)
        whole[self.free] = x
        whole[self.t] = held * self.scales[self.t]
        slopes = np.zeros(x.size)
        if held > 0.0:
            own = np.concatenate([theta / scales, 0.5 * by_rho])
            slopes = self.scales[self.t] * share / held * own
        return whole, slopes

    def drop(self, h: float) -> float:
        """Return by how much the criterion is above its least where h^2 is held."""

        def function(x: Vector) -> tuple[float, Vector]:
            whole, slopes = self._whole(h, x)
            value, gradient = self.criterion(whole)
            return value, gradient[self.free] + gradient[self.t] * slopes

        if not self.x.size:
            return function(self.x)[0] - self.least
        found = minimize_bfgs(
            function, self.x, self.guess, tolerance=TOLERANCE, max_evaluations=200
        )
        k, x = self.m - 1, found.x.copy()
        x[:k] = np.where(np.abs(x[:k]) < 1e-3, 1e-2, np.abs(x[:k]))
        self.x = x
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
