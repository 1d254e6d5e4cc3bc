"""Profiles whose points are searched for in step: a dense oracle, and one point after another."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from benchmarks.random_models import random_model
from benchmarks.reliability import fit_of
from mixlm_sparse.engines.fused.lockstep.held import Holding
from mixlm_sparse.inference.variance.profile import compute, in_step
from mixlm_sparse.inference.variance.profile.curve import ParameterProfile
from mixlm_sparse.inference.variance.profile.held import Held, HeldCoefficient, HeldSigma
from mixlm_sparse.inference.variance.profile.held_factor import HeldInFactor
from mixlm_sparse.inference.variance.profile.lanes import Lanes, kind_of_lane
from mixlm_sparse.model.parameters import variance_parameters
from mixlm_sparse.solve.profiled.lockstep import held_criteria, lockstep_serves
from mixlm_sparse.solve.system import penalized_system
from tests.support.dense_oracle import criterion
from tests.support.strategies import Design, designs

MODELS = [
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    ("sleepstudy", "Reaction ~ 0 + (Days | Subject)"),
    ("sleepstudy", "Reaction ~ Days + id(1 + Days | Subject)"),
    ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    ("Pastes", "strength ~ 1 + (1 | batch/cask)"),
    ("Dyestuff", "Yield ~ 1 + (1 | Batch)"),
    ("Dyestuff2", "Yield ~ 1 + (1 | Batch)"),  # singular
    ("Orthodont", "distance ~ age * Sex + (age | Subject)"),
    ("Machines", "score ~ Machine + (Machine | Worker)"),
]


@settings(max_examples=40)
@given(design=designs(), seed=st.integers(0, 2**31))
def test_criteria_with_something_held_are_those_of_the_dense_covariance(
    design: Design, seed: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrices = mx.model_matrices(
            design.formula, design.data, weights=design.weights, offset=design.offset
        )
    system = penalized_system(matrices)
    if not lockstep_serves(system) or system.p != design.X.shape[1]:
        return
    rng = np.random.default_rng(seed)
    p, s = system.p, 4
    thetas = np.abs(rng.normal(size=(s, design.m)))
    lambdas = [system.chart.lambdas_of_theta(theta)[0] for theta in thetas]
    own = [np.stack([each[f] for each in lambdas], axis=2) for f in range(len(lambdas[0]))]
    for reml in (False, True):
        held = held_criteria(system, reml=reml)
        log_sigma = rng.normal(size=s)
        none = Holding(np.ones(s, dtype=bool), log_sigma, np.zeros((p, s)), np.zeros(s))
        found = held.held_at(own, none)
        ratio = np.exp(2.0 * log_sigma) * held.law.nu / found.pwrss
        for i in np.flatnonzero(np.isfinite(found.value)).tolist():
            least = criterion(
                thetas[i], design.y, design.X, design.terms, reml=reml, **design.options
            )
            above = held.law.nu * (np.log(ratio[i]) + 1.0 / ratio[i] - 1.0)
            assert found.value[i] == pytest.approx(least + above, rel=1e-8)
    held, inverse = held_criteria(system, reml=False), np.linalg.inv(system.products.R_x)
    for j in range(p):
        rest = [i for i in range(p) if i != j]
        b = system.products.beta_ols[j] + rng.normal(size=s)
        holding = Holding(
            np.zeros(s, dtype=bool), np.zeros(s), np.repeat(inverse[j][:, None], s, axis=1),
            b - system.products.beta_ols[j],
        )  # fmt: skip
        found = held.held_at(own, holding)
        for i in np.flatnonzero(np.isfinite(found.value)).tolist():
            alone = criterion(
                thetas[i], design.y - b[i] * design.X[:, j], design.X[:, rest], design.terms,
                reml=False, **design.options,
            )  # fmt: skip
            assert found.value[i] == pytest.approx(alone, rel=1e-8)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize(("name", "formula"), MODELS)
def test_lanes_are_the_held_criteria(name: str, formula: str, reml: bool) -> None:
    fit = mx.lmer(formula, mx.datasets.load(name), progress=False, control=mx.Control(warn=False))
    system, phi = fit.system, fit.optimum.phi
    held: list[Held] = [HeldSigma(system, phi, reml=reml)]
    values = [1.2 * fit.sigma]
    for par in variance_parameters(system):
        if par.kind != "sigma":
            held.append(HeldInFactor(system, phi, fit.sigma, par, reml=reml))
            values.append(-0.3 if par.kind == "cor" else 0.7 * fit.sigma)
    if not reml:
        for column in range(system.p):
            held.append(HeldCoefficient(system, phi, column))
            values.append(float(fit.fixef.iloc[column]) + 1.0)
    order = sorted(range(len(held)), key=lambda i: kind_of_lane(held[i]))
    held, values = [held[i] for i in order], [values[i] for i in order]
    rng = np.random.default_rng(0)
    starts = np.stack([one.start() for one in held], axis=1)
    x = starts + 0.2 * rng.normal(size=starts.shape)
    lanes = Lanes(held, values, system, held_criteria(system, reml=reml))
    value, gradient = lanes(x)
    some = rng.random(len(held)) < 0.5
    part, slopes = lanes(x, some)
    np.testing.assert_array_equal(part[some], value[some])
    np.testing.assert_array_equal(slopes[:, some], gradient[:, some])
    states, beta, good = lanes.states(x)
    assert all(good)
    for i, (one, c) in enumerate(zip(held, values, strict=True)):
        own, exact = one.value_and_gradient(c, x[:, i])
        assert value[i] == pytest.approx(own, rel=1e-11)
        np.testing.assert_allclose(gradient[:, i], exact, rtol=1e-7, atol=1e-7)
        state = one.state(c, x[:, i])
        assert states[i].sigma == pytest.approx(state.sigma, rel=1e-10)
        for T, expected in zip(states[i].blocks, state.blocks, strict=True):
            np.testing.assert_allclose(T, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(beta[i], one.beta(c, x[:, i]), rtol=1e-8, atol=1e-8)


def both(
    fit: mx.LinearMixedFit, monkeypatch: pytest.MonkeyPatch, *, reml: bool = False
) -> list[tuple[ParameterProfile, ParameterProfile]]:
    """Return the curves that are followed in step, each with that of single searches."""
    together = fit.profile(reml=reml)
    with monkeypatch.context() as patched:
        for module in (compute, in_step):
            patched.setattr(module, "lockstep_serves", lambda _: False)
        alone = fit.profile(reml=reml)
    assert list(together) == list(alone)
    return list(zip(together.values(), alone.values(), strict=True))


@pytest.mark.parametrize(("name", "formula"), MODELS)
def test_profiles_in_step_are_those_of_single_searches(
    name: str, formula: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, quiet = mx.datasets.load(name), mx.Control(warn=False)
    fit = mx.lmer(formula, data, progress=False, control=quiet)
    assert lockstep_serves(fit.system)
    for reml in (False, True):
        for curve, other in both(fit, monkeypatch, reml=reml):
            assert (curve.note, curve.reached) == (other.note, other.reached)
            width = np.ptp(other.values)
            np.testing.assert_allclose(curve.values, other.values, rtol=0, atol=1e-6 * width)
            np.testing.assert_allclose(curve.zeta, other.zeta, rtol=0, atol=1e-6)
            for level in (0.5, 0.95, 0.99):
                ends, expected = curve.limits(level)[:2], other.limits(level)[:2]
                np.testing.assert_allclose(ends, expected, rtol=1e-6, atol=1e-6 * width)
            # beside a standard deviation of zero a correlation is anything
            if curve.kind in ("sigma", "beta") and not fit.is_singular():
                here, there = (own[:, ~np.isnan(own[0])] for own in (curve.others, other.others))
                np.testing.assert_allclose(here, there, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("seed", range(4, 16))
def test_profiles_of_random_models(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fit_of(random_model(seed))
    if not lockstep_serves(fit.system) or fit.unbounded:
        return
    for curve, other in both(fit, monkeypatch):
        assert (curve.note, curve.reached) == (other.note, other.reached)
        # what is left to win where an inner search ends, predicted beside a kink
        np.testing.assert_allclose(curve.zeta**2, other.zeta**2, rtol=0, atol=1e-4)


def test_digits_of_a_curve_do_not_depend_on_the_others() -> None:
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    every = fit.profile()
    for name in every:
        alone = fit.profile(name)[name]
        np.testing.assert_array_equal(alone.values, every[name].values)
        np.testing.assert_array_equal(alone.zeta, every[name].zeta)
        np.testing.assert_array_equal(alone.others, every[name].others)
