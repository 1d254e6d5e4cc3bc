"""Where searches begin, against n x n matrices and the analysis of variance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from benchmarks.random_models import random_model
from mixlm_sparse.engines.fused.lockstep.start import squares_starts
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.refits import RefitBlock
from mixlm_sparse.model.warm import quiet
from mixlm_sparse.solve.derived.other_response import response_block, system_for
from mixlm_sparse.solve.information import Places, generators, gram
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.fused import copied_terms
from mixlm_sparse.solve.profiled.lockstep import lockstep_search
from mixlm_sparse.solve.profiled.start import quadratic_equations, quadratic_start
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system
from tests.support.corpus import load_data


def system_of(formula: str, data: pd.DataFrame, **options: object) -> PenalizedSystem:
    return penalized_system(mx.model_matrices(formula, data, **options))  # type: ignore[arg-type]


def drawn(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 150
    g, h, x = rng.integers(12, size=n), rng.integers(7, size=n), rng.normal(size=n)
    y = x + rng.normal(size=12)[g] + rng.normal(size=12)[g] * x + rng.normal(size=7)[h]
    y += rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h, "w": rng.uniform(0.5, 2.0, n)})


def indicator(codes: pd.Series, columns: np.ndarray) -> list[np.ndarray]:
    """Return Z (n, L) of every column of a term."""
    same = np.equal.outer(codes.to_numpy(), np.unique(codes)).astype(float)
    return [same * column[:, None] for column in columns.T]


def dense_forms(data: pd.DataFrame, *, slopes: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return tr(P G_i P G_k) and y'P G_i P y; G of intercepts (and slopes) of g, of h, and I."""
    root = np.sqrt(data["w"].to_numpy())
    n, ones = len(data), np.ones(len(data))
    X = np.column_stack([ones, data["x"]]) * root[:, None]
    P = np.eye(n) - X @ np.linalg.solve(X.T @ X, X.T)
    Z = [root[:, None] * part for part in indicator(data["g"], X / root[:, None])]
    (H,) = indicator(data["h"], ones[:, None])
    H = root[:, None] * H
    forms = [Z[0] @ Z[0].T]
    if slopes:
        forms += [Z[0] @ Z[1].T + Z[1] @ Z[0].T, Z[1] @ Z[1].T]
    forms += [H @ H.T, np.eye(n)]
    taken = [P @ form @ P for form in forms]
    y = root * data["y"].to_numpy()
    J = np.array([[np.sum(a * b) for b in taken] for a in taken])
    return J, np.array([y @ a @ y for a in taken])


@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_squares_are_as_expected(seed: int, slopes: bool) -> None:
    data = drawn(seed)
    formula = f"y ~ x + ({'x' if slopes else '1'} | g) + (1 | h)"
    system = system_of(formula, data, weights="w")
    J, q = dense_forms(data, slopes=slopes)
    s = np.linalg.solve(J, q)
    relative = s[:-1] / s[-1]
    phi = quadratic_start(system)
    assert phi is not None
    S = system.chart.covariances(phi)
    expected = relative[[0, 1, 1, 2]].reshape(2, 2) if slopes else relative[:1].reshape(1, 1)
    np.testing.assert_allclose(S[0], expected, rtol=1e-8)
    np.testing.assert_allclose(S[1], relative[-1:].reshape(1, 1), rtol=1e-8)


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("formula", ["y ~ x + (x | g) + (1 | h)", "y ~ 1 + (1 | g) + (1 | h)"])
def test_information_of_few_effects(formula: str, project: bool) -> None:
    system = system_of(formula, drawn(9), weights="w")
    places = Places.of(generators(system))
    few = gram(system, places, project=project)
    vars(system)["fused"] = None  # as for many effects
    np.testing.assert_allclose(few, gram(system, places, project=project), rtol=1e-10)


