"""Batches that are broken, or of which some differ: a clear error or a right answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mixlm_sparse as mx
from tests.model.test_batches import QUIET, same_fit

FORMULA = "y ~ x + f + (1 | g)"


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    n = 600
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "f": rng.choice(list("abc"), n),
            "g": rng.choice([f"g{i}" for i in range(25)], n),
        }
    )
    frame["y"] = rng.normal(size=n) + frame["x"] + rng.normal(size=25)[
        frame["g"].str[1:].astype(int)
    ]
    return frame


def halves(first, second):
    return lambda: iter([first, second])


def fit(source, formula=FORMULA, **arguments):
    return mx.lmer(formula, source, control=QUIET, **arguments)


class TestFiles:
    def write(self, folder, **frames):
        folder.mkdir(exist_ok=True)
        for name, frame in frames.items():
            table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame)
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=100)
        return folder

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
    def test_truncated(self, data, tmp_path, keep):
        folder = self.write(tmp_path / "d", a=data)
        path = folder / "a.parquet"
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(mx.DataError, match="cannot be read as Parquet"):
            fit(path)

    def test_broken_in_the_middle(self, data, tmp_path):
        folder = self.write(tmp_path / "d", a=data)
        path = folder / "a.parquet"
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 400] = bytes(400)
        path.write_bytes(bytes(content))
        with pytest.raises(mx.DataError, match="cannot be read as Parquet"):
            fit(path)

    def test_no_parquet(self, data, tmp_path):
        path = tmp_path / "a.csv"
        data.to_csv(path)
        with pytest.raises(mx.DataError, match="is no Parquet file by its name"):
            fit(path)

    def test_no_file(self, tmp_path):
        for path, message in (
            (tmp_path / "none.parquet", "no file or folder"),
            (str(tmp_path / "*.parquet"), "check the pattern"),
            (tmp_path, "no Parquet file"),
        ):
            with pytest.raises(FileNotFoundError, match=message):
                fit(path)

    @pytest.mark.parametrize("column", ["y", "x", "f", "g"])
    def test_a_file_without_a_column(self, data, tmp_path, column):
        folder = self.write(tmp_path / "d", a=data[:300], b=data[300:].drop(columns=column))
        with pytest.raises(mx.DataError, match=f"no column '{column}'"):
            fit(folder)

    def test_a_file_with_another_type(self, data, tmp_path):
        other = data[300:].assign(x=data["x"][300:].astype(str))
        with pytest.raises(mx.DataError, match=r"'x' is double, .*string"):
            fit(self.write(tmp_path / "d", a=data[:300], b=other))

    def test_numbers_of_two_widths(self, data, tmp_path):
        data["x"] = np.arange(600) % 7
        data["x"] = np.where(data.index < 300, data["x"], data["x"] + 0.5)
        first = data[:300].assign(x=data["x"][:300].astype(np.int32))
        folder = self.write(tmp_path / "d", a=first, b=data[300:])
        same_fit(fit(folder), fit(data))

    def test_a_file_without_rows(self, data, tmp_path):
        empty = pa.Table.from_pandas(data).slice(0, 0)
        folder = self.write(tmp_path / "d", a=empty, b=data, c=empty)
        same_fit(fit(folder), fit(data))

    def test_columns_in_another_order(self, data, tmp_path):
        folder = self.write(tmp_path / "d", a=data[:300], b=data[300:][["g", "y", "f", "x"]])
        same_fit(fit(folder), fit(data))

    def test_a_file_that_shrinks_before_it_is_read_again(self, data, tmp_path):
        folder = self.write(tmp_path / "d", a=data[:300], b=data[300:])
        found = fit(folder)
        self.write(folder, b=data[300:400])
        with pytest.raises(mx.DataError, match=r"not those that the model was fitted to|cannot be"):
            found.fittedvalues  # noqa: B018


class TestBatches:
    def test_levels_that_appear_late(self, data):
        early = data[(data["f"] != "a") & (data["g"] != "g0")]
        late = data.drop(early.index)
        same_fit(fit(halves(early, late)), fit(data))

    def test_another_order_of_categories(self, data):
        first, second = data[:300].copy(), data[300:].copy()
        first["f"] = pd.Categorical(first["f"], categories=["a", "b", "c"])
        second["f"] = pd.Categorical(second["f"], categories=["c", "b", "a"])
        with pytest.raises(mx.DataError, match="'f' has its categories in different orders"):
            fit(halves(first, second))

    def test_more_categories_later(self, data):
        data["f"] = data["f"].astype(pd.CategoricalDtype(["c", "b", "a"]))
        early = data[data["f"] != "b"]
        late = data.drop(early.index)
        early = early.assign(f=early["f"].cat.remove_unused_categories())
        found = fit(halves(early, late))
        assert list(found.fixef.index)[2:] == ["fb", "fa"]
        same_fit(found, fit(data))

    def test_empty_batches(self, data):
        def batches():
            yield data[:0]
            yield data[:10]
            yield data[10:10]
            yield data[10:]

        same_fit(fit(batches), fit(data))

    def test_only_empty_batches(self, data):
        with pytest.raises(mx.DataError, match="no rows"):
            fit(lambda: iter([data[:0], data[:0]]))
        with pytest.raises(mx.DataError, match="no rows"):
            fit(lambda: iter([]))

    def test_missing_cells_in_some_batches(self, data):
        data.loc[:50, "x"] = np.nan
        data.loc[400:410, ["y", "g", "f"]] = None
        whole = fit(data)
        for k in (51, 100, 599):
            same_fit(fit(lambda k=k: (data[i : i + k] for i in range(0, 600, k))), whole)

    def test_a_level_that_only_rows_left_out_have(self, data):
        data.loc[data["f"] == "c", "y"] = np.nan
        data.loc[data["g"] == "g3", "x"] = np.nan
        found = fit(halves(data[:300], data[300:]))
        assert found.ngroups == {"g": 24}
        assert list(found.fixef.index) == ["(Intercept)", "x", "fb"]
        same_fit(found, fit(data))

    def test_missing_cells_that_are_to_be_an_error(self, data):
        data.loc[555, "x"] = np.nan
        with pytest.raises(mx.DataError, match="cells are missing in 'x'"):
            fit(halves(data[:300], data[300:]), na_action="raise")

    def test_no_row_is_left(self, data):
        for changes in ({"x": np.nan}, {"g": None}):
            with pytest.raises(mx.DataError, match=r"no rows are left|only missing"):
                fit(halves(data[:300].assign(**changes), data[300:].assign(**changes)))
        with pytest.raises(mx.DataError, match="subset leaves out"):
            fit(halves(data[:300], data[300:]), subset="x > 1000")

    @pytest.mark.parametrize(
        ("column", "values"), [("g", np.arange(300)), ("x", "a"), ("f", 1.5), ("y", "a")]
    )
    def test_another_kind_in_a_later_batch(self, data, column, values):
        second = data[300:].assign(**{column: values})
        with pytest.raises(mx.DataError, match=f"'{column}'"):
            fit(halves(data[:300], second))

    def test_a_later_batch_without_a_column(self, data):
        with pytest.raises(mx.DataError, match="no column 'x'"):
            fit(halves(data[:300], data[300:].drop(columns="x")))

    def test_infinite_values(self, data):
        data.loc[500, "x"] = np.inf
        with pytest.raises(mx.DataError, match="x"):
            fit(halves(data[:300], data[300:]))

    def test_weights_must_be_positive_in_every_batch(self, data):
        data["w"] = 1.0
        data.loc[500, "w"] = 0.0
        with pytest.raises(mx.DataError, match="zero weights"):
            fit(halves(data[:300], data[300:]), weights="w")

    def test_arrays_have_no_share_in_batches(self, data):
        for role in ("weights", "offset", "subset"):
            with pytest.raises(mx.OptionError, match=f"{role} is an array"):
                fit(halves(data[:300], data[300:]), **{role: np.ones(600)})
        with pytest.raises(mx.OptionError, match="exclude"):
            fit(halves(data[:300], data[300:]), na_action="exclude")

    def test_an_error_in_the_source_comes_out(self, data):
        def broken():
            yield data[:300]
            raise ConnectionError("the line is dead")

        with pytest.raises(ConnectionError, match="the line is dead"):
            fit(broken)

    def test_whole_numbers_too_large_for_decimals(self, data):
        data["g"] = np.arange(600) % 20 + 2**60
        first = data[:300]
        second = data[300:].assign(g=data["g"][300:].astype(float))
        with pytest.raises(mx.DataError, match="53 bits"):
            fit(halves(first, second))

    def test_groups_that_are_decimal_in_some_batches(self, data):
        data["g"] = np.arange(600) % 20
        second = data[300:].assign(g=data["g"][300:].astype(float))
        same_fit(fit(halves(data[:300], second)), fit(data))


class TestReadOnce:
    def test_a_pass_for_levels_is_not_there(self, data):
        with pytest.raises(mx.DataError, match=r"levels of 'f'.*read once only.*levels=\{"):
            fit(iter([data[:300], data[300:]]))
        with pytest.raises(mx.DataError, match=r"what scale\(x\) learns.*read once only"):
            fit(iter([data[:300], data[300:]]), "y ~ scale(x) + (1 | g)")

    def test_levels_given(self, data):
        products = mx.cross_products(
            FORMULA, iter([data[:300], data[300:]]), levels={"f": ["a", "b", "c"]}
        )
        same_fit(mx.fit_products(products, control=QUIET), fit(data))

    def test_rows_cannot_be_read_again(self, data):
        found = fit(iter([data[:300], data[300:]]), "y ~ x + (1 | g)")
        with pytest.raises(mx.DataError, match="could be read once only"):
            found.fittedvalues  # noqa: B018

    def test_an_iterator_that_is_used_up(self, data):
        walk = iter([data])
        list(walk)
        with pytest.raises(mx.DataError, match="no rows"):
            fit(walk)

    def test_a_function_that_returns_one_iterator_twice(self, data):
        walk = iter([data[:300], data[300:]])
        with pytest.raises(mx.DataError, match="returns the same iterator at every call"):
            fit(lambda: walk)

    def test_a_function_that_returns_one_frame(self, data):
        for make in (lambda: data, lambda: pa.Table.from_pandas(data), lambda: [data]):
            same_fit(fit(make), fit(data))

    def test_a_function_that_returns_no_iterator(self, data):
        with pytest.raises(mx.DataError, match="returns a int"):
            fit(lambda: 3)
