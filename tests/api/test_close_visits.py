"""Visits that hardly differ: correlations next to one are estimates like any others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx


def close_visits(within: float, groups: int = 40, visits: int = 3) -> tuple[pd.DataFrame, float]:
    """Return rows of groups that hardly change, and the least -2 log likelihood of any covariance.

    With a mean and a variance of its own for every visit the maximum likelihood estimate of the
    covariance is S = E'E / n of the deviations E from the means: -2 l = n (log|2 pi S| + visits).
    """
    rng = np.random.default_rng(1)
    Y = rng.normal(size=(groups, 1)) + within * rng.normal(size=(groups, visits))
    E = Y - Y.mean(axis=0)
    log_det = 2.0 * np.log(np.linalg.svd(E / np.sqrt(groups / (2.0 * np.pi)))[1]).sum()
    g, t = (a.ravel() for a in np.meshgrid(range(groups), range(visits), indexing="ij"))
    data = pd.DataFrame({"y": Y.ravel(), "g": g, "t": t, "f": t.astype(str)})
    return data, groups * (log_det + visits)


@pytest.mark.parametrize("within", [0.3, 0.03, 0.01, 1e-3])
def test_the_maximum_is_that_of_the_sample_covariance(within):
    data, best = close_visits(within)
    fit = mx.gls(
        "y ~ 0 + f", data, residual=mx.Unstructured("t", "g"), variance=mx.VarIdent("f"), reml=False
    )
    assert fit.convergence.status == "converged"
    # the criterion is known to n / within^2 roundings
    assert fit.criterion == pytest.approx(best, abs=1e-6)


def test_a_file_of_them_is_the_same_fit(tmp_path):
    data, _ = close_visits(0.03)
    fit = mx.gls("y ~ 1", data, residual=mx.Unstructured("t", "g"))
    for rows in (True, False):
        fit.save(tmp_path / "fit", include_data=rows)
        again = mx.load(tmp_path / "fit")
        pd.testing.assert_frame_equal(again.residual_structure, fit.residual_structure, rtol=1e-9)
