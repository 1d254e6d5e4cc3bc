"""The engine without a factor against dense algebra: what is exact, estimated, and its slope."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.common.errors import EngineError, NotPositiveDefiniteError
from mixlm_sparse.engines import memory
from mixlm_sparse.engines.krylov import settings as krylov_settings
from mixlm_sparse.engines.krylov.conjugate import conjugate_gradients
from mixlm_sparse.engines.krylov.engine import KrylovEngine
from mixlm_sparse.engines.krylov.lanczos import divided_log, log_quadrature
from mixlm_sparse.engines.krylov.settings import Estimation
from tests.support.block_systems import KINDS, DenseTwin, random_lambdas, random_system

WIDTHS = ([1], [2], [1, 3], [2, 1])
STANDARD_ERRORS = 5.0


def engine_at(twin: DenseTwin, lambdas: list[np.ndarray], **options: object) -> KrylovEngine:
    compiled = options.pop("compiled", None)
    engine = KrylovEngine(twin.system, Estimation(**options), compiled=compiled)  # type: ignore[arg-type]
    engine.factorize(lambdas)
    return engine


def in_blocks(twin: DenseTwin, flat: np.ndarray) -> list[np.ndarray]:
    sizes = [L * K for L, K in zip(twin.levels, twin.widths, strict=True)]
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [
        part.reshape(L, K, flat.shape[1])
        for part, L, K in zip(parts, twin.levels, twin.widths, strict=True)
    ]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("lambda_kind", ["general", "singular", "zero"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_solutions_are_exact(
    kind: str, widths: list[int], lambda_kind: str, compiled: bool
) -> None:
    twin = random_system(kind, widths, seed=3)
    lambdas = random_lambdas(twin, lambda_kind, 5)
    engine = engine_at(twin, lambdas, compiled=compiled)
    rhs = np.random.default_rng(0).standard_normal((twin.A.shape[0], 3))
    rhs[:, 1] = 0.0  # nothing to solve for
    C = twin.C(lambdas)
    solved = np.vstack([s.reshape(-1, 3) for s in engine.solve(in_blocks(twin, rhs))])
    np.testing.assert_allclose(C @ solved, rhs, atol=1e-9)
    multiplied = np.vstack([s.reshape(-1, 3) for s in engine.multiply(in_blocks(twin, rhs))])
    np.testing.assert_allclose(multiplied, twin.A @ rhs, atol=1e-10 * np.abs(twin.A).max())


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_lie_within_their_errors(kind: str, widths: list[int]) -> None:
    twin = random_system(kind, widths, seed=4)
    lambdas = random_lambdas(twin, "general", 6)
    engine = engine_at(twin, lambdas, vectors=512)
    C = twin.C(lambdas)
    off = engine.logdet - float(np.linalg.slogdet(C)[1])
    assert abs(off) <= STANDARD_ERRORS * engine.logdet_error + 1e-9

    whole = twin.A @ twin.Lambda(lambdas) @ np.linalg.inv(C)
    groups = engine.trace_errors()
    for g, (L, found) in enumerate(zip(twin.levels, engine.trace_products(lambdas), strict=True)):
        expected = sum(twin.block(whole, g, j, g, j) for j in range(L))
        if groups:
            spread = np.std([group[g] for group in groups], axis=0, ddof=1) / np.sqrt(len(groups))
        else:
            spread = np.zeros_like(found)
        np.testing.assert_array_less(
            np.abs(found - expected), STANDARD_ERRORS * spread + 1e-8 * (1 + np.abs(expected))
        )


@pytest.mark.parametrize("kind", ["crossed", "three crossed"])
def test_errors_are_as_large_as_they_are_said_to_be(kind: str) -> None:
    twin = random_system(kind, [1, 2], seed=4, n=400)
    lambdas = [0.7 * np.eye(K) for K in twin.widths]
    exact = float(np.linalg.slogdet(twin.C(lambdas))[1])
    off, said = [], []
    for seed in range(200):
        engine = engine_at(twin, lambdas, seed=seed)
        off.append(engine.logdet - exact)
        said.append(engine.logdet_error)
    spread = float(np.std(off))
    assert abs(np.mean(off)) < 4.0 * spread / np.sqrt(len(off))
    assert 0.8 * spread < np.mean(said) < 2.0 * spread
    assert np.mean(np.abs(off) > 3.0 * np.array(said)) < 0.03


@pytest.mark.parametrize("kind", ["one", "nested"])
def test_one_factor_is_exact(kind: str) -> None:
    twin = random_system(kind, [2], seed=4)
    lambdas = random_lambdas(twin, "general", 6)
    engine = engine_at(twin, lambdas)
    expected = float(np.linalg.slogdet(twin.C(lambdas))[1])
    if kind == "one":
        assert engine.logdet_error == 0.0
    # each level of the outer factor is a block of its own, which D takes whole
    assert engine.logdet == pytest.approx(expected, abs=1e-9)
    assert engine.logdet_error == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    widths=st.sampled_from(WIDTHS),
    lambda_kind=st.sampled_from(["general", "triangular", "singular"]),
    size=st.floats(0.05, 5.0),
    seed=st.integers(0, 10_000),
)
def test_slope_is_that_of_the_estimate(
    kind: str, widths: list[int], lambda_kind: str, size: float, seed: int
) -> None:
    twin = random_system(kind, widths, seed=seed % 7)
    lambdas = [size * lam for lam in random_lambdas(twin, lambda_kind, seed)]
    rng = np.random.default_rng(seed)
    steps = [rng.standard_normal(lam.shape) for lam in lambdas]
    engine = KrylovEngine(twin.system)
    engine.factorize(lambdas)
    slope = 2.0 * sum(
        float((trace * step).sum())
        for trace, step in zip(engine.trace_products(lambdas), steps, strict=True)
    )
    h = 1e-4 * size

    def value(t: float) -> float:
        engine.factorize([lam + t * s for lam, s in zip(lambdas, steps, strict=True)])
        return engine.logdet

    differences = (8.0 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12.0 * h)
    assert differences == pytest.approx(slope, rel=1e-6, abs=1e-6 * (1.0 + 1.0 / size))


@pytest.mark.parametrize("kind", ["three crossed", "nested thrice and two crossed"])
def test_estimate_is_even_in_every_column(kind: str) -> None:
    twin = random_system(kind, [1, 3], seed=2)
    lambdas = random_lambdas(twin, "triangular", 3)
    expected = engine_at(twin, lambdas).logdet
    for g, lam in enumerate(lambdas):
        for a in range(lam.shape[1]):
            turned = [x.copy() for x in lambdas]
            turned[g][:, a] *= -1.0
            assert engine_at(twin, turned).logdet == pytest.approx(expected, rel=1e-10)


def test_same_seed_same_number_other_seed_another() -> None:
    twin = random_system("three crossed", [1, 2], seed=2)
    lambdas = random_lambdas(twin, "general", 3)
    first = engine_at(twin, lambdas)
    assert engine_at(twin, lambdas).logdet == first.logdet
    assert engine_at(twin, lambdas, seed=1).logdet != first.logdet
    assert engine_at(twin, lambdas, vectors=4096).logdet_error < first.logdet_error


@pytest.mark.parametrize("kind", ["crossed", "three crossed"])
def test_errors_fall_like_one_by_the_root_of_the_vectors(kind: str) -> None:
    twin = random_system(kind, [1, 2], seed=4, n=400)
    lambdas = [0.7 * np.eye(K) for K in twin.widths]
    exact = float(np.linalg.slogdet(twin.C(lambdas))[1])
    said, off = [], []
    for vectors in (16, 256):
        engines = [engine_at(twin, lambdas, vectors=vectors, seed=seed) for seed in range(60)]
        said.append(np.mean([engine.logdet_error for engine in engines]))
        off.append(np.sqrt(np.mean([(engine.logdet - exact) ** 2 for engine in engines])))
    assert 3.0 < said[0] / said[1] < 5.3
    assert 2.5 < off[0] / off[1] < 6.5


def test_a_loose_tolerance_takes_fewer_steps() -> None:
    twin = random_system("three crossed", [1, 2], seed=2)
    lambdas = random_lambdas(twin, "general", 3)
    usual = engine_at(twin, lambdas)
    loose, tight = (engine_at(twin, lambdas, tolerance=t) for t in (1e-3, 1e-12))
    assert loose._quadrature.steps < usual._quadrature.steps <= tight._quadrature.steps
    assert tight.logdet == pytest.approx(usual.logdet, rel=1e-11)
    assert loose.logdet == pytest.approx(usual.logdet, rel=1e-3)


def test_a_copy_estimates_alike() -> None:
    twin = random_system("crossed", [1, 2], seed=2)
    lambdas = random_lambdas(twin, "general", 3)
    engine = engine_at(twin, lambdas, vectors=40, seed=3, tolerance=1e-7)
    copied = pickle.loads(pickle.dumps(engine))
    copied.factorize(lambdas)
    assert copied.estimation == engine.estimation
    assert copied.logdet == engine.logdet


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ 1 + (1 | a) + (1 | b)",
        "y ~ x + (x | b) + (1 | a)",
        "y ~ x + (x | a) + (1 | b) + (1 | c)",
    ],
)
def test_memory_is_counted_before_it_is_taken(
    formula: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    n = 60_000
    levels = {"a": 4000, "b": 2500, "c": 700}
    frame = pd.DataFrame({name: rng.integers(0, L, n) for name, L in levels.items()})
    frame["x"], frame["y"] = rng.normal(size=n), rng.normal(size=n)
    system = mx.penalized_system(mx.model_matrices(formula, frame), "krylov").products.blocks
    needed: list[float] = []
    monkeypatch.setattr(krylov_settings, "require_memory", lambda size, *_: needed.append(size))
    lambdas = [0.3 * np.eye(f.width) for f in system.factors]
    rhs = [np.ones(f.ztx.shape) for f in system.factors]
    tracemalloc.start()
    engine = KrylovEngine(system)
    engine.factorize(lambdas)
    engine.solve(rhs)
    engine.trace_products(lambdas)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(needed) >= 1
    assert 0.4 * needed[0] < taken < 1.5 * needed[0]

    def refused(*_: object) -> None:
        raise EngineError("no memory")

    monkeypatch.setattr(krylov_settings, "require_memory", refused)
    tracemalloc.start()
    with pytest.raises(EngineError, match="no memory"):
        KrylovEngine(system)
    assert tracemalloc.get_traced_memory()[1] < 0.01 * taken
    tracemalloc.stop()


def test_more_steps_than_usual_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    M = np.diag(np.geomspace(1e-4, 1.0, 400))
    Z = np.random.default_rng(1).standard_normal((400, 3))
    asked: list[tuple[int, int, int]] = []
    steps = log_quadrature(lambda X: M @ X, Z, before_more=lambda *a: asked.append(a)).steps
    assert [step for _, _, step in asked] == list(range(25, steps + 1, 25))
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    with pytest.raises(EngineError, match="after 25 steps"):
        log_quadrature(
            lambda X: M @ X, Z, before_more=krylov_settings.require_basis_memory
        )


def test_what_was_found_is_kept_for_the_same_factors_only() -> None:
    twin = random_system("crossed", [1], seed=2)
    lambdas = random_lambdas(twin, "general", 3)
    engine = engine_at(twin, lambdas)
    first = engine.logdet
    lambdas[0] *= 2.0  # a caller's array that changes is another Lambda
    engine.factorize(lambdas)
    assert engine.logdet == engine_at(twin, lambdas).logdet != first


def test_reload_takes_other_numbers() -> None:
    twin = random_system("three crossed", [1, 2], seed=2)
    lambdas = random_lambdas(twin, "general", 3)
    engine = engine_at(twin, lambdas)
    before = engine.logdet
    other = random_system("three crossed", [1, 2], seed=3)
    with pytest.raises(EngineError, match="another pattern"):
        engine.reload(other.system)
    twin_engine = engine.reload(twin.system)
    twin_engine.factorize(lambdas)
    assert twin_engine.logdet == before == engine.logdet


def test_no_blocks_of_the_inverse() -> None:
    twin = random_system("crossed", [1], seed=2)
    engine = engine_at(twin, random_lambdas(twin, "general", 3))
    with pytest.raises(EngineError, match="engine='auto'"):
        engine.selected_inverse()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_a_factor_beyond_numbers_is_refused(bad: float) -> None:
    twin = random_system("crossed", [1], seed=2)
    lambdas = [np.full((1, 1), 1.0), np.full((1, 1), bad)]
    engine = KrylovEngine(twin.system)
    with pytest.raises(NotPositiveDefiniteError), np.errstate(all="ignore"):
        engine.factorize(lambdas)
        engine.logdet  # noqa: B018


# -- parts ----------------------------------------------------------------------------------------


def positive_matrix(m: int, seed: int) -> np.ndarray:
    B = np.random.default_rng(seed).standard_normal((m, m))
    return np.eye(m) + 0.1 * B @ B.T


def beyond_first_order(M: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.linalg.logm(M)) - M + np.eye(M.shape[0])


@pytest.mark.parametrize("m", [1, 2, 9, 40])
def test_quadrature_against_a_dense_logarithm(m: int) -> None:
    M = positive_matrix(m, 1)
    Z = np.sign(np.random.default_rng(2).standard_normal((m, 5)))
    Z[:, 3] = 0.0  # what is nothing gives nothing
    found = log_quadrature(lambda X: M @ X, Z)
    expected = np.einsum("it,ij,jt->t", Z, beyond_first_order(M), Z)
    np.testing.assert_allclose(found.values, expected, rtol=1e-10)


def test_directions_against_a_dense_derivative() -> None:
    M = positive_matrix(30, 1)
    S = np.random.default_rng(3).standard_normal((30, 30))
    S = S + S.T
    Z = np.sign(np.random.default_rng(2).standard_normal((30, 3)))
    found = log_quadrature(lambda X: M @ X, Z)
    values, vectors = np.linalg.eigh(M)
    moved = vectors @ ((divided_log(values) - 1.0) * (vectors.T @ S @ vectors)) @ vectors.T
    for s in range(3):
        X = found.vectors(s)
        slope = float(found.weights[s] @ np.einsum("ic,ij,jc->c", X, S, X))
        assert slope == pytest.approx(float(Z[:, s] @ moved @ Z[:, s]), rel=1e-8)


@pytest.mark.parametrize("m", [1, 9, 40])
def test_conjugate_gradients(m: int) -> None:
    M = positive_matrix(m, 1)
    B = np.random.default_rng(2).standard_normal((m, 4))
    B[:, 2] = 0.0
    np.testing.assert_allclose(
        conjugate_gradients(lambda X: M @ X, B), np.linalg.solve(M, B), atol=1e-10
    )


def test_an_indefinite_matrix_is_refused() -> None:
    M = np.diag([1.0, -1.0, 2.0])
    Z = np.ones((3, 1))
    with pytest.raises(NotPositiveDefiniteError):
        conjugate_gradients(lambda X: M @ X, Z)
    with pytest.raises(NotPositiveDefiniteError):
        log_quadrature(lambda X: M @ X, Z)
