"""The only importer of matplotlib: the house style, and figures that every front end shows once.

matplotlib is imported when the first plot is drawn.  A plot is drawn in the style of the package,
whatever the settings outside are, but on a dark background where the user has one.  The settings
are put back key by key: the backend and whether pyplot is interactive stay untouched, for a backend
that the first figure loads sets them for good, for the user's own plots as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from io import BytesIO
from threading import RLock
from typing import TYPE_CHECKING, Any, ParamSpec
from weakref import WeakSet

from mixlm_sparse.common.errors import MissingPackageError
from mixlm_sparse.report.plots.arguments import checked_arguments
from mixlm_sparse.report.plots.inks import Inks, drawn_with, inks_on
from mixlm_sparse.report.plots.room import cut_texts

if TYPE_CHECKING:  # the other modules take these types from here
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure

P = ParamSpec("P")

# Series differ in shape and dash as well as in colour, for print in grey.
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
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.03,
    "axes.ymargin": 0.04,
    "grid.linewidth": 0.7,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "patch.linewidth": 0.8,
}
# Settings of looks that are matplotlib's own where the style has none; fonts stay the user's.
LOOKS = ("axes.", "xtick.", "ytick.", "grid.", "lines.", "markers.", "patch.", "legend.",
         "boxplot.", "scatter.", "hist.", "errorbar.", "image.", "text.color", "figure.")
NOT_LOOKS = ("axes.formatter", "axes.unicode_minus", "figure.max_open_warning", "figure.dpi",
             "figure.raise_window", "figure.hooks")  # fmt: skip
DPI = 150.0  # of pictures in files and notebooks; windows have that of the screen
PICTURES = ("agg", "cairo", "pdf", "pgf", "ps", "svg")  # backends that only write files
SHOWN_DPI = 100.0  # pixels an inch of a page: a notebook shows pictures in the size of others

_DRAWING = RLock()  # settings are global: one plot at a time
_OWN: WeakSet[Any] = WeakSet()


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
            "plots need matplotlib, which is not installed: pip install matplotlib",
            name="matplotlib",
        ) from None
    return plt


def line_collection(lines: list[Any], **more: Any) -> Any:
    """Return many lines as one artist; each is an (m, 2) array."""
    from matplotlib.collections import LineCollection

    return LineCollection(lines, **more)


@cache
def _house_style(inks: Inks) -> dict[str, Any]:
    from matplotlib import rcParamsDefault

    plain: dict[str, Any] = {
        str(key): value
        for key, value in rcParamsDefault.items()
        if key.startswith(LOOKS) and not key.startswith(NOT_LOOKS)
    }
    colours = {
        "text.color": inks.text, "axes.labelcolor": inks.front,
        "axes.edgecolor": inks.edge, "xtick.color": inks.ticks, "ytick.color": inks.ticks,
        "grid.color": inks.grid, "axes.facecolor": inks.back, "figure.facecolor": inks.page,
        "image.cmap": inks.counts,
        "axes.prop_cycle": pyplot().cycler(color=[inks.series(place) for place in range(7)]),
    }  # fmt: skip
    return {**plain, **STYLE, **colours}


def _inks_of(axes: Any) -> Inks:
    """Return the colours for axes of the user, or for new ones where there are none."""
    from matplotlib.colors import to_rgba

    settings = pyplot().rcParams
    back, page = settings["axes.facecolor"], settings["figure.facecolor"]
    if axes is not None:
        back, page = axes.get_facecolor(), axes.figure.canvas.figure.get_facecolor()
    return inks_on(to_rgba(back), to_rgba(page), to_rgba(settings["text.color"]))


@contextmanager
def house_style(axes: Any = None) -> Iterator[None]:
    """Draw in the style of the package, and put back exactly the settings that it changes.

    Parameters
    ----------
    axes : of the user, whose background the colours are to be seen on.
    """
    settings = pyplot().rcParams
    with _DRAWING:
        inks = _inks_of(axes)
        style = _house_style(inks)
        before = {key: settings[key] for key in style}
        settings.update(style)
        try:
            with drawn_with(inks):
                yield
        finally:
            settings.update(before)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the style of the package, and leave a figure that notebooks show once."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        places, names = checked_arguments(draw, args, kwargs)
        with house_style(_given(names)):
            figure = draw(*places, **names)
            if figure in _OWN:
                cut_texts(figure)
                for axes in figure.axes:  # ticks that are made later copy the first
                    axes.xaxis.get_major_ticks(1)
                    axes.yaxis.get_major_ticks(1)
        _leave_to_notebook(figure)
        return figure

    return inside


def _given(names: dict[str, Any]) -> Any:
    """Return the axes among the arguments of a plot, the first of several, or None."""
    if names.get("axes") is None:
        return names.get("ax")
    first = names["axes"]
    while isinstance(first, list | tuple) or hasattr(first, "ravel"):
        if not len(first):
            return None
        first = first[0]
    return first


# ---------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches."""
    plt = pyplot()
    backend = str(plt.get_backend()).lower()
    picture = "inline" in backend or backend in PICTURES
    dpi = max(DPI, plt.rcParams["figure.dpi"]) if picture else None
    figure: Figure = plt.figure(figsize=(width, height), dpi=dpi)
    _OWN.add(figure)
    return figure


