"""A fit of matrices predicts new rows: the same numbers as the fit by formula."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError

SLEEP = mx.datasets.load("sleepstudy")
X = np.column_stack([np.ones(180), SLEEP["Days"]])
SUBJECT = SLEEP["Subject"].astype(str).to_numpy()
NEW = slice(3, 60, 4)


@pytest.fixture(scope="module")
def by_formula():
    return mx.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)


def by_matrices(names, columns):
    return mx.fit_matrices(
        SLEEP["Reaction"], X, [mx.RandomEffect(SUBJECT, X, "Subject", columns)], x_names=names
    )


@pytest.fixture(scope="module")
def named():
    names = ["(Intercept)", "Days"]
    return by_matrices(names, names)


def new_rows():
    return {"X": X[NEW], "Subject": SUBJECT[NEW]}


@pytest.mark.parametrize("options", [{}, {"re_form": "population"}, {"se": True}])
def test_the_numbers_of_the_formula(by_formula, named, options):
    expected = by_formula.predict(SLEEP[NEW], **options)
    found = named.predict(new_rows(), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_frame_with_columns_by_name(by_formula, named):
    frame = SLEEP[["Days", "Subject"]][NEW].astype({"Subject": str})
    np.testing.assert_allclose(named.predict(frame), by_formula.predict(SLEEP[NEW]), rtol=1e-6)


def test_columns_of_a_term_by_its_name(by_formula):
    fit = by_matrices(None, None)  # called x1, x2 and z1, z2
    found = fit.predict({**new_rows(), "Z.Subject": X[NEW]})
    np.testing.assert_allclose(found, by_formula.predict(SLEEP[NEW]), rtol=1e-6)
    with pytest.raises(DataError, match=r"give them as 'Z.Subject', \(n, 2\)"):
        fit.predict(new_rows())


def test_an_intercept_needs_no_columns():
    fit = mx.fit_matrices(SLEEP["Reaction"], X, [(SUBJECT, None, "Subject")])
    same = mx.lmer("Reaction ~ Days + (1 | Subject)", SLEEP)
    np.testing.assert_allclose(fit.predict(new_rows()), same.predict(SLEEP[NEW]), rtol=1e-6)


def test_groups_of_the_type_of_the_fit():
    number = SLEEP["Subject"].astype(int).to_numpy()
    fit = mx.fit_matrices(SLEEP["Reaction"], X, [(number, None, "Subject")])
    found = fit.predict({"X": X[NEW], "Subject": number[NEW]})
    np.testing.assert_array_equal(found, fit.predict(new_rows()))  # labels as text


def test_missing_cells_and_unknown_groups(named):
    rows = new_rows()
    rows["X"] = np.where(np.arange(len(rows["X"]))[:, None] == 2, np.nan, rows["X"])
    found = named.predict(rows)
    assert np.flatnonzero(np.isnan(found)).tolist() == [2]
    with pytest.raises(DataError, match=r"1 of 15 new rows have missing cells, in 'X' \(1\)"):
        named.predict(rows, na_action="raise")
    other = {"X": X[:2], "Subject": ["308", "new"]}
    with pytest.raises(DataError, match="the level 'new' of 'Subject'"):
        named.predict(other)
    found = named.predict(other, allow_new_levels=True)
    assert found[1] == pytest.approx(named.predict(other, re_form="population")[1])
    assert named.simulate(2, seed=1, newdata=other, allow_new_levels=True).shape == (2, 2)


def test_an_offset_is_asked_for():
    offset = np.arange(180.0)
    fit = mx.fit_matrices(SLEEP["Reaction"], X, [(SUBJECT, None, "Subject")], offset=offset)
    with pytest.raises(DataError, match="pass offset="):
        fit.predict(new_rows())
    without = fit.predict(new_rows(), offset=0.0)
    np.testing.assert_allclose(fit.predict(new_rows(), offset=offset[NEW]), without + offset[NEW])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([1, 2], "a dictionary of arrays such as {'X': X, 'Subject': labels}"),
        ({"X": X}, "no groups 'Subject'"),
        ({"Subject": SUBJECT}, "no 'Days' for the fixed part"),
        ({"X": X[:, :1], "Subject": SUBJECT}, r"X has shape \(180, 1\), expected \(n, 2\)"),
        ({"X": X[:3], "Subject": SUBJECT}, "different numbers of rows: 3, 180"),
        ({"X": np.full((2, 2), "a"), "Subject": SUBJECT[:2]}, "X is not numeric"),
    ],
)
def test_rows_that_are_refused(named, rows, words):
    with pytest.raises(DataError, match=words):
        named.predict(rows)


def test_a_saved_fit_of_matrices_predicts(named, tmp_path):
    named.save(tmp_path / "fit.mlm")
    loaded = mx.load(tmp_path / "fit.mlm")
    np.testing.assert_allclose(loaded.predict(new_rows()), named.predict(new_rows()))


def test_frames_keep_their_index(named):
    frame = SLEEP[["Days", "Subject"]][NEW].astype({"Subject": str})
    found = named.predict(frame)
    assert not isinstance(found, pd.Series) or found.index.equals(frame.index)


def test_frames_of_any_library_name_their_columns():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"one": np.ones(60), "dose": rng.normal(size=60)})
    groups = np.arange(60) % 10
    for frame in (X, pl.from_pandas(X)):
        y, quiet = rng.normal(size=60), mx.Control(warn=False)
        fit = mx.fit_matrices(y, frame, [(groups, frame, "g")], control=quiet)
        assert fit.fixef.index.tolist() == ["one", "dose"]
        assert fit.ranef()["g"].columns.tolist() == ["one", "dose"]


def test_rows_in_the_order_of_bytes_of_other_machines(named):
    rows = {"X": X[NEW].astype(">f8"), "Subject": SUBJECT[NEW].astype(">U3")}
    np.testing.assert_array_equal(named.predict(rows), named.predict(new_rows()))


@pytest.mark.parametrize("library", [pl.from_pandas, pa.Table.from_pandas])
def test_new_rows_in_frames_of_other_libraries(named, library):
    frame = SLEEP[["Days", "Subject"]][NEW].astype({"Subject": str})
    for options in ({}, {"se": True}, {"allow_new_levels": True, "interval": "prediction"}):
        found = named.predict(library(frame), **options)
        np.testing.assert_array_equal(found, named.predict(frame, **options))


@pytest.mark.parametrize("options", [{}, {"interval": "confidence"}, {"re_form": "population"}])
def test_rows_whose_mean_is_not_determined_are_nan_and_named(options):
    wide = np.column_stack([X, SLEEP["Days"] * 2.0])
    with pytest.warns(mx.RankDeficiencyWarning, match="dropped 1 column"):
        fit = mx.fit_matrices(SLEEP["Reaction"], wide, [(SUBJECT, None, "Subject")])
    rows = {"X": [[1.0, 2.0, 4.0], [1.0, 2.0, 5.0]], "Subject": SUBJECT[:2]}
    with pytest.warns(mx.RankDeficiencyWarning, match="at x2 = 2, x3 = 5,"):
        found = np.asarray(fit.predict(rows, **options))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def broken():
    Z = scipy.sparse.csr_array(np.eye(9)[np.arange(180) // 20])
    Z.indices[0] = 10**8
    return Z


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (([[1]] * 180,), "cannot be told apart"),
        (([Decimal("sNaN"), Decimal(1)] * 90,), "cannot be told apart"),
        ((np.zeros(180, "M8"),), "cannot be told apart"),
        ((SUBJECT, np.zeros((180, 0))), "no columns"),
        ((broken(),), "sparse matrix is broken"),
    ],
)
def test_terms_that_are_refused(term, words):
    with pytest.raises(DataError, match=words):
        mx.fit_matrices(SLEEP["Reaction"], X, [term])


def test_text_that_is_no_unicode_is_told_apart_or_refused():
    """Versions of pandas differ in what they can do with it."""
    groups = np.array(["\ud800", "b", "c", "d", "e", "f"] * 30, dtype=object)
    try:
        fit = mx.fit_matrices(SLEEP["Reaction"], X, [(groups,)], control=mx.Control(warn=False))
    except DataError as error:
        assert "cannot be told apart" in str(error)
    else:
        assert [factor.n_levels for factor in fit.matrices.factors] == [6]