def test_analysis_of_variance() -> None:
    data = mx.datasets.load("Dyestuff")
    groups = data.groupby("Batch", observed=True)["Yield"]
    within, between, rows = groups.var().mean(), 5 * groups.mean().var(), 5
    phi = quadratic_start(system_of("Yield ~ 1 + (1 | Batch)", data))
    assert phi is not None
    system = system_of("Yield ~ 1 + (1 | Batch)", data)
    relative = (between - within) / rows / within
    assert system.chart.theta_of_phi(phi)[0] ** 2 == pytest.approx(relative, rel=1e-10)


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
        ("strength ~ 1 + (1 | batch/cask)", "Pastes"),
        ("Yield ~ 1 + (1 | Batch)", "Dyestuff"),
    ],
)
def test_balanced_designs_are_fitted_where_the_search_begins(formula: str, name: str) -> None:
    mx.use_compiled(False)
    try:
        found = optimize(system_of(formula, load_data(name)))
    finally:
        mx.use_compiled(None)
    assert found.status == "converged"
    assert found.n_gradients == 1
    assert found.criterion == found.history[0]  # what else is looked at, at the boundary, is higher
    assert np.abs(found.gradient).max() < 1e-6


def test_no_fixed_effects() -> None:
    data = mx.datasets.load("Dyestuff").assign(y=lambda d: d["Yield"] - 1500.0)
    groups = data.groupby("Batch", observed=True)["y"]
    system = system_of("y ~ 0 + (1 | Batch)", data)
    phi = quadratic_start(system)
    assert phi is not None
    # the means of squares are s + 5 S of sums of batches, and s + S of rows
    between, total = float((groups.sum() ** 2).mean() / 5), float((data["y"] ** 2).mean())
    S = (between - total) / 4
    relative = system.chart.theta_of_phi(phi)[0] ** 2
    assert relative == pytest.approx(S / (total - S), rel=1e-9)


def test_effects_without_a_variance_begin_small() -> None:
    data = mx.datasets.load("Dyestuff2")
    phi = quadratic_start(system_of("Yield ~ 1 + (1 | Batch)", data))
    assert phi is not None
    assert phi[0] > 0.0  # from zero no search moves


@pytest.mark.parametrize("seed", range(40))
def test_many_responses_begin_where_each_would(seed: int) -> None:
    model = random_model(seed)
    system = system_of(model.formula, model.data, weights=model.weights, offset=model.offset)
    terms, equations = copied_terms(system), quadratic_equations(system)
    if lockstep_search(system, reml=True) is None or equations is None:
        return
    assert terms is not None
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(system.n, 6))
    for factor in (f.label for f in system.products.blocks.factors if ":" not in f.label):
        codes = model.data[factor].astype("category").cat.codes.to_numpy()
        y += rng.normal(size=(codes.max() + 1, 6))[codes] * np.linspace(0.0, 3.0, 6)
    block = response_block(system, y)
    phi, good = squares_starts(equations, block.zy, block.yy, terms, system.n_theta)
    for i in range(6):
        alone = quadratic_start(system_for(system, block, i))
        assert good[i] == (alone is not None)
        if alone is not None:
            same, own = (system.chart.covariances(at) for at in (phi[:, i], alone))
            for S, expected in zip(same, own, strict=True):
                np.testing.assert_allclose(S, expected, rtol=1e-6, atol=1e-8 * expected.max())


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        ("~ Days + (Days | Subject)", "sleepstudy"),
        ("~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    ],
)
def test_balanced_designs_need_one_evaluation_a_response(formula: str, name: str) -> None:
    data = load_data(name)
    system = system_of(f"{data.columns[0]} {formula}", data)
    y = system.matrices.y[:, None] * np.array([1.0, -2.0, 1e3]) + np.array([0.0, 5.0, 1e4])
    block = RefitBlock(system, y, quiet(FitOptions()), compiled=False)
    for i in range(3):
        optimum = block.refit(i).optimum
        assert optimum is not None
        assert optimum.status == "converged"
        assert optimum.n_gradients == 1


def test_a_search_ends_where_nothing_is_won() -> None:
    # effects 30 to 90 times the noise: rounding of the gradient is above the tolerance, just
    model = random_model(1130)
    mx.use_compiled(False)
    try:
        found = optimize(system_of(model.formula, model.data), reml=model.reml)
    finally:
        mx.use_compiled(None)
    assert found.status == "converged"
    assert found.n_evaluations < 60
