"""Variances of zero at the estimate that are not zero farther on: points of profiles are minima."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

import mixlm_sparse as mx
from benchmarks.random_models import random_model
from mixlm_sparse.inference.variance.profile import compute
from mixlm_sparse.inference.variance.profile.follow import Follow
from mixlm_sparse.inference.variance.profile.targets import prepared

CASES = [(55, "(Intercept)"), (42, "x"), (31, "z"), (13, "(Intercept)"), (22, "sigma")]


def fitted(seed):
    model = random_model(seed)
    return mx.lmer(
        model.formula, model.data, reml=model.reml, weights=model.weights, offset=model.offset,
        control=mx.Control(warn=False), progress=False,
    )  # fmt: skip


@pytest.mark.parametrize("together", [True, False], ids=["in step", "one by one"])
@pytest.mark.parametrize(("seed", "name"), CASES)
def test_points_are_least_values_from_anywhere(seed, name, together):
    fit = fitted(seed)
    base = compute._ml_or_reml(fit, False)
    target, held = prepared(base, name)
    if together:
        curve = fit.profile(name)[name]
    else:
        curve = Follow(
            target, held, base.parameters, base.criterion, 3.3, reml=False
        ).followed()
    rng, x0 = np.random.default_rng(0), held.start()
    for c, zeta in zip(curve.values, curve.zeta, strict=True):
        least = min(
            scipy.optimize.minimize(
                lambda x, c=c: held.value_and_gradient(c, x),
                x0 + size * rng.normal(size=x0.size),
                jac=True,
            ).fun
            for size in (0.0, 0.3, 0.3, 2.0, 2.0)
        )
        assert zeta**2 <= least - base.criterion + 1e-4
