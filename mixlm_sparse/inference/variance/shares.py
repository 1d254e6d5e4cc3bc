"""Shares of variance: intraclass correlations and R².

Let s_g be the average over the rows of z'T T'z, the variance that the random effects of factor g
add to a row, relative to sigma^2; f the variance of X beta over the rows; e = sigma^2 times the
average of 1 / weight.  With s = sigma^2 sum_g s_g,

    ICC of g      sigma^2 s_g / (s + e)        adjusted ICC      s / (s + e)
    unadjusted    s / (f + s + e)
    marginal R²   f / (f + s + e)              conditional R²    (f + s) / (f + s + e)

Random slopes enter with the variance that they add at the rows' own predictors.  Intervals come
from the asymptotic covariances of (phi, log sigma) and beta, by the delta method on the logit
scale.

References
----------
Nakagawa and Schielzeth (2013), doi:10.1111/j.2041-210x.2012.00261.x; Johnson (2014),
doi:10.1111/2041-210X.12225; Nakagawa, Johnson and Schielzeth (2017), doi:10.1098/rsif.2017.0213.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri

from mixlm_sparse.common.checks import require_level
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.members import summed_squares
from mixlm_sparse.inference.variance.delta import FLAT, moves
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.structured import require_random_effects
from mixlm_sparse.solve.products.basis import triangular_inverse

# Changes below this share of the direction are rounding.
CHANGE_TOL = 1e-6
KEPT_AS = "shares"  # of `fit.kept`, where the rows are gone
# a variance, its gradient in (phi, log sigma, beta), and its change along what is not determined
Quantity = tuple[float, Vector, Vector]


@dataclass(frozen=True, eq=False, slots=True)
class _Parts:
    """Variances of a row and their gradients in (phi, log sigma, beta), (m + 1 + p,) each.

    Parameters
    ----------
    groups : by factor; fixed, residual : the other two.
    covariance : of (phi, log sigma, beta).
    flat : (m + 1, f) directions of (phi, log sigma) along which the criterion is flat.
    sentence : what the data do not determine.
    """

    groups: list[Quantity]
    fixed: Quantity
    residual: Quantity
    covariance: Matrix
    flat: Matrix
    sentence: str


def _parts(fit: FittedModel) -> _Parts:
    system, matrices = fit.system, fit.matrices
    # (phi, rho of a residual structure), then log sigma and beta
    m, p = fit.theta.size + system.n_rho, system.p
    chart, phi, sigma = system.chart, fit.optimum.phi, unit_of_theta(fit)
    sums = row_sums(fit)
    cov_X, means = sums["cov_X"], [sums[f"moment.{t}"] for t in range(len(matrices.terms))]
    width = m + 1 + p

    values = [0.0] * len(matrices.factors)
    gradients = [np.zeros(width) for _ in matrices.factors]
    for template, part, term, T, mean in zip(
        chart.templates, chart.slices, matrices.terms, chart.factors(phi), means, strict=True
    ):
        s = float((mean * (T @ T.T)).sum())
        values[term.factor] += sigma**2 * s
        # d tr(M T T') / dT = 2 M T
        gradients[term.factor][part] += sigma**2 * template.pull_back_at(phi[part], 2.0 * mean @ T)
        gradients[term.factor][m] += 2.0 * sigma**2 * s
    beta = fit.solution.beta
    fixed_gradient = np.zeros(width)
    fixed_gradient[m + 1 :] = 2.0 * cov_X @ beta
    spread, by_rho = float(sums["residual"][0]), sums["residual"][1:]
    # where sigma is zero in the limit, the value that it is held at is no variance
    residual = 0.0 if fit.optimum.no_residual else sigma**2 * spread
    residual_gradient = np.zeros(width)
    residual_gradient[m] = 2.0 * residual
    residual_gradient[m - system.n_rho : m] = sigma**2 * by_rho
    covariance, flat = np.zeros((width, width)), np.zeros((m + 1, 0))
    if not fit.perfect:
        flat = fit.curvature.flat
        covariance[: m + 1, : m + 1] = fit.curvature.covariance
    covariance[m + 1 :, m + 1 :] = sigma**2 * fit.solution.vcov_unscaled
    changes = _undetermined(fit, means, spread)
    return _Parts(
        list(zip(values, gradients, changes[:-2], strict=True)),
        (float(beta @ cov_X @ beta), fixed_gradient, changes[-2]),
        (residual, residual_gradient, changes[-1]),
        covariance,
        flat,
        fit.identification.sentence,
    )


def row_sums(fit: FittedModel) -> Mapping[str, Matrix]:
    """Return what shares need of the rows, by name.

    Returns
    -------
    "cov_X" (p, p), the covariance of the columns of X over the rows; "moment.t" (k, k) of every
    term, the average of z~ z~' in the working columns; "residual" (1 + n_rho,), the mean variance
    of the residuals over sigma^2 and its derivative by rho.
    """
    kept: Mapping[str, Matrix] | None = fit.kept.get(KEPT_AS)
    if kept is not None:
        return kept
    system, matrices = fit.system, fit.matrices
    p, n = system.p, system.n
    to_working = [triangular_inverse(Rz) for Rz in system.chart.Rz]
    moments = [np.zeros((len(t.column_names),) * 2) for t in matrices.terms]
    cov_X = np.zeros((p, p))
    total = np.zeros(p)
    # around the first row, so that nothing cancels
    origin = next(system.rows(1)).X
    for rows in system.rows():
        X = rows.X - origin
        cov_X += X.T @ X
        total += X.sum(axis=0)
        for t, inverse in enumerate(to_working):
            z = rows.z(t) @ inverse
            factor = matrices.terms[t].factor
            known = matrices.factors[factor].known
            if known is not None:  # related levels have the variances of their matrix
                own = known.variances[rows.codes(factor)]
                moments[t] += (z * own[:, None]).T @ z
                continue
            squares = summed_squares(rows.levels(factor))
            weighted = z if isinstance(squares, float) else z * squares[:, None]
            moments[t] += weighted.T @ z
    cov_X = (cov_X - np.outer(total, total) / n) / (n - 1)
    spread, by_rho = _mean_residual(fit)
    return {
        "cov_X": cov_X,
        **{f"moment.{t}": moment / n for t, moment in enumerate(moments)},
        "residual": np.append(spread, by_rho),
    }


def _mean_residual(fit: FittedModel) -> tuple[float, Vector]:
    """Return the mean variance of the residuals over sigma^2, and its derivative by rho."""
    system = fit.system
    if system.whitened is None:
        inverse = sum(float((1.0 / rows.weights).sum()) for rows in system.rows())
        return inverse / system.n, np.zeros(0)
    law, variances = system.whitened.law, system.whitened.whitening.sd**2
    by_rho = np.zeros(law.n_rho)
    if law.variance is not None:
        core = 2.0 * variances / system.n
        by_rho[law.variance_part] = law.variance.contract(law.x, core, law.values)
    return float(variances.mean()), by_rho


def around_fixed(fit: FittedModel) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the variance of an average row around the fixed part, and its residual part.

    Returns
    -------
    (total, its standard error), (residual, its standard error); NaN where the data do not determine
    them.
    """
    parts = _parts(fit)
    total = _sum([*parts.groups, parts.residual])
    out = []
    for value, gradient, change in (total, parts.residual):
        lost = bool((np.abs(change) > CHANGE_TOL).any())
        flat = moves(gradient[: parts.flat.shape[0]], parts.flat)
        error = float(np.sqrt(max(float(gradient @ parts.covariance @ gradient), 0.0)))
        nothing = float("nan")
        out.append((nothing if lost else float(value), nothing if lost or flat else error))
    return out[0], out[1]


