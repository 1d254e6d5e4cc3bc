"""Kenward and Roger with parameters held, and with levels that are related, from dense matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support.dense_structures import dense_kenward_roger, dense_kr_df

Array = np.ndarray
QUIET = mx.Control(warn=False)


def compared(fit, V: Callable[[Array], Array], eta: Array, rtol: float = 2e-5) -> None:
    """Compare errors and df of all coefficients; V in all free parameters eta."""
    eta = np.asarray(eta, dtype=float)
    first = []
    for k in range(eta.size):
        step = 1e-5 * max(abs(eta[k]), 0.1) * (np.arange(eta.size) == k)
        first.append((V(eta + step) - V(eta - step)) / (2.0 * step[k]))
    X = fit.model_matrix()
    adjusted, _ = dense_kenward_roger(X, V(eta), first, {})
    found = fit.tidy(ddf="kenward-roger")
    for k, row in enumerate(np.eye(X.shape[1])):
        df = dense_kr_df(X, V(eta), first, row)
        error = float(np.sqrt(row @ adjusted @ row))
        assert found["std_error"][k] == pytest.approx(error, rel=rtol)
        assert found["df"][k] == pytest.approx(df, rel=10.0 * rtol)


def groups(seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, size=9)
    g = np.repeat(np.arange(9), sizes)
    frame = pd.DataFrame({"g": g, "x": rng.normal(size=g.size) + 0.2 * g})
    frame["arm"] = np.where(g % 2, "a", "b")
    b = rng.normal(size=(9, 2)) * [1.5, 0.7]
    frame["y"] = b[g, 0] + b[g, 1] * frame["x"] + rng.normal(size=g.size)
    frame["w"] = rng.uniform(0.5, 2.0, size=g.size)
    return frame


def test_a_standard_deviation_held() -> None:
    data = groups()
    fixed = {"sd_(Intercept)|g": 1.2}
    fit = mx.lmer("y ~ x + arm + (1 | g) + (0 + x | g)", data, fixed=fixed, weights="w")
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()[None]
    xx = np.outer(data["x"], data["x"])

    def V(eta: Array) -> Array:
        return 1.2**2 * same + eta[0] * same * xx + eta[1] * np.diag(1.0 / data["w"])

    tau = fit.varcorr.to_frame().set_index("var1").loc["x", "vcov"]
    compared(fit, V, [tau, fit.scale])


def test_sigma_held_as_in_a_meta_analysis() -> None:
    rng = np.random.default_rng(3)
    v = rng.uniform(0.01, 0.05, size=14)
    studies = pd.DataFrame({"study": np.arange(14), "x": rng.normal(size=14)})
    studies["effect"] = 0.3 + 0.2 * rng.normal(size=14) + np.sqrt(v) * rng.normal(size=14)
    fit = mx.lmer("effect ~ x + (1 | study)", studies, weights=1.0 / v, fixed={"sigma": 1.0})
    tau = fit.varcorr["study"].iloc[0, 0]
    assert tau > 0.0
    compared(fit, lambda eta: np.diag(v + eta[0]), [tau])


def test_a_correlation_held() -> None:
    data = groups(5)
    fit = mx.lmer("y ~ x + (x | g)", data, fixed={"cor_x.(Intercept)|g": 0.3}, control=QUIET)
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()[None]
    x = data["x"].to_numpy()

    def V(eta: Array) -> Array:
        S = np.array([[eta[0] ** 2, 0.3 * eta[0] * eta[1]], [0.3 * eta[0] * eta[1], eta[1] ** 2]])
        Z = np.column_stack([np.ones(x.size), x])
        return same * (Z @ S @ Z.T) + eta[2] * np.eye(x.size)

    sd = np.sqrt(np.diag(fit.varcorr["g"]))
    assert sd.min() > 0.05
    compared(fit, V, [*sd, fit.scale])


def test_nothing_left_free_is_the_normal_distribution() -> None:
    data = groups(6)
    fit = mx.lmer("y ~ x + (1 | g)", data, fixed={"sigma": 1.0, "sd_(Intercept)|g": 1.5})
    found = fit.tidy(ddf="kenward-roger")
    np.testing.assert_allclose(found["std_error"], fit.bse, rtol=1e-10)
    assert np.isinf(found["df"]).all()


def family() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(8)
    n = 30
    sire, dam = [None] * 10, [None] * 10
    for i in range(10, n):
        sire.append(f"a{2 * rng.integers(0, i // 2)}")
        dam.append(f"a{2 * rng.integers(0, i // 2) + 1}")
    names = [f"a{i}" for i in range(n)]
    A = mx.Pedigree(names, sire, dam).relationship().loc[names, names]
    a = np.linalg.cholesky(A.to_numpy()) @ rng.normal(size=n)
    rows = np.repeat(np.arange(n), rng.integers(1, 4, size=n))
    data = pd.DataFrame({"animal": np.array(names)[rows], "x": rng.normal(size=rows.size)})
    data["herd"] = rng.integers(0, 5, size=rows.size)
    data["y"] = a[rows] + 0.5 * data["x"] + rng.normal(size=rows.size)
    data["w"] = rng.uniform(0.5, 2.0, size=rows.size)
    return data, A


@pytest.mark.parametrize("weights", [None, "w"])
def test_levels_that_are_related(weights) -> None:
    data, A = family()
    fit = mx.lmer("y ~ x + (1 | animal) + (1 | herd)", data, known={"animal": A}, weights=weights,
                  control=QUIET)  # fmt: skip
    related = A.loc[data["animal"], data["animal"]].to_numpy()
    herd = data["herd"].to_numpy()[:, None] == data["herd"].to_numpy()[None]
    noise = np.eye(len(data)) if weights is None else np.diag(1.0 / data["w"])

    def V(eta: Array) -> Array:
        return eta[0] * related + eta[1] * herd + eta[2] * noise

    v = fit.varcorr.to_frame().set_index("grp")["vcov"]
    assert v["animal"] > 0.0
    compared(fit, V, [v["animal"], v["herd"], fit.scale])


def test_unrelated_levels_are_as_without_a_matrix() -> None:
    data = groups(9)
    labels = sorted(data["g"].unique())
    I = pd.DataFrame(np.eye(9), index=labels, columns=labels)  # noqa: E741
    fits = [mx.lmer("y ~ x + (x | g)", data, known=known, control=QUIET)
            for known in (None, {"g": I})]  # fmt: skip
    ours, theirs = (fit.tidy(ddf="kenward-roger") for fit in fits)
    np.testing.assert_allclose(ours["std_error"], theirs["std_error"], rtol=1e-5)
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=1e-4)


def test_a_matrix_and_a_parameter_held() -> None:
    data, A = family()
    fit = mx.lmer("y ~ x + (1 | animal)", data, known={"animal": A}, fixed={"sigma": 1.0},
                  control=QUIET)  # fmt: skip
    related = A.loc[data["animal"], data["animal"]].to_numpy()
    tau = fit.varcorr["animal"].iloc[0, 0]
    compared(fit, lambda eta: eta[0] * related + np.eye(len(data)), [tau])
