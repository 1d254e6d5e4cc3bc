"""Few rows and large random effects: the optimum does not depend on where the search began."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from benchmarks.random_models import random_model
from benchmarks.random_structures import structured_model
from mixlm_sparse.engines import decisions
from mixlm_sparse.solve.profiled.boundary import _farther
from mixlm_sparse.solve.profiled.start import expected_hessian
from mixlm_sparse.solve.profiled.valleys import other_starts
from mixlm_sparse.solve.search.bfgs import minimize_bfgs

QUIET = mx.Control(warn=False)


def crowded(seed: int, formula: str) -> pd.DataFrame:
    """Hardly more rows than random effects, which are a hundred times the noise."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 32))
    g = rng.integers(0, 9, n)
    h = 3 * g + rng.integers(0, 3, n) if "| h" in formula else rng.integers(0, 4, n)
    x, z = rng.normal(size=(2, n))
    X = np.column_stack([np.ones(n), x, z])
    b = 100.0 * rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3))
    y = (X * b[g]).sum(axis=1) + 100.0 * rng.normal(size=28)[h] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": g, "h": h})


CASES = [("(x + z | g)", 45), ("(x | g) + (1 | h)", 14), ("(x | g) + (1 | h)", 56)]


@pytest.mark.parametrize(("formula", "seed"), CASES)
def test_no_start_ends_below(formula, seed):
    data = crowded(seed, formula)
    fit = mx.lmer(f"y ~ x + z + {formula}", data, control=QUIET)
    assert fit.convergence.converged
    assert fit.convergence.second_valley > fit.criterion + 1e-4  # there are others
    rng = np.random.default_rng(seed)
    for size in (1.0, 10.0, 100.0):
        start = np.where(fit.lower == 0.0, size, size * rng.normal(size=fit.theta.size))
        again = mx.lmer(f"y ~ x + z + {formula}", data, start=start, control=QUIET)
        assert fit.criterion <= again.criterion + 1e-5


def test_hardly_more_rows_than_effects():
    """40 rows, 38 effects: which of two terms takes what both could has two answers."""
    model = random_model(31481)
    fit = mx.lmer(model.formula, model.data, reml=model.reml, control=QUIET)
    assert fit.criterion <= model.best() + 1e-5
    assert fit.convergence.second_valley > fit.criterion + 1.0


@pytest.mark.parametrize("seed", [812, 1214])
def test_a_valley_with_another_zero_direction_is_found(seed):
    model = random_model(seed)
    fit = mx.lmer(
        model.formula, model.data, reml=model.reml, weights=model.weights, offset=model.offset,
        control=QUIET,
    )  # fmt: skip
    assert fit.criterion <= model.best() + 1e-5
    lowest = min(fit.convergence.tried, key=lambda line: float(line.rpartition(": ")[2]))
    assert "exchanged" in lowest or "off zero" in lowest


@pytest.mark.parametrize("seed", [179, 818, 1156, 1736, 5017, 20066])
def test_edges_of_a_structure_have_valleys_of_their_own(seed):
    """Each choice of variances at zero and correlations at one may have one."""
    model = structured_model(seed)
    fit = mx.lmer(model.formula, model.data, reml=model.reml, control=QUIET)
    assert fit.convergence.converged
    assert fit.criterion <= model.best() + 1e-5
    assert fit.convergence.second_valley > fit.criterion + 1e-4


def test_a_criterion_without_a_minimum_is_said_to_have_none():
    """A slope in one direction of each group leaves two of 24 contrasts out, and fits them all."""
    model = random_model(4155)
    assert model.has_no_minimum()
    fit = mx.lmer(model.formula, model.data, reml=model.reml, control=QUIET)
    assert fit.convergence.status == "local optimum"
    assert fit.convergence.converged
    assert fit.convergence.predicted_decrease < 1e-6
    assert any("elsewhere, though, the likelihood has no maximum" in note for note in fit.messages)
    assert "has no maximum" in " ".join(str(fit.convergence).split())
    # with rows enough for its effects the same formula has a minimum
    rng = np.random.default_rng(2)
    more = pd.concat([model.data] * 4, ignore_index=True)
    more["y"] += rng.normal(0.0, 0.5, len(more))
    again = mx.lmer(model.formula, more, reml=model.reml, control=QUIET)
    assert again.convergence.status in ("converged", "singular")


