"""A bootstrap draws from one of several models that fit equally well: what differs has no error."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

SILENT = mx.Control(warn=False)


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(161)
    n = 80
    out = pd.DataFrame({"g": rng.integers(0, 7, n), "x": rng.normal(size=n)})
    out["same"] = 3 * out["g"]
    out["y"] = out["x"] + rng.normal(size=7)[out["g"]] + rng.normal(size=n)
    return out


@pytest.mark.parametrize(
    ("formula", "hidden"),
    [
        ("y ~ x + (1 | g) + (1 | same)", ["sd_(Intercept)|g", "sd_(Intercept)|same"]),
        ("y ~ x + factor(g) + (1 | g)", ["sd_(Intercept)|g", "(Intercept)", "factor(g)3"]),
        ("y ~ x + (1 | g)", []),
    ],
)
@pytest.mark.parametrize("method", ["parametric", "groups"])
def test_intervals_are_those_that_wald_and_profile_give_or_do_not(data, formula, hidden, method):
    fit = mx.lmer(formula, data, control=SILENT)
    draws = fit.bootstrap(12, seed=3, method=method, progress=False)
    wald = fit.confint(method="wald")["lower"].isna()
    table = draws.to_frame()
    if method == "parametric":  # a variance of zero has no Wald interval, and has draws
        assert set(hidden) <= set(table.index[table["std_error"].isna()])
        assert set(table.index[table["lower"].isna()]) <= set(wald.index[wald])
    for kind in ("percentile", "basic", "normal"):
        limits = draws.confint(type=kind)
        assert limits.loc[hidden].isna().all(axis=None)
        assert limits.loc[["sigma", "x"]].notna().all(axis=None)
    assert table.loc[[n for n in hidden if n.startswith("sd_")], "estimate"].isna().all()
    assert ("the data do not determine" in str(draws)) == bool(hidden)
    assert draws.samples.shape[0] == 12


def test_a_statistic_of_ones_own_is_left_as_it_is(data):
    fit = mx.lmer("y ~ x + (1 | g) + (1 | same)", data, control=SILENT)
    draws = fit.bootstrap(
        6, seed=3, statistic=lambda one: {"sd_(Intercept)|g": one.sigma}, progress=False
    )
    assert draws.to_frame().notna().all(axis=None)
