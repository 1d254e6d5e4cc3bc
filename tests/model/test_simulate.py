"""Simulated responses: the linear map of the normals is checked exactly, not by eye."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.model.draws import seed_sequence
from mixlm_sparse.model.simulate import model_of_fit, model_of_parameters
from tests.model.test_predict import crossed_data, quiet_fit
from tests.support import corpus

FORMULA = "y ~ x + f + (x | g) + (1 | h)"


@pytest.fixture(scope="module")
def data():
    return crossed_data()


@pytest.fixture(scope="module")
def fit(data):
    return quiet_fit(FORMULA, data, weights="w", offset="o")


def linear_map(model):
    """The mean, and the matrix that maps all normals, u then e, to a response."""
    sizes = [(p.n_levels, p.factor.shape[0]) for p in model.terms]
    total = sum(L * k for L, k in sizes) + model.n
    identity = np.eye(total)
    u, at = [], 0
    for L, k in sizes:
        u.append(identity[at : at + L * k].reshape(L, k, total))
        at += L * k
    columns = model.responses(u, identity[at:])
    return model.mean, columns - model.mean[:, None]


def dense_covariance(fit):
    """sigma^2 (Z Lambda Lambda'Z' + W^-1) from lme4's components, dense."""
    ZL = np.asarray((fit.getME("Z") @ fit.getME("Lambda")).todense())
    w = np.ones(fit.nobs) if fit.matrices.weights is None else fit.matrices.weights
    return fit.scale * (ZL @ ZL.T + np.diag(1.0 / w))


@pytest.mark.parametrize("model", [
    "sleep_rs_ml", "sleep_w_off_ml", "sleep_uncorr_reml", "pastes_nested_reml", "penicillin_ml",
    "cake_reml", "machines_vec_reml", "sleep_log",
])  # fmt: skip
def test_mean_and_covariance_are_those_of_the_model(model):
    fit = corpus.fit(model)
    response, _ = model_of_fit(fit)
    mean, A = linear_map(response)
    scale = fit.scale
    assert mean == pytest.approx(fit.predict(re_form="population"))
    np.testing.assert_allclose(A @ A.T, dense_covariance(fit), atol=1e-10 * scale, rtol=1e-10)


def test_weights_divide_the_residual_variance(fit, data):
    held, _ = model_of_fit(fit, "fitted")
    mean, A = linear_map(held)
    assert mean == pytest.approx(fit.fittedvalues)
    np.testing.assert_allclose(A @ A.T, np.diag(fit.scale / data["w"]), atol=1e-14)


def test_a_term_can_be_held_while_others_are_drawn(fit, data):
    held, _ = model_of_fit(fit, "~ (1 | h)")
    mean, A = linear_map(held)
    assert mean == pytest.approx(fit.predict(re_form="~ (1 | h)"))
    z = np.column_stack([np.ones(len(data)), data["x"]])
    same = np.equal.outer(data["g"].to_numpy(), data["g"].to_numpy())
    expected = same * (z @ fit.varcorr["g"].to_numpy() @ z.T) + np.diag(fit.scale / data["w"])
    np.testing.assert_allclose(A @ A.T, expected, atol=1e-12)
    with pytest.raises(OptionError, match="'g' and not others"):
        fit.simulate(re_form="~ (1 | g)")


def test_the_random_effects_are_drawn_first_then_the_residuals(fit):
    response, _ = model_of_fit(fit)
    rng = np.random.Generator(np.random.PCG64DXSM(seed_sequence(8)).jumped(2))
    u = [rng.standard_normal((p.n_levels, p.factor.shape[0]))[..., None] for p in response.terms]
    e = rng.standard_normal(fit.nobs)[:, None]
    third = fit.simulate(3, seed=8)[:, 2:]
    assert third == pytest.approx(response.responses(u, e), rel=1e-13)


def test_a_seed_gives_the_same_responses_by_any_engine(data):
    one = quiet_fit(FORMULA, data, engine="blocked")
    try:
        other = quiet_fit(FORMULA, data, engine="cholmod")
    except mx.EngineError as error:
        pytest.skip(str(error))
    # the optima agree to the tolerance of the search only: take one theta
    other = replace(other, optimum=one.optimum, solution=mx.solve_pls(one.theta, other.system))
    np.testing.assert_allclose(one.simulate(3, seed=5), other.simulate(3, seed=5), rtol=1e-9)


