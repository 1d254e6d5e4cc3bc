"""How far further fits of a fit look: from its optimum, elsewhere only where it found valleys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.model import warm

QUIET = mx.Control(warn=False)


def patients(seed: int, patients: int = 14, visits: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(patients), visits)
    t = np.tile(np.arange(visits), patients)
    e = rng.normal(size=(patients, visits))
    for k in range(1, visits):
        e[:, k] = 0.5 * e[:, k - 1] + 0.8 * e[:, k]
    x = rng.normal(size=g.size)
    return pd.DataFrame({"g": g, "t": t, "f": pd.Categorical(t), "x": x, "y": x + e.ravel()})


def structured(kind: str, data: pd.DataFrame):
    if kind == "residual":
        return mx.gls("y ~ x", data, residual=mx.AR1("t", "g"), control=QUIET)
    return mx.lmer("y ~ x + ar1(0 + f | g)", data, control=QUIET)


@pytest.mark.parametrize("kind", ["residual", "random"])
def test_refits_of_a_fit_with_one_valley_search_once(kind) -> None:
    fit = structured(kind, patients(4))
    assert fit.convergence.second_valley is None
    options = warm.options_of_refits(fit, reml=True)
    assert not options.control.second_looks
    np.testing.assert_array_equal(options.start[: fit.theta.size], fit.theta)


def test_with_a_second_valley_or_no_place_to_begin_they_look_elsewhere() -> None:
    fit = structured("residual", patients(3))
    other = type(fit)(**{**vars_of(fit), "optimum": with_valley(fit.optimum)})
    assert warm.options_of_refits(other, reml=True).control.second_looks
    singular = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"), control=QUIET)
    assert singular.is_singular()
    options = warm.options_of_refits(singular, reml=True)
    assert options.start is None
    assert options.control.second_looks


def vars_of(fit) -> dict:
    names = ("system", "optimum", "solution", "options", "formula", "call", "notes")
    return {name: getattr(fit, name) for name in names}


def with_valley(optimum):
    return replace(optimum, second_valley=optimum.criterion + 1.0)


@pytest.mark.parametrize("kind", ["residual", "random"])
def test_a_bootstrap_that_looks_less_gives_the_same(kind, monkeypatch) -> None:
    fit = structured(kind, patients(3))
    quick = fit.bootstrap(12, seed=4)
    plain = warm.options_of_refits

    def thorough(fit, *, reml):
        options = plain(fit, reml=reml)
        return replace(options, control=replace(options.control, second_looks=True))

    monkeypatch.setattr("mixlm_sparse.inference.resample.bootstrap.options_of_refits", thorough)
    slow = fit.bootstrap(12, seed=4)
    np.testing.assert_allclose(quick.samples, slow.samples, rtol=2e-4, atol=2e-4)


def test_a_user_may_leave_second_looks_out() -> None:
    data = patients(3)
    fit = mx.gls("y ~ x", data, residual=mx.AR1("t", "g"),
                 control=mx.Control(warn=False, second_looks=False))  # fmt: skip
    assert fit.convergence.tried == ()
    assert fit.criterion == pytest.approx(structured("residual", data).criterion, abs=1e-7)
