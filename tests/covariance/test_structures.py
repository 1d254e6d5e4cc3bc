"""Laws that hold for every covariance structure that is registered."""

from __future__ import annotations

import copy
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.common.errors import FormulaError, NotPositiveDefiniteError, OptionError
from mixlm_sparse.covariance.ar1 import even_powers
from mixlm_sparse.covariance.random import (
    BUILT_IN,
    covariance_structure,
    structure_names,
)
from mixlm_sparse.covariance.structure import CovarianceStructure, structure

NAMES = tuple(f"{cls.name}({cls.arguments})" if cls.arguments else cls.name for cls in BUILT_IN)
every_structure = pytest.mark.parametrize("name", NAMES)
sizes = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)
STEP = 1e-6


def draw(name, k, seed):
    """A template and parameters well within its bounds."""
    template = covariance_structure(name, k)
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=template.n_theta)
    size = (template.lower == 0.0) & (template.upper == np.inf)
    phi = np.where(size, np.abs(phi) + 0.3, np.clip(phi, -0.8, 0.8))
    return template, template.theta_at(phi), rng


def covariance(template, theta):
    T = template.factor(theta)
    return T @ T.T


@every_structure
@given(k=sizes, seed=seeds)
def test_stacks_are_the_single_ones(name, k, seed):
    template, _, rng = draw(name, k, seed)
    thetas = np.array([draw(name, k, s)[1] for s in rng.integers(10**6, size=5)])
    if template.positions is not None:  # a copy of theta, whatever its signs
        thetas = rng.normal(size=thetas.shape)
    Ts = np.array([template.factor(theta) for theta in thetas])
    np.testing.assert_array_equal(template.factors_of(thetas), Ts)
    # roots of the same covariance; and of a singular one
    roots = np.linalg.qr(rng.normal(size=(5, k, k)))[0]
    Ms = np.matmul(Ts, roots) if template.closed_under == "linear" else Ts.copy()
    Ms[2, :, -1] = 0.0
    single = np.array([template.theta_of(M) for M in Ms])
    np.testing.assert_allclose(template.thetas_of(Ms), single, atol=1e-13)


@every_structure
def test_start_is_the_identity_and_within_bounds(name):
    for k in range(1, 5):
        template = covariance_structure(name, k)
        np.testing.assert_array_equal(template.factor(template.start), np.eye(k))
        assert template.start.shape == template.lower.shape == (template.n_theta,)
        assert (template.start >= template.lower).all()


@every_structure
@given(k=sizes, seed=seeds)
def test_reflection(name, k, seed):
    """theta_of finds the covariance again, within bounds, from any square root of it."""
    template, theta, rng = draw(name, k, seed)
    np.testing.assert_allclose(template.theta_of(template.factor(theta)), theta, atol=1e-12)
    phi = template.working(theta)
    flipped = np.where(template.powers > 0.0, phi * rng.choice([-1.0, 1.0], size=phi.size), phi)
    flipped = flipped + np.where(template.powers > 0.0, 0.0, 2.0 * np.pi)
    back = template.reflected(flipped)
    assert (template.theta_at(back) >= template.lower).all()
    assert (template.theta_at(back) <= template.upper).all()
    T, at = template.factor_at(flipped), template.factor_at(back)
    np.testing.assert_allclose(at @ at.T, T @ T.T, atol=1e-12)


@every_structure
@given(k=sizes, seed=seeds)
def test_working_parameters_mean_theta(name, k, seed):
    template, theta, _ = draw(name, k, seed)
    phi = template.working(theta)
    np.testing.assert_allclose(template.theta_at(phi), theta, atol=1e-12)
    np.testing.assert_allclose(template.factor_at(phi), template.factor(theta), atol=1e-12)
    larger = template.factor_at(phi * 3.0**template.powers)
    np.testing.assert_allclose(larger @ larger.T, 9.0 * covariance(template, theta), atol=1e-9)


@every_structure
@given(k=sizes, seed=seeds)
def test_working_derivatives_also_where_the_covariance_is_singular(name, k, seed):
    template, theta, rng = draw(name, k, seed)
    phi = template.working(theta)
    snap = rng.random(phi.size) < 0.3
    phi = np.where(snap, np.where(template.powers > 0.0, 0.0, 0.5 * np.pi), phi)
    G, slopes = rng.normal(size=(k, k)), template.slopes_at(phi)
    for i in range(phi.size):
        step = STEP * (np.arange(phi.size) == i)
        slope = (template.factor_at(phi + step) - template.factor_at(phi - step)) / (2 * STEP)
        np.testing.assert_allclose(slopes[i], slope, atol=1e-8)
    np.testing.assert_allclose(
        template.pull_back_at(phi, G), np.einsum("iab,ab->i", slopes, G), atol=1e-12
    )


