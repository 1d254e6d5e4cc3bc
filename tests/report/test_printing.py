"""Every result prints in 80 columns, with heading and notes, and as HTML."""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx


@cache
def sleep():
    return mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))


@cache
def null():
    return mx.lmer("Reaction ~ 1 + (Days | Subject)", mx.datasets.load("sleepstudy"))


@cache
def schools():
    data = mx.datasets.load("HSB")
    return mx.lmer("mathach ~ meanses + sector * cses + (cses | school)", data)


RESULTS = {
    "anova": (lambda: schools().anova(), "Type III analysis of variance"),
    "anova of models": (lambda: mx.anova(null(), sleep()), "fitted again by ML"),
    "ranova": (lambda: sleep().ranova(), "mixture of Days in (Days | Subject): 1/2 chi2(1)"),
    "lr_vs_lm": (lambda: sleep().lr_vs_lm(), "LR test against the linear model"),
    "drop1": (lambda: schools().drop1(), "all models fitted by ML"),
    "step": (lambda: sleep().step(), "Model found: Reaction ~ Days + (Days | Subject)"),
    "contest": (lambda: sleep().contest("Days = 10"), "with Satterthwaite's method"),
    "contest of one": (
        lambda: sleep().contest("Days = 10", joint=False, ddf="KR"), "t tests with Kenward-Roger's"
    ),
    "joint_tests": (lambda: schools().joint_tests(), "Joint tests of terms (Satterthwaite)"),
    "letters": (lambda: schools().emmeans("sector").letters(), "rows that share a letter"),
    "eff_size": (lambda: schools().emmeans("sector").eff_size(), "total standard deviation"),
    "test": (lambda: schools().emmeans("sector").test(10, side=">"), "greater than 10"),
    "pairwise": (lambda: schools().emmeans("pairwise ~ sector"), "Pairwise comparisons"),
    "all profiles": (lambda: sleep().profile("beta_"), "Profile of the ML deviance"),
    "wald_test": (lambda: schools().wald_test(), "all coefficients but the intercept"),
    "tidy": (lambda: schools().tidy(conf_int=True), "95% intervals of fixed effects by Satt"),
    "tidy of all": (
        lambda: schools().tidy(["fixed", "ran_pars"], conf_int=True),
        "95% Wald intervals of random parameters",
    ),
    "tidy of effects": (
        lambda: sleep().tidy("ran_vals", conf_int=True), "given the variances"
    ),
    "glance": (lambda: schools().glance(), "n_school"),
    "augment": (lambda: sleep().augment(), "[180 rows"),
    "group_sizes": (lambda: sleep().group_sizes(), "Rows per level"),
    "icc": (lambda: sleep().icc(), "Intraclass"),
    "r2": (lambda: sleep().r2(), "conditional"),
    "confint": (lambda: sleep().confint(), "95% profile-likelihood intervals"),
    "confint by Wald": (lambda: sleep().confint("wald", 0.9), "90% Wald intervals"),
    "confint by bootstrap": (
        lambda: sleep().confint("boot", nsim=20, seed=1), "95% bootstrap intervals, percentile"
    ),
    "variance_components": (lambda: sleep().variance_components(), "cor_Days.(Intercept)|Subject"),
    "emmeans": (lambda: schools().emmeans("sector"), "at meanses = 0.000143354, cses = 0"),
    "pairs": (lambda: schools().emmeans("sector").pairs(conf_int=True), "(Satterthwaite)"),
    "emtrends": (lambda: schools().emtrends("cses", by="sector"), "Marginal slopes of cses"),
    "robust": (lambda: sleep().robust(), "CR2 standard errors, 18 clusters"),
    "influence": (lambda: sleep().influence("Subject"), "Influence by Subject, 18 deletions"),
    "profile": (lambda: sleep().profile("beta_").confint(), "Days"),
    "bootstrap": (lambda: sleep().bootstrap(20, seed=1), "Bootstrap, parametric: 20 replicates"),
    "pb_modcomp": (
        lambda: mx.pb_modcomp(sleep(), null(), nsim=20, seed=1), "smaller: Reaction ~ 1"
    ),
    "ranef": (lambda: sleep().ranef()["Subject"], "308"),
    "varcorr": (lambda: sleep().varcorr, "Std.Dev."),
    "singularity": (lambda: sleep().singularity(), "lme4_theta"),
    "all_fit": (lambda: sleep().all_fit(["bfgs", "bobyqa"]), "by several optimizers"),
    "convergence": (lambda: sleep().convergence, "status"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_prints_itself(name):
    make, part = RESULTS[name]
    result = make()
    lines = repr(result).splitlines()
    assert max(map(len, lines)) <= 80
    assert part in " ".join(line.strip().removeprefix("Note: ") for line in lines)
    assert "np.float64" not in repr(result)
    if isinstance(result, pd.DataFrame):
        columns = " ".join(lines) + " ".join(result.attrs.get("hidden", ()))
        notes = ("note", "reason")
        said = [c for c in result.columns if c not in notes and result[c].notna().any()]
        assert all(str(column) in columns for column in said)
        assert repr(pickle.loads(pickle.dumps(result))) == repr(result)
    assert type(result.to_frame()) is pd.DataFrame
    assert "\\begin{tabular}" in result.to_latex()
    assert "| ---" in result.to_markdown().replace("--:", "---")
    html = result._repr_html_()
    assert html.count("<table") == html.count("</table>") > 0
    if not isinstance(result, pd.DataFrame) or result.attrs.get("heading"):
        assert "<p>" in html


def test_pandas_may_be_told_of_a_wider_terminal():
    table = schools().tidy(["fixed", "ran_pars"], conf_int=True)
    assert max(map(len, repr(table).splitlines())) <= 80
    with pd.option_context("display.width", 110):
        lines = repr(table).splitlines()
    assert 80 < max(map(len, lines)) <= 110
    assert "estimate" in lines[1]
    assert "conf_high" in lines[1]


def test_long_names_of_parameters_stand_whole_in_lines_of_their_own():
    name = "milliseconds_since_the_light_came_on"
    new = {"Days": name, "Subject": "participant_id"}
    data = mx.datasets.load("sleepstudy").rename(columns=new)
    fit = mx.lmer(f"Reaction ~ {name} + ({name} | participant_id)", data)
    boot = fit.bootstrap(20, seed=1)
    for found in (boot, fit.step(), fit.profile("theta_"), fit.variance_components()):
        lines = repr(found).splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in repr(found)
        assert any(name in line for line in lines)
    lines = repr(boot).splitlines()
    place = lines.index(f"cor_{name}.(Intercept)|participant_id")
    numbers = [float(text) for text in lines[place + 1].split()]
    estimates = fit.confint("wald").attrs["estimates"]
    assert numbers[0] == pytest.approx(estimates[lines[place]], abs=1e-3)
    assert "mean" not in lines[1]  # the estimate and its bias say it
    assert "mean" in boot.to_frame()


def test_what_names_families_stands_above_them_in_wide_tables():
    rng = np.random.default_rng(2)
    drugs = ["Placebo", "Drug A (10 mg)", "Drug A (20 mg)"]
    data = pd.DataFrame({"arm": [drugs[i % 3] for i in range(120)]})
    data["visit"] = [f"visit {i // 3 % 2 + 1}" for i in range(120)]
    data["g"] = [f"g{i // 6}" for i in range(120)]
    data["y"] = rng.normal(size=120)
    means = mx.lmer("y ~ arm * visit + (1 | g)", data, control=mx.Control(warn=False)).emmeans(
        "arm", by="visit"
    )
    table = means.pairs(conf_int=True)
    lines = repr(table).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in repr(table)
    headed = [line for line in lines if line.endswith(":")]
    assert headed == ["visit = visit 1:", "visit = visit 2:"]
    assert lines.count(" Drug A (10 mg) - Placebo") == 2
    assert table["visit"].tolist() == ["visit 1"] * 3 + ["visit 2"] * 3
    assert "visit = visit 1:" not in table.to_html()
    each = repr(means.pairs(simple="each", conf_int=True)).splitlines()
    assert "visit = visit 1:" in each
    assert "arm = Placebo:" in each


def test_tables_by_group_print_below_each_other():
    fit = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mx.datasets.load("Penicillin"))
    for found in (fit.ranef(), fit.coef(), fit.rePCA()):
        assert isinstance(found, dict)
        assert list(found) == ["plate", "sample"]
        assert repr(found).startswith("plate:\n")
        assert "\n\nsample:\n" in repr(found)
        assert found._repr_html_().count("<table") == 2
        assert pickle.loads(pickle.dumps(found)).keys() == found.keys()


def test_columns_without_a_word_do_not_print():
    found = sleep().tidy("ran_vals")
    assert "p_value" not in repr(found)
    assert "p_value" in found


def long(item):
    return f"the long name that a questionnaire gives to its item {item}"


@cache
def questions():
    data = mx.datasets.load("sleepstudy").rename(columns=long)
    x, g = f"`{long('Days')}`", f"`{long('Subject')}`"
    return mx.lmer(f"`{long('Reaction')}` ~ {x} + ({x} | {g})", data)


WITH_LONG_NAMES = {
    "summary": lambda: questions().summary(),
    "varcorr": lambda: questions().varcorr,
    "ranef": lambda: questions().ranef(),
    "coef": lambda: questions().coef(),
    "influence": lambda: questions().influence(long("Subject")),
    "tidy": lambda: questions().tidy(["fixed", "ran_pars"], conf_int=True),
    "anova": lambda: questions().anova(),
    "many": lambda: mx.lmer_many(
        questions().formula, mx.datasets.load("sleepstudy").rename(columns=long), long("Reaction")
    ),
    "lm_list": lambda: mx.lm_list(
        f"`{long('Reaction')}` ~ `{long('Days')}` | `{long('Subject')}`",
        mx.datasets.load("sleepstudy").rename(columns=long),
    ),
}


@pytest.mark.parametrize("name", WITH_LONG_NAMES)
def test_long_names_do_not_make_lines_longer_than_a_terminal(name):
    lines = str(WITH_LONG_NAMES[name]()).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("Day" in line for line in lines)
