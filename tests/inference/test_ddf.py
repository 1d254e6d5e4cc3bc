"""Satterthwaite's degrees of freedom, hypotheses in all their forms, and the tests of coefficients:
against lmerTest for every record that has them, and against dense differentiation.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from scipy import stats

import mixlm_sparse as mx
from mixlm_sparse import solve_pls
from mixlm_sparse.inference.fixed import coefficients
from mixlm_sparse.inference.fixed.hypotheses import read_hypotheses
from mixlm_sparse.inference.fixed.satterthwaite import joint_df, satterthwaite
from mixlm_sparse.solve.curvature import phi_scales
from tests.support import corpus
from tests.support import dense_oracle as oracle
from tests.support.corpus import LARGE, MODELS, load_json, load_model
from tests.support.strategies import designs_with_theta

DF_RTOL = 1e-3
P_ATOL = 1e-4
WITH_DF = [
    name
    for name in MODELS
    if (found := load_model(name).get("satterthwaite")) and "error" not in found
]


def ids(models):
    return [
        pytest.param(name, marks=pytest.mark.large) if name in LARGE else name for name in models
    ]


def test_number_of_references():
    assert len(WITH_DF) == 97


@pytest.mark.parametrize("model_id", ids(WITH_DF))
def test_coefficients_as_lmertest(model_id):
    expected = load_model(model_id)["satterthwaite"]
    fit = corpus.fit(model_id)
    table = fit.tidy().set_index("term")
    names = list(expected["df"])
    assert list(table.index) == names
    np.testing.assert_allclose(table["df"], list(expected["df"].values()), rtol=DF_RTOL)
    np.testing.assert_allclose(table["p_value"], list(expected["p"].values()), atol=P_ATOL)
    np.testing.assert_array_equal(fit.pvalues.to_numpy(), table["p_value"].to_numpy())


# -------------------------------------------------------------------------- dense differentiation


def at_theta(design, theta, reml=True):
    """A fit that claims theta as its optimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        fit = mx.lmer(
            design.formula, design.data, reml=reml, weights=design.weights, offset=design.offset,
            control=mx.Control(max_evaluations=3),
        )  # fmt: skip
    theta = np.asarray(theta)
    phi = fit.system.chart.phi_of_theta(theta)
    optimum = replace(fit.optimum, theta=theta, phi=phi, status="converged")
    return replace(fit, optimum=optimum, solution=solve_pls(theta, fit.system))


def dense_deviance(design, Rz, phi, sigma, reml):
    """The deviance and the covariance of beta at working parameters, T = Rz^{-1} T~."""
    working = oracle.lower_triangles(phi, design.terms)
    factors = [np.linalg.inv(R) @ T for R, T in zip(Rz, working, strict=True)]
    found = oracle.solve(design.y, design.X, design.terms, factors, **design.options, reml=reml)
    n, p = design.X.shape
    nu = n - p if reml else n
    value = found.ldL2 + nu * np.log(2 * np.pi * sigma**2) + found.pwrss / sigma**2
    return value + (found.ldRX2 if reml else 0.0), sigma**2 * found.vcov_unscaled


@settings(max_examples=12)
@given(drawn=designs_with_theta())
def test_derivatives_of_vcov_and_deviance(drawn):
    design, theta = drawn
    if theta.size > 6:
        theta_tested = range(0, theta.size, 3)
    else:
        theta_tested = range(theta.size)
    fit = at_theta(design, theta)
    curvature = fit.curvature
    phi, Rz = curvature.phi, fit.system.chart.Rz
    assert curvature.sigma == pytest.approx(fit.sigma, rel=1e-12)
    moments = satterthwaite(fit)
    scaled = moments.sigma * moments.half
    p = fit.system.p
    slopes = moments.derivatives.products[:, :p, :p]
    jacobian = [*(-scaled @ slope @ scaled.T for slope in slopes), 2.0 * moments.vcov]
    scales = np.append(phi_scales(phi, fit.system), 1.0)
    point = np.append(phi, np.log(fit.sigma))
    step = 2e-3

    def value(move):
        moved = point + move * scales
        return dense_deviance(design, Rz, moved[:-1], np.exp(moved[-1]), True)

    unit = np.eye(point.size)
    size = np.sqrt(np.outer(np.diag(moments.vcov), np.diag(moments.vcov)))
    H = curvature.hessian * np.outer(scales, scales)
    middle = value(np.zeros(point.size))[0]
    for i in [*theta_tested, point.size - 1]:
        up, down = value(step * unit[i]), value(-step * unit[i])
        slope = (up[1] - down[1]) / (2 * step)
        np.testing.assert_allclose(jacobian[i] * scales[i] / size, slope / size, atol=1e-4)
        second = (up[0] - 2 * middle + down[0]) / step**2
        assert H[i, i] == pytest.approx(second, rel=1e-3, abs=1e-3 * max(1.0, H[-1, -1] / 100))
        last = point.size - 1
        if i < last:
            mixed = [
                value(step * (a * unit[i] + b * unit[last]))[0] for a in (1, -1) for b in (1, -1)
            ]
            cross = (mixed[0] - mixed[1] - mixed[2] + mixed[3]) / (4 * step**2)
            assert H[i, last] == pytest.approx(cross, rel=1e-3, abs=1e-3 * H[-1, -1])


