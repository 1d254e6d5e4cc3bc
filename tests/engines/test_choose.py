"""Which engine is taken where none is asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.engines import choose, memory
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from tests.support.block_systems import random_lambdas, random_system


def chain(n: int) -> BlockSystem:
    """User i meets items i and i + 1: a chain, which fills in nothing in the right order."""
    meetings = sorted({(i, min(i + k, n - 1)) for i, k in itertools.product(range(n), (0, 1))})
    rows, cols = np.array(meetings, dtype=np.int32).T

    def factor(label: str, codes: np.ndarray) -> FactorBlock:
        count = np.bincount(codes, minlength=n).astype(float)
        return FactorBlock(label, count[:, None, None], np.ones((n, 1, 2)))

    pair = PairBlock(rows.copy(), cols.copy(), np.ones((rows.size, 1, 1)))
    return BlockSystem((factor("user", rows), factor("item", cols)), {(0, 1): pair})


def test_less_work_is_chosen_beside_a_large_dense_block(monkeypatch: pytest.MonkeyPatch) -> None:
    system = chain(300)
    assert choose.make_engine("auto", system).name == "blocked"  # small: not looked at
    monkeypatch.setattr(choose, "ANALYSED_FROM", 100)
    engine = choose.make_engine("auto", system)
    assert engine.name == "sparse"
    blocked = choose.make_engine("blocked", system)
    lambdas = [np.full((1, 1), 0.7), np.full((1, 1), 1.3)]
    for one in (engine, blocked):
        one.factorize(lambdas)
    assert engine.logdet == pytest.approx(blocked.logdet, rel=1e-12)
    monkeypatch.setattr(choose, "ANALYSED_ENTRIES", 10)  # too long to look at
    assert choose.make_engine("auto", system).name == "blocked"


def test_a_full_design_stays_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "ANALYSED_FROM", 2)
    twin = random_system("crossed", [1, 2], seed=1, n=400)
    engine = choose.make_engine("auto", twin.system)
    assert engine.name == "blocked"
    engine.factorize(random_lambdas(twin, "general", 1))


def test_what_fits_is_taken_where_the_dense_block_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = chain(300)
    monkeypatch.setattr(memory, "free_bytes", lambda: 400_000)
    with pytest.raises(EngineError, match="crossed with"):
        choose.make_engine("blocked", system)
    assert choose.make_engine("auto", system).name == "sparse"
    monkeypatch.setattr(memory, "free_bytes", lambda: 1_000)
    with pytest.raises(EngineError, match="crossed with"):
        choose.make_engine("auto", system)
