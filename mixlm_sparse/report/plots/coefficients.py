"""Coefficients of separate least-squares fits in each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import stdtrit

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent, shorten_all
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import MARKERS, new_figure, styled
from mixlm_sparse.report.plots.data import (
    Covariate,
    GroupCoefficients,
    SeparateFits,
    choose,
    group_coefficients,
    group_covariate,
    z_value,
)
from mixlm_sparse.report.plots.effects import against_covariate, ranked_intervals
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

Source: TypeAlias = SeparateFits | FittedModel

MANY_ROWS = 15.0  # group sizes with a larger ratio of the largest to the smallest: a log axis


def _prepared(
    source: Source, group: str | None, effect: str | None
) -> tuple[GroupCoefficients, list[int]]:
    """Return the coefficients of all groups, and which of them are asked for."""
    table = group_coefficients(source, group)
    if not table.fitted.size:
        raise OptionError(
            f"no level of '{table.label}' has enough rows for least squares on "
            f"{', '.join(table.names)}: there is nothing to draw"
        )
    return table, choose(table.names, effect, "effect")


def _axes(
    ax: Axes | None, chosen: list[int], table: GroupCoefficients, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    canvas.one_panel_only(ax, len(chosen), "effect", table.names)
    if ax is not None:
        figure, only = canvas.panel(ax)
        return figure, [only]
    return canvas.panels(len(chosen), columns=3, size=size)


def _note(figure: Figure, ax: Axes | None, table: GroupCoefficients) -> None:
    """Say above the figure how many groups are missing."""
    text = table.left_out()
    if text and ax is None:
        figure.suptitle(text, fontsize=8, color=ink().grey)


@answers_unknown_keywords
@styled
def coefficient_histograms(
    source: Source,
    effect: str | None = None,
    *,
    group: str | None = None,
    bins: int | str = "auto",
    ax: Axes | None = None,
) -> Figure:
    """Draw histograms of the least-squares coefficients of each group.

    Parameters
    ----------
    source : from `lm_list`, or a mixed model: then the response is regressed on the columns of the
        random terms in each group.
    effect : one coefficient, by default a panel for each.
    group : grouping factor of a mixed model; by default the first.
    bins : as in numpy.histogram.
    ax : one panel to draw in; needs `effect` if there are several.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("mathach ~ cses | school", mx.datasets.load("HSB"))
    >>> figure = fits.plot.histograms()
    >>> [ax.get_title() for ax in figure.axes]
    ['(Intercept): mean 12.6, sd 3.12', 'cses: mean 2.2, sd 1.63']
    """
    table, chosen = _prepared(source, group, effect)
    figure, axes = _axes(ax, chosen, table, (3.4, 2.8))
    for k, one in zip(chosen, axes, strict=True):
        values = table.estimates[table.fitted, k]
        one.hist(values, bins=bins, color=ink().blue, alpha=0.65, edgecolor=ink().back,
                 linewidth=0.5)  # fmt: skip
        one.axvline(float(values.mean()), color=ink().orange, lw=1.4)
        sd = f", sd {values.std(ddof=1):.3g}" if values.size > 1 else ""
        one.set_title(f"{table.names[k]}: mean {values.mean():.3g}{sd}")
        one.set_xlabel("least-squares coefficient")
        one.set_ylabel(f"levels of {table.label}")
        one.grid(visible=False, axis="x")
    _note(figure, ax, table)
    return figure


@answers_unknown_keywords
@styled
def coefficient_scatter(
    source: Source,
    effects: tuple[str, str] | None = None,
    *,
    by: Any = None,
    group: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw one coefficient of each group against another one.

    Parameters
    ----------
    source : from `lm_list`, or a mixed model.
    effects : names of the two; by default the first two.
    by : variable of the group that gives colour and shape, a column or an array of categories.
    group : grouping factor of a mixed model; by default the first.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("mathach ~ cses | school", mx.datasets.load("HSB"))
    >>> figure = fits.plot.scatter(by="sector")
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('(Intercept), least squares', 'cses, least squares')
    """
    table, _ = _prepared(source, group, None)
    if effects is None and len(table.names) < 2:
        raise OptionError("there is one coefficient only: use coefficient_histograms")
    pair = [choose(table.names, name, "effects")[0] for name in effects or table.names[:2]]
    if len(pair) != 2:
        raise OptionError(f"effects has {len(pair)} names: give two")
    keep = table.fitted
    x, y = table.estimates[keep, pair[0]], table.estimates[keep, pair[1]]
    figure, one = canvas.panel(ax, 5.4 if by is None else 6.4, 4.2)
    one.axvline(float(x.mean()), color=ink().pale, lw=1.0, zorder=0.8)
    one.axhline(float(y.mean()), color=ink().pale, lw=1.0, zorder=0.8)
    if by is None:
        marks.points(one, x, y)
    else:
        covariate = group_covariate(source, by, table.codes, table.levels, table.label)
        if covariate.labels is None:
            drawn = one.scatter(x, y, c=covariate.values[keep], s=marks.marker_size(x.size),
                                cmap=ink().shades, linewidths=0)  # fmt: skip
            bar = figure.colorbar(drawn, ax=one, fraction=0.05, pad=0.02)
            bar.set_label(covariate.name)
        else:
            for code, label in enumerate(shorten_all(covariate.labels, 20)):
                mine = covariate.values[keep] == code
                one.scatter(
                    x[mine], y[mine], s=marks.marker_size(x.size), linewidths=0, alpha=0.75,
                    color=ink().series(code), marker=MARKERS[code % len(MARKERS)],
                    label=label,
                )  # fmt: skip
            canvas.legend(one, title=covariate.name)
    one.set_xlabel(f"{table.names[pair[0]]}, least squares")
    one.set_ylabel(f"{table.names[pair[1]]}, least squares")
    r = float(np.corrcoef(x, y)[0, 1]) if x.size > 2 else float("nan")
    one.set_title(f"{keep.size} levels of {table.label}, correlation {r:.2f}")
    return figure


