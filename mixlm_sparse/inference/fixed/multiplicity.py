"""Adjustment of p-values and intervals of several comparisons."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.fixed.tests import t_quantile

ADJUSTMENTS = ("tukey", "holm", "bonferroni", "none")
TUKEY_MAX_DF = 1e5  # beyond it the studentized range is that of infinite df


def adjusted_p(statistic: Vector, df: Vector, p: Vector, adjust: str, means: int) -> Vector:
    """Adjust the p-values (k,) of all pairs of `means` means."""
    known = ~np.isnan(p)
    out = np.array(p, dtype=np.float64)
    count = int(known.sum())
    if adjust == "none" or count == 0:
        return out
    if adjust == "bonferroni":
        out[known] = np.minimum(1.0, count * p[known])
    elif adjust == "holm":
        order = np.flatnonzero(known)[np.argsort(p[known], kind="stable")]
        factors = np.arange(count, 0, -1)
        out[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    elif means > 2:  # two means are one comparison
        from scipy.stats import studentized_range  # slow to load, and seldom needed

        q = np.sqrt(2.0) * np.abs(statistic[known])
        out[known] = studentized_range.sf(q, means, np.minimum(df[known], TUKEY_MAX_DF))
        # the integral can fall short of the single test by rounding
        out[known] = np.clip(out[known], p[known], 1.0)
    return out


def critical_value(level: float, df: Vector, adjust: str, means: int, pairs: int) -> Vector:
    """Return half widths of simultaneous intervals in standard errors, (k,)."""
    df = np.where(np.isnan(df), np.inf, df)
    if adjust == "none" or (adjust == "tukey" and means == 2):
        return t_quantile(level, df)
    if adjust in ("bonferroni", "holm"):
        return t_quantile(1.0 - (1.0 - level) / pairs, df)
    from scipy.stats import studentized_range  # as above

    distinct, place = np.unique(np.minimum(df, TUKEY_MAX_DF).round(6), return_inverse=True)
    quantiles = np.array([studentized_range.ppf(level, means, d) for d in distinct])
    out: Vector = quantiles[place] / np.sqrt(2.0)
    return out
