"""Cluster-robust covariances of models with a residual structure against dense n x n algebra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.inference.fixed.robust import TYPES
from tests.support.dense_structures import correlation_matrix

AR1 = mx.AR1("visit", "Subject")
SE = [1.34101976, 0.10962879, 1.57521214, 0.12800860]
DF = [15.00003, 15.00003, 24.30004, 24.30003]


def orthodont() -> pd.DataFrame:
    """Rows without an order, some of them missing."""
    data = mx.datasets.load("Orthodont").assign(visit=lambda d: ((d["age"] - 8) / 2).astype(int))
    data["w"] = np.random.default_rng(2).uniform(0.5, 2.0, len(data))
    data["pair"] = pd.factorize(data["Subject"].astype(str))[0] // 2
    return data.sample(frac=0.9, random_state=5, ignore_index=True)


def dense(fit, data: pd.DataFrame, codes: np.ndarray, type: str):
    """Covariance and Satterthwaite df from the definitions."""
    figures = fit.residual_structure.set_index("parameter")["estimate"]
    visit, subject = data["visit"].to_numpy(), data["Subject"].astype(str).to_numpy()
    C = correlation_matrix(
        subject.tolist(), lambda i, j: figures["phi"] ** abs(int(visit[i]) - int(visit[j]))
    )
    sd = np.where(data["Sex"] == "Female", figures.get("ratio(Female)", 1.0), 1.0)
    sd = sd / np.sqrt(data["w"].to_numpy())
    V = fit.scale * C * np.outer(sd, sd)
    if fit.theta.size:
        V = V + (fit.sigma * fit.theta[0]) ** 2 * (subject[:, None] == subject[None])
    X, y = fit.model_matrix(), data["distance"].to_numpy()
    inverse = np.linalg.inv(V)
    M = np.linalg.inv(X.T @ inverse @ X)
    maker = np.eye(len(y)) - X @ M @ X.T @ inverse
    e, B = maker @ y, maker @ V @ maker.T
    G, p = int(codes.max()) + 1, X.shape[1]
    cov, weights = np.zeros((p, p)), np.zeros((G, len(y), p))
    for g in range(G):
        rows = np.flatnonzero(codes == g)
        V_g = V[np.ix_(rows, rows)]
        A = np.eye(rows.size) * (np.sqrt(G / (G - 1)) if type == "CR1" else 1.0)
        if type == "CR2":
            D = np.linalg.cholesky(V_g).T
            values, vectors = np.linalg.eigh(D @ B[np.ix_(rows, rows)] @ D.T)
            A = D.T @ (vectors / np.sqrt(values)) @ vectors.T @ D
        half = A.T @ np.linalg.solve(V_g, X[rows]) @ M
        cov += np.outer(half.T @ e[rows], half.T @ e[rows])
        weights[g, rows] = half
    df = []
    for j in range(p):
        P = weights[:, :, j] @ B @ weights[:, :, j].T
        df.append(np.trace(P) ** 2 / (P * P).sum())
    return cov, np.array(df)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("cluster", [None, "pair"])
@pytest.mark.parametrize("random", ["", " + (1 | Subject)"])
def test_dense(random, cluster, type) -> None:
    data = orthodont()
    fit = (mx.lmer if random else mx.gls)(
        f"distance ~ age * Sex{random}", data, residual=AR1, variance=mx.VarIdent("Sex"),
        weights="w",
    )  # fmt: skip
    found = fit.robust(cluster, type=type)
    codes = pd.factorize(data["Subject" if cluster is None else cluster])[0]
    cov, df = dense(fit, data, codes, type)
    np.testing.assert_allclose(found.cov, cov, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.df(), df, rtol=1e-6)
    assert found.cluster == (cluster or "Subject")


def test_figures_of_clubsandwich() -> None:
    """R: gls(distance ~ age * Sex, corAR1(~ visit | Subject), varIdent(~ 1 | Sex)), CR2."""
    data = mx.datasets.load("Orthodont").assign(visit=lambda d: ((d["age"] - 8) / 2).astype(int))
    fit = mx.gls("distance ~ age * Sex", data, residual=AR1, variance=mx.VarIdent("Sex"))
    found = fit.robust()
    np.testing.assert_allclose(found.bse, SE, rtol=2e-5)
    np.testing.assert_allclose(found.df(), DF, rtol=2e-4)


def test_clusters_must_hold_whole_groups_of_residuals() -> None:
    fit = mx.gls("distance ~ age", orthodont(), residual=AR1)
    with pytest.raises(OptionError, match=r"groups of the residual structure \(Subject\) cross"):
        fit.robust("visit")
    plain = mx.gls("distance ~ age", orthodont(), variance=mx.VarIdent("Sex"))
    with pytest.raises(OptionError, match="give cluster="):
        plain.robust()
    assert plain.robust("Subject").n_clusters == 27


def test_tidy_lists_the_parameters_of_the_residuals() -> None:
    fit = mx.lmer("distance ~ age + (1 | Subject)", orthodont(), residual=AR1)
    table = fit.tidy("ran_pars", conf_int=True)
    row = table[table["term"] == "phi"].iloc[0]
    expected = fit.residual_structure.iloc[0]
    assert row["group"] == "Residual"
    assert row[["estimate", "std_error", "conf_low", "conf_high"]].tolist() == pytest.approx(
        expected[["estimate", "std_error", "lower", "upper"]].tolist()
    )
    assert fit.tidy("ran_pars")["term"].tolist()[-1] == "phi"
