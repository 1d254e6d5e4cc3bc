"""A model whose rows come in batches is the model of the same rows in memory."""

from __future__ import annotations

import pickle
from functools import lru_cache

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.design.batches import sources
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.run import assemble
from mixlm_sparse.solve.criterion import criterion_and_gradient
from tests.support.strategies import designs

QUIET = mx.Control(warn=False)


def same_fit(a, b, rtol=1e-9):
    """Assert that two fits agree in everything that is computed without rows."""
    assert a.nobs == b.nobs
    assert a.ngroups == b.ngroups
    assert a.theta_names == b.theta_names
    assert a.criterion == pytest.approx(b.criterion, rel=1e-12, abs=1e-9)
    np.testing.assert_allclose(a.theta, b.theta, rtol=1e-6, atol=1e-7)
    pd.testing.assert_series_equal(a.fixef, b.fixef, rtol=1e-7, atol=1e-8)
    pd.testing.assert_series_equal(a.bse, b.bse, rtol=1e-6)
    assert a.sigma == pytest.approx(b.sigma, rel=1e-7)
    for name, effects in a.ranef().items():
        pd.testing.assert_frame_equal(
            effects, b.ranef()[name], rtol=1e-5, atol=1e-7, check_index_type=False
        )


@lru_cache(maxsize=1)
def _mixed() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 1500
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n) + 2000.0,
            "z": rng.normal(size=n),
            "f": rng.choice(list("cab"), n),
            "g": rng.choice([f"g{i}" for i in range(60)], n),
            "h": rng.integers(0, 12, n),
            "w": rng.uniform(0.5, 2.0, n),
            "keep": rng.integers(0, 5, n) > 0,
        }
    )
    y = rng.normal(size=60)[frame["g"].str[1:].astype(int)] + rng.normal(size=12)[frame["h"]]
    frame["y"] = y + 0.3 * frame["x"] + 0.5 * frame["z"] * rng.normal(size=12)[frame["h"]]
    frame["y"] += rng.normal(size=n)
    frame.loc[rng.choice(n, 30), "x"] = np.nan
    frame.loc[rng.choice(n, 30), "g"] = None
    return frame


@pytest.fixture
def mixed():
    return _mixed().copy()


FORMULAS = [
    "y ~ x + f + (1 | g)",
    "y ~ scale(x) * f + (z | h) + (1 | g)",
    "y ~ 0 + f + poly(z, 2) + (1 | h:f) + (z || h)",
    "y ~ center(x) + factor(h) + offset(z) + (1 | g / f)",
    "y ~ C(f, sum) + I(z^2) + (0 + f | h) + (1 | g)",
    "log(y + 1000) ~ bs(z, df = 4) + (f == 'a') + (1 | g) + (1 | h)",
]


def frames(data, size):
    """Return a function that returns an iterator of pieces."""
    return lambda: (data.iloc[start : start + size] for start in range(0, len(data), size))


class TestSameAsInMemory:
    @pytest.mark.parametrize("formula", FORMULAS)
    def test_formulas(self, mixed, formula):
        whole = mx.lmer(formula, mixed, weights="w", subset="keep", control=QUIET)
        part = mx.lmer(formula, frames(mixed, 211), weights="w", subset="keep", control=QUIET)
        same_fit(part, whole)
        assert list(part.fixef.index) == list(whole.fixef.index)

    @settings(max_examples=25, deadline=None)
    @given(design=designs(), size=st.integers(1, 50), seed=st.integers(0, 10))
    def test_any_model_any_size_any_order(self, design, size, seed):
        order = np.random.default_rng(seed).permutation(len(design.data))
        shuffled = design.data.iloc[order]
        arguments = {"weights": design.weights, "offset": design.offset}
        whole, _ = assemble(ModelCall(design.formula, design.data, **arguments))
        part, _ = assemble(ModelCall(design.formula, frames(shuffled, size), **arguments))
        assert part.x_names == whole.x_names
        assert part.theta_names == whole.theta_names
        for a, b in zip(part.matrices.factors, whole.matrices.factors, strict=True):
            assert list(a.levels) == list(b.levels)
        theta = whole.theta0 * 0.7 + 0.1
        d, slope = criterion_and_gradient(theta, part, reml=True)
        expected, expected_slope = criterion_and_gradient(theta, whole, reml=True)
        assert d == pytest.approx(expected, rel=1e-10, abs=1e-9)
        scale = np.abs(expected_slope).max() + 1.0
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-8, atol=1e-8 * scale)

    def test_rows_in_the_order_of_time(self):
        # the first batches know one year only: their basis must do for all
        rng = np.random.default_rng(0)
        year = np.repeat(np.arange(1990, 2020), 40)
        data = pd.DataFrame({"year": year, "g": np.tile(np.arange(40), 30)})
        data["y"] = 0.01 * (year - 2000) ** 2 + rng.normal(size=40)[data["g"]] + rng.normal(
            size=len(data), scale=0.1
        )
        formula = "y ~ year + I(year^2) + (1 | g)"
        whole = mx.lmer(formula, data, control=QUIET)
        part = mx.lmer(formula, frames(data, 40), control=QUIET)
        assert part.criterion == pytest.approx(whole.criterion, rel=1e-11)
        np.testing.assert_allclose(part.fixef, whole.fixef, rtol=1e-8)

    def test_collinear_columns_are_dropped(self, mixed):
        mixed["x2"] = 2.0 * mixed["x"] - 5.0
        formula = "y ~ x + x2 + z + (1 | h)"
        whole = mx.lmer(formula, mixed, control=QUIET)
        part = mx.lmer(formula, frames(mixed, 100), control=QUIET)
        assert part.system.dropped == whole.system.dropped == ("x2",)
        same_fit(part, whole)

    def test_threads_do_not_change_a_bit(self, mixed):
        first = mx.lmer(FORMULAS[1], frames(mixed, 97), control=QUIET)
        again = mx.lmer(FORMULAS[1], frames(mixed, 97), control=QUIET)
        assert first.criterion == again.criterion
        assert (first.theta == again.theta).all()


