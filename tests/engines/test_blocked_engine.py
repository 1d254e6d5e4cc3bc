"""The embedded engine against dense algebra, in every structure and with both kinds of kernels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.blocked import dense_rest
from mixlm_sparse.engines.blocked import engine as blocked
from mixlm_sparse.engines.blocked.engine import BlockedEngine
from mixlm_sparse.engines.interface import BlockSystem
from mixlm_sparse.solve.system import penalized_system
from tests.support.block_systems import KINDS, check_engine, random_lambdas, random_system

COMPILED = [False, True]


def check_cases(kind: str, widths: list[int], *, compiled: bool, seed: int) -> None:
    """Compare the engine of a random system with dense algebra, for all kinds of Lambda."""
    twin = random_system(kind, widths, seed=len(kind) + sum(widths))
    engine = BlockedEngine(twin.system, compiled=compiled)
    for case in ("general", "triangular", "singular", "zero"):
        check_engine(engine, twin, random_lambdas(twin, case, seed=seed))


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("coupling", ["dense", "by level"])
@pytest.mark.parametrize("widths", [[1], [2], [1, 3], [2, 1, 3]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_engine_is_dense_algebra(
    kind: str, widths: list[int], coupling: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if coupling == "by level":
        monkeypatch.setattr(blocked, "DENSE_COUPLING_CELLS", 0)
        monkeypatch.setattr(blocked, "DENSE_COUPLING_SHARE", 2.0)
    check_cases(kind, widths, compiled=compiled, seed=3)


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("widths", [[1], [2, 1, 3]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_products_of_the_rest_by_pairs_are_dense_algebra(
    kind: str, widths: list[int], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_rest, "DENSE_PRODUCTS_ORDER", 0)
    monkeypatch.setattr(dense_rest, "DENSE_PRODUCTS_SHARE", 10.0)
    check_cases(kind, widths, compiled=compiled, seed=4)


def test_few_pairs_among_the_rest_are_kept_as_no_matrix() -> None:
    rng = np.random.default_rng(7)
    n = 9_000
    data = pd.DataFrame({name: rng.integers(0, m, n) for name, m in (("p", 1000), ("d", 400))})
    data["k"], data["y"] = data["d"] % 7, rng.standard_normal(n)
    data.loc[:50, "k"] = 8
    formula = "y ~ 1 + (1 | p) + (1 | d) + (1 | k)"
    engine = penalized_system(mx.model_matrices(formula, data)).engine
    assert "dense Schur complement" in engine.describe()
    assert not engine._schur.products_dense
    assert engine._schur._A is None


def test_a_second_factorization_leaves_nothing_of_the_first() -> None:
    twin = random_system("nested thrice and two crossed", [2, 1], seed=5)
    engine = BlockedEngine(twin.system)
    first = random_lambdas(twin, "general", seed=1)
    second = random_lambdas(twin, "general", seed=2)
    engine.factorize(first)
    engine.selected_inverse()
    check_engine(engine, twin, second)
    check_engine(engine, twin, first)


@pytest.mark.parametrize("kind", ["one", "crossed"])
def test_nonfinite_factors_are_an_error(kind: str) -> None:
    twin = random_system(kind, [2], seed=1)
    engine = BlockedEngine(twin.system)
    lambdas = random_lambdas(twin, "general", seed=1)
    lambdas[0][0, 0] = np.nan
    with pytest.raises(NotPositiveDefiniteError):
        engine.factorize(lambdas)


def test_description_names_the_factors() -> None:
    twin = random_system("nested and crossed", [1], seed=1)
    text = BlockedEngine(twin.system).describe()
    assert "g0" in text
    assert "nested" in text
    assert "order 7" in text


def test_both_forms_of_the_kernels_agree() -> None:
    rng = np.random.default_rng(2)
    n, K, P = 500, 3, 4
    g = rng.integers(0, 40, n).astype(np.int32)
    h = rng.integers(0, 25, n).astype(np.int32)
    Z, D = rng.standard_normal((n, K)), rng.standard_normal((n, K + P))
    found = {}
    rows, _, index = kernels.pair_index(g, h, 40, 25)
    for compiled in (False, True):
        ztz, ztx = np.zeros((40, K, K)), np.zeros((40, K, P))
        kernels.add_group_products(g, Z, D, ztz, ztx, compiled=compiled)
        pairs = np.zeros((rows.size, K, 2))
        kernels.add_pair_products(index, Z, D[:, :2], pairs, compiled=compiled)
        blocks = np.einsum("jac,jbc->jab", Z[:18].reshape(6, 3, 3), Z[:18].reshape(6, 3, 3))
        blocks += np.eye(K)
        logdet = kernels.block_cholesky(blocks, compiled=compiled)
        inverse = kernels.block_lower_inverse(blocks, compiled=compiled)
        found[compiled] = (ztz, ztx, pairs, blocks, np.array(logdet), inverse)
    for a, b in zip(found[False], found[True], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n_g", "n_h"), [(40, 25), (5000, 4000), (90_000, 3), (2, 70_000)])
@pytest.mark.parametrize("n", [0, 1, 3000])
def test_pairs_are_numbered_in_their_order(n: int, n_g: int, n_h: int) -> None:
    rng = np.random.default_rng(3)
    g = rng.integers(n_g // 2, n_g, n).astype(np.int32)
    h = rng.integers(0, n_h, n).astype(np.int32)
    g, h = np.concatenate([g, g[: n // 3]]), np.concatenate([h, h[: n // 3]])
    rows, cols, index = kernels.pair_index(g, h, n_g, n_h)
    distinct = sorted(set(zip(g.tolist(), h.tolist(), strict=True)))
    assert list(zip(rows.tolist(), cols.tolist(), strict=True)) == distinct
    np.testing.assert_array_equal(rows[index], g)
    np.testing.assert_array_equal(cols[index], h)
    assert {x.dtype for x in (rows, cols, index)} == {np.dtype(np.int32)}


def test_systems_are_not_changed() -> None:
    twin = random_system("three crossed", [2], seed=9)
    before = [f.ztz.copy() for f in twin.system.factors]
    engine = BlockedEngine(twin.system)
    engine.factorize(random_lambdas(twin, "general", seed=1))
    engine.selected_inverse()
    assert isinstance(twin.system, BlockSystem)
    for f, ztz in zip(twin.system.factors, before, strict=True):
        np.testing.assert_array_equal(f.ztz, ztz)
