"""Contrasts of marginal means: families, adjustments, scales, joint tests, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mixlm_sparse as mx
from mixlm_sparse.inference.means.adjustments import Family
from mixlm_sparse.inference.means.families import METHODS, named_family
from mixlm_sparse.inference.means.letters import compact_letters
from mixlm_sparse.inference.means.max_t import max_t
from tests.support import corpus

QUIET = mx.Control(warn=False)


def frame(seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"g": np.repeat(np.arange(24), 7)})
    n = len(data)
    data["a"] = rng.choice(list("pqr"), n, p=[0.5, 0.3, 0.2])
    data["b"] = rng.choice(["u", "v"], n, p=[0.7, 0.3])
    data["x"] = rng.normal(2.0, 1.0, n)
    mean = data["a"].map({"p": 0.0, "q": 0.6, "r": 1.0}) + 0.3 * data["x"] * (data["b"] == "v")
    data["y"] = 4.0 + mean + rng.normal(size=24)[data["g"]] + rng.normal(size=n)
    data["positive"] = np.exp(0.3 * data["y"])
    return data


FORMULA = "y ~ a * b + x + (1 | g)"


@pytest.fixture(scope="module")
def fit():
    return mx.lmer(FORMULA, frame())


def dense(fit, data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generalized least squares with the fit's variances; cell means of a x b at the mean of x."""

    def design(a, b, x):
        q, r, v = (a == "q") * 1.0, (a == "r") * 1.0, (b == "v") * 1.0
        return np.column_stack([np.ones(len(a)), q, r, v, x, q * v, r * v])

    X = design(data["a"].to_numpy(), data["b"].to_numpy(), data["x"].to_numpy())
    same = np.equal.outer(data["g"].to_numpy(), data["g"].to_numpy())
    sd = fit.varcorr["g"].to_numpy()[0, 0]
    V = sd * same + fit.sigma**2 * np.eye(len(X))
    C = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    beta = C @ X.T @ np.linalg.solve(V, data["y"].to_numpy())
    a, b = np.array(list("pqr") * 2), np.repeat(["u", "v"], 3)
    return design(a, b, np.full(6, data["x"].mean())), beta, C


# -- families ---------------------------------------------------------------------------------


def test_printed_polynomials():
    """Fisher and Yates' tables."""
    assert named_family("poly", list("abc")).M.tolist() == [[-1, 0, 1], [1, -2, 1]]
    four = named_family("poly", list("abcd")).M
    assert four.tolist() == [[-3, -1, 1, 3], [1, -1, -1, 1], [-1, 3, -3, 1]]
    five = named_family("poly", list("abcde")).M
    assert five[2].tolist() == [-1, 2, 0, -2, 1]
    assert five[3].tolist() == [1, -4, 6, -4, 1]
    assert named_family("poly", list("abcdef")).M[1].tolist() == [5, -1, -4, -4, -1, 5]
    assert named_family("poly", list("abcdefgh")).M.shape == (6, 8)


@given(st.integers(2, 9), st.sampled_from(METHODS), st.booleans())
def test_laws_of_families(k, method, reverse):
    labels = [f"m{i}" for i in range(k)]
    found = named_family(method, labels, reverse=reverse)
    sums = found.M.sum(axis=1)
    if method != "identity":
        np.testing.assert_allclose(sums, 0.0, atol=1e-12)
    assert len(found.labels) == len(found.M) == len(set(found.labels))
    if method in ("poly", "helmert"):
        gram = found.M @ found.M.T
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0.0, atol=1e-9)
    for label, row in zip(found.labels, found.M, strict=True):
        if " - " in label:
            plus, minus = label.split(" - ")
            assert row[labels.index(plus)] == 1.0
            assert row[labels.index(minus)] == -1.0


def test_families_by_hand(fit):
    means = fit.emmeans("a")
    m = means.to_frame()["emmean"].to_numpy()

    def estimates(method, **options):
        return means.contrast(method, **options)["estimate"].to_numpy()

    np.testing.assert_allclose(estimates("pairwise"), [m[0] - m[1], m[0] - m[2], m[1] - m[2]])
    np.testing.assert_allclose(estimates("revpairwise"), -estimates("pairwise"))
    np.testing.assert_allclose(estimates("trt.vs.ctrl"), m[1:] - m[0])
    np.testing.assert_allclose(estimates("trt.vs.ctrlk"), m[:2] - m[2])
    np.testing.assert_allclose(estimates("dunnett", ref="q"), [m[0] - m[1], m[2] - m[1]])
    np.testing.assert_allclose(estimates("trt.vs.ctrl", ref=["p", "r"]), m[1] - (m[0] + m[2]) / 2)
    np.testing.assert_allclose(estimates("consec"), np.diff(m))
    np.testing.assert_allclose(
        estimates("mean_chg"), [m[1:].mean() - m[0], m[2] - m[:2].mean()]
    )
    np.testing.assert_allclose(estimates("eff"), m - m.mean())
    np.testing.assert_allclose(estimates("del.eff")[0], m[0] - m[1:].mean())
    np.testing.assert_allclose(estimates("identity"), m)
    several = means.contrast({"one": [0, -1, 1], "two": {"p": 0.5, "q": 0.5, "r": -1}})
    assert several["contrast"].tolist() == ["one", "two"]
    np.testing.assert_allclose(several["estimate"], [m[2] - m[1], (m[0] + m[1]) / 2 - m[2]])
    as_frame = pd.DataFrame({"p": [1.0], "r": [-1.0]}, index=["ends"])
    assert means.contrast(as_frame)["estimate"][0] == pytest.approx(m[0] - m[2])
    assert means.contrast({"r": 1, "p": -1})["estimate"][0] == pytest.approx(m[2] - m[0])


