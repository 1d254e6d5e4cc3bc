"""Predictions that the data do not determine, and arguments that are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)


def missing_cell() -> pd.DataFrame:
    """Three by three cells, of which (c, z) does not occur."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame(
        {
            "f": rng.choice(["a", "b", "c"], 200),
            "k": rng.choice(["x", "y", "z"], 200),
            "g": rng.integers(0, 12, 200),
        }
    )
    data = data[~((data.f == "c") & (data.k == "z"))].reset_index(drop=True)
    data["t"] = rng.normal(size=len(data))
    cell = data.f.map({"a": 0.0, "b": 1.0, "c": 3.0}) * data.k.map({"x": 1.0, "y": 2.0, "z": -1.0})
    data["y"] = cell + data.t + rng.normal(size=12)[data.g] + rng.normal(size=len(data))
    return data


NEW = pd.DataFrame(
    {"f": ["c", "a", "c"], "k": ["z", "z", "x"], "t": [0.5, 0.5, 0.5], "g": [1, 2, 3]},
    index=["p", "q", "r"],
)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "b", "A"), ("z", "y", "x")])
def test_a_cell_without_data_has_no_prediction_whatever_its_name(names):
    rename = dict(zip("abc", names, strict=True))
    data, new = (d.assign(f=d.f.map(rename)) for d in (missing_cell(), NEW))
    fit = mx.lmer("y ~ f * k + t + (1 | g)", data, control=QUIET)
    full = mx.lmer("y ~ f * k + t + (1 | g)", missing_cell(), control=QUIET)
    with pytest.warns(mx.RankDeficiencyWarning, match=rf"f = {rename['c']}, k = z, t = 0\.5"):
        found = fit.predict(new)
    with pytest.warns(mx.RankDeficiencyWarning, match="1 of 3 new rows is predicted as NaN"):
        expected = full.predict(NEW)
    assert np.isnan(found["p"])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.warns(mx.RankDeficiencyWarning):
        table = fit.predict(new, interval="prediction")
    assert table.loc["p"].isna().all()
    assert table.loc[["q", "r"]].notna().all(axis=None)


def test_what_is_determined_is_said_without_a_word(tmp_path):
    data = missing_cell()
    fit = mx.lmer("y ~ f * k + t + (1 | g)", data, control=QUIET)
    np.testing.assert_allclose(fit.predict(data), fit.fittedvalues)
    assert np.isfinite(fit.predict(NEW, "~ (1 | g)", random_only=True)).all()
    twice = mx.lmer("y ~ t + I(2 * t) + (1 | g)", data, control=QUIET)
    assert np.isfinite(twice.predict(NEW)).all()
    # a fit without its rows knows it as well
    fit.save(tmp_path / "fit.mixlm", include_data=False)
    loaded = mx.load(tmp_path / "fit.mixlm")
    with pytest.warns(mx.RankDeficiencyWarning, match="f = c, k = z"):
        np.testing.assert_allclose(loaded.predict(NEW)[1:], fit.predict(NEW.iloc[1:]))
    with pytest.warns(mx.RankDeficiencyWarning):
        y = fit.simulate(2, seed=1, newdata=NEW)
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1:]).all()


def test_a_continuous_combination_is_found():
    data = missing_cell().assign(u=lambda d: 2.0 * d.t)
    fit = mx.lmer("y ~ t + u + (1 | g)", data, control=QUIET)
    new = pd.DataFrame({"t": [1.0, 1.0], "u": [2.0, 2.1], "g": [1, 1]})
    with pytest.warns(mx.RankDeficiencyWarning, match=r"t = 1, u = 2\.1"):
        found = fit.predict(new)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_arguments_that_are_refused():
    fit = mx.lmer("y ~ t + (1 | g)", missing_cell(), control=QUIET)
    with pytest.raises(mx.OptionError, match="offset is nan"):
        fit.predict(offset=np.nan)
    with pytest.raises(mx.OptionError, match="offset is inf"):
        fit.predict(NEW, offset=np.inf)
    with pytest.raises(mx.OptionError, match="se is 'no'"):
        fit.predict(se="no")
    with pytest.raises(mx.OptionError, match="allow_new_levels"):
        fit.predict(NEW, allow_new_levels=NEW)
    with pytest.raises(mx.OptionError, match="level is 95"):
        fit.predict(interval="confidence", level=95)
    with pytest.raises(mx.OptionError, match="give one of the two"):
        fit.simulate(use_u=True, re_form="~ (1 | g)")
    np.testing.assert_array_equal(
        fit.simulate(use_u=True, seed=1), fit.simulate(use_u=True, re_form="fitted", seed=1)
    )
    plan = {"t": np.arange(12.0), "g": np.arange(12) % 4}
    for bad in ({"sd": {"g": np.inf}}, {"sd": {"g": np.nan}}, {"cov": {"g": [[np.inf]]}}):
        with pytest.raises(mx.OptionError, match=r"(sd|cov)\['g'\]"):
            mx.simulate("~ t + (1 | g)", plan, beta=[0.0, 1.0], **bad)


@pytest.mark.parametrize("given", ["column", "expression", "array", "formula"])
def test_an_offset_counts_however_it_was_given(tmp_path, given):
    data = missing_cell().assign(o=lambda d: 10.0 + d.t**2)
    formula = "y ~ f + t + (1 | g)"
    arguments = {
        "column": {"offset": "o"},
        "expression": {"offset": "10 + t^2"},
        "array": {"offset": data["o"].to_numpy()},
        "formula": {},
    }[given]
    if given == "formula":
        formula = "y ~ f + t + offset(o) + (1 | g)"
    fit = mx.lmer(formula, data, control=QUIET, **arguments)
    o = {"offset": data["o"].to_numpy()} if given == "array" else {}
    for include_data in (True, False):
        fit.save(tmp_path / "fit.mixlm", include_data=include_data)
        loaded = mx.load(tmp_path / "fit.mixlm")
        np.testing.assert_allclose(loaded.predict(data, **o), fit.fittedvalues)
        if include_data:
            np.testing.assert_allclose(loaded.predict(), fit.fittedvalues)
        if given == "array":
            with pytest.raises(mx.DataError, match="offset that was given as an array"):
                loaded.predict(data)