@answers_unknown_keywords
@styled
def coefficient_by_size(
    source: Source,
    effect: str | None = None,
    *,
    group: str | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Figure:
    """Draw the coefficients of each group against its number of rows.

    The dashed funnel holds `level` of the coefficients of groups that do not differ at all: the
    mean coefficient plus and minus a multiple of the typical standard error at that size.

    Parameters
    ----------
    source : from `lm_list`, or a mixed model.
    effect : one coefficient, by default a panel for each.
    group : grouping factor of a mixed model; by default the first.
    level : of the funnel.
    ax : one panel to draw in; needs `effect` if there are several.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("mathach ~ cses | school", mx.datasets.load("HSB"))
    >>> figure = fits.plot.by_size("(Intercept)")
    >>> figure.axes[0].get_xlabel()
    'rows of school'
    """
    z = z_value(level)
    table, chosen = _prepared(source, group, effect)
    figure, axes = _axes(ax, chosen, table, (3.6, 3.0))
    keep = table.fitted
    size = table.nobs[keep].astype(np.float64)
    for k, one in zip(chosen, axes, strict=True):
        values, se = table.estimates[keep, k], table.se[keep, k]
        marks.points(one, size, values)
        weights = 1.0 / np.maximum(se, 1e-300) ** 2
        precise = np.isfinite(weights).all() and float(weights.sum()) > 0.0
        mean = float(weights @ values / weights.sum()) if precise else float(values.mean())
        one.axhline(mean, color=ink().front, lw=1.0)
        if precise and np.ptp(size) > 0:
            scale = float(np.median(se * np.sqrt(size)))
            at = np.linspace(size.min(), size.max(), 100)
            for sign in (-1.0, 1.0):
                edge = mean + sign * z * scale / np.sqrt(at)
                one.plot(at, edge, color=ink().orange, lw=1.0, ls="--")
        _keep_to(one, values)
        if size.max() > MANY_ROWS * size.min():
            one.set_xscale("log")
        one.set_title(table.names[k])
        one.set_xlabel(f"rows of {table.label}")
        one.set_ylabel("least-squares coefficient")
    _note(figure, ax, table)
    return figure


def _keep_to(ax: Axes, values: Vector) -> None:
    """Let the points, not the guide lines, set the range of y."""
    low, high = float(values.min()), float(values.max())
    edge = 0.08 * (high - low) or 1.0
    ax.set_ylim(low - edge, high + edge)


@answers_unknown_keywords
@styled
def coefficient_intervals(
    source: Source,
    by: Any = None,
    effect: str | None = None,
    *,
    group: str | None = None,
    level: float = 0.95,
    order: str | None = "value",
    ax: Axes | None = None,
) -> Figure:
    """Draw an interval for the coefficients of each group, apart by a variable of the group.

    The intervals use the pooled residual standard deviation.  A line marks the mean of each part;
    intervals that leave it out are blue.

    Parameters
    ----------
    source : from `lm_list`, or a mixed model.
    by : variable of the group: a column or an array of categories gives one row of panels for each,
        a number the vertical axis.
    effect : one coefficient, by default a column of panels for each.
    group : grouping factor of a mixed model; by default the first.
    level : coverage of the intervals.
    order : "value" ranks the groups, None keeps their order.
    ax : one panel to draw in; needs a single effect and no categories.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("distance ~ age | Subject", mx.datasets.load("Orthodont"))
    >>> figure = fits.plot.intervals(effect="age")
    >>> figure.axes[0].get_title()
    'age'
    """
    z_value(level)
    require_one_of("order", order, ("value", None))
    table, chosen = _prepared(source, group, effect)
    keep = table.fitted
    half = float(stdtrit(max(table.df, 1), 0.5 + 0.5 * level)) * table.se
    covariate = None
    if by is not None:
        covariate = group_covariate(source, by, table.codes, table.levels, table.label)
    parts = _parts(keep, covariate)
    canvas.one_panel_only(ax, len(chosen) * len(parts), "effect", table.names)
    if ax is not None:
        figure, only = canvas.panel(ax)
        grid = np.array([[only]], dtype=object)
    else:
        heights = [canvas.tall(members.size, low=1.8, high=7.0) for _, members in parts]
        total = min(sum(heights), 11.0)
        figure = new_figure(
            (3.4 + canvas.label_room(table.levels)) * len(chosen) + 0.4, total
        )
        grid = figure.subplots(
            len(parts), len(chosen), squeeze=False, sharex="col", height_ratios=heights
        )
    for row, (title, members) in enumerate(parts):
        for col, k in enumerate(chosen):
            one: Axes = grid[row, col]
            values = table.estimates[members, k]
            if covariate is not None and covariate.labels is None:
                _intervals_at(one, covariate.values[members], values, half[members, k])
                one.set_ylabel(covariate.name if col == 0 else "")
            else:
                rank = (
                    np.argsort(values, kind="stable")
                    if order == "value"
                    else np.arange(members.size)[::-1]
                )
                ranked_intervals(
                    one, [table.levels[i] for i in members[rank]], values[rank],
                    half[members[rank], k], float(values.mean()),
                )  # fmt: skip
                one.set_ylabel(table.label if col == 0 else "")
            one.set_title("\n".join(filter(None, [table.names[k] if row == 0 else "", title])))
            if row == len(parts) - 1:
                one.set_xlabel(f"least squares, {percent(level)} interval")
    _note(figure, ax, table)
    return figure


def _parts(keep: Any, covariate: Covariate | None) -> list[tuple[str, Any]]:
    """Return title and groups of each row of panels."""
    if covariate is None or covariate.labels is None:
        return [("", keep)]
    parts = [
        (f"{covariate.name}: {label}", np.intersect1d(keep, members))
        for label, members in zip(covariate.labels, covariate.members(), strict=True)
    ]
    return [(name, members) for name, members in parts if members.size]


def _intervals_at(ax: Axes, height: Vector, middle: Vector, half: Vector) -> None:
    n = middle.size
    marks.segments(
        ax, np.column_stack([middle - half, height]), np.column_stack([middle + half, height]),
        color=ink().blue, width=float(np.clip(150.0 / n, 0.3, 1.2)), alpha=0.5,
    )  # fmt: skip
    ax.scatter(middle, height, s=marks.marker_size(n), color=ink().blue, linewidths=0)
    ax.axvline(float(middle.mean()), color=ink().front, lw=0.9)


@answers_unknown_keywords
@styled
def coefficient_by(
    source: Source,
    by: Any,
    effect: str | None = None,
    *,
    group: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the coefficients of each group against a variable of the group.

    Parameters
    ----------
    source : from `lm_list`, or a mixed model.
    by : a column or an array: boxplots for categories, points and a line for a number.  A number
        that varies within groups is averaged: coefficients against group means.
    effect : one coefficient, by default a panel for each.
    group : grouping factor of a mixed model; by default the first.
    ax : one panel to draw in; needs `effect` if there are several.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("mathach ~ cses | school", mx.datasets.load("HSB"))
    >>> figure = fits.plot.by("sector", "cses")
    >>> figure.axes[0].get_xlabel()
    'sector'
    """
    table, chosen = _prepared(source, group, effect)
    covariate = group_covariate(source, by, table.codes, table.levels, table.label)
    wide = 3.6 if covariate.labels is None else max(3.0, 0.9 + 0.75 * len(covariate.labels))
    figure, axes = _axes(ax, chosen, table, (wide, 3.2))
    for k, one in zip(chosen, axes, strict=True):
        against_covariate(one, table.estimates[:, k], covariate)
        one.set_title(table.names[k])
        one.set_ylabel("least-squares coefficient")
    _note(figure, ax, table)
    return figure
