"""No search ends at a point from which the criterion falls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)


def exchangeable(seed: int) -> pd.DataFrame:
    """Rows that are the same with a and b exchanged."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(2, 5)), int(rng.integers(8, 20))
    a, b = rng.integers(0, k, n), rng.integers(0, k, n)
    y = np.round(rng.normal(size=n) + rng.normal(size=k)[a] + rng.normal(size=k)[b], 1)
    return pd.DataFrame({"y": np.r_[y, y], "a": np.r_[a, b], "b": np.r_[b, a]})


def mirrored(seed: int) -> pd.DataFrame:
    """Groups in pairs whose predictors x and z are exchanged."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(4, 7)), int(rng.integers(8, 20))
    g = np.sort(rng.integers(0, k, n))
    x, z = rng.normal(size=n), rng.normal(size=n)
    y = rng.normal(size=n) + 2.0 * x * rng.normal(size=k)[g]
    return pd.DataFrame(
        {"y": np.r_[y, y], "g": np.r_[g, g + k], "x": np.r_[x, z], "z": np.r_[z, x]}
    )


def turned(seed: int) -> pd.DataFrame:
    """As `mirrored`, with predictors that go together: the symmetry lies in no single effect."""
    data = mirrored(seed)
    return data.assign(x=data["x"] + 0.5 * data["z"], z=data["z"] + 0.5 * data["x"])


CASES = [
    (exchangeable, "y ~ 1 + (1 | a) + (1 | b)"),
    (mirrored, "y ~ 1 + (0 + x | g) + (0 + z | g)"),
    (mirrored, "y ~ 1 + (0 + x + z | g)"),
    (turned, "y ~ x + z + (0 + x + z | g)"),
    (turned, "y ~ x + z + (x + z | g)"),
]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("start", [None, "symmetric"])
@pytest.mark.parametrize(("rows", "formula"), CASES)
def test_symmetric_data(rows, formula, start, reml):
    fell = 0
    for seed in range(40 if rows is not turned else 12):
        data = rows(seed)
        deviance = mx.deviance_function(formula, data, reml=reml)
        given = None if start is None else deviance.theta0
        fit = mx.lmer(formula, data, reml=reml, start=given, control=QUIET)
        if not fit.identification.complete:
            continue
        assert fit.convergence.converged
        eigenvalues = fit.convergence.hessian_eigenvalues
        assert eigenvalues.min(initial=1.0) > -1e-6 * eigenvalues.max(initial=1.0)
        if fit.theta.size == 2:
            fell += abs(fit.theta[0] - fit.theta[1]) > 1e-3
            assert fit.criterion <= deviance(np.full(2, fit.theta.mean())) + 1e-9
            if given is None:  # from a given start one valley is searched
                line = [deviance(np.full(2, size)) for size in np.geomspace(1e-2, 10.0, 60)]
                assert fit.criterion <= min(line) + 1e-9
    assert fell or "z | g)" not in formula or "x + z" in formula  # some leave the line of symmetry


def lowest(fit: mx.LinearMixedFit) -> float:
    """Return the lowest curvature as a share of the highest."""
    values = fit.convergence.hessian_eigenvalues
    return float(values.min(initial=1.0) / values.max(initial=1.0))


@pytest.mark.parametrize("held", ["sigma", "sd_(Intercept)|c"])
def test_parameters_that_are_held(held):
    found = 0
    for seed in range(12):
        data = exchangeable(seed)
        data["c"] = np.arange(len(data)) % (len(data) // 2) % 5  # the same with a and b exchanged
        formula = "y ~ 1 + (1 | a) + (1 | b) + (1 | c)"
        fit = mx.lmer(formula, data, fixed={held: 0.5}, control=QUIET)
        assert fit.convergence.status in ("converged", "singular")
        assert lowest(fit) > -1e-5
        found += fit.convergence.status == "converged"
    assert found


@pytest.mark.parametrize("reml", [True, False])
def test_residual_structures(reml):
    for seed in range(12):
        data = exchangeable(seed)
        data["kind"] = np.arange(len(data)) % (len(data) // 2) % 2  # in both halves alike
        fit = mx.lmer(
            "y ~ 1 + (1 | a) + (1 | b)", data, variance=mx.VarIdent(by="kind"), reml=reml,
            control=QUIET,
        )  # fmt: skip
        curvature = np.linalg.eigvalsh(fit.curvature.hessian)
        assert curvature[0] > -1e-5 * curvature[-1]
