"""The fused evaluations, compiled and in NumPy, by level and by class: against dense algebra."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlm_sparse.engines.decisions import use_compiled
from mixlm_sparse.engines.fused.classes import classes_of
from mixlm_sparse.engines.fused.dense import SmallDense
from mixlm_sparse.engines.fused.levels import SingleFactor
from mixlm_sparse.engines.fused.plain import PlainDense, PlainFactor
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from tests.support.block_systems import random_lambdas, random_system


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> Iterator[None]:
    use_compiled(True)
    yield
    use_compiled(None)


def products(
    seed: int, K: int, p: int, kinds: int, levels: int
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Z'Z (L, K, K), Z'[Q y_f] (L, K, p + 1), y_f'y_f and n of levels of a few kinds."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((int(rng.integers(1, 5)), K)) for _ in range(kinds)]
    kind = rng.integers(kinds, size=levels)
    Z = [rows[k] for k in kind]
    stops = np.cumsum([z.shape[0] for z in Z])
    n = int(stops[-1]) + p + 2
    basis = np.linalg.qr(rng.standard_normal((n, p + 1)))[0]
    basis[:, p] *= 3.0
    parts = np.split(basis, stops)[:-1]
    ztx = np.stack([z.T @ part for z, part in zip(Z, parts, strict=True)])
    return np.stack([z.T @ z for z in Z]), ztx, 9.0, n


def dense(
    ztz: np.ndarray, ztx: np.ndarray, yy: float, lam: np.ndarray, nu: float, *, reml: bool
) -> tuple[float, float, float, np.ndarray]:
    """log|C|, log|R_X|^2, pwrss and the derivative by Lambda, level by level."""
    K, P = ztx.shape[1:]
    p = P - 1
    M = np.diag(np.append(np.ones(p), yy))
    C_inverse, logdet = [], 0.0
    for A, x in zip(ztz, ztx, strict=True):
        C = lam.T @ A @ lam + np.eye(K)
        C_inverse.append(np.linalg.inv(C))
        logdet += np.linalg.slogdet(C)[1]
        M -= x.T @ lam @ C_inverse[-1] @ lam.T @ x
    XVX = M[:p, :p]
    beta = np.linalg.solve(XVX, M[:p, p])
    pwrss = M[p, p] - M[:p, p] @ beta
    a = np.append(-beta, 1.0)
    Omega = nu / pwrss * np.outer(a, a)
    if reml:
        Omega[:p, :p] += np.linalg.inv(XVX)
    G = np.zeros((K, K))
    for A, x, inverse in zip(ztz, ztx, C_inverse, strict=True):
        U = inverse @ lam.T @ x
        G += 2.0 * (A @ lam @ inverse - (x - A @ lam @ U) @ Omega @ U.T)
    return logdet, np.linalg.slogdet(XVX)[1], pwrss, G


@settings(max_examples=120)
@given(
    seed=st.integers(0, 10**6),
    K=st.integers(1, 3),
    p=st.integers(0, 3),
    kinds=st.integers(1, 3),
    size=st.sampled_from([0.0, 0.05, 1.0, 30.0]),
    reml=st.booleans(),
    form=st.sampled_from([SingleFactor, PlainFactor]),
    by_class=st.booleans(),
)
def test_levels_and_classes_are_dense_algebra(
    seed: int, K: int, p: int, kinds: int, size: float, reml: bool,
    form: type[SingleFactor | PlainFactor], by_class: bool,
) -> None:  # fmt: skip
    ztz, ztx, yy, n = products(seed, K, p, kinds, levels=kinds * K * (p + 1) + 5)
    if not by_class:
        ztz[0] *= 1.0 + 1e-6
        ztz, ztx = ztz[: K * (p + 1) - 1], ztx[: K * (p + 1) - 1]
        if ztz.shape[0] == 0:
            return
    fused = form(ztz, ztx, yy, 1e-30)
    assert (fused.classes is not None) == by_class
    lam = size * np.tril(np.random.default_rng(seed).standard_normal((K, K)))
    found = fused.evaluate([lam], n, reml=reml, gradient=True)
    assert found is not None
    ldL2, ldRX2, pwrss, G = dense(ztz, ztx, yy, lam, n, reml=reml)
    assert found.ldL2 == pytest.approx(ldL2, rel=1e-12, abs=1e-12)
    assert found.ldRX2 == pytest.approx(ldRX2, rel=1e-10, abs=1e-10)
    assert found.pwrss == pytest.approx(pwrss, rel=1e-10)
    np.testing.assert_allclose(found.gradient[0], G, rtol=1e-8, atol=1e-8 * n)
    if isinstance(fused, PlainFactor):
        at = np.stack([lam, 0.5 * lam])
        each = fused.evaluate_each([at], n, reml=reml)
        assert each is not None
        for own, one in zip(each.gradient[0], at, strict=True):
            G = dense(ztz, ztx, yy, one, n, reml=reml)[3]
            np.testing.assert_allclose(own, G, rtol=1e-8, atol=1e-8 * n)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("case", ["general", "singular", "zero"])
@pytest.mark.parametrize("widths", [[1], [2], [1, 3]], ids=str)
@pytest.mark.parametrize("form", [SmallDense, PlainDense])
def test_several_factors_are_dense_algebra(
    form: type[SmallDense | PlainDense], widths: list[int], case: str, reml: bool
) -> None:
    twin = random_system("three crossed", widths, seed=4)
    lambdas = random_lambdas(twin, case, seed=5)
    X = np.concatenate([f.ztx.reshape(-1, f.ztx.shape[2]) for f in twin.system.factors])
    X *= 0.1 / np.abs(X).max()
    parts = np.split(X, np.cumsum([f.n_levels * f.width for f in twin.system.factors])[:-1])
    blocks = BlockSystem(
        tuple(
            FactorBlock(f.label, f.ztz, part.reshape(f.ztx.shape))
            for f, part in zip(twin.system.factors, parts, strict=True)
        ),
        twin.system.pairs,
    )
    n, yy, p = 100, 4.0, X.shape[1] - 1
    fused = form(blocks, yy, 1e-30)
    found = fused.evaluate(lambdas, n, reml=reml, gradient=True)
    assert found is not None
    if isinstance(fused, PlainDense):
        at = [np.stack([0.5 * lam, lam]) for lam in lambdas]
        each = fused.evaluate_each(at, n, reml=reml)
        assert each is not None
        for own, G in zip(each.gradient, found.gradient, strict=True):
            np.testing.assert_allclose(own[1], G, rtol=1e-9, atol=1e-9 * n)
    Lambda, C = twin.Lambda(lambdas), twin.C(lambdas)
    U = np.linalg.solve(C, Lambda.T @ X)
    M = np.diag(np.append(np.ones(p), yy)) - X.T @ Lambda @ U
    beta = np.linalg.solve(M[:p, :p], M[:p, p]) if p else np.zeros(0)
    pwrss = M[p, p] - M[:p, p] @ beta
    a = np.append(-beta, 1.0)
    Omega = n / pwrss * np.outer(a, a)
    if reml:
        Omega[:p, :p] += np.linalg.inv(M[:p, :p])
    whole = twin.A @ Lambda @ np.linalg.inv(C) - (X - twin.A @ Lambda @ U) @ Omega @ U.T
    assert found.ldL2 == pytest.approx(np.linalg.slogdet(C)[1], rel=1e-11, abs=1e-11)
    assert found.pwrss == pytest.approx(pwrss, rel=1e-10)
    assert found.ldRX2 == pytest.approx(np.linalg.slogdet(M[:p, :p])[1], rel=1e-9, abs=1e-10)
    for g, L in enumerate(twin.levels):
        expected = 2.0 * sum(twin.block(whole, g, j, g, j) for j in range(L))
        np.testing.assert_allclose(found.gradient[g], expected, rtol=1e-8, atol=1e-8)


def test_levels_that_all_differ_have_no_classes() -> None:
    ztz = np.random.default_rng(1).uniform(1.0, 2.0, (2000, 1, 1))
    assert classes_of(ztz, 2) is None
    assert classes_of(np.zeros((10, 1, 1)), 2) is None


def test_blocks_that_differ_by_rounding_are_one_class_and_others_are_not() -> None:
    ztz = np.tile(np.array([[2.0, 0.3], [0.3, 1.0]]), (40, 1, 1))
    ztz[::2] *= 1.0 + 2e-16
    one = classes_of(ztz, 2)
    assert one is not None
    assert one.count.size <= 2
    ztz[7] *= 1.0 + 1e-9
    two = classes_of(ztz, 2)
    assert two is not None
    assert two.count.tolist().count(1.0) == 1
    np.testing.assert_allclose(two.blocks[two.code], ztz, rtol=1e-15)


def test_rare_blocks_beyond_the_sample_are_found() -> None:
    sizes = np.full(20_000, 3.0)
    sizes[[5, 4001, 19_999]] = 7.0, 11.0, 7.0
    found = classes_of(sizes[:, None, None], 3)
    assert found is not None
    assert sorted(found.count.tolist()) == [1.0, 2.0, 19_997.0]
    np.testing.assert_array_equal(found.blocks[found.code, 0, 0], sizes)
