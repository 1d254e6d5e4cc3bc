"""Fits by engine='krylov' beside those by a factor: equal where exact, within errors elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.engines import memory
from mixlm_sparse.solve.profiled.objective import ProfiledObjective

STANDARD_ERRORS = 4.0


@pytest.fixture(scope="module")
def ratings() -> pd.DataFrame:
    """Users and items crossed, degrees skewed, slopes by item; three factors."""
    rng = np.random.default_rng(7)
    n, users, items, days = 8000, 700, 250, 40
    popular = 1.0 / (np.arange(items) + 5.0)
    frame = pd.DataFrame(
        {
            "user": np.concatenate([np.arange(users), rng.integers(0, users, n - users)]),
            "item": rng.choice(items, n, p=popular / popular.sum()),
            "day": rng.integers(0, days, n),
            "x": rng.normal(size=n),
        }
    )
    frame["y"] = (
        3.0
        + 0.2 * frame["x"]
        + 0.5 * rng.normal(size=users)[frame["user"]]
        + 0.7 * rng.normal(size=items)[frame["item"]]
        + 0.3 * rng.normal(size=items)[frame["item"]] * frame["x"]
        + 0.2 * rng.normal(size=days)[frame["day"]]
        + rng.normal(size=n)
    )
    return frame


FORMULAS = [
    "y ~ x + (1 | user) + (1 | item)",
    "y ~ x + (1 | user) + (x | item)",
    "y ~ x + (x || user) + (1 | item) + (1 | day)",
]


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_within_reported_errors(ratings: pd.DataFrame, formula: str, reml: bool) -> None:
    exact = mx.lmer(formula, ratings, reml=reml)
    fit = mx.lmer(formula, ratings, reml=reml, engine="krylov")
    report = fit.convergence
    assert report.converged
    assert report.criterion_error > 0.0
    assert abs(fit.criterion - exact.criterion) <= STANDARD_ERRORS * report.criterion_error
    assert (
        np.abs(fit.theta - exact.theta) <= STANDARD_ERRORS * report.theta_error + 1e-5
    ).all(), (fit.theta, exact.theta, report.theta_error)
    assert (
        np.abs(fit.fixef - exact.fixef) <= STANDARD_ERRORS * report.beta_error + 1e-6
    ).all()
    # what random vectors leave open is small beside what the sample does
    np.testing.assert_allclose(fit.bse, exact.bse, rtol=0.02)
    assert exact.convergence.criterion_error == 0.0
    assert not exact.convergence.theta_error.any()


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_same_at_the_same_theta(ratings: pd.DataFrame, formula: str) -> None:
    exact = mx.lmer(formula, ratings)
    matrices = mx.model_matrices(formula, ratings)
    system = mx.penalized_system(matrices, engine="krylov")
    at = mx.solve_pls(exact.theta, system)
    np.testing.assert_allclose(at.beta, exact.fixef, rtol=1e-8)
    np.testing.assert_allclose(at.pwrss, exact.solution.pwrss, rtol=1e-11)
    np.testing.assert_allclose(at.vcov_unscaled, exact.solution.vcov_unscaled, rtol=1e-8)
    assert at.ldRX2 == pytest.approx(exact.solution.ldRX2, abs=1e-8)
    for term in range(len(matrices.terms)):
        np.testing.assert_allclose(at.b(term), exact.solution.b(term), atol=1e-8)


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_gradient_is_that_of_the_estimated_criterion(
    ratings: pd.DataFrame, formula: str, reml: bool
) -> None:
    system = mx.penalized_system(mx.model_matrices(formula, ratings), engine="krylov")
    rng = np.random.default_rng(3)
    objective = ProfiledObjective(system, reml)
    phi = 0.5 * system.chart.start + 0.1 * rng.uniform(size=system.n_theta)
    _, gradient = objective.value_and_gradient(phi)
    for i in range(phi.size):
        step = 1e-3 * np.eye(phi.size)[i]
        values = [objective.value(phi + k * step) for k in (1, -1, 2, -2)]
        slope = (8.0 * (values[0] - values[1]) - (values[2] - values[3])) / (12.0 * 1e-3)
        assert slope == pytest.approx(gradient[i], rel=1e-6, abs=1e-5)


def test_the_same_call_gives_the_same_digits(ratings: pd.DataFrame) -> None:
    first = mx.lmer(FORMULAS[1], ratings, engine="krylov")
    again = mx.lmer(FORMULAS[1], ratings.copy(), engine="krylov")
    assert first.criterion == again.criterion
    assert (first.theta == again.theta).all()


def test_a_variance_of_zero_is_found(ratings: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    n = len(ratings)
    frame = ratings.assign(y=rng.normal(size=n), nothing=rng.integers(0, 60, n))
    formula = "y ~ x + (1 | user) + (1 | item) + (1 | nothing)"
    exact = mx.lmer(formula, frame, control=mx.Control(warn=False))
    fit = mx.lmer(formula, frame, engine="krylov", control=mx.Control(warn=False))
    assert exact.theta.min() == 0.0
    assert (fit.theta == 0.0).tolist() == (exact.theta == 0.0).tolist()


def test_what_follows_a_fit(ratings: pd.DataFrame, tmp_path) -> None:
    formula = FORMULAS[0]
    exact = mx.lmer(formula, ratings)
    fit = mx.lmer(formula, ratings, engine="krylov")
    np.testing.assert_allclose(fit.ranef()["item"], exact.ranef()["item"], atol=5e-3)
    np.testing.assert_allclose(fit.predict(ratings[:20]), exact.predict(ratings[:20]), atol=5e-3)
    np.testing.assert_allclose(fit.fittedvalues, exact.fittedvalues, atol=5e-3)
    np.testing.assert_allclose(
        fit.confint(method="wald"), exact.confint(method="wald"), rtol=0.05, atol=0.01
    )
    np.testing.assert_allclose(fit.pvalues, exact.pvalues, atol=0.01)
    for ddf in ("satterthwaite", "kenward-roger"):
        mine, theirs = fit.anova(ddf=ddf), exact.anova(ddf=ddf)
        np.testing.assert_allclose(mine["DenDF"], theirs["DenDF"], rtol=1e-3)
        np.testing.assert_allclose(mine["F value"], theirs["F value"], rtol=1e-3)
    np.testing.assert_allclose(fit.refit(2.0 * ratings["y"]).sigma, 2.0 * fit.sigma, rtol=1e-6)
    assert "krylov" in fit.describe_engine()
    assert "standard error" in repr(fit.convergence)
    assert str(fit.summary())
    fit.save(tmp_path / "fit.mixlm")
    loaded = mx.load(tmp_path / "fit.mixlm", data=ratings)
    assert loaded.criterion == fit.criterion
    np.testing.assert_allclose(loaded.fixef, fit.fixef)


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.ranef(cond_var=True),
        lambda fit: fit.hatvalues(),
        lambda fit: fit.predict(se=True),
    ],
    ids=["cond_var", "leverage", "standard errors"],
)
def test_what_needs_a_factor_is_refused(ratings: pd.DataFrame, ask) -> None:
    fit = mx.lmer(FORMULAS[0], ratings, engine="krylov")
    with pytest.raises(mx.EngineError, match="engine='auto'"):
        ask(fit)


def test_residual_structures_are_refused(ratings: pd.DataFrame) -> None:
    with pytest.raises(mx.EngineError, match="independent residuals alone"):
        mx.lmer(FORMULAS[0], ratings, variance=mx.VarIdent(by="day"), engine="krylov")


def test_known_covariances_are_refused(ratings: pd.DataFrame) -> None:
    levels = np.sort(ratings["item"].unique())
    A = pd.DataFrame(np.eye(levels.size), index=levels, columns=levels)
    with pytest.raises(mx.EngineError, match="cannot hold known covariances"):
        mx.lmer(FORMULAS[0], ratings, known={"item": A}, engine="krylov")


def test_noise_far_below_the_effects_is_refused_or_right(ratings: pd.DataFrame) -> None:
    rng = np.random.default_rng(5)
    frame = ratings.assign(
        y=rng.normal(size=700)[ratings["user"]]
        + rng.normal(size=250)[ratings["item"]]
        + 1e-6 * rng.normal(size=len(ratings))
    )
    formula = "y ~ 1 + (1 | user) + (1 | item)"
    exact = mx.lmer(formula, frame, control=mx.Control(warn=False))
    try:
        fit = mx.lmer(formula, frame, engine="krylov", control=mx.Control(warn=False))
    except mx.EngineError as error:
        assert "engine='auto'" in str(error)
    else:
        assert not fit.convergence.converged or fit.sigma == pytest.approx(exact.sigma, rel=0.05)


def test_vectors_tolerance_and_seed_are_the_users(ratings: pd.DataFrame) -> None:
    formula = FORMULAS[0]

    def fit(data=ratings, **options):
        return mx.lmer(formula, data, engine="krylov", control=mx.Control(**options))

    usual, many = fit(), fit(krylov_vectors=16 * 16)
    ratio = usual.convergence.criterion_error / many.convergence.criterion_error
    assert 2.0 < ratio < 8.0  # 4, but for chance
    assert 1.5 < (usual.convergence.theta_error / many.convergence.theta_error).min()
    assert "256 random vectors" in many.describe_engine()
    other = fit(krylov_seed=1)
    assert other.criterion != usual.criterion
    assert abs(other.criterion - usual.criterion) < 6.0 * usual.convergence.criterion_error
    loose = fit(krylov_tolerance=1e-5)
    assert loose.criterion == pytest.approx(usual.criterion, abs=0.1)
    np.testing.assert_allclose(loose.fixef, usual.fixef, rtol=1e-4)
    # further fits and rows in batches estimate alike
    assert many.refit(ratings["y"]).criterion == pytest.approx(many.criterion, rel=1e-12)
    batches = fit(lambda: (ratings[i : i + 1000] for i in range(0, len(ratings), 1000)),
                  krylov_vectors=256)  # fmt: skip
    assert batches.criterion == pytest.approx(many.criterion, rel=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [{"krylov_vectors": 0}, {"krylov_vectors": 2.5}, {"krylov_vectors": 10**6},
     {"krylov_seed": -1}, {"krylov_seed": "x"}, {"krylov_tolerance": 0.0},
     {"krylov_tolerance": 0.1}, {"krylov_tolerance": float("nan")}],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_named(wrong: dict) -> None:
    with pytest.raises(mx.OptionError, match=next(iter(wrong))):
        mx.Control(**wrong)


def test_errors_of_theta_hold_where_the_search_stopped(ratings: pd.DataFrame) -> None:
    whole = mx.lmer(FORMULAS[1], ratings, engine="krylov")
    control = mx.Control(max_evaluations=2, warn=False, check_boundary=False)
    short = mx.lmer(FORMULAS[1], ratings, engine="krylov", control=control)
    left = np.abs(short.theta - whole.theta)
    assert left.max() > 10.0 * whole.convergence.theta_error.max()  # the search was cut short
    assert (left < 3.0 * short.convergence.theta_error).all()
    assert (np.abs(short.fixef - whole.fixef) < 3.0 * short.convergence.beta_error + 1e-9).all()


def test_summary_says_what_is_estimated(ratings: pd.DataFrame) -> None:
    fit = mx.lmer(FORMULAS[0], ratings, engine="krylov")
    text = " ".join(str(fit.summary()).split())
    assert "estimated from 16 random vectors, with the standard errors" in text
    for part in ("(criterion)", "(theta)", "% of their standard errors"):
        assert part in text
    report = " ".join(repr(fit.convergence).split())
    assert "by random vectors and where the search stopped" in report
    assert "estimated from" not in str(mx.lmer(FORMULAS[0], ratings).summary())


def test_what_does_not_fit_into_memory_is_said_before(ratings, monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 200_000)
    plan = mx.plan(FORMULAS[0], ratings, engine="krylov")
    assert not plan.fits
    assert "engine='krylov' with" in plan.reason
    with pytest.raises(mx.EngineError, match=r"needs about .* of memory.*leave out levels"):
        mx.lmer(FORMULAS[0], ratings, engine="krylov")
    control = mx.Control(krylov_vectors=4000)
    with pytest.raises(mx.EngineError, match="fewer vectors"):
        mx.lmer(FORMULAS[0], ratings, engine="krylov", control=control)
    assert "fewer vectors" in mx.plan(FORMULAS[0], ratings, engine="krylov", control=control).reason
