"""Names that users of R, statsmodels and pandas type: the same thing, or what to write."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support import corpus
from tests.support.corpus import load_data

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def fit():
    return corpus.fit("sleep_rs_reml")


def test_names_of_statsmodels(fit):
    pd.testing.assert_series_equal(fit.fe_params, fit.fixef)
    pd.testing.assert_series_equal(fit.bse_fe, fit.bse)
    effects = fit.random_effects
    frame = fit.ranef()["Subject"]
    assert list(effects) == list(frame.index)
    np.testing.assert_array_equal(effects["308"], frame.loc["308"])
    pd.testing.assert_frame_equal(fit.cov_re, fit.varcorr["Subject"])
    assert fit.converged is True
    crossed = corpus.fit("penicillin_reml")
    for name in ("random_effects", "cov_re"):
        with pytest.raises(mx.OptionError, match="one grouping factor, the fit has plate, sample"):
            getattr(crossed, name)


def test_functions_of_r(fit):
    assert fit.logLik() == fit.llf
    assert fit.AIC() == fit.aic
    assert fit.BIC() == fit.bic
    assert fit.REMLcrit() == fit.criterion
    assert repr(fit.VarCorr()) == repr(fit.VarCorr) == repr(fit.varcorr)
    pd.testing.assert_frame_equal(fit.vcov(), fit.cov_params())
    pd.testing.assert_series_equal(fit.fitted(), fit.fittedvalues)
    assert fit.isSingular() == fit.is_singular()
    assert fit.refitML().reml is False
    assert fit.df_residual() == fit.df_resid


def test_what_r_calls_is_a_value_as_well(fit):
    ml = fit.refit_ml()
    assert ml.logLik - fit.logLik == ml.llf - fit.llf
    assert fit.AIC < fit.BIC
    assert f"{fit.loglik:.3f}" == f"{fit.llf:.3f}"
    assert pickle.loads(pickle.dumps(fit.logLik)) == fit.llf
    np.testing.assert_array_equal(fit.fittedvalues - fit.fitted, 0.0)
    assert fit.fitted.iloc[0] == fit.fitted[0] == fit.fittedvalues.iloc[0]
    assert bool(fit.isREML) is True
    assert bool(ml.isREML) is False
    assert fit.df_residual + 1 == fit.df_resid + 1
    assert fit.ngrps["Subject"] == 18
    assert list(fit.ngrps) == list(fit.ngroups)
    assert fit.VarCorr["Subject"].equals(fit.varcorr["Subject"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("get_prediction", r"fit\.predict\(newdata, interval='confidence'\)"),
        ("t_test", "contest"), ("coef_", r"fit\.fixef"), ("df", r"fit\.df_resid"),
        ("vcomp", "variance_components"), ("model", r"fit\.matrices"),
        ("fixeff", "did you mean 'fixef'"), ("zzzzzz", "a fit has no 'zzzzzz'$"),
    ],
)  # fmt: skip
def test_other_names_are_answered(fit, name, words):
    with pytest.raises(AttributeError, match=words):
        getattr(fit, name)
    assert not hasattr(fit, name)


def test_other_names_are_not_part_of_the_interface(fit):
    assert not {"fe_params", "VarCorr", "logLik", "random_effects"} & set(dir(fit))
    assert not hasattr(mx.LinearMixedFit, "fe_params")
    for again in (pickle.loads(pickle.dumps(fit)), copy.copy(fit), copy.deepcopy(fit)):
        assert again.fe_params.equals(fit.fixef)
    assert not hasattr(fit, "_repr_png_")  # what notebooks ask for


@pytest.mark.parametrize(
    ("method", "keyword", "value", "words"),
    [
        ("predict", "exog", None, "write newdata="), ("predict", "se_fit", True, "write se=True"),
        ("emtrends", "var", "Days", r"write fit\.emtrends\('Days', specs=\.\.\.\)"),
        ("emmeans", "conf_level", 0.9, r"write level=0\.9"),
        ("emmeans", "lmer_df", "kr", "write ddf='kr'"),
        ("bootstrap", "n", 10, "write nsim=10"), ("tidy", "conf_level", 0.9, "write level"),
        ("bootstrap", "parallel", True, "write n_jobs="),
        ("summary", "nonsense", 1, "its arguments are "),
        ("summary", "ddff", 1, r"did you mean ddf\?"),
        ("refit_ml", "conf_level", 1, "its arguments are"),
    ],
)  # fmt: skip
def test_unknown_keywords_of_methods_are_answered(fit, method, keyword, value, words):
    with pytest.raises(mx.OptionError, match=f"has no argument '{keyword}': .*{words}"):
        getattr(fit, method)(**{keyword: value})
    with pytest.raises(TypeError):
        getattr(fit, method)(**{keyword: value})


def test_functions_of_the_package_that_belong_to_a_fit():
    for name, words in (("fixef", r"fit\.fixef"), ("emmeans", r"fit\.emmeans"),
                        ("logLik", r"fit\.llf"), ("lsmeans", r"fit\.emmeans")):  # fmt: skip
        with pytest.raises(AttributeError, match=f"belongs to a fit, {words}"):
            getattr(mx, name)


@pytest.mark.parametrize("re_form", ["pop", "population", "none", "NA", "~0", np.nan, pd.NA])
def test_ways_to_leave_out_random_effects(fit, re_form):
    new = load_data("sleepstudy").head(4)
    expected = fit.fixef.iloc[0] + fit.fixef.iloc[1] * new["Days"]
    np.testing.assert_allclose(fit.predict(new, re_form), expected)


def test_rows_as_dictionaries():
    data = load_data("sleepstudy")
    expected = mx.lmer(FORMULA, data)
    for given in (data.to_dict("records"), tuple(data.to_dict("records")), data.to_dict("list")):
        found = mx.lmer(FORMULA, given)
        assert found.criterion == pytest.approx(expected.criterion, rel=1e-12)
    rows = data.head(3).to_dict("records")
    np.testing.assert_allclose(expected.predict(rows), expected.predict(data.head(3)))
    held = data.to_dict("records")
    owned = mx.lmer(FORMULA, held)
    held[0]["Reaction"] = 1e6
    held.clear()
    assert owned.refit_ml().criterion == pytest.approx(expected.refit_ml().criterion, rel=1e-12)
    with pytest.raises(mx.DataError, match="type list are not a data frame"):
        mx.lmer(FORMULA, [1, 2, 3])


def test_treatment_contrasts_with_another_base(tmp_path):
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"f": np.tile(list("ABC"), 40), "k": np.tile([1, 2, 3], 40)})
    data["g"] = np.repeat(np.arange(20), 6)
    data["y"] = rng.normal(size=120) + data["k"] + rng.normal(size=20)[data["g"]]
    first = mx.lmer("y ~ f + (1 | g)", data)
    based = mx.lmer("y ~ f + (1 | g)", data, contrasts={"f": ("treatment", "B")})
    assert based.fixef.index.tolist() == ["(Intercept)", "fA", "fC"]
    assert based.fixef["fA"] == pytest.approx(-first.fixef["fB"])
    in_formula = mx.lmer("y ~ C(f, Treatment('B')) + (1 | g)", data)
    np.testing.assert_allclose(based.fixef, in_formula.fixef)
    based.save(tmp_path / "fit.mixlm", include_data=True)
    again = mx.load(tmp_path / "fit.mixlm").update("y ~ f + (1 | g)")
    assert again.fixef.index.tolist() == ["(Intercept)", "fA", "fC"]
    data["k"] = data["k"].astype("category")
    numbered = mx.lmer("y ~ k + (1 | g)", data, contrasts={"k": ("treatment", 3)})
    assert numbered.fixef.index.tolist() == ["(Intercept)", "k1", "k2"]
    with pytest.raises(mx.FormulaError, match="'f' has no level 'Z'"):
        mx.lmer("y ~ f + (1 | g)", data, contrasts={"f": ("treatment", "Z")})
    with pytest.raises(mx.DataError, match="'sum' has no base level"):
        mx.lmer("y ~ f + (1 | g)", data, contrasts={"f": ("sum", "B")})
    with pytest.raises(mx.FormulaError, match=r"contrasts=\{'f': \('treatment', 'level'\)\}"):
        mx.lmer("y ~ relevel(f, ref = 'B') + (1 | g)", data)


def test_other_ways_to_say_it(fit):
    pd.testing.assert_frame_equal(
        fit.confint("wald", alpha=0.1).to_frame(), fit.confint("wald", 0.9).to_frame()
    )
    assert "slopes" in mx.compare_table({"slopes": fit})
    assert mx.compare_table({"slopes": fit}) == mx.compare_table(fit, names=["slopes"])
