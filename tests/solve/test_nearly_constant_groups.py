"""Random intercepts beside serial correlation where groups are next to constant."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
FEW = 80  # evaluations of up to six searches; along a ridge it were hundreds


def nearly_constant(seed: int, ratio: float, phi: float, groups: int, visits: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, t = (a.ravel() for a in np.meshgrid(range(groups), range(visits), indexing="ij"))
    e = rng.normal(size=(groups, visits))
    for k in range(1, visits):
        e[:, k] = phi * e[:, k - 1] + np.sqrt(1.0 - phi**2) * e[:, k]
    level = rng.normal(size=groups)
    return pd.DataFrame(
        {"y": level[g] + ratio * e.ravel(), "t": t, "g": g, "x": rng.normal(size=g.size)}
    )


@pytest.mark.parametrize("ratio", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize(("seed", "phi", "law"), [(0, 0.0, mx.CAR1), (3, -0.5, mx.AR1)])
def test_the_optimum_is_far_out_and_no_ridge_leads_there(ratio, seed, phi, law):
    data = nearly_constant(seed, ratio, phi, 10, 6)
    fit = mx.lmer("y ~ x + (1 | g)", data, residual=law("t", "g"), control=QUIET, progress=False)
    assert fit.convergence.status == "converged"
    assert fit.convergence.n_evaluations <= FEW
    # what differs within groups is all that tells of the residuals: the unit does not
    other = nearly_constant(seed, 1e-3, phi, 10, 6)
    same = mx.lmer("y ~ x + (1 | g)", other, residual=law("t", "g"), control=QUIET, progress=False)
    np.testing.assert_allclose(fit.sigma / ratio, same.sigma / 1e-3, rtol=1e-3)


@pytest.mark.parametrize("ratio", [1e-2, 1e-3])
def test_a_ridge_that_leads_to_no_random_effects_is_gone_to_its_end(ratio):
    """Within groups rows are a random walk: all of the level may be that of the residuals."""
    data, law = nearly_constant(2, ratio, 0.9, 25, 3), mx.CAR1("t", "g")
    fit = mx.lmer("y ~ x + (1 | g)", data, residual=law, control=QUIET, progress=False)
    alone = mx.gls("y ~ x", data, residual=law)
    assert fit.convergence.status == "singular"
    assert fit.criterion == pytest.approx(alone.criterion, abs=1e-6)


@pytest.mark.parametrize(
    ("seed", "phi", "law", "variance"),
    [
        (6, 0.95, mx.AR1("t", "g"), mx.VarIdent("s")),
        (6, 0.999, mx.CAR1("t", "g"), mx.VarIdent("s")),
        (5, 0.999, mx.CompoundSymmetry("g"), mx.VarIdent("s")),
        (9, 0.999, mx.CompoundSymmetry("g"), mx.VarPower("v")),
    ],
)
def test_beside_a_variance_function_effects_may_be_those_of_residuals(seed, phi, law, variance):
    """Effects far larger than residuals are one valley, residuals alone that are so large another.

    A level of unequal standard deviations is not that of the effects: no ridge joins the two.  What
    holds without effects holds beside them, so that the criterion is no higher.
    """
    data, rng = nearly_constant(seed, 1.0, phi, 12, 5), np.random.default_rng(seed)
    data["s"] = rng.integers(0, 3, len(data)).astype(str)
    data["v"] = np.exp(0.3 * rng.normal(size=len(data)))
    call = {"residual": law, "variance": variance}
    fit = mx.lmer("y ~ x + (1 | g)", data, control=QUIET, progress=False, **call)
    assert fit.criterion <= mx.gls("y ~ x", data, **call).criterion + 1e-5
    assert any("instead of effects" in line for line in fit.convergence.tried)


def test_without_a_variance_function_no_search_begins_there():
    data = nearly_constant(6, 1.0, 0.95, 12, 5)
    law = mx.AR1("t", "g")
    fit = mx.lmer("y ~ x + (1 | g)", data, residual=law, control=QUIET, progress=False)
    assert not any("instead of effects" in line for line in fit.convergence.tried)
