"""The bundled data sets are the reference data, with their levels in the same order."""

from __future__ import annotations

import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import OptionError
from tests.support.corpus import load_data


@pytest.mark.parametrize("name", mx.datasets.names())
def test_data_are_those_of_the_references(name):
    pd.testing.assert_frame_equal(mx.datasets.load(name), load_data(name))


@pytest.mark.parametrize("name", mx.datasets.names())
def test_description_names_source_and_columns(name):
    text = mx.datasets.describe(name)
    assert "Source: " in text
    for column in mx.datasets.load(name).columns:
        assert f"\n  {column} " in text


def test_case_does_not_matter():
    assert len(mx.datasets.load("insteval")) == 73421


def test_each_load_is_a_fresh_copy():
    first = mx.datasets.load("Dyestuff")
    first["Yield"] = 0.0
    assert mx.datasets.load("Dyestuff")["Yield"].max() > 0


@pytest.mark.parametrize("name", ["sleep", "", "../schema", None])
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(OptionError, match=r"sleepstudy"):
        mx.datasets.load(name)
