"""Kenward and Roger with residual structures against their formulas for dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support.dense_structures import covariance_derivatives, dense_kenward_roger

Array = np.ndarray


def trial():
    data = mx.datasets.load("fev_data").dropna(subset="FEV1")
    return data[data["USUBJID"].isin(data["USUBJID"].unique()[:60])].reset_index(drop=True)


def compared(fit, V, eta) -> None:
    first, second = covariance_derivatives(V, np.asarray(eta, dtype=float))
    adjusted, _ = dense_kenward_roger(fit.model_matrix(), V(np.asarray(eta)), first, second)
    np.testing.assert_allclose(
        fit.vcov_adjusted(), adjusted, rtol=2e-5, atol=1e-7 * np.abs(adjusted).max()
    )


def same(data) -> Array:
    code = data["USUBJID"].astype(str).to_numpy()
    return code[:, None] == code[None]


FORMULA = "FEV1 ~ SEX + ARMCD * AVISIT"


def test_unstructured_covariances() -> None:
    data = trial()
    fit = mx.gls(FORMULA, data, residual=mx.Unstructured("AVISIT", "USUBJID"),
                 variance=mx.VarIdent("AVISIT"))  # fmt: skip
    visit = data["AVISIT"].cat.codes.to_numpy()
    lower = np.tril_indices(4)

    def V(eta):
        S = np.zeros((4, 4))
        S[lower] = eta
        S = S + np.tril(S, -1).T
        return S[np.ix_(visit, visit)] * same(data)

    table = fit.residual_structure.set_index("parameter")["estimate"]
    sd = fit.sigma * np.array([1.0, *(table[f"ratio(VIS{k})"] for k in (2, 3, 4))])
    S = np.diag(sd**2)
    for i in range(4):
        for j in range(i):
            S[i, j] = table[f"rho({j + 1},{i + 1})"] * sd[i] * sd[j]
    compared(fit, V, S[lower])


def test_autoregressive_with_second_derivatives() -> None:
    data = trial()
    fit = mx.gls(FORMULA, data, residual=mx.AR1("AVISIT", "USUBJID"))
    visit = data["VISITN"].to_numpy()
    lag = np.abs(visit[:, None] - visit[None])

    def V(eta):
        return eta[0] * eta[1] ** lag * same(data)

    compared(fit, V, [fit.scale, fit.residual_structure["estimate"][0]])


def test_variances_of_levels_and_a_correlation() -> None:
    data = trial()
    fit = mx.gls(FORMULA, data, residual=mx.AR1("AVISIT", "USUBJID"),
                 variance=mx.VarIdent("ARMCD"))  # fmt: skip
    visit = data["VISITN"].to_numpy()
    lag = np.abs(visit[:, None] - visit[None])
    treated = (data["ARMCD"] == "TRT").to_numpy()

    def V(eta):
        sd = np.sqrt(np.where(treated, eta[1], eta[0]))
        return np.outer(sd, sd) * eta[2] ** lag * same(data)

    table = fit.residual_structure.set_index("parameter")["estimate"]
    compared(fit, V, [fit.scale, fit.scale * table["ratio(TRT)"] ** 2, table["phi"]])


def test_a_random_intercept_beside_autoregressive_residuals() -> None:
    data = trial()
    fit = mx.lmer(FORMULA + " + (1 | USUBJID)", data, residual=mx.AR1("AVISIT", "USUBJID"))
    visit = data["VISITN"].to_numpy()
    lag = np.abs(visit[:, None] - visit[None])

    def V(eta):
        return (eta[0] + eta[1] * eta[2] ** lag) * same(data)

    tau = fit.varcorr["USUBJID"].iloc[0, 0]
    compared(fit, V, [tau, fit.scale, fit.residual_structure["estimate"][0]])


def test_variance_function_of_a_covariate() -> None:
    data = trial()
    fit = mx.gls(FORMULA, data, variance=mx.VarPower("FEV1_BL"))
    x = data["FEV1_BL"].to_numpy()

    def V(eta):
        return np.diag(eta[0] * x ** (2 * eta[1]))

    compared(fit, V, [fit.scale, fit.residual_structure["estimate"][0]])


def test_compound_symmetry_is_that_of_the_random_intercept() -> None:
    data = mx.datasets.load("Orthodont")
    a = mx.gls("distance ~ age * Sex", data, residual=mx.CompoundSymmetry(group="Subject"))
    b = mx.lmer("distance ~ age * Sex + (1 | Subject)", data)
    np.testing.assert_allclose(a.vcov_adjusted(), b.vcov_adjusted(), rtol=1e-5)
    np.testing.assert_allclose(
        a.df_coefficients("kenward-roger"), b.df_coefficients("kenward-roger"), rtol=1e-4
    )
    ours, theirs = (fit.anova(ddf="kenward-roger") for fit in (a, b))
    np.testing.assert_allclose(ours["DenDF"], theirs["DenDF"], rtol=1e-4)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_least_squares_has_its_residual_degrees_of_freedom(ddf) -> None:
    fit = mx.gls("distance ~ age * Sex", mx.datasets.load("Orthodont"))
    np.testing.assert_allclose(fit.df_coefficients(ddf), 104.0, rtol=1e-8)
