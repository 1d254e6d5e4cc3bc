"""`fit.nobs` and `fit.nobs()`: attributes that R has functions for answer calls."""

from __future__ import annotations

import copy
import inspect
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


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("fit['Days']", r"write fit\.fixef\['Days'\]"),
        ("fit['Subject']", r"write fit\.ranef\(\)\['Subject'\], fit\.coef\(\)\['Subject'\]"),
        ("fit.emmeans('Days')['emmean']", r"write \.to_frame\(\)\['emmean'\]"),
        ("fit.emmeans('Days').loc", r"its data frame is \.to_frame\(\)\.loc"),
        ("fit.anova().p_value", r"its columns are Sum Sq"),
        ("fit.r2()['marginal']", r"there is no column 'marginal': .*write \.loc\['marginal'\]"),
        ("fit.confint('Days')", r"write fit\.confint\(parm='Days'\)"),
        ("fit.confint(0.9)", r"write fit\.confint\(level=0\.9\)"),
        ("fit.update(REML=False)", "write reml="),
        ("fit.summary()['coefficients']", r"write summary\.to_frame\(\)"),
        ("fit.summary().as_latex", r"write summary\.to_latex\(\)"),
        ("fit.plot.residual()", "did you mean 'residuals'"),
        ("fit.plot('residual')", "did you mean 'residuals'"),
        ("mx.VarCorr(fit)", r"write fit\.varcorr"),
        ("mx.sleepstudy", r"mixlm_sparse\.datasets\.load\('sleepstudy'\)"),
        ("mx.qqnorm", r"fit\.plot\.qq\(\)"),
        ("fit.head()", r"fit\.augment\(\)\.head\(\)"),
        ("fit.predict(fit.fittedvalues)", r"a column data\[\['name'\]\]"),
        ("mx.lmer_many('~ 1 + (1 | Subject)', fit.augment(), 'Reaction')['Reaction']",
         r"write \.fit\('Reaction'\)"),
    ],
)  # fmt: skip
def test_habits_end_in_what_to_write(fit, what, words):
    kinds = (mx.MixedModelError, AttributeError)
    with pytest.raises(kinds, match=words):
        eval(what, {"mx": mx, "fit": fit})


def test_names_that_r_has_for_the_same(fit):
    assert fit.df_residual() == fit.df_residual == fit.df_resid
    assert fit.AIC - 1.0 == fit.aic - 1.0
    assert fit.confint("Wald").equals(fit.confint("wald"))
    assert fit.drop1(test="Chisq").equals(fit.drop1())
    assert "<plot qq(*, level=0.95, ax=None)>" in repr(fit.plot.qq)
    assert list(inspect.signature(fit.plot.qq).parameters) == ["level", "ax"]
    assert list(inspect.signature(fit.summary).parameters) == ["correlation", "ddf"]
