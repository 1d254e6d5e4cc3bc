"""Profile likelihood against lme4's limits, and against a direct search."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import ndtri

import mixlm_sparse as mx
from mixlm_sparse.inference.variance.profile.held import HeldCoefficient, HeldSigma
from mixlm_sparse.inference.variance.profile.held_factor import HeldInFactor
from mixlm_sparse.model.parameters import variance_parameters
from mixlm_sparse.solve.criterion import joint_criterion
from tests.agreement.test_published import PUBLISHED, meets
from tests.support import corpus

PROFILED = [m for m in corpus.MODELS if corpus.load_model(m).get("confint_profile")]


@pytest.mark.parametrize("model", PROFILED)
def test_limits_of_lme4(model):
    record = corpus.load_model(model)["confint_profile"]
    limits = corpus.fit(model).confint(level=record["level"])
    assert list(limits.index) == record["names"]
    lower, upper = np.array(record["lower"], float), np.array(record["upper"], float)
    width = upper - lower
    assert (np.abs(limits["lower"] - lower) < 1e-3 * width).all()
    assert (np.abs(limits["upper"] - upper) < 1e-3 * width).all()


def test_printed_limits():
    limits = corpus.fit("pub_rikz_reml").confint()
    rows = {".sig01": "sd_(Intercept)|Beach", ".sigma": "sigma"}
    seen = 0
    for value in PUBLISHED["rikz_reml"]["values"]:
        found = re.fullmatch(r"profile (\S+) (2\.5|97\.5)%", value["name"])
        if not found:
            continue
        seen += 1
        name = rows.get(found[1], found[1])
        width = limits.loc[name, "upper"] - limits.loc[name, "lower"]
        ours = limits.loc[name, "lower" if found[2] == "2.5" else "upper"]
        close = abs(ours - value["printed"]) < 1e-4 * width
        assert close or meets(ours, value["printed_text"])
    assert seen == 8


def test_exact_limit():
    """The lower limit of Dyestuff's batch sd solves d(sd) - d = z^2, whatever the range of levels.

    lme4's own limit is 0.002 above: it interpolates where zeta is nearly flat.
    """
    fit = corpus.fit("dyestuff_ml")
    system = fit.system

    def deviance(sd: float) -> float:
        def at(log_sigma: float) -> float:
            lambdas = system.chart.lambdas_of_theta(np.array([sd / np.exp(log_sigma)]))[0]
            return joint_criterion(lambdas, log_sigma, system, reml=False)[0]

        found = minimize_scalar(at, bounds=(2, 6), method="bounded", options={"xatol": 1e-10})
        return float(found.fun)

    for level_max in (0.95, 0.99, 0.999):
        limit = fit.profile("theta_", level_max=level_max).confint(0.95)["lower"].iloc[0]
        zeta_sq = deviance(limit) - fit.criterion
        assert np.sqrt(zeta_sq) == pytest.approx(ndtri(0.975), abs=1e-3)


@pytest.mark.parametrize("model", ["sleep_rs_reml", "sim_vector3_ml", "penicillin_reml"])
@pytest.mark.parametrize("reml", [False, True])
def test_gradients_of_held_criteria(model, reml):
    fit = corpus.fit(model)
    system, phi = fit.system, fit.optimum.phi
    held = []
    for par in variance_parameters(system):
        if par.kind == "sigma":
            held.append((HeldSigma(system, phi, reml=reml), 1.1 * fit.sigma))
        else:
            value = 0.3 if par.kind == "cor" else 0.7 * fit.sigma
            held.append((HeldInFactor(system, phi, fit.sigma, par, reml=reml), value))
    if not reml:
        held.append((HeldCoefficient(system, phi, 0), float(fit.fixef.iloc[0]) + 1.0))
    for function, c in held:
        x = function.start() + 0.05
        _, exact = function.value_and_gradient(c, x)
        for i in range(x.size):
            e = np.zeros(x.size)
            e[i] = 1e-5
            up = function.value_and_gradient(c, x + e)[0]
            down = function.value_and_gradient(c, x - e)[0]
            assert exact[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=2e-3)


def test_held_parameter_has_its_value():
    """The factor that a held function builds has exactly the sd or correlation asked for."""
    fit = corpus.fit("sim_vector3_ml")
    system = fit.system
    for par in variance_parameters(system)[:-1]:
        function = HeldInFactor(system, fit.optimum.phi, fit.sigma, par, reml=False)
        c = 0.4
        state = function.state(c, function.start())
        T = np.linalg.solve(system.products.Rz[par.term], state.blocks[par.term])
        S = state.sigma**2 * T @ T.T
        i, j = par.row, par.column
        value = np.sqrt(S[i, i]) if par.kind == "sd" else S[i, j] / np.sqrt(S[i, i] * S[j, j])
        assert value == pytest.approx(c, rel=1e-10)


def test_coefficient_by_offset():
    """Holding a coefficient is fitting with an offset."""
    data = mx.datasets.load("sleepstudy")
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", data, reml=False)
    curve = fit.profile("Days")["Days"]
    for at in (1, -2):
        value, zeta = curve.values[at], curve.zeta[at]
        other = mx.lmer(
            "Reaction ~ 1 + (Days | Subject)", data, reml=False,
            offset=value * data["Days"].to_numpy(), control=mx.Control(warn=False),
        )  # fmt: skip
        assert other.criterion - fit.criterion == pytest.approx(zeta**2, abs=1e-6)


def test_reml_profile():
    """The true REML profile, against a direct search; wider than that of ML."""
    fit = corpus.fit("sleep_ri_reml")
    system = fit.system
    curve = fit.profile("theta_", reml=True)["sd_(Intercept)|Subject"]

    def deviance(sd: float) -> float:
        def at(x: np.ndarray) -> float:
            lambdas = system.chart.lambdas_of_theta(np.array([sd / np.exp(x[0])]))[0]
            return joint_criterion(lambdas, float(x[0]), system, reml=True)[0]

        return float(minimize(at, [3.4], method="Nelder-Mead", options={"xatol": 1e-9}).fun)

    for at in (2, -3):
        found = deviance(curve.values[at]) - fit.criterion
        assert found == pytest.approx(curve.zeta[at] ** 2, abs=1e-5)
    reml = fit.confint(parm="theta_", reml=True)
    ml = fit.confint(parm="theta_")
    assert reml.iloc[0]["upper"] > ml.iloc[0]["upper"]
    assert list(reml.index) == ["sd_(Intercept)|Subject", "sigma"]


BOUNDED = [
    ("dyestuff2_ml", "sd_(Intercept)|Batch", 0.0, None),
    ("pastes_nested_reml", "sd_(Intercept)|batch", 0.0, None),
    ("early_ml", "cor_tos.(Intercept)|id", -1.0, None),
    ("exam_sexvec_reml", "cor_sexM.sexF|school", None, 1.0),
    ("hsb_full_reml", "cor_cses.(Intercept)|school", -1.0, 1.0),
    ("petrol_slope_ml", "cor_EP.(Intercept)|No", -1.0, 1.0),
]


@pytest.mark.parametrize(("model", "name", "lower", "upper"), BOUNDED)
def test_bounds_are_limits_with_a_note(model, name, lower, upper):
    limits = corpus.fit(model).confint(parm=name)
    note = limits.attrs["notes"][name]
    assert "bound" in note
    if lower is not None:
        assert limits.loc[name, "lower"] == lower
    if upper is not None:
        assert limits.loc[name, "upper"] == upper
    assert np.isfinite(limits.to_numpy()).all()


@pytest.mark.parametrize("model", ["pixel_reml", "ortho_rs_reml"])
def test_correlation_never_costs_more_than_a_zero_sd(model):
    """Two minima compete: the profile keeps to the lower one, and is monotone."""
    fit = corpus.fit(model)
    name = next(p.name for p in variance_parameters(fit.system) if p.kind == "cor")
    curve = fit.profile(name)[name]
    assert (np.diff(curve.zeta) >= -1e-6).all()
    assert "monotone" not in curve.note


@pytest.mark.parametrize("model", [m for m in corpus.MODELS if m not in corpus.LARGE])
def test_no_dead_ends(model):
    """Every parameter that the data determine gets finite limits on both sides of its estimate."""
    fit = corpus.fit(model)
    variance = [p.name for p in variance_parameters(fit.system)]
    if model.startswith(("sim_crossed3", "verbagg")):
        variance = variance[:2]  # the others take seconds and are of the same kind
    limits = fit.confint(parm=variance)
    determined = [par.name for par in variance_parameters(fit.system)
                  if fit.identification.parameter(par.term, par.row, par.column)]  # fmt: skip
    variance = [name for name in variance if name in determined]
    assert limits.drop(index=variance).isna().all().all()
    limits = limits.loc[variance]
    assert np.isfinite(limits.to_numpy()).all()
    estimates = fit.refit_ml().variance_components()["estimate"].loc[variance]
    known = estimates.notna()
    slack = 1e-6 * (1.0 + estimates[known].abs())
    assert (limits["lower"][known] <= estimates[known] + slack).all()
    assert (limits["upper"][known] >= estimates[known] - slack).all()


def test_frame_and_splines():
    fit = corpus.fit("sleep_rs_reml")
    profile = fit.profile()
    frame = profile.to_frame()
    assert list(frame.columns[-3:]) == [".zeta", ".focal", ".par"]
    assert list(profile) == list(fit.confint("wald").index)
    for name, curve in profile.items():
        rows = frame[frame[".par"] == name]
        np.testing.assert_allclose(rows[name], rows[".focal"])
        np.testing.assert_allclose(rows[".focal"], curve.values)
        inside = np.linspace(-2.5, 2.5, 7)
        inside = inside[(inside > curve.zeta[0]) & (inside < curve.zeta[-1])]
        np.testing.assert_allclose(curve.forward(curve.backward(inside)), inside, atol=1e-9)
        assert np.isnan(curve.backward(99.0))
        assert profile.zeta[name].shape == (curve.values.size, 2)
    # with Days held far away, sigma and the intercept are those of the fit with an offset
    row = frame[frame[".par"] == "Days"].iloc[0]
    data = mx.datasets.load("sleepstudy")
    other = mx.lmer(
        "Reaction ~ 1 + (Days | Subject)", data, reml=False,
        offset=row["Days"] * data["Days"].to_numpy(), control=mx.Control(warn=False),
    )  # fmt: skip
    assert row["sigma"] == pytest.approx(other.sigma, rel=1e-4)
    assert row["(Intercept)"] == pytest.approx(other.fixef["(Intercept)"], rel=1e-4)
    assert repr(profile).startswith("Profile of the ML deviance")


def test_parallel_and_progress():
    fit = corpus.fit("sleep_rs_reml")
    seen = []
    serial = fit.profile(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]
    parallel = fit.profile(n_jobs=2)
    for name in serial:
        np.testing.assert_allclose(serial[name].zeta, parallel[name].zeta, atol=1e-7)
    stopped = fit.profile(progress=lambda done, total: done < 2)
    assert list(stopped) == list(serial)[:2]


def test_other_methods():
    fit = corpus.fit("sleep_rs_reml")
    wald = fit.confint("wald")
    record = corpus.load_model("sleep_rs_reml")["confint_wald"]
    at = record["names"].index("Days") if "names" in record else -1
    assert wald.loc["Days", "lower"] == pytest.approx(record["lower"][at], rel=1e-6)
    assert wald.loc["sigma", "lower"] == fit.variance_components().loc["sigma", "lower"]
    boot = fit.confint("boot", nsim=50, seed=1, parm=["sigma", "Days"])
    assert list(boot.index) == ["sigma", "Days"]
    assert (boot["lower"] < boot["upper"]).all()


def test_bad_arguments():
    fit = corpus.fit("sleep_rs_reml")
    for level in (0, 1, 2.0):
        with pytest.raises(mx.OptionError, match="between 0 and 1"):
            fit.confint(level=level)
        with pytest.raises(mx.OptionError, match="level_max"):
            fit.profile(level_max=level)
    for method in ("profile", "wald", "boot"):
        with pytest.raises(mx.OptionError, match=r"parm names the parameter 'Day'.*'Days'"):
            fit.confint(method, parm="Day")
    with pytest.raises(mx.OptionError, match="'profile', 'wald', 'boot'"):
        fit.confint("exact")
    with pytest.raises(mx.OptionError, match="nsim"):
        fit.confint(nsim=10)
    with pytest.raises(mx.OptionError, match="no REML profile"):
        fit.profile("Days", reml=True)
    with pytest.raises(mx.OptionError, match="refit_reml"):
        fit.refit_ml().profile(reml=True)
    with pytest.raises(mx.OptionError, match="n_jobs"):
        fit.profile(n_jobs=0)
    with pytest.raises(mx.OptionError, match="level_max"):
        fit.profile("sigma", level_max=0.9).confint(0.95)


def test_a_model_that_only_maximum_likelihood_fits_exactly():
    """Three rows, two coefficients: REML leaves a residual, ML none, and so no profile of it."""
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0], "x": [0.3, -1.0, 0.5], "g": [0, 0, 1]})
    fit = mx.lmer("y ~ x + (1 | g)", data, control=mx.Control(warn=False))
    assert not fit.perfect
    with pytest.raises(mx.OptionError, match="by maximum likelihood the model fits its 3 rows"):
        fit.profile()
    assert list(fit.confint("wald").index) == ["sd_(Intercept)|g", "sigma", "(Intercept)", "x"]


@pytest.mark.parametrize("groups", [[0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 2]])
@pytest.mark.parametrize("formula", ["y ~ 1 + (1 | g)", "y ~ x + (1 | g)", "y ~ 1 + (0 + x | g)"])
def test_few_rows(groups, formula):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        n = len(groups)
        data = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "g": groups})
        fit = mx.lmer(formula, data, control=mx.Control(warn=False))
        try:
            limits = fit.profile(level_max=0.9).confint(0.9)
        except mx.OptionError as error:
            assert "exactly" in str(error)
            continue
        assert (limits["lower"] <= limits["upper"]).all()
