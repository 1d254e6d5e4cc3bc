"""The marks that plots share: points, lines, intervals, boxes, smooth curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixlm_sparse.common.text import shorten_all
from mixlm_sparse.common.types import Vector
from mixlm_sparse.report.plots.backend import line_collection
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes

MANY_POINTS = 20_000  # more points than this are counted in hexagons instead of drawn
MANY_LEVELS = 60  # more levels than this are drawn as plain lines, with every k-th label


def marker_size(n: int) -> float:
    """Return the area in points^2 of markers of which `n` stand in one panel."""
    return float(np.clip(2200.0 / max(n, 1), 3.0, 22.0))


def opacity(n: int) -> float:
    """Return the opacity of marks of which `n` stand in one panel."""
    return float(np.clip(6.0 / math.sqrt(max(n, 1)), 0.12, 0.9))


def points(
    ax: Axes, x: Vector, y: Vector, *, color: str | None = None, label: str | None = None
) -> None:
    """Draw a cloud of points: markers, thinner the more there are, or counts in hexagons."""
    if x.size > MANY_POINTS:
        drawn = ax.hexbin(
            x, y, gridsize=60, mincnt=1, bins="log", linewidths=0.1, cmap=ink().counts
        )
        bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.04, pad=0.02)
        bar.set_label("rows")
        bar.outline.set_visible(False)
        return
    ax.scatter(
        x, y, s=marker_size(x.size), color=color or ink().blue, linewidths=0,
        alpha=max(opacity(x.size), 0.25), label=label, rasterized=x.size > 3000,
    )  # fmt: skip


def segments(
    ax: Axes,
    start: ArrayLike,
    stop: ArrayLike,
    *,
    color: Any = None,
    width: float = 1.0,
    **more: Any,
) -> None:
    """Draw lines from the points `start` (n, 2) to the points `stop` (n, 2)."""
    lines = np.stack([np.asarray(start), np.asarray(stop)], axis=1)
    colors = ink().grey if color is None else color
    ax.add_collection(line_collection(list(lines), colors=colors, linewidths=width, **more))
    ax.autoscale_view()


def polylines(ax: Axes, x: NDArray[Any], y: NDArray[Any], **more: Any) -> None:
    """Draw curves given as rows of (n, m) arrays."""
    ax.add_collection(line_collection(list(np.stack([x, y], axis=2)), **more))
    ax.autoscale_view()


def ragged_lines(ax: Axes, curves: Sequence[NDArray[Any]], **more: Any) -> None:
    """Draw curves given as (m_i, 2) arrays."""
    ax.add_collection(line_collection(list(curves), **more))
    ax.autoscale_view()


def spread(n: int, width: float = 0.3) -> Vector:
    """Return `n` offsets within +-width that look random and are always the same."""
    golden = np.mod(np.arange(1, n + 1, dtype=np.float64) * 0.6180339887498949, 1.0)
    return np.asarray((golden - 0.5) * 2.0 * width, dtype=np.float64)


def boxes(ax: Axes, values: Sequence[Vector], labels: Sequence[str]) -> None:
    """Draw upright boxplots, with the points where they are few."""
    places = np.arange(len(values), dtype=float)
    drawn = ax.boxplot(
        list(values), positions=places, widths=0.55, showfliers=False, patch_artist=True,
        medianprops={"color": ink().front, "linewidth": 1.6},
        whiskerprops={"color": ink().grey}, capprops={"color": ink().grey},
    )  # fmt: skip
    for place, patch in enumerate(drawn["boxes"]):
        patch.set_facecolor(ink().series(place))
        patch.set_alpha(0.35)
        patch.set_edgecolor(ink().series(place))
    for place, sample in enumerate(values):
        ax.scatter(
            place + spread(sample.size, 0.2), sample, s=0.6 * marker_size(sample.size),
            color=ink().series(place), alpha=max(0.3, opacity(sample.size)), linewidths=0,
            zorder=3, rasterized=sample.size > 3000,
        )  # fmt: skip
    slanted = len(labels) > 4 and max(map(len, labels)) > 8
    names = [
        f"{name}\n(n={sample.size})"
        for name, sample in zip(shorten_all(labels, 18), values, strict=True)
    ]
    if slanted:
        names = [name.replace("\n", " ") for name in names]
    ax.set_xticks(places, names)
    if slanted:
        ax.tick_params(axis="x", labelrotation=30)
        for tick in ax.get_xticklabels():
            tick.set_horizontalalignment("right")
    ax.grid(visible=False, axis="x")


def trend(x: Vector, y: Vector, *, span: float = 0.6, grid: int = 60) -> tuple[Vector, Vector]:
    """Return a local linear regression with tricube weights, on an even grid of x.

    Parameters
    ----------
    span : share of the points that bear on one value of the curve.
    """
    ordered = np.sort(x)
    n = ordered.size
    at = np.linspace(ordered[0], ordered[-1], grid)
    # beyond the outermost percent there is next to nothing to average
    at = at[(at >= ordered[int(0.005 * n)]) & (at <= ordered[n - 1 - int(0.005 * n)])]
    near = max(int(span * n), 2)
    out = np.empty(at.size)
    for place, centre in enumerate(at.tolist()):
        distance = np.abs(x - centre)
        reach = float(np.partition(distance, near - 1)[near - 1]) or 1.0
        w = np.clip(1.0 - (distance / (1.0001 * reach)) ** 3, 0.0, None) ** 3
        total = w.sum()
        mean_x, mean_y = (w @ x) / total, (w @ y) / total
        slope_below = w @ (x - mean_x) ** 2
        slope = (w @ ((x - mean_x) * (y - mean_y))) / slope_below if slope_below > 0 else 0.0
        out[place] = mean_y + slope * (centre - mean_x)
    return at, out


def least_squares_line(ax: Axes, x: Vector, y: Vector, **more: Any) -> None:
    """Draw the straight line of least squares through a cloud of points."""
    if x.size < 2 or np.ptp(x) == 0.0:
        return
    slope, level = np.polynomial.Polynomial.fit(x, y, 1).convert().coef[::-1]
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, level + slope * ends, **{"color": ink().front, "lw": 1.2, **more})
