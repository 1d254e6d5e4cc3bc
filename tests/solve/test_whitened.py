"""Residual structures against dense matrices: criterion, gradient, law, at random parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from benchmarks.random_visits import visits_model
from benchmarks.reliability import ABOVE
from mixlm_sparse.covariance.correlation import Correlation, structures
from mixlm_sparse.covariance.variance import VarianceFunction
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.system import penalized_system
from mixlm_sparse.solve.whitened.criterion import evaluate_whitened
from mixlm_sparse.solve.whitened.objective import WhitenedObjective
from tests.support.dense_structures import correlation_matrix, dense_fit

CORRELATIONS: list[Correlation] = [
    mx.AR1("t", "g"),
    mx.CAR1("s", "g"),
    mx.CompoundSymmetry("g"),
    mx.Unstructured("t", "g"),
    mx.Toeplitz("t", "g"),
    mx.AnteDependence("t", "g"),
    mx.Exponential("s", "g"),
    mx.Exponential(["s", "x"], "g", by="arm"),
    mx.Gaussian("s", "g"),
    mx.AR1("t", "g", by="arm"),
    mx.AnteDependence("t", "g", by="arm"),
    mx.Unstructured("t", "g", by="arm"),
]
VARIANCES: list[VarianceFunction | None] = [
    None,
    mx.VarIdent("t"),
    mx.VarIdent(["arm", "t"]),
    mx.VarPower("s"),
    mx.VarExp("x"),
]
FORMULAS = [
    "y ~ x + t", "y ~ x + (1 | g)", "y ~ x * arm + (x | g)", "y ~ x + (1 | g) + (1 | site)",
    # residual groups that cross a factor
    "y ~ x + (1 | t)", "y ~ x + (1 | g) + (x | t)",
]  # fmt: skip


def trial(seed: int, groups: int = 14, visits: int = 4, weights: bool = False) -> pd.DataFrame:
    """Groups with missing visits in an order without meaning."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"g{g}", f"s{g % 3}", "ab"[g % 2], t)
        for g in range(groups)
        for t in range(visits)
        if g < 6 or rng.random() < 0.75
    ]
    frame = pd.DataFrame(rows, columns=["g", "site", "arm", "t"])
    n = len(frame)
    frame["s"] = 1.0 + frame["t"] + rng.uniform(0.0, 0.8, n)
    frame["x"] = rng.normal(size=n)
    frame["y"] = rng.normal(size=n) + rng.normal(size=groups)[frame["g"].str[1:].astype(int)]
    frame["w"] = rng.uniform(0.5, 2.0, n) if weights else 1.0
    return frame.sample(frac=1.0, random_state=seed, ignore_index=True)


def entries(correlation: Correlation, data: pd.DataFrame, names: list[str], values: np.ndarray):
    """Return the correlation of two rows from the natural parameters, by their names."""
    t, s, arm = data["t"].to_numpy(), data["s"].to_numpy(), data["arm"].to_numpy()
    x = data["x"].to_numpy()
    natural = dict(zip(names, values.tolist(), strict=False))

    def entry(i: int, j: int) -> float:
        tail = f"|{arm[i]}" if getattr(correlation, "by", None) else ""
        lag, apart = abs(int(t[i]) - int(t[j])), abs(s[i] - s[j])
        low, high = sorted((int(t[i]) + 1, int(t[j]) + 1))
        match type(correlation).__name__:
            case "AR1":
                return natural["phi" + tail] ** lag
            case "CAR1":
                return natural["phi" + tail] ** apart
            case "CompoundSymmetry":
                return natural["rho" + tail]
            case "Unstructured":
                return natural[f"rho({low},{high})" + tail]
            case "Toeplitz":
                return natural[f"rho({lag})" + tail]
            case "AnteDependence":
                steps = [natural[f"rho({k},{k + 1})" + tail] for k in range(low, high)]
                return float(np.prod(steps))
            case "Exponential":
                if len(correlation.columns("position")) == 2:
                    apart = np.hypot(apart, x[i] - x[j])
                return float(np.exp(-apart / natural["range" + tail]))
            case _:
                return float(np.exp(-((apart / natural["range" + tail]) ** 2)))

    return entry


