"""Errors of what a single cluster decides alone are not known, and not given as tiny numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

SILENT = mx.Control(warn=False)


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(314)
    n = 104
    data = pd.DataFrame({"g": rng.integers(0, 8, n), "x": rng.normal(1.0, 1.0, n)})
    data["one"] = (data["g"] == 3) * 1.0
    data["two"] = data["g"].isin([3, 5]) * 1.0
    data["w"] = rng.uniform(0.4, 2.0, n)
    data["y"] = 0.5 * data["x"] + rng.normal(size=8)[data["g"]] + rng.normal(size=n)
    return data


def _share_seen(fit: mx.LinearMixedFit, data: pd.DataFrame, random: np.ndarray) -> np.ndarray:
    """E V_CR2 / Var of each coefficient, dense: sum_g a'V_g^{1/2} P_g V_g^{1/2} a over c'Mc.

    a = V_g^{-1} X_g M c; P_g projects on the range of V_g^{-1/2} C_g V_g^{-1/2}, with C_g the
    covariance of the residuals of g; Z_g, the columns `random`, has the covariance of the fit.
    """
    X = fit.model_matrix()
    weights = data["w"].to_numpy() if fit.weights_name else np.ones(len(data))
    Sigma = np.asarray(fit.varcorr["g"])
    codes = data["g"].to_numpy()
    rows = [np.flatnonzero(codes == g) for g in np.unique(codes)]
    V = [random[r] @ Sigma @ random[r].T + np.diag(fit.scale / weights[r]) for r in rows]
    M = np.linalg.inv(sum(X[r].T @ np.linalg.solve(v, X[r]) for r, v in zip(rows, V, strict=True)))
    seen = np.zeros(X.shape[1])
    for r, v in zip(rows, V, strict=True):
        values, vectors = np.linalg.eigh(v)
        root = (vectors / np.sqrt(values)) @ vectors.T
        C = root @ (v - X[r] @ M @ X[r].T) @ root
        values, vectors = np.linalg.eigh(C)
        half = vectors[:, values > 1e-7].T @ root @ X[r] @ M
        seen += (half * half).sum(axis=0)
    return seen / np.diag(M)


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ factor(g) + (1 | g)",
        "y ~ x + factor(g) + (1 | g)",
        "y ~ x + factor(g) + (x | g)",
        "y ~ x + one + (1 | g)",
        "y ~ x * one + (x | g)",
        "y ~ x + two + (1 | g)",
        "y ~ x * two + (1 | g)",
        "y ~ x + (x | g)",
    ],
)
@pytest.mark.parametrize("weights", [None, "w"])
def test_errors_are_nan_where_a_cluster_decides_alone_and_nowhere_else(formula, weights):
    data = _data()
    fit = mx.lmer(formula, data, weights=weights, control=SILENT)
    ones = np.ones(len(data))
    random = np.column_stack([ones, data["x"]]) if "(x |" in formula else ones[:, None]
    if fit.identification.complete:
        known = _share_seen(fit, data, random) > 1.0 - 1e-5
    else:  # the clusters' means are fixed effects, whatever variance they are given
        known = np.array([name == "x" for name in fit.fixef.index])
    for kind in ("CR0", "CR1", "CR2"):
        robust = fit.robust(type=kind)
        np.testing.assert_array_equal(robust.bse.notna(), known)
        np.testing.assert_array_equal(np.isfinite(robust.df()), known)
        assert ("decided by single clusters alone" in str(robust)) == (not known.all())
        table = robust.table()
        assert table.loc[~known, ["std_error", "df", "p_value", "lower"]].isna().all(axis=None)


def test_a_contrast_that_no_cluster_decides_alone_has_degrees_of_freedom():
    data = _data()
    fit = mx.lmer("y ~ x + one + (1 | g)", data, control=SILENT)
    df = fit.robust().df(["x = 0", "one = 0", "x + one = 0"])
    np.testing.assert_array_equal(np.isnan(df), [False, True, True])
