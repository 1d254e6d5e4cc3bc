"""Sparse products of levels and columns, against the same with everything filled in."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.engines import columns, memory
from mixlm_sparse.engines.columns import LevelEntries, SparseColumns, level_forms, weighted_gram


def drawn(seed, L=13, K=2, p=9, share=0.3):
    rng = np.random.default_rng(seed)
    filled = rng.normal(size=(L * K, p)) * (rng.uniform(size=(L * K, p)) < share)
    return rng, filled, sp.csr_array(filled)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_sums_over_levels(K, compiled):
    rng, filled, F = drawn(K, K=K)
    A = rng.normal(size=(13, K, K))
    A = A + np.swapaxes(A, 1, 2)
    P = rng.normal(size=(9, 9))
    P = P + P.T
    blocks = filled.reshape(13, K, 9)
    mx.use_compiled(compiled)
    try:
        gram, forms = weighted_gram(F, A), level_forms(F, P, K)
    finally:
        mx.use_compiled(None)
    expected = sum(own.T @ a @ own for own, a in zip(blocks, A, strict=True))
    np.testing.assert_allclose(np.tril(gram), np.tril(expected), atol=1e-12)
    np.testing.assert_allclose(forms, blocks @ P @ np.swapaxes(blocks, 1, 2), atol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_blocks(seed, K, turned):
    rng, filled, F = drawn(seed, K=K)
    T = np.triu(rng.normal(size=(8, 8))) + 3.0 * np.eye(8)
    own = SparseColumns(F, K, T if turned else None)
    inverse = np.eye(9)
    if turned:
        inverse[:8, :8] = np.linalg.inv(T)
    blocks = (filled @ inverse).reshape(13, K, 9)
    np.testing.assert_allclose(own.filled(), blocks, atol=1e-9)
    np.testing.assert_allclose(own.response, blocks[:, :, -1], atol=1e-12)
    G = rng.normal(size=(9, 2))
    np.testing.assert_allclose(own.times(G), blocks @ G, atol=1e-9)
    at = rng.permutation(20)[:13].astype(np.int32)
    expected = np.zeros((20, K, 9))
    expected[at] = blocks
    np.testing.assert_allclose(own.placed(at, 20).filled(), expected, atol=1e-9)
    A = rng.normal(size=(K, K))
    np.testing.assert_allclose(own.turned(A).filled(), A.T @ blocks, atol=1e-9)
    order, effects = rng.permutation(13), rng.permutation(K)
    np.testing.assert_allclose(
        own.chosen(order, effects).filled(), blocks[order][:, effects], atol=1e-9
    )


@given(st.integers(0, 1000), st.integers(1, 40), st.sampled_from([0.05, 0.9]))
def test_sums_that_come_in_parts(seed, waiting, share):
    rng = np.random.default_rng(seed)
    expected = np.zeros((20, 5))
    sums, levels = LevelEntries(2, 5), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "WAITING", waiting)
        for _ in range(8):
            levels = min(levels + int(rng.integers(0, 4)), 10)
            part = rng.normal(size=(2 * levels, 5)) * (rng.uniform(size=(2 * levels, 5)) < share)
            sums.grow(levels)
            sums.add(sp.csr_array(part))
            expected[: 2 * levels] += part
        np.testing.assert_allclose(sums.total(10).toarray(), expected, atol=1e-12)


def test_what_does_not_fit_is_not_filled_in(monkeypatch):
    _, _, F = drawn(0)
    monkeypatch.setattr(memory, "free_bytes", lambda: 100)
    with pytest.raises(mx.EngineError, match="26 random effects by 9 columns"):
        SparseColumns(F, 2).filled()
