"""Hommel's method, families together, scales for good, counterfactuals: against plain NumPy."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mixlm_sparse as mx
from mixlm_sparse.inference.means.adjustments import Family
from tests.inference.test_contrasts import FORMULA, dense, frame


@pytest.fixture(scope="module")
def fit():
    return mx.lmer(FORMULA, frame())


# -- Hommel -----------------------------------------------------------------------------------


def closed_test(p: np.ndarray) -> np.ndarray:
    """The largest p of Simes's tests of all sets with a hypothesis, by trying them all."""
    n = p.size
    out = np.zeros(n)
    for size in range(1, n + 1):
        for members in combinations(range(n), size):
            ordered = np.sort(p[list(members)])
            simes = (size * ordered / np.arange(1, size + 1)).min()
            out[list(members)] = np.maximum(out[list(members)], min(simes, 1.0))
    return out


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=7))
def test_hommel_is_the_closed_test_of_simes(values):
    p = np.array(values)
    family = Family(np.eye(p.size))
    t, df = np.zeros(p.size), np.full(p.size, 10.0)
    found = family.p_values(t, df, p, "hommel")
    np.testing.assert_allclose(found, closed_test(p), rtol=1e-12, atol=1e-300)
    assert (found <= family.p_values(t, df, p, "hochberg") + 1e-12).all()


def test_hommel_by_name(fit):
    means = fit.emmeans("a", by="b")
    table = means.pairs(adjust="hommel", conf_int=True)
    plain = means.pairs(adjust="none")["p_value"].to_numpy()
    np.testing.assert_allclose(table["p_value"][:3], closed_test(plain[:3]), rtol=1e-12)
    assert "Hommel's method" in repr(table)
    bonferroni = means.pairs(adjust="bonferroni", conf_int=True)
    np.testing.assert_allclose(table["lower"], bonferroni["lower"], rtol=1e-12)


# -- families together ------------------------------------------------------------------------


def test_families_are_adjusted_together(fit):
    means = fit.emmeans("a", by="b")
    inside = means.pairs(conf_int=True)
    for name, p_of, level in (
        ("bonferroni", lambda p: np.minimum(2.0 * p, 1.0), 0.975),
        ("sidak", lambda p: 1.0 - (1.0 - p) ** 2, np.sqrt(0.95)),
    ):
        both = means.pairs(conf_int=True, cross_adjust=name)
        np.testing.assert_allclose(both["p_value"], p_of(inside["p_value"]), rtol=1e-10)
        estimates = fit.emmeans("a", by="b", level=level)
        np.testing.assert_allclose(both["lower"], estimates.pairs(conf_int=True)["lower"])
        assert "adjusted across 2 families" in " ".join(repr(both).split())
        # a limit beyond zero is a p-value below 1 - level
        away = (both["lower"] > 0) | (both["upper"] < 0)
        assert ((both["p_value"] < 0.05) == away).all()
    alone = fit.emmeans("a").pairs(cross_adjust="bonferroni")
    pd.testing.assert_frame_equal(alone.to_frame(), fit.emmeans("a").pairs().to_frame())
    for call in (means.test, means.confint):
        assert "across 2 families" in " ".join(repr(call(cross_adjust="sidak")).split())
    with pytest.raises(mx.OptionError, match="cross_adjust is 'tukey': use one of 'none', 'bonf"):
        means.pairs(cross_adjust="tukey")


def test_polynomials_up_to_a_degree(fit):
    means = fit.emmeans("a")
    whole = means.contrast("poly")
    first = means.contrast("poly", max_degree=1)
    assert first["contrast"].tolist() == ["linear"]
    assert first["estimate"][0] == whole["estimate"][0]
    with pytest.raises(mx.OptionError, match="max_degree is 0: use a whole number"):
        means.contrast("poly", max_degree=0)


# -- scales for good --------------------------------------------------------------------------


def delta(fit, data, of, slope):
    """Means of a x b taken through `of`, and their covariance."""
    L, beta, C = dense(fit, data)
    eta = L @ beta
    D = np.diag(slope(eta)) @ L
    return of(eta), D @ C @ D.T


