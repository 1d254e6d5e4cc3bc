"""Frames of all kinds give the same matrices, and only what is named is read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.readers import open_table
from tests.design.example import EXAMPLE


def mixed_frame():
    frame = EXAMPLE.drop(columns="o").assign(
        c=pd.Categorical.from_codes(EXAMPLE["s"] % 3, categories=["lo", "mid", "hi"])
    )
    frame.loc[3, "x"] = np.nan
    frame.loc[7, "f"] = None
    return frame


def to_polars(frame):
    pl = pytest.importorskip("polars")
    text = frame["c"].astype(str).tolist()
    columns = {name: frame[name].to_numpy() for name in frame if name not in ("c", "f")}
    columns["f"] = [None if pd.isna(v) else v for v in frame["f"]]
    return pl.DataFrame(columns).with_columns(
        pl.Series("c", text, dtype=pl.Enum(["lo", "mid", "hi"]))
    )


def to_arrow(frame):
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return pa.concat_tables([table.slice(0, 25), table.slice(25)])


def to_duckdb(frame):
    pytest.importorskip("pyarrow")
    return pytest.importorskip("duckdb").sql("select * from frame")


def nullable_arrow(frame):
    pytest.importorskip("pyarrow")
    return frame.convert_dtypes(dtype_backend="pyarrow")


FRAMES = {
    "dict of series": dict,
    "dict of arrays": lambda d: {k: d[k].array if k == "c" else d[k].to_numpy() for k in d},
    "dict of lists": lambda d: {k: d[k] if k == "c" else d[k].tolist() for k in d},
    "objects": lambda d: d.astype(dict.fromkeys(["y", "x", "b", "k", "f", "s"], object)),
    "nullable": lambda d: d.convert_dtypes(),
    "arrow types": nullable_arrow,
    "small types": lambda d: d.astype({"k": np.int8, "s": np.uint16}),
    "polars": to_polars,
    "polars lazy": lambda d: to_polars(d).lazy(),
    "pyarrow": to_arrow,
    "duckdb": to_duckdb,
}


@pytest.mark.parametrize("kind", FRAMES)
def test_all_frames_give_the_same_matrices(kind):
    formula = "y ~ x*f + k + b + c + (x | s) + (1 | g:c)"
    expected = model_matrices(formula, mixed_frame(), weights="z")
    m = model_matrices(formula, FRAMES[kind](mixed_frame()), weights="z")
    assert m.fixed.names == expected.fixed.names
    np.testing.assert_array_equal(m.X, expected.X)
    np.testing.assert_array_equal(m.y, expected.y)
    np.testing.assert_array_equal(m.weights, expected.weights)
    np.testing.assert_array_equal(m.rows, np.delete(np.arange(60), [3, 7]))
    for ours, theirs in zip(m.factors, expected.factors, strict=True):
        np.testing.assert_array_equal(ours.codes, theirs.codes)
        assert ours.levels == theirs.levels


@pytest.mark.parametrize("kind", [dict, pd.DataFrame])
def test_columns_that_are_named_are_copied_and_no_others(kind):
    columns = {"y": np.arange(6.0), "x": np.arange(6.0), "g": list("aabbcc"), "junk": np.ones(6)}
    frame = kind(columns)
    m = model_matrices("y ~ x + (1 | g)", frame)
    assert not np.shares_memory(m.y, np.asarray(frame["y"]))
    assert set(m.data.table.columns) == {"y", "x", "g"}


def test_only_named_columns_are_touched():
    frame = EXAMPLE.assign(junk=[object()] * 60)
    assert model_matrices("y ~ x + (1 | s)", frame).nobs == 60


class Frame(pd.DataFrame):
    """A frame of a package of its own, whose columns are read as it gives them."""


def test_columns_are_read_the_same_whatever_gives_them():
    n = 9
    days = pd.date_range("2024-01-01", periods=n)
    frame = pd.DataFrame(
        {
            "float": np.r_[np.nan, np.arange(n - 1.0)],
            "whole": np.arange(n),
            "small": np.arange(n, dtype=np.int8),
            "half": np.arange(n, dtype=np.float32),
            "truth": np.arange(n) > 3,
            "text": list("abcabcabc"),
            "object": np.array([1, 2.5, None] * 3, dtype=object),
            "levels": pd.Categorical(list("babcbabcb"), categories=list("cbaz"), ordered=True),
            "nullable": pd.array([1, None, 3] * 3, dtype="Int64"),
            "day": days,
            "zone": days.tz_localize("Europe/Vienna"),
            "months": pd.period_range("2024-01", periods=n, freq="M"),
            7: np.arange(n) ** 2,
        }
    )
    names = [str(name) for name in frame]
    table = open_table(frame, names)
    slow = open_table(Frame(frame), names)
    twice = pd.concat([frame, pd.DataFrame({"other": range(n), "again": range(n)})], axis=1)
    twice.columns = [*frame.columns, "other", "other"]  # places are not those of unique names
    for other in (slow, open_table(twice, names), open_table(frame[frame.columns[::-1]], names)):
        for name in names:
            a, b = table.columns[name], other.columns[name]
            assert (a.kind, a.ordered) == (b.kind, b.ordered)
            np.testing.assert_array_equal(a.values, b.values)
            assert (a.missing is None) == (b.missing is None)
            if a.missing is not None:
                np.testing.assert_array_equal(a.missing, b.missing)
            if a.levels is not None:
                assert list(a.levels) == list(b.levels)


def test_columns_that_were_read_cannot_be_written_to():
    frame = pd.DataFrame({"x": np.arange(4.0), "y": np.arange(4.0)})
    values = open_table(frame, ["x"]).columns["x"].values
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 5.0


SWAPPED = np.dtype(np.float64).newbyteorder("S")
GROUPS = np.arange(60) % 6
WHOLE = GROUPS.astype(np.dtype(np.int32).newbyteorder("S"))
HALVES = (GROUPS / 2).astype(SWAPPED)


@pytest.mark.parametrize("groups", [WHOLE, HALVES], ids=["whole numbers", "halves"])
def test_the_order_of_bytes_does_not_matter(groups):
    """Files of FITS, NetCDF and others are read in theirs."""
    rng = np.random.default_rng(1)
    x, quiet = rng.normal(size=60), mx.Control(warn=False)
    data = {"y": x + rng.normal(size=6)[GROUPS] + rng.normal(size=60), "x": x, "g": groups}
    data["h"] = (np.arange(60) % 4 / 4).astype(SWAPPED)
    usual = {name: values.astype(values.dtype.newbyteorder("=")) for name, values in data.items()}
    levels = groups[:6]
    A = 0.5 * np.eye(6) + 0.5

    def fits(columns, labels):
        by = pd.Index(labels)
        yield mx.lmer("y ~ x + C(h) + (x | g)", columns, control=quiet)
        yield mx.lmer("y ~ x + (1 | g)", pd.DataFrame(columns), control=quiet)
        yield mx.lmer("y ~ x + (1 | g)", columns, variance=mx.VarIdent(by="h"), control=quiet)
        yield mx.fit_matrices(columns["y"], columns["x"], [(columns["g"],)], control=quiet)
        for known in (pd.DataFrame(A, by, by), mx.Relationship(A, labels), mx.Precision(A, labels)):
            yield mx.lmer("y ~ x + (1 | g)", columns, known={"g": known}, control=quiet)

    expected = fits(usual, levels.astype(levels.dtype.newbyteorder("=")))
    for found, same in zip(fits(data, levels), expected, strict=True):
        assert found.criterion == same.criterion
        assert list(found.ranef()) == list(same.ranef())
