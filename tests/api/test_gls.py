"""`gls` and residual structures as a user meets them: equivalences, invariance, bad input."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, FormulaError, OptionError
from mixlm_sparse.solve.derived.other_response import with_response


def orthodont() -> pd.DataFrame:
    return mx.datasets.load("Orthodont").assign(visit=lambda d: ((d["age"] - 8) / 2).astype(int))


def trial() -> pd.DataFrame:
    return mx.datasets.load("fev_data")


# -- equivalences --------------------------------------------------------------------------------


def test_compound_symmetry_is_a_random_intercept_where_its_correlation_is_positive() -> None:
    data = orthodont()
    a = mx.gls("distance ~ age * Sex", data, residual=mx.CompoundSymmetry(group="Subject"))
    b = mx.lmer("distance ~ age * Sex + (1 | Subject)", data)
    assert a.criterion == pytest.approx(b.criterion, abs=1e-8)
    variance = b.varcorr["Subject"].iloc[0, 0]
    assert a.residual_structure["estimate"][0] == pytest.approx(
        variance / (variance + b.scale), rel=1e-5
    )
    np.testing.assert_allclose(a.fixef, b.fixef, rtol=1e-8)
    np.testing.assert_allclose(a.bse, b.bse, rtol=1e-6)
    np.testing.assert_allclose(a.df_coefficients(), b.df_coefficients(), rtol=1e-4)


def test_two_visits_have_one_correlation_whatever_it_is_called() -> None:
    data = orthodont().query("visit < 2")
    structures = [
        mx.CompoundSymmetry("Subject"), mx.AR1("visit", "Subject"), mx.Toeplitz("visit", "Subject"),
        mx.Unstructured("visit", "Subject"), mx.AnteDependence("visit", "Subject"),
        mx.CAR1("visit", "Subject"), mx.Exponential("visit", "Subject"),
    ]  # fmt: skip
    fits = [mx.gls("distance ~ age * Sex", data, residual=one) for one in structures]
    for fit in fits:
        assert fit.criterion == pytest.approx(fits[0].criterion, abs=1e-7)


def test_continuous_time_is_discrete_time_at_equal_times() -> None:
    data = orthodont()
    discrete = mx.gls("distance ~ age * Sex", data, residual=mx.AR1("visit", "Subject"))
    continuous = mx.gls("distance ~ age * Sex", data, residual=mx.CAR1("visit", "Subject"))
    spatial = mx.gls("distance ~ age * Sex", data, residual=mx.Exponential("visit", "Subject"))
    phi = discrete.residual_structure["estimate"][0]
    assert phi > 0
    assert continuous.residual_structure["estimate"][0] == pytest.approx(phi, rel=1e-5)
    assert spatial.residual_structure["estimate"][0] == pytest.approx(-1 / np.log(phi), rel=1e-5)
    for fit in (continuous, spatial):
        assert fit.criterion == pytest.approx(discrete.criterion, abs=1e-8)


def test_without_structure_gls_is_least_squares() -> None:
    data = orthodont()
    fit = mx.gls("distance ~ age * Sex", data)
    X = fit.model_matrix()
    beta, squares, *_ = np.linalg.lstsq(X, data["distance"], rcond=None)
    np.testing.assert_allclose(fit.fixef, beta)
    assert fit.scale == pytest.approx(squares[0] / (108 - 4))
    assert fit.residual_structure.empty
    assert "Linear model fit by REML" in fit.summary()


def test_the_variance_of_levels_is_that_of_separate_fits() -> None:
    data = orthodont()
    fit = mx.gls("distance ~ age * Sex", data, variance=mx.VarIdent("Sex"))
    separate = [mx.gls("distance ~ age", rows) for _, rows in data.groupby("Sex", observed=True)]
    assert fit.criterion == pytest.approx(sum(one.criterion for one in separate), abs=1e-7)
    ratio = separate[1].sigma / separate[0].sigma
    assert fit.residual_structure["estimate"][0] == pytest.approx(ratio, rel=1e-6)


# -- invariance ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "residual",
    [
        mx.AR1("VISITN", "USUBJID"), mx.Unstructured("VISITN", "USUBJID"),
        mx.CAR1("VISITN", "USUBJID", by="ARMCD"), mx.Toeplitz("VISITN", "USUBJID"),
    ],
    ids=str,
)  # fmt: skip
def test_order_of_rows_and_names_of_groups_do_not_matter(residual) -> None:
    data = trial()
    variance = mx.VarIdent("AVISIT")
    fit = mx.gls("FEV1 ~ ARMCD * AVISIT", data, residual=residual, variance=variance)
    shuffled = data.sample(frac=1.0, random_state=3)
    shuffled["USUBJID"] = shuffled["USUBJID"].astype(str).map(lambda name: f"x{name[::-1]}")
    again = mx.gls("FEV1 ~ ARMCD * AVISIT", shuffled, residual=residual, variance=variance)
    assert again.criterion == pytest.approx(fit.criterion, abs=1e-8)
    np.testing.assert_allclose(again.fixef, fit.fixef, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        again.residual_structure.iloc[:, 1:], fit.residual_structure.iloc[:, 1:], rtol=2e-4,
        atol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(again.df_coefficients(), fit.df_coefficients(), rtol=1e-4)
    np.testing.assert_allclose(
        again.residuals("normalized").loc[fit.resid.index], fit.residuals("normalized"), atol=1e-5
    )


def test_units_of_response_time_and_covariate() -> None:
    data = orthodont().assign(
        mm=lambda d: 1000 * d["distance"], days=lambda d: 365.25 * d["age"] + 7
    )
    first = mx.gls("distance ~ age", data, residual=mx.CAR1("age", "Subject"),
                   variance=mx.VarPower("age"))  # fmt: skip
    second = mx.gls("mm ~ age", data, residual=mx.CAR1("days", "Subject"),
                    variance=mx.VarPower("age"))  # fmt: skip
    shift = 2 * (108 - 2) * np.log(1000)
    assert second.criterion - shift == pytest.approx(first.criterion, abs=1e-7)
    a, b = (fit.residual_structure["estimate"] for fit in (first, second))
    assert b[0] ** 365.25 == pytest.approx(a[0], rel=1e-5)
    assert b[1] == pytest.approx(a[1], rel=1e-5)
    np.testing.assert_allclose(second.df_coefficients(), first.df_coefficients(), rtol=1e-5)


def test_a_missing_visit_keeps_its_place() -> None:
    data = orthodont()
    gap = data[~((data["visit"] == 1) & (data["Sex"] == "Male"))]
    counted = gap.assign(
        visit=gap.groupby("Subject", observed=True).cumcount()
    )  # visits that moved up
    residual = mx.AR1("visit", "Subject")
    factor = gap.assign(visit=pd.Categorical(gap["visit"].map("v{}".format),
                                             categories=["v0", "v1", "v2", "v3"]))  # fmt: skip
    fit = mx.gls("distance ~ age * Sex", gap, residual=residual)
    assert mx.gls("distance ~ age * Sex", factor, residual=residual).criterion == pytest.approx(
        fit.criterion, abs=1e-9
    )
    moved = mx.gls("distance ~ age * Sex", counted, residual=residual)
    assert abs(moved.criterion - fit.criterion) > 1e-3


# -- what the fit says ---------------------------------------------------------------------------


def test_the_summary_says_the_structure_in_words() -> None:
    fit = mx.gls(
        "FEV1 ~ ARMCD", trial(), residual=mx.AR1("AVISIT", "USUBJID", by="ARMCD"),
        variance=mx.VarIdent("AVISIT"),
    )  # fmt: skip
    text = fit.summary()
    for words in ("Generalized least squares fit by REML", "autoregressive of order one within 197",
                  "phi|PBO", "phi|TRT", "ratio(VIS4)", "sigma is that of VIS1"):  # fmt: skip
        assert words in text
    assert "Random effects" not in text
    for form in (text.html, text.to_markdown(), text.to_latex()):
        assert "phi" in form
    assert list(fit.residual_structure.columns) == [
        "parameter", "estimate", "std_error", "lower", "upper",
    ]  # fmt: skip


def test_normalized_residuals_are_uncorrelated_in_the_model() -> None:
    fit = mx.gls("distance ~ age", orthodont(), residual=mx.AR1("visit", "Subject"),
                 variance=mx.VarIdent("Sex"))  # fmt: skip
    law = fit.system.whitened.whitening
    e = fit.resid.to_numpy()
    np.testing.assert_allclose(
        fit.residuals("normalized"), law.apply(e[:, None])[:, 0], rtol=1e-10
    )
    # the sum of their squares is what sigma is estimated from
    squares = float((fit.residuals("normalized") ** 2).sum())
    assert fit.scale == pytest.approx(squares / (fit.nobs - 2))


def test_refits_updates_and_copies() -> None:
    data = orthodont()
    fit = mx.lmer("distance ~ age * Sex + (1 | Subject)", data, residual=mx.AR1("visit", "Subject"))
    ml = fit.refit_ml()
    assert ml.criterion == pytest.approx(
        mx.lmer(fit.formula, data, reml=False, residual=mx.AR1("visit", "Subject")).criterion,
        abs=1e-7,
    )
    doubled = fit.refit(2.0 * data["distance"] + 3.0)
    np.testing.assert_allclose(
        doubled.residual_structure["estimate"], fit.residual_structure["estimate"], rtol=1e-4
    )
    assert doubled.sigma == pytest.approx(2.0 * fit.sigma, rel=1e-5)
    changed = fit.update(residual=mx.CAR1("age", "Subject"), formula=". ~ . - age:Sex")
    assert "age:SexFemale" not in changed.fixef
    assert changed.residual_structure["parameter"].tolist() == ["phi"]
    again = pickle.loads(pickle.dumps(fit))
    assert again.criterion == fit.criterion
    assert str(again.summary()) == str(fit.summary())


def test_models_with_different_structures_compare_by_likelihood_ratio() -> None:
    data = orthodont()
    small = mx.gls("distance ~ age * Sex", data, residual=mx.CompoundSymmetry("Subject"))
    large = mx.gls("distance ~ age * Sex", data, residual=mx.Unstructured("visit", "Subject"))
    table = mx.anova(small, large)
    assert table["Df"].iloc[1] == 5
    difference = small.refit_ml().criterion - large.refit_ml().criterion
    assert table["Chisq"].iloc[1] == pytest.approx(difference)
    assert "chi-squared" not in table.attrs["note"]
    assert "structures" not in mx.anova(large, large.update(". ~ . - age:Sex")).attrs["note"]


def test_the_engine_says_how_rows_are_whitened() -> None:
    residual = mx.AR1("visit", "Subject")
    fit = mx.lmer("distance ~ age + (1 | Subject)", orthodont(), residual=residual)
    said = " ".join(fit.describe_engine().split())
    assert "each row is turned from the one before" in said
    assert "27 groups" in said


def test_rows_that_come_in_batches_are_refused() -> None:
    data = orthodont()
    with pytest.raises(OptionError, match="into a frame first"):
        mx.lmer("distance ~ age + (1 | Subject)", iter([data[:54], data[54:]]),
                residual=mx.AR1("visit", "Subject"))  # fmt: skip


@pytest.mark.parametrize(
    "structure",
    [
        lambda: mx.AR1(""), lambda: mx.AR1("t", group=[]), lambda: mx.CompoundSymmetry(2),
        lambda: mx.Exponential([1, 2]), lambda: mx.VarIdent([]), lambda: mx.VarPower(["x", "y"]),
        lambda: mx.Unstructured("t", "g", by=3), lambda: mx.VarExp(np.ones(3)),
    ],
)  # fmt: skip
def test_structures_take_names_of_columns(structure) -> None:
    with pytest.raises(OptionError, match="name of a column"):
        structure()


def test_parameters_are_recovered_from_simulated_data() -> None:
    rng = np.random.default_rng(5)
    n, m, phi = 400, 6, 0.5
    e = np.empty((n, m))
    e[:, 0] = rng.normal(size=n)
    for t in range(1, m):
        e[:, t] = phi * e[:, t - 1] + np.sqrt(1 - phi**2) * rng.normal(size=n)
    arm = np.repeat(rng.integers(0, 2, n), m)
    data = pd.DataFrame({
        "g": np.repeat(np.arange(n), m), "t": np.tile(np.arange(m), n), "arm": arm,
        "y": np.repeat(rng.normal(size=n), m) + e.ravel() * np.where(arm == 1, 2.0, 1.0),
    }).sample(frac=0.8, random_state=1)  # fmt: skip
    fit = mx.lmer("y ~ 1 + (1 | g)", data, residual=mx.AR1("t", "g"), variance=mx.VarIdent("arm"))
    table = fit.residual_structure
    error = (table["estimate"] - np.array([phi, 2.0])) / table["std_error"]
    assert (error.abs() < 3.5).all()
    assert fit.sigma == pytest.approx(1.0, rel=0.1)
    assert fit.varcorr["g"].iloc[0, 0] == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize(
    "call",
    [

        lambda fit: fit.step(), lambda fit: fit.getME("Zt"),
        lambda fit: fit.append(orthodont().head(4)),
    ],
)  # fmt: skip
def test_what_needs_independent_rows_says_so(call) -> None:
    fit = mx.lmer(
        "distance ~ age + (1 | Subject)", orthodont(), residual=mx.AR1("visit", "Subject")
    )
    with pytest.raises(OptionError, match="residual structure"):
        call(fit)


def test_shares_of_variance_count_the_variance_of_an_average_row() -> None:
    data = orthodont()
    fit = mx.lmer("distance ~ age + (1 | Subject)", data, variance=mx.VarIdent("Sex"))
    ratio = fit.residual_structure["estimate"][0]
    tau = fit.varcorr["Subject"].iloc[0, 0]
    girls = float((data["Sex"] == "Female").mean())
    residual = fit.scale * (1.0 - girls + girls * ratio**2)
    assert fit.icc()["estimate"]["adjusted"] == pytest.approx(tau / (tau + residual))
    assert 0.0 < fit.icc()["std_error"]["adjusted"] < 0.2
    assert fit.r2().notna().all().all()
    gls = mx.gls("distance ~ age", data, residual=mx.AR1("visit", "Subject"))
    assert gls.r2()["estimate"].nunique() == 1
    assert "Residual phi" in str(mx.compare_table([fit, gls]))
    for call in (gls.icc, gls.ranova, gls.rank, gls.lr_vs_lm):
        with pytest.raises(OptionError, match="random effects"):
            call()


@pytest.mark.parametrize("random", ["", " + (1 | Subject)"])
def test_rows_left_out_where_residuals_are_correlated(random) -> None:
    data = orthodont()
    call = mx.lmer if random else mx.gls
    fit = call(f"distance ~ age * Sex{random}", data, residual=mx.AR1("visit", "Subject"),
               variance=mx.VarIdent("Sex"))  # fmt: skip
    table = fit.residual_structure.set_index("parameter")["estimate"]
    girl = (data["Sex"] == "Female").to_numpy()
    code = data["Subject"].cat.codes.to_numpy()
    same = code[:, None] == code[None]
    visit = data["visit"].to_numpy()
    sd = fit.sigma * np.where(girl, table["ratio(Female)"], 1.0)
    R = same * np.outer(sd, sd) * table["phi"] ** np.abs(visit[:, None] - visit[None])
    X, y = fit.model_matrix(), data["distance"].to_numpy()
    Z = np.eye(27)[code] if random else np.zeros((len(data), 0))
    tau = fit.varcorr["Subject"].iloc[0, 0] if random else 1.0
    prior = np.diag(np.r_[np.zeros(X.shape[1]), np.full(Z.shape[1], 1.0 / tau)])
    G = np.hstack([X, Z])

    def estimates(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        K = np.linalg.inv(R[np.ix_(rows, rows)])
        M = G[rows].T @ K @ G[rows] + prior
        return np.linalg.solve(M, G[rows].T @ K @ y[rows]), M

    n, p = X.shape
    whole, M = estimates(np.arange(n))
    found = [estimates(np.delete(np.arange(n), i))[0] - whole for i in range(0, n, 7)]
    # the length of the change of all effects in their joint precision, as for single rows
    distance = [change @ M @ change for change in found]
    K = np.linalg.inv(R)
    Q = K - K @ G @ np.linalg.inv(M) @ G.T @ K
    e = Q @ y
    expected = (e / np.diag(Q)) ** 2 * (np.diag(K) - np.diag(Q)) / p
    np.testing.assert_allclose(fit.cooks_distance(), expected, rtol=1e-6)
    np.testing.assert_allclose(fit.rstudent(), e / np.sqrt(np.diag(Q)), rtol=1e-6)
    np.testing.assert_allclose(np.array(distance) / p, expected[::7], rtol=1e-6)


def test_the_leverage_is_the_derivative_of_the_fitted_values() -> None:
    fit = mx.lmer("distance ~ age + (1 | Subject)", orthodont(),
                  residual=mx.AR1("visit", "Subject"), variance=mx.VarIdent("Sex"))  # fmt: skip
    y = fit.matrices.y
    base = fit.fittedvalues.to_numpy()
    for row in (0, 30, 107):
        moved = y.copy()
        moved[row] += 1.0
        other = mx.solve_pls(fit.theta, with_response(fit.system, moved)).fitted()
        assert fit.hatvalues().iloc[row] == pytest.approx(other[row] - base[row], rel=1e-8)


def test_a_structure_without_influence_is_told() -> None:
    rng = np.random.default_rng(0)
    e = rng.normal(size=(60, 4))
    e[:, 1:] -= 0.6 * e[:, :-1]
    data = pd.DataFrame({"y": e.ravel(), "g": np.repeat(np.arange(60), 4),
                         "t": np.tile(np.arange(4.0), 60)})  # fmt: skip
    with pytest.warns(mx.SingularFitWarning, match="phi is at the end of the range"):
        fit = mx.gls("y ~ 1", data, residual=mx.CAR1("t", "g"))
    assert fit.residual_structure.loc[0, ["std_error", "lower", "upper"]].isna().all()
    assert mx.gls("y ~ 1", data, residual=mx.AR1("t", "g")).residual_structure["estimate"][0] < -0.3


# -- bad input -----------------------------------------------------------------------------------


def spoiled(**columns) -> pd.DataFrame:
    return orthodont().assign(**columns)


BAD = {
    "two rows at visit = 0": (
        spoiled(visit=lambda d: d["visit"].where(d["visit"] != 1, 0)), mx.AR1("visit", "Subject")
    ),
    "holds 8.5, which is no whole number": (
        spoiled(visit=lambda d: d["age"] + 0.5), mx.AR1("visit", "Subject")
    ),
    "holds text, but must be numbers": (
        spoiled(visit=lambda d: d["age"].astype(str)), mx.CAR1("visit", "Subject")
    ),
    r"the time comes first, and then the group: CAR1\(time='age', group='Subject'\)": (
        orthodont(), mx.CAR1("Subject", "age")
    ),
    "holds dates": (
        spoiled(visit=lambda d: pd.Timestamp("2020-01-01") + pd.to_timedelta(d["age"], "D")),
        mx.AR1("visit", "Subject"),
    ),
    "no column 'visits'": (orthodont(), mx.AR1("visits", "Subject")),
    "no column 'Subjekt'": (orthodont(), mx.AR1("visit", "Subjekt")),
    "every group has one row": (spoiled(row=range(108)), mx.CompoundSymmetry("row")),
    "has both visit 0 and visit 1": (
        spoiled(visit=lambda d: d["visit"])[lambda d: ~((d["visit"] == 0) & (d["Sex"] == "Male"))]
        [lambda d: ~((d["visit"] == 1) & (d["Sex"] == "Female"))],
        mx.Unstructured("visit", "Subject"),
    ),
    "more than the 4 groups carry": (
        orthodont()[lambda d: d["Subject"].isin(["M01", "M02", "F01", "F02"])],
        mx.Unstructured("visit", "Subject"),
    ),
    "changes within group": (
        spoiled(half=lambda d: d["visit"] > 1), mx.AR1("visit", "Subject", by="half")
    ),
    "infinite": (
        spoiled(age2=lambda d: d["age"].where(d["age"] > 8, np.inf)), mx.CAR1("age2", "Subject")
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", sorted(BAD))
def test_bad_structures_are_told(message) -> None:
    data, residual = BAD[message]
    with pytest.raises(DataError, match=message):
        mx.gls("distance ~ age", data, residual=residual)


BAD_VARIANCES = {
    "has one level": (spoiled(one="a"), mx.VarIdent("one")),
    "has one row": (
        spoiled(odd=lambda d: np.where(np.arange(108) == 5, "b", "a")), mx.VarIdent("odd")
    ),
    "is zero in 27 rows": (orthodont(), mx.VarPower("visit")),
    "is constant": (spoiled(one=2.0), mx.VarExp("one")),
    "but must be numbers": (orthodont(), mx.VarExp("Sex")),
}


@pytest.mark.parametrize("message", sorted(BAD_VARIANCES))
def test_bad_variances_are_told(message) -> None:
    data, variance = BAD_VARIANCES[message]
    with pytest.raises(DataError, match=message):
        mx.gls("distance ~ age", data, variance=variance)


def test_arguments_of_the_wrong_kind() -> None:
    with pytest.raises(OptionError, match="name of a column"):
        mx.AR1(3)
    with pytest.raises(OptionError, match="use a structure such as"):
        mx.gls("distance ~ age", orthodont(), residual="ar1")
    with pytest.raises(OptionError, match="VarIdent"):
        mx.gls("distance ~ age", orthodont(), variance="Sex")
    with pytest.raises(FormulaError, match="gls has no random effects"):
        mx.gls("distance ~ age + (1 | Subject)", orthodont())


def test_missing_cells_of_the_structure_are_missing_cells() -> None:
    data = spoiled(visit=lambda d: d["visit"].where(d.index != 4))
    fit = mx.gls("distance ~ age", data, residual=mx.AR1("visit", "Subject"))
    assert fit.nobs == 107
    with pytest.raises(DataError, match="visit"):
        mx.gls("distance ~ age", data, residual=mx.AR1("visit", "Subject"), na_action="raise")


@pytest.mark.parametrize(
    "structure",
    [
        {},
        {"residual": mx.AR1(time="visit", group="Subject")},
        {"variance": mx.VarIdent(by="Sex")},
        {
            "residual": mx.Unstructured(time="visit", group="Subject"),
            "variance": mx.VarIdent(by="visit"),
        },
    ],
)
def test_a_constant_response_is_fitted_perfectly(structure) -> None:
    data = orthodont().assign(distance=3.0)
    with pytest.warns(mx.ConvergenceWarning, match="perfect fit: the response is constant"):
        fit = mx.gls("distance ~ age + Sex", data, **structure)
    np.testing.assert_allclose(fit.params, [3.0, 0.0, 0.0], atol=1e-12)
    assert fit.sigma == 0.0


def test_a_model_without_random_effects_has_no_rows_of_them() -> None:
    fit = mx.gls("distance ~ age", orthodont())
    values = fit.tidy("ran_vals")
    assert len(values) == 0
    assert {"group", "level", "term", "estimate"} <= set(values.columns)
    both = fit.tidy(["fixed", "ran_vals"])
    assert list(both["effect"]) == ["fixed", "fixed"]


def test_a_likelihood_without_a_maximum_is_said_once() -> None:
    rng = np.random.default_rng(0)
    T, G = 6, 14
    L = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T))))
    data = pd.DataFrame({"id": np.repeat(np.arange(G), T), "v": np.tile(np.arange(T), G)})
    data["y"] = (rng.normal(size=(G, T)) @ L.T).ravel()
    data = data.sample(frac=0.8, random_state=0)
    arm = np.where(data["id"] % 2, "a", "b")
    with pytest.warns(mx.ConvergenceWarning, match="has no maximum.* 4 of 14 groups") as told:
        fit = mx.gls("y ~ factor(v) * arm", data.assign(arm=arm),
                     residual=mx.Unstructured("v", "id"))  # fmt: skip
    assert len(told) == 1
    assert not fit.converged
    assert "AnteDependence" in fit.convergence.advice
    assert fit.residual_structure.to_string().count("no maximum") <= 1
    # nor has it with a correlation for each lag, beside an optimum
    with pytest.warns(mx.ConvergenceWarning, match="local optimum.* 4 of 14 groups"):
        lags = mx.gls("y ~ factor(v) * arm", data.assign(arm=arm), residual=mx.Toeplitz("v", "id"))
    assert lags.converged
    assert "such as AR1" in lags.convergence.advice
    # which is told once: the line on convergence is that of any optimum
    told_by_summary = " ".join(str(lags.summary()).split())
    assert told_by_summary.count("4 of 14 groups") == 1
    assert "keep them if they are plausible" in told_by_summary
    whole = mx.gls("y ~ factor(v) * arm", data.assign(arm=arm), residual=mx.AR1("v", "id"))
    assert whole.convergence.status == "converged"
