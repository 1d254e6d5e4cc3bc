"""Lines over a predictor: one panel per group, trajectories, predictions with bands."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.text import percent, shorten
from mixlm_sparse.common.types import Vector
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.predict.predict import predict
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import (
    BLACK,
    BLUE,
    DASHES,
    GREY,
    MARKERS,
    ORANGE,
    PALETTE,
    styled,
)
from mixlm_sparse.report.plots.curves import (
    default_x,
    group_lines,
    least_squares_lines,
    numeric_names,
    offset_columns,
    parts_of,
    typical_rows,
    weight_columns,
)
from mixlm_sparse.report.plots.data import (
    SeparateFits,
    column,
    factor_index,
    group_covariate,
    numbers,
    spread_choice,
    z_value,
)

if TYPE_CHECKING:
    from mixlm_sparse.design.grouping import GroupingFactor
    from mixlm_sparse.report.plots.backend import Axes, Figure

GRID = 40  # points of a curve


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
        one.plot(lines.x[place], lines.own[place], color=ORANGE, ls=DASHES[1], lw=1.1,
                 label="least squares in the group", zorder=3)  # fmt: skip
        one.plot(lines.x[place], lines.population[place], color=BLACK, ls=DASHES[3], lw=1.2,
                 label="population", zorder=3)  # fmt: skip
        one.plot(lines.x[place], lines.group[place], color=BLUE, lw=1.4, label="mixed model",
                 zorder=4)  # fmt: skip
    canvas.figure_legend(figure, axes[0])
    _finish_trellis(figure, name, fit.matrices.response_name, chosen, factor, groups)
    return figure


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
    """
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
        one.plot(xs[place], own[place], color=BLUE, lw=1.4)
    _finish_trellis(figure, name, matrices.response_name, chosen, factor, groups)
    return figure


def _group_panels(n: int, columns: int | None) -> tuple[Figure, list[Axes]]:
    size = (2.6, 2.5) if n <= 4 else (1.75, 1.6) if n <= 40 else (1.25, 1.2)
    return canvas.panels(n, columns=columns or _columns(n), size=size, sharex=True, sharey=True)


