"""`fit.nobs` and `fit.nobs()`: attributes that R has functions for answer calls."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.api.called import CALLED
from tests.support import corpus


@pytest.fixture(scope="module")
def fit():
    return corpus.fit("sleep_rs_reml")


@pytest.mark.parametrize("name", CALLED)
def test_called_and_not(fit, name):
    value = getattr(fit, name)
    kind = {"nobs": int, "sigma": float, "deviance": float}.get(name, pd.Series)
    assert isinstance(value, kind)
    called = value()
    assert type(called) is kind
    np.testing.assert_array_equal(called, value)
    for plain in (pickle.loads(pickle.dumps(value)), copy.copy(value), value + 0):
        assert type(plain) is kind
        np.testing.assert_array_equal(plain, called)
    assert repr(value) == repr(called)
    with pytest.raises(mx.OptionError, match=f"fit.{name} is an attribute, without arguments: "):
        value("pearson")
    with pytest.raises(mx.OptionError, match="without arguments"):
        value(REML=False)


def test_other_kinds_of_residuals_are_named(fit):
    with pytest.raises(mx.OptionError, match=r"write fit\.residuals\('pearson'\)"):
        fit.resid("pearson")
    np.testing.assert_array_equal(fit.residuals(), fit.resid)


def test_they_are_what_they_were_for_pandas(fit):
    expected = pd.Series(fit.fixef)
    pd.testing.assert_series_equal(fit.fixef, expected)
    pd.testing.assert_series_equal(expected, fit.fixef)
    assert type(fit.fixef.round(3)) is pd.Series
    data = corpus.load_data("sleepstudy").copy()
    data["r"] = fit.resid
    again = data.assign(r=fit.resid, n=fit.nobs, s=fit.sigma)
    pd.testing.assert_series_equal(again["r"], pd.Series(fit.resid), check_names=False)
    assert again["n"].dtype.kind == "i"
    assert (again["n"] == 180).all()
    assert again["s"].iloc[0] == fit.sigma
    frame = pd.DataFrame({"b": [1.0, 2.0]}, index=fit.fixef.index)
    pd.testing.assert_frame_equal(frame.assign(b=fit.fixef), fit.fixef.to_frame("b"))
    assert frame.loc[fit.fixef > 100].shape == (1, 1)
    assert json.loads(json.dumps([fit.nobs, fit.sigma])) == [180, fit.sigma]
    assert np.asarray([fit.nobs]).dtype.kind == "i"


def test_a_summary_that_is_not_called_is_shown(fit):
    assert repr(fit.summary) == str(fit.summary())
    assert fit.summary._repr_html_() == fit.summary()._repr_html_()
    assert "Return the summary" in fit.summary.__doc__
    assert str(fit.summary(ddf=None)) == str(fit.summary(ddf=None))
    assert pickle.loads(pickle.dumps(fit.summary))() == fit.summary()


def test_names_of_groups_are_no_arguments(fit):
    with pytest.raises(mx.OptionError, match=r"write fit\.ranef\(\)\['Subject'\]"):
        fit.ranef("Subject")
    with pytest.raises(mx.OptionError, match=r"write fit\.coef\(\)\['Subject'\]"):
        fit.coef("Subject")


def test_arguments_beyond_those_by_place_are_answered(fit):
    with pytest.raises(mx.OptionError, match=r"glance takes no argument, and not 5 as well"):
        fit.glance(5)
    with pytest.raises(mx.OptionError, match=r"summary\(\.\.\., correlation='kr'\)"):
        fit.summary("kr")
    with pytest.raises(TypeError):
        fit.summary("kr")
