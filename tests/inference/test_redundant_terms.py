"""Terms that others contain: 0 degrees of freedom, whatever levels are called."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)

RANK = [
    "y ~ x + twin + (1 | g)",
    "y ~ x + one + (1 | g)",
    "y ~ big + small + (1 | g)",
    "y ~ small + big + (1 | g)",
]


def deficient() -> pd.DataFrame:
    rng = np.random.default_rng(23)
    g = np.repeat(np.arange(12), 6)
    x = rng.normal(size=72)
    small = rng.integers(6, size=72)
    y = 1.0 + 0.8 * x + 1.5 * (small % 3) + rng.normal(size=12)[g] + rng.normal(size=72)
    return pd.DataFrame({
        "y": y, "g": g, "x": x, "twin": 2.0 * x + 1.0, "one": np.ones(72),
        "small": [f"s{i}" for i in small], "big": [f"b{i % 3}" for i in small],
    })  # fmt: skip


@pytest.mark.parametrize("formula", RANK)
@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_terms_that_others_contain(formula, ddf):
    """F tests of leaving a term out agree with the likelihood: 0 df where it adds nothing."""
    fit = mx.lmer(formula, deficient(), control=QUIET)
    by_f, by_lr = fit.drop1(test="F", ddf=ddf), fit.drop1()
    np.testing.assert_array_equal(by_f["NumDF"], by_lr["Df"].iloc[1:])
    assert (by_f["Pr(>F)"].isna() == (by_f["NumDF"] == 0)).all()
    found = fit.step(ddf=ddf)
    assert (found.fixed.loc[found.fixed["Eliminated"] == 0, "NumDF"] > 0).all()
    # the redundant term is gone first; what is left is the model without it
    first = found.fixed.loc[found.fixed["Eliminated"] == 1]
    assert (first["NumDF"] == 0).all()
    assert found.fit.system.dropped == ()


def test_names_of_levels_decide_nothing():
    frame = deficient()
    names = {f"s{i}": f"z{(7 * i) % 6}" for i in range(6)}
    other = frame.assign(small=frame["small"].map(names))
    formula = "y ~ x + big + small + (1 | g)"
    a = mx.lmer(formula, frame, control=QUIET)
    b = mx.lmer(formula, other, control=QUIET)
    np.testing.assert_allclose(a.drop1(test="F"), b.drop1(test="F"), rtol=1e-6)
    np.testing.assert_allclose(a.drop1()["LRT"], b.drop1()["LRT"], rtol=1e-6, atol=1e-8)
    assert a.step().formula == b.step().formula == "y ~ x + small + (1 | g)"


def test_comparison_of_rank_deficient_models():
    frame = deficient()
    large = mx.lmer("y ~ x + twin + big + small + (1 | g)", frame, control=QUIET)
    small = mx.lmer("y ~ x + big + (1 | g)", frame, control=QUIET)
    plain = mx.lmer("y ~ x + small + (1 | g)", frame, control=QUIET)
    table, expected = mx.anova(small, large), mx.anova(small, plain)
    assert table["Df"].iloc[1] == expected["Df"].iloc[1] == 3
    assert table["Chisq"].iloc[1] == pytest.approx(expected["Chisq"].iloc[1], rel=1e-6)
