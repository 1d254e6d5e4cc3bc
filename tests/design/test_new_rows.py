"""Blocks, new rows, saved and copied recipes give the columns of the fit."""

from __future__ import annotations

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design import variables
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.columns import ArrayColumns
from mixlm_sparse.design.recipe import FormulaRecipe
from tests.design.example import EXAMPLE

RICH = (
    "y ~ x*f + poly(z, 2):g + bs(x, df = 5) + I(k > 2) + log(z) + b "
    "+ (poly(z, 2) | s) + (0 + f | h)"
)


@given(st.lists(st.integers(0, 60), max_size=6))
def test_any_split_gives_the_same_block(cuts):
    m = model_matrices(RICH, EXAMPLE)
    edges = [0, *sorted(cuts), 60]
    for source in (m.fixed, *(term.columns for term in m.terms)):
        pieces = [source.block(slice(a, b)) for a, b in itertools.pairwise(edges)]
        np.testing.assert_array_equal(np.vstack(pieces), source.block(slice(0, 60)))


def test_large_columns_are_evaluated_block_by_block(monkeypatch):
    expected = model_matrices(RICH, EXAMPLE)
    monkeypatch.setattr("mixlm_sparse.design.variables.BLOCK_ROWS", 7)
    monkeypatch.setattr("mixlm_sparse.design.variables.KEEP_NUMBERS", 0)
    m = model_matrices(RICH, EXAMPLE)
    np.testing.assert_array_equal(m.X, expected.X)
    np.testing.assert_array_equal(m.fixed.block(slice(13, 29)), expected.X[13:29])
    with pytest.raises(DataError, match="log"):
        model_matrices("y ~ log(x) + (1 | s)", EXAMPLE)


@given(st.permutations(range(60)), st.integers(1, 60))
def test_new_rows_give_the_columns_of_the_fit(order, size):
    m = model_matrices(RICH, EXAMPLE)
    rows = list(order[:size])
    design = m.spec.evaluate(EXAMPLE.iloc[rows], response=True)
    np.testing.assert_allclose(design.X, m.X[rows], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(design.y, m.y[rows])
    for index, factor in enumerate(m.factors):
        np.testing.assert_array_equal(design.codes[index], factor.codes[rows])
        assert design.unknown[index] == []


def test_saved_recipe_gives_the_same_columns():
    formula = RICH + " + cr(z, df = 4) + scale(x) + ns(z, df = 3) + diag(0 + k | g:f)"
    m = model_matrices(formula, EXAMPLE, contrasts={"f": "sum"})
    spec = FormulaRecipe.from_dict(json.loads(json.dumps(m.spec.to_dict())))
    for recipe in (spec, copy.deepcopy(m.spec)):
        design = recipe.evaluate(EXAMPLE)
        np.testing.assert_array_equal(design.X, m.X)
        for index, term in enumerate(m.terms):
            every = slice(0, 60)
            np.testing.assert_array_equal(
                design.terms[index].block(every), term.columns.block(every)
            )
        for index, factor in enumerate(m.factors):
            np.testing.assert_array_equal(design.codes[index], factor.codes)
            assert recipe.factors[index].known.levels == factor.levels


def test_unknown_levels():
    m = model_matrices("y ~ x + f + (1 | s) + (1 | g:h)", EXAMPLE)
    new = EXAMPLE.iloc[:4].assign(s=[0, 99, 1, 98], g=["u", "v", "nn", "x"])
    design = m.spec.evaluate(new)
    labels = {m.factors[i].label: i for i in range(2)}
    assert design.codes[labels["s"]].tolist() == [0, -1, 1, -1]
    assert design.unknown[labels["s"]] == ["99", "98"]
    assert design.unknown[labels["g:h"]] == ["nn:p"]
    with pytest.raises(DataError, match="level 'zz', which the fit has not seen"):
        m.spec.evaluate(new.assign(f="zz"))
    m.spec.evaluate(new.assign(f="zz"), fixed=False)


def test_levels_are_matched_by_name():
    m = model_matrices("y ~ factor(k) + (1 | s)", EXAMPLE)
    new = EXAMPLE.assign(s=EXAMPLE["s"].astype(str).astype("category"), k=EXAMPLE["k"] * 1.0)
    design = m.spec.evaluate(new)
    np.testing.assert_array_equal(design.codes[0], m.factors[0].codes)
    np.testing.assert_array_equal(design.X, m.X)


def test_rows_with_missing_cells_are_left_out_of_new_data():
    m = model_matrices("y ~ x + (1 | s)", EXAMPLE, offset="z")
    design = m.spec.evaluate(EXAMPLE.assign(x=EXAMPLE["x"].where(EXAMPLE.index != 2)))
    assert design.nobs == 59
    assert np.flatnonzero(np.isnan(design.pad(design.offset))).tolist() == [2]
    without = EXAMPLE[["x"]]
    assert m.spec.evaluate(without, terms=(), offset=False).X.shape == (60, 2)


def test_array_columns():
    source = ArrayColumns(["a", "b"], np.asfortranarray(np.arange(6.0).reshape(3, 2)))
    assert source.block(slice(1, 3)).flags.c_contiguous
    np.testing.assert_array_equal(source.block(slice(1, 2)), [[2, 3]])
    with pytest.raises(DataError, match="names"):
        ArrayColumns(["a"], np.eye(2))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("deferred", [False, True])
def test_matrices_and_recipe_are_copied_as_data(duplicate, deferred, monkeypatch):
    if deferred:  # computed columns are evaluated when a block is asked for
        monkeypatch.setattr(variables, "BLOCK_ROWS", 16)
        monkeypatch.setattr(variables, "KEEP_NUMBERS", 8)
    m = model_matrices("y ~ x*f*o + poly(z, 2):f + I(z^2) + (x + f | g) + (1 | h:k)", EXAMPLE)
    copied = duplicate(m)
    np.testing.assert_array_equal(copied.X, m.X)
    for mine, theirs in zip(copied.terms, m.terms, strict=True):
        np.testing.assert_array_equal(
            mine.columns.block(slice(3, 50)), theirs.columns.block(slice(3, 50))
        )
    np.testing.assert_array_equal(copied.spec.evaluate(EXAMPLE[5:]).X, m.X[5:])
    assert not np.shares_memory(copied.y, m.y)
