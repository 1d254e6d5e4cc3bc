"""Products of a model: added, saved, loaded, fitted, extended; what does not fit is refused."""

from __future__ import annotations

import errno
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.model.saved import archive
from tests.model.test_batches import QUIET, same_fit
from tests.support.strategies import designs

SLEEP = "Reaction ~ Days + (Days | Subject)"
FORMULA = "y ~ x * f + (x | g) + (1 | g:h) + (1 | h)"
LEVELS = {"f": ["a", "b", "c"]}


@pytest.fixture
def data():
    rng = np.random.default_rng(8)
    n = 900
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n) + 50.0,
            "f": rng.choice(list("abc"), n),
            "g": rng.choice([f"site {i}" for i in range(30)], n),
            "h": rng.integers(0, 9, n),
        }
    )
    codes = frame["g"].str[5:].astype(int)
    frame["y"] = (
        frame["x"] * (1 + rng.normal(size=30, scale=0.05)[codes])
        + rng.normal(size=9)[frame["h"]]
        + rng.normal(size=n)
    )
    return frame


def parts_of(data, cuts):
    return [data.iloc[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class TestSum:
    def test_a_dropped_column_is_known_without_rows(self, data, tmp_path):
        data = data.assign(x2=2.0 * data["x"] + 3.0)
        formula = "y ~ x + x2 + (x | g)"
        with pytest.warns(mx.RankDeficiencyWarning, match="coefficients of .*x"):
            whole = mx.lmer(formula, data)
            summed = mx.fit_products(mx.cross_products(formula, data))
        summed.save(tmp_path / "fit.mixlm")
        loaded = mx.load(tmp_path / "fit.mixlm")
        rows = data.iloc[:4].copy()
        np.testing.assert_allclose(loaded.predict(rows), whole.predict(rows), rtol=1e-10)
        rows["x2"] += 1.0  # not on the line of the data
        with pytest.warns(mx.RankDeficiencyWarning, match="predicted as NaN"):
            assert np.isnan(loaded.predict(rows)).all()
        assert loaded.refit_ml().criterion == pytest.approx(whole.refit_ml().criterion)

    def test_is_the_fit_of_all_rows(self, data):
        whole = mx.lmer(FORMULA, data, control=QUIET)
        parts = [
            mx.cross_products(FORMULA, part, levels=LEVELS)
            for part in parts_of(data, [9, 400, 410])
        ]
        same_fit(mx.fit_products(sum(parts), control=QUIET), whole)
        same_fit(mx.fit_products(sum(parts[::-1]), control=QUIET), whole)
        assert sum(parts).nobs == len(data)
        ml = mx.fit_products(sum(parts), reml=False, control=QUIET)
        assert ml.criterion == pytest.approx(whole.refit_ml().criterion, rel=1e-11)

    def test_terms_of_equal_columns_keep_their_factors(self):
        rng = np.random.default_rng(8)
        n = 120
        groups = {"g": np.arange(n) % 4, "h": np.arange(n) // 6}
        frame = pd.DataFrame({"x": rng.normal(size=n), **groups})
        frame["y"] = rng.normal(size=n) + rng.normal(size=20)[frame.h] * frame.x
        formula = "y ~ x + (x | g) + (x | h)"  # the second comes first in the model
        parts = [mx.cross_products(formula, part) for part in (frame[:70], frame[70:])]
        fit = mx.fit_products(parts[0] + parts[1], control=QUIET)
        assert fit.criterion == pytest.approx(mx.lmer(formula, frame, control=QUIET).criterion)
        assert fit.ngroups == {"h": 20, "g": 4}

    @settings(max_examples=20, deadline=None)
    @given(design=designs(), share=st.floats(0.05, 0.95))
    def test_any_model(self, design, share):
        cut = max(1, min(len(design.data) - 1, int(share * len(design.data))))
        arguments = {"weights": design.weights, "offset": design.offset}
        whole = mx.cross_products(design.formula, design.data, **arguments)
        levels = {
            name: sorted(design.data[name].unique())
            for name in design.data
            if design.data[name].dtype == object
        }
        parts = [
            mx.cross_products(design.formula, part, levels=levels, **arguments)
            for part in parts_of(design.data, [cut])
        ]
        total = parts[0] + parts[1]
        assert total.ngroups == whole.ngroups
        a = mx.fit_products(total, control=QUIET)
        b = mx.fit_products(whole, control=QUIET)
        assert a.criterion == pytest.approx(b.criterion, rel=1e-8, abs=1e-6)

    def test_a_site_with_one_level(self, data):
        one = data[data["g"] == "site 3"]
        rest = data[data["g"] != "site 3"]
        formula = "y ~ x + (1 | g)"
        total = mx.cross_products(formula, one) + mx.cross_products(formula, rest)
        same_fit(mx.fit_products(total, control=QUIET), mx.lmer(formula, data, control=QUIET))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"formula": "y ~ x + (1 | g)"}, "products of two models"),
            ({"weights": "x"}, "weights='x'"),
            ({"subset": "x > 49"}, "subset='x > 49'"),
            ({"contrasts": {"f": "sum"}}, "contrasts"),
            ({"levels": {"f": ["a", "b", "c", "d"]}}, "levels"),
            ({"levels": {"f": ["b", "a", "c"]}}, "levels"),
        ],
    )
    def test_what_does_not_belong_together(self, data, arguments, message):
        formula = "y ~ x + f + (1 | g)"
        a = mx.cross_products(formula, data, levels=LEVELS)
        b = mx.cross_products(
            arguments.pop("formula", formula), data, **{"levels": LEVELS, **arguments}
        )
        with pytest.raises(mx.DataError, match=message):
            a + b

    def test_transforms_that_learned_other_values(self, data):
        formula = "y ~ scale(x) + (1 | g)"
        with pytest.raises(mx.DataError, match="has learned other values"):
            mx.cross_products(formula, data[:100]) + mx.cross_products(formula, data[100:])

    def test_levels_of_two_kinds(self, data):
        formula = "y ~ x + (1 | h)"
        other = data.assign(h=data["h"].astype(str))
        with pytest.raises(mx.DataError, match="numbers in one part of the data and text"):
            mx.cross_products(formula, data) + mx.cross_products(formula, other)

    def test_no_products(self, data):
        with pytest.raises(TypeError):
            mx.cross_products("y ~ x + (1 | h)", data) + 3
        with pytest.raises(mx.OptionError, match="products"):
            mx.fit_products("a")

    def test_levels_must_be_levels(self, data):
        for levels, message in (
            ({"f": "abc"}, "levels in order"), ({"f": ["a", "a"]}, "twice"), ({"f": ["a"]}, "two"),
            (["a"], "levels"),
        ):  # fmt: skip
            with pytest.raises(mx.OptionError, match=message):
                mx.cross_products("y ~ f + (1 | h)", data, levels=levels)
        with pytest.raises(mx.DataError, match="the level 'c', which the fit has not seen"):
            mx.cross_products("y ~ f + (1 | h)", data, levels={"f": ["a", "b"]})