@pytest.mark.parametrize("formula", [FORMULA, "log(positive) ~ a * b + x + (1 | g)"])
def test_differences_on_the_scale_of_the_data(formula):
    data = frame()
    fit = mx.lmer(formula, data)
    if formula.startswith("log"):
        data = data.assign(y=np.log(data["positive"]))
        values, V = delta(fit, data, np.exp, np.exp)
    else:
        values, V = delta(fit, data, lambda eta: eta, np.ones_like)
    means = fit.emmeans(["a", "b"])
    there = means.regrid()
    table = there.to_frame()
    np.testing.assert_allclose(table["response"], values, rtol=1e-6)
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(V)), rtol=1e-5)
    np.testing.assert_allclose(table["df"], means.to_frame()["df"], rtol=1e-6)
    pairs = there.contrast([1.0, 0.0, 0.0, 0.0, 0.0, -1.0])
    c = np.array([1.0, 0, 0, 0, 0, -1.0])
    assert pairs["estimate"][0] == pytest.approx(c @ values, rel=1e-6)
    assert pairs["std_error"][0] == pytest.approx(np.sqrt(c @ V @ c), rel=1e-5)
    # once more changes nothing
    np.testing.assert_allclose(there.regrid().to_frame()["response"], values, rtol=1e-6)
    assert "scale of the data" in " ".join(repr(there).split())
    assert repr(there).startswith("Marginal means")


def test_ratios_of_means_of_a_plain_response(fit):
    data = frame()
    values, V = delta(fit, data, np.log, lambda eta: 1.0 / eta)
    found = fit.emmeans(["a", "b"]).regrid("log")
    np.testing.assert_allclose(found.to_frame()["response"], np.exp(values), rtol=1e-6)
    pairs = found.pairs(adjust="none")
    assert pairs["contrast"][0] == "p u / q u"
    assert pairs["ratio"][0] == pytest.approx(np.exp(values[0] - values[1]), rel=1e-6)
    c = np.array([1.0, -1.0, 0, 0, 0, 0])
    t = (c @ values) / np.sqrt(c @ V @ c)
    assert pairs["statistic"][0] == pytest.approx(t, rel=1e-5)
    assert pairs["p_value"][0] == pytest.approx(2 * stats.t.sf(abs(t), pairs["df"][0]), rel=1e-5)
    # of a response in logarithms: what type="response" gives
    logged = mx.lmer("log(positive) ~ a + (1 | g)", data)
    expected = logged.emmeans("a", type="response").pairs()
    np.testing.assert_allclose(
        logged.emmeans("a").regrid("log").pairs()["ratio"], expected["ratio"], rtol=1e-10
    )


def test_what_has_no_other_scale(fit):
    means = fit.emmeans("a")
    with pytest.raises(mx.OptionError, match="regrid is for means: use it before contrast"):
        means.pairs().estimates.regrid()
    with pytest.raises(mx.OptionError, match="regrid is for means"):
        fit.emtrends("x", by="b").regrid()
    with pytest.raises(mx.OptionError, match="scale is 'link': use one of 'response', 'log'"):
        means.regrid("link")
    with pytest.raises(mx.OptionError, match="take effect sizes before regrid"):
        means.regrid().eff_size()
    low = frame()
    low["y"] -= 5.0
    below = mx.lmer(FORMULA, low).emmeans("a")
    with pytest.raises(mx.OptionError, match="not positive, and has no logarithm"):
        below.regrid("log")


# -- counterfactuals --------------------------------------------------------------------------


def test_every_row_at_every_level(fit):
    data = frame()
    found = fit.emmeans("a", counterfactuals="a")
    expected = [
        fit.predict(data.assign(a=level), "population").mean() for level in ("p", "q", "r")
    ]
    np.testing.assert_allclose(found.to_frame()["emmean"], expected, rtol=1e-12)
    _, beta, C = dense(fit, data)
    v = (data["b"] == "v").to_numpy()
    x = data["x"].to_numpy()
    rows = np.array([
        [1, a == "q", a == "r", v.mean(), x.mean(), (a == "q") * v.mean(), (a == "r") * v.mean()]
        for a in ("p", "q", "r")
    ], dtype=float)  # fmt: skip
    np.testing.assert_allclose(found.to_frame()["emmean"], rows @ beta, rtol=1e-5)
    np.testing.assert_allclose(
        found.to_frame()["std_error"], np.sqrt(np.einsum("ij,jk,ik->i", rows, C, rows)), rtol=1e-4
    )
    assert "averages over 168 rows of the data, each at every a" in " ".join(repr(found).split())
    # the other factor by its own rows
    parted = fit.emmeans("a", by="b", counterfactuals="a").to_frame()
    only = data[data["b"] == "v"]
    row = parted[(parted["a"] == "q") & (parted["b"] == "v")]
    expected = fit.predict(only.assign(a="q"), "population").mean()
    assert row["emmean"].iloc[0] == pytest.approx(expected, rel=1e-12)
    # a covariate at values
    doses = fit.emmeans("x", at={"x": [1.0, 3.0]}, counterfactuals="x").to_frame()
    expected = [fit.predict(data.assign(x=value), "population").mean() for value in (1.0, 3.0)]
    np.testing.assert_allclose(doses["emmean"], expected, rtol=1e-12)
    # rows of one level
    part = fit.emmeans("a", counterfactuals="a", at={"b": "u"}).to_frame()
    expected = fit.predict(data[data["b"] == "u"].assign(a="p"), "population").mean()
    assert part["emmean"][0] == pytest.approx(expected, rel=1e-12)


