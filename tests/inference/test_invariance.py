"""What is said of variances does not depend on how a predictor, a factor or a row is written.

A random slope's covariate may be moved and scaled, factors coded and their levels named otherwise,
terms and rows put in another order: the model is the same.  What has the same meaning keeps its
value; what has another one (the standard deviation of an intercept where x = 0 is elsewhere) is
mapped exactly, here by dense algebra that shares nothing with the package.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
TIGHT = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000}
NUMBERS = ["estimate", "std_error", "lower", "upper"]


def data() -> pd.DataFrame:
    rng = np.random.default_rng(2024)
    g = np.repeat(np.arange(14), 9)
    x = np.tile(np.arange(9.0), 14) + rng.normal(scale=0.2, size=126)
    f = rng.integers(3, size=126)
    h = rng.integers(6, size=126)
    b = rng.multivariate_normal([0.0, 0.0], [[4.0, 0.3], [0.3, 0.25]], size=14)
    y = 10.0 + 0.5 * x + np.array([0.0, 1.0, -1.0])[f] + b[g, 0] + b[g, 1] * x
    y = y + 0.8 * rng.normal(size=6)[h] + rng.normal(size=126)
    return pd.DataFrame(
        {"y": y, "x": x, "f": np.array(["a", "b", "c"])[f], "g": g.astype(str), "h": h}
    )


FORMULA = "y ~ x + f + (x | g) + (1 | h)"


@pytest.fixture(scope="module")
def base() -> mx.LinearMixedFit:
    return mx.lmer(FORMULA, data())


def moved(shift: float = 0.0, scale: float = 1.0) -> mx.LinearMixedFit:
    frame = data()
    frame["x"] = frame["x"] * scale + shift
    return mx.lmer(FORMULA, frame, control=QUIET)


MOVES = [(1e3, 1.0), (1e6, 1.0), (-2e3, 1.0), (0.0, 1e4), (0.0, 1e-4), (1e6, 1e4), (50.0, 1e-4)]


# ---------------------------------------------------------------------------------------------
# The dense oracle: covariance of (log sd, atanh r, log sd, log sigma), and its exact map
# ---------------------------------------------------------------------------------------------


def two_effects() -> tuple[pd.DataFrame, str]:
    frame = data()
    return frame, "y ~ x + (x | g)"


def reml(p: np.ndarray, frame: pd.DataFrame) -> float:
    """-2 restricted log-likelihood at (log sd0, atanh r, log sd1, log sigma)."""
    S = covariance_of(p)
    x, y = frame["x"].to_numpy(), frame["y"].to_numpy()
    X = np.column_stack([np.ones_like(x), x])
    same = frame["g"].to_numpy()[:, None] == frame["g"].to_numpy()[None, :]
    V = (X @ S @ X.T) * same + np.exp(2.0 * p[3]) * np.eye(x.size)
    W = np.linalg.inv(V)
    XWX = X.T @ W @ X
    r = y - X @ np.linalg.solve(XWX, X.T @ W @ y)
    return float(np.linalg.slogdet(V)[1] + np.linalg.slogdet(XWX)[1] + r @ W @ r)


def covariance_of(p: np.ndarray) -> np.ndarray:
    s0, s1, r = np.exp(p[0]), np.exp(p[2]), np.tanh(p[1])
    return np.array([[s0 * s0, r * s0 * s1], [r * s0 * s1, s1 * s1]])


def hessian(function, at: np.ndarray, step: float = 1e-3) -> np.ndarray:
    k = at.size
    H = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            a, b = np.eye(k)[i] * step, np.eye(k)[j] * step
            H[i, j] = (
                function(at + a + b) - function(at + a - b) - function(at - a + b)
                + function(at - a - b)
            ) / (4.0 * step * step)  # fmt: skip
    return H


def mapped(p: np.ndarray, shift: float) -> np.ndarray:
    """The parameters for the covariate x + shift: an intercept further away."""
    S = covariance_of(p)
    s0 = np.sqrt(S[0, 0] - 2.0 * shift * S[0, 1] + shift**2 * S[1, 1])
    left = np.sqrt(S[0, 0] - S[0, 1] ** 2 / S[1, 1])  # what the slope does not explain
    return np.array(
        [np.log(s0), np.arcsinh((S[0, 1] / S[1, 1] - shift) * np.exp(p[2]) / left), p[2], p[3]]
    )


@pytest.mark.parametrize("shift", [0.0, 3.0, 40.0, 2000.0])
def test_standard_errors_are_mapped_exactly(shift):
    frame, formula = two_effects()
    here = mx.lmer(formula, frame).variance_components()["estimate"].to_numpy()
    p = np.array([np.log(here[0]), np.arctanh(here[1]), np.log(here[2]), np.log(here[3])])
    V = 2.0 * np.linalg.inv(hessian(lambda q: reml(q, frame), p))
    J = np.empty((4, 4))
    for i in range(4):
        e = np.eye(4)[i] * 1e-5
        J[:, i] = (mapped(p + e, shift) - mapped(p - e, shift)) / 2e-5
    se = np.sqrt(np.diag(J @ V @ J.T))
    q = mapped(p, shift)
    expected = np.array([
        [np.exp(q[0]), np.exp(q[0]) * se[0]],
        [np.tanh(q[1]), se[1] / np.cosh(q[1]) ** 2],
        [np.exp(q[2]), np.exp(q[2]) * se[2]],
        [np.exp(q[3]), np.exp(q[3]) * se[3]],
    ])  # fmt: skip
    there = mx.lmer(formula, frame.assign(x=frame["x"] + shift), control=QUIET)
    table = there.variance_components()
    np.testing.assert_allclose(table[["estimate", "std_error"]], expected, rtol=2e-5)
    assert (table["note"] == "").all()
    # limits are symmetric on the scale of (log, atanh)
    z = 1.959963984540054
    np.testing.assert_allclose(table["lower"].iloc[0], np.exp(q[0] - z * se[0]), rtol=2e-5)
    np.testing.assert_allclose(1.0 - table["upper"].iloc[1] ** 2, np.cosh(q[1] + z * se[1]) ** -2.0,
                               rtol=1e-3)


# ---------------------------------------------------------------------------------------------
# Origins and units
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "scale"), MOVES)
def test_components_and_shares(base, shift, scale):
    fit = moved(shift, scale)
    expected, found = base.variance_components(), fit.variance_components()
    for name in ("sd_(Intercept)|h", "sigma"):
        np.testing.assert_allclose(
            found.loc[name, NUMBERS].astype(float), expected.loc[name, NUMBERS].astype(float),
            rtol=1e-6,
        )  # fmt: skip
    slope = found.loc["sd_x|g", NUMBERS].astype(float) * scale
    np.testing.assert_allclose(slope, expected.loc["sd_x|g", NUMBERS].astype(float), rtol=1e-6)
    if shift == 0.0:
        np.testing.assert_allclose(
            found.loc["cor_x.(Intercept)|g", NUMBERS].astype(float),
            expected.loc["cor_x.(Intercept)|g", NUMBERS].astype(float), rtol=1e-5,
        )  # fmt: skip
    assert (found["note"] == "").all()
    np.testing.assert_allclose(fit.icc(), base.icc(), rtol=1e-6)
    np.testing.assert_allclose(fit.r2(), base.r2(), rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# Other ways of writing the same
# ---------------------------------------------------------------------------------------------


def rewritten() -> dict[str, mx.LinearMixedFit]:
    frame = data()
    rng = np.random.default_rng(3)
    names = dict(zip(sorted(frame["g"].unique()), rng.permutation(14).astype(str), strict=True))
    return {
        "rows": mx.lmer(FORMULA, frame.sample(frac=1.0, random_state=5), control=QUIET),
        "terms": mx.lmer("y ~ f + x + (1 | h) + (1 + x | g)", frame, control=QUIET),
        "coding": mx.lmer(FORMULA, frame, contrasts={"f": "sum"}, control=QUIET),
        "levels": mx.lmer(
            FORMULA, frame.assign(f=frame["f"].map({"a": "z", "b": "m", "c": "k"})), control=QUIET
        ),
        "groups": mx.lmer(FORMULA, frame.assign(g=frame["g"].map(names)), control=QUIET),
        "numbers": mx.lmer(FORMULA, frame.assign(h=frame["h"].astype(str) + "!"), control=QUIET),
    }


@pytest.fixture(scope="module")
def others() -> dict[str, mx.LinearMixedFit]:
    return rewritten()


WAYS = ["rows", "terms", "coding", "levels", "groups", "numbers"]


@pytest.mark.parametrize("way", WAYS)
def test_components_and_shares_of_the_same_model(base, others, way):
    fit = others[way]
    expected, found = base.variance_components(), fit.variance_components()
    np.testing.assert_allclose(
        found.loc[expected.index, NUMBERS].astype(float), expected[NUMBERS].astype(float), rtol=2e-6
    )
    np.testing.assert_allclose(fit.icc().loc[base.icc().index], base.icc(), rtol=2e-6)
    np.testing.assert_allclose(fit.r2(), base.r2(), rtol=2e-6)


# ---------------------------------------------------------------------------------------------
# Profiles, intervals, smaller models, influence
# ---------------------------------------------------------------------------------------------

INVARIANT = ["sd_(Intercept)|h", "sigma", "fb", "fc"]


@pytest.fixture(scope="module")
def curves(base) -> pd.DataFrame:
    return base.profile().confint()[["lower", "upper"]]


@pytest.mark.parametrize(("shift", "scale"), [MOVES[i] for i in (0, 1, 4, 5)])
def test_profiles(base, curves, shift, scale):
    fit = moved(shift, scale)
    profile = fit.profile()
    found = profile.confint()
    np.testing.assert_allclose(
        found.loc[INVARIANT, ["lower", "upper"]], curves.loc[INVARIANT], rtol=1e-6
    )
    for name in ("sd_x|g", "x"):
        np.testing.assert_allclose(
            found.loc[name, ["lower", "upper"]].astype(float) * scale, curves.loc[name], rtol=1e-6
        )
    if shift == 0.0:
        np.testing.assert_allclose(
            found.loc["cor_x.(Intercept)|g", ["lower", "upper"]].astype(float),
            curves.loc["cor_x.(Intercept)|g"], rtol=1e-5,
        )  # fmt: skip
    assert (found["note"] == "").all()
    # the work does not depend on it either
    assert profile.n_evaluations < 1.5 * base.profile().n_evaluations


def test_the_profile_of_an_intercept_elsewhere():
    """Held at a value, it leaves the criterion of dense algebra, wherever x is zero."""
    frame, formula = two_effects()
    shift = 30.0
    fit = mx.lmer(formula, frame.assign(x=frame["x"] + shift), control=QUIET)
    curve = fit.profile("sd_(Intercept)|g", reml=True)["sd_(Intercept)|g"]
    start = fit.variance_components()["estimate"].to_numpy()
    p = np.array([np.log(start[0]), np.arctanh(start[1]), np.log(start[2]), np.log(start[3])])
    there = frame.assign(x=frame["x"] + shift)
    least = reml(p, there)
    for at in (3, -3):
        value = float(curve.values[at])

        def rest(q, value=value):
            return reml(np.array([np.log(value), *q]), there)

        found = minimize(rest, p[1:], method="Nelder-Mead", options=TIGHT)
        zeta = np.sign(value - curve.estimate) * np.sqrt(found.fun - least)
        assert curve.zeta[at] == pytest.approx(zeta, rel=2e-4)


@pytest.mark.parametrize("way", ["rows", "terms", "levels", "groups"])
def test_profiles_of_the_same_model(curves, others, way):
    found = others[way].profile("theta_").confint()
    same = [name for name in curves.index if name in found.index]
    np.testing.assert_allclose(
        found.loc[same, ["lower", "upper"]].astype(float), curves.loc[same], rtol=2e-5
    )


@pytest.mark.parametrize(("shift", "scale"), [(1e3, 1.0), (1e6, 1.0), (0.0, 1e4), (0.0, 1e-4)])
def test_smaller_models_and_influence(base, shift, scale):
    fit = moved(shift, scale)
    columns = ["LRT", "Pr(>Chisq)", "Pr(>Chibar2)"]
    np.testing.assert_allclose(fit.ranova()[columns], base.ranova()[columns], rtol=1e-5, atol=1e-7)
    table = ["LRT", "Pr(>Chisq)"]
    np.testing.assert_allclose(fit.drop1()[table], base.drop1()[table], rtol=1e-5)
    np.testing.assert_allclose(
        fit.drop1(test="F").to_numpy(), base.drop1(test="F").to_numpy(), rtol=1e-5
    )
    assert fit.lr_vs_lm()["LRT"].iloc[0] == pytest.approx(base.lr_vs_lm()["LRT"].iloc[0], rel=1e-7)
    ours, theirs = fit.influence("g"), base.influence("g")
    for name in ("deletion_distance", "mdffits", "covratio"):
        np.testing.assert_allclose(
            getattr(ours, name)(), getattr(theirs, name)(), rtol=1e-4, atol=1e-7
        )
    same = ["sd_(Intercept)|h", "sigma"]
    np.testing.assert_allclose(
        ours.variance_change()[same], theirs.variance_change()[same], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        ours.variance_change()["sd_x|g"] * scale, theirs.variance_change()["sd_x|g"],
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize(("shift", "scale"), [(1e3, 1.0), (1e6, 1.0), (0.0, 1e4)])
def test_backward_elimination(shift, scale):
    rng = np.random.default_rng(8)
    frame = data().assign(noise=rng.normal(size=126))
    formula = "y ~ x * f + noise + (x | g) + (1 | h)"
    expected = mx.lmer(formula, frame, control=QUIET).step()
    found = mx.lmer(
        formula, frame.assign(x=frame["x"] * scale + shift), control=QUIET
    ).step()
    assert found.formula == expected.formula
    assert list(found.fixed.index) == list(expected.fixed.index)
    np.testing.assert_allclose(found.fixed["Pr(>F)"], expected.fixed["Pr(>F)"], rtol=1e-5)
    np.testing.assert_allclose(
        found.random["LRT"].astype(float), expected.random["LRT"].astype(float), rtol=1e-5,
        atol=1e-7,
    )  # fmt: skip
