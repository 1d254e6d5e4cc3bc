"""Intervals from bootstrap samples of one statistic."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from mixlm_sparse.common.types import Vector

__all__ = ["TYPES", "interval"]

TYPES = ("percentile", "basic", "normal", "bca")


def interval(
    samples: Vector, estimate: float, level: float, kind: str, left_out: Vector | None = None
) -> tuple[float, float]:
    """Return the limits of one statistic.

    Parameters
    ----------
    samples : (r,) bootstrap values; NaN counts as missing.
    estimate : the value of the fit.
    kind : "percentile", "basic", "normal" or "bca".
    left_out : (groups,) values with one group left out, for "bca".

    Returns
    -------
    lower, upper : NaN if there are no two samples.
    """
    values = samples[np.isfinite(samples)]
    if values.size < 2:
        return float("nan"), float("nan")
    tail = 0.5 * (1.0 - level)
    if kind == "normal":
        half = float(ndtri(1.0 - tail)) * float(values.std(ddof=1))
        centre = 2.0 * estimate - float(values.mean())
        return centre - half, centre + half
    if kind == "bca":
        assert left_out is not None
        tails = _bca_tails(values, estimate, tail, left_out)
    else:
        tails = tail, 1.0 - tail
    # the (r + 1) p-th value in order, as the theory of the bootstrap has it
    lower, upper = (float(v) for v in np.quantile(values, tails, method="weibull"))
    if kind == "basic":
        return 2.0 * estimate - upper, 2.0 * estimate - lower
    return lower, upper


def _bca_tails(
    values: Vector, estimate: float, tail: float, left_out: Vector
) -> tuple[float, float]:
    below = (np.sum(values < estimate) + 0.5 * np.sum(values == estimate)) / values.size
    # a statistic at the end of its samples has no finite correction
    bias = float(ndtri(np.clip(below, 0.5 / values.size, 1.0 - 0.5 / values.size)))
    jack = left_out[np.isfinite(left_out)]
    centred = jack.mean() - jack if jack.size else np.zeros(1)
    size = float((centred**2).sum())
    acceleration = float((centred**3).sum()) / (6.0 * size**1.5) if size > 0.0 else 0.0

    def moved(p: float) -> float:
        z = bias + float(ndtri(p))
        return float(ndtr(bias + z / (1.0 - acceleration * z)))

    return moved(tail), moved(1.0 - tail)
