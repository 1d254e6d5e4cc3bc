"""Cluster-robust covariances against dense n x n algebra."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mixlm_sparse as mx
from mixlm_sparse.inference.fixed.robust import TYPES
from tests.support import corpus

MODELS = [
    "sleep_rs_reml", "sleep_w_reml", "sleep_w_off_ml", "pastes_nested_reml", "machines_ri_reml",
    "dyestuff2_reml", "ortho_rs_reml", "pixel_reml",
]  # fmt: skip


def dense(fit, codes, type):
    """Covariance, Satterthwaite df, straight from the definitions with n x n matrices."""
    X, Z = fit.getME("X"), fit.getME("Z").toarray()
    Lambda = fit.getME("Lambda").toarray()
    y = fit.getME("y") - fit.getME("offset")
    V = fit.sigma**2 * (Z @ Lambda @ Lambda.T @ Z.T + np.diag(1 / fit.getME("weights")))
    V_inverse = np.linalg.inv(V)
    M = np.linalg.inv(X.T @ V_inverse @ X)
    residual_maker = np.eye(len(y)) - X @ M @ X.T @ V_inverse
    e = residual_maker @ y
    B = residual_maker @ V @ residual_maker.T
    G = codes.max() + 1
    cov = np.zeros((X.shape[1],) * 2)
    weights = np.zeros((G, len(y), X.shape[1]))
    for g in range(G):
        rows = np.flatnonzero(codes == g)
        V_g = V[np.ix_(rows, rows)]
        A = np.eye(rows.size)
        if type == "CR1":
            A *= np.sqrt(G / (G - 1))
        if type == "CR2":
            D = np.linalg.cholesky(V_g).T
            values, vectors = np.linalg.eigh(D @ B[np.ix_(rows, rows)] @ D.T)
            ok = values > 1e-10 * values.max()
            root = vectors[:, ok] / np.sqrt(values[ok]) @ vectors[:, ok].T
            A = D.T @ root @ D
        half = A.T @ np.linalg.solve(V_g, X[rows]) @ M
        cov += np.outer(half.T @ e[rows], half.T @ e[rows])
        weights[g, rows] = half
    df = []
    for j in range(X.shape[1]):
        P = weights[:, :, j] @ B @ weights[:, :, j].T
        df.append(np.trace(P) ** 2 / (P * P).sum())
    return cov, np.array(df)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("model", MODELS)
def test_dense(model, type):
    fit = corpus.fit(model)
    found = fit.robust(type=type)
    codes = next(f.codes for f in fit.matrices.factors if f.label == found.cluster)
    cov, df = dense(fit, codes, type)
    np.testing.assert_allclose(found.vcov, cov, rtol=1e-8, atol=1e-12 * np.abs(cov).max())
    np.testing.assert_allclose(found.df(), df, rtol=1e-8)


CLUBSANDWICH = json.loads((corpus.HERE / "clubsandwich.json").read_text("utf-8"))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("record", CLUBSANDWICH, ids=lambda r: r["id"])
def test_clubsandwich(record, type):
    """Standard errors and df of R's clubSandwich (clubsandwich.R writes them)."""
    table = corpus.fit(record["id"]).robust(type=type).table()
    assert list(table.index) == record["names"]
    expected = record["types"][type]
    np.testing.assert_allclose(table["std_error"], expected["se"], rtol=1e-5)
    np.testing.assert_allclose(table["df"], expected["df"], rtol=1e-4)


def test_unbiased_if_the_model_is_right():
    """E(CR2) = M exactly: the quadratic form's expectation, by the dense working covariance."""
    fit = corpus.fit("ortho_rs_reml")
    found = fit.robust()
    N, Q = found.meat
    # E e_g e_g' = V_g - X_g M X_g', in columns in which M is the identity
    expected = sum(Q[g] - N[g] @ N[g].T for g in range(found.n_clusters))
    np.testing.assert_allclose(expected, np.eye(len(found.names)), atol=1e-9)


