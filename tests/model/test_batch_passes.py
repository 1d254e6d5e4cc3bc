"""Rows in batches: passes that see other rows, and columns whose type differs between batches."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
N = 600


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"g": np.repeat(np.arange(30), 20), "x": rng.normal(size=N), "f": rng.choice([*"abc"], N)}
    )
    return frame.assign(y=rng.normal(size=30)[frame["g"]] + rng.normal(size=N))


def cut(frame, pieces=4):
    return [frame.iloc[i::pieces] for i in range(pieces)]


class Counted:
    """A function that gives batches of a frame made anew at every call."""

    def __init__(self, frame_of):
        self.calls, self.frame_of = 0, frame_of

    def __call__(self):
        self.calls += 1
        return iter(cut(self.frame_of(self.calls)))


def used(formula, source):
    fit = mx.lmer(formula, source, control=QUIET)
    return fit, fit.resid


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ poly(x, 2) + f + (1 | g)"])
@pytest.mark.parametrize(
    "other",
    [
        lambda d, i: d.sample(frac=0.5, random_state=i),
        lambda d, i: d.iloc[i:],
        lambda d, i: pd.concat([d, d.iloc[:i]]),
        lambda d, i: d.assign(y=d["y"] + 1e-9 * i),
        lambda d, i: d.assign(x=np.where(d["x"] > 2.0, d["x"] + i, d["x"])),
        lambda d, i: d.assign(g=np.roll(d["g"], 20 * i)),
        lambda d, i: d.assign(g=d["g"].sample(frac=1.0, random_state=i).to_numpy()),
        lambda d, i: d.assign(y=d["y"].mask(d.index == i)),
    ],
)
def test_a_function_that_gives_other_rows(data, formula, other):
    with pytest.raises(mx.DataError, match=r"data are not th(e same in every pass|ose that)"):
        used(formula, Counted(lambda call: other(data, call)))


def test_levels_that_move(data):
    moved = Counted(lambda call: data.assign(f=np.roll(data["f"], call)))
    with pytest.raises(mx.DataError, match="not the same in every pass"):
        used("y ~ f + (1 | g)", moved)


@pytest.mark.parametrize(
    "same",
    [
        lambda d, i: d,
        lambda d, i: d.assign(g=d["g"].astype(float) if i % 2 else d["g"]),
        lambda d, i: d.assign(f=d["f"].astype("category") if i % 2 else d["f"].astype(object)),
        lambda d, i: d[[*d.columns][::-1]].assign(unused=i),
    ],
)
def test_a_function_that_gives_the_same_rows(data, same):
    formula = "y ~ poly(x, 2) + f + (1 | g)"
    fit, resid = used(formula, Counted(lambda call: same(data, call)))
    whole = mx.lmer(formula, data, control=QUIET)
    assert fit.criterion == pytest.approx(whole.criterion, abs=1e-8)
    np.testing.assert_allclose(np.sort(resid), np.sort(whole.resid), atol=1e-8)


def test_rows_in_another_order(data):
    """Products know no order; residuals are of two passes, and those of a stream of one."""
    formula = "y ~ poly(x, 2) + f + (1 | g)"
    whole = mx.lmer(formula, data, control=QUIET)
    fit = mx.lmer(
        formula, Counted(lambda i: data.sample(frac=1.0, random_state=i)), control=QUIET
    )
    assert fit.criterion == pytest.approx(whole.criterion, abs=1e-8)
    with pytest.raises(mx.DataError, match="in another order"):
        _ = fit.resid
    resid = pd.concat(list(fit.stream()))[".resid"]
    np.testing.assert_allclose(np.sort(resid), np.sort(whole.resid), atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=4, max_size=4))
def test_batches_may_be_cut_elsewhere(cuts):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": np.arange(60) % 6, "x": rng.normal(size=60)})
    frame["y"] = rng.normal(size=60).round(1)
    frame.loc[::7, "y"] = np.nan
    frame["when"] = pd.to_datetime("2024-01-01") + pd.to_timedelta(frame["g"], "D")
    calls = iter(cuts * 2)

    def batches():
        return iter([frame.iloc[rows] for rows in np.array_split(np.arange(60), next(calls))])

    fit, _ = used("y ~ x + (1 | when)", batches)
    assert fit.nobs == frame["y"].notna().sum()


def test_whole_numbers_keep_their_names(data):
    parts = cut(data)
    parts[1] = parts[1].assign(g=parts[1]["g"].astype(float))
    for order in ([0, 1, 2, 3], [1, 0, 2, 3]):
        fit = mx.lmer("y ~ x + (1 | g)", iter([parts[i] for i in order]), control=QUIET)
        assert fit.ranef()["g"].index.tolist() == list(range(30))
        assert fit.ranef()["g"].index.dtype == np.int64
    parts[1] = parts[1].assign(g=parts[1]["g"] + 0.5)
    fit = mx.lmer("y ~ x + (1 | g)", iter(parts), control=QUIET)
    assert fit.ranef()["g"].index[1] in (0.5, 1.0)


@pytest.mark.parametrize("column", ["f", "g"])
def test_a_first_batch_without_a_cell(data, column):
    text = data.assign(g=data["g"].map("s{}".format))
    parts = cut(text)
    parts[0] = parts[0].assign(**{column: np.nan})
    whole = mx.lmer("y ~ x + f + (1 | g)", pd.concat(parts[1:]), control=QUIET)
    fit = mx.lmer("y ~ x + f + (1 | g)", lambda: iter(parts), control=QUIET)
    assert fit.fixef.index.tolist() == whole.fixef.index.tolist()
    assert fit.criterion == pytest.approx(whole.criterion, abs=1e-8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.astype(str), "number in some batches and text in others"),
        (lambda x: x > 0, "number in some batches and true or false in others"),
    ],
)
def test_another_type_is_told_in_words_of_batches(data, change, words):
    parts = cut(data)
    parts[2] = parts[2].assign(x=change(parts[2]["x"]))
    with pytest.raises(mx.DataError, match=f"column 'x' is {words}: give it one type"):
        mx.lmer("y ~ x + (1 | g)", lambda: iter(parts), control=QUIET)


def test_text_of_whole_numbers_is_said_as_in_memory(data):
    text = data.iloc[::12].assign(x=(np.arange(50) % 30).astype(str), g=np.arange(50) % 7)
    pieces = cut(text)
    for rows in (text, lambda: iter(pieces)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mx.lmer("y ~ x + (1 | g)", rows)
        said = [str(warning.message) for warning in caught]
        assert sum("'x' is text" in text and "which are numbers" in text for text in said) == 1


@pytest.mark.parametrize("argument", [{"subset": "x > 0"}, {"weights": "w"}, {"offset": "x"}])
def test_polars_frames_whose_arguments_name_columns_of_the_formula(data, argument):
    rows = data.assign(w=np.abs(data["x"]) + 0.1)
    formula = "y ~ x + w + (1 | g)"
    whole = mx.lmer(formula, rows, control=QUIET, **argument)
    parts = [pl.from_pandas(part) for part in cut(rows)]
    fit = mx.lmer(formula, lambda: iter(parts), control=QUIET, **argument)
    assert fit.criterion == pytest.approx(whole.criterion, abs=1e-8)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("make", [lambda part: part, pl.from_pandas])
def test_times_are_the_same_in_every_pass(data, zone, make):
    when = pd.to_datetime("2024-01-01") + pd.to_timedelta(data["g"], "D")
    when = (when if zone is None else when.dt.tz_localize(zone)).mask(data.index == 5)
    parts = [make(part) for part in cut(data.assign(when=when))]
    fit, resid = used("y ~ x + (1 | when)", lambda: iter(parts))
    assert len(resid) == fit.nobs == N - 1
