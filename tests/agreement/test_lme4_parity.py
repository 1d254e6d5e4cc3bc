"""Every record of the corpus against lme4: the objective at given theta, and the fit at its
optimum.

Two kinds of comparison, because they allow different tolerances. At a *given* theta nothing but
rounding separates two correct programs. At the *optimum* each program has its own theta; where the
criterion is flat, theta and what depends on it differ by more than rounding although the criteria
agree to ten digits.
"""

from __future__ import annotations

import numpy as np
import pytest

from mixlm_sparse import solve_pls
from mixlm_sparse.solve.criterion import profiled_criterion
from tests.support import corpus
from tests.support.corpus import LARGE, MODELS, load_json, load_model

# --- at a given theta
CRITERION_RTOL = 1e-9  # rounding only
PARTS_RTOL = (
    1e-8  # wrss and ussq are small differences in some models; ldL2 sums thousands of logarithms
)
# Days x 1e5 with theta of size 1 makes C = Lambda'Z'WZ Lambda + I lose up to twelve digits:
# lme4's own values are off by up to 1.3e-7 (exact rational arithmetic in test_exact.py)
CRITERION_RTOL_EXTREME = {"sleep_scale": 5e-7}
PARTS_RTOL_EXTREME = {"sleep_scale": 1e-4}  # lme4's ldRX2 is off by 8.5e-5, its ldL2 by 5e-7
BETA_SE_TOL = 1e-6  # coefficients at a given theta, in standard errors
BETA_SE_TOL_EXTREME = {"sleep_scale": 0.1}  # lme4's slope is off by 0.06 there, ours by 1e-4
VALUE_RTOL = 1e-6  # the other quantities at lme4's theta, relative to the size of each

# --- at the optimum
CRITERION_EXCESS = 1e-5  # the fit may not be worse than lme4's tight optimum by more than this
CRITERION_RTOL_OPTIMUM = 1e-6  # nor differ by more than this, unless it is better
FIXEF_SE_TOL = 1e-4  # coefficients, in standard errors
SE_RTOL = 1e-4  # standard errors
COV_TOL = (
    1e-3  # (co)variances of random effects, relative to the product of the standard deviations
)
SIGMA_RTOL = 1e-4
RANEF_TOL = 1e-3  # predicted random effects, relative to their standard deviation
COND_VAR_TOL = 1e-3  # conditional covariances, relative to the variance of the effects
FITTED_TOL = 1e-3  # fitted values, relative to sigma
HAT_TOL = 1e-4
BOUNDARY_VARIANCE = 1e-6  # times sigma²: a variance below this is zero for both programs

# lme4 judges singularity on raw theta, which depends on the unit of a predictor: Days × 1e5 makes
# theta of a slope of the size 1e-6. The fit is regular.
SINGULAR_BY_UNIT_ONLY = {"sleep_scale"}

# (1 | g) + (0 + f | g): a common variance can move between the two terms, since the indicators of f
# add up to 1. Only their sum is determined; test_overparameterized_model compares that. The values
# are the positions of the intercept term and the indicator term.
OVERPARAMETERIZED = {"machines_diag_reml": (0, 1), "hsb_ses_diag_ml": (0, 2)}
DETERMINED = [name for name in MODELS if name not in OVERPARAMETERIZED]


def ids(models):
    return [
        pytest.param(name, marks=pytest.mark.large) if name in LARGE else name for name in models
    ]


every_model = pytest.mark.parametrize("model_id", ids(MODELS))


def random_sd(term):
    """Standard deviations of a term's effects, never zero, so that they can divide."""
    return np.asarray(term["sd"], float)


def term_slices(record):
    """Columns of each term in the table of its grouping factor: terms of one factor stand side by
    side.
    """
    width: dict[str, int] = {}
    for term in record["random_terms"]:
        start = width.get(term["factor"], 0)
        width[term["factor"]] = start + len(term["terms"])
        yield term, slice(start, width[term["factor"]])


# --------------------------------------------------------------------------------- at a given theta


@every_model
def test_names_and_sizes(model_id):
    record, system = load_model(model_id), corpus.system(model_id)
    assert system.n == record["nobs"]
    assert system.p == record["p"]
    assert system.q == record["q"]
    assert list(system.x_names) == list(record["fixef"])
    assert list(system.dropped) == record["dropped_columns"]
    assert list(system.theta_names) == record["theta_names"]
    lower = [-np.inf if low is None else low for low in record["lower"]]
    np.testing.assert_array_equal(system.lower, lower)
    assert system.matrices.n_input - system.n == record["n_rows_dropped"]
    for term, reference in zip(system.matrices.terms, record["random_terms"], strict=True):
        assert term.name == reference["varcorr_name"]
        assert list(term.column_names) == reference["terms"]
        factor = system.matrices.factors[term.factor]
        assert factor.label == reference["factor"]
        assert factor.n_levels == reference["n_levels"]
        assert list(factor.levels)[: len(reference["levels"])] == reference["levels"]


