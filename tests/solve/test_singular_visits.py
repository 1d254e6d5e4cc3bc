"""Residual correlations that become singular: a limit with a likelihood, or one without end."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from benchmarks.random_residuals import residual_model
from benchmarks.random_visits import toeplitz_with, unstructured_with, visits_model
from benchmarks.reliability import ABOVE, fit_of
from mixlm_sparse.solve.whitened.null_vectors import of_levels, of_toeplitz, of_unstructured
from mixlm_sparse.solve.whitened.singular import null_vector

RESTS = (1e-8, 1e-9, 1e-10)


def profiled(R: np.ndarray, X: np.ndarray, Z: np.ndarray, y: np.ndarray, *, reml: bool) -> float:
    """Return the dense criterion of groups (K, m, m), random effects of one, sigma out."""
    K, m = y.shape
    flat = Z.reshape(K * m, -1)
    root = np.linalg.cholesky(scipy.linalg.block_diag(*R) + flat @ flat.T)
    XY = np.concatenate([X, y[..., None]], 2).reshape(K * m, -1)
    T = np.linalg.qr(scipy.linalg.solve_triangular(root, XY, lower=True), mode="r")
    size = np.log(np.abs(np.diag(T)))
    value = 2.0 * np.log(np.diag(root)).sum() + 2.0 * (y.size - reml * X.shape[2]) * size[-1]
    return float(value + 2.0 * reml * size[:-1].sum())


def falls_by_a_whole_number(R, rest, X, Z, y, *, reml):
    """Say it of R as what is left of `rest` of it vanishes."""
    values = [profiled(R + e * rest, X, Z, y, reml=reml) for e in RESTS]
    slopes = -np.diff(values) / np.log(10.0)
    assert slopes[-1] > 0.9
    np.testing.assert_allclose(slopes[-1], np.round(slopes[-1]), atol=0.1)


def drawn(seed: int, q: int, *, least: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    K, m = int(rng.integers(2, 8)), int(rng.integers(least, 5))
    X = np.concatenate([np.ones((K, m, 1)), rng.normal(size=(K, m, 1))], axis=2)
    Z = np.eye(q)[rng.integers(0, q, (K, m))] if q else np.zeros((K, m, 0))
    return X, Z, rng.normal(size=(K, m))


@pytest.mark.parametrize("law", ["unstructured", "toeplitz", "without middle"])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("q", [0, 1, 3, 5])
def test_along_the_null_vector_the_criterion_falls_by_a_whole_number(q, reml, law):
    """With random effects too: fewer than groups, as many, one for each of their rows."""
    seen = 0
    for seed in range(60):
        X, Z, y = drawn(seed, q, least=3)
        T = y.shape[1]
        visits = [0, T - 1] if law == "without middle" else list(range(T))
        kind = of_unstructured(T) if law == "unstructured" else of_toeplitz(T, visits)
        v = null_vector(X[:, visits], Z[:, visits], y[:, visits], kind, reml=reml)
        if v is None:
            continue
        assert kind.possible(v)
        whole = np.bincount(visits, v, T)
        C = unstructured_with(v) if law == "unstructured" else toeplitz_with(whole)
        assert np.linalg.norm(C @ whole) < 1e-6
        own = np.broadcast_to(C, (len(y), T, T))
        falls_by_a_whole_number(own, np.eye(T) - own, X, Z, y, reml=reml)
        seen += 1
        if seen == 4:
            break
    # where nothing is left to be chosen, columns alone decide, in ML
    assert bool(seen) == (law != "without middle" or not reml)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("q", [0, 1, 3])
def test_equal_correlations_and_a_variance_of_each_level_have_such_a_null_vector(q, reml, levels):
    seen = 0
    for seed in range(200):
        X, Z, y = drawn(seed, q, least=2)
        K, m = y.shape
        level = np.random.default_rng(seed).permutation(K * m).reshape(K, m) % levels
        sums = (level[:, :, None] == np.unique(level)).astype(float)
        of = [np.einsum("gms,gmr->gsr", sums, D) for D in (X, Z, y[..., None])]
        v = null_vector(of[0], of[1], of[2][..., 0], of_levels(sums.shape[2]), reml=reml)
        if v is None:
            continue
        assert (v > 0.0).all() or (v < 0.0).all()
        sd = 1.0 / np.abs(v)[level]
        equal = sd[:, :, None] * sd[:, None] * (np.eye(m) - 1.0 / m)
        falls_by_a_whole_number(equal, sd[:, :, None] * sd[:, None] / m, X, Z, y, reml=reml)
        seen += 1
        if seen == 4:
            break
    assert bool(seen) == (levels > 1 or not reml)


def test_units_origins_and_order_do_not_decide_whether_one_is_found():
    found = []
    for seed in range(40):
        X, Z, y = drawn(seed, 2, least=3)
        rng, kind = np.random.default_rng(seed), of_unstructured(y.shape[1])
        order = rng.permutation(len(y))
        moved = 1e3 * (y + X @ rng.normal(size=X.shape[2]) * 10.0)
        ways = [(X, Z, y), (X, Z, moved), (X[order], Z[order], y[order])]
        seen = {null_vector(*way, kind, reml=True) is not None for way in ways}
        assert len(seen) == 1
        found += seen
    assert 0 < sum(found) < len(found)


def test_more_groups_than_can_be_fitted_have_no_null_vector():
    rng = np.random.default_rng(0)
    X, Z, y = rng.normal(size=(12, 4, 2)), rng.normal(size=(12, 4, 3)), rng.normal(size=(12, 4))
    kind = of_unstructured(4)
    assert null_vector(X, Z, y, kind, reml=True) is None
    assert null_vector(X, Z[:, :, :0], y, kind, reml=False) is None


@pytest.mark.parametrize("seed", [2, 15, 19, 21, 58, 69, 105, 109, 135, 238, 614, 714])
def test_an_optimum_beside_a_likelihood_without_end_says_so(seed):
    """The equations have no random effects in them, random effects, or dependent ones."""
    model = visits_model(seed)
    fit = fit_of(model)
    # a search on the way there may be left at once, or end next to it
    near = ("no minimum",) if seed in (19, 69, 614) else ()
    assert fit.convergence.status in ("local optimum", *near)
    assert model.has_no_minimum()
    assert "correlation matrix of the visits becomes singular" in fit.convergence.message


def test_an_optimum_beside_equal_correlations_at_their_least_says_so():
    """The search of correlations over their range ends elsewhere."""
    model = residual_model(93)
    fit = fit_of(model)
    assert fit.convergence.status == "local optimum"
    assert model.has_no_minimum()
    assert "the residual parameter rho goes to the end of its range" in fit.convergence.message


def test_an_optimum_at_a_singular_correlation_is_reached():
    model = visits_model(244)
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
