"""Figures, axes, colours and the few marks that all plots share; the only importer of matplotlib.

matplotlib is imported when the first plot is drawn.  Every plot is drawn inside a private rc
context, so that neither the user's style nor that of other packages changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixlm_sparse.common.errors import MissingPackageError, OptionError
from mixlm_sparse.common.types import Vector

if TYPE_CHECKING:  # the other modules take these types from here
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure

P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito (2008): told apart by people with any common form of colour blindness.
BLUE, ORANGE, GREEN, AMBER, PINK, SKY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9",
)  # fmt: skip
BLACK, GREY, PALE = "#222222", "#8A8A8A", "#C8C8C8"
PALETTE = (BLUE, ORANGE, GREEN, AMBER, PINK, SKY, BLACK)
# Series differ in shape and dash as well, for print in grey.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "normal",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "legend.title_fontsize": 8.0,
    "figure.titlesize": 10.0,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "axes.facecolor": "white",
    "axes.edgecolor": "#666666",
    "axes.labelcolor": BLACK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.03,
    "axes.ymargin": 0.04,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.direction": "out",
    "ytick.direction": "out",
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "patch.linewidth": 0.8,
    "image.cmap": "Blues",
}

MANY_POINTS = 20_000  # more points than this are counted in hexagons instead of drawn
MANY_LEVELS = 60  # more levels than this are drawn as plain lines, with every k-th label
LABEL_HEIGHT = 0.115  # inches that the name of a level takes
LABELS = 30  # where not all levels have room, so many at most are named


def pyplot() -> Any:
    """Return matplotlib.pyplot.

    Raises
    ------
    MissingPackageError : matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise MissingPackageError(
            "plots need matplotlib, which is not installed: pip install 'mixlm-sparse[plots]'",
            name="matplotlib",
        ) from None
    return plt


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in the style of the package, whatever the settings outside are."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with pyplot().rc_context({**STYLE, "axes.prop_cycle": pyplot().cycler(color=PALETTE)}):
            return draw(*args, **kwargs)

    return inside


# ---------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------


@cache
def _figure_class() -> Any:
    plt = pyplot()
    from matplotlib.figure import Figure

    class PlotFigure(Figure):
        """A figure that a notebook shows once, even if a cell ends with it."""

        def _ipython_display_(self) -> None:
            number = getattr(self, "number", None)
            if number is None or not plt.fignum_exists(number):
                raise NotImplementedError  # IPython goes on to its usual display
            # else the notebook shows it at the end of the cell, as every open figure

    return PlotFigure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches."""
    out: Figure = pyplot().figure(figsize=(width, height), FigureClass=_figure_class())
    return out


def panel(ax: Axes | None, width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """Return the axes given and their figure, or new ones."""
    if ax is not None:
        return ax.figure.canvas.figure, ax  # by way of the canvas, past subfigures
    figure = new_figure(width, height)
    return figure, figure.add_subplot()


def panels(
    n: int,
    *,
    columns: int | None = None,
    size: tuple[float, float] = (3.4, 3.0),
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `n` panels in rows of `columns`; tick labels only outside if shared."""
    columns = min(n, columns or 3)
    rows = math.ceil(n / columns)
    figure = new_figure(size[0] * columns, size[1] * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    axes = list(grid.ravel())
    for place in range(n, rows * columns):
        axes[place].remove()
        if sharex and place - columns >= 0:  # the panel above has become the lowest one
            axes[place - columns].tick_params(labelbottom=True)
    return figure, axes[:n]


def one_panel_only(ax: Axes | None, n: int, argument: str, choices: Sequence[str]) -> None:
    """Raise an OptionError if `ax` is given for a plot of several panels."""
    if ax is not None and n != 1:
        raise OptionError(
            f"ax is one panel, and the plot has {n}: name one with {argument}=, one of "
            + ", ".join(map(repr, choices))
        )


# ---------------------------------------------------------------------------------------------
# Marks
# ---------------------------------------------------------------------------------------------


def marker_size(n: int) -> float:
    """Return the area in points^2 of markers of which `n` stand in one panel."""
    return float(np.clip(2200.0 / max(n, 1), 3.0, 22.0))


def opacity(n: int) -> float:
    """Return the opacity of marks of which `n` stand in one panel."""
    return float(np.clip(6.0 / math.sqrt(max(n, 1)), 0.12, 0.9))


def points(ax: Axes, x: Vector, y: Vector, *, color: str = BLUE, label: str | None = None) -> None:
    """Draw a cloud of points: markers, thinner the more there are, or counts in hexagons."""
    if x.size > MANY_POINTS:
        drawn = ax.hexbin(x, y, gridsize=60, mincnt=1, bins="log", linewidths=0.1, cmap="Blues")
        bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.04, pad=0.02)
        bar.set_label("rows")
        bar.outline.set_visible(False)
        return
    ax.scatter(
        x, y, s=marker_size(x.size), color=color, alpha=max(opacity(x.size), 0.25), linewidths=0,
        label=label, rasterized=x.size > 3000,
    )  # fmt: skip


