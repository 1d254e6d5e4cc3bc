"""Starts of many responses, and guesses of the curvature (see `engines.fused.start`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.found import Term
from mixlm_sparse.engines.fused.lockstep.arrays import (
    Array,
    along,
    eigen,
    factor,
    lower_inverse,
    product,
    transposed,
)
from mixlm_sparse.engines.fused.lockstep.boundary import parameters_of
from mixlm_sparse.engines.fused.lockstep.model import Model, Places
from mixlm_sparse.engines.fused.start import (
    FLOOR,
    GREATEST_START,
    LEAST_START,
    MAX_LEVELS,
    MIN_NOISE_SHARE,
)

# Numbers (levels times K^3 times responses) that are worked on at once (see `levels`).
CHUNK = 32_768


def moment_starts(
    ztz: Sequence[Array3],
    ztx: Sequence[Array3],
    zy: Sequence[Array3],
    yy: Vector,
    df: float,
    terms: Sequence[Term],
) -> Matrix:
    """Return phi (m, r) by matching squared level totals to their expectation.

    Parameters
    ----------
    ztz, ztx, zy : per grouping factor, (L, K, K), (L, K, p + 1) and (L, K, r).
    yy : (r,); df : n - p.
    """
    s_sq = yy / df
    shares = []
    for term in terms:
        own = slice(term.column, term.column + term.position.shape[0])
        x = ztx[term.factor][:, own, :-1]
        a = np.diagonal(ztz[term.factor], axis1=1, axis2=2)[:, own]
        free = np.maximum(a - (x * x).sum(axis=2), 0.0)
        expected, weight = free.sum(axis=0), (free * a).sum(axis=0) - free.sum(axis=0)
        squares = np.add.reduce(zy[term.factor][:, own] ** 2, axis=0)
        weight = np.where(weight > 0.0, weight, np.inf)
        share = (squares / s_sq - expected[:, None]) / weight[:, None]
        shares.append(np.where(share > 0.0, share, 0.0))
    noise = np.maximum(1.0 - along(np.concatenate(shares)), MIN_NOISE_SHARE)
    phi = np.zeros((1 + max(int(term.position.max()) for term in terms), yy.size))
    for term, share in zip(terms, shares, strict=True):
        relative = np.clip(np.sqrt(share / noise), LEAST_START, GREATEST_START)
        for c in range(share.shape[0] - 1, -1, -1):  # of one parameter the first counts
            phi[term.position[c, c]] = relative[c]
    return phi


class SquaresEquations(NamedTuple):
    """Squares of the residuals of least squares set equal to their expectations, of any response.

    With q_i = sum_j y_j'E_i y_j, y_j = Z_j'W y_f, and y_f'W y_f last, the (co)variances in units of
    the basis E, and that of the residuals last, are s = J^{-1} q (`solve.profiled.start`).

    Parameters
    ----------
    inverse : (g + 1, g + 1) J^{-1}.
    bases : per grouping factor, (g_f, K, K) the E of its terms.
    places : per grouping factor, (g_f,) where they stand in s.
    least_noise : share of y_f'W y_f that the residual variance is to be above.
    """

    inverse: Matrix
    bases: Sequence[Array3]
    places: Sequence[NDArray[np.intp]]
    least_noise: float


def squares_starts(
    equations: SquaresEquations, zy: Sequence[Array3], yy: Vector, terms: Sequence[Term], m: int
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Return phi (m, r) at which squares are as expected, and (r,) where there is one.

    Where the (co)variances that solve the equations are no covariance matrix, eigenvalues are
    brought into the range that searches begin in.

    Parameters
    ----------
    zy : per grouping factor, (L, K, r).
    yy : (r,).
    """
    q = np.empty((equations.inverse.shape[0], yy.size))
    q[-1] = yy
    for y, basis, at in zip(zy, equations.bases, equations.places, strict=True):
        K = basis.shape[1]
        squares = np.add.reduce(y[:, :, None] * y[:, None], axis=0)
        flat = squares.reshape(K * K, -1)
        for i, E in zip(at.tolist(), basis.reshape(-1, K * K), strict=True):
            q[i] = along(E[c] * flat[c] for c in np.flatnonzero(E).tolist())
    s = [along(row[:, None] * q) for row in equations.inverse]
    good = s[-1] > equations.least_noise * yy
    noise = np.where(good, s[-1], 1.0)
    factors: list[Array3] = []
    merged = [
        along(E[:, :, None] * (s[i] / noise) for i, E in zip(at.tolist(), basis, strict=True))
        for basis, at in zip(equations.bases, equations.places, strict=True)
    ]
    for term in terms:
        own = slice(term.column, term.column + term.position.shape[0])
        factors.append(_factor_near(merged[term.factor][own, own], term))
    return parameters_of(factors, terms, m), good


