"""Plots: what they hold, that nothing overlaps or is cut off, and how they look.

Pictures are compared without any text and with fixed margins, so that fonts do not matter; new ones
are made with `pytest tests/report/test_plots.py --mpl-generate-path=tests/report/baseline`.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import MissingPackageError, OptionError

mpl = pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from mixlm_sparse.report.plots.methods import FitPlots, LmListPlots  # noqa: E402
from tests.report.drawn import (  # noqa: E402
    by_school,
    data,
    models,
    profile,
    questionnaire,
    questions,
    replicates,
    schools,
    sleep,
    thousands,
)
from tests.report.drawn import no_figure_stays_open as _no_figure_stays_open  # noqa: E402, F401

PLOTS = {
    "caterpillar": lambda: sleep().plot.caterpillar(),
    "caterpillar_schools": lambda: schools().plot.caterpillar(highlight=["8367", "4292"]),
    "caterpillar_thousands": lambda: thousands().plot.caterpillar(highlight=["place number 0007"]),
    "ranked_intercepts": lambda: schools().plot.ranked_intercepts(),
    "shrinkage": lambda: sleep().plot.shrinkage(),
    "shrinkage_schools": lambda: schools().plot.shrinkage(),
    "shrinkage_one": lambda: sleep().plot.shrinkage(effects="Days"),
    "shrinkage_thousands": lambda: thousands().plot.shrinkage(),
    "effects_by_category": lambda: schools().plot.effects_by("sector"),
    "effects_by_number": lambda: schools().plot.effects_by("ses", add_fixed=True),
    "trellis": lambda: sleep().plot.trellis(),
    "trellis_schools": lambda: schools().plot.trellis("cses"),
    "trellis_hundred": lambda: schools().plot.trellis("cses", max_groups=100),
    "trellis_two": lambda: sleep().plot.trellis(groups=[308, "335"]),
    "trajectories": lambda: sleep().plot.trajectories(),
    "trajectories_by": lambda: schools().plot.trajectories("cses", by="sector"),
    "trajectories_observed": lambda: sleep().plot.trajectories(observed=True),
    "trajectories_thousands": lambda: thousands().plot.trajectories("x"),
    "predictions": lambda: schools().plot.predictions("cses", {"sector": "levels"}),
    "predictions_prediction": lambda: sleep().plot.predictions(interval="prediction", points=True),
    "predictions_factor": lambda: schools().plot.predictions("sector", {"meanses": "quartiles"}),
    "fixed_effects": lambda: mx.plots.fixed_effects(*models(), names=["first", "second"]),
    "fixed_effects_one": lambda: schools().plot.fixed_effects(),
    "diagnostics": lambda: sleep().plot.diagnostics(),
    "residuals": lambda: sleep().plot.residuals(),
    "scale_location": lambda: sleep().plot.scale_location(),
    "qq": lambda: sleep().plot.qq(),
    "qq_random": lambda: schools().plot.qq_random(),
    "autocorrelation": lambda: sleep().plot.autocorrelation(time="Days"),
    "semivariogram": lambda: sleep().plot.semivariogram(time="Days"),
    "influence": lambda: sleep().plot.influence(),
    "deletion": lambda: sleep().plot.deletion("Subject"),
    "optimization_path": lambda: sleep().plot.optimization_path(),
    "profile_zeta": lambda: mx.plots.profile_zeta(profile()),
    "profile_absolute": lambda: mx.plots.profile_zeta(profile(), "sigma", absolute=True),
    "profile_density_one": lambda: mx.plots.profile_density(profile(), "sigma"),
    "bootstrap_one": lambda: mx.plots.bootstrap(replicates(), "cor_Days.(Intercept)|Subject"),
    "profile_density": lambda: mx.plots.profile_density(profile()),
    "profile_pairs": lambda: mx.plots.profile_pairs(profile()),
    "bootstrap": lambda: mx.plots.bootstrap(replicates()),
    "coefficient_histograms": lambda: by_school().plot.histograms(),
    "coefficient_scatter": lambda: by_school().plot.scatter(by="sector"),
    "coefficient_scatter_number": lambda: by_school().plot.scatter(by="meanses"),
    "coefficient_by_size": lambda: by_school().plot.by_size(),
    "coefficient_by_number": lambda: by_school().plot.by("ses"),
    "coefficient_by_category": lambda: by_school().plot.by("sector"),
    "coefficient_intervals": lambda: by_school().plot.intervals(by="sector"),
    "coefficient_intervals_number": lambda: by_school().plot.intervals("meanses", "cses"),
    "least_squares_trellis": lambda: by_school().plot.trellis(),
}  # fmt: skip

# plots that say no name of the model, or that the profile stands for
OTHERS = ("diagnostics", "influence", "optimization_path", "qq", "residuals", "scale_location",
          "profile_density", "profile_pairs", "profile_zeta")  # fmt: skip
NEEDED = {"coefficient_by": "cses", "effects_by": "cses"}


def _with_long_names(kind):
    needed = [questionnaire(NEEDED[kind])] if kind in NEEDED else []
    return questions().plot(kind, *needed)


LONG_NAMES = {
    **{kind: partial(_with_long_names, kind) for kind in FitPlots.kinds() if kind not in OTHERS},
    "profile": lambda: mx.plots.profile_zeta(questions().profile(["beta_"], progress=False)),
    "means": lambda: questions().emmeans(questionnaire("sector")).plot(),
}

PICTURES = [
    "caterpillar", "caterpillar_thousands", "shrinkage", "effects_by_category", "trellis",
    "trajectories_by", "predictions", "predictions_factor", "fixed_effects", "qq_random",
    "autocorrelation", "semivariogram", "influence", "profile_zeta", "profile_density",
    "profile_pairs", "coefficient_histograms", "coefficient_scatter", "coefficient_by_size",
    "coefficient_intervals",
]  # fmt: skip


def tick_boxes(axis):
    """Extents of the labels of an axis that are drawn."""
    renderer = axis.axes.figure.canvas.get_renderer()
    low, high = sorted(axis.get_view_interval())
    ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    labels = [t.label1 for t in ticks if t.label1.get_visible() and t.label1.get_text()]
    return [label.get_window_extent(renderer) for label in labels]


def off_view_ticks(figure):
    """Labels of ticks out of view are never drawn, wherever matplotlib thinks they are."""
    out = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:
                    out |= {tick.label1, tick.label2}
    return out


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_cut_off_or_overlaps(name):
    require_legible(PLOTS[name]())


@pytest.mark.parametrize("name", LONG_NAMES)
def test_long_names_are_cut_to_the_room_they_have(name):
    figure = LONG_NAMES[name]()
    require_legible(figure)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(set(titles)) == len(titles)  # those that differ stay different
    widths = sum(ax.bbox.width for ax in figure.axes if ax.get_subplotspec().rowspan.start == 0)
    assert widths > 0.4 * figure.bbox.width  # panels keep the room


def require_legible(figure):
    figure.canvas.draw()
    figure.canvas.draw()  # older layouts settle with the second
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    unseen = off_view_ticks(figure)
    for text in figure.findobj(Text):
        if not text.get_visible() or not text.get_text().strip() or text in unseen:
            continue
        if text.axes is not None and not text.axes.get_visible():
            continue
        box = text.get_window_extent(renderer)
        inside = (
            box.x0 >= page.x0 - 2 and box.x1 <= page.x1 + 2
            and box.y0 >= page.y0 - 2 and box.y1 <= page.y1 + 2
        )  # fmt: skip
        assert inside, f"'{text.get_text()}' is cut off"
    titles = []
    for ax in figure.axes:
        for axis, side in ((ax.xaxis, 0), (ax.yaxis, 1)):
            boxes = sorted(tick_boxes(axis), key=lambda b: (b.x0, b.y0)[side])
            for before, after in pairwise(boxes):
                end, start = ((before.x1, after.x0), (before.y1, after.y0))[side]
                assert end <= start + 1.5, f"labels of axis {side} overlap"
        if ax.title.get_text():
            titles.append(ax.title.get_window_extent(renderer))
    if figure._suptitle is not None:
        titles.append(figure._suptitle.get_window_extent(renderer))
    titles += [legend.get_window_extent(renderer) for legend in figure.legends]
    for i, one in enumerate(titles):
        for other in titles[:i]:
            assert not one.padded(-1.0).overlaps(other.padded(-1.0)), "titles overlap"


@pytest.mark.parametrize("name", PLOTS)
def test_settings_outside_stay_as_they_are(name):
    with plt.style.context("dark_background"):
        before = dict(mpl.rcParams)
        figure = PLOTS[name]()
        assert dict(mpl.rcParams) == before
        assert isinstance(figure, mpl.figure.Figure)
        # the background is the one that the user chose
        assert figure.get_facecolor() == (0.0, 0.0, 0.0, 1.0)


def bare(figure):
    """Take away all text and the layout that depends on its size."""
    figure.set_layout_engine("none")
    # a whole number of pixels, which versions of matplotlib do not round in different ways
    figure.set_size_inches(np.round(8.0 * figure.get_size_inches()) / 8.0)
    for text in figure.findobj(Text):
        text.set_visible(False)
    for owner in (figure, *figure.axes):
        for legend in [*getattr(owner, "legends", []), getattr(owner, "legend_", None)]:
            if legend is not None:
                legend.set_visible(False)
    return figure


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.mpl_image_compare(
    baseline_dir="baseline", style="default", remove_text=True, tolerance=3,
    savefig_kwargs={"dpi": 48},
)  # fmt: skip
def test_picture(name):
    return bare(PLOTS[name]())


def test_each_kind_of_plot_is_reached_by_its_name():
    needs = {"effects_by": "Subject", "coefficient_by": "Subject"}
    fit = sleep()
    for kind in FitPlots.kinds():
        figure = fit.plot(kind, *([needs[kind]] if kind in needs else []))
        assert figure.axes, kind
        plt.close(figure)
    assert fit.plot().axes
    assert set(FitPlots.kinds()) <= set(mx.plots.__all__)
    assert "caterpillar" in repr(fit.plot)
    assert fit.plot.caterpillar.__doc__ == mx.plots.caterpillar.__doc__
    fits = mx.lm_list("Reaction ~ Days | Subject", data("sleepstudy"))
    for kind in LmListPlots.kinds():
        fits.plot(kind, *(["Subject"] if kind == "by" else []))
    with pytest.raises(OptionError, match="kind is 'pie': use one of"):
        fit.plot("pie")


def test_plots_of_one_panel_draw_where_they_are_told():
    figure, axes = plt.subplots(2, 2)
    flat = axes.ravel()
    fit = sleep()
    for ax, draw in zip(
        flat,
        [
            lambda ax: fit.plot.residuals(ax=ax),
            lambda ax: fit.plot.caterpillar(effect="Days", ax=ax),
            lambda ax: fit.plot.shrinkage(ax=ax),
            lambda ax: fit.plot.predictions(ax=ax),
        ],
        strict=True,
    ):
        assert draw(ax) is figure
        assert ax.has_data()
    with pytest.raises(OptionError, match="ax is one panel, and the plot has 2: name one"):
        fit.plot.caterpillar(ax=flat[0])


def test_subfigures_can_be_drawn_into():
    figure = plt.figure()
    left, _ = figure.subfigures(1, 2)
    assert sleep().plot.qq(ax=left.subplots()) is figure


def test_matplotlib_is_imported_with_the_first_plot_only():
    code = "import sys, mixlm_sparse; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    fit = sleep()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingPackageError, match=r"pip install matplotlib"):
        fit.plot.caterpillar()


def test_legends_stay_inside_axes_that_are_given():
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    schools().plot.predictions("cses", {"sector": "levels"}, ax=axes[0, 0])
    sleep().plot.shrinkage(ax=axes[0, 1])
    sleep().plot.trajectories(ax=axes[1, 0])
    mx.plots.fixed_effects(sleep(), sleep(), ax=axes[1, 1])
    figure.canvas.draw()
    for ax in axes.ravel():
        box = ax.get_legend().get_window_extent()
        assert ax.bbox.padded(1.0).contains(box.x0, box.y0)
        assert ax.bbox.padded(1.0).contains(box.x1, box.y1)


def test_figures_can_be_pickled():
    figure = sleep().plot.qq()
    copy = pickle.loads(pickle.dumps(figure))
    assert len(copy.axes) == len(figure.axes)
