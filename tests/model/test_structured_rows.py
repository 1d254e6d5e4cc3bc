"""Predictions, draws and bootstrap of fits with a residual structure, against dense matrices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, OptionError

STRUCTURES = [
    mx.AR1("VISITN", "USUBJID"),
    mx.Unstructured("VISITN", "USUBJID"),
    mx.CAR1("VISITN", "USUBJID", by="ARMCD"),
    mx.CompoundSymmetry("USUBJID"),
    mx.Gaussian("VISITN", "USUBJID"),
]


def trial() -> pd.DataFrame:
    data = mx.datasets.load("fev_data").dropna(subset="FEV1")
    return data[data["USUBJID"].isin(data["USUBJID"].unique()[:50])].reset_index(drop=True)


def joint_covariance(fit, rows: pd.DataFrame) -> np.ndarray:
    """sigma^2 R of rows, entry by entry from the law's own matrices at their places."""
    law = fit.system.whitened.law
    table = fit.residual_structure.set_index("parameter")["estimate"]
    n = len(rows)
    group = rows["USUBJID"].astype(str).to_numpy()
    arm = rows["ARMCD"].astype(str).to_numpy()
    visit = rows["VISITN"].to_numpy(dtype=float)
    sd = np.array([table.get(f"ratio({a})", 1.0) for a in rows["AVISIT"].astype(str)])
    C = np.eye(n)
    kind = type(law.correlation).__name__
    for i in range(n):
        for j in range(i):
            if group[i] != group[j]:
                continue
            low, high = sorted((int(visit[i]), int(visit[j])))
            d = abs(visit[i] - visit[j])
            value = {
                "AR1": lambda d=d: table["phi"] ** d,
                "CAR1": lambda d=d, a=arm[i]: table[f"phi|{a}"] ** d,
                "CompoundSymmetry": lambda: table["rho"],
                "Unstructured": lambda low=low, high=high: (
                    1.0 if low == high else table[f"rho({low},{high})"]
                ),
                "Gaussian": lambda d=d: np.exp(-((d / table["range"]) ** 2)),
            }[kind]()
            C[i, j] = C[j, i] = value
    return fit.scale * C * np.outer(sd, sd)


@pytest.mark.parametrize("random", ["", " + (1 | USUBJID)"])
@pytest.mark.parametrize("residual", STRUCTURES, ids=str)
def test_a_forecast_is_the_best_linear_unbiased_predictor(residual, random) -> None:
    if random and isinstance(residual, mx.CompoundSymmetry | mx.Unstructured):
        pytest.skip("nothing is left to the random intercept")
    data = trial()
    last = data["VISITN"] == 4
    train, new = data[~last], data[last].reset_index(drop=True)
    if isinstance(residual, mx.Unstructured):
        train = data[~(last & (data.index % 2 == 0))]
        new = data[last & (data.index % 2 == 0)].reset_index(drop=True)
    formula = "FEV1 ~ SEX + ARMCD + VISITN" + random
    quiet = mx.Control(warn=False)
    make = mx.lmer if random else mx.gls
    variance = mx.VarIdent("AVISIT") if isinstance(residual, mx.Unstructured) else None
    fit = make(formula, train, residual=residual, variance=variance, control=quiet)
    found = fit.predict(new, forecast=True, interval="prediction", allow_new_levels=True)

    rows = pd.concat([train, new], ignore_index=True)
    design = pd.DataFrame({
        "(Intercept)": 1.0, "SEXFemale": (rows["SEX"] == "Female") * 1.0,
        "ARMCDTRT": (rows["ARMCD"] == "TRT") * 1.0, "VISITN": rows["VISITN"] * 1.0,
    })[list(fit.fixef.index)].to_numpy()  # fmt: skip
    V = joint_covariance(fit, rows)
    if random:
        code = rows["USUBJID"].astype(str).to_numpy()
        V = V + fit.varcorr["USUBJID"].iloc[0, 0] * (code[:, None] == code[None])
    n = len(train)
    inverse = np.linalg.inv(V[:n, :n])
    X, x = design[:n], design[n:]
    Phi = np.linalg.inv(X.T @ inverse @ X)
    beta = Phi @ X.T @ inverse @ train["FEV1"].to_numpy()
    K = V[n:, :n] @ inverse
    mean = x @ beta + K @ (train["FEV1"].to_numpy() - X @ beta)
    left = x - K @ X
    variance_of = np.diag(V[n:, n:] - K @ V[:n, n:] + left @ Phi @ left.T)
    np.testing.assert_allclose(found["fit"], mean, rtol=1e-6)
    half = (found["upper"] - found["lower"]) / 2 / 1.959963984540054
    np.testing.assert_allclose(half, np.sqrt(variance_of), rtol=1e-6)
    # without the past the expectation is that of the fixed and random effects alone
    assert not np.allclose(fit.predict(new, allow_new_levels=True), mean)