@pytest.mark.parametrize("compiled", [False, True], ids=["NumPy", "compiled"])
@pytest.mark.parametrize("seed", [1065, 4977])
def test_where_sigma_goes_to_zero_no_search_runs_to_its_last_evaluation(
    seed, compiled, monkeypatch
):
    """A valley with a limit for sigma = 0 and one that falls without end, both at infinity."""
    monkeypatch.setattr(decisions, "_switch", compiled)
    model = random_model(seed)
    fit = mx.lmer(model.formula, model.data, reml=model.reml, control=QUIET)
    assert model.has_no_minimum()
    assert fit.convergence.status in ("local optimum", "no residual")
    assert fit.convergence.n_evaluations < 2_000


def test_no_search_ends_on_a_slope_that_is_hardly_there():
    """Off a zero variance the criterion falls by 3.5e-5 until five times the noise: all see it."""
    model = random_model(30075)
    fit = mx.lmer(model.formula, model.data, reml=model.reml, control=QUIET)
    ends = np.array([float(line.rpartition(": ")[2]) for line in fit.convergence.tried])
    above = ends - fit.criterion
    assert (above < 1e-4).sum() > 1
    assert above[above < 1e-4].max() < 1e-5


@pytest.mark.parametrize("least", [0.07, 0.3, 5.0, 40.0])
def test_the_bottom_of_a_flat_valley_beside_the_boundary(least):
    def off(size):
        t = (size / least) ** 2
        return 100.0 - 1e-4 * t * (2.0 - t) + 1e-7 * t**3, np.array([size])

    value, there = _farther(off, 100.0, 0.05)
    assert value == pytest.approx(off(least)[0], abs=3e-6)
    assert there[0] == pytest.approx(least, rel=0.2)


def test_the_guess_of_the_curvature_far_out():
    """Of groups with fewer rows than effects: the unit matrix is lost beside Lambda'Z'Z Lambda."""
    z = np.ones((6, 1))
    frame = pd.DataFrame(np.hstack([z, z, z]), columns=["a", "b", "c"])
    frame = frame.assign(g=[0, 0, 1, 1, 2, 2], y=np.arange(6.0) ** 2)
    system = mx.penalized_system(mx.model_matrices("y ~ 1 + (0 + a + b + c || g)", frame))
    phi = system.chart.scaled(system.chart.start, 2.0**30)
    assert np.isfinite(expected_hessian(phi, system, reml=True)).all()


def visits(seed: int) -> pd.DataFrame:
    """Twelve groups with one row a visit: a random intercept can be the row of one visit."""
    rng = np.random.default_rng(seed)
    g, t = (a.ravel() for a in np.meshgrid(range(12), range(3), indexing="ij"))
    return pd.DataFrame({"g": g, "t": t, "y": rng.normal(size=12)[g] + rng.normal(size=36)})


def in_the_limit(data: pd.DataFrame, quiet: int, *, serial: bool) -> float:
    """The ML deviance with residuals of zero at one visit, whose rows are the intercepts.

    Its rows have a mean and a variance; the others vary around them, each with its own variance,
    and correlated if they are neighbours of an AR1.
    """
    y = data["y"].to_numpy().reshape(12, 3)
    apart = np.delete(y - y[:, [quiet]], quiet, axis=1)
    S = apart.T @ apart / 12
    S = S if serial else np.diag(np.diag(S))
    return 12 * (3 * np.log(2 * np.pi) + 3 + np.log(y[:, quiet].var()) + np.log(np.linalg.det(S)))


LIMITS = [(11, 2, False), (14, 2, True), (18, 0, True)]


@pytest.mark.parametrize(("seed", "quiet", "serial"), LIMITS)
def test_one_visit_without_residual_variance(seed, quiet, serial):
    data = visits(seed)
    fit = mx.lmer(
        "y ~ 1 + (1 | g)", data, residual=mx.AR1("t", "g") if serial else None,
        variance=mx.VarIdent("t"), reml=False, control=QUIET,
    )  # fmt: skip
    assert fit.criterion == pytest.approx(in_the_limit(data, quiet, serial=serial), abs=1e-3)
    assert any(f"deviation of {quiet} goes to zero" in message for message in fit.messages)
    if serial:  # another valley, in which all searches without that look end
        assert fit.convergence.second_valley > fit.criterion + 1.0


