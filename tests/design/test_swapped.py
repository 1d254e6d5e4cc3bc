"""Time and group of a residual structure in each other's place are said."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

N, T = 20, 6
DATA = pd.DataFrame(
    {
        "id": np.repeat([f"S{i}" for i in range(N)], T),
        "number": np.repeat(np.arange(N), T),
        "visit": np.tile(np.arange(T), N),
        "week": np.tile([f"week {i}" for i in range(T)], N),
    }
)
DATA["stage"] = pd.Categorical(np.tile(list("qrstuv"), N), list("uvqrst"), ordered=True)
DATA["arm"] = np.tile(list("qrstuv"), N)
DATA["y"] = np.random.default_rng(1).normal(size=N * T)


def messages(formula, residual):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        fit = mx.gls if "|" not in formula else mx.lmer
        return [m for m in fit(formula, DATA, residual=residual).messages if "as the time" in m]


@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("y ~ 1", mx.AR1("id", "visit")),  # text
        ("y ~ visit", mx.AR1("number", "visit")),  # the group is a covariate
        ("y ~ 1 + (1 | number)", mx.AR1("number", "visit")),  # the time is a grouping factor
        ("y ~ visit", mx.CAR1("number", "visit")),
        ("y ~ week", mx.Toeplitz("id", "week")),
        ("y ~ week", mx.AR1("number", "week")),  # numbers of subjects, visits by name
        ("y ~ stage", mx.AR1("number", "stage")),  # visits in an order
    ],
)
def test_swapped(formula, residual):
    time, group = residual.time, residual.group
    found = messages(formula, residual)
    assert len(found) == 1
    assert f"{T} groups with up to {N} of {N} times each" in found[0]
    assert found[0].endswith(f'write {type(residual).__name__}(time="{group}", group="{time}")')


@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("y ~ visit", mx.AR1("visit", "id")),
        ("y ~ visit", mx.AR1("visit", "number")),
        ("y ~ week", mx.Toeplitz("week", "id")),
        ("y ~ 1", mx.CompoundSymmetry("id")),
        ("y ~ number", mx.AR1("number", "week")),  # a few long series
        ("y ~ arm", mx.AR1("number", "arm")),  # one for each arm
    ],
)
def test_in_their_places(formula, residual):
    assert messages(formula, residual) == []


def test_it_is_a_warning_once():
    with pytest.warns(mx.FormulaWarning, match="as the time") as caught:
        mx.gls("y ~ visit", DATA, residual=mx.AR1("number", "visit"))
    assert len(caught) == 1
