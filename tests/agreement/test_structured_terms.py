"""Structured terms against the dense likelihood, equivalent models, and other programs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import mixlm_sparse as mx
from mixlm_sparse.covariance.random import covariance_structure
from mixlm_sparse.solve.criterion import criterion_and_gradient
from tests.support import dense_oracle

KEYS = ("cs", "cs(hom = TRUE)", "ar1", "ar1(hom = FALSE)", "toep", "toep(hom = TRUE)")
every_key = pytest.mark.parametrize("key", KEYS)
TIMES = 4
QUIET = mx.Control(warn=False)


def written(key, inside="0 + factor(t) | g"):
    name, _, more = key.partition("(")
    return f"{name}({inside}, {more}" if more else f"{name}({inside})"


def panel(seed, groups=12, times=TIMES, rows=2, keep=0.85):
    """Rows of groups by times, some missing, in random order, with numbers as times."""
    rng = np.random.default_rng(seed)
    cells = [(g, t) for g in range(groups) for t in range(times) for _ in range(rows)]
    data = pd.DataFrame(cells, columns=["g", "t"]).sample(frac=keep, random_state=seed)
    data["t"] = data["t"].map({0: 2, 1: 3, 2: 10, 3: 20, 4: 21})
    data["h"] = rng.integers(0, 5, len(data))
    data["x"] = rng.normal(size=len(data))
    L = np.linalg.cholesky(0.7 ** np.abs(np.subtract.outer(np.arange(times), np.arange(times))))
    effects = 1.5 * rng.normal(size=(groups, times)) @ L.T
    place = np.searchsorted([2, 3, 10, 20, 21], data["t"])
    data["y"] = 1.0 + data["x"] + effects[data["g"], place] + rng.normal(size=len(data))
    data["w"] = rng.uniform(0.5, 2.0, len(data))
    return data.reset_index(drop=True)


def dense_terms(data, width=TIMES):
    codes = np.unique(data["g"], return_inverse=True)[1]
    place = np.searchsorted(np.unique(data["t"]), data["t"])
    return [dense_oracle.OracleTerm(np.eye(width)[place], codes, int(codes.max()) + 1)]


@every_key
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), reml=st.booleans())
def test_criterion_and_gradient_are_those_of_the_dense_likelihood(key, seed, reml):
    data = panel(seed % 50)
    inside = "0 + factor(t) | g"
    formula = "y ~ x + " + written(key, inside)
    function = mx.deviance_function(formula, data, reml=reml, weights="w")
    template = covariance_structure(key, TIMES)
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=template.n_theta)
    theta = template.theta_at(np.where(template.powers > 0.0, np.abs(phi) + 0.2, phi.clip(-1, 1)))
    X = np.column_stack([np.ones(len(data)), data["x"]])
    options = {"weights": data["w"].to_numpy(), "reml": reml}

    def dense(at):
        return dense_oracle.solve(
            data["y"].to_numpy(), X, dense_terms(data), [template.factor(at)], **options
        ).criterion

    assert function(theta) == pytest.approx(dense(theta), rel=1e-10)
    gradient = function.gradient(theta)
    for i in range(theta.size):
        step = 1e-5 * (np.arange(theta.size) == i)
        slope = (dense(theta + step) - dense(theta - step)) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_hom_cs_is_an_intercept_and_one_for_each_cell():
    data = panel(1, groups=30)
    cs = mx.lmer("y ~ x + cs(0 + factor(t) | g, hom = TRUE)", data)
    two = mx.lmer("y ~ x + (1 | g) + (1 | g:t)", data)
    assert cs.criterion == pytest.approx(two.criterion, abs=1e-8)
    sd, rho = cs.variance_components()["estimate"].iloc[:2]
    variances = two.varcorr.to_frame().set_index("grp")["vcov"]
    assert sd**2 == pytest.approx(variances["g"] + variances["g:t"], rel=1e-4)
    assert rho == pytest.approx(variances["g"] / (variances["g"] + variances["g:t"]), rel=1e-4)
    np.testing.assert_allclose(cs.fixef, two.fixef, rtol=1e-5)
    np.testing.assert_allclose(cs.bse, two.bse, rtol=1e-5)
    np.testing.assert_allclose(cs.predict(), two.predict(), atol=1e-4)
    df = [fit.tidy(ddf="satterthwaite")["df"] for fit in (cs, two)]
    np.testing.assert_allclose(*df, rtol=1e-3)
    kr = [fit.tidy(ddf="kenward-roger")[["std_error", "df"]] for fit in (cs, two)]
    np.testing.assert_allclose(*kr, rtol=1e-4)


def test_two_columns_with_two_variances_are_the_general_structure():
    data = panel(2)
    for written_as in ("cs(x | g)", "us(x | g)"):
        fit = mx.lmer(f"y ~ x + {written_as}", data, control=QUIET)
        usual = mx.lmer("y ~ x + (x | g)", data, control=QUIET)
        assert fit.criterion == pytest.approx(usual.criterion, abs=1e-8)


@pytest.mark.parametrize("key", ["ar1", "cs(hom = TRUE)", "toep(hom = TRUE)"])
def test_without_correlation_it_is_id(key):
    data = panel(3)
    inside = "0 + factor(t) | g"
    structured = mx.deviance_function("y ~ x + " + written(key, inside), data)
    id_ = mx.deviance_function("y ~ x + id(0 + factor(t) | g)", data)
    theta = np.zeros(structured.theta0.size)
    theta[0] = 0.8
    assert structured(theta) == pytest.approx(id_([0.8]), abs=1e-9)


@pytest.mark.parametrize("key", ["ar1(hom = FALSE)", "cs", "toep"])
def test_without_correlation_it_is_diag(key):
    data = panel(3)
    inside = "0 + factor(t) | g"
    structured = mx.deviance_function("y ~ x + " + written(key, inside), data)
    diag = mx.deviance_function("y ~ x + diag(0 + factor(t) | g)", data)
    sd = [0.8, 0.3, 1.2, 0.5]
    theta = np.append(sd, np.zeros(structured.theta0.size - TIMES))
    assert structured(theta) == pytest.approx(diag(sd), abs=1e-9)


# glmmTMB 1.1.5 on nlme's Orthodont, REML: criterion, residual sd, sds, correlations.
GLMMTMB = {
    "ar1(0 + age | Subject)": (446.0307987, 1.28537227, [2.214963821], [0.9510219784]),
    "cs(0 + factor(age) | Subject)": (
        441.9004201, 1.381603943, [1.896011840, 1.704830302, 2.463494377, 2.418564956], [1.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("term", GLMMTMB)
def test_orthodont_as_glmmtmb_has_it(term):
    criterion, sigma, sds, rho = GLMMTMB[term]
    fit = mx.lmer(f"distance ~ age + {term}", mx.datasets.load("Orthodont"),
                  control=QUIET)  # fmt: skip
    assert fit.criterion == pytest.approx(criterion, abs=1e-5)
    assert fit.sigma == pytest.approx(sigma, rel=1e-4)
    estimates = fit.variance_components()["estimate"].to_numpy()
    np.testing.assert_allclose(estimates[:-1], [*sds, *rho], rtol=1e-4)


def test_toeplitz_finds_a_lower_criterion_than_glmmtmb():
    fit = mx.lmer("distance ~ age + toep(0 + age | Subject)", mx.datasets.load("Orthodont"),
                  control=QUIET)  # fmt: skip
    assert fit.criterion == pytest.approx(437.822621, abs=1e-5)  # glmmTMB stops at 437.843147
    assert fit.is_singular()
    assert fit.convergence.status == "singular"


@every_key
def test_recovery(key):
    """A large sample of a known covariance gives its parameters back."""
    rng = np.random.default_rng(8)
    template = covariance_structure(key, TIMES)
    theta = np.concatenate([np.linspace(1.0, 2.0, TIMES)[: template.n_theta - template.n_rho],
                            0.6 ** np.arange(1, template.n_rho + 1)])  # fmt: skip
    T = template.factor(theta)
    groups, times = np.divmod(np.tile(np.arange(800 * TIMES), 2), TIMES)
    effects = rng.normal(size=(800, TIMES)) @ T.T
    y = 2.0 + effects[groups, times] + rng.normal(size=groups.size)
    data = pd.DataFrame({"y": y, "g": groups, "t": times})
    fit = mx.lmer("y ~ 1 + " + written(key, "0 + factor(t) | g"), data)
    found = fit.variance_components()
    z = (found["estimate"].iloc[:-1] - theta) / found["std_error"].iloc[:-1]
    assert np.abs(z).max() < 3.5


@every_key
def test_order_of_rows_and_names_of_groups_do_not_matter(key):
    data = panel(4)
    formula = "y ~ x + (1 | h) + " + written(key, "0 + factor(t) | g")
    fit = mx.lmer(formula, data, control=QUIET)
    other = data.sample(frac=1.0, random_state=0)
    other["g"] = "z" + (99 - other["g"]).astype(str)
    again = mx.lmer(formula, other, control=QUIET)
    assert again.criterion == pytest.approx(fit.criterion, abs=1e-8)
    np.testing.assert_allclose(again.theta, fit.theta, atol=1e-3)
    unit = mx.lmer(formula, data.assign(y=1000.0 * data["y"]), control=QUIET)
    np.testing.assert_allclose(unit.theta, fit.theta, atol=1e-3)
    assert unit.sigma == pytest.approx(1000.0 * fit.sigma, rel=1e-5)


def test_two_structures_on_one_factor_beside_a_crossed_one():
    data = panel(5, groups=25)
    formula = "y ~ x + cs(0 + factor(t) | g, hom = TRUE) + ar1(0 + factor(t) | h) + (0 + x | g)"
    fit = mx.lmer(formula, data, control=QUIET)
    assert fit.convergence.converged
    found = fit.variance_components()
    assert list(found.index[:-1]) == ["sd_x|g", "sd|g", "rho|g", "sd|h", "phi|h"]
    X = np.column_stack([np.ones(len(data)), data["x"]])
    cells = dense_terms(data)[0]
    codes = np.unique(data["h"], return_inverse=True)[1]
    place = np.searchsorted(np.unique(data["t"]), data["t"])
    terms = [
        dense_oracle.OracleTerm(data[["x"]].to_numpy(), cells.codes, cells.n_levels),
        cells,
        dense_oracle.OracleTerm(np.eye(TIMES)[place], codes, int(codes.max()) + 1),
    ]
    dense = dense_oracle.solve(
        data["y"].to_numpy(), X, terms, [fit.solution.Lambda(t) for t in range(3)]
    )
    assert fit.criterion == pytest.approx(dense.criterion, rel=1e-9)
    assert np.abs(criterion_and_gradient(fit.theta, fit.system)[1][fit.theta > 0.0]).max() < 1.0


@pytest.mark.parametrize("optimizer", ["lbfgsb", "bobyqa", "cobyqa"])
def test_every_optimizer_finds_the_same(optimizer):
    data = panel(6, groups=25)
    for key in ("cs", "ar1", "toep(hom = TRUE)"):
        formula = "y ~ x + " + written(key, "0 + factor(t) | g")
        usual = mx.lmer(formula, data, control=QUIET)
        other = mx.lmer(formula, data, optimizer=optimizer, control=QUIET)
        assert other.criterion == pytest.approx(usual.criterion, abs=1e-5)


def test_a_false_edge_is_left():
    data = panel(7, groups=30)
    formula = "y ~ x + ar1(0 + factor(t) | g)"
    usual = mx.lmer(formula, data)
    for start in ([0.0, 0.0], [1.0, 1.0], [0.5, -1.0]):
        fit = mx.lmer(formula, data, start=np.array(start))
        assert fit.criterion == pytest.approx(usual.criterion, abs=1e-6)


@every_key
def test_profile_wald_and_constrained_optimum_agree(key):
    data = panel(9, groups=60)
    formula = "y ~ x + " + written(key, "0 + factor(t) | g")
    fit = mx.lmer(formula, data, reml=False)
    table = fit.variance_components()
    profile = fit.profile("theta_")
    name = table.index[-2]  # the last correlation
    curve = profile[name]
    assert list(profile.confint().index) == list(table.index)
    at = curve.values[np.argmin(np.abs(curve.zeta - 1.0))]
    zeta = curve.zeta[np.argmin(np.abs(curve.zeta - 1.0))]
    function = mx.deviance_function(formula, data, reml=False)
    # by a search that knows nothing of the profile's coordinates
    template = covariance_structure(key, TIMES)
    index = template.n_theta - 1

    def rest(x):
        theta = np.insert(x, index, at)
        try:
            return function(theta)
        except mx.NotPositiveDefiniteError:
            return 1e6

    x0 = np.delete(fit.theta, index)
    options = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 20000, "maxfev": 20000}
    found = minimize(rest, x0, method="Nelder-Mead", options=options)
    assert found.fun - fit.criterion == pytest.approx(zeta**2, abs=1e-4)


def test_bad_formulas_say_what_is_wrong():
    data = panel(1)
    for term, message in {
        "cs(0 + factor(t) | g, hom = 1)": "hom = 1 in .* is not TRUE or FALSE",
        "cs(0 + factor(t) | g, het = TRUE)": r"has no argument 'het': it takes hom",
        "diag(0 + factor(t) | g, hom = TRUE)": r"has no argument 'hom': it takes none",
        "ar2(0 + t | g)": "'ar2' is not a covariance structure",
    }.items():
        with pytest.raises(mx.FormulaError, match=message):
            mx.lmer(f"y ~ x + {term}", data)
    with pytest.raises(mx.OptionError, match="above the bounds"):
        mx.lmer("y ~ x + ar1(0 + factor(t) | g)", data, start=np.array([1.0, 1.5]))
    with pytest.raises(mx.OptionError, match="are those of no covariance matrix"):
        start = np.array([1, 1, 1, 1, 0.9, -0.9, 0.9])
        mx.lmer("y ~ x + toep(0 + factor(t) | g)", data, start=start)