def test_counterfactuals_that_cannot_be(fit):
    with pytest.raises(mx.OptionError, match="counterfactuals: there is no predictor of the fixed"):
        fit.emmeans("a", counterfactuals="g")
    with pytest.raises(mx.OptionError, match="'x' is a covariate, which is as it is in the data"):
        fit.emmeans(["a", "x"], counterfactuals="a")
    with pytest.raises(mx.OptionError, match="leave out weights="):
        fit.emmeans("a", counterfactuals="a", weights="cells")


def test_a_covariate_may_be_called_like_an_argument():
    data = frame().rename(columns={"x": "count"})
    fit = mx.lmer("y ~ a * count + (1 | g)", data)
    plain = mx.lmer("y ~ a * x + (1 | g)", frame())
    np.testing.assert_allclose(
        fit.emtrends("count", by="a").to_frame()["count.trend"],
        plain.emtrends("x", by="a").to_frame()["x.trend"],
    )


# -- every factor in turn ---------------------------------------------------------------------


def test_every_factor_in_turn_is_the_simple_contrasts_one_after_the_other(fit):
    means = fit.emmeans(["a", "b"])
    both = means.contrast("consec", simple="each", conf_int=True)
    parts = [means.contrast("consec", simple=name, conf_int=True) for name in ("a", "b")]
    numbers = ["estimate", "std_error", "df", "statistic", "lower", "upper"]
    one_after_the_other = pd.concat(part.to_frame() for part in parts)
    np.testing.assert_allclose(both[numbers], one_after_the_other[numbers], rtol=1e-12)
    # the multivariate t is integrated at random points
    np.testing.assert_allclose(both["p_value"], one_after_the_other["p_value"], atol=1e-3)
    assert both["contrast"].tolist() == one_after_the_other["contrast"].tolist()
    assert both["a"].tolist() == ["."] * 4 + list("pqr")
    assert both["b"].tolist() == ["u", "u", "v", "v", ".", ".", "."]
    again = fit.emmeans("a", by="b").contrast("consec", simple="each")
    assert again["a"].tolist() == both["a"].tolist()
    pairs = means.pairs(simple="each")
    np.testing.assert_allclose(pairs["p_value"][:6], means.pairs(simple="a")["p_value"], rtol=1e-9)
    across = means.pairs(simple="each", cross_adjust="bonferroni")
    np.testing.assert_allclose(across["p_value"], np.minimum(1.0, 5 * pairs["p_value"]), rtol=1e-9)
    assert "5 families" in " ".join(repr(across).split())


def test_every_factor_in_turn_where_there_is_one_or_none(fit):
    alone = fit.emmeans("a").pairs(simple="each")
    pd.testing.assert_frame_equal(alone.to_frame(), fit.emmeans("a").pairs().to_frame())
    held = fit.emmeans(["a", "b"], at={"b": "u"}).pairs(simple="each")
    assert held["b"].tolist() == ["u"] * 3
    with pytest.raises(mx.OptionError, match="nothing to compare"):
        fit.emmeans(["a", "b"], at={"a": "p", "b": "u"}).pairs(simple="each")
    with pytest.raises(mx.OptionError, match="name the factor that they compare"):
        fit.emmeans(["a", "b"]).contrast({"first": [1, -1, 0]}, simple="each")
    with pytest.raises(mx.OptionError, match="leave out simple='each'"):
        fit.emmeans(["a", "b"]).contrast(interaction="poly", simple="each")