class TestSources:
    @pytest.fixture
    def path(self, mixed, tmp_path):
        where = tmp_path / "mixed.parquet"
        pq.write_table(pa.Table.from_pandas(mixed), where, row_group_size=200)
        return where

    def sources(self, path, folder, mixed):
        table = pa.Table.from_pandas(mixed)
        folder.mkdir()
        for place in range(3):
            pq.write_table(table.slice(place * 500, 500), folder / f"part{place}.parquet")
        ds.write_dataset(
            table, folder.parent / "hive", format="parquet", partitioning=["f"],
            partitioning_flavor="hive",
        )  # fmt: skip
        return {
            "path": path,
            "text": str(path),
            "folder": folder,
            "glob": str(folder / "part*.parquet"),
            "partitions": folder.parent / "hive",
            "dataset": ds.dataset(path),
            "table": table,
            "reader": lambda: pa.RecordBatchReader.from_batches(
                table.schema, table.to_batches(max_chunksize=130)
            ),
            "duckdb": duckdb.from_arrow(table),
            "polars": pl.from_arrow(table).lazy(),
            "frames": frames(mixed, 130),
            "polars frames": lambda: pl.from_arrow(table).iter_slices(130),
            "dicts": lambda: (
                {name: part[name].to_numpy() for name in part}
                for part in frames(mixed, 500)()
            ),
            "arrow tables": lambda: iter([table.slice(0, 700), table.slice(700)]),
        }

    def test_each_source(self, mixed, path, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "WHOLE_ROWS", 100)
        formula = "y ~ x + f + (z | h) + (1 | g)"
        whole = mx.lmer(formula, mixed, control=QUIET)
        for name, source in self.sources(path, tmp_path / "folder", mixed).items():
            assert sources.is_batched(source), name
            fit = mx.lmer(formula, source, control=QUIET)
            try:
                same_fit(fit, whole)
            except AssertionError as error:
                raise AssertionError(name) from error

    def test_a_source_read_once(self, mixed):
        formula = "y ~ x + z + (z | h) + (1 | g)"
        whole = mx.lmer(formula, mixed, control=QUIET)
        table = pa.Table.from_pandas(mixed)
        reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(130))
        for source in (frames(mixed, 100)(), reader):
            same_fit(mx.lmer(formula, source, control=QUIET), whole)

    def test_only_named_columns_are_read(self, mixed, tmp_path):
        mixed["junk"] = mixed["z"]
        asked = []

        class Watched(sources.Dataset):
            def pieces(self, names):
                asked.append(tuple(names))
                return super().pieces(names)

        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pandas(mixed), path)
        mx.lmer("y ~ x + f + (1 | g)", Watched(ds.dataset(path), "it"), control=QUIET)
        assert set().union(*asked) == {"y", "x", "f", "g"}
        assert asked[1] == ("f",)  # the pass for levels
        assert len(asked) == 3  # the first piece, levels, products

    def test_small_tables_are_read_whole(self, mixed):
        fit = mx.lmer("y ~ x + (1 | h)", pa.Table.from_pandas(mixed), control=QUIET)
        assert len(fit.matrices.y) == fit.nobs

    def test_categories_keep_their_order(self, mixed, tmp_path):
        mixed["f"] = pd.Categorical(mixed["f"], categories=["c", "d", "b", "a"])
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pandas(mixed), path, row_group_size=333)
        whole = mx.lmer("y ~ f + (1 | h)", mixed, control=QUIET)
        for source in (path, frames(mixed, 100)):
            fit = mx.lmer("y ~ f + (1 | h)", source, control=QUIET)
            assert list(fit.fixef.index) == ["(Intercept)", "fb", "fa"]
            same_fit(fit, whole)

    def test_progress_sees_rows(self, mixed, capsys):
        mx.lmer("y ~ x + (1 | h)", frames(mixed, 100), progress=False, control=QUIET)
        assert capsys.readouterr().err == ""