def test_standard_errors_as_dense_algebra(fit):
    L, beta, C = dense(fit, frame())
    table = fit.emmeans("~ a | b", ddf="normal").to_frame()
    np.testing.assert_allclose(table["emmean"], L @ beta, rtol=1e-7)
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(L @ C @ L.T)), rtol=1e-6)
    M = np.array([[-0.5, 1, -0.5, 0.5, -1, 0.5]])
    found = fit.emmeans(["a", "b"], ddf="normal").contrast({"both": M[0]})
    row = M @ L
    assert found["estimate"][0] == pytest.approx((row @ beta)[0], rel=1e-6)
    assert found["std_error"][0] == pytest.approx(np.sqrt(row @ C @ row.T)[0, 0], rel=1e-6)


def test_specs_in_the_ways_of_r(fit):
    plain = fit.emmeans("a", by="b").to_frame()
    for text in ("~ a | b", "a | b", "~a|b"):
        pd.testing.assert_frame_equal(fit.emmeans(text).to_frame(), plain)
    both = fit.emmeans(["a", "b"]).to_frame()
    for text in ("~ a * b", "a:b", "~ a + b"):
        pd.testing.assert_frame_equal(fit.emmeans(text).to_frame(), both)
    found = fit.emmeans("pairwise ~ a | b")
    pd.testing.assert_frame_equal(found.contrasts.to_frame(), found.pairs().to_frame())
    assert "Pairwise comparisons" in repr(found)
    assert repr(found).count("\n\n") == 1
    assert "Comparisons with a reference" in repr(fit.emmeans("trt.vs.ctrl ~ a"))
    assert len(fit.emmeans("~ 1").to_frame()) == 1
    for wrong, words in (
        ("~ a | b | x", "more than one |"), ("a ~ b ~ x", "more than one ~"),
        ("pairs ~ a", "did you mean 'pairwise'"), ("~ a | c", "no predictor .* 'c'"),
    ):  # fmt: skip
        with pytest.raises(mx.OptionError, match=words):
            fit.emmeans(wrong)
    with pytest.raises(mx.OptionError, match="by is given twice"):
        fit.emmeans("~ a | b", by="b")


def test_a_column_may_be_called_like_a_formula():
    data = frame().rename(columns={"a": "p + q"})
    fit = mx.lmer("y ~ `p + q` + x + (1 | g)", data)
    assert fit.emmeans("p + q").cells.columns.tolist() == ["p + q"]
    assert fit.emmeans("~ `p + q`").cells.columns.tolist() == ["p + q"]


def test_contrasts_of_contrasts_are_interaction_contrasts(fit):
    means = fit.emmeans(["a", "b"])
    inner = means.contrast("consec", by="b", adjust="none")
    twice = inner.contrast("consec", by="contrast", adjust="none")
    at_once = means.contrast(interaction="consec", adjust="none")
    assert list(at_once.columns[:2]) == ["a_consec", "b_consec"]
    for name in ("estimate", "std_error", "df", "p_value"):
        np.testing.assert_allclose(twice[name], at_once[name], rtol=1e-9)
    assert at_once["estimate"][0] == pytest.approx(fit.fixef["aq:bv"], rel=1e-7)
    simple = means.pairs(simple="b")
    assert simple["a"].tolist() == list("pqr")
    assert simple["contrast"].unique().tolist() == ["u - v"]
    with pytest.raises(mx.OptionError, match="interaction has 1 families"):
        means.contrast(interaction=["poly"])


# -- adjustments ------------------------------------------------------------------------------


def one_family(fit, adjust, **options):
    return fit.emmeans("a").contrast("trt.vs.ctrl", adjust=adjust, **options)


