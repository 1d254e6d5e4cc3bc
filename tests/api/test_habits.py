"""What users of other packages type: values that stay plain, names that are answered."""

from __future__ import annotations

import copy
import inspect
import pickle

import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support import corpus


@pytest.fixture(scope="module")
def fit():
    return corpus.fit("sleep_rs_reml")


PLAIN = {
    "params": pd.Series, "bse": pd.Series, "resid": pd.Series,
    "fittedvalues": pd.Series, "nobs": int, "sigma": float, "deviance": float, "llf": float,
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_attributes_are_plain_values_for_other_packages(fit, name):
    """What pandas may call is no data to it: a Series to map by, a number in a query."""
    assert type(getattr(fit, name)) is PLAIN[name]
    assert not callable(getattr(fit, name))


def test_attributes_are_data_for_pandas(fit):
    terms = pd.Series(["Days", "no such term"])
    assert terms.map(fit.fixef).tolist()[0] == fit.fixef["Days"]
    rows, sigma = pd.DataFrame({"r": fit.resid}), fit.sigma
    assert len(rows.query("r > @sigma / 2")) == int((fit.resid > sigma / 2).sum())
    assert fit.fixef.rename(fit.nobs).name == 180


def test_a_value_is_no_function(fit):
    assert not callable(fit.fixef)
    with pytest.raises(TypeError, match=r"fit.fixef is an attribute, written without parenthes"):
        fit.fixef()
    for copied in (pickle.loads(pickle.dumps(fit.fixef)), copy.deepcopy(fit.fixef)):
        pd.testing.assert_series_equal(copied, fit.params)
        pd.testing.assert_series_equal(fit.params, copied)
    assert type(fit.fixef.round(2)) is type(pd.concat([fit.fixef, fit.bse])) is pd.Series
    assert isinstance(fit.fixef.to_frame("b"), pd.DataFrame)
    assert fit.fixef.groupby(level=0).sum().sum() == pytest.approx(fit.params.sum())


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
        ("mx.wide_to_long", r"pandas\.melt"),
        ("mx.glmer", "use bambi"),
        ("fit.estimate('Days')", r"write fit\.contest\(L\)"),
        ("fit.plot.qqnorm()", "did you mean 'qq'"),
        ("fit.simulate(2, n=5)", "simulate has no argument 'n': write nsim=5"),
        ("fit.summary().save('x')", "write_text"),
        ("fit.wald_test('Days[T.2] = 0')", r"no coefficient 'Days\[T\.2\]'"),
        ("mx.lmer('y ~ x', {}, cov='un')", r"us\(x \| g\)"),
        ("mx.lmer('y ~ x', {}, where='x > 1')", "write subset='x > 1'"),
        ("mx.lmer('Reaction ~ i.Days + (1 | Subject)', fit.augment())", r"write factor\(Days\)"),
        ("mx.lmer('y ~ a##b + (1 | g)', {})", r"for Stata's ## write \*"),
        ("mx.lmer('cbind(a, b) ~ 1 + (1 | Subject)', fit.augment())", r"mx\.lmer_many\(formula"),
        ("mx.lmer('y ~ s(x) + (1 | Subject)', fit.augment())", r"ns\(x, df = 4\)"),
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
    assert fit.df_residual() == fit.df_resid
    assert fit.AIC() == fit.aic
    assert repr(fit.AIC) == repr(fit.aic)
    assert fit.confint("Wald").equals(fit.confint("wald"))
    assert fit.drop1(test="Chisq").equals(fit.drop1())
    assert "<plot qq(*, level=0.95, ax=None)>" in repr(fit.plot.qq)
    assert list(inspect.signature(fit.plot.qq).parameters) == ["level", "ax"]
    assert list(inspect.signature(fit.summary).parameters) == ["correlation", "ddf"]


def test_a_printed_fit_shows_its_estimates(fit):
    text = str(fit)
    assert str(fit.varcorr) in text
    assert "(Intercept)    Days\n     251.41  10.467" in text
    assert text.startswith("Linear mixed model fit by REML\nFormula: Reaction ~ Days + ")
    assert repr(fit).startswith("<LinearMixedFit 'Reaction")
    with pytest.warns(mx.SingularFitWarning):
        singular = fit.update(". ~ . + (1 | Days)")
    assert str(singular).endswith("fit.summary() has the tests, fit.messages 1 message")
    many = mx.lmer("Reaction ~ factor(Days) + (1 | Subject)", corpus.load_data("sleepstudy"))
    assert max(map(len, str(many).splitlines())) <= 80


def test_other_files_are_read_first(tmp_path):
    for name, reader in (("d.csv", "read_csv"), ("d.xlsx", "read_excel"), ("d.dta", "read_stata")):
        (tmp_path / name).write_bytes(b"y,x,g")
        with pytest.raises(mx.DataError, match=f"give the frame, pandas.{reader}"):
            mx.lmer("y ~ x + (1 | g)", tmp_path / name)
