"""Transforms: R's values, splines and polynomials, what they learn and from which rows."""

from __future__ import annotations

import numpy as np
import patsy
import pytest

from mixlm_sparse.common.errors import DataError, FormulaError
from mixlm_sparse.design.build import model_matrices
from tests.design.example import EXAMPLE

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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("cr(x, df = 2)", "use at least 3"),
        ("cr(x, df = 1, constraints = 'center')", "use at least 2"),
        ("cr(x, knots = c(0.5, 0.5 + 1e-14))", "closer than rounding"),
        ("cr(x, knots = c(0, 1e-320), lower_bound = -1)", "closer than rounding"),
    ],
)
def test_cubic_splines_need_knots_that_differ(call, message):
    with pytest.raises(FormulaError, match=message):
        model_matrices(f"y ~ {call} + (1 | s)", EXAMPLE)


def test_polynomials_far_from_the_origin_lose_no_digits():
    frame = EXAMPLE.assign(year=2000.0 + EXAMPLE["k"] + EXAMPLE["x"])
    X = model_matrices("y ~ poly(year, 4) + (1 | s)", frame).X[:, 1:]
    np.testing.assert_allclose(X.T @ X, np.eye(4), atol=1e-10)


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
