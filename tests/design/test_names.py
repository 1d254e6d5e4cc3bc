"""Names in results are plain, and stay different where backticks made the difference."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.recipe import FormulaRecipe

N = 48
PLACE = np.arange(N)
FRAME = pd.DataFrame(
    {
        "the y": np.sin(7.0 * PLACE),
        "my x": np.cos(3.0 * PLACE),
        "my f": np.array(list("abc"))[PLACE % 3],
        "my g": PLACE % 4,
        "h": (PLACE // 4) % 2,
        "my g:h": PLACE % 6,
        "x": np.cos(5.0 * PLACE),
        "z": np.sin(2.0 * PLACE),
        "x:z": np.cos(PLACE),
        "my w": 1.0 + PLACE % 2,
    }
)

# right side, names of the columns, labels of the terms
PLAIN = [
    ("`my x`", ["my x"], ["my x"]),
    ("`my f`", ["my fb", "my fc"], ["my f"]),
    ("`my x`:`my f`", ["my x:my fa", "my x:my fb", "my x:my fc"], ["my x:my f"]),
    ("I(`my x`^2)", ["I(my x^2)"], ["I(my x^2)"]),
    ("poly(`my x`, 2)", ["poly(my x, 2)1", "poly(my x, 2)2"], ["poly(my x, 2)"]),
    ("`x:z`", ["x:z"], ["x:z"]),
    ("x:z", ["x:z"], ["x:z"]),
    # only here do backticks tell two columns apart
    ("x:z + `x:z` + `my x`", ["`x:z`", "`my x`", "x:z"], ["`x:z`", "`my x`", "x:z"]),
]


@pytest.mark.parametrize(("right", "names", "labels"), PLAIN)
def test_columns(right, names, labels):
    m = model_matrices(f"`the y` ~ {right} + (1 | h)", FRAME)
    assert list(m.fixed.names[1:]) == names
    assert list(m.spec.fixed.term_labels) == labels
    assert m.response_name == "the y"


# random terms, labels of the factors, names of the terms
GROUPS = [
    ("(1 | `my g`)", ["my g"], ["my g"]),
    ("(1 | `my g`) + (0 + `my x` | `my g`)", ["my g"], ["my g", "my g.1"]),
    ("(1 | `my g`:h)", ["my g:h"], ["my g:h"]),
    ("(1 | `my g:h`)", ["my g:h"], ["my g:h"]),
    ("(1 | `my g:h`) + (1 | `my g`:h)", ["`my g`:h", "`my g:h`"], ["`my g`:h", "`my g:h`"]),
]


@pytest.mark.parametrize(("random", "labels", "names"), GROUPS)
def test_groups(random, labels, names):
    m = model_matrices(f"`the y` ~ 1 + {random}", FRAME)
    assert [factor.label for factor in m.factors] == labels
    assert [term.name for term in m.terms] == names
    loaded = FormulaRecipe.from_dict(json.loads(json.dumps(m.spec.to_dict())))
    again = loaded.evaluate(FRAME)
    for g, factor in enumerate(m.factors):
        np.testing.assert_array_equal(again.codes[g], factor.codes)


@pytest.mark.parametrize("key", ["my f", "`my f`"])
def test_contrasts_by_name(key):
    m = model_matrices("`the y` ~ `my f` + (1 | h)", FRAME, contrasts={key: "sum"})
    assert m.fixed.names == ("(Intercept)", "my f1", "my f2")


def test_contrasts_have_names_for_keys():
    with pytest.raises(OptionError, match="keys of contrasts must be names"):
        model_matrices("`the y` ~ `my f` + (1 | h)", FRAME, contrasts={1: "sum"})


@pytest.mark.parametrize("name", ["my w", "`my w`"])
def test_columns_of_rows_by_name(name):
    m = model_matrices(
        "`the y` ~ 1 + (1 | h)", FRAME, weights=name, offset=name, subset="`my w` > 1"
    )
    np.testing.assert_array_equal(m.weights, np.full(N // 2, 2.0))
    np.testing.assert_array_equal(m.offset, m.weights)


def test_the_formula_keeps_its_backticks():
    m = model_matrices("`the y` ~ `my x` + (1 | `my g`)", FRAME)
    assert str(m.spec.formula) == "`the y` ~ `my x` + (1 | `my g`)"
