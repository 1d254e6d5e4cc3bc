"""A wide fixed part with few entries in a row is summed without its zeros, to the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.design.sparse_columns import sparse_block
from mixlm_sparse.engines import memory
from mixlm_sparse.engines.fused.absorbed import AbsorbedFixed
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.run import assemble
from mixlm_sparse.solve.criterion import criterion_and_gradient, evaluate
from mixlm_sparse.solve.pls import solve_at
from mixlm_sparse.solve.products import basis, wide
from mixlm_sparse.solve.products.accumulate import semidefinite_cholesky
from mixlm_sparse.solve.products.final import kept_columns
from mixlm_sparse.solve.rows import RowBlock
from tests.support.strategies import designs

QUIET = mx.Control(warn=False)


def systems(call, monkeypatch):
    """Return the system by dense and by sparse sums."""
    monkeypatch.setattr(wide, "WIDE", 10**9)
    dense = assemble(call)[0]
    monkeypatch.setattr(wide, "WIDE", 1)
    monkeypatch.setattr(wide, "SPARSE_SHARE", 1.0)
    return dense, assemble(call)[0]


@settings(max_examples=30, deadline=None)
@given(design=designs())
def test_any_model(design):
    with pytest.MonkeyPatch.context() as patch:
        call = ModelCall(
            design.formula, design.data, weights=design.weights, offset=design.offset
        )
        dense, sparse = systems(call, patch)
    assert sparse.x_names == dense.x_names
    np.testing.assert_allclose(sparse.products.beta_ols, dense.products.beta_ols, atol=1e-8)
    theta = 0.7 * dense.theta0 + 0.1
    for reml in (True, False):
        d, slope = criterion_and_gradient(theta, sparse, reml=reml)
        expected, expected_slope = criterion_and_gradient(theta, dense, reml=reml)
        assert d == pytest.approx(expected, rel=1e-10, abs=1e-8)
        scale = np.abs(expected_slope).max() + 1.0
        np.testing.assert_allclose(slope, expected_slope, atol=1e-7 * scale)


@pytest.fixture
def postcodes():
    rng = np.random.default_rng(4)
    n = 6000
    frame = pd.DataFrame(
        {
            "code": [f"p{i:03d}" for i in rng.integers(0, 400, n)],
            "year": rng.integers(1990, 2020, n),
            "g": rng.integers(0, 50, n),
            "w": rng.uniform(0.5, 2.0, n),
        }
    )
    frame["y"] = 0.1 * frame["year"] + rng.normal(size=400)[frame["code"].str[1:].astype(int)]
    frame["y"] += rng.normal(size=50)[frame["g"]] + rng.normal(size=n)
    return frame


def test_a_factor_of_hundreds_of_levels(postcodes, monkeypatch):
    formula = "y ~ year + code + (1 | g)"
    fit = mx.lmer(formula, postcodes, weights="w", control=QUIET)
    assert fit.system.p == 401
    monkeypatch.setattr(wide, "WIDE", 10**9)
    dense = mx.lmer(formula, postcodes, weights="w", control=QUIET)
    assert fit.criterion == pytest.approx(dense.criterion, rel=1e-11)
    pd.testing.assert_series_equal(fit.fixef, dense.fixef, rtol=1e-7)
    pd.testing.assert_series_equal(fit.bse, dense.bse, rtol=1e-7)
    assert fit.sigma == pytest.approx(dense.sigma, rel=1e-8)


def test_dependent_columns_are_dropped(postcodes):
    postcodes["region"] = postcodes["code"].str[:2]  # a coarser factor after the finer one
    fit = mx.lmer("y ~ code + region + (1 | g)", postcodes, control=QUIET)
    plain = mx.lmer("y ~ code + (1 | g)", postcodes, control=QUIET)
    assert len(fit.system.dropped) == 3
    assert fit.criterion == pytest.approx(plain.criterion, rel=1e-9)


# -- rows in batches, and the fixed part taken out of Z'WZ --------------------------------------


@settings(max_examples=30, deadline=None)
@given(design=designs(), size=st.integers(1, 60), seed=st.integers(0, 10))
def test_any_model_in_batches(design, size, seed):
    shuffled = design.data.iloc[np.random.default_rng(seed).permutation(len(design.data))]
    arguments = {"weights": design.weights, "offset": design.offset}

    def batches():
        return (shuffled.iloc[i : i + size] for i in range(0, len(shuffled), size))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "WIDE", 10**9)
        dense = assemble(ModelCall(design.formula, design.data, **arguments))[0]
        for module in (wide, basis):
            patch.setattr(module, "WIDE", 1)
            patch.setattr(module, "SPARSE_SHARE", 1.0)
        sparse = assemble(ModelCall(design.formula, batches, **arguments))[0]
    assert sparse.x_names == dense.x_names
    theta = 0.7 * dense.theta0 + 0.1
    for reml in (True, False):
        d, slope = criterion_and_gradient(theta, sparse, reml=reml)
        expected, expected_slope = criterion_and_gradient(theta, dense, reml=reml)
        assert d == pytest.approx(expected, rel=1e-10, abs=1e-8)
        scale = np.abs(expected_slope).max() + 1.0
        np.testing.assert_allclose(slope, expected_slope, atol=1e-7 * scale)


@pytest.mark.parametrize("order", ["as drawn", "by code", "by year"])
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ year + code + (1 | g)",
        "y ~ 0 + code + I(year - 2000) + I((year - 2000)^2) + (year | g)",
        "y ~ I((year - 2000) / 10) * code + (1 | g) + (1 | h)",
    ],
)
def test_postcodes_in_batches(postcodes, formula, order):
    postcodes["h"] = np.arange(len(postcodes)) % 7
    if order != "as drawn":
        postcodes = postcodes.sort_values(order.removeprefix("by "), kind="stable")
    whole = mx.lmer(formula, postcodes, weights="w", control=QUIET)
    parts = mx.lmer(
        formula, lambda: (postcodes[i : i + 500] for i in range(0, 6000, 500)), weights="w",
        control=QUIET,
    )  # fmt: skip
    assert parts.nobs == 6000
    assert parts.criterion == pytest.approx(whole.criterion, rel=1e-10)
    pd.testing.assert_series_equal(parts.fixef, whole.fixef, rtol=1e-6)
    pd.testing.assert_series_equal(parts.bse, whole.bse, rtol=1e-6)
    np.testing.assert_allclose(parts.fittedvalues.sum(), whole.fittedvalues.sum(), rtol=1e-8)


def test_nearly_dependent_columns_in_batches(postcodes, tmp_path):
    """A number that hardly varies within a code has lost its digits in sums of squares."""
    rng = np.random.default_rng(1)
    codes = postcodes["code"].astype("category").cat.codes.to_numpy()
    postcodes["age"] = rng.normal(size=400)[codes] + 1e-5 * rng.normal(size=6000)
    postcodes["y"] += 1e5 * postcodes["age"]
    formula = "y ~ code + age + (1 | g)"
    whole = mx.lmer(formula, postcodes, weights="w", control=QUIET)
    path = tmp_path / "rows.parquet"
    postcodes.to_parquet(path, row_group_size=1100)

    def batches():
        return (postcodes[i : i + 500] for i in range(0, 6000, 500))

    for source in (path, batches):
        parts = mx.lmer(formula, source, weights="w", control=QUIET)
        assert parts.criterion == pytest.approx(whole.criterion, rel=1e-10)
        assert parts.fixef["age"] == pytest.approx(whole.fixef["age"], rel=1e-7)
        assert parts.bse["age"] == pytest.approx(whole.bse["age"], rel=1e-6)
    products = mx.cross_products(formula, postcodes, weights="w")
    assert mx.fit_products(products, control=QUIET).criterion == pytest.approx(
        whole.criterion, rel=1e-10
    )
    with pytest.raises(mx.DataError, match="give a file, or a function that returns"):
        mx.cross_products(
            formula, batches(), weights="w", levels={"code": sorted(postcodes["code"].unique())}
        )


def test_sums_of_two_places(postcodes):
    formula = "y ~ year + code + (1 | g)"
    levels = {"code": sorted(postcodes["code"].unique())}
    a, b = (mx.cross_products(formula, half, levels=levels)
            for half in (postcodes[:2500], postcodes[2500:]))  # fmt: skip
    together = mx.fit_products(a + b, control=QUIET)
    whole = mx.lmer(formula, postcodes, control=QUIET)
    assert together.criterion == pytest.approx(whole.criterion, rel=1e-10)
    pd.testing.assert_series_equal(together.bse, whole.bse, rtol=1e-6)


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (1 | g)", "y ~ x + f + (x | g) + (1 | h)", "y ~ f + (x || g)",
        "y ~ x * f + (1 | g / h)",
    ],
)
def test_the_fixed_part_taken_out_against_the_engine(formula, reml):
    rng = np.random.default_rng(5)
    n = 300
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n), "f": rng.choice(list("abcde"), n),
            "g": rng.integers(0, 9, n), "h": rng.integers(0, 4, n), "y": rng.normal(size=n),
        }
    )  # fmt: skip
    system = mx.penalized_system(mx.model_matrices(formula, frame), "blocked")
    products = system.products
    absorbed = AbsorbedFixed(products.blocks, products.yy, products.pwrss_floor)
    for seed in range(5):
        factors = [np.random.default_rng(seed).normal(size=(k, k)) for k in system.chart.widths]
        if seed == 4:
            factors = [0.0 * T for T in factors]
        nu = n - system.p if reml else n
        found = absorbed.evaluate(factors, nu, reml=reml, gradient=True)
        at = solve_at(factors, system)
        assert found.pwrss == pytest.approx(at.pwrss, rel=1e-11)
        np.testing.assert_allclose(found.beta, at.beta, atol=1e-11)
        _, slopes = evaluate(factors, system, reml=reml, gradient=True)
        ldRX2 = at.ldRX2 - system.log_det_R_x
        if reml:
            assert found.ldL2 + found.ldRX2 == pytest.approx(at.ldL2 + ldRX2, rel=1e-11)
        else:
            assert found.ldL2 == pytest.approx(at.ldL2, rel=1e-11, abs=1e-12)
            assert found.ldRX2 == pytest.approx(ldRX2, rel=1e-9, abs=1e-11)
        for mine, theirs in zip(found.gradient, slopes, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9 * np.abs(theirs).max())


def test_a_wide_fixed_part_is_taken_out(postcodes, monkeypatch):
    formula = "y ~ year + code + (year || g)"
    fit = mx.lmer(formula, postcodes, control=QUIET)
    assert "taken out once" in fit.describe_engine()
    by_engine = mx.lmer(formula, postcodes, control=QUIET, engine="blocked")
    assert fit.criterion == pytest.approx(by_engine.criterion, rel=1e-11)
    pd.testing.assert_series_equal(fit.bse, by_engine.bse, rtol=1e-6)


def test_factor_of_a_singular_matrix_by_panels():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(500, 300))
    X[:, 7] = 0.0
    X[:, 150] = X[:, 3] - 2.0 * X[:, 90]
    X[:, 299] = X[:, 149]
    gram = X.T @ X
    R = semidefinite_cholesky(gram, least=1e-12)
    np.testing.assert_allclose(R.T @ R, gram, atol=1e-9 * np.abs(gram).max())
    assert (np.tril(R, -1) == 0.0).all()
    assert np.flatnonzero(~R.any(axis=1)).tolist() == [7, 150, 299]
    assert kept_columns(R) == tuple(j for j in range(300) if j not in (7, 150, 299))


def test_columns_with_entries_alone(postcodes):
    for formula in ("y ~ year * code", "y ~ 0 + code:w + C(code, sum)", "y ~ code:factor(g) + w"):
        matrices = mx.model_matrices(formula + " + (1 | g)", postcodes[:700])
        rows = slice(100, 650)
        np.testing.assert_allclose(
            sparse_block(matrices.fixed, rows).toarray(), matrices.fixed.block(rows)
        )


def test_what_reads_rows_again_fills_nothing_in(postcodes, tmp_path, monkeypatch):
    fit = mx.lmer("y ~ year + code + (1 | g)", postcodes, weights="w", control=QUIET)
    X = fit.model_matrix()
    expected = X @ fit.fixef.to_numpy()
    other = mx.lmer("y2 ~ year + code + (1 | g)", postcodes.assign(y2=postcodes["y"] ** 2),
                    weights="w", control=QUIET)  # fmt: skip

    def filled(self):
        raise AssertionError("all columns were filled in")

    monkeypatch.setattr(RowBlock, "X", property(filled))
    np.testing.assert_allclose(fit.predict(re_form="population"), expected, rtol=1e-9)
    refitted = fit.refit(postcodes["y"] ** 2)
    assert refitted.criterion == pytest.approx(other.criterion, rel=1e-10)
    assert fit.simulate(2, seed=1).shape == (6000, 2)
    assert np.isfinite(fit.fittedvalues).all()
    assert str(fit.summary())
    fit.save(tmp_path / "fit.mixlm")
    loaded = mx.load(tmp_path / "fit.mixlm", data=postcodes)
    assert loaded.criterion == pytest.approx(fit.criterion, rel=1e-12)


def test_what_does_not_fit_into_memory_is_said_before(postcodes, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 400_000)
    formula = "y ~ year + code + (1 | g)"
    for data in (postcodes, lambda: (postcodes[i : i + 500] for i in range(0, 6000, 500))):
        with pytest.raises(mx.EngineError, match="put a factor of many levels into the random"):
            mx.lmer(formula, data, control=QUIET)
        plan = mx.plan(formula, data)
        assert not plan.fits
        assert "401 columns beside 50 random effects" in plan.reason
    assert mx.lmer("y ~ year + (1 | code) + (1 | g)", postcodes, control=QUIET).nobs == 6000
