"""One fit's refits and one criterion used by several threads at once give what one thread gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 800
    g, h = rng.integers(0, 30, n), rng.integers(0, 12, n)
    x = rng.normal(size=n)
    slope = 2 + 0.7 * rng.normal(size=30)[g]
    y = 1 + slope * x + rng.normal(size=30)[g] + rng.normal(size=12)[h] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h})


@pytest.mark.parametrize("engine", ["auto", "blocked", "sparse"])
def test_refits_in_threads(data: pd.DataFrame, engine: str) -> None:
    fit = mx.lmer("y ~ x + (x | g) + (1 | h)", data, engine=engine)
    rng = np.random.default_rng(1)
    responses = [data["y"].to_numpy() + rng.normal(size=len(data)) for _ in range(12)]
    alone = [fit.refit(y).criterion for y in responses]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda y: fit.refit(y).criterion, responses))
    np.testing.assert_allclose(together, alone, rtol=1e-10)


@pytest.mark.parametrize("engine", ["auto", "blocked"])
def test_one_criterion_in_threads(data: pd.DataFrame, engine: str) -> None:
    system = mx.penalized_system(mx.model_matrices("y ~ x + (x | g) + (1 | h)", data), engine)
    function = mx.DevianceFunction(system)
    thetas = [np.array([1.0, 0.1, 0.5, 0.7]) * s for s in np.linspace(0.2, 2.0, 60)]
    alone = [function(t) for t in thetas]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(function, thetas))
    np.testing.assert_array_equal(together, alone)


def test_a_series_in_another_order_is_refused(data: pd.DataFrame) -> None:
    fit = mx.lmer("y ~ x + (1 | g)", data)
    with pytest.raises(mx.DataError, match="index differs"):
        fit.refit(data["y"].sort_values())
    assert fit.refit(data["y"]).criterion == pytest.approx(fit.criterion)


def test_undetermined_terms_are_said(data: pd.DataFrame) -> None:
    with pytest.warns(mx.ConvergenceWarning, match="z is zero everywhere|combinations"):
        mx.lmer("y ~ x + (z | g)", data.assign(z=0.0))
    with pytest.warns(mx.ConvergenceWarning, match="combinations of each other"):
        mx.lmer("y ~ x + (x + z | g)", data.assign(z=2 * data["x"]))
    with pytest.warns(mx.ConvergenceWarning, match="stand in two terms"):
        mx.lmer("y ~ x + (1 | g) + (1 | g)", data)


def test_swapped_arguments_are_named(data: pd.DataFrame) -> None:
    with pytest.raises(mx.FormulaError, match="DataFrame"):
        mx.lmer(data, "y ~ x + (1 | g)")
    with pytest.raises(mx.OptionError, match="start"):
        mx.lmer("y ~ x + (1 | g)", data, start=[1e12])
    with pytest.raises(mx.OptionError, match="numeric"):
        mx.lmer("y ~ x + (1 | g)", data, start="a")
