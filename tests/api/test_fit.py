"""The fitted object: stages, random effects, rows, warnings, edge cases.

Numbers of the whole corpus are compared in `test_lme4_parity.py`; here it is what can be done with
a fit.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support import corpus

SLEEP = "Reaction ~ Days + (Days | Subject)"
REML_CRITERION = 1743.6282719584908  # lme4, tight optimum

# ------------------------------------------------------------------------------------------ basics


def test_numbers_of_sleepstudy(fit):
    assert fit.criterion == pytest.approx(REML_CRITERION, abs=1e-7)
    assert fit.deviance == fit.criterion
    assert fit.llf == pytest.approx(-871.81413597924541, abs=1e-7)
    assert fit.aic == pytest.approx(1755.6282719584908, abs=1e-7)
    assert fit.bic == pytest.approx(1774.7860130638321, abs=1e-7)
    assert (fit.nobs, fit.n_par, fit.df_resid) == (180, 6, 174)
    assert fit.ngroups == {"Subject": 18}
    assert fit.scale == pytest.approx(25.591815629283317**2, rel=1e-6)
    assert fit.params.equals(fit.fixef)
    np.testing.assert_allclose(fit.tvalues, fit.fixef / fit.bse)
    assert fit.convergence.converged
    assert fit.convergence.status == "converged"
    assert not fit.is_singular()
    assert fit.messages == ()
    assert (fit.convergence.hessian_eigenvalues > 0).all()


def test_a_fit_does_not_change(fit):
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.formula = "y ~ x + (1 | g)"


def test_nothing_is_computed_before_it_is_asked_for(sleep):
    fresh = mx.lmer(SLEEP, sleep)
    assert not {"varcorr", "fitted_used", "_leverage", "convergence"} & set(vars(fresh))
    assert fresh.varcorr is fresh.varcorr


def test_stages_give_what_lmer_gives(sleep, fit):
    formula = mx.parse_formula(SLEEP)
    system = mx.penalized_system(mx.model_matrices(formula, sleep))
    optimum = mx.optimize(system, reml=True)
    made = mx.make_fit(system, optimum, formula=formula)
    assert isinstance(made, mx.LinearMixedFit)
    # one search may be compiled and the other not: both end within the tolerance of the search
    np.testing.assert_allclose(made.theta, fit.theta, rtol=1e-5)
    assert made.criterion == pytest.approx(fit.criterion, abs=1e-9)
    assert made.formula == SLEEP
    assert mx.make_fit(system, optimum).formula == "Reaction ~ 1 + Days + (1 + Days | Subject)"


def test_formula_may_be_parsed(sleep, fit):
    parsed = mx.lmer(mx.parse_formula(SLEEP), sleep)
    assert parsed.criterion == pytest.approx(fit.criterion, abs=1e-9)


def test_deviance_function(sleep):
    deviance = mx.deviance_function(SLEEP, sleep, reml=False)
    assert deviance([1.0, 0.0, 1.0]) == pytest.approx(1784.642296192436, abs=1e-8)
    np.testing.assert_array_equal(deviance.theta0, [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(deviance.lower, [0.0, -np.inf, 0.0])
    theta = np.array([0.9, 0.1, 0.3])
    steps = 1e-5 * np.eye(3)
    numeric = [(deviance(theta + h) - deviance(theta - h)) / 2e-5 for h in steps]
    np.testing.assert_allclose(deviance.gradient(theta), numeric, rtol=1e-6)
    parts = deviance.parts(theta)
    assert parts["wrss"] + parts["ussq"] == pytest.approx(parts["pwrss"])
    assert set(parts) == {"ldL2", "ldRX2", "wrss", "ussq", "pwrss", "beta"}


# ---------------------------------------------------------------------------------- random effects


def test_terms_of_one_factor_share_a_table():
    fit = corpus.fit("sleep_uncorr_reml")
    record = corpus.load_model("sleep_uncorr_reml")
    effects, variances = fit.ranef(cond_var=True)
    frame = effects["Subject"]
    assert list(frame.columns) == ["(Intercept)", "Days"]
    for column, term in zip(frame.columns, record["random_terms"], strict=True):
        np.testing.assert_allclose(frame[column], np.array(term["ranef"])[:, 0], atol=1e-3)
    # between two terms of a factor the conditional covariance is not zero, although the prior is
    C = fit.getME("L").toarray()
    C = C @ C.T
    joint = fit.scale * fit.getME("Lambda") @ np.linalg.inv(C) @ fit.getME("Lambdat").toarray()
    q = len(frame)
    np.testing.assert_allclose(variances["Subject"][3, 0, 1], joint[3, q + 3], rtol=1e-8)
    assert abs(variances["Subject"][3, 0, 1]) > 1.0


def test_coefficients_of_each_level(fit):
    coef, effects = fit.coef()["Subject"], fit.ranef()["Subject"]
    np.testing.assert_allclose(coef["Days"], fit.fixef["Days"] + effects["Days"])
    np.testing.assert_allclose(coef["(Intercept)"], fit.fixef["(Intercept)"] + effects.iloc[:, 0])
    alone = corpus.fit("sleep_rs0_ml").coef()["Subject"]
    assert list(alone.columns) == ["Days", "(Intercept)"]
    np.testing.assert_allclose(alone["Days"], corpus.fit("sleep_rs0_ml").ranef()["Subject"]["Days"])
    crossed = corpus.fit("penicillin_ml").coef()
    assert set(crossed) == {"plate", "sample"}
    assert crossed["sample"].shape == (6, 1)


def test_varcorr(fit):
    record = corpus.load_model("sleep_rs_reml")["random_terms"][0]
    assert list(fit.varcorr) == ["Subject"]
    assert len(fit.varcorr) == 1
    frame = fit.varcorr["Subject"]
    np.testing.assert_allclose(frame.to_numpy(), record["cov"], rtol=1e-4)
    assert list(frame.columns) == ["(Intercept)", "Days"]
    table = fit.varcorr.to_frame()
    assert table["grp"].tolist() == ["Subject", "Subject", "Subject", "Residual"]
    assert table["var1"].tolist()[:3] == ["(Intercept)", "Days", "(Intercept)"]
    assert table["var2"].tolist()[2] == "Days"
    assert table["sdcor"][2] == pytest.approx(record["corr"][0][1], abs=1e-4)
    triangle = fit.varcorr.to_frame(order="lower.tri")
    assert triangle["var2"].tolist()[1] == "Days"
    with pytest.raises(mx.OptionError, match="use one of 'Subject'"):
        fit.varcorr["Days"]


# -------------------------------------------------------------------------------------------- rows


def test_rows_that_were_left_out():
    frame = corpus.load_data("sleepstudy")
    frame.loc[[3, 5], "Reaction"] = np.nan
    omit = mx.lmer(SLEEP, frame)
    exclude = mx.lmer(SLEEP, frame, na_action="exclude")
    assert omit.nobs == exclude.nobs == 178
    assert len(omit.fittedvalues) == 178
    for values in (
        exclude.fittedvalues,
        exclude.resid,
        exclude.residuals("pearson", scaled=True),
        exclude.hatvalues(),
        exclude.cooks_distance(),
    ):
        assert values.shape == (180,)
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), [3, 5])
    np.testing.assert_array_equal(exclude.resid[~np.isnan(exclude.resid)], omit.resid)
    # a response of either length can be fitted again
    y = np.arange(180.0) % 7
    np.testing.assert_allclose(
        exclude.refit(y).criterion, exclude.refit(np.delete(y, [3, 5])).criterion
    )
    with pytest.raises(mx.DataError, match="'Reaction' \\(2\\)"):
        mx.lmer(SLEEP, frame, na_action="raise")


def test_residuals_with_weights():
    fit = corpus.fit("sleep_w_reml")
    w = corpus.load_data("sleepstudy_ext")["w"].to_numpy()
    response = fit.residuals()
    np.testing.assert_array_equal(response, fit.resid)
    np.testing.assert_array_equal(fit.residuals("working"), response)
    np.testing.assert_allclose(fit.residuals("pearson"), np.sqrt(w) * response)
    np.testing.assert_allclose(fit.residuals("deviance"), np.sqrt(w) * response)
    np.testing.assert_allclose(
        fit.residuals("pearson", scaled=True), np.sqrt(w) * response / fit.sigma
    )
    with pytest.raises(mx.OptionError, match="use one of 'response', 'pearson'"):
        fit.residuals("student")


def test_leverage_and_cook(fit):
    h = fit.hatvalues()
    X, Z, L = fit.getME("X"), fit.getME("Z").toarray(), fit.getME("Lambda").toarray()
    V = Z @ L @ L.T @ Z.T + np.eye(180)
    Vinv = np.linalg.inv(V)
    P = Vinv - Vinv @ X @ np.linalg.solve(X.T @ Vinv @ X, X.T @ Vinv)
    np.testing.assert_allclose(h, np.diag(np.eye(180) - P), atol=1e-10)
    cook = (fit.resid / (1 - h)) ** 2 * h / (fit.scale * 2)
    np.testing.assert_allclose(fit.cooks_distance(), cook)


# --------------------------------------------------------------------------- warnings and statuses


def test_singular_fit_warns_once_with_reason_and_remedy():
    data = corpus.load_data("Dyestuff2")
    with pytest.warns(mx.SingularFitWarning) as caught:
        fit = mx.lmer("Yield ~ 1 + (1 | Batch)", data)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "variance of (Intercept) by Batch is estimated as zero" in message
    assert "drop the effect" in message
    assert caught[0].filename == __file__
    assert fit.messages == (message,)
    assert fit.is_singular()
    assert fit.convergence.status == "singular"
    assert fit.convergence
    assert fit.criterion == pytest.approx(161.8283, abs=1e-4)
    silent = mx.lmer("Yield ~ 1 + (1 | Batch)", data, control=mx.Control(warn=False))
    assert silent.messages == (message,)


def test_singular_correlation_is_named():
    text = corpus.fit("pub_rikz_rs_ml").messages[0]
    assert "the correlation of (Intercept) and NAP by Beach is estimated as -1" in text
    assert "(x || g)" in text
    assert "the variance of ses by schoolNR" in corpus.fit("bdf_many_ml").messages[0]
    assert "vary in 3 directions only" in corpus.fit("sim_vector3_ml").messages[0]


def test_singularity_does_not_depend_on_units_and_origins(sleep):
    for days in (sleep["Days"] * 1e6, sleep["Days"] / 1e6, sleep["Days"] + 1000):
        fit = mx.lmer(SLEEP, sleep.assign(Days=days), control=mx.Control(warn=False))
        assert not fit.is_singular()
        assert fit.messages == ()
    weighted = mx.lmer(SLEEP, sleep, weights=np.full(180, 1e12))
    assert not weighted.is_singular()


def test_dropped_columns_are_named(sleep):
    with pytest.warns(mx.RankDeficiencyWarning, match=r"dropped 1 column \(I\(2 \* Days\)\)"):
        fit = mx.lmer("Reaction ~ Days + I(2 * Days) + (1 | Subject)", sleep)
    assert list(fit.fixef.index) == ["(Intercept)", "Days"]
    assert fit.getME("X").shape == (180, 2)


def test_scales(sleep):
    rng = np.random.default_rng(0)
    frame = sleep.assign(income=rng.normal(0, 3e6, 180), share=rng.normal(0, 1e-3, 180))
    with pytest.warns(mx.ScalingWarning, match=r"0\.00\d+ of share.* of income.*scale\(income\)"):
        mx.lmer("Reaction ~ income + share + (1 | Subject)", frame)
    # raw polynomials of ordinary predictors are nothing to warn about
    mx.lmer("Reaction ~ Days + I(Days^2) + I(Days^3) + (1 | Subject)", sleep)


def test_search_that_is_cut_short(sleep):
    with pytest.warns(mx.ConvergenceWarning, match=r"stopped after \d+ evaluations.*raise"):
        control = mx.Control(max_evaluations=2)
        fit = mx.lmer(SLEEP, sleep, start=[1.0, 0.0, 1.0], control=control)
    assert fit.convergence.status == "evaluation limit"
    assert not fit.convergence
    assert "max_evaluations" in fit.convergence.advice


@pytest.mark.parametrize("formula", [SLEEP, "Reaction ~ 1 + (1 | Subject)"])
def test_constant_response(sleep, formula):
    with pytest.warns(mx.ConvergenceWarning, match="perfect fit"):
        fit = mx.lmer(formula, sleep.assign(Reaction=5.0))
    assert fit.sigma == 0.0
    assert fit.criterion == -np.inf
    assert fit.llf == np.inf
    assert fit.fixef["(Intercept)"] == pytest.approx(5.0)
    np.testing.assert_allclose(fit.fittedvalues, 5.0)
    np.testing.assert_array_equal(fit.bse, 0.0)
    assert np.isnan(fit.tvalues).all()
    assert fit.convergence.status == "perfect fit"
    assert "perfect fit" in fit.summary()
    assert "perfect fit" in repr(fit.convergence)


def test_fixed_effects_that_fit_exactly(sleep):
    fit = corpus.quiet(mx.lmer, SLEEP, sleep.assign(Reaction=3.0 + 2.0 * sleep["Days"]))
    np.testing.assert_allclose(fit.fixef, [3.0, 2.0])
    assert fit.sigma == 0.0
    assert not np.isnan(fit.fittedvalues).any()
    np.testing.assert_array_equal(fit.varcorr["Subject"], np.zeros((2, 2)))


def test_random_effects_that_fit_exactly(sleep):
    b = np.random.default_rng(0).standard_normal(18)[sleep["Subject"].cat.codes]
    exact = sleep.assign(Reaction=3.0 + 2.0 * sleep["Days"] + b)
    with pytest.warns(mx.ConvergenceWarning, match="no residual: .*sigma is zero beside them"):
        fit = mx.lmer("Reaction ~ Days + (1 | Subject)", exact)
    assert np.sqrt(fit.varcorr["Subject"].iloc[0, 0]) == pytest.approx(np.std(b[::10], ddof=1))
    np.testing.assert_allclose(fit.fittedvalues, exact["Reaction"], atol=1e-5)
    assert fit.fixef["Days"] == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": [1.0, 1.0]}, r"start has 2 values.*Subject\.Days\.\(Intercept\)"),
        ({"optimizer": "nelder"}, "optimizer is 'nelder': use one of 'auto', 'bfgs'"),
        ({"engine": "dense"}, "engine is 'dense': use one of 'auto', 'blocked'"),
        ({"na_action": "drop"}, "na_action is 'drop': use one of 'omit', 'exclude', 'raise'"),
        ({"control": {"warn": False}}, r"control is {'warn': False}: use mx\.Control"),
        ({"reml": "ML"}, "reml is 'ML': use True"),
    ],
)
def test_options(sleep, options, message):
    with pytest.raises(mx.OptionError, match=message):
        mx.lmer(SLEEP, sleep, **options)


def test_level_of_an_interval(fit):
    with pytest.raises(mx.OptionError, match="between 0 and 1"):
        fit.conf_int(level=95)
    narrow, wide = fit.conf_int(level=0.5), fit.conf_int(alpha=0.01)
    assert (narrow["lower"] > wide["lower"]).all()


def test_progress_is_reported_and_can_stop_the_fit(sleep):
    seen = []
    mx.lmer(SLEEP, sleep, progress=lambda i, value, theta: seen.append((i, value, theta.shape)))
    assert [i for i, *_ in seen] == list(range(1, len(seen) + 1))
    assert min(value for _, value, _ in seen) == pytest.approx(REML_CRITERION, abs=1e-6)
    assert seen[0][2] == (3,)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mx.lmer(SLEEP, sleep, progress=stop)


def test_a_singular_status_is_of_one_kind(fit):
    """A search may end inside where the fit sees a variance of nearly nothing."""
    found = fit.convergence
    assert found.status == "converged"
    seen = dataclasses.replace(found, singular=("the variance of Days is estimated as zero",))
    assert seen.status == "singular"
    assert type(seen.status) is type(found.status)
