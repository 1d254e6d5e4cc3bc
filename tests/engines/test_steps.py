"""A dense complement eliminated in steps answers as the sparse engine does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.engines.blocked.engine import BlockedEngine
from mixlm_sparse.engines.multifrontal.engine import SparseEngine
from mixlm_sparse.solve.system import penalized_system


def communities(seed: int, towns: int, doctors: int, terms: str) -> mx.ModelMatrices:
    """Patients who see doctors of their town, a few also elsewhere; a third, crossed factor."""
    rng = np.random.default_rng(seed)
    n = 9_000
    patient = rng.integers(0, 1_500, n)
    town = patient % towns
    town = np.where(rng.random(n) < 0.01, rng.integers(0, towns, n), town)
    data = pd.DataFrame({"p": patient, "d": town * doctors + rng.integers(0, doctors, n)})
    data["k"], data["x"], data["y"] = rng.integers(0, 9, n), *rng.standard_normal((2, n))
    return mx.model_matrices(f"y ~ x + (1 | p) + {terms}", data)


@pytest.mark.parametrize(
    ("doctors", "terms"),
    [(40, "(1 | d)"), (40, "(1 | d) + (1 | k)"), (24, "(x | d) + (1 | k)")],
)
def test_steps_answer_as_the_sparse_engine(doctors: int, terms: str) -> None:
    blocks = penalized_system(communities(1, 12, doctors, terms)).products.blocks
    first = BlockedEngine(blocks, compiled=True)
    assert "steps" in first.describe()
    rng = np.random.default_rng(0)
    for engine in (first, first.reload(blocks)):
        sparse = SparseEngine(blocks)
        for scale in (0.7, 0.001):  # traces from diagonals, and from pairs
            lambdas = [
                scale * np.tril(rng.uniform(0.5, 1.5, (f.width,) * 2)) for f in blocks.factors
            ]
            rhs = [rng.standard_normal((f.n_levels, f.width, 3)) for f in blocks.factors]
            engine.factorize(lambdas)
            sparse.factorize(lambdas)
            assert engine.logdet == pytest.approx(sparse.logdet, rel=1e-12)
            for _ in range(2):  # before and after the inverse is there
                for got, expected in zip(engine.solve(rhs), sparse.solve(rhs), strict=True):
                    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
                traces = engine.trace_products(lambdas), sparse.trace_products(lambdas)
                for got, expected in zip(*traces, strict=True):
                    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
            for got, expected in zip(engine.multiply(rhs), sparse.multiply(rhs), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
            inverse, other = engine.selected_inverse(), sparse.selected_inverse()
            for got, expected in zip(inverse.diag, other.diag, strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
            for key, expected in other.pairs.items():
                np.testing.assert_allclose(inverse.pairs[key], expected, rtol=1e-9, atol=1e-12)


def test_levels_that_meet_all_others_are_one_matrix() -> None:
    rng = np.random.default_rng(2)
    n = 20_000
    data = pd.DataFrame({"p": rng.integers(0, 1_000, n), "d": rng.integers(0, 450, n)})
    data["y"] = rng.standard_normal(n)
    system = penalized_system(mx.model_matrices("y ~ 1 + (1 | p) + (1 | d)", data))
    assert "order 450" in system.engine.describe()
    assert "steps" not in system.engine.describe()