class TestFile:
    def test_there_and_back(self, data, tmp_path):
        path = tmp_path / "site.products"
        products = mx.cross_products(FORMULA, data, levels=LEVELS)
        products.save(path)
        again = mx.load_products(path)
        assert repr(again) == repr(products)
        same_fit(mx.fit_products(again, control=QUIET), mx.fit_products(products, control=QUIET))
        assert (again + products).nobs == 2 * len(data)

    def test_functions_are_asked_for(self, data, tmp_path):
        path = tmp_path / "a.products"
        env = {"double": lambda x: 2 * x}
        mx.cross_products("y ~ double(x) + (1 | h)", data, env=env).save(path)
        with pytest.raises(mx.SavedFitError, match="function 'double'"):
            mx.load_products(path)
        assert mx.load_products(path, env=env).nobs == len(data)

    def test_other_files(self, data, tmp_path):
        path = tmp_path / "a"
        mx.lmer("y ~ x + (1 | h)", data, control=QUIET).save(path)
        with pytest.raises(mx.SavedFitError, match="holds a fit: read it by"):
            mx.load_products(path)
        mx.cross_products("y ~ x + (1 | h)", data).save(path)
        with pytest.raises(mx.SavedFitError):
            mx.load(path)
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(mx.SavedFitError):
            mx.load_products(path)

    def test_a_tampered_array(self, data, tmp_path):
        path, broken = tmp_path / "a", tmp_path / "b"
        mx.cross_products("y ~ x + (1 | h)", data).save(path)
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
            for name in old.namelist():
                if name != "ztz.0.npy":
                    new.writestr(name, old.read(name))
        with pytest.raises(mx.SavedFitError, match="ztz"):
            mx.load_products(broken)

    def test_a_full_disk_leaves_what_was_there(self, data, tmp_path, monkeypatch):
        path = tmp_path / "a"
        products = mx.cross_products("y ~ x + (1 | h)", data)
        products.save(path)
        before = path.read_bytes()

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(archive.npy, "write_array", full)
        with pytest.raises(OSError, match="No space left"):
            products.save(path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a"]


class TestAppend:
    @pytest.mark.parametrize("formula", [SLEEP, "Reaction ~ poly(Days, 2) + (1 | Subject)"])
    def test_more_rows(self, formula):
        sleep = mx.datasets.load("sleepstudy")
        fit = mx.lmer(formula, sleep[:120], control=QUIET).append(sleep[120:])
        assert fit.nobs == 180
        if formula == SLEEP:
            same_fit(fit, mx.lmer(formula, sleep, control=QUIET))
        else:  # the columns are those that were learned first, and span the same space
            whole = mx.lmer(formula, sleep, reml=False, control=QUIET)
            assert fit.refit_ml().criterion == pytest.approx(whole.criterion, abs=1e-7)

    def test_terms_that_change_places(self, data):
        first = data[data["g"].isin(["site 1", "site 2", "site 3"])]
        rest = data.drop(first.index)
        fit = mx.lmer(FORMULA, first, control=QUIET).append(rest)
        same_fit(fit, mx.lmer(FORMULA, data, control=QUIET))

    def test_again_and_again(self, data):
        formula = "y ~ x + f + (1 | g)"
        fit = mx.lmer(formula, data[:300], control=QUIET)
        for start in range(300, 900, 200):
            fit = fit.append(data[start : start + 200])
        same_fit(fit, mx.lmer(formula, data, control=QUIET))
        with pytest.raises(mx.RowsAbsentError, match="made from products"):
            fit.resid  # noqa: B018

    def test_what_cannot_be_added(self, data):
        fit = mx.lmer("y ~ x + f + (1 | g)", data, control=QUIET)
        with pytest.raises(mx.DataError, match="level 'z'"):
            fit.append(data[:5].assign(f="z"))
        with pytest.raises(mx.DataError, match="no column 'x'"):
            fit.append(data[:5].drop(columns="x"))
        weighted = mx.lmer("y ~ x + (1 | g)", data, weights=np.ones(900), control=QUIET)
        with pytest.raises(mx.OptionError, match="weights is an array"):
            weighted.append(data[:5])
        arrays = mx.fit_matrices(data["y"], data[["x"]], [(data["g"],)], control=QUIET)
        with pytest.raises(mx.OptionError, match="made from matrices"):
            arrays.append(data[:5])


@pytest.mark.parametrize(
    ("term", "fixed"),
    [
        ("(1 | Subject)", {"sigma": 1.3}),
        ("(1 | Subject)", {"sd_(Intercept)|Subject": 2.5}),
        ("(age | Subject)", {"sigma": 1.1}),
        ("ar1(0 + age | Subject)", {"phi|Subject": 0.5}),
        ("ar1(0 + age | Subject)", None),
    ],
)
def test_appended_rows_leave_the_model_as_it_is(term, fixed):
    once = mx.datasets.load("Orthodont")
    rng = np.random.default_rng(1)
    data = pd.concat([once.assign(distance=once["distance"] + rng.normal(size=108)), once])
    whole = mx.lmer(f"distance ~ Sex + {term}", data, fixed=fixed)
    grown = mx.lmer(f"distance ~ Sex + {term}", data[:150], fixed=fixed).append(data[150:])
    assert grown.criterion == pytest.approx(whole.criterion, abs=1e-6)
    assert grown.n_par == whole.n_par
    np.testing.assert_allclose(grown.bse, whole.bse, rtol=1e-4)
    again = grown.refit_ml()
    assert again.n_par == whole.n_par


def test_what_appending_would_change_is_refused():
    data = mx.datasets.load("Orthodont")
    held = mx.lmer("distance ~ age + (age | Subject)", data, fixed={"sd_age|Subject": 0.2})
    with pytest.raises(mx.OptionError, match="only where all rows are in memory"):
        held.append(data[:3])
    levels = sorted(set(data["Subject"]))
    covariance = pd.DataFrame(np.eye(len(levels)) + 0.3, index=levels, columns=levels)
    related = mx.lmer("distance ~ age + (1 | Subject)", data, known={"Subject": covariance})
    with pytest.raises(mx.OptionError, match="append is not possible for a fit with known="):
        related.append(data[:3])
