"""What the data determine, by the rank of dense n x n matrices.  No code of the package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.support.dense_oracle import OracleTerm

Array = np.ndarray


def directions(
    X: Array,
    terms: Sequence[OracleTerm],
    weights: Array | None = None,
    *,
    reml: bool,
    structures: Sequence[str] | None = None,
) -> tuple[Array, list[tuple[int, int, int]]]:
    """Return a basis (g + 1, r) of the undetermined directions, the residual last, and what each
    coordinate is: (term, row, column) of a covariance.
    """
    n = X.shape[0]
    root = np.ones(n) if weights is None else np.sqrt(weights)
    complement = np.eye(n)
    if reml:
        U, s, _ = np.linalg.svd(root[:, None] * X, full_matrices=True)
        complement = U[:, int((s > 1e-9 * s[0]).sum()) :]
    moved, labels = [], []
    for t, term in enumerate(terms):
        structure = structures[t] if structures is not None else "us"
        Z = root[:, None] * term.Z()
        same = np.eye(term.n_levels)
        for a in range(term.k):
            for b in range(a + 1):
                E = np.zeros((term.k, term.k))
                E[a, b] = E[b, a] = 1.0
                if structure == "id":
                    if (a, b) != (0, 0):
                        continue
                    E = np.eye(term.k)
                elif structure == "diag" and a != b:
                    continue
                moved.append(Z @ np.kron(same, E) @ Z.T)
                labels.append((t, a, b))
    moved.append(np.eye(n))
    stacked = np.array([(complement.T @ G @ complement).ravel() for G in moved]).T
    lengths = np.array([max(np.linalg.norm(G), 1e-300) for G in moved])
    _, s, Vt = np.linalg.svd(stacked / lengths, full_matrices=True)
    rank = int((s > 1e-8).sum())
    return Vt[rank:].T / lengths[:, None], labels


def determined(
    basis: Array, labels: list[tuple[int, int, int]], terms: Sequence[OracleTerm]
) -> list[Array]:
    """Return, per term, (k, k): whether each variance and covariance is determined."""
    out = [np.ones((term.k, term.k), dtype=bool) for term in terms]
    for c in basis.T:
        sizes = []
        for value, (t, a, b) in zip(c, labels, strict=False):
            length = np.sqrt((terms[t].columns ** 2).mean(axis=0))
            sizes.append(abs(value) * length[a] * length[b])
        top = max([*sizes, abs(c[-1])])
        for size, (t, a, b) in zip(sizes, labels, strict=True):
            if size > 1e-6 * top:
                out[t][a, b] = out[t][b, a] = False
    return out


def variance_moves(
    basis: Array, X: Array, terms: Sequence[OracleTerm], row: Array, labels: list
) -> bool:
    """Say whether the variance of row'beta moves along the directions, by differences (REML)."""
    n = X.shape[0]
    rng = np.random.default_rng(5)
    S = []
    for term in terms:
        A = rng.normal(size=(term.k, term.k))
        S.append(A @ A.T + np.eye(term.k))

    def variance(move: Array) -> float:
        V = np.eye(n) * (2.0 + move[-1])
        for t, term in enumerate(terms):
            change = np.zeros((term.k, term.k))
            for value, (at, a, b) in zip(move, labels, strict=False):
                if at == t:
                    change[a, b] = change[b, a] = value
            Z = term.Z()
            V += Z @ np.kron(np.eye(term.n_levels), S[t] + change) @ Z.T
        return float(row @ np.linalg.solve(X.T @ np.linalg.solve(V, X), row))

    here = variance(np.zeros(basis.shape[0]))
    return any(
        abs(variance(0.1 * c / np.abs(c).max()) - here) > 1e-7 * abs(here) for c in basis.T
    )
