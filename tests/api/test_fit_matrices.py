"""Fits of matrices: the same as by a formula, and what is wrong with matrices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import mixlm_sparse as mx
from tests.support import corpus

ML_CRITERION = 1751.9393444636682


def test_fit_matrices_matches_the_formula(sleep, fit):
    X = np.column_stack([np.ones(180), sleep["Days"]])
    same = mx.fit_matrices(
        sleep["Reaction"],
        X,
        [(sleep["Subject"], X, "Subject")],
        x_names=["(Intercept)", "Days"],
    )
    assert same.criterion == pytest.approx(fit.criterion, abs=1e-9)
    np.testing.assert_allclose(same.fixef, fit.fixef)
    assert list(same.fixef.index) == ["(Intercept)", "Days"]
    np.testing.assert_allclose(
        same.ranef()["Subject"].to_numpy(), fit.ranef()["Subject"].to_numpy(), atol=1e-4
    )
    assert list(same.ranef()["Subject"].index) == list(fit.ranef()["Subject"].index)
    assert same.formula == "y ~ 1 + Days + (1 + z2 | Subject)"
    assert same.update(reml=False).criterion == pytest.approx(ML_CRITERION, abs=1e-7)
    with pytest.raises(mx.OptionError, match="made from matrices"):
        same.update(". ~ . - Days")


def test_fit_matrices_two_terms_of_one_factor(sleep):
    reference = corpus.fit("sleep_uncorr_ml")
    subject = sleep["Subject"]
    days = pd.DataFrame({"Days": sleep["Days"]})
    fit = mx.fit_matrices(
        sleep["Reaction"],
        days.assign(one=1.0)[["one", "Days"]],
        [
            mx.RandomEffect(subject, name="Subject"),
            mx.RandomEffect(subject, days, name="Subject"),
        ],
        reml=False,
    )
    assert fit.criterion == pytest.approx(reference.criterion, abs=1e-8)
    assert list(fit.varcorr) == ["Subject", "Subject.1"]
    assert list(fit.fixef.index) == ["one", "Days"]
    assert list(fit.ranef()["Subject"].columns) == ["(Intercept)", "Days"]


def test_fit_matrices_weights_and_offset():
    data = corpus.load_data("sleepstudy_ext")
    X = np.column_stack([np.ones(180), data["Days"]])
    reference = corpus.fit("sleep_w_off_ml")
    subject = data["Subject"]
    fit = mx.fit_matrices(
        data["Reaction"],
        X,
        [(subject,), (subject, X[:, 1:])],
        reml=False,
        weights=data["w"],
        offset=data["off"],
    )
    assert fit.criterion == pytest.approx(reference.criterion, abs=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.ones((179, 1))}, r"X has shape \(179, 1\)"),
        ({"y": np.append(np.ones(179), np.nan)}, "y has 1 missing or infinite"),
        ({"terms": []}, "no random term"),
        ({"terms": [(np.zeros(180),)]}, "has 1 level"),
        ({"terms": [(np.arange(90),)]}, r"have shape \(90,\)"),
        ({"terms": ["Subject"]}, "is RandomEffect"),
        ({"terms": [(3, None, "g")]}, "groups of term 'g' are 3: give one label for each row"),
        ({"terms": [("school",)]}, "groups of term 'g1' are 'school': give one label"),
        ({"terms": [(None,)]}, "groups of term 'g1' are None: give one label"),
        ({"terms": [((i % 5 for i in range(180)),)]}, "generator object .*: give one label"),
        ({"terms": [(np.arange(180) % 5, None, 5)]}, r"name of terms\[0\] is 5: use text"),
        ({"terms": [(np.arange(180) % 5, None, {"g"})]}, r"name of terms\[0\] is \{'g'\}"),
        ({"y": np.ones((180, 2))}, r"y is an array of shape \(180, 2\): give one number"),
        ({"weights": np.zeros(180)}, "weights must be positive"),
        ({"x_names": ["a", "b"]}, "1 different names"),
        ({"y": ["a"] * 180}, "y is not numeric"),
    ],
)
def test_fit_matrices_says_what_is_wrong(change, message):
    groups = np.repeat(np.arange(18), 10)
    arguments = {
        "y": np.sin(np.arange(180.0)),
        "X": np.ones((180, 1)),
        "terms": [(groups,)],
        **change,
    }
    with pytest.raises(mx.MixedModelError, match=message):
        mx.fit_matrices(**arguments)

def test_matrices_in_the_place_of_groups_say_what_to_give():
    rng = np.random.default_rng(0)
    X, y = np.column_stack([np.ones(30), rng.normal(size=30)]), rng.normal(size=30)
    Z = rng.normal(size=(30, 5))
    with pytest.raises(mx.DataError, match=r"of shape \(30, 5\): give one label for each row, or"):
        mx.fit_matrices(y, X, [(Z, None, "g")])
    with pytest.raises(mx.DataError, match="are several matrices: a term has one Z"):
        mx.fit_matrices(y, X, [([sp.csr_array(Z), sp.csr_array(Z)], None, "g")])
