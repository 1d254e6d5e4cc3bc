"""Deletions from models with a residual structure against fits of the rows that are left."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx


def orthodont() -> pd.DataFrame:
    data = mx.datasets.load("Orthodont").assign(visit=lambda d: ((d["age"] - 8) / 2).astype(int))
    return data[data["Subject"].isin([f"{s}0{i}" for s in "MF" for i in range(1, 7)])]


@pytest.mark.parametrize("random", ["", " + (1 | Subject)"])
@pytest.mark.parametrize("group", ["Subject", None])
def test_a_deletion_is_a_fit_of_the_rest(random, group) -> None:
    data = orthodont()
    structure = {"residual": mx.AR1("visit", "Subject"), "variance": mx.VarIdent("Sex")}
    model = mx.lmer if random else mx.gls
    fit = model(f"distance ~ age * Sex{random}", data, **structure)
    found = fit.influence(group)
    estimates = found.estimates()
    labels = data.index if group is None else data[group]
    for label in list(estimates.index)[::7]:
        rest = model(f"distance ~ age * Sex{random}", data[labels != label], **structure)
        row = estimates.loc[label]
        np.testing.assert_allclose(row[rest.fixef.index], rest.fixef, rtol=1e-4, atol=1e-5)
        assert row["sigma"] == pytest.approx(rest.sigma, rel=1e-3)
        figures = rest.residual_structure.set_index("parameter")["estimate"]
        np.testing.assert_allclose(row[figures.index], figures, rtol=2e-3, atol=2e-3)
    assert (found.deletion_distance() >= 0.0).all()
    kept = fit.influence(group, refit=False).variance_change()
    np.testing.assert_allclose(kept["phi"], 0.0, atol=1e-12)