@pytest.mark.parametrize("type", TYPES)
def test_no_unit_and_no_origin_matters(type):
    """Units of the response over 1e±200, of the predictor over 1e±4, years for days."""
    data = mx.datasets.load("sleepstudy")
    base = mx.lmer("Reaction ~ Days + (Days | Subject)", data).robust(type=type).table()
    for unit in (1e-100, 1e100):
        fit = mx.lmer(
            "y ~ Days + (Days | Subject)", data.assign(y=data["Reaction"] * unit),
            control=mx.Control(warn=False),
        )  # fmt: skip
        table = fit.robust(type=type).table()
        np.testing.assert_allclose(table["std_error"] / unit, base["std_error"], rtol=1e-5)
        np.testing.assert_allclose(table[["df", "p_value"]], base[["df", "p_value"]], rtol=1e-4)
    for move, scale in ((0.0, 1e4), (0.0, 1e-4), (1e3, 1.0), (1e6, 1.0)):
        moved = data.assign(x=move + scale * data["Days"])
        fit = mx.lmer("Reaction ~ x + (x | Subject)", moved, control=mx.Control(warn=False))
        found, expected = fit.robust(type=type).table().loc["x"], base.loc["Days"]
        assert found["std_error"] * scale == pytest.approx(expected["std_error"], rel=1e-5)
        assert found["df"] == pytest.approx(expected["df"], rel=1e-5)


def test_balanced_means_have_groups_minus_one():
    table = corpus.fit("sleep_rs_reml").robust().table()
    np.testing.assert_allclose(table["df"], 17.0, rtol=1e-6)
    inside = (table["lower"] < table["estimate"]) & (table["estimate"] < table["upper"])
    assert inside.all()
    narrow = corpus.fit("sleep_rs_reml").robust().table(0.5)
    assert (narrow["upper"] < table["upper"]).all()


def test_default_cluster_is_the_outermost_factor():
    assert corpus.fit("pastes_nested_reml").robust().cluster == "batch"
    assert corpus.fit("machines_ri_reml").robust().cluster == "Worker"


def test_clusters_by_column_and_array():
    fit = corpus.fit("pastes_nested_reml")
    by_factor = fit.robust("batch")
    data = corpus.load_data("Pastes")
    by_array = fit.robust(data["batch"].astype(str).to_numpy())
    by_series = fit.robust(data["batch"])
    np.testing.assert_allclose(by_array.vcov, by_factor.vcov, rtol=1e-12)
    assert by_series.cluster == "batch"
    coarse = data["batch"].astype(str).isin(list("ABCDE")).to_numpy()
    assert fit.robust(coarse).n_clusters == 2
    column = mx.lmer(
        "Reaction ~ Days + (1 | Subject)",
        mx.datasets.load("sleepstudy").assign(half=lambda d: d["Subject"].astype(int) % 5),
    ).robust("half")
    assert column.n_clusters == 5
    assert column.cluster == "half"


def test_missing_rows():
    data = mx.datasets.load("sleepstudy")
    data["Days"] = data["Days"].astype(float)
    data.loc[[1, 60], "Days"] = np.nan
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", data)
    a = fit.robust("Subject").vcov
    b = fit.robust(data["Subject"].to_numpy()).vcov
    np.testing.assert_allclose(a, b)


def test_contrasts():
    found = corpus.fit("sleep_rs_reml").robust()
    np.testing.assert_allclose(found.df([[1, 0], [0, 1]]), found.df())
    assert found.df([1.0, 4.5]).shape == (1,)
    with pytest.raises(mx.OptionError, match="2 coefficients"):
        found.df([1.0, 2.0, 3.0])
    assert "CR2 standard errors, 18 clusters" in repr(found)
    assert list(found.cov.columns) == ["(Intercept)", "Days"]
    assert found.bse["Days"] == pytest.approx(np.sqrt(found.cov.loc["Days", "Days"]))


def test_guards():
    crossed = corpus.fit("penicillin_reml")
    with pytest.raises(mx.OptionError, match="crossed"):
        crossed.robust()
    with pytest.raises(mx.OptionError, match="sample cross the clusters"):
        crossed.robust("plate")
    fit = corpus.fit("sleep_rs_reml")
    with pytest.raises(mx.OptionError, match="'CR0', 'CR1', 'CR2'"):
        fit.robust(type="HC3")
    with pytest.raises(mx.OptionError, match="neither a grouping factor"):
        fit.robust("school")
    with pytest.raises(mx.DataError, match="180 rows used"):
        fit.robust(np.arange(7))
    with pytest.raises(mx.DataError, match="at least 2"):
        fit.robust(np.zeros(180))
    with pytest.raises(mx.OptionError, match="between 0 and 1"):
        fit.robust().table(95)
