"""Data frames that print as finished tables."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.common.layout import WIDTH
from mixlm_sparse.common.tables import ResultTable, as_result, result_table
from mixlm_sparse.common.text import display_width

TESTS = pd.DataFrame(
    {
        "npar": [4, 6],
        "logLik": [-893.2325, -871.8141],
        "AIC": [1794.465, 1755.628],
        "LRT": [np.nan, 42.8368],
        "Df": [np.nan, 2.0],
        "Pr(>Chisq)": [np.nan, 4.99e-10],
        "mixture": ["", "1/2 chi2(1) + 1/2 chi2(2)"],
    },
    index=["<none>", "Days in (Days | Subject)"],
)


def table():
    return as_result(
        TESTS, heading="Likelihood-ratio tests", formulas={"m1": "y ~ x + (1 | g)"},
        note="by REML", notes={"<none>": "all terms"},
        blank=dict.fromkeys(["LRT", "Df", "Pr(>Chisq)"], ("<none>",)),
    )  # fmt: skip


def test_a_table_shows_all_that_belongs_to_it():
    assert repr(table()) == (
        "Likelihood-ratio tests\n"
        "m1: y ~ x + (1 | g)\n"
        "                          npar  logLik     AIC     LRT  Df  Pr(>Chisq)\n"
        "<none>                       4  -893.2  1794.5\n"
        "Days in (Days | Subject)     6  -871.8  1755.6  42.837   2    4.99e-10\n"
        "Note: by REML\n"
        "Note: <none>: all terms\n"
        "Note: mixture of Days in (Days | Subject): 1/2 chi2(1) + 1/2 chi2(2)"
    )


@pytest.mark.parametrize("form", ["to_html", "to_latex", "to_markdown"])
def test_other_forms_carry_the_same(form):
    text = getattr(table(), form)()
    for part in ("Likelihood-ratio tests", "by REML", "all terms", "42.837", "1755.6", "mixture"):
        assert part in text


def test_a_notebook_shows_escaped_html():
    html = table()._repr_html_()
    assert "&lt;none&gt;" in html
    assert "<none>" not in html
    assert html.count("<tr>") == 3


def test_arguments_of_pandas_give_what_pandas_gives():
    assert table().to_html(index=False) == TESTS.to_html(index=False)
    assert table().to_string() == TESTS.to_string()


def test_what_is_made_of_it_is_a_plain_frame():
    result = table()
    assert isinstance(result, pd.DataFrame)
    for made in (
        result[["npar", "AIC"]], result.iloc[:1], result.round(2), result[["npar"]] * 2, result.T,
        result.copy(), result.to_frame(), pd.concat([result, result]), result.reset_index(),
    ):  # fmt: skip
        assert type(made) is pd.DataFrame
    pd.testing.assert_frame_equal(result.to_frame(), TESTS)


def test_it_pickles():
    copy = pickle.loads(pickle.dumps(table()))
    assert isinstance(copy, ResultTable)
    assert repr(copy) == repr(table())


def test_a_function_is_decorated():
    @result_table("Shares")
    def shares(value: float) -> pd.DataFrame:
        """Return shares."""
        return pd.DataFrame({"estimate": [value]}, index=["adjusted"])

    assert shares.__doc__ == "Return shares."
    assert repr(shares(0.72166)) == "Shares\n          estimate\nadjusted    0.7217"


def test_numbers_have_digits_as_needed():
    frame = pd.DataFrame(
        {"n": [10_000_000, 3], "x": [1e7, 2e7], "estimate": [251.4051, 10.4673],
         "std_error": [6.8246, 1.5458], "p_value": [1e-20, 0.76612], "df": [17.0, 16.54]},
        index=["a", "b"],
    )  # fmt: skip
    assert repr(as_result(frame)).splitlines()[1].split() == [
        "a", "10000000", "10000000", "251.405", "6.825", "<2e-16", "17.0",
    ]  # fmt: skip


def test_long_tables_show_their_ends_and_their_size():
    frame = pd.DataFrame({"x": np.arange(1000.0) / 7.0})
    lines = repr(as_result(frame)).splitlines()
    assert len(lines) < 30
    assert lines[-1] == "[1000 rows, 1 columns]"
    assert lines[-2].startswith("999")
    assert len(as_result(frame).to_markdown().splitlines()) == 1002


def test_counting_indexes_are_not_shown():
    frame = pd.DataFrame({"term": ["a", "b"], "estimate": [1.0, 2.0]})
    assert repr(as_result(frame)).splitlines()[1].startswith("a")
    assert repr(as_result(frame[["estimate"]])).splitlines()[1].startswith("0")


def test_empty_tables():
    assert repr(as_result(TESTS.iloc[:0])) == "(no rows)"
    assert repr(as_result(pd.DataFrame(index=["a"]))) == "\na"
    assert "<div" in as_result(pd.DataFrame())._repr_html_()


CELLS = st.one_of(
    st.floats(width=32), st.integers(-(10**12), 10**12), st.text(max_size=60), st.none()
)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=30), st.lists(CELLS, min_size=3, max_size=3), max_size=9
    ),
    st.lists(st.text(max_size=60), min_size=3, max_size=3),
)
def test_no_line_is_longer_than_a_terminal(columns, index):
    result = as_result(pd.DataFrame(columns, index=index))
    lines = repr(result).splitlines()
    assert all(display_width(line) <= WIDTH for line in lines)
    for form in (result._repr_html_, result.to_latex, result.to_markdown):
        assert isinstance(form(), str)


def test_the_usual_number_of_a_long_column_counts_however_it_is_rounded():
    # the share of the largest number that the middle one is, times the largest, may lie above it
    for middle in np.nextafter(0.78659254, np.linspace(0.0, 1.0, 50)) + np.arange(50) * 1e-9:
        for largest in (1.30324007, 1.3032400700000003, 1.3, 7.7):
            column = pd.DataFrame({"variogram": [0.3] * 7 + [middle] + [largest] * 7})
            assert f"{middle:.4f}" in repr(ResultTable(column))
