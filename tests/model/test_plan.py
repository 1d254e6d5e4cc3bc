"""What a fit would take, and the error that comes before the memory is taken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.engines import memory


@pytest.fixture
def crossed():
    rng = np.random.default_rng(0)
    n = 6000
    frame = pd.DataFrame(
        {"user": rng.integers(0, 900, n), "item": rng.integers(0, 400, n), "x": rng.normal(size=n)}
    )
    frame["y"] = rng.normal(size=n) + rng.normal(size=900)[frame["user"]]
    return frame


FORMULA = "y ~ x + (x | user) + (1 | item)"


def test_figures(crossed):
    plan = mx.plan(FORMULA, crossed)
    assert (plan.nobs, plan.n_fixed, plan.n_theta) == (6000, 2, 4)
    assert plan.q == int(plan.terms["q"].sum())
    assert list(plan.terms["term"]) == ["user", "item"]
    assert plan.order == plan.terms["levels"].iloc[1]
    assert plan.bytes > 8 * plan.order**2
    assert plan.seconds_evaluation > 0
    assert "random effects" in str(plan)


def test_rows_in_batches(crossed):
    parts = mx.plan(FORMULA, lambda: (crossed[i : i + 1000] for i in range(0, 6000, 1000)))
    whole = mx.plan(FORMULA, crossed)
    assert (parts.nobs, parts.q, parts.order) == (whole.nobs, whole.q, whole.order)


def test_what_does_not_fit_is_said_before(crossed, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 500_000)
    plan = mx.plan(FORMULA, crossed)
    assert not plan.fits
    assert "cannot be fitted here" in str(plan)
    with pytest.raises(mx.EngineError, match=r"'item' \(400 levels\).*GB|MB of memory") as caught:
        mx.lmer(FORMULA, crossed)
    assert "leave out levels with few rows" in str(caught.value)
    assert mx.lmer("y ~ x + (1 | user)", crossed).nobs == 6000  # needs no such matrix


def test_a_container_has_its_own_limit(monkeypatch, tmp_path):
    limit, usage = tmp_path / "max", tmp_path / "current"
    limit.write_text("1000000\n")
    usage.write_text("400000\n")
    monkeypatch.setattr(memory, "LIMITS", (str(limit),))
    monkeypatch.setattr(memory, "USAGES", (str(usage),))
    assert memory.free_bytes() == 600_000
    limit.write_text("max\n")
    assert memory.free_bytes() > 600_000


@pytest.mark.parametrize("engine", ["blocked", "sparse", "krylov"])
def test_fill_of_the_factor(crossed, engine):
    plan = mx.plan(FORMULA, crossed, engine=engine)
    assert plan.fits
    items = int(plan.terms["levels"].iloc[1])
    if engine == "blocked":
        assert plan.fill == items * (items + 1) // 2
    elif engine == "sparse":
        assert plan.fill > items * (items + 1) // 2
    else:
        assert plan.fill == 0
    assert ("entries of the factor" in str(plan)) == (plan.fill > 0)


def test_a_sparse_factor_that_does_not_fit_is_said_before(crossed, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 500_000)
    plan = mx.plan(FORMULA, crossed, engine="sparse")
    assert not plan.fits
    assert "fill in to" in plan.reason
    with pytest.raises(mx.EngineError, match="engine='krylov'"):
        mx.lmer(FORMULA, crossed, engine="sparse")


def test_the_remedy_is_one(crossed, monkeypatch):
    formula, quiet = "y ~ x + (1 | user) + (1 | item)", mx.Control(warn=False)
    exact = mx.lmer(formula, crossed, control=quiet)
    monkeypatch.setattr(memory, "free_bytes", lambda: 2_300_000)
    with pytest.raises(mx.EngineError, match="use engine='krylov'"):
        mx.lmer(formula, crossed)
    fit = mx.lmer(formula, crossed, engine="krylov", control=quiet)
    assert abs(fit.criterion - exact.criterion) < 5.0 * fit.convergence.criterion_error
