"""Columns of text that may be meant otherwise are said, once, and fitted as factors."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx


def frame(n=60, **columns):
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat([f"g{i}" for i in range(n // 6)], 6)})
    data["z"] = rng.normal(size=n).round(2)
    data["y"] = data["z"] + rng.normal(size=n)
    return data.assign(**columns)


def said(formula, data):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit = mx.lmer(formula, data)
    texts = [str(w.message) for w in found if w.category is mx.FormulaWarning]
    assert texts == [text for text in fit.messages if "is text" in text]
    return texts


@pytest.mark.parametrize("form", ["{:.1f}", "{:.2f} kg", "+{:.1f}%", "{:.1e}"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_numbers_in_words(form, decimal):
    x = [form.format(1.0 + (7 * i % 23) / 10.0).replace(".", decimal) for i in range(60)]
    data = frame(x=x)
    (text,) = said("y ~ z + x + (1 | g)", data)
    assert "'x' is text" in text
    assert "which are numbers such as" in text
    assert said("y ~ z + factor(x) + (1 | g)", data) == []
    assert said("y ~ z + x + (1 | g)", data.assign(x=pd.Categorical(data["x"]))) == []
    with pytest.warns(mx.FormulaWarning, match="'x' is text"):
        mx.model_matrices("y ~ z + (0 + x | g)", data.assign(z=1.0), warn=True)


def test_dates_in_words():
    days = pd.date_range("2024-01-01", periods=12).strftime("%d.%m.%Y").tolist() * 5
    (text,) = said("y ~ `my day` + (1 | g)", frame(**{"my day": days}))
    assert "which are dates such as '01.01.2024'" in text
    assert "factor(`my day`)" in text


def test_codes_are_levels():
    for x in (
        [f"{i % 12}" for i in range(60)],  # five rows a level
        [f"visit {i % 12}" for i in range(60)],
        [f"{i % 3}.5 mg" for i in range(60)],  # doses
        [f"R{i}.2" for i in range(20)] * 3,
    ):
        assert said("y ~ x + (1 | g)", frame(x=x)) == []
    assert said("y ~ z + (1 | g)", frame(g=[f"{i // 4}.5" for i in range(60)])) == []


@pytest.mark.parametrize("mark", ["", "nan", "n/a", "<NA>", "NULL"])
def test_marks_of_missing_cells(mark):
    data = frame()
    data.loc[[1, 8], "g"] = mark
    (text,) = said("y ~ z + (1 | g)", data)
    assert f"'g' is text with the level {mark!r} in 2 rows" in text
    f = np.where(np.arange(60) % 3 == 0, mark, "a")
    (text,) = said("y ~ f + (1 | g)", frame(f=f))
    assert "in 20 rows" in text
    assert said("y ~ f + (1 | g)", frame(f=pd.Categorical(f))) == []
    assert said("y ~ z + (1 | g)", frame(f=f)) == []


def test_they_are_not_said_if_warnings_are_off():
    data = frame(x=[f"{i / 10:.1f}" for i in range(20)] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mx.model_matrices("y ~ x + (1 | g)", data, warn=False)
        mx.lmer("y ~ x + (1 | g)", data, control=mx.Control(warn=False))
