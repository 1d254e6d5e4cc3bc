"""`fixed=`: against a closed-form meta-analysis, and a fit whose estimates are held."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import chi2, norm

import mixlm_sparse as mx
from tests.support import dense_oracle


def studies(seed=1, k=15):
    rng = np.random.default_rng(seed)
    v = rng.uniform(0.02, 0.3, k)
    y = 0.5 + 0.4 * rng.normal(size=k) + rng.normal(size=k) * np.sqrt(v)
    return pd.DataFrame({"y": y, "v": v, "w": 1.0 / v, "x": rng.normal(size=k), "s": np.arange(k)})


def meta(data, X, *, reml):
    """Random-effects meta-regression by the textbook's weights 1 / (v + tau^2)."""
    y, v = data["y"].to_numpy(), data["v"].to_numpy()

    def at(tau_sq):
        W = 1.0 / (v + tau_sq)
        information = X.T @ (W[:, None] * X)
        beta = np.linalg.solve(information, X.T @ (W * y))
        residual = y - X @ beta
        d = np.log(v + tau_sq).sum() + (W * residual**2).sum()
        n = len(y) - X.shape[1] * reml
        d += n * np.log(2.0 * np.pi) + reml * np.linalg.slogdet(information)[1]
        return d, beta, np.sqrt(np.diag(np.linalg.inv(information)))

    bounds = {"bounds": (0.0, 9.0), "method": "bounded", "options": {"xatol": 1e-12}}
    found = minimize_scalar(lambda t: at(t)[0], **bounds)
    return found.x, *at(found.x), at


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", ["y ~ 1 + (1 | s)", "y ~ x + (1 | s)"])
def test_meta_analysis_with_known_variances(formula, reml):
    data = studies()
    X = np.ones((len(data), 1))
    X = np.column_stack([X, data["x"]]) if "x" in formula else X
    tau_sq, d, beta, se, at = meta(data, X, reml=reml)
    fit = mx.lmer(formula, data, weights="w", fixed={"sigma": 1.0}, reml=reml)
    estimates = fit.variance_components()
    assert fit.criterion == pytest.approx(d, abs=1e-9)
    assert estimates["estimate"].iloc[0] ** 2 == pytest.approx(tau_sq, rel=1e-6)
    np.testing.assert_allclose(fit.fixef, beta, rtol=1e-6)
    np.testing.assert_allclose(fit.bse, se, rtol=1e-6)
    assert fit.n_par == X.shape[1] + 1
    assert fit.sigma == 1.0
    assert estimates.loc["sigma", "note"] == "held at 1"
    # curvature of the criterion in log tau, by differences
    h, log_tau = 1e-3, 0.5 * np.log(tau_sq)
    up, here, down = (at(np.exp(2.0 * (log_tau + s)))[0] for s in (h, 0.0, -h))
    error = np.sqrt(tau_sq) * np.sqrt(2.0 * h * h / (up - 2.0 * here + down))
    assert estimates["std_error"].iloc[0] == pytest.approx(error, rel=1e-4)
    if not reml:
        lower, upper = fit.confint(parm="theta_").iloc[0]
        for limit in (lower, upper):
            assert at(limit**2)[0] - d == pytest.approx(chi2.ppf(0.95, 1), abs=1e-3)


def test_profile_of_a_coefficient_beside_a_held_sigma():
    data = studies(3)
    X = np.column_stack([np.ones(len(data)), data["x"]])
    _, d, _, _, _ = meta(data, X, reml=False)
    fit = mx.lmer("y ~ x + (1 | s)", data, weights="w", fixed={"sigma": 1.0}, reml=False)
    upper = fit.confint(parm="x")["upper"].iloc[0]
    shifted = data.assign(y=data["y"] - upper * data["x"])
    _, there, _, _, _ = meta(shifted, X[:, :1], reml=False)
    assert there - d == pytest.approx(norm.ppf(0.975) ** 2, abs=1e-3)


@pytest.fixture(scope="module")
def full():
    return mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))


def held(full, fixed):
    return mx.lmer(full.formula, mx.datasets.load("sleepstudy"), fixed=fixed)


@pytest.mark.parametrize(
    "names",
    [
        ["sigma"],
        ["sd_Days|Subject"],
        ["cor_Days.(Intercept)|Subject"],
        ["sd_(Intercept)|Subject", "cor_Days.(Intercept)|Subject"],
        ["sd_(Intercept)|Subject", "cor_Days.(Intercept)|Subject", "sd_Days|Subject", "sigma"],
    ],
)
def test_holding_estimates_gives_the_same_fit(full, names):
    estimates = full.variance_components()["estimate"]
    fit = held(full, {name: estimates[name] for name in names})
    assert fit.criterion == pytest.approx(full.criterion, abs=1e-8)
    assert fit.n_par == full.n_par - len(names)
    np.testing.assert_allclose(fit.bse, full.bse, rtol=1e-5)
    again = fit.variance_components()
    np.testing.assert_allclose(again["estimate"][estimates.index], estimates, rtol=1e-4)
    notes = again["note"][names]
    assert notes.str.startswith("held at").all()
    assert again["std_error"][names].isna().all()
    assert (fit.tidy()["df"] >= full.tidy()["df"] * 0.999).all()


