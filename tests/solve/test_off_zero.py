"""A structure without any variance: no correlation, not even an extreme one, is lower."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from benchmarks.random_structures import structured_model

K, GROUPS, COPIES = 3, 12, 2
SIZES = (0.0, 0.01, 0.02, 0.05, 0.3)
STRUCTURES = {
    "cs(0 + f | g, hom = TRUE)": [[rho] for rho in np.linspace(-0.5, 1.0, 7)],
    "cs(0 + f | g, hom = FALSE)": [[rho] for rho in np.linspace(-0.5, 1.0, 7)],
    "ar1(0 + f | g, hom = TRUE)": [[rho] for rho in np.linspace(-1.0, 1.0, 9)],
    "toep(0 + f | g, hom = TRUE)": [[np.cos(w), np.cos(2 * w)] for w in np.linspace(0, np.pi, 9)],
}


def negative(ratio: float, pattern: str) -> pd.DataFrame:
    """Return data whose groups do not differ, but for a little of one pattern over f.

    ratio : mean square of the pattern over that within cells: 1 is no variance at all.
    """
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(GROUPS, K, COPIES))
    within = noise - noise.mean(axis=2, keepdims=True)
    scale = np.sqrt((within**2).sum() / (GROUPS * K * (COPIES - 1)))
    between = rng.normal(size=(GROUPS, K))
    between -= between.mean(axis=0)
    if pattern == "contrasts":
        between -= between.mean(axis=1, keepdims=True)
        df = (GROUPS - 1) * (K - 1)
    else:  # levels of f rise and fall in turn
        turn = np.array([1.0, -1.0, 1.0]) / np.sqrt(3.0)
        between = np.outer(between @ turn, turn)
        df = GROUPS - 1
    between *= scale * np.sqrt(ratio * df / (COPIES * (between**2).sum()))
    y = within + between[:, :, None]
    g, f, _ = np.meshgrid(range(GROUPS), range(K), range(COPIES), indexing="ij")
    return pd.DataFrame({"y": y.ravel(), "f": f.ravel().astype(str), "g": g.ravel()})


@pytest.mark.parametrize("term", STRUCTURES)
@pytest.mark.parametrize("ratio", [0.5, 1.0008, 1.01])
@pytest.mark.parametrize("pattern", ["contrasts", "turns"])
def test_no_small_variance_is_lower(term: str, ratio: float, pattern: str) -> None:
    """Compare with the criterion on a grid of standard deviations and correlations."""
    data, formula = negative(ratio, pattern), f"y ~ f + {term}"
    fit = mx.lmer(formula, data, control=mx.Control(warn=False), progress=False)
    deviance = mx.deviance_function(formula, data)
    n_sd = deviance.theta0.size - len(STRUCTURES[term][0])
    sds = list(itertools.product(SIZES if n_sd == 1 else (0.0, 0.02), repeat=n_sd))
    lowest = min(deviance(np.r_[sd, rho]) for sd in sds for rho in STRUCTURES[term])
    assert fit.convergence.converged
    assert fit.criterion <= lowest + 1e-9
    if term.startswith("cs") and pattern == "contrasts":  # the variance that there is, exactly
        assert (fit.theta[0] > 0.0) == (ratio > 1.0)
        if ratio > 1.0:
            assert fit.theta[-1] == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.parametrize("seed", [405, 887, 892])
def test_correlations_have_no_influence_where_a_search_ends(seed: int) -> None:
    """It ends without variance from every start; with the right correlation it falls from there."""
    model = structured_model(seed)
    fit = mx.lmer(
        model.formula, model.data, reml=model.reml, control=mx.Control(warn=False), progress=False
    )
    assert fit.convergence.converged
    assert fit.criterion <= model.best() + 1e-7
