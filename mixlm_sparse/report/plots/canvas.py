"""Panels of a figure, the names on their axes and their legends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.text import display_width, shorten, shorten_all
from mixlm_sparse.common.types import Vector
from mixlm_sparse.report.plots.backend import STYLE, is_own, new_figure
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

LABEL_WIDTH = 28  # characters of the name of a level
LEGEND_WIDTH = 36  # characters of a name in a legend, which takes its room from the panel
LEGEND_ABOVE = 60  # where it takes none
LABEL_HEIGHT = 0.115  # inches that the name of a level takes
LABELS = 30  # where not all levels have room, so many at most are named


def panel(ax: Axes | None, width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """Return the axes given and their figure, or new ones."""
    if ax is not None:
        _dress(ax)
        return ax.figure.canvas.figure, ax  # by way of the canvas, past subfigures
    figure = new_figure(width, height)
    return figure, figure.add_subplot()


def _dress(ax: Axes) -> None:
    """Give the user's axes the look of ours inside; text and all around them stays the user's."""
    if is_own(ax.figure.canvas.figure):
        return
    ax.set_facecolor(ink().back)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(visible=True, color=ink().grid, linewidth=STYLE["grid.linewidth"])


def panels(
    n: int,
    *,
    columns: int | None = None,
    size: tuple[float, float] = (3.4, 3.0),
    sharex: bool = False,
    sharey: bool = False,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `n` panels in rows of `columns`; tick labels only outside if shared.

    Parameters
    ----------
    size : inches (width, height) of a panel.
    heights : inches of each row, instead of that of `size`.
    """
    columns = min(n, columns or 3)
    rows = math.ceil(n / columns)
    tops = [size[1]] * rows if heights is None else list(heights)
    figure = new_figure(size[0] * columns, sum(tops))
    grid = figure.subplots(
        rows, columns, squeeze=False, sharex=sharex, sharey=sharey, height_ratios=tops
    )
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
    short = shorten_all(labels, LABEL_WIDTH)
    texts = [short[i] for i in shown]
    longest = max(map(display_width, texts), default=0)
    ax.set_yticks(positions[shown], texts)
    small = len(shown) > 0.75 * room or longest > 20
    ax.tick_params(axis="y", labelsize=6.5 if small else 8.0, length=2.0)
    return len(shown)


def _evenly(n: int, count: int) -> list[int]:
    """Return `count` of n places, first and last among them."""
    step = (n - 1) / (count - 1)
    return sorted({round(i * step) for i in range(count)})


def label_room(labels: Sequence[str]) -> float:
    """Return the inches that names of levels need beyond those of a few characters."""
    longest = min(max(map(display_width, labels), default=0), LABEL_WIDTH)
    return 0.065 * max(longest - 5, 0)


def tall(n: int, *, low: float = 2.4, high: float = 9.0, each: float = 0.17) -> float:
    """Return the height in inches of a panel with `n` named rows."""
    return float(np.clip(0.9 + each * n, low, high))


def legend(ax: Axes, *, above: bool = False, title: str | None = None) -> None:
    """Put the legend where it hides nothing: beside the panel, or above it.

    In axes that the user gave it stays inside, for what is beside them is not ours.
    """
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    if not is_own(ax.figure.canvas.figure):
        place: dict[str, Any] = {"loc": "best", "frameon": True, "framealpha": 0.8}
    elif above:
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    else:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
    if title is not None:
        place["title"] = shorten(title, LEGEND_WIDTH)
    short = shorten_all(labels, LEGEND_ABOVE if above else LEGEND_WIDTH)
    for handle in ax.legend(handles, short, **place).legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([24.0])  # also for clouds of tiny points
            handle.set_alpha(1.0)


def figure_legend(figure: Figure, ax: Axes, *, columns: int = 4) -> None:
    """Put the legend of one of many panels above all of them."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        short = shorten_all(labels, LEGEND_WIDTH)
        figure.legend(handles, short, loc="outside upper center", ncols=min(columns, len(labels)))