@every_model
def test_objective_at_three_thetas(model_id):
    record, system = load_model(model_id), corpus.system(model_id)
    se = np.array(list(record["se"].values()))
    rtol = CRITERION_RTOL_EXTREME.get(model_id, CRITERION_RTOL)
    parts_rtol = PARTS_RTOL_EXTREME.get(model_id, PARTS_RTOL)
    for at in record["deviance_at"]:
        theta = np.array(at["theta"], float)
        value = profiled_criterion(theta, system, reml=record["REML"])
        assert value == pytest.approx(at["value"], rel=rtol)
        solution = solve_pls(theta, system)
        beta_tol = BETA_SE_TOL_EXTREME.get(model_id, BETA_SE_TOL)
        np.testing.assert_array_less(np.abs(solution.beta - at["beta"]), beta_tol * se)
        for part in ("ldL2", "ldRX2", "wrss", "ussq", "pwrss"):
            # a log-determinant may be near 0 by cancellation: its error is that of its terms
            floor = 1e-8 if part.startswith("ld") else 1e-10 * at["pwrss"]
            assert getattr(solution, part) == pytest.approx(at[part], rel=parts_rtol, abs=floor), (
                part
            )


@every_model
def test_everything_at_the_theta_of_lme4(model_id):
    record, system = load_model(model_id), corpus.system(model_id)
    solution = solve_pls(np.array(record["theta"], float), system)
    sigma = record["sigma"]
    nu = system.n - (system.p if record["REML"] else 0)
    assert np.sqrt(solution.pwrss / nu) == pytest.approx(sigma, rel=VALUE_RTOL)
    se = np.array(list(record["se"].values()))
    beta = np.array(list(record["fixef"].values()))
    np.testing.assert_array_less(np.abs(solution.beta - beta), BETA_SE_TOL * se)
    vcov = sigma**2 * solution.vcov_unscaled
    np.testing.assert_allclose(
        vcov / np.outer(se, se), record["vcov"] / np.outer(se, se), atol=VALUE_RTOL
    )
    for part, value in record["cmp"].items():
        floor = 1e-8 if part.startswith("ld") else 1e-10 * record["cmp"]["pwrss"]
        # wrss and ussq vary at first order in theta, whose digits end somewhere
        assert getattr(solution, part) == pytest.approx(value, rel=VALUE_RTOL, abs=floor), part
    for t, term in enumerate(record["random_terms"]):
        head = len(term["levels"])
        scale = np.maximum(np.sqrt(np.diag(term["cov"])), np.sqrt(BOUNDARY_VARIANCE) * sigma)
        np.testing.assert_allclose(
            solution.b(t)[:head] / scale, np.array(term["ranef"]) / scale, atol=VALUE_RTOL
        )
        covariance = solution.Lambda(t) @ solution.Lambda(t).T * sigma**2
        outer = np.outer(scale, scale)
        np.testing.assert_allclose(
            covariance / outer, np.array(term["cov"]) / outer, atol=VALUE_RTOL
        )
        conditional = sigma**2 * solution.conditional_covariance(t)[:head]
        np.testing.assert_allclose(
            conditional / outer, np.array(term["cond_var"]) / outer, atol=VALUE_RTOL
        )
    head = len(record["fitted_head"])
    fitted, fixed = solution.fitted(), solution.fitted(include_random=False)
    np.testing.assert_allclose(fitted[:head], record["fitted_head"], atol=VALUE_RTOL * sigma)
    np.testing.assert_allclose(fixed[:head], record["fitted_fixed_head"], atol=VALUE_RTOL * sigma)
    residuals = (system.matrices.y - fitted)[:head]
    np.testing.assert_allclose(residuals, record["residuals_head"], atol=VALUE_RTOL * sigma)
    if record.get("hatvalues_head") is not None:
        np.testing.assert_allclose(
            solution.leverage()[:head], record["hatvalues_head"], atol=VALUE_RTOL
        )


# ----------------------------------------------------------------------------------- at the optimum


