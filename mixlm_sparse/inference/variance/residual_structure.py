"""The parameters of the residual structure on their natural scale, with errors and intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixlm_sparse.common.checks import require_level
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.inference.variance.delta import FLAT, NO_OPTIMUM, moves
from mixlm_sparse.model.fitted import FittedModel

AT_END = "at the end of its range: no standard error"
COLUMNS = ["parameter", "estimate", "std_error", "lower", "upper"]


def residual_structure(fit: FittedModel) -> pd.DataFrame:
    """Parameters of the residual structure on their natural scale, with 95 % intervals.

    A DataFrame with columns parameter, estimate, std_error, lower, upper; without rows where the
    residuals are independent.  Parameters: phi of AR1 and CAR1; rho of CompoundSymmetry;
    rho(1,2), ... of pairs of visits, by their numbers, and rho(1), ... of lags; range of
    Exponential and Gaussian; ratio(level) of standard deviations to that of the first level, power
    and rate.  Behind a bar stands the level of `by`.  `attrs["visits"]` names the visits.

    Errors come from the Hessian of the criterion that was minimized, by the delta method; limits
    are symmetric on an unbounded scale (atanh of a correlation, log of a ratio or range) and
    transformed back.  NaN where the data do not determine a parameter beside the random effects.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> rats = mx.datasets.load("BodyWeight")
    >>> fit = mx.gls("weight ~ Time * Diet", rats, residual=mx.CAR1(time="Time", group="Rat"))
    >>> fit.residual_structure.round(4)
      parameter  estimate  std_error   lower  upper
    0       phi    0.9979     0.0008  0.9956  0.999
    """
    return residual_table(fit)


@result_table("Residual structure")
def residual_table(fit: FittedModel, level: float = 0.95) -> pd.DataFrame:
    """Return the parameters of the residual structure; see `residual_structure`.

    Parameters
    ----------
    level : coverage of the intervals.
    """
    level = require_level("level", level)
    whitened = fit.system.whitened
    if whitened is None:
        return pd.DataFrame({name: [] for name in COLUMNS})
    law, rho = whitened.law, whitened.rho
    values, slopes = law.natural(rho)
    m, r = fit.theta.size, rho.size
    notes: list[str] = [""] * r
    V = np.full((r, r), np.nan)
    ended = whitened.whitening.without_influence()
    judged = fit.identification
    if not fit.perfect:
        curvature = fit.curvature
        V = curvature.covariance[m : m + r, m : m + r]
        for k in range(r):
            full = np.zeros(curvature.covariance.shape[0])
            full[m : m + r] = slopes[k]
            if not judged.structure[k]:
                notes[k] = judged.sentence
            elif ended[k]:
                notes[k] = AT_END
            elif curvature.negative:
                notes[k] = NO_OPTIMUM
            elif moves(full, curvature.flat):
                notes[k] = FLAT
    z = float(ndtri(0.5 + 0.5 * level))
    rows = []
    for k, parameter in enumerate(law.parameters):
        error = float(np.sqrt(slopes[k] @ V @ slopes[k]))
        lower, upper = _limits(law, k, values[k], error, float(rho[k]), V, z)
        if notes[k]:
            error, lower, upper = np.nan, np.nan, np.nan
        value = float(values[k]) if judged.structure[k] else np.nan
        rows.append((parameter.name, value, error, lower, upper))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs["notes"] = {law.names[k]: text for k, text in enumerate(notes) if text}
    if law.places.labels:
        table.attrs["visits"] = dict(enumerate(law.places.labels, 1))
    return table


def _limits(
    law: ResidualLaw, k: int, value: float, error: float, omega: float, V: Matrix, z: float
) -> tuple[float, float]:
    if law.parameters[k].link == "working":
        half = z * float(np.sqrt(V[k, k]))
        if not np.isfinite(half):
            return np.nan, np.nan
        ends = law.from_working(k, omega - half), law.from_working(k, omega + half)
        return min(ends), max(ends)
    centre, half = float(np.arctanh(value)), z * error / (1.0 - value**2)
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def structure_words(fit: FittedModel) -> list[tuple[str, str]]:
    """Return the structure in words: (what, words) for correlation and variance."""
    state, whitened = fit.matrices.residuals, fit.system.whitened
    if state is None or whitened is None:
        return []
    law, out = whitened.law, []
    if state.correlation is not None:
        correlation = state.correlation
        names = ":".join(correlation.columns("group"))
        count = law.sizes.size
        text = correlation.words
        if names:
            text += f" within {count} groups of {names} (up to {int(law.sizes.max())} rows)"
        place = correlation.columns(correlation.place_argument)
        if place:
            text += f", by {', '.join(place)}"
        if correlation.columns("by"):
            text += f"; parameters of each level of {':'.join(correlation.columns('by'))}"
        out.append(("Correlation", text))
        if len(law.places.labels) and any("," in name for name in law.names):
            visits = ", ".join(f"{i} = {label}" for i, label in enumerate(law.places.labels, 1))
            out.append(("Visits", visits))
    if state.variance is not None:
        variance = state.variance
        text = f"{variance.words} {', '.join(variance.columns)}"
        if whitened.law.values.levels:
            text += f"; sigma is that of {whitened.law.values.levels[0]}"
        out.append(("Variance", text))
    return out
