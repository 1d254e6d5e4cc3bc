"""A thousandth of the reliability suite, and that it can find faults."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import reliability
from benchmarks.random_models import random_model
from benchmarks.random_residuals import residual_model
from benchmarks.random_structures import structured_model
from benchmarks.random_visits import visits_model
from tests.support import dense_oracle


def test_a_thousandth_holds(capsys):
    assert reliability.main(["--size", "0.001", "--seed", "20000"]) == 0
    table = capsys.readouterr().out
    assert all(row.endswith("| 0 |") for row in table.splitlines()[2:])


def test_sigma_that_is_zero_depends_on_no_unit_and_no_order():
    """Of a model with more effects than rows: the criterion falls towards a residual of zero."""
    assert reliability.main(["--size", "0.001", "--seed", "81", "--only", "invariance"]) == 0


@pytest.mark.parametrize("seed", [2, 5, 117])
def test_the_dense_slope_is_that_of_its_criterion(seed):
    for make in (random_model, structured_model, residual_model, visits_model):
        model = make(seed)
        rng = np.random.default_rng(seed)
        par = np.concatenate([part.drawn(rng) for part in model.parts])
        value, slope = model.slope(par)
        assert value == pytest.approx(model.at(par), rel=1e-12)
        each = [
            (model.at(par + 1e-5 * one) - model.at(par - 1e-5 * one)) / 2e-5
            for one in np.eye(par.size)
        ]
        np.testing.assert_allclose(slope, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [1065, 3483, 4303])
def test_models_with_more_effects_than_rows_end_in_the_lowest_valley(seed):
    arguments = ["--size", "0.0001", "--seed", str(seed), "--only", "models"]
    assert reliability.main(arguments) == 0


def test_a_criterion_without_a_minimum_is_counted_openly(capsys):
    """The dense search falls without end; the fit says so, and the table names the model."""
    arguments = ["--size", "0.0001", "--seed", "4155", "--only", "models"]
    assert reliability.main(arguments) == 0
    out = capsys.readouterr().out
    assert "model 4155" in out
    assert "says local optimum; the dense criterion has no minimum either" in out


@pytest.mark.parametrize("seed", range(8))
def test_the_dense_criterion_is_that_of_the_oracle(seed):
    model = random_model(seed)
    par = np.random.default_rng(seed).normal(size=sum(t.n_par for t in model.terms))
    parts = np.split(par, np.cumsum([t.n_par for t in model.terms])[:-1])
    factors = [t.factor(p) for t, p in zip(model.terms, parts, strict=True)]
    theta = [T.T[np.triu_indices(len(T))] for T in factors]  # down the columns
    terms = [
        dense_oracle.OracleTerm(t.columns, t.codes, int(t.codes.max()) + 1) for t in model.terms
    ]
    expected = dense_oracle.criterion(
        np.concatenate(theta), model.y, model.X, terms, reml=model.reml, weights=model.w
    )
    assert model.at(par) == pytest.approx(expected, rel=1e-9)


def test_an_optimum_that_is_not_the_best_is_reported(monkeypatch, capsys):
    real = reliability.fit_of

    class Worse:
        def __init__(self, model):
            fit = real(model)
            self.criterion, self.convergence = fit.criterion + 1e-4, fit.convergence

    monkeypatch.setattr(reliability, "fit_of", Worse)
    assert reliability.main(["--size", "0.0003", "--only", "models"]) == 1
    assert "above" in capsys.readouterr().out.splitlines()[-1]