def test_usual_data_are_searched_once():
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    assert fit.convergence.tried == ()
    assert other_starts(fit.system, singular=False, phi=fit.optimum.phi) == []


def test_a_search_that_begins_where_nothing_is_defined_ends_there():
    def nowhere(x):
        return np.inf, np.full_like(x, np.nan)

    found = minimize_bfgs(nowhere, np.ones(2), np.eye(2), tolerance=1e-9, max_evaluations=50)
    assert found.status == "stalled"
    np.testing.assert_array_equal(found.x, np.ones(2))


@pytest.mark.parametrize("seed", [3540, 7616, 9463])
def test_which_of_two_terms_takes_a_variance(seed):
    """Nested levels: a variance of one is another's, or is seen beside the other's size only."""
    model = random_model(seed)
    fit = mx.lmer(model.formula, model.data, reml=model.reml, weights=model.weights, control=QUIET)
    assert fit.criterion <= model.best() + 1e-6


def test_each_edge_of_several_correlations_is_searched_from():
    """One variance, three correlations: C is singular at each of six edges."""
    model = structured_model(1589)
    fit = mx.lmer(model.formula, model.data, reml=model.reml, control=QUIET)
    assert fit.criterion <= model.best() + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_a_variance_beside_a_much_larger_one_of_its_own_levels(seed):
    """The criterion is flat up to a share of the larger one: its bottom is found from anywhere."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, 9, 82)
    h = 4 * g + rng.integers(0, 3, 82)
    y = 80.0 * rng.normal(size=40)[h] + rng.normal(size=82)
    data = pd.DataFrame({"y": y, "g": g, "h": h})
    ends = [
        mx.lmer("y ~ 1 + (1 | g) + (1 | h)", data, start=start, control=QUIET).criterion
        for start in (None, [60.0, 0.1], [60.0, 0.5], [60.0, 30.0])
    ]
    assert np.ptp(ends) < 1e-7


def test_by_ml_fixed_and_random_effects_that_fit_anything_leave_no_minimum():
    """log|V| falls by 2 log sigma along the direction that is left to the fixed part alone."""
    model = random_model(50328)
    assert not model.reml
    fit = mx.lmer(model.formula, model.data, reml=False, control=QUIET)
    apart = fit.system.apart
    assert apart.rank < model.y.size == apart.rank + apart.rank_within
    assert fit.convergence.status == "local optimum"
    assert model.has_no_minimum()


def of_groups(seed: int, levels: tuple[int, int]) -> pd.DataFrame:
    """A covariate z that is constant within groups."""
    rng = np.random.default_rng(seed)
    groups, rows = int(rng.integers(*levels)), int(rng.integers(4, 14))
    g = np.repeat(np.arange(groups), rows)
    z = rng.normal(size=groups) + rng.choice([0, 2])
    z = np.exp(z)[g] if rng.random() < 0.5 else z[g]
    y = rng.normal(size=groups)[g] * rng.choice([0.5, 1, 2]) + rng.normal(size=g.size)
    return pd.DataFrame({"g": g, "z": z, "y": y, "x": rng.normal(size=g.size)})


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("seed", "levels"), [(35, (6, 14)), (57, (6, 14)), (77, (14, 30))])
def test_a_slope_of_what_is_constant_within_groups(seed, levels, reml):
    """What is seen of a group is its mean, of a variance that is a parabola in z."""
    data = of_groups(seed, levels)
    fit = mx.lmer("y ~ x + (z | g)", data, reml=reml, control=QUIET)
    for start in ([0.3, 0.5, 0.01], [0.3, -0.5, 0.01], [1.5, -1.5, 0.01], [1.5, 1.5, 0.01],
                  [0.01, 1.0, 0.01], [1.0, 0.01, 1.0]):  # fmt: skip
        again = mx.lmer("y ~ x + (z | g)", data, reml=reml, start=start, control=QUIET)
        assert fit.criterion <= again.criterion + 1e-5