def is_own(figure: Figure) -> bool:
    """Return whether a figure was made here, and not given by the user."""
    return figure in _OWN


def _leave_to_notebook(figure: Figure) -> None:
    """Have a notebook show a figure once, also one of the user's that a plot hands back."""
    show: Any = partial(_display, figure, _cell())
    figure._ipython_display_ = show  # type: ignore[attr-defined]
    manager: Any = figure.canvas.manager
    if manager is not None and not hasattr(manager, "reshow"):
        manager.reshow = show  # what IPython calls in place of it where figures are widgets


def _cell() -> int | None:
    """Return the number of the notebook's cell that runs now."""
    return getattr(_shell(), "execution_count", None)


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _display(figure: Figure, cell: int | None) -> None:
    """Show a figure where IPython asks it to show itself.

    A notebook shows open figures at the end of the cell that drew them.  A cell that ends with the
    figure would show it twice, so that the one that comes first takes it out of the other's hands.

    Parameters
    ----------
    cell : the one in which the figure was drawn.
    """
    plt = pyplot()
    canvas: Any = figure.canvas
    if hasattr(canvas, "_repr_mimebundle_"):  # a widget
        if cell != _cell():
            _publish(canvas)
        return  # else the backend shows it at the end of this cell
    backend = str(plt.get_backend())
    if "inline" in backend:
        if _ends_cell():
            _show_earlier(figure)
        plt.close(figure)
        if _shows_png():
            _publish(figure)
            return
    elif backend.lower() == "agg" and hasattr(_shell(), "kernel"):
        _publish(figure)
        return
    raise NotImplementedError  # IPython goes on to its usual display


def _ends_cell() -> bool:
    """Return whether a figure is asked for as the last line of a cell, not by a call of display."""
    hook = getattr(_shell(), "displayhook", None)
    frame = sys._getframe()
    while hook is not None and frame.f_back is not None:
        frame = frame.f_back
        if frame.f_locals.get("self") is hook:
            return True
    return False


def _show_earlier(figure: Figure) -> None:
    """Show the figures that the cell drew before, which would come after it otherwise."""
    plt = pyplot()
    own = getattr(figure, "number", None)
    for number in plt.get_fignums() if own in plt.get_fignums() else ():
        if number < own:
            earlier = plt.figure(number)
            sys.modules["IPython"].display.display(earlier)
            plt.close(earlier)


def _shows_png() -> bool:
    """Return whether the inline backend shows pictures as it does by default."""
    config = sys.modules.get("matplotlib_inline.config")
    return config is not None and set(config.InlineBackend.instance().figure_formats) == {"png"}


def _publish(what: Any) -> None:
    """Show a figure as a picture, sharp and as large as others, or a canvas that is a widget."""
    display: Any = sys.modules["IPython"].display.display
    if not hasattr(what, "savefig"):
        display(what)
        return
    buffer = BytesIO()
    what.savefig(buffer, format="png", bbox_inches="tight")
    picture = buffer.getvalue()
    pixels = int.from_bytes(picture[16:20], "big")  # the width stands first in a PNG
    width = round(pixels * SHOWN_DPI / what.dpi)
    display(
        {"image/png": picture, "text/plain": repr(what)},
        metadata={"image/png": {"width": width}},
        raw=True,
    )