class TestTheFit:
    @pytest.fixture
    def pair(self, mixed):
        formula = "y ~ x * f + (z | h) + (1 | g)"
        data = mixed.reset_index(drop=True)
        whole = mx.lmer(formula, data, weights="w", control=QUIET)
        return mx.lmer(formula, frames(data, 111), weights="w", control=QUIET), whole

    def test_what_needs_no_rows(self, pair):
        part, whole = pair
        pd.testing.assert_frame_equal(part.tidy(), whole.tidy(), rtol=1e-5)
        pd.testing.assert_frame_equal(
            part.variance_components(), whole.variance_components(), rtol=1e-5
        )
        same_fit(part.refit_ml(), whole.refit_ml())
        assert "x" in str(part.summary())

    def test_new_rows(self, pair, mixed):
        part, whole = pair
        rows = mixed.dropna().head(20)
        np.testing.assert_allclose(part.predict(rows), whole.predict(rows), rtol=1e-8)

    def test_rows_are_read_again(self, pair):
        part, whole = pair
        for name in ("fittedvalues", "resid"):
            np.testing.assert_allclose(
                getattr(part, name), getattr(whole, name), rtol=1e-6, atol=1e-7
            )
        np.testing.assert_allclose(part.hatvalues(), whole.hatvalues(), rtol=1e-6)

    def test_a_copy_for_another_process(self, pair):
        part, _ = pair
        copy = pickle.loads(pickle.dumps(part))
        assert copy.criterion == part.criterion
        with pytest.raises(mx.MixedModelError, match="batches"):
            copy.fittedvalues  # noqa: B018

    def test_update_reads_the_source_again(self, pair, mixed):
        part, _ = pair
        fit = part.update(". ~ . - x:f")
        same_fit(fit, mx.lmer("y ~ x + f + (z | h) + (1 | g)", mixed, weights="w", control=QUIET))

    def test_results_by_row_come_in_batches(self, pair, mixed):
        part, whole = pair
        frames_of = list(part.stream("augment"))
        assert len(frames_of) == 14
        assert max(map(len, frames_of)) <= 111
        rows = pd.concat(frames_of)
        expected = whole.augment()
        assert list(rows.index) == list(expected.index)
        for name in (".fitted", ".resid", ".fixed", ".hat", ".std_resid", ".cooksd", "y", "x"):
            np.testing.assert_allclose(rows[name], expected[name], rtol=1e-5, atol=1e-7)
        assert list(rows["g"].astype(str)) == list(expected["g"].astype(str))
        resid = pd.concat(part.stream("resid"))
        assert list(resid.columns) == [".resid"]
        assert len(next(whole.stream("fittedvalues"))) == whole.nobs
        with pytest.raises(mx.OptionError, match="augment"):
            part.stream("everything")

    def test_models_are_compared(self, mixed):
        formula = "y ~ x * f + (z | h) + (1 | g)"
        complete = mixed.dropna()
        whole = mx.lmer(formula, complete, weights="w", control=QUIET)
        part = mx.lmer(formula, frames(complete, 111), weights="w", control=QUIET)
        pd.testing.assert_frame_equal(part.ranova(), whole.ranova(), rtol=1e-5)
        pd.testing.assert_frame_equal(part.drop1(), whole.drop1(), rtol=1e-5)
        smaller = part.update(". ~ . - x:f")
        expected = mx.anova(whole, whole.update(". ~ . - x:f"))
        np.testing.assert_allclose(
            mx.anova(part, smaller)["Chisq"], expected["Chisq"], rtol=1e-6
        )
        with pytest.raises(mx.DataError, match="different rows"):
            mx.anova(part, mx.lmer("y ~ f + (z | h)", frames(mixed, 111), control=QUIET))

    def test_a_saved_fit(self, pair, tmp_path):
        part, whole = pair
        path = tmp_path / "fit.mixlm"
        part.save(path)
        again = mx.load(path)
        assert again.criterion == pytest.approx(whole.criterion, rel=1e-12)
        assert "Weights: w" in str(again.summary())
        with pytest.raises(mx.SavedFitError, match="came in batches"):
            again.resid  # noqa: B018

    @pytest.mark.parametrize(
        "ask",
        [
            lambda fit: fit.influence("h"),
            lambda fit: fit.bootstrap(2),
            lambda fit: fit.simulate(1),
            lambda fit: fit.robust(),
            lambda fit: fit.augment(),
            lambda fit: fit.predict(),
            lambda fit: fit.refit(np.ones(fit.nobs)),
            lambda fit: fit.getME("Z"),
        ],
    )
    def test_what_needs_all_rows_at_once_says_so(self, pair, ask):
        with pytest.raises(mx.RowsAbsentError, match=r"come in batches.*fit\.stream"):
            ask(pair[0])

    def test_marginal_means_read_the_columns_again(self, pair):
        part, whole = pair
        for ask in (
            lambda fit: fit.emmeans("f").to_frame(),
            lambda fit: fit.emmeans("f", at={"x": [1999, 2001]}).to_frame(),
            lambda fit: fit.emtrends("x", specs="f").to_frame(),
        ):
            a, b = ask(part), ask(whole)
            pd.testing.assert_frame_equal(
                a.select_dtypes("number"), b.select_dtypes("number"), rtol=1e-5
            )
            assert list(a.columns) == list(b.columns)


