"""Bootstrap draws in ArviZ."""

from __future__ import annotations

import dataclasses
import sys
import warnings

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support.other_tools import needed

with warnings.catch_warnings():  # it announces its next version
    warnings.simplefilter("ignore")
    arviz = needed("arviz")


@pytest.fixture(scope="module")
def bootstrap():
    fit = mx.lmer("distance ~ age + (1 | Subject)", mx.datasets.load("Orthodont"))
    return fit.bootstrap(nsim=20, seed=1, progress=False)


def test_arviz_summarizes_the_draws(bootstrap):
    table = arviz.summary(bootstrap.to_xarray(), kind="stats", round_to="none")
    frame = bootstrap.to_frame()
    assert list(table.index) == list(frame.index)
    np.testing.assert_allclose(table["mean"], frame["mean"], rtol=1e-12)
    np.testing.assert_allclose(table["sd"], frame["std_error"], rtol=1e-12)


def test_replicates_that_failed_are_left_out(bootstrap):
    samples = bootstrap.samples.copy()
    samples.iloc[[3, 7]] = np.nan
    draws = dataclasses.replace(bootstrap, samples=samples).to_xarray()
    assert draws.sizes == {"chain": 1, "draw": 18}
    assert 3 not in draws["draw"]
    for name in samples:
        np.testing.assert_array_equal(draws[name].to_numpy()[0], samples[name].dropna())


def test_xarray_is_asked_for(bootstrap, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(mx.MissingPackageError, match="pip install xarray"):
        bootstrap.to_xarray()
