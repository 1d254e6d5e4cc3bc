"""What a response of many is given: its own digits, what a single fit is given, and why if none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import mixlm_sparse as mx

SILENT = mx.Control(warn=False)


@pytest.fixture
def in_numpy():
    """Sums of one process in one form: what is loaded meanwhile changes last digits."""
    mx.use_compiled(False)
    yield
    mx.use_compiled(None)


def _world(n: int = 97) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(20261)
    data = pd.DataFrame(
        {
            "g": rng.integers(0, 9, n),
            "h": rng.choice(list("abcd"), n),
            "x": rng.normal(2.0, 0.5, n),
            "w": rng.uniform(0.2, 4.0, n),
        }
    )
    Y = rng.normal(size=(n, 13)) + rng.normal(size=(9, 13))[data["g"]] + data[["x"]].to_numpy()
    return data, Y


@pytest.mark.parametrize(
    "formula", ["~ 1 + (1 | g)", "~ x + (x | g)", "~ x + (1 | g) + (1 | h)", "~ 1 + (1 | g/h)"]
)
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.usefixtures("in_numpy")
def test_the_digits_of_a_response_do_not_depend_on_those_beside_it(formula, weights):
    data, Y = _world()

    def numbers(columns: list[int]) -> np.ndarray:
        many = mx.lmer_many(formula, data, Y[:, columns], weights=weights, control=SILENT)
        return np.column_stack([many.criterion, many.sigma, many.theta, many.beta, many.bse])

    together = numbers(list(range(13)))
    for columns in ([4], [12], [3, 7], [5, 0, 12], list(range(12, -1, -1))):
        np.testing.assert_array_equal(numbers(columns), together[columns])


@pytest.mark.parametrize(
    ("scale", "weight", "message"),
    [
        (1e-170, 1.0, "so small"),
        (1e-158, 1.0, "so small"),
        (1e-148, 1e-12, "so small"),
        (1e150, 1e12, "range of numbers"),
        (1e155, 1.0, "range of numbers"),
    ],
)
def test_a_response_whose_squares_are_no_numbers_is_told_and_disturbs_none(scale, weight, message):
    data, Y = _world()
    data["w"] = weight
    usual = mx.lmer_many("~ x + (1 | g)", data, Y[:, :2], weights="w", control=SILENT)
    odd = np.column_stack([Y[:, 0], Y[:, 2] * scale, Y[:, 1]])
    for responses in (odd, sp.csc_array(odd), pd.DataFrame(odd, columns=["a", "b", "c"])):
        many = mx.lmer_many("~ x + (1 | g)", data, responses, weights="w", control=SILENT)
        assert list(many.status)[1] == "failed"
        assert message in many.message[1]
        assert np.isnan(many.sigma[1])
        np.testing.assert_allclose(many.criterion[[0, 2]], usual.criterion, rtol=1e-12)
    fit = mx.lmer("y ~ x + (1 | g)", data.assign(y=Y[:, 0]), weights="w")
    with pytest.raises(mx.DataError, match=message):
        fit.refit(odd[:, 1])
    with pytest.raises(mx.DataError, match=r"so small|range"):  # as a fit of it alone says
        mx.lmer("y ~ x + (1 | g)", data.assign(y=odd[:, 1]), weights="w")


def test_sparse_responses_of_zeros_alone_are_constant_whatever_the_predictors():
    data, Y = _world()
    data["near"] = data["x"] + 1e-7 * Y[:, 5]  # a design whose products are taken row by row
    Y = np.where(Y > 2.0, Y, 0.0)
    Y[:, 1] = 0.0
    for formula in ("~ x + (1 | g)", "~ x + near + (1 | g)"):
        dense = mx.lmer_many(formula, data, Y, control=SILENT)
        stored = mx.lmer_many(formula, data, sp.csr_array(Y), control=SILENT)
        assert list(dense.status) == list(stored.status)
        assert stored.status[1] == "perfect fit"


@pytest.mark.parametrize(
    ("formula", "reml"),
    [
        ("~ factor(g) + (1 | g)", True),  # of fixed effects REML alone knows nothing
        ("~ x + factor(g) + (x | g)", True),
        ("~ f + (1 | g) + (1 | f)", True),
        ("~ x + (1 | g) + (1 | same)", True),
        ("~ x + (1 | g) + (1 | same)", False),
        ("~ x + (x + I(2 * x) | g)", False),
    ],
)
def test_errors_that_the_design_does_not_determine_are_nan_as_those_of_one_fit(formula, reml):
    data, Y = _world()
    data["same"], data["f"] = 7 * data["g"] + 1, data["g"] % 3
    data["f"] = data["f"].map(str)
    with pytest.warns(mx.ConvergenceWarning, match="the data do not determine") as said:
        many = mx.lmer_many(formula, data, Y[:, :5], reml=reml)
    assert len(said) == 1
    for i in range(5):
        fit = mx.lmer(f"y {formula}", data.assign(y=Y[:, i]), reml=reml, control=SILENT)
        assert not fit.identification.complete
        np.testing.assert_allclose(many.bse[i], fit.bse, rtol=1e-4)
        assert fit.identification.sentence in many.message[i]


def test_errors_are_nan_where_nothing_is_left_to_the_residuals():
    data, Y = _world()
    means = Y[:9, 0][data["g"]]
    many = mx.lmer_many("~ x + h + (1 | g)", data, np.column_stack([means, Y[:, 1]]))
    fit = mx.lmer("y ~ x + h + (1 | g)", data.assign(y=means), control=SILENT)
    assert many.status == ("no residual", "converged")
    np.testing.assert_allclose(many.bse[0], fit.bse, rtol=1e-6)
    assert np.isnan(many.bse[0, 1:]).all()
    assert np.isfinite(many.bse[1]).all()


def test_dropped_columns_are_told_once():
    data, Y = _world()
    with pytest.warns(mx.RankDeficiencyWarning, match=r"I\(2 \* x\)") as said:
        mx.lmer_many("~ x + I(2 * x) + (1 | g)", data, Y)
    assert len(said) == 1


@pytest.mark.parametrize("library", ["nullable", "polars", "pyarrow"])
def test_responses_are_a_frame_of_any_library(library):
    data, Y = _world()
    frame = pd.DataFrame(Y[:, :3], columns=["a 1", "β", "c"])
    frame.loc[4, "β"] = np.nan
    frame["n"] = (Y[:, 3] > 0.0).astype(int)
    expected = mx.lmer_many("~ x + (1 | g)", data, frame, control=SILENT)
    if library == "nullable":
        given = frame.convert_dtypes()
    else:
        module = pytest.importorskip(library)
        given = module.from_pandas(frame) if library == "polars" else module.table(dict(frame))
    many = mx.lmer_many("~ x + (1 | g)", data, given, control=SILENT)
    assert many.names == tuple(frame)
    np.testing.assert_array_equal(many.nobs, expected.nobs)
    np.testing.assert_allclose(many.criterion, expected.criterion, rtol=1e-12)
