"""A wide fixed part with few entries in a row is summed without its zeros, to the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import mixlm_sparse as mx
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.run import assemble
from mixlm_sparse.solve.criterion import criterion_and_gradient
from mixlm_sparse.solve.products import wide
from tests.support.strategies import designs

QUIET = mx.Control(warn=False)


def systems(call, monkeypatch):
    """Return the system by dense and by sparse sums."""
    monkeypatch.setattr(wide, "WIDE", 10**9)
    dense = assemble(call)[0]
    monkeypatch.setattr(wide, "WIDE", 1)
    monkeypatch.setattr(wide, "SPARSE_SHARE", 1.0)
    return dense, assemble(call)[0]


@settings(max_examples=30, deadline=None)
@given(design=designs())
def test_any_model(design):
    with pytest.MonkeyPatch.context() as patch:
        call = ModelCall(
            design.formula, design.data, weights=design.weights, offset=design.offset
        )
        dense, sparse = systems(call, patch)
    assert sparse.x_names == dense.x_names
    np.testing.assert_allclose(sparse.products.beta_ols, dense.products.beta_ols, atol=1e-8)
    theta = 0.7 * dense.theta0 + 0.1
    for reml in (True, False):
        d, slope = criterion_and_gradient(theta, sparse, reml=reml)
        expected, expected_slope = criterion_and_gradient(theta, dense, reml=reml)
        assert d == pytest.approx(expected, rel=1e-10, abs=1e-8)
        scale = np.abs(expected_slope).max() + 1.0
        np.testing.assert_allclose(slope, expected_slope, atol=1e-7 * scale)


@pytest.fixture
def postcodes():
    rng = np.random.default_rng(4)
    n = 6000
    frame = pd.DataFrame(
        {
            "code": [f"p{i:03d}" for i in rng.integers(0, 400, n)],
            "year": rng.integers(1990, 2020, n),
            "g": rng.integers(0, 50, n),
            "w": rng.uniform(0.5, 2.0, n),
        }
    )
    frame["y"] = 0.1 * frame["year"] + rng.normal(size=400)[frame["code"].str[1:].astype(int)]
    frame["y"] += rng.normal(size=50)[frame["g"]] + rng.normal(size=n)
    return frame


def test_a_factor_of_hundreds_of_levels(postcodes, monkeypatch):
    formula = "y ~ year + code + (1 | g)"
    fit = mx.lmer(formula, postcodes, weights="w", control=QUIET)
    assert fit.system.p == 401
    monkeypatch.setattr(wide, "WIDE", 10**9)
    dense = mx.lmer(formula, postcodes, weights="w", control=QUIET)
    assert fit.criterion == pytest.approx(dense.criterion, rel=1e-11)
    pd.testing.assert_series_equal(fit.fixef, dense.fixef, rtol=1e-7)
    pd.testing.assert_series_equal(fit.bse, dense.bse, rtol=1e-7)
    assert fit.sigma == pytest.approx(dense.sigma, rel=1e-8)


def test_dependent_columns_are_dropped(postcodes):
    postcodes["region"] = postcodes["code"].str[:2]  # a coarser factor after the finer one
    fit = mx.lmer("y ~ code + region + (1 | g)", postcodes, control=QUIET)
    plain = mx.lmer("y ~ code + (1 | g)", postcodes, control=QUIET)
    assert len(fit.system.dropped) == 3
    assert fit.criterion == pytest.approx(plain.criterion, rel=1e-9)