def test_formulas_of_adjustments(fit):
    raw = fit.emmeans("a").pairs("none")["p_value"].to_numpy()
    t, df = (fit.emmeans("a").pairs("none")[name].to_numpy() for name in ("statistic", "df"))

    def adjusted(name):
        return fit.emmeans("a").pairs(name)["p_value"].to_numpy()

    np.testing.assert_allclose(adjusted("sidak"), 1 - (1 - raw) ** 3, rtol=1e-9)
    np.testing.assert_allclose(adjusted("bonferroni"), np.minimum(1, 3 * raw))
    np.testing.assert_allclose(adjusted("scheffe"), stats.f.sf(t**2 / 2, 2, df), rtol=1e-9)
    np.testing.assert_allclose(adjusted("fdr"), stats.false_discovery_control(raw), rtol=1e-9)
    np.testing.assert_allclose(
        adjusted("BY"), stats.false_discovery_control(raw, method="by"), rtol=1e-9
    )
    np.testing.assert_allclose(adjusted("bh"), adjusted("fdr"))
    for larger, smaller in (("bonferroni", "holm"), ("holm", "hochberg"), ("scheffe", "mvt")):
        assert (adjusted(larger) >= adjusted(smaller) - 1e-12).all()
    order = np.argsort(raw)
    hochberg = [min(raw[order[j]] * (3 - j) for j in range(i, 3)) for i in range(3)]
    np.testing.assert_allclose(adjusted("hochberg")[order], np.minimum(hochberg, 1))


@pytest.mark.parametrize("adjust", ["tukey", "dunnett", "mvt", "scheffe", "sidak", "fdr"])
def test_one_comparison_is_a_t_test(fit, adjust):
    means = fit.emmeans("b")
    plain, found = (means.pairs(name, conf_int=True) for name in ("none", adjust))
    pd.testing.assert_frame_equal(found.to_frame(), plain.to_frame())
    assert "adjusted" not in repr(found)


@pytest.mark.parametrize("adjust", ["tukey", "dunnett", "scheffe", "sidak", "bonferroni", "none"])
@pytest.mark.parametrize("side", ["two-sided", "less", "greater"])
def test_an_interval_holds_what_is_not_rejected(fit, adjust, side):
    """The limit is the null hypothesis with p = 1 - level."""
    method = "pairwise" if adjust == "tukey" else "trt.vs.ctrl"
    if adjust in ("tukey", "scheffe") and side != "two-sided":
        with pytest.raises(mx.OptionError, match="which is two-sided"):
            fit.emmeans("a").contrast(method, adjust=adjust, side=side)
        return
    means = fit.emmeans("a", level=0.9)
    table = means.contrast(method, adjust=adjust, conf_int=True, side=side)
    ends = [name for name in ("lower", "upper") if np.isfinite(table[name]).all()]
    assert ends == {"two-sided": ["lower", "upper"], "less": ["upper"], "greater": ["lower"]}[side]
    for name in ends:
        for i, end in enumerate(table[name]):
            p = means.contrast(method, adjust=adjust, side=side, null=end)["p_value"][i]
            assert p == pytest.approx(0.1, abs=2e-6)


def dunnett_p(c: float, k: int, df: float, *, two_sided: bool) -> float:
    """P(max > c) of k comparisons with a control of the same size, as Dunnett (1955) integrates."""

    z, wz = np.polynomial.legendre.leggauss(200)
    s, ws = np.polynomial.legendre.leggauss(200)
    z, wz, s, ws = 9.0 * z, 9.0 * wz, 3.0 * (s + 1.0), 3.0 * ws
    high = stats.norm.cdf(c * s[:, None] * np.sqrt(2) + z)
    low = stats.norm.cdf(-c * s[:, None] * np.sqrt(2) + z) if two_sided else 0.0
    inner = (high - low) ** k @ (wz * stats.norm.pdf(z))
    return 1.0 - float((ws * stats.chi.pdf(s * np.sqrt(df), df) * np.sqrt(df)) @ inner)


@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("c", [0.8, 2.2, 3.5])
def test_maximum_as_dunnett(k, c):
    R = 0.5 * (np.ones((k, k)) + np.eye(k))
    tol = 1e-6 if k < 4 else 5e-4  # a spiral covers the sphere better than a sequence of points
    for two_sided in (True, False):
        expected = dunnett_p(c, k, 14.0, two_sided=two_sided)
        assert max_t(R, two_sided=two_sided).exceeds(c, 14.0) == pytest.approx(expected, rel=tol)


def test_printed_dunnett_values():
    """Dunnett (1964), two-sided 5% points: 2 treatments and 10 df, 5 and 20."""
    for k, df, printed in ((2, 10, 2.57), (5, 20, 2.73), (3, 60, 2.41)):
        R = 0.5 * (np.ones((k, k)) + np.eye(k))
        assert max_t(R).quantile(0.95, df) == pytest.approx(printed, abs=0.006)