def _factor_near(S: Array3, term: Term) -> Array3:
    """Return factors (k, k, r) of symmetric matrices with their variances within a range."""
    k = S.shape[0]
    if term.closure != "linear" or k == 1:
        T = np.zeros_like(S)
        for a in range(k):
            T[a, a] = _in_range(S[a, a])
        return T
    values, axes = eigen(S)
    return axes * _in_range(values)[None]


def _in_range(variances: Array) -> Array:
    """Return standard deviations within the range that searches begin in."""
    return np.clip(np.sqrt(np.maximum(variances, 0.0)), LEAST_START, GREATEST_START)


class Curvature:
    """Guesses of the Hessian; what they take of the design does not depend on the response.

    Parameters
    ----------
    ztz : per grouping factor, (L, K, K) or the blocks that differ.
    members : per grouping factor, (L,) levels of each.
    terms : the random terms.
    nu : n or n - p.
    """

    def __init__(
        self, ztz: Sequence[Array3], members: Sequence[Vector], terms: Sequence[Term], nu: float
    ) -> None:
        self._terms, self._nu = terms, nu
        self._blocks, self._members, self._scales = [], [], []
        for A, count in zip(ztz, members, strict=True):
            stride = -(-A.shape[0] // MAX_LEVELS)
            self._blocks.append(A[::stride])
            self._members.append(count[::stride])
            self._scales.append(float(count.sum() / count[::stride].sum()))

    def at(self, phi: Matrix, model: Model, at: Places) -> Array3:
        """Return positive definite guesses (m, m, s) of the Hessian at phi (m, s).

        With D_j = A_j - A_j Lambda C_j^{-1} Lambda'A_j and dSigma_i = dLambda_i Lambda' + Lambda
        dLambda_i', as if factors were orthogonal: sum_j tr(D_j dSigma_i D_j dSigma_k) less
        t_i t_k / nu, t_i = sum_j tr(D_j dSigma_i).
        """
        m, s = phi.shape
        lambdas = model.merged(model.turned_factors(phi, at))
        H, trace = np.zeros((m, m, s)), np.zeros((m, s))
        turned = bool(model.turned[at].any())
        for f, lam in enumerate(lambdas):
            E, total = self._second_moments(f, lam)
            K = lam.shape[0]
            sigma: dict[int, Array3] = {}
            for t, term in enumerate(self._terms):
                if term.factor != f:
                    continue
                k = term.position.shape[0]
                for a, b in np.argwhere(term.position >= 0).tolist():
                    own = sigma.setdefault(int(term.position[a, b]), np.zeros((K, K, s)))
                    for d in range(k):  # dLambda has Q[:, a] in column b
                        if turned:
                            x = model.turns[t][d, a, at]
                        elif d == a:
                            x = np.ones(1)
                        else:
                            continue
                        y = x * lam[:, term.column + b]
                        own[term.column + d] += y
                        own[:, term.column + d] += y
            for i, one in sigma.items():
                trace[i] += along((total * one).reshape(K * K, s))
                left = along((E * one[None, :, :, None]).reshape(K, K * K, K, s).swapaxes(0, 1))
                for j, other in sigma.items():
                    H[i, j] += along((left * other).reshape(K * K, s))
        H -= trace[:, None] * trace[None] / self._nu
        return _raised(0.5 * (H + np.swapaxes(H, 0, 1)))

    def _second_moments(self, f: int, lam: Array3) -> tuple[Array, Array3]:
        """Return sum_j D_j[a, b] D_j[c, d] by [a, b, c, d], and sum_j D_j."""
        K, s = lam.shape[0], lam.shape[2]
        E, total = np.zeros((K, K, K, K, s)), np.zeros((K, K, s))
        step = max(1, CHUNK // (K**3 * s))
        blocks, members, scale = self._blocks[f], self._members[f], self._scales[f]
        turned = transposed(lam)
        for lo in range(0, blocks.shape[0], step):
            A = blocks[lo : lo + step, ..., None]
            count = (scale * members[lo : lo + step])[:, None, None, None]
            W = product(turned, A)
            C = product(W, lam)
            for a in range(K):
                C[:, a, a] += 1.0
            W = product(lower_inverse(factor(C)), W)
            D = A - product(transposed(W), W)
            weighted = count * D
            for one, other in zip(weighted, D, strict=True):
                total += one
                E += one[:, :, None, None] * other
        return E, total


def _raised(H: Array3) -> Array3:
    """Return H (m, m, s) with eigenvalues of at least a share of the largest one.

    Directions without expected curvature (a zero column) get some, or the first step is infinite.
    """
    values, vectors = eigen(H)
    least = FLOOR * np.maximum(values[0], 1e-8)
    low = values[-1] < least
    if not low.any():
        return H
    out = H.copy()
    V = vectors[..., low]
    raised = np.maximum(values[:, low], least[low])
    out[..., low] = product(V * raised, transposed(V))
    return out
