"""Grouping factors: levels keep their type, and new rows find them again."""

from __future__ import annotations

import datetime
import json
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.saved import factor_from_dict, factor_to_dict

CODES = np.repeat([2, 0, 1], 4)
DAYS = [datetime.date(2020, 5, 1 + int(code)) for code in CODES]
TOP = 2**64 - 10

# (column, levels in order as Python values, their names)
TYPED = {
    "whole numbers": (CODES + 100, [100, 101, 102], ["100", "101", "102"]),
    "numbers": (CODES + 0.5, [0.5, 1.5, 2.5], ["0.5", "1.5", "2.5"]),
    "truth": (CODES > 0, [False, True], ["FALSE", "TRUE"]),
    "dates": (DAYS, sorted(set(DAYS)), ["2020-05-01", "2020-05-02", "2020-05-03"]),
    "times": (
        pd.to_datetime(DAYS),
        sorted({pd.Timestamp(day) for day in DAYS}),
        ["2020-05-01", "2020-05-02", "2020-05-03"],
    ),
    "text": ([f"s{code}" for code in CODES], ["s0", "s1", "s2"], ["s0", "s1", "s2"]),
    "categories": (
        pd.Categorical(CODES, categories=[2, 1, 0]),
        [2, 1, 0],
        ["2", "1", "0"],
    ),
    "nullable": (pd.array(CODES, dtype="Int64"), [0, 1, 2], ["0", "1", "2"]),
    "top of 64 bits": (
        CODES.astype("uint64") + np.uint64(TOP),
        [TOP, TOP + 1, TOP + 2],
        [str(TOP), str(TOP + 1), str(TOP + 2)],
    ),
    "whole numbers as objects": (
        np.array([TOP + int(code) for code in CODES], dtype=object),
        [TOP, TOP + 1, TOP + 2],
        [str(TOP), str(TOP + 1), str(TOP + 2)],
    ),
    "close numbers": (
        np.where(CODES > 0, 0.3, 0.1 + 0.2),
        [0.3, 0.1 + 0.2],
        ["0.3", "0.30000000000000004"],
    ),
    "spans": (
        pd.to_timedelta(CODES, unit="D"),
        [pd.Timedelta(days=days) for days in range(3)],
        ["0 days 00:00:00", "1 days 00:00:00", "2 days 00:00:00"],
    ),
}


def matrices_of(column):
    frame = pd.DataFrame({"y": np.arange(12.0), "g": column})
    return frame, model_matrices("y ~ 1 + (1 | g)", frame)


@pytest.mark.parametrize(("column", "values", "names"), TYPED.values(), ids=TYPED)
def test_levels_keep_their_type(column, values, names):
    frame, m = matrices_of(column)
    factor = m.factors[0]
    assert factor.index.tolist() == values
    assert factor.index.name == "g"
    assert factor.levels == names
    number = pd.Series(np.arange(len(values)), index=factor.index)
    np.testing.assert_array_equal(frame["g"].map(number), factor.codes)
    np.testing.assert_array_equal(m.spec.evaluate(frame[3:]).codes[0], factor.codes[3:])
    loaded = factor_from_dict(json.loads(json.dumps(factor_to_dict(factor))))
    pd.testing.assert_index_equal(loaded.index, factor.index)


def test_levels_of_combinations_are_named_by_text():
    frame, m = matrices_of(CODES)
    m = model_matrices("y ~ 1 + (1 | g:h)", frame.assign(h=np.arange(12) % 2))
    assert m.factors[0].index.tolist() == ["0:0", "0:1", "1:0", "1:1", "2:0", "2:1"]


def test_uuids_are_levels():
    ids = [uuid.UUID(int=int(code)) for code in CODES]
    _, m = matrices_of(ids)
    assert m.factors[0].index.tolist() == sorted(set(ids))


def test_polars_numbers_of_128_bits():
    frame = pl.DataFrame({"y": np.arange(12.0), "g": CODES}).with_columns(
        pl.col("g").cast(pl.Int128)
    )
    assert model_matrices("y ~ 1 + (1 | g)", frame).factors[0].index.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([str(code).encode() for code in CODES], "holds values of type bytes.*decode"),
        ([(int(code), 1) for code in CODES], "holds values of type tuple"),
        (["a", 1, 2.5] * 4, "mixes values of different types \\(str, int, float"),
        ([2**70 + int(code) for code in CODES], "more than 64 bits"),
        (pd.Categorical.from_codes(CODES % 2, categories=["1", 1]), "same name '1'"),
    ],
)
def test_groups_that_cannot_be_levels(column, words):
    with pytest.raises(DataError, match=words):
        matrices_of(column)


@pytest.mark.parametrize("levels", [4, 64])
@pytest.mark.parametrize("batches", [False, True])
def test_combinations_that_no_number_can_count_are_refused(levels, batches):
    """4 ** 32 and 64 ** 11 are 2 ** 64 and more: keys of the combinations would wrap around."""
    depth = 32 if levels == 4 else 11
    rng = np.random.default_rng(levels)
    n = 200
    data = pd.DataFrame({f"f{i}": rng.permutation(np.arange(n) % levels) for i in range(depth)})
    data["y"] = rng.normal(size=n)
    formula = f"y ~ 1 + (1 | {':'.join(f'f{i}' for i in range(depth))})"
    rows = iter([data.head(n // 2), data.tail(n // 2)]) if batches else data
    with pytest.raises(DataError, match=f"combines {depth} factors .* make a column"):
        if batches:
            mx.cross_products(formula, rows)
        else:
            model_matrices(formula, data)


def test_combinations_up_to_that_number_are_levels():
    data = pd.DataFrame({f"f{i}": CODES for i in range(39)})  # 3 ** 39 < 2 ** 63 < 3 ** 40
    data["y"] = np.arange(CODES.size) % 5
    (factor,) = model_matrices(f"y ~ 1 + (1 | {':'.join(data.columns[:-1])})", data).factors
    assert factor.levels == [":".join([str(code)] * 39) for code in range(3)]
    np.testing.assert_array_equal(factor.codes, CODES)