class TestKnownCovariances:
    @staticmethod
    def data() -> tuple[pd.DataFrame, pd.DataFrame]:
        rng = np.random.default_rng(6)
        names = [f"a{i:02d}" for i in range(25)]
        B = 0.4 * rng.normal(size=(25, 25))
        A = pd.DataFrame(B @ B.T + np.eye(25), index=names, columns=names)
        at = rng.integers(0, 20, 300)  # five animals have no row
        data = pd.DataFrame({"animal": np.array(names)[at], "x": rng.normal(size=300)})
        data["herd"] = rng.integers(0, 22, 300)  # more herds than animals with rows
        data["w"] = rng.uniform(0.5, 2.0, 300)
        data["y"] = np.linalg.cholesky(A.to_numpy()).dot(rng.normal(size=25))[at]
        data["y"] += rng.normal(size=22)[data["herd"]] + data["x"] + rng.normal(size=300)
        order = rng.permutation(25)
        return data, A.iloc[order, order]

    FORMULAS = (
        "y ~ x + (1 | animal)",
        "y ~ x + (x | animal) + (1 | herd)",
        "y ~ (1 | herd) + (x || animal)",
    )

    @pytest.mark.parametrize("formula", FORMULAS)
    def test_the_fit_is_that_of_the_rows_in_memory(self, formula):
        data, A = self.data()
        whole = mx.lmer(formula, data, known={"animal": A}, weights="w", control=QUIET)
        for size in (37, 300):
            part = mx.lmer(
                formula, frames(data, size), known={"animal": A}, weights="w", control=QUIET
            )
            same_fit(part, whole)
        np.testing.assert_allclose(
            np.concatenate([piece[".fitted"] for piece in part.stream("augment")]),
            whole.augment()[".fitted"], rtol=1e-6,
        )  # fmt: skip
        new = data.iloc[:5].assign(animal=["a21", "a24", "a00", "a01", "a02"])
        np.testing.assert_allclose(part.predict(new), whole.predict(new), rtol=1e-6)

    def test_what_follows(self, tmp_path):
        data, A = self.data()
        formula = "y ~ x + (1 | animal) + (1 | herd)"
        whole = mx.lmer(formula, data, known={"animal": A}, control=QUIET)
        part = mx.lmer(formula, frames(data, 50), known={"animal": A}, control=QUIET)
        np.testing.assert_allclose(part.heritability(), whole.heritability(), rtol=1e-5)
        np.testing.assert_allclose(part.tidy()["df"], whole.tidy()["df"], rtol=1e-4)
        same_fit(part.update(". ~ . - x"), whole.update(". ~ . - x"))
        part.save(tmp_path / "fit.mixlm")
        np.testing.assert_allclose(
            mx.load(tmp_path / "fit.mixlm").ranef()["animal"], whole.ranef()["animal"], rtol=1e-5
        )
        assert mx.plan(formula, frames(data, 50), known={"animal": A}).q == part.system.q
        with pytest.raises(mx.OptionError, match="append is not possible for a fit with known="):
            part.append(data)

    def test_what_is_refused(self):
        data, A = self.data()
        source = frames(data, 50)
        with pytest.raises(mx.OptionError, match="known names 'sire'"):
            mx.lmer("y ~ x + (1 | animal)", source, known={"sire": A})
        with pytest.raises(mx.DataError, match=r"known\['animal'\] lacks"):
            mx.lmer("y ~ x + (1 | animal)", source, known={"animal": A.iloc[:9, :9]})
        with pytest.raises(mx.OptionError, match="give a dict"):
            mx.lmer("y ~ x + (1 | animal)", source, known=A)
