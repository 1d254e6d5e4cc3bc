"""Plots: what they hold, that nothing overlaps or is cut off, and how they look.

Pictures are compared without any text and with fixed margins, so that fonts do not matter; new ones
are made with `pytest tests/report/test_plots.py --mpl-generate-path=tests/report/baseline`.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
import scipy.integrate

import mixlm_sparse as mx
from mixlm_sparse.common.errors import MissingPackageError, OptionError, SkippedGroupsWarning

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.collections import LineCollection  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from mixlm_sparse.report.plots.methods import FitPlots, LmListPlots  # noqa: E402
from mixlm_sparse.report.plots.uncertainty import contour  # noqa: E402


@pytest.fixture(autouse=True)
def _no_figure_stays_open(monkeypatch):
    def show(*args, **kwargs):
        raise AssertionError("a plot shows itself")

    monkeypatch.setattr(plt, "show", show)
    yield
    plt.close("all")


@cache
def data(name):
    return mx.datasets.load(name)


@cache
def sleep():
    return mx.lmer("Reaction ~ Days + (Days | Subject)", data("sleepstudy"))


@cache
def schools():
    return mx.lmer("mathach ~ meanses + sector * cses + (cses | school)", data("HSB"))


@cache
def by_school():
    return mx.lm_list("mathach ~ cses | school", data("HSB"))


@cache
def thousands():
    """A fit with 3,000 groups with long names."""
    return mx.lmer("y ~ x + (1 | place)", long_names())


def long_names():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(3000), 4)
    x = rng.normal(size=group.size)
    y = rng.normal(size=3000)[group] + 0.5 * x + rng.normal(size=group.size)
    return pd.DataFrame({"y": y, "x": x, "place": [f"place number {g:04d}" for g in group]})


@cache
def profile():
    return sleep().profile()


@cache
def replicates():
    return sleep().bootstrap(60, seed=1)


def models():
    return [
        mx.lmer("mathach ~ ses + (1 | school)", data("HSB")),
        mx.lmer("mathach ~ ses + meanses + sector + (1 | school)", data("HSB")),
    ]


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

PICTURES = [
    "caterpillar", "caterpillar_thousands", "shrinkage", "effects_by_category", "trellis",
    "trajectories_by", "predictions", "predictions_factor", "fixed_effects", "qq_random",
    "autocorrelation", "semivariogram", "influence", "profile_zeta", "profile_density",
    "profile_pairs", "coefficient_histograms", "coefficient_scatter", "coefficient_by_size",
    "coefficient_intervals",
]  # fmt: skip


# ---------------------------------------------------------------------------------------------
# Every plot
# ---------------------------------------------------------------------------------------------


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
    figure = PLOTS[name]()
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
        assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


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
    with pytest.raises(OptionError, match="there is no plot 'pie'"):
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


# ---------------------------------------------------------------------------------------------
# matplotlib
# ---------------------------------------------------------------------------------------------


def test_matplotlib_is_imported_with_the_first_plot_only():
    code = "import sys, mixlm_sparse; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    fit = sleep()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'mixlm-sparse\[plots\]'"):
        fit.plot.caterpillar()


def test_text_stays_dark_on_white_in_a_dark_style():
    with plt.style.context("dark_background"):
        figure = sleep().plot.shrinkage()
        figure.canvas.draw()
        texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    assert len(texts) > 10
    for text in texts:
        assert sum(mpl.colors.to_rgb(text.get_color())) < 1.5, text.get_text()


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


# ---------------------------------------------------------------------------------------------
# What the plots hold
# ---------------------------------------------------------------------------------------------


def segments_of(ax):
    return sum(len(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection))


def names_on(axis):
    return [t.get_text() for t in axis.get_ticklabels()]


def scattered(ax):
    """All points of scatter plots, (n, 2)."""
    parts = [c.get_offsets() for c in ax.collections if not isinstance(c, LineCollection)]
    return np.vstack([np.asarray(part) for part in parts])


def test_caterpillar_ranks_and_marks():
    fit = sleep()
    figure = fit.plot.caterpillar(order="value")
    effects = fit.ranef()["Subject"]
    for ax, name in zip(figure.axes, effects.columns, strict=True):
        assert ax.get_title() == name
        assert segments_of(ax) == 18
        assert names_on(ax.yaxis) == list(effects[name].sort_values().index)
    figure = fit.plot.caterpillar(order="Days")
    assert names_on(figure.axes[0].yaxis) == list(effects["Days"].sort_values().index)
    figure = fit.plot.caterpillar(order=None)
    assert names_on(figure.axes[0].yaxis) == list(effects.index[::-1])


def test_caterpillar_intervals_are_conditional_ones():
    fit = sleep()
    figure = fit.plot.caterpillar(effect="Days", level=0.9, order=None)
    _, covariance = fit.ranef(cond_var=True)
    half = 1.6448536269514722 * np.sqrt(covariance["Subject"][::-1, 1, 1])
    lengths = {
        round(float(s[0, 1])): float(s[1, 0] - s[0, 0])
        for c in figure.axes[0].collections
        if isinstance(c, LineCollection)
        for s in c.get_segments()
    }
    assert [lengths[i] for i in range(18)] == pytest.approx(2 * half)


@pytest.mark.parametrize(("fit", "n"), [(sleep, 18), (schools, 160), (thousands, 3000)])
def test_labels_thin_out(fit, n):
    ax = fit().plot.caterpillar(effect="(Intercept)").axes[0]
    assert segments_of(ax) == n
    names = names_on(ax.yaxis)
    assert len(names) == n if n < 60 else 20 <= len(names) <= 40
    assert ("some are named" in ax.get_ylabel()) == (n > 60)


def test_highlighted_levels_are_named_although_labels_thin_out():
    ax = thousands().plot.caterpillar(highlight=["place number 0007"]).axes[0]
    assert "place number 0007" in [t.get_text() for t in ax.texts]
    with pytest.raises(OptionError, match="no level 'nowhere'"):
        thousands().plot.caterpillar(highlight=["nowhere"])


def test_ranked_intercepts_are_on_the_scale_of_the_response():
    fit = sleep()
    points = scattered(fit.plot.ranked_intercepts().axes[0])
    expected = np.sort(fit.coef()["Subject"]["(Intercept)"])
    assert np.sort(points[:, 0]) == pytest.approx(expected)


def test_shrinkage_joins_least_squares_to_the_mixed_model():
    fit = sleep()
    ax = fit.plot.shrinkage().axes[0]
    lines = next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()
    raw = mx.lm_list("Reaction ~ Days | Subject", data("sleepstudy")).coef().to_numpy()
    mixed = fit.coef()["Subject"].to_numpy()
    assert np.array([s[0] for s in lines]) == pytest.approx(raw)
    assert np.array([s[1] for s in lines]) == pytest.approx(mixed)
    assert "least squares" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_shrinkage_counts_groups_without_least_squares():
    frame = data("sleepstudy").iloc[:-9]
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", frame)
    ax = fit.plot.shrinkage().axes[0]
    assert segments_of(ax) == 17
    assert "1 of 18 without least squares" in ax.get_title()


def test_trellis_lines():
    fit = sleep()
    figure = fit.plot.trellis()
    assert len(figure.axes) == 18
    ax = figure.axes[0]
    assert ax.get_title() == "308"
    own, population, mixed = ax.lines
    days = np.asarray(mixed.get_xdata())
    assert (days.min(), days.max()) == (0.0, 9.0)
    b = fit.coef()["Subject"].loc["308"]
    assert mixed.get_ydata() == pytest.approx(b["(Intercept)"] + b["Days"] * days)
    assert population.get_ydata() == pytest.approx(fit.fixef.iloc[0] + fit.fixef.iloc[1] * days)
    assert own.get_ydata() == pytest.approx(244.19267 + 21.764702 * days, rel=1e-6)
    assert len(scattered(ax)) == 10
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "least squares in the group", "population", "mixed model",
    ]  # fmt: skip


def test_trellis_draws_a_spread_of_many_groups():
    fit = schools()
    figure = fit.plot.trellis("cses", max_groups=9)
    assert len(figure.axes) == 9
    effects = fit.ranef()["school"]["(Intercept)"]
    shown = effects[[ax.get_title() for ax in figure.axes]]
    assert shown.max() == effects.max()
    assert shown.min() == effects.min()
    with pytest.raises(OptionError, match="no level '99'"):
        fit.plot.trellis("cses", groups=[99])


def test_trellis_lines_of_a_context_model_hold_the_context_of_the_group():
    fit = schools()
    ax = fit.plot.trellis("cses", groups=["1224"]).axes[0]
    population = ax.lines[1]
    row = (
        data("HSB")
        .query("school == '1224'")
        .iloc[[0, 0]]
        .assign(cses=population.get_xdata()[[0, -1]])
    )
    expected = fit.predict(row, "population")
    assert population.get_ydata()[[0, -1]] == pytest.approx(expected)


def test_trajectories_have_a_line_per_group():
    ax = sleep().plot.trajectories().axes[0]
    assert segments_of(ax) == 18
    ax = schools().plot.trajectories("cses", by="sector").axes[0]
    assert segments_of(ax) == 160
    legend = [t.get_text() for t in ax.get_legend().get_texts()]
    assert legend == ["sector: Public", "sector: Catholic", "each school (160)"]
    with pytest.raises(OptionError, match="is a number"):
        schools().plot.trajectories("cses", by="meanses")


def test_predictions_are_those_of_predict():
    fit = schools()
    ax = fit.plot.predictions("cses", {"sector": "levels", "meanses": 0.25}, level=0.8).axes[0]
    assert len(ax.lines) == 2
    line = ax.lines[1]
    at = np.asarray(line.get_xdata())
    frame = pd.DataFrame({"cses": at, "sector": "Catholic", "meanses": 0.25})
    expected = fit.predict(frame, "population", interval="confidence", level=0.8)
    assert line.get_ydata() == pytest.approx(expected["fit"].to_numpy())
    band = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(expected["lower"].min())
    assert band.max() == pytest.approx(expected["upper"].max())


def test_predictions_say_where_other_predictors_are_held():
    title = schools().plot.predictions("cses").axes[0].get_title()
    assert "averaged over sector" in title
    assert "meanses =" in title
    ax = schools().plot.predictions("cses", {"meanses": "quartiles"}).axes[0]
    assert len(ax.lines) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": "ses"}, "which the fixed part does not have"),
        ({"at": {"cses": 1.0}}, "on the horizontal axis"),
        ({"at": {"ses": 1.0}}, "no predictor"),
        ({"interval": "credible"}, "interval is 'credible'"),
        ({"level": 2.0}, "level is 2.0"),
    ],
)
def test_predictions_refuse(arguments, message):
    with pytest.raises(OptionError, match=message):
        schools().plot.predictions(**{"x": "cses", **arguments})


def test_factors_are_averaged_as_marginal_means_are():
    figure = schools().plot.predictions("cses", interval=None)
    line = figure.axes[0].get_lines()[0]
    at = line.get_xdata()[[0, -1]].tolist()
    means = schools().emmeans("cses", at={"cses": at}).to_frame()["emmean"]
    np.testing.assert_allclose(line.get_ydata()[[0, -1]], means, rtol=1e-12)
    assert "averaged over sector" in figure.axes[0].get_title()
    band = schools().plot.predictions("cses", {"sector": "Public"}).axes[0]
    assert "averaged" not in band.get_title()


def test_observations_stand_beside_the_levels_of_a_factor():
    points = schools().plot.predictions("sector", points=True).axes[0].collections[0].get_offsets()
    assert len(points) == 7185
    assert set(np.round(points[:, 0]).astype(int)) == {0, 1}


def test_trajectories_over_categories():
    frame = data("sleepstudy").assign(
        visit=lambda d: pd.Categorical([f"visit {day:.0f}" for day in d["Days"]])
    )
    fit = mx.lmer("Reaction ~ visit + (1 | Subject)", frame)
    ax = fit.plot.trajectories().axes[0]
    assert names_on(ax.xaxis) == [f"visit {day}" for day in range(10)]
    assert segments_of(ax) == 18
    front = ax.get_lines()[1]
    means = frame.groupby("Days")["Reaction"].mean()
    np.testing.assert_allclose(front.get_ydata(), means, rtol=1e-9)


def test_trajectories_need_a_column_that_changes_within_groups():
    with pytest.raises(OptionError, match="'meanses' does not change within school"):
        schools().plot.trajectories("meanses")
    chosen = mx.lmer("mathach ~ meanses + cses + (1 | school)", data("HSB")).plot.trajectories()
    assert chosen.axes[0].get_xlabel() == "cses"


def test_one_far_group_does_not_squash_the_others():
    frame = data("sleepstudy").copy()
    mine = frame["Subject"] == "308"
    frame.loc[mine, "Reaction"] += 3000.0 * (frame.loc[mine, "Days"] - 4.0)
    ax = mx.lmer("Reaction ~ Days + (Days | Subject)", frame).plot.shrinkage().axes[0]
    assert "(1 far beyond the edges)" in ax.get_title()
    assert np.ptp(ax.get_xlim()) < 200.0
    assert np.ptp(ax.get_ylim()) < 60.0
    assert "beyond" not in sleep().plot.shrinkage().axes[0].get_title()


def test_diagnostics_draw_into_four_axes():
    figure, axes = plt.subplots(2, 2)
    assert sleep().plot.diagnostics(axes=axes) is figure
    assert all(ax.has_data() for ax in axes.ravel())
    with pytest.raises(OptionError, match="axes has 2 panels: give four"):
        sleep().plot.diagnostics(axes=axes[0])


def test_results_have_plots_of_their_own():
    assert len(sleep().profile("beta_").plot().axes) == 2
    assert len(sleep().profile("beta_").plot.density("Days").axes) == 1
    assert len(sleep().bootstrap(10, seed=1).plot().axes) == 6
    assert sleep().influence("Subject").plot().axes
    means = schools().emmeans("sector", by="cses", at={"cses": [-1, 1]})
    ax = means.plot().axes[0]
    assert names_on(ax.yaxis) == ["Public", "Catholic"]
    middle = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections[1::2]])
    np.testing.assert_allclose(middle, means.to_frame()["emmean"])
    with pytest.raises(OptionError, match="no plot 'pie'"):
        means.plot("pie")


def test_fixed_effects_of_several_models():
    one, two = models()
    ax = mx.plots.fixed_effects(one, two, names=["a", "b"]).axes[0]
    assert sorted(names_on(ax.yaxis)) == ["meanses", "sectorCatholic", "ses"]
    assert segments_of(ax) == 4
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    assert segments_of(one.plot.fixed_effects(intercept=True).axes[0]) == 2
    assert segments_of(one.plot.fixed_effects(two, only=["ses"]).axes[0]) == 2
    with pytest.raises(OptionError, match="names has 1 entries for 2 models"):
        mx.plots.fixed_effects(one, two, names=["a"])


def test_many_residuals_are_counted_in_hexagons():
    frame = pd.concat([long_names()] * 2, ignore_index=True)
    fit = mx.lmer("y ~ x + (1 | place)", frame)
    figure = fit.plot.residuals()
    assert len(figure.axes) == 2  # with a scale of colours
    hexagons = figure.axes[0].collections[0]
    assert hexagons.get_array().sum() == fit.nobs


def test_normal_samples_stay_in_the_envelope():
    outside = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(60), 5)
        y = rng.normal(size=60)[group] + rng.normal(size=300)
        fit = mx.lmer("y ~ 1 + (1 | g)", {"y": y, "g": group})
        for figure, n in ((fit.plot.qq(), 300), (fit.plot.qq_random(), 60)):
            ax = figure.axes[0]
            sizes = [len(c.get_offsets()) for c in ax.collections[1:]]
            assert sum(sizes) == n
            outside.append(sizes[1] / n)
            plt.close(figure)
    assert np.mean(outside) < 0.08


def test_random_effects_without_variance_have_no_quantiles():
    data_ = data("Dyestuff2")
    with pytest.warns(mx.SingularFitWarning):
        fit = mx.lmer("Yield ~ 1 + (1 | Batch)", data_)
    ax = fit.plot.qq_random().axes[0]
    assert [t.get_text() for t in ax.texts] == ["the variance is estimated as zero"]


@cache
def unbalanced():
    """Groups of very different sizes, one row and forty."""
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(5), [2, 30, 1, 40, 20])
    y = rng.normal(size=5)[group] + rng.normal(size=group.size)
    return mx.lmer("y ~ 1 + (1 | g)", {"y": y, "g": group}), group


def pairs_by_distance():
    """Products and half squared differences of all pairs of residuals of a group, by distance."""
    fit, group = unbalanced()
    r = fit.residuals("pearson", scaled=True).to_numpy()
    products, differences = {0: list(r * r)}, {}
    for i, j in combinations(range(r.size), 2):
        if group[i] == group[j]:
            products.setdefault(j - i, []).append(r[i] * r[j])
            differences.setdefault(j - i, []).append(0.5 * (r[i] - r[j]) ** 2)
    return products, differences


def test_autocorrelation_is_the_mean_of_products_within_groups():
    products, _ = pairs_by_distance()
    points = scattered(unbalanced()[0].plot.autocorrelation(max_lag=7).axes[0])
    want = [np.mean(products[lag]) / np.mean(products[0]) for lag in range(8)]
    np.testing.assert_allclose(points, np.c_[np.arange(8), want], atol=1e-12)


def test_rows_are_put_in_the_order_of_time():
    frame = data("sleepstudy").sample(frac=1.0, random_state=3)
    mixed = mx.lmer("Reaction ~ Days + (Days | Subject)", frame)
    one = scattered(mixed.plot.autocorrelation(time="Days").axes[0])
    other = scattered(sleep().plot.autocorrelation(time="Days").axes[0])
    assert one == pytest.approx(other, abs=1e-6)


def semivariogram_points(figure):
    """Distance, height and share of the pairs of every point."""
    (points,) = (c for c in figure.axes[0].collections if not isinstance(c, LineCollection))
    at, height = np.asarray(points.get_offsets()).T
    pairs = points.get_sizes() - 15.0
    return at, height, pairs / pairs.sum()


def test_semivariogram_is_the_mean_over_all_pairs_of_a_group():
    _, differences = pairs_by_distance()
    figure = unbalanced()[0].plot.semivariogram(bins=100)
    at, height, share = semivariogram_points(figure)
    np.testing.assert_array_equal(at, sorted(differences))
    np.testing.assert_allclose(height, [np.mean(differences[d]) for d in sorted(differences)])
    counts = np.array([len(differences[d]) for d in sorted(differences)])
    np.testing.assert_allclose(share, counts / (1 + 435 + 780 + 190), rtol=1e-12)
    assert figure.axes[0].get_title() == ""


def test_semivariogram_of_many_pairs_is_that_of_a_fair_sample(monkeypatch):
    fit, _ = unbalanced()
    _, height, share = semivariogram_points(fit.plot.semivariogram(bins=4))
    monkeypatch.setattr("mixlm_sparse.report.plots.checks.MAX_PAIRS", 1000)
    figure = fit.plot.semivariogram(bins=4)
    assert figure.axes[0].get_title() == "from a sample of 1,000 pairs"
    _, sampled, sampled_share = semivariogram_points(figure)
    assert not np.array_equal(sampled, height)
    # a mean of 250 squares of about one has an error of .09, a share of a quarter one of .014
    np.testing.assert_allclose(sampled, height, atol=0.3)
    np.testing.assert_allclose(sampled_share, share, atol=0.05)


def test_influence_names_the_largest_distances():
    fit = sleep()
    ax = fit.plot.influence(label=3).axes[0]
    largest = np.argsort(fit.cooks_distance())[-3:]
    assert sorted(t.get_text() for t in ax.texts) == sorted(str(i) for i in largest)
    missing = data("sleepstudy").copy()
    missing.loc[0, "Reaction"] = np.nan
    padded = mx.lmer("Reaction ~ Days + (Days | Subject)", missing, na_action="exclude")
    assert len(scattered(padded.plot.influence().axes[0])) == 179


def test_deletion_takes_an_influence_or_a_fit():
    found = sleep().influence("Subject")
    figure = mx.plots.deletion(found, show=5)
    assert [ax.get_title() for ax in figure.axes] == ["Cook's distance", "(Intercept)", "Days"]
    top = found.deletion_distance().sort_values().index[-5:]
    assert names_on(figure.axes[0].yaxis) == [str(name) for name in top]


def test_the_path_ends_at_the_optimum():
    fit = sleep()
    ax = fit.plot.optimization_path().axes[0]
    assert len(scattered(ax)) == len(fit.optimum.history)
    assert ax.get_yscale() == "log"


# ---------------------------------------------------------------------------------------------
# Uncertainty
# ---------------------------------------------------------------------------------------------


def test_densities_integrate_to_one():
    figure = mx.plots.profile_density(profile())
    assert len(figure.axes) == 6
    for ax in figure.axes:
        x, y = ax.lines[0].get_data()
        assert scipy.integrate.trapezoid(y, x) == pytest.approx(1.0, abs=0.02)


def test_intervals_of_the_profile_are_those_of_confint():
    ax = mx.plots.profile_zeta(profile(), "Days", levels=[0.95]).axes[0]
    ends = sorted(line.get_xdata()[0] for line in ax.lines[1:3])
    assert ends == pytest.approx(profile().confint(0.95).loc["Days", ["lower", "upper"]], rel=1e-3)


def test_a_fit_or_a_frame_will_do_for_a_profile():
    frame = profile().to_frame()
    assert len(mx.plots.profile_zeta(frame, ["sigma", "Days"]).axes) == 2
    assert len(mx.plots.profile_pairs(frame, ["sigma", "Days"]).axes) == 4
    with pytest.raises(OptionError, match="parm is 'days'"):
        mx.plots.profile_zeta(frame, "days")
    with pytest.raises(OptionError, match="a pair needs two"):
        mx.plots.profile_pairs(frame, ["Days"])
    with pytest.raises(OptionError, match="make 15 pairs"):
        mx.plots.profile_pairs(frame, max_parameters=5)


@pytest.mark.parametrize("rho", [-0.95, -0.3, 0.0, 0.6, 0.99])
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_contours_of_a_quadratic_deviance_are_ellipses(rho, radius):
    z = np.linspace(-3.0, 3.0, 25)
    x, y = contour((z, rho * z), (z, rho * z), radius)
    rise = (x**2 - 2 * rho * x * y + y**2) / (1 - rho**2)
    assert rise == pytest.approx(radius**2, rel=1e-6)
    assert contour((z, rho * z), (z, rho * z), 4.0) is None


def test_bootstrap_needs_replicates():
    figure = mx.plots.bootstrap(replicates(), ["sigma", "Days"], level=0.8)
    assert [ax.get_title() for ax in figure.axes] == ["sigma", "Days"]
    counts = sum(patch.get_height() for patch in figure.axes[0].patches)
    assert counts == 60
    with pytest.raises(OptionError, match=r"call fit\.bootstrap"):
        mx.plots.bootstrap(sleep())


# ---------------------------------------------------------------------------------------------
# Coefficients of groups
# ---------------------------------------------------------------------------------------------


def test_a_mixed_model_or_a_list_of_fits_give_the_same_coefficients():
    plain = mx.lmer("mathach ~ cses + (cses | school)", data("HSB"))
    one = scattered(mx.plots.coefficient_scatter(plain).axes[0])
    other = scattered(by_school().plot.scatter().axes[0])
    assert one == pytest.approx(other)
    assert len(one) == 160


def test_coefficients_by_category_and_by_mean():
    figure = by_school().plot.by("sector", "cses")
    assert names_on(figure.axes[0].xaxis) == ["Public\n(n=90)", "Catholic\n(n=70)"]
    figure = by_school().plot.by("ses", "cses")
    assert figure.axes[0].get_xlabel() == "mean ses of school"
    points = scattered(figure.axes[0])
    assert points[:, 0] == pytest.approx(data("HSB").groupby("school", observed=True)["ses"].mean())
    with pytest.raises(OptionError, match="differs between rows of one school"):
        by_school().plot.by("sex")


def test_a_variable_can_be_an_array_over_rows_or_groups():
    levels = by_school().levels
    size = pd.Series(np.arange(160.0), index=levels, name="size")
    points = scattered(by_school().plot.by(size.iloc[::-1], "cses").axes[0])
    assert points[:, 0] == pytest.approx(np.arange(160.0))
    rows = by_school().plot.by(data("HSB")["sector"].to_numpy(), "cses")
    assert len(names_on(rows.axes[0].xaxis)) == 2
    with pytest.raises(OptionError, match="by has 7 values"):
        by_school().plot.by(np.arange(7.0))


def test_intervals_by_category_have_a_panel_for_each():
    figure = by_school().plot.intervals(by="sector")
    assert [segments_of(ax) for ax in figure.axes] == [90, 90, 70, 70]
    assert "sector: Public" in figure.axes[0].get_title()


def test_plots_of_coefficients_say_which_groups_are_left_out():
    frame = data("sleepstudy").iloc[:-9]
    with pytest.warns(SkippedGroupsWarning):
        fits = mx.lm_list("Reaction ~ Days | Subject", frame)
    figure = fits.plot.histograms()
    assert figure._suptitle.get_text() == "1 of 18 Subject left out: too few rows"
    assert sum(p.get_height() for p in figure.axes[0].patches) == 17
    assert len(fits.plot.trellis().axes) == 18


def test_fits_of_matrices_have_the_plots_that_need_no_formula():
    frame = data("sleepstudy")
    X = np.column_stack([np.ones(len(frame)), frame["Days"]])
    fit = mx.fit_matrices(frame["Reaction"], X, [(frame["Subject"], X, "Subject")])
    for draw in (fit.plot.caterpillar, fit.plot.shrinkage, fit.plot.qq, fit.plot.influence):
        assert draw().axes
    assert fit.plot.autocorrelation(time=frame["Days"]).axes
    with pytest.raises(OptionError, match="the fit was made from matrices"):
        fit.plot.trellis()
    with pytest.raises(OptionError, match="knows no data frame"):
        fit.plot.effects_by("Days")


def test_crossed_factors_choose_by_name():
    fit = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", data("Penicillin"))
    assert segments_of(fit.plot.caterpillar("sample").axes[0]) == 6
    assert segments_of(fit.plot.caterpillar().axes[0]) == 24
    assert segments_of(fit.plot.shrinkage("sample").axes[0]) == 6
    with pytest.raises(OptionError, match="no grouping factor 'plates'"):
        fit.plot.caterpillar("plates")
    with pytest.raises(OptionError, match="no numeric predictor"):
        fit.plot.trellis()


def test_frames_of_other_kinds():
    polars = pytest.importorskip("polars")
    frame = polars.from_pandas(data("HSB"))
    fit = mx.lmer("mathach ~ meanses + sector + cses + (cses | school)", frame)
    assert len(fit.plot.effects_by("sector").axes) == 2
    assert len(fit.plot.trellis("cses", max_groups=4).axes) == 4
    assert fit.plot.predictions("cses", {"sector": "levels"}).axes


def test_offsets_move_the_lines():
    frame = data("sleepstudy").assign(shift=lambda d: 5.0 * d["Days"])
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", frame, offset="shift")
    # the offset is at its mean along the line: Days is on the axis, shift another column
    ax = fit.plot.trellis(groups=["308"]).axes[0]
    b = fit.coef()["Subject"].loc["308"]
    days = np.asarray(ax.lines[2].get_xdata())
    expected = b["(Intercept)"] + b["Days"] * days + 5.0 * 4.5
    assert ax.lines[2].get_ydata() == pytest.approx(expected)
    array = mx.lmer("Reaction ~ Days + (Days | Subject)", frame, offset=frame["shift"].to_numpy())
    with pytest.raises(OptionError, match="the offset of the fit is an array"):
        array.plot.trellis()
