"""Autocorrelation and semivariogram of residuals, against sums over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import OptionError


def fitted():
    data = mx.datasets.load("fev_data")
    return mx.gls("FEV1 ~ ARMCD", data, residual=mx.AR1("VISITN", "USUBJID"))


@pytest.mark.parametrize("kind", ["pearson", "normalized"])
def test_acf_and_variogram_are_means_over_pairs(kind) -> None:
    fit = fitted()
    data = mx.datasets.load("fev_data").loc[fit.resid.index]
    r = fit.residuals(kind, scaled=True).to_numpy()
    group, visit = data["USUBJID"].astype(str).to_numpy(), data["VISITN"].to_numpy()
    i, j = np.triu_indices(r.size, 1)
    same = group[i] == group[j]
    i, j = i[same], j[same]
    lag = np.abs(visit[i] - visit[j])
    table = fit.acf(type=kind, max_lag=3)
    found = fit.variogram(type=kind)
    assert table["lag"].tolist() == [0, 1, 2, 3]
    for row in (1, 2, 3):
        at = lag == row
        expected = (r[i] * r[j])[at].mean() / (r @ r / r.size)
        assert table["acf"][row] == pytest.approx(expected)
        assert table["pairs"][row] == at.sum()
        half = 0.5 * ((r[i] - r[j])[at] ** 2).mean()
        assert found["variogram"][row - 1] == pytest.approx(half)


def test_whitening_takes_the_correlation_out() -> None:
    ovary = mx.datasets.load("Ovary")
    ovary["row"] = ovary.groupby("Mare", observed=True).cumcount()
    fit = mx.gls("follicles ~ s1 + c1", ovary, residual=mx.AR1(time="row", group="Mare"))
    before, after = (fit.acf(type=kind)["acf"][1] for kind in ("pearson", "normalized"))
    assert before > 0.7
    assert abs(after) < 0.2


def test_groups_and_times_can_be_given() -> None:
    sleep = mx.datasets.load("sleepstudy")
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    by_default, by_name = fit.acf(), fit.acf(group="Subject", time="Days")
    np.testing.assert_allclose(by_default["acf"], by_name["acf"])
    with pytest.raises(OptionError, match="no groups"):
        mx.gls("Reaction ~ Days", sleep).acf()
    with pytest.raises(OptionError, match="type"):
        fit.acf(type="raw")


def test_plots_show_before_and_after() -> None:
    pytest.importorskip("matplotlib")
    fit = fitted()
    for figure in (fit.plot.autocorrelation(), fit.plot.semivariogram()):
        labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert labels == ["before", "after whitening"]