def test_unit_of_response_and_predictor_do_not_matter():
    frame = corpus.load_data("sleepstudy")
    frame["far"] = 1e5 * frame["Days"]
    frame["tiny"] = 1e-7 * frame["Reaction"]
    base = mx.lmer("Reaction ~ Days + (Days | Subject)", frame).df_coefficients()
    other = mx.lmer("tiny ~ far + (far | Subject)", frame).df_coefficients()
    np.testing.assert_allclose(other.to_numpy(), base.to_numpy(), rtol=1e-5)


def test_singular_fit_counts_only_what_varies():
    """A variance of zero leaves the model without that term: the degrees of freedom say so."""
    fit = corpus.fit("dyestuff2_ml")
    assert fit.is_singular()
    assert fit.df_coefficients()["(Intercept)"] == pytest.approx(fit.nobs, rel=1e-6)


def test_rank_deficient_fit_has_tests_of_what_is_kept():
    fit = corpus.fit("sleep_rankdef")
    table = fit.tidy()
    assert len(table) == fit.system.p < len(fit.matrices.fixed.names)
    assert np.isfinite(table["p_value"]).all()


def test_joint_df():
    assert joint_df(np.array([7.0])) == 7.0
    assert joint_df(np.array([12.0, 12.0])) == 12.0
    E = 5 / 3 + 9 / 7
    assert joint_df(np.array([5.0, 9.0])) == pytest.approx(2 * E / (E - 2))
    assert joint_df(np.array([1.5, 9.0])) == 2.0
    assert joint_df(np.array([np.inf, 9.0])) == pytest.approx(2 * (2 + 2 / 7) / (2 / 7))
    assert np.isnan(joint_df(np.array([])))


# ------------------------------------------------------------------------------------- hypotheses

NAMES = ("(Intercept)", "Days", "fB", "fC", "Days:fB", "I(x^2)", "poly(x, 2)1", "fa b")


@pytest.mark.parametrize(
    ("text", "weights", "rhs"),
    [
        ("Days", {"Days": 1}, 0),
        ("Days = 0", {"Days": 1}, 0),
        ("Days == 2.5", {"Days": 1}, 2.5),
        ("fB - fC", {"fB": 1, "fC": -1}, 0),
        ("-fB+fC = 1e1", {"fB": -1, "fC": 1}, 10),
        ("2*Days:fB = Days", {"Days:fB": 2, "Days": -1}, 0),
        ("2 Days = 3", {"Days": 2}, 3),
        ("(Intercept) + (fB + fC)/2", {"(Intercept)": 1, "fB": 0.5, "fC": 0.5}, 0),
        ("I(x^2) - poly(x, 2)1", {"I(x^2)": 1, "poly(x, 2)1": -1}, 0),
        ("`fa b` = 1 + 1", {"fa b": 1}, 2),
        ("3 = Days", {"Days": -1}, -3),
        ("-(fB - fC)*2", {"fB": -2, "fC": 2}, 0),
    ],
)
def test_text(text, weights, rhs):
    found = read_hypotheses(text, NAMES)
    expected = np.array([weights.get(name, 0.0) for name in NAMES])
    np.testing.assert_allclose(found.L[0], expected)
    assert found.rhs[0] == pytest.approx(rhs)


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ("Dais = 0", r"no coefficient 'Dais' \(did you mean 'Days'\?\)"),
        ("Days2", "no coefficient 'Days2'"),
        ("Days * fB", "not linear"),
        ("Days / fB", "divisor"),
        ("Days /0", "divisor"),
        ("(Days", "not closed"),
        ("Days =", "ends too early"),
        ("Days fB", "unexpected 'fB'"),
        ("1 = 1", "names no coefficient"),
        ("`Days", "backtick"),
        ({"Dais": 1}, "did you mean 'Days'"),
        ({"Days": "much"}, "give a number"),
        ([1.0, 2.0], "2 columns, the model has 8 coefficients"),
        (np.zeros((2, 3)), "3 columns"),
        ([[np.nan] * 8], "missing or infinite"),
        (["Days", 3], "no hypothesis"),
        (object(), "the contrast is .*give a matrix"),
        (pd.DataFrame({"Dais": [1.0]}), "did you mean 'Days'"),
    ],
)
def test_hypotheses_that_cannot_be_read(given_, says):
    with pytest.raises(mx.OptionError, match=says):
        read_hypotheses(given_, NAMES)


