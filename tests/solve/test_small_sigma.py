"""A residual sd far below those of the random effects is estimated as any other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support.decimal_oracle import criterion

QUIET = mx.Control(warn=False)
FORMULAS = {
    "one factor": "y ~ x + z + (1 | a)",
    "crossed": "y ~ x + z + (1 | a) + (1 | b)",
    "nested": "y ~ x + z + (1 | a) + (1 | c)",
    "one of two": "y ~ x + z + (1 | a) + (1 | b)",
    "slopes like noise": "y ~ x + z + (x | a)",
    "slopes": "y ~ x + z + (x | a)",
    "no slopes": "y ~ x + z + (x || a)",
}


def rows(kind: str, sd: float, *, levels: int = 12, n: int = 150, seed: int = 1) -> pd.DataFrame:
    """Rows whose variation within groups is of the size `sd`, unbalanced."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, levels, n), rng.integers(0, 9, n)
    c = 3 * a + rng.integers(0, 3, n)
    x, z = rng.normal(size=n), rng.normal(size=levels)[a]
    u, v, w, s = (rng.normal(size=size) for size in (levels, 9, 3 * levels, levels))
    y = u[a] + sd * (0.7 * x + rng.normal(size=n))
    y += {
        "crossed": 0.7 * v[b],
        "nested": 0.5 * w[c],
        "one of two": 0.5 * sd * v[b],
        "slopes like noise": 0.5 * sd * s[a] * x,
        "slopes": 0.5 * s[a] * x,
    }.get(kind, 0.0)
    return pd.DataFrame({"y": y, "x": x, "z": z, "a": a, "b": b, "c": c})


THETAS = {
    "one factor": [1.0],
    "crossed": [1.0, 0.4],
    "nested": [0.5, 1.0],
    "one of two": [1.0, 0.0],
    "slopes like noise": [1.0, 0.0, 0.0],
    "slopes": [1.0, -0.1, 0.4],
    "no slopes": [1.0, 0.0],
}
SMALL = {"one of two": [0.0, 0.3], "slopes like noise": [0.0, 0.3, 0.4], "no slopes": [0.0, 0.3]}


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("size", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("kind", FORMULAS)
def test_criterion_and_gradient_against_sixty_digits(kind, size, reml):
    frame = rows(kind, 1.0 / size, levels=5, n=36)
    matrices = mx.model_matrices(FORMULAS[kind], frame)
    deviance = mx.deviance_function(FORMULAS[kind], frame, reml=reml)
    template = mx.penalized_system(matrices).chart
    theta = size * np.array(THETAS[kind]) + np.array(SMALL.get(kind, np.zeros(len(THETAS[kind]))))

    def exact(at):
        terms = [
            (term.columns.block(slice(0, 36)), matrices.factors[term.factor].codes, T)
            for term, T in zip(matrices.terms, template.factors(at), strict=True)
        ]
        return criterion(matrices.y, matrices.X, terms, reml=reml)

    assert deviance(theta) == pytest.approx(float(exact(theta)), abs=2e-6)
    gradient = deviance.gradient(theta)
    for i, unit in enumerate(np.maximum(np.abs(theta), 1.0)):
        up, down = theta.copy(), theta.copy()
        up[i] += 2.0**-20 * unit
        down[i] -= 2.0**-20 * unit
        slope = float(exact(up) - exact(down)) / (up[i] - down[i])
        assert unit * gradient[i] == pytest.approx(unit * slope, abs=1e-5)


def figures(kind: str, sd: float, *, reml: bool) -> np.ndarray:
    """What is printed of a fit, everything within groups in units of `sd`."""
    frame = rows(kind, sd)
    fit = mx.lmer(FORMULAS[kind], frame, reml=reml, control=QUIET)
    assert fit.convergence.converged, fit.convergence.message
    assert fit.messages == () or fit.is_singular()
    within = np.array([1.0, 1.0 if kind == "slopes" else sd, 1.0])  # of the coefficients
    table = fit.tidy()
    first = fit.varcorr.terms[0]
    sds = np.concatenate([np.where(t.sd < 1e3 * sd, t.sd / sd, t.sd) for t in fit.varcorr.terms])
    errors = fit.variance_components()["std_error"].to_numpy()
    out = [
        [fit.sigma / sd, fit.variance_components().loc["sigma", "std_error"] / sd],
        table["std_error"] / within,
        table["df"],
        sds,
        [errors[0]],
        fit.resid.to_numpy()[:5] / sd,
        fit.hatvalues().to_numpy()[:5],
        fit.predict(frame.head(3), se=True)["se"] / sd,
        np.sqrt(fit.ranef(cond_var=True)[1]["a"][:2, 0, 0])
        / (first.sd[0] if kind in ("crossed", "nested") else sd),
        fit.icc().loc["adjusted", ["estimate"]],
    ]
    if reml:
        adjusted = fit.tidy(ddf="kenward-roger")
        out += [adjusted["std_error"] / within, adjusted["df"]]
    return np.concatenate([np.asarray(part, dtype=float) for part in out])


@pytest.fixture(params=[False, True], ids=["NumPy", "compiled"])
def kernels(request):
    mx.use_compiled(request.param)
    yield
    mx.use_compiled(None)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kind", FORMULAS)
def test_nothing_changes_but_the_unit_of_the_noise(kind, reml):
    # shrinkage moves residuals by 1e-5 of the noise at 1e-5; 1e-9 leaves seven digits of noise
    wanted = figures(kind, 1e-5, reml=reml)
    for sd in (1e-6, 1e-8, 1e-9):
        np.testing.assert_allclose(figures(kind, sd, reml=reml), wanted, rtol=2e-4, atol=1e-5)


def test_effects_within_groups_are_those_of_least_squares():
    frame = rows("crossed", 1e-7)
    fit = mx.lmer(FORMULAS["crossed"], frame, control=QUIET)
    X = np.column_stack([frame["x"], pd.get_dummies(frame["a"]), pd.get_dummies(frame["b"])])
    beta, _, rank, _ = np.linalg.lstsq(X.astype(float), frame["y"], rcond=1e-10)
    left = frame["y"] - X.astype(float) @ beta
    sigma = np.sqrt(left @ left / (150 - rank))
    others = np.linalg.lstsq(X[:, 1:].astype(float), frame["x"], rcond=1e-10)[0]
    own = frame["x"] - X[:, 1:].astype(float) @ others
    row = fit.tidy().set_index("term").loc["x"]
    assert fit.sigma == pytest.approx(sigma, rel=1e-6)
    assert row["estimate"] == pytest.approx(beta[0], abs=1e-5 * sigma)
    assert row["std_error"] == pytest.approx(sigma / np.sqrt(own @ own), rel=1e-6)
    assert row["df"] == pytest.approx(150 - rank, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["bfgs", "lbfgsb", "bobyqa"])
@pytest.mark.parametrize("start", [None, [1.0, 1.0], [1e6, 1e6], [0.0, 3e4]])
def test_neither_the_start_nor_the_optimizer_has_a_say(optimizer, start):
    frame = rows("crossed", 1e-7)
    fit = mx.lmer(FORMULAS["crossed"], frame, start=start, optimizer=optimizer, control=QUIET)
    best = mx.lmer(FORMULAS["crossed"], frame, control=QUIET)
    assert fit.convergence.converged
    assert fit.sigma == pytest.approx(best.sigma, rel=1e-6)
    np.testing.assert_allclose(fit.theta, best.theta, rtol=1e-5)
