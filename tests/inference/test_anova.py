"""F tests of terms against lmerTest, and comparisons of models.

`lmertest_tables.json` holds tables of types I, II and III by both methods for unbalanced designs in
three codings, with empty cells, covariates and without intercept; `lmertest_tables.R` writes it.
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.inference.fixed.anova import term_hypotheses
from mixlm_sparse.inference.fixed.satterthwaite import satterthwaite
from tests.support import corpus
from tests.support.corpus import MODELS, load_data, load_json, load_model

LMERTEST = json.loads((corpus.HERE / "lmertest_tables.json").read_text(encoding="utf-8"))
CASES = LMERTEST["anova"]
DF_RTOL = 1e-3
# The df of several rows together depend on the rows in lmerTest, on the hypothesis alone here.
JOINT_DF_RTOL = 0.05
F_RTOL = 1e-4
P_ATOL = 1e-4

WITH_TABLE = [
    name
    for name in MODELS
    if (found := load_model(name).get("satterthwaite"))
    and (table := found.get("anova_type3"))
    and isinstance(table.get("term"), list)
    and table["term"]
]
# cog ~ tos + trt:tos: lmerTest overlooks that tos:trt contains tos, because R codes trt within the
# interaction by full indicators there (2 in the table of factors, where it looks for 1). It tests
# the slope of the first group as if it were the slope of both; for tos * trt it tests their mean.
NOT_CONTAINED_FOR_LMERTEST = {"early_reml": "tos"}
# Without an intercept lmerTest tests that all means of the first factor are zero; here they are
# equal, as in the same model with an intercept.
MEANS_FOR_LMERTEST = {"cake_noint_reml": "recipe", "no_intercept": "status"}


@pytest.mark.parametrize("model_id", WITH_TABLE)
def test_type_three_of_the_corpus(model_id):
    expected = load_model(model_id)["satterthwaite"]["anova_type3"]
    table = corpus.fit(model_id).anova()
    assert list(table.index) == expected["term"]
    other = {NOT_CONTAINED_FOR_LMERTEST.get(model_id), MEANS_FOR_LMERTEST.get(model_id)}
    keep = np.array([t not in other for t in expected["term"]])
    as_lmertest(table[keep], {name: np.array(v)[keep] for name, v in expected.items()})


def as_lmertest(table, expected):
    """Compare with a table of lmerTest: F closely, df of one row closely, of several loosely."""
    assert table["NumDF"].tolist() == list(expected["num_df"])
    np.testing.assert_allclose(table["F value"], expected["F"], rtol=F_RTOL)
    np.testing.assert_allclose(table["Sum Sq"], expected["sum_sq"], rtol=F_RTOL)
    np.testing.assert_allclose(table["Pr(>F)"], expected["p"], atol=P_ATOL)
    single = table["NumDF"].to_numpy() == 1
    ours, theirs = table["DenDF"].to_numpy(), np.array(expected["den_df"])
    np.testing.assert_allclose(ours[single], theirs[single], rtol=DF_RTOL)
    np.testing.assert_allclose(ours[~single], theirs[~single], rtol=JOINT_DF_RTOL)


def test_slope_of_all_groups_where_lmertest_tests_the_first():
    """The hypothesis of type III about tos is the mean of the groups' slopes."""
    fit = corpus.fit("early_reml")
    label, slope, step = fit.anova().index[0], *fit.fixef.index[1:3]
    mean = fit.contest({slope: 1.0, step: 0.5}).iloc[0]
    assert fit.anova().loc[label, "F value"] == pytest.approx(mean["F value"])
    expected = load_model("early_reml")["satterthwaite"]["anova_type3"]
    assert fit.contest(slope)["F value"].iloc[0] == pytest.approx(expected["F"][0], rel=1e-4)


