"""What is kept of a block of refits, against the refits themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.refits import RefitBlock, row_of
from mixlm_sparse.model.warm import quiet
from mixlm_sparse.solve.system import penalized_system


def assert_rows_are_refits(
    formula: str, data: pd.DataFrame, *, reml: bool, compiled: bool
) -> None:
    """Refit nine responses, singular, perfect and missing ones among them."""
    rng = np.random.default_rng(4)
    Y = data["y"].to_numpy()[:, None] + rng.normal(size=(len(data), 9))
    Y[:, 3:6] = rng.normal(size=(len(data), 3))  # some of these are singular
    Y[:, 7] = 2.0  # perfect
    Y[4, 8] = np.nan
    system = penalized_system(mx.model_matrices(formula, data, weights=1.0 + data["h"]))
    block = RefitBlock(system, Y, replace(quiet(FitOptions()), reml=reml), compiled=compiled)
    assert block.at_once[:3].any() or "| h)" in formula  # few levels: a second look
    assert not block.at_once[8]
    for i, (row, refit) in enumerate(zip(block.rows(), block, strict=True)):
        one = row_of(refit)
        assert (row.status, row.message) == (one.status, one.message)
        if row.theta is None or row.status == "perfect fit":
            assert i in (7, 8)
            continue
        np.testing.assert_allclose(row.theta, one.theta, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(row.beta, one.beta, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(row.bse, one.bse, rtol=1e-9)
        assert row.sigma == pytest.approx(one.sigma, rel=1e-10)
        assert row.criterion == one.criterion
