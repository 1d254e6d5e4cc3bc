"""Smaller models: random terms, fixed terms, none at all, step by step."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

import mixlm_sparse as mx
from mixlm_sparse.inference.models.linear import linear_criterion
from mixlm_sparse.inference.models.mixture import mixture_label, mixture_p, naive_p
from tests.agreement.test_published import PUBLISHED, meets
from tests.support import corpus

SLEEP = mx.datasets.load("sleepstudy")


def printed(key: str, start: str) -> str:
    values = PUBLISHED[key]["values"]
    return next(v["printed_text"] for v in values if v["name"].startswith(start))


# -- mixtures ---------------------------------------------------------------------------------


def test_mixture_of_chi_squares():
    """Stata's chibar2(01) halves p; Stram and Lee's mixture for a slope and its covariance."""
    assert mixture_p(2.71, 1) == pytest.approx(0.5 * chi2.sf(2.71, 1))
    assert mixture_p(5.14, 2) == pytest.approx(0.5 * chi2.sf(5.14, 1) + 0.5 * chi2.sf(5.14, 2))
    assert mixture_p(0.0, 1) == 1.0
    assert np.isnan(mixture_p(1.0, 0))
    assert np.isnan(naive_p(1.0, 0))
    assert mixture_label(1, 1) == "1/2 chi2(0) + 1/2 chi2(1)"
    assert mixture_label(3, 2).endswith("upper bound")
    for statistic in (0.5, 2.0, 9.0):
        for df in (1, 2, 5):
            assert mixture_p(statistic, df) < naive_p(statistic, df)


def test_mixture_by_simulation():
    """Under the hypothesis the p-values of the mixture are uniform above their point mass."""
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(40), 5)
    X = np.ones((g.size, 1))
    fit = mx.fit_matrices(rng.normal(size=g.size), X, [(g,)], control=mx.Control(warn=False))
    p = []
    for _ in range(400):
        other = fit.refit(rng.normal(size=g.size))
        table = other.lr_vs_lm()
        p.append(table.loc["linear model", "Pr(>Chibar2)"])
    below = np.array(p)
    assert abs((below < 0.05).mean() - 0.05) < 0.035
    assert abs((below < 0.25).mean() - 0.25) < 0.07
    assert 0.4 < (below == 1.0).mean() < 0.65


# -- the linear model -------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
def test_linear_criterion(reml):
    """The criterion at theta = 0 is that of least squares."""
    for model in ("sleep_w_reml", "sleep_rs_reml", "sleep_w_off_ml"):
        system = corpus.fit(model).system
        at_zero = mx.DevianceFunction(system, reml=reml)(np.zeros(system.n_theta))
        assert linear_criterion(system, reml=reml) == pytest.approx(at_zero, rel=1e-12)


def test_stata_against_the_linear_model():
    table = corpus.fit("hsb_null_reml").lr_vs_lm()
    assert f"{table['LRT'].iloc[0]:.2f}" == "986.12"
    assert "chibar2(01) = 986.12" in table.attrs["heading"]
    table = corpus.fit("pub_asian_ml").lr_vs_lm()
    assert meets(table["LRT"].iloc[0], printed("asian_ml", "LR chibar2"))
    table = corpus.fit("pub_gcse_reml").lr_vs_lm()
    assert meets(table["LRT"].iloc[0], printed("gcse_reml", "LR chi2(3)"))
    assert table["Df"].iloc[0] == 3
    assert table["mixture"].iloc[0].endswith("upper bound")


# -- random terms -----------------------------------------------------------------------------


def test_ranova_of_lmertest():
    """lmerTest prints 42.837 on 2 df, p = 4.99e-10, for Days in (Days | Subject)."""
    table = mx.lmer("Reaction ~ Days + (Days | Subject)", SLEEP).ranova()
    assert list(table.index) == ["<none>", "Days in (Days | Subject)"]
    row = table.iloc[1]
    assert f"{row['LRT']:.3f}" == "42.837"
    assert row["Df"] == 2
    assert row["npar"] == 4
    assert row["Pr(>Chisq)"] == pytest.approx(4.99e-10, rel=1e-3)
    assert row["Pr(>Chibar2)"] < row["Pr(>Chisq)"]
    assert row["mixture"] == "1/2 chi2(1) + 1/2 chi2(2)"
    assert row["logLik"] == pytest.approx(
        mx.lmer("Reaction ~ Days + (1 | Subject)", SLEEP).llf, rel=1e-12
    )


def test_ranova_of_whole_terms():
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    table = fit.ranova(reduce_terms=False)
    assert list(table.index) == ["<none>", "(Days | Subject)"]
    linear = fit.lr_vs_lm().loc["linear model"]
    assert table["LRT"].iloc[1] == pytest.approx(linear["LRT"])
    assert table["npar"].iloc[1] == 3


@pytest.mark.parametrize(
    ("formula", "labels"),
    [
        ("Reaction ~ Days + (Days || Subject)", ["(1 | Subject)", "(0 + Days | Subject)"]),
        ("Reaction ~ Days + (0 + Days | Subject)", ["(0 + Days | Subject)"]),
        (
            "Reaction ~ Days + (Days + I(Days^2) | Subject)",
            ["Days in (Days + I(Days^2) | Subject)", "I(Days^2) in (Days + I(Days^2) | Subject)"],
        ),
        ("Reaction ~ Days + diag(Days | Subject)", ["Days in diag(Days | Subject)"]),
        ("Reaction ~ Days + id(Days | Subject)", ["id(Days | Subject)"]),
    ],
)
def test_what_ranova_leaves_out(formula, labels):
    fit = mx.lmer(formula, SLEEP, control=mx.Control(warn=False))
    table = fit.ranova()
    assert list(table.index) == ["<none>", *labels]
    assert (table["LRT"].iloc[1:] >= 0).all()
    assert (table["Df"].iloc[1:] > 0).all()


def test_ranova_of_nested_and_crossed_terms():
    table = corpus.fit("pastes_nested_reml").ranova()
    assert list(table.index)[1:] == ["(1 | cask:batch)", "(1 | batch)"]
    table = corpus.fit("penicillin_reml").ranova()
    assert len(table) == 3
    assert (table["mixture"].iloc[1:] == "1/2 chi2(0) + 1/2 chi2(1)").all()


def test_missing_cells_stay_out_of_the_smaller_model():
    """A column that only the larger model has does not give the smaller one more rows."""
    data = SLEEP.assign(z=np.arange(180.0) % 7)
    data.loc[[3, 50, 51], "z"] = np.nan
    quiet = mx.Control(warn=False)
    fit = mx.lmer("Reaction ~ Days + z + (1 | Subject) + (0 + z | Subject)", data, control=quiet)
    assert fit.nobs == 177
    assert fit.ranova()["LRT"].iloc[1:].ge(0).all()
    table = fit.drop1()
    small = mx.lmer(
        "Reaction ~ Days + (1 | Subject) + (0 + z | Subject)", data, reml=False, control=quiet
    )
    assert small.nobs == 177
    assert table.loc["z", "logLik"] == pytest.approx(small.llf, abs=1e-6)


# -- fixed terms ------------------------------------------------------------------------------


def test_drop1_respects_margins():
    fit = corpus.fit("ortho_ri_ml")  # distance ~ age * Sex
    table = fit.drop1()
    assert list(table.index) == ["<none>", "age:Sex"]
    with pytest.raises(mx.OptionError, match="'age' is part of an interaction"):
        fit.drop1("age")
    with pytest.raises(mx.OptionError, match="'height' is not a term"):
        fit.drop1(["height"])


@pytest.mark.parametrize("pair", corpus.load_json("lrt.json")["pairs"], ids=lambda p: p["larger"])
def test_drop1_of_reference_pairs(pair):
    """Where one fixed term makes the difference, drop1 gives lme4's chi-squared."""
    if pair["REML"] or pair["larger"] in corpus.LARGE:
        pytest.skip("another kind of pair")
    fit = corpus.fit(pair["larger"])
    smaller = corpus.fit(pair["smaller"])
    if smaller.theta_names != fit.theta_names:
        pytest.skip("the random parts differ")
    table = fit.drop1()
    match = table.iloc[1:][table["npar"].iloc[1:] == smaller.n_par]
    if not len(match):
        pytest.skip("more than one term makes the difference")
    close = np.isclose(match["LRT"], pair["chisq"], rtol=1e-5, atol=1e-5)
    assert close.any()
    assert np.isclose(match["Pr(>Chisq)"][close], pair["p"], rtol=1e-4, atol=1e-8).all()


