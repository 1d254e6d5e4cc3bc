"""Tests of few combinations of many coefficients: the same numbers, and no inverse is formed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.inference.fixed.methods import moments
from mixlm_sparse.solve.solution import PlsSolution

FORMULA = "y ~ x + code + (1 | g)"


@pytest.fixture(scope="module")
def codes() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 1500
    frame = pd.DataFrame(
        {
            "code": [f"p{i:03d}" for i in rng.integers(0, 120, n)],
            "x": rng.normal(size=n),
            "g": rng.integers(0, 25, n),
        }
    )
    frame["y"] = rng.normal(size=25)[frame["g"]] + frame["x"] + rng.normal(size=n)
    return frame


@pytest.mark.parametrize("ddf", ["normal", "satterthwaite"])
def test_no_inverse_of_all_coefficients(codes, ddf, monkeypatch) -> None:
    fit = mx.lmer(FORMULA, codes)
    # with the inverse
    fit.solution.RX_inv  # noqa: B018
    L = np.zeros((3, fit.system.p))
    L[0, 1], L[1, 5], L[2, [7, 9]] = 1.0, 1.0, (1.0, -1.0)
    whole = moments(fit, ddf)
    tested = fit.contest(L, ddf=ddf).to_frame()
    averages = fit.emmeans("code", at={"code": ["p001", "p002"]}, ddf=ddf).to_frame()
    se, V = whole.std_error(L), L @ whole.vcov @ L.T
    np.testing.assert_allclose(whole.covariance(L), V, rtol=1e-9)

    def formed(self: PlsSolution) -> None:
        raise AssertionError("an inverse of all coefficients was formed")

    other = mx.lmer(FORMULA, codes)
    monkeypatch.setattr(PlsSolution, "RX_inv", property(formed))
    found = moments(other, ddf)
    np.testing.assert_allclose(found.std_error(L), se, rtol=1e-9)
    np.testing.assert_allclose(found.covariance(L), V, rtol=1e-9)
    pd.testing.assert_frame_equal(other.contest(L, ddf=ddf).to_frame(), tested, rtol=1e-7)
    means = other.emmeans("code", at={"code": ["p001", "p002"]}, ddf=ddf)
    pd.testing.assert_frame_equal(means.to_frame(), averages, rtol=1e-7)
    pairs = other.emmeans("pairwise ~ code", at={"code": ["p001", "p002"]}, ddf=ddf)
    assert len(str(pairs)) > 0
