"""What marginaleffects computes from a fit is what the package computes itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats

import mixlm_sparse as mx
from tests.support.other_tools import needed

me = needed("marginaleffects")
from mixlm_sparse.interop.marginaleffects import adapter  # noqa: E402

RTOL = 1e-6
ATOL = 1e-14  # p-values there are one minus a probability

# marginaleffects 0.6 calls what polars 1 deprecates and polars 2 does not have any more
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_polars_1 = pytest.mark.skipif(
    int(pl.__version__.split(".")[0]) > 1,
    reason="marginaleffects 0.6 takes new rows and compares levels with polars 1 only",
)


def close(actual, expected):
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=ATOL)


@pytest.fixture(scope="module")
def ortho():
    return mx.datasets.load("Orthodont")


@pytest.fixture(scope="module")
def fit(ortho):
    return mx.lmer("distance ~ age * Sex + (age | Subject)", ortho, control=mx.Control(warn=False))


@pytest.fixture(scope="module")
def curved(ortho):
    rows = ortho.assign(shift=np.sin(np.arange(len(ortho))))
    return mx.lmer("distance ~ poly(age, 2) * Sex + offset(shift) + (1 | Subject)", rows)


@pytest.mark.parametrize("which", ["fit", "curved"])
def test_predictions(which, request):
    fit = request.getfixturevalue(which)
    table = me.predictions(adapter(fit))
    own = fit.predict(re_form="population")
    close(table["estimate"], own)
    grid = fit.model_matrix()
    errors = np.sqrt(np.einsum("ij,jk,ik->i", grid, fit.cov_params().to_numpy(), grid))
    close(table["std_error"], errors)


@pytest.mark.parametrize("fixed", ["0", "1", "0 + offset(age)"])
def test_a_mean_without_predictors(ortho, fixed):
    fit = mx.lmer(f"distance ~ {fixed} + (1 | Subject)", ortho)
    table = me.predictions(adapter(fit))
    close(table["estimate"], fit.predict(re_form="population"))
    close(table["std_error"], fit.predict(re_form="population", se=True)["se"])
    whole = me.avg_predictions(adapter(fit))
    close(whole["estimate"], fit.predict(re_form="population").mean())
    assert me.hypotheses(adapter(fit)).shape[0] == fit.fixef.size
    if "offset" not in fixed:
        with pytest.raises(ValueError, match="No predictors"):
            me.avg_slopes(adapter(fit))


@needs_polars_1
@pytest.mark.parametrize("kind", [pd.DataFrame, pl.from_pandas])
def test_predictions_of_new_rows_with_limits(fit, kind):
    new = pd.DataFrame({"age": [9.5, 20.0], "Sex": ["Male", "Female"]})
    table = me.predictions(adapter(fit), newdata=kind(new))
    close(table["estimate"], fit.predict(new, "population"))
    means = fit.emmeans("Sex", at={"age": 9.5}, ddf="normal").to_frame()
    own = means.set_index("Sex").loc["Male"]
    first = table.row(0, named=True)
    close(
        [first[name] for name in ("estimate", "std_error", "conf_low", "conf_high")],
        own[["emmean", "std_error", "lower", "upper"]],
    )


@needs_polars_1
@pytest.mark.parametrize("which", ["fit", "curved"])
def test_comparisons_of_levels(which, request):
    fit = request.getfixturevalue(which)
    options = {"eps_vcov": 1.0} if which == "curved" else {}
    ages = [8, 10, 12, 14]
    table = me.avg_comparisons(adapter(fit), variables="Sex", by="age", **options).sort("age")
    own = fit.emmeans("Sex", by="age", at={"age": ages}, ddf="normal").contrast("revpairwise")
    frame = own.to_frame()
    close(table["estimate"], frame["estimate"])
    close(table["std_error"], frame["std_error"])
    close(table["p_value"], frame["p_value"])


def test_comparisons_of_numbers(fit):
    table = me.avg_comparisons(adapter(fit), variables={"age": 2.0}, by="Sex")
    L = np.array([[0, 2, 0, 0], [0, 2, 0, 2]])
    own = fit.contest(L, joint=False, ddf="normal")
    close(table["estimate"], own["estimate"])
    close(table["std_error"], own["std_error"])


@needs_polars_1
@pytest.mark.parametrize("which", ["fit", "curved"])
def test_slopes(which, request):
    fit = request.getfixturevalue(which)
    new = pd.DataFrame({"age": [11.0, 11.0], "Sex": ["Male", "Female"], "shift": 0.0})
    table = me.slopes(adapter(fit), variables="age", newdata=new, eps_vcov=1.0)
    own = fit.emtrends("age", specs="Sex", at={"age": 11.0}, ddf="normal").to_frame()
    close(table["estimate"], own["age.trend"])
    close(table["std_error"], own["std_error"])
    close(table["conf_low"], own["lower"])


@pytest.mark.parametrize("df", [np.inf, 25.0])
def test_hypotheses(fit, df):
    table = me.hypotheses(adapter(fit, df=df), eps_vcov=1.0)
    assert table["term"].to_list() == list(fit.fixef.index)
    close(table["estimate"], fit.fixef)
    close(table["std_error"], fit.bse)
    difference = me.hypotheses(adapter(fit), hypothesis="b1 - b3 = 0", eps_vcov=1.0)
    own = fit.contest([0, 1, 0, -1], joint=False, ddf="normal")
    close(difference["estimate"], own["estimate"])
    close(difference["p_value"], own["p_value"])


@pytest.mark.parametrize("df", [np.inf, 25.0])
def test_joint_hypotheses(ortho, df):
    fit = mx.lmer("distance ~ age + Sex + (1 | Subject)", ortho)
    wald = fit.wald_test(np.eye(3)[1:])
    chi2 = me.hypotheses(adapter(fit), joint=["age", "Sex"], joint_test="chisq")
    close(chi2["statistic"], wald["chi2"])
    close(chi2["p_value"], wald["p_value"])
    F = me.hypotheses(adapter(fit, df=df), joint=["age", "Sex"])
    close(F["statistic"], wald["chi2"] / 2)
    expected = wald["p_value"] if np.isinf(df) else scipy.stats.f.sf(wald["chi2"] / 2, 2, df)
    close(F["p_value"], expected)


@pytest.mark.parametrize("kind", ["kenward-roger", "CR0", "CR2"])
def test_other_covariances(fit, kind):
    table = me.hypotheses(adapter(fit), vcov=kind, eps_vcov=1.0)
    V = fit.vcov_adjusted() if kind == "kenward-roger" else fit.robust(type=kind).cov
    close(table["std_error"], np.sqrt(np.diag(V)))


@needs_polars_1
def test_cells_without_data_are_missing():
    data = mx.datasets.load("Orthodont").assign(late=lambda d: (d["age"] > 10).astype(str))
    data = data[~((data["Sex"] == "Male") & (data["late"] == "True"))]
    with pytest.warns(mx.RankDeficiencyWarning):
        fit = mx.lmer("distance ~ Sex * late + (1 | Subject)", data)
    new = pd.DataFrame({"Sex": ["Male", "Male"], "late": ["False", "True"]})
    estimates = me.predictions(adapter(fit), newdata=new, vcov=False)["estimate"].to_list()
    assert np.isfinite(estimates[0])
    assert np.isnan(estimates[1])


def test_what_is_no_fit_with_data_is_refused(fit):
    with pytest.raises(mx.OptionError, match="fit"):
        adapter("distance ~ age")
    with pytest.raises(mx.OptionError, match="df"):
        adapter(fit, df=0)
    x = np.arange(20.0)
    matrices = mx.fit_matrices(np.sin(x), np.ones((20, 1)), [(np.arange(20) // 4,)])
    with pytest.raises(mx.OptionError, match="matrices"):
        adapter(matrices)
    with pytest.raises(mx.OptionError, match="vcov"):
        me.hypotheses(adapter(fit), vcov="HC3")
