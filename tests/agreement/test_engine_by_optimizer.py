"""Every engine with every optimizer reaches lme4's tight optimum on the corpus, or a better one."""

from __future__ import annotations

import numpy as np
import pytest

from mixlm_sparse.solve.optimize import optimize
from tests.support import corpus
from tests.support.corpus import LARGE, MODELS, load_model

EXCESS = 1e-5  # no criterion may be above the tight optimum by more
ENGINES = ("blocked", "sparse", "cholmod")
OPTIMIZERS = ("bfgs", "lbfgsb", "bobyqa", "cobyqa")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model_id", [m for m in MODELS if m not in LARGE])
def test_optimum_of_the_corpus(model_id: str, optimizer: str, engine: str) -> None:
    if engine == "cholmod":
        pytest.importorskip("sksparse", reason="the cholmod engine needs scikit-sparse")
    record = load_model(model_id)
    found = optimize(corpus.system(model_id, engine), reml=record["REML"], optimizer=optimizer)
    assert found.converged, found.message
    assert found.criterion - record["criterion"] < EXCESS


@pytest.mark.large
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_id", sorted(LARGE))
def test_optimum_of_large_models(model_id: str, engine: str) -> None:
    if engine == "cholmod":
        pytest.importorskip("sksparse", reason="the cholmod engine needs scikit-sparse")
    record = load_model(model_id)
    found = optimize(corpus.system(model_id, engine), reml=record["REML"])
    assert found.converged, found.message
    assert found.criterion - record["criterion"] < EXCESS
    assert np.isfinite(found.theta).all()
