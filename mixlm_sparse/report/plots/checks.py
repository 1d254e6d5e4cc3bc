"""Residuals, normal quantiles, correlation within groups, influence, the path of the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import IntVector, Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.data import (
    choose,
    effects_of,
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
QUANTILES_DRAWN = 2_000  # points of a normal quantile plot; of more, the outer ones and a spread


def scaled(fit: FittedModel) -> Vector:
    """Return residuals divided by their standard deviation, sqrt(w) (y - mu) / sigma."""
    if fit.perfect or fit.sigma == 0.0:
        raise OptionError("the model fits perfectly: there are no residuals to draw")
    return fit.scaled_residuals_used


@styled
def residuals(fit: FittedModel, *, smooth: bool = True, ax: Axes | None = None) -> Figure:
    """Draw scaled residuals against fitted values; counts in hexagons where they are many.

    Parameters
    ----------
    smooth : add a local regression, which should stay near zero.
    ax : where to draw.
    """
    figure, one = canvas.panel(ax, 5.4, 3.8)
    x, y = fit.fitted_used, scaled(fit)
    marks.points(one, x, y)
    one.axhline(0.0, color=ink().front, lw=0.9)
    if smooth and x.size > 5:
        one.plot(*marks.trend(x, y), color=ink().orange, lw=1.6)
    one.set_xlabel("fitted value")
    one.set_ylabel("scaled residual")
    return figure


@styled
def scale_location(fit: FittedModel, *, ax: Axes | None = None) -> Figure:
    """Draw the square root of the size of the scaled residuals against fitted values.

    The curve is a local regression; level if the residual variance does not depend on the mean.

    Parameters
    ----------
    ax : where to draw.
    """
    figure, one = canvas.panel(ax, 5.4, 3.8)
    x, y = fit.fitted_used, np.sqrt(np.abs(scaled(fit)))
    marks.points(one, x, y)
    if x.size > 5:
        one.plot(*marks.trend(x, y), color=ink().orange, lw=1.6)
    one.set_ylim(bottom=0.0)
    one.set_xlabel("fitted value")
    one.set_ylabel("√|scaled residual|")
    return figure


def _normal_quantiles(ax: Axes, sample: Vector, level: float) -> None:
    """Draw a sample in standard units against normal quantiles, with a pointwise envelope.

    The i-th of n uniform order statistics has the distribution Beta(i, n + 1 - i), which makes the
    envelope exact for independent values; no simulation is needed.
    """
    ordered = np.sort(sample)
    n = ordered.size
    i = np.arange(1, n + 1, dtype=float)
    if n > QUANTILES_DRAWN:
        edge = QUANTILES_DRAWN // 4
        inner = np.linspace(edge, n - 1 - edge, 2 * edge).round().astype(int)
        kept = np.unique(np.concatenate([np.arange(edge), inner, np.arange(n - edge, n)]))
        ordered, i = ordered[kept], i[kept]
    expected = ndtri((i - 0.5) / n)
    tail = 0.5 * (1.0 - level)
    low, high = (ndtri(betaincinv(i, n + 1 - i, share)) for share in (tail, 1.0 - tail))
    ax.fill_between(expected, low, high, color=ink().blue, alpha=0.15 * ink().veil, linewidth=0,
                    label=f"{percent(level)} pointwise")  # fmt: skip
    ax.plot(expected, expected, color=ink().front, lw=0.9)
    outside = (ordered < low) | (ordered > high)
    for mask, color in ((~outside, ink().blue), (outside, ink().orange)):
        ax.scatter(expected[mask], ordered[mask], s=max(marks.marker_size(n), 4.0), color=color,
                   linewidths=0, zorder=3, rasterized=n > 1500)  # fmt: skip
    ax.set_xlabel(f"normal quantile (orange: outside of\nthe {percent(level)} pointwise band)")


@styled
def qq(fit: FittedModel, *, level: float = 0.95, ax: Axes | None = None) -> Figure:
    """Draw the quantiles of the scaled residuals against normal ones, with an envelope.

    Parameters
    ----------
    level : of the envelope, one point at a time; points outside are orange.
    ax : where to draw.
    """
    z_value(level)
    figure, one = canvas.panel(ax, 4.4, 4.0)
    _normal_quantiles(one, scaled(fit), level)
    one.set_ylabel("scaled residual")
    return figure


@styled
def qq_random(
    fit: FittedModel,
    group: str | None = None,
    effect: str | None = None,
    *,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Figure:
    """Draw the quantiles of the random effects against normal ones, with an envelope.

    Each effect is divided by the standard deviation that it has over repeated data,
    sqrt(Var(b) - Var(b | y)): predictions of small groups are shrunken more.

    Parameters
    ----------
    group : grouping factor; by default the first.
    effect : one effect, by default a panel for each.
    level : of the envelope, one point at a time; points outside are orange.
    ax : one panel to draw in; needs `effect` if there are several.
    """
    z_value(level)
    effects = effects_of(fit, group)
    chosen = choose(effects.names, effect, "effect")
    canvas.one_panel_only(ax, len(chosen), "effect", effects.names)
    if ax is None:
        figure, axes = canvas.panels(len(chosen), columns=3, size=(3.6, 3.5))
    else:
        figure, only = canvas.panel(ax)
        axes = [only]
    for k, one in zip(chosen, axes, strict=True):
        sd = effects.marginal_sd[:, k]
        one.set_title(f"{effects.label}: {effects.names[k]}")
        one.set_ylabel("standardized random effect")
        if not (sd > 1e-8 * max(fit.sigma, 1e-300)).all():
            one.text(0.5, 0.5, "the variance is estimated as zero", ha="center",
                     transform=one.transAxes, color=ink().grey)  # fmt: skip
            continue
        _normal_quantiles(one, effects.values[:, k] / sd, level)
    return figure


@styled
def diagnostics(fit: FittedModel, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw four panels: residuals, scale and location, quantiles of residuals and of one effect.

    A model without random effects has three.

    Parameters
    ----------
    axes : four axes to draw in, as `plt.subplots(2, 2)[1]`.
    """
    count = 4 if fit.matrices.terms else 3
    if axes is None:
        figure, places = canvas.panels(count, columns=2, size=(4.3, 3.4))
    else:
        places = list(np.asarray(axes, dtype=object).ravel())
        if len(places) not in (count, 4):
            raise OptionError(f"axes has {len(places)} panels: give four, as plt.subplots(2, 2)")
        figure = canvas.panel(places[0])[0]
    titles = ("residuals", "scale and location", "residuals, normal")
    for draw, title, one in zip((residuals, scale_location, qq), titles, places, strict=False):
        draw(fit, ax=one)
        one.set_title(title)
    if count == 4:
        qq_random(fit, effect=effects_of(fit, None).names[0], ax=places[3])
    return figure


# ---------------------------------------------------------------------------------------------
# Correlation within groups
# ---------------------------------------------------------------------------------------------


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
