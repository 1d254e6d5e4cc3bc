"""Numbers in words are said of rows in batches, as of rows in memory."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

pa = pytest.importorskip("pyarrow")
N = 200
RNG = np.random.default_rng(5)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "g": np.arange(N) % 20,
        "dose": [f"{(7 * i) % 31 / 10} mg" for i in range(N)],
        "day": [f"2030-01-{1 + i % 28:02d}" for i in range(N)],
        "arm": np.where(np.arange(N) % 2, "a", "b"),
    }
)
KINDS = {
    "frames": lambda data: lambda: iter([data.iloc[:90], data.iloc[90:]]),
    "arrow": lambda data: lambda: iter(pa.Table.from_pandas(data).to_batches(70)),
}


def said(formula, data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mx.lmer(formula, data)
    return [str(w.message) for w in caught if "is text and stands" in str(w.message)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("column", "what"), [("dose", "numbers"), ("day", "dates")])
def test_numbers_and_dates_in_words_are_said(kind, column, what):
    formula = f"y ~ {column} + (1 | g)"
    found = said(formula, KINDS[kind](DATA))
    assert found == said(formula, DATA)
    assert len(found) == 1
    assert f"'{column}' is text" in found[0]
    assert what in found[0]


@pytest.mark.parametrize("kind", KINDS)
def test_levels_and_categories_are_not(kind):
    assert said("y ~ arm + factor(dose) + (1 | g)", KINDS[kind](DATA)) == []
    categories = DATA.astype({"dose": "category"})
    assert said("y ~ dose + (1 | g)", KINDS[kind](categories)) == []
