"""Sparse responses: the numbers of the dense ones, whatever is stored and how."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.solve.derived.other_response import response_block

FORMULAS = [
    "~ x + (1 | g)",
    "~ x + (x | g)",
    "~ x + (x || g) + (1 | h)",
    "~ 0 + x + (1 | g)",
    "~ x + w + offset(o) + (1 | g)",
]


def counts(seed: int, n: int = 90, r: int = 7) -> tuple[pd.DataFrame, np.ndarray]:
    """A design, and responses (n, r) most of whose elements are zero."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "g": rng.integers(8, size=n),
            "h": rng.integers(4, size=n),
            "x": rng.normal(size=n),
            "w": rng.uniform(1.0, 3.0, size=n),
            "o": rng.normal(size=n),
        }
    )
    rate = np.exp(rng.normal(size=(8, r)))[data["g"]]
    return data, rng.poisson(0.3 * rate).astype(np.float64)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), formula=st.sampled_from(FORMULAS), weighted=st.booleans())
def test_products_are_those_of_dense_responses(seed: int, formula: str, weighted: bool) -> None:
    data, Y = counts(seed)
    Y[:, 0] = 5.0  # nothing but the mean: the differences would be rounding
    Y[:, 1] = 1e6 + Y[:, 1]
    weights = "w" if weighted else None
    system = mx.penalized_system(
        mx.model_matrices("y " + formula, data.assign(y=Y[:, 2]), weights=weights)
    )
    dense, sparse = response_block(system, Y), response_block(system, sp.csc_array(Y))
    np.testing.assert_allclose(sparse.yy, dense.yy, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sparse.y_length, dense.y_length, rtol=1e-12)
    np.testing.assert_allclose(sparse.beta_ols, dense.beta_ols, rtol=1e-9, atol=1e-9)
    for a, b in zip(sparse.zy, dense.zy, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-9)
    for i in range(Y.shape[1]):
        np.testing.assert_array_equal(sparse.y(i), Y[:, i])


def same(a: mx.ManyFits, b: mx.ManyFits) -> None:
    assert a.names == b.names
    assert a.status == b.status
    np.testing.assert_array_equal(a.nobs, b.nobs)
    for name in ("criterion", "sigma", "beta", "bse"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(a.theta, b.theta, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
def test_fits_are_those_of_dense_responses(formula: str, compiled: bool) -> None:
    data, Y = counts(3)
    mx.use_compiled(compiled)
    try:
        dense = mx.lmer_many(formula, data, Y)
        for form in (sp.csc_array, sp.csr_matrix, sp.coo_array):
            same(mx.lmer_many(formula, data, form(Y)), dense)
        same(mx.lmer_many(formula, data, sp.csc_array(Y), n_jobs=2), dense)
    finally:
        mx.use_compiled(None)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "bool", "float32"])
def test_numbers_of_any_kind(dtype: str) -> None:
    data, Y = counts(4)
    Y = Y.astype(dtype)
    same(mx.lmer_many(FORMULAS[0], data, sp.csr_array(Y)), mx.lmer_many(FORMULAS[0], data, Y))


def test_missing_rows_of_data_and_of_responses() -> None:
    data, Y = counts(5)
    data.loc[[4, 40], "x"] = np.nan
    Y[7, 2] = Y[7, 3] = Y[9, 4] = np.nan
    Y[4, 1] = np.inf  # in a row that is not used
    Y[3, 5] = np.inf
    dense, sparse = (mx.lmer_many("~ x + (1 | g)", data, M) for M in (Y, sp.csc_array(Y)))
    same(sparse, dense)
    assert sparse.nobs.tolist() == [88, 88, 87, 87, 87, 0, 88]
    assert sparse.failures["message"].tolist() == dense.failures["message"].tolist()
    assert sparse.fit(2).criterion == pytest.approx(dense.fit(2).criterion, rel=1e-12)


def test_frames_of_sparse_columns_keep_their_names() -> None:
    data, Y = counts(6)
    frame = pd.DataFrame(Y, columns=[f"gene{i}" for i in range(Y.shape[1])])
    sparse = frame.astype(pd.SparseDtype("float64", 0.0))
    same(mx.lmer_many(FORMULAS[0], data, sparse), mx.lmer_many(FORMULAS[0], data, frame))
    with pytest.raises(DataError, match="index differs"):
        mx.lmer_many(FORMULAS[0], data, sparse.set_index(np.arange(1, 91)))


def test_what_is_stored_twice_is_a_sum_and_later_changes_do_not_matter() -> None:
    data, Y = counts(7)
    twice = sp.coo_array(Y)
    rows, columns = (np.concatenate([c, c]) for c in twice.coords)
    twice = sp.coo_array((np.tile(twice.data / 2.0, 2), (rows, columns)), shape=Y.shape)
    stored = sp.csc_array(Y)
    many = mx.lmer_many(FORMULAS[0], data, stored)
    same(mx.lmer_many(FORMULAS[0], data, twice), many)
    stored.data[:] = 0.0
    assert many.fit(0).criterion == pytest.approx(many.criterion[0], abs=1e-8)


def test_what_cannot_be_a_response_is_told() -> None:
    data, Y = counts(8)
    with pytest.raises(DataError, match=r"responses\.T"):
        mx.lmer_many(FORMULAS[0], data, sp.csc_array(Y.T))
    with pytest.raises(DataError, match="give one row for each"):
        mx.lmer_many(FORMULAS[0], data, sp.csc_array(Y[:50]))
    with pytest.raises(DataError, match="of numbers"):
        mx.lmer_many(FORMULAS[0], data, sp.csc_array(Y.astype(complex)))
    with pytest.raises(DataError, match="one column for each response"):
        mx.lmer_many(FORMULAS[0], data, sp.csc_array((90, 0)))


@pytest.mark.parametrize("kind", [sp.csc_array, sp.csr_array])
def test_indices_that_point_outside_are_refused(kind):
    data, Y = counts(1)
    stored = kind(Y)
    stored.indices[0] = 10_000
    with pytest.raises(DataError, match=r"the sparse matrix is broken .*: make it again"):
        mx.lmer_many("~ x + (1 | g)", data, responses=stored)


@pytest.mark.parametrize("known", [mx.Relationship, mx.Precision])
def test_so_are_those_of_known_covariances(known):
    data, Y = counts(1)
    stored = sp.csc_array(np.eye(8))
    stored.indices[0] = 10_000
    with pytest.raises(DataError, match="the sparse matrix is broken"):
        mx.lmer(
            "y ~ x + (1 | g)", data.assign(y=Y[:, 0]), known={"g": known(stored, list(range(8)))}
        )