@pytest.mark.parametrize("k", [3, 4, 7])
def test_maximum_of_a_singular_family_is_tukeys(k):
    """All pairs of k means have rank k - 1."""
    M = named_family("pairwise", list("abcdefg")[:k]).M
    largest = max_t(M @ M.T / 2.0)
    assert largest.rank == k - 1
    for c, df in ((1.0, 8.0), (2.5, 8.0), (4.0, 30.0), (3.0, np.inf)):
        expected = stats.studentized_range.sf(c * np.sqrt(2), k, min(df, 1e5))
        assert largest.exceeds(c, df) == pytest.approx(expected, rel=3e-4)
    assert largest.quantile(0.95, 12.0) == pytest.approx(
        stats.studentized_range.ppf(0.95, k, 12.0) / np.sqrt(2), rel=1e-4
    )


def test_maximum_with_any_correlations_as_scipys():
    rng = np.random.default_rng(1)
    A = rng.normal(size=(4, 4))
    S = A @ A.T
    R = S / np.sqrt(np.outer(np.diag(S), np.diag(S)))
    for c in (1.5, 2.5):
        for low in (-c, -np.inf):
            expected = 1 - stats.multivariate_t.cdf(
                np.full(4, c), shape=R, df=9, lower_limit=np.full(4, low), maxpts=400_000,
                random_state=2,
            )  # fmt: skip
            found = max_t(R, two_sided=low == -c).exceeds(c, 9.0)
            assert found == pytest.approx(expected, abs=5e-5)


@given(st.floats(-3, 3), st.floats(3, 200), st.booleans())
def test_maximum_of_one_is_t(c, df, two_sided):
    expected = 2 * stats.t.sf(c, df) if two_sided else stats.t.sf(c, df)
    expected = 1.0 if two_sided and c < 0 else expected
    found = max_t(np.eye(1), two_sided=two_sided).exceeds(c, df)
    assert found == pytest.approx(expected, abs=1e-12)


def test_adjusted_p_do_not_depend_on_the_order_of_levels():
    data = frame()
    base = mx.lmer(FORMULA, data).emmeans("a")
    turned = data.assign(a=data["a"].map({"p": "z", "q": "y", "r": "x"}))
    other = mx.lmer(FORMULA, turned).emmeans("a")
    for adjust in ("tukey", "mvt", "scheffe", "sidak", "holm", "hochberg", "fdr", "BY"):
        here, there = base.pairs(adjust)["p_value"], other.pairs(adjust)["p_value"]
        np.testing.assert_allclose(here[::-1], there, rtol=1e-5, atol=1e-9)


def test_what_does_not_suit_is_said(fit):
    with pytest.raises(mx.OptionError, match="'tukey', which is for all pairs"):
        fit.emmeans("a").contrast("eff", adjust="tukey")
    with pytest.raises(mx.OptionError, match="not for tests of equivalence"):
        fit.emmeans("a").pairs("tukey").test(delta=1.0)
    with pytest.raises(mx.OptionError, match=r"ref is for method='trt\.vs\.ctrl'"):
        fit.emmeans("a").contrast("eff", ref="p")
    with pytest.raises(mx.OptionError, match="ref: there is no level 'z'"):
        fit.emmeans("a").contrast("dunnett", ref="z")
    with pytest.raises(mx.OptionError, match="there is no mean 'z'"):
        fit.emmeans("a").contrast({"one": {"z": 1.0}})


def test_notes_name_method_and_family(fit):
    means = fit.emmeans("a")
    assert "p-values adjusted by Tukey's method for a family of 3 means" in repr(means.pairs())
    text = repr(means.contrast("trt.vs.ctrl", conf_int=True))
    assert "p-values and limits adjusted by Dunnett's method" in text
    assert "family of 2 tests" in " ".join(text.split())
    text = " ".join(repr(means.pairs("holm", conf_int=True)).split())
    assert "Holm's method for a family of 3 tests; limits by Bonferroni's method" in text
    assert "rank 2" in repr(means.pairs("scheffe"))
    assert "adjusted" not in repr(means.pairs("none"))


def test_means_that_are_not_estimable_are_no_members():
    data = frame()
    data = data[~((data["a"] == "r") & (data["b"] == "v"))]
    fit = mx.lmer("y ~ a * b + (1 | g)", data, control=QUIET)
    found = fit.emmeans("a").pairs()
    assert np.isnan(found["p_value"]).tolist() == [False, True, True]
    plain = fit.emmeans("a").pairs("none")
    assert found["p_value"][0] == pytest.approx(plain["p_value"][0])  # two means are left
    assert fit.emmeans("a").letters()["letters"].tolist()[2] == ""
    eff = fit.emmeans("a").contrast("trt.vs.ctrl", conf_int=True)
    assert np.isfinite(eff.loc[0, ["p_value", "lower"]].astype(float)).all()


