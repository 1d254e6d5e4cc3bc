"""Residuals, normal quantiles, correlation within groups, influence, the path of the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv, ndtri

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.data import (
    choose,
    effects_of,
    z_value,
)
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

QUANTILES_DRAWN = 2_000  # points of a normal quantile plot; of more, the outer ones and a spread


def scaled(fit: FittedModel) -> Vector:
    """Return residuals divided by their standard deviation, sqrt(w) (y - mu) / sigma."""
    if fit.perfect or fit.sigma == 0.0:
        raise OptionError("the model fits perfectly: there are no residuals to draw")
    return fit.scaled_residuals_used


@answers_unknown_keywords
@styled
def residuals(fit: FittedModel, *, smooth: bool = True, ax: Axes | None = None) -> Figure:
    """Draw scaled residuals against fitted values; counts in hexagons where they are many.

    Parameters
    ----------
    smooth : add a local regression, which should stay near zero.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.residuals()
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('fitted value', 'scaled residual')
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


@answers_unknown_keywords
@styled
def scale_location(fit: FittedModel, *, ax: Axes | None = None) -> Figure:
    """Draw the square root of the size of the scaled residuals against fitted values.

    The curve is a local regression; level if the residual variance does not depend on the mean.

    Parameters
    ----------
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.scale_location()
    >>> figure.axes[0].get_ylabel()
    '√|scaled residual|'
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


@answers_unknown_keywords
@styled
def qq(fit: FittedModel, *, level: float = 0.95, ax: Axes | None = None) -> Figure:
    """Draw the quantiles of the scaled residuals against normal ones, with an envelope.

    Parameters
    ----------
    level : of the envelope, one point at a time; points outside are orange.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.qq()
    >>> figure.axes[0].get_ylabel()
    'scaled residual'
    """
    z_value(level)
    figure, one = canvas.panel(ax, 4.4, 4.0)
    _normal_quantiles(one, scaled(fit), level)
    one.set_ylabel("scaled residual")
    return figure


@answers_unknown_keywords
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

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.qq_random("Subject")
    >>> [ax.get_title() for ax in figure.axes]
    ['Subject: (Intercept)', 'Subject: Days']
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


@answers_unknown_keywords
@styled
def diagnostics(fit: FittedModel, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw four panels: residuals, scale and location, quantiles of residuals and of one effect.

    A model without random effects has three.

    Parameters
    ----------
    axes : four axes to draw in, as `plt.subplots(2, 2)[1]`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.diagnostics()
    >>> len(figure.axes)
    4
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
