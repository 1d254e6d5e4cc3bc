"""The searches: same optimum by every road, few evaluations, boundaries certified."""

from __future__ import annotations

import sys
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.engines.decisions import use_compiled
from mixlm_sparse.solve.average import average_hessian
from mixlm_sparse.solve.criterion import (
    criterion_and_gradient,
    evaluation_at,
    profiled_criterion,
)
from mixlm_sparse.solve.curvature import hessian_eigenvalues, profiled_hessian
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.boundary import settle_boundary
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system
from tests.support import corpus
from tests.support.strategies import Design, designs_with_theta

# Criteria of two searches that both end at the optimum differ by less than this.
SAME_OPTIMUM = 1e-6


def system_of(formula: str, data: pd.DataFrame, engine: str = "auto") -> PenalizedSystem:
    return penalized_system(mx.model_matrices(formula, data), engine)


def three_by_three(seed: int) -> tuple[str, pd.DataFrame]:
    """A 3 x 3 covariance of rank 0, 1 or 2 in the data's own model."""
    rng = np.random.default_rng(seed)
    groups, rows = 25, 8
    g = np.repeat(np.arange(groups), rows)
    x = rng.standard_normal((g.size, 2))
    rank = seed % 3
    T = np.zeros((3, 3))
    T[:, :rank] = rng.standard_normal((3, rank)) * 0.6
    b = rng.standard_normal((groups, 3)) @ T.T
    y = 1.0 + b[g, 0] + x[:, 0] * (0.5 + b[g, 1]) + x[:, 1] * b[g, 2]
    data = pd.DataFrame({"y": y + rng.standard_normal(g.size), "g": g})
    data["x1"], data["x2"] = x.T
    return "y ~ x1 + x2 + (x1 + x2 | g)", data


def crossed_with_nothing(seed: int) -> tuple[str, pd.DataFrame]:
    """Crossed factors, of which one or both have no variance."""
    rng = np.random.default_rng(1000 + seed)
    n = 300
    g, h = rng.integers(0, 20, n), rng.integers(0, 12, n)
    y = rng.standard_normal(n)
    if seed % 2:
        y = y + rng.standard_normal(20)[g]
    return "y ~ 1 + (1 | g) + (1 | h)", pd.DataFrame({"y": y, "g": g, "h": h})


SINGULAR = [(three_by_three, s) for s in range(35)] + [(crossed_with_nothing, s) for s in range(35)]


@cache
def singular_system(case: int) -> PenalizedSystem:
    make, seed = SINGULAR[case]
    return system_of(*make(seed))


@pytest.mark.parametrize("case", range(len(SINGULAR)))
def test_singular_optima_are_found_and_are_quick(case: int) -> None:
    system = singular_system(case)
    found = optimize(system, reml=True)
    assert found.converged, found.message
    # regular 3 x 3 fits take up to 24; singular ones may take twice that
    assert found.n_gradients <= 48
    best = found.criterion
    rng = np.random.default_rng(case)
    for _ in range(3):
        start = system.chart.theta_of_phi(rng.standard_normal(system.n_theta))
        best = min(best, optimize(system, reml=True, start=start).criterion)
    assert found.criterion - best < SAME_OPTIMUM


def test_singular_three_by_three_fits_stay_within_the_goal() -> None:
    mx.use_compiled(False)  # the compiled search takes more evaluations, of a microsecond each
    try:
        counts = [optimize(system_of(*three_by_three(s)), reml=True).n_gradients for s in range(35)]
    finally:
        mx.use_compiled(None)
    assert max(counts) <= 25, counts


def two_rows_a_level(seed: int, sd: float) -> PenalizedSystem:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(20_000), 2)
    x = rng.standard_normal(g.size)
    y = 1.0 + 0.5 * x + rng.standard_normal(20_000)[g] + rng.standard_normal(g.size)
    y += sd * rng.standard_normal(20_000)[g] * x
    return system_of("y ~ x + (x | g)", pd.DataFrame({"y": y, "x": x, "g": g}))


def test_two_rows_a_level_without_a_slope_variance_stay_within_the_goal() -> None:
    for seed in range(6):
        assert optimize(two_rows_a_level(seed, 0.0)).n_evaluations <= 20


@pytest.mark.parametrize("sd", [0.05, 0.2])
def test_renewed_hessians_of_many_levels_are_about_right_beside_a_small_variance(sd: float) -> None:
    system = two_rows_a_level(3, sd)
    found = optimize(system)
    assert 0.02 < found.theta[2] < 0.3
    evaluation = evaluation_at(system.chart.lambdas(found.phi), system, reml=True, gradient=True)
    H = average_hessian(found.phi, evaluation, system, None, reml=True)
    assert H is not None
    exact = profiled_hessian(found.phi, system, reml=True)
    ratios = scipy.linalg.eigvalsh(H, exact)
    assert 0.5 < ratios.min() <= ratios.max() < 1.5