# -- tests ------------------------------------------------------------------------------------


def test_one_sided_and_equivalence(fit):
    means = fit.emmeans("a")
    plain = means.test()
    m, se, df = (plain[name].to_numpy() for name in ("emmean", "std_error", "df"))
    np.testing.assert_allclose(
        means.test(5.0, side=">")["p_value"], stats.t.sf((m - 5) / se, df), rtol=1e-8
    )
    np.testing.assert_allclose(
        means.test(5.0, side="less", delta=0.4)["p_value"],
        stats.t.cdf((m - 5.4) / se, df), rtol=1e-8,
    )  # fmt: skip
    np.testing.assert_allclose(
        means.test(5.0, side="noninferiority", delta=0.4)["p_value"],
        stats.t.sf((m - 4.6) / se, df), rtol=1e-8,
    )  # fmt: skip
    two = means.test(5.0, delta=0.8)["p_value"]
    below, above = stats.t.cdf((m - 5.8) / se, df), stats.t.sf((m - 4.2) / se, df)
    np.testing.assert_allclose(two, np.maximum(below, above), rtol=1e-8)
    assert "equivalence: closer than 0.8 to 5" in repr(means.test(5.0, delta=0.8))
    assert "one-sided tests: greater than 5" in repr(means.test(5.0, side=">"))


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "normal"])
def test_joint_of_all_contrasts_is_the_type_three_test(fit, ddf):
    balanced = mx.lmer("y ~ a * b + (1 | g)", frame())
    table = balanced.anova(ddf=ddf)
    found = balanced.joint_tests(ddf=ddf).set_index("term")
    for term in ("a", "b", "a:b"):
        for name in ("NumDF", "DenDF", "F value", "Pr(>F)"):
            assert found.loc[term, name] == pytest.approx(table.loc[term, name], rel=1e-5)
    one = balanced.emmeans("a", ddf=ddf).pairs().joint()
    assert one["F value"].iloc[0] == pytest.approx(table.loc["a", "F value"], rel=1e-6)


def test_joint_tests_of_covariates_and_groups():
    data = frame()
    fit = mx.lmer("y ~ a * x + b + (1 | g)", data)
    found = fit.joint_tests().set_index("term")
    assert found.index.tolist() == ["a", "x", "b", "a:x"]
    slope = fit.emtrends("x").test()
    assert found.loc["x", "F value"] == pytest.approx(slope["statistic"][0] ** 2, rel=1e-6)
    assert found.loc["a:x", "F value"] == pytest.approx(
        fit.anova().loc["a:x", "F value"], rel=1e-6
    )
    within = fit.joint_tests(by="b")
    assert within["b"].tolist() == ["u"] * 3 + ["v"] * 3
    moved = data.assign(x=1000.0 + 0.01 * data["x"])
    other = mx.lmer("y ~ a * x + b + (1 | g)", moved, control=QUIET).joint_tests()
    np.testing.assert_allclose(other["F value"], found["F value"], rtol=1e-4)


def test_joint_tests_count_what_is_estimable():
    data = frame()
    data = data[~((data["a"] == "r") & (data["b"] == "v"))]
    fit = mx.lmer("y ~ a * b + (1 | g)", data, control=QUIET)
    found = fit.joint_tests().set_index("term")
    assert found["NumDF"].to_dict() == {"a": 1, "b": 0, "a:b": 1}
    assert "not estimable" in repr(fit.joint_tests())


def test_joint_tests_of_nested_factors():
    rng = np.random.default_rng(6)
    strain = np.tile(list("abcdefg"), 8)
    data = pd.DataFrame({"strain": strain, "trial": np.repeat(range(8), 7)})
    data["genotype"] = data["strain"].map(dict(zip("abcdefg", "1122233", strict=True)))
    data["y"] = rng.normal(size=len(data)) + rng.normal(size=8)[data["trial"]]
    fit = mx.lmer("y ~ genotype / strain + (1 | trial)", data, control=QUIET)
    found = fit.joint_tests().set_index("term")
    assert found["NumDF"].to_dict() == {"genotype": 2, "genotype:strain": 4}
    # balanced: the sums of squares of means
    means = data.groupby("strain")["y"].mean()
    inner = [means[list(s)] for s in ("ab", "cde", "fg")]
    within = sum(float(((m - m.mean()) ** 2).sum()) for m in inner)
    F = within * 8 / 4 / fit.sigma**2
    assert found.loc["genotype:strain", "F value"] == pytest.approx(F, rel=1e-6)


# -- weights, covariates ----------------------------------------------------------------------


