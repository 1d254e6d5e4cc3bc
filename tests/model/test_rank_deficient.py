"""Columns of X that are combinations of others: left out, shown as NaN, or refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

FORMULA = "Reaction ~ hours + Days + (Days | Subject)"
STRICT = mx.Control(rank_deficient="error")
REFUSED = r"Days is a combination of earlier columns.*rank_deficient=.drop"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    sleep = mx.datasets.load("sleepstudy")
    return sleep.assign(hours=24.0 * sleep["Days"])


def test_all_coefficients_in_the_order_of_the_formula(data):
    with pytest.warns(mx.RankDeficiencyWarning):
        fit = mx.lmer(FORMULA, data)
    assert list(fit.fixef_all.index) == ["(Intercept)", "hours", "Days"]
    assert np.isnan(fit.fixef_all["Days"])
    pd.testing.assert_series_equal(fit.fixef_all.dropna(), fit.fixef)
    full = mx.lmer("Reaction ~ Days + (Days | Subject)", data)
    pd.testing.assert_series_equal(full.fixef_all, full.fixef)


def ways(data: pd.DataFrame):
    X = np.column_stack([np.ones(180), data["hours"], data["Days"]])
    names = ["(Intercept)", "hours", "Days"]
    terms = [(data["Subject"],)]
    plain = "Reaction ~ hours + Days + (1 | Subject)"
    yield lambda control: mx.lmer(plain, data, control=control)
    yield lambda control: mx.fit_matrices(
        data["Reaction"], X, terms, x_names=names, control=control
    )
    yield lambda control: mx.gls("Reaction ~ hours + Days", data, control=control)
    yield lambda control: mx.fit_products(mx.cross_products(plain, data), control=control)
    yield lambda control: mx.optimize(
        mx.penalized_system(mx.model_matrices(plain, data)), control=control
    )


def test_every_way_to_a_fit_refuses_them_on_request(data):
    loose = mx.Control(warn=False)
    for way in ways(data):
        way(loose)
        with pytest.raises(mx.DataError, match=REFUSED):
            way(STRICT)
    mx.lmer("Reaction ~ Days + (Days | Subject)", data, control=STRICT)
    strict = mx.lmer("Reaction ~ Days + (1 | Subject)", data, control=STRICT)
    with pytest.raises(mx.DataError, match="hours is a combination"):
        strict.update(". ~ . + hours")


def test_a_response_alone_is_refused(data):
    a = data["Reaction"].to_numpy()
    b = np.where(data["Days"] < 1, np.nan, a)  # what is left has one value of `first`
    first = (data["Days"] < 1).astype(float)
    many = mx.lmer_many(
        "~ first + Days + (1 | Subject)", data.assign(first=first), np.column_stack([a, b]),
        control=STRICT, progress=False,
    )  # fmt: skip
    assert many.status == ("converged", "failed")
    assert "first is a combination" in many.message[1]


def test_another_word_is_refused():
    with pytest.raises(mx.OptionError, match="'stop': use one of 'drop', 'error'"):
        mx.Control(rank_deficient="stop")


def test_the_warning_needs_no_rows(data):
    formula = "Reaction ~ hours + Days + (1 | Subject)"
    quiet = mx.Control(warn=False)
    whole = mx.lmer(formula, data, control=quiet)
    summed = mx.fit_products(mx.cross_products(formula, data), control=quiet)
    parts = mx.lmer(formula, lambda: iter([data.iloc[:90], data.iloc[90:]]), control=quiet)
    assert summed.messages == parts.messages == whole.messages
    assert "hours" in whole.messages[0]