def test_evaluations_stay_within_the_goal() -> None:
    counts = {"3": [], "20": []}  # type: dict[str, list[int]]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        g = np.repeat(np.arange(30), 10)
        x = rng.standard_normal(g.size)
        b = rng.standard_normal((30, 2)) * [1.0, 0.5]
        y = b[g, 0] + x * b[g, 1] + rng.standard_normal(g.size)
        data = pd.DataFrame({"y": y, "x": x, "g": g})
        counts["3"].append(optimize(system_of("y ~ x + (x | g)", data)).n_gradients)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        n = 3000
        s, i = rng.integers(0, 30, n), rng.integers(0, 40, n)
        a, c = rng.choice([-0.5, 0.5], (2, n))
        X = np.column_stack([np.ones(n), a, c, a * c])
        y = X @ [1.0, 0.5, 0.2, 0.1] + rng.standard_normal(n)
        for codes, levels in ((s, 30), (i, 40)):
            T = np.tril(rng.standard_normal((4, 4))) * 0.4
            y += np.einsum("ik,ik->i", X, (rng.standard_normal((levels, 4)) @ T.T)[codes])
        data = pd.DataFrame({"y": y, "A": a, "B": c, "subj": s, "item": i})
        formula = "y ~ A * B + (A * B | subj) + (A * B | item)"
        counts["20"].append(optimize(system_of(formula, data)).n_gradients)
    assert max(counts["3"]) <= 15, counts
    assert max(counts["20"]) <= 25, counts


@pytest.mark.parametrize("seed", range(2))
def test_a_singular_maximal_model_of_72_parameters_stays_within_the_goal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, i = np.divmod(rng.permutation(56 * 32)[:1789], 32)
    a, b, c = rng.choice([-0.5, 0.5], (3, s.size))
    X = np.column_stack([np.ones(s.size), a, b, c, a * b, a * c, b * c, a * b * c])
    y = 6.0 + 0.1 * a + 0.1 * b + rng.standard_normal(s.size)
    for codes, levels in ((s, 56), (i, 32)):
        T = np.zeros((8, 8))
        T[:, :3] = rng.standard_normal((8, 3)) * [0.4, 0.15, 0.1]
        y += np.einsum("ik,ik->i", X, (rng.standard_normal((levels, 8)) @ T.T)[codes])
    data = pd.DataFrame({"y": y, "a": a, "b": b, "c": c, "s": s, "i": i})
    found = optimize(system_of("y ~ a * b * c + (a * b * c | s) + (a * b * c | i)", data))
    assert found.status == "singular"
    assert found.n_gradients <= 100


@pytest.mark.parametrize("optimizer", ["bfgs", "lbfgsb", "bobyqa", "cobyqa"])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
        ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
        ("Dyestuff2", "Yield ~ 1 + (1 | Batch)"),
        ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
        ("Pastes", "strength ~ 1 + (1 | batch / cask)"),
        ("Machines", "score ~ Machine + (Machine | Worker)"),
        ("Oxboys", "height ~ age + id(age | Subject)"),
    ],
)
def test_every_optimizer_reaches_the_same_optimum(
    name: str, formula: str, reml: bool, optimizer: str
) -> None:
    system = system_of(formula, mx.datasets.load(name))
    reference = optimize(system, reml=reml)
    found = optimize(system, reml=reml, optimizer=optimizer)
    assert reference.converged
    assert found.converged, found.message
    assert abs(found.criterion - reference.criterion) < SAME_OPTIMUM


@pytest.mark.parametrize("optimizer", ["bfgs", "lbfgsb", "bobyqa", "cobyqa"])
def test_false_boundaries_are_left(optimizer: str) -> None:
    system = system_of("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    best = optimize(system).criterion
    # a zero column is a stationary point in every one of its elements
    found = optimize(system, optimizer=optimizer, start=np.array([0.9, 0.02, 0.0]))
    assert found.criterion - best < SAME_OPTIMUM
    found = optimize(system, optimizer=optimizer, start=np.zeros(3))
    assert found.criterion - best < SAME_OPTIMUM


def test_true_boundaries_are_kept_exactly() -> None:
    system = system_of("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"))
    found = optimize(system, reml=False)
    assert found.theta.tolist() == [0.0]
    assert found.status == "singular"
    assert found.criterion == pytest.approx(162.87303665382575, abs=1e-9)
    report = settle_boundary(ProfiledObjective(system, False), np.zeros(1), found.criterion)
    assert not report.escaped


