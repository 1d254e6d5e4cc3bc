"""Tests of the fixed effects do not depend on how a model is written down.

Origins and units of predictors (in the random part as well) and of the response, coding of factors,
names and order of levels, order of terms and rows: the same hypothesis has the same F, df and p.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
METHODS = ("satterthwaite", "kenward-roger")
# What the optimizer leaves: criteria agree to 1e-9, df to about its root.
RTOL = 2e-4


def unbalanced():
    rng = np.random.default_rng(21)
    n = 160
    frame = pd.DataFrame({"g": rng.integers(0, 16, n), "h": rng.integers(0, 9, n)})
    frame["f"] = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    frame["k"] = rng.choice(["u", "v"], n)
    frame["x"] = rng.normal(size=n) + 0.3 * (frame["f"] == "b")
    slopes = rng.normal(size=(16, 2)) @ np.array([[1.2, 0.5], [0.0, 0.7]])
    frame["y"] = (
        slopes[frame["g"], 0] + slopes[frame["g"], 1] * frame["x"]
        + rng.normal(size=9)[frame["h"]] + 0.5 * (frame["f"] == "c") + rng.normal(size=n)
    )  # fmt: skip
    return frame


FORMULA = "y ~ f * k + x + (x | g) + (1 | h)"


def fitted(frame, formula=FORMULA, **options):
    return mx.lmer(formula, frame, control=QUIET, **options)


def same(found, expected, rtol=RTOL):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-9)


def tables(fit, ddf):
    """Types I to III of the terms, without sums of squares, in one order."""
    out = []
    for kind in (1, 2, 3):
        table = fit.anova(type=kind, ddf=ddf)[["NumDF", "DenDF", "F value", "Pr(>F)"]]
        out.append(table.rename(index={"k:f": "f:k"}).sort_index())
    return out


@pytest.mark.parametrize("ddf", METHODS)
@pytest.mark.parametrize("move", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_origin_and_unit_of_a_random_slope(ddf, move, scale):
    frame = unbalanced()
    base = fitted(frame)
    moved = fitted(frame.assign(x=scale * (frame["x"] + move)))
    for found, expected in zip(tables(moved, ddf), tables(base, ddf), strict=True):
        same(found, expected)
    rows = [name for name in base.fixef.index if name != "(Intercept)"]
    same(moved.df_coefficients(ddf)[rows], base.df_coefficients(ddf)[rows])
    one = base.contest(["fb", "fc", "kv"], ddf=ddf).iloc[0, 2:]
    same(moved.contest(["fb", "fc", "kv"], ddf=ddf).iloc[0, 2:], one)
    unit = np.where(base.fixef.index == "x", scale, 1.0)
    errors = np.sqrt(np.diag(base.vcov_adjusted())) / unit
    same(np.sqrt(np.diag(moved.vcov_adjusted()))[1:], errors[1:])


def test_calendar_years():
    """Balanced slopes have groups minus one df, whatever the origin."""
    sleep = mx.datasets.load("sleepstudy")
    for move in (0.0, 2000.0, 10_000.0, 1e6):
        fit = fitted(sleep.assign(x=sleep["Days"] + move), "Reaction ~ x + (x | Subject)")
        for ddf in METHODS:
            assert fit.df_coefficients(ddf)["x"] == pytest.approx(17.0, rel=1e-5)
        assert fit.pvalues["x"] == pytest.approx(3.2638e-6, rel=1e-3)


@pytest.mark.parametrize("ddf", METHODS)
def test_coding_order_and_names(ddf):
    frame = unbalanced()
    base = tables(fitted(frame), ddf)
    variants = [
        fitted(frame, contrasts={"f": "sum", "k": "sum"}),
        fitted(frame, contrasts={"f": "helmert", "k": "helmert"}),
        fitted(frame, contrasts={"f": "poly"}),
        fitted(frame.replace({"f": {"a": "z", "c": "B"}, "k": {"u": "w"}})),
        fitted(frame.sample(frac=1.0, random_state=3)),
        fitted(frame.assign(g=(31 * frame["g"]) % 17, h="h" + frame["h"].astype(str))),
        fitted(frame, "y ~ f * k + x + (1 | h) + (1 + x | g)"),
        fitted(frame.assign(y=1e-150 * frame["y"])),
        fitted(frame.assign(y=1e150 * frame["y"])),
        fitted(frame.assign(w=1e3), weights="w"),
    ]
    for fit in variants:
        for found, expected in zip(tables(fit, ddf), base, strict=True):
            same(found, expected)
    # the sequential table is about another order
    for found, expected in zip(
        tables(fitted(frame, "y ~ k * f + x + (x | g) + (1 | h)"), ddf)[1:], base[1:], strict=True
    ):
        same(found, expected)


@pytest.mark.parametrize("ddf", METHODS)
def test_one_hypothesis_in_many_words(ddf):
    fit = fitted(unbalanced())
    rng = np.random.default_rng(0)
    L = np.eye(len(fit.fixef))[1:4]
    base = fit.contest(L, ddf=ddf).iloc[0]
    for size in (1.0, 1e-6, 1e6):
        mixed = rng.normal(size=(4, 3)) * np.array([1.0, size, 1.0, 1.0])[:, None]
        same(fit.contest(mixed @ L, ddf=ddf).iloc[0], base, rtol=1e-6)


def dense_covariance(fit, frame, phi):
    """Cov(beta) by n x n matrices at variance parameters (covariance of g, variances of h, e)."""
    X = fit.model_matrix()
    Zg = np.zeros((len(frame), 32))
    rows = np.arange(len(frame))
    Zg[rows, 2 * frame["g"]] = 1.0
    Zg[rows, 2 * frame["g"] + 1] = frame["x"]
    same_h = (frame["h"].to_numpy()[:, None] == frame["h"].to_numpy()[None]).astype(float)
    S = np.array([[phi[0], phi[1]], [phi[1], phi[2]]])
    V = Zg @ np.kron(np.eye(16), S) @ Zg.T + phi[3] * same_h + phi[4] * np.eye(len(frame))
    W = np.linalg.inv(V)
    return np.linalg.inv(X.T @ W @ X), V, X


def restricted_deviance(fit, frame, phi):
    C, V, X = dense_covariance(fit, frame, phi)
    y = frame["y"].to_numpy()
    W = np.linalg.inv(V)
    r = y - X @ (C @ X.T @ W @ y)
    return np.linalg.slogdet(V)[1] - np.linalg.slogdet(C)[1] + r @ W @ r


def test_joint_df_by_n_by_n_matrices():
    """Variances and covariances as parameters, differences of the dense deviance, no shared code.

    Uncorrelated combinations by the covariance of the model and by least squares; each has
    2 V^2 / Var(V) df, and F as many as match its expectation.
    """
    frame = unbalanced()
    fit = fitted(frame)
    S, sigma = fit.varcorr["g"].to_numpy(), fit.sigma
    phi = np.array([S[0, 0], S[0, 1], S[1, 1], fit.varcorr["h"].to_numpy()[0, 0], sigma**2])
    step = 1e-3 * np.array([S[0, 0], np.sqrt(S[0, 0] * S[1, 1]), S[1, 1], phi[3], phi[4]])
    m = phi.size
    H = np.empty((m, m))
    unit = np.eye(m) * step
    for i in range(m):
        for j in range(m):
            H[i, j] = sum(
                a * b * restricted_deviance(fit, frame, phi + a * unit[i] + b * unit[j])
                for a in (1, -1) for b in (1, -1)
            ) / (4 * step[i] * step[j])  # fmt: skip
    A = 2.0 * np.linalg.inv(H)
    C, _, X = dense_covariance(fit, frame, phi)
    slopes = [
        (dense_covariance(fit, frame, phi + u)[0] - dense_covariance(fit, frame, phi - u)[0])
        / (2 * size)
        for u, size in zip(unit, step, strict=True)
    ]
    L = np.eye(len(fit.fixef))[1:4]
    # l'C l = 1 and l'(X'X)^-1 l diagonal at once
    root = np.linalg.cholesky(L @ C @ L.T)
    ols = np.linalg.solve(root, np.linalg.solve(root, L @ np.linalg.inv(X.T @ X) @ L.T).T)
    rows = np.linalg.eigh(ols)[1].T @ np.linalg.solve(root, L)
    g = np.array([[row @ dC @ row for dC in slopes] for row in rows])
    nu = 2.0 / np.einsum("ri,ij,rj->r", g, A, g)
    E = (nu / (nu - 2.0)).sum()
    found = fit.contest(L)["DenDF"].iloc[0]
    assert found == pytest.approx(2.0 * E / (E - 3.0), rel=2e-3)
    single = fit.df_coefficients()
    for j in range(len(single)):
        own = np.array([dC[j, j] for dC in slopes])
        assert single.iloc[j] == pytest.approx(2 * C[j, j] ** 2 / (own @ A @ own), rel=2e-3)


def test_undetermined_variances_leave_what_does_not_depend_on_them():
    frame = unbalanced()
    plain = fitted(frame, "y ~ f + x + (1 | g)")
    for ddf in (*METHODS, "normal"):
        # a variance that f takes up
        fit = fitted(frame, "y ~ f + x + (1 | g) + (1 | f)")
        table = fit.tidy(ddf=ddf).set_index("term")
        assert table.loc[["(Intercept)", "fb", "fc"], "std_error":].isna().all(axis=None)
        expected = plain.tidy(ddf=ddf).set_index("term")
        same(
            table.loc["x", "estimate":].astype(float),
            expected.loc["x", "estimate":].astype(float),
        )
        anova = fit.anova(ddf=ddf)
        assert np.isnan(anova.loc["f", "F value"])
        same(anova.loc["x"], plain.anova(ddf=ddf).loc["x"])
        assert "(1 | f)" in anova.attrs["note"]
        assert "(1 | f)" in fit.contest("fb", ddf=ddf).attrs["note"]
        # overlapping terms: every test is known
        twice = fitted(frame, "y ~ f + x + (x | g) + (1 | g)")
        once = fitted(frame, "y ~ f + x + (x | g)")
        same(twice.anova(ddf=ddf), once.anova(ddf=ddf), rtol=1e-3)


@pytest.mark.parametrize("term", ["diag(x | g)", "diag(x + z | g)", "cs(0 + x + z | g)"])
@pytest.mark.parametrize("ddf", METHODS)
def test_no_structure_makes_tests_depend_on_a_unit(term, ddf):
    rng = np.random.default_rng(7)
    g = rng.integers(0, 12, 120)
    data = pd.DataFrame({"g": g, "x": rng.normal(size=120), "z": rng.normal(size=120)})
    data["y"] = data["x"] + rng.normal(size=12)[g] * data["x"] + rng.normal(size=120)
    found = []
    for unit in (1.0, 1e3, 1e-3):
        fit = mx.lmer(f"y ~ x + z + {term}", data.assign(x=unit * data["x"]), control=QUIET)
        found.append(fit.tidy(ddf=ddf)[["statistic", "df", "p_value"]].to_numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-6)


@pytest.mark.parametrize("size", [100.0, 300.0, 1000.0])
def test_df_of_large_crossed_slopes_know_no_order(size: float) -> None:
    """Z'W(y - Z Lambda u) cancels by the square of the size: its differences lose no more."""
    rng = np.random.default_rng(1)
    n = 70
    g, h = rng.integers(0, 6, n), rng.integers(0, 7, n)
    x = rng.normal(size=n)
    y = x + size * (rng.normal(size=6)[g] + rng.normal(size=6)[g] * x + rng.normal(size=7)[h])
    frame = pd.DataFrame({"y": y + rng.normal(size=n), "x": x, "g": g, "h": h})
    dfs = [
        mx.lmer("y ~ x + (x | g) + (1 | h)", data, progress=False).tidy(effects="fixed")["df"]
        for data in (frame, frame.sample(frac=1.0, random_state=3))
    ]
    np.testing.assert_allclose(dfs[0], dfs[1], rtol=1e-5)
