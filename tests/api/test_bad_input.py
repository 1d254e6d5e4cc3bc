"""Each mistake ends in an error that names it in the user's words, or in a clear status: never in
NaN.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import (
    DataError,
    FormulaError,
    MixedModelError,
    MixedModelWarning,
    OptionError,
    ScalingWarning,
)
from tests.support.corpus import load_data


@pytest.fixture
def sleep():
    return load_data("sleepstudy")


FORMULA = "Reaction ~ Days + (Days | Subject)"


def changed(frame, column, row, value):
    frame = frame.copy()
    frame[column] = frame[column].astype(float)
    frame.loc[row, column] = value
    return frame


# -------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize(
    ("formula", "word"),
    [
        ("Reaction ~ Dayz + (Days | Subject)", "Dayz"),
        ("Reaction ~ Days + (Days | Subjct)", "Subjct"),
        ("Reaction ~ Days + (Dayz | Subject)", "Dayz"),
        ("Reactoin ~ Days + (Days | Subject)", "Reactoin"),
    ],
)
def test_unknown_column(sleep, formula, word):
    with pytest.raises((DataError, FormulaError), match=word):
        mx.lmer(formula, sleep)


def test_no_random_term(sleep):
    with pytest.raises(FormulaError, match="random"):
        mx.lmer("Reaction ~ Days", sleep)


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ Days + (Days | Subject",
        "Reaction ~ Days + Days | Subject)",
        "Reaction ~ Days + (Days | )",
        "Reaction ~ Days + ( | Subject)",
        "Reaction ~ Days + + * (1 | Subject)",
        "~ Days + (1 | Subject)",
        "Reaction Days + (1 | Subject)",
        "Reaction ~ Days ~ (1 | Subject)",
        "Reaction ~ log(Days + (1 | Subject)",
        "",
        "   ",
    ],
)
def test_malformed_formula(sleep, formula):
    with pytest.raises(FormulaError):
        mx.lmer(formula, sleep)


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ __import__('os').system('true') + (1 | Subject)",
        "Reaction ~ Days.__class__ + (1 | Subject)",
        "Reaction ~ eval('1') + (1 | Subject)",
        "Reaction ~ open('x') + (1 | Subject)",
        "Reaction ~ (lambda: 1)() + (1 | Subject)",
        "Reaction ~ [x for x in Days] + (1 | Subject)",
        "Reaction ~ np.load('x') + (1 | Subject)",
        "Reaction ~ Days + (eval('1') | Subject)",
        "Reaction ~ Days + (1 | eval('Subject'))",
        "exec('1') ~ Days + (1 | Subject)",
    ],
)
def test_formula_that_is_not_allowed(sleep, formula):
    # a dot is part of a name in R: Days.__class__ is an unknown column
    with pytest.raises((FormulaError, DataError)):
        mx.lmer(formula, sleep)


@pytest.mark.parametrize("formula", [None, 3, ["Reaction ~ Days"]])
def test_formula_that_is_no_text(sleep, formula):
    with pytest.raises((MixedModelError, TypeError)):
        mx.lmer(formula, sleep)


# --------------------------------------------------------------------------------- grouping factors


def test_one_level(sleep):
    with pytest.raises(DataError, match=r"lab.*1 level|1 level.*lab"):
        mx.lmer("Reaction ~ Days + (1 | lab)", sleep.assign(lab="here"))


def test_as_many_levels_as_rows(sleep):
    with pytest.raises(DataError, match="row_id"):
        mx.lmer("Reaction ~ Days + (1 | row_id)", sleep.assign(row_id=np.arange(180).astype(str)))


def test_more_random_effects_than_rows(sleep):
    pairs = sleep.assign(pair=(np.arange(180) // 2).astype(str))  # 90 levels, 3 columns: 270 > 180
    with pytest.raises(DataError, match="pair"):
        mx.lmer("Reaction ~ Days + (Days + I(Days^2) | pair)", pairs)


# ------------------------------------------------------------------------------------- the response


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_response(sleep, value):
    with pytest.raises(DataError, match="Reaction"):
        mx.lmer(FORMULA, changed(sleep, "Reaction", 5, value))


@pytest.mark.parametrize("column", ["Reaction", "Days"])
def test_missing_value_with_raise(sleep, column):
    with pytest.raises(DataError, match="missing"):
        mx.lmer(FORMULA, changed(sleep, column, 5, np.nan), na_action="raise")


def test_infinite_predictor(sleep):
    with pytest.raises(DataError, match="Days"):
        mx.lmer(FORMULA, changed(sleep, "Days", 5, np.inf))


def test_log_of_a_negative_number_is_not_dropped_silently(sleep):
    """log(-1) is NaN although no cell is missing: an error or, as in R, a missing value that is
    told.
    """
    with (
        np.errstate(all="ignore"),
        pytest.raises((MixedModelError, MixedModelWarning), match="Days"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error", MixedModelWarning)
        mx.lmer("Reaction ~ log(Days - 5) + (1 | Subject)", sleep)


@pytest.mark.parametrize("kind", ["text", "category", "dates"])
def test_response_that_is_no_number(sleep, kind):
    column = {
        "text": sleep["Reaction"].astype(str),
        "category": pd.Categorical(np.where(sleep["Reaction"] > 300, "slow", "fast")),
        "dates": pd.Timestamp("2020-01-01") + pd.to_timedelta(sleep["Reaction"], unit="D"),
    }[kind]
    with pytest.raises(DataError, match="Reaction"):
        mx.lmer(FORMULA, sleep.assign(Reaction=column))


# ------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_weight_that_is_no_weight(sleep, value):
    data = sleep.assign(w=1.0)
    data.loc[7, "w"] = value
    with pytest.raises(DataError, match="weight"):
        mx.lmer(FORMULA, data, weights="w")


def test_missing_weight_is_a_missing_cell(sleep):
    data = sleep.assign(w=1.0)
    data.loc[7, "w"] = np.nan
    rest = mx.lmer(FORMULA, data.drop(index=7), weights="w")
    for na_action in ("omit", "exclude"):
        fit = mx.lmer(FORMULA, data, weights="w", na_action=na_action)
        assert fit.nobs == 179
        assert fit.criterion == pytest.approx(rest.criterion, rel=1e-12)
        assert len(fit.resid) == (180 if na_action == "exclude" else 179)
    with pytest.raises(DataError, match=r"w.*missing|missing.*w"):
        mx.lmer(FORMULA, data, weights="w", na_action="raise")


@pytest.mark.parametrize("option", ["weights", "offset"])
def test_array_of_the_wrong_length(sleep, option):
    with pytest.raises(DataError, match=r"179|180"):
        mx.lmer(FORMULA, sleep, **{option: np.ones(179)})


@pytest.mark.parametrize("option", ["weights", "offset"])
def test_unknown_column_as_option(sleep, option):
    with pytest.raises((DataError, OptionError), match="nowhere"):
        mx.lmer(FORMULA, sleep, **{option: "nowhere"})


# ---------------------------------------------------------------------------------------- the frame


def test_empty_frame(sleep):
    with pytest.raises(DataError, match="row"):
        mx.lmer(FORMULA, sleep.iloc[:0])


def test_no_row_left(sleep):
    with pytest.raises(DataError, match="row"):
        mx.lmer(FORMULA, sleep.assign(Days=np.nan))


def test_duplicate_column_names(sleep):
    twice = pd.concat([sleep, sleep[["Days"]]], axis=1)
    with pytest.raises(DataError, match="Days"):
        mx.lmer(FORMULA, twice)


@pytest.mark.parametrize("data", [None, 3, "sleepstudy.txt"])
def test_data_that_is_no_table(data):
    with pytest.raises((MixedModelError, TypeError, FileNotFoundError)):
        mx.lmer(FORMULA, data)


def test_as_many_coefficients_as_rows():
    data = pd.DataFrame(
        {"y": [1.0, 2, 4, 3, 5, 7], "g": list("aabbcc"), "f": ["p", "q", "r", "s", "t", "u"]}
    )
    with pytest.raises(DataError):
        mx.lmer("y ~ f + (1 | g)", data)


def test_subset_that_leaves_one_level(sleep):
    with pytest.raises(DataError, match="Subject"):
        mx.lmer(FORMULA, sleep, subset=(sleep["Subject"] == "308").to_numpy())


# -------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"start": [1.0]}, "3"),
        ({"start": [1.0, 0.0, 1.0, 0.0]}, "3"),
        ({"start": [-1.0, 0.0, 1.0]}, "start"),
        ({"start": [np.nan, 0.0, 1.0]}, "start"),
        ({"optimizer": "simplex"}, "simplex"),
        ({"engine": "abacus"}, "abacus"),
        ({"na_action": "ignore"}, "ignore"),
        ({"contrasts": {"Days": "sum"}}, "Days"),
        ({"contrasts": {"nowhere": "sum"}}, "nowhere"),
    ],
)
def test_option_that_does_not_fit(sleep, options, word):
    with pytest.raises((OptionError, DataError, FormulaError), match=word):
        mx.lmer(FORMULA, sleep, **options)


# ------------------------------------------------------------------------------ edges, not mistakes


def finite(fit):
    """Nothing that a user reads may be NaN (a correlation with a zero variance excepted)."""
    assert fit.convergence is not None
    assert np.isfinite(fit.theta).all()
    assert np.isfinite(fit.fixef).all()
    assert np.isfinite(fit.sigma)
    assert np.isfinite(fit.fittedvalues).all()
    assert np.isfinite(fit.resid).all()


def test_wildly_different_scales(sleep):
    data = sleep.assign(tiny=np.arange(180) % 7 * 1e-9)
    with pytest.warns(ScalingWarning, match="tiny"):
        fit = mx.lmer("Reaction ~ Days + tiny + (1 | Subject)", data)
    finite(fit)


def test_constant_response(sleep):
    """sigma = 0: either an error that says so, or a fit with a status that says so."""
    check_degenerate("y ~ Days + (1 | Subject)", sleep.assign(y=5.0))


def test_perfect_fit(sleep):
    check_degenerate("y ~ Days + (1 | Subject)", sleep.assign(y=2.0 * sleep["Days"] + 1.0))


def check_degenerate(formula, data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = mx.lmer(formula, data)
        except MixedModelError as error:
            assert any(word in str(error) for word in ("residual", "constant", "variance", "sigma"))
            return
    finite(fit)
    assert fit.sigma == pytest.approx(0.0, abs=1e-6)
    told = str(fit.convergence) + " ".join(str(w.message) for w in caught)
    assert any(word in told for word in ("residual", "constant", "variance", "sigma"))


def test_perfect_groups_end_in_a_status(sleep):
    """The response is constant within each group: sigma -> 0 while the group variance stays."""
    y = sleep["Subject"].cat.codes.astype(float)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            fit = mx.lmer("y ~ 1 + (1 | Subject)", sleep.assign(y=y))
        except MixedModelError:
            return
    finite(fit)
    np.testing.assert_allclose(fit.fittedvalues, y, atol=1e-3)


def test_two_levels_and_few_rows():
    data = pd.DataFrame({"y": [1.0, 2.5, 2.0, 4.0, 3.0], "g": list("aabbb")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        finite(mx.lmer("y ~ 1 + (1 | g)", data))


def test_unused_category_is_dropped(sleep):
    extra = sleep.assign(Subject=sleep["Subject"].cat.add_categories(["nobody"]))
    fit = mx.lmer(FORMULA, extra)
    assert dict(fit.ngroups) == {"Subject": 18}
    assert "nobody" not in fit.ranef()["Subject"].index


def test_errors_are_one_family(sleep):
    """One `except` catches every error of the package; bad input is a ValueError as well."""
    with pytest.raises(MixedModelError):
        mx.lmer("Reaction ~ Days", sleep)
    with pytest.raises(ValueError):
        mx.lmer("Reaction ~ Days", sleep)


@pytest.mark.parametrize("tol", [np.nan, -1.0, "small", None])
def test_tolerance_of_singularity(sleep, tol):
    fit = mx.lmer(FORMULA, sleep)
    with pytest.raises(OptionError, match="tol"):
        fit.is_singular(tol=tol)


def _shuffled():
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(list("abcdef"), 5), "x": np.tile(np.arange(5.0), 6)})
    data["y"] = data["x"] + rng.normal(size=6)[np.arange(30) // 5] + rng.normal(size=30)
    data["w"] = rng.uniform(0.5, 2.0, 30)
    return data, data.sample(frac=1, random_state=1)


SHUFFLED = {
    "weights": lambda d, s: mx.lmer("y ~ x + (1 | g)", d, weights=s["w"]),
    "responses": lambda d, s: mx.lmer_many("~ x + (1 | g)", d, s[["y"]], progress=False),
    "responses of a dict": lambda d, s: mx.lmer_many(
        "~ x + (1 | g)", {"x": d["x"], "g": d["g"]}, s["y"], progress=False
    ),
    "X": lambda d, s: mx.fit_matrices(d["y"], s[["x"]], [(d["g"],)]),
    "groups": lambda d, s: mx.fit_matrices(d["y"], d[["x"]], [(s["g"],)]),
    "columns": lambda d, s: mx.fit_matrices(d["y"], d[["x"]], [(d["g"], s[["x"]])]),
    "weights of matrices": lambda d, s: mx.fit_matrices(
        d["y"].to_numpy(), d[["x"]], [(d["g"],)], weights=s["w"]
    ),
    "influence": lambda d, s: _fit(d).influence(s["g"], refit=False, progress=False),
    "influence of rows used": lambda d, s: _fit(d.assign(x=d["x"].where(d.index > 0))).influence(
        s["g"].drop(0), refit=False, progress=False
    ),
    "robust": lambda d, s: _fit(d).robust(cluster=s["g"]),
    "refit": lambda d, s: _fit(d).refit(s["y"]),
    "offset of a prediction": lambda d, s: _fit(d).predict(d, offset=s["x"]),
}


def _fit(data):
    return mx.lmer("y ~ x + (1 | g)", data, control=mx.Control(warn=False))


@pytest.mark.parametrize("case", SHUFFLED)
def test_rows_in_another_order_are_not_taken_by_position(case):
    data, shuffled = _shuffled()
    with pytest.raises(mx.DataError, match=r"index differs from that of .*: align it, or pass"):
        SHUFFLED[case](data, shuffled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        SHUFFLED[case](data, data)  # the same in their own order
