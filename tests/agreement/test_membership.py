"""Rows in several levels of a factor (`mx.membership`, custom Z), against dense algebra."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from tests.support import dense_oracle as oracle
from tests.support.dense_structures import dense_kenward_roger

QUIET = mx.Control(warn=False)


@dataclass(frozen=True)
class Several:
    """A term of which row i has the columns weights[i, j] columns[i] for every level j."""

    columns: np.ndarray
    weights: np.ndarray

    @property
    def k(self) -> int:
        return self.columns.shape[1]

    @property
    def n_levels(self) -> int:
        return self.weights.shape[1]

    @property
    def n_theta(self) -> int:
        return self.k * (self.k + 1) // 2

    def Z(self) -> np.ndarray:
        n = len(self.columns)
        return (self.weights[:, :, None] * self.columns[:, None, :]).reshape(n, -1)


def shares(rng, n, levels, most=3):
    """Rows with one to `most` levels, weights that need not add up to one."""
    W = np.zeros((n, levels))
    for i in range(n):
        own = rng.choice(levels, int(rng.integers(1, most + 1)), replace=False)
        W[i, own] = rng.uniform(0.2, 1.0, own.size)
    for j in range(min(n, levels)):  # every level has a row
        W[j, j] += 0.5
    return W


def pupils(seed=3, n=160, schools=9, areas=6):
    rng = np.random.default_rng(seed)
    W = shares(rng, n, schools)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "area": rng.choice([f"a{j}" for j in range(areas)], n),
            "w": rng.uniform(0.5, 2.0, n),
        }
    )
    effects = rng.normal(size=(schools, 2)) @ np.array([[1.2, 0.3], [0.0, 0.5]])
    frame["y"] = (
        2.0 + 0.5 * frame["x"] + W @ effects[:, 0] + frame["x"] * (W @ effects[:, 1])
        + 0.4 * frame["area"].str[1:].astype(int) + rng.normal(size=n)
    )  # fmt: skip
    weights = pd.DataFrame(W, columns=[f"s{j}" for j in range(schools)])
    return frame, weights


def dense_terms(frame, W, formula):
    """The terms of a formula in the order of the fit."""
    n = len(frame)
    one = np.ones((n, 1))
    slope = np.column_stack([np.ones(n), frame["x"]])
    school = Several(slope if "(x | school)" in formula else one, W.to_numpy())
    if "area" not in formula:
        return [school]
    codes = pd.Categorical(frame["area"])
    return [school, oracle.OracleTerm(one, np.asarray(codes.codes), len(codes.categories))]


FORMULAS = ["y ~ x + (1 | school)", "y ~ x + (x | school)", "y ~ x + (x | school) + (1 | area)"]


@settings(max_examples=40, deadline=None)
@given(
    formula=st.sampled_from(FORMULAS),
    seed=st.integers(0, 10**6),
    reml=st.booleans(),
    weighted=st.booleans(),
)
def test_criterion_and_gradient_are_those_of_dense_matrices(formula, seed, reml, weighted):
    rng = np.random.default_rng(seed)
    frame, W = pupils(seed, n=int(rng.integers(25, 70)), schools=6, areas=3)
    d = mx.deviance_function(
        formula, frame, reml=reml, weights="w" if weighted else None, membership={"school": W}
    )
    terms = dense_terms(frame, W, formula)
    theta = rng.normal(size=d.theta0.size)
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    arguments = theta, frame["y"].to_numpy(), X, terms
    options = {"weights": frame["w"].to_numpy() if weighted else None, "reml": reml}
    assert d(theta) == pytest.approx(oracle.criterion(*arguments, **options), rel=1e-10)
    np.testing.assert_allclose(
        d.gradient(theta), oracle.gradient(*arguments, **options), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_fit_is_that_of_dense_matrices(formula):
    frame, W = pupils()
    fit = mx.lmer(formula, frame, weights="w", membership={"school": mx.membership(W)})
    terms = dense_terms(frame, W, formula)
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    factors = oracle.lower_triangles(fit.theta, terms)
    dense = oracle.solve(
        frame["y"].to_numpy(), X, terms, factors, weights=frame["w"].to_numpy(), reml=True
    )
    assert fit.criterion == pytest.approx(dense.criterion, rel=1e-11)
    np.testing.assert_allclose(fit.fixef, dense.beta, rtol=1e-9)
    np.testing.assert_allclose(fit.cov_params(), dense.vcov, rtol=1e-8)
    effects, variances = fit.ranef(cond_var=True)
    assert list(effects["school"].index) == list(W.columns)
    np.testing.assert_allclose(effects["school"], dense.b[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        variances["school"], dense.sigma_sq * dense.cond_var_unscaled[0], rtol=1e-7
    )
    np.testing.assert_allclose(fit.fittedvalues, dense.fitted, rtol=1e-9)
    np.testing.assert_allclose(fit.hatvalues(), dense.leverage, rtol=1e-7, atol=1e-10)
    Z = np.hstack([term.Z() for term in terms])
    np.testing.assert_allclose(fit.getME("Z").toarray(), Z, atol=1e-14)


def joint_variance(terms, factors, X, weights, x, rows):
    """Var(x'beta^ + z'b^ - x'beta - z'b) / sigma^2 from the n x n covariance of the data."""
    Z = np.hstack([term.Z() for term in terms])
    G = np.zeros((Z.shape[1],) * 2)
    at = 0
    for term, T in zip(terms, factors, strict=True):
        block = np.kron(np.eye(term.n_levels), T @ T.T)
        G[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    V = Z @ G @ Z.T + np.diag(1.0 / weights)
    Vi = np.linalg.inv(V)
    phi = np.linalg.inv(X.T @ Vi @ X)
    K = rows @ G @ Z.T @ Vi
    left = x - K @ X
    return np.diag(rows @ G @ rows.T - K @ Z @ G @ rows.T + left @ phi @ left.T)


def test_predictions_of_new_rows_have_the_variance_of_dense_matrices():
    frame, W = pupils()
    formula = FORMULAS[2]
    fit = mx.lmer(formula, frame, membership={"school": W})
    rng = np.random.default_rng(8)
    new = pd.DataFrame({"x": rng.normal(size=7), "area": ["a0", "a1", "a2", "a3"] * 1 + ["a0"] * 3})
    V = shares(rng, 7, 9, most=5)  # levels that never met among them
    membership = {"school": mx.membership(V, labels=W.columns)}
    found = fit.predict(new, membership=membership, interval="prediction")
    terms = dense_terms(frame, W, formula)
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    x = np.column_stack([np.ones(7), new["x"]])
    own = np.hstack(
        [
            Several(x, V).Z(),
            oracle.OracleTerm(
                np.ones((7, 1)), pd.Categorical(new["area"], sorted(set(frame["area"]))).codes, 6
            ).Z(),
        ]
    )
    factors = oracle.lower_triangles(fit.theta, terms)
    variance = fit.scale * joint_variance(terms, factors, X, np.ones(len(frame)), x, own)
    np.testing.assert_allclose(found["se"] ** 2, variance, rtol=1e-7)
    np.testing.assert_allclose(
        (found["upper"] - found["fit"]) / 1.959963984540054,
        np.sqrt(variance + fit.scale),
        rtol=1e-7,
    )
    b = np.concatenate([fit.ranef()[g].to_numpy().ravel() for g in ("school", "area")])
    np.testing.assert_allclose(found["fit"], x @ fit.fixef + own @ b, rtol=1e-9)
    # as a dictionary with the membership as its column
    also = fit.predict({**new.to_dict("list"), **membership})
    np.testing.assert_array_equal(also, found["fit"])


def test_new_rows_in_one_level_each_and_in_levels_that_are_not_known():
    frame, W = pupils()
    fit = mx.lmer(FORMULAS[0], frame, membership={"school": W})
    b = fit.ranef()["school"].iloc[:, 0]
    new = pd.DataFrame({"x": [0.0, 1.0], "school": ["s3", "s0"]})
    fixed = fit.fixef.iloc[0] + fit.fixef.iloc[1] * new["x"]
    np.testing.assert_allclose(fit.predict(new), fixed + b[new["school"]].to_numpy())
    other = pd.DataFrame({"s1": [0.5, 0.0], "new": [0.5, 1.0], "newer": [0.0, 1.0]})
    membership = {"school": mx.membership(other)}
    with pytest.raises(mx.DataError, match="levels 'new', 'newer' of 'school'"):
        fit.predict(new[["x"]], membership=membership)
    found = fit.predict(new[["x"]], membership=membership, allow_new_levels=True, se=True)
    np.testing.assert_allclose(
        found["fit"], fit.fixef.iloc[0] + fit.fixef.iloc[1] * new["x"] + [0.5 * b["s1"], 0.0]
    )
    tau_sq = float((fit.sigma * fit.theta[0]) ** 2)
    X = np.column_stack([np.ones(2), new["x"]])
    assert found["se"].iloc[1] ** 2 == pytest.approx(
        2.0 * tau_sq + X[1] @ fit.cov_params().to_numpy() @ X[1], rel=1e-8
    )
    missing = fit.predict(new[["x"]], membership=membership, allow_new_levels="nan")
    assert missing.isna().all()
    left_out = fit.predict(new[["x"]], membership=membership, re_form="population",
                           interval="prediction")  # fmt: skip
    half = (left_out["upper"] - left_out["fit"]) / 1.959963984540054
    expected = left_out["se"] ** 2 + fit.scale + tau_sq * np.array([0.5, 2.0])
    np.testing.assert_allclose(half**2, expected, rtol=1e-9)


# -- equivalences ---------------------------------------------------------------------------------


def test_a_membership_in_one_level_is_an_ordinary_factor():
    data = mx.datasets.load("sleepstudy")
    one = pd.get_dummies(data["Subject"], dtype=float)
    formula = "Reaction ~ Days + (Days | Subject)"
    plain = mx.lmer(formula, data)
    fit = mx.lmer(formula, data, membership={"Subject": mx.membership(one)})
    assert fit.criterion == pytest.approx(plain.criterion, abs=1e-8)
    np.testing.assert_allclose(fit.theta, plain.theta, rtol=1e-5)
    np.testing.assert_allclose(fit.ranef()["Subject"], plain.ranef()["Subject"], rtol=1e-4)
    np.testing.assert_allclose(fit.hatvalues(), plain.hatvalues(), rtol=1e-5)
    np.testing.assert_allclose(
        fit.contest([0, 1], ddf="kenward-roger"), plain.contest([0, 1], ddf="kenward-roger"),
        rtol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(
        fit.contest([0, 1], ddf="satterthwaite"), plain.contest([0, 1], ddf="satterthwaite"),
        rtol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(fit.icc(), plain.icc(), rtol=1e-4)
    np.testing.assert_allclose(fit.r2(), plain.r2(), rtol=1e-4)
    np.testing.assert_allclose(fit.simulate(2, seed=1), plain.simulate(2, seed=1), rtol=1e-4)
    np.testing.assert_allclose(
        fit.variance_components()["std_error"], plain.variance_components()["std_error"], rtol=1e-4
    )
    new = {"Days": [0.0, 12.0], "Subject": ["308", "372"]}
    np.testing.assert_allclose(
        fit.predict(new, interval="prediction"), plain.predict(new, interval="prediction"),
        rtol=1e-5,
    )  # fmt: skip
    assert str(fit.varcorr) == str(plain.varcorr)


def test_halves_of_two_levels_that_always_go_together_are_one_level():
    """Two levels of weight 1/2 in the same rows have the mean of two effects: half the variance."""
    data = mx.datasets.load("Dyestuff")
    one = pd.get_dummies(data["Batch"], dtype=float).to_numpy()
    plain = mx.lmer("Yield ~ 1 + (1 | Batch)", data)
    fit = mx.lmer(
        "Yield ~ 1 + (1 | batch)", data,
        membership={"batch": mx.membership(0.5 * np.repeat(one, 2, axis=1))},
    )  # fmt: skip
    assert fit.criterion == pytest.approx(plain.criterion, abs=1e-8)
    assert fit.theta[0] == pytest.approx(plain.theta[0] * np.sqrt(2.0), rel=1e-6)


@given(factor=st.sampled_from([1e-3, 0.5, 3.0, 1e4]))
@settings(max_examples=4, deadline=None)
def test_a_common_factor_of_the_weights_divides_the_standard_deviation(factor):
    frame, W = pupils()
    plain = mx.lmer(FORMULAS[2], frame, membership={"school": W})
    fit = mx.lmer(FORMULAS[2], frame, membership={"school": factor * W})
    assert fit.criterion == pytest.approx(plain.criterion, abs=1e-7)
    np.testing.assert_allclose(fit.theta[:3] * factor, plain.theta[:3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.fittedvalues, plain.fittedvalues, rtol=1e-6)
    np.testing.assert_allclose(fit.icc()["estimate"], plain.icc()["estimate"], rtol=1e-5)
    np.testing.assert_allclose(fit.tidy()["df"], plain.tidy()["df"], rtol=1e-4)


def test_the_order_of_rows_and_levels_does_not_matter():
    frame, W = pupils()
    rng = np.random.default_rng(0)
    rows, levels = rng.permutation(len(frame)), rng.permutation(W.shape[1])
    plain = mx.lmer(FORMULAS[2], frame, membership={"school": W})
    fit = mx.lmer(FORMULAS[2], frame.iloc[rows], membership={"school": W.iloc[rows, levels]})
    assert fit.criterion == pytest.approx(plain.criterion, abs=1e-8)
    np.testing.assert_allclose(
        fit.ranef()["school"].loc[W.columns], plain.ranef()["school"], rtol=1e-4, atol=1e-6
    )


def test_all_ways_of_giving_a_membership_are_one():
    frame, W = pupils()
    by_level = pd.DataFrame(
        [[W.columns[j] for j in np.flatnonzero(row)] + [None] * (4 - np.count_nonzero(row))
         for row in W.to_numpy()]
    )  # fmt: skip
    amounts = pd.DataFrame(
        [[row[j] for j in np.flatnonzero(row)] + [0.0] * (4 - np.count_nonzero(row))
         for row in W.to_numpy()]
    )  # fmt: skip
    ways = [
        W,
        mx.membership(sp.csc_array(W.to_numpy()), labels=W.columns),
        mx.membership(W.astype(pd.SparseDtype(float, 0.0))),
        mx.membership(levels=by_level, weights=amounts),
    ]
    fits = [mx.lmer(FORMULAS[1], frame, membership={"school": way}) for way in ways]
    fits.append(mx.lmer(FORMULAS[1], {**frame.to_dict("list"), "school": mx.membership(W)}))
    for fit in fits[1:]:
        assert fit.criterion == pytest.approx(fits[0].criterion, abs=1e-9)
        assert list(fit.ranef()["school"].index) == list(W.columns)
    X = pd.DataFrame({"(Intercept)": 1.0, "x": frame["x"]})
    by_matrix = mx.fit_matrices(frame["y"], X, [(mx.membership(W), X, "school")])
    assert by_matrix.criterion == pytest.approx(fits[0].criterion, abs=1e-8)
    new = {"X": X[:3], "school": mx.membership(W.iloc[:3])}
    np.testing.assert_allclose(by_matrix.predict(new), fits[0].fittedvalues[:3], rtol=1e-6)


def test_normalize_divides_by_the_sum_of_the_row():
    _, W = pupils()
    found = mx.membership(W, normalize=True)
    dense = W.to_numpy() / W.to_numpy().sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.members.matrix().toarray(), dense, rtol=1e-14)


def test_a_matrix_of_any_numbers_is_a_terms_own_Z():
    """A penalized spline: one smooth, its coefficients the random effects."""
    rng = np.random.default_rng(2)
    n = 120
    t = np.sort(rng.uniform(0.0, 1.0, n))
    knots = np.linspace(0.05, 0.95, 12)
    Z = np.maximum(t[:, None] - knots, 0.0)
    Z -= Z.mean(axis=0)
    y = np.sin(6.0 * t) + 0.2 * rng.normal(size=n)
    X = np.column_stack([np.ones(n), t])
    fit = mx.fit_matrices(y, X, [(sp.csr_array(Z), None, "knot")], reml=True)
    term = Several(np.ones((n, 1)), Z)
    dense = oracle.solve(y, X, [term], oracle.lower_triangles(fit.theta, [term]), reml=True)
    assert fit.criterion == pytest.approx(dense.criterion, rel=1e-10)
    np.testing.assert_allclose(fit.fittedvalues, dense.fitted, rtol=1e-6)
    grid = np.linspace(fit.theta[0] * 0.5, fit.theta[0] * 2.0, 21)
    values = [oracle.criterion(np.array([v]), y, X, [term], reml=True) for v in grid]
    assert min(values) >= fit.criterion - 1e-9
    new = fit.predict({"X": X[:5], "knot": sp.csr_array(Z[:5])})
    np.testing.assert_allclose(new, dense.fitted[:5], rtol=1e-6)


# -- what a fit is asked for ----------------------------------------------------------------------


def test_kenward_roger_is_that_of_dense_matrices():
    frame, W = pupils(seed=4, n=90, schools=8)
    formula = FORMULAS[2]
    fit = mx.lmer(formula, frame, membership={"school": W})
    terms = dense_terms(frame, W, formula)
    V, first = fit.scale * np.eye(len(frame)), [np.eye(len(frame))]
    for term, T in zip(terms, oracle.lower_triangles(fit.theta, terms), strict=True):
        Z = term.Z()
        V = V + fit.scale * Z @ np.kron(np.eye(term.n_levels), T @ T.T) @ Z.T
        for i in range(term.k):
            for j in range(i + 1):
                E = np.zeros((term.k, term.k))
                E[i, j] = E[j, i] = 1.0
                first.append(Z @ np.kron(np.eye(term.n_levels), E) @ Z.T)
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    adjusted, _ = dense_kenward_roger(X, V, first, {})
    np.testing.assert_allclose(fit.vcov_adjusted(), adjusted, rtol=1e-6)


def test_everything_else_answers(tmp_path):
    frame, W = pupils()
    fit = mx.lmer(FORMULAS[2], frame, membership={"school": W}, control=QUIET)
    assert "share rows" in fit.system.describe()
    assert "school" in str(fit.summary())
    counts = (W > 0).sum()
    assert fit.group_sizes().loc["school", "max"] == counts.max()
    for other in (pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit)):
        np.testing.assert_array_equal(other.fittedvalues, fit.fittedvalues)
    path = tmp_path / "fit.mixlm"
    for include in (True, False):
        fit.save(path, include_data=include)
        loaded = mx.load(path)
        assert loaded.criterion == pytest.approx(fit.criterion, rel=1e-12)
        np.testing.assert_allclose(loaded.ranef()["school"], fit.ranef()["school"], rtol=1e-9)
        if include:
            np.testing.assert_allclose(loaded.fittedvalues, fit.fittedvalues, rtol=1e-9)
            np.testing.assert_allclose(loaded.hatvalues(), fit.hatvalues(), rtol=1e-7)
            again = loaded.update(". ~ . - (1 | area)")
            assert again.criterion > fit.criterion - 1e-9
    again = fit.refit(fit.simulate(1, seed=4)[:, 0])
    assert again.convergence.status in ("converged", "singular")
    boot = fit.bootstrap(3, seed=1)
    assert np.isfinite(boot.samples).all().all()
    assert fit.bootstrap(3, seed=1, method="semiparametric").samples.shape[0] == 3
    assert fit.confint(method="profile", parm="sigma").notna().all().all()
    assert fit.ranova().iloc[1:, -1].notna().all()
    assert fit.augment().shape[0] == len(frame)
    assert np.isfinite(fit.drop1().to_numpy(dtype=float)[-1]).any()
    less = mx.lmer(FORMULAS[2], frame, membership={"school": W}, subset="x > -1", control=QUIET)
    keep = (frame["x"] > -1).to_numpy()
    direct = mx.lmer(FORMULAS[2], frame[keep], membership={"school": W[keep]}, control=QUIET)
    assert less.criterion == pytest.approx(direct.criterion, abs=1e-8)
    newer = fit.update(data=frame[keep], membership={"school": W[keep]}, control=QUIET)
    assert newer.criterion == pytest.approx(direct.criterion, abs=1e-7)


def test_rows_that_are_left_out_and_many_responses():
    frame, W = pupils(n=80)
    fit = mx.lmer(FORMULAS[0], frame, membership={"school": W}, control=QUIET)
    found = fit.influence().estimates()
    for row in (0, 17):
        keep = np.delete(np.arange(len(frame)), row)
        without = mx.lmer(FORMULAS[0], frame.iloc[keep], membership={"school": W.iloc[keep]},
                          control=QUIET)  # fmt: skip
        own = found.loc[row, list(without.fixef.index)]
        np.testing.assert_allclose(own, without.fixef, rtol=1e-6)
        assert found.loc[row, "sigma"] == pytest.approx(without.sigma, rel=1e-6)
    Y = np.column_stack([frame["y"], frame["y"] ** 2])
    many = mx.lmer_many("~ x + (1 | school)", frame, Y, membership={"school": W})
    assert many.criterion[0] == pytest.approx(fit.criterion, abs=1e-7)


def test_matrices_of_a_membership_are_saved_with_their_rows(tmp_path):
    frame, W = pupils()
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    fit = mx.fit_matrices(frame["y"], X, [(mx.membership(W), None, "school")])
    fit.save(tmp_path / "fit.mixlm")
    loaded = mx.load(tmp_path / "fit.mixlm")
    np.testing.assert_allclose(loaded.hatvalues(), fit.hatvalues(), rtol=1e-8)


# -- what is refused ------------------------------------------------------------------------------


def spoiled(**changes):
    _, W = pupils(n=12, schools=3)
    W = W.astype(object) if "text" in changes else W.copy()
    for place, value in changes.items():
        W.iloc[2, 0] = value if place != "text" else "much"
    return W


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.membership(), "one of two"),
        (lambda: mx.membership(3), r"give an \(n, levels\) DataFrame"),
        (lambda: mx.membership(spoiled(nan=np.nan)), "row 2 .* missing or infinite"),
        (lambda: mx.membership(spoiled(minus=-0.5)), "row 2 .* negative weight -0.5"),
        (lambda: mx.membership(spoiled(text=1)), "not numbers"),
        (lambda: mx.membership(np.eye(3), labels=["a", "b"]), "3 columns and 2 labels"),
        (lambda: mx.membership(np.eye(3), labels=["a", "b", "a"]), "'a' more than once"),
        (lambda: mx.membership(levels=[["a", None]], weights=[[1.0, 0.5]]), "without a level"),
        (lambda: mx.membership(levels=[["a", "b"]], weights=[[1.0]]), "a weight for each"),
        (lambda: mx.membership(np.eye(3), weights=np.eye(3)), "weights go with levels"),
        (lambda: mx.membership(np.eye(3), normalize="yes"), "normalize"),
    ],
)
def test_bad_memberships(make, message):
    with pytest.raises(mx.MixedModelError, match=message):
        make()


def test_memberships_that_do_not_go_with_the_data():
    frame, W = pupils()
    with pytest.raises(mx.DataError, match="has 159 rows, and the data have 160"):
        mx.lmer(FORMULAS[0], frame, membership={"school": W.iloc[1:]})
    empty = W.copy()
    empty.iloc[[4, 7]] = 0.0
    with pytest.raises(mx.DataError, match=r"row 4 \(and 1 more\) .* belongs to no level"):
        mx.lmer(FORMULAS[0], frame, membership={"school": empty})
    fewer = mx.lmer(FORMULAS[0], frame, membership={"school": empty},
                    subset=empty.to_numpy().sum(axis=1) > 0)  # fmt: skip
    assert fewer.nobs == 158
    with pytest.raises(mx.DataError, match="index differs"):
        mx.lmer(FORMULAS[0], frame, membership={"school": W.iloc[::-1]})
    with pytest.raises(mx.DataError, match="stands on the right of a bar"):
        mx.lmer("y ~ school + (1 | area)", frame, membership={"school": W})
    with pytest.raises(mx.OptionError, match="give a dict"):
        mx.lmer(FORMULAS[0], frame, membership=W)
    with pytest.raises(mx.EngineError, match="cannot hold a grouping factor whose levels share"):
        mx.lmer(FORMULAS[0], frame, membership={"school": W}, engine="blocked")
    with pytest.raises(mx.DataError, match="1 level"):
        mx.lmer(FORMULAS[0], frame, membership={"school": W.iloc[:, :1] + 1.0})


def test_what_looks_at_the_rows_of_each_level_says_so():
    frame, W = pupils()
    fit = mx.lmer(FORMULAS[0], frame, membership={"school": W})
    for ask in (
        lambda: fit.influence(group="school"),
        lambda: fit.robust(cluster="school"),
        lambda: fit.bootstrap(3, method="groups", by="school"),
    ):
        with pytest.raises(mx.OptionError, match="several levels"):
            ask()
