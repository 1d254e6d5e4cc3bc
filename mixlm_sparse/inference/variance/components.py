"""Standard errors and Wald intervals of standard deviations, correlations and sigma.

The Hessian of the (restricted) log-likelihood in (phi, log sigma) is that of `solve.curvature`;
log sd, atanh corr and log sigma get their covariance by the delta method with exact derivatives,
which at an optimum is the same as the Hessian in these parameters.  Limits are computed on that
scale and transformed back, as Stata's `mixed` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixlm_sparse.common.checks import require_level, require_one_of
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.variance.delta import (
    FLAT,
    NO_OPTIMUM,
    VarianceScale,
    moves,
    variance_scale,
)
from mixlm_sparse.inference.variance.residual_structure import residual_table
from mixlm_sparse.model.parameters import residual_names, variance_parameters

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

# name, group, two columns, estimate, standard error, lower and upper limit
ComponentRow = tuple[str, str, str | None, str | None, float, float, float, float]

SCALES = ("sd", "variance")
PAIRS = ("correlation", "covariance")
NO_SIGMA = "perfect fit: sigma is zero"
NO_RESIDUAL = "nothing is left to the residuals: sigma is zero beside the random effects"


@result_table("Variance components with Wald intervals", hidden=["grp", "var1", "var2"])
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
    DataFrame with columns grp, var1, var2, estimate, std_error, lower, upper, note; the parameters
    of a residual structure follow sigma, on their natural scale, in the group Residual.  A
    parameter on the boundary (a standard deviation of zero, a correlation of one) has no
    standard error: NaN, and `note` says so; `confint()` gives it limits.  What the data do not
    determine is NaN altogether, with the terms involved in `note`.

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
    table = random_components(fit, level, scale, pairs)
    residual = residual_table(fit, level)
    if residual.empty:
        return table
    reasons = residual.attrs.get("notes", {})
    more = pd.DataFrame(
        {
            "grp": "Residual",
            "var1": residual["parameter"].astype(object),
            "var2": pd.Series([None] * len(residual), dtype=object),
            **{name: residual[name] for name in ("estimate", "std_error", "lower", "upper")},
            "note": [reasons.get(name, "") for name in residual["parameter"]],
        }
    )
    return pd.concat([table, more.set_axis(list(residual_names(fit.system)), axis=0)])


def random_components(
    fit: FittedModel, level: float = 0.95, scale: str = "sd", pairs: str | None = None
) -> pd.DataFrame:
    """Return `variance_components` without the parameters of a residual structure."""
    rows, notes = component_rows(fit, level, scale, pairs)
    columns = ["name", "grp", "var1", "var2", "estimate", "std_error", "lower", "upper"]
    table = pd.DataFrame(rows, columns=columns).set_index("name").rename_axis(None)
    return table.assign(note=notes)


def component_rows(
    fit: FittedModel, level: float = 0.95, scale: str = "sd", pairs: str | None = None
) -> tuple[list[ComponentRow], list[str]]:
    """Return the rows of `random_components`, and their notes."""
    level = require_level("level", level)
    require_one_of("scale", scale, SCALES)
    if pairs is None:
        pairs = "correlation" if scale == "sd" else "covariance"
    require_one_of("pairs", pairs, PAIRS)
    at = variance_scale(fit)
    notes = parameter_notes(fit, at, pairs)
    unknown = fit.identification.sentence
    V = np.full((len(notes),) * 2, np.nan) if fit.perfect else fit.curvature.covariance
    z = float(ndtri(0.5 + 0.5 * level))
    rows: list[ComponentRow] = []
    for r, par in enumerate(at.parameters):
        name = par.name
        if par.kind == "cor" and pairs == "covariance":
            figures = _covariance(at, r, V, z)
            name = "cov_" + name.removeprefix("cor_") if not par.shared else f"cov_{name}"
        elif par.kind == "cor":
            figures = _correlation(at, r, V, z)
        else:
            figures = _deviation(at, r, V, z, 1 if scale == "sd" else 2)
            if scale == "variance" and par.shared:
                name = name.replace("sd", "var", 1)
            elif scale == "variance":
                name = "var_Residual" if par.kind == "sigma" else "var_" + name.removeprefix("sd_")
        estimate, error, lower, upper = figures
        if notes[r]:
            error = lower = upper = float("nan")
        if unknown and notes[r] == unknown:
            estimate = float("nan")
        second = par.columns[1] if par.kind == "cor" else None
        first = par.columns[0] or None
        rows.append((name, par.group, first, second, estimate, error, lower, upper))
    return rows, list(notes)


def parameter_notes(
    fit: FittedModel, at: VarianceScale, pairs: str = "correlation"
) -> list[str]:
    """Return, per variance parameter, why it has no standard error; "" where it has one."""
    if fit.perfect:
        return [NO_SIGMA] * len(at.parameters)
    curvature, judged = fit.curvature, fit.identification
    notes = list(at.boundary)
    held = dict(fit.system.held.names) if fit.system.held is not None else {}
    for r, par in enumerate(at.parameters):
        if par.name in held:
            notes[r] = f"held at {held[par.name]:g}"
            continue
        known = judged.parameter(par.term, par.row, par.column)
        if par.kind == "cor" and pairs == "covariance":
            known = bool(judged.entries[par.term][par.row, par.column])
        if not known:
            notes[r] = judged.sentence
        elif par.kind == "sigma" and fit.optimum.no_residual:
            notes[r] = NO_RESIDUAL
        elif notes[r]:
            continue
        elif curvature.negative:
            notes[r] = NO_OPTIMUM
        elif moves(at.jacobian[r], curvature.flat):
            notes[r] = FLAT
    return notes


def undetermined(fit: FittedModel) -> dict[str, str]:
    """Return the reason by name of each parameter that the data do not determine."""
    judged = fit.identification
    if judged.complete:
        return {}
    names = [
        par.name
        for par in variance_parameters(fit.system)
        if not judged.parameter(par.term, par.row, par.column)
    ]
    names += [
        name
        for name, ok in zip(residual_names(fit.system), judged.structure.tolist(), strict=True)
        if not ok
    ]
    known = judged.coefficients(np.eye(fit.system.p))
    names += [name for name, ok in zip(fit.system.x_names, known.tolist(), strict=True) if not ok]
    return dict.fromkeys(names, judged.sentence)


Figures = tuple[float, float, float, float]


def _error(gradient: Vector, V: Matrix) -> float:
    if V.shape[0] != gradient.size:
        return np.nan
    return float(np.sqrt(max(float(gradient @ V @ gradient), 0.0)))


def _deviation(at: VarianceScale, r: int, V: Matrix, z: float, power: int) -> Figures:
    """Return a standard deviation or variance with limits that are symmetric on the log scale."""
    se = power * _error(at.jacobian[r], V)
    estimate = float(at.estimates[r]) ** power
    with np.errstate(over="ignore"):  # without a limit, where the data hardly determine it
        half = float(np.exp(z * se))
    return estimate, estimate * se, estimate / half, estimate * half


def _correlation(at: VarianceScale, r: int, V: Matrix, z: float) -> Figures:
    """Return a correlation with limits that are symmetric on the scale of atanh.

    One that cannot be below l > -1 is l + (1 - l) (1 + tanh t) / 2.
    """
    se, centre = _error(at.jacobian[r], V), float(at.transformed[r])
    half = 0.5 * (1.0 - at.parameters[r].least)
    middle = 1.0 - half
    # 1 - r^2 = 1 / cosh(atanh r)^2
    error = half * se / np.cosh(centre) ** 2
    return (
        float(at.estimates[r]), float(error), float(middle + half * np.tanh(centre - z * se)),
        float(middle + half * np.tanh(centre + z * se)),
    )  # fmt: skip


def _covariance(at: VarianceScale, r: int, V: Matrix, z: float) -> Figures:
    """Return a covariance with limits that are symmetric."""
    estimate, error = float(at.covariances[r]), _error(at.covariance_slopes[r], V)
    return estimate, error, estimate - z * error, estimate + z * error
