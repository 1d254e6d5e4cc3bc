"""`MixedLMRegressor` beside scikit-learn's checks and tools, and beside `lmer` itself."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import mixlm_sparse as mx
from mixlm_sparse.interop.sklearn import MixedLMRegressor

FORMULA = "distance ~ age + Sex + (1 | Subject)"
# scikit-learn skips these itself where they do not apply
OPTIONAL = {"check_array_api_input"}


@pytest.fixture(scope="module")
def ortho():
    return mx.datasets.load("Orthodont")


@pytest.mark.filterwarnings("ignore")  # the checks fit without groups, which a warning says
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(e, c, id=getattr(c, "func", c).__name__)
        for e, c in estimator_checks_generator(MixedLMRegressor())
        if getattr(c, "func", c).__name__ not in OPTIONAL
    ],
)
def test_passes_the_checks_of_estimators(estimator, check):
    check(estimator)


def test_says_that_it_is_least_squares_without_groups():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    with pytest.warns(mx.FormulaWarning, match="ordinary least squares"):
        model = MixedLMRegressor().fit(X, y)
    line = LinearRegression().fit(X, y)
    np.testing.assert_allclose(model.predict(X), line.predict(X), rtol=1e-12)


def test_is_lmer_and_predicts_as_it_does(ortho):
    fit = mx.lmer(FORMULA, ortho)
    model = MixedLMRegressor(FORMULA).fit(ortho.drop(columns="distance"), ortho["distance"])
    np.testing.assert_allclose(model.fit_.fixef, fit.fixef, rtol=1e-12)
    np.testing.assert_allclose(model.coef_, fit.fixef[1:], rtol=1e-12)
    assert model.intercept_ == pytest.approx(fit.fixef["(Intercept)"], rel=1e-12)
    new = ortho.drop(columns="distance")
    np.testing.assert_allclose(model.predict(new), fit.fittedvalues, rtol=1e-12)
    assert list(model.feature_names_in_) == list(new.columns)
    assert model.n_features_in_ == new.shape[1]


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.from_pandas], ids=["pandas", "polars"])
def test_groups_by_name_and_by_array_are_one_model(ortho, frame):
    X = frame(ortho[["age"]])
    with_groups = frame(ortho[["age", "Subject"]].assign(Subject=ortho["Subject"].astype(str)))
    by_array = MixedLMRegressor().fit(X, ortho["distance"], groups=ortho["Subject"])
    by_name = MixedLMRegressor().fit(with_groups, ortho["distance"], groups="Subject")
    fit = mx.lmer("distance ~ age + (1 | Subject)", ortho)
    np.testing.assert_allclose(by_array.predict(X, ortho["Subject"]), fit.fittedvalues, rtol=1e-9)
    np.testing.assert_allclose(by_name.predict(with_groups), fit.fittedvalues, rtol=1e-9)
    population = fit.predict(re_form="population")
    np.testing.assert_allclose(by_array.predict(X), population, rtol=1e-9)


@pytest.mark.parametrize("kind", [int, float, str, bool])
def test_groups_of_any_type_are_left_out_of_predictions(kind):
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(2 if kind is bool else 10), 8)
    labels = codes.astype(kind)
    x = rng.normal(size=codes.size)
    y = x + rng.normal(size=10)[codes] + rng.normal(size=codes.size)
    control = mx.Control(warn=False)
    model = MixedLMRegressor("~ x0 + (1 | groups)", control=control)
    model.fit(x[:, None], y, groups=labels)
    fixed = model.intercept_ + model.coef_[0] * x
    np.testing.assert_allclose(model.predict(x[:, None]), fixed, rtol=1e-12)
    effects = model.fit_.fittedvalues
    np.testing.assert_allclose(model.predict(x[:, None], groups=labels), effects, rtol=1e-12)


def test_weights_are_those_of_lmer_and_zero_leaves_rows_out(ortho):
    weights = np.random.default_rng(3).integers(0, 4, len(ortho)).astype(float)
    model = MixedLMRegressor(FORMULA).fit(ortho, ortho["distance"], sample_weight=weights)
    used = weights > 0
    fit = mx.lmer(FORMULA, ortho[used], weights=weights[used])
    np.testing.assert_allclose(model.fit_.fixef, fit.fixef, rtol=1e-12)
    assert model.fit_.nobs == used.sum()


def test_unknown_groups_of_grouped_folds_are_predicted_by_the_population(ortho):
    scores = cross_val_score(
        MixedLMRegressor(FORMULA), ortho, ortho["distance"], groups=ortho["Subject"],
        cv=GroupKFold(3),
    )  # fmt: skip
    expected = []
    for train, test in GroupKFold(3).split(ortho, groups=ortho["Subject"]):
        fit = mx.lmer(FORMULA, ortho.iloc[train])
        y = ortho["distance"].iloc[test]
        error = y - fit.predict(ortho.iloc[test], "population")
        expected.append(1 - (error**2).sum() / ((y - y.mean()) ** 2).sum())
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


def test_grid_search_chooses_among_formulas(ortho):
    formulas = ["~ 1 + (1 | Subject)", "~ age + (1 | Subject)", FORMULA]
    search = GridSearchCV(
        MixedLMRegressor(reml=False), {"formula": formulas}, cv=GroupKFold(3), error_score="raise"
    )
    search.fit(ortho, ortho["distance"], groups=ortho["Subject"])
    assert search.best_params_["formula"] == FORMULA
    assert search.best_estimator_.fit_.reml is False


def test_pipeline_with_named_columns(ortho):
    scale = ColumnTransformer(
        [("z", StandardScaler(), ["age"])], remainder="passthrough", verbose_feature_names_out=False
    )
    pipe = make_pipeline(scale, MixedLMRegressor(FORMULA)).set_output(transform="pandas")
    X = ortho[["age", "Sex", "Subject"]]
    predicted = pipe.fit(X, ortho["distance"]).predict(X)
    np.testing.assert_allclose(predicted, mx.lmer(FORMULA, ortho).fittedvalues, rtol=1e-6)


def test_groups_and_weights_are_routed(ortho):
    X, y, groups = ortho[["age"]].to_numpy(), ortho["distance"], ortho["Subject"].to_numpy()
    weights = np.linspace(0.5, 2.0, len(y))
    with sklearn.config_context(enable_metadata_routing=True):
        model = (
            MixedLMRegressor()
            .set_fit_request(groups=True, sample_weight=True)
            .set_score_request(groups=True, sample_weight=True)
        )
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        routed = make_pipeline(scaler, model).set_score_request(sample_weight=True)
        scores = cross_val_score(
            routed, X, y, cv=GroupKFold(3), params={"groups": groups, "sample_weight": weights}
        )
        alone = make_pipeline(scaler, model)
        alone.fit(X, y, groups=groups, sample_weight=weights)
    assert np.isfinite(scores).all()
    frame = pd.DataFrame({"y": y, "x": StandardScaler().fit_transform(X)[:, 0], "g": groups})
    fit = mx.lmer("y ~ x + (1 | g)", frame, weights=weights)
    np.testing.assert_allclose(alone[-1].fit_.fixef, fit.fixef, rtol=1e-9)


def test_clone_keeps_settings_and_forgets_the_fit(ortho):
    model = MixedLMRegressor(FORMULA, reml=False, control=mx.Control(warn=False))
    copy = clone(model.fit(ortho, ortho["distance"]))
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "fit_")


def test_formula_without_random_terms_is_gls(ortho):
    model = MixedLMRegressor("~ age + Sex").fit(ortho, ortho["distance"])
    np.testing.assert_allclose(model.fit_.fixef, mx.gls("distance ~ age + Sex", ortho).fixef)


@pytest.mark.parametrize(
    ("model", "fit", "says"),
    [
        (MixedLMRegressor("log(distance) ~ age + (1 | Subject)"), {}, "TransformedTarget"),
        (MixedLMRegressor(), {"groups": "Person"}, "has the columns"),
        (MixedLMRegressor(), {"groups": [1, 2]}, "one group for each row"),
        (MixedLMRegressor(FORMULA), {"groups": np.arange(108) // 4}, r"no \(1 \| groups\)"),
        (MixedLMRegressor(FORMULA), {"sample_weight": -np.ones(108)}, "positive"),
        (MixedLMRegressor("~ age + (1 | Person)"), {}, "Person"),
        (MixedLMRegressor("~ age", fixed={"sigma": 1.0}), {}, "fixed="),
    ],
)
def test_what_is_wrong_is_said(ortho, model, fit, says):
    X = ortho.drop(columns="distance")
    with warnings.catch_warnings(), pytest.raises(mx.MixedModelError, match=says):
        model.fit(X, ortho["distance"], **fit)


def test_missing_cells_are_refused_or_left_out(ortho):
    X = ortho.drop(columns="distance").astype({"age": float})
    X.loc[X.index[3], "age"] = np.nan
    with pytest.raises(mx.DataError, match="missing"):
        MixedLMRegressor(FORMULA).fit(X, ortho["distance"])
    model = MixedLMRegressor(FORMULA, na_action="omit").fit(X, ortho["distance"])
    assert model.fit_.nobs == len(X) - 1
    assert np.isnan(model.predict(X)).sum() == 1


def test_groups_of_two_columns_are_refused_by_name():
    X = np.arange(20.0).reshape(10, 2)
    with pytest.raises(mx.DataError, match=r"groups has shape \(10, 2\)"):
        MixedLMRegressor().fit(X, X[:, 0], groups=np.zeros((10, 2)))


@pytest.mark.parametrize(
    ("formula", "settings"),
    [
        ("~ x + y + (1 | g)", {}),
        ("~ x + (y | g)", {}),
        ("~ x + (1 | g)", {"residual": mx.CAR1(time="y", group="g")}),
    ],
)
def test_a_predictor_called_as_the_response_would_be_stays_a_predictor(formula, settings):
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"x": rng.normal(size=90), "y": rng.normal(size=90)})
    X["g"] = np.arange(90) % 9
    response = X["x"] - 2.0 * X["y"] + rng.normal(size=9)[X["g"]] + rng.normal(size=90)
    quiet = mx.Control(warn=False)
    model = MixedLMRegressor(formula, control=quiet, **settings).fit(X, response)
    same = mx.lmer("z " + formula, X.assign(z=response), control=quiet, **settings)
    assert model.fit_.criterion == same.criterion
    np.testing.assert_array_equal(model.predict(X), same.predict(X))


def test_a_response_does_not_stand_in_for_a_column_that_is_not_there(ortho):
    X = ortho[["age", "Subject"]]
    with pytest.raises(mx.DataError, match="no column 'y'"):
        MixedLMRegressor("~ age + y + (1 | Subject)").fit(X, ortho["distance"])


def test_arrow_tables_name_their_columns(ortho):
    X = ortho[["age", "Sex", "Subject"]]
    model = MixedLMRegressor(FORMULA).fit(X, ortho["distance"])
    table = pyarrow.Table.from_pandas(X, preserve_index=False)
    arrow = MixedLMRegressor(FORMULA).fit(table, ortho["distance"])
    np.testing.assert_allclose(arrow.predict(table), model.predict(X), rtol=1e-12)


def test_a_backtick_in_the_name_of_a_column_is_named():
    X = pd.DataFrame({"a`b": np.arange(20.0), "g": np.arange(20) % 5})
    with pytest.raises(mx.FormulaError, match="the column 'a`b' has a backtick in its name"):
        MixedLMRegressor().fit(X, np.arange(20.0), groups="g")