@every_model
def test_optimum(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    assert fit.criterion <= record["criterion"] + CRITERION_EXCESS
    if fit.criterion > record["criterion"]:
        assert fit.criterion == pytest.approx(record["criterion"], rel=CRITERION_RTOL_OPTIMUM)


@every_model
def test_criterion_is_that_of_the_theta_reported(model_id):
    """A fit that claims a lower criterion than it has would pass `test_optimum`."""
    record, fit = load_model(model_id), corpus.fit(model_id)
    value = profiled_criterion(np.asarray(fit.theta), corpus.system(model_id), reml=record["REML"])
    assert fit.criterion == pytest.approx(value, rel=CRITERION_RTOL)


@every_model
def test_information(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    assert fit.nobs == record["nobs"]
    assert fit.n_par == record["n_par"]
    assert fit.df_resid == record["df_residual"]
    assert dict(fit.ngroups) == record["ngrps"]
    assert list(fit.theta_names) == record["theta_names"]
    assert fit.llf == pytest.approx(-fit.criterion / 2, rel=1e-14)
    assert fit.llf == pytest.approx(record["logLik"], rel=1e-8, abs=CRITERION_EXCESS)
    assert fit.aic == pytest.approx(record["AIC"], rel=1e-8, abs=CRITERION_EXCESS)
    assert fit.bic == pytest.approx(record["BIC"], rel=1e-8, abs=CRITERION_EXCESS)


@every_model
def test_coefficients(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    assert list(fit.fixef.index) == list(record["fixef"])
    se = np.array(list(record["se"].values()))
    beta = np.array(list(record["fixef"].values()))
    np.testing.assert_allclose(fit.fixef.to_numpy() / se, beta / se, rtol=0, atol=FIXEF_SE_TOL)
    np.testing.assert_allclose(fit.bse.to_numpy(), se, rtol=SE_RTOL)
    np.testing.assert_allclose(fit.tvalues.to_numpy(), beta / se, rtol=SE_RTOL, atol=FIXEF_SE_TOL)
    outer = np.outer(se, se)
    vcov = fit.cov_params()
    assert list(vcov.columns) == list(record["fixef"])
    np.testing.assert_allclose(vcov.to_numpy() / outer, record["vcov"] / outer, atol=2 * SE_RTOL)


@every_model
def test_wald_intervals(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    reference = record["confint_wald"]
    se = np.array(list(record["se"].values()))
    interval = fit.conf_int(level=reference["level"], ddf="normal")
    assert list(interval.index) == reference["names"]
    # statsmodels and R put the lower limit first; the names of the columns are not compared
    np.testing.assert_allclose(
        interval.to_numpy() / se[:, None],
        np.column_stack([reference["lower"], reference["upper"]]) / se[:, None],
        rtol=0,
        atol=5 * FIXEF_SE_TOL,
    )


@pytest.mark.parametrize("model_id", ids(DETERMINED))
def test_variance_components(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    assert fit.sigma == pytest.approx(record["sigma"], rel=SIGMA_RTOL)
    table = fit.varcorr.to_frame()
    assert list(table.columns) == ["grp", "var1", "var2", "vcov", "sdcor"]
    residual = table.iloc[-1]
    assert residual["grp"] == "Residual"
    assert residual["vcov"] == pytest.approx(record["sigma"] ** 2, rel=2 * SIGMA_RTOL)
    assert residual["sdcor"] == pytest.approx(record["sigma"], rel=SIGMA_RTOL)
    for term in record["random_terms"]:
        rows = table[table["grp"] == term["varcorr_name"]]
        k = len(term["terms"])
        assert len(rows) == k * (k + 1) // 2
        cov = np.array(term["cov"], float)
        scale = np.maximum(np.sqrt(np.diag(cov)), np.sqrt(BOUNDARY_VARIANCE) * record["sigma"])
        # lme4 lists the variances first, then the lower triangle by columns
        names = [(term["terms"][i], None) for i in range(k)]
        places = [(i, i) for i in range(k)]
        for j in range(k):
            for i in range(j + 1, k):
                names.append((term["terms"][j], term["terms"][i]))
                places.append((i, j))
        for (var1, var2), (i, j), (_, row) in zip(names, places, rows.iterrows(), strict=True):
            assert row["var1"] == var1
            assert row["var2"] == var2 or (var2 is None and not isinstance(row["var2"], str))
            # a variance of zero: a standard deviation of 1e-3 sigma on one side is no difference
            tolerance = COV_TOL * scale[i] * scale[j] + BOUNDARY_VARIANCE * record["sigma"] ** 2
            assert row["vcov"] == pytest.approx(cov[i, j], abs=tolerance), (var1, var2)
            if i == j:
                sd = term["sd"][i]
                assert row["sdcor"] == pytest.approx(
                    sd, abs=COV_TOL * scale[i] + np.sqrt(BOUNDARY_VARIANCE) * record["sigma"]
                )
            elif min(cov[i, i], cov[j, j]) > 10 * BOUNDARY_VARIANCE * record["sigma"] ** 2:
                assert row["sdcor"] == pytest.approx(term["corr"][i][j], abs=2 * COV_TOL)


@pytest.mark.parametrize("model_id", ids(DETERMINED))
def test_random_effects(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    effects, variances = fit.ranef(cond_var=True)
    assert set(effects) == {term["factor"] for term in record["random_terms"]}
    for term, columns in term_slices(record):
        frame, variance = effects[term["factor"]], variances[term["factor"]]
        head = len(term["levels"])
        assert len(frame) == term["n_levels"]
        assert list(frame.index.astype(str)[:head]) == term["levels"]
        assert list(frame.columns[columns]) == term["terms"]
        cov = np.array(term["cov"], float)
        scale = np.maximum(np.sqrt(np.diag(cov)), 1e-2 * record["sigma"] * (np.diag(cov) == 0))
        scale = np.maximum(scale, np.sqrt(BOUNDARY_VARIANCE) * record["sigma"])
        np.testing.assert_allclose(
            frame.to_numpy()[:head, columns] / scale,
            np.array(term["ranef"]) / scale,
            rtol=0,
            atol=RANEF_TOL,
        )
        outer = np.outer(scale, scale)
        np.testing.assert_allclose(
            variance[:head, columns, columns] / outer,
            np.array(term["cond_var"]) / outer,
            rtol=0,
            atol=COND_VAR_TOL,
        )


@every_model
def test_rows(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    head, sigma = len(record["fitted_head"]), record["sigma"]
    tolerance = {"rtol": 0, "atol": FITTED_TOL}
    fitted = np.asarray(fit.fittedvalues)[:head]
    residuals = np.asarray(fit.resid)[:head]
    assert len(fit.fittedvalues) == len(fit.resid) == record["nobs"]
    np.testing.assert_allclose(fitted / sigma, np.array(record["fitted_head"]) / sigma, **tolerance)
    np.testing.assert_allclose(
        residuals / sigma, np.array(record["residuals_head"]) / sigma, **tolerance
    )
    if record.get("hatvalues_head") is not None:
        np.testing.assert_allclose(
            np.asarray(fit.hatvalues())[:head], record["hatvalues_head"], rtol=0, atol=HAT_TOL
        )


@every_model
def test_singularity(model_id):
    record, fit = load_model(model_id), corpus.fit(model_id)
    expected = record["is_singular"] and model_id not in SINGULAR_BY_UNIT_ONLY
    if model_id in OVERPARAMETERIZED:
        # along the ridge the common variance may end inside or on the boundary of either term
        assert isinstance(fit.is_singular(), bool | np.bool_)
    else:
        assert fit.is_singular() == expected


@pytest.mark.parametrize("model_id", sorted(OVERPARAMETERIZED))
def test_overparameterized_model(model_id):
    """(1 | g) + (0 + f | g): J s² + G is determined, and so are the sums of the effects."""
    record, fit = load_model(model_id), corpus.fit(model_id)
    terms = record["random_terms"]
    one, many = OVERPARAMETERIZED[model_id]
    assert fit.sigma == pytest.approx(record["sigma"], rel=SIGMA_RTOL)
    for term in (terms[one], terms[many]):
        assert fit.varcorr[term["varcorr_name"]].isna().all(axis=None)
    ours = [fit.scale * T @ T.T for T in fit.system.chart.theta_factors(fit.theta)]
    total = terms[one]["cov"][0][0] + np.array(terms[many]["cov"])
    scale = np.sqrt(np.diag(total))
    outer = np.outer(scale, scale)
    np.testing.assert_allclose(
        (ours[one][0, 0] + ours[many]) / outer, total / outer, rtol=0, atol=COV_TOL
    )
    columns = [where for _, where in term_slices(record)]
    effects = fit.ranef()[terms[one]["factor"]].to_numpy()[: len(terms[one]["levels"])]
    np.testing.assert_allclose(
        (effects[:, columns[one]] + effects[:, columns[many]]) / scale,
        (np.array(terms[one]["ranef"]) + np.array(terms[many]["ranef"])) / scale,
        rtol=0,
        atol=RANEF_TOL,
    )


# --------------------------------------------------------------------------- likelihood-ratio tests

CHISQ_ATOL = 2e-5  # the difference of two criteria, each within 1e-5


@pytest.mark.parametrize(
    "pair", load_json("lrt.json")["pairs"], ids=lambda pair: f"{pair['smaller']}-{pair['larger']}"
)
def test_likelihood_ratio(pair):
    smaller, larger = corpus.fit(pair["smaller"]), corpus.fit(pair["larger"])
    assert smaller.criterion - larger.criterion == pytest.approx(pair["chisq"], abs=CHISQ_ATOL)
    assert larger.n_par - smaller.n_par == pair["df"]
