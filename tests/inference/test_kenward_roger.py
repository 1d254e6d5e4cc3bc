"""Kenward-Roger against pbkrtest for every record that has it, and against n x n matrices."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import mixlm_sparse as mx
from mixlm_sparse.inference.fixed import components as module
from mixlm_sparse.inference.fixed.components import components
from mixlm_sparse.inference.fixed.kenward_roger import kenward_roger
from tests.inference.test_ddf import at_theta
from tests.support import corpus
from tests.support import dense_oracle as oracle
from tests.support.corpus import MODELS, load_model
from tests.support.dense_oracle import OracleTerm
from tests.support.strategies import Design, designs_with_theta, lme4_order

DF_RTOL = 1e-3
P_ATOL = 1e-4
VCOV_RTOL = 1e-5
WITH_KR = [
    name
    for name in MODELS
    if (found := load_model(name).get("kenward_roger")) and "error" not in found
]


def test_number_of_references():
    assert len(WITH_KR) == 33


@pytest.mark.parametrize("model_id", WITH_KR)
def test_as_pbkrtest(model_id):
    expected = load_model(model_id)["kenward_roger"]
    fit = corpus.fit(model_id)
    vcov = np.array(expected["vcov_adj"])
    size = np.sqrt(np.outer(np.diag(vcov), np.diag(vcov)))
    np.testing.assert_allclose(fit.vcov_adjusted() / size, vcov / size, atol=VCOV_RTOL)
    table = fit.tidy(ddf="kenward-roger")
    np.testing.assert_allclose(table["df"], list(expected["df"].values()), rtol=DF_RTOL)
    np.testing.assert_allclose(table["p_value"], list(expected["p"].values()), atol=P_ATOL)
    np.testing.assert_allclose(table["std_error"], list(expected["se_adj"].values()), rtol=1e-5)


# ------------------------------------------------------------------------------------------ dense


def dense(design, theta, sigma):
    """The definition, with n x n matrices and sigma^2 W^-1 as the last matrix G."""
    n, p = design.X.shape
    w = design.array(design.weights)
    inverse_weights = np.eye(n) if w is None else np.diag(1.0 / w)
    factors = oracle.lower_triangles(theta, design.terms)
    Sigma = sigma**2 * inverse_weights
    G = []
    for term, factor in zip(design.terms, factors, strict=True):
        Z = term.Z()
        Psi = sigma**2 * factor @ factor.T
        Sigma = Sigma + Z @ np.kron(np.eye(term.n_levels), Psi) @ Z.T
        for a in range(term.k):
            for b in range(a + 1):
                E = np.zeros((term.k, term.k))
                E[a, b] = E[b, a] = 1.0
                G.append(Z @ np.kron(np.eye(term.n_levels), E) @ Z.T)
    G.append(inverse_weights)
    inverse = np.linalg.inv(Sigma)
    X = design.X
    Phi = np.linalg.inv(X.T @ inverse @ X)
    SG = [inverse @ g for g in G]
    P = [-X.T @ s @ inverse @ X for s in SG]
    r = len(G)
    information = np.empty((r, r))
    Q = np.empty((r, r, p, p))
    for i in range(r):
        for j in range(r):
            Q[i, j] = X.T @ SG[i] @ SG[j] @ inverse @ X
            information[i, j] = 0.5 * (
                np.trace(SG[i] @ SG[j])
                - 2 * np.trace(Phi @ Q[i, j])
                + np.trace(Phi @ P[i] @ Phi @ P[j])
            )
    return Phi, P, Q, information


@settings(max_examples=25)
@given(drawn=designs_with_theta())
def test_random_designs(drawn):
    design, theta = drawn
    fit = at_theta(design, theta)
    found = kenward_roger(fit)
    Phi, P, Q, information = dense(design, theta, fit.sigma)
    size = np.sqrt(np.diag(information))
    if np.linalg.cond(information / np.outer(size, size)) > 1e7:
        return  # parameters that cannot be told apart: any generalized inverse may be meant
    W = np.linalg.inv(information)
    middle = sum(
        W[i, j] * (Q[i, j] - P[i] @ Phi @ P[j]) for i in range(len(P)) for j in range(len(P))
    )
    expected = Phi + 2 * Phi @ middle @ Phi
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(found.vcov / scale, expected / scale, atol=1e-5)
    # degrees of freedom of one coefficient: A1 = A2 = A
    last = np.eye(len(Phi))[-1]
    terms = np.array([last @ Phi @ G @ Phi @ last / (last @ Phi @ last) for G in P])
    A = float(terms @ W @ terms)
    if A > 1e-10:
        assert found.df(last[None])[0] == pytest.approx(2.0 / A, rel=1e-3)


def roomy(seed: int) -> tuple[Design, np.ndarray]:
    """A design with groups enough for the moments of joint tests, and a theta."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(80, 110))
    x = {"x1": rng.normal(size=n), "x2": rng.uniform(-1, 1, n)}
    one = np.ones(n)
    first = np.arange(n) % int(rng.integers(9, 14))
    second = rng.permutation(n) % int(rng.integers(10, 16))
    if seed % 3 == 1:  # nested
        second = first * 2 + rng.integers(0, 2, n)
    columns = {"1": one[:, None], "x1": np.column_stack([one, x["x1"]]), "0 + x2": x["x2"][:, None]}
    written = [
        [("x1", first)],
        [("1", first), ("1", second)],
        [("x1", first), ("1", second)],
        [("1", first), ("0 + x2", first)],
    ][seed % 4]
    data = pd.DataFrame(x)
    y = rng.normal(size=n)
    parts, terms, theta = ["x1 + x2"], [], []
    for text, code in written:
        code = np.unique(code, return_inverse=True)[1].astype(np.int64)
        count, Z = int(code.max()) + 1, columns[text]
        name = "a" if code.size and np.array_equal(code, first) else "b"
        data[name] = [f"L{j:03d}" for j in code]
        parts.append(f"({text} | {name})")
        terms.append(OracleTerm(Z, code, count))
        y = y + np.einsum("ij,ij->i", Z, rng.normal(size=(count, Z.shape[1]))[code])
        drawn = [rng.uniform(0.4, 1.5), rng.uniform(-0.5, 0.5), rng.uniform(0.4, 1.5)]
        theta.append(drawn[: 1 if Z.shape[1] == 1 else 3])
    data["y"], data["w"] = y, rng.uniform(0.5, 2.0, n)
    order = lme4_order([term.n_levels for term in terms])
    X = np.column_stack([one, x["x1"], x["x2"]])
    weights = "w" if seed % 2 else None
    kind = "nested" if seed % 3 == 1 else "crossed"
    ordered = tuple(terms[i] for i in order)
    design = Design("y ~ " + " + ".join(parts), data, X, ordered, weights, None, kind)
    return design, np.concatenate([theta[i] for i in order])


