"""A fit ends at an optimum, whatever the design and the optimizer: the oracle is the judge."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import mixlm_sparse as mx
from mixlm_sparse.common.errors import MixedModelWarning
from tests.support import corpus
from tests.support import dense_oracle as oracle
from tests.support.corpus import load_model
from tests.support.strategies import designs

OPTIMIZERS = ["auto", "bobyqa", "cobyqa", "lbfgsb"]
SAME_OPTIMUM = 1e-5  # derivative-free methods stop on the change of theta, not on the gradient
SLOPE = 1e-3  # of the criterion along a step of the size of theta, at an optimum with gradient
BOUNDARY = 1e-6


def fit_design(design, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        return mx.lmer(
            design.formula, design.data, weights=design.weights, offset=design.offset, **options
        )


@settings(max_examples=40)
@given(design=designs())
def test_no_direction_leads_down(design):
    """At the fit the slope is zero inside the bounds, and not negative on them."""
    for reml in (True, False):
        fit = fit_design(design, reml=reml)
        arguments = (design.y, design.X, design.terms)
        options = {**design.options, "reml": reml}
        theta = np.asarray(fit.theta)
        value = oracle.criterion(theta, *arguments, **options)
        assert fit.criterion == pytest.approx(value, rel=1e-9, abs=1e-8)
        slope = oracle.gradient(theta, *arguments, **options)
        on_bound = (np.asarray(fit.lower) == 0) & (theta < BOUNDARY)
        free = slope[~on_bound] * np.maximum(np.abs(theta[~on_bound]), 0.1)
        assert np.abs(free).max(initial=0.0) < SLOPE
        # the criterion is even in a zero diagonal: its slope is 0 there, so look a step away
        for i in np.flatnonzero(on_bound):
            for step in (1e-3, 1e-2, 0.1, 0.5):
                moved = theta.copy()
                moved[i] = step
                assert oracle.criterion(moved, *arguments, **options) > value - 1e-6


@settings(max_examples=15)
@given(design=designs())
def test_no_random_theta_is_better(design):
    fit = fit_design(design, reml=True)
    rng = np.random.default_rng(7)
    arguments = (design.y, design.X, design.terms)
    for _ in range(30):
        theta = np.asarray(fit.theta) + rng.normal(size=design.m) * rng.choice([0.01, 0.1, 1.0])
        value = oracle.criterion(theta, *arguments, **design.options)
        assert value > fit.criterion - 1e-6


EASY = [
    "dyestuff_reml", "dyestuff2_ml", "penicillin_ml", "pastes_nested_reml", "sleep_rs_reml",
    "sleep_uncorr_ml", "sleep_w_off_ml", "cake_two_reml", "machines_ri_reml", "ortho_rs_reml",
    "oats_reml", "early_ml", "pub_rikz_rs_ml", "sleep_scale",
]  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model_id", EASY)
def test_optimizers_agree(model_id, optimizer):
    record, fit = load_model(model_id), corpus.fit(model_id, optimizer=optimizer)
    assert fit.criterion == pytest.approx(record["criterion"], abs=SAME_OPTIMUM)


@pytest.mark.parametrize("factor", [1e-3, 0.1, 3.0, 100.0])
@pytest.mark.parametrize("model_id", ["sleep_rs_reml", "penicillin_ml", "oxboys_ml", "early_ml"])
def test_start_does_not_matter(model_id, factor):
    record = load_model(model_id)
    start = np.where([low == 0 for low in record["lower"]], factor, 0.0)
    fit = corpus.fit(model_id, start=tuple(start))
    assert fit.criterion == pytest.approx(record["criterion"], abs=SAME_OPTIMUM)


def test_start_at_zero_is_left():
    """Theta = 0 is a stationary point of every model, and the optimum of few."""
    record = load_model("sleep_rs_reml")
    fit = corpus.fit("sleep_rs_reml", start=(0.0, 0.0, 0.0))
    assert fit.criterion == pytest.approx(record["criterion"], abs=SAME_OPTIMUM)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_second_valley_is_seen(seed, reml):
    """One large group among single rows: theta = 0 can be a local minimum above the one inside.

    One parameter, so that a grid finds the true optimum.
    """
    rng = np.random.default_rng(seed)
    large, single = 30, 25
    codes = np.r_[np.zeros(large, int), np.arange(1, single + 1)]
    sd = np.r_[np.full(large, 1.0), np.full(single, 1.5 + 0.1 * seed)]
    data = pd.DataFrame({"y": rng.normal(size=codes.size) * sd, "g": codes.astype(str)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        fit = mx.lmer("y ~ 1 + (1 | g)", data, reml=reml)
    X = np.ones((codes.size, 1))
    term = oracle.OracleTerm(X, codes, single + 1)
    grid = [0.0, *np.geomspace(0.01, 10, 60)]
    y = data["y"].to_numpy()
    best = min(oracle.criterion(np.array([t]), y, X, [term], reml=reml) for t in grid)
    assert fit.criterion < best + 1e-6
