"""What comes over the boundary: frames, dictionaries and arrays with something odd about them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, FormulaError, OptionError
from mixlm_sparse.design.arrays import array_matrices, numbers
from mixlm_sparse.design.build import model_matrices

N = 40
PLACE = np.arange(N)
COLUMNS = {"y": np.sin(PLACE), "x": PLACE / 7.0, "g": PLACE % 4, "w": 1.0 + PLACE % 3}
FRAME = pd.DataFrame(COLUMNS)
FORMULA = "y ~ x + (1 | g)"
QUIET = mx.Control(warn=False)


# ----------------------------------------------------------------------------- rows and weights


@pytest.mark.parametrize("role", ["weights", "offset"])
@pytest.mark.parametrize(
    "given",
    ["w", "2 * w", "`w`", np.array, pd.array, lambda w: w.where(w.notna(), None).tolist()],
    ids=["column", "expression", "quoted", "array", "nullable", "list"],
)
def test_a_missing_weight_is_a_missing_cell(role, given):
    w = FRAME["w"].where(PLACE % 10 != 3)
    frame = FRAME.assign(w=w)
    value = given if isinstance(given, str) else given(w)
    m = model_matrices(FORMULA, frame, **{role: value})
    np.testing.assert_array_equal(m.rows, np.flatnonzero(PLACE % 10 != 3))
    scale = 2.0 if given == "2 * w" else 1.0
    np.testing.assert_array_equal(getattr(m, role), scale * w[w.notna()])
    with pytest.raises(DataError, match=r"cells are missing in .*\(4\)"):
        model_matrices(FORMULA, frame, na_action="raise", **{role: value})


def test_the_fit_without_the_rows_of_missing_weights():
    frame = FRAME.assign(w=FRAME["w"].where(PLACE % 10 != 3))
    fit = mx.lmer(FORMULA, frame, weights="w", control=QUIET)
    assert fit.nobs == 36
    complete = mx.lmer(FORMULA, frame.dropna(), weights="w", control=QUIET)
    assert fit.criterion == complete.criterion


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.where(PLACE == 3, 0.0, 1.0), "zero weights"),
        (np.where(PLACE == 3, -1.0, 1.0), "negative weights"),
        (np.where(PLACE == 3, np.inf, 1.0), "infinite weights"),
        ("log(x)", "undefined or infinite weights"),
    ],
)
def test_weights_that_are_no_weights(weights, words):
    with pytest.raises(DataError, match=words):
        model_matrices(FORMULA, FRAME, weights=weights)


# --------------------------------------------------------------------------------------- frames


def test_series_of_a_dictionary_have_one_index():
    series = {name: pd.Series(values, index=PLACE + 5) for name, values in COLUMNS.items()}
    m = model_matrices(FORMULA, series)
    assert m.index.tolist() == (PLACE + 5).tolist()
    moved = {**series, "x": series["x"][::-1]}
    with pytest.raises(DataError, match=r"'y' and 'x' are Series with different indexes"):
        model_matrices(FORMULA, moved)
    model_matrices(FORMULA, {**moved, "x": moved["x"].to_numpy()})
    model_matrices("y ~ 1 + (1 | g)", moved)  # x is not read
    # a frame of the same dictionary is aligned by pandas
    aligned = model_matrices(FORMULA, pd.DataFrame(moved))
    np.testing.assert_array_equal(aligned.X, m.X)


def test_columns_called_by_numbers():
    frame = FRAME[["y", "x", "g"]].set_axis([0, 1, 2.5], axis=1)
    m = model_matrices("`0` ~ `1` + (1 | `2.5`)", frame)
    np.testing.assert_array_equal(m.X, model_matrices(FORMULA, FRAME).X)
    assert m.fixed.names == ("(Intercept)", "1")
    assert m.factors[0].label == "2.5"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pd.concat([FRAME, FRAME[["x"]]], axis=1), "more than one column 'x'"),
        (
            pa.Table.from_arrays([pa.array(COLUMNS[c]) for c in "yxxg"], names=list("yxxg")),
            "two columns of one name",
        ),
        (
            pd.DataFrame(
                FRAME.to_numpy(), columns=pd.MultiIndex.from_product([["y"], list("abcd")])
            ),
            "2 levels of names",
        ),
        ({**COLUMNS, "y": COLUMNS["y"] + 1j}, "complex"),
        ({**COLUMNS, "y": pd.date_range("2020", periods=N)}, "dates or times"),
        ({**COLUMNS, "x": 3.0}, "0 dimensions"),
        ([1, 2], "not a data frame"),
    ],
)
def test_frames_that_are_refused(data, words):
    with pytest.raises(DataError, match=words):
        model_matrices(FORMULA, data)


@pytest.mark.parametrize("name", ["g", "x"])
def test_lone_surrogates_in_labels(name):
    labels = np.array([f"\ud800{place % 5}" for place in PLACE], dtype=object)
    fit = mx.lmer(FORMULA, {**COLUMNS, name: labels}, control=QUIET)
    assert np.isfinite(fit.criterion)
    assert fit.matrices.factors[0].index.size == fit.ngroups["g"]
    assert fit.predict({**COLUMNS, name: labels}).shape == (N,)


def test_masked_cells_are_missing():
    m = model_matrices(FORMULA, {**COLUMNS, "y": np.ma.masked_less(COLUMNS["y"], 0.0)})
    assert m.nobs == int((COLUMNS["y"] >= 0.0).sum())


def test_own_functions_that_fail():
    with pytest.raises(FormulaError, match=r"f\(x\) failed: ZeroDivisionError"):
        model_matrices("y ~ f(x) + (1 | g)", FRAME, env={"f": lambda x: 1 / 0})
    with pytest.raises(OptionError, match="use a dictionary"):
        model_matrices(FORMULA, FRAME, env=[1])


# --------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ma.masked_less([1.0, -1.0], 0.0), "1 missing"),
        (np.array([1.0, 1j]), "complex"),
        (pd.date_range("2020", periods=2), "dates or times"),
        (["a", "b"], "text"),
        ([1.0, None], "1 missing"),
        ([1.0, np.inf], "1 missing or infinite"),
        (np.ones((2, 2)), "shape"),
        (3.0, "shape"),
        ([1.0, 2.0, 3.0], "3 values for 2 rows"),
    ],
)
def test_what_is_no_vector_of_numbers(values, words):
    with pytest.raises(DataError, match=f"y.*{words}"):
        numbers("y", values, 2)


def test_arrays_are_copied():
    y, X, w = COLUMNS["y"].copy(), np.column_stack([np.ones(N), COLUMNS["x"]]), COLUMNS["w"].copy()
    m = array_matrices(y, X, [(COLUMNS["g"], X)], None, "y", w, w)
    before = m.y.copy(), m.X, m.weights.copy(), m.terms[0].columns.block(slice(0, N))
    for array in (y, X, w):
        array += 100.0
    for kept, now in zip(
        before, (m.y, m.X, m.weights, m.terms[0].columns.block(slice(0, N))), strict=True
    ):
        np.testing.assert_array_equal(kept, now)


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.coo_matrix, pd.DataFrame])
def test_matrices_of_other_kinds(form):
    X = np.column_stack([np.ones(N), COLUMNS["x"]])
    m = array_matrices(COLUMNS["y"], form(X), [(COLUMNS["g"],)], None, "y", None, None)
    np.testing.assert_array_equal(m.X, X)


@pytest.mark.parametrize(
    "X", [np.ones((N, 1)) * 1j, np.full((N, 1), "a"), np.full((N, 1), np.datetime64("2020-01-01"))]
)
def test_matrices_that_are_not_numeric(X):
    with pytest.raises(DataError, match="X is not numeric"):
        array_matrices(COLUMNS["y"], X, [(COLUMNS["g"],)], None, "y", None, None)


@pytest.mark.parametrize(
    ("right", "error", "words"),
    [
        ("x\u00e8", DataError, "looks the same and is made of other characters"),
        ("scale(x, scale = F)", DataError, "write FALSE"),
        ("stats::poly(x, 2)", FormulaError, "write the function alone"),
        ("x[5]", FormulaError, "between backticks"),
    ],
)
def test_what_people_write(right, error, words):
    frame = FRAME.assign(**{"xe\u0300": FRAME["x"], "x[5]": FRAME["x"]})
    with pytest.raises(error, match=words):
        model_matrices(f"y ~ {right} + (1 | g)", frame)
    model_matrices("y ~ `x[5]` + (1 | g)", frame)


def test_the_double_bar_is_silent_without_warnings():
    frame = FRAME.assign(f=np.array(list("ab"))[PLACE % 2], g=PLACE % 5)
    fit = mx.lmer("y ~ x + (f || g)", frame, control=QUIET)  # a warning would be an error here
    assert any("'||' does not split" in text for text in fit.messages)
