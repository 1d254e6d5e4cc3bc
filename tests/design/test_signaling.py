"""Numbers of `decimal` that every operation refuses, wherever a column may stand."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

rng = np.random.default_rng(0)
data = pd.DataFrame({"y": rng.normal(size=40), "x": rng.normal(size=40), "g": np.arange(40) % 8})
data["q"] = [Decimal(1), Decimal("sNaN")] * 20
FORMULA = "y ~ x + (1 | g)"


@pytest.mark.parametrize(
    "call",
    [
        lambda: mx.lmer("y ~ q + (1 | g)", data),
        lambda: mx.lmer("q ~ x + (1 | g)", data),
        lambda: mx.lmer("y ~ x + (1 | q)", data),
        lambda: mx.lmer(FORMULA, data, weights="q"),
        lambda: mx.lmer(FORMULA, data, offset="q"),
        lambda: mx.lmer(FORMULA, data, subset="q > 0"),
        lambda: mx.lmer(FORMULA, data).predict(data.assign(x=data["q"])),
    ],
)
def test_the_column_is_named(call):
    with pytest.raises(mx.DataError, match=r"column '[qx]' holds a signaling NaN"):
        call()


def test_an_array_is_named_by_its_role():
    with pytest.raises(mx.DataError, match="column 'weights' holds a signaling NaN"):
        mx.lmer(FORMULA, data, weights=data["q"].to_numpy())
