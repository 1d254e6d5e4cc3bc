"""Whatever a public call or attribute gives prints itself, in a terminal, a notebook, documents.

The calls are those of the table of all public calls, which is complete by a test of its own, so
that a new result cannot be forgotten.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.render import RichText
from mixlm_sparse.common.tables import ResultTable
from mixlm_sparse.common.text import display_width
from tests.api import hostile

pytest.importorskip("matplotlib")

# Objects on the way to a fit and inside it: they say in short what they are.
STAGES = {
    "Control", "Curvature", "DevianceFunction", "FitOptions", "GroupFits", "MaketablesModel",
    "Membership", "MixedFormula", "ModelCall", "ModelMatrices", "ModelProducts", "Optimum",
    "PenalizedSystem", "PlsSolution", "RandomEffect", "TermCovariance", "Transformation",
}  # fmt: skip
# Frames that are data to go on with: rows of the data, draws, matrices.
DATA = {
    "fit.predict": "as many rows as the data", "fit.cov_params": "a matrix",
    "fit.vcov_adjusted": "a matrix", "fit.model_matrix": "a matrix", "fit.ranef": "levels",
    "fit.coef": "levels", "Bootstrap.samples": "draws", "datasets.load": "data",
    "Bootstrap.jackknife_values": "draws", "LmList.coef": "levels", "LmList.std_errors": "levels",
    "LmList.data": "data", "MarginalMeans.cells": "the cells alone", "fit.stream": "rows",
    "VarCorr[]": "a matrix", "RobustCovariance.vcov": "a matrix",
    "RobustCovariance.cov": "a matrix",
    "Influence.dfbeta": "levels", "Influence.dfbetas": "levels", "Influence.estimates": "levels",
    "Influence.variance_change": "levels", "Profile.zeta": "points of curves",
}  # fmt: skip
SIMPLE = (str, bytes, int, float, complex, np.ndarray, np.generic, pd.Series, pd.Index, type(None))


def calls(folder) -> Iterator[tuple[str, Any]]:
    """Every public call with what it returns."""
    for kind in (hostile.of_package(folder), hostile.of_fit(folder), hostile.of_results()):
        for call in kind:
            try:
                if call.works:
                    yield call.name, call()
            except mx.MissingPackageError:  # another package takes the result
                continue


def attributes() -> Iterator[tuple[str, Any]]:
    """Every public attribute of a fit and of the results."""
    for found in (hostile.fit(), *hostile.results().values()):
        if isinstance(found, str | pd.DataFrame) or type(found).__name__ in STAGES:
            continue
        owner = "fit" if isinstance(found, mx.LinearMixedFit) else type(found).__name__
        for name in dir(found):
            if not name.startswith("_") and not callable(getattr(found, name, None)):
                yield f"{owner}.{name}", getattr(found, name)


def parts(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """What a call gives, one thing at a time."""
    if isinstance(found, SIMPLE) and not isinstance(found, RichText):
        return
    if isinstance(found, tuple | list):
        for one in found[:3]:
            yield from parts(name, one)
    elif isinstance(found, dict):
        for one in list(found.values())[:3]:
            yield from parts(name, one)
    elif isinstance(found, pd.DataFrame) or type(found).__module__.startswith("mixlm_sparse"):
        yield name, found


def faults(name: str, found: Any) -> Iterator[str]:
    """What is wrong with how a result shows itself."""
    kind = type(found).__name__
    if type(found) is pd.DataFrame:
        if name not in DATA and not name.endswith(".to_frame"):
            yield "is a plain data frame"
        return
    text = repr(found)
    widest = max(map(display_width, text.splitlines()), default=0)
    if widest > 80 and kind != "Explanation":
        yield f"takes {widest} columns"
    if "array(" in text or " object at 0x" in text or "np.float64" in text:
        yield f"shows what it is made of: {text[:60]!r}"
    if kind in STAGES or kind == "Explanation":  # a page to read, with tables as wide as they are
        return
    if isinstance(found, mx.LinearMixedFit):
        found = found.summary()
    for form in ("_repr_html_", "to_html", "to_latex", "to_markdown"):
        if not hasattr(found, form):
            yield f"has no {form}"
    if not hasattr(found, "to_frame"):
        yield "has no to_frame"
    elif type(found.to_frame()) is not pd.DataFrame:
        yield f"to_frame() gives a {type(found.to_frame()).__name__}"
    if hasattr(found, "_repr_html_"):
        html = found._repr_html_()
        if not 0 < html.count("<table") == html.count("</table>"):
            yield "its HTML has no table"
        headed = not isinstance(found, ResultTable) or found.attrs.get("heading")
        if not headed and name not in DATA:
            yield "has no heading"
    if hasattr(found, "to_latex") and "\\begin{tabular}" not in found.to_latex():
        yield "its LaTeX has no table"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("kind", ["calls", "attributes"])
def test_every_result_shows_itself(kind, folder, monkeypatch):
    monkeypatch.chdir(folder)  # where results are saved
    wrong: dict[str, list[str]] = {}
    seen = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        for name, found in calls(folder) if kind == "calls" else attributes():
            if type(found).__name__.endswith("Plots"):
                continue
            for _, one in parts(name, found):
                seen += 1
                more = list(faults(name, one))
                if more:
                    wrong[name] = list(dict.fromkeys([*wrong.get(name, []), *more]))
    assert seen > (80 if kind == "calls" else 15)
    assert not wrong, "\n".join(f"{name}: {'; '.join(said)}" for name, said in wrong.items())
