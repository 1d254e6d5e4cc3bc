"""The average information: against dense matrices, and what it spares a search."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.solve.average import average_hessian
from mixlm_sparse.solve.criterion import evaluation_at
from mixlm_sparse.solve.curvature import profiled_hessian
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system


def crossed(seed: int) -> tuple[PenalizedSystem, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    n = 240
    data = pd.DataFrame({"g": rng.integers(0, 30, n), "h": rng.integers(0, 25, n)})
    data["x"], data["z"] = rng.standard_normal((2, n))
    b, c = rng.standard_normal((30, 2)), rng.standard_normal((25, 2))
    data["y"] = (
        1 + b[data.g, 0] + (0.5 + b[data.g, 1]) * data.x + c[data.h, 0] + c[data.h, 1] * data.z
        + rng.standard_normal(n)
    )  # fmt: skip
    formula = "y ~ x + (x | g) + (z | h)"
    return penalized_system(mx.model_matrices(formula, data)), data


def dense_hessian(data: pd.DataFrame, T: list[np.ndarray], *, reml: bool) -> np.ndarray:
    """The same from matrices of n rows, in the parameters of T, column by column."""
    n = len(data)
    X = np.column_stack([np.ones(n), data.x])
    Z, dV, where = [], [], []
    for t, (codes, x) in enumerate(((data.g, data.x), (data.h, data.z))):
        columns = np.column_stack([np.ones(n), x])
        levels = codes.to_numpy()[:, None] == np.unique(codes)
        Z.append([columns[:, [a]] * levels for a in (0, 1)])
        for a, b in ((0, 0), (1, 0), (1, 1)):
            D = np.zeros((2, 2))
            D[a, b] = 1.0
            dV.append(spread(Z[t], D @ T[t].T + T[t] @ D.T))
            where.append((t, D))
    V = np.eye(n) + sum(spread(z, M @ M.T) for z, M in zip(Z, T, strict=True))
    Vi = np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    y = data.y.to_numpy()
    nu = n - 2 if reml else n
    s2 = y @ P @ y / nu
    Py = P @ y
    q = np.array([Py @ G @ Py for G in dV]) / s2
    out = np.array([[Py @ G @ P @ H @ Py for H in dV] for G in dV]) / s2 - np.outer(q, q) / nu
    for i, (t, D) in enumerate(where):
        for k, (u, E) in enumerate(where):
            if t == u:
                G = spread(Z[t], D @ E.T + E @ D.T)
                out[i, k] += np.trace((P if reml else Vi) @ G) - Py @ G @ Py / s2
    return out


def spread(Z: list[np.ndarray], S: np.ndarray) -> np.ndarray:
    """Return sum_ab S[a, b] Z_a Z_b'."""
    return sum(S[a, b] * Z[a] @ Z[b].T for a in (0, 1) for b in (0, 1))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_average_information_is_that_of_dense_matrices(seed: int, reml: bool) -> None:
    system, data = crossed(seed)
    theta = optimize(system, reml=reml).theta * (1.0 + 0.05 * np.arange(6))
    chart = system.chart
    phi = chart.phi_of_theta(theta)
    found = evaluation_at(chart.lambdas(phi), system, reml=reml, gradient=True)
    H = average_hessian(phi, found, system, None, reml=reml)
    T = chart.theta_factors(theta)
    expected = dense_hessian(data, T, reml=reml)
    # dtheta / dphi by differences of a linear map between lower triangles that are close by
    step = 1e-6
    J = np.array(
        [
            (chart.theta_of_phi(phi + step * e) - chart.theta_of_phi(phi - step * e)) / (2 * step)
            for e in np.eye(6)
        ]
    ).T
    # the second derivative of theta by phi goes with the gradient, which H of phi has in it
    gradient = mx.deviance_function("y ~ x + (x | g) + (z | h)", data, reml=reml).gradient(theta)
    bend = np.zeros((6, 6))
    for i in range(6):
        for k in range(6):
            h = 1e-4
            e, f = h * np.eye(6)[i], h * np.eye(6)[k]
            bend[i, k] = (
                gradient
                @ (
                    chart.theta_of_phi(phi + e + f) - chart.theta_of_phi(phi + e - f)
                    - chart.theta_of_phi(phi - e + f) + chart.theta_of_phi(phi - e - f)
                )
                / (4 * h * h)
            )  # fmt: skip
    np.testing.assert_allclose(H, J.T @ expected @ J + bend, rtol=1e-4, atol=1e-3)


def test_many_levels_of_one_factor_take_few_gradients() -> None:
    rng = np.random.default_rng(3)
    groups = 8_000
    g = np.tile(np.arange(groups), 4)
    x = np.column_stack([np.ones(g.size), rng.standard_normal((g.size, 2))])
    T = np.array([[0.8, 0.0, 0.0], [0.2, 0.4, 0.0], [-0.1, 0.1, 0.3]])
    y = np.einsum("ij,ij->i", x, (rng.standard_normal((groups, 3)) @ T.T)[g])
    data = pd.DataFrame({"y": y + rng.standard_normal(g.size), "u": x[:, 1], "v": x[:, 2], "g": g})
    system = penalized_system(mx.model_matrices("y ~ u + v + (u + v | g)", data))
    found = optimize(system)
    assert found.status == "converged"
    assert found.n_gradients <= 10
    at = evaluation_at(system.chart.lambdas(found.phi), system, reml=True, gradient=True)
    H = average_hessian(found.phi, at, system, None, reml=True)
    exact = profiled_hessian(found.phi, system, reml=True)
    np.testing.assert_allclose(np.linalg.eigvals(np.linalg.solve(exact, H)).real, 1.0, atol=0.1)
