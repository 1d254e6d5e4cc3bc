"""Standard errors and Wald intervals of standard deviations, correlations and sigma.

The Hessian of the (restricted) log-likelihood in (phi, log sigma) is that of `solve.curvature`;
log sd, atanh corr and log sigma get their covariance by the delta method, which at an optimum is
the same as the Hessian in these parameters.  Limits are computed on that scale and transformed
back, as Stata's `mixed` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixlm_sparse.common.checks import require_level
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.parameters import (
    UNIT_CORRELATION_ATOL,
    ZERO_SD_RTOL,
    VarianceParameter,
    parameter_values,
    relative_lengths,
    variance_parameters,
)

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

SCALES = ("sd", "variance")
PAIRS = ("correlation", "covariance")



def _on_search_scale(par: VarianceParameter, value: float) -> float:
    return float(np.arctanh(value)) if par.kind == "cor" else float(np.log(value))


def _jacobian(
    fit: FittedModel, parameters: tuple[VarianceParameter, ...], regular: np.ndarray
) -> Matrix:
    """Return d(log sd, atanh corr, log sigma)/d(phi, log sigma), zero rows where not regular."""
    system, phi = fit.system, fit.optimum.phi
    m = phi.size
    J = np.zeros((len(parameters), m + 1))

    def values(at: Vector) -> Vector:
        factors = system.chart.user_factors(system.chart.factors(at))
        return parameter_values(parameters, factors, 1.0)

    for i in range(m):
        e = np.zeros(m)
        e[i] = 1e-6
        up, down = values(phi + e), values(phi - e)
        for r, par in enumerate(parameters):
            if regular[r] and par.kind != "sigma":
                difference = _on_search_scale(par, up[r]) - _on_search_scale(par, down[r])
                J[r, i] = difference / 2e-6
    for r, par in enumerate(parameters):
        if par.kind != "cor":  # sd = sigma times its relative size
            J[r, m] = 1.0
    return J


def boundary_notes(
    fit: FittedModel, parameters: tuple[VarianceParameter, ...], values: Vector
) -> list[str]:
    """Return, per parameter, why it has no quadratic neighbourhood; empty where it has one."""
    lengths = relative_lengths(fit.system)
    zero: set[tuple[int, int]] = set()
    for par, value in zip(parameters, values, strict=True):
        if par.kind == "sd" and value * lengths[par.term][par.row] < ZERO_SD_RTOL * fit.sigma:
            zero.add((par.term, par.row))
    notes = []
    for par, value in zip(parameters, values, strict=True):
        note = ""
        if par.kind == "sd" and (par.term, par.row) in zero:
            note = "estimated as zero: on the boundary, no standard error"
        elif par.kind == "cor":
            if {(par.term, par.row), (par.term, par.column)} & zero:
                note = "undefined: a standard deviation is estimated as zero"
            elif not abs(value) < 1.0 - UNIT_CORRELATION_ATOL:
                note = "estimated as +1 or -1: on the boundary, no standard error"
        notes.append(note)
    return notes


def search_scale_covariance(fit: FittedModel) -> tuple[pd.DataFrame, list[str]]:
    """Return the covariance of (log sd, atanh corr, log sigma), and a note per parameter."""
    parameters = variance_parameters(fit.system)
    names = [par.name for par in parameters]
    values = _estimates(fit, parameters)
    if fit.perfect:
        empty = pd.DataFrame(np.nan, index=names, columns=names)
        return empty, ["perfect fit: sigma is zero"] * len(names)
    notes = boundary_notes(fit, parameters, values)
    regular = np.array([not note for note in notes])
    curvature = fit.curvature
    inverse, flat, definite = curvature.covariance, curvature.flat, not curvature.negative
    J = _jacobian(fit, parameters, regular)
    V = J @ inverse @ J.T
    for r in range(len(parameters)):
        if not regular[r]:
            continue
        if not definite:
            notes[r] = "the Hessian is not positive definite: the fit is not at an optimum"
        elif np.abs(J[r] @ flat).max(initial=0.0) > 1e-3 * max(1.0, np.abs(J[r]).max()):
            notes[r] = "the data do not determine it: the criterion is flat in this direction"
    bad = np.array([bool(note) for note in notes])
    V[bad, :] = np.nan
    V[:, bad] = np.nan
    return pd.DataFrame(V, index=names, columns=names), notes


def _estimates(fit: FittedModel, parameters: tuple[VarianceParameter, ...]) -> Vector:
    factors = [fit.solution.Lambda(t) for t in range(len(fit.matrices.terms))]
    return parameter_values(parameters, factors, fit.sigma)


def variance_components(
    fit: FittedModel, level: float = 0.95, scale: str = "sd", pairs: str | None = None
) -> pd.DataFrame:
    """Return variance components with standard errors and Wald intervals.

    The covariance of (log sd, atanh correlation, log sigma) comes from the exact Hessian of the
    log-likelihood that was maximized; limits are symmetric on that scale and transformed back,
    as Stata's `mixed` prints them.  Limits of a covariance are symmetric themselves.

    Parameters
    ----------
    level : coverage between 0 and 1.
    scale : "sd" or "variance".
    pairs : "correlation" or "covariance"; by default the one that goes with the scale.

    Returns
    -------
    DataFrame with columns grp, var1, var2, estimate, std_error, lower, upper, note.  A
    parameter on the boundary (a standard deviation of zero, a correlation of one) has no
    standard error: NaN, and `note` says so; `confint()` gives it limits.

    Raises
    ------
    OptionError : unknown scale, or a level outside of (0, 1).

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> fit.variance_components()[["estimate", "std_error", "lower", "upper"]].round(2)
                          estimate  std_error  lower  upper
    sd_(Intercept)|Batch     42.00      17.06  18.95  93.09
    sigma                    49.51       7.15  37.31  65.70
    """
    level = require_level("level", level)
    if scale not in SCALES:
        raise OptionError(f"scale is {scale!r}: use 'sd' or 'variance'")
    if pairs is None:
        pairs = "correlation" if scale == "sd" else "covariance"
    if pairs not in PAIRS:
        raise OptionError(f"pairs is {pairs!r}: use 'correlation' or 'covariance'")
    parameters = variance_parameters(fit.system)
    values = _estimates(fit, parameters)
    frame, notes = search_scale_covariance(fit)
    V = frame.to_numpy()
    z = float(ndtri(0.5 + 0.5 * level))
    place = {(par.term, par.row, par.column): r for r, par in enumerate(parameters)}
    rows = []
    for r, par in enumerate(parameters):
        value, se = float(values[r]), float(np.sqrt(V[r, r]))
        name = par.name
        if par.kind == "cor" and pairs == "covariance":
            i, j = place[par.term, par.row, par.row], place[par.term, par.column, par.column]
            estimate = value * float(values[i] * values[j])
            # cov = corr sd_i sd_j: d cov = cov (d log sd_i + d log sd_j) + sd_i sd_j d corr
            slope = np.zeros(len(parameters))
            slope[[i, j]] = estimate
            slope[r] = (1.0 - value**2) * float(values[i] * values[j])
            used = [i, j, r]
            error = float(np.sqrt(slope[used] @ V[np.ix_(used, used)] @ slope[used]))
            lower, upper = estimate - z * error, estimate + z * error
            name = "cov_" + name.removeprefix("cor_")
            if np.isnan(value):
                estimate = 0.0
        elif par.kind == "cor":
            estimate, error = value, (1.0 - value**2) * se
            centre = np.arctanh(value) if abs(value) < 1.0 else np.nan
            lower, upper = float(np.tanh(centre - z * se)), float(np.tanh(centre + z * se))
        else:
            power = 1 if scale == "sd" else 2
            estimate = value**power
            error = power * estimate * se
            lower = estimate * float(np.exp(-z * power * se))
            upper = estimate * float(np.exp(z * power * se))
            if scale == "variance":
                name = "var_Residual" if par.kind == "sigma" else "var_" + name.removeprefix("sd_")
        if notes[r]:
            error = lower = upper = float("nan")
        second = par.columns[1] if par.kind == "cor" else None
        first = par.columns[0] or None
        rows.append((name, par.group, first, second, estimate, error, lower, upper, notes[r]))
    columns = ["name", "grp", "var1", "var2", "estimate", "std_error", "lower", "upper", "note"]
    return pd.DataFrame(rows, columns=columns).set_index("name").rename_axis(None)
