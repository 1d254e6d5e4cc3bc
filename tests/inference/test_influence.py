"""Deletions against fits to the data without the rows; diagnostics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.inference.models.diagnostics import SEARCHES
from mixlm_sparse.solve.derived.without_rows import Deletion
from tests.support import corpus

MODELS = [
    "sleep_rs_reml", "penicillin_reml", "machines_ri_reml", "sleep_w_off_ml", "pixel_reml",
    "cake_reml", "pastes_nested_reml",
]  # fmt: skip
QUIET = mx.Control(warn=False)


def without(fit, rows):
    """The fit to the data frame without some rows, from scratch."""
    data = fit.call.data.source
    return fit.update(data=data.drop(index=data.index[rows]), control=QUIET)


@pytest.mark.parametrize("model", MODELS)
def test_products_by_subtraction(model):
    """The criterion of the downdated system is that of the system of the remaining rows."""
    fit = corpus.fit(model)
    rows = np.array([0, 7, 8])
    rest = Deletion(fit.system).without(rows)
    fresh = without(fit, rows).system
    theta = fit.theta * 1.1
    for reml in (True, False):
        a, b = (mx.DevianceFunction(s, reml=reml) for s in (rest, fresh))
        assert a(theta) == pytest.approx(b(theta), rel=1e-11)
        np.testing.assert_allclose(a.gradient(theta), b.gradient(theta), rtol=1e-6, atol=1e-6)
    ours, theirs = mx.solve_pls(theta, rest), mx.solve_pls(theta, fresh)
    np.testing.assert_allclose(ours.beta, theirs.beta, rtol=1e-9)
    np.testing.assert_allclose(ours.vcov_unscaled, theirs.vcov_unscaled, rtol=1e-9)
    np.testing.assert_allclose(ours.fitted(), theirs.fitted(), rtol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_groups(model):
    fit = corpus.fit(model)
    factor = fit.matrices.factors[-1]
    found = fit.influence(factor.label)
    assert list(found.labels) == list(factor.levels)
    assert found.by == factor.label
    for g in (0, factor.n_levels - 1):
        other = without(fit, np.flatnonzero(factor.codes == g))
        np.testing.assert_allclose(
            found.estimates().iloc[g][: len(found.names)], other.fixef, rtol=1e-5
        )
        expected = other.variance_components()["estimate"]
        np.testing.assert_allclose(
            found.deleted_variances[g], expected, rtol=2e-4, atol=2e-4 * fit.sigma
        )
        se = np.sqrt(np.diag(found.deleted_vcov[g]))
        np.testing.assert_allclose(se, other.bse, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_rows(model):
    fit = corpus.fit(model)
    found = fit.influence(refit=model in ("sleep_rs_reml", "sleep_w_off_ml"))
    assert len(found.labels) == fit.nobs
    if set(found.status) == {"theta kept"}:
        return
    for i in (0, 41):
        other = without(fit, np.array([i]))
        np.testing.assert_allclose(found.deleted_beta[i], other.fixef, rtol=1e-6)


def test_kept_theta_is_generalized_least_squares():
    fit = corpus.fit("sleep_rs_reml")
    found = fit.influence(refit=False)
    X, Z = fit.getME("X"), fit.getME("Z").toarray()
    Lambda = fit.getME("Lambda").toarray()
    y = fit.getME("y")
    for i in (3, 100):
        rest = np.delete(np.arange(y.size), i)
        ZL = Z[rest] @ Lambda
        W = np.linalg.inv(np.eye(rest.size) + ZL @ ZL.T)
        beta = np.linalg.solve(X[rest].T @ W @ X[rest], X[rest].T @ W @ y[rest])
        np.testing.assert_allclose(found.deleted_beta[i], beta, rtol=1e-10)


def test_measures():
    fit = corpus.fit("sleep_rs_reml")
    found = fit.influence("Subject")
    change = found.deleted_beta - fit.fixef.to_numpy()
    np.testing.assert_allclose(found.dfbeta(), change)
    V = fit.cov_params().to_numpy()
    np.testing.assert_allclose(
        found.deletion_distance(), np.einsum("ia,ab,ib->i", change, np.linalg.inv(V), change) / 2
    )
    se = np.sqrt(found.deleted_vcov[:, 1, 1])
    np.testing.assert_allclose(found.dfbetas()["Days"], change[:, 1] / se)
    expected = [np.linalg.det(v) / np.linalg.det(V) for v in found.deleted_vcov]
    np.testing.assert_allclose(found.covratio(), expected)
    own = [c @ np.linalg.solve(v, c) / 2 for c, v in zip(change, found.deleted_vcov, strict=True)]
    np.testing.assert_allclose(found.mdffits(), own)
    frame = found.to_frame()
    assert frame.index.name == "Subject"
    assert frame["cooks"].idxmax() == "309"
    assert found.variance_change().shape == (18, 4)
    assert "largest" in repr(found)


def test_influence_of_lme4():
    """lme4's influence(fit, "Subject"): dfbetas, and Cook's distance up to its factor (r - p)/r."""
    found = corpus.fit("sleep_rs_reml").influence("Subject")
    dfbetas = found.dfbetas()
    np.testing.assert_allclose(dfbetas.loc["308"], [0.05872488, -0.44892744], rtol=2e-5)
    np.testing.assert_allclose(dfbetas.loc["332"], [-0.10504284, 0.03232763], rtol=2e-5)
    cooks = found.deletion_distance() * (18 - 2) / 18
    expected = [0.082148405, 0.132020798, 0.098240744, 0.074146502, 0.050121507, 0.005613424]
    np.testing.assert_allclose(cooks.iloc[:6], expected, rtol=2e-5)


def test_the_planted_outlier_is_found():
    data = mx.datasets.load("sleepstudy")
    data.loc[99, "Reaction"] += 400  # the last day: leverage
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", data)
    found = fit.influence()
    assert found.deletion_distance().idxmax() == 99
    assert found.variance_change()["sigma"].idxmin() == 99


def test_a_coefficient_that_cannot_be_estimated():
    data = mx.datasets.load("sleepstudy")
    data["only"] = (data["Subject"].astype(str) == "308").astype(float)
    fit = mx.lmer("Reaction ~ Days + only + (1 | Subject)", data)
    found = fit.influence("Subject")
    assert np.isnan(found.estimates().loc["308", "only"])
    assert np.isfinite(found.estimates().loc["309"]).all()
    assert np.isfinite(found.estimates().loc["308", "Days"])


def test_parallel_and_progress():
    fit = corpus.fit("sleep_rs_reml")
    seen = []
    serial = fit.influence("Subject", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18)
    assert len(seen) == 18
    parallel = fit.influence("Subject", n_jobs=2)
    np.testing.assert_allclose(serial.deleted_beta, parallel.deleted_beta, rtol=1e-9)
    stopped = fit.influence("Subject", progress=lambda done, total: done < 5)
    assert len(stopped.labels) == 5


def test_labels_of_rows():
    data = mx.datasets.load("sleepstudy")
    data.index = [f"r{i}" for i in range(180)]
    data.loc["r3", "Reaction"] = np.nan
    found = mx.lmer("Reaction ~ Days + (1 | Subject)", data).influence(refit=False)
    assert "r3" not in found.labels
    assert found.labels[3] == "r4"


def test_guards():
    fit = corpus.fit("sleep_rs_reml")
    with pytest.raises(mx.OptionError, match="neither a grouping factor"):
        fit.influence("school")
    with pytest.raises(mx.OptionError, match="n_jobs"):
        fit.influence("Subject", n_jobs=0)
    with pytest.raises(mx.OptionError, match="1 group"):
        fit.influence(np.zeros(180))


# -- diagnostics ------------------------------------------------------------------------------


def test_singularity_is_free_of_scale():
    """Days in units of 1e-5: lme4 calls the fit singular, which it is not."""
    data = mx.datasets.load("sleepstudy").assign(Big=lambda d: d["Days"] * 1e5)
    fit = mx.lmer("Reaction ~ Big + (Big | Subject)", data, control=QUIET)
    row = fit.singularity().loc["Subject"]
    assert row["lme4_singular"]
    assert not row["singular"]
    assert row["reason"] == ""
    same = mx.lmer("Reaction ~ Days + (Days | Subject)", data).singularity().loc["Subject"]
    assert same["smallest_sd"] == pytest.approx(row["smallest_sd"], rel=1e-5)
    singular = corpus.fit("early_ml").singularity()
    assert singular["singular"].all()
    assert "-1" in singular["reason"].iloc[0]
    with pytest.raises(mx.OptionError, match="tol"):
        fit.singularity(tol=0)


@pytest.mark.parametrize("model", [m for m in corpus.MODELS if m not in corpus.LARGE])
def test_singularity_agrees_with_lme4(model):
    """On theta as it is, the column for lme4 says what isSingular said."""
    record = corpus.load_model(model)
    table = corpus.fit(model).singularity()
    assert bool(table["lme4_singular"].any()) == record["is_singular"]


def test_principal_components():
    fit = corpus.fit("sleep_rs_reml")
    found = fit.rePCA()["Subject"]
    T = fit.solution.Lambda(0)
    values = np.sort(np.linalg.eigvalsh(T @ T.T))[::-1]
    np.testing.assert_allclose(found["sd"] ** 2, values, rtol=1e-10)
    assert found["cumulative"].iloc[-1] == pytest.approx(1.0)
    loadings = found[["(Intercept)", "Days"]].to_numpy()
    np.testing.assert_allclose(loadings @ loadings.T, np.eye(2), atol=1e-12)
    two = corpus.fit("machines_diag_reml").rePCA()["Worker"]
    assert two.shape == (4, 7)
    singular = corpus.fit("early_ml").rePCA()["id"]
    assert singular["sd"].iloc[-1] == pytest.approx(0.0, abs=1e-4)
    scaled = fit.rePCA(scaled=True)["Subject"]
    assert scaled["proportion"].iloc[0] < found["proportion"].iloc[0]


def test_all_fit():
    fit = corpus.fit("sleep_rs_reml")
    found = fit.all_fit()
    assert set(found) == set(SEARCHES)
    frame = found.to_frame()
    assert (frame["excess"] < 1e-6).all()
    assert frame["excess"].min() == 0.0
    assert (found.spread() < 1e-3).all()
    assert found["bobyqa"].convergence.optimizer == "bobyqa"
    some = mx.all_fit(fit, ["bfgs", "bobyqa"])
    assert list(some) == ["bfgs", "bobyqa"]
    assert "excess" in repr(some)
    stopped = mx.all_fit(fit, progress=lambda done, total: False)
    assert len(stopped) == 1
    assert list(fit.all_fit("bfgs")) == ["bfgs"]
    for bad in (["newton"], 5):
        with pytest.raises(mx.OptionError, match="optimizer"):
            fit.all_fit(bad)


def test_groups_that_leave_a_coefficient_unknown_are_silent():
    data = mx.datasets.load("sleepstudy")
    data["f"] = np.where(data["Days"] > 7, "late", "early")
    fit = mx.lmer("Reaction ~ f + (1 | Subject)", data)
    for refit in (True, False):
        found = fit.influence("f", refit=refit)
        # without one of the levels there is nothing to compare: NaN, and no warning of NumPy
        assert found.to_frame()[["cooks", "mdffits", "covratio"]].isna().all().all()
        assert found.dfbeta().loc["late"].notna().sum() == 1


def test_a_fit_without_rows_is_an_error_not_a_table_of_nothing(tmp_path):
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", mx.datasets.load("sleepstudy"))
    fit.save(tmp_path / "fit.mixlm", include_data=False)
    bare = mx.load(tmp_path / "fit.mixlm")
    for group in (None, "Subject"):
        with pytest.raises(mx.SavedFitError, match="without its data"):
            bare.influence(group)


def test_labels_keep_their_type():
    data = mx.datasets.load("sleepstudy")
    data["who"] = data["Subject"].astype(str).astype(int)
    data["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(data["Days"], unit="D")
    fit = mx.lmer("Reaction ~ Days + (1 | who)", data)
    by_group = fit.influence("who").deletion_distance()
    assert by_group.index.tolist() == sorted(data["who"].unique())
    assert data["who"].map(by_group).notna().all()
    by_day = fit.influence(data["day"], refit=False).deletion_distance()
    assert set(by_day.index) == set(data["day"])


def test_rows_of_a_frame_with_two_index_levels():
    data = mx.datasets.load("sleepstudy").iloc[:60]
    data.index = pd.MultiIndex.from_product([range(6), range(10)])
    found = mx.lmer("Reaction ~ Days + (1 | Subject)", data).influence(refit=False)
    assert found.dfbetas().index.equals(data.index)
    assert len(found.to_frame()) == 60
