"""Residual parameters along which the criterion falls without end: said early, by name."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from benchmarks.random_residuals import residual_model
from benchmarks.reliability import fit_of
from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system
from mixlm_sparse.solve.whitened import search
from mixlm_sparse.solve.whitened.objective import WhitenedObjective

ROWS = 30
FEW = 1_000  # evaluations; searches to their limits take thousands


def two_instruments(seed: int, noise: float) -> pd.DataFrame:
    """Return rows of an instrument a, with an error of 1, and six of b, with another."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {"x": rng.normal(size=ROWS), "s": ["a"] * (ROWS - 6) + ["b"] * 6, "g": ["u", "v"] * 15}
    )
    sd = np.where(data["s"] == "a", 1.0, noise)
    data["y"] = 1.0 + 2.0 * data["x"] + sd * rng.normal(size=ROWS)
    return data


def fitted(function, formula: str, data: pd.DataFrame, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        return function(formula, data, **arguments)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_rows_that_are_fitted_exactly_have_no_variance_to_estimate(seed: int) -> None:
    fit = fitted(mx.gls, "y ~ x", two_instruments(seed, 0.0), variance=mx.VarIdent("s"))
    assert fit.convergence.status == "no minimum"
    assert not fit.converged
    assert "standard deviation of s = b goes to zero: fixed effects fit" in fit.convergence.message
    assert "join b with another level" in fit.convergence.advice
    assert "random" not in fit.convergence.message + fit.convergence.advice
    assert fit.convergence.n_evaluations < FEW


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.floats(1e-5, 1e-1))
def test_a_small_variance_is_told_from_none(seed: int, noise: float) -> None:
    data = two_instruments(seed, noise)
    fit = fitted(mx.gls, "y ~ x", data, variance=mx.VarIdent("s"))
    assert fit.converged
    ratio = float(fit.residual_structure["estimate"].iloc[0])
    assert noise / 10.0 < ratio < noise * 10.0


@pytest.mark.parametrize("zero", ["sums", "differences"])
def test_a_correlation_at_the_end_of_its_range_is_named(zero: str) -> None:
    # one correlation: groups whose sums are zero, and groups without differences
    z = np.random.default_rng(3).normal(size=(10, 3))
    z = z - z.mean(axis=1, keepdims=True) if zero == "sums" else np.repeat(z[:, :1], 3, axis=1)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 3), "t": np.tile(range(3), 10)})
    data["y"] = z.ravel()
    laws = [mx.CompoundSymmetry("g")] + ([] if zero == "sums" else [mx.AR1("t", "g")])
    for law in laws:
        fit = fitted(mx.gls, "y ~ 1", data, residual=law)
        assert fit.convergence.status == "no minimum"
        assert f"parameter {fit.residual_structure['parameter'].iloc[0]} goes to the end" in (
            fit.convergence.message
        )
        assert f"leave {type(law).__name__} out" in fit.convergence.advice
        assert fit.convergence.n_evaluations < FEW


def test_more_correlations_than_visits_can_tell() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(range(4), 4), "t": np.tile(range(4), 4)})
    data["x"], data["y"] = rng.normal(size=(2, 16))
    fit = fitted(
        mx.gls, "y ~ x", data, residual=mx.Toeplitz("t", "g"), variance=mx.VarIdent("t")
    )
    assert fit.convergence.status == "no minimum"
    assert "4 of 4 groups have rows at all 4 visits" in fit.convergence.message
    assert fit.convergence.n_evaluations < FEW


# us beside VarIdent in 24 rows; one correlation beside VarIdent; cs of visits in 18 rows
@pytest.mark.parametrize("seed", [208, 283, 115])
def test_random_effects_that_fit_a_level_exactly(seed: int) -> None:
    model = residual_model(seed)
    fit = fit_of(model)
    assert fit.convergence.status == "no minimum"
    assert model.has_no_minimum()  # the dense criterion, by itself
    assert fit.convergence.n_evaluations < FEW


def test_the_lowest_optimum_beside_such_a_fall_is_kept() -> None:
    model = residual_model(278)
    fit = fit_of(model)
    assert fit.convergence.status == "local optimum"
    assert "grows without end as the residual standard deviation of s = 2" in (
        " ".join(fit.convergence.message.split())
    )
    assert model.has_no_minimum()


def test_variances_of_zero_beside_a_variance_function_are_found() -> None:
    # three independent random effects, none of which has a variance, beside VarPower
    model = residual_model(238)
    fit = fit_of(model)
    assert fit.convergence.status == "singular"
    assert fit.criterion <= model.best() + 1e-6


def test_an_end_where_rounding_leaves_no_solution_is_told_at_a_point_before_it() -> None:
    # two levels of VarIdent without variance, beside effects of ar1() that fit their rows
    fit = fit_of(residual_model(330))
    assert not fit.convergence
    assert np.isfinite(fit.criterion)
    assert np.isfinite(fit.fixef.to_numpy()).all()
    assert "Fixed effects" in fit.summary()


def test_a_point_that_solves_is_kept_and_one_that_does_not_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 6), "s": np.tile([0, 0, 0, 1, 1, 1], 8)})
    data["y"] = rng.standard_normal(8)[data["g"]] + rng.standard_normal(48)
    matrices = mx.model_matrices("y ~ 1 + (1 | g)", data, variance=mx.VarIdent("s"))
    system = penalized_system(matrices)
    found = replace(optimize(system), phi=np.array([0.5, -1.0]))
    kept = search._where_it_solves(found, WhitenedObjective(system, True))
    assert kept is found
    tried: list[float] = []

    def solved(theta: np.ndarray, there: PenalizedSystem) -> None:
        tried.append(float(there.whitened.rho[0]))
        if tried[-1] < -0.9:
            raise NotPositiveDefiniteError("rounding")

    monkeypatch.setattr(search, "PlsSolution", solved)
    left = search._where_it_solves(found, WhitenedObjective(system, True))
    assert tried == [-1.0, -0.95, -0.9]
    np.testing.assert_array_equal(left.phi, [0.5, -0.9])
    assert left.criterion == WhitenedObjective(system, True).value(left.phi)
