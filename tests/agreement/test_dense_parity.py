"""Both engines at random theta against the dense oracle, and against each other on the whole
corpus.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings

import mixlm_sparse as mx
from mixlm_sparse import solve_pls
from mixlm_sparse.solve.criterion import criterion_and_gradient, profiled_criterion
from tests.support import corpus
from tests.support import dense_oracle as oracle
from tests.support.corpus import LARGE, MODELS, load_model
from tests.support.strategies import designs_with_theta

HAS_CHOLMOD = importlib.util.find_spec("sksparse") is not None  # installed, working or not
needs_cholmod = pytest.mark.skipif(not HAS_CHOLMOD, reason="scikit-sparse is not installed")
ENGINES = ["blocked", pytest.param("cholmod", marks=needs_cholmod)]
engines = pytest.mark.parametrize("engine", ENGINES)

VALUE_RTOL = 1e-9  # the oracle inverts an n x n matrix with condition number up to about 1e4
GRADIENT_RTOL = 1e-7
ENGINE_RTOL = 1e-10  # one engine against the other
DENSE_ROWS = 700  # the oracle is cubic in the rows


def system_of(design, engine):
    matrices = mx.model_matrices(
        design.formula, design.data, weights=design.weights, offset=design.offset
    )
    return mx.penalized_system(matrices, engine=engine)


def compare(solution, expected, *, reml, value):
    """A PlsSolution with what the oracle says at the same theta."""
    assert value == pytest.approx(expected.criterion, rel=VALUE_RTOL, abs=1e-8)
    size = max(1.0, float(np.abs(expected.beta).max()))
    np.testing.assert_allclose(solution.beta, expected.beta, rtol=1e-8, atol=1e-9 * size)
    np.testing.assert_allclose(
        solution.vcov_unscaled,
        expected.vcov_unscaled,
        rtol=1e-7,
        atol=1e-9 * np.abs(expected.vcov_unscaled).max(),
    )
    for part in ("ldL2", "ldRX2"):
        assert getattr(solution, part) == pytest.approx(
            getattr(expected, part), rel=VALUE_RTOL, abs=1e-8
        )
    for part in ("pwrss", "ussq", "wrss"):
        assert getattr(solution, part) == pytest.approx(
            getattr(expected, part), rel=1e-8, abs=1e-9 * expected.pwrss
        )
    y_size = max(1.0, float(np.abs(expected.fitted).max()))
    for t in range(len(expected.b)):
        np.testing.assert_allclose(solution.u(t), expected.u[t], rtol=1e-7, atol=1e-8 * y_size)
        np.testing.assert_allclose(solution.b(t), expected.b[t], rtol=1e-7, atol=1e-8 * y_size)
        variance = expected.cond_var_unscaled[t]
        np.testing.assert_allclose(
            solution.conditional_covariance(t),
            variance,
            rtol=1e-7,
            atol=1e-9 * max(1e-9, float(np.abs(variance).max())),
        )
    np.testing.assert_allclose(solution.fitted(), expected.fitted, atol=1e-8 * y_size)
    np.testing.assert_allclose(
        solution.fitted(include_random=False), expected.fitted_fixed, atol=1e-8 * y_size
    )
    np.testing.assert_allclose(solution.leverage(), expected.leverage, atol=1e-8)


@engines
@settings(max_examples=60)
@given(drawn=designs_with_theta())
def test_random_designs(engine, drawn):
    design, theta = drawn
    system = system_of(design, engine)
    solution = solve_pls(theta, system)
    for reml in (True, False):
        expected = oracle.solve(
            design.y,
            design.X,
            design.terms,
            oracle.lower_triangles(theta, design.terms),
            **design.options,
            reml=reml,
        )
        value = profiled_criterion(theta, system, reml=reml)
        compare(solution, expected, reml=reml, value=value)


@engines
@settings(max_examples=60)
@given(drawn=designs_with_theta())
def test_gradient_of_random_designs(engine, drawn):
    design, theta = drawn
    system = system_of(design, engine)
    for reml in (True, False):
        expected = oracle.gradient(
            theta, design.y, design.X, design.terms, **design.options, reml=reml
        )
        value, gradient = criterion_and_gradient(theta, system, reml=reml)
        assert value == pytest.approx(profiled_criterion(theta, system, reml=reml), rel=1e-12)
        size = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(
            gradient, expected, rtol=GRADIENT_RTOL, atol=GRADIENT_RTOL * size
        )


@settings(max_examples=30)
@given(drawn=designs_with_theta())
def test_public_deviance_function(drawn):
    design, theta = drawn
    for reml in (True, False):
        function = mx.deviance_function(
            design.formula, design.data, reml=reml, weights=design.weights, offset=design.offset
        )
        arguments = (design.y, design.X, design.terms)
        expected = oracle.solve(
            *arguments, oracle.lower_triangles(theta, design.terms), **design.options, reml=reml
        )
        assert len(function.theta0) == len(function.lower) == len(theta)
        assert function(theta) == pytest.approx(expected.criterion, rel=VALUE_RTOL, abs=1e-8)
        slope = oracle.gradient(theta, *arguments, **design.options, reml=reml)
        size = max(1.0, float(np.abs(slope).max()))
        both = function.value_and_gradient(theta)
        assert both[0] == pytest.approx(expected.criterion, rel=VALUE_RTOL, abs=1e-8)
        for found in (function.gradient(theta), both[1]):
            np.testing.assert_allclose(
                found, slope, rtol=GRADIENT_RTOL, atol=GRADIENT_RTOL * size
            )
        parts = function.parts(theta)
        for name in ("ldL2", "ldRX2", "wrss", "ussq", "pwrss"):
            value = parts[name] if isinstance(parts, dict) else getattr(parts, name)
            assert value == pytest.approx(
                getattr(expected, name), rel=1e-8, abs=1e-9 * max(1, expected.pwrss)
            )


SMALL = [name for name in MODELS if load_model(name)["nobs"] <= DENSE_ROWS]


@engines
@pytest.mark.parametrize("model_id", SMALL)
def test_corpus_at_random_theta(engine, model_id):
    record = load_model(model_id)
    system = corpus.system(model_id, engine)
    theta = corpus.random_theta(model_id)
    matrices = system.matrices
    rows = slice(0, system.n)
    kept = [list(matrices.fixed.names).index(name) for name in system.x_names]
    X = np.asarray(matrices.fixed.block(rows))[:, kept]
    terms = [
        oracle.OracleTerm(
            np.asarray(term.columns.block(rows)),
            np.asarray(matrices.factors[term.factor].codes),
            matrices.factors[term.factor].n_levels,
        )
        for term in matrices.terms
    ]
    # an orthonormal X~ = X T lets the oracle solve well-conditioned equations; T is undone below
    basis, R = np.linalg.qr(X)
    expected = oracle.solve(
        np.asarray(matrices.y),
        basis,
        terms,
        oracle.lower_triangles(theta, terms),
        weights=matrices.weights,
        offset=matrices.offset,
        reml=record["REML"],
    )
    logdet_R = 2 * float(np.log(np.abs(np.diag(R))).sum())
    value = profiled_criterion(theta, system, reml=record["REML"])
    shift = logdet_R if record["REML"] else 0.0
    assert value == pytest.approx(expected.criterion + shift, rel=VALUE_RTOL, abs=1e-7)
    solution = solve_pls(theta, system)
    assert solution.ldL2 == pytest.approx(expected.ldL2, rel=1e-8, abs=1e-7)
    assert solution.ldRX2 == pytest.approx(expected.ldRX2 + logdet_R, rel=1e-8, abs=1e-7)
    assert solution.pwrss == pytest.approx(expected.pwrss, rel=1e-8)
    size = expected.sigma
    np.testing.assert_allclose(solution.fitted() / size, expected.fitted / size, atol=1e-6)
    np.testing.assert_allclose(solution.leverage(), expected.leverage, atol=1e-7)
    _, gradient = criterion_and_gradient(theta, system, reml=record["REML"])
    slope = oracle.gradient(
        theta,
        np.asarray(matrices.y),
        basis,
        terms,
        weights=matrices.weights,
        offset=matrices.offset,
        reml=record["REML"],
    )
    # compared as slopes along log theta, so that columns of any size count alike
    scale = np.abs(theta)
    largest = max(1.0, float(np.abs(slope * scale).max()))
    np.testing.assert_allclose(gradient * scale, slope * scale, rtol=1e-5, atol=1e-6 * largest)


@needs_cholmod
@pytest.mark.parametrize(
    "model_id",
    [pytest.param(m, marks=pytest.mark.large) if m in LARGE else m for m in MODELS],
)
def test_engines_agree(model_id):
    record = load_model(model_id)
    blocked, cholmod = corpus.system(model_id, "blocked"), corpus.system(model_id, "cholmod")
    for salt in (1, 2):
        theta = corpus.random_theta(model_id, salt)
        one, slope_one = criterion_and_gradient(theta, blocked, reml=record["REML"])
        two, slope_two = criterion_and_gradient(theta, cholmod, reml=record["REML"])
        assert one == pytest.approx(two, rel=ENGINE_RTOL)
        scale = np.maximum(np.abs(theta), 1e-300)
        largest = max(1.0, float(np.abs(slope_one * scale).max()))
        np.testing.assert_allclose(
            slope_one * scale, slope_two * scale, rtol=1e-7, atol=1e-8 * largest
        )


@needs_cholmod
@pytest.mark.parametrize("model_id", ["sleep_rs_reml", "penicillin_ml", "pastes_nested_reml"])
def test_engines_give_the_same_fit(model_id):
    one, two = corpus.fit(model_id, engine="blocked"), corpus.fit(model_id, engine="cholmod")
    assert one.criterion == pytest.approx(two.criterion, rel=1e-10)
    np.testing.assert_allclose(one.theta, two.theta, atol=1e-5)
