"""Random effects: ranked with intervals, shrinkage, against a variable of the group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.text import percent, shorten
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.data import (
    Covariate,
    choose,
    effects_of,
    factor_index,
    group_covariate,
    random_columns,
    z_value,
)
from mixlm_sparse.report.plots.inks import ink
from mixlm_sparse.solve.groupwise import fit_groups
from mixlm_sparse.solve.rows import InMemory

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

FAR = 2.0  # spreads beyond the middle eight tenths from which a group is cut off
MANY_POPULATIONS = 6  # more different population values than this are not marked one by one


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
    """
    return caterpillar(
        fit, group, "(Intercept)", level=level, add_fixed=True, highlight=highlight, ax=ax
    )


@styled
def shrinkage(
    fit: FittedModel,
    group: str | None = None,
    effects: str | tuple[str, str] | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Join the least-squares coefficients of each group to those of the mixed model.

    Both are the coefficients of the random columns in the group: from the response, and from the
    fitted values.  Groups in which least squares cannot be had are left out and counted.

    Parameters
    ----------
    group : grouping factor; by default the first.
    effects : a pair of effects for a plane, one for a line per group; by default the first two.
    ax : where to draw.
    """
    g = factor_index(fit, group)
    factor = fit.matrices.factors[g]
    names, Z = random_columns(fit, g)
    pair = _pair(names, effects)
    offset = InMemory.of(fit.matrices).whole().offset
    population = fit.solution.fitted(include_random=False)
    three = np.column_stack([fit.matrices.y, fit.fitted_used, population])
    three = three - np.reshape(offset, (-1, 1))
    fits = fit_groups(three, Z, factor.codes, factor.n_levels, fit.matrices.weights)
    full = fits.full_rank
    if not full.any():
        raise OptionError(
            f"no level of '{factor.label}' has enough rows for least squares on "
            f"{', '.join(names)}: there is no shrinkage to draw"
        )
    raw, shrunk, middle = (fits.coefficients[full][:, pair, j] for j in range(3))
    labels = [label for label, ok in zip(factor.levels, full.tolist(), strict=True) if ok]
    if len(pair) == 1:
        n = len(labels)
        figure, ax = canvas.panel(ax, 6.4 + canvas.label_room(labels), canvas.tall(n))
        _shrink_line(ax, labels, raw[:, 0], shrunk[:, 0], middle[:, 0])
        ax.set_xlabel(f"{names[pair[0]]} in each group")
        few = len(ax.get_yticks()) == n
        ax.set_ylabel(factor.label if few else f"{factor.label} ({n} levels, some are named)")
    else:
        figure, ax = canvas.panel(ax, 6.8, 4.8)
        _shrink_plane(ax, raw, shrunk, middle)
        ax.set_xlabel(names[pair[0]])
        ax.set_ylabel(names[pair[1]])
    missing = int((~full).sum())
    notes = []
    if missing:
        notes.append(f"{missing} of {factor.n_levels} without least squares left out")
    beyond = _keep_near(ax, raw, shrunk, both=len(pair) == 2)
    if beyond:
        notes.append(f"{beyond} far beyond the edges")
    title = f"shrinkage by {factor.label}"
    ax.set_title(title + (f" ({', '.join(notes)})" if notes else ""))
    canvas.legend(ax)
    return figure


def _keep_near(ax: Axes, raw: Matrix, shrunk: Matrix, *, both: bool) -> int:
    """Let a few far groups run out of the panel, so that they do not squash the others.

    Returns how many groups do.
    """
    outside = np.zeros(len(raw), dtype=bool)
    limits: list[Any] = [ax.set_xlim, ax.set_ylim] if both else [ax.set_xlim]
    for k, limit in enumerate(limits):
        low, high = np.quantile(raw[:, k], [0.1, 0.9])
        reach = FAR * float(high - low)
        far = (raw[:, k] < low - reach) | (raw[:, k] > high + reach)
        if reach > 0.0 and far.any():
            kept = (shrunk[:, k] >= low - reach) & (shrunk[:, k] <= high + reach)
            near = np.concatenate([raw[~far, k], shrunk[kept, k]])
            edge = 0.04 * float(np.ptp(near))
            limit(float(near.min()) - edge, float(near.max()) + edge)
        outside |= far
    return int(outside.sum())


def _pair(names: list[str], effects: str | tuple[str, str] | None) -> list[int]:
    if effects is None:
        return list(range(min(2, len(names))))
    wanted = [effects] if isinstance(effects, str) else list(effects)
    if len(wanted) not in (1, 2):
        raise OptionError(f"effects has {len(wanted)} names: give one or two")
    return [choose(names, name, "effects")[0] for name in wanted]


def _shrink_line(ax: Axes, labels: list[str], raw: Vector, shrunk: Vector, middle: Vector) -> None:
    rank = np.argsort(raw, kind="stable")
    raw, shrunk, middle = raw[rank], shrunk[rank], middle[rank]
    n = raw.size
    y = np.arange(n, dtype=float)
    size = float(np.clip(1500.0 / n, 1.5, 24.0))
    marks.segments(
        ax, np.column_stack([raw, y]), np.column_stack([shrunk, y]), color=ink().pale,
        width=float(np.clip(90.0 / n, 0.3, 1.2)), zorder=1, rasterized=n > 1500,
    )  # fmt: skip
    ax.scatter(raw, y, s=size, facecolors="none", edgecolors=ink().orange,
               linewidths=0.8 if n < 500 else 0.4,
               label="least squares", zorder=2, rasterized=n > 1500)  # fmt: skip
    ax.scatter(shrunk, y, s=size, color=ink().blue, linewidths=0, label="mixed model", zorder=3,
               rasterized=n > 1500)  # fmt: skip
    if np.ptp(middle) <= 1e-8 * max(1.0, float(np.abs(middle).max())):
        ax.axvline(float(middle[0]), color=ink().front, lw=1.0, label="population", zorder=0.9)
    canvas.label_levels(ax, y, [labels[i] for i in rank])
    ax.set_ylim(-0.02 * n - 0.6, n - 1 + 0.02 * n + 0.6)


def _shrink_plane(ax: Axes, raw: Any, shrunk: Any, middle: Any) -> None:
    n = len(raw)
    size = float(np.clip(2600.0 / n, 2.5, 30.0))
    marks.segments(
        ax, raw, shrunk, color=ink().pale if n < 500 else ink().paler,
        width=float(np.clip(120.0 / n, 0.25, 1.2)), zorder=1, rasterized=n > 1500,
    )  # fmt: skip
    ax.scatter(raw[:, 0], raw[:, 1], s=size, facecolors="none", edgecolors=ink().orange,
               linewidths=0.9 if n < 500 else 0.4, label="least squares", zorder=2,
               rasterized=n > 1500)  # fmt: skip
    ax.scatter(shrunk[:, 0], shrunk[:, 1], s=size, color=ink().blue, linewidths=0,
               label="mixed model", zorder=3, rasterized=n > 1500)  # fmt: skip
    scale = np.maximum(np.abs(middle).max(axis=0), 1e-300)
    distinct = np.unique(np.round(middle / scale, 8), axis=0) * scale
    if len(distinct) <= MANY_POPULATIONS:
        ax.scatter(distinct[:, 0], distinct[:, 1], s=70, marker="D", color=ink().front,
                   edgecolors=ink().back, linewidths=0.8, label="population", zorder=4)  # fmt: skip


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
