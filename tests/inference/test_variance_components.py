"""Standard errors and intervals of variance components, as Stata prints them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import ndtri

import mixlm_sparse as mx
from mixlm_sparse.solve.criterion import joint_criterion
from tests.agreement.test_published import PUBLISHED, meets
from tests.support import corpus


def printed(key: str, name: str) -> str:
    return next(v["printed_text"] for v in PUBLISHED[key]["values"] if v["name"] == name)


def test_high_school_and_beyond():
    """numerics of Stata's `mixed` for the null model, REML."""
    table = corpus.fit("hsb_null_reml").variance_components(scale="variance")
    between, residual = table.iloc[0], table.iloc[1]
    assert [f"{between[c]:.3f}" for c in ("estimate", "lower", "upper")] == [
        "8.614", "6.739", "11.011",
    ]  # fmt: skip
    assert f"{between['std_error']:.4f}" == "1.0788"
    assert [f"{residual[c]:.3f}" for c in ("estimate", "lower", "upper")] == [
        "39.148", "37.875", "40.465",
    ]  # fmt: skip
    assert abs(residual["std_error"] - 0.66064) < 1e-5


@pytest.mark.parametrize(
    ("figure", "row", "column"),
    [
        ("se var id", "var_(Intercept)|id", "std_error"),
        ("lower var id", "var_(Intercept)|id", "lower"),
        ("upper var id", "var_(Intercept)|id", "upper"),
        ("se var Residual", "var_Residual", "std_error"),
        ("lower var Residual", "var_Residual", "lower"),
        ("upper var Residual", "var_Residual", "upper"),
    ],
)
def test_asian_children(figure, row, column):
    table = corpus.fit("pub_asian_ml").variance_components(scale="variance")
    assert meets(table.loc[row, column], printed("asian_ml", figure))


@pytest.mark.parametrize(
    ("figure", "row"),
    [
        ("se sd lrt_groupc", "sd_lrt_groupc|school"),
        ("se sd (Intercept)", "sd_(Intercept)|school"),
        ("se corr", "cor_lrt_groupc.(Intercept)|school"),
        ("se sd Residual", "sigma"),
    ],
)
def test_inner_london_schools(figure, row):
    """The printed optimum is 1e-5 off the exact one (see test_published), and so are its errors."""
    table = corpus.fit("pub_gcse_reml").variance_components()
    assert table.loc[row, "std_error"] == pytest.approx(
        float(printed("gcse_reml", figure)), rel=5e-5
    )


