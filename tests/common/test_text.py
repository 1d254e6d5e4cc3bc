"""Numbers, columns and names as text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.common.text import (
    abbreviate,
    abbreviate_all,
    as_written,
    decimals_needed,
    display_width,
    format_column,
    format_fixed,
    format_number,
    shorten,
    shorten_all,
    text_table,
)


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [
        ([1.0, 10.0, 100.0], 4, ["1.000", "10.000", "100.000"]),
        ([12345.678], 4, ["12346"]),
        ([0.0, 3.0], 3, ["0", "3.00"]),
        ([np.nan, 2.0, np.inf, -np.inf], 2, ["NaN", "2.0", "Inf", "-Inf"]),
        ([1e12, 1.0], 4, ["1e+12", "1"]),
        ([1e-20, 5.0], 4, ["0.000", "5.000"]),
        ([-1e-20, 5.0], 4, ["0.000", "5.000"]),
        ([], 4, []),
    ],
)
def test_columns(values, digits, expected):
    assert format_column(values, digits) == expected


def test_columns_that_share_decimals():
    assert format_column([10.0], alongside=[0.01]) == ["10.00000"]
    assert decimals_needed([0.00123], 3) == 5
    assert decimals_needed([np.nan, 0.0], 4) == 0


def test_single_numbers():
    assert format_number(0.1 + 0.2) == "0.3"
    assert format_fixed([1.0, 1e15], 2) == ["1.00", "1.00e+15"]
    assert text_table([["a", "bb"], ["1", "22"]], left=1) == ["a   1", "bb 22"]
    assert as_written(12345678.0) == "12345678"
    assert as_written(1e20) == "1e+20"
    assert as_written(float("nan")) == "nan"


# ------------------------------------------------------------------------------------------- names

NAMES = st.lists(st.text(alphabet="abé反_1", min_size=1, max_size=30), min_size=1, max_size=8)


@given(NAMES, st.integers(8, 20))
def test_shortened_names_fit_and_differ_where_the_names_do(names, width):
    out = shorten_all(names, width)
    assert all(display_width(text) <= width for text in out)
    assert len(set(out)) == len(set(names))
    assert len(set(zip(names, out, strict=True))) == len(set(names))
    short = {name for name in names if display_width(name) <= width}
    assert all(text == name for name, text in zip(names, out, strict=True) if name in short)


@given(NAMES)
def test_abbreviations_differ_where_the_names_do(names):
    assert len(set(abbreviate_all(names, 6))) == len(set(names))


def test_many_long_names_with_few_differences():
    names = [f"{'x' * 40}{i % 10}{'y' * 40}{i // 10}{'z' * 40}" for i in range(100)]
    assert len(set(shorten_all(names, 12))) == 100


def test_single_names():
    assert shorten("abcdef", 4) == "ab…f"
    assert shorten("abc", 4) == "abc"
    assert abbreviate("recipeB:temperature", 6) == "rcpB:t"
    assert abbreviate_all(["site_a", "site_b"], 6) == ["site_a", "site_b"]


def test_tables_align_by_columns_of_the_terminal():
    lines = text_table([["", "对照组", "a"], ["n", "1", "22"]])
    assert lines == ["        n", "对照组  1", "a      22"]
