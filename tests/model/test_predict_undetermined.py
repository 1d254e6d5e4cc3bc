"""Errors of predictions are NaN where covariances that fit equally well give different ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

SILENT = mx.Control(warn=False)


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(2718)
    n = 70
    data = pd.DataFrame({"g": rng.integers(0, 6, n), "x": rng.normal(1.0, 1.0, n), "k": 2.0})
    data["h"] = 10 * data["g"] + 5
    data["arm"] = (data["g"] % 2).map({0: "a", 1: "b"})
    slopes = rng.normal(0.0, 0.5, 6)[data["g"]]
    data["y"] = (0.5 + slopes) * data["x"] + rng.normal(size=6)[data["g"]] + rng.normal(size=n)
    return data


# formula, columns of each term by its factor, and changes of their covariances that no law shows
CASES = [
    ("y ~ x + factor(g) + (1 | g)", [("g", ["one"])], [[[1.0]]]),
    ("y ~ x + arm + (1 | arm) + (1 | g)", [("g", ["one"]), ("arm", ["one"])], [[[0.0]], [[1.0]]]),
    ("y ~ x + (1 | g) + (1 | h)", [("g", ["one"]), ("h", ["one"])], [[[0.3]], [[-0.3]]]),
    ("y ~ x + factor(g) + (x | g)", [("g", ["one", "x"])], [[[1.0, 0.0], [0.0, 0.0]]]),
    ("y ~ x + (k | g)", [("g", ["one", "k"])], [[[0.2, -0.1], [-0.1, 0.05]]]),
    ("y ~ x + (x | g)", [("g", ["one", "x"])], [[[0.0, 0.0], [0.0, 0.0]]]),
]


def _errors(data, new, X, x, terms, covariances, scale):
    """Var(x'beta^ + z'b^ - x'beta - z'b) of rows, dense; new levels have effects of their own."""
    n = len(data)
    V = scale * np.eye(n)
    ZGz, zGz = np.zeros((n, len(new))), np.zeros(len(new))
    for (factor, columns), G in zip(terms, covariances, strict=True):
        Z, z = data[columns].to_numpy(), new[columns].to_numpy()
        same = data[factor].to_numpy()[:, None] == data[factor].to_numpy()
        V += same * (Z @ G @ Z.T)
        ZGz += (data[factor].to_numpy()[:, None] == new[factor].to_numpy()) * (Z @ G @ z.T)
        zGz += np.einsum("ia,ab,ib->i", z, G, z)
    M = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    d = x - (X.T @ np.linalg.solve(V, ZGz)).T
    return zGz - (ZGz * np.linalg.solve(V, ZGz)).sum(axis=0) + np.einsum("ia,ab,ib->i", d, M, d)


@pytest.mark.parametrize(("formula", "terms", "change"), CASES)
@pytest.mark.parametrize("who", ["seen", "population", "new"])
def test_errors_of_predictions_are_those_of_every_covariance_that_fits(formula, terms, change, who):
    data = _data()
    fit = mx.lmer(formula, data, control=SILENT)
    X = fit.model_matrix()
    new = data.iloc[[0, 3, 8, 21]].copy()
    x = X[[0, 3, 8, 21]]
    if who == "new":
        factor = terms[0][0]
        new[factor] = -7
        if f"factor({factor})" in formula:
            pytest.skip("a level that the fixed part does not have")
    full, whole = data.assign(one=1.0), new.assign(one=1.0)
    found = _covariances(fit)
    other = [G + np.asarray(c) for G, c in zip(found, change, strict=True)]
    if who == "population":
        M = (_cov(full, X, terms, G, fit.scale) for G in (found, other))
        here, there = (np.einsum("ia,ab,ib->i", x, one, x) for one in M)
    else:
        here, there = (_errors(full, whole, X, x, terms, G, fit.scale) for G in (found, other))
    known = np.isclose(here, there, rtol=1e-6)
    form = "population" if who == "population" else None
    got = fit.predict(new, form, allow_new_levels=True, se=True)["se"].to_numpy()
    np.testing.assert_array_equal(np.isfinite(got), known)
    np.testing.assert_allclose(got[known] ** 2, here[known], rtol=1e-6)
    wide = fit.predict(new, form, allow_new_levels=True, interval="prediction")
    if who == "population":
        extra = [_prior(whole, terms, G) for G in (found, other)]
        here, there = here + extra[0], there + extra[1]
    known = np.isclose(here, there, rtol=1e-6)
    half = 0.5 * (wide["upper"] - wide["lower"]).to_numpy() / 1.959963984540054
    np.testing.assert_array_equal(np.isfinite(half), known)
    np.testing.assert_allclose(half[known] ** 2, (here + fit.scale)[known], rtol=1e-6)


def _covariances(fit):
    """Covariances of the fit in the user's columns, from theta."""
    out, at = [], 0
    for term in fit.matrices.terms:
        k = len(term.column_names)
        T = np.zeros((k, k))
        lower = np.tril_indices(k)
        order = np.lexsort(lower)  # theta goes down the columns
        count = k * (k + 1) // 2
        T[lower[0][order], lower[1][order]] = fit.theta[at : at + count]
        out.append(fit.scale * T @ T.T)
        at += count
    return out


def _cov(data, X, terms, covariances, scale):
    V = scale * np.eye(len(data))
    for (factor, columns), G in zip(terms, covariances, strict=True):
        Z = data[columns].to_numpy()
        V += (data[factor].to_numpy()[:, None] == data[factor].to_numpy()) * (Z @ G @ Z.T)
    return np.linalg.inv(X.T @ np.linalg.solve(V, X))


def _prior(new, terms, covariances):
    return sum(
        np.einsum("ia,ab,ib->i", new[c].to_numpy(), G, new[c].to_numpy())
        for (_, c), G in zip(terms, covariances, strict=True)
    )


def test_a_residual_variance_that_is_not_determined_leaves_the_errors_of_the_population():
    fit = mx.lmer(
        "y ~ x + (1 | g)", _data(), residual=mx.CompoundSymmetry(group="g"), control=SILENT
    )
    assert not fit.identification.residual
    new = _data().head(3)
    got = fit.predict(new, "population", se=True)["se"]
    x = np.column_stack([np.ones(3), new["x"]])
    expected = np.sqrt(np.einsum("ia,ab,ib->i", x, fit.cov_params().to_numpy(), x))
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert fit.predict(new, se=True)["se"].isna().all()