@pytest.mark.parametrize("model", ["sleep_rs_reml", "penicillin_reml", "sleep_w_reml", "oats_reml"])
def test_joint_criterion(model):
    """At sigma-hat it is the profiled criterion; its gradient is that of differences."""
    if model not in corpus.MODELS:
        pytest.skip("no such record")
    fit = corpus.fit(model)
    system, m = fit.system, fit.optimum.phi.size

    def value(x):
        lambdas = system.chart.merge(system.chart.factors(x[:m]))
        return joint_criterion(lambdas, x[m], system, reml=fit.reml)

    best = np.append(fit.optimum.phi, np.log(fit.sigma))
    assert value(best)[0] == pytest.approx(fit.criterion, rel=1e-12)
    x = best + 0.1
    _, G, slope = value(x)
    exact = np.append(system.chart.pull_back(x[:m], system.chart.split(G)), slope)
    numeric = approx_fprime(x, lambda v: value(v)[0], 1e-6)
    np.testing.assert_allclose(exact, numeric, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("compiled", [True, False])
def test_kernels_agree(compiled):
    expected = corpus.fit("sleep_rs_reml").variance_components()["std_error"]
    try:
        mx.use_compiled(compiled)
        fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        found = fit.variance_components()["std_error"]
    finally:
        mx.use_compiled(None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_hessian_is_that_of_natural_parameters():
    """Against second differences in (log sd, atanh corr, log sigma) themselves."""
    fit = corpus.fit("sleep_rs_reml")
    system = fit.system

    def deviance(x):
        s0, s1, r, sigma = np.exp(x[0]), np.exp(x[2]), np.tanh(x[1]), np.exp(x[3])
        T = np.array([[s0, 0.0], [r * s1, np.sqrt(1 - r * r) * s1]]) / sigma
        lambdas = system.chart.lambdas_of_theta(np.array([T[0, 0], T[1, 0], T[1, 1]]))[0]
        return joint_criterion(lambdas, x[3], system, reml=True)[0]

    table = fit.variance_components()
    sd0, cor, sd1, sigma = table["estimate"]
    x0 = np.array([np.log(sd0), np.arctanh(cor), np.log(sd1), np.log(sigma)])
    H, h = np.empty((4, 4)), 1e-3
    for i in range(4):
        for j in range(4):
            a, b = np.eye(4)[i] * h, np.eye(4)[j] * h
            H[i, j] = (
                deviance(x0 + a + b) - deviance(x0 + a - b)
                - deviance(x0 - a + b) + deviance(x0 - a - b)
            ) / (4 * h * h)  # fmt: skip
    se = np.sqrt(np.diag(2.0 * np.linalg.inv(H)))
    found = table["std_error"] / [sd0, 1 - cor**2, sd1, sigma]
    np.testing.assert_allclose(found, se, rtol=1e-4)


def test_scales_agree():
    fit = corpus.fit("sleep_rs_reml")
    sd, var = fit.variance_components(), fit.variance_components(scale="variance")
    a, b = sd.loc["sd_Days|Subject"], var.loc["var_Days|Subject"]
    assert b["estimate"] == pytest.approx(a["estimate"] ** 2)
    assert b["std_error"] == pytest.approx(2 * a["estimate"] * a["std_error"])
    assert b["lower"] == pytest.approx(a["lower"] ** 2)
    cov = var.loc["cov_Days.(Intercept)|Subject"]
    assert cov["estimate"] == pytest.approx(fit.varcorr["Subject"].iloc[0, 1])
    half = float(ndtri(0.975)) * cov["std_error"]
    assert cov["upper"] - cov["estimate"] == pytest.approx(half)
    mixed = fit.variance_components(scale="variance", pairs="correlation")
    assert mixed.iloc[1]["estimate"] == pytest.approx(sd.iloc[1]["estimate"])
    narrow = fit.variance_components(level=0.5)
    assert (narrow["upper"] < sd["upper"]).all()


def test_units_of_a_predictor_do_not_matter():
    data = mx.datasets.load("sleepstudy").assign(Big=lambda d: d["Days"] * 1e4)
    a = mx.lmer("Reaction ~ Days + (Days | Subject)", data).variance_components()
    quiet = mx.Control(warn=False)
    b = mx.lmer("Reaction ~ Big + (Big | Subject)", data, control=quiet).variance_components()
    ratio = a["std_error"].to_numpy() / b["std_error"].to_numpy()
    np.testing.assert_allclose(ratio, [1, 1, 1e4, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "row", "word"),
    [
        ("dyestuff2_reml", "sd_(Intercept)|Batch", "zero"),
        ("early_ml", "cor_tos.(Intercept)|id", "boundary"),
        ("machines_diag_reml", "sd_(Intercept)|Worker", "do not determine"),
    ],
)
def test_boundary_is_noted(model, row, word):
    table = corpus.fit(model).variance_components()
    assert word in table.loc[row, "note"]
    assert np.isnan(table.loc[row, ["std_error", "lower", "upper"]].astype(float)).all()
    regular = table[table["note"] == ""]
    assert (regular["std_error"] > 0).all()
    # what is regular has the standard error of the model without the rest
    if model == "dyestuff2_reml":
        n = 30
        expected = table.loc["sigma", "estimate"] / np.sqrt(2 * (n - 1))
        assert table.loc["sigma", "std_error"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", [m for m in corpus.MODELS if m not in corpus.LARGE])
def test_every_model(model):
    """Regular parameters of all records have errors and limits around the estimate."""
    fit = corpus.fit(model)
    table = fit.variance_components()
    regular = table[table["note"] == ""]
    assert len(regular) or fit.is_singular()
    assert (regular["std_error"] > 0).all()
    assert (regular["lower"] <= regular["estimate"]).all()
    assert (regular["estimate"] <= regular["upper"]).all()


def test_bad_arguments():
    fit = corpus.fit("dyestuff_reml")
    for level in (0, 1, 1.5, -0.1, "95%"):
        with pytest.raises(mx.OptionError, match="between 0 and 1"):
            fit.variance_components(level=level)
    with pytest.raises(mx.OptionError, match="'sd', 'variance'"):
        fit.variance_components(scale="log")
    with pytest.raises(mx.OptionError, match="'correlation', 'covariance'"):
        fit.variance_components(pairs="both")


@pytest.mark.slow
def test_coverage():
    """Wald intervals of sigma and profile intervals of all parameters cover as they should."""
    rng = np.random.default_rng(20261121)
    groups, size, runs = 30, 6, 400
    g = np.repeat(np.arange(groups), size)
    x = np.tile(np.linspace(-1, 1, size), groups)
    X = np.column_stack([np.ones(g.size), x])
    truth = {"sd_(Intercept)|g": 1.0, "sigma": 1.0, "(Intercept)": 2.0, "x": 0.5}
    first = mx.fit_matrices(
        X @ [2.0, 0.5] + rng.normal(size=groups)[g] + rng.normal(size=g.size),
        X,
        [(g, None, "g")],
        x_names=["(Intercept)", "x"],
    )
    profile, wald = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0)
    for _ in range(runs):
        y = X @ [2.0, 0.5] + rng.normal(size=groups)[g] + rng.normal(size=g.size)
        fit = first.refit(y)
        for counts, method in ((profile, "profile"), (wald, "wald")):
            limits = fit.confint(method, 0.9)
            for name, value in truth.items():
                lower, upper = limits.loc[name]
                counts[name] += lower <= value <= upper
    for counts in (profile, wald):
        for count in counts.values():
            assert abs(count / runs - 0.9) < 0.045  # three standard errors
