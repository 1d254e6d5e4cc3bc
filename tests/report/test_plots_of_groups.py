"""Plots of groups: random effects, shrinkage, lines, coefficients of each group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import OptionError, SkippedGroupsWarning

pytest.importorskip("matplotlib")

from matplotlib.collections import LineCollection

from tests.report.drawn import (
    by_school,
    data,
    names_on,
    scattered,
    schools,
    segments_of,
    sleep,
    thousands,
)
from tests.report.drawn import no_figure_stays_open as _no_figure_stays_open  # noqa: F401


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
