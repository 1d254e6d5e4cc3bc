"""Where a search may begin and end: bad starts, second valleys, nothing left to the residuals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.solve.search.status import Status

QUIET = mx.Control(warn=False)
SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    return mx.datasets.load("sleepstudy")


# ----------------------------------------------------------------------------------- statuses


def test_a_status_is_its_text():
    assert Status("converged") is Status.CONVERGED
    assert Status.CONVERGED == "converged"
    assert f"{Status.LIMIT}" == str(Status.LIMIT) == "evaluation limit"
    assert repr(Status.SINGULAR) == "'singular'"
    assert pickle.loads(pickle.dumps(Status.PERFECT)) is Status.PERFECT
    assert copy.deepcopy(Status.PERFECT) is Status.PERFECT
    assert [status for status in Status if status.certified] == [
        "converged", "singular", "perfect fit", "no residual", "local optimum",
    ]  # fmt: skip


@pytest.mark.parametrize("start", [[1e6] * 3, [1e5] * 3, [1e3, 0.0, 1e3], [1e6, 0.0, 1e-3]])
@pytest.mark.parametrize("optimizer", ["auto", "lbfgsb"])
def test_no_start_ends_where_the_criterion_still_falls(sleep, start, optimizer):
    fit = mx.lmer(SLEEP, sleep, start=start, optimizer=optimizer, control=QUIET)
    assert fit.convergence.status == "converged"
    assert fit.criterion == pytest.approx(1743.6282719, abs=1e-6)
    values = fit.convergence.hessian_eigenvalues
    assert values.min() > 0.0


def test_a_converged_fit_curves_upwards():
    """Random models: no status "converged" with an eigenvalue clearly below zero."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        g, h = rng.integers(0, 6, 60), rng.integers(0, 4, 60)
        x = rng.normal(size=60)
        y = rng.normal(size=60) + rng.normal(size=6)[g] + rng.normal(size=6)[g] * x
        data = pd.DataFrame({"y": y, "x": x, "g": g, "h": h})
        start = 10.0 ** rng.uniform(-3, 6, 4) * [1.0, 0.0, 1.0, 1.0]
        fit = mx.lmer("y ~ x + (x | g) + (1 | h)", data, start=start, control=QUIET)
        best = mx.lmer("y ~ x + (x | g) + (1 | h)", data, control=QUIET)
        assert fit.convergence.converged
        values = fit.convergence.hessian_eigenvalues
        assert values.min(initial=1.0) > -1e-6 * values.max(initial=1.0)
        assert fit.criterion == pytest.approx(best.criterion, abs=1e-5)


# ------------------------------------------------------------------ nothing left to residuals


def wafers(noise: float, seed: int = 1) -> tuple[pd.DataFrame, float, float]:
    """Rows of equal values within groups; sd of the groups and standard error by group means."""
    rng = np.random.default_rng(seed)
    kind = np.repeat([0.0, 1.0], 12)
    means = 2000.0 + 40.0 * kind + 100.0 * rng.normal(size=24)
    g = np.repeat(np.arange(24), 5)
    y = means[g] + 100.0 * noise * rng.normal(size=120)
    r = means - np.array([means[:12].mean(), means[12:].mean()])[kind.astype(int)]
    s = float(np.sqrt((r**2).sum() / 22))
    return pd.DataFrame({"y": y, "kind": kind[g], "g": g}), s, s * np.sqrt(2 / 12)


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4])
def test_a_response_that_is_constant_within_groups(noise):
    data, sd, se = wafers(noise)
    fit = mx.lmer("y ~ kind + (1 | g)", data, control=QUIET)
    assert np.sqrt(fit.varcorr["g"].iloc[0, 0]) == pytest.approx(sd, rel=2e-5 + noise)
    assert fit.bse["kind"] == pytest.approx(se, rel=2e-5 + noise)
    table = fit.variance_components()
    assert table["std_error"].iloc[0] == pytest.approx(sd / np.sqrt(2 * 22), rel=5e-3)
    df = fit.tidy().set_index("term").loc["kind", "df"]
    assert df == pytest.approx(22.0, rel=5e-3)
    if noise == 0.0:
        assert fit.convergence.status == "no residual"
        assert "sigma is zero" in fit.messages[-1]
    else:
        within = data["y"] - data.groupby("g")["y"].transform("mean")
        assert fit.convergence.status == "converged"
        assert fit.sigma == pytest.approx(np.sqrt((within**2).sum() / 96), rel=1e-6)


