"""statsmodels' MixedLM on the same models: its names, its numbers, or what to write."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support.other_tools import needed

PAGE = Path(__file__).parents[2] / "docs" / "from_statsmodels.md"
RTOL = 2e-4  # their search stops where its gradient is small, not where it is zero
SAME_NUMBER = (
    "fe_params", "bse_fe", "cov_re", "cov_re_unscaled", "scale", "fittedvalues", "resid", "nobs",
    "k_fe", "k_re", "k_re2",
)  # fmt: skip
# nothing that a user asks a result for
NOT_COUNTED = {"data", "data_in_cache", "mle_retvals", "mle_settings"}


@pytest.fixture(scope="module")
def smf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        needed("statsmodels")
        import statsmodels.formula.api as smf
    return smf


MODELS = {
    "slopes": ("sleepstudy", "Reaction ~ Days", "~Days", "Subject", "(Days | Subject)"),
    "intercepts": ("Orthodont", "distance ~ age", None, "Subject", "(1 | Subject)"),
}


@pytest.fixture(scope="module", params=[(m, r) for m in MODELS for r in (True, False)], ids=str)
def pair(request, smf):
    """A result of statsmodels and the fit of the same model."""
    which, reml = request.param
    name, fixed, re_formula, group, random = MODELS[which]
    data = mx.datasets.load(name)
    data[group] = data[group].astype(str)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = smf.mixedlm(fixed, data, groups=group, re_formula=re_formula)
        theirs = model.fit(reml=reml, method=["lbfgs"], gtol=1e-9)
    return theirs, mx.lmer(f"{fixed} + {random}", data, reml=reml)


def close(actual, expected, rtol=RTOL):
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("name", SAME_NUMBER)
def test_the_same_number(pair, name):
    theirs, fit = pair
    close(getattr(fit, name), getattr(theirs, name))


def test_likelihoods(pair):
    theirs, fit = pair
    assert fit.llf == pytest.approx(theirs.llf, abs=1e-5)
    assert fit.llf >= theirs.llf - 1e-8
    assert (fit.method, fit.reml, fit.converged) == (theirs.method, theirs.reml, True)
    if not fit.reml:
        assert fit.aic == pytest.approx(theirs.aic, abs=1e-4)
        assert fit.bic == pytest.approx(theirs.bic, abs=1e-4)
    else:
        assert np.isnan(theirs.aic)


def test_random_effects_and_their_covariances(pair):
    theirs, fit = pair
    assert set(fit.random_effects) == set(theirs.random_effects)
    for level, effects in theirs.random_effects.items():
        close(fit.random_effects[level], effects, rtol=2e-3)
        close(fit.random_effects_cov[level], theirs.random_effects_cov[level])


def test_where_the_number_is_another(pair):
    theirs, fit = pair
    p = theirs.k_fe
    close(fit.params, theirs.params[:p])
    close(fit.tvalues, theirs.tvalues[:p])
    close(fit.cov_params(), theirs.cov_params().iloc[:p, :p])
    close(fit.conf_int(ddf="normal"), theirs.conf_int().iloc[:p])
    close(fit.predict(re_form="population"), theirs.predict())
    assert theirs.df_resid == fit.nobs - p
    assert fit.df_resid == fit.nobs - fit.n_par
    L = np.eye(p)[1:]
    padded = np.hstack([L, np.zeros((p - 1, len(theirs.params) - p))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chi2 = theirs.wald_test(padded, use_f=False, scalar=True)
    close(fit.wald_test(L)["chi2"], chi2.statistic)


def test_every_name_answers_or_says_what_to_write(pair):
    theirs, fit = pair
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else None
    names = [n for n in dir(theirs) if not n.startswith("_") and n not in NOT_COUNTED]
    assert {"fe_params", "profile_re", "covjhj", "remove_data"} <= set(names)
    for name in names:
        if page is not None:
            assert re.search(rf"`{name}\b", page), f"{name} is not on the page"
        if not hasattr(fit, name):
            with pytest.raises(AttributeError, match=r"write (fit|mx|len|ddf|fixed|'\(I)"):
                getattr(fit, name)


def test_crossed_fits_have_no_single_covariance():
    fit = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", mx.datasets.load("Penicillin"))
    for name in ("random_effects_cov", "cov_re_unscaled", "k_re", "k_re2"):
        with pytest.raises(mx.OptionError, match="one grouping factor"):
            getattr(fit, name)
    assert fit.k_fe == 1
    assert fit.method == "REML"
