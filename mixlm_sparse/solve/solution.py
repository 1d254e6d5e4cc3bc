"""The penalized least-squares solution at one theta, in the user's own columns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from mixlm_sparse.common.checks import require_bool, require_count, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.design.members import effect_matrix, random_part
from mixlm_sparse.engines.interface import SelectedInverse
from mixlm_sparse.solve.fused_solution import profiled_at
from mixlm_sparse.solve.pls import WorkingSolution, require_theta, solve_at, spherical, user_beta
from mixlm_sparse.solve.products.basis import triangular_inverse
from mixlm_sparse.solve.rows import RowBlock
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.joint import left_out, structured_leverage

# Effects that keep more of their prior variance than this, where it is 1e8 times the noise's, are
# not decided by the data.
PRIOR_SHARE = 1e-6


class PlsSolution:
    """Everything about the penalized least-squares solution at one theta, in the user's columns.

    What costs more than O(q) is computed when it is asked for first, and kept.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> matrices = mx.model_matrices("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> solution = mx.solve_pls([0.8], mx.penalized_system(matrices))
    >>> solution.b(0).round(1).ravel()
    array([-17.1,   0.4,  27.8, -22.5,  55.2, -43.8])
    """

    def __init__(self, theta: Vector, system: PenalizedSystem) -> None:
        self.theta = theta
        self.system = system
        chart = system.chart
        self._lambdas, self._rotations = chart.lambdas_of_theta(theta)
        self._profiled = profiled_at(self._lambdas, system) or self._working
        self._factors = chart.theta_factors(theta)

    def __repr__(self) -> str:
        return in_brackets(
            f"PlsSolution at theta of {self.theta.size} parameters: pwrss {self.pwrss:.6g}"
        )

    @cached_property
    def _working(self) -> WorkingSolution:
        """The solution in the working columns, by the engine: what random effects are read off."""
        return solve_at(self._lambdas, self.system)

    @cached_property
    def _Q(self) -> list[Matrix | None]:
        """T~ Q = Rz T: what is said of T~ is turned by Q into the user's columns; None for I."""
        return [
            None if np.array_equal(Q, np.eye(Q.shape[0])) else Q
            for Q in self.system.chart.merge(self._rotations)
        ]

    # -- parts of the criterion ---------------------------------------------------------------

    @property
    def ldL2(self) -> float:
        return self._profiled.ldL2

    @property
    def ldRX2(self) -> float:
        return self._profiled.ldRX2

    @property
    def pwrss(self) -> float:
        return self._profiled.pwrss

    @cached_property
    def ussq(self) -> float:
        """|u|^2."""
        return float(sum((u * u).sum() for u in spherical(self._u, self.system)))

    @property
    def wrss(self) -> float:
        """Weighted residual sum of squares, pwrss - |u|^2."""
        return max(self.pwrss - self.ussq, 0.0)

    # -- fixed effects ------------------------------------------------------------------------

    @cached_property
    def beta(self) -> Vector:
        """(p,) fixed effects of the kept columns."""
        return user_beta(self._profiled.beta, self.system.products)

    @cached_property
    def RX(self) -> Matrix:
        """(p, p) upper triangular, RX'RX = X'WX - RZX'RZX."""
        out: Matrix = self._profiled.R_X @ self.system.products.R_x
        return out

    @cached_property
    def RX_inv(self) -> Matrix:
        """(p, p) inverse of RX."""
        if self.system.p == 0:
            return np.zeros((0, 0))
        R_x = self.system.products.R_x
        half = triangular_inverse(self._profiled.R_X)
        out: Matrix = scipy.linalg.solve_triangular(R_x, half)
        return out

    def times_RX_inv(self, L: Matrix) -> Matrix:
        """Return L RX^{-1} (r, p) for L (r, p); of few rows without the inverse itself.

        By two triangular solves, 2 r p^2 operations, where the inverse takes p^3 / 3 and p^2
        numbers.
        """
        p = self.system.p
        if 4 * L.shape[0] >= p or "RX_inv" in vars(self):
            out: Matrix = L @ self.RX_inv
            return out
        half = scipy.linalg.solve_triangular(self.system.products.R_x, L.T, trans="T")
        out = scipy.linalg.solve_triangular(self._profiled.R_X, half, trans="T").T
        return out

    @cached_property
    def vcov_unscaled(self) -> Matrix:
        """(p, p) covariance of beta divided by sigma^2."""
        out: Matrix = self.RX_inv @ self.RX_inv.T
        return out

    # -- random effects -----------------------------------------------------------------------

    @cached_property
    def _u(self) -> list[Array3]:
        contrast = np.append(-self._profiled.beta, 1.0)
        u = [U[:, :, 0] for U in self._working.along(contrast[:, None])]
        return [x if Q is None else x @ Q for x, Q in zip(u, self._Q, strict=True)]

    def u(self, term: int) -> Matrix:
        """Return the spherical random effects of a term, (L, k)."""
        place = self.system.products.layout[self._checked(term)]
        return spherical(self._u, self.system)[place.factor][:, place.columns]

    def Lambda(self, term: int) -> Matrix:
        """Return the relative covariance factor of a term, (k, k) lower triangular."""
        return self._factors[self._checked(term)]

    def _checked(self, term: int) -> int:
        return require_count("term", term, 0, len(self._factors) - 1)

    def b(self, term: int) -> Matrix:
        """Return the random effects of a term, (L, k): b = Lambda u for every level.

        With a known covariance A = W^{-1}W^{-T} of the levels, b = (W^{-1} (x) Lambda) u.
        """
        place = self.system.products.layout[self._checked(term)]
        return self._u[place.factor][:, place.columns] @ self._factors[term].T

    @cached_property
    def selected_inverse(self) -> SelectedInverse:
        """Blocks of C^{-1} on the pattern of Z'WZ, at `reference_factors`."""
        # Another theta may have used the engine since.
        with self.system.lock:
            self.system.engine.factorize(self._working.factored)
            found = self.system.engine.selected_inverse()
        if all(Q is None for Q in self._Q):
            return found
        Q = [
            np.eye(f.width) if q is None else q
            for q, f in zip(self._Q, self.system.products.blocks.factors, strict=True)
        ]
        return SelectedInverse(
            diag=[np.matmul(np.matmul(q.T, B), q) for q, B in zip(Q, found.diag, strict=True)],
            pairs={
                (g, h): np.matmul(np.matmul(Q[g].T, B), Q[h]) for (g, h), B in found.pairs.items()
            },
        )

    def conditional_covariance(self, term: int) -> Array3:
        """Return Cov(b_j | y, beta, theta) / sigma^2 of a term for every level, (L, k, k)."""
        place = self.system.products.layout[self._checked(term)]
        block = self.selected_inverse.diag[place.factor][:, place.columns, place.columns]
        T = self._factors[term] / self.scale
        out: Array3 = self.grown(np.matmul(np.matmul(T, block), T.T), T @ T.T)
        return out

    @cached_property
    def merged_factors(self) -> list[Matrix]:
        """Lambda per grouping factor, (K, K), in the user's columns."""
        return self.system.chart.merge(self._factors)

    @property
    def scale(self) -> float:
        """1, or more where every random effect is far larger than the noise (see `separate`)."""
        return self._working.scale

    @cached_property
    def reference_factors(self) -> list[Matrix]:
        """Lambda / scale per grouping factor, (K, K), at which C is formed.

        Lambda C^{-1} Lambda' is the same there as at Lambda itself, up to a relative 1e-8, but for
        what the data do not tell of random effects beyond their prior (see `grown`).
        """
        return [lam / self.scale for lam in self.merged_factors]

    def grown(self, variance: Array3, prior: Matrix) -> Array3:
        """Return Lambda C^{-1} Lambda' (.., k, k) at Lambda from blocks at `reference_factors`.

        A block that keeps a share of the prior variance there is of effects that the data leave
        undecided, such as an effect common to all levels of two crossed factors: it grows with the
        prior.  Others are variances of what the data tell, and stay.

        Parameters
        ----------
        prior : (.., k, k) at `reference_factors`, of the same effects.
        """
        if self.scale == 1.0:
            return variance
        size = np.trace(variance, axis1=-2, axis2=-1)[..., None, None]
        undecided = size > PRIOR_SHARE * np.trace(prior, axis1=-2, axis2=-1)[..., None, None]
        out: Array3 = np.where(undecided, self.scale**2 * variance, variance)
        return out

    @cached_property
    def C_inverse_RZX(self) -> list[Array3]:
        """C^{-1} Lambda'Z'WX per grouping factor, (L, K, p), for the user's columns of X."""
        R_x = self.system.products.R_x
        out = [U[:, :, :-1] @ R_x for U in self._working.U]
        return [x if Q is None else np.matmul(Q.T, x) for x, Q in zip(out, self._Q, strict=True)]

    # -- rows ---------------------------------------------------------------------------------

    def fitted(self, include_random: bool = True) -> Vector:
        """Return X beta + offset, with Z b if asked for; (n,)."""
        include_random = require_bool("include_random", include_random)
        return fitted_rows(self, self.system.rows(), self.system.n, include_random)

    def leverage(self) -> Vector:
        """Return the diagonal of the matrix that maps y to the fitted values, (n,).

        h_i = w_i (z_i'M z_i + |R_X^{-T}(x_i - RZX_i)|^2) with M = Lambda C^{-1} Lambda', and
        RZX_i = z_i' Lambda C^{-1} Lambda'Z'WX.
        """
        if self.system.whitened is not None:
            return structured_leverage(self._working, self.system)
        return leverage_rows(self, self.system.rows(), self.system.n)

    def left_out(self, resid: Vector) -> tuple[Vector, Vector]:
        """Return residuals given the other rows and their leverages, (n,); see `joint.left_out`."""
        return left_out(resid, self._working, self.system)


def fitted_rows(
    solution: PlsSolution, walk: Iterable[RowBlock], n: int, include_random: bool = True
) -> Vector:
    """Return X beta + offset, with Z b if asked for, of n rows of the model."""
    out = np.empty(n)
    layout = solution.system.products.layout if include_random else ()
    b = [solution.b(t) for t in range(len(layout))]
    for rows in walk:
        mean = rows.fixed_part(solution.beta)
        for t, place in enumerate(layout):
            mean += rows.random_part(t, place.factor, b[t])
        out[rows.slice] = mean + rows.offset
    return out


def leverage_rows(solution: PlsSolution, walk: Iterable[RowBlock], n: int) -> Vector:
    """Return the leverage of n rows of the model; see `PlsSolution.leverage`."""
    if solution.system.several_levels:
        return _sparse_leverage(solution, walk, n)
    inverse = solution.selected_inverse
    lambdas = solution.reference_factors
    M_diag = [
        np.matmul(np.matmul(lam, block), lam.T)
        for lam, block in zip(lambdas, inverse.diag, strict=True)
    ]
    M_pairs = {
        (g, h): np.matmul(np.matmul(lambdas[g], block), lambdas[h].T)
        for (g, h), block in inverse.pairs.items()
    }
    projected = [
        np.matmul(lam, v)
        for lam, v in zip(solution.merged_factors, solution.C_inverse_RZX, strict=True)
    ]
    n_levels = [f.n_levels for f in solution.system.products.blocks.factors]
    keys = {
        (g, h): pair.rows.astype(np.int64) * n_levels[h] + pair.cols
        for (g, h), pair in solution.system.products.blocks.pairs.items()
    }
    out = np.empty(n)
    for rows in walk:
        X = rows.X
        Z = _merged_user_columns(rows, solution.system)
        codes = [rows.codes(g) for g in range(len(Z))]
        h_i = np.zeros(len(rows))
        for g, z in enumerate(Z):
            h_i += np.einsum("ia,iab,ib->i", z, M_diag[g][codes[g]], z)
            X = X - np.einsum("ia,iap->ip", z, projected[g][codes[g]])
        for (g, h), values in M_pairs.items():
            key = codes[g].astype(np.int64) * n_levels[h] + codes[h]
            at = np.searchsorted(keys[g, h], key)
            h_i += 2.0 * np.einsum("ia,iab,ib->i", Z[g], values[at], Z[h])
        h_i += ((X @ solution.RX_inv) ** 2).sum(axis=1)
        out[rows.slice] = rows.weighted(h_i)
    return out


def _sparse_leverage(solution: PlsSolution, walk: Iterable[RowBlock], n: int) -> Vector:
    """Return the leverage of rows with several levels of a factor: z'M z by sparse products.

    The levels of a row meet, so that all blocks of M = Lambda C^{-1} Lambda' that it needs are on
    the pattern of Z'WZ.
    """
    system, inverse = solution.system, solution.selected_inverse
    lambdas, blocks = solution.reference_factors, system.products.blocks
    starts = np.cumsum([0, *(f.n_levels * f.width for f in blocks.factors)])
    parts = []
    for g, block in enumerate(inverse.diag):
        every = np.arange(blocks.factors[g].n_levels)
        parts.append(_scattered(lambdas[g] @ block @ lambdas[g].T, every, every, starts, g, g))
    for (g, h), block in inverse.pairs.items():
        pair, turned = blocks.pairs[g, h], np.matmul(lambdas[g], block) @ lambdas[h].T
        parts.append(_scattered(turned, pair.rows, pair.cols, starts, g, h))
        parts.append(sp.csr_array(parts[-1].T))
    M: Any = sum(parts[1:], start=parts[0])
    projected = [
        np.matmul(lam, v)
        for lam, v in zip(solution.merged_factors, solution.C_inverse_RZX, strict=True)
    ]
    out = np.empty(n)
    for rows in walk:
        X: Matrix = rows.X
        columns = []
        for t, place in enumerate(system.products.layout):
            z, levels = rows.z(t), rows.levels(place.factor)
            X = X - random_part(z, levels, projected[place.factor][:, place.columns])
            f = blocks.factors[place.factor]
            for a in range(place.width):
                own = effect_matrix(z, levels, a, f.n_levels).tocoo()
                at = starts[place.factor] + own.col * f.width + place.first + a
                columns.append((own.data, own.row, at))
        data, row, col = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        Z = sp.csr_array((data, (row, col)), shape=(len(rows), M.shape[0]))
        h_i = np.asarray((Z @ M).multiply(Z).sum(axis=1)).ravel()
        h_i += ((X @ solution.RX_inv) ** 2).sum(axis=1)
        out[rows.slice] = rows.weighted(h_i)
    return out


def _scattered(
    blocks: Array3, rows: np.ndarray, cols: np.ndarray, starts: np.ndarray, g: int, h: int
) -> sp.csr_array:
    """Return blocks (m, K_g, K_h) of levels (rows, cols) as a sparse matrix (q, q)."""
    _, K, H = blocks.shape
    i, j = np.broadcast_arrays(
        (starts[g] + rows[:, None] * K + np.arange(K))[:, :, None],
        (starts[h] + cols[:, None] * H + np.arange(H))[:, None, :],
    )
    q = int(starts[-1])
    return sp.csr_array((blocks.ravel(), (i.ravel(), j.ravel())), shape=(q, q))


def _merged_user_columns(rows: RowBlock, system: PenalizedSystem) -> list[Matrix]:
    out = [np.empty((len(rows), f.width)) for f in system.products.blocks.factors]
    for t, place in enumerate(system.products.layout):
        out[place.factor][:, place.columns] = rows.z(t)
    return out


@answers_unknown_keywords
def solve_pls(theta: object, system: PenalizedSystem) -> PlsSolution:
    """Solve the penalized least-squares problem at `theta`.

    Parameters
    ----------
    theta : (m,) dimensionless.
    system : theta-free products; its engine holds the factor of the last theta used.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> matrices = mx.model_matrices("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> solution = mx.solve_pls([0.8], mx.penalized_system(matrices))
    >>> solution.beta, round(solution.pwrss, 1)
    (array([1527.5]), 72248.5)
    """
    if not isinstance(system, PenalizedSystem):
        raise OptionError(f"system is {shown(system)}: use mx.penalized_system(matrices)")
    return PlsSolution(require_theta("theta", theta, system), system)
