"""The searches need an objective and nothing else: one that has no data finds its minimum."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.known import Known
from mixlm_sparse.solve.search.objective import BoundaryReport, Start
from mixlm_sparse.solve.search.search import search

H = np.array([[3.0, 1.0], [1.0, 2.0]])
MINIMUM = np.array([0.7, -1.3])


class Bowl:
    """(phi - c)'H(phi - c), the first parameter not negative."""

    reml = False
    m = 2
    names = ("a", "b")
    lower = working_lower = np.array([0.0, -np.inf])
    rotated = turns = False

    def __init__(self, why=None):
        self.n_values, self.n_gradients, self.history = 0, 0, []
        self.best_value, self.best_phi, self.beyond = np.inf, np.zeros(2), False
        self.falls, self.known, self.rotations = False, Known(), None
        self.why = why

    def value(self, phi):
        self.n_values += 1
        value = float((phi - MINIMUM) @ H @ (phi - MINIMUM))
        self.history.append(value)
        if value < self.best_value:
            self.best_value, self.best_phi = value, phi.copy()
        return value

    def value_and_gradient(self, phi):
        self.n_gradients += 1
        return self.value(phi), 2.0 * H @ (phi - MINIMUM)

    def curvature(self, phi):
        return np.eye(2)

    def guess(self, phi, gradient):
        return self.curvature(phi)

    def sharpen(self, phi, gradient):
        return None

    def renew(self, phi):
        return None

    def place(self, phi):
        return phi

    def radial_decrease(self, phi, gradient):
        return 0.0

    def theta_of(self, phi):
        return phi.copy()

    reflect = theta_of

    def rotate(self, phi):
        return phi

    def without_small(self, phi, cut):
        return phi

    unrotate = rotate

    def start(self):
        return np.ones(2)

    many_valleys = False

    def other_starts(self, *, singular, phi, several):
        return [] if several else [[Start("far away", np.array([5.0, 5.0]))]]

    def settle(self, phi, value):
        return BoundaryReport(phi, value, False)

    def at_once(self, phi, *, tolerance, limit, check_boundary):
        return None

    def perfect(self):
        return self.why

    def without_minimum(self):
        raise AssertionError

    def at_zero(self):
        return np.zeros(2)

    def on_the_boundary(self, phi):
        return (), ""

    def downhill(self, phi, *, whatever_it_costs):
        return None

    def far_out(self):
        raise AssertionError

    def noise(self, phi):
        return 0.0


def found_by(method, objective):
    return search(
        objective, None, given=False, method=method, control=Control(), began=time.perf_counter()
    )


@pytest.mark.parametrize("method", ["bfgs", "lbfgsb", "bobyqa", "cobyqa"])
def test_minimum_of_any_objective(method):
    objective = Bowl()
    found = found_by(method, objective)
    assert found.status == "converged"
    np.testing.assert_allclose(found.theta, MINIMUM, atol=1e-4)
    assert found.n_evaluations == objective.n_values > 3


def test_other_starts_are_told():
    assert [text.split(":")[0] for text in found_by("bfgs", Bowl()).tried] == [
        "moment estimate", "far away",
    ]  # fmt: skip


class ThreeBowls(Bowl):
    """The lowest of three bowls; those starts that look for the second one do not see the third."""

    bowls = ((np.array([1.0, 1.0]), 2.0), (np.array([6.0, 6.0]), 1.0), (np.array([40.0, 0.0]), 0.0))
    downhill = staticmethod(lambda phi, *, whatever_it_costs: None)

    def value_and_gradient(self, phi):
        center, floor = min(self.bowls, key=lambda bowl: bowl[1] + ((phi - bowl[0]) ** 2).sum())
        self.n_values += 1
        self.n_gradients += 1
        return floor + float(((phi - center) ** 2).sum()), 2.0 * (phi - center)

    def value(self, phi):
        return self.value_and_gradient(phi)[0]

    def other_starts(self, *, singular, phi, several):
        return [[Start("all over", np.array([39.0, 1.0]))]] if several else super().other_starts(
            singular=singular, phi=phi, several=False
        )


def test_two_valleys_are_a_reason_to_look_for_a_third():
    found = found_by("bfgs", ThreeBowls())
    assert [text.split(":")[0] for text in found.tried] == [
        "moment estimate", "far away", "all over",
    ]  # fmt: skip
    np.testing.assert_allclose(found.theta, [40.0, 0.0], atol=1e-5)
    assert found.second_valley == pytest.approx(1.0)


def test_perfect_is_zero_without_a_search():
    found = found_by("bfgs", Bowl("nothing is left"))
    assert found.status == "perfect fit"
    assert "nothing is left" in found.message
    assert not found.theta.any()
    assert found.n_evaluations == 1
