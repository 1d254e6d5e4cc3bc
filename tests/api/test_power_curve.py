"""Power against numbers of groups: designs of other sizes, each with its own stream."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

PLAN = pd.DataFrame({"x": [0.0, 1.0] * 30, "g": [f"g{i // 6}" for i in range(60)]})
TRUTH = {"beta": {"(Intercept)": 0.0, "x": 0.7}, "sd": {"g": 0.5}, "sigma": 1.0}


def curve(n, plan=PLAN, **options):
    options = {"nsim": 60, "seed": 3, "progress": False, **options}
    return mx.power_curve("y ~ x + (1 | g)", plan, TRUTH, "x", n, **options)


def test_each_point_is_the_power_of_its_design():
    found = curve([4, 10, 25])
    assert found.along == "g"
    assert found.to_frame()["n"].tolist() == [4, 10, 25]
    alone = curve(10)
    assert alone.to_frame()["power"][0] == found.to_frame()["power"][1]
    # by hand: the same design, the same stream
    stream = np.random.SeedSequence(3, spawn_key=(4,))
    first = PLAN[PLAN["g"].isin(["g0", "g1", "g2", "g3"])]
    own = mx.power("y ~ x + (1 | g)", first, TRUTH, "x", nsim=60, seed=stream, progress=False)
    np.testing.assert_allclose(found.points[0].p_values, own.p_values, rtol=1e-9)
    assert found.to_frame()["power"].is_monotonic_increasing
    assert curve([25, 4, 10]).n == (4, 10, 25)


def test_standard_errors_fall_as_the_root_of_the_number():
    found = curve([10, 40], nsim=100)
    few, many = (np.mean(point.std_errors) for point in found.points)
    assert few / many == pytest.approx(2.0, rel=0.03)


def test_factors_within_are_copied_and_crossed_ones_are_not():
    plan = pd.DataFrame({"school": np.repeat(["s1", "s2"], 12), "item": np.tile([1, 2, 3], 8)})
    plan["class"] = np.repeat(["c1", "c2", "c3", "c4"], 6)
    plan["x"] = np.tile([0.0, 1.0], 12)
    truth = {
        "beta": [0.0, 0.5], "sigma": 1.0,
        "sd": {"school": 0.5, "class": 0.4, "item": 0.3},
    }  # fmt: skip
    formula = "y ~ x + (1 | school) + (1 | class) + (1 | item)"
    seen = []

    def look(fit):
        seen.append(fit.ngroups)
        return 0.5

    mx.power_curve(
        formula, plan, truth, "x", [5], "school", nsim=1, seed=1, test=look, progress=False
    )
    assert seen[0] == {"class": 10, "school": 5, "item": 3}
    with pytest.raises(mx.OptionError, match="several grouping factors: say along= one of"):
        mx.power_curve(formula, plan, truth, "x", [5], nsim=1)
    with pytest.raises(mx.OptionError, match="along is 'x'"):
        mx.power_curve(formula, plan, truth, "x", [5], "x", nsim=1)


def test_prints_and_plots(tmp_path):
    found = curve([4, 10])
    assert "Power of x against levels of g" in repr(found)
    assert "alpha 0.05" in repr(found)
    assert "<table" in found._repr_html_()
    assert "\\begin{tabular}" in found.to_latex()
    text = repr(found.points[0])
    assert "Power by simulation" in text
    assert "Wilson" in text
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = found.plot(goal=0.9).axes[0]
    assert axes.get_xlabel() == "levels of g"
    assert any(np.allclose(line.get_ydata(), 0.9) for line in axes.lines)
    estimates = found.points[1].plot().axes[0]
    drawn = sum(float(patch.get_height()) for patch in estimates.patches)
    assert drawn >= np.isfinite(found.points[1].p_values).sum()
    plt.close("all")


def test_errors_name_the_remedy():
    for n in ([], [1], [2.5], "many", None):
        with pytest.raises(mx.OptionError, match="n is"):
            curve(n)
    with pytest.raises(mx.OptionError, match=r"weights is .*: name a column"):
        curve([4], weights=np.ones(60))
    with pytest.raises(mx.OptionError, match=r"power has no argument 'n': write mx\.power_curve"):
        mx.power("y ~ x + (1 | g)", PLAN, TRUTH, "x", n=[4])
    given = PLAN.to_dict("list")
    assert curve([4], given).to_frame()["power"][0] == curve([4]).to_frame()["power"][0]


def test_plots_of_intervals_and_contrasts():
    plt = pytest.importorskip("matplotlib.pyplot")
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    table = fit.confint("wald")
    figure = table.plot()
    titles = ["standard deviations", "correlations", "intercept", "coefficients"]
    assert [axes.get_xlabel() for axes in figure.axes] == titles
    points = figure.axes[3].collections[-1].get_offsets()
    assert points[0][0] == pytest.approx(fit.fixef["Days"])
    _, own = plt.subplots()
    assert fit.confint("wald", parm="Days").plot(ax=own) is own.figure
    with pytest.raises(mx.OptionError, match="ax is one panel"):
        table.plot(ax=own)
    cake = mx.datasets.load("cake")
    logged = mx.lmer("log(angle) ~ recipe + (1 | recipe:replicate)", cake)
    means = logged.emmeans("recipe", type="response")
    assert "response" in means.plot().axes[0].get_xlabel()
    pairs = means.pairs()
    axes = pairs.plot().axes[0]
    assert "ratio" in axes.get_xlabel()
    assert any(np.allclose(line.get_xdata(), 1.0) for line in axes.lines)
    plt.close("all")
