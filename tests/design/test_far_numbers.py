"""Times, positions and covariates at the ends of the range of numbers: an answer, or an error."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

TIMES = (
    [0.0, 5e-324, 1.0, 2.0, 3.0],
    [-1.7e308, 0.0, 1.0, 2.0, 1.7e308],
    [0.0, 1e-300, 1e300, 2e300, 1.7e308],
    [5e-324, 1e-323, 1.5e-323, 2e-323, 2.5e-323],
    [-1.7e308, -8e307, 0.0, 8e307, 1.7e308],
    [0.0, 1e-17, 1.0, 2.0, 3.0],
    [2.0**60, 2.0**61, 2.0**62, 2.0**63, 2.0**64],
    [-(2.0**63), 0.0, 1.0, 2.0, 2.0**63],
    [2.0**52 + i for i in range(5)],
    [1e90, 2e90, 3e90, 4e90, 5e90],
)
RANDOM = ("ar1(0 + t | g)", "toep(0 + t | g)", "(t | g)")
RESIDUAL = (
    {"residual": mx.AR1("t", "g")},
    {"residual": mx.CAR1("t", "g")},
    {"residual": mx.Toeplitz("t", "g")},
    {"residual": mx.Exponential("t", "g")},
    {"variance": mx.VarPower("t")},
    {"variance": mx.VarExp("t")},
)


@pytest.mark.parametrize("times", TIMES, ids=str)
def test_only_errors_of_the_package(times):
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 5), "y": rng.normal(size=40)})
    data["t"] = np.tile(times, 8)
    calls = [lambda r=r: mx.lmer(f"y ~ 1 + {r}", data) for r in RANDOM]
    calls += [lambda o=o: mx.gls("y ~ 1", data, **o) for o in RESIDUAL]
    answers = 0
    for call in calls:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", mx.MixedModelWarning)
            try:
                str(call().summary())
                answers += 1
            except mx.MixedModelError as error:
                assert str(error)
    assert answers > 0 or max(np.abs(times)) > 1e100


def test_whole_numbers_that_cannot_be_told_apart():
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 5), "y": np.arange(40.0) ** 0.5})
    data["t"] = np.tile(2.0**60 + 256.0 * np.arange(5), 8)
    with pytest.raises(mx.DataError, match=r"beyond 2\^53.*count from the first"):
        mx.gls("y ~ 1", data, residual=mx.AR1("t", "g"))
    with pytest.raises(mx.DataError, match="change its unit"):
        mx.gls("y ~ 1", data.assign(t=data["t"] * 1e100), residual=mx.CAR1("t", "g"))


def test_a_toeplitz_structure_of_few_far_visits():
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 3), "y": np.arange(24.0) ** 0.5})
    data["t"] = np.tile([0.0, 1.0, 1e15], 8)
    with pytest.raises(mx.DataError, match=r"spans 1,000,000,000,000,001 steps of 1"):
        mx.gls("y ~ 1", data, residual=mx.Toeplitz("t", "g"))
    big = data.assign(t=2.0**52 + np.tile([0.0, 1.0, 2.0], 8))
    small = data.assign(t=np.tile([0.0, 1.0, 2.0], 8))
    fits = [mx.gls("y ~ 1", rows, residual=mx.Toeplitz("t", "g")) for rows in (small, big)]
    assert fits[0].criterion == pytest.approx(fits[1].criterion, abs=1e-9)


@pytest.mark.parametrize(
    ("of_y", "of_x"), [(1.0, 1e-100), (1e100, 1e-100), (1e75, 1e-75), (1e77, 1e-77)]
)
def test_standard_deviations_whose_squares_are_no_numbers(of_y, of_x):
    """Each column is in range, but a slope is in units of y / x."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    own, slopes = rng.normal(size=(2, 20))
    y = 1.0 + x + own[g] + slopes[g] * x + rng.normal(size=200)
    data = pd.DataFrame({"y": y * of_y, "x": x * of_x, "g": g})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if of_y / of_x < 1e152:
            fit = mx.lmer("y ~ x + (x | g)", data)
            plain = mx.lmer("y ~ x + (x | g)", data / [of_y, of_x, 1.0])
            scaled = fit.varcorr.to_frame()["sdcor"] / plain.varcorr.to_frame()["sdcor"]
            np.testing.assert_allclose(scaled, [of_y, of_y / of_x, 1.0, of_y], rtol=1e-6)
            assert str(fit.summary())
        else:
            with pytest.raises(mx.DataError, match=r"of x by g is about 10.*another unit"):
                mx.lmer("y ~ x + (x | g)", data)


def exactly_less(y: np.ndarray, c: float, x: np.ndarray) -> np.ndarray:
    """y - c x (n,) in rational arithmetic."""
    return np.array(
        [float(Fraction(a) - Fraction(c) * Fraction(b)) for a, b in zip(y, x, strict=True)]
    )


@pytest.mark.parametrize("part", ["intercept", "slope", "batches", "AR1", "levels"])
@pytest.mark.parametrize("far", [1e6, 1e9, 1e11])
def test_a_response_far_from_zero_loses_nothing_beside_its_fixed_part(far, part):
    rng = np.random.default_rng(1)
    g, t = np.repeat(np.arange(24), 10), np.tile(np.arange(10), 24)
    data = pd.DataFrame({"x": rng.normal(size=240), "g": g, "t": t, "f": t.astype(str)})
    x = data["x"].to_numpy() if part == "slope" else np.ones(240)
    y = far * x + rng.normal(size=24)[g] + rng.normal(size=240)
    options = {"residual": mx.AR1("t", "g")} if part == "AR1" else {}
    formula = "y ~ 0 + f + x + (1 | g)" if part == "levels" else "y ~ x + (1 | g)"

    def fitted(response):
        frame = data.assign(y=response)
        parts = lambda: iter([frame[:100], frame[100:]])  # noqa: E731
        return mx.lmer(
            formula, parts if part == "batches" else frame, progress=False, **options
        )

    there, here = fitted(y), fitted(exactly_less(y, far, x))
    assert there.criterion == pytest.approx(here.criterion, abs=1e-10)
    np.testing.assert_allclose(there.theta, here.theta, rtol=1e-8)
    np.testing.assert_allclose(there.bse, here.bse, rtol=1e-8)
