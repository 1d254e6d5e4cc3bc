"""Further fits: to another response, by the other criterion, with arguments changed."""

from __future__ import annotations

import numpy as np
import pytest

import mixlm_sparse as mx
from mixlm_sparse.formula.update import updated_formula
from tests.support import corpus

SLEEP = "Reaction ~ Days + (Days | Subject)"
REML_CRITERION = 1743.6282719584908  # lme4, tight optimum
ML_CRITERION = 1751.9393444636682


def test_refit_is_a_new_fit_to_other_data(sleep, fit):
    rng = np.random.default_rng(3)
    y = sleep["Reaction"] + rng.normal(0, 20, 180)
    again = fit.refit(y)
    direct = mx.lmer(SLEEP, sleep.assign(Reaction=y))
    assert again.criterion == pytest.approx(direct.criterion, abs=1e-8)
    np.testing.assert_allclose(again.fixef, direct.fixef, rtol=1e-8)
    np.testing.assert_allclose(again.sigma, direct.sigma, rtol=1e-5)
    np.testing.assert_allclose(again.fittedvalues, direct.fittedvalues, rtol=1e-4)
    np.testing.assert_allclose(again.resid, y - again.fittedvalues)
    assert again.system.engine is fit.system.engine
    assert fit.criterion == pytest.approx(REML_CRITERION, abs=1e-7)


@pytest.mark.parametrize("model_id", ["sleep_w_off_ml", "penicillin_reml", "sleep_rankdef"])
def test_refit_with_weights_offset_crossed_and_dropped(model_id):
    fit = corpus.fit(model_id)
    rng = np.random.default_rng(5)
    y = fit.fittedvalues + fit.sigma * rng.standard_normal(fit.nobs)
    record = corpus.load_model(model_id)
    data = corpus.data_of(record)
    direct = corpus.quiet(
        mx.lmer,
        record["formula"],
        data.assign(**{fit.matrices.response_name: y}),
        reml=record["REML"],
        **corpus.options_of(record),
    )
    again = fit.refit(y)
    assert again.criterion == pytest.approx(direct.criterion, abs=1e-7)
    np.testing.assert_allclose(again.fixef, direct.fixef, rtol=1e-6)


def test_refit_to_the_same_response_is_the_same_fit(fit):
    assert fit.refit(fit.matrices.y).criterion == pytest.approx(fit.criterion, abs=1e-9)


def test_refit_keeps_digits_far_from_zero(fit):
    far = fit.refit(fit.matrices.y + 1e8)
    assert far.criterion == pytest.approx(REML_CRITERION, abs=1e-5)
    assert far.fixef["Days"] == pytest.approx(fit.fixef["Days"], rel=1e-8)


def test_refit_of_a_refit_and_update_of_a_refit(sleep, fit):
    y = sleep["Reaction"] * 2.0
    double = fit.refit(y)
    # the response of the refit stays when only the right side changes
    smaller = double.update(". ~ . - (Days | Subject) + (1 | Subject)")
    direct = mx.lmer("Reaction ~ Days + (1 | Subject)", sleep.assign(Reaction=y))
    assert smaller.criterion == pytest.approx(direct.criterion, abs=1e-8)
    # and goes when the response or the data do
    assert double.update("log(.) ~ .").criterion < 0
    assert double.update(data=sleep).criterion == pytest.approx(REML_CRITERION, abs=1e-7)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0, 2.0], r"shape \(2,\), the model has 180 rows"),
        (np.full(180, np.nan), "180 missing or infinite"),
        (["a"] * 180, "not numeric"),
    ],
)
def test_refit_says_what_is_wrong(fit, y, message):
    with pytest.raises(mx.DataError, match=message):
        fit.refit(y)


def test_refit_by_the_other_criterion(fit):
    ml = fit.refit_ml()
    assert not ml.reml
    assert ml.criterion == pytest.approx(ML_CRITERION, abs=1e-7)
    assert ml.refit_ml() is ml
    assert ml.refit_reml().criterion == pytest.approx(REML_CRITERION, abs=1e-7)
    assert fit.reml


def test_update_of_the_fit(fit, sleep):
    assert fit.update(reml=False).criterion == pytest.approx(ML_CRITERION, abs=1e-7)
    free = fit.update(optimizer="bobyqa", reml=False)
    assert free.convergence.optimizer == "bobyqa"
    assert free.criterion == pytest.approx(ML_CRITERION, abs=1e-6)
    more = fit.update(". ~ . + I(Days^2)")
    assert more.criterion == pytest.approx(corpus.fit("sleep_quad").criterion, abs=1e-7)
    assert more.formula == "Reaction ~ Days + (Days | Subject) + I(Days^2)"
    later = fit.update(subset="Days > 1")
    assert later.nobs == 144
    assert later.update(data=sleep).nobs == 144
    assert fit.update(start=[1.0, 0.0, 1.0]).criterion == pytest.approx(REML_CRITERION, abs=1e-7)


def test_update_knows_its_arguments(fit):
    with pytest.raises(mx.OptionError, match="no argument 'wieghts': use formula, data"):
        fit.update(wieghts="w")


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ("y ~ x + (x | g)", ". ~ . + z", "y ~ x + (x | g) + z"),
        ("y ~ x + (x | g)", "~ . - x", "y ~ 1 + (x | g)"),
        ("y ~ x + (x | g)", "log(.) ~ .", "log(y) ~ x + (x | g)"),
        ("y ~ x + (x|g)", ". ~ . - (x | g) + (1 | g)", "y ~ x + (1 | g)"),
        ("y ~ x + diag(x | g)", ". ~ . - diag(x|g) + (1|h)", "y ~ x + (1 | h)"),
        ("y ~ x + z + (1 | g)", ". ~ (.)^2", "y ~ (x + z)^2 + (1 | g)"),
        ("y ~ x + (1 | g)", ". ~ .:w", "y ~ x:w + (1 | g)"),
        ("y ~ a * b + (1 | g)", ". ~ . - a:b", "y ~ a * b + (1 | g) - a:b"),
        ("y ~ a + b + (1 | g)", ". ~ . - a * b", "y ~ a + b + (1 | g) - a * b"),
        ("y ~ x + offset(w) + (1 | g)", ". ~ . - offset(w)", "y ~ x + (1 | g)"),
        ("y ~ 0 + x + (1 | g)", ". ~ . - 1", "y ~ 0 + x + (1 | g) - 1"),
        ("y ~ x + (1 | g)", "w ~ z + (1 | h)", "w ~ z + (1 | h)"),
        ("y ~ (1 | g)", ". ~ . + x", "y ~ (1 | g) + x"),
        ("y ~ x + (1 | g)", ". ~ . + x", "y ~ x + (1 | g)"),
    ],
)
def test_dot_notation(old, change, new):
    got = updated_formula(old, change)
    assert str(mx.parse_formula(got)) == str(mx.parse_formula(new))
    if "^" not in change:
        assert got == new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (". ~ . - (1 | h)", r"not in the formula.*must be written: \(x \| g\)"),
        (". ~ x - .", "write the terms to keep"),
        (". ~ . - typo", r"the term typo is not in the formula.*its fixed terms: x$"),
        ("~ . - log(x) - x", r"the term log\(x\) is not in the formula"),
        (". ~ . + z - x:z", r"the term x:z is not in the formula.*: x, z$"),
        (". ~ . - offset(w)", r"the term offset\(w\) is not in the formula"),
        ("x + z", "has no '~'"),
    ],
)
def test_dot_notation_says_what_is_wrong(change, message):
    with pytest.raises(mx.FormulaError, match=message):
        updated_formula("y ~ x + (x | g)", change)
