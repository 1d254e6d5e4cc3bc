"""Other numbers on the same pattern: every engine against dense algebra."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest

from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.engines.blocked import engine as blocked
from mixlm_sparse.engines.blocked import sparse_rest
from mixlm_sparse.engines.choose import make_engine
from mixlm_sparse.engines.interface import BlockSystem, PairBlock
from tests.support.block_systems import (
    KINDS,
    DenseTwin,
    check_engine,
    random_lambdas,
    random_system,
)

ENGINES = [
    "blocked",
    "sparse",
    pytest.param(
        "cholmod",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("sksparse") is None, reason="scikit-sparse is missing"
        ),
    ),
]


def scaled(twin: DenseTwin, factor: float, *, without: int | None = None) -> DenseTwin:
    """The same pattern with Z'WZ multiplied; the level `without` of the first factor left out."""
    system, A = twin.system, factor * twin.A
    factors = [dataclasses.replace(f, ztz=factor * f.ztz) for f in system.factors]
    pairs = {
        key: PairBlock(pair.rows, pair.cols, factor * pair.values)
        for key, pair in system.pairs.items()
    }
    if without is not None:
        K = twin.widths[0]
        at = slice(without * K, (without + 1) * K)
        A[at] = 0.0
        A[:, at] = 0.0
        factors[0].ztz[without] = 0.0
        for (g, _), pair in pairs.items():
            if g == 0:
                pair.values[pair.rows == without] = 0.0
    return DenseTwin(BlockSystem(tuple(factors), pairs), twin.levels, twin.widths, A)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("widths", [[1], [2], [1, 3]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["small", "by level", "sparse"])
def test_reloaded_engine_is_a_new_one(
    monkeypatch: pytest.MonkeyPatch, kind: str, widths: list[int], name: str, form: str
) -> None:
    if form != "small":
        monkeypatch.setattr(blocked, "DENSE_COUPLING_SHARE", 2.0)
        monkeypatch.setattr(blocked, "DENSE_COUPLING_CELLS", 0)
    if form == "sparse":
        monkeypatch.setattr(sparse_rest, "SPARSE_FROM", 0)
        monkeypatch.setattr(sparse_rest, "CLIQUE_SHARE", 1e9)
        monkeypatch.setattr(sparse_rest, "SPARSE_SHARE", 1e9)
    first = random_system(kind, widths, seed=11)
    engine = make_engine(name, first.system)
    lambdas = random_lambdas(first, "general", 1)
    check_engine(engine, first, lambdas)
    second = scaled(first, 2.5, without=1)
    other = engine.reload(second.system)
    # the old one keeps its factor while the new one works
    rhs = [np.ones((L, K, 1)) for L, K in zip(first.levels, first.widths, strict=True)]
    before = engine.solve(rhs)
    check_engine(other, second, random_lambdas(first, "triangular", 2))
    for a, b in zip(before, engine.solve(rhs), strict=True):
        np.testing.assert_array_equal(a, b)
    third = scaled(first, 0.5)
    check_engine(other.reload(third.system), third, lambdas)
    check_engine(engine, first, random_lambdas(first, "singular", 3))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_reload_does_no_symbolic_work(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    first = random_system(kind, [1, 2], seed=5)
    engine = make_engine(name, first.system)
    second = scaled(first, 2.0)
    with monkeypatch.context() as patch:
        patch.delattr(type(engine), "__init__")  # an engine that is made anew has nothing
        other = engine.reload(second.system)
    check_engine(other, second, random_lambdas(first, "triangular", 2))


@pytest.mark.parametrize("name", ENGINES)
def test_another_pattern_is_refused(name: str) -> None:
    first = random_system("crossed", [1, 2], seed=1)
    engine = make_engine(name, first.system)
    for other in (random_system("crossed", [1, 2], seed=2), random_system("crossed", [2, 2], 1)):
        with pytest.raises(EngineError, match="another pattern"):
            engine.reload(other.system)
