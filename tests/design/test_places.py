"""Structures over times: what stands left of the bar must have places in time."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support.dense_structures import dense_fit

QUIET = mx.Control(warn=False)


@pytest.mark.parametrize("structure", ["ar1", "toep"])
def test_an_intercept_has_no_place_among_times(structure) -> None:
    data = mx.datasets.load("Orthodont")
    with pytest.raises(mx.FormulaError, match=rf"write {structure}\(0 \+ age \| Subject\)"):
        mx.lmer(f"distance ~ Sex + {structure}(age | Subject)", data)


def test_times_that_are_equally_far_apart_may_have_any_unit() -> None:
    data = mx.datasets.load("Orthodont")
    formula = "distance ~ Sex + ar1(0 + age | Subject)"
    fits = [
        mx.lmer(formula, data.assign(age=data["age"] * unit), control=QUIET) for unit in (1.0, 0.1)
    ]
    assert fits[0].criterion == pytest.approx(fits[1].criterion, abs=1e-8)


PLACES = np.array([0, 1, 3, 4])  # of the levels that have rows


def panel(seed: int = 1, groups: int = 25) -> pd.DataFrame:
    """An autoregressive process by group, seen twice at each of four times; one has no rows."""
    rng = np.random.default_rng(seed)
    lag = np.abs(np.subtract.outer(PLACES, PLACES))
    effects = 1.5 * rng.normal(size=(groups, 4)) @ np.linalg.cholesky(0.6**lag).T
    g, t = (np.tile(values.ravel(), 2) for values in np.meshgrid(range(groups), range(4)))
    data = pd.DataFrame({"g": g, "t": PLACES[t] + 1, "x": rng.normal(size=g.size)})
    data["y"] = data["x"] + effects[g, t] + rng.normal(size=g.size)
    names = pd.Index(["a", "b", "c", "d", "e"])
    data["f"] = pd.Categorical(names[PLACES[t]], categories=names)
    return data.sample(frac=0.8, random_state=seed).reset_index(drop=True)


def dense_criterion(data: pd.DataFrame, sd: np.ndarray, phi: float, places: np.ndarray) -> float:
    """The REML criterion of y ~ x, sd relative to sigma for each time, from dense matrices."""
    at = np.searchsorted(PLACES + 1, data["t"])
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()[None]
    lag = np.abs(np.subtract.outer(places[at], places[at]))
    V = np.eye(len(data)) + same * np.outer(sd[at], sd[at]) * phi**lag
    X = np.column_stack([np.ones(len(data)), data["x"]])
    return dense_fit(data["y"].to_numpy(), X, V, reml=True).criterion


@pytest.mark.parametrize("inside", ["0 + f | g", "0 + t | g", "0 + I(10 * t) | g"])
def test_a_level_without_rows_is_a_step_in_time(inside) -> None:
    data = panel()
    fit = mx.lmer(f"y ~ x + ar1({inside})", data)
    sd, phi = fit.theta
    assert fit.criterion == pytest.approx(
        dense_criterion(data, np.full(4, sd), phi, PLACES), abs=1e-8
    )
    for other in (phi - 0.02, phi + 0.02):
        assert dense_criterion(data, np.full(4, sd), other, PLACES) > fit.criterion
    closed = mx.lmer("y ~ x + ar1(0 + factor(t) | g)", data)
    assert closed.criterion == pytest.approx(
        dense_criterion(data, np.full(4, closed.theta[0]), closed.theta[1], np.arange(4)), abs=1e-8
    )
    assert abs(closed.criterion - fit.criterion) > 1e-3


def test_gaps_beside_several_variances() -> None:
    data = panel(2)
    fit = mx.lmer("y ~ x + ar1(0 + f | g, hom = FALSE)", data, control=QUIET)
    assert fit.criterion == pytest.approx(
        dense_criterion(data, fit.theta[:4], fit.theta[4], PLACES), abs=1e-8
    )
    gradient = mx.deviance_function("y ~ x + ar1(0 + f | g, hom = FALSE)", data).gradient(
        np.array([0.5, 1.0, 1.5, 0.8, -0.4])
    )
    for i in range(5):
        step = 1e-5 * (np.arange(5) == i)
        ends = [
            dense_criterion(data, at[:4], at[4], PLACES)
            for at in (np.array([0.5, 1.0, 1.5, 0.8, -0.4]) + s * step for s in (1.0, -1.0))
        ]
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-4)


def test_even_steps_do_not_show_a_sign() -> None:
    data = panel(3)
    data = data[data["t"].isin([1, 4, 5])].assign(t=lambda d: d["t"].map({1: 1, 4: 3, 5: 5}))
    data["f"] = pd.Categorical(data["t"], categories=[1, 2, 3, 4, 5])
    fit = mx.lmer("y ~ x + ar1(0 + f | g)", data, control=QUIET)
    twice = mx.lmer("y ~ x + ar1(0 + t | g)", data, control=QUIET)  # numbers have a common unit
    assert fit.criterion == pytest.approx(twice.criterion, abs=1e-7)
    assert 0.0 <= fit.theta[1] <= 1.0
    assert fit.theta[1] ** 2 == pytest.approx(twice.theta[1], rel=1e-4)


def test_levels_before_the_first_and_after_the_last_do_not_count() -> None:
    data = panel(4)
    wide = data.assign(f=data["f"].cat.set_categories(list("zyabcdex")))
    fits = [mx.lmer("y ~ x + ar1(0 + f | g)", frame) for frame in (data, wide)]
    assert fits[0].criterion == pytest.approx(fits[1].criterion, abs=1e-9)


def test_a_fit_with_gaps_is_saved_and_predicts(tmp_path) -> None:
    data = panel(5)
    fit = mx.lmer("y ~ x + ar1(0 + f | g)", data)
    fit.save(tmp_path / "fit.mixlm")
    for again in (mx.load(tmp_path / "fit.mixlm"), mx.load(tmp_path / "fit.mixlm", data=data)):
        assert again.criterion == fit.criterion
        np.testing.assert_allclose(again.predict(data.head(9)), fit.predict(data.head(9)))
        assert again.varcorr["g"].iloc[0, 2] == pytest.approx(fit.varcorr["g"].iloc[0, 2])


def test_batches_know_the_gaps() -> None:
    data = panel(6)
    whole = mx.lmer("y ~ x + ar1(0 + f | g)", data)
    parts = mx.lmer("y ~ x + ar1(0 + f | g)", lambda: iter([data[:60], data[60:]]))
    assert parts.criterion == pytest.approx(whole.criterion, abs=1e-8)


def test_toeplitz_cannot_skip_a_time() -> None:
    with pytest.raises(mx.DataError, match=r"between b and d of 'f'.*remove_unused_categories"):
        mx.lmer("y ~ x + toep(0 + f | g)", panel())
    with pytest.raises(mx.DataError, match=r"factor\(\.\.\.\)"):
        mx.lmer("y ~ x + toep(0 + t | g)", panel())
    closed = panel().assign(f=lambda d: d["f"].cat.remove_unused_categories())
    assert mx.lmer("y ~ x + toep(0 + f | g)", closed, control=QUIET).converged


def test_numbers_that_are_no_equal_steps_are_refused() -> None:
    data = panel()
    data["t"] = data["t"].map({1: 0.0, 2: 0.31, 4: 1.7, 5: 2.02})
    with pytest.raises(mx.DataError, match=r"equally spaced.*0, 0\.31.*factor"):
        mx.lmer("y ~ x + ar1(0 + t | g)", data)


@pytest.mark.parametrize(
    ("inside", "instead"),
    [("0 + f:arm | g", r"ar1\(0 \+ f \| arm:g\)"), ("0 + f + arm | g", r"ar1\(0 \+ f \| arm:g\)")],
)
def test_a_series_does_not_run_across_arms(inside, instead) -> None:
    data = panel().assign(arm=lambda d: np.where(d["g"] % 2, "A", "B"))
    with pytest.raises(mx.FormulaError, match=f"write {instead}"):
        mx.lmer(f"y ~ x + ar1({inside})", data)
    apart = mx.lmer("y ~ x + ar1(0 + f | arm:g)", data)
    assert apart.criterion == pytest.approx(
        mx.lmer("y ~ x + ar1(0 + f | g)", data).criterion, abs=1e-7
    )


# -- text -----------------------------------------------------------------------------------------


def counted() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"g": np.repeat(np.arange(30), 11), "k": np.tile(np.arange(1, 12), 30)})
    e = rng.normal(size=(30, 11))
    for j in range(1, 11):
        e[:, j] += 0.8 * e[:, j - 1]
    data["y"] = e.ravel() + 0.1 * rng.normal(size=330)
    data["t"] = "t" + data["k"].astype(str)
    return data


def test_numbers_in_texts_are_in_their_order() -> None:
    data = counted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_text = mx.gls("y ~ 1", data, residual=mx.AR1(time="t", group="g"))
        by_number = mx.gls("y ~ 1", data, residual=mx.AR1(time="k", group="g"))
        terms = [mx.lmer(f"y ~ 1 + ar1(0 + {name} | g)", data) for name in ("t", "k")]
    assert by_text.criterion == pytest.approx(by_number.criterion, abs=1e-8)
    assert terms[0].criterion == pytest.approx(terms[1].criterion, abs=1e-7)
    assert list(terms[0].ranef()["g"].columns)[-2:] == ["tt10", "tt11"]
    ahead = data[data["g"] == 3].iloc[-1:]
    np.testing.assert_allclose(terms[0].predict(ahead), terms[1].predict(ahead), rtol=1e-5)
    un = mx.gls("y ~ 1", data[data["k"].isin([2, 9, 10])], residual=mx.Unstructured("t", "g"))
    assert un.residual_structure.attrs["visits"] == {1: "t2", 2: "t9", 3: "t10"}


def test_the_order_of_words_is_told() -> None:
    data = counted()
    names = {1: "screening", 2: "baseline", 3: "month 1", 4: "month 10", 5: "month 2"}
    data = data[data["k"] <= 5].assign(t=lambda d: d["k"].map(names))
    told = "baseline < month 1 < month 2 < month 10 < screening: make the column a categorical"
    with pytest.warns(mx.FormulaWarning, match=told):
        mx.gls("y ~ 1", data, residual=mx.AR1(time="t", group="g"))
    with pytest.warns(mx.FormulaWarning, match=told):
        mx.lmer("y ~ 1 + ar1(0 + t | g)", data)
    order = ["screening", "baseline", "month 1", "month 2", "month 10"]
    said = data.assign(t=pd.Categorical(data["t"], categories=order))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mx.gls("y ~ 1", said, residual=mx.AR1(time="t", group="g"))
        # without an order there is none to be told
        mx.gls("y ~ 1", data, residual=mx.Unstructured(time="t", group="g"))