def _group_points(ax: Axes, x: Vector, y: Vector, rows: Any, level: str, n: int) -> None:
    ax.scatter(x[rows], y[rows], s=7, color=GREY, linewidths=0, alpha=0.7, zorder=2)
    ax.set_title(shorten(level, 16), fontsize=7.5 if n > 4 else 9, pad=2)
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
    x : predictor on the horizontal axis; by default the first numeric one with a random slope.
    group : grouping factor; by default the first.
    by : variable of the group with categories: colours the lines and parts the population.
    observed : join the observed responses of each group instead of drawing its fitted line.
    ax : where to draw.
    """
    g = factor_index(fit, group)
    factor = fit.matrices.factors[g]
    x = default_x(fit, g) if x is None else x
    name, values = numbers(fit, x, "x")
    n = factor.n_levels
    figure, one = canvas.panel(ax, 6.6, 4.2)
    lines = group_lines(fit, g, x, range(n), grid=GRID, own=False)
    mean = group_lines(fit, g, x, range(n), grid=GRID, own=False, common=True)
    parts: list[tuple[str | None, Any, str]] = [(None, np.arange(n), BLUE)]
    if by is not None:
        covariate = group_covariate(fit, by, factor.codes, factor.levels, factor.label)
        if covariate.labels is None:
            raise OptionError(
                f"by: '{covariate.name}' is a number: give categories, such as thirds"
            )
        members = covariate.members()
        parts = [
            (f"{covariate.name}: {label}", m, PALETTE[i % len(PALETTE)])
            for i, (label, m) in enumerate(zip(covariate.labels, members, strict=True))
        ]
    alpha, width = max(0.12, min(0.6, 9.0 / n**0.5 / 2.0)), 0.8 if n < 300 else 0.4
    for place, (label, members_of, color) in enumerate(parts):
        thin = {"colors": color, "alpha": alpha, "linewidths": width, "rasterized": n > 300}
        if observed:
            _observed(one, values, fit.matrices.y, factor.codes, members_of, thin)
        else:
            marks.polylines(one, lines.x[members_of], lines.group[members_of], **thin)
        size = np.bincount(factor.codes, minlength=n)[members_of].astype(float)
        average = (size / size.sum()) @ mean.population[members_of]
        front = BLACK if label is None else color
        one.plot(mean.x[0], average, color="white", lw=4.2, zorder=4)
        one.plot(mean.x[0], average, color=front, lw=2.4, zorder=5, ls=DASHES[place % len(DASHES)],
                 label="population" if label is None else label)  # fmt: skip
    one.plot([], [], color=BLUE if by is None else GREY, lw=0.8, alpha=0.7,
             label=f"each {factor.label} ({n})")  # fmt: skip
    one.set_xlabel(name)
    one.set_ylabel(fit.matrices.response_name)
    canvas.legend(one)
    return figure


def _observed(
    ax: Axes, x: Vector, y: Vector, codes: Any, groups: Any, look: dict[str, Any]
) -> None:
    curves = []
    for j in groups.tolist():
        rows = np.flatnonzero(codes == j)
        rows = rows[np.argsort(x[rows], kind="stable")]
        curves.append(np.column_stack([x[rows], y[rows]]))
    marks.ragged_lines(ax, curves, **look)


@styled
def predictions(
    fit: FittedModel,
    x: str | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    level: float = 0.95,
    interval: str | None = "confidence",
    points: bool = False,
    offset: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the population line over a predictor, with a band, at chosen values of others.

    Predictors that are not named in `at` are held at their means, factors at their most frequent
    level; the panel says where.

    Parameters
    ----------
    x : column on the horizontal axis: a number, or a factor (points with error bars); by default
        the first numeric predictor.
    at : values of other columns, one or several each: a line for every combination.  "quartiles"
        stands for the three quartiles of a number, "levels" for all levels of a factor.
    level, interval : of the band: "confidence" for the mean, "prediction" for a new observation in
        a new group, None for none.
    points : draw the observations as well.
    offset : to be added to the lines; needed if the offset of the fit was an array.
    ax : where to draw.
    """
    z_value(level)
    if interval not in ("confidence", "prediction", None):
        raise OptionError(f"interval is {interval!r}: use 'confidence', 'prediction' or None")
    fixed = parts_of(fit)[0]
    spec = fit.matrices.spec
    assert spec is not None
    names = names_of([o.variable for term in fixed.terms for o in term])
    # a prediction interval needs the columns of random slopes as well
    parts = parts_of(fit) if interval == "prediction" else [fixed]
    needed = list(names_of([o.variable for part in parts for term in part.terms for o in term]))
    needed += [name for name in offset_columns(spec) if name not in needed]
    needed += [
        name for name in weight_columns(spec) if interval == "prediction" and name not in needed
    ]
    if x is None:
        found = numeric_names(fixed) or list(names)
        if not found:
            raise OptionError("the fixed part has an intercept only: there is no line to draw")
        x = found[0]
    if x not in needed:
        raise OptionError(
            f"x is {x!r}, which the fixed part does not have: use one of "
            + ", ".join(map(repr, names))
        )
    chosen = _chosen_values(fit, at or {}, x, needed)
    horizontal = column(fit, x, "x")
    factor_x = horizontal.kind not in ("number", "bool")
    if factor_x:
        grid: Any = pd.Categorical(list(horizontal.levels), categories=list(horizontal.levels))
    else:
        grid = np.linspace(float(horizontal.values.min()), float(horizontal.values.max()), 60)
    typical = typical_rows(fit, needed, x, None, [0])
    figure, one = canvas.panel(ax, 6.4 if chosen else 5.4, 4.0)
    combinations = list(itertools.product(*chosen.values()))
    if points and not factor_x:
        marks.points(one, np.asarray(horizontal.values, float), fit.matrices.y, color=GREY)
    for place, values in enumerate(combinations):
        frame = typical.loc[[0] * len(grid)].reset_index(drop=True)
        frame[x] = grid
        for name, value in zip(chosen, values, strict=True):
            frame[name] = value
        fit_line, low, high = _band(fit, frame, interval, level, offset)
        label = ", ".join(
            f"{name} {_shown(value)}" for name, value in zip(chosen, values, strict=True)
        )
        _draw_line(one, grid, factor_x, fit_line, low, high, place, len(combinations), label)
    if factor_x:
        one.set_xticks(np.arange(len(grid)), [shorten(str(v), 16) for v in grid])
    one.set_xlabel(x)
    one.set_ylabel(fit.matrices.response_name)
    held = [f"{n} = {_shown(typical[n].iloc[0])}" for n in typical.columns if n not in chosen]
    heading = (
        f"population mean, {percent(level)} {interval} band" if interval else "population mean"
    )
    one.set_title(heading + ("\nat " + ", ".join(held) if held else ""), fontsize=8.5)
    canvas.legend(one)
    return figure


