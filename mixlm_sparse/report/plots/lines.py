"""Lines over a predictor: one panel per group, trajectories, predictions with bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import shorten_all
from mixlm_sparse.common.types import Vector
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import DASHES, styled
from mixlm_sparse.report.plots.curves import (
    coded_numbers,
    default_x,
    group_lines,
    least_squares_lines,
    numeric_names,
    parts_of,
)
from mixlm_sparse.report.plots.data import (
    SeparateFits,
    column,
    factor_index,
    group_covariate,
    numbers,
    spread_choice,
)
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.design.grouping import GroupingFactor
    from mixlm_sparse.report.plots.backend import Axes, Figure

GRID = 40  # points of a curve


@answers_unknown_keywords
@styled
def trellis(
    fit: FittedModel,
    x: str | None = None,
    group: str | None = None,
    *,
    groups: Sequence[Any] | None = None,
    max_groups: int = 24,
    columns: int | None = None,
) -> Figure:
    """Draw a panel per group: its points, its least squares, the population and the group line.

    Lines are drawn at the group's typical values (means, most frequent levels) of other predictors.
    The points are as observed; effects of other grouping factors are not taken out of them.

    Parameters
    ----------
    x : predictor on the horizontal axis; by default the first numeric one with a random slope.
    group : grouping factor; by default the first.
    groups : levels to draw; by default all, or if they are more than `max_groups`, so many spread
        evenly over the ranks of the first random effect.
    max_groups : see `groups`.
    columns : panels side by side.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.trellis(groups=["308", "335"])
    >>> [ax.get_title() for ax in figure.axes]
    ['308', '335']
    """
    g = factor_index(fit, group)
    factor = fit.matrices.factors[g]
    x = default_x(fit, g) if x is None else x
    name, values = numbers(fit, x, "x")
    first = fit.ranef()[factor.label].to_numpy()[:, 0]
    chosen = _chosen_groups(list(factor.levels), factor.label, first, groups, max_groups)
    lines = group_lines(fit, g, x, chosen, grid=GRID)
    figure, axes = _group_panels(len(chosen), columns)
    for place, (j, one) in enumerate(zip(chosen, axes, strict=True)):
        _group_points(one, values, fit.matrices.y, factor.codes == j, factor.levels[j], len(chosen))
        one.plot(lines.x[place], lines.own[place], color=ink().orange, ls=DASHES[1], lw=1.1,
                 label="least squares in the group", zorder=3)  # fmt: skip
        one.plot(lines.x[place], lines.population[place], color=ink().front, ls=DASHES[3], lw=1.2,
                 label="population", zorder=3)  # fmt: skip
        one.plot(lines.x[place], lines.group[place], color=ink().blue, lw=1.4, label="mixed model",
                 zorder=4)  # fmt: skip
    canvas.figure_legend(figure, axes[0])
    _finish_trellis(figure, name, fit.matrices.response_name, chosen, factor, groups)
    return figure


@answers_unknown_keywords
@styled
def least_squares_trellis(
    fits: SeparateFits,
    x: str | None = None,
    *,
    groups: Sequence[Any] | None = None,
    max_groups: int = 24,
    columns: int | None = None,
) -> Figure:
    """Draw a panel per group of an `lm_list`: its points and its least-squares line.

    Parameters
    ----------
    x : predictor on the horizontal axis; by default the first numeric one.
    groups : levels to draw; by default all, or if they are more than `max_groups`, so many spread
        evenly over the ranks of the first coefficient.
    max_groups : see `groups`.
    columns : panels side by side.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fits = mx.lm_list("Reaction ~ Days | Subject", mx.datasets.load("sleepstudy"))
    >>> figure = fits.plot.trellis(groups=["308", "335"])
    >>> [ax.get_title() for ax in figure.axes]
    ['308', '335']
    """
    if not hasattr(fits, "fits") or isinstance(fits, type):
        raise OptionError(f"fits is {shown(fits)}: give what lm_list returns")
    matrices = fits.matrices
    factor = matrices.factors[0]
    spec = matrices.spec
    assert spec is not None
    if x is None:
        found = numeric_names(spec.fixed)
        if not found:
            raise OptionError("the model has no numeric predictor: name a column with x=")
        x = found[0]
    name, values = numbers(fits, x, "x")
    rank = np.nan_to_num(fits.fits.coefficients[:, 0, 0], nan=-np.inf)
    chosen = _chosen_groups(list(factor.levels), factor.label, rank, groups, max_groups)
    xs, own = least_squares_lines(fits, spec, x, values, chosen, fits.fits.coefficients[:, :, 0])
    figure, axes = _group_panels(len(chosen), columns)
    for place, (j, one) in enumerate(zip(chosen, axes, strict=True)):
        _group_points(one, values, matrices.y, factor.codes == j, factor.levels[j], len(chosen))
        one.plot(xs[place], own[place], color=ink().blue, lw=1.4)
    _finish_trellis(figure, name, matrices.response_name, chosen, factor, groups)
    return figure


def _group_panels(n: int, columns: int | None) -> tuple[Figure, list[Axes]]:
    size = (2.6, 2.5) if n <= 4 else (1.75, 1.6) if n <= 40 else (1.25, 1.2)
    return canvas.panels(n, columns=columns or _columns(n), size=size, sharex=True, sharey=True)


def _group_points(ax: Axes, x: Vector, y: Vector, rows: Any, level: str, n: int) -> None:
    ax.scatter(x[rows], y[rows], s=7, color=ink().grey, linewidths=0, alpha=0.7, zorder=2)
    ax.set_title(level, fontsize=7.5 if n > 4 else 9, pad=2)
    ax.tick_params(labelsize=6.5 if n > 4 else 8, length=2)
    ax.locator_params(axis="x", nbins=4)
    ax.locator_params(axis="y", nbins=4)


def _finish_trellis(
    figure: Figure, x: str, y: str, chosen: list[int], factor: GroupingFactor, groups: Any
) -> None:
    some = groups is None and len(chosen) < factor.n_levels
    note = f"   ({len(chosen)} of {factor.n_levels} levels of {factor.label})" if some else ""
    figure.supxlabel(x + note, fontsize=9)
    figure.supylabel(y, fontsize=9)


def _columns(n: int) -> int:
    """Return how many panels stand side by side."""
    return n if n <= 4 else int(np.ceil(np.sqrt(1.5 * n)))


def _chosen_groups(
    levels: list[str], label: str, rank: Vector, groups: Sequence[Any] | None, max_groups: int
) -> list[int]:
    """Return the levels named, or `max_groups` of them spread evenly over the ranks."""
    if groups is None:
        return spread_choice(rank, max(int(max_groups), 1))
    place = {level: j for j, level in enumerate(levels)}
    unknown = [str(level) for level in groups if str(level) not in place]
    if unknown:
        raise OptionError(f"groups: {label} has no level {unknown[0]!r}: check its name")
    if not len(groups):
        raise OptionError("groups is empty: name at least one level")
    return [place[str(level)] for level in groups]


@answers_unknown_keywords
@styled
def trajectories(
    fit: FittedModel,
    x: str | None = None,
    group: str | None = None,
    *,
    by: Any = None,
    observed: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Draw the line of every group, thin, and that of the population, thick.

    Parameters
    ----------
    x : column on the horizontal axis, a number or categories such as visits; by default the first
        predictor that changes within groups, numbers with a random slope first.
    group : grouping factor; by default the first.
    by : variable of the group with categories: colours the lines and parts the population.
    observed : join the observed responses of each group instead of drawing its fitted line.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("distance ~ age * Sex + (age | Subject)", mx.datasets.load("Orthodont"))
    >>> figure = fit.plot.trajectories(by="Sex")
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('age', 'distance')
    """
    g = factor_index(fit, group)
    factor = fit.matrices.factors[g]
    n = factor.n_levels
    name, time, labels = _time(fit, factor, x)
    figure, one = canvas.panel(ax, 6.6, 4.2)
    parts: list[tuple[str | None, Any, str]] = [(None, np.arange(n), ink().blue)]
    if by is not None:
        covariate = group_covariate(fit, by, factor.codes, factor.levels, factor.label)
        if covariate.labels is None:
            raise OptionError(
                f"by: '{covariate.name}' is a number: give categories, such as thirds"
            )
        members = covariate.members()
        parts = [
            (f"{covariate.name}: {label}", m, ink().series(i))
            for i, (label, m) in enumerate(zip(covariate.labels, members, strict=True))
        ]
    alpha, width = max(0.12, min(0.6, 9.0 / n**0.5 / 2.0)), 0.8 if n < 300 else 0.4
    for place, (label, members_of, color) in enumerate(parts):
        thin = {"colors": color, "alpha": alpha, "linewidths": width, "rasterized": n > 300}
        if observed or labels is not None:
            y = fit.matrices.y if observed else fit.fitted_used
            _observed(one, time, y, factor.codes, members_of, thin)
        else:
            lines = group_lines(fit, g, name, members_of.tolist(), grid=GRID, own=False)
            marks.polylines(one, lines.x, lines.group, **thin)
        at, average = _population(fit, g, name, members_of, None if labels is None else time)
        front = ink().front if label is None else color
        one.plot(at, average, color=ink().back, lw=4.2, zorder=4)
        one.plot(at, average, color=front, lw=2.4, zorder=5, ls=DASHES[place % len(DASHES)],
                 label="population" if label is None else label)  # fmt: skip
    one.plot([], [], color=ink().blue if by is None else ink().grey, lw=0.8, alpha=0.7,
             label=f"each {factor.label} ({n})")  # fmt: skip
    if labels is not None:
        one.set_xticks(np.arange(len(labels)), shorten_all(labels, 16))
    one.set_xlabel(name)
    one.set_ylabel(fit.matrices.response_name)
    canvas.legend(one)
    return figure