def _undetermined(fit: FittedModel, moments: list[Matrix], spread: float) -> Matrix:
    """Return the changes (groups + 2, d) of variances along what the data do not determine.

    Parameters
    ----------
    moments : per term, (k, k) average of z~ z~'; spread : average of 1 / weight.
    """
    terms, Rz = fit.matrices.terms, fit.system.chart.Rz
    directions = fit.identification.directions
    out = np.zeros((len(fit.matrices.factors) + 2, len(directions)))
    for d, direction in enumerate(directions):
        working = [R @ S @ R.T for R, S in zip(Rz, direction.covariances, strict=True)]
        for term, S, moment in zip(terms, working, moments, strict=True):
            out[term.factor, d] += float((S * moment).sum())
        # the estimates of the coefficients enter the variance of the fixed part
        out[-2, d] = float(direction.moves_beta)
        out[-1, d] = direction.sigma_sq * spread
        largest = max([abs(direction.sigma_sq), *(float(np.abs(S).max()) for S in working)])
        out[:-2, d] /= largest
        out[-1, d] /= largest
    return out


def _nothing(parts: _Parts) -> Quantity:
    """Return the variance of no random effects."""
    return 0.0, np.zeros_like(parts.fixed[1]), np.zeros_like(parts.fixed[2])


