"""Correlations of visits that become singular: a limit with a likelihood, or one without end."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from benchmarks.random_visits import visits_model, with_null_vector
from benchmarks.reliability import ABOVE, fit_of
from mixlm_sparse.solve.whitened.null_vectors import opens_no_polygon, opens_no_roots
from mixlm_sparse.solve.whitened.singular import null_vector

RESTS = (1e-8, 1e-9, 1e-10)


def profiled(C: np.ndarray, X: np.ndarray, Z: np.ndarray, y: np.ndarray, *, reml: bool) -> float:
    """Return the dense criterion of groups with all visits, random effects of one, sigma out."""
    K, s = y.shape
    flat = Z.reshape(K * s, -1)
    root = np.linalg.cholesky(np.kron(np.eye(K), C) + flat @ flat.T)
    XY = np.concatenate([X, y[..., None]], 2).reshape(K * s, -1)
    R = np.linalg.qr(scipy.linalg.solve_triangular(root, XY, lower=True), mode="r")
    size = np.log(np.abs(np.diag(R)))
    value = 2.0 * np.log(np.diag(root)).sum() + 2.0 * (y.size - reml * X.shape[2]) * size[-1]
    return float(value + 2.0 * reml * size[:-1].sum())


@pytest.mark.parametrize("toeplitz", [False, True])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("q", [0, 1, 3, 5])
def test_along_the_null_vector_the_criterion_falls_by_a_whole_number(q, reml, toeplitz):
    """With random effects too: fewer than groups, as many, one for each of their rows."""
    possible = opens_no_roots if toeplitz else opens_no_polygon
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        K, s = int(rng.integers(2, 8)), int(rng.integers(3, 5))
        X = np.concatenate([np.ones((K, s, 1)), rng.normal(size=(K, s, 1))], axis=2)
        Z = np.eye(q)[rng.integers(0, q, (K, s))] if q else np.zeros((K, s, 0))
        y = rng.normal(size=(K, s))
        v = null_vector(X, Z, y, toeplitz=toeplitz, reml=reml)
        if v is None:
            continue
        assert possible(v)
        C = with_null_vector(v, toeplitz=toeplitz)
        values = [profiled((1.0 - e) * C + e * np.eye(s), X, Z, y, reml=reml) for e in RESTS]
        slopes = -np.diff(values) / np.log(10.0)
        assert slopes[-1] > 0.9
        np.testing.assert_allclose(slopes[-1], np.round(slopes[-1]), atol=0.1)
        seen += 1
        if seen == 4:
            break
    assert seen


def test_more_groups_than_can_be_fitted_have_no_null_vector():
    rng = np.random.default_rng(0)
    X, Z, y = rng.normal(size=(12, 4, 2)), rng.normal(size=(12, 4, 3)), rng.normal(size=(12, 4))
    assert null_vector(X, Z, y, toeplitz=False, reml=True) is None
    assert null_vector(X, Z[:, :, :0], y, toeplitz=False, reml=False) is None


@pytest.mark.parametrize("seed", [2, 15, 21, 58, 105, 109, 135, 238])
def test_an_optimum_beside_a_likelihood_without_end_says_so(seed):
    """The equations have no random effects in them, random effects, or dependent ones."""
    model = visits_model(seed)
    fit = fit_of(model)
    assert fit.convergence.status == "local optimum"
    assert model.has_no_minimum()
    assert "correlation matrix of the visits becomes singular" in fit.convergence.message


def test_an_optimum_at_a_singular_correlation_is_reached():
    model = visits_model(19)
    fit = fit_of(model)
    assert fit.convergence.status == "converged"
    assert fit.criterion <= model.best() + ABOVE


def test_a_valley_beside_random_effects_is_found_from_where_there_were_none():
    model = visits_model(286)
    fit = fit_of(model)
    assert fit.convergence.status == "converged"
    assert fit.criterion <= model.best() + ABOVE


@pytest.mark.parametrize("seed", [381, 439, 443, 458, 735, 743])
def test_valleys_next_to_singular_correlations_are_found_beside_random_effects(seed):
    """Next to the optimum, to none, and where the first search ended at another singular matrix."""
    model = visits_model(seed)
    fit = fit_of(model)
    assert fit.convergence.status == "converged"
    assert fit.criterion <= model.best() + ABOVE


def test_what_is_not_determined_beside_singular_correlations_is_named():
    fit = fit_of(visits_model(223))
    assert fit.identification.structure.shape == (6,)
    sentence = fit.identification.sentence
    assert "those of a singular matrix" in sentence
    assert "the fixed part has the same effects" not in sentence
