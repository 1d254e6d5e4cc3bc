"""Lambda and its derivatives, of all terms at once and term by term."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.solve.chart import Chart, surely_regular
from mixlm_sparse.solve.system import penalized_system

FORMULAS = [
    "y ~ 1 + (x | g) + (1 | h)",
    "y ~ 1 + (1 | g) + (0 + x | g) + (x || h)",
    "y ~ 1 + id(1 + x | g) + diag(x | h)",
    "y ~ 1 + cs(1 + x | g) + (x | h)",
]


def data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    g, h, x, y = rng.integers(8, size=80), rng.integers(6, size=80), *rng.normal(size=(2, 80))
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h})


@pytest.mark.parametrize("formula", FORMULAS)
def test_all_terms_at_once(formula: str) -> None:
    chart = penalized_system(mx.model_matrices(formula, data())).chart
    rng = np.random.default_rng(2)
    phis = rng.uniform(0.2, 1.2, size=(3, chart.m))
    slopes = [rng.normal(size=(3, K, K)) for K in chart.widths]
    each, pulled = chart.lambdas_each(phis), chart.pull_back_each(phis, slopes)
    for i, phi in enumerate(phis):
        one = chart.lambdas(phi)
        expected = chart.merge(chart.factors(phi))
        for Lambda, stacked, T in zip(one, each, expected, strict=True):
            np.testing.assert_array_equal(Lambda, T)
            np.testing.assert_array_equal(stacked[i], T)
        own = [G[i] for G in slopes]
        by_terms = chart.pull_back(phi, chart.split(own))
        np.testing.assert_allclose(chart.pull_back_merged(phi, own), by_terms, rtol=1e-14)
        np.testing.assert_allclose(pulled[i], by_terms, rtol=1e-14)


def test_no_terms() -> None:
    chart = Chart((), (), (), ())
    nothing = np.zeros((3, 0))
    assert chart.lambdas(nothing[0]) == chart.lambdas_each(nothing) == []
    assert chart.pull_back_merged(nothing[0], []).shape == (0,)
    assert chart.pull_back_each(nothing, []).shape == (3, 0)


@pytest.mark.parametrize("seed", range(20))
def test_singular_values_are_bounded_from_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 5))
    T = np.tril(rng.normal(size=(k, k))) * rng.choice([1.0, 1e-2, 1e-5], size=k)
    least = float(np.linalg.svd(T, compute_uv=False)[-1])
    determinant = float(np.linalg.det(T))
    assert not surely_regular(T, determinant, 1.001 * least)
    assert surely_regular(T, determinant, 1e-3 * least * np.linalg.cond(T) ** (1 - k))
    assert not surely_regular(np.zeros((k, k)), 0.0, 1e-4)