def test_lines_without_scatter():
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(30), 6), np.tile(np.arange(6.0), 30)
    b = rng.normal(size=(30, 2)) @ np.array([[2.0, 0.5], [0.0, 1.0]])
    data = pd.DataFrame({"y": 5.0 + x + b[g, 0] + b[g, 1] * x, "x": x, "g": g})
    fit = mx.lmer("y ~ x + (x | g)", data, control=QUIET)
    np.testing.assert_allclose(fit.varcorr["g"].to_numpy(), np.cov(b.T), rtol=1e-4)
    np.testing.assert_allclose(fit.bse, np.sqrt(np.diag(np.cov(b.T)) / 30), rtol=1e-4)


# ---------------------------------------------------------------------------- second valleys


def far(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(20), 8)
    x = 1000.0 + rng.normal(size=160)
    y = rng.normal(size=160) + 3.0 * rng.normal(size=20)[g] * (x - 1000.0)
    return pd.DataFrame({"y": y + 3.0 * rng.normal(size=20)[g], "x": x, "g": g})


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("random", ["(x || g)", "(1 | g) + (0 + x | g)"])
def test_independent_effects_far_from_the_origin(seed, random):
    data = far(seed)
    fit = mx.lmer(f"y ~ x + {random}", data, control=QUIET)
    report = fit.convergence
    assert len(report.tried) == 2
    function = mx.deviance_function(f"y ~ x + {random}", data)
    scale = np.sqrt([1.0, 1e6])
    for a in (0.3, 3.0, 300.0, 1000.0, 3000.0, 10_000.0):
        for b in (0.0, 0.3, 300.0, 1000.0, 3000.0, 10_000.0):
            assert fit.criterion <= function(np.array([a, b]) / scale) + 1e-6
    if report.second_valley is not None:
        assert report.second_valley > fit.criterion
        assert f"{report.second_valley:.6f}" in repr(report)


def test_a_lower_valley_is_found():
    found = [mx.lmer("y ~ x + (x || g)", far(seed), control=QUIET) for seed in range(6)]
    assert any(fit.theta.min() > 1.0 and fit.convergence.second_valley for fit in found)


def test_one_look_is_enough_elsewhere(sleep):
    for random in ("(Days | Subject)", "(Days || Subject)", "(1 | Subject)"):
        report = mx.lmer(f"Reaction ~ Days + {random}", sleep).convergence
        assert report.tried == ()
        assert report.second_valley is None


# ------------------------------------------------------------------------ units of everything


@pytest.mark.parametrize("weight", [1e-30, 1e-14, 1e18, 1e30])
def test_constant_weights_only_rescale_sigma(sleep, weight):
    plain = mx.lmer(SLEEP, sleep)
    fit = mx.lmer(SLEEP, sleep, weights=np.full(180, weight), control=QUIET)
    np.testing.assert_allclose(fit.fixef, plain.fixef, rtol=1e-10)
    np.testing.assert_allclose(fit.bse, plain.bse, rtol=1e-6)
    assert fit.sigma == pytest.approx(plain.sigma * np.sqrt(weight), rel=1e-6)
    np.testing.assert_allclose(fit.varcorr["Subject"], plain.varcorr["Subject"], rtol=1e-5)
    assert fit.convergence.status == "converged"
    assert not fit.is_singular()


@pytest.mark.parametrize("factor", [1e-150, 1e-76, 1e76, 1e150])
def test_the_unit_of_the_response(sleep, factor):
    plain = mx.lmer(SLEEP, sleep)
    fit = mx.lmer(SLEEP, sleep.assign(Reaction=factor * sleep["Reaction"]), control=QUIET)
    np.testing.assert_allclose(fit.fixef, factor * plain.fixef, rtol=1e-10)
    np.testing.assert_allclose(fit.theta, plain.theta, rtol=1e-5)
    assert fit.sigma == pytest.approx(factor * plain.sigma, rel=1e-6)


def test_a_response_far_from_zero(sleep):
    far_away = sleep.assign(Reaction=sleep["Reaction"] + 1e12)
    fit = mx.lmer(SLEEP, far_away, control=QUIET)
    assert fit.convergence.status == "converged"
    assert fit.fixef["Days"] == pytest.approx(10.467286, rel=1e-4)