def test_what_is_held_is_held_exactly_and_the_rest_is_the_best(full):
    fit = held(full, {"sd_Days|Subject": 4.0, "cor_Days.(Intercept)|Subject": 0.3})
    found = fit.variance_components()["estimate"]
    assert found["sd_Days|Subject"] == pytest.approx(4.0, rel=1e-9)
    assert found["cor_Days.(Intercept)|Subject"] == pytest.approx(0.3, abs=1e-9)
    data = mx.datasets.load("sleepstudy")
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    codes = data["Subject"].astype("category").cat.codes.to_numpy()
    Z = dense_oracle.OracleTerm(X, codes, 18).Z()

    def criterion(x):
        sd, sigma = np.exp(x)
        S = np.array([[sd**2, 1.2 * sd], [1.2 * sd, 16.0]])
        V = Z @ np.kron(np.eye(18), S) @ Z.T + sigma**2 * np.eye(180)
        inverse = np.linalg.inv(V)
        XtVX = X.T @ inverse @ X
        r = data["Reaction"] - X @ np.linalg.solve(XtVX, X.T @ inverse @ data["Reaction"])
        logs = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XtVX)[1]
        return logs + r @ inverse @ r + 178 * np.log(2 * np.pi)

    best = minimize(criterion, np.log([25.0, 25.0]), method="Nelder-Mead", tol=1e-10)
    assert fit.criterion == pytest.approx(best.fun, abs=1e-6)
    assert fit.sigma == pytest.approx(np.exp(best.x[1]), rel=1e-4)


def test_a_likelihood_ratio_test_of_a_value(full):
    ml = full.refit_ml()
    fit = mx.lmer(full.formula, mx.datasets.load("sleepstudy"), reml=False,
                  fixed={"sd_Days|Subject": 4.0})  # fmt: skip
    table = mx.anova(fit, ml)
    statistic = table["Chisq"].iloc[1]
    assert table["Df"].iloc[1] == 1
    curve = ml.profile("sd_Days|Subject")["sd_Days|Subject"]
    zeta = np.interp(4.0, curve.values, curve.zeta)
    assert statistic == pytest.approx(zeta**2, rel=2e-2)


@pytest.mark.parametrize(
    "fixed", [{"sigma": 25.0}, {"sd_Days|Subject": 5.0}, {"sd_Days|Subject": 5.0, "sigma": 25.0}]
)
def test_everything_else_goes_on(full, fixed, tmp_path):
    fit = held(full, fixed)
    for name, value in fixed.items():
        assert f"{name} = {value:g}" in str(fit.summary())
    names = [name for name in full.confint(method="wald").index if name not in fixed]
    assert list(fit.profile().confint().index) == names
    limits = fit.confint(method="wald")
    assert limits.loc[list(fixed)].isna().all(axis=None)
    assert limits.loc[names].notna().all(axis=None)
    fit.save(tmp_path / "fit.mixlm")
    loaded = mx.load(tmp_path / "fit.mixlm")
    assert loaded.n_par == fit.n_par
    assert loaded.sigma == fit.sigma
    assert loaded.update(". ~ 1 + (Days | Subject)").n_par == fit.n_par - 1
    assert str(loaded.summary()) == str(fit.summary())
    assert fit.refit_ml().n_par == fit.n_par
    other = fit.refit(fit.simulate(1, seed=1)[:, 0])
    kept = other.variance_components()["estimate"]
    for name, value in fixed.items():
        assert kept[name] == pytest.approx(value, rel=1e-9)
    limits = fit.bootstrap(5, seed=1).confint()
    for name, value in fixed.items():
        np.testing.assert_allclose(limits.loc[name, ["lower", "upper"]].astype(float), value)
    assert len(fit.ranova()) == 2
    assert np.isfinite(fit.icc()["std_error"]).all()
    assert np.isfinite(fit.convergence.hessian_eigenvalues).all()
    assert (fit.influence("Subject").to_frame()["status"] == "converged").all()
    kr, free = fit.tidy(ddf="kenward-roger"), full.tidy(ddf="kenward-roger")
    assert (kr["df"] > free["df"] - 1e-6).all()  # what is known is not estimated
    with pytest.raises(mx.OptionError, match="is held at"):
        fit.profile(next(iter(fixed)))


def test_parameters_of_structures_are_held_too():
    data = mx.datasets.load("Orthodont")
    free = mx.lmer("distance ~ age + ar1(0 + age | Subject)", data)
    fit = mx.lmer("distance ~ age + ar1(0 + age | Subject)", data, fixed={"phi|Subject": 0.8})
    assert fit.variance_components().loc["phi|Subject", "estimate"] == pytest.approx(0.8)
    assert fit.criterion > free.criterion
    assert fit.n_par == free.n_par - 1
    zero = mx.lmer("distance ~ age + cs(0 + factor(age) | Subject, hom = TRUE)", data,
                   fixed={"sigma": 1.0}, control=mx.Control(warn=False))  # fmt: skip
    two = mx.lmer("distance ~ age + (1 | Subject) + (1 | Subject:age)", data,
                  fixed={"sigma": 1.0}, control=mx.Control(warn=False))  # fmt: skip
    assert zero.criterion == pytest.approx(two.criterion, abs=1e-6)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"sigma": -1}, "a standard deviation is positive"),
        ({"sigma": "a"}, r"fixed\['sigma'\]"),
        ({"sd": 1.0}, "is no variance parameter of the model: use .*'sd_Days|Subject'"),
        ({"Days": 1.0}, "is no variance parameter of the model"),
        ({"cor_Days.(Intercept)|Subject": 1.0}, "a correlation here is between -1 and 1"),
        ({}, "give a dict such as"),
        (["sigma"], "give a dict such as"),
    ],
)
def test_bad_values(full, fixed, message):
    with pytest.raises(mx.OptionError, match=message):
        held(full, fixed)


def test_two_values_for_one_parameter():
    data = mx.datasets.load("sleepstudy")
    fixed = {"sd_(Intercept)|Subject": 1.0, "sd_Days|Subject": 2.0}
    with pytest.raises(mx.OptionError, match="which are one parameter of the term"):
        mx.lmer("Reaction ~ Days + id(Days | Subject)", data, fixed=fixed)
