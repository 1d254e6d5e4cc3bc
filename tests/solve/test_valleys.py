"""Few rows and large random effects: the optimum does not depend on where the search began."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from benchmarks.random_models import random_model
from mixlm_sparse.solve.profiled.valleys import other_starts
from mixlm_sparse.solve.search.bfgs import minimize_bfgs

QUIET = mx.Control(warn=False)


def crowded(seed: int, formula: str) -> pd.DataFrame:
    """Hardly more rows than random effects, which are a hundred times the noise."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 32))
    g = rng.integers(0, 9, n)
    h = 3 * g + rng.integers(0, 3, n) if "| h" in formula else rng.integers(0, 4, n)
    x, z = rng.normal(size=(2, n))
    X = np.column_stack([np.ones(n), x, z])
    b = 100.0 * rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3))
    y = (X * b[g]).sum(axis=1) + 100.0 * rng.normal(size=28)[h] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": g, "h": h})


CASES = [("(x + z | g)", 45), ("(x | g) + (1 | h)", 14), ("(x | g) + (1 | h)", 56)]


@pytest.mark.parametrize(("formula", "seed"), CASES)
def test_no_start_ends_below(formula, seed):
    data = crowded(seed, formula)
    fit = mx.lmer(f"y ~ x + z + {formula}", data, control=QUIET)
    assert fit.convergence.converged
    assert fit.convergence.second_valley > fit.criterion + 1e-4  # there are others
    rng = np.random.default_rng(seed)
    for size in (1.0, 10.0, 100.0):
        start = np.where(fit.lower == 0.0, size, size * rng.normal(size=fit.theta.size))
        again = mx.lmer(f"y ~ x + z + {formula}", data, start=start, control=QUIET)
        assert fit.criterion <= again.criterion + 1e-5


def test_a_valley_with_another_zero_direction_is_found():
    model = random_model(812)
    fit = mx.lmer(
        model.formula, model.data, reml=model.reml, weights=model.weights, offset=model.offset,
        control=QUIET,
    )  # fmt: skip
    assert fit.criterion <= model.best() + 1e-5
    assert any("exchanged" in start for start in fit.convergence.tried)


def test_usual_data_are_searched_once():
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    assert fit.convergence.tried == ()
    assert other_starts(fit.system, singular=False, phi=fit.optimum.phi) == []


def test_a_search_that_begins_where_nothing_is_defined_ends_there():
    def nowhere(x):
        return np.inf, np.full_like(x, np.nan)

    found = minimize_bfgs(nowhere, np.ones(2), np.eye(2), tolerance=1e-9, max_evaluations=50)
    assert found.status == "stalled"
    np.testing.assert_array_equal(found.x, np.ones(2))
