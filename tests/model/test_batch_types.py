"""Columns of every Arrow type, cut into batches in every way: the fit of the whole, or an error."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
N = 160
RNG = np.random.default_rng(0)
CODES, F, FLAG = RNG.integers(0, 8, N), RNG.integers(0, 3, N), RNG.integers(0, 2, N).astype(bool)
X = RNG.normal(size=N)
Y = X + 0.7 * F + RNG.normal(size=8)[CODES] + FLAG + RNG.normal(size=N)
BASE = {
    "y": pa.array(Y),
    "x": pa.array(X),
    "f": pa.array(np.array(list("cab"))[F]),
    "g": pa.array([f"g{c}" for c in CODES]),
}
BIG = 2**60 + 3 * np.arange(8)  # not to be told apart as floats
DAYS = [dt.date(2020, 1, 1) + dt.timedelta(int(c)) for c in CODES]
HOURS = [dt.datetime(2020, 1, 1, int(c)) for c in CODES]
FORMULA = "y ~ x + f + (1 | g)"


def without(values: pa.Array, *rows: int) -> pa.Array:
    """Return the values with some of them missing."""
    return pa.array(
        [None if i in rows else value for i, value in enumerate(values.to_pylist())], values.type
    )


def decimals(values: np.ndarray, dtype: pa.DataType, digits: int) -> pa.Array:
    return pa.array([decimal.Decimal(f"{value:.{digits}f}") for value in values], dtype)


CASES = {
    "decimals": {"x": decimals(X, pa.decimal128(12, 5), 5),
                 "y": decimals(Y, pa.decimal256(20, 8), 8)},
    "decimal groups": {"g": decimals(CODES, pa.decimal128(5, 0), 0)},
    "bool in the fixed part": {"f": pa.array(FLAG)},
    "bool groups": {"g": pa.array(FLAG)},
    "dates": {"g": pa.array(DAYS, pa.date32())},
    "dates in milliseconds": {"g": pa.array(DAYS, pa.date64())},
    "times in nanoseconds": {"g": pa.array(HOURS, pa.timestamp("ns"))},
    "times of a zone": {"g": pa.array(HOURS, pa.timestamp("ns", tz="UTC"))},
    "durations": {"g": pa.array([dt.timedelta(int(c)) for c in CODES], pa.duration("ns"))},
    "large integers": {"g": pa.array(BIG[CODES])},
    "large unsigned integers": {"g": pa.array(BIG.astype(np.uint64)[CODES])},
    "small integers": {"g": pa.array(CODES.astype(np.int8))},
    "half floats": {"x": pa.array(X.astype(np.float16))},
    "float groups": {"g": pa.array(CODES.astype(np.float32))},
    "large strings": {name: BASE[name].cast(pa.large_string()) for name in "fg"},
    "dictionaries": {"g": pa.array(np.sort([f"g{c}" for c in CODES])).dictionary_encode()},
    "dictionary of integers": {"g": pa.array(np.sort(BIG[CODES])).dictionary_encode()},
    "nulls": {"x": without(BASE["x"], 3, 77), "f": without(BASE["f"], 1, 50),
              "g": without(BASE["g"], 9, 10), "y": without(BASE["y"], 120)},
    "nulls in dictionaries": {"g": without(pa.array(np.sort([f"g{c}" for c in CODES])), 1, 9)
                              .dictionary_encode()},
    "null bools": {"f": without(pa.array(FLAG), 1, 50)},
    "null integers": {"g": without(pa.array(BIG[CODES]), 1, 50)},
    "null dates": {"g": without(pa.array(DAYS), 1, 50)},
    "NaN": {"x": pa.array(np.where(np.arange(N) % 50 == 0, np.nan, X))},
    "an empty text": {"g": pa.array(["" if c == 0 else f"g{c}" for c in CODES])},
}  # fmt: skip
if hasattr(pa, "string_view"):  # from pyarrow 16 on
    CASES["string views"] = {name: BASE[name].cast(pa.string_view()) for name in "fg"}


def own_dictionaries(part: pa.Table) -> pa.Table:
    """Return a part whose dictionaries hold its own values alone, in the order they come in."""
    columns = []
    for column in part.columns:
        values = column.combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type).dictionary_encode()
        columns.append(values)
    return pa.table(columns, names=part.column_names)


def rows_of(table: pa.Table, order: np.ndarray) -> list[pa.Table]:
    return [table.slice(int(i), 1) for i in order]


CUTS = {
    "one row each": lambda t: rows_of(t, np.arange(N)),
    "rows in another order": lambda t: rows_of(t, np.random.default_rng(1).permutation(N)),
    "empty batches between": lambda t: [t.slice(0, 0), t.slice(0, 60), t.slice(0, 0), t.slice(60),
                                        t.slice(0, 0)],
    "parts in another order": lambda t: [t.slice(40 * i, 40) for i in (2, 0, 3, 1)],
}  # fmt: skip


def batches_of(parts: list[pa.Table]):
    return itertools.chain.from_iterable(part.to_batches() for part in parts)


def require_same(part: mx.LinearMixedFit, whole: mx.LinearMixedFit) -> None:
    assert part.criterion == pytest.approx(whole.criterion, rel=1e-10)
    assert (part.nobs, part.ngroups) == (whole.nobs, whole.ngroups)
    pd.testing.assert_series_equal(part.fixef, whole.fixef, rtol=1e-7, atol=1e-9)
    mine, theirs = part.ranef()["g"], whole.ranef()["g"]
    kinds = {type(level) for level in theirs.index} - {str, float, bool, int}
    assert kinds <= {type(level) for level in mine.index} | {dt.date, pd.Timestamp}
    assert [str(level)[:10] for level in mine.index] == [str(level)[:10] for level in theirs.index]
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_fit_of_the_whole(case: dict, cut, tmp_path) -> None:
    table = pa.table({**BASE, **case})
    whole = mx.lmer(FORMULA, table, control=QUIET)
    parts = cut(table)
    require_same(mx.lmer(FORMULA, lambda: batches_of(parts), control=QUIET), whole)
    require_same(
        mx.lmer(FORMULA, lambda: iter([own_dictionaries(p) for p in parts]), control=QUIET), whole
    )
    if cut is CUTS["empty batches between"]:
        path = tmp_path / "rows.parquet"
        try:
            pq.write_table(table, path, row_group_size=37)
        except pa.ArrowNotImplementedError:  # half floats before pyarrow 15
            return
        require_same(mx.lmer(FORMULA, path, control=QUIET), whole)


@settings(max_examples=40, deadline=None)
@given(
    first=st.sampled_from(sorted(CASES)),
    second=st.sampled_from(sorted(CASES)),
    cuts=st.lists(st.integers(0, N), max_size=6),
    seed=st.none() | st.integers(0, 99),
    own=st.booleans(),
)
def test_any_types_cut_anywhere(first, second, cuts, seed, own) -> None:
    """Two of the cases at once, rows shuffled or not, parts of any sizes, empty ones among them."""
    table = pa.table({**BASE, **CASES[first], **CASES[second]})
    whole = mx.lmer(FORMULA, table, control=QUIET)
    if seed is not None:
        table = table.take(pa.array(np.random.default_rng(seed).permutation(N)))
    ends = sorted([0, *cuts, N])
    parts = [table.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    if own:
        parts = [own_dictionaries(part) for part in parts]
    require_same(mx.lmer(FORMULA, lambda: iter(parts), control=QUIET), whole)


def test_times_keep_their_kind(tmp_path) -> None:
    for name, value in (
        ("times in nanoseconds", pd.Timestamp("2020-01-01 01:00")),
        ("durations", pd.Timedelta(days=1)),
        ("dates", pd.Timestamp("2020-01-02")),
    ):
        table = pa.table({**BASE, **CASES[name]})
        fit = mx.lmer(FORMULA, lambda t=table: iter(t.to_batches(30)), control=QUIET)
        assert fit.ranef()["g"].index[1] == value
        other = mx.lmer("y ~ x + factor(g) + (1 | f)", lambda t=table: iter(t.to_batches(30)),
                        control=QUIET)  # fmt: skip
        whole = mx.lmer("y ~ x + factor(g) + (1 | f)", table, control=QUIET)
        pd.testing.assert_series_equal(other.fixef, whole.fixef, rtol=1e-7, atol=1e-9)


def test_a_nanosecond_tells_groups_apart() -> None:
    stamps = pa.array((1_600_000_000_000_000_000 + CODES).astype("datetime64[ns]"))
    table = pa.table({**BASE, "g": stamps})
    fit = mx.lmer(FORMULA, lambda: iter(table.to_batches(30)), control=QUIET)
    require_same(fit, mx.lmer(FORMULA, table, control=QUIET))
    assert fit.ngroups == {"g": 8}


@pytest.mark.parametrize("argument", [{"subset": "x > 0"}, {"weights": "w"}, {"offset": "x"}])
def test_arguments_that_name_columns_of_the_formula(argument: dict, tmp_path) -> None:
    table = pa.table({**BASE, "w": pa.array(1.0 + X**2)})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    formula = "y ~ x + w + f + (1 | g)"
    whole = mx.lmer(formula, table, control=QUIET, **argument)
    for source in (path, lambda: iter(table.to_batches(30))):
        require_same(mx.lmer(formula, source, control=QUIET, **argument), whole)
    once = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(30))
    plain = "y ~ x + w + (1 | g)"
    require_same(
        mx.lmer(plain, once, control=QUIET, **argument),
        mx.lmer(plain, table, control=QUIET, **argument),
    )


@pytest.mark.parametrize(
    "values",
    [pa.array([[1.0]] * N), pa.array([{"a": 1}] * N), BASE["g"].cast(pa.binary())],
    ids=["lists", "records", "bytes"],
)
def test_what_no_model_can_use(values: pa.Array) -> None:
    table = pa.table({**BASE, "x": values})
    for source in (table, lambda: iter(table.to_batches(30))):
        with pytest.raises(mx.DataError, match=r"column 'x'.*no model can use"):
            mx.lmer(FORMULA, source, control=QUIET)


def test_numbers_of_64_bits_are_refused() -> None:
    numbers = np.uint64(2**63) + CODES.astype(np.uint64)
    table = pa.table({**BASE, "g": pa.array(numbers)})
    with pytest.raises(mx.DataError, match="more than 63 bits: convert it to text"):
        mx.lmer(FORMULA, lambda: iter(table.to_batches(30)), control=QUIET)


def test_dictionaries_of_the_fixed_part_in_different_orders() -> None:
    table = pa.table({**BASE, "f": BASE["f"].dictionary_encode()})
    whole = mx.lmer(FORMULA, table, control=QUIET)
    require_same(mx.lmer(FORMULA, lambda: iter(table.to_batches(30)), control=QUIET), whole)
    own = [own_dictionaries(table.slice(i, 3)) for i in range(0, N, 3)]
    with pytest.raises(mx.DataError, match="categories in different orders"):
        mx.lmer(FORMULA, lambda: iter(own), control=QUIET)  # which level is the first?


def test_an_ordered_dictionary_keeps_its_order() -> None:
    order = ["g3", "g1", "g0", "g2", "g7", "g6", "g5", "g4"]
    codes = pa.array(np.argsort([3, 1, 0, 2, 7, 6, 5, 4])[CODES], pa.int32())
    ordered = pa.DictionaryArray.from_arrays(codes, pa.array(order), ordered=True)
    table = pa.table({**BASE, "g": ordered})
    fit = mx.lmer(FORMULA, lambda: iter(table.to_batches(30)), control=QUIET)
    assert list(fit.ranef()["g"].index) == order
    turned = [table.slice(0, 80), table.slice(80).set_column(3, "g", pa.DictionaryArray.from_arrays(
        pa.array(7 - codes.to_numpy()[80:], pa.int32()), pa.array(order[::-1]), ordered=True))]
    with pytest.raises(mx.DataError, match="categories in different orders"):
        mx.lmer(FORMULA, lambda: iter(turned), control=QUIET)


def test_times_keep_their_zone(tmp_path) -> None:
    zone = pd.to_datetime(HOURS).tz_localize("Europe/Berlin")
    frame = pa.table(BASE).to_pandas().assign(g=zone)
    table = pa.Table.from_pandas(frame)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=37)
    whole = mx.lmer(FORMULA, frame, control=QUIET)
    in_utc = table.set_column(3, "g", table["g"].cast(pa.timestamp("us", tz="UTC"))).slice(90)
    without_some = table.set_column(3, "g", without(table["g"].combine_chunks(), 3, 9))
    for source in (
        tmp_path / "rows.parquet",
        lambda: iter(table.to_batches(30)),
        lambda: iter([table.slice(0, 90), in_utc]),
    ):
        fit = mx.lmer(FORMULA, source, control=QUIET)
        require_same(fit, whole)
        assert list(fit.ranef()["g"].index) == list(whole.ranef()["g"].index)
        assert fit.ranef()["g"].index[0].tz is not None
    fewer = mx.lmer(FORMULA, lambda: iter(without_some.to_batches(30)), control=QUIET)
    require_same(fewer, mx.lmer(FORMULA, frame.drop(index=[3, 9]), control=QUIET))


def test_a_dictionary_of_numbers_keeps_its_order() -> None:
    numbers = pa.DictionaryArray.from_arrays(pa.array(F.astype(np.int8)), pa.array([2.5, 1.5, 9.0]))
    table = pa.table({**BASE, "x": numbers})
    whole = mx.lmer("y ~ x + (1 | g)", table, control=QUIET)
    assert list(whole.fixef.index) == ["(Intercept)", "x1.5", "x9"]
    require_same(
        mx.lmer("y ~ x + (1 | g)", lambda: iter(table.to_batches(30)), control=QUIET), whole
    )


def test_a_zero_has_no_sign() -> None:
    for zeros in ([-0.0, 0.0], [-0.0, -0.0]):
        values = np.where(CODES == 0, np.resize(zeros, N), CODES / 2.0)
        frame = pa.table({**BASE, "g": values}).to_pandas()
        whole = mx.lmer(FORMULA, frame, control=QUIET)
        parts = mx.lmer(FORMULA, lambda f=frame: (f[i : i + 7] for i in range(0, N, 7)),
                        control=QUIET)  # fmt: skip
        require_same(parts, whole)
        for fit in (whole, parts):
            assert str(fit.ranef()["g"].index[0]) == "0.0"


@pytest.mark.parametrize("wanted", [True, False], ids=["asked for", "beside"])
def test_two_columns_of_one_name(wanted: bool, tmp_path) -> None:
    name = "x" if wanted else "u"
    table = pa.table([*BASE.values(), pa.array(X), pa.array(X)], names=[*BASE, name, name])
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    sources = [lambda: iter(table.to_batches(30)), lambda: iter([table])]
    for source in sources if wanted else ():
        with pytest.raises(mx.DataError, match="more than one column 'x': rename the others"):
            mx.lmer(FORMULA, source, control=QUIET)
    with pytest.raises(mx.DataError, match="two columns of one name: rename one"):
        mx.lmer(FORMULA, table, control=QUIET)
    for source in () if wanted else sources:
        assert mx.lmer(FORMULA, source, control=QUIET).nobs == N
    with pytest.raises(mx.DataError, match=f"rows.parquet.*have more than one column '{name}'"):
        mx.lmer(FORMULA, path, control=QUIET)


def test_a_function_of_arguments() -> None:
    with pytest.raises(mx.DataError, match=r"'path'.*: give lambda: f\(\.\.\.\)"):
        mx.lmer(FORMULA, lambda path: iter([path]), control=QUIET)


def test_a_missing_column_is_told_with_all_there_are(tmp_path) -> None:
    pq.write_table(pa.table(BASE), tmp_path / "rows.parquet")
    with pytest.raises(mx.DataError, match="no column 'z'; the columns are 'y', 'x', 'f', 'g'"):
        mx.lmer("y ~ z + (1 | g)", tmp_path / "rows.parquet", control=QUIET)