def test_response_i_does_not_depend_on_how_many_are_drawn(fit):
    many = fit.simulate(5, seed=3)
    assert np.array_equal(many[:, :2], fit.simulate(2, seed=3))
    assert not np.array_equal(many[:, 0], many[:, 1])
    assert not np.array_equal(many, fit.simulate(5, seed=4))
    from_root = fit.simulate(5, seed=np.random.SeedSequence(3))
    assert np.array_equal(many, from_root)
    generator = fit.simulate(2, seed=np.random.default_rng(1))
    assert np.array_equal(generator, fit.simulate(2, seed=np.random.default_rng(1)))


def test_new_rows_know_old_groups_and_draw_new_ones(fit, data):
    new = data.iloc[:6].assign(g=["p", "p", "q", "1", "1", "q"], y=0.0)
    response, _ = model_of_fit(fit, newdata=new)
    mean, A = linear_map(response)
    assert mean == pytest.approx(fit.predict(new, "population"))
    z = np.column_stack([np.ones(6), new["x"]])
    g = np.equal.outer(new["g"].to_numpy(), new["g"].to_numpy())
    h = np.equal.outer(new["h"].to_numpy(), new["h"].to_numpy())
    expected = g * (z @ fit.varcorr["g"].to_numpy() @ z.T) + h * fit.varcorr["h"].iloc[0, 0]
    np.testing.assert_allclose(A @ A.T, expected + np.diag(fit.scale / new["w"]), atol=1e-12)
    with pytest.raises(DataError, match="'p', 'q' of 'g'"):
        fit.simulate(newdata=new, re_form="fitted")
    assert fit.simulate(2, newdata=new, re_form="fitted", allow_new_levels=True).shape == (6, 2)
    holes = new.assign(x=[np.nan, *new["x"][1:]])
    assert np.isnan(fit.simulate(2, newdata=holes, seed=1)[0]).all()


def test_given_parameters(data):
    sleep = mx.datasets.load("sleepstudy")
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    formula = "~ Days + (Days | Subject)"
    by_theta = mx.simulate(formula, sleep, beta=fit.fixef, theta=fit.theta, sigma=fit.sigma,
                           nsim=3, seed=2)  # fmt: skip
    np.testing.assert_allclose(by_theta, fit.simulate(3, seed=2), rtol=1e-12)
    by_cov = mx.simulate(formula, sleep.drop(columns="Reaction"), beta=fit.fixef.to_numpy(),
                         cov={"Subject": fit.varcorr["Subject"]}, sigma=fit.sigma, nsim=3, seed=2)
    np.testing.assert_allclose(by_cov, by_theta, rtol=1e-9)
    matrices = mx.model_matrices("y ~ x + (x | g) + (1 | h)", data, weights="w")
    from mixlm_sparse.model.simulate import given_parameters

    parameters = given_parameters(
        matrices, beta=[1.0, 2.0], sd={"g": [0.5, 0.3], "h": 0.2}, sigma=0.7
    )
    mean, A = linear_map(model_of_parameters(matrices, parameters))
    assert mean == pytest.approx(1.0 + 2.0 * data["x"].to_numpy())
    z = np.column_stack([np.ones(len(data)), data["x"]]) * [0.5, 0.3]
    g = np.equal.outer(data["g"].to_numpy(), data["g"].to_numpy())
    h = np.equal.outer(data["h"].to_numpy(), data["h"].to_numpy())
    expected = g * (z @ z.T) + 0.04 * h + np.diag(0.49 / data["w"])
    np.testing.assert_allclose(A @ A.T, expected, atol=1e-13)