@pytest.mark.parametrize("seed", range(24))
def test_joint_tests(seed):
    """Two moments of F as Kenward and Roger write them, by n x n matrices."""
    design, theta = roomy(seed)
    fit = at_theta(design, theta)
    p = fit.system.p
    Phi, P, Q, information = dense(design, theta, fit.sigma)
    W = np.linalg.inv(information)
    r = range(len(P))
    middle = sum(W[i, j] * (Q[i, j] - P[i] @ Phi @ P[j]) for i in r for j in r)
    adjusted = Phi + 2 * Phi @ middle @ Phi
    q = 2 + seed % 2
    L = np.eye(p)[-q:]
    Theta = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    T = [Theta @ Phi @ G @ Phi for G in P]
    A1 = sum(W[i, j] * np.trace(T[i]) * np.trace(T[j]) for i in r for j in r)
    A2 = sum(W[i, j] * np.trace(T[i] @ T[j]) for i in r for j in r)
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    c = np.array([g, q - g, q + 2 - g]) / (3 * q + 2 * (1 - g))
    mean = 1 / (1 - A2 / q)
    variance = 2 / q * (1 + c[0] * B) / ((1 - c[1] * B) ** 2 * (1 - c[2] * B))
    rho = variance / (2 * mean**2)
    df = 4 + (q + 2) / (q * rho - 1)
    assert min(1 - A2 / q, 1 - c[1] * B, 1 - c[2] * B, 1 + c[0] * B) > 0.0  # moments exist
    assert 2.5 < df < 1e3
    factor = df / (mean * (df - 2))
    beta = fit.solution.beta
    F = factor / q * beta @ L.T @ np.linalg.solve(L @ adjusted @ L.T, L @ beta)
    mixed = np.eye(q) + 1e2 * np.tril(np.ones((q, q)))  # the same hypothesis by other rows
    found = kenward_roger(fit).joint(mixed @ L, np.zeros(q))
    assert found.num_df == q
    assert found.F == pytest.approx(F, rel=1e-6)
    assert found.den_df == pytest.approx(df, rel=1e-6)