def segments(
    ax: Axes,
    start: ArrayLike,
    stop: ArrayLike,
    *,
    color: Any = GREY,
    width: float = 1.0,
    **more: Any,
) -> None:
    """Draw lines from the points `start` (n, 2) to the points `stop` (n, 2)."""
    from matplotlib.collections import LineCollection

    lines = np.stack([np.asarray(start), np.asarray(stop)], axis=1)
    ax.add_collection(LineCollection(list(lines), colors=color, linewidths=width, **more))
    ax.autoscale_view()


def polylines(ax: Axes, x: NDArray[Any], y: NDArray[Any], **more: Any) -> None:
    """Draw curves given as rows of (n, m) arrays."""
    from matplotlib.collections import LineCollection

    ax.add_collection(LineCollection(list(np.stack([x, y], axis=2)), **more))
    ax.autoscale_view()


def ragged_lines(ax: Axes, curves: Sequence[NDArray[Any]], **more: Any) -> None:
    """Draw curves given as (m_i, 2) arrays."""
    from matplotlib.collections import LineCollection

    ax.add_collection(LineCollection(list(curves), **more))
    ax.autoscale_view()


def label_levels(ax: Axes, positions: Vector, labels: Sequence[str]) -> int:
    """Name positions on the y axis, as many as have room, evenly spread; return how many.

    Parameters
    ----------
    positions : (n,) heights.
    """
    n = len(labels)
    # the layout that is made when the figure is drawn leaves less margin than there is now
    inches = 1.15 * ax.get_position().height * ax.figure.bbox.height / ax.figure.dpi
    room = max(int(inches / LABEL_HEIGHT), 2)
    shown = list(range(n)) if n <= room else _evenly(n, min(room, LABELS))
    texts = [shorten(labels[i]) for i in shown]
    longest = max(map(len, texts), default=0)
    ax.set_yticks(positions[shown], texts)
    small = len(shown) > 0.75 * room or longest > 20
    ax.tick_params(axis="y", labelsize=6.5 if small else 8.0, length=2.0)
    return len(shown)


def _evenly(n: int, count: int) -> list[int]:
    """Return `count` of n places, first and last among them."""
    step = (n - 1) / (count - 1)
    return sorted({round(i * step) for i in range(count)})


def shorten(label: str, width: int = 28) -> str:
    """Cut a long name of a level."""
    return label if len(label) <= width else label[: width - 1] + "…"


def label_room(labels: Sequence[str]) -> float:
    """Return the inches that names of levels need beyond those of a few characters."""
    longest = min(max(map(len, labels), default=0), 28)
    return 0.065 * max(longest - 5, 0)


def tall(n: int, *, low: float = 2.4, high: float = 9.0, each: float = 0.17) -> float:
    """Return the height in inches of a panel with `n` named rows."""
    return float(np.clip(0.9 + each * n, low, high))


def legend(ax: Axes, **more: Any) -> None:
    """Put the legend beside the panel, where it hides nothing."""
    if ax.get_legend_handles_labels()[1]:
        made = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, **more)
        for handle in made.legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_sizes([24.0])  # also for clouds of tiny points
                handle.set_alpha(1.0)


def figure_legend(figure: Figure, ax: Axes, *, columns: int = 4) -> None:
    """Put the legend of one of many panels above all of them."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(columns, len(labels)))


def spread(n: int, width: float = 0.3) -> Vector:
    """Return `n` offsets within +-width that look random and are always the same."""
    golden = np.mod(np.arange(1, n + 1, dtype=np.float64) * 0.6180339887498949, 1.0)
    return np.asarray((golden - 0.5) * 2.0 * width, dtype=np.float64)


def boxes(ax: Axes, values: Sequence[Vector], labels: Sequence[str]) -> None:
    """Draw upright boxplots, with the points where they are few."""
    places = np.arange(len(values), dtype=float)
    drawn = ax.boxplot(
        list(values), positions=places, widths=0.55, showfliers=False, patch_artist=True,
        medianprops={"color": BLACK, "linewidth": 1.6},
        whiskerprops={"color": GREY}, capprops={"color": GREY},
    )  # fmt: skip
    for place, patch in enumerate(drawn["boxes"]):
        patch.set_facecolor(PALETTE[place % len(PALETTE)])
        patch.set_alpha(0.35)
        patch.set_edgecolor(PALETTE[place % len(PALETTE)])
    for place, sample in enumerate(values):
        ax.scatter(
            place + spread(sample.size, 0.2), sample, s=0.6 * marker_size(sample.size),
            color=PALETTE[place % len(PALETTE)], alpha=max(0.3, opacity(sample.size)), linewidths=0,
            zorder=3, rasterized=sample.size > 3000,
        )  # fmt: skip
    slanted = len(labels) > 4 and max(map(len, labels)) > 8
    names = [
        f"{shorten(name, 18)}\n(n={sample.size})"
        for name, sample in zip(labels, values, strict=True)
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
    ax.plot(ends, level + slope * ends, **{"color": BLACK, "lw": 1.2, **more})