def test_drop1_by_f():
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    table = fit.drop1(test="F")
    assert table.loc["Days", "F value"] == pytest.approx(45.853, abs=1e-3)
    assert table.loc["Days", "DenDF"] == pytest.approx(17.0, abs=1e-3)
    assert fit.drop1(test="none").columns.tolist() == ["npar", "logLik", "AIC", "Df"]
    kr = fit.drop1(test="F", ddf="kenward-roger")
    assert kr.loc["Days", "DenDF"] == pytest.approx(17.0, abs=1e-3)


# -- step -------------------------------------------------------------------------------------


def test_step():
    quiet = mx.Control(warn=False)
    fit = mx.lmer(
        "Reaction ~ Days + I(Days^2) + (1 | Subject) + (0 + Days | Subject) + (1 | Days)",
        SLEEP, control=quiet,
    )  # fmt: skip
    found = fit.step()
    assert found.random["Eliminated"].max() == 1
    assert found.random.index[found.random["Eliminated"] == 1][0] == "(1 | Days)"
    assert list(found.fixed["Eliminated"]) == [1, 0]
    assert found.formula == "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)"
    assert found.fit.reml
    assert found.fit.options.control == fit.options.control
    assert "Model found: Reaction" in repr(found)
    kept = fit.step(reduce_random=False, reduce_fixed=False)
    assert kept.formula == fit.formula
    boundary = fit.step(p="boundary")
    assert boundary.formula == found.formula


