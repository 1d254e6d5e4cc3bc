"""Known covariances of levels: pedigrees, kinship, precisions, against dense algebra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import mixlm_sparse as mx
from mixlm_sparse.solve.criterion import criterion_and_gradient
from mixlm_sparse.solve.pls import factor_by_rows, solve_at

QUIET = mx.Control(warn=False)


def parents(seed, n, founders=8):
    """Random mating over overlapping generations; -1 is unknown."""
    rng = np.random.default_rng(seed)
    sire, dam = np.full(n, -1), np.full(n, -1)
    for i in range(founders, n):
        sire[i], dam[i] = rng.integers(-1, i, 2)
    return sire, dam


def tabular(sire, dam):
    """A by the tabular method, element by element."""
    n = sire.size
    A = np.zeros((n, n))
    for i in range(n):
        s, d = sire[i], dam[i]
        A[i, i] = 1.0 + (0.5 * A[s, d] if s >= 0 and d >= 0 else 0.0)
        for j in range(i):
            of_sire = A[j, s] if s >= 0 else 0.0
            of_dam = A[j, d] if d >= 0 else 0.0
            A[i, j] = A[j, i] = 0.5 * (of_sire + of_dam)
    return A


def pedigree_of(sire, dam, order=None):
    n = sire.size
    ids = np.array([f"a{i}" for i in range(n)], dtype=object)
    own = np.arange(n) if order is None else order
    named = [np.array([ids[p] if p >= 0 else None for p in v[own]], dtype=object)
             for v in (sire, dam)]  # fmt: skip
    return ids, mx.Pedigree(ids[own], *named)


@given(seed=st.integers(0, 10**6), n=st.integers(9, 40))
def test_the_pedigree_has_the_inverse_of_the_tabular_matrix(seed, n):
    sire, dam = parents(seed, n)
    order = np.random.default_rng(seed).permutation(n)  # parents after their offspring too
    ids, pedigree = pedigree_of(sire, dam, order)
    A = tabular(sire, dam)
    place = pd.Index(pedigree.labels).get_indexer(ids)
    Q = pedigree.precision.toarray()[np.ix_(place, place)]
    np.testing.assert_allclose(Q @ A, np.eye(n), atol=1e-10)
    np.testing.assert_allclose(pedigree.inbreeding[ids], np.diag(A) - 1.0, atol=1e-14)
    np.testing.assert_allclose(pedigree.relationship().loc[ids, ids], A, atol=1e-14)
    assert pedigree.log_det == pytest.approx(-np.linalg.slogdet(A)[1], abs=1e-9)
    W = pedigree.root.toarray()
    np.testing.assert_allclose(W.T @ W, pedigree.precision.toarray(), atol=1e-12)


def test_parents_without_rows_are_founders_and_codes_may_be_numbers():
    by_number = mx.Pedigree([3, 4, 5], [1, 1, 3], [2, 2, 4])
    assert by_number.inbreeding.to_dict() == {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0, 5: 0.25}
    assert mx.Pedigree([3, 4], [0, 3], [0, np.nan]).inbreeding.to_dict() == {3: 0.0, 4: 0.0}
    assert "5 animals, 2 founders, 1 inbred" in repr(by_number)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["a", "b", "c"], ["c", "a", "b"], [None] * 3), "has a loop: .* is a parent of"),
        ((["a"], ["a"], [None]), "a is a parent of a"),
        ((["a", "a"], [None] * 2, [None] * 2), "has 'a' more than once"),
        ((["a", None], [None] * 2, [None] * 2), "animals without an id"),
        ((["a", "b"], [None], [None] * 2), "have 2, 1, 2 values"),
        (([1.5, 2], [0, 0], [0, 0]), "numbers that are not whole"),
        (("animal", "sire", "dam"), r"id is the text 'animal': give the column, data\['animal'\]"),
        ((["a"], "sire", [None]), "sire is the text 'sire'"),
        ((pd.DataFrame({"id": ["a"], "sire": [""]}), ["a"], ["b"]), "id is a DataFrame of shape"),
        ((["a"], np.zeros((1, 2)), [None]), r"sire is an array of shape \(1, 2\): give three"),
    ],
)
def test_bad_pedigrees(columns, message):
    with pytest.raises(mx.DataError, match=message):
        mx.Pedigree(*columns)


@pytest.fixture(scope="module")
def herd():
    """200 records of the younger of 240 animals in 8 herds."""
    rng = np.random.default_rng(4)
    sire, dam = parents(4, 240, founders=40)
    ids, pedigree = pedigree_of(sire, dam)
    A = tabular(sire, dam)
    a = 1.3 * np.linalg.cholesky(A) @ rng.normal(size=240)
    rows = np.sort(rng.choice(np.arange(40, 240), 170, replace=False))
    rows = np.concatenate([rows, rows[:30]])
    data = pd.DataFrame({"animal": ids[rows], "x": rng.normal(size=200)})
    data["herd"] = rng.integers(0, 8, 200)
    data["y"] = 1.0 + data["x"] + a[rows] + rng.normal(size=8)[data["herd"]] + rng.normal(size=200)
    data["w"] = rng.uniform(0.5, 2.0, 200)
    return {"data": data, "rows": rows, "A": A, "ids": ids, "pedigree": pedigree}


def forms(herd):
    A, ids, pedigree = herd["A"], herd["ids"], herd["pedigree"]
    shuffled = pd.DataFrame(A, ids, ids).sample(frac=1.0, random_state=1)
    return {
        "pedigree": pedigree,
        "frame": pd.DataFrame(A, ids, ids),
        "shuffled rows": shuffled,
        "sparse": mx.Relationship(sp.csc_array(A), ids),
        "precision": mx.Precision(pedigree.precision, pedigree.labels),
        "dense precision": mx.Precision(np.linalg.inv(A), list(ids)),
    }


def dense(herd, theta, *, reml=True):
    """Criterion and pieces of y ~ x + (1 | animal) + (1 | herd) with weights w."""
    data, rows = herd["data"], herd["rows"]
    Z = (data["herd"].to_numpy()[:, None] == data["herd"].to_numpy()) * 1.0
    V = np.diag(1.0 / data["w"]) + theta[0] ** 2 * herd["A"][np.ix_(rows, rows)]
    V += theta[1] ** 2 * Z
    X = np.column_stack([np.ones(len(data)), data["x"]])
    inverse = np.linalg.inv(V)
    XtVX = X.T @ inverse @ X
    beta = np.linalg.solve(XtVX, X.T @ inverse @ data["y"])
    r = data["y"].to_numpy() - X @ beta
    nu = len(data) - 2 * reml
    pwrss = r @ inverse @ r
    d = np.linalg.slogdet(V)[1] + nu * (1.0 + np.log(2.0 * np.pi * pwrss / nu))
    d += reml * np.linalg.slogdet(XtVX)[1]
    b = theta[0] ** 2 * herd["A"][:, rows] @ inverse @ r
    return d, beta, np.sqrt(pwrss / nu), V, b, X


FORMULA = "y ~ x + (1 | animal) + (1 | herd)"


@pytest.mark.parametrize(
    "form",
    ["pedigree", "frame", "shuffled rows", "sparse", "precision", "dense precision"],
)
@pytest.mark.parametrize("reml", [True, False])
def test_criterion_and_gradient_are_those_of_the_dense_likelihood(herd, form, reml):
    known = {"animal": forms(herd)[form]}
    matrices = mx.model_matrices(FORMULA, herd["data"], weights="w", known=known)
    system = mx.penalized_system(matrices)
    for theta in ([0.3, 0.5], [1.0, 2.0], [3.0, 0.1], [0.0, 0.4]):
        theta = np.array(theta)
        value, gradient = criterion_and_gradient(theta, system, reml=reml)
        assert value == pytest.approx(dense(herd, theta, reml=reml)[0], abs=1e-8)
        for i in range(2):
            step = 1e-5 * (np.arange(2) == i)
            up, down = (dense(herd, theta + s * step, reml=reml)[0] for s in (1, -1))
            assert gradient[i] == pytest.approx((up - down) / 2e-5, abs=1e-5)
        # the same by rows, where the penalty is formed from the root of Q
        lambdas = system.chart.lambdas_of_theta(theta)[0]
        working = solve_at(lambdas, system)
        R = factor_by_rows(lambdas, working.U, system)
        assert R[-1, -1] ** 2 == pytest.approx(working.pwrss, rel=1e-9)


@pytest.fixture(scope="module")
def fit(herd):
    known = {"animal": herd["pedigree"]}
    return mx.lmer(FORMULA, herd["data"], weights="w", known=known)


def test_estimates_and_predictions(herd, fit):
    d, beta, sigma, V, b, X = dense(herd, fit.theta)
    assert fit.criterion == pytest.approx(d, abs=1e-8)
    np.testing.assert_allclose(fit.fixef, beta, rtol=1e-8)
    assert fit.sigma == pytest.approx(sigma, rel=1e-8)
    found = fit.ranef()["animal"].iloc[:, 0]
    np.testing.assert_allclose(found[herd["ids"]], b, atol=1e-8)  # also animals without records
    assert len(found) == 240
    effects, variances = fit.ranef(cond_var=True)
    inverse = np.linalg.inv(V)
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    C = herd["A"][:, herd["rows"]] * fit.theta[0] ** 2
    given_beta = fit.theta[0] ** 2 * herd["A"] - C @ inverse @ C.T
    place = effects["animal"].index.get_indexer(herd["ids"])
    np.testing.assert_allclose(
        variances["animal"][place, 0, 0], sigma**2 * np.diag(given_beta), rtol=1e-7
    )
    new = pd.DataFrame({"x": [0.0], "animal": [herd["ids"][3]], "herd": [herd["data"]["herd"][0]]})
    with_error = fit.predict(new, se=True)
    own = np.zeros((1, 240))
    own[0, 3] = 1.0
    z = np.concatenate([own[0]])
    Z = (herd["data"]["herd"].to_numpy() == new["herd"][0]) * fit.theta[1] ** 2
    cov = z @ C + Z
    x = np.array([1.0, 0.0])
    prior = fit.theta[0] ** 2 * herd["A"][3, 3] + fit.theta[1] ** 2
    gap = x - cov @ inverse @ X
    variance = prior - cov @ inverse @ cov + gap @ np.linalg.solve(X.T @ inverse @ X, gap)
    assert with_error["se"].iloc[0] == pytest.approx(sigma * np.sqrt(variance), rel=1e-6)
    hat = fit.hatvalues()
    np.testing.assert_allclose(hat, 1.0 - np.diag(P) / herd["data"]["w"], atol=1e-8)


def test_independent_levels_are_the_usual_model(herd):
    ids = herd["ids"]
    used = sorted(set(herd["data"]["animal"]))
    known = {"animal": pd.DataFrame(np.eye(len(used)), used, used)}
    usual = mx.lmer(FORMULA, herd["data"], control=QUIET)
    same = mx.lmer(FORMULA, herd["data"], known=known, control=QUIET)
    assert same.criterion == pytest.approx(usual.criterion, abs=1e-8)
    np.testing.assert_allclose(same.bse, usual.bse, rtol=1e-4)
    np.testing.assert_allclose(same.tidy()["df"], usual.tidy()["df"], rtol=1e-3)
    more = {"animal": mx.Relationship(sp.csc_array(sp.eye_array(240)), ids)}
    with_others = mx.lmer(FORMULA, herd["data"], known=more, control=QUIET)
    assert with_others.criterion == pytest.approx(usual.criterion, abs=1e-8)


def test_two_known_matrices_at_once_and_slopes(herd):
    data = herd["data"].assign(dominance=herd["data"]["animal"])
    ids, rows = herd["ids"], herd["rows"]
    D = 0.2 * np.ones((240, 240)) + 0.8 * np.eye(240)
    known = {"animal": herd["pedigree"], "dominance": pd.DataFrame(D, ids, ids)}
    formula = "y ~ x + (x | animal) + (1 | dominance)"
    system = mx.penalized_system(mx.model_matrices(formula, data, known=known))
    theta = np.array([0.8, 0.3, 0.5, 0.6])
    if system.theta_names[0].startswith("dominance"):
        theta = np.array([0.6, 0.8, 0.3, 0.5])
    T = np.array([[0.8, 0.0], [0.3, 0.5]])
    z = np.column_stack([np.ones(200), data["x"]])
    V = np.eye(200) + herd["A"][np.ix_(rows, rows)] * (z @ T @ T.T @ z.T)
    V += 0.36 * D[np.ix_(rows, rows)]
    inverse = np.linalg.inv(V)
    XtVX = z.T @ inverse @ z
    r = data["y"] - z @ np.linalg.solve(XtVX, z.T @ inverse @ data["y"])
    d = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XtVX)[1]
    d += 198 * (1.0 + np.log(2.0 * np.pi * (r @ inverse @ r) / 198))
    assert criterion_and_gradient(theta, system)[0] == pytest.approx(d, abs=1e-8)
    fit = mx.lmer(formula, data, known=known, control=QUIET)
    assert fit.convergence.converged


def test_one_record_an_animal_is_enough(herd):
    data = herd["data"].drop_duplicates("animal")
    fit = mx.lmer("y ~ x + (1 | animal)", data, known={"animal": herd["pedigree"]}, control=QUIET)
    assert fit.convergence.converged
    assert np.isfinite(fit.variance_components()["std_error"]).all()


def test_simulated_responses_have_the_covariance(herd, fit):
    V = dense(herd, fit.theta)[3]
    draws = fit.simulate(4000, seed=3)
    expected = fit.sigma**2 * V
    spread = np.sqrt(np.outer(np.diag(expected), np.diag(expected)) + expected**2) / np.sqrt(4000)
    assert np.abs((np.cov(draws) - expected) / spread).max() < 6.0


def test_heritability(herd, fit):
    found = fit.heritability()
    variances = fit.variance_components()["estimate"] ** 2
    share = variances / variances.sum()
    assert found.index.tolist() == ["animal"]
    assert found["estimate"].iloc[0] == pytest.approx(share.iloc[0], rel=1e-9)
    assert fit.heritability("herd")["estimate"].iloc[0] == pytest.approx(share.iloc[1], rel=1e-9)

    # the criterion is chi2 above its least at the limits, by a search of its own
    def held(h):
        def at(log_other):
            other = np.exp(log_other)
            theta = np.array([np.sqrt(h / (1.0 - h) * (1.0 + other**2)), other])
            return dense(herd, theta)[0]

        return minimize_scalar(at, bounds=(-6.0, 3.0), method="bounded").fun

    for limit in found[["lower", "upper"]].iloc[0]:
        assert held(limit) - fit.criterion == pytest.approx(3.841459, abs=1e-3)
    wald = fit.heritability(method="wald", level=0.9)
    assert found["lower"].iloc[0] < wald["lower"].iloc[0] < found["estimate"].iloc[0]
    # the delta method by differences of log sd
    V = fit.curvature.covariance
    assert 0.0 < wald["std_error"].iloc[0] < 0.5
    assert V.shape == (3, 3)
    with pytest.raises(mx.OptionError, match="use one of 'animal', 'herd'"):
        fit.heritability("sire")


def test_everything_else_goes_on(herd, fit, tmp_path):
    text = str(fit.summary())
    assert "levels with a known covariance (240, 170 with rows)" in text
    assert "sparse" in str(fit.convergence)
    fit.save(tmp_path / "animal.mixlm")
    loaded = mx.load(tmp_path / "animal.mixlm")
    assert str(loaded.summary()) == text
    assert loaded.update(". ~ . - x").criterion == pytest.approx(
        fit.update(". ~ . - x").criterion, abs=1e-9
    )
    fit.save(tmp_path / "rowless.mixlm", include_data=False)
    np.testing.assert_allclose(
        mx.load(tmp_path / "rowless.mixlm").ranef()["animal"], fit.ranef()["animal"]
    )
    assert fit.refit_ml().criterion < fit.criterion
    assert len(fit.profile("theta_").confint()) == 3
    assert len(fit.ranova()) == 3
    assert fit.bootstrap(3, seed=1).confint().notna().all(axis=None)
    assert np.isfinite(fit.icc()["std_error"]).all()
    other = fit.refit(fit.simulate(1, seed=2)[:, 0])
    assert other.convergence.converged
    with pytest.raises(mx.OptionError, match="levels of 'animal' are related by known="):
        fit.robust("herd")


@pytest.mark.parametrize("structure", [{}, {"weights": "w"}, {"residual": "ar1"}])
def test_deletions_are_fits_of_the_rest_with_the_same_matrix(herd, structure):
    data = herd["data"].copy()
    data["w"] = np.random.default_rng(3).uniform(0.5, 2.0, len(data))
    data["t"] = data.groupby("animal").cumcount()
    if "residual" in structure:
        structure = {"residual": mx.AR1("t", "animal")}
    known = {"animal": herd["pedigree"]}

    def fitted(rows):
        return mx.lmer("y ~ x + (1 | animal)", rows, known=known, control=QUIET, **structure)

    fit = fitted(data)
    found = fit.influence("herd").estimates()
    for label in found.index[:2]:
        rest = fitted(data[data["herd"] != label])
        np.testing.assert_allclose(found.loc[label, list(rest.fixef.index)], rest.fixef, rtol=1e-5)
        assert found.loc[label, "sigma"] == pytest.approx(rest.sigma, rel=1e-4)


def changed(place, value):
    def change(A):
        A = A.copy()
        A.iloc[place] = value
        return A

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed((0, 1), 9.0), "is not symmetric"),
        (changed((0, 0), -1.0), "is not positive definite"),
        (changed((0, 0), np.nan), "missing or infinite"),
        (lambda A: 0.0 * A + 1.0, "is singular .* blend a little"),
        (lambda A: A.rename(index={"a0": "b"}, columns={"a0": "c"}), "have different labels"),
        (lambda A: A.rename(index={"a0": "a1"}, columns={"a0": "a1"}), "'a1' more than once"),
        (lambda A: A.drop(index="a50", columns="a50"), "lacks 1 of the .* levels .*: 'a50'"),
        (lambda A: A.iloc[:, :5], "a square matrix is needed"),
        (lambda A: A.astype(str).replace("1.0", "x"), "values that are not numbers"),
    ],
)
def test_bad_matrices(herd, change, message):
    data = herd["data"].assign(animal=herd["ids"][np.append(50, herd["rows"][1:])])
    A = change(pd.DataFrame(herd["A"], herd["ids"], herd["ids"]))
    with pytest.raises(mx.DataError, match=message):
        mx.lmer(FORMULA, data, known={"animal": A})


def test_bad_arguments(herd):
    data, A = herd["data"], herd["pedigree"]
    for known, message in (
        ({"anml": A}, "known names 'anml', which is no grouping factor .* 'animal', 'herd'"),
        ({"animal": 3}, "give a DataFrame with labels"),
        ({}, "give a dict from a grouping factor"),
        (A, "give a dict from a grouping factor"),
    ):
        with pytest.raises(mx.OptionError, match=message):
            mx.lmer(FORMULA, data, known=known)
    with pytest.raises(mx.EngineError, match="cannot hold known covariances"):
        mx.lmer(FORMULA, data, known={"animal": A}, engine="blocked")
    with pytest.raises(mx.DataError, match="make one column of their names"):
        mx.lmer("y ~ x + (1 | animal:herd)", data, known={"animal:herd": A})
    with pytest.raises(mx.DataError, match="has 240 rows and 2 labels"):
        mx.lmer(FORMULA, data, known={"animal": mx.Relationship(herd["A"], ["a", "b"])})
    with pytest.raises(mx.DataError, match="a square matrix is needed"):
        mx.lmer(FORMULA, data, known={"animal": mx.Precision(herd["A"][:5], ["a"] * 5)})


def test_a_large_precision_is_factored_without_its_inverse():
    n = 3500
    band = sp.diags_array([-0.45 * np.ones(n - 1), np.ones(n), -0.45 * np.ones(n - 1)],
                          offsets=[-1, 0, 1])  # fmt: skip
    from mixlm_sparse.design.known import as_known

    known = as_known("g", mx.Precision(band, np.arange(n)))
    dense_band = band.toarray()
    assert known.log_det == pytest.approx(np.linalg.slogdet(dense_band)[1], rel=1e-10)
    np.testing.assert_allclose((known.root.T @ known.root).toarray(), dense_band, atol=1e-12)
    np.testing.assert_allclose(known.variances[:5], np.diag(np.linalg.inv(dense_band))[:5])
    with pytest.raises(mx.DataError, match=r"not positive definite|singular"):
        as_known("g", mx.Precision(sp.csc_array(band - 0.2 * sp.eye_array(n)), np.arange(n)))
