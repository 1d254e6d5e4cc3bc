"""Plots on dark backgrounds: all that is drawn is seen, and the user's colours stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.report.plots.inks import LIGHT, contrast, ink, inks_on

mpl = pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.collections import Collection  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from tests.report.drawn import no_figure_stays_open as _no_figure_stays_open  # noqa: E402, F401
from tests.report.drawn import schools, sleep  # noqa: E402
from tests.report.test_plots import PLOTS  # noqa: E402

TEXT, LINE = 3.0, 1.4  # least contrasts: of what is read, and of what is seen
colour = st.tuples(*[st.integers(0, 255)] * 3).map(lambda rgb: (*(c / 255 for c in rgb), 1.0))


def dim(figure) -> list[str]:
    """What cannot be seen against the background."""
    figure.canvas.draw()
    out = []
    for axes in figure.axes:
        back = to_rgba(axes.get_facecolor())
        back = back if back[3] > 0.5 else to_rgba(figure.get_facecolor())
        grid = {id(line) for line in (*axes.get_xgridlines(), *axes.get_ygridlines())}
        for artist in axes.findobj(Line2D):
            drawn = artist.get_visible() and artist.get_linestyle() not in ("None", "")
            if id(artist) in grid or not drawn or not len(artist.get_xdata()):
                continue
            # the halo of a line is meant to be the background
            if to_rgba(artist.get_color()) == back or artist.get_linewidth() > 4:
                continue
            if contrast(to_rgba(artist.get_color()), back) < LINE:
                out.append(f"line {artist.get_color()}")
        for artist in axes.findobj(Collection):
            faces = np.vstack([artist.get_facecolor(), artist.get_edgecolor()])
            if len(faces) and max(contrast(tuple(c), back) for c in faces.tolist()) < LINE:
                out.append(f"{type(artist).__name__} {faces[0]}")
        for text in axes.findobj(Text):
            if text.get_text() and text.get_visible():
                inside = text.axes is axes and text not in _outside(axes)
                behind = back if inside else to_rgba(figure.get_facecolor())
                if contrast(to_rgba(text.get_color()), behind) < TEXT:
                    out.append(f"text {text.get_text()!r} {text.get_color()}")
    return out


def _outside(axes) -> set:
    return {
        axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(),
        *axes.get_yticklabels(),
    }  # fmt: skip


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_is_seen_on_a_dark_background(name):
    with plt.style.context("dark_background"):
        figure = PLOTS[name]()
    assert to_rgba(figure.get_facecolor()) == (0.0, 0.0, 0.0, 1.0)
    assert not dim(figure)


@pytest.mark.parametrize("name", ["qq", "predictions", "trajectories_by", "profile_pairs"])
def test_every_plot_is_seen_on_white(name):
    figure = PLOTS[name]()
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert not dim(figure)


def test_dark_axes_of_the_user_stay_dark():
    with plt.style.context("dark_background"):
        figure, axes = plt.subplots(2, 2)
        sleep().plot.diagnostics(axes=axes)
    assert not dim(figure)
    alone, ax = plt.subplots(facecolor="#101020")
    ax.set_facecolor("#101020")
    schools().plot.predictions("cses", {"sector": "levels"}, ax=ax)
    assert np.allclose(ax.get_facecolor(), to_rgba("#101020"), atol=1 / 255)
    curves = [line.get_color() for line in ax.lines]
    assert all(contrast(to_rgba(c), to_rgba("#101020")) > 4 for c in curves)
    plt.close(alone)


def test_settings_and_colours_are_put_back():
    before = dict(mpl.rcParams)
    with plt.style.context("dark_background"):
        dark = dict(mpl.rcParams)
        sleep().plot.qq()
        assert dict(mpl.rcParams) == dark
    assert dict(mpl.rcParams) == before
    assert ink() is LIGHT


@given(colour, colour, colour)
def test_inks_are_seen_on_any_background(back, page, text):
    inks = inks_on(back, page, text)
    behind = to_rgba(inks.back)
    if inks is LIGHT:
        return
    assert contrast(to_rgba(inks.front), behind) > 4.0
    for place in range(7):
        assert contrast(to_rgba(inks.series(place)), behind) > 1.9
    again = inks_on(behind, to_rgba(inks.page), to_rgba(inks.text))
    assert again == inks  # a plot within a plot


def test_transparent_backgrounds_are_told_by_the_text():
    clear = (1.0, 1.0, 1.0, 0.0)
    assert inks_on(clear, clear, (0.0, 0.0, 0.0, 1.0)) is LIGHT
    dark = inks_on(clear, clear, (1.0, 1.0, 1.0, 1.0))
    assert dark.front == "#ffffff"
    assert dark.back == "none"
    again = inks_on(to_rgba(dark.back), to_rgba(dark.page), to_rgba(dark.text))
    assert again == dark
