"""Lanczos: log|M| of an operator from random vectors, and what its derivative needs.

For a vector z of random signs E z'f(M)z = tr f(M).  Of an M with unit diagonal, tr(M - I) is zero,
so that log|M| is the trace of

    f(M) = log(M) - M + I

which is of second order in M - I and varies far less between vectors than log(M) does.  A Lanczos
process from z gives an orthonormal basis V of span{z, Mz, ...} and a tridiagonal T = V'MV, with
eigenvalues mu_i and eigenvectors y_i,

    z'f(M)z = |z|^2 e_1'f(T)e_1

to the square of the error that V log(T)e_1 |z| has as log(M)z, which is what ends the process.  The
derivative of z'f(M)z along dM is, in the same basis,

    sum_kl B_kl v_k'dM v_l,   B = |z|^2 sum_ij y_i y_1i (log[mu_i, mu_j] - 1) y_1j y_j'

with divided differences log[a, b] = (log a - log b) / (a - b): the derivative of the estimate
itself, so that estimate and slope belong to one smooth function.

References
----------
Ubaru, Chen and Saad (2017), doi:10.1137/16M1104974, for the quadrature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.krylov.settings import STEPS_AT_A_TIME, TOLERANCE

# A new direction below this is rounding: the basis spans all that z sees.
BREAKDOWN = 1e-12
MOST_STEPS = 300
ZERO_LENGTH = 1e-12  # of a vector that is nothing but rounding
# Parts of B below this share of it count for nothing.
RANK_RTOL = 1e-11
NOT_CONVERGED = (
    "the Lanczos process for the log-determinant has not converged in {steps} steps: random "
    "effects are too large beside the residuals for engine='krylov'"
)


@dataclass(frozen=True, eq=False, slots=True)
class Quadrature:
    """z'f(M)z of several vectors, and their bases.

    Parameters
    ----------
    values : (t,) z'f(M)z.
    basis : (m, t) each, one for every step.
    weights, parts : per vector (c,) and (k, c): B = parts diag(weights) parts'.
    coefficients : (steps, t) f(M)z in the basis.
    """

    values: Vector
    basis: list[Matrix]
    weights: list[Vector]
    parts: list[Matrix]
    coefficients: Matrix

    @property
    def steps(self) -> int:
        """Steps of the longest process."""
        return len(self.basis)

    def images(self) -> Matrix:
        """Return f(M)z of all vectors, (m, t)."""
        out = np.zeros_like(self.basis[0])
        for v, share in zip(self.basis, self.coefficients, strict=True):
            out += v * share
        return out

    def vectors(self, which: int) -> Matrix:
        """Return V parts, (m, c), of one vector."""
        coefficients = self.parts[which]
        V = np.stack([v[:, which] for v in self.basis[: coefficients.shape[0]]], axis=1)
        out: Matrix = V @ coefficients
        return out


def log_quadrature(
    apply: Callable[[Matrix], Matrix],
    Z: Matrix,
    *,
    tolerance: float = TOLERANCE,
    before_more: Callable[[int, int, int], None] | None = None,
) -> Quadrature:
    """Run Lanczos from every column of Z (m, t) at once.

    Parameters
    ----------
    apply : returns M X of X (m, t), M symmetric and positive definite.
    tolerance : share of log(M)z that may be left out.
    before_more : called with (m, t, steps) whenever `STEPS_AT_A_TIME` have been made.

    Raises
    ------
    NotPositiveDefiniteError : M is not, in floating point, or needs more steps than there are.
    """
    length = np.sqrt((Z * Z).sum(axis=0))
    nothing = length <= ZERO_LENGTH
    basis = [np.where(nothing, 0.0, Z) / np.where(nothing, 1.0, length)]
    alpha: list[Vector] = []
    beta: list[Vector] = []
    t = Z.shape[1]
    ended = np.where(nothing, 1, 0)  # steps after which the process of a vector is over
    for step in range(1, MOST_STEPS + 1):
        if before_more is not None and step % STEPS_AT_A_TIME == 0:
            before_more(Z.shape[0], Z.shape[1], step)
        W = apply(basis[-1])
        alpha.append((basis[-1] * W).sum(axis=0))
        for _ in range(2):  # orthogonal to rounding: the derivative rests on the basis
            for v in basis:
                W -= v * (v * W).sum(axis=0)
        size = np.sqrt((W * W).sum(axis=0))
        if not (np.isfinite(size).all() and np.isfinite(alpha[-1]).all()):
            raise NotPositiveDefiniteError("Lambda'Z'WZ Lambda + I is not finite")
        ended[(ended == 0) & (size <= BREAKDOWN * np.abs(alpha[0]))] = step
        going = np.flatnonzero(ended == 0)
        tails = [_tail(alpha, beta, int(s)) for s in going]
        if step > 1 and max(tails, default=0.0) <= tolerance:
            ended[going] = step
        if (ended > 0).all():
            break
        beta.append(size)
        alive = ended == 0
        basis.append(np.where(alive, W, 0.0) / np.where(alive, size, 1.0))
    else:
        raise NotPositiveDefiniteError(NOT_CONVERGED.format(steps=MOST_STEPS))
    values = np.empty(t)
    weights, parts = [], []
    coefficients = np.zeros((len(basis), t))
    for s in range(t):
        if nothing[s]:
            values[s] = 0.0
            weights.append(np.empty(0))
            parts.append(np.empty((1, 0)))
            continue
        mu, y = _ritz(alpha, beta, s, int(ended[s]))
        image = y @ ((np.log(mu) - mu + 1.0) * y[0])
        coefficients[: mu.size, s] = length[s] * image
        values[s] = length[s] ** 2 * float(image[0])
        first = y[0][:, None] * (divided_log(mu) - 1.0) * y[0]
        B = length[s] ** 2 * (y @ first @ y.T)
        size_of, vectors = np.linalg.eigh(B)
        kept = np.abs(size_of) > RANK_RTOL * np.abs(size_of).max()
        weights.append(size_of[kept])
        parts.append(vectors[:, kept])
    return Quadrature(values, basis, weights, parts, coefficients)


def _ritz(alpha: list[Vector], beta: list[Vector], s: int, steps: int) -> tuple[Vector, Matrix]:
    """Return eigenvalues and eigenvectors of T of one vector after some steps."""
    diagonal = np.array([a[s] for a in alpha[:steps]])
    beside = np.array([b[s] for b in beta[: steps - 1]])
    found = scipy.linalg.eigh_tridiagonal(diagonal, beside)
    mu, y = np.asarray(found[0], dtype=np.float64), np.asarray(found[1], dtype=np.float64)
    if not mu[0] > 0.0:
        raise NotPositiveDefiniteError("Lambda'Z'WZ Lambda + I has lost its digits: theta is large")
    return mu, y


def _tail(alpha: list[Vector], beta: list[Vector], s: int) -> float:
    """Return the share of log(T)e_1 in the last direction."""
    mu, y = _ritz(alpha, beta, s, len(alpha))
    found = y @ (np.log(mu) * y[0])
    size = float(np.sqrt(found @ found))
    return abs(float(found[-1])) / size if size > 0.0 else 0.0


def divided_log(mu: Vector) -> Matrix:
    """Return (log a - log b) / (a - b) of all pairs, 1 / a where they are equal."""
    relative = mu / mu[:, None] - 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(relative == 0.0, 1.0, np.log1p(relative) / relative)
    return np.asarray(ratio / mu[:, None])
