"""Many levels beside many sparse columns of X: nothing is filled in, and all numbers stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import mixlm_sparse as mx
from mixlm_sparse.engines.columns import SparseColumns
from mixlm_sparse.engines.fused.bordered import BorderedFixed
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.run import assemble
from mixlm_sparse.solve.criterion import criterion_and_gradient
from mixlm_sparse.solve.information import Places, generators, gram
from mixlm_sparse.solve.product_derivatives import product_derivatives
from mixlm_sparse.solve.products import basis, final, small, wide
from tests.support import dense_oracle
from tests.support.strategies import designs_with_theta

QUIET = mx.Control(warn=False)


def everything_sparse(patch):
    for module in (wide, basis):
        patch.setattr(module, "WIDE", 1)
        patch.setattr(module, "SPARSE_SHARE", 1.0)
    patch.setattr(final, "MOST_EFFECTS", -1)
    patch.setattr(small, "MOST_WORK", -1)


@settings(max_examples=30, deadline=None)
@given(drawn=designs_with_theta())
def test_any_model_against_dense_algebra(drawn):
    design, theta = drawn
    call = ModelCall(design.formula, design.data, weights=design.weights, offset=design.offset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "WIDE", 10**9)
        plain = assemble(call)[0]
        everything_sparse(patch)
        system = assemble(call)[0]
    assert isinstance(system.fused, BorderedFixed)
    assert system.x_names == plain.x_names
    for reml in (True, False):
        factors = dense_oracle.lower_triangles(theta, design.terms)
        expected = dense_oracle.solve(
            design.y, design.X, design.terms, factors, reml=reml, **design.options
        )
        d, slope = criterion_and_gradient(theta, system, reml=reml)
        assert d == pytest.approx(expected.criterion, rel=1e-9, abs=1e-7)
        _, theirs = criterion_and_gradient(theta, plain, reml=reml)
        np.testing.assert_allclose(slope, theirs, atol=1e-7 * (1.0 + np.abs(theirs).max()))
    mine, theirs = (mx.solve_pls(theta, one) for one in (system, plain))
    np.testing.assert_allclose(mine.beta, expected.beta, atol=1e-7 * (1 + abs(expected.beta).max()))
    np.testing.assert_allclose(mine.vcov_unscaled, theirs.vcov_unscaled, rtol=1e-6, atol=1e-9)
    for t in range(len(system.templates)):
        np.testing.assert_allclose(mine.b(t), theirs.b(t), atol=1e-7)
    np.testing.assert_allclose(mine.leverage(), theirs.leverage(), atol=1e-8)


MODELS = [
    "y ~ x + item + (1 | g)",
    "y ~ x + item + (1 + t | g)",
    "y ~ x * item + (1 | g) + (1 + x || h)",
    "y ~ item + twice + x + (1 + t | h) + (0 + x | g)",
]


@pytest.fixture
def visits():
    rng = np.random.default_rng(0)
    n = 1500
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n), "t": rng.normal(size=n), "w": rng.uniform(0.5, 2.0, n),
            "item": rng.integers(0, 40, n).astype(str), "g": rng.integers(0, 150, n),
            "h": rng.integers(0, 20, n),
        }
    )  # fmt: skip
    frame["twice"] = 2.0 * (frame["item"] == "7")
    frame["y"] = 0.3 * frame["x"] + rng.normal(size=150)[frame["g"]] + rng.normal(size=n)
    frame["y"] += rng.normal(size=20)[frame["h"]] * (1.0 + frame["t"])
    return frame


@pytest.mark.parametrize("formula", MODELS)
def test_what_inference_asks_for(visits, formula):
    call = ModelCall(formula, visits, weights="w")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "WIDE", 10**9)
        plain = assemble(call)[0]
        everything_sparse(patch)
        system = assemble(call)[0]
    assert isinstance(system.products.blocks.factors[0].by_column, SparseColumns)
    theta = 0.7 * system.theta0 + 0.1
    mine, theirs = (
        product_derivatives(one.chart.phi_of_theta(theta), one) for one in (system, plain)
    )
    np.testing.assert_allclose(mine.pwrss, theirs.pwrss, rtol=1e-9)
    # signs of the working columns are those of R_x: what is asked of l'beta does not depend on them
    L = np.random.default_rng(0).normal(size=(3, system.p))
    forms = [
        one.along(np.linalg.solve((one.solution.R_X @ own.products.R_x).T, L.T).T)
        for one, own in ((mine, system), (theirs, plain))
    ]
    np.testing.assert_allclose(*forms, rtol=1e-8)
    size = np.abs(theirs.products).max()
    np.testing.assert_allclose(np.abs(mine.products), np.abs(theirs.products), atol=1e-9 * size)
    for project in (True, False):
        J, expected = (
            gram(one, Places.of(generators(one)), project=project) for one in (system, plain)
        )
        np.testing.assert_allclose(J, expected, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("source", ["memory", "batches", "two places", "sums of a dense one"])
def test_fits_are_the_same_from_wherever_rows_come(visits, source):
    formula = "y ~ x + item + (1 + t | g) + (1 | h)"
    plain = mx.lmer(formula, visits, weights="w", control=QUIET)
    levels = {"item": sorted(visits["item"].unique())}
    with pytest.MonkeyPatch.context() as patch:
        everything_sparse(patch)
        if source == "memory":
            fit = mx.lmer(formula, visits, weights="w", control=QUIET)
        elif source == "batches":
            fit = mx.lmer(
                formula, lambda: (visits[i : i + 200] for i in range(0, 1500, 200)), weights="w",
                control=QUIET,
            )  # fmt: skip
        else:
            halves = []
            for half in (visits[:700], visits[700:]):
                halves.append(mx.cross_products(formula, half, weights="w", levels=levels))
                if source != "two places":
                    patch.setattr(wide, "WIDE", 10**9)
            fit = mx.fit_products(halves[0] + halves[1], control=QUIET)
    assert fit.criterion == pytest.approx(plain.criterion, rel=1e-10)
    pd.testing.assert_series_equal(fit.fixef, plain.fixef, rtol=1e-5)
    pd.testing.assert_series_equal(fit.bse, plain.bse, rtol=1e-5)
    np.testing.assert_allclose(fit.ranef()["g"], plain.ranef()["g"], atol=1e-4)
    pd.testing.assert_frame_equal(fit.tidy(), plain.tidy(), rtol=1e-4)


def test_what_a_fit_of_many_levels_can_do(visits, tmp_path, monkeypatch):
    """Without a matrix of levels by columns, which is not to be had."""
    formula = "y ~ x + item + (1 | g)"
    plain = mx.lmer(formula, visits, control=QUIET)
    everything_sparse(monkeypatch)

    def filled(self):
        raise AssertionError("levels by columns were filled in")

    monkeypatch.setattr(SparseColumns, "filled", filled)
    fit = mx.lmer(formula, visits, control=QUIET)
    assert "level by level" in fit.describe_engine()
    row = np.zeros((1, fit.system.p))
    row[0, 5:7] = 1.0, -1.0
    def all_products(*_):
        raise AssertionError("a few contrasts need no products of all columns")

    with monkeypatch.context() as patch:
        patch.setattr(BorderedFixed, "slope", all_products)
        patch.setattr(type(fit.solution), "RX_inv", property(all_products))
        pd.testing.assert_frame_equal(fit.contest(row), plain.contest(row), rtol=1e-4)
    pd.testing.assert_frame_equal(fit.tidy(), plain.tidy(), rtol=1e-4)
    pd.testing.assert_frame_equal(
        fit.emmeans("item").contrast("pairwise").to_frame().iloc[:5],
        plain.emmeans("item").contrast("pairwise").to_frame().iloc[:5], rtol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(fit.predict(), plain.predict(), atol=1e-5)
    intervals, expected = (one.confint(method="wald") for one in (fit, plain))
    pd.testing.assert_frame_equal(intervals, expected, rtol=1e-4)
    assert str(fit.summary()).splitlines()[1:8] == str(plain.summary()).splitlines()[1:8]
    ml = mx.lmer(formula, visits, reml=False, control=QUIET)
    monkeypatch.undo()
    assert ml.criterion == pytest.approx(
        mx.lmer(formula, visits, reml=False, control=QUIET).criterion, rel=1e-10
    )
