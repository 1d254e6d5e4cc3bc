"""Fits with a residual structure, or without random effects, come back from their files."""

from __future__ import annotations

import numpy as np
import pytest

import mixlm_sparse as mx

STRUCTURES = [
    (mx.Unstructured("AVISIT", "USUBJID"), mx.VarIdent("AVISIT")),
    (mx.Exponential(["VISITN", "VISITN2"], "USUBJID", by="ARMCD"), None),
    (None, mx.VarPower("FEV1_BL")),
    (None, None),
]


@pytest.mark.parametrize(("residual", "variance"), STRUCTURES, ids=str)
def test_gls_comes_back(residual, variance, tmp_path) -> None:
    data = mx.datasets.load("fev_data")
    fit = mx.gls("FEV1 ~ SEX + ARMCD * AVISIT", data, residual=residual, variance=variance)
    fit.save(tmp_path / "fit.mixlm")
    again = mx.load(tmp_path / "fit.mixlm")
    assert str(again.summary()) == str(fit.summary())
    np.testing.assert_allclose(again.residuals("normalized"), fit.residuals("normalized"))
    assert again.refit_ml().criterion == pytest.approx(fit.refit_ml().criterion, abs=1e-8)
    assert again.call.residual == residual
    assert again.call.variance == variance


def test_random_effects_beside_a_structure_come_back(tmp_path) -> None:
    data = mx.datasets.load("Orthodont").assign(visit=lambda d: ((d["age"] - 8) / 2).astype(int))
    fit = mx.lmer("distance ~ age + (1 | Subject)", data, residual=mx.AR1("visit", "Subject"))
    fit.save(tmp_path / "fit.mixlm")
    again = mx.load(tmp_path / "fit.mixlm")
    assert str(again.summary()) == str(fit.summary())
    new = data.assign(visit=data["visit"] + 4)
    np.testing.assert_allclose(
        again.predict(new, forecast=True), fit.predict(new, forecast=True), rtol=1e-10
    )
