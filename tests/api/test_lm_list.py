"""Least squares in every group: numbers against NumPy and against nlme's printed ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, FormulaError, OptionError, SkippedGroupsWarning
from mixlm_sparse.solve.groupwise import fit_groups
from tests.support import corpus


@pytest.fixture(scope="module")
def sleep():
    return mx.lm_list("Reaction ~ Days | Subject", mx.datasets.load("sleepstudy"))


def toy(**columns):
    rng = np.random.default_rng(7)
    n = 40
    frame = pd.DataFrame(
        {
            "g": np.repeat(["a", "b", "c", "d"], 10),
            "x": rng.normal(size=n),
            "f": pd.Categorical(np.tile(["u", "v"], n // 2)),
            "w": rng.uniform(0.5, 2.0, n),
            "o": rng.normal(size=n),
        }
    )
    frame["y"] = 1.0 + 2.0 * frame["x"] + rng.normal(size=n)
    return frame.assign(**columns)


def test_numbers_that_nlme_prints_for_orthodont():
    fits = mx.lm_list("distance ~ age | Subject", mx.datasets.load("Orthodont"))
    # Pinheiro and Bates (2000), section 4.1.1
    assert fits.df_resid == 54
    assert fits.sigma == pytest.approx(1.31004, abs=5e-6)
    assert fits.coef().loc["M13"].to_numpy() == pytest.approx([2.80, 1.95])
    assert fits.coef().loc["F04"].to_numpy() == pytest.approx([19.65, 0.475])
    assert fits.std_errors().iloc[0].to_numpy() == pytest.approx([3.2882, 0.29294], rel=1e-4)


def test_same_as_numpy_in_each_group(sleep):
    data = mx.datasets.load("sleepstudy")
    for subject, rows in data.groupby("Subject", observed=True):
        X = np.column_stack([np.ones(len(rows)), rows["Days"]])
        y = rows["Reaction"].to_numpy()
        beta, rss, *_ = np.linalg.lstsq(X, y, rcond=None)
        assert sleep.coef().loc[subject].to_numpy() == pytest.approx(beta, rel=1e-10)
        own = np.sqrt(rss[0] / 8)
        assert sleep.group_sigma[subject] == pytest.approx(own)
        se = own * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
        assert sleep.std_errors(pool=False).loc[subject].to_numpy() == pytest.approx(se)
    assert sleep.sigma == pytest.approx(np.sqrt((sleep.resid**2).sum() / sleep.df_resid))
    assert sleep.df_resid == 180 - 36


def test_weights_and_offset_in_groups_of_different_size():
    data = toy().drop(index=[0, 1, 2, 15])
    fits = mx.lm_list("y ~ x + f | g", data, weights="w", offset="o")
    assert list(fits.names) == ["(Intercept)", "x", "fv"]
    for group, rows in data.groupby("g"):
        X = np.column_stack([np.ones(len(rows)), rows["x"], rows["f"] == "v"])
        root = np.sqrt(rows["w"].to_numpy())
        target = (rows["y"] - rows["o"]).to_numpy()
        beta = np.linalg.lstsq(X * root[:, None], target * root, rcond=None)[0]
        assert fits.coef().loc[group].to_numpy() == pytest.approx(beta, rel=1e-9)
    assert (fits.fittedvalues + fits.resid) == pytest.approx(data["y"].to_numpy())


def test_intervals_and_tests_use_the_pooled_or_the_own_variance(sleep):
    table = sleep.tidy(conf_int=True, level=0.9)
    assert list(table.columns) == [
        "group", "term", "estimate", "std_error", "statistic", "df", "p_value", "conf_low",
        "conf_high",
    ]  # fmt: skip
    first = table.iloc[0]
    half = scipy.stats.t.ppf(0.95, 144) * first["std_error"]
    assert first["conf_high"] - first["estimate"] == pytest.approx(half)
    assert first["p_value"] == pytest.approx(2 * scipy.stats.t.sf(abs(first["statistic"]), 144))
    own = sleep.conf_int(level=0.9, pool=False)
    assert own.index.names == ["group", "term"]
    se = sleep.std_errors(pool=False).loc["308", "Days"]
    low, high = own.loc[("308", "Days")]
    assert high - low == pytest.approx(2 * scipy.stats.t.ppf(0.95, 8) * se)


def test_table_has_one_row_per_group(sleep):
    frame = sleep.to_frame()
    assert frame.shape == (18, 6)
    assert list(frame.columns) == [
        "nobs", "(Intercept)", "Days", "se_(Intercept)", "se_Days", "sigma",
    ]  # fmt: skip
    assert (frame["nobs"] == 10).all()
    text = sleep.summary()
    assert max(map(len, text.splitlines())) <= 80
    assert "308" in text
    assert "144 degrees of freedom" in text
    assert repr(sleep) == text


def test_a_long_table_leaves_its_middle_out():
    fits = mx.lm_list("mathach ~ cses | school", mx.datasets.load("HSB"))
    lines = fits.summary().splitlines()
    assert len(fits) == 160
    assert len(lines) < 45
    assert "[160 rows, 6 columns]" in lines
    assert any(line.startswith("…") for line in lines)


def test_groups_that_cannot_be_fitted_are_reported():
    data = toy()
    data.loc[data["g"] == "b", "x"] = 3.0
    data = data.drop(index=range(21, 30))
    with pytest.warns(SkippedGroupsWarning, match="2 of 4 levels of 'g'.*'b', 'c'") as found:
        fits = mx.lm_list("y ~ x | g", data)
    assert [Path(w.filename).name for w in found] == ["test_lm_list.py"]  # the caller's line
    assert list(fits.skipped.index) == ["b", "c"]
    assert "fewer rows than the 2" in fits.skipped.loc["c", "reason"]
    assert "does not vary" in fits.skipped.loc["b", "reason"]
    assert fits.coef().loc[["b", "c"]].isna().all(axis=None)
    assert fits.coef().loc[["a", "d"]].notna().all(axis=None)
    # the mean of the ten rows of b leaves nine degrees of freedom, the row of c none
    assert fits.df_resid == 8 + 9 + 0 + 8
    b = data.loc[data["g"] == "b", "y"]
    assert fits.group_sigma["b"] == pytest.approx(b.std())
    assert np.isnan(fits.group_sigma["c"])
    assert fits.fittedvalues[10:20] == pytest.approx(np.full(10, b.mean()))
    assert fits.sigma == pytest.approx(np.sqrt((fits.resid**2).sum() / fits.df_resid))
    assert "Note: 2 of 4 levels" in fits.summary()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = mx.lm_list("y ~ x | g", data, warn=False)
    assert len(quiet.skipped) == 2


def test_aliased_coefficients_leave_degrees_of_freedom():
    # dog 9 was looked at on two days only: a parabola is not determined, a line is
    data = corpus.load_data("Pixel")
    fits = mx.lm_list("pixel ~ day + I(day^2) | Dog", data, warn=False)
    assert list(fits.skipped.index) == ["9"]
    rss, df = 0.0, 0
    for dog, rows in data.groupby("Dog", observed=True):
        degree = 1 if dog == "9" else 2
        values = np.polyval(np.polyfit(rows["day"], rows["pixel"], degree), rows["day"])
        rss += ((rows["pixel"] - values) ** 2).sum()
        df += len(rows) - degree - 1
    assert fits.df_resid == df == 73
    assert fits.sigma == pytest.approx(np.sqrt(rss / df), rel=1e-9)
    assert fits.coef().loc["9"].isna().all()


@pytest.mark.parametrize("formula", ["y ~ x + z | g", "y ~ z + x | g"])
def test_what_a_group_determines_is_given_whatever_the_order_of_columns(formula):
    data = toy()
    rng = np.random.default_rng(5)
    data["z"] = rng.normal(size=len(data))
    data.loc[data["g"] == "b", "z"] = 0.0  # the intercept and x are determined
    data.loc[data["g"] == "c", "z"] = 2.0  # x alone
    with pytest.warns(SkippedGroupsWarning, match="2 of 4 levels of 'g' do not determine all"):
        fits = mx.lm_list(formula, data)
    pooled = fits.sigma
    for group, known in {"b": ["(Intercept)", "x"], "c": ["x"]}.items():
        rows = data[data["g"] == group]
        X = np.column_stack([np.ones(len(rows)), rows["x"]])
        solved = np.linalg.lstsq(X, rows["y"], rcond=None)[0]
        beta = dict(zip(["(Intercept)", "x"], solved, strict=True))
        errors = pooled * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
        se = dict(zip(["(Intercept)", "x"], errors, strict=True))
        coef, std = fits.coef().loc[group], fits.std_errors().loc[group]
        assert sorted(coef.dropna().index) == sorted(std.dropna().index) == known
        for name in known:
            assert coef[name] == pytest.approx(beta[name], rel=1e-9)
            assert std[name] == pytest.approx(se[name], rel=1e-9)
        assert fits.resid[data["g"] == group] == pytest.approx(rows["y"] - X @ [*beta.values()])
    assert fits.df_resid == 7 + 8 + 8 + 7


def test_a_group_without_degrees_of_freedom_is_fitted_exactly():
    data = toy().drop(index=range(2, 10))
    fits = mx.lm_list("y ~ x | g", data)
    assert not len(fits.skipped)
    assert np.isnan(fits.group_sigma["a"])
    assert fits.std_errors().loc["a"].notna().all()
    assert fits.std_errors(pool=False).loc["a"].isna().all()
    assert fits.tidy(pool=False)["p_value"][:2].isna().all()


def test_rows_missing_and_excluded():
    data = toy()
    data.loc[[3, 17], "y"] = np.nan
    fits = mx.lm_list("y ~ x | g", data, na_action="exclude")
    assert fits.nobs == 38
    assert np.flatnonzero(np.isnan(fits.resid)).tolist() == [3, 17]
    assert mx.lm_list("y ~ x | g", data).resid.shape == (38,)
    assert mx.lm_list("y ~ x | g", toy(), subset="x > 0").nobs == int((toy()["x"] > 0).sum())


def test_interactions_of_factors_as_groups():
    fits = mx.lm_list("y ~ x | g:f", toy())
    assert fits.group == "g:f"
    assert fits.levels[:2] == ["a:u", "a:v"]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ x", "has no group"),
        ("y ~ x + (x | g)", "without the parentheses"),
        ("y ~ (x | g) | f", "random term"),
        ("~ x | g", "no response"),
        ("y ~ x | g/f", "more than one grouping factor"),
        ("y ~ x | g + f", "more than one grouping factor"),
    ],
)
def test_formulas_that_make_no_sense(formula, message):
    with pytest.raises(FormulaError, match=message):
        mx.lm_list(formula, toy())


def test_bad_input():
    with pytest.raises(DataError, match="no column 'z'"):
        mx.lm_list("y ~ z | g", toy())
    with pytest.raises(OptionError, match="no level of 'g' can be fitted"):
        mx.lm_list("y ~ x | g", toy(x=1.0))
    with pytest.raises(OptionError, match="level is 95"):
        mx.lm_list("y ~ x | g", toy()).conf_int(95)
    with pytest.raises(FormulaError, match="the formula is 3: the first argument is its text"):
        mx.lm_list(3, toy())


def test_other_frames_give_the_same():
    polars = pytest.importorskip("polars")
    data = toy()
    one = mx.lm_list("y ~ x | g", data).coef()
    other = mx.lm_list("y ~ x | g", polars.from_pandas(data)).coef()
    pd.testing.assert_frame_equal(one, other)


def test_batches_of_equal_groups_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(1)
    codes = np.sort(rng.integers(0, 50, 600)).astype(np.int32)
    X = np.column_stack([np.ones(600), rng.normal(size=(600, 2))])
    Y = rng.normal(size=(600, 3))
    ordered = fit_groups(Y, X, codes, 50)
    shuffle = rng.permutation(600)
    mixed = fit_groups(Y[shuffle], X[shuffle], codes[shuffle], 50)
    np.testing.assert_allclose(mixed.coefficients, ordered.coefficients, rtol=1e-9)
    np.testing.assert_allclose(mixed.rss, ordered.rss, rtol=1e-9)
    alone = fit_groups(Y[:, 1], X, codes, 50)
    np.testing.assert_allclose(alone.coefficients[:, :, 0], ordered.coefficients[:, :, 1])