def test_weights_by_hand():
    data = frame()
    data["c"] = np.random.default_rng(5).choice(["k", "l", "m"], len(data), p=[0.6, 0.3, 0.1])
    fit = mx.lmer("y ~ (a + b + c)^2 + (1 | g)", data, control=QUIET)
    cells = fit.emmeans(["a", "b", "c"]).to_frame().set_index(["a", "b", "c"])["emmean"]
    pairs = pd.MultiIndex.from_product([["u", "v"], ["k", "l", "m"]])
    counts = data.groupby(["b", "c"]).size().reindex(pairs, fill_value=0)
    outer = [(data["b"] == b).sum() * (data["c"] == c).sum() for b, c in pairs]
    own = data[data["a"] == "q"].groupby(["b", "c"]).size().reindex(pairs, fill_value=0)
    wanted = {
        "equal": np.ones(6), "proportional": counts, "outer": outer, "cells": own,
        "flat": own > 0,
    }  # fmt: skip
    for name, w in wanted.items():
        found = fit.emmeans("a", weights=name).to_frame().set_index("a").loc["q", "emmean"]
        expected = np.average(cells["q"][pairs], weights=np.asarray(w, float))
        assert found == pytest.approx(expected), name


def test_covariates_may_be_reduced_in_other_ways(fit):
    data = frame()
    b = fit.fixef
    base = fit.emmeans("a").to_frame()["emmean"][0]
    at_median = fit.emmeans("a", cov_reduce=np.median).to_frame()["emmean"][0]
    shift = b["x"] * (data["x"].median() - data["x"].mean())
    assert at_median - base == pytest.approx(shift)
    ends = fit.emmeans("x", cov_reduce=lambda v: [v.min(), v.max()]).to_frame()
    assert ends["x"].tolist() == [data["x"].min(), data["x"].max()]
    assert len(fit.emmeans("x", cov_reduce={"x": False}).cells) == data["x"].nunique()
    assert fit.emmeans("a", at={"x": 1.0}, cov_reduce=np.median).at["x"] == (1.0,)
    with pytest.raises(mx.OptionError, match="cov_reduce names 'a', a factor"):
        fit.emmeans("a", cov_reduce={"a": np.median})
    with pytest.raises(mx.OptionError, match="cov_reduce is 'median'"):
        fit.emmeans("a", cov_reduce="median")


# -- scales -----------------------------------------------------------------------------------

SCALES = {
    "log(positive)": (np.exp, "log"),
    "log10(positive)": (lambda e: 10.0**e, "log10"),
    "log2(positive)": (lambda e: 2.0**e, "log2"),
    "log1p(positive)": (lambda e: np.exp(e) - 1.0, "log(mu + 1)"),
    "log(positive + 2)": (lambda e: np.exp(e) - 2.0, "log(mu + 2)"),
    "sqrt(positive)": (np.square, "sqrt"),
    "I(positive^(1/3))": (lambda e: e**3, "power"),
    "I(1/positive)": (lambda e: 1.0 / e, "inverse"),
    "exp(y/10)": (None, None),
}


@pytest.mark.parametrize("response", [r for r, (back, _) in SCALES.items() if back])
def test_back_to_the_scale_of_the_data(response):
    back, name = SCALES[response]
    fit = mx.lmer(f"{response} ~ a + x + (1 | g)", frame(), control=QUIET)
    link, table = fit.emmeans("a").to_frame(), fit.emmeans("a", type="response").to_frame()
    assert f"on the {name}" in " ".join(repr(fit.emmeans("a")).split())
    eta = link["emmean"].to_numpy()
    np.testing.assert_allclose(table["response"], back(eta), rtol=1e-9)
    h = 1e-6
    slope = np.abs(back(eta + h) - back(eta - h)) / (2 * h)
    np.testing.assert_allclose(table["std_error"], slope * link["std_error"], rtol=1e-5)
    ends = np.sort([back(link["lower"].to_numpy()), back(link["upper"].to_numpy())], axis=0)
    np.testing.assert_allclose(table[["lower", "upper"]].T, ends, rtol=1e-9)
    # tests stay what they are on the scale of the model
    same = fit.emmeans("a", type="response").pairs()
    np.testing.assert_allclose(same["p_value"], fit.emmeans("a").pairs()["p_value"], rtol=1e-9)