@every_structure
@given(k=sizes, seed=seeds)
def test_nearly_singular_covariances_are_covariances(name, k, seed):
    template, _, rng = draw(name, k, seed)
    phi = template.working(template.start)
    bounded = template.powers == 0.0  # angles, singular at a right one
    near = 0.5 * np.pi - 10.0 ** rng.uniform(-9.0, -1.0, size=phi.size)
    phi = np.where(bounded & (rng.random(phi.size) < 0.7), rng.choice([-1.0, 1.0]) * near, phi)
    T = template.factor_at(phi)
    theta = template.theta_at(template.reflected(phi))
    np.testing.assert_allclose(covariance(template, theta), T @ T.T, atol=1e-6)
    back = template.factor_at(template.working(theta))
    np.testing.assert_allclose(back @ back.T, T @ T.T, atol=1e-6)


@every_structure
@given(k=sizes, seed=seeds)
def test_edges_are_where_they_say(name, k, seed):
    """Close to an edge the snapped parameters are on it, and all that is inside is no other."""
    template, theta, rng = draw(name, k, seed)
    phi = template.working(theta)
    edges = template.edges(phi)
    if edges is None:
        return
    assert not edges.inside
    np.testing.assert_allclose(template.theta_at(edges.snapped), theta)
    i = rng.integers(phi.size)
    phi[i] = 1e-4 if template.powers[i] > 0.0 else 0.5 * np.pi - 1e-4
    found = template.edges(phi)
    # where no variance is left `off_zero` says more
    assert found.inside or not template.factor_at(found.snapped).any()
    assert np.linalg.eigvalsh(covariance(template, template.theta_at(found.snapped)))[0] < 1e-12
    for inside in found.inside:
        assert np.isfinite(template.factor_at(inside)).all()


@every_structure
@given(k=sizes, seed=seeds)
def test_holding_a_natural_parameter(name, k, seed):
    template, theta, rng = draw(name, k, seed)
    pars = template.natural_parameters
    at = int(rng.integers(len(pars)))
    phi = template.working(theta)
    value = 1.3 if pars[at].kind == "sd" else 0.9 * template.natural(theta)[0][at]
    try:
        held, slopes = template.hold(at, value, phi)
        coordinate = template.held_coordinate(at)
    except NotImplementedError:
        assert template.positions is not None
        assert k > 1
        return
    except NotPositiveDefiniteError:
        return
    assert template.natural(template.theta_at(held))[0][at] == pytest.approx(value, rel=1e-9)
    assert slopes[coordinate] == 0.0
    for i in range(phi.size):
        step = STEP * (np.arange(phi.size) == i)
        up, down = (template.hold(at, value, phi + s * step)[0] for s in (1, -1))
        slope = (up - down)[coordinate] / (2 * STEP)
        assert slopes[i] == pytest.approx(0.0 if i == coordinate else slope, abs=1e-6)


@every_structure
@given(k=sizes, seed=seeds)
def test_derivatives(name, k, seed):
    template, theta, rng = draw(name, k, seed)
    G = rng.normal(size=(k, k))
    dT = template.dT(theta)
    for i in range(theta.size):
        step = STEP * (np.arange(theta.size) == i)
        slope = (template.factor(theta + step) - template.factor(theta - step)) / (2 * STEP)
        np.testing.assert_allclose(dT[i], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        template.pull_back(theta, G), np.einsum("iab,ab->i", dT, G), atol=1e-12
    )


@every_structure
@given(k=sizes, seed=seeds)
def test_closure(name, k, seed):
    """The covariance of mapped effects has the structure, for the maps that it promises."""
    template, theta, rng = draw(name, k, seed)
    maps = {
        "linear": np.tril(rng.normal(size=(k, k)), -1) + np.diag(rng.uniform(0.5, 2.0, k)),
        "scales": np.diag(rng.uniform(0.5, 2.0, k)),
        "one scale": rng.uniform(0.5, 2.0) * np.eye(k),
    }
    M = maps[template.closed_under] @ template.factor(theta)
    for back in (
        template.theta_of(M), template.mapped(theta, maps[template.closed_under])
    ):  # fmt: skip
        np.testing.assert_allclose(covariance(template, back), M @ M.T, rtol=1e-9, atol=1e-10)


@every_structure
@given(k=sizes, seed=seeds)
def test_positions_say_where_theta_stands(name, k, seed):
    template, theta, _ = draw(name, k, seed)
    T = template.factor(theta)
    assert not T[~template.pattern].any()
    if template.positions is not None:
        where = template.positions
        np.testing.assert_array_equal(np.where(where >= 0, theta[where], 0.0), T)


@every_structure
@given(k=sizes, seed=seeds)
def test_covariances_are_combinations_of_the_basis(name, k, seed):
    template, theta, _ = draw(name, k, seed)
    basis = template.covariance_basis
    if basis is None:
        return
    flat = np.array([E.ravel() for E in basis]).T
    assert np.linalg.matrix_rank(flat) == len(basis)
    target = covariance(template, theta).ravel()
    weights = np.linalg.lstsq(flat, target, rcond=None)[0]
    np.testing.assert_allclose(flat @ weights, target, atol=1e-10)


