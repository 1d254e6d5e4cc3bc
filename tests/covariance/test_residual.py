"""Residual structures: prior weights."""

from __future__ import annotations

import numpy as np
import pytest

from mixlm_sparse.covariance.residual import Independent

WEIGHTS = np.array([0.5, 2.0, 1.0, 4.0, 0.1])
ROWS = slice(1, 4)


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_weights_against_the_dense_covariance(shape):
    residual = Independent(WEIGHTS)
    values = np.random.default_rng(1).normal(size=shape)
    R = np.diag(1.0 / WEIGHTS[ROWS])
    white = residual.whiten(values, ROWS)
    np.testing.assert_allclose(white.T @ white, values.T @ np.linalg.solve(R, values))
    np.testing.assert_allclose(residual.weigh(values, ROWS), np.linalg.solve(R, values))
    np.testing.assert_allclose(residual.whiten(residual.draw(values, ROWS), ROWS), values)
    assert residual.log_det(ROWS) == pytest.approx(np.linalg.slogdet(R)[1])


def test_without_weights_values_are_left_alone():
    values = np.arange(3.0)
    residual = Independent()
    for result in (residual.whiten, residual.weigh, residual.draw):
        assert result(values, ROWS) is values
    assert residual.log_det(ROWS) == 0.0
    np.testing.assert_array_equal(residual.weights_of(ROWS), np.ones(3))
    assert residual.names == ()
    assert residual.start.size == residual.lower.size == 0
