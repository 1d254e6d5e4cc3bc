"""Formula and frame to model matrices: R's columns, lme4's order, all frames, bad input."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import patsy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.common.errors import DataError, FormulaError, FormulaWarning, OptionError
from mixlm_sparse.covariance.diag import Diagonal
from mixlm_sparse.design import variables
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.columns import ArrayColumns
from mixlm_sparse.design.recipe import FormulaRecipe
from tests.support.corpus import MODELS, data_of, load_data, load_model, options_of


def example(n=60):
    """Every combination of the factors occurs; x and z have no ties."""
    i = np.arange(n)
    return pd.DataFrame(
        {
            "y": np.sin(7.0 * i),
            "x": np.cos(3.0 * i),
            "z": 1.5 + np.sin(5.0 * i),
            "f": np.array(list("abc"))[i % 3],
            "g": np.array(list("uvwx"))[i % 4],
            "h": np.array(list("pq"))[(i // 12) % 2],
            "k": 1 + (i // 5) % 4,
            "b": i % 5 < 2,
            "o": pd.Categorical.from_codes(
                (i // 2) % 4, categories=["lo", "mid", "hi", "top"], ordered=True
            ),
            "s": i // 6,
        }
    )


EXAMPLE = example()

# What R's model.matrix calls its columns.
R_NAMES = [
    ("x + f", ["(Intercept)", "x", "fb", "fc"]),
    ("x*f", ["(Intercept)", "x", "fb", "fc", "x:fb", "x:fc"]),
    (
        "f*g",
        [
            "(Intercept)",
            "fb",
            "fc",
            "gv",
            "gw",
            "gx",
            "fb:gv",
            "fc:gv",
            "fb:gw",
            "fc:gw",
            "fb:gx",
            "fc:gx",
        ],
    ),
    (
        "f:g",
        [
            "(Intercept)",
            "fa:gu",
            "fb:gu",
            "fc:gu",
            "fa:gv",
            "fb:gv",
            "fc:gv",
            "fa:gw",
            "fb:gw",
            "fc:gw",
            "fa:gx",
            "fb:gx",
            "fc:gx",
        ],
    ),
    (
        "f + f:g",
        [
            "(Intercept)",
            "fb",
            "fc",
            "fa:gv",
            "fb:gv",
            "fc:gv",
            "fa:gw",
            "fb:gw",
            "fc:gw",
            "fa:gx",
            "fb:gx",
            "fc:gx",
        ],
    ),
    (
        "0 + f:g",
        [
            "fa:gu",
            "fb:gu",
            "fc:gu",
            "fa:gv",
            "fb:gv",
            "fc:gv",
            "fa:gw",
            "fb:gw",
            "fc:gw",
            "fa:gx",
            "fb:gx",
            "fc:gx",
        ],
    ),
    ("0 + x:f + g", ["gu", "gv", "gw", "gx", "x:fa", "x:fb", "x:fc"]),
    ("0 + x + f + g", ["x", "fa", "fb", "fc", "gv", "gw", "gx"]),
    ("x:f", ["(Intercept)", "x:fa", "x:fb", "x:fc"]),
    ("f:x + g:x", ["(Intercept)", "fa:x", "fb:x", "fc:x", "x:gv", "x:gw", "x:gx"]),
    ("b*x", ["(Intercept)", "bTRUE", "x", "bTRUE:x"]),
    ("0 + b", ["bFALSE", "bTRUE"]),
    ("o + x", ["(Intercept)", "o.L", "o.Q", "o.C", "x"]),
    (
        "o*f",
        [
            "(Intercept)",
            "o.L",
            "o.Q",
            "o.C",
            "fb",
            "fc",
            "o.L:fb",
            "o.Q:fb",
            "o.C:fb",
            "o.L:fc",
            "o.Q:fc",
            "o.C:fc",
        ],
    ),
    ("0 + o", ["olo", "omid", "ohi", "otop"]),
    (
        "f:o",
        [
            "(Intercept)",
            "fa:olo",
            "fb:olo",
            "fc:olo",
            "fa:omid",
            "fb:omid",
            "fc:omid",
            "fa:ohi",
            "fb:ohi",
            "fc:ohi",
            "fa:otop",
            "fb:otop",
            "fc:otop",
        ],
    ),
    (
        "f %in% g",
        [
            "(Intercept)",
            "fa:gu",
            "fb:gu",
            "fc:gu",
            "fa:gv",
            "fb:gv",
            "fc:gv",
            "fa:gw",
            "fb:gw",
            "fc:gw",
            "fa:gx",
            "fb:gx",
            "fc:gx",
        ],
    ),
    ("x + f - x", ["(Intercept)", "fb", "fc"]),
    ("f/x", ["(Intercept)", "fb", "fc", "fa:x", "fb:x", "fc:x"]),
    ("x*f - x", ["(Intercept)", "fb", "fc", "x:fa", "x:fb", "x:fc"]),
    ("x + f + x:f - 1", ["x", "fa", "fb", "fc", "x:fb", "x:fc"]),
    ("z:x:f + x + z:f", ["(Intercept)", "x", "z:fa", "z:fb", "z:fc", "z:x:fa", "z:x:fb", "z:x:fc"]),
    (
        "g:f - 1",
        [
            "gu:fa",
            "gv:fa",
            "gw:fa",
            "gx:fa",
            "gu:fb",
            "gv:fb",
            "gw:fb",
            "gx:fb",
            "gu:fc",
            "gv:fc",
            "gw:fc",
            "gx:fc",
        ],
    ),
    ("poly(x, 2)", ["(Intercept)", "poly(x, 2)1", "poly(x, 2)2"]),
    (
        "poly(x, 3, raw = TRUE)",
        [
            "(Intercept)",
            "poly(x, 3, raw = TRUE)1",
            "poly(x, 3, raw = TRUE)2",
            "poly(x, 3, raw = TRUE)3",
        ],
    ),
    (
        "poly(x, 2)*f",
        [
            "(Intercept)",
            "poly(x, 2)1",
            "poly(x, 2)2",
            "fb",
            "fc",
            "poly(x, 2)1:fb",
            "poly(x, 2)2:fb",
            "poly(x, 2)1:fc",
            "poly(x, 2)2:fc",
        ],
    ),
    ("poly(x,1)", ["(Intercept)", "poly(x, 1)"]),
    ("scale(x) + log(z + 1)", ["(Intercept)", "scale(x)", "log(z + 1)"]),
    (
        "scale(x, scale = FALSE):f",
        [
            "(Intercept)",
            "scale(x, scale = FALSE):fa",
            "scale(x, scale = FALSE):fb",
            "scale(x, scale = FALSE):fc",
        ],
    ),
    (
        "bs(x, df = 4)",
        ["(Intercept)", "bs(x, df = 4)1", "bs(x, df = 4)2", "bs(x, df = 4)3", "bs(x, df = 4)4"],
    ),
    (
        "bs(x, knots = c(-0.5, 0.5))",
        [
            "(Intercept)",
            "bs(x, knots = c(-0.5, 0.5))1",
            "bs(x, knots = c(-0.5, 0.5))2",
            "bs(x, knots = c(-0.5, 0.5))3",
            "bs(x, knots = c(-0.5, 0.5))4",
            "bs(x, knots = c(-0.5, 0.5))5",
        ],
    ),
    ("bs(x)", ["(Intercept)", "bs(x)1", "bs(x)2", "bs(x)3"]),
    ("ns(x, df = 3)", ["(Intercept)", "ns(x, df = 3)1", "ns(x, df = 3)2", "ns(x, df = 3)3"]),
    ("ns(x)", ["(Intercept)", "ns(x)"]),
    ("C(f, contr.sum)", ["(Intercept)", "C(f, contr.sum)1", "C(f, contr.sum)2"]),
    (
        "C(f, contr.helmert)*x",
        [
            "(Intercept)",
            "C(f, contr.helmert)1",
            "C(f, contr.helmert)2",
            "x",
            "C(f, contr.helmert)1:x",
            "C(f, contr.helmert)2:x",
        ],
    ),
    ('C(f, "contr.poly")', ["(Intercept)", 'C(f, "contr.poly").L', 'C(f, "contr.poly").Q']),
    ("factor(k) + x", ["(Intercept)", "factor(k)2", "factor(k)3", "factor(k)4", "x"]),
    (
        "factor(k)*f",
        [
            "(Intercept)",
            "factor(k)2",
            "factor(k)3",
            "factor(k)4",
            "fb",
            "fc",
            "factor(k)2:fb",
            "factor(k)3:fb",
            "factor(k)4:fb",
            "factor(k)2:fc",
            "factor(k)3:fc",
            "factor(k)4:fc",
        ],
    ),
    (
        "as.factor(k):x",
        ["(Intercept)", "as.factor(k)1:x", "as.factor(k)2:x", "as.factor(k)3:x", "as.factor(k)4:x"],
    ),
    (
        "I(x^2) + I(x > 0) + I(-x) + I((x + 1) * 2)",
        ["(Intercept)", "I(x^2)", "I(x > 0)TRUE", "I(-x)", "I((x + 1) * 2)"],
    ),
    (
        "I(x^2 + z) + exp(x) + sqrt(z) + abs(x) + log2(z) + log10(z) + log1p(z)",
        [
            "(Intercept)",
            "I(x^2 + z)",
            "exp(x)",
            "sqrt(z)",
            "abs(x)",
            "log2(z)",
            "log10(z)",
            "log1p(z)",
        ],
    ),
    ("(x > 0)", ["(Intercept)", "x > 0TRUE"]),
    ("I(z %% 2) + I(k %/% 2)", ["(Intercept)", "I(z%%2)", "I(k%/%2)"]),
    ("I(1e5 * x) + I(x * 0.0001) + I(100000 * x)", ["(Intercept)", "I(1e+05 * x)", "I(x * 1e-04)"]),
    (
        "b:f",
        ["(Intercept)", "bFALSE:fa", "bTRUE:fa", "bFALSE:fb", "bTRUE:fb", "bFALSE:fc", "bTRUE:fc"],
    ),
    (
        "b + f + b:f:x",
        [
            "(Intercept)",
            "bTRUE",
            "fb",
            "fc",
            "bFALSE:fa:x",
            "bTRUE:fa:x",
            "bFALSE:fb:x",
            "bTRUE:fb:x",
            "bFALSE:fc:x",
            "bTRUE:fc:x",
        ],
    ),
    ("pmin(x, z) + pmax(x, 0)", ["(Intercept)", "pmin(x, z)", "pmax(x, 0)"]),
    ("log(z, 2) + log(z, base = 10)", ["(Intercept)", "log(z, 2)", "log(z, base = 10)"]),
    ("ordered(k)", ["(Intercept)", "ordered(k).L", "ordered(k).Q", "ordered(k).C"]),
    (
        "factor(k, levels = c(4, 3, 2, 1))",
        [
            "(Intercept)",
            "factor(k, levels = c(4, 3, 2, 1))3",
            "factor(k, levels = c(4, 3, 2, 1))2",
            "factor(k, levels = c(4, 3, 2, 1))1",
        ],
    ),
    (
        "f*g - f",
        [
            "(Intercept)",
            "gv",
            "gw",
            "gx",
            "fb:gu",
            "fc:gu",
            "fb:gv",
            "fc:gv",
            "fb:gw",
            "fc:gw",
            "fb:gx",
            "fc:gx",
        ],
    ),
    (
        "f*g - 1",
        ["fa", "fb", "fc", "gv", "gw", "gx", "fb:gv", "fc:gv", "fb:gw", "fc:gw", "fb:gx", "fc:gx"],
    ),
    (
        "(f + g + h)^3 - f:g:h",
        [
            "(Intercept)",
            "fb",
            "fc",
            "gv",
            "gw",
            "gx",
            "hq",
            "fb:gv",
            "fc:gv",
            "fb:gw",
            "fc:gw",
            "fb:gx",
            "fc:gx",
            "fb:hq",
            "fc:hq",
            "gv:hq",
            "gw:hq",
            "gx:hq",
        ],
    ),
    ("factor(x > 0)", ["(Intercept)", "factor(x > 0)TRUE"]),
    ("I(b & x > 0)", ["(Intercept)", "I(b & x > 0)TRUE"]),
    ('I(f == "a")', ["(Intercept)", 'I(f == "a")TRUE']),
    ("h:x + h", ["(Intercept)", "hq", "hp:x", "hq:x"]),
    ("x:h - 1 + f", ["fa", "fb", "fc", "x:hp", "x:hq"]),
]

# Rows 2 and 6 of the basis on SPLINE_X, and the rows of new data at -1, 4 and 15, from R.
R_VALUES = [
    (
        "poly(x, 3)",
        [
            [-0.300851254945, 0.251891729138, -0.129901394585],
            [0.0791713828803, -0.475216031391, 0.132488532402],
        ],
        [
            [-0.427525467553, 0.699626073857, -1.23172872923],
            [-0.00527809219202, -0.393500731188, 0.332789072091],
            [0.923666133603, 1.21764874802, 2.38492737501],
        ],
    ),
    (
        "scale(x)",
        [[-0.795977602206], [0.209467790054]],
        [[-1.13112606629], [-0.0139645193369], [2.44379088397]],
    ),
    (
        "bs(x, df = 5)",
        [
            [0.647270247781, 0.106924926036, 0.00166420118343, 0, 0],
            [0, 0.389518174134, 0.491071126676, 0.118955533055, 0.00045516613564],
        ],
        [
            [-5.04835428994, 0.702292899408, -0.0133136094675, 0, 0],
            [0.000657462195924, 0.553620738236, 0.399281890271, 0.0464399092971, 0],
            [0, -0.00608622147084, 0.140678661997, -0.998952932106, 1.86436049158],
        ],
    ),
    (
        "bs(x, knots = c(2, 6), degree = 2, intercept = TRUE)",
        [
            [0.5625, 0.416666666667, 0.0208333333333, 0, 0],
            [0, 0.0416666666667, 0.753787878788, 0.204545454545, 0],
        ],
        [
            [2.25, -1.33333333333, 0.0833333333333, 0, 0],
            [0, 0.166666666667, 0.742424242424, 0.0909090909091, 0],
            [0, 0, 0.0519480519481, -0.705009276438, 1.65306122449],
        ],
    ),
    (
        "ns(x, df = 3)",
        [
            [-0.0860346487231, 0.205754994011, -0.118056144105],
            [0.334029720016, 0.487398833294, -0.210946727444],
        ],
        [
            [0.178698339552, -0.419253796641, 0.240555457089],
            [0.177450367283, 0.566890790154, -0.298619357868],
            [-0.469228032729, 0.408573461402, 1.06065457133],
        ],
    ),
    (
        "ns(x, knots = 4, intercept = TRUE)",
        [
            [-0.307590049157, 0.56480750465, -0.333640623377],
            [0.414259407925, 0.398596100455, -0.127530951356],
        ],
        [
            [-0.642922323187, 0.634377624674, -0.374859505489],
            [0.328031761389, 0.42443661737, -0.194859399775],
            [-0.425012952658, 0.394685807487, 1.03950384103],
        ],
    ),
]


@pytest.mark.parametrize(("right", "names"), R_NAMES, ids=[row[0] for row in R_NAMES])
def test_columns_are_named_and_ordered_as_in_r(right, names):
    matrices = model_matrices(f"y ~ {right} + (1 | s)", EXAMPLE)
    assert list(matrices.fixed.names) == names
    assert matrices.X.shape == (60, len(names))
    assert matrices.X.flags.c_contiguous
    assert matrices.spec.fixed.assign[-1] == len(matrices.spec.fixed.term_labels)


SPLINE_X = [0, 0.5, 1, 2, 3, 5, 8, 13]


@pytest.mark.parametrize(("term", "rows", "new"), R_VALUES, ids=[row[0] for row in R_VALUES])
def test_transforms_have_r_values(term, rows, new):
    frame = {"y": np.arange(8.0), "x": SPLINE_X, "s": list("aabbccdd")}
    matrices = model_matrices(f"y ~ 0 + {term} + (1 | s)", frame)
    np.testing.assert_allclose(matrices.X[[1, 5]], rows, rtol=1e-10, atol=1e-12)
    columns = matrices.spec.fixed_columns({"x": [-1.0, 4, 15]})
    np.testing.assert_allclose(columns.block(slice(0, 3)), new, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        "bs(x, df=5)",
        "bs(x, df=4, degree=2)",
        "cr(x, df=4)",
        "cr(x, df=3, constraints='center')",
        "standardize(x)",
    ],
)
def test_splines_agree_with_patsy(call):
    matrices = model_matrices(f"y ~ 0 + {call} + (1 | s)", EXAMPLE)
    expected = patsy.dmatrix("0 + " + call, EXAMPLE)
    np.testing.assert_allclose(matrices.X, np.asarray(expected), rtol=1e-10, atol=1e-12)


def test_polynomials_far_from_the_origin_lose_no_digits():
    frame = EXAMPLE.assign(year=2000.0 + EXAMPLE["k"] + EXAMPLE["x"])
    X = model_matrices("y ~ poly(year, 4) + (1 | s)", frame).X[:, 1:]
    np.testing.assert_allclose(X.T @ X, np.eye(4), atol=1e-10)


# ----------------------------------------------------------------------------------- the corpus


@pytest.mark.parametrize("model_id", MODELS)
def test_corpus(model_id):
    """Names, order, rows, levels and values of every reference model."""
    record = load_model(model_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormulaWarning)
        m = model_matrices(record["formula"], data_of(record), **options_of(record))
    kept = [place for place, name in enumerate(m.fixed.names)
            if name not in record["dropped_columns"]]  # fmt: skip
    assert [m.fixed.names[place] for place in kept] == list(record["fixef"])
    assert (m.nobs, m.n_input - m.nobs) == (record["nobs"], record["n_rows_dropped"])
    theta_names = []
    assert len(m.terms) == len(record["random_terms"])
    for term, expected in zip(m.terms, record["random_terms"], strict=True):
        factor = m.factors[term.factor]
        assert (term.name, factor.label) == (expected["varcorr_name"], expected["factor"])
        assert list(term.column_names) == expected["terms"]
        assert factor.n_levels == expected["n_levels"]
        assert factor.levels[: len(expected["levels"])] == expected["levels"]
        names = term.column_names
        for j, second in enumerate(names):
            theta_names.append(f"{factor.label}.{second}")
            theta_names += [f"{factor.label}.{first}.{second}" for first in names[j + 1 :]]
    assert theta_names == record["theta_names"]
    head = len(record["head_rows"])
    rows = np.arange(m.nobs) if m.rows is None else m.rows
    assert (rows[:head] + 1).tolist() == record["head_rows"]
    fitted = m.fixed.block(slice(0, head))[:, kept] @ np.array(list(record["fixef"].values()))
    if m.offset is not None:
        fitted = fitted + m.offset[:head]
    np.testing.assert_allclose(fitted, record["fitted_fixed_head"], rtol=1e-9)
    y = np.add(record["fitted_head"], record["residuals_head"])
    np.testing.assert_allclose(m.y[:head], y, rtol=1e-9)


# --------------------------------------------------------------------------- contrasts and coding


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("treatment", ["fb", "fc"]),
        ("contr.treatment", ["fb", "fc"]),
        ("SAS", ["fa", "fb"]),
        ("sum", ["f1", "f2"]),
        ("contr.helmert", ["f1", "f2"]),
        ("poly", ["f.L", "f.Q"]),
        (np.array([[1, 0], [0, 1], [-1, -1]]), ["f1", "f2"]),
        (pd.DataFrame([[1.0], [-1]  , [0]], index=list("cab"), columns=[".ca"]), ["f.ca"]),
    ],
)  # fmt: skip
def test_contrasts_argument(choice, names):
    m = model_matrices("y ~ f + (f | s)", EXAMPLE, contrasts={"f": choice})
    assert list(m.fixed.names[1:]) == names
    assert m.terms[0].column_names == ("(Intercept)", "fb", "fc")  # the random part keeps its own


def test_contrast_matrices():
    X = model_matrices("y ~ f + (1 | s)", EXAMPLE, contrasts={"f": "sum"}).X[:3, 1:]
    np.testing.assert_array_equal(X, [[1, 0], [0, 1], [-1, -1]])
    X = model_matrices("y ~ f + (1 | s)", EXAMPLE, contrasts={"f": "helmert"}).X[:3, 1:]
    np.testing.assert_array_equal(X, [[-1, -1], [1, -1], [0, 2]])
    X = model_matrices("y ~ f + (1 | s)", EXAMPLE, contrasts={"f": "poly"}).X[:3, 1:]
    half, sixth = np.sqrt(1 / 2), np.sqrt(1 / 6)
    np.testing.assert_allclose(X, [[-half, sixth], [0, -2 * sixth], [half, sixth]], atol=1e-12)


@pytest.mark.parametrize(
    ("contrasts", "error", "message"),
    [
        ({"f": "foo"}, DataError, "'foo' is not known"),
        ({"f": np.eye(2)}, DataError, "2 rows, but 3 levels"),
        ({"f": np.eye(3)}, DataError, "linearly dependent"),
        ({"x": "sum"}, DataError, "numeric"),
        ({"ff": "sum"}, DataError, "no column 'ff'"),
        ({"g": "sum"}, FormulaWarning, "no effect"),
        ("sum", OptionError, "dictionary"),
    ],
)
def test_contrasts_that_do_not_fit(contrasts, error, message):
    with pytest.raises(error, match=message):
        model_matrices("y ~ x + f + (1 | s)", EXAMPLE, contrasts=contrasts)


def test_patsy_style_contrasts():
    m = model_matrices("y ~ C(f, Treatment('b')) + C(g, Sum) + (1 | s)", EXAMPLE)
    assert m.fixed.names[1:3] == ('C(f, Treatment("b"))a', 'C(f, Treatment("b"))c')
    assert m.fixed.names[3:] == ("C(g, Sum)1", "C(g, Sum)2", "C(g, Sum)3")


def test_unused_levels_are_dropped_after_rows():
    frame = EXAMPLE.assign(
        f=pd.Categorical(EXAMPLE["f"], categories=["z", "c", "b", "a"]),
        x=EXAMPLE["x"].where(EXAMPLE["f"] != "b"),
    )
    m = model_matrices("y ~ x + f + (1 | s) + (1 | g:f)", frame)
    assert m.fixed.names == ("(Intercept)", "x", "fa")
    assert not any("b" in level for level in m.factors[0].levels)


def test_structures_over_levels_read_numbers_as_levels(monkeypatch):
    monkeypatch.setattr(Diagonal, "over_levels", True)
    m = model_matrices("y ~ x + diag(0 + k | g)", EXAMPLE)
    assert m.terms[0].column_names == ("k1", "k2", "k3", "k4")
    assert m.terms[0].structure == "diag"


def test_double_bar_with_a_factor_says_so():
    with pytest.warns(FormulaWarning, match=r"diag\(f \| s\)"):
        m = model_matrices("y ~ x + (x + f || s)", EXAMPLE)
    assert [t.column_names for t in m.terms] == [("(Intercept)",), ("x",), ("fa", "fb", "fc")]
    assert [t.name for t in m.terms] == ["s", "s.1", "s.2"]
    assert len(m.factors) == 1


# ------------------------------------------------------------------------------- order and groups


def test_terms_keep_their_order_when_levels_do_not_increase():
    m = model_matrices("y ~ 1 + (1 | s) + (1 | g) + (0 + x | g) + (1 | f)", EXAMPLE)
    assert [t.name for t in m.terms] == ["s", "g", "g.1", "f"]


def test_reordering_reverses_ties():
    m = model_matrices("y ~ 1 + (1 | g) + (0 + x | g) + (1 | s)", EXAMPLE)
    assert [(t.name, t.column_names) for t in m.terms] == [
        ("s", ("(Intercept)",)), ("g", ("x",)), ("g.1", ("(Intercept)",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([10, 9, 10, 9, 100, 100], ["9", "10", "100"]),
        ([10.0, 9, 10, 9, 0.5, 0.5], ["0.5", "9", "10"]),
        (["10", "9", "10", "9", "100", "100"], ["10", "100", "9"]),
        ([True, False, True, False, True, True], ["FALSE", "TRUE"]),
        (np.array([2**62, -(2**62), 2**62, 5, 5, 5]), [str(-(2**62)), "5", str(2**62)]),
        (np.array([250, 3, 250, 3, 7, 7], dtype=np.uint8), ["3", "7", "250"]),
        (np.array([-128, 127, 127, -128, 0, 0], dtype=np.int8), ["-128", "0", "127"]),
        (pd.Categorical(list("babacc"), categories=list("dcba")), ["c", "b", "a"]),
        (pd.to_datetime(["2020-02-01", "2020-01-01"] * 3), ["2020-01-01", "2020-02-01"]),
    ],
)
def test_levels_of_groups(values, levels):
    m = model_matrices("y ~ 1 + (1 | g)", {"y": np.arange(6.0), "g": values})
    factor = m.factors[0]
    assert factor.levels == levels
    assert factor.codes.dtype == np.int32
    assert factor.n_levels == len(levels)
    if not isinstance(values, pd.DatetimeIndex):
        assert [levels[code] for code in factor.codes] == [written(value) for value in values]


def written(value):
    if isinstance(value, bool):
        return str(value).upper()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_combinations_that_occur_are_levels():
    m = model_matrices("y ~ 1 + (1 | h/f)", EXAMPLE[(EXAMPLE.h == "p") | (EXAMPLE.f == "b")])
    assert m.factors[0].label == "f:h"
    assert m.factors[0].levels == ["a:p", "b:p", "b:q", "c:p"]


# ----------------------------------------------------------------------------------- kinds of frame


def mixed_frame():
    frame = EXAMPLE.drop(columns="o").assign(
        c=pd.Categorical.from_codes(EXAMPLE["s"] % 3, categories=["lo", "mid", "hi"])
    )
    frame.loc[3, "x"] = np.nan
    frame.loc[7, "f"] = None
    return frame


def to_polars(frame):
    pl = pytest.importorskip("polars")
    text = frame["c"].astype(str).tolist()
    columns = {name: frame[name].to_numpy() for name in frame if name not in ("c", "f")}
    columns["f"] = [None if pd.isna(v) else v for v in frame["f"]]
    return pl.DataFrame(columns).with_columns(
        pl.Series("c", text, dtype=pl.Enum(["lo", "mid", "hi"]))
    )


def to_arrow(frame):
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return pa.concat_tables([table.slice(0, 25), table.slice(25)])


def to_duckdb(frame):
    pytest.importorskip("pyarrow")
    return pytest.importorskip("duckdb").sql("select * from frame")


def nullable_arrow(frame):
    pytest.importorskip("pyarrow")
    return frame.convert_dtypes(dtype_backend="pyarrow")


FRAMES = {
    "dict of series": dict,
    "dict of arrays": lambda d: {k: d[k].array if k == "c" else d[k].to_numpy() for k in d},
    "dict of lists": lambda d: {k: d[k] if k == "c" else d[k].tolist() for k in d},
    "objects": lambda d: d.astype(dict.fromkeys(["y", "x", "b", "k", "f", "s"], object)),
    "nullable": lambda d: d.convert_dtypes(),
    "arrow types": nullable_arrow,
    "small types": lambda d: d.astype({"k": np.int8, "s": np.uint16}),
    "polars": to_polars,
    "polars lazy": lambda d: to_polars(d).lazy(),
    "pyarrow": to_arrow,
    "duckdb": to_duckdb,
}


@pytest.mark.parametrize("kind", FRAMES)
def test_all_frames_give_the_same_matrices(kind):
    formula = "y ~ x*f + k + b + c + (x | s) + (1 | g:c)"
    expected = model_matrices(formula, mixed_frame(), weights="z")
    m = model_matrices(formula, FRAMES[kind](mixed_frame()), weights="z")
    assert m.fixed.names == expected.fixed.names
    np.testing.assert_array_equal(m.X, expected.X)
    np.testing.assert_array_equal(m.y, expected.y)
    np.testing.assert_array_equal(m.weights, expected.weights)
    np.testing.assert_array_equal(m.rows, np.delete(np.arange(60), [3, 7]))
    for ours, theirs in zip(m.factors, expected.factors, strict=True):
        np.testing.assert_array_equal(ours.codes, theirs.codes)
        assert ours.levels == theirs.levels


def test_no_column_is_copied_without_need():
    frame = pd.DataFrame({"y": np.arange(6.0), "x": np.arange(6.0), "g": list("aabbcc")})
    if pd.__version__ >= "3":  # copy-on-write guards the columns
        y = model_matrices("y ~ x + (1 | g)", frame).y
        assert np.shares_memory(y, frame["y"].to_numpy())


def test_columns_of_a_dictionary_are_copied_and_no_others():
    frame = {"y": np.arange(6.0), "x": np.arange(6.0), "g": list("aabbcc"), "junk": np.ones(6)}
    m = model_matrices("y ~ x + (1 | g)", frame)
    assert not np.shares_memory(m.y, frame["y"])
    assert set(m.data.table.columns) == {"y", "x", "g"}


def test_only_named_columns_are_touched():
    frame = EXAMPLE.assign(junk=[object()] * 60)
    assert model_matrices("y ~ x + (1 | s)", frame).nobs == 60


# ------------------------------------------------------------------------ blocks, new data, saving

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


# ------------------------------------------------------------------- rows, weights, offsets, subset


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
    with pytest.raises(FormulaError, match=r"'mean' in mean\(x\).*use one of.*env="):
        model_matrices("y ~ mean(x) + (1 | s)", EXAMPLE)


def test_missing_rows_in_the_corpus_are_counted():
    m = model_matrices(SLEEP, load_data("sleepstudy"))
    assert (m.nobs, m.rows, m.n_input) == (180, None, 180)


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


TRANSFORMS = [
    "scale(x)",
    "center(x)",
    "poly(x, 2)",
    "bs(x, df = 5)",
    "ns(x, df = 3)",
    "cr(x, df = 4)",
]


@pytest.mark.parametrize("call", TRANSFORMS)
def test_transforms_learn_from_all_rows_that_have_their_variable(call):
    """As in R: also from rows that a missing response or `subset` leaves out."""
    frame = EXAMPLE.assign(x=EXAMPLE["x"].where(EXAMPLE.index != 7))
    complete = model_matrices(f"y ~ {call} + (1 | s)", frame)
    gaps = frame.assign(y=frame["y"].where(frame.index % 5 != 2))
    m = model_matrices(f"y ~ {call} + (1 | s)", gaps, subset="z > 0.8")
    kept = (gaps["z"] > 0.8) & gaps["y"].notna() & gaps["x"].notna()
    np.testing.assert_array_equal(m.rows, np.flatnonzero(kept))
    np.testing.assert_array_equal(m.X, complete.X[kept[frame["x"].notna()]])
    assert m.spec.states == complete.spec.states


def test_transforms_may_be_undefined_in_rows_that_are_not_used():
    m = model_matrices("y ~ scale(log(x)) + (1 | s)", EXAMPLE, subset="x > 0")
    positive = np.log(EXAMPLE["x"][EXAMPLE["x"] > 0])
    np.testing.assert_allclose(m.X[:, 1], (positive - positive.mean()) / positive.std())
    with pytest.raises(DataError, match=r"log\(x\) is not finite"):
        model_matrices("y ~ scale(log(x)) + (1 | s)", EXAMPLE)