def test_components_of_nested_and_crossed_factors():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"y": rng.normal(size=120), "a": np.arange(120) % 10})
    frame["b"] = frame["a"] * 3 + rng.integers(0, 3, 120)
    frame["c"] = rng.integers(0, 4, 120)
    control = mx.Control(warn=False)
    nested = mx.lmer("y ~ 1 + (1 | b) + (1 | a)", frame, control=control)
    found = components(nested.system.products.blocks)
    assert len(found) == 10
    assert sum(levels[0].size for levels in found) == frame["b"].nunique()
    crossed = mx.lmer("y ~ 1 + (1 | a) + (1 | c)", frame, control=control)
    assert len(components(crossed.system.products.blocks)) == 1
    single = mx.lmer("y ~ 1 + (1 | a)", frame, control=control)
    assert len(components(single.system.products.blocks)) == 10


def test_crossed_factors_too_large_for_memory(monkeypatch):
    monkeypatch.setattr(module, "MAX_COMPONENT_BYTES", 1000)
    frame = corpus.load_data("Penicillin")
    fit = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", frame)
    with pytest.raises(mx.EngineError, match=r"three dense matrices of order 30 .*satterthwaite"):
        fit.tidy(ddf="kenward-roger")


def test_ml_fit_is_fitted_again_by_reml():
    frame = corpus.load_data("sleepstudy")
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", frame, reml=False)
    with pytest.warns(mx.RefitWarning, match="fitted again by REML"):
        table = fit.tidy(ddf="kenward-roger")
    expected = corpus.fit("sleep_rs_reml").tidy(ddf="kenward-roger")
    np.testing.assert_allclose(table["std_error"], expected["std_error"], rtol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.tidy(ddf="kenward-roger")  # computed once


def test_weights_count():
    """A row of weight k is the mean of k rows: the fixed effects' tests come out the same."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(12), 4)
    x = rng.normal(size=48)
    y = x + rng.normal(size=12)[groups] + rng.normal(size=48)
    frame = pd.DataFrame({"y": y, "x": x, "g": groups, "w": 1.0})
    scaled = frame.assign(w=7.0)
    one = mx.lmer("y ~ x + (1 | g)", frame, weights="w").tidy(ddf="kenward-roger")
    other = mx.lmer("y ~ x + (1 | g)", scaled, weights="w").tidy(ddf="kenward-roger")
    np.testing.assert_allclose(other["df"], one["df"], rtol=1e-5)
    np.testing.assert_allclose(other["std_error"], one["std_error"], rtol=1e-6)


def test_joint_test_does_not_depend_on_the_rows():
    fit = corpus.fit("beets_reml")
    names = [name for name in fit.fixef.index if name.startswith("sow")]
    p = len(fit.fixef)
    L = np.zeros((len(names), p))
    for row, name in enumerate(names):
        L[row, list(fit.fixef.index).index(name)] = 1.0
    rng = np.random.default_rng(1)
    a = fit.contest(L, ddf="kenward-roger").iloc[0]
    b = fit.contest(rng.normal(size=(len(names), len(names))) @ L, ddf="kenward-roger").iloc[0]
    for column in ("NumDF", "DenDF", "F value"):
        assert a[column] == pytest.approx(b[column], rel=1e-8)


@pytest.mark.large
def test_fifty_thousand_rows():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 1000, 50_000)
    x = rng.normal(size=50_000)
    y = x + rng.normal(size=(1000, 2))[groups, 0] + rng.normal(size=1000)[groups] * x
    frame = pd.DataFrame({"y": y + rng.normal(size=50_000), "x": x, "g": groups})
    fit = mx.lmer("y ~ x + (x | g)", frame)
    table = fit.tidy(ddf="kenward-roger").set_index("term")
    # 1,000 groups of equal weight: about 999 degrees of freedom for both coefficients
    assert table["df"].between(900, 1010).all()