def fit_case(case, contrasts=None):
    data = load_data(case["data"])
    if case["drop"]:
        data = data[~((data["amd"] == "unclipped") & (data["status"] == "Transplant"))]
    if case["contrasts"]:
        contrasts = dict.fromkeys(["nutrient", "amd", "status", "rack"], case["contrasts"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        return mx.lmer(case["formula"], data, contrasts=contrasts)


@pytest.mark.parametrize("case_id", sorted(CASES))
def test_all_types_by_both_methods(case_id):
    case = CASES[case_id]
    fit = fit_case(case)
    for expected in case["tables"]:
        table = fit.anova(type=expected["type"], ddf=expected["ddf"])
        assert list(table.index) == expected["term"]
        keep = np.array([t != MEANS_FOR_LMERTEST.get(case_id) for t in expected["term"]])
        as_lmertest(
            table[keep], {t: np.array(v)[keep] for t, v in expected.items() if isinstance(v, list)}
        )


def test_without_intercept_as_with_it():
    data = load_data("Arabidopsis").rename(columns={"total.fruits": "fruits"})
    control = mx.Control(warn=False)

    def tables(fixed, kind):
        formula = f"log(fruits + 1) ~ {fixed} + (1 | popu)"
        return mx.lmer(formula, data, control=control).anova(type=kind)

    for kind in (2, 3):
        with_it = tables("status + amd", kind)
        for fixed in ("0 + status + amd", "0 + amd + status"):
            without = tables(fixed, kind).loc[with_it.index]
            np.testing.assert_allclose(without, with_it, rtol=1e-5)
        crossed, without = tables("status * amd", kind), tables("0 + status * amd", kind)
        np.testing.assert_allclose(without, crossed, rtol=1e-5)
    # sequentially the first term is tested against nothing
    assert tables("0 + status + amd", 1).loc["status", "NumDF"] == 3
    # covariates do not span the constant
    slope = mx.lmer("Reaction ~ 0 + Days + (Days | Subject)", load_data("sleepstudy"))
    assert slope.anova()["NumDF"].tolist() == [1]


def test_type_three_does_not_depend_on_the_coding():
    tables = [
        fit_case(CASES[name]).anova(type=3)
        for name in ("unbalanced", "unbalanced_sum", "unbalanced_helmert")
    ]
    for other in tables[1:]:
        np.testing.assert_allclose(other.to_numpy(), tables[0].to_numpy(), rtol=1e-5)


def test_type_three_of_equal_cells_is_a_test_of_cell_means():
    """Without empty cells the main effect says that the unweighted cell means are equal."""
    fit = fit_case(CASES["unbalanced"])
    means = fit.emmeans("status")
    found = satterthwaite(fit).joint(means.L[1:] - means.L[0], np.zeros(2))
    assert fit.anova(type=3).loc["status", "F value"] == pytest.approx(found.F, rel=1e-8)


def test_fewer_contrasts_than_levels_are_named():
    data = load_data("Arabidopsis")
    matrix = np.array([[-1.0], [0.0], [1.0]])
    fit = mx.lmer(
        "log(total.fruits + 1) ~ status * nutrient + (1 | popu)", data,
        contrasts={"status": matrix},
    )  # fmt: skip
    table = fit.anova()
    assert "fewer contrasts than its levels" in table.attrs["note"]
    hypotheses, _ = term_hypotheses(fit, 3)
    assert [L.shape[0] for L in hypotheses.values()] == [1, 1, 1]


def test_weights_in_sequential_tests():
    """The last term of type I is tested after all others, whatever the weights."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"g": np.repeat(np.arange(15), 6), "x": rng.normal(size=90)})
    frame["f"] = rng.choice(["a", "b", "c"], 90)
    frame["w"] = rng.uniform(0.5, 3.0, 90)
    frame["y"] = frame["x"] + rng.normal(size=15)[frame["g"]] + rng.normal(size=90)
    fit = mx.lmer("y ~ x + f + (1 | g)", frame, weights="w")
    first, third = fit.anova(type=1), fit.anova(type=3)
    assert first.loc["f", "F value"] == pytest.approx(third.loc["f", "F value"])
    X = fit.model_matrix()
    R = np.linalg.qr(X, mode="r")
    found = satterthwaite(fit).joint(R[1:2], np.zeros(1)).F
    assert first.loc["x", "F value"] == pytest.approx(found)


def test_without_tests_and_of_matrices():
    fit = corpus.fit("cake_reml")
    assert list(fit.anova(ddf="none").columns) == ["Sum Sq", "Mean Sq", "NumDF", "F value"]
    assert fit.anova(type="II").attrs["heading"].startswith("Type II analysis of variance")
    assert corpus.fit("dyestuff_reml").anova().shape == (0, 6)
    sleep = load_data("sleepstudy")
    X = np.column_stack([np.ones(180), sleep["Days"]])
    made = mx.fit_matrices(sleep["Reaction"], X, [(sleep["Subject"], X, "Subject")])
    table = made.anova()
    assert table["DenDF"].iloc[0] == pytest.approx(17.0, rel=1e-5)


@pytest.mark.parametrize("kind", [0, 4, "IV", True, None])
def test_unknown_type(kind):
    with pytest.raises(mx.OptionError, match=r"type is .*: use 1"):
        corpus.fit("cake_reml").anova(type=kind)


# ------------------------------------------------------------------------------------ comparisons


@pytest.mark.parametrize("pair", load_json("lrt.json")["pairs"], ids=lambda p: p["larger"])
def test_likelihood_ratio_of_the_corpus(pair):
    if pair["larger"] in corpus.LARGE:
        pytest.skip("large")
    small, large = corpus.fit(pair["smaller"]), corpus.fit(pair["larger"])
    row = mx.anova(small, large, refit=False).iloc[1]
    assert row["Chisq"] == pytest.approx(pair["chisq"], abs=2e-4, rel=1e-6)
    assert row["Df"] == pair["df"]
    assert row["Pr(>Chisq)"] == pytest.approx(pair["p"], abs=1e-5)


def test_table_of_models():
    data = load_data("sleepstudy")
    fits = [
        mx.lmer(f"Reaction ~ {fixed} + ({random} | Subject)", data)
        for fixed, random in [("Days", "Days"), ("1", "1"), ("Days", "1")]
    ]
    table = fits[0].anova(*fits[1:], names=["slopes", "null", "lines"])
    assert list(table.index) == ["null", "lines", "slopes"]
    assert list(table.columns) == [
        "npar", "AIC", "BIC", "logLik", "deviance", "Chisq", "Df", "Pr(>Chisq)",
    ]  # fmt: skip
    assert table["npar"].tolist() == [3, 4, 6]
    assert table["deviance"].tolist() == pytest.approx(
        [corpus.fit(m).deviance for m in ("sleep_null_ml", "sleep_ri_ml", "sleep_rs_ml")]
    )
    assert "fitted again by ML" in table.attrs["note"]
    assert table.attrs["formulas"]["null"] == "Reaction ~ 1 + (1 | Subject)"
    reml = mx.anova(fits[2], fits[0], refit=False)
    assert reml["Chisq"].iloc[1] == pytest.approx(fits[2].criterion - fits[0].criterion)


def test_models_of_equal_size_and_negative_differences():
    data = load_data("sleepstudy")
    data["noise"] = np.random.default_rng(0).normal(size=180)
    a = mx.lmer("Reaction ~ Days + (1 | Subject)", data, reml=False)
    b = mx.lmer("Reaction ~ noise + (1 | Subject)", data, reml=False)
    row = mx.anova(a, b).iloc[1]
    assert row["Chisq"] == 0.0
    assert np.isnan(row["Pr(>Chisq)"])


def test_comparisons_that_are_refused():
    data = load_data("sleepstudy")
    full = mx.lmer("Reaction ~ Days + (1 | Subject)", data)
    assert mx.anova(full).equals(full.anova())  # one model: its terms
    with pytest.raises(mx.OptionError, match=r"anova takes fits of lmer .* given 'other'"):
        mx.anova(full, "other")
    gaps = data.assign(Days=np.where(np.arange(180) == 3, np.nan, data["Days"]))
    part = mx.lmer("Reaction ~ Days + (1 | Subject)", gaps)
    with pytest.raises(mx.DataError, match=r"different rows \(180 and 179 of 180 and 180\)"):
        mx.anova(full, part)
    early, late = (
        mx.lmer("Reaction ~ Days + (1 | Subject)", data, subset=f"Days {sign} 5")
        for sign in ("<", ">=")
    )
    with pytest.raises(mx.DataError, match="different rows"):
        mx.anova(early, late)
    logged = mx.lmer("log(Reaction) ~ Days + (1 | Subject)", data)
    with pytest.raises(mx.DataError, match=r"different responses \(Reaction and log\(Reaction\)\)"):
        mx.anova(full, logged)
    null = mx.lmer("Reaction ~ 1 + (1 | Subject)", data)
    with pytest.raises(mx.OptionError, match="different fixed effects, and REML"):
        mx.anova(full, null, refit=False)
    with pytest.raises(mx.OptionError, match="some of the models were fitted by REML"):
        mx.anova(full, null.refit_ml(), refit=False)
    with pytest.raises(mx.OptionError, match="give 2 different names"):
        mx.anova(full, null, names=["a", "a"])


def test_types_have_the_names_of_nlme():
    fit = mx.lmer("strength ~ 1 + batch + (1 | sample)", load_data("Pastes"))
    for name, number in (("marginal", 3), ("sequential", 1)):
        expected = fit.anova(type=number)
        assert str(fit.anova(type=name)) == str(expected)
        assert str(mx.anova(fit, type=name)) == str(expected)
