"""Structures that few rows cannot tell: the fit says so, and whatever is asked of it answers."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

STRUCTURES = {"AnteDependence": mx.AnteDependence, "Unstructured": mx.Unstructured}
ASKED = {
    "summary": lambda fit: str(fit.summary()),
    "residual_structure": lambda fit: fit.residual_structure,
    "tidy": lambda fit: fit.tidy(),
    "tidy of kenward-roger": lambda fit: fit.tidy(ddf="kenward-roger"),
    "anova": lambda fit: fit.anova(),
    "Wald intervals": lambda fit: fit.confint(method="wald"),
    "profile": lambda fit: fit.confint(method="profile", parm=["sigma", "x"]),
    "variance_components": lambda fit: fit.variance_components(),
    "predict": lambda fit: fit.predict(interval="prediction"),
    "residuals": lambda fit: fit.residuals("normalized"),
    "r2": lambda fit: fit.r2(),
    "convergence": lambda fit: str(fit.convergence),
    "influence": lambda fit: fit.influence("id", refit=False).to_frame(),
    "robust": lambda fit: fit.robust(),
    "simulate": lambda fit: fit.simulate(2, seed=1),
}


def sparse_visits() -> pd.DataFrame:
    """Fifteen patients at one to six of seven times that are far apart."""
    rng = np.random.default_rng(42)
    rows = []
    for i in range(15):
        count = rng.integers(1, 7)
        times = np.sort(rng.choice([0, 1, 2, 5, 9, 14, 30], count, replace=False))
        e, before = rng.normal(), None
        for t in times:
            a = 0.0 if before is None else 0.9 ** (t - before)
            e, before = a * e + np.sqrt(1.0 - a * a) * rng.normal(), t
            rows.append((f"s{i:02d}", t, e))
    data = pd.DataFrame(rows, columns=["id", "t", "e"])
    data["x"] = rng.normal(size=len(data))
    rng.uniform(0.5, 2.0, len(data))
    z = rng.uniform(0.3, 4.0, len(data))
    data["y"] = 1.0 + 0.5 * data["x"] + data["e"] * np.sqrt(z) + rng.normal(size=len(data))
    data["visit"] = pd.Categorical(data["t"], [0, 1, 2, 5, 9, 14, 30])
    return data


@pytest.fixture(scope="module", params=list(STRUCTURES))
def fit(request):
    structure = STRUCTURES[request.param]("visit", "id")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.ConvergenceWarning)
        return mx.gls("y ~ x", sparse_visits(), residual=structure, variance=mx.VarIdent("visit"))


def test_it_is_said_with_a_remedy_that_is_another_structure(fit) -> None:
    assert not fit.converged
    assert "the likelihood has no maximum" in fit.convergence.message
    own = type(fit.matrices.law.correlation).__name__
    assert own not in fit.convergence.advice
    assert "AR1" in fit.convergence.advice


@pytest.mark.parametrize("what", list(ASKED))
def test_whatever_is_asked_answers(fit, what) -> None:
    assert ASKED[what](fit) is not None


def test_formulas_of_nlme_in_the_place_of_columns_say_what_to_write() -> None:
    data = sparse_visits()
    for structure in (mx.AR1("~ t | id"), mx.AR1("t", "site:id")):
        with pytest.raises(mx.DataError, match=r'structures name columns: time="visit"'):
            mx.gls("y ~ x", data, residual=structure)