def _time(
    fit: FittedModel, factor: GroupingFactor, x: str | None
) -> tuple[str, Vector, list[str] | None]:
    """Return name and values (n,) of the horizontal axis, and the labels of categories.

    Raises
    ------
    OptionError : the column does not change within groups, so that it makes no line.
    """
    fixed, *random = parts_of(fit)
    names = [name for part in (*random, fixed) for name in numeric_names(part)]
    for part in (*random, fixed):  # categories after numbers
        names += names_of([operand.variable for term in part.terms for operand in term])
    coded = coded_numbers(fit)
    for name in [x] if x is not None else dict.fromkeys(names):
        found = column(fit, name, "x")
        values = np.asarray(found.values, dtype=np.float64)
        kinds: list[str] | None = None
        if name in coded:
            distinct, places = np.unique(values, return_inverse=True)
            values, kinds = places.astype(np.float64), [f"{value:g}" for value in distinct]
        elif found.kind not in ("number", "bool"):
            kinds = list(map(str, found.levels))
        first = np.zeros(factor.n_levels)
        first[factor.codes] = values
        if (values != first[factor.codes]).any():
            return found.name, values, kinds
    what = "the model has no predictor that changes" if x is None else f"x: '{x}' does not change"
    raise OptionError(
        f"{what} within {factor.label}, and lines need one: name a column that does with x="
    )


def _population(
    fit: FittedModel, g: int, x: str, groups: Any, time: Vector | None
) -> tuple[Vector, Vector]:
    """Return x and the mean of the fixed part over the rows of some groups.

    Parameters
    ----------
    time : (n,) codes of a category, None for a number.
    """
    codes = fit.matrices.factors[g].codes
    if time is None:
        mean = group_lines(fit, g, x, groups.tolist(), grid=GRID, own=False, common=True)
        size = np.bincount(codes, minlength=fit.matrices.factors[g].n_levels)[groups].astype(float)
        return mean.x[0], (size / size.sum()) @ mean.population
    rows = np.isin(codes, groups)
    at, place = np.unique(time[rows], return_inverse=True)
    mu = fit.solution.fitted(include_random=False)[rows]
    return at, np.bincount(place, mu) / np.bincount(place)


def _observed(
    ax: Axes, x: Vector, y: Vector, codes: Any, groups: Any, look: dict[str, Any]
) -> None:
    curves = []
    for j in groups.tolist():
        rows = np.flatnonzero(codes == j)
        rows = rows[np.argsort(x[rows], kind="stable")]
        curves.append(np.column_stack([x[rows], y[rows]]))
    marks.ragged_lines(ax, curves, **look)