def _sum(parts: list[Quantity]) -> Quantity:
    total = float(sum(value for value, _, _ in parts))
    gradient: Vector = np.sum([g for _, g, _ in parts], axis=0)
    change: Vector = np.sum([c for _, _, c in parts], axis=0)
    return total, gradient, change


Share = tuple[float, float, float, float, str]


def _share(part: Quantity, whole: Quantity, parts: _Parts, level: float) -> Share:
    """Return part / whole with standard error, limits, and why one of them is missing."""
    value, total = part[0], whole[0]
    nothing = float("nan")
    if not total > 0.0:
        return nothing, nothing, nothing, nothing, "undefined: there is no variance"
    share = float(value / total)
    gradient = part[1] / total - share * whole[1] / total
    if (np.abs(part[2] - share * whole[2]) > CHANGE_TOL).any():
        return nothing, nothing, nothing, nothing, parts.sentence
    if moves(gradient[: parts.flat.shape[0]], parts.flat):
        return share, nothing, nothing, nothing, FLAT
    error = float(np.sqrt(max(float(gradient @ parts.covariance @ gradient), 0.0)))
    if not 0.0 < share < 1.0:
        return share, nothing, nothing, nothing, "on the boundary: no symmetric interval"
    logit = float(np.log(share) - np.log1p(-share))
    half = float(ndtri(0.5 + 0.5 * level)) * error / (share * (1.0 - share))
    return share, error, float(expit(logit - half)), float(expit(logit + half)), ""


def _table(rows: dict[str, Share]) -> pd.DataFrame:
    columns = ["estimate", "std_error", "lower", "upper", "note"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    notes = table.pop("note")
    table.attrs["notes"] = {str(name): text for name, text in notes.items() if text}
    return table


@result_table("Intraclass correlations")
def icc(fit: FittedModel, *, level: float = 0.95) -> pd.DataFrame:
    """Return intraclass correlations.

    Parameters
    ----------
    level : coverage of the intervals (delta method on the logit scale; NaN at 0 and 1).

    Returns
    -------
    DataFrame with columns estimate, std_error, lower, upper.  Row "adjusted" is the share of
    random effects in the variance that fixed effects leave, "unadjusted" their share in the
    whole variance, and one row for each grouping factor is its share in what fixed effects
    leave.  Random slopes count with the variance that they add to the rows on average; with
    prior weights the residual variance is that of an average row.  A share that depends on what
    the data do not determine is NaN; attrs["notes"] tells by name why.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> mx.lmer("strength ~ 1 + (1 | batch/cask)", mx.datasets.load("Pastes")).icc()
    Intraclass correlations
                estimate  std_error    lower    upper
    adjusted     0.93704    0.02290  0.87431  0.96955
    unadjusted   0.93704    0.02290  0.87431  0.96955
    cask:batch   0.78314    0.20009  0.26404  0.97323
    batch        0.15390    0.20349  0.00843  0.79552
    """
    require_random_effects(fit, "icc")
    level = require_level("level", level)
    parts = _parts(fit)
    random = _sum(parts.groups or [_nothing(parts)])
    around = _sum([random, parts.residual])
    whole = _sum([parts.fixed, around])
    rows = {
        "adjusted": _share(random, around, parts, level),
        "unadjusted": _share(random, whole, parts, level),
    }
    for factor, part in zip(fit.matrices.factors, parts.groups, strict=True):
        rows[factor.label] = _share(part, around, parts, level)
    return _table(rows)


@result_table("Nakagawa's R²: shares of the variance")
def r2(fit: FittedModel, *, level: float = 0.95) -> pd.DataFrame:
    """Return Nakagawa's R².

    Parameters
    ----------
    level : coverage of the intervals (delta method on the logit scale).

    Returns
    -------
    DataFrame with columns estimate, std_error, lower, upper; "marginal" is the share of fixed
    effects in the variance, "conditional" that of fixed and random effects.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.r2()
    Nakagawa's R²: shares of the variance
                 estimate  std_error    lower    upper
    marginal      0.27865    0.07696  0.15425  0.44999
    conditional   0.79922    0.04357  0.70040  0.87142
    """
    level = require_level("level", level)
    parts = _parts(fit)
    random = _sum(parts.groups or [_nothing(parts)])
    explained = _sum([parts.fixed, random])
    whole = _sum([explained, parts.residual])
    return _table(
        {
            "marginal": _share(parts.fixed, whole, parts, level),
            "conditional": _share(explained, whole, parts, level),
        }
    )