def test_a_singular_covariance_can_be_given():
    plan = pd.DataFrame({"x": np.tile([0.0, 1.0], 10), "g": np.repeat(list("abcde"), 4)})
    flat = np.array([[1.0, 0.5], [0.5, 0.25]])
    y = mx.simulate("~ x + (x | g)", plan, beta=[0, 0], cov={"g": flat}, sigma=1e-9, seed=1)[:, 0]
    # the slope is half of the intercept
    assert y[1::2] == pytest.approx(1.5 * y[::2], abs=1e-6)
    zero = mx.simulate("~ x + (x | g)", plan, beta=[0, 1], sd={"g": [0, 0]}, sigma=1e-9, seed=1)
    assert zero[:, 0] == pytest.approx(plan["x"].to_numpy(), abs=1e-6)


@pytest.mark.parametrize(("changes", "words"), [
    ({"beta": [1.0]}, r"2 numbers.*'\(Intercept\)', 'x'"),
    ({"beta": {"x": 1.0}}, r"lacks '\(Intercept\)'"),
    ({"beta": {"(Intercept)": 0, "x": 1, "z": 2}}, "'z', no coefficient"),
    ({"theta": [1.0, 2.0]}, "1 number for 'g.*Intercept"),
    ({"theta": [-1.0]}, "bounds"),
    ({"theta": None}, "theta=.*sd=.*cov="),
    ({"theta": None, "sd": {"school": 1.0}}, "'school', but the random terms are 'g'"),
    ({"theta": None, "sd": {"g": [1.0, 2.0]}}, r"sd\['g'\].*1 standard deviations"),
    ({"theta": None, "cov": {"g": [[-1.0]]}}, "no covariance matrix"),
    ({"sigma": 0.0}, "positive"),
    ({"nsim": 0}, "at least 1"),
    ({"seed": "x"}, "whole number"),
])  # fmt: skip
def test_wrong_parameters_are_named(data, changes, words):
    options = {"beta": [0.0, 1.0], "theta": [1.0], "sigma": 1.0, **changes}
    with pytest.raises(OptionError, match=words):
        mx.simulate("~ x + (1 | g)", data, **options)


# ---------------------------------------------------------------------------------------------
# Power
# ---------------------------------------------------------------------------------------------

PLAN = pd.DataFrame({"x": np.tile([0.0, 1.0], 60), "g": np.repeat(np.arange(20), 6)})
TRUTH = {"beta": {"(Intercept)": 0.0, "x": 0.5}, "sd": {"g": 0.6}, "sigma": 1.0}


@pytest.mark.parametrize("test", ["satterthwaite", "z", "lr"])
def test_power_is_that_of_the_exact_test(test):
    """x varies within balanced groups: its test is an exact t test with 120 - 20 - 1 df."""
    from scipy import stats

    ncp = 0.5 * np.sqrt(120 / 4)
    critical = stats.t.ppf(0.975, 99)
    exact = stats.nct.sf(critical, 99, ncp) + stats.nct.cdf(-critical, 99, ncp)
    found = mx.power("~ x + (1 | g)", PLAN, TRUTH, "x", nsim=400, seed=1, test=test, level=0.999)
    lower, upper = found.conf_int
    assert lower < exact < upper
    assert found.n_failed == 0
    assert found.estimates.mean() == pytest.approx(0.5, abs=4 * 0.183 / 20)
    frame = found.to_frame()
    assert frame.loc[0, "power"] == found.power
    assert frame.loc[0, "n_sim"] == 400


def test_power_does_not_depend_on_the_number_of_processes_and_can_end_early():
    one = mx.power("~ x + (1 | g)", PLAN, TRUTH, "x", nsim=70, seed=1, test="z")
    two = mx.power("~ x + (1 | g)", PLAN, TRUTH, "x", nsim=70, seed=1, test="z", n_jobs=2)
    assert np.array_equal(one.p_values, two.p_values)
    few = mx.power("~ x + (1 | g)", PLAN, TRUTH, "x", nsim=70, seed=1, test="z",
                   progress=lambda done, total: done < 10)  # fmt: skip
    assert np.array_equal(few.p_values, one.p_values[:10])


