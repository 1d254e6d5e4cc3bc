"""Studentized residuals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

FORMULA = "Reaction ~ Days + (1 | Subject)"


def test_same_as_lme4():
    fit = mx.lmer(FORMULA, mx.datasets.load("sleepstudy"))
    lme4 = [
        -1.45598270922089, -1.49664543508657, -2.11747425025103, -0.0729690066951975,
        0.772716397142335, 2.37859408861768,
    ]  # fmt: skip
    assert fit.rstudent().iloc[:6].to_numpy() == pytest.approx(lme4, rel=1e-7)


def test_rows_keep_their_index_and_heavy_rows_their_weight():
    data = mx.datasets.load("sleepstudy")
    data.index = pd.Index([f"row{i}" for i in range(180)])
    data.loc["row3", "Reaction"] = np.nan
    data["w"] = np.linspace(0.5, 2.0, 180)
    fit = mx.lmer(FORMULA, data, weights="w", na_action="exclude")
    found = fit.rstudent()
    assert found.index.equals(data.index)
    assert np.flatnonzero(found.isna()).tolist() == [3]
    expected = fit.residuals("pearson", scaled=True) / np.sqrt(1.0 - fit.hatvalues())
    pd.testing.assert_series_equal(found, expected, check_names=False)


def test_a_row_that_is_fitted_whatever_its_response_has_none():
    data = mx.datasets.load("sleepstudy")
    data["own"] = (np.arange(180) == 5).astype(float)
    fit = mx.lmer("Reaction ~ Days + own + (1 | Subject)", data)
    found = fit.rstudent().to_numpy()
    assert fit.hatvalues().iloc[5] == pytest.approx(1.0)
    assert np.isfinite(np.delete(found, 5)).all()
    assert np.isnan(found[5])