def test_differences_of_logarithms_are_ratios():
    fit = mx.lmer("log10(positive) ~ a + x + (1 | g)", frame())
    link, ratios = (fit.emmeans("a", type=t).pairs(conf_int=True) for t in ("link", "response"))
    assert ratios["contrast"].tolist() == ["p / q", "p / r", "q / r"]
    np.testing.assert_allclose(ratios["ratio"], 10 ** link["estimate"], rtol=1e-9)
    np.testing.assert_allclose(
        ratios["std_error"], np.log(10) * ratios["ratio"] * link["std_error"], rtol=1e-9
    )
    np.testing.assert_allclose(ratios["lower"], 10 ** link["lower"], rtol=1e-9)
    both = fit.emmeans(["a"], type="response").contrast({"sum": [1, 1, -1]})
    assert "response" in both.columns  # weights that add up to one are a mean still
    odd = fit.emmeans(["a"], type="response").contrast({"sum": [1, 1, 0]})
    assert "on the log10 scale still" in " ".join(repr(odd).split())
    root = mx.lmer("sqrt(positive) ~ a + x + (1 | g)", frame())
    kept = root.emmeans("a", type="response").pairs()
    assert "estimate" in kept.columns
    assert "on the sqrt scale still" in " ".join(repr(kept).split())


def test_a_column_of_logarithms_and_what_cannot_be_undone():
    data = frame()
    data["logged"] = np.log(data["positive"])
    direct = mx.lmer("log(positive) ~ a + x + (1 | g)", data)
    named = mx.lmer("logged ~ a + x + (1 | g)", data)
    np.testing.assert_allclose(
        named.emmeans("a", type="response", tran="log").to_frame()["response"],
        direct.emmeans("a", type="response").to_frame()["response"],
    )
    plain = named.emmeans("a", type="response")  # not transformed, as far as is known
    assert "emmean" in plain.to_frame()
    odd = mx.lmer("log(positive) * 2 ~ a + (1 | g)", data)
    assert len(odd.emmeans("a").to_frame()) == 3
    with pytest.raises(mx.OptionError, match=r"how to go back from 'log\(positive\) \* 2'"):
        odd.emmeans("a", type="response")


def test_bias_adjustment_is_the_mean_of_a_lognormal():
    fit = mx.lmer("log(positive) ~ a + (1 | g)", frame())
    total = fit.sigma**2 + fit.varcorr["g"].to_numpy()[0, 0]
    plain, mean = (
        fit.emmeans("a", type="response", bias_adjust=b).to_frame() for b in (False, True)
    )
    # to second order in the spread
    np.testing.assert_allclose(mean["response"], plain["response"] * (1 + total / 2), rtol=1e-9)
    np.testing.assert_allclose(mean["std_error"], plain["std_error"] * (1 + total / 2), rtol=1e-9)
    known = fit.emmeans("a", type="response", bias_adjust=True, sigma=0.2).to_frame()
    np.testing.assert_allclose(known["response"], plain["response"] * 1.02, rtol=1e-9)
    with pytest.raises(mx.OptionError, match="bias_adjust is for type='response'"):
        fit.emmeans("a", bias_adjust=True)


# -- letters, effect sizes --------------------------------------------------------------------


@given(st.integers(1, 8), st.randoms(use_true_random=False))
def test_letters_say_exactly_what_differs(k, random):
    differ = np.zeros((k, k), dtype=bool)
    for i in range(k):
        for j in range(i):
            differ[i, j] = differ[j, i] = random.random() < 0.5
    letters = compact_letters(differ)
    for i in range(k):
        assert letters[i]
        for j in range(i):
            assert bool(set(letters[i]) & set(letters[j])) == (not differ[i, j])


def test_letters_of_means(fit):
    table = fit.emmeans("a").letters()
    assert table["emmean"].is_monotonic_increasing
    assert not fit.emmeans("a").letters(reverse=True)["emmean"].is_monotonic_increasing
    p = fit.emmeans("a").pairs()
    for row, other in ((0, 1), (0, 2), (1, 2)):
        names = sorted([table["a"][row], table["a"][other]])
        own = p.loc[p["contrast"] == " - ".join(names), "p_value"].iloc[0]
        assert bool(set(table["letters"][row]) & set(table["letters"][other])) == (own >= 0.05)


def test_effect_sizes_by_the_delta_method(fit):
    pairs = fit.emmeans("a").pairs("none")
    known = fit.emmeans("a").eff_size(2.0)
    np.testing.assert_allclose(known["effect_size"], pairs["estimate"] / 2)
    np.testing.assert_allclose(known["std_error"], pairs["std_error"] / 2)
    found = fit.emmeans("a").eff_size(2.0, edf=50)
    d = pairs["estimate"] / 2
    np.testing.assert_allclose(
        found["std_error"], np.sqrt((pairs["std_error"] / 2) ** 2 + d**2 / 100)
    )
    total = np.sqrt(fit.sigma**2 + fit.varcorr["g"].to_numpy()[0, 0])
    np.testing.assert_allclose(fit.emmeans("a").eff_size()["effect_size"], 2 * d / total)
    within = fit.emmeans("a").eff_size("residual")
    np.testing.assert_allclose(within["effect_size"], 2 * d / fit.sigma)
    # REML's residual variance has about n - p - groups degrees of freedom
    text = " ".join(repr(within).split())
    edf = float(text.split("freedom of it: ")[1].split(")")[0])
    assert edf == pytest.approx(168 - 7 - 23, rel=0.02)


