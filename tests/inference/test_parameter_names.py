"""Parameters have kinds: a predictor that is called like a variance parameter is not one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx


def data(**names: str) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(12), 8)
    x = rng.normal(size=96)
    y = 2.0 + 1.5 * x + rng.normal(size=12)[g] + 0.7 * rng.normal(size=96)
    return pd.DataFrame({"y": y, "x": x, "g": g}).rename(columns=names)


@pytest.fixture(scope="module")
def pair() -> tuple[mx.LinearMixedFit, mx.LinearMixedFit]:
    plain = mx.lmer("y ~ x + (1 | g)", data())
    named = mx.lmer("y ~ sigma + (1 | g)", data(x="sigma"))
    return plain, named


RENAMED = {"sigma": "sd_Residual", "x": "sigma"}


@pytest.mark.parametrize("method", ["profile", "wald", "boot"])
def test_intervals_beside_a_predictor_called_sigma(pair, method):
    plain, named = pair
    options = {"nsim": 20, "seed": 3, "progress": False} if method == "boot" else {}
    expected = plain.confint(method, **options).rename(index=RENAMED)
    found = named.confint(method, **options)
    assert list(found.index) == ["sd_(Intercept)|g", "sd_Residual", "(Intercept)", "sigma"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # by name: the coefficient; by group: kinds decide
    one = named.confint(method, parm="sigma", **options)
    assert list(one.index) == ["sigma"]
    np.testing.assert_allclose(one, expected.loc[["sigma"]], rtol=1e-6)
    groups = named.confint(method, parm="theta_", **options)
    assert list(groups.index) == ["sd_(Intercept)|g", "sd_Residual"]
    assert list(named.confint(method, parm="beta_", **options).index) == ["(Intercept)", "sigma"]


def test_profile_bootstrap_and_influence_name_every_parameter_once(pair):
    plain, named = pair
    curves = named.profile()
    assert curves["sd_Residual"].estimate == pytest.approx(named.refit_ml().sigma)
    assert curves["sigma"].estimate == pytest.approx(named.refit_ml().fixef["sigma"])
    assert curves.to_frame().columns.is_unique
    boot = named.bootstrap(5, seed=1, progress=False)
    assert boot.original["sigma"] == pytest.approx(named.fixef["sigma"])
    assert boot.original["sd_Residual"] == pytest.approx(named.sigma)
    np.testing.assert_array_equal(
        boot.samples.to_numpy(), plain.bootstrap(5, seed=1, progress=False).samples.to_numpy()
    )
    changed = named.influence("g").estimates()
    assert changed.columns.is_unique
    table = named.variance_components()
    assert table.loc["sd_Residual", "estimate"] == pytest.approx(named.sigma)


def test_a_predictor_called_like_a_standard_deviation():
    fit = mx.lmer("y ~ `sd_(Intercept)|g` + (1 | g)", data(x="sd_(Intercept)|g"))
    kinds = fit.profile().confint().index
    assert kinds.is_unique
    assert len(kinds) == 4


def test_groups_of_names_where_a_statistic_has_none(pair):
    boot = pair[0].bootstrap(4, statistic=lambda fit: {"sigma": fit.sigma}, seed=1, progress=False)
    assert list(boot.confint(parm="sigma").index) == ["sigma"]
    with pytest.raises(mx.OptionError, match="'theta_'"):
        boot.confint(parm="theta_")


def test_names_with_and_without_backticks():
    fit = mx.lmer("y ~ `my x` + (1 | g)", data(x="my x"))
    expected = fit.confint("wald", parm="my x")
    assert list(expected.index) == ["my x"]
    assert fit.confint("wald", parm="`my x`").equals(expected)
    assert list(fit.profile("`my x`")) == ["my x"]
