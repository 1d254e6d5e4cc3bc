"""Tables in broom's form, shares of variance, sizes of groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support import corpus
from tests.support.corpus import LARGE, MODELS, load_data, load_json


def test_columns():
    fit = corpus.fit("sleep_rs_reml")
    columns = ["effect", "group", "term", "estimate", "std_error", "statistic", "df", "p_value"]
    assert list(fit.tidy().columns) == columns
    assert list(fit.tidy(conf_int=True).columns) == [*columns, "conf_low", "conf_high"]
    values = fit.tidy("ran_vals")
    assert list(values.columns) == [*columns[:2], "level", *columns[2:]]
    both = fit.tidy(["fixed", "ran_pars"])
    assert both["effect"].tolist() == ["fixed"] * 2 + ["ran_pars"] * 4


def test_fixed_by_all_methods():
    fit = corpus.fit("sleep_rs_reml")
    for ddf in ("satterthwaite", "Kenward-Roger", "kenward_roger"):
        table = fit.tidy(ddf=ddf, conf_int=True)
        np.testing.assert_allclose(table["df"], 17.0, rtol=1e-4)
        np.testing.assert_allclose(
            table[["conf_low", "conf_high"]].to_numpy(),
            fit.conf_int(ddf=ddf).to_numpy(),
        )
    normal = fit.tidy(ddf="normal", conf_int=True)
    assert np.isinf(normal["df"]).all()
    np.testing.assert_allclose(normal["conf_low"], fit.conf_int(ddf="normal")["lower"])
    none = fit.tidy(ddf=None)
    assert none["p_value"].isna().all()
    assert none["statistic"].notna().all()


def test_random_parameters():
    fit = corpus.fit("sleep_rs_reml")
    table = fit.tidy("ran_pars", conf_int=True)
    assert table["term"].tolist() == [
        "sd__(Intercept)", "sd__Days", "cor__(Intercept).Days", "sd__Observation",
    ]  # fmt: skip
    assert table["group"].tolist() == ["Subject"] * 3 + ["Residual"]
    np.testing.assert_allclose(table["estimate"], fit.varcorr.to_frame()["sdcor"])
    assert (table["conf_low"] < table["estimate"]).all()
    assert (table["estimate"] < table["conf_high"]).all()
    expected = fit.variance_components() if hasattr(fit, "variance_components") else None
    if expected is not None:
        assert sorted(table["std_error"]) == pytest.approx(sorted(expected["std_error"]))


def test_random_values():
    fit = corpus.fit("sleep_rs_reml")
    table = fit.tidy("ran_vals", conf_int=True)
    effects, variance = fit.ranef(cond_var=True)
    assert len(table) == 36
    np.testing.assert_allclose(table["estimate"], effects["Subject"].to_numpy().ravel())
    np.testing.assert_allclose(table["std_error"].iloc[1], np.sqrt(variance["Subject"][0, 1, 1]))
    assert table["level"].iloc[2] == "309"


@pytest.mark.parametrize("model_id", [m for m in MODELS if m not in LARGE])
def test_every_fit_has_its_tables(model_id):
    fit = corpus.fit(model_id)
    table = fit.tidy(["fixed", "ran_pars", "ran_vals"], conf_int=True)
    assert len(table) == fit.system.p + len(fit.varcorr.to_frame()) + sum(
        f.size for f in fit.ranef().values()
    )
    assert len(fit.glance()) == 1
    rows = fit.augment()
    assert len(rows) == fit.nobs
    np.testing.assert_allclose(rows[".fitted"] + rows[".resid"], fit.matrices.y)
    shares = pd.concat([fit.icc(), fit.r2()])["estimate"]
    assert ((shares >= 0) & (shares <= 1)).all()


def test_glance():
    fit = corpus.fit("sleep_rs_ml")
    row = fit.glance().iloc[0]
    assert row["nobs"] == 180
    assert row["n_Subject"] == 18
    assert row["criterion"] == fit.criterion
    assert not row["reml"]
    assert row["converged"]


def test_augment_keeps_rows_and_index():
    data = load_data("sleepstudy")
    data.index = [f"row {i}" for i in range(180)]
    data.loc["row 3", "Days"] = np.nan
    fit = mx.lmer("log(Reaction) ~ Days + (1 | Subject)", data)
    table = fit.augment()
    assert len(table) == 179
    assert "row 3" not in table.index
    assert {"Reaction", "Days", "Subject", ".fixed", ".hat", ".cooksd"} <= set(table.columns)
    np.testing.assert_allclose(table["log(Reaction)"], np.log(table["Reaction"]))
    kept = mx.lmer("Reaction ~ Days + (1 | Subject)", data, na_action="exclude").augment()
    assert len(kept) == 180
    assert np.isnan(kept.loc["row 3", ".resid"])
    assert kept.loc["row 3", "Reaction"] == data.loc["row 3", "Reaction"]
    weighted = mx.lmer("Reaction ~ Days + (1 | Subject)", data, weights=np.full(180, 2.0))
    assert (weighted.augment()[".weights"] == 2.0).all()


def test_group_sizes():
    table = corpus.fit("penicillin_ml").group_sizes()
    assert table.loc["plate"].tolist() == [24, 6, 6.0, 6.0, 6]
    hsb = corpus.fit("hsb_null_reml").group_sizes().loc["school"]
    assert (hsb["levels"], hsb["min"], hsb["max"]) == (160, 14, 67)
    assert hsb["mean"] == pytest.approx(7185 / 160)


def test_icc_as_printed():
    printed = {
        m["reference_model"]: v["printed"]
        for m in load_json("published.json")["models"]
        for v in m["values"]
        if v["name"] == "icc"
    }
    assert len(printed) == 3
    for model_id, value in printed.items():
        found = corpus.fit(model_id).icc().loc["adjusted", "estimate"]
        assert found == pytest.approx(value, abs=0.005)


def test_shares_by_hand():
    fit = corpus.fit("sleep_rs_reml")
    X = fit.model_matrix()
    Psi = fit.varcorr["Subject"].to_numpy()
    random = np.einsum("ia,ab,ib->i", X, Psi, X).mean()
    fixed = np.var(X @ fit.fixef.to_numpy(), ddof=1)
    icc, r2 = fit.icc()["estimate"], fit.r2()["estimate"]
    assert icc["adjusted"] == pytest.approx(random / (random + fit.scale))
    assert icc["Subject"] == pytest.approx(icc["adjusted"])
    assert icc["unadjusted"] == pytest.approx(random / (random + fixed + fit.scale))
    assert r2["marginal"] == pytest.approx(fixed / (random + fixed + fit.scale))
    assert r2["conditional"] == pytest.approx((random + fixed) / (random + fixed + fit.scale))


def test_shares_of_several_factors_add_up():
    icc = corpus.fit("penicillin_ml").icc()["estimate"]
    assert icc["plate"] + icc["sample"] == pytest.approx(icc["adjusted"])


def test_unit_of_weights_does_not_matter():
    data = load_data("sleepstudy")
    w = np.random.default_rng(0).uniform(0.5, 2.0, 180)
    one, other = (
        mx.lmer("Reaction ~ Days + (1 | Subject)", data, weights=c * w) for c in (1.0, 10.0)
    )
    pd.testing.assert_frame_equal(one.icc(), other.icc(), rtol=1e-5)
    pd.testing.assert_frame_equal(one.r2(), other.r2(), rtol=1e-5)


def test_interval_of_the_intraclass_correlation():
    """Balanced one-way layout: the F distribution gives exact limits; the delta method on the logit
    scale comes near with 40 groups.
    """
    from scipy import stats

    rng = np.random.default_rng(12)
    groups = np.repeat(np.arange(40), 8)
    y = rng.normal(size=40)[groups] + rng.normal(size=320)
    frame = pd.DataFrame({"y": y, "g": groups})
    row = mx.lmer("y ~ 1 + (1 | g)", frame).icc().loc["adjusted"]
    means = frame.groupby("g")["y"].mean().to_numpy()
    between = 8 * means.var(ddof=1)
    within = ((y - means[groups]) ** 2).sum() / 280
    F = between / within
    exact = [
        (F / q - 1) / (F / q + 7)
        for q in (stats.f.ppf(0.975, 39, 280), stats.f.ppf(0.025, 39, 280))
    ]
    assert row["estimate"] == pytest.approx((F - 1) / (F + 7), rel=1e-5)
    assert [row["lower"], row["upper"]] == pytest.approx(exact, abs=0.04)


def test_zero_variance_has_no_interval():
    row = corpus.fit("dyestuff2_ml").icc().loc["adjusted"]
    assert row["estimate"] == 0.0
    assert np.isnan(row["lower"])


def test_bad_arguments():
    fit = corpus.fit("sleep_rs_reml")
    known = "effects: there is no kind of effects 'random': use one of fixed"
    with pytest.raises(mx.OptionError, match=known):
        fit.tidy("random")
    with pytest.raises(mx.OptionError, match="effects is empty"):
        fit.tidy([])
    for call in (fit.icc, fit.r2, fit.tidy):
        with pytest.raises(mx.OptionError, match=r"level is 1\.5: use a number between 0 and 1"):
            call(level=1.5)
    with pytest.raises(mx.OptionError, match="ddf is 'residual'"):
        fit.tidy(ddf="residual")


def test_a_test_that_cannot_be_had_prints_as_nan_with_the_reason():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(list("abcdefgh"), 4), "x": np.tile(np.arange(4.0), 8)})
    data["t"] = np.where(data.g < "e", "u", "v")
    data["y"] = rng.normal(size=32)
    fit = mx.lmer("y ~ x + t + (1 | g) + (1 | t)", data, control=mx.Control(warn=False))
    why = "do not determine the variance of (1 | t)"
    tables = {"fixed": fit.tidy(["fixed", "ran_pars"]), "drop1": fit.drop1(test="F")}
    for table in tables.values():
        assert why in " ".join(repr(table).split())
    lines = repr(tables["fixed"]).splitlines()
    assert lines[2].split()[-3:] == ["NaN"] * 3  # the intercept: statistic, df, p
    # a variance has no test: nothing stands behind its estimate, which is NaN for (1 | t)
    ran_pars = [line.split()[3:] for line in lines if line.startswith("ran_pars")]
    assert [len(cells) for cells in ran_pars] == [1, 1, 1]
    assert ran_pars[1] == ["NaN"]
    last = repr(tables["drop1"]).splitlines()[3]
    assert last.split() == ["t", "NaN", "NaN", "1", "NaN", "NaN", "NaN"]


def test_what_is_not_asked_for_prints_as_a_blank():
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", mx.datasets.load("sleepstudy"))
    assert "NaN" not in repr(fit.tidy(ddf=None))
    assert "NaN" not in repr(fit.tidy(["fixed", "ran_pars", "ran_vals"]))
    assert "NaN" not in repr(fit.tidy("ran_pars", conf_int=True))
    models = mx.anova(fit, fit.update(". ~ . - Days"))
    for table in (fit.drop1(), fit.ranova(), fit.lr_vs_lm(), models):
        assert "NaN" not in repr(table)