def test_rhs_once():
    with pytest.raises(mx.OptionError, match="rhs is given twice"):
        read_hypotheses("Days = 1", NAMES, rhs=2.0)
    with pytest.raises(mx.OptionError, match="for 1 hypotheses"):
        read_hypotheses("Days", NAMES, rhs=[1.0, 2.0])


def test_frame_and_series():
    frame = pd.DataFrame({"fB": [1.0], "fC": [-1.0]}, index=["B against C"])
    found = read_hypotheses(frame, NAMES)
    assert found.labels == ("B against C",)
    again = read_hypotheses(pd.Series({"fB": 1.0, "fC": -1.0}), NAMES)
    np.testing.assert_array_equal(found.L, again.L)


# ---------------------------------------------------------------------------------------- contest


def test_single_contrast():
    fit = corpus.fit("sleep_rs_reml")
    row = fit.contest("Days = 10", joint=False).iloc[0]
    error = fit.bse["Days"]
    assert row["estimate"] == pytest.approx(fit.fixef["Days"])
    assert row["statistic"] == pytest.approx((fit.fixef["Days"] - 10) / error)
    assert row["df"] == pytest.approx(17.0, rel=1e-5)
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(row["statistic"], 17), rel=1e-4)
    assert row["lower"] == pytest.approx(row["estimate"] - stats.t.ppf(0.975, 17) * error)
    joint = fit.contest({"Days": 1.0}, rhs=10.0).iloc[0]
    assert joint["F value"] == pytest.approx(row["statistic"] ** 2)
    assert joint["Pr(>F)"] == pytest.approx(row["p_value"])


def test_repeated_rows_change_nothing():
    fit = corpus.fit("cake_reml")
    names = list(fit.fixef.index)
    once = fit.contest([names[1], names[2]])
    twice = fit.contest([names[1], names[2], f"{names[1]} - {names[2]}"])
    assert int(twice["NumDF"].iloc[0]) == 2
    assert twice["F value"].iloc[0] == pytest.approx(once["F value"].iloc[0])


def test_methods_of_contest():
    fit = corpus.fit("sleep_rs_reml")
    normal = fit.contest("Days", ddf="normal").iloc[0]
    assert normal["DenDF"] == np.inf
    assert normal["Pr(>F)"] == pytest.approx(stats.chi2.sf(normal["F value"], 1))
    none = fit.contest("Days", ddf=None, joint=False).iloc[0]
    assert np.isnan(none["p_value"])
    with pytest.raises(mx.OptionError, match=r"ddf is 'sattertwaite' .* one of 'satterthwaite'"):
        fit.contest("Days", ddf="sattertwaite")
    with pytest.raises(mx.OptionError, match="nothing to test"):
        fit.contest([0.0, 0.0])


@pytest.mark.parametrize(
    ("short", "name"),
    [("sat", "satterthwaite"), ("KR", "kenward-roger"), ("Kenward", "kenward-roger")],
)
def test_beginnings_of_a_method_are_its_name(short, name):
    fit = corpus.fit("sleep_rs_reml")
    pd.testing.assert_frame_equal(fit.contest("Days", ddf=short), fit.contest("Days", ddf=name))
    with pytest.raises(mx.OptionError, match="ddf is 'n'"):
        fit.contest("Days", ddf="n")  # normal or none


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.1, "0.95", True])
def test_level_outside(level):
    fit = corpus.fit("sleep_rs_reml")
    for call in (fit.conf_int, lambda level: fit.contest("Days", level=level)):
        with pytest.raises(mx.OptionError, match=r"level is .*: use a number between 0 and 1"):
            call(level=level)


def test_conf_int():
    fit = corpus.fit("sleep_rs_reml")
    record = load_model("sleep_rs_reml")["confint_wald"]
    np.testing.assert_allclose(fit.conf_int(ddf="normal")["lower"], record["lower"], rtol=1e-5)
    wide = fit.conf_int(ddf="satterthwaite")
    np.testing.assert_allclose(
        wide["upper"] - fit.fixef, stats.t.ppf(0.975, fit.df_coefficients()) * fit.bse, rtol=1e-10
    )


