"""Profiles of models with a residual structure against dense matrices searched by SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import mixlm_sparse as mx
from tests.support.dense_structures import correlation_matrix, dense_fit

RISE = float(stats.chi2.ppf(0.95, 1))
Values = dict[str, float]


def trial(seed: int = 4) -> pd.DataFrame:
    """Sixteen groups of three visits, some missing, whose noise grows in time."""
    rng = np.random.default_rng(seed)
    n, m = 16, 3
    e = rng.normal(size=(n, m))
    for t in range(1, m):
        e[:, t] = 0.5 * e[:, t - 1] + np.sqrt(0.75) * e[:, t]
    data = pd.DataFrame({"g": np.repeat(np.arange(n), m), "t": np.tile(np.arange(m), n)})
    data["x"] = rng.normal(size=n * m)
    data["s"] = 1.0 + data["t"] + rng.uniform(0.0, 0.5, n * m)
    data["arm"] = np.where(data["g"] % 2, "b", "a")
    scale = np.where(data["arm"] == "b", 1.6, 1.0)
    data["y"] = (
        2.0 + 0.4 * data["x"] + np.repeat(rng.normal(size=n), m) + e.ravel() * scale
    )
    return data.sample(frac=0.9, random_state=1, ignore_index=True)


def lag(data: pd.DataFrame, i: int, j: int) -> int:
    return abs(int(data["t"][i]) - int(data["t"][j]))


def pair(data: pd.DataFrame, i: int, j: int) -> str:
    low, high = sorted((int(data["t"][i]) + 1, int(data["t"][j]) + 1))
    return f"rho({low},{high})"


Entry = Callable[[pd.DataFrame, Values, int, int], float]
CASES: dict[str, tuple[str, dict[str, object], Entry]] = {
    "ar1, ident": (
        "y ~ x + (1 | g)",
        {"residual": mx.AR1("t", "g"), "variance": mx.VarIdent("arm")},
        lambda d, v, i, j: v["phi"] ** lag(d, i, j),
    ),
    "unstructured": (
        "y ~ x",
        {"residual": mx.Unstructured("t", "g"), "variance": mx.VarIdent("arm")},
        lambda d, v, i, j: v[pair(d, i, j)],
    ),
    "toeplitz, power": (
        "y ~ x",
        {"residual": mx.Toeplitz("t", "g"), "variance": mx.VarPower("s")},
        lambda d, v, i, j: v[f"rho({lag(d, i, j)})"],
    ),
    "symmetric, exp": (
        "y ~ x",
        {"residual": mx.CompoundSymmetry("g"), "variance": mx.VarExp("s")},
        lambda d, v, i, j: v["rho"],
    ),
    "range": (
        "y ~ x",
        {"residual": mx.Exponential("s", "g")},
        lambda d, v, i, j: float(np.exp(-abs(d["s"][i] - d["s"][j]) / v["range"])),
    ),
    "ante": (
        "y ~ x",
        {"residual": mx.AnteDependence("t", "g")},
        lambda d, v, i, j: (
            v["rho(1,2)"] * v["rho(2,3)"] if lag(d, i, j) == 2 else v[pair(d, i, j)]
        ),
    ),
    "variances alone": (
        "y ~ x + (1 | g)",
        {"variance": mx.VarIdent("arm")},
        lambda d, v, i, j: 0.0,
    ),
}  # fmt: skip


def dense_deviance(data: pd.DataFrame, entry: Entry, values: Values, held: str = "") -> float:
    """The ML deviance at variance parameters; beta profiled out but for a coefficient held."""
    group = data["g"].tolist()
    C = correlation_matrix(group, lambda i, j: entry(data, values, i, j))
    s = data["s"].to_numpy()
    sd = np.where(data["arm"] == "b", values.get("ratio(b)", 1.0), 1.0)
    sd = sd * s ** values.get("power", 0.0) * np.exp(values.get("rate", 0.0) * s)
    V = values["sigma"] ** 2 * C * np.outer(sd, sd)
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()[None]
    V = V + values.get("sd_(Intercept)|g", 0.0) ** 2 * same
    if np.linalg.eigvalsh(V)[0] <= 0.0:
        return np.inf
    X = np.column_stack([np.ones(len(data)), data["x"]])
    y = data["y"].to_numpy()
    if held in ("(Intercept)", "x"):
        column = ["(Intercept)", "x"].index(held)
        y, X = y - values[held] * X[:, column], np.delete(X, column, axis=1)
    beta = dense_fit(y, X, V, reml=False).beta
    e = y - X @ beta
    return float(
        np.linalg.slogdet(V)[1] + len(y) * np.log(2.0 * np.pi) + e @ np.linalg.solve(V, e)
    )


@pytest.mark.parametrize("case", sorted(CASES))
def test_limits_are_where_the_dense_deviance_has_risen(case) -> None:
    formula, structure, entry = CASES[case]
    data = trial()
    fit = (mx.lmer if "|" in formula else mx.gls)(formula, data, reml=False, **structure)
    curves = fit.profile(level_max=0.96)
    names = list(fit.confint("wald").index)
    assert set(curves) == set(names)
    variances = [name for name in names if name not in ("(Intercept)", "x")]
    for name in names:
        curve = curves[name]
        # no random effect, or no correlation: the deviance need not rise enough before that
        bounded = name in ("sd_(Intercept)|g", "range") and curve.values[0] == 0.0
        assert curve.reached == (not bounded, True), (name, curve.note)
        for end in (0, -1):
            at = dict(zip(names, curve.others[end].tolist(), strict=True))
            at["range"] = max(at.get("range", 1.0), 1e-9)
            assert at[name] == max(curve.values[end], 1e-9 if name == "range" else -np.inf)
            free = [one for one in variances if one != name]

            def deviance(x, at=at, free=free, name=name) -> float:
                return dense_deviance(data, entry, {**at, **dict(zip(free, x, strict=True))}, name)

            x = np.array([at[one] for one in free])
            rise = deviance(x) - fit.criterion
            assert rise == pytest.approx(curve.zeta[end] ** 2, abs=1e-6), name
            # nothing near by is lower: the rest is where it is best
            best = optimize.minimize(deviance, x, method="Nelder-Mead",
                                     options={"maxfev": 60, "initial_simplex": simplex(x)})
            assert best.fun > deviance(x) - 1e-6, name
    limits = curves.confint(0.95)
    for name in names:
        assert curves[name].forward(limits.loc[name, "upper"]) ** 2 == pytest.approx(RISE)


def simplex(x: np.ndarray) -> np.ndarray:
    """Return points around x at one part in a hundred."""
    return np.vstack([x, x + 0.01 * np.diag(np.maximum(np.abs(x), 0.1))])


def test_confint_profiles_and_follows_units() -> None:
    data = trial().assign(mm=lambda d: 1000.0 * d["y"] + 7.0)
    first = mx.gls("y ~ x", data, residual=mx.AR1("t", "g"), variance=mx.VarPower("s")).confint()
    second = mx.gls("mm ~ x", data, residual=mx.AR1("t", "g"), variance=mx.VarPower("s")).confint()
    assert "profile" in str(first.attrs["heading"])
    np.testing.assert_allclose(second.loc["sigma"], 1000.0 * first.loc["sigma"], rtol=1e-4)
    np.testing.assert_allclose(
        second.loc[["phi", "power"]], first.loc[["phi", "power"]], rtol=1e-4
    )


def test_profiles_of_the_reml_criterion() -> None:
    fit = mx.lmer("y ~ x + (1 | g)", trial(), variance=mx.VarIdent("arm"))
    curves = fit.profile(reml=True)
    assert list(curves) == ["sd_(Intercept)|g", "sigma", "ratio(b)"]
    wide, narrow = curves.confint(0.95).loc["ratio(b)", ["lower", "upper"]]
    assert wide < fit.residual_structure["estimate"][0] < narrow
    # ratios turned round are the same interval turned round
    turned = trial().assign(arm=lambda d: d["arm"].map({"a": "z", "b": "b"}))
    other = mx.lmer("y ~ x + (1 | g)", turned, variance=mx.VarIdent("arm")).profile(reml=True)
    lower, upper = other.confint(0.95).loc["ratio(z)", ["lower", "upper"]]
    assert (1.0 / upper, 1.0 / lower) == pytest.approx((wide, narrow), rel=1e-4)


def test_a_correlation_of_a_visit_beside_strata() -> None:
    data = trial()
    fit = mx.gls("y ~ x", data, residual=mx.Unstructured("t", "g", by="arm"), reml=False)
    curve = fit.profile("rho(1,3)|b", level_max=0.95)["rho(1,3)|b"]
    names = list(fit.confint("wald").index)
    at = pd.Series(curve.others[-1], index=names)
    fitted = pd.Series(curve.others[curve.values == curve.estimate][0], index=names)
    estimates = fit.residual_structure.set_index("parameter")["estimate"]
    np.testing.assert_allclose(fitted[estimates.index], estimates, rtol=1e-4, atol=1e-6)
    assert at["rho(1,3)|b"] == curve.values[-1] > curve.estimate


def test_at_the_end_of_its_range_the_limit_is_the_bound() -> None:
    rng = np.random.default_rng(0)
    e = rng.normal(size=(60, 4))
    e[:, 1:] -= 0.6 * e[:, :-1]
    data = pd.DataFrame({"y": e.ravel(), "g": np.repeat(np.arange(60), 4),
                         "t": np.tile(np.arange(4.0), 60)})  # fmt: skip
    with pytest.warns(mx.SingularFitWarning):
        fit = mx.gls("y ~ 1", data, residual=mx.CAR1("t", "g"))
    limits = fit.confint(parm="phi")
    assert limits.loc["phi", "lower"] == pytest.approx(0.0, abs=1e-12)
    assert 0.0 < limits.loc["phi", "upper"] < 0.2
    assert "bound" in limits.attrs["notes"]["phi"]
