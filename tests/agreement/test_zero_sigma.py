"""Random effects that can be the law of every row: sigma = 0 has a likelihood, and may be best."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)


def cells(structure: str, *, groups: int = 12, times: int = 4, seed: int = 3) -> pd.DataFrame:
    """One row for each group and time, without any residual beside the structure."""
    rng = np.random.default_rng(seed)
    lag = np.abs(np.subtract.outer(np.arange(times), np.arange(times)))
    if structure == "ar1":
        C = 0.7**lag
    elif structure == "cs":
        C = np.where(lag, 0.4, 1.0)
    else:
        C = np.array([1.0, -0.45, 0.2, 0.0])[lag]
    sd = np.linspace(0.6, 1.8, times) if structure != "ar1" else np.ones(times)
    effects = rng.normal(size=(groups, times)) @ np.linalg.cholesky(C).T * sd
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(groups), times), "t": np.tile(np.arange(times), groups)}
    )
    frame["y"] = 3.0 + effects.ravel()
    return frame


def dense_criterion(data: pd.DataFrame, S: np.ndarray, reml: bool) -> float:
    """-2 log-likelihood of y ~ 1 with Cov(y of a group) = S, from dense matrices."""
    same = data["id"].to_numpy()[:, None] == data["id"].to_numpy()[None]
    V = same * S[np.ix_(data["t"], data["t"])]
    X, y = np.ones((len(data), 1)), data["y"].to_numpy()
    sign, value = np.linalg.slogdet(V)
    if sign <= 0.0:
        return np.inf
    solved = np.linalg.solve(V, np.column_stack([X, y]))
    information = float(X[:, 0] @ solved[:, 0])
    e = y - (X[:, 0] @ solved[:, 1]) / information
    value += float(e @ np.linalg.solve(V, e)) + len(y) * np.log(2.0 * np.pi)
    return value + np.log(information / (2.0 * np.pi)) if reml else value


def covariance(structure: str, x: np.ndarray, times: int = 4) -> np.ndarray:
    lag = np.abs(np.subtract.outer(np.arange(times), np.arange(times)))
    if structure == "ar1":
        return np.exp(2.0 * x[0]) * np.tanh(x[1]) ** lag
    sd = np.exp(x[:times])
    if structure == "cs":
        low = -1.0 / (times - 1)
        C = np.where(lag, low + (1.0 - low) / (1.0 + np.exp(-x[times])), 1.0)
    else:
        alpha = np.tanh(x[times:])
        rho, f, v = np.zeros(times - 1), np.zeros(0), 1.0
        for k in range(times - 1):  # Durbin and Levinson
            rho[k] = f @ rho[:k][::-1] + alpha[k] * v
            f = np.append(f - alpha[k] * f[::-1], alpha[k])
            v *= 1.0 - alpha[k] ** 2
        C = np.append(1.0, rho)[lag]
    return np.outer(sd, sd) * C


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("structure", ["toep", "cs", "ar1"])
def test_one_row_a_cell_has_its_least_value_at_sigma_zero(structure, reml) -> None:
    data = cells(structure)
    inside = "0 + factor(t) | id"
    fit = mx.lmer(f"y ~ 1 + {structure}({inside})", data, reml=reml, control=QUIET)
    size = {"ar1": 2, "cs": 5, "toep": 7}[structure]
    rng = np.random.default_rng(0)

    def dense(z: np.ndarray) -> float:
        noise = np.exp(2.0 * min(z[-1], 5.0)) * np.eye(4)
        return dense_criterion(data, covariance(structure, z[:-1]) + noise, reml)

    ends = [
        minimize(dense, np.append(0.5 * rng.normal(size=size), start), method="BFGS")
        for start in (-1.0, -6.0) for _ in range(4)
    ]  # fmt: skip
    best = min(end.fun for end in ends)
    assert np.isfinite(fit.criterion)
    assert fit.criterion <= best + 1e-5
    assert fit.criterion >= best - 1e-3  # BFGS without a gradient ends a little above
    assert fit.converged
    # at the parameters of the fit the dense criterion is that of the fit
    S = fit.varcorr["id"].to_numpy()
    sigma = float(fit.varcorr.to_frame().set_index("grp").loc["Residual", "sdcor"])
    assert dense_criterion(data, S + sigma**2 * np.eye(4), reml) == pytest.approx(
        fit.criterion, abs=1e-5
    )


def test_sigma_zero_is_said() -> None:
    data = cells("toep")
    with pytest.warns(mx.SingularFitWarning, match="sigma is zero"):
        fit = mx.lmer("y ~ 1 + toep(0 + factor(t) | id)", data)
    assert fit.is_singular()
    assert fit.convergence.status == "singular"
    assert "sigma is zero" in fit.convergence.message
    assert fit.varcorr.to_frame().set_index("grp").loc["Residual", "sdcor"] == 0.0
    table = fit.variance_components()
    assert "sigma is zero" in table.loc["sigma", "note"]
    free = table[table.index != "sigma"]
    assert np.isfinite(free["std_error"]).all()
    assert np.isfinite(fit.tidy()["std_error"]).all()
    assert np.isfinite(fit.aic)


def test_the_same_by_residuals() -> None:
    data = cells("ar1", groups=30, seed=5)
    term = mx.lmer("y ~ 1 + ar1(0 + t | id)", data, control=QUIET)
    residual = mx.gls("y ~ 1", data, residual=mx.AR1(time="t", group="id"))
    if term.optimum.at_boundary:
        assert term.criterion == pytest.approx(residual.criterion, abs=1e-6)
        phi = term.varcorr["id"].to_numpy()[0, 1] / term.varcorr["id"].to_numpy()[0, 0]
        assert phi == pytest.approx(residual.residual_structure["estimate"][0], abs=1e-4)
        assert term.bse.iloc[0] == pytest.approx(residual.bse.iloc[0], rel=1e-4)
    assert term.criterion <= residual.criterion + 1e-6


@pytest.mark.parametrize("reml", [True, False])
def test_two_rows_a_group_with_an_intercept_and_a_slope(reml) -> None:
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(40), 2)
    x = rng.uniform(0.0, 3.0, size=80)
    b = rng.normal(size=(40, 2)) @ np.array([[1.0, 0.0], [0.3, 0.8]]).T
    data = pd.DataFrame({"g": g, "x": x, "y": 1.0 + b[g, 0] + b[g, 1] * x})
    fit = mx.lmer("y ~ x + (x | g)", data, reml=reml, control=QUIET)
    assert np.isfinite(fit.criterion)
    assert fit.converged
    X = np.column_stack([np.ones(80), x])
    y = data["y"].to_numpy()
    same = g[:, None] == g[None]

    def dense(z: np.ndarray, noise: float = 0.0) -> float:
        L = np.array([[z[0], 0.0], [z[1], z[2]]])
        V = same * (X @ L @ L.T @ X.T) + noise * np.eye(80)
        sign, value = np.linalg.slogdet(V)
        if sign <= 0.0:
            return np.inf
        information = X.T @ np.linalg.solve(V, X)
        beta = np.linalg.solve(information, X.T @ np.linalg.solve(V, y))
        e = y - X @ beta
        value += float(e @ np.linalg.solve(V, e)) + 80 * np.log(2.0 * np.pi)
        if reml:
            value += np.linalg.slogdet(information)[1] - 2.0 * np.log(2.0 * np.pi)
        return value

    best = minimize(dense, [1.0, 0.3, 0.8], method="Nelder-Mead",
                    options={"xatol": 1e-9, "fatol": 1e-10, "maxiter": 4000}).fun  # fmt: skip
    if "sigma" in fit.optimum.at_boundary:
        assert fit.criterion == pytest.approx(best, abs=1e-4)
    assert fit.criterion <= best + 1e-4


def test_a_real_residual_is_found_beside_one_row_a_cell() -> None:
    data = cells("ar1", groups=80, times=6, seed=11)
    rng = np.random.default_rng(2)
    data["y"] += 0.8 * rng.normal(size=len(data))
    fit = mx.lmer("y ~ 1 + ar1(0 + t | id)", data, control=QUIET)
    assert fit.convergence.status == "converged"
    assert fit.sigma == pytest.approx(0.8, rel=0.3)


def test_constant_within_groups_stays_without_a_likelihood() -> None:
    level = np.random.default_rng(2).normal(size=12)
    g = np.repeat(np.arange(12), 4)
    fit = mx.lmer("y ~ 1 + (1 | g)", pd.DataFrame({"g": g, "y": level[g]}), control=QUIET)
    assert fit.criterion == -np.inf


def test_a_fit_without_a_residual_is_saved(tmp_path) -> None:
    level = np.random.default_rng(2).normal(size=12)
    g = np.repeat(np.arange(12), 4)
    fits = [
        mx.lmer("y ~ 1 + toep(0 + factor(t) | id)", cells("toep"), control=QUIET),
        mx.lmer("y ~ 1 + (1 | g)", pd.DataFrame({"g": g, "y": level[g]}), control=QUIET),
    ]
    for fit in fits:
        assert fit.sigma == 0.0
        fit.save(tmp_path / "fit.mixlm")
        again = mx.load(tmp_path / "fit.mixlm")
        assert again.criterion == fit.criterion
        assert again.sigma == 0.0
        assert str(again.varcorr) == str(fit.varcorr)
        assert str(again.summary()) == str(fit.summary())