def test_forecasts_say_what_they_need() -> None:
    data = trial()
    fit = mx.gls("FEV1 ~ ARMCD", data, residual=mx.AR1("VISITN", "USUBJID"))
    with pytest.raises(OptionError, match="give newdata"):
        fit.predict(forecast=True)
    with pytest.raises(OptionError, match="leave re_form"):
        fit.predict(data, forecast=True, re_form="population")
    with pytest.raises(DataError, match="VISITN"):
        fit.predict(data.drop(columns="VISITN"), forecast=True)
    with pytest.raises(OptionError, match="has none"):
        mx.gls("FEV1 ~ ARMCD", data).predict(data, forecast=True)
    assert fit.predict(data.drop(columns=["VISITN", "USUBJID"])).size == len(data)


def test_prediction_intervals_have_the_variance_of_their_level() -> None:
    data = trial()
    fit = mx.gls("FEV1 ~ ARMCD", data, variance=mx.VarIdent("AVISIT"))
    ratio = fit.residual_structure.set_index("parameter")["estimate"]["ratio(VIS4)"]
    new = pd.DataFrame({"ARMCD": ["TRT", "TRT"], "AVISIT": ["VIS1", "VIS4"]})
    found = fit.predict(new, interval="prediction")
    half = ((found["upper"] - found["lower"]) / 2 / 1.959963984540054) ** 2
    np.testing.assert_allclose(
        half - found["se"] ** 2, fit.scale * np.array([1.0, ratio**2]), rtol=1e-8
    )
    own = fit.predict(interval="prediction")
    assert np.isfinite(own).all().all()
    with pytest.raises(DataError, match="does not know"):
        fit.predict(new.assign(AVISIT="VIS9"), interval="prediction")


@pytest.mark.parametrize("residual", STRUCTURES, ids=str)
def test_draws_have_the_covariance_of_the_model(residual) -> None:
    data = trial().iloc[:12]
    fit = mx.gls("FEV1 ~ 1", trial(), residual=residual, variance=mx.VarIdent("AVISIT"))
    y = fit.simulate(20_000, seed=1, newdata=data)
    found = np.cov(y)
    expected = joint_covariance(fit, data.reset_index(drop=True))
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((found - expected) / scale).max() < 0.05
    assert fit.simulate(2, seed=1).shape == (fit.nobs, 2)


def test_the_bootstrap_fits_the_structure_again() -> None:
    data = trial()
    fit = mx.gls("FEV1 ~ ARMCD", data, residual=mx.AR1("VISITN", "USUBJID"), reml=False)
    boot = fit.bootstrap(40, seed=2, progress=False)
    assert list(boot.samples.columns) == ["sigma", "phi", "(Intercept)", "ARMCDTRT"]
    phi = boot.samples["phi"]
    table = fit.residual_structure.iloc[0]
    assert abs(phi.mean() - table["estimate"]) < 4 * table["std_error"] / np.sqrt(40)
    assert 0.6 < phi.std() / table["std_error"] < 1.6
    assert fit.confint("boot", nsim=20, seed=1, progress=False).loc["phi"].notna().all()
    with pytest.raises(OptionError, match="parametric"):
        fit.bootstrap(3, method="cases")


def test_wald_intervals_hold_the_residual_parameters() -> None:
    data = mx.datasets.load("Orthodont").assign(visit=lambda d: ((d["age"] - 8) / 2).astype(int))
    fit = mx.lmer(
        "distance ~ age + (1 | Subject)", data, residual=mx.AR1("visit", "Subject"),
        variance=mx.VarIdent("Sex"),
    )  # fmt: skip
    table = fit.confint("wald")
    assert list(table.index) == [
        "sd_(Intercept)|Subject", "sigma", "phi", "ratio(Female)", "(Intercept)", "age",
    ]  # fmt: skip
    own = fit.residual_structure.set_index("parameter")
    np.testing.assert_allclose(table.loc["phi"], own.loc["phi", ["lower", "upper"]])