def deviations(variance: VarianceFunction | None, data: pd.DataFrame, natural: dict[str, float]):
    """Return the standard deviations relative to sigma from the natural parameters."""
    match variance:
        case None:
            return np.ones(len(data))
        case mx.VarIdent():
            level = data[list(variance.columns)].astype(str).agg(":".join, axis=1)
            return np.array([natural.get(f"ratio({one})", 1.0) for one in level])
        case mx.VarPower():
            return np.abs(data["s"].to_numpy()) ** natural["power"]
        case _:
            return np.exp(natural["rate"] * data["x"].to_numpy())


def random_part(system, data: pd.DataFrame, theta: np.ndarray) -> np.ndarray:
    """Return Z Lambda Lambda'Z' (n, n)."""
    n = len(data)
    V = np.zeros((n, n))
    for t, term in enumerate(system.matrices.terms):
        T = system.chart.theta_factors(theta)[t]
        z = term.columns.block(slice(0, n))
        codes = system.matrices.factors[term.factor].codes
        V += (z @ T @ T.T @ z.T) * (codes[:, None] == codes[None])
    return V


def prepared(formula, correlation, variance, data):
    matrices = model_matrices(
        formula, data, weights="w", residual=correlation, variance=variance, require_random=False
    )
    return penalized_system(matrices)


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
@pytest.mark.parametrize("correlation", [None, *CORRELATIONS], ids=str)
def test_the_criterion_is_that_of_dense_matrices(correlation, variance) -> None:
    if correlation is None and variance is None:
        pytest.skip("no structure")
    rng = np.random.default_rng(3)
    data = trial(5, weights=True)
    for formula in FORMULAS:
        system = prepared(formula, correlation, variance, data)
        law = system.whitened.law
        rho = law.start + rng.normal(0.0, 0.5, law.n_rho)
        theta = np.where(np.isfinite(system.lower), 0.7, 0.3)
        at = system.at_rho(rho)
        names, values = list(law.names), law.natural(rho)[0]
        C = np.eye(len(data))
        if correlation is not None:
            C = correlation_matrix(
                data["g"].tolist(), entries(correlation, data, names, values)
            )
        natural = dict(zip(names, values.tolist(), strict=True))
        sd = deviations(variance, data, natural) / np.sqrt(data["w"].to_numpy())
        V = random_part(system, data, theta) + C * np.outer(sd, sd)
        X = system.matrices.X
        for reml in (True, False):
            dense = dense_fit(data["y"].to_numpy(), X, V, reml=reml)
            lambdas = at.chart.lambdas_of_theta(theta)[0]
            value = evaluate_whitened(lambdas, at, reml=reml)[0]
            assert value == pytest.approx(dense.criterion, rel=1e-10, abs=1e-8)
        solution = mx.solve_pls(theta, at)
        np.testing.assert_allclose(solution.beta, dense.beta, rtol=1e-8, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    correlation=st.sampled_from([None, *CORRELATIONS]),
    variance=st.sampled_from(VARIANCES),
    formula=st.sampled_from(FORMULAS),
    seed=st.integers(0, 10_000),
    reml=st.booleans(),
    centered=st.booleans(),
)
def test_the_gradient_is_that_of_differences(
    correlation, variance, formula, seed, reml, centered
) -> None:
    if correlation is None and variance is None:
        return
    rng = np.random.default_rng(seed)
    system = prepared(formula, correlation, variance, trial(seed % 7, weights=seed % 2 == 0))
    objective = WhitenedObjective(system, reml)
    m = system.n_theta
    x = np.concatenate(
        [rng.uniform(0.3, 1.2, m), system.whitened.law.start + rng.normal(0.0, 0.4, system.n_rho)]
    )

    def value(at: np.ndarray) -> float:
        moved = system.at_rho(at[m:], centered=centered)
        return evaluate_whitened(moved.chart.lambdas(at[:m]), moved, reml=reml)[0]

    moved = system.at_rho(x[m:], centered=centered)
    chart = moved.chart
    _, G, slopes, _ = evaluate_whitened(chart.lambdas(x[:m]), moved, reml=reml)
    exact = np.concatenate([chart.pull_back(x[:m], chart.split(G)), slopes])
    for k in range(x.size):
        step = np.zeros_like(x)
        step[k] = 1e-4
        numeric = (
            8.0 * (value(x + step) - value(x - step)) - value(x + 2 * step) + value(x - 2 * step)
        ) / (12e-4)
        assert exact[k] == pytest.approx(numeric, rel=1e-6, abs=2e-6), objective.names[k]


def test_every_structure_is_tested() -> None:
    assert {type(one) for one in CORRELATIONS} == set(structures())


