"""Marginal means and slopes against lmerTest's ls_means, R's ptukey, and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixlm_sparse as mx
from mixlm_sparse.inference.fixed.emmeans import adjusted_p, critical_value
from tests.inference.test_anova import LMERTEST
from tests.support import corpus
from tests.support.corpus import load_data


@pytest.mark.parametrize("case_id", sorted(LMERTEST["means"]))
def test_as_ls_means(case_id):
    case = LMERTEST["means"][case_id]
    fit = mx.lmer(case["formula"], load_data(case["data"]))
    for expected in case["tables"]:
        means = fit.emmeans(expected["which"].split(":"), ddf=expected["ddf"])
        if expected["pairwise"]:
            table = means.pairs("none", conf_int=True)
            estimate = table["estimate"]
            np.testing.assert_allclose(table["p_value"], expected["p"], atol=1e-6)
        else:
            table = means.to_frame()
            estimate = table["emmean"]
        np.testing.assert_allclose(estimate, expected["estimate"], rtol=1e-6)
        np.testing.assert_allclose(table["std_error"], expected["se"], rtol=1e-5)
        np.testing.assert_allclose(table["df"], expected["df"], rtol=1e-4)
        np.testing.assert_allclose(table["lower"], expected["lower"], rtol=1e-4)
        np.testing.assert_allclose(table["upper"], expected["upper"], rtol=1e-4)


def test_tukey_as_ptukey():
    for row in LMERTEST["tukey"]:
        one = np.array([row["t"]])
        df = np.array([row["df"]])
        single = 2 * stats.t.sf(one, df)
        found = adjusted_p(one, df, single, "tukey", row["means"])
        assert found[0] == pytest.approx(row["p"], abs=1e-6)


def test_adjustments():
    p = np.array([0.01, 0.04, 0.03, np.nan])
    t, df = np.zeros(4), np.full(4, 10.0)
    np.testing.assert_allclose(adjusted_p(t, df, p, "bonferroni", 3)[:3], [0.03, 0.12, 0.09])
    np.testing.assert_allclose(adjusted_p(t, df, p, "holm", 3)[:3], [0.03, 0.06, 0.06])
    np.testing.assert_allclose(adjusted_p(t, df, p, "none", 3), p)
    assert np.isnan(adjusted_p(t, df, p, "tukey", 3)[3])
    df = np.array([12.0])
    q = critical_value(0.95, df, "tukey", 3, 3)
    assert q[0] == pytest.approx(3.772929 / np.sqrt(2), rel=1e-5)  # printed tables: 3.77
    assert critical_value(0.95, df, "tukey", 2, 1)[0] == pytest.approx(stats.t.ppf(0.975, 12))
    assert critical_value(0.95, df, "holm", 3, 3)[0] == pytest.approx(
        stats.t.ppf(1 - 0.05 / 6, 12)
    )


def cake(**options):
    data = load_data("cake")
    return mx.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", data, **options)


def test_balanced_means_are_cell_means():
    data = load_data("cake")
    fit = corpus.fit("cake_reml")
    factor = next(name for name in ("recipe",) if name in data.columns)
    table = fit.emmeans(factor).to_frame()
    np.testing.assert_allclose(
        table["emmean"], data.groupby(factor, observed=True)["angle"].mean(), rtol=1e-6
    )
    assert table["df"].to_numpy() == pytest.approx(42.0, rel=1e-4)


def test_by_at_and_order():
    data = load_data("cake")
    data["degrees"] = np.linspace(-1, 1, len(data))
    fit = mx.lmer("angle ~ recipe * degrees + (1 | recipe:replicate)", data)
    means = fit.emmeans("recipe", by="degrees", at={"degrees": [0.0, 1.0]})
    table = means.to_frame()
    assert table["degrees"].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    b = fit.fixef
    assert table["emmean"][0] == pytest.approx(b["(Intercept)"])
    assert table["emmean"][4] == pytest.approx(
        b["(Intercept)"] + b["recipeB"] + b["degrees"] + b["recipeB:degrees"]
    )
    pairs = means.pairs()
    assert pairs["contrast"].tolist() == ["A - B", "A - C", "B - C"] * 2
    assert pairs["degrees"].tolist() == [0.0] * 3 + [1.0] * 3
    assert means.pairs(reverse=True)["contrast"].tolist()[:3] == ["B - A", "C - A", "C - B"]
    np.testing.assert_allclose(
        means.pairs("none", reverse=True)["estimate"], -pairs["estimate"], rtol=1e-10
    )
    held = fit.emmeans("recipe", at={"degrees": 0.5, "recipe": ["C", "A"]})
    assert held.to_frame()["recipe"].tolist() == ["C", "A"]
    assert "at degrees = 0.5" in repr(held)
    one = means.contrast([1, -1, 0, 0, 0, 0])
    assert one["estimate"].iloc[0] == pytest.approx(pairs["estimate"].iloc[0])


def test_slopes():
    data = load_data("cake")
    data["degrees"] = np.linspace(0, 2, len(data))
    fit = mx.lmer("angle ~ recipe * degrees + I(degrees^2) + (1 | recipe:replicate)", data)
    b = fit.fixef
    trends = fit.emtrends("degrees", by="recipe", at={"degrees": 0.5})
    table = trends.to_frame()
    base = b["degrees"] + 2 * 0.5 * b["I(degrees^2)"]
    np.testing.assert_allclose(
        table["degrees.trend"],
        [base, base + b["recipeB:degrees"], base + b["recipeC:degrees"]],
        rtol=1e-9,
    )
    pairs = trends.pairs("none")
    assert pairs["estimate"][0] == pytest.approx(-b["recipeB:degrees"], rel=1e-8)
    assert pairs["std_error"][0] == pytest.approx(fit.bse["recipeB:degrees"], rel=1e-6)
    overall = fit.emtrends("degrees").to_frame()
    assert len(overall) == 1
    with pytest.raises(mx.OptionError, match="'recipe' is a factor, which has no slope"):
        fit.emtrends("recipe")


def test_transformed_covariates_and_stateful_terms():
    data = load_data("sleepstudy")
    fit = mx.lmer("Reaction ~ poly(Days, 2) + (1 | Subject)", data)
    found = fit.emmeans("Days", at={"Days": [0, 4.5]}).to_frame()["emmean"]
    raw = mx.lmer("Reaction ~ Days + I(Days^2) + (1 | Subject)", data).fixef.to_numpy()
    np.testing.assert_allclose(found, [raw[0], raw @ [1, 4.5, 4.5**2]], rtol=1e-6)


def test_numbers_read_as_factors():
    data = load_data("sleepstudy")
    fit = mx.lmer("Reaction ~ factor(Days) + (1 | Subject)", data)
    table = fit.emmeans("Days").to_frame()
    assert table["Days"].tolist() == list(range(10))
    np.testing.assert_allclose(
        table["emmean"], data.groupby("Days")["Reaction"].mean(), rtol=1e-8
    )


def unbalanced():
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"g": np.repeat(np.arange(20), 6)})
    frame["f"] = rng.choice(["a", "b"], 120)
    frame["h"] = rng.choice(["u", "v", "w"], 120, p=[0.6, 0.3, 0.1])
    frame["y"] = rng.normal(size=20)[frame["g"]] + rng.normal(size=120)
    return frame


def test_proportional_weights():
    frame = unbalanced()
    fit = mx.lmer("y ~ f * h + (1 | g)", frame)
    cells = fit.emmeans(["f", "h"]).to_frame().set_index(["f", "h"])["emmean"]
    share = frame["h"].value_counts(normalize=True)
    expected = sum(share[h] * cells["a", h] for h in "uvw")
    table = fit.emmeans("f", weights="proportional").to_frame()
    assert table["emmean"][0] == pytest.approx(expected)
    equal = fit.emmeans("f").to_frame()["emmean"][0]
    assert equal == pytest.approx(cells["a"].mean())
    assert "averaged over the levels of h" in repr(fit.emmeans("f"))


def test_cells_without_rows_are_not_estimable():
    frame = unbalanced()
    frame = frame[~((frame["f"] == "b") & (frame["h"] == "w"))]
    with pytest.warns(mx.RankDeficiencyWarning):
        fit = mx.lmer("y ~ f * h + (1 | g)", frame)
    table = fit.emmeans(["f", "h"]).to_frame().set_index(["f", "h"])
    assert np.isnan(table.loc[("b", "w"), "emmean"])
    assert np.isfinite(table["emmean"].drop(("b", "w"))).all()
    assert np.isnan(fit.emmeans("f").to_frame()["emmean"]).tolist() == [False, True]
    pairs = fit.emmeans("h", by="f").pairs()
    assert pairs["p_value"].isna().sum() == 2
    for ddf in ("kenward-roger", "normal"):
        assert np.isfinite(fit.emmeans("f", ddf=ddf).to_frame()["emmean"][0])


def test_offset_is_part_of_a_mean():
    frame = unbalanced().assign(o=5.0)
    plain = mx.lmer("y ~ f + (1 | g)", frame).emmeans("f").to_frame()["emmean"]
    moved = mx.lmer("y ~ f + offset(o) + (1 | g)", frame).emmeans("f").to_frame()["emmean"]
    np.testing.assert_allclose(moved, plain, rtol=1e-8)


def test_truth_values_and_other_frames():
    frame = unbalanced().assign(late=lambda d: d["g"] > 9)
    fit = mx.lmer("y ~ late + (1 | g)", frame)
    assert fit.emmeans("late").to_frame()["late"].tolist() == [False, True]
    polars = pytest.importorskip("polars")
    again = mx.lmer("y ~ late + f + (1 | g)", polars.from_pandas(frame))
    assert len(again.emmeans("f").to_frame()) == 2


def test_errors_name_the_remedy():
    frame = unbalanced()
    fit = mx.lmer("y ~ f * h + (1 | g)", frame)
    with pytest.raises(mx.OptionError, match=r"no predictor of the fixed part 'ff'.*mean 'f'"):
        fit.emmeans("ff")
    with pytest.raises(mx.OptionError, match="'f' has no level 'z': use one of a, b"):
        fit.emmeans("h", at={"f": "z"})
    with pytest.raises(mx.OptionError, match="no predictor of the fixed part 'x'"):
        fit.emmeans("h", at={"x": 1})
    with pytest.raises(mx.OptionError, match="'f' is named twice"):
        fit.emmeans("f", by="f")
    with pytest.raises(mx.OptionError, match="adjust is 'scheffe'"):
        fit.emmeans("f").pairs("scheffe")
    with pytest.raises(mx.OptionError, match="weights is 'rows'"):
        fit.emmeans("f", weights="rows")
    with pytest.raises(mx.OptionError, match="only one cell in each group"):
        fit.emmeans("f", by="h", at={"f": "a"}).pairs()
    with pytest.raises(mx.OptionError, match="3 weights, the table has 2 rows"):
        fit.emmeans("f").contrast([1, 0, 0])
    with pytest.raises(mx.OptionError, match="level is 2"):
        fit.emmeans("f", level=2)
    X = np.column_stack([np.ones(120), frame["g"] > 9])
    made = mx.fit_matrices(frame["y"], X, [(frame["g"],)])
    with pytest.raises(mx.OptionError, match="made from matrices"):
        made.emmeans("x2")