def test_step_keeps_the_last_random_term():
    rng = np.random.default_rng(1)
    data = SLEEP.assign(noise=rng.normal(size=180))
    fit = mx.lmer("noise ~ 1 + (1 | Subject)", data, control=mx.Control(warn=False))
    found = fit.step()
    assert found.formula == fit.formula
    assert not len(found.fixed)


# -- guards -----------------------------------------------------------------------------------


def test_guards():
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)
    with pytest.raises(mx.OptionError, match="'lrt', 'F', 'none'"):
        fit.drop1(test="t")
    with pytest.raises(mx.OptionError, match="alpha_fixed"):
        fit.step(alpha_fixed=5)
    with pytest.raises(mx.OptionError, match="'naive'"):
        fit.step(p="mixture")
    X = np.column_stack([np.ones(180), SLEEP["Days"]])
    bare = mx.fit_matrices(SLEEP["Reaction"], X, [(SLEEP["Subject"], X, "Subject")])
    for method in (bare.ranova, bare.drop1, bare.step):
        with pytest.raises(mx.OptionError, match="made from matrices"):
            method()
    assert bare.lr_vs_lm()["LRT"].iloc[0] == pytest.approx(fit.lr_vs_lm()["LRT"].iloc[0])


def test_step_keeps_what_it_is_told_to():
    rng = np.random.default_rng(6)
    g = np.repeat(np.arange(12), 8)
    data = pd.DataFrame({"g": g, "x": rng.normal(size=96), "a": rng.normal(size=96)})
    data["y"] = 1.0 + data["x"] + rng.normal(size=12)[g] + rng.normal(size=96)
    fit = mx.lmer("y ~ x + a + (a | g)", data, control=mx.Control(warn=False))
    free = fit.step()
    assert free.formula == "y ~ x + (1 | g)"
    assert fit.step(keep="a").formula == "y ~ x + a + (1 | g)"
    assert fit.step(keep="(a | g)").formula == "y ~ x + (a | g)"
    held = fit.step(keep=["a in (a | g)", "a"])
    assert held.formula == "y ~ x + a + (a | g)"
    assert (held.random["Eliminated"] == 0).all()
    assert (held.fixed["Eliminated"] == 0).all()
    with pytest.raises(mx.OptionError, match="there is no term 'b'"):
        fit.step(keep="b")
    with pytest.raises(mx.OptionError, match="keep"):
        fit.step(keep=5)