def _chosen_values(
    fit: FittedModel, at: Mapping[str, Any], x: str, needed: Sequence[str]
) -> dict[str, list[Any]]:
    """Return the values of each column named in `at`, as lists."""
    out: dict[str, list[Any]] = {}
    for name, wanted in at.items():
        if name == x or name not in needed:
            others = [n for n in needed if n != x]
            raise OptionError(
                f"at: {name!r} is {'on the horizontal axis' if name == x else 'no predictor'}: use "
                + (", ".join(map(repr, others)) or "no other")
            )
        found = column(fit, name, "at")
        if isinstance(wanted, str) and wanted == "quartiles" and found.kind == "number":
            values: list[Any] = np.quantile(found.values, [0.25, 0.5, 0.75]).tolist()
        elif isinstance(wanted, str) and wanted == "levels" and found.kind == "factor":
            values = list(found.levels)
        else:
            single = isinstance(wanted, str) or not np.iterable(wanted)
            values = [wanted] if single else list(wanted)
        out[name] = values
    return out


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def _band(
    fit: FittedModel, frame: pd.DataFrame, interval: str | None, level: float, offset: float | None
) -> tuple[Vector, Vector | None, Vector | None]:
    """Return the population mean and its limits on the rows of `frame`."""
    found = predict(fit, frame, "population", interval=interval, level=level, offset=offset)
    if isinstance(found, pd.DataFrame):
        middle, low, high = found[["fit", "lower", "upper"]].to_numpy().T
        return middle, low, high
    middle = np.asarray(found, dtype=np.float64)
    return middle, None, None


def _draw_line(
    ax: Axes, grid: Any, factor_x: bool, line: Vector, low: Vector | None, high: Vector | None,
    place: int, count: int, label: str,
) -> None:  # fmt: skip
    color = PALETTE[place % len(PALETTE)]
    if factor_x:
        shift = 0.0 if count == 1 else 0.5 * ((place + 0.5) / count - 0.5)
        at = np.arange(len(grid)) + shift
        if low is not None and high is not None:
            lower, upper = np.column_stack([at, low]), np.column_stack([at, high])
            marks.segments(ax, lower, upper, color=color, width=1.6)  # fmt: skip
        ax.scatter(at, line, s=28, color=color, marker=MARKERS[place % 7], zorder=3,
                   label=label or None)  # fmt: skip
        return
    if low is not None and high is not None:
        ax.fill_between(grid, low, high, color=color, alpha=0.18, linewidth=0)
    ax.plot(grid, line, color=color, ls=DASHES[place % len(DASHES)], lw=1.8, label=label or None)
