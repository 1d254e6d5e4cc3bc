"""Small models are solved without their engine: the same numbers, and an engine when asked."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.engines.decisions import use_compiled
from mixlm_sparse.engines.deferred import DeferredEngine
from mixlm_sparse.solve.fused_solution import profiled_at
from mixlm_sparse.solve.pls import solve_at
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from tests.support.strategies import Design, designs

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.mark.parametrize("compiled", [False, True])
@given(design=designs(), size=st.floats(0.01, 30.0))
def test_it_is_what_the_engine_says(design: Design, size: float, compiled: bool) -> None:
    use_compiled(compiled)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrices = mx.model_matrices(
                design.formula, design.data, weights=design.weights, offset=design.offset
            )
        system = mx.penalized_system(matrices)
        lambdas = system.chart.lambdas(system.chart.scaled(system.chart.start, size))
        found = profiled_at(lambdas, system)
        if found is None:
            return
        engine = solve_at(lambdas, system)
    finally:
        use_compiled(None)
    np.testing.assert_allclose(found.R_X, engine.R_X, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        found.beta, engine.beta, rtol=1e-9, atol=1e-9 * system.products.y_length
    )
    assert found.pwrss == pytest.approx(engine.pwrss, rel=1e-9)
    assert found.ldL2 == pytest.approx(engine.ldL2, rel=1e-11, abs=1e-11)
    assert found.ldRX2 == pytest.approx(engine.ldRX2, rel=1e-11, abs=1e-9)


def test_a_fit_makes_its_engine_when_it_is_asked_for() -> None:
    fit = mx.lmer(SLEEP, mx.datasets.load("sleepstudy"))
    engine = fit.system.engine
    assert isinstance(engine, DeferredEngine)
    assert np.isfinite([*fit.fixef, *fit.bse, fit.sigma]).all()
    assert "Subject" in str(fit.varcorr)
    assert engine._made is None
    again = pickle.loads(pickle.dumps(fit))
    effects = fit.ranef()["Subject"]
    assert engine._made is not None
    assert again.system.engine._made is None
    np.testing.assert_array_equal(again.ranef()["Subject"], effects)


@pytest.mark.parametrize("engine", ["blocked", "sparse"])
def test_an_engine_that_is_asked_for_gives_the_same(engine: str) -> None:
    data = mx.datasets.load("sleepstudy")
    fit, other = mx.lmer(SLEEP, data), mx.lmer(SLEEP, data, engine=engine)
    assert not isinstance(other.system.engine, DeferredEngine)
    np.testing.assert_allclose(fit.fixef, other.fixef, rtol=1e-7)
    np.testing.assert_allclose(fit.bse, other.bse, rtol=1e-6)
    np.testing.assert_allclose(fit.fittedvalues, other.fittedvalues, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_clear_minimum_is_looked_at_no_further(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Hessian says that it is no saddle, and that no small variance is on a flat slope."""
    monkeypatch.setattr(ProfiledObjective, "at_once", lambda *_args, **_options: None)
    use_compiled(compiled)
    try:
        fit = mx.lmer(SLEEP, mx.datasets.load("sleepstudy"))
    finally:
        use_compiled(None)
    assert fit.optimum.status == "converged"
    assert fit.optimum.n_evaluations == 1
