"""Results by row and by level join with the data: index of the rows, levels of their own type."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
LEVELS = {
    "whole numbers": np.arange(8) + 100,
    "numbers": np.arange(8) / 4.0,
    "dates": pd.date_range("2020-01-01", periods=8),
    "plain dates": [datetime.date(2020, 1, day) for day in range(1, 9)],
    "text": list("abcdefgh"),
    "text of numbers": [str(i) for i in range(8)],
}


def data(levels=LEVELS["whole numbers"]) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    at = np.repeat(np.arange(8), 6)
    frame = pd.DataFrame({"g": pd.Series(levels).to_numpy()[at], "x": rng.normal(size=48)})
    frame["y"] = frame.x + rng.normal(size=8)[at] + rng.normal(size=48)
    frame.index = pd.Index(np.arange(48) * 10, name="id")
    return frame


BY_ROW = {
    "fittedvalues": lambda fit: fit.fittedvalues,
    "resid": lambda fit: fit.resid,
    "residuals": lambda fit: fit.residuals("pearson", scaled=True),
    "hatvalues": lambda fit: fit.hatvalues(),
    "cooks_distance": lambda fit: fit.cooks_distance(),
    "predict": lambda fit: fit.predict(),
    "predict with se": lambda fit: fit.predict(se=True)["fit"],
    "augment": lambda fit: fit.augment()[".fitted"],
}


@pytest.mark.parametrize("name", BY_ROW)
def test_results_by_row_have_the_index_of_the_rows(name):
    whole = data()
    holes = whole.assign(x=whole.x.mask(whole.index.isin([30, 200])))
    fit = mx.lmer("y ~ x + (1 | g)", holes, control=QUIET)
    values = BY_ROW[name](fit)
    assert isinstance(values, pd.Series)
    pd.testing.assert_index_equal(values.index, whole.index.drop([30, 200]))
    joined = holes.assign(r=values)["r"]
    assert joined.isna().sum() == 2
    assert joined[210] == values[210] == values.iloc[20 - 1]
    padded = BY_ROW[name](mx.lmer("y ~ x + (1 | g)", holes, na_action="exclude", control=QUIET))
    pd.testing.assert_index_equal(padded.index, whole.index)
    pd.testing.assert_series_equal(padded.dropna(), values, check_freq=False, check_names=False)


def test_rows_without_labels_are_counted():
    frame = data()
    fit = mx.lmer("y ~ x + (1 | g)", frame.to_dict("list"), subset="x > 0", control=QUIET)
    expected = np.flatnonzero(frame["x"] > 0)
    np.testing.assert_array_equal(fit.resid.index, expected)
    np.testing.assert_array_equal(fit.augment().index, expected)
    assert len(fit.predict({"x": [0.0, 1.0], "g": [100, 101]}).index) == 2


def test_new_rows_have_the_index_of_their_frame():
    fit = mx.lmer("y ~ x + (1 | g)", data(), control=QUIET)
    new = pd.DataFrame({"x": [0.0, np.nan, 1.0], "g": [100, 101, 102]}, index=["p", "q", "r"])
    assert fit.predict(new).index.tolist() == ["p", "q", "r"]
    assert fit.predict(new, na_action="omit").index.tolist() == ["p", "r"]
    assert fit.predict(new, interval="confidence").index.tolist() == ["p", "q", "r"]


@pytest.mark.parametrize("kind", LEVELS)
def test_levels_keep_their_type(kind, tmp_path):
    frame = data(LEVELS[kind])
    fit = mx.lmer("y ~ x + (x | g)", frame, control=QUIET)
    b = fit.ranef()["g"]["(Intercept)"]
    assert frame["g"].map(b).notna().all()
    assert frame[["g"]].join(fit.coef()["g"], on="g").notna().all(axis=None)
    pd.testing.assert_index_equal(fit.coef()["g"].index, b.index)
    assert b.index.name == "g"
    assert frame["g"].isin(fit.influence("g", refit=False).dfbetas().index).all()
    new = frame.iloc[::7]
    np.testing.assert_allclose(fit.predict(new), fit.fittedvalues.iloc[::7])
    fit.save(tmp_path / "fit.mixlm")
    assert frame["g"].map(mx.load(tmp_path / "fit.mixlm").ranef()["g"]["x"]).notna().all()
    fit.save(tmp_path / "fit.mixlm", include_data=False)
    assert frame["g"].map(mx.load(tmp_path / "fit.mixlm").ranef()["g"]["x"]).notna().all()


def test_truth_values_are_levels():
    frame = data().assign(b=lambda d: d.g > 103)
    fit = mx.lmer("y ~ x + (1 | g) + (1 | b)", frame, control=QUIET)
    assert frame["b"].map(fit.ranef()["b"]["(Intercept)"]).notna().all()


def test_matrices_have_the_index_of_their_response():
    frame = data()
    fit = mx.fit_matrices(frame["y"], np.ones((48, 1)), [(frame["g"], None, "g")], control=QUIET)
    pd.testing.assert_index_equal(fit.resid.index, frame.index)
    assert frame["g"].map(fit.ranef()["g"]["(Intercept)"]).notna().all()