# -- slopes -----------------------------------------------------------------------------------


def test_slopes_have_the_same_machinery():
    fit = mx.lmer("y ~ a * x + b + (1 | g)", frame())
    trends = fit.emtrends("x", specs="a")
    b = fit.fixef
    np.testing.assert_allclose(
        trends.contrast("trt.vs.ctrl")["estimate"], [b["aq:x"], b["ar:x"]], rtol=1e-6
    )
    assert "pairwise" not in repr(trends)
    assert "Pairwise comparisons" in repr(fit.emtrends("x", specs="pairwise ~ a"))
    logged = mx.lmer("log(positive) ~ a * x + (1 | g)", frame())
    assert "x.trend" in logged.emtrends("x", by="a").to_frame()
    assert trends.letters(adjust="holm")["letters"].str.len().ge(1).all()


def test_family_needs_a_member():
    nothing = Family(np.full((2, 2), np.nan))
    p = np.full(2, np.nan)
    for adjust in ("mvt", "scheffe", "holm", "sidak"):
        assert np.isnan(nothing.p_values(p, p, p, adjust)).all()
        assert nothing.critical(0.95, p, adjust).shape == (2,)


def test_means_of_a_fit_with_a_residual_structure():
    growth = corpus.load_data("Orthodont")
    fit = mx.gls(
        "distance ~ Sex * age", growth, residual=mx.CompoundSymmetry(group="Subject")
    )
    twin = mx.lmer("distance ~ Sex * age + (1 | Subject)", growth)
    for name in ("estimate", "std_error", "df", "p_value"):
        np.testing.assert_allclose(
            fit.emmeans("Sex").pairs()[name], twin.emmeans("Sex").pairs()[name], rtol=1e-4
        )
    np.testing.assert_allclose(fit.emmeans("Sex").eff_size(2.0)["effect_size"],
                               fit.emmeans("Sex").pairs()["estimate"] / 2.0)  # fmt: skip
    # the variance of a row is that of the random intercept and the residual together
    own, other = (one.emmeans("Sex").eff_size()["effect_size"] for one in (fit, twin))
    np.testing.assert_allclose(own, other, rtol=1e-4)


# -- printed figures --------------------------------------------------------------------------


def test_as_printed_for_oats():
    """Lenth (2016), doi:10.18637/jss.v069.i01, and vignettes of emmeans: split plots of oats."""
    oats = corpus.load_data("Oats")
    oats["nitro"] = oats["nitro"].astype(float)
    formula = "yield ~ Variety + factor(nitro) + (1 | Block/Variety)"
    poly = mx.lmer(formula, oats).emmeans("nitro").contrast("poly")
    printed = {
        "estimate": [147.33, -10.33, -2.00], "std_error": [13.44, 6.01, 13.44],
        "df": [51, 51, 51], "statistic": [10.963, -1.719, -0.149],
    }  # fmt: skip
    for name, values in printed.items():
        np.testing.assert_allclose(poly[name], values, atol=0.0051)
    holes = [i - 1 for i in (1, 2, 3, 5, 8, 13, 21, 34, 55)]
    fit = mx.lmer(formula, oats.drop(oats.index[holes]))
    means = fit.emmeans("nitro", ddf="kenward-roger").to_frame()
    printed = {
        "emmean": [78.9, 97.0, 114.2, 124.1], "std_error": [7.29, 7.14, 7.14, 7.07],
        "df": [7.78, 7.19, 7.19, 6.95], "lower": [62.0, 80.3, 97.4, 107.3],
        "upper": [95.8, 113.8, 131.0, 140.8],
    }  # fmt: skip
    for name, values in printed.items():
        digits = 0.0051 if name in ("std_error", "df") else 0.051
        np.testing.assert_allclose(means[name], values, atol=digits)


def test_numbers_that_name_rows_print_as_they_are(fit):
    oats = corpus.load_data("Oats")
    oats["nitro"] = oats["nitro"].astype(float)
    model = mx.lmer("yield ~ Variety + factor(nitro) + (1 | Block/Variety)", oats)
    lines = repr(model.emmeans("nitro")).splitlines()
    assert lines[1].startswith("nitro  ")
    assert [line.split()[0] for line in lines[2:6]] == ["0", "0.2", "0.4", "0.6"]
    by = repr(fit.emmeans("a", by="x", at={"x": [1.0, 2.5]}).pairs()).splitlines()
    assert by[2].startswith("1 ")
    assert by[5].startswith("2.5 ")
