"""What a search evaluated is not evaluated again: at a leg's end, on the boundary."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.at_hand import NOTHING
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system
from mixlm_sparse.solve.whitened.objective import WhitenedObjective


def two_terms(seed: int, formula: str, **options: object) -> PenalizedSystem:
    rng = np.random.default_rng(seed)
    n = 240
    data = pd.DataFrame({"g": rng.integers(0, 12, n), "h": rng.integers(0, 7, n)})
    data["t"] = data.groupby("g").cumcount()
    for name in ("x", "z"):
        data[name] = rng.standard_normal(n)
    slopes = rng.standard_normal((12, 2)) @ np.array([[1.0, 0.4], [0.0, 0.3]])
    g = data["g"].to_numpy()
    data["y"] = slopes[g, 0] + slopes[g, 1] * data["x"] + rng.standard_normal(n)
    return penalized_system(mx.model_matrices(formula, data, **options))


FORMULAS = [
    "y ~ x + (x + z | g)",
    "y ~ x + (x | g) + (z | h)",
    "y ~ x + (x | g) + (1 | g) + (1 | h)",
    "y ~ x + (x + z | g) + (x || h)",
]


def without_memory(objective: ProfiledObjective, phi: np.ndarray) -> tuple[float, np.ndarray]:
    fresh = ProfiledObjective(objective.system, objective.reml, rotations=objective.rotations)
    return fresh.value_and_gradient(phi)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_axes_are_turned_back_without_an_evaluation(formula: str, rank: int) -> None:
    system = two_terms(rank, formula)
    objective = ProfiledObjective(system, True)
    rng = np.random.default_rng(rank)
    phi = objective.rotate(rng.standard_normal(system.n_theta))
    for part, template in zip(system.chart.slices, system.templates, strict=True):
        if template.k > rank and template.closed_under == "linear":
            own = phi[part].copy()  # a diagonal T: its least sizes become zero
            own[[template.positions[c, c] for c in range(rank, template.k)]] = 0.0
            phi[part] = own
    phi = phi + np.where(phi != 0.0, 1e-2, 0.0)
    value, gradient = objective.value_and_gradient(phi)
    assert np.allclose(gradient, without_memory(objective, phi)[1], rtol=1e-12)
    evaluations = objective.n_values
    back = objective.unrotate(phi)
    again, turned = objective.value_and_gradient(back)
    assert objective.n_values == evaluations
    assert again == value
    expected = without_memory(objective, back)
    assert expected[0] == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(turned, expected[1], atol=1e-7 * max(1.0, np.abs(gradient).max()))


def test_whitened_axes_are_turned_back_without_an_evaluation() -> None:
    system = two_terms(3, "y ~ x + (x + z | g)", residual=mx.AR1("t", group="g"))
    objective = WhitenedObjective(system, True)
    x = np.append(np.random.default_rng(0).standard_normal(system.n_theta), 0.3)
    x = objective.rotate(x) + 0.01
    value, _ = objective.value_and_gradient(x)
    evaluations = objective.n_values
    back = objective.unrotate(x)
    again, gradient = objective.value_and_gradient(back)
    assert objective.n_values == evaluations
    assert again == value
    expected = WhitenedObjective(system, True).value_and_gradient(back)
    assert expected[0] == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-7)


def test_other_points_and_other_axes_are_evaluated() -> None:
    system = two_terms(5, FORMULAS[0])
    objective = ProfiledObjective(system, True)
    phi = np.random.default_rng(1).standard_normal(system.n_theta)
    objective.value_and_gradient(phi)
    assert objective.value_and_gradient(phi)[0] == without_memory(objective, phi)[0]
    assert objective.n_values == 1
    objective.value_and_gradient(phi + 1e-9)
    assert objective.n_values == 2
    turned = objective.rotate(phi)
    objective.value_and_gradient(turned)
    assert objective.n_values == 3
    objective.rotations = [np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]]
    assert objective.value_and_gradient(turned)[0] == without_memory(objective, turned)[0]
    assert objective.n_values == 4


def test_covariances_that_differ_are_not_taken_along() -> None:
    system = two_terms(6, FORMULAS[0])
    objective = ProfiledObjective(system, True)
    phi = np.random.default_rng(1).standard_normal(system.n_theta)
    objective.value_and_gradient(phi)
    known, factors = objective._at_hand, objective.factors(phi)
    assert known.moved(phi, None, phi * (1 + 1e-13), factors, system.chart) is known
    assert NOTHING.moved(phi, None, -phi, factors, system.chart) is NOTHING


def test_a_singular_end_evaluates_nothing_twice_but_a_point_that_it_moves_to() -> None:
    seen: list[bytes] = []
    for seed in range(6):
        system = two_terms(20 + seed, FORMULAS[0])
        seen.clear()
        found = optimize(
            system, progress=lambda i, d, theta: seen.append(np.round(theta, 13).tobytes())
        )
        assert found.converged
        # on the boundary first the criterion, and the gradient once it is not higher
        assert len(seen) - len(set(seen)) <= 1