@pytest.mark.parametrize("correlation", CORRELATIONS, ids=str)
def test_the_law_whitens_draws_and_turns_back(correlation) -> None:
    system = prepared("y ~ x", correlation, mx.VarIdent("t"), trial(2, weights=True))
    law = system.whitened.law
    rho = law.start + np.random.default_rng(1).normal(0.0, 0.5, law.n_rho)
    whitening = Whitening.of(law, rho)
    unit = np.eye(law.n)
    root = whitening.draw(unit)
    np.testing.assert_allclose(whitening.apply(root), unit, atol=1e-9)
    np.testing.assert_allclose(
        whitening.back(unit), whitening.apply(unit).T, atol=1e-12
    )
    R = root @ root.T
    assert whitening.log_det == pytest.approx(np.linalg.slogdet(R)[1])
    np.testing.assert_allclose(np.sqrt(np.diag(R)), whitening.sd, rtol=1e-9)


@pytest.mark.parametrize("correlation", CORRELATIONS, ids=str)
def test_natural_parameters_have_their_derivative(correlation) -> None:
    system = prepared("y ~ x", correlation, mx.VarPower("s"), trial(2))
    law = system.whitened.law
    rho = law.start + np.random.default_rng(7).normal(0.0, 0.6, law.n_rho)
    values, slopes = law.natural(rho)
    for k in range(law.n_rho):
        step = np.zeros_like(rho)
        step[k] = 1e-5
        numeric = (law.natural(rho + step)[0] - law.natural(rho - step)[0]) / 2e-5
        np.testing.assert_allclose(slopes[:, k], numeric, rtol=1e-6, atol=1e-8)
    for k, parameter in enumerate(law.parameters):
        if parameter.link == "working":
            assert law.from_working(k, rho[k]) == pytest.approx(values[k])


SERIES = {
    "sleepstudy": ("Reaction ~ Days + (1 | Subject)", "Subject"),
    "Ovary": ("follicles ~ s1 + c1 + (1 | Mare)", "Mare"),
    "Orthodont": ("distance ~ age * Sex + (1 | Subject)", "Subject"),
}


@pytest.mark.parametrize("name", sorted(SERIES))
def test_no_start_finds_a_better_optimum_of_ar1_beside_an_intercept(name) -> None:
    formula, group = SERIES[name]
    data = mx.datasets.load(name)
    data["row"] = data.groupby(group, observed=True).cumcount()
    fit = mx.lmer(formula, data, residual=mx.AR1("row", group))
    for phi in (-0.6, 0.0, 0.5, 0.8, 0.95):
        for theta in (0.1, 2.0):
            start = np.array([theta, np.arctanh(phi)])
            found = optimize(fit.system, reml=True, start=start)
            assert found.criterion > fit.criterion - 1e-7, (phi, theta)


@pytest.mark.parametrize("seed", [3, 4])
def test_serial_residuals_far_below_the_groups(seed):
    """At any size of the residuals the same phi, and the criterion as the scale has it.

    A correlation near one is a valley of its own: the residuals are then effects of the groups.
    """
    rng = np.random.default_rng(seed)
    groups, k = 20, 6
    g, t = np.repeat(np.arange(groups), k), np.tile(np.arange(k), groups)
    e = rng.normal(size=(groups, k))
    for j in range(1, k):
        e[:, j] = 0.6 * e[:, j - 1] + 0.8 * e[:, j]
    b, x = rng.normal(size=groups), rng.normal(size=groups * k)
    found = []
    for size in (1e-4, 1e-8):
        data = pd.DataFrame({"y": b[g] + size * (x + e.ravel()), "x": x, "t": t, "g": g})
        fit = mx.lmer(
            "y ~ x + (1 | g)", data, residual=mx.AR1("t", "g"),
            control=mx.Control(warn=False), progress=False,
        )  # fmt: skip
        within = len(data) - groups - 1  # contrasts that the residuals alone are about
        found.append((fit.criterion - 2.0 * within * np.log(size), fit.optimum.rho[0]))
        assert fit.convergence.converged
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-3)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)


@pytest.mark.parametrize("structure", [mx.CAR1, mx.Exponential])
def test_random_effects_beside_no_correlation_are_looked_at(structure):
    """The criterion is flat towards no correlation, an end of the range, and lower there."""
    model = visits_model(676)
    with pytest.warns(mx.SingularFitWarning, match="where the residuals are independent"):
        fit = mx.lmer(model.formula, model.data, reml=False, residual=structure("t", "g"))
    assert fit.criterion <= model.best() + ABOVE