def test_intervals_agree_with_the_tests_of_the_summary():
    data = mx.datasets.load("sleepstudy")
    some = data[data["Subject"].astype(str).isin(["308", "309", "310", "335", "370"])]
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", some)
    p = float(fit.pvalues["Days"])
    estimate = float(fit.fixef["Days"])
    near = fit.conf_int(alpha=p).loc["Days"]
    assert min(abs(near["lower"]), abs(near["upper"])) < 1e-8 * abs(estimate)
    pd.testing.assert_frame_equal(fit.conf_int(level=0.9), fit.conf_int(alpha=0.1))
    tidy = fit.tidy(conf_int=True)
    np.testing.assert_allclose(tidy["conf_low"], fit.conf_int()["lower"])
    assert "95% Wald intervals by Satterthwaite" in repr(fit.conf_int())
    with pytest.raises(mx.OptionError, match="give one of them"):
        fit.conf_int(level=0.9, alpha=0.1)
    with pytest.raises(TypeError, match="takes no argument by place"):
        fit.conf_int(0.05)  # statsmodels' alpha is no level


# ------------------------------------------------------------------------------------------- Wald


def test_wald_chi2_as_stata_prints_it():
    """Stata prints these for the same models, from optima that stop about 1e-5 short."""
    asian = corpus.fit("pub_asian_ml").wald_test().iloc[0]
    assert (asian["chi2"], asian["df"]) == (pytest.approx(2471.22, abs=0.06), 5)
    gcse = corpus.fit("pub_gcse_reml").wald_test().iloc[0]
    assert (gcse["chi2"], gcse["df"]) == (pytest.approx(768.50, abs=0.06), 1)
    printed = {
        (m["id"], v["name"]): v["printed"]
        for m in load_json("published.json")["models"]
        for v in m["values"]
        if v["name"].startswith("Wald chi2")
    }
    assert printed == {("asian_ml", "Wald chi2(5)"): 2471.22, ("gcse_reml", "Wald chi2(1)"): 768.5}


def test_wald_of_a_hypothesis():
    fit = corpus.fit("sleep_rs_reml")
    row = fit.wald_test("Days = 10").iloc[0]
    assert row["chi2"] == pytest.approx(((fit.fixef["Days"] - 10) / fit.bse["Days"]) ** 2)
    with pytest.raises(mx.OptionError, match="no coefficient but the intercept"):
        corpus.fit("dyestuff_reml").wald_test()


# ---------------------------------------------------------------------------------------- summary


def test_summary_shows_the_method():
    fit = corpus.fit("sleep_rs_reml")
    assert "(t tests with Satterthwaite's degrees of freedom)" in fit.summary()
    normal = fit.summary(ddf="normal")
    assert "z value" in normal
    assert "Pr(>|z|)" in normal
    plain = fit.summary(ddf=None)
    assert "Pr(" not in plain
    assert "Fixed effects:" in plain
    assert "Kenward-Roger's covariance" in fit.summary(ddf="kenward-roger")


def test_costly_degrees_of_freedom_are_left_out_and_named(monkeypatch):
    monkeypatch.setattr(coefficients, "DEFAULT_WORK", -1.0)
    text = " ".join(corpus.fit("sleep_ri_reml").summary().split())
    # none if another test has asked for them before
    said = r"Satterthwaite's would take about \de\+\d\d operations here; ask for them with"
    assert re.search(said, text)
    assert "Pr(" not in text


@pytest.mark.large
def test_a_large_crossed_model_has_tests():
    fit = corpus.fit("insteval_ml")
    p = fit.pvalues
    assert list(p.index) == list(fit.fixef.index)
    assert p.between(0.0, 1.0).all()
    assert p["(Intercept)"] < 1e-10


def test_perfect_fit_has_nothing_to_test():
    frame = pd.DataFrame({"x": np.tile(np.arange(5.0), 10), "g": np.repeat(np.arange(10), 5)})
    frame["y"] = 2.0 * frame["x"] + 1.0
    fit = mx.lmer("y ~ x + (1 | g)", frame, control=mx.Control(warn=False))
    assert fit.perfect
    assert fit.tidy()["p_value"].isna().all()
    assert "Pr(" not in fit.summary()
    assert fit.augment()[".std_resid"].isna().all()
    for call in (fit.anova, fit.wald_test, lambda: fit.contest("x")):
        with pytest.raises(mx.DataError, match="no error variance to test them against"):
            call()


def test_models_without_or_with_one_coefficient():
    data = corpus.load_data("Dyestuff")
    none = mx.lmer("Yield ~ 0 + (1 | Batch)", data)
    assert none.tidy(ddf="kenward-roger").empty
    assert none.pvalues.empty
    one = mx.lmer("Yield ~ 1 + (1 | Batch)", data)
    assert one.emmeans([]).to_frame()["emmean"].tolist() == pytest.approx([1527.5])
