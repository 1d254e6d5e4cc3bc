"""The parametric-bootstrap likelihood-ratio test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, OptionError
from tests.model.test_predict import crossed_data, quiet_fit


@pytest.fixture(scope="module")
def sleep():
    return mx.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def larger(sleep):
    return mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)


@pytest.fixture(scope="module")
def smaller(sleep):
    return quiet_fit("Reaction ~ 1 + (Days | Subject)", sleep)


def test_the_reference_is_made_of_refits_under_the_smaller_model(larger, smaller):
    test = mx.pb_modcomp(larger, smaller, nsim=60, seed=1)
    big, small = larger.refit_ml(), smaller.refit_ml()
    assert test.statistic == pytest.approx(small.criterion - big.criterion)
    assert test.df == 1
    Y = small.simulate(3, seed=1)
    for i in range(3):
        ratio = small.refit(Y[:, i]).criterion - big.refit(Y[:, i]).criterion
        assert test.reference[i] == pytest.approx(ratio, abs=2e-6)
    assert test.p_value == 1 / 61
    assert test.n_failed == 0
    two = mx.pb_modcomp(larger, smaller, nsim=60, seed=1, n_jobs=2)
    assert np.array_equal(test.reference, two.reference)


def test_the_table(larger, smaller):
    test = mx.pb_modcomp(larger, smaller, nsim=80, seed=2)
    frame = test.to_frame()
    assert list(frame.index) == ["LRT", "PBtest", "Gamma", "Bartlett", "F"]
    D, mean, var = test.statistic, test.reference.mean(), test.reference.var(ddof=1)
    assert frame.loc["LRT", "p_value"] == pytest.approx(stats.chi2.sf(D, 1))
    assert frame.loc["Bartlett", "statistic"] == pytest.approx(D / mean)
    assert frame.loc["Gamma", "p_value"] == pytest.approx(
        stats.gamma.sf(D, mean**2 / var, scale=var / mean)
    )
    if mean > 1:
        assert stats.f.mean(1, frame.loc["F", "ddf"]) == pytest.approx(mean)
    assert "larger:  Reaction ~ Days" in repr(test)


def test_a_variance_on_its_boundary_has_a_reference_with_zeros():
    data = crossed_data()
    larger = quiet_fit("y ~ x + (1 | g) + (1 | h)", data)
    smaller = quiet_fit("y ~ x + (1 | g)", data)
    test = mx.pb_modcomp(larger, smaller, nsim=200, seed=1)
    zero = np.mean(test.reference < 1e-6)
    assert 0.35 < zero < 0.75  # about half, a little more in small samples
    assert (test.reference >= 0).all()


def test_all_random_terms_at_once_against_least_squares(larger, sleep):
    test = mx.pb_modcomp(larger, "Reaction ~ Days", nsim=40, seed=1)
    X = np.column_stack([np.ones(180), sleep["Days"]])
    y = sleep["Reaction"].to_numpy()
    rss = np.linalg.lstsq(X, y, rcond=None)[1][0]
    deviance = 180 * (1 + np.log(2 * np.pi * rss / 180))
    assert test.statistic == pytest.approx(deviance - larger.refit_ml().criterion)
    assert test.df == 3
    assert test.p_value == 1 / 41
    data = crossed_data()
    data.loc[5, "f"] = None
    weighted = quiet_fit("y ~ x + f + (1 | g)", data, weights="w", offset="o")
    small = mx.pb_modcomp(weighted, "y ~ x", nsim=20, seed=1)
    d = data.drop(index=5)
    W = np.sqrt(d["w"].to_numpy())
    X = np.column_stack([np.ones(59), d["x"]]) * W[:, None]
    rss = np.linalg.lstsq(X, (d["y"] - d["o"]).to_numpy() * W, rcond=None)[1][0]
    deviance = 59 * (1 + np.log(2 * np.pi * rss / 59)) - np.log(d["w"]).sum()
    assert small.statistic == pytest.approx(deviance - weighted.refit_ml().criterion)
    assert small.df == 3


def test_an_early_end_keeps_what_is_done(larger, smaller):
    test = mx.pb_modcomp(larger, smaller, nsim=100, seed=1, progress=lambda done, _: done < 12)
    assert not test.complete
    assert test.reference.size == 12
    assert np.isfinite(test.p_value)


def test_models_that_cannot_be_compared_are_refused(larger, smaller, sleep):
    with pytest.raises(OptionError, match="larger model first"):
        mx.pb_modcomp(smaller, larger, nsim=5)
    with pytest.raises(DataError, match="different rows, 180 and 170"):
        mx.pb_modcomp(larger, quiet_fit("Reaction ~ 1 + (1 | Subject)", sleep.iloc[10:]), nsim=5)
    with pytest.raises(DataError, match="different responses"):
        mx.pb_modcomp(larger, quiet_fit("log(Reaction) ~ 1 + (1 | Subject)", sleep), nsim=5)
    with pytest.raises(OptionError, match="has random terms"):
        mx.pb_modcomp(larger, "Reaction ~ 1 + (1 | Subject)", nsim=5)
    with pytest.raises(OptionError, match="not nested"):
        mx.pb_modcomp(
            quiet_fit("Reaction ~ sin(Days) + cos(Days) + (1 | Subject)", sleep),
            quiet_fit("Reaction ~ Days + (1 | Subject)", sleep),
            nsim=5,
        )
    with pytest.raises(OptionError, match="give a fit, or a formula"):
        mx.pb_modcomp(larger, 3, nsim=5)
    with pytest.raises(OptionError, match="fit of lmer"):
        mx.pb_modcomp("Reaction ~ Days", smaller, nsim=5)
