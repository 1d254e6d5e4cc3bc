"""Kenward and Roger on designs that no example has, against dense n x n matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support.dense_structures import covariance_derivatives, dense_kenward_roger, dense_kr_df

Array = np.ndarray
QUIET = mx.Control(warn=False)


def visits(seed: int) -> pd.DataFrame:
    """Unbalanced: patients with two to five of six visits, raters that cross them, weights."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(18):
        at = np.sort(rng.choice(6, rng.integers(2, 6), replace=False)) + 1
        e = rng.normal(size=7)
        for t in range(1, 7):
            e[t] = 0.5 * e[t - 1] + np.sqrt(0.75) * e[t]
        own = pd.DataFrame({"id": f"p{i:02d}", "t": at, "arm": "ab"[i % 2], "e": e[at]})
        parts.append(own.assign(b=rng.normal(), slope=1.5 * rng.normal()))
    data = pd.concat(parts, ignore_index=True)
    n = len(data)
    data["x"] = rng.normal(size=n) + 0.2 * data["t"]
    data["hours"] = data["t"] + rng.uniform(-0.3, 0.3, n)
    data["w"], data["z"] = rng.uniform(0.5, 2.0, n), rng.uniform(0.5, 3.0, n)
    rater = rng.integers(0, 4, n)
    data["rater"] = [f"r{k}" for k in rater]
    data["y"] = 2.0 + data["x"] + rng.normal(size=4)[rater] + data["e"] * data["z"] ** 0.4
    return data.iloc[rng.permutation(n)].reset_index(drop=True)


def together(data: pd.DataFrame, column: str) -> Array:
    code = data[column].to_numpy()
    return code[:, None] == code


def apart(data: pd.DataFrame, column: str) -> Array:
    at = data[column].to_numpy(dtype=float)
    return np.abs(at[:, None] - at)


def compared(fit, V: Callable[[Array], Array], eta: list[float]) -> None:
    """Compare adjusted covariances and df of all coefficients; V in all parameters eta."""
    X, eta = fit.model_matrix(), np.asarray(eta, dtype=float)
    first, second = covariance_derivatives(V, eta)
    adjusted, _ = dense_kenward_roger(X, V(eta), first, second)
    scale = np.sqrt(np.outer(np.diag(adjusted), np.diag(adjusted)))
    np.testing.assert_allclose(fit.vcov_adjusted() / scale, adjusted / scale, atol=3e-6)
    found = fit.df_coefficients("kenward-roger")
    expected = [dense_kr_df(X, V(eta), first, row) for row in np.eye(X.shape[1])]
    np.testing.assert_allclose(found, expected, rtol=3e-5)


def figures(fit) -> pd.Series:
    return fit.residual_structure.set_index("parameter")["estimate"]


def test_unbalanced_with_weights_and_variances_of_arms() -> None:
    data = visits(1)
    fit = mx.gls("y ~ x * arm", data, residual=mx.CompoundSymmetry("id"), weights="w",
                 variance=mx.VarIdent("arm"), control=QUIET)  # fmt: skip
    b, same = (data["arm"] == "b").to_numpy(), together(data, "id")
    root = np.sqrt(data["w"].to_numpy())

    def V(eta: Array) -> Array:
        sd = np.sqrt(np.where(b, eta[1], eta[0])) / root
        return np.outer(sd, sd) * np.where(np.eye(len(sd)), 1.0, eta[2] * same)

    at = figures(fit)
    compared(fit, V, [fit.scale, fit.scale * at["ratio(b)"] ** 2, at["rho"]])


def test_dependent_columns_and_visits_that_are_missing() -> None:
    data = visits(2)
    data = data[data["t"] <= 4].reset_index(drop=True)
    data["twice"] = 2.0 * data["x"] - 1.0
    fit = mx.gls("y ~ x + twice + arm", data, residual=mx.Unstructured("t", "id"),
                 variance=mx.VarIdent("t"), control=QUIET)  # fmt: skip
    assert len(fit.fixef) == 3
    visit, same = data["t"].to_numpy() - 1, together(data, "id")
    lower = np.tril_indices(4)

    def V(eta: Array) -> Array:
        S = np.zeros((4, 4))
        S[lower] = eta
        S = S + np.tril(S, -1).T
        return S[np.ix_(visit, visit)] * same

    at = figures(fit)
    sd = fit.sigma * np.array([1.0, *(at[f"ratio({k})"] for k in (2, 3, 4))])
    S = np.diag(sd**2)
    for i in range(4):
        for j in range(i):
            S[i, j] = at[f"rho({j + 1},{i + 1})"] * sd[i] * sd[j]
    compared(fit, V, list(S[lower]))


