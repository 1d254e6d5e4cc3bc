"""Levels with equal blocks of Z'WZ, evaluated by class: against dense algebra of single levels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlm_sparse.engines.compiled import use_compiled
from mixlm_sparse.engines.fused.classes import classes_of
from mixlm_sparse.engines.fused.levels import SingleFactor


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


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    K=st.integers(1, 3),
    p=st.integers(0, 3),
    kinds=st.integers(1, 3),
    size=st.sampled_from([0.0, 0.05, 1.0, 30.0]),
    reml=st.booleans(),
)
def test_classes_are_dense_algebra(
    seed: int, K: int, p: int, kinds: int, size: float, reml: bool
) -> None:
    ztz, ztx, yy, n = products(seed, K, p, kinds, levels=kinds * K * (p + 1) + 5)
    fused = SingleFactor(ztz, ztx, yy, 1e-30)
    assert fused.classes is not None
    assert fused.classes.count.sum() == ztz.shape[0]
    lam = size * np.tril(np.random.default_rng(seed).standard_normal((K, K)))
    found = fused.evaluate([lam], n, reml=reml, gradient=True)
    assert found is not None
    ldL2, ldRX2, pwrss, G = dense(ztz, ztx, yy, lam, n, reml=reml)
    assert found.ldL2 == pytest.approx(ldL2, rel=1e-12, abs=1e-12)
    assert found.ldRX2 == pytest.approx(ldRX2, rel=1e-10, abs=1e-10)
    assert found.pwrss == pytest.approx(pwrss, rel=1e-10)
    np.testing.assert_allclose(found.gradient[0], G, rtol=1e-8, atol=1e-8 * n)


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
