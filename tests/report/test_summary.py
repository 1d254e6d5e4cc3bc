"""What a fit prints: text for a terminal, tables for a notebook, numbers of any size."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.layout import WIDTH
from mixlm_sparse.common.text import display_width
from tests.support import corpus
from tests.support.corpus import LARGE, MODELS

SLEEP_SUMMARY = """\
Linear mixed model fit by REML
Formula: Reaction ~ Days + (Days | Subject)
   Data: 180 rows

REML criterion at convergence: 1743.6
   AIC     BIC  logLik  df.resid
1755.6  1774.8  -871.8       174

Scaled residuals:
    Min      1Q Median     3Q    Max
-3.9536 -0.4634 0.0231 0.4634 5.1793

Random effects:
 Groups    Name         Variance  Std.Dev.  Corr
 Subject   (Intercept)    612.09    24.740
           Days            35.07     5.922  0.07
 Residual                 654.94    25.592
Number of obs: 180, groups: Subject, 18

Fixed effects (t tests with Satterthwaite's degrees of freedom):
            Estimate Std. Error   df t value Pr(>|t|)
(Intercept)  251.405      6.825 17.0  36.838   <2e-16
Days          10.467      1.546 17.0   6.771 3.26e-06

Correlation of fixed effects:
     (Intr)
Days -0.138

Convergence: converged;"""


class Cells(HTMLParser):
    """Collects the rows of all tables, and complains about tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.reading = [], [], False
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.reading = True

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.reading = False

    def handle_data(self, data):
        if self.reading:
            self.rows[-1][-1] += data


def fit_quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        return mx.lmer(*args, **kwargs)


def fixed_block(text):
    """The lines of the table of fixed effects, header first."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Fixed effects")) + 1
    stop = next(i for i in range(start, len(lines)) if not lines[i])
    return lines[start:stop]


# ----------------------------------------------------------------------------------------- summary


def test_sleepstudy_as_lme4_users_know_it():
    summary = corpus.fit("sleep_rs_reml").summary()
    assert summary.startswith(SLEEP_SUMMARY)
    assert isinstance(summary, str)
    assert repr(summary) == str(summary)


@pytest.mark.parametrize("model_id", [m for m in MODELS if m not in LARGE])
def test_every_summary_fits_the_page_and_says_the_numbers(model_id):
    fit = corpus.fit(model_id)
    text = fit.summary()
    assert max(map(len, text.splitlines())) <= WIDTH
    rows = fixed_block(text)[1:]
    assert len(rows) == fit.system.p
    for row, name, value, error, t in zip(
        rows, fit.fixef.index, fit.fixef, fit.bse, fit.tvalues, strict=True
    ):
        printed = row.removeprefix(name).split()
        if len(printed) > 3:  # estimate, error, df, t, p
            printed = [printed[0], printed[1], printed[3]]
        assert row.startswith(name)
        assert [float(x) for x in printed] == [
            pytest.approx(value, rel=1e-3, abs=1e-3 * error),
            pytest.approx(error, rel=1e-3),
            pytest.approx(t, abs=6e-4, rel=1e-3),
        ]
    for label, count in fit.ngroups.items():
        assert f"{label}, {count}" in text
    Cells(fit._repr_html_())


def test_summary_names_method_weights_offset_and_rows():
    text = corpus.fit("sleep_w_off_ml").summary()
    assert text.startswith("Linear mixed model fit by maximum likelihood\n")
    assert "deviance (-2 log-likelihood) at convergence: " in text
    assert "Weights: w\n" in text
    assert " Offset: off\n" in text
    assert "Subject.1" in text
    frame = corpus.load_data("sleepstudy")
    frame.loc[[0, 1], "Days"] = np.nan
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", frame, weights=np.full(180, 2.0))
    assert "178 of 180 rows (2 left out" in fit.summary()
    assert "Weights: given as an array" in fit.summary()


def test_summary_names_the_subset():
    frame = corpus.load_data("sleepstudy")
    formula = "Reaction ~ Days + (1 | Subject)"
    fit = mx.lmer(formula, frame, subset="Days > 1")
    text = fit.summary()
    assert "144 of 180 rows" in text
    assert " Subset: Days > 1\n" in text
    assert "Subset: Days &gt; 1" in text.to_html()
    by_array = mx.lmer(formula, frame, subset=frame["Days"].to_numpy() > 1)
    assert " Subset: given as an array\n" in by_array.summary()
    assert "Subset:" not in mx.lmer(formula, frame).summary()


def test_summary_carries_the_messages():
    text = corpus.fit("sleep_rankdef").summary()
    assert "Note: the fixed-effects matrix is rank deficient: dropped 1 column" in text
    text = re.sub(r"\s+", " ", corpus.fit("dyestuff2_ml").summary())
    assert "Convergence: singular;" in text
    assert "Note: boundary (singular) fit: the variance of (Intercept) by Batch" in text


def test_correlations_of_fixed_effects():
    many = corpus.fit("cake_reml")  # 18 coefficients
    assert "Correlation of fixed effects:" not in many.summary()
    assert "summary(correlation=True)" in many.summary()
    wide = many.summary(correlation=True)
    assert "Correlation of fixed effects:" in wide
    assert max(map(len, wide.splitlines())) <= WIDTH
    few = corpus.fit("sleep_rs_reml")
    assert "Correlation of fixed effects" not in few.summary(correlation=False)
    assert "Correlation of fixed effects" not in corpus.fit("dyestuff_reml").summary()
    assert "-0.000" not in corpus.fit("hsb_final_reml").summary()


def test_random_terms_are_not_torn_apart():
    lines = corpus.fit("hsb_final_reml").summary().splitlines()
    assert any("(1 | school)" in line for line in lines)


def test_long_names_are_cut():
    frame = corpus.load_data("sleepstudy")
    name = "hours_of_sleep_" * 8
    frame[name] = frame["Days"]
    fit = mx.lmer(f"Reaction ~ {name} + ({name} | Subject)", frame)
    text = fit.summary()
    assert max(map(len, text.splitlines())) <= WIDTH + len(name)  # the formula cannot be broken
    assert all(len(line) <= WIDTH for line in text.splitlines()[4:])
    assert "…" in text


def test_wide_random_effects_leave_correlations_to_varcorr():
    rng = np.random.default_rng(1)
    k, groups, rows = 14, 60, 40
    g = np.repeat(np.arange(groups), rows)
    Z = rng.standard_normal((groups * rows, k))
    b = rng.standard_normal((groups, k))
    y = np.einsum("ik,ik->i", Z, b[g]) + rng.standard_normal(g.size)
    fit = mx.fit_matrices(y, np.ones((g.size, 1)), [(g, Z, "group")])
    text = fit.summary()
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "print fit.varcorr" in text
    assert "print fit.varcorr" not in repr(fit.varcorr)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_tiny_and_huge_numbers(scale):
    frame = corpus.load_data("sleepstudy")
    frame["Reaction"] *= scale
    text = mx.lmer("Reaction ~ Days + (Days | Subject)", frame).summary()
    intercept, days = fixed_block(text)[1:]
    assert float(intercept.split()[1]) == pytest.approx(251.4051 * scale, rel=1e-3)
    assert float(days.split()[1]) == pytest.approx(10.46729 * scale, rel=1e-3)
    assert float(days.split()[2]) == pytest.approx(1.5458 * scale, rel=1e-3)
    residual = next(line for line in text.splitlines() if line.startswith(" Residual"))
    assert float(residual.split()[2]) == pytest.approx(25.5918 * scale, rel=1e-3)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_html_shows_the_same_numbers_and_escapes():
    fit = corpus.fit("sleep_rs_reml")
    rows = Cells(fit._repr_html_()).rows
    assert ["(Intercept)", "251.405", "6.825", "17.0", "36.838", "<2e-16"] in rows
    assert ["Subject", "(Intercept)", "612.09", "24.740", ""] in rows
    assert fit.summary()._repr_html_() == fit._repr_html_()
    frame = corpus.load_data("sleepstudy")
    frame["<b>&x"] = frame["Days"]
    html = mx.lmer("Reaction ~ `<b>&x` + (1 | Subject)", frame)._repr_html_()
    assert "<b>&x" not in html
    assert "&lt;b&gt;&amp;x" in html


def test_repr_is_short():
    text = repr(corpus.fit("sleep_rs_reml"))
    assert max(map(len, text.splitlines())) <= 80
    assert text.replace("\n", " ") == (
        "<LinearMixedFit 'Reaction ~ Days + (Days | Subject)' by REML: criterion 1743.63, "
        "180 rows, groups Subject 18, converged>"
    )


def test_convergence_report():
    text = repr(corpus.fit("sleep_rs_reml").convergence)
    for head in ("status", "largest gradient", "Hessian eigenvalues", "evaluations", "engine"):
        assert re.search(rf"^{head} ", text, re.MULTILINE)
    assert "none needed" in text
    assert "by Batch" in " ".join(repr(corpus.fit("dyestuff2_ml").convergence).split())


def test_varcorr_of_weights_says_what_the_residual_is():
    assert "variance / weight of row i" in repr(corpus.fit("sleep_w_reml").varcorr)
    assert "weight" not in repr(corpus.fit("sleep_rs_reml").varcorr)


# ------------------------------------------------------------------------------------- long names


def test_long_names_are_cut_in_the_middle_and_stay_apart():
    question = "How satisfied are you with the service you received today? "
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(30), 10)
    data = {"y": rng.normal(size=30)[group] + rng.normal(size=300), "g": group}
    data |= {question + part: rng.normal(size=300) for part in ("(staff)", "(speed)", "(price)")}
    terms = " + ".join(f"`{name}`" for name in data if name.startswith("How"))
    fit = mx.lmer(f"y ~ {terms} + (1 | g)", data)
    lines = fit.summary().splitlines()
    assert max(map(len, lines)) <= WIDTH
    fixed = lines[lines.index(next(line for line in lines if line.startswith("Fixed"))) + 3 :][:3]
    labels = [line.split("…")[0] + line.split("…")[1].split("  ")[0] for line in fixed]
    assert len(set(labels)) == 3
    assert all(part in line for part, line in zip(("staff", "speed", "price"), fixed, strict=True))
    head = next(line for line in lines if "(Intr)" in line)
    names = head.split("(Intr)")[1].split()
    assert len(set(names)) == len(names)
    compared = str(mx.compare_table([fit, fit])).splitlines()
    assert len({line[:44] for line in compared if line.startswith(("`How", "How"))}) == 3


def test_wide_characters_take_two_columns():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(30), 10)
    data = {
        "反应时": rng.normal(size=30)[group] + rng.normal(size=300),
        "天数": rng.normal(size=300),
        "条件": np.where(rng.random(300) < 0.5, "对照组", "实验组一"),
        "被试": group,
    }
    fit = mx.lmer("反应时 ~ 天数 * 条件 + (1 | 被试)", data)
    lines = fit.summary().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Fixed effects"))
    assert len({display_width(line) for line in lines[start + 1 : start + 6]}) == 1
    start = lines.index("Random effects:")
    assert display_width(lines[start + 2]) == display_width(lines[start + 3])
