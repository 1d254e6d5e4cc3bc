"""Correlations of visits that become singular: a limit with a likelihood, or one without end."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from benchmarks.random_visits import visits_model
from benchmarks.reliability import ABOVE, fit_of
from mixlm_sparse.solve.whitened.singular import null_vector


def correlation_with_null(v: np.ndarray) -> np.ndarray:
    """Return a correlation matrix whose null vector is v (s,), by alternating projections."""
    s = v.size
    rng = np.random.default_rng(0)
    U = rng.normal(size=(s, s))
    for _ in range(4_000):
        U -= np.outer(v, v @ U) / (v @ v)
        U /= np.linalg.norm(U, axis=1)[:, None]
    C = U @ U.T
    np.fill_diagonal(C, 1.0)
    return C


def profiled(C: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    """Return the dense ML criterion of groups with all visits, without its constants."""
    root = np.linalg.cholesky(C)
    XY = scipy.linalg.solve_triangular(root, np.concatenate([X, y[..., None]], 2), lower=True)
    R = np.linalg.qr(XY.reshape(-1, XY.shape[2]), mode="r")
    return 2.0 * len(y) * np.log(np.diag(root)).sum() + 2.0 * y.size * np.log(abs(R[-1, -1]))


@pytest.mark.parametrize("seed", range(6))
def test_along_the_null_vector_the_criterion_falls_by_each_group(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(4, 4, 2)), rng.normal(size=(4, 4))
    v = null_vector(X, y)
    if v is None:
        return
    C = correlation_with_null(v)
    values = [profiled((1.0 - e) * C + e * np.eye(4), X, y) for e in (1e-5, 1e-6, 1e-7)]
    # K log eps
    np.testing.assert_allclose(np.diff(values), -len(y) * np.log(10.0), rtol=1e-3)


def test_null_vectors_are_found():
    rng = np.random.default_rng(0)
    found = [null_vector(rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4))) for _ in range(20)]
    assert sum(v is not None for v in found) >= 10
    # more groups than can be fitted
    X, y = rng.normal(size=(12, 4, 2)), rng.normal(size=(12, 4))
    assert null_vector(X, y) is None


@pytest.mark.parametrize("seed", [2, 68])
def test_an_optimum_beside_a_likelihood_without_end_says_so(seed):
    fit = fit_of(visits_model(seed))
    assert fit.convergence.status == "local optimum"
    assert "correlation matrix of the visits becomes singular" in fit.convergence.message


def test_an_optimum_at_a_singular_correlation_is_reached():
    model = visits_model(19)
    fit = fit_of(model)
    assert fit.convergence.status == "converged"
    assert fit.criterion <= model.best() + ABOVE


def test_what_is_not_determined_beside_singular_correlations_is_named():
    fit = fit_of(visits_model(223))
    assert fit.identification.structure.shape == (6,)
