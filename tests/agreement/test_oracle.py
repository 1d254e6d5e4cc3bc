"""The oracle agrees with itself and with a published value, so that it may judge the package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.support import dense_oracle as oracle
from tests.support.corpus import data_of, load_model
from tests.support.strategies import designs_with_theta


@settings(max_examples=25, deadline=None)
@given(designs_with_theta())
def test_parts_fit_together(drawn):
    design, theta = drawn
    solution = oracle.solve(
        design.y,
        design.X,
        design.terms,
        oracle.lower_triangles(theta, design.terms),
        **design.options,
    )
    assert solution.pwrss == pytest.approx(solution.wrss + solution.ussq, rel=1e-10)
    assert -1e-10 <= solution.leverage.min()
    assert solution.leverage.max() <= 1 + 1e-10


@settings(max_examples=15, deadline=None)
@given(designs_with_theta())
def test_gradient_is_the_slope(drawn):
    design, theta = drawn
    for reml in (True, False):
        arguments = (theta, design.y, design.X, design.terms)
        exact = oracle.gradient(*arguments, **design.options, reml=reml)
        slope = oracle.central_difference(*arguments, **design.options, reml=reml)
        np.testing.assert_allclose(slope, exact, rtol=1e-5, atol=1e-5)


def test_sleepstudy_as_lme4_has_it():
    record = load_model("sleep_rs_ml")
    data = data_of(record)
    X = np.column_stack([np.ones(180), data["Days"]])
    term = oracle.OracleTerm(X, data["Subject"].cat.codes.to_numpy(), 18)
    y = data["Reaction"].to_numpy()
    # lme4's documentation gives 1784.642296192436 at Lambda = I
    at_identity = oracle.criterion(np.array([1.0, 0, 1]), y, X, [term], reml=False)
    assert at_identity == pytest.approx(1784.642296192436, rel=1e-13)
    theta = np.array(record["theta"])
    at_optimum = oracle.solve(y, X, [term], oracle.lower_triangles(theta, [term]), reml=False)
    assert at_optimum.criterion == pytest.approx(record["criterion"], rel=1e-12)
    np.testing.assert_allclose(at_optimum.vcov, record["vcov"], rtol=1e-8)
    np.testing.assert_allclose(at_optimum.b[0], record["random_terms"][0]["ranef"], rtol=1e-7)
    np.testing.assert_allclose(
        at_optimum.sigma_sq * at_optimum.cond_var_unscaled[0],
        record["random_terms"][0]["cond_var"],
        rtol=1e-7,
    )
    np.testing.assert_allclose(at_optimum.leverage[:20], record["hatvalues_head"], rtol=1e-8)
