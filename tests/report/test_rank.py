"""Groups ranked by a random effect."""

from __future__ import annotations

import numpy as np
import pytest

import mixlm_sparse as mx


@pytest.fixture(scope="module")
def fit():
    return mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))


def test_ranks_are_in_the_order_of_the_effects(fit):
    table = fit.rank(effect="Days")
    effects = fit.ranef()["Subject"]["Days"].sort_values(ascending=False)
    assert table.index.tolist() == effects.index.tolist()
    np.testing.assert_allclose(table["estimate"], effects)
    assert table["rank"].tolist() == list(range(1, 19))
    assert (table["rank_lower"] <= table["rank"]).all()
    assert (table["rank"] <= table["rank_upper"]).all()
    assert fit.rank(effect="Days").equals(table)
    assert "Subject ranked by the random effect Days" in repr(table)


def test_limits_narrow_with_the_level_and_with_what_is_known(fit):
    wide, narrow = fit.rank(level=0.95), fit.rank(level=0.5)
    width = {t: (f["rank_upper"] - f["rank_lower"]).mean() for t, f in ((1, wide), (2, narrow))}
    assert width[2] < width[1]
    null = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    few = null.rank()
    assert (few["rank_upper"] - few["rank_lower"]).max() >= 2


def test_what_does_not_exist_is_refused(fit):
    with pytest.raises(mx.OptionError, match="no grouping factor 'Group'"):
        fit.rank("Group")
    with pytest.raises(mx.OptionError, match="effect is 'Weeks'"):
        fit.rank(effect="Weeks")
    with pytest.raises(mx.OptionError, match="level is 95"):
        fit.rank(level=95)
