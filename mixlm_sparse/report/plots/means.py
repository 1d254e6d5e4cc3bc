"""Marginal means and slopes with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import as_written, percent, shorten_all
from mixlm_sparse.inference.means.marginal_means import MarginalMeans
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import DASHES, MARKERS, styled
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure


@answers_unknown_keywords
@styled
def marginal_means(means: MarginalMeans, *, ax: Axes | None = None) -> Figure:
    """Draw marginal means or slopes with their intervals, families side by side.

    Parameters
    ----------
    means : from `fit.emmeans()` or `fit.emtrends()`.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> figure = fit.emmeans("recipe").plot()
    >>> figure.axes[0].get_xlabel()
    'marginal mean, 95% interval'
    """
    table = means.to_frame()
    shown = str(table.columns[means.cells.shape[1]])  # emmean, x.trend, response, ratio, ...
    rows = [name for name in means.cells.columns if name not in means.by]
    labels = [" ".join(map(as_written, row)) for row in table[rows].to_numpy(dtype=object)]
    families = [", ".join(map(as_written, row)) for row in table[list(means.by)].to_numpy(object)]
    places = {label: float(i) for i, label in enumerate(dict.fromkeys(labels))}
    kinds = list(dict.fromkeys(families))
    figure, one = canvas.panel(ax, 5.6, canvas.tall(len(places), each=0.2 + 0.14 * len(kinds)))
    for k, family in enumerate(kinds):
        mine = [i for i, other in enumerate(families) if other == family]
        shift = 0.0 if len(kinds) == 1 else 0.6 * (0.5 - (k + 0.5) / len(kinds))
        y = len(places) - 1.0 - np.array([places[labels[i]] for i in mine]) + shift
        middle, low, high = table.iloc[mine][[shown, "lower", "upper"]].to_numpy(float).T
        color = ink().series(k)
        marks.segments(one, np.column_stack([low, y]), np.column_stack([high, y]), color=color,
                       width=1.5)  # fmt: skip
        one.scatter(middle, y, s=26, color=color, marker=MARKERS[k % len(MARKERS)], zorder=3,
                    label=family or None)  # fmt: skip
    one.set_ylim(-0.6, len(places) - 0.4)
    canvas.label_levels(one, len(places) - 1.0 - np.array(list(places.values())), list(places))
    if means.method and means.method != "identity":  # no difference
        one.axvline(1.0 if shown == "ratio" else 0.0, color=ink().front, lw=0.9, zorder=0.9)
    what = "marginal mean" if shown == "emmean" else shown
    one.set_xlabel(f"{what}, {percent(means.level)} interval")
    canvas.legend(one, title=", ".join(means.by) or None)
    return figure


@answers_unknown_keywords
@styled
def interaction(
    means: MarginalMeans,
    x: str | None = None,
    trace: str | None = None,
    *,
    intervals: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Draw marginal means over one predictor, joined for each level of another (R's `emmip`).

    Parallel lines are no interaction.  Further predictors of the table have a panel for each of
    their levels.

    Parameters
    ----------
    means : from `fit.emmeans(["arm", "visit"])`.
    x : predictor on the horizontal axis; by default the one that separates families, or the last.
    trace : predictor with a line for each level; by default the first of the others.
    intervals : draw them.
    ax : one panel to draw in; needs a table of two predictors, or one.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> figure = fit.emmeans(["recipe", "temperature"]).plot.interaction()
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('temperature', 'marginal mean, 95% interval')
    """
    if means.method:
        raise OptionError("lines join means, and these are contrasts: draw the means before them")
    names = list(map(str, means.cells.columns))
    if not names:
        raise OptionError("there is one mean only: name predictors in emmeans")
    usual = means.by[0] if means.by else names[-1]
    x = usual if x is None else _one_of(names, "x", x)
    others = [name for name in names if name != x]
    if trace is not None:
        trace = _one_of(others, "trace", trace)
    elif others:
        trace = others[0]
    rest = [name for name in others if name != trace]
    table = means.to_frame()
    keys = [tuple(row) for row in table[rest].to_numpy(dtype=object)]
    kinds = list(dict.fromkeys(keys))
    canvas.one_panel_only(ax, len(kinds), "at", [f"{name}=" for name in rest] or ["one value"])
    if ax is None:
        wide = 4.0 if len(kinds) > 1 else 6.2 if trace else 5.2
        figure, axes = canvas.panels(len(kinds), columns=3, size=(wide, 3.6), sharey=True)
    else:
        figure, only = canvas.panel(ax)
        axes = [only]
    for kind, one in zip(kinds, axes, strict=True):
        mine = table[[key == kind for key in keys]]
        _lines(one, mine, str(table.columns[len(names)]), x, trace, intervals)
        if rest:
            said = zip(rest, map(as_written, kind), strict=True)
            one.set_title(", ".join(f"{name} {value}" for name, value in said))
    what = "marginal mean" if means.what == "emmean" else str(table.columns[len(names)])
    axes[0].set_ylabel(f"{what}, {percent(means.level)} interval" if intervals else what)
    canvas.legend(axes[-1], title=trace)
    return figure


def _one_of(names: list[str], argument: str, name: str) -> str:
    if name not in names:
        raise OptionError(
            f"{argument} is {name!r}: use one of {', '.join(map(repr, names)) or 'no other'}"
        )
    return name


def _lines(
    ax: Axes, table: pd.DataFrame, shown: str, x: str, trace: str | None, intervals: bool
) -> None:
    """Draw the means of one panel, those of a level of `trace` joined."""
    values = list(dict.fromkeys(table[x]))
    number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    place = {value: float(value) if number else float(i) for i, value in enumerate(values)}
    levels = [None] if trace is None else list(dict.fromkeys(table[trace]))
    step = 0.0 if number else 0.35 / max(len(levels), 1)
    for k, level in enumerate(levels):
        mine = table if trace is None else table[table[trace] == level]
        at = np.array([place[value] for value in mine[x]]) + step * (k - 0.5 * (len(levels) - 1))
        middle, low, high = mine[[shown, "lower", "upper"]].to_numpy(float).T
        color = ink().series(k)
        if intervals:
            marks.segments(ax, np.column_stack([at, low]), np.column_stack([at, high]),
                           color=color, width=1.3)  # fmt: skip
        ax.plot(at, middle, color=color, ls=DASHES[k % len(DASHES)], lw=1.3, zorder=3,
                marker=MARKERS[k % len(MARKERS)], ms=5.0,
                label=None if level is None else as_written(level))  # fmt: skip
    if not number:
        ax.set_xticks(list(place.values()), shorten_all([as_written(v) for v in values], 16))
        ax.set_xlim(-0.5, len(values) - 0.5)
    ax.set_xlabel(x)