def test_power_takes_a_fit_and_a_test_of_ones_own():
    sleep = mx.datasets.load("sleepstudy")
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    found = mx.power("~ Days + (Days | Subject)", sleep, fit, "Days", nsim=5, seed=1,
                     test=lambda f: 0.01 if f.tvalues["Days"] > 0 else 1 / 0)  # fmt: skip
    assert found.power == 1.0
    broken = mx.power("~ Days + (Days | Subject)", sleep, fit, "Days", nsim=5, seed=1,
                      test=lambda f: 1 / 0)  # fmt: skip
    assert broken.n_failed == 5
    assert "ZeroDivisionError" in broken.message[0]
    exact = mx.power("~ Days + (Days | Subject)", sleep, fit, ["Days", "(Intercept)"], nsim=5,
                     seed=1, interval="clopper-pearson")  # fmt: skip
    assert exact.conf_int == pytest.approx((0.478, 1.0), abs=1e-3)


@pytest.mark.parametrize(("changes", "words"), [
    ({"effect": "z"}, "'z'.*coefficients are"),
    ({"effect": []}, "at least one coefficient"),
    ({"parameters": {"beta": [0, 1]}}, "lacks beta or sigma"),
    ({"parameters": {**TRUTH, "tau": 1}}, "'tau'"),
    ({"parameters": 3}, "mapping"),
    ({"test": "t"}, "'satterthwaite', 'z', 'lr'"),
    ({"alpha": 5}, "alpha"),
    ({"nsim": 2.5}, "nsim"),
])  # fmt: skip
def test_wrong_arguments_of_power_are_named(changes, words):
    options = {"parameters": TRUTH, "effect": "x", "nsim": 3, **changes}
    with pytest.raises(OptionError, match=words):
        mx.power("~ x + (1 | g)", PLAN, **options)


def test_an_effect_that_cannot_be_estimated_is_named():
    plan = PLAN.assign(x2=2 * PLAN["x"])
    truth = {**TRUTH, "beta": [0.0, 0.5, 0.0]}
    with pytest.raises(OptionError, match="'x2' is a combination"):
        mx.power("~ x + x2 + (1 | g)", plan, truth, "x2", nsim=3)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1990.0), (1e4, 0.0), (1e-4, 3.0), (2.0, -1e5)])
@pytest.mark.parametrize("method", ["parametric", "semiparametric", "cases", "groups"])
def test_draws_of_a_seed_do_not_depend_on_origin_and_unit(scale, shift, method):
    frame = mx.datasets.load("sleepstudy")
    moved = frame.assign(Days=scale * frame["Days"] + shift)
    formula = "Reaction ~ Days + (Days | Subject)"
    fits = [mx.lmer(formula, d) for d in (frame, moved)]
    draws = [fit.simulate(2, seed=7) for fit in fits]
    np.testing.assert_allclose(draws[1], draws[0], rtol=1e-7)
    rows = [fits[0].simulate(2, seed=7, newdata=frame[:25])]
    rows.append(fits[1].simulate(2, seed=7, newdata=moved[:25]))
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-7)
    sigmas = [
        fit.bootstrap(3, method=method, seed=7, progress=False).samples["sigma"] for fit in fits
    ]
    np.testing.assert_allclose(sigmas[1], sigmas[0], rtol=1e-6)


@pytest.mark.parametrize("theta", [[1.0, 0.5, 0.3], [0.0, 0.0, 0.7], [1.0, -0.4, 0.0], [0.0] * 3])
def test_drawn_effects_have_the_covariance_of_theta(theta):
    rng = np.random.default_rng(3)
    n = 12
    frame = {"x": rng.normal(5.0, 2.0, n), "g": np.repeat(["a", "b", "c"], 4), "y": np.zeros(n)}
    y = mx.simulate(
        "~ x + (x | g)", frame, beta=[0.0, 0.0], theta=theta, sigma=0.5, nsim=40_000, seed=5
    )
    T = np.array([[theta[0], 0.0], [theta[1], theta[2]]])
    Z = np.column_stack([np.ones(n), frame["x"]])
    same = np.equal.outer(frame["g"], frame["g"])
    V = 0.25 * ((Z @ T @ T.T @ Z.T) * same + np.eye(n))
    errors = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / y.shape[1])
    assert (np.abs(y @ y.T / y.shape[1] - V) < 5.0 * errors).all()