def test_raters_that_cross_correlated_visits() -> None:
    data = visits(3)
    fit = mx.lmer("y ~ x + arm + (1 | rater)", data, residual=mx.AR1("t", "id"), control=QUIET)
    tau_sq = fit.varcorr["rater"].iloc[0, 0]
    assert tau_sq > 0.0
    same, rater, lag = together(data, "id"), together(data, "rater"), apart(data, "t")

    def V(eta: Array) -> Array:
        return eta[0] * rater + eta[1] * same * eta[2] ** lag

    compared(fit, V, [tau_sq, fit.scale, figures(fit)["phi"]])


def test_arms_with_parameters_of_their_own() -> None:
    data = visits(4)
    fit = mx.gls("y ~ x * arm", data, residual=mx.AR1("t", "id", by="arm"),
                 variance=mx.VarIdent("arm"), control=QUIET)  # fmt: skip
    b, same, lag = (data["arm"] == "b").to_numpy(), together(data, "id"), apart(data, "t")

    def V(eta: Array) -> Array:
        sd = np.sqrt(np.where(b, eta[1], eta[0]))
        phi = np.where(np.logical_and.outer(b, b), eta[3], eta[2])
        return np.outer(sd, sd) * same * phi**lag

    at = figures(fit)
    variances = [fit.scale, fit.scale * at["ratio(b)"] ** 2]
    compared(fit, V, [*variances, at["phi|a"], at["phi|b"]])


def test_random_slopes_beside_correlated_residuals_with_weights() -> None:
    data = visits(5)
    data["y"] += 1.5 * data["b"] + data["slope"] * data["x"]
    fit = mx.lmer("y ~ x + arm + (x | id)", data, residual=mx.AR1("t", "id"), weights="w",
                  control=QUIET)  # fmt: skip
    assert not fit.is_singular()
    same, lag, x = together(data, "id"), apart(data, "t"), data["x"].to_numpy()
    root = np.sqrt(data["w"].to_numpy())

    def V(eta: Array) -> Array:
        Z = np.column_stack([np.ones(x.size), x])
        S = np.array([[eta[0], eta[1]], [eta[1], eta[2]]])
        return same * (Z @ S @ Z.T + eta[3] * eta[4] ** lag / np.outer(root, root))

    S = fit.varcorr["id"].to_numpy()
    compared(fit, V, [S[0, 0], S[0, 1], S[1, 1], fit.scale, figures(fit)["phi"]])


def test_a_variance_function_beside_times_that_are_no_visits() -> None:
    data = visits(6)
    fit = mx.lmer("y ~ x + arm + (1 | rater)", data, residual=mx.CAR1("hours", "id"),
                  variance=mx.VarPower("z"), control=QUIET)  # fmt: skip
    tau_sq = fit.varcorr["rater"].iloc[0, 0]
    assert tau_sq > 0.0
    same, rater, lag = together(data, "id"), together(data, "rater"), apart(data, "hours")
    z = data["z"].to_numpy()

    def V(eta: Array) -> Array:
        sd = z ** eta[3]
        return eta[0] * rater + eta[1] * np.outer(sd, sd) * same * eta[2] ** lag

    at = figures(fit)
    compared(fit, V, [tau_sq, fit.scale, at["phi"], at["power"]])


def test_components_of_too_many_rows_say_what_to_use() -> None:
    n = 3100
    data = pd.DataFrame({"id": np.arange(n) // 2, "t": np.arange(n) % 2, "r": np.arange(n) % 3})
    data["y"] = np.random.default_rng(0).normal(size=n) + data["r"]
    fit = mx.lmer("y ~ 1 + (1 | r)", data, residual=mx.AR1("t", "id"), control=QUIET)
    with pytest.raises(mx.EngineError, match=r"3100 rows: use ddf='satterthwaite'"):
        fit.vcov_adjusted()
