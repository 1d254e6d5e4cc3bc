"""Residuals within groups: autocorrelation and semivariogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import IntVector, Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.checks import scaled
from mixlm_sparse.report.plots.data import (
    factor_index,
    innermost,
    numbers,
    z_value,
)
from mixlm_sparse.report.plots.inks import ink
from mixlm_sparse.report.plots.whitened import acf_before_and_after, variograms

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

MAX_PAIRS = 2_000_000  # pairs of rows from which a semivariogram is formed; more are sampled


def _runs(
    fit: FittedModel, group: str | None, time: Any
) -> tuple[str, str, NDArray[np.intp], IntVector, Vector]:
    """Return label, name of time, rows ordered by group and time, and their groups and times."""
    g = innermost(fit) if group is None else factor_index(fit, group)
    factor = fit.matrices.factors[g]
    if time is None:
        name, values = "order of rows", np.arange(fit.nobs, dtype=float)
    else:
        name, values = numbers(fit, time, "time")
    order = np.lexsort((values, factor.codes))
    return factor.label, name, order, factor.codes[order], values[order]


@answers_unknown_keywords
@styled
def autocorrelation(
    fit: FittedModel,
    group: str | None = None,
    time: Any = None,
    *,
    max_lag: int | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Figure:
    """Draw the correlation of residuals of one group that are 1, 2, ... rows apart.

        rho(l) = mean(r_j r_{j+l}) / mean(r_j^2)

    over all pairs l steps apart within groups, with limits for independent residuals.  Residuals
    around predicted random effects are slightly negatively correlated by construction.  With a
    residual structure its groups and times are taken, and the correlation is drawn before and after
    whitening.

    Parameters
    ----------
    group : grouping factor; by default that with the most levels.
    time : column or array by which the rows of a group are ordered; by default their order.
    max_lag : largest distance; by default what ten groups or a tenth of the pairs still have.
    level : of the limits.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("height ~ age + (age | Subject)", mx.datasets.load("Oxboys"))
    >>> figure = fit.plot.autocorrelation(time="age")
    >>> figure.axes[0].get_ylabel()
    'correlation of residuals'
    """
    z = z_value(level)
    figure, one = canvas.panel(ax, 5.4, 3.6)
    if group is None and fit.matrices.law is not None and fit.matrices.law.correlated:
        return acf_before_and_after(fit, figure, one, time, max_lag, level)
    label, name, order, codes, _ = _runs(fit, group, time)
    r = scaled(fit)[order]
    lags, rho, count = _autocorrelations(r, codes, max_lag)
    one.vlines(lags, 0.0, rho, color=ink().blue, lw=1.6)
    one.scatter(lags, rho, s=20, color=ink().blue, zorder=3)
    limit = z / np.sqrt(count[1:])
    for sign in (-1.0, 1.0):
        one.plot(lags[1:], sign * limit, color=ink().orange, ls="--", lw=1.1)
    one.axhline(0.0, color=ink().front, lw=0.9)
    one.locator_params(axis="x", integer=True)
    one.set_xlabel(f"lag within {label} ({name})")
    one.set_ylabel("correlation of residuals")
    one.set_title(f"dashes: {percent(level)} limits for independent residuals")
    return figure


def _autocorrelations(
    r: Vector, codes: IntVector, max_lag: int | None
) -> tuple[NDArray[np.intp], Vector, Vector]:
    """Return lags from 0, correlations and numbers of pairs."""
    longest = int(np.bincount(codes).max()) - 1
    if longest < 1:
        raise OptionError("no group has two rows: there is no correlation within groups to draw")
    products, counts = [float(r @ r) / r.size], [float(r.size)]
    for lag in range(1, min(longest, max_lag or 20) + 1):
        same = codes[lag:] == codes[:-lag]
        n = int(same.sum())
        if max_lag is None and lag > 1 and n < 0.05 * counts[1]:
            break
        products.append(float((r[lag:] * r[:-lag])[same].sum()) / n)
        counts.append(float(n))
    return np.arange(len(counts)), np.array(products) / products[0], np.array(counts)


@answers_unknown_keywords
@styled
def semivariogram(
    fit: FittedModel,
    group: str | None = None,
    time: Any = None,
    *,
    bins: int = 15,
    ax: Axes | None = None,
) -> Figure:
    """Draw half the mean squared difference of two residuals of a group against their distance.

    Residuals are in units of their standard deviation, so that independent ones lie at 1 (a little
    more or less, for predicted random effects take up part of them).  The area of a point is the
    number of its pairs.

    Parameters
    ----------
    group : grouping factor; by default that with the most levels.
    time : column or array that gives positions; by default the order of the rows in their group.
    bins : number of distances; pairs are parted evenly between them.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("height ~ age + (age | Subject)", mx.datasets.load("Oxboys"))
    >>> figure = fit.plot.semivariogram(time="age")
    >>> figure.axes[0].get_ylabel()
    'semivariogram'
    """
    figure, one = canvas.panel(ax, 5.4, 3.6)
    if group is None and fit.matrices.law is not None and fit.matrices.law.correlated:
        return variograms(fit, figure, one, time, bins)
    label, name, order, codes, values = _runs(fit, group, time)
    if time is None:
        counts = np.bincount(codes)
        values = (np.arange(codes.size) - (np.cumsum(counts) - counts)[codes]).astype(float)
    first, second, sampled = _pairs_within(codes)
    if not first.size:
        raise OptionError("no group has two rows: there is no semivariogram to draw")
    r = scaled(fit)[order]
    distance = np.abs(values[first] - values[second])
    half_square = 0.5 * (r[first] - r[second]) ** 2
    at, mean, count = _binned(distance, half_square, bins)
    one.axhline(1.0, color=ink().front, lw=0.9)
    one.plot(at, mean, color=ink().pale, lw=1.0, zorder=1)
    one.scatter(at, mean, s=15.0 + 60.0 * count / count.max(), color=ink().blue, zorder=3)
    one.set_ylim(0.0, max(1.15, 1.1 * float(mean.max())))
    one.set_xlabel(f"distance within {label} ({name})")
    one.set_ylabel("semivariogram")
    if sampled:
        one.set_title(f"from a sample of {first.size:,} pairs", fontsize=8, color=ink().grey)
    return figure


def _pairs_within(codes: IntVector) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Return the positions of all pairs within groups of ordered codes, or of a sample of them."""
    counts = np.bincount(codes).astype(np.int64)
    starts = np.cumsum(counts) - counts
    total = counts * (counts - 1) // 2
    if int(total.sum()) > MAX_PAIRS:
        # a group has its share of all pairs; within it, two different rows at random
        rng = np.random.default_rng(0)
        picked = rng.choice(counts.size, size=MAX_PAIRS, p=total / total.sum())
        size = counts[picked]
        a = rng.integers(0, size)
        b = (a + rng.integers(1, size)) % size
        return starts[picked] + a, starts[picked] + b, True
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for size in np.unique(counts[counts > 1]).tolist():
        a, b = np.triu_indices(size, 1)
        begin = starts[counts == size][:, None]
        first.append((begin + a).ravel())
        second.append((begin + b).ravel())
    return np.concatenate(first), np.concatenate(second), False


def _binned(x: Vector, y: Vector, bins: int) -> tuple[Vector, Vector, Vector]:
    """Average y within bins of x that hold about equally many values; few distinct x stay apart."""
    distinct = np.unique(x)
    if distinct.size <= bins:
        place = np.searchsorted(distinct, x)
        size = distinct.size
    else:
        edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, bins + 1)))
        place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, edges.size - 2)
        size = edges.size - 1
    count = np.bincount(place, minlength=size).astype(float)
    filled = count > 0
    mean_x = np.bincount(place, x, size)[filled] / count[filled]
    mean_y = np.bincount(place, y, size)[filled] / count[filled]
    return mean_x, mean_y, count[filled]