def test_progress_sees_every_evaluation() -> None:
    system = system_of("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    seen: list[tuple[int, float, np.ndarray]] = []
    found = optimize(system, progress=lambda i, d, theta: seen.append((i, d, theta)))
    assert [i for i, _, _ in seen] == list(range(1, len(seen) + 1))
    assert min(d for _, d, _ in seen) == pytest.approx(found.criterion, abs=1e-9)
    for _, d, theta in seen:
        assert (theta >= system.lower).all()
        assert profiled_criterion(theta, system, reml=True) == pytest.approx(d, abs=1e-8)


def test_an_evaluation_limit_is_reported() -> None:
    system = system_of("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    found = optimize(system, start=np.array([1.0, 0.0, 1.0]), control=Control(max_evaluations=3))
    assert found.n_evaluations == 3
    assert found.status == "evaluation limit"
    assert not found.converged
    assert "max_evaluations" in found.advice


def test_starts_are_checked() -> None:
    system = system_of("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    with pytest.raises(OptionError, match="3 numbers for the parameters"):
        optimize(system, start=np.ones(2))
    with pytest.raises(OptionError, match="below the bounds"):
        optimize(system, start=np.array([1.0, 0.0, -1.0]))
    with pytest.raises(OptionError, match="bfgs"):
        optimize(system, optimizer="newton")


def test_working_parameters_keep_the_covariance() -> None:
    system = system_of("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    theta = np.array([0.7, -0.3, 0.4])
    again = system.chart.theta_of_phi(system.chart.phi_of_theta(theta))
    np.testing.assert_allclose(again, theta, rtol=1e-12)


def test_hessian_is_positive_at_a_regular_optimum() -> None:
    system = system_of("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    values = hessian_eigenvalues(optimize(system).phi, system, reml=True)
    assert values.shape == (3,)
    assert (values > 1.0).all()


def test_saturated_models_end_clearly() -> None:
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(10), 6)
    x = rng.standard_normal(60)
    data = pd.DataFrame({"y": 1.0 + x + rng.standard_normal(10)[g], "x": x, "g": g})
    for optimizer in ("bfgs", "lbfgsb", "bobyqa"):
        found = optimize(system_of("y ~ x + (1 | g)", data), optimizer=optimizer)
        assert found.status == "no residual", optimizer
        assert np.isfinite(found.theta).all()


@pytest.mark.parametrize("engine", ["auto", "blocked", "sparse"])
@settings(max_examples=25, deadline=None)
@given(design_and_theta=designs_with_theta(), reml=st.booleans())
def test_gradient_is_the_derivative(
    engine: str, design_and_theta: tuple[Design, np.ndarray], reml: bool
) -> None:
    design, theta = design_and_theta
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrices = mx.model_matrices(
            design.formula, design.data, weights=design.weights, offset=design.offset
        )
    system = penalized_system(matrices, engine)
    gradient = criterion_and_gradient(theta, system, reml=reml)[1]
    h = 1e-5
    for i in range(theta.size):
        e = np.zeros_like(theta)
        e[i] = h
        up = profiled_criterion(theta + e, system, reml=reml)
        down = profiled_criterion(theta - e, system, reml=reml)
        assert gradient[i] == pytest.approx(
            (up - down) / (2 * h), rel=1e-5, abs=1e-5 * (1.0 + abs(up))
        )


@settings(max_examples=40, deadline=None)
@given(design_and_theta=designs_with_theta(), reml=st.booleans())
def test_fused_evaluations_are_the_engine(
    design_and_theta: tuple[Design, np.ndarray], reml: bool
) -> None:
    design, theta = design_and_theta
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrices = mx.model_matrices(
            design.formula, design.data, weights=design.weights, offset=design.offset
        )
    use_compiled(True)
    try:
        fused = penalized_system(matrices, "auto")
        plain = penalized_system(matrices, "blocked")
        assert plain.fused is None
        assert fused.fused is not None or fused.q > 72
        a, ga = criterion_and_gradient(theta, fused, reml=reml)
        b, gb = criterion_and_gradient(theta, plain, reml=reml)
    finally:
        use_compiled(None)
    assert a == pytest.approx(b, rel=1e-11)
    np.testing.assert_allclose(ga, gb, rtol=1e-8, atol=1e-8 * (1.0 + np.abs(gb).max()))


def test_rounding_on_the_boundary_is_not_taken_for_a_small_variance():
    """A point of variance zero is left although its value was seen a rounding error lower."""
    system = corpus.system("oxboys_ml", "blocked")
    objective = ProfiledObjective(system, reml=False)
    at_zero = optimize(
        system, reml=False, start=[14.8, 1.9, 0.36, 2.46, 1.05, 0.0],
        control=mx.Control(check_boundary=False, max_evaluations=200), optimizer="lbfgsb",
    ).phi  # fmt: skip
    assert at_zero[-1] == 0.0
    value = objective.value(at_zero)
    assert settle_boundary(objective, at_zero, value - 1e-13 * abs(value)).escaped


def test_without_nlopt_there_are_other_searches(monkeypatch):
    monkeypatch.setitem(sys.modules, "nlopt", None)
    sleep = corpus.load_data("sleepstudy")
    with pytest.raises(mx.MissingPackageError, match=r"optimizer='bobyqa' needs NLopt.*'cobyqa'"):
        mx.lmer("Reaction ~ Days + (Days | Subject)", sleep, optimizer="bobyqa")
    criteria = [
        mx.lmer("Reaction ~ Days + (Days | Subject)", sleep, optimizer=optimizer).criterion
        for optimizer in ("auto", "cobyqa")
    ]
    assert criteria == pytest.approx([1743.628271959899] * 2, abs=1e-6)
