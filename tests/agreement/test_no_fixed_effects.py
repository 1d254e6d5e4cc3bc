"""Models without fixed effects: several variances of one or more factors, and undetermined ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mixlm_sparse as mx


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(15), 6)
    t = np.tile(np.arange(6), 15)
    y = rng.normal(size=15)[g] + 0.7 * rng.normal(size=6)[t] + rng.normal(size=90)
    return pd.DataFrame(
        {
            "y": y,
            "x": rng.normal(size=90),
            "g": [f"g{i}" for i in g],
            "h": [f"h{i}" for i in t],
            "s": [f"s{i}" for i in g * 2 + (t < 3)],
            "arm": np.array(["a", "b", "c"])[g % 3],
        }
    )


def marginal_criterion(fit: mx.LinearMixedFit, y: np.ndarray) -> float:
    """-2 log density of N(0, sigma^2 (I + Z Lambda Lambda'Z'))."""
    ZL = np.asarray((fit.getME("Z") @ fit.getME("Lambda")).todense())
    V = fit.sigma**2 * (np.eye(y.size) + ZL @ ZL.T)
    return float(np.linalg.slogdet(2 * np.pi * V)[1] + y @ np.linalg.solve(V, y))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "random", ["(x || g/s)", "(x || g) + (x || h)", "(1 | g/s) + (x | h)", "(x || s) + (1 | h)"]
)
def test_several_variances(data: pd.DataFrame, random: str, reml: bool) -> None:
    fit = mx.lmer(f"y ~ 0 + {random}", data, reml=reml, control=mx.Control(warn=False))
    assert fit.fixef.empty
    assert fit.criterion == pytest.approx(marginal_criterion(fit, data["y"].to_numpy()), abs=1e-7)
    deviance = mx.deviance_function(f"y ~ 0 + {random}", data, reml=reml)
    found = minimize(deviance, fit.theta + 0.1, method="Nelder-Mead", bounds=[
        (low if np.isfinite(low) else None, None) for low in fit.lower
    ])  # fmt: skip
    assert fit.criterion <= found.fun + 1e-8


@pytest.mark.parametrize("random", ["(1 | g) + (1 | g:arm)", "(1 | g) + (0 + x | g) + (x | g)"])
def test_what_the_data_do_not_determine_is_said(data: pd.DataFrame, random: str) -> None:
    fit = mx.lmer(f"y ~ 0 + {random}", data, control=mx.Control(warn=False))
    assert "the data do not determine" in fit.convergence.message
    assert "Number of obs: 90" in str(fit.summary())


def test_the_only_factor_left_out(data: pd.DataFrame) -> None:
    fit = mx.lmer("y ~ 0 + x + (x || g/s)", data, control=mx.Control(warn=False))
    nothing = mx.lmer("y ~ 0 + (x || g/s)", data, reml=False, control=mx.Control(warn=False))
    assert fit.drop1().loc["x", "logLik"] == pytest.approx(nothing.llf, abs=1e-7)
