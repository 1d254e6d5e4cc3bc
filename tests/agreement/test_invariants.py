"""What must not change, and what must change by a known amount, when the data or the formula are
rewritten.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import mixlm_sparse as mx
from mixlm_sparse.common.errors import MixedModelWarning
from tests.support.corpus import load_data
from tests.support.strategies import designs, designs_with_theta

SAME_OPTIMUM = 1e-6  # absolute, in the criterion


def lmer(formula, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        return mx.lmer(formula, data, **options)


@pytest.fixture(scope="module")
def sleep():
    return load_data("sleepstudy")


@pytest.fixture(scope="module")
def plain(sleep):
    return {
        reml: lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=reml) for reml in (True, False)
    }


def deviance(formula, data, **options):
    return mx.deviance_function(formula, data, **options)


# ------------------------------------------------------------------- origin and unit of a predictor


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("shift", [1e3, -1e3, 1e6])
def test_predictor_shifted(sleep, plain, reml, shift):
    data = sleep.assign(Days=sleep["Days"] + shift)
    fit, base = lmer("Reaction ~ Days + (Days | Subject)", data, reml=reml), plain[reml]
    # X -> X T with det T = 1: the REML criterion stays as well
    assert fit.criterion == pytest.approx(base.criterion, abs=SAME_OPTIMUM)
    np.testing.assert_allclose(fit.fittedvalues, base.fittedvalues, atol=1e-3 * base.sigma)
    assert fit.fixef["Days"] == pytest.approx(base.fixef["Days"], rel=1e-6)
    # b0 + b1 (x + s) = (b0 + s b1) + b1 x: map the covariance back
    T = np.array([[1.0, shift], [0.0, 1.0]])
    mapped = T @ fit.varcorr["Subject"].to_numpy() @ T.T
    expected = base.varcorr["Subject"].to_numpy()
    # the mapped intercept variance is a difference of numbers s² times as large
    lost = 1e-14 * shift**2 * expected[1, 1]
    np.testing.assert_allclose(mapped, expected, rtol=2e-3, atol=0.05 + lost)
    assert not fit.is_singular()


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("factor", [1e4, 1e-4, -1.0])
def test_predictor_scaled(sleep, plain, reml, factor):
    data = sleep.assign(Days=sleep["Days"] * factor)
    fit, base = lmer("Reaction ~ Days + (Days | Subject)", data, reml=reml), plain[reml]
    # REML sees |X'V^-1X|, which the scaling multiplies by factor²
    moved = 2 * np.log(abs(factor)) if reml else 0.0
    assert fit.criterion == pytest.approx(base.criterion + moved, abs=SAME_OPTIMUM)
    np.testing.assert_allclose(fit.fittedvalues, base.fittedvalues, atol=1e-3 * base.sigma)
    T = np.diag([1.0, factor])
    np.testing.assert_allclose(
        T @ fit.varcorr["Subject"].to_numpy() @ T.T,
        base.varcorr["Subject"].to_numpy(),
        rtol=1e-3,
        atol=0.01,
    )
    assert not fit.is_singular()


@pytest.mark.parametrize(
    "formula", ["Reaction ~ Days + (Days || Subject)", "Reaction ~ Days + (1 | Subject)"]
)
@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_predictor_scaled_in_diagonal_models(sleep, formula, factor):
    data = sleep.assign(Days=sleep["Days"] * factor)
    one, two = lmer(formula, sleep, reml=False), lmer(formula, data, reml=False)
    assert two.criterion == pytest.approx(one.criterion, abs=SAME_OPTIMUM)
    np.testing.assert_allclose(two.fittedvalues, one.fittedvalues, atol=1e-3 * one.sigma)


# ------------------------------------------------------------------------------------- the response


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("shift", [1e3, 1e6, 1e8])
def test_response_shifted(sleep, plain, reml, shift):
    data = sleep.assign(Reaction=sleep["Reaction"] + shift)
    fit, base = lmer("Reaction ~ Days + (Days | Subject)", data, reml=reml), plain[reml]
    # adding 1e8 rounds each response to 1.5e-8: that much and no more is lost
    assert fit.criterion == pytest.approx(base.criterion, abs=SAME_OPTIMUM)
    np.testing.assert_allclose(
        np.asarray(fit.fittedvalues) - shift, base.fittedvalues, atol=1e-3 * base.sigma
    )
    np.testing.assert_allclose(fit.resid, base.resid, atol=1e-3 * base.sigma)
    np.testing.assert_allclose(
        fit.varcorr["Subject"].to_numpy(), base.varcorr["Subject"].to_numpy(), rtol=1e-3, atol=0.01
    )


@settings(max_examples=25)
@given(drawn=designs_with_theta())
def test_response_scaled(drawn):
    """y -> c y (and o -> c o) adds nu log c²."""
    design, theta = drawn
    c = 37.5
    scaled = design.data.assign(y=design.data["y"] * c, o=design.data["o"] * c)
    n, p = design.X.shape
    for reml in (True, False):
        options = {"reml": reml, "weights": design.weights, "offset": design.offset}
        one = deviance(design.formula, design.data, **options)(theta)
        two = deviance(design.formula, scaled, **options)(theta)
        nu = n - p if reml else n
        assert two == pytest.approx(one + nu * np.log(c**2), rel=1e-10)


# ---------------------------------------------------------------------------------- rows and labels


@settings(max_examples=25)
@given(drawn=designs_with_theta())
def test_rows_permuted(drawn):
    design, theta = drawn
    rng = np.random.default_rng(1)
    shuffled = design.data.iloc[rng.permutation(len(design.data))].reset_index(drop=True)
    options = {"weights": design.weights, "offset": design.offset}
    one = deviance(design.formula, design.data, **options)
    two = deviance(design.formula, shuffled, **options)
    assert two(theta) == pytest.approx(one(theta), rel=1e-10)
    np.testing.assert_allclose(
        two.gradient(theta),
        one.gradient(theta),
        rtol=1e-7,
        atol=1e-7 * (1 + np.abs(one.gradient(theta)).max()),
    )


@settings(max_examples=25)
@given(drawn=designs_with_theta())
def test_levels_relabelled(drawn):
    design, theta = drawn
    rng = np.random.default_rng(2)
    renamed = design.data.copy()
    for column in [c for c in renamed if c.startswith("g")]:
        levels = list(renamed[column].cat.categories)
        names = [f"z{j:04d}" for j in rng.permutation(len(levels))]
        renamed[column] = renamed[column].astype(str).map(dict(zip(levels, names, strict=True)))
    options = {"weights": design.weights, "offset": design.offset}
    one = deviance(design.formula, design.data, **options)(theta)
    assert deviance(design.formula, renamed, **options)(theta) == pytest.approx(one, rel=1e-10)


# ------------------------------------------------------------------------------------- known limits


@settings(max_examples=25)
@given(design=designs())
def test_zero_theta_is_least_squares(design):
    w, o = design.array(design.weights), design.array(design.offset)
    n, p = design.X.shape
    w = np.ones(n) if w is None else w
    y = design.y - (0.0 if o is None else o)
    root = np.sqrt(w)
    X = design.X * root[:, None]
    beta, *_ = np.linalg.lstsq(X, y * root, rcond=None)
    rss = float(((y * root - X @ beta) ** 2).sum())
    options = {"weights": design.weights, "offset": design.offset}
    ml = deviance(design.formula, design.data, reml=False, **options)(np.zeros(design.m))
    assert ml == pytest.approx(n * (1 + np.log(2 * np.pi * rss / n)) - np.log(w).sum(), rel=1e-10)
    reml = deviance(design.formula, design.data, reml=True, **options)(np.zeros(design.m))
    expected = (
        (n - p) * (1 + np.log(2 * np.pi * rss / (n - p)))
        + np.linalg.slogdet(X.T @ X)[1]
        - np.log(w).sum()
    )
    assert reml == pytest.approx(expected, rel=1e-10)


def test_fixed_effects_in_another_basis(sleep):
    """X -> X T leaves ML alone and moves REML by 2 log|det T|."""
    data = sleep.assign(a=3 * sleep["Days"] + 7, b=sleep["Days"] ** 2)
    data = data.assign(c=2 * data["b"] - 5 * data["Days"] + 1)
    theta = np.array([0.9, 0.1, 0.2])
    det = 3.0 * 2.0  # (1, Days, Days²) -> (1, 3 Days + 7, 2 Days² - 5 Days + 1)
    for reml in (True, False):
        one = deviance("Reaction ~ Days + b + (Days | Subject)", data, reml=reml)(theta)
        two = deviance("Reaction ~ a + c + (Days | Subject)", data, reml=reml)(theta)
        assert two == pytest.approx(one + (2 * np.log(det) if reml else 0.0), rel=1e-11)


def test_weights_times_ten(sleep):
    """w -> 10 w multiplies sigma² by 10 and leaves the ML criterion alone."""
    rng = np.random.default_rng(5)
    data = sleep.assign(w=rng.uniform(0.5, 2, len(sleep)))
    data["w10"] = 10 * data["w"]
    one = lmer("Reaction ~ Days + (Days | Subject)", data, weights="w", reml=False)
    two = lmer("Reaction ~ Days + (Days | Subject)", data, weights="w10", reml=False)
    assert two.criterion == pytest.approx(one.criterion, abs=SAME_OPTIMUM)
    assert two.scale == pytest.approx(10 * one.scale, rel=1e-5)
    np.testing.assert_allclose(two.varcorr["Subject"], one.varcorr["Subject"], rtol=1e-3, atol=1e-2)


def test_constant_weights_are_none(sleep):
    one = lmer("Reaction ~ Days + (Days | Subject)", sleep)
    two = lmer("Reaction ~ Days + (Days | Subject)", sleep, weights=np.ones(len(sleep)))
    assert two.criterion == pytest.approx(one.criterion, abs=1e-8)


def test_integer_weights_are_not_replicates_but_offset_is_a_shift(sleep):
    offset = 10.0 * sleep["Days"].to_numpy()
    one = lmer("Reaction ~ Days + (Days | Subject)", sleep)
    two = lmer("Reaction ~ Days + (Days | Subject)", sleep, offset=offset)
    assert two.criterion == pytest.approx(one.criterion, abs=SAME_OPTIMUM)
    assert two.fixef["Days"] == pytest.approx(one.fixef["Days"] - 10, abs=1e-5)
    np.testing.assert_allclose(two.fittedvalues, one.fittedvalues, atol=1e-3 * one.sigma)


# ------------------------------------------------------------------- formulas as R users write them

SAME_MODEL = [
    # one way of writing, another way, options of the data they need
    ("Reaction ~ Days + (Days | Subject)", "Reaction ~ 1 + Days + (1 + Days | Subject)"),
    ("Reaction ~ Days + (0 + Days | Subject)", "Reaction ~ Days + (Days - 1 | Subject)"),
    (
        "Reaction ~ Days + (Days || Subject)",
        "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
    ),
    ("Reaction ~ Days + I(Days^2) + (1 | Subject)", "Reaction ~ Days + Days2 + (1 | Subject)"),
    ("log(Reaction) ~ Days + (Days | Subject)", "logR ~ Days + (Days | Subject)"),
    (
        "Reaction ~ sqrt(Days) + exp(-Days) + (1 | Subject)",
        "Reaction ~ rootD + expD + (1 | Subject)",
    ),
    ("Reaction ~ log(Days + 1) + (1 | Subject)", "Reaction ~ log1p(Days) + (1 | Subject)"),
    (
        "Reaction ~ Days + offset(3 * Days) + (1 | Subject)",
        "Reaction ~ Days + offset(Days3) + (1 | Subject)",
    ),
    ("Reaction ~ (Days + Days2)^2 + (1 | Subject)", "Reaction ~ Days * Days2 + (1 | Subject)"),
    ("Reaction~Days+(Days|Subject)", "Reaction ~ Days + (Days | Subject)"),
]


@pytest.fixture(scope="module")
def extended(sleep):
    return sleep.assign(
        Days2=sleep["Days"] ** 2,
        logR=np.log(sleep["Reaction"]),
        rootD=np.sqrt(sleep["Days"]),
        expD=np.exp(-sleep["Days"]),
        Days3=3 * sleep["Days"],
    )


@pytest.mark.parametrize(("left", "right"), SAME_MODEL)
def test_same_model_written_differently(extended, left, right):
    one, two = lmer(left, extended), lmer(right, extended)
    assert one.criterion == pytest.approx(two.criterion, abs=SAME_OPTIMUM)
    np.testing.assert_allclose(one.fixef.to_numpy(), two.fixef.to_numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ poly(Days, 2) + (1 | Subject)",
        "Reaction ~ scale(Days) + I(Days^2) + (1 | Subject)",
        "Reaction ~ center(Days) + I(Days^2) + (1 | Subject)",
        "Reaction ~ scale(Days) + I(scale(Days)^2) + (1 | Subject)",
    ],
)
def test_quadratic_in_any_basis(sleep, formula):
    """ML and the fitted values do not depend on the basis of the fixed part."""
    base = lmer("Reaction ~ Days + I(Days^2) + (1 | Subject)", sleep, reml=False)
    fit = lmer(formula, sleep, reml=False)
    assert fit.criterion == pytest.approx(base.criterion, abs=SAME_OPTIMUM)
    np.testing.assert_allclose(fit.fittedvalues, base.fittedvalues, atol=1e-4 * base.sigma)


def test_scale_in_the_random_part(sleep):
    base = lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
    fit = lmer("Reaction ~ scale(Days) + (scale(Days) | Subject)", sleep, reml=False)
    assert fit.criterion == pytest.approx(base.criterion, abs=SAME_OPTIMUM)


def test_nested_shorthands():
    pastes = load_data("Pastes")
    fits = [
        lmer(formula, pastes, reml=False)
        for formula in (
            "strength ~ 1 + (1 | batch/cask)",
            "strength ~ 1 + (1 | batch:cask) + (1 | batch)",
            "strength ~ (1 | sample) + (1 | batch)",
        )
    ]
    for other in fits[1:]:
        assert other.criterion == pytest.approx(fits[0].criterion, abs=SAME_OPTIMUM)


def test_strings_booleans_and_numbers_as_groups(sleep):
    base = lmer("Reaction ~ Days + (1 | Subject)", sleep)
    names = sleep["Subject"].astype(str)
    for group in (names, names.astype(int), names.astype(object), names.astype(float)):
        fit = lmer("Reaction ~ Days + (1 | Subject)", sleep.assign(Subject=group))
        assert fit.criterion == pytest.approx(base.criterion, abs=1e-8)
        assert [str(level).removesuffix(".0") for level in fit.ranef()["Subject"].index] == sorted(
            names.unique()
        )


def test_subset_is_the_smaller_frame(sleep):
    few = sleep["Days"] < 6
    one = lmer("Reaction ~ Days + (Days | Subject)", sleep, subset=few.to_numpy())
    two = lmer("Reaction ~ Days + (Days | Subject)", sleep[few])
    assert one.nobs == two.nobs == int(few.sum())
    assert one.criterion == pytest.approx(two.criterion, abs=1e-8)


def test_missing_rows_are_left_out(sleep):
    holed = sleep.copy()
    holed.loc[[3, 50], "Reaction"] = np.nan
    holed.loc[[77], "Days"] = np.nan
    whole = sleep.drop(index=[3, 50, 77])
    one = lmer("Reaction ~ Days + (Days | Subject)", holed)
    two = lmer("Reaction ~ Days + (Days | Subject)", whole)
    assert one.nobs == 177
    assert one.criterion == pytest.approx(two.criterion, abs=1e-8)
    padded = lmer("Reaction ~ Days + (Days | Subject)", holed, na_action="exclude")
    assert len(padded.resid) == 180
    assert np.flatnonzero(np.isnan(np.asarray(padded.resid))).tolist() == [3, 50, 77]


def test_the_frame_is_not_changed(sleep):
    before = sleep.copy(deep=True)
    lmer("log(Reaction) ~ scale(Days) + (Days | Subject)", sleep)
    pd.testing.assert_frame_equal(sleep, before)
