"""Random effects: ranked with intervals, shrinkage, against a variable of the group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent, shorten
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.data import (
    Covariate,
    choose,
    effects_of,
    factor_index,
    group_covariate,
    z_value,
)
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure



def ranked_intervals(
    ax: Axes,
    labels: Sequence[str],
    middle: Vector,
    half: Vector,
    reference: float | None,
    *,
    highlight: Sequence[str] = (),
) -> None:
    """Draw one horizontal interval for each row, from bottom to top; those off `reference` in blue.

    Parameters
    ----------
    half : (n,) half lengths.
    highlight : labels drawn in orange and always named.
    """
    n = len(labels)
    y = np.arange(n, dtype=float)
    picked = np.isin(np.asarray(labels, dtype=object), np.asarray(list(highlight), dtype=object))
    away = np.zeros(n, dtype=bool) if reference is None else np.abs(middle - reference) > half
    many = n > marks.MANY_LEVELS
    width = float(np.clip(90.0 / n, 0.25, 1.3))
    for mask, color, front in (
        (~away & ~picked, ink().grey if reference is not None else ink().blue, 1),
        (away & ~picked, ink().blue, 2),
        (picked, ink().orange, 3),
    ):
        if not mask.any():
            continue
        thick = max(width, 1.2) if front == 3 else width
        marks.segments(
            ax,
            np.column_stack([middle[mask] - half[mask], y[mask]]),
            np.column_stack([middle[mask] + half[mask], y[mask]]),
            color=color, width=thick, zorder=front, alpha=0.55 if many and front < 3 else 1.0,
            rasterized=n > 1500,
        )  # fmt: skip
        size = 18.0 if front == 3 else float(np.clip(1100.0 / n, 1.2, 16.0))
        ax.scatter(
            middle[mask], y[mask], s=size, color=color, linewidths=0, zorder=front + 3,
            rasterized=n > 1500,
        )  # fmt: skip
    if reference is not None:
        ax.axvline(reference, color=ink().front, lw=0.9, zorder=0.9)
    if canvas.label_levels(ax, y, labels) < n and picked.any():
        _name_picked(ax, labels, picked)
    ax.set_ylim(-0.02 * n - 0.6, n - 1 + 0.02 * n + 0.6)
    if n > marks.MANY_LEVELS:
        ax.grid(visible=False, axis="y")


def _name_picked(ax: Axes, labels: Sequence[str], picked: NDArray[np.bool_]) -> None:
    """Write the names of highlighted rows at the right edge, apart from the thinned labels."""
    at = np.flatnonzero(picked)
    gap = len(labels) / 45.0
    place = at.astype(float)
    for i in range(1, at.size):
        place[i] = max(place[i], place[i - 1] + gap)
    for row, height in zip(at.tolist(), place.tolist(), strict=True):
        ax.annotate(
            shorten(labels[row], canvas.LABEL_WIDTH), (1.0, height),
            xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize=7, color=ink().orange,
            annotation_clip=False,
        )  # fmt: skip


@answers_unknown_keywords
@styled
def caterpillar(
    fit: FittedModel,
    group: str | None = None,
    effect: str | None = None,
    *,
    level: float = 0.95,
    order: str | None = "value",
    add_fixed: bool = False,
    highlight: Sequence[str] = (),
    ax: Axes | None = None,
) -> Figure:
    """Draw the random effects of a grouping factor with their intervals, ranked.

    Intervals that leave out zero (the fixed effect, with `add_fixed`) are blue.  They are
    conditional on the variance components, one at a time: those of two groups may overlap although
    the groups differ.

    Parameters
    ----------
    group : grouping factor; by default the first.
    effect : one effect, by default a panel for each.
    level : coverage of the intervals.
    order : "value" ranks each panel by its own effect, the name of an effect ranks all panels by
        that one, None keeps the order of the levels.
    add_fixed : add the fixed effect of the same name, so that the scale is that of the response.
    highlight : levels to be drawn in orange and named.
    ax : one panel to draw in; needs `effect` if there are several.

    Returns
    -------
    The figure.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.caterpillar()
    >>> [ax.get_title() for ax in figure.axes]
    ['(Intercept)', 'Days']
    """
    z = z_value(level)
    effects = effects_of(fit, group)
    chosen = choose(effects.names, effect, "effect")
    canvas.one_panel_only(ax, len(chosen), "effect", effects.names)
    unknown = [str(name) for name in highlight if str(name) not in set(effects.levels)]
    if unknown:
        raise OptionError(f"highlight: {effects.label} has no level {unknown[0]!r}: check its name")
    n = len(effects.levels)
    height = canvas.tall(n)
    if ax is None:
        width = 4.6 if len(chosen) == 1 else 3.4
        width += canvas.label_room(effects.levels)
        width += canvas.label_room([str(name) for name in highlight])
        figure, axes = canvas.panels(len(chosen), columns=4, size=(width, height))
    else:
        figure, only = canvas.panel(ax)
        axes = [only]
    fixed = fit.fixef
    for place, (k, one) in enumerate(zip(chosen, axes, strict=True)):
        name = effects.names[k]
        rank = _ranks(effects.names, effects.values, order, k)
        shift = float(fixed.get(name, 0.0)) if add_fixed else 0.0
        ranked_intervals(
            one, [effects.levels[i] for i in rank], effects.values[rank, k] + shift,
            z * effects.sd[rank, k], shift, highlight=[str(h) for h in highlight],
        )  # fmt: skip
        one.set_title(name)
        what = "fixed + random effect" if add_fixed else "random effect"
        one.set_xlabel(f"{what}, {percent(level)} interval")
        if place == 0 or ax is not None:
            note = "" if len(one.get_yticks()) == n else f" ({n} levels, some are named)"
            one.set_ylabel(effects.label + note)
    return figure


def _ranks(names: list[str], values: Any, order: str | None, k: int) -> NDArray[np.intp]:
    if order is None:
        return np.arange(len(values))[::-1]  # the first level on top
    if order != "value":
        k = choose([*names], order, "order")[0]
    out: NDArray[np.intp] = np.argsort(values[:, k], kind="stable")
    return out


@answers_unknown_keywords
def ranked_intercepts(
    fit: FittedModel,
    group: str | None = None,
    *,
    level: float = 0.95,
    highlight: Sequence[str] = (),
    ax: Axes | None = None,
) -> Figure:
    """Draw the intercept of each group, fixed plus random, ranked and with intervals.

    Parameters
    ----------
    group : grouping factor; by default the first.
    level : coverage of the intervals, which are conditional on the fixed effects.
    highlight : levels to be drawn in orange and named.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.ranked_intercepts(highlight=["308"])
    >>> figure.axes[0].get_xlabel()
    'fixed + random effect, 95% interval'
    """
    return caterpillar(
        fit, group, "(Intercept)", level=level, add_fixed=True, highlight=highlight, ax=ax
    )


@answers_unknown_keywords
@styled
def effects_by(
    fit: FittedModel,
    by: Any,
    group: str | None = None,
    effect: str | None = None,
    *,
    add_fixed: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Draw random effects against a variable of the group: boxplots, or points for a number.

    Parameters
    ----------
    by : name of a column, an array with one value for each row, or one for each group.  A number
        that varies within groups is averaged: effects against group means.
    group : grouping factor; by default the first.
    effect : one effect, by default a panel for each.
    add_fixed : add the fixed effect of the same name.
    ax : one panel to draw in; needs `effect` if there are several.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("mathach ~ cses + (1 | school)", mx.datasets.load("HSB"))
    >>> figure = fit.plot.effects_by("sector")
    >>> figure.axes[0].get_xlabel()
    'sector'
    """
    effects = effects_of(fit, group)
    chosen = choose(effects.names, effect, "effect")
    canvas.one_panel_only(ax, len(chosen), "effect", effects.names)
    codes = fit.matrices.factors[factor_index(fit, group)].codes
    covariate = group_covariate(fit, by, codes, effects.levels, effects.label)
    if ax is None:
        width = 3.6 if covariate.labels is None else max(3.0, 0.9 + 0.75 * len(covariate.labels))
        figure, axes = canvas.panels(len(chosen), columns=3, size=(width, 3.4))
    else:
        figure, only = canvas.panel(ax)
        axes = [only]
    for k, one in zip(chosen, axes, strict=True):
        shift = float(fit.fixef.get(effects.names[k], 0.0)) if add_fixed else 0.0
        against_covariate(one, effects.values[:, k] + shift, covariate)
        if not add_fixed:
            one.axhline(0.0, color=ink().front, lw=0.8, zorder=0.9)
        one.set_title(effects.names[k])
        what = "fixed + random effect" if add_fixed else "random effect"
        one.set_ylabel(f"{what} of {effects.label}")
    return figure


def against_covariate(ax: Axes, values: Vector, covariate: Covariate) -> None:
    """Draw one value per group against a variable of the group; NaN values are left out."""
    known = np.isfinite(values)
    if covariate.labels is None:
        x, y = covariate.values[known], values[known]
        marks.points(ax, x, y)
        marks.least_squares_line(ax, x, y)
    else:
        samples = [values[m][known[m]] for m in covariate.members()]
        marks.boxes(ax, samples, covariate.labels)
    ax.set_xlabel(covariate.name)
