"""Numbers of a power analysis and of likelihood-ratio tests against those of scipy.stats."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import mixlm_sparse as mx
from mixlm_sparse.api.power_result import binomial_interval
from mixlm_sparse.inference.models.mixture import mixture_p, naive_p


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 20), (7, 20), (20, 20), (823, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_intervals_of_a_share(k, n, level):
    test = scipy.stats.binomtest(k, n)
    wilson = test.proportion_ci(level, method="wilson")
    assert binomial_interval(k, n, level, "wilson") == pytest.approx(tuple(wilson), abs=1e-12)
    tail = (1.0 - level) / 2.0
    exact = (
        scipy.stats.beta.ppf(tail, k, n - k + 1) if k else 0.0,
        scipy.stats.beta.isf(tail, k + 1, n - k) if k < n else 1.0,
    )
    found = binomial_interval(k, n, level, "clopper-pearson")
    assert found == pytest.approx(exact, abs=1e-12)
    # scipy.stats looks for the exact interval by a search
    assert found == pytest.approx(tuple(test.proportion_ci(level)), abs=1e-9)


def test_no_simulation_has_no_interval():
    assert np.isnan(binomial_interval(0, 0, 0.95, "wilson")).all()


@pytest.mark.parametrize("test", ["z", "lr", "satterthwaite"])
def test_p_values_of_one_effect(test):
    rng = np.random.default_rng(2)
    plan = pd.DataFrame({"x": rng.normal(size=60), "g": [f"g{i // 6}" for i in range(60)]})
    truth = {"beta": {"(Intercept)": 0.0, "x": 0.4}, "sd": {"g": 0.5}, "sigma": 1.0}
    found = mx.power(
        "y ~ x + (1 | g)", plan, truth, effect="x", nsim=8, seed=1, test=test, progress=False
    )
    assert found.effect == ("x",)
    assert found.true.tolist() == [0.4]
    assert found.estimates.shape == found.std_errors.shape == (8, 1)
    t = (found.estimates / found.std_errors)[:, 0]
    if test == "z":
        assert found.p_values == pytest.approx(2.0 * scipy.stats.norm.sf(np.abs(t)), rel=1e-10)
    else:
        assert ((found.p_values > 0.0) & (found.p_values < 1.0)).all()
        # all three order the simulations alike, as they look at the same effect
        order = scipy.stats.spearmanr(found.p_values, -np.abs(t)).statistic
        assert order > 0.9


def test_p_values_of_likelihood_ratios():
    for statistic in (1e-8, 0.3, 5.0, 80.0, 900.0):
        for df in (1, 2, 7):
            chi2 = scipy.stats.chi2.sf(statistic, df)
            assert naive_p(statistic, df) == pytest.approx(chi2, rel=1e-12)
            below = scipy.stats.chi2.sf(statistic, df - 1) if df > 1 else 0.0
            assert mixture_p(statistic, df) == pytest.approx(0.5 * (below + chi2), rel=1e-12)
    assert naive_p(-1e-9, 2) == 1.0
