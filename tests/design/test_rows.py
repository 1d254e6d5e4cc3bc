"""Which rows are used, what goes with them, and data that do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixlm_sparse.common.errors import DataError, FormulaError, OptionError
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.recipe import FormulaRecipe
from tests.design.example import EXAMPLE
from tests.support.corpus import load_data


@pytest.mark.parametrize(
    ("subset", "n"),
    [
        ("x > 0", None),
        ("b", 24),
        ("f == 'a' & k != 2", None),
        ("f %in% c('a', 'b')", 40),
        ((EXAMPLE["f"] == "a"), 20),
        ((EXAMPLE["f"] == "a").to_numpy(), 20),
        ("o >= 'hi'", 28),
    ],
)
def test_subset(subset, n):
    m = model_matrices("y ~ x + (1 | g)", EXAMPLE, subset=subset)
    assert n is None or m.nobs == n
    np.testing.assert_array_equal(m.y, EXAMPLE["y"].to_numpy()[m.rows])


def test_offsets_add_up():
    m = model_matrices("y ~ x + offset(log(z + 1)) + offset(k) + (1 | s)", EXAMPLE, offset="z")
    expected = np.log(EXAMPLE["z"] + 1) + EXAMPLE["k"] + EXAMPLE["z"]
    np.testing.assert_allclose(m.offset, expected)


def test_arrays_go_with_the_rows_of_the_input():
    frame = EXAMPLE.assign(x=EXAMPLE["x"].where(EXAMPLE.index != 2))
    array = np.arange(1.0, 61)
    m = model_matrices("y ~ x + (1 | s)", frame, weights=array, offset=array)
    np.testing.assert_array_equal(m.weights, np.delete(array, 2))
    np.testing.assert_array_equal(m.offset, np.delete(array, 2))


@pytest.mark.parametrize("role", ["weights", "offset", "subset"])
def test_series_with_another_index(role):
    series = pd.Series(EXAMPLE["b"].to_numpy(), index=range(60, 0, -1))
    with pytest.raises(DataError, match="index differs"):
        model_matrices("y ~ x + (1 | s)", EXAMPLE, **{role: series})


def test_functions_of_the_user():
    m = model_matrices("y ~ twice(x) + (1 | s)", EXAMPLE, env={"twice": lambda v: 2 * v})
    np.testing.assert_allclose(m.X[:, 1], 2 * EXAMPLE["x"])
    saved = m.spec.to_dict()
    with pytest.raises(DataError, match="twice"):
        FormulaRecipe.from_dict(saved)
    with pytest.raises(FormulaError, match="one number for each"):
        model_matrices("y ~ mean(x) + (1 | s)", EXAMPLE, env={"mean": np.mean})


SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.mark.parametrize(
    ("formula", "change", "options", "message"),
    [
        ("y ~ X + (1 | s)", {}, {}, "no column 'X'; did you mean 'x'"),
        ("y ~ x + (1 | subject)", {}, {}, "no column 'subject'"),
        ("f ~ x + (1 | s)", {}, {}, "response 'f' must be numeric"),
        ("y ~ x + (1 | one)", {"one": 1}, {}, "grouping factor 'one' has 1 level; a random effect"),
        ("y ~ one + (1 | s)", {"one": "a"}, {}, "factor 'one' has 1 level"),
        ("y ~ x + (1 | s)", {"x": np.nan}, {}, "no rows are left.*'x' has 60 missing"),
        ("y ~ x + (1 | s)", {"x": np.inf}, {}, "column 'x' is infinite in 60 rows"),
        ("y ~ x + (1 | s)", {"y": np.inf}, {}, "column 'y' is infinite"),
        ("log(y) ~ x + (1 | s)", {}, {}, r"log\(y\) is not finite"),
        ("y ~ sqrt(x) + (1 | s)", {}, {}, r"sqrt\(x\) is not finite"),
        ("y ~ t + (1 | s)", {"t": pd.Timestamp("2020")}, {}, "'t' holds dates"),
        ("y ~ m + (1 | s)", {"m": [1, "a"] * 30}, {}, "'m' mixes values"),
        ("y ~ j + (1 | s)", {"j": 1j}, {}, "'j' has type complex"),
        ("y ~ I(f + 1) + (1 | s)", {}, {}, "needs numbers"),
        ("y ~ poly(f, 2) + (1 | s)", {}, {}, "needs numbers"),
        ("y ~ poly(k, 4) + (1 | s)", {}, {}, "at most 3"),
        ("y ~ scale(one) + (1 | s)", {"one": 1.0}, {}, "is constant"),
        ("y ~ dummy(f, 'zz') + (1 | s)", {}, {}, "no level 'zz'"),
        ("y ~ factor(f, levels = c('a', 'b')) + (1 | s)", {}, {}, "leaves out the level 'c'"),
        ("y ~ x + (1 | s)", {}, {"weights": "nowhere"}, "weights: the data have no column"),
        ("y ~ x + (1 | s)", {}, {"weights": np.ones(59)}, "59 values, but the data have 60"),
        ("y ~ x + (1 | s)", {"w": 0.0}, {"weights": "w"}, "'w' has zero weights.*drop"),
        ("y ~ x + (1 | s)", {"w": -1.0}, {"weights": "w"}, "'w' has negative weights"),
        ("y ~ x + (1 | s)", {"w": np.inf}, {"weights": "w"}, "'w' has .*infinite weights"),
        ("y ~ x + (1 | s)", {}, {"weights": "f"}, "must be numeric"),
        ("y ~ x + (1 | s)", {"w": np.inf}, {"offset": "w"}, "offset is not finite"),
        ("y ~ x + (1 | s)", {}, {"subset": "x"}, "true or false"),
        ("y ~ x + (1 | s)", {}, {"subset": "x > 100"}, "leaves none"),
        ("y ~ x + (1 | s)", {"x": [np.nan, *range(59)]}, {"na_action": "raise"}, r"'x' \(1\)"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit(formula, change, options, message):
    with pytest.raises(DataError, match=message):
        model_matrices(formula, EXAMPLE.assign(**change), **options)


def test_frames_that_do_not_fit():
    formula = "y ~ x + (1 | s)"
    with pytest.raises(DataError, match="no rows"):
        model_matrices(formula, EXAMPLE.iloc[:0])
    with pytest.raises(DataError, match="more than one column 'x'"):
        model_matrices(formula, pd.concat([EXAMPLE, EXAMPLE[["x"]]], axis=1))
    with pytest.raises(DataError, match="reset_index"):
        model_matrices(formula, EXAMPLE.set_index("s"))
    with pytest.raises(DataError, match="different lengths"):
        model_matrices(formula, {"y": [1, 2], "x": [1], "s": [1, 2]})
    with pytest.raises(DataError, match="not a data frame"):
        model_matrices(formula, np.ones((3, 3)))
    with pytest.raises(OptionError, match="na_action"):
        model_matrices(formula, EXAMPLE, na_action="ignore")


@pytest.mark.parametrize(
    "term",
    [
        "__import__('os').system('true')",
        "__import__('os')",
        "x.__class__.__mro__",
        "eval('1')",
        "exec(x)",
        "open('secret')",
        "getattr(x, 'T')",
        "np.load('x')",
        "np.lib(x)",
        "(lambda: 1)()",
        "[x for x in y]",
        "x[0]",
        "I(eval(x))",
        "poly(x, eval('2'))",
        "f'{x}'",
        "C(f, eval('1'))",
        "C(f, __import__('os'))",
    ],
)
@pytest.mark.parametrize("place", ["y ~ {} + (1 | s)", "y ~ x + ({} | s)", "y ~ x + (1 | {})",
                                   "{} ~ x + (1 | s)", "y ~ offset({}) + (1 | s)"])  # fmt: skip
def test_nothing_but_the_whitelist_is_evaluated(term, place):
    with pytest.raises((FormulaError, DataError)):
        model_matrices(place.format(term), EXAMPLE)


def test_refusal_names_the_remedy():
    with pytest.raises(FormulaError, match=r"'mean' in mean\(x\).*compute the column"):
        model_matrices("y ~ mean(x) + (1 | s)", EXAMPLE)
    with pytest.raises(FormulaError, match=r"'zz' in zz\(x\).*use one of.*env="):
        model_matrices("y ~ zz(x) + (1 | s)", EXAMPLE)


def test_missing_rows_in_the_corpus_are_counted():
    m = model_matrices(SLEEP, load_data("sleepstudy"))
    assert (m.nobs, m.rows, m.n_input) == (180, None, 180)
