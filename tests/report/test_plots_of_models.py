"""Plots of predictions and coefficients, residuals, profiles and replicates."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.integrate

import mixlm_sparse as mx
from mixlm_sparse.common.errors import OptionError

pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt
from matplotlib.collections import LineCollection

from mixlm_sparse.report.plots.uncertainty import contour
from tests.report.drawn import (
    data,
    long_names,
    models,
    names_on,
    profile,
    replicates,
    scattered,
    schools,
    segments_of,
    sleep,
)
from tests.report.drawn import no_figure_stays_open as _no_figure_stays_open  # noqa: F401


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
    assert "(1 and the population far beyond the edges)" in ax.get_title()
    assert "population" not in [text.get_text() for text in ax.get_legend().get_texts()]
    assert np.ptp(ax.get_xlim()) < 200.0
    assert np.ptp(ax.get_ylim()) < 60.0
    assert "beyond" not in sleep().plot.shrinkage().axes[0].get_title()


@pytest.mark.parametrize("effects", [None, "Days"])
def test_what_groups_shrink_to_stays_in_the_picture(effects):
    frame = data("sleepstudy").copy()
    mine = frame["Subject"] == "308"
    frame.loc[mine, "Reaction"] += 500.0 * (frame.loc[mine, "Days"] - 4.0)
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", frame)
    ax = fit.plot.shrinkage(effects=effects).axes[0]
    assert "(1 far beyond the edges)" in ax.get_title()
    low, high = ax.get_xlim() if effects else ax.get_ylim()
    assert low < fit.fixef["Days"] < high
    assert "population" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_intervals_have_as_much_room_as_they_need():
    rats = data("BodyWeight")
    fit = mx.gls("weight ~ Time * Diet", rats, residual=mx.CAR1(time="Time", group="Rat"))
    axes = fit.confint("wald").plot().axes
    assert [ax.get_xlabel() for ax in axes] == [
        "standard deviations", "residual structure", "intercept", "coefficients",
    ]  # fmt: skip
    axes[0].figure.draw_without_rendering()
    heights = [ax.get_position().height for ax in axes]
    assert heights[0] == pytest.approx(heights[2])
    assert 1.5 * heights[2] < heights[3]
    assert names_on(axes[3].yaxis)[:2] == ["Time", "Diet2"]


def test_groups_of_parameters_are_drawn_by_their_names():
    replicates = sleep().bootstrap(10, seed=1)
    titles = [ax.get_title() for ax in replicates.plot(parm="beta_").axes]
    assert titles == ["(Intercept)", "Days"]
    titles = [ax.get_title() for ax in replicates.plot(parm=["Days", "sigma"]).axes]
    assert titles == ["Days", "sigma"]
    assert len(profile().plot(parm="theta_").axes) == 4
    assert len(profile().plot.density("beta_").axes) == 2
    with pytest.raises(OptionError, match="'theta_'"):
        replicates.plot(parm="gamma_")


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
    with pytest.raises(OptionError, match="kind is 'pie': use one of"):
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
    monkeypatch.setattr("mixlm_sparse.report.plots.within.MAX_PAIRS", 1000)
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
    with pytest.raises(OptionError, match="parm names the parameter 'days'"):
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


def test_deletion_takes_one_name():
    figure = sleep().plot.deletion("Subject", effects="Days")
    assert [ax.get_title() for ax in figure.axes] == ["Cook's distance", "Days"]