@every_structure
@given(k=sizes, seed=seeds)
def test_natural_scale(name, k, seed):
    template, theta, _ = draw(name, k, seed)
    values, jacobian = template.natural(theta)
    S = covariance(template, theta)
    sd = np.sqrt(np.diag(S))
    for par, value in zip(template.natural_parameters, values, strict=True):
        i, j = par.row, par.column
        expected = sd[i] if par.kind == "sd" else S[i, j] / (sd[i] * sd[j])
        assert value == pytest.approx(expected, abs=1e-12)
    for i in range(theta.size):
        step = STEP * (np.arange(theta.size) == i)
        slope = (template.natural(theta + step)[0] - template.natural(theta - step)[0]) / (2 * STEP)
        np.testing.assert_allclose(jacobian[:, i], slope, rtol=1e-4, atol=1e-6)


@every_structure
def test_names_are_as_many_as_parameters_and_different(name):
    for k in range(1, 5):
        template = covariance_structure(name, k)
        names = template.names("g", tuple("abcd"[:k]))
        assert len(set(names)) == template.n_theta


@every_structure
def test_templates_are_values(name):
    template = covariance_structure(name, 3)
    assert template == covariance_structure(name, 3) != covariance_structure(name, 2)
    assert pickle.loads(pickle.dumps(template)) == copy.deepcopy(template) == template


def test_the_correlation_of_an_effect_without_variance_is_not_defined():
    values, jacobian = covariance_structure("us", 2).natural(np.array([0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(values, [0.0, np.nan, 1.0])
    assert np.isnan(jacobian[:2, 0]).all()


def test_unknown_structure_names_what_there_is():
    with pytest.raises(FormulaError, match=r"'exp' is not a covariance structure.*diag, id, toep"):
        covariance_structure("exp", 2)
    assert {name.split("(")[0] for name in NAMES} <= set(structure_names())


def test_a_name_is_taken_once():
    with pytest.raises(OptionError, match="'us' already"):

        @structure("us")
        class Another(CovarianceStructure):
            pass

    with pytest.raises(OptionError, match="cannot be called 'a b'"):
        structure("a b")


@every_structure
@given(k=st.integers(2, 4), seed=seeds)
def test_the_steepest_way_off_zero(name, k, seed):
    """No covariance of the structure, drawn at random, has a lower slope than the one given."""
    template, _, rng = draw(name, k, seed)
    M = rng.normal(size=(k, k)) + 0.5 * np.eye(k)
    M = M + M.T
    found = template.off_zero(M)
    if not found:
        return
    T = template.factor_at(found[0][1])
    assert (T @ T.T * M).sum() == pytest.approx(found[0][0])
    for phi in rng.normal(size=(10, template.n_theta)):
        T_drawn = template.factor_at(phi)
        S = T_drawn @ T_drawn.T
        slope = (S * M).sum() / np.trace(S)
        # angles of an autoregression are looked at in steps
        assert slope >= found[0][0] / np.trace(T @ T.T) - 0.03 * np.abs(M).sum()


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_scales_of_the_unstructured_are_those_of_any_structure(k):
    template = covariance_structure("us", k)
    phi = np.random.default_rng(k).normal(size=template.n_theta)
    phi[-1] = 0.0
    for floor in (1e-3, 0.7):
        np.testing.assert_array_equal(
            template.working_scales(phi, floor),
            CovarianceStructure.working_scales(template, phi, floor),
        )


@pytest.mark.parametrize("d", [1001, 4000, 20_001])
@pytest.mark.parametrize("x", [0.0, 0.3, -1.2, 1.5, 1.5705, 1.570796, np.pi / 2, -np.pi / 2 + 1e-6])
def test_many_even_powers_are_summed_at_once(d, x):
    sine, cosine = float(np.sin(x)), float(np.cos(x))
    m = np.arange(d)
    total, slope = even_powers(sine, cosine, d)
    # 1 - cos^2 rather than sin^2, which is rounded: its d-th power would be another number
    powers = np.exp(m * np.log1p(-(cosine**2))) if cosine**2 < 1.0 else (m == 0).astype(float)
    assert total == pytest.approx(powers.sum(), rel=1e-10)
    want = 2.0 * sine * cosine * (m[1:] * powers[:-1]).sum()
    assert slope == pytest.approx(want, rel=1e-9, abs=1e-300)


def test_an_autoregression_over_a_long_gap_takes_no_memory():
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(30), 4), "t": np.tile([0, 1, 2, 10**9], 30)})
    data["y"] = rng.normal(size=30)[data["g"]] + 0.3 * rng.normal(size=120)
    tracemalloc.start()
    try:
        fit = mx.lmer("y ~ 1 + ar1(0 + t | g)", data, control=mx.Control(warn=False))
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert np.isfinite(fit.criterion)
