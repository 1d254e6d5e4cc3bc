"""The penalized least-squares problem at a given theta.

    minimize over u, beta:  |sqrt(W)(y - o - X beta - Z Lambda u)|^2 + |u|^2

`penalized_system` does what does not depend on theta, once; `solve_at` profiles u and beta out at
given relative factors, touching nothing of length n; `solve_pls` returns the whole solution in the
user's own columns.

With [X y] orthonormalized (see `crossproducts`), V = Lambda'Z'W[X y] and U = C^{-1} V,

    [R_X'R_X   .  ]   [I   0 ]
    [  .       .  ] = [0  yy ] - V'U         (p + 1, p + 1)

whose Cholesky factor holds R_X, the right-hand side for beta and, last on its diagonal,
sqrt(pwrss).

References
----------
Bates et al. (2015), doi:10.18637/jss.v067.i01, sections 3.2 to 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from mixlm_sparse._types import Array3, Matrix, Vector
from mixlm_sparse.covariance import CovarianceStructure, covariance_structure
from mixlm_sparse.crossproducts import (
    BLOCK_ROWS,
    CrossProducts,
    Products,
    cross_products,
    orthonormal_products,
    row_blocks,
)
from mixlm_sparse.errors import DataError, NotPositiveDefiniteError
from mixlm_sparse.factor import make_engine
from mixlm_sparse.factor.interface import Engine, SelectedInverse
from mixlm_sparse.factor.kernels import sum_by_group

if TYPE_CHECKING:
    from mixlm_sparse.design import ModelMatrices

# Below this share of the response's length the residual is rounding error: a perfect fit.
PERFECT_FIT_RTOL = 1e-10


@dataclass(frozen=True)
class PenalizedSystem:
    """Theta-free products, covariance templates and the engine with its symbolic work done.

    The engine's numeric factor is the one buffer that changes; everything else is constant.
    """

    matrices: ModelMatrices
    products: Products
    templates: tuple[CovarianceStructure, ...]
    engine: Engine
    cross: CrossProducts | None = field(default=None, repr=False)

    @property
    def n(self) -> int:
        return self.products.n

    @property
    def p(self) -> int:
        return self.products.p

    @cached_property
    def q(self) -> int:
        return self.products.blocks.q

    @cached_property
    def theta_slices(self) -> tuple[slice, ...]:
        stops = np.cumsum([t.n_theta for t in self.templates])
        return tuple(
            slice(int(stop) - t.n_theta, int(stop))
            for t, stop in zip(self.templates, stops, strict=True)
        )

    @property
    def n_theta(self) -> int:
        return sum(t.n_theta for t in self.templates)

    @cached_property
    def theta_names(self) -> tuple[str, ...]:
        names: list[str] = []
        for term, template in zip(self.matrices.terms, self.templates, strict=True):
            label = self.matrices.factors[term.factor].label
            names.extend(template.names(label, term.column_names))
        return tuple(names)

    @property
    def theta0(self) -> Vector:
        return np.concatenate([t.start for t in self.templates])

    @cached_property
    def lower(self) -> Vector:
        return np.concatenate([t.lower for t in self.templates])

    @cached_property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X that are kept."""
        return tuple(self.matrices.fixed.names[j] for j in self.products.kept)

    @cached_property
    def dropped(self) -> tuple[str, ...]:
        """Names of the columns of X that are combinations of earlier ones."""
        kept = set(self.products.kept)
        return tuple(name for j, name in enumerate(self.matrices.fixed.names) if j not in kept)

    @cached_property
    def log_det_R_x(self) -> float:
        """log|det R_x|^2 of the map to the user's columns of X."""
        return 2.0 * float(np.log(np.abs(np.diag(self.products.R_x))).sum())

    def factors_of(self, theta: Vector) -> list[Matrix]:
        """Return the lower-triangular factor T of every term in the user's columns."""
        return [
            t.factor(theta[part]) for t, part in zip(self.templates, self.theta_slices, strict=True)
        ]

    def merge(self, blocks: Sequence[Matrix]) -> list[Matrix]:
        """Put per-term (k, k) matrices on the diagonal of their factor's (K, K) matrix."""
        places = self.products.layout
        factors = self.products.blocks.factors
        if len(blocks) == len(factors):
            out: list[Matrix] = [np.empty(0)] * len(factors)
            for place, block in zip(places, blocks, strict=True):
                out[place.factor] = block
            return out
        out = [np.zeros((f.width, f.width)) for f in factors]
        for place, block in zip(places, blocks, strict=True):
            out[place.factor][place.columns, place.columns] = block
        return out

    def split(self, merged: Sequence[Matrix]) -> list[Matrix]:
        """Take the per-term diagonal parts out of per-factor (K, K) matrices."""
        return [merged[p.factor][p.columns, p.columns] for p in self.products.layout]

    def lambdas(self, theta: Vector) -> list[Matrix]:
        """Return Lambda per factor for the working columns z~ = z Rz^{-1}: Rz T."""
        Rz = self.products.Rz
        return self.merge(
            [R @ T for R, T in zip(Rz, self.factors_of(theta), strict=True)]
        )

    def with_products(self, products: Products, matrices: ModelMatrices) -> PenalizedSystem:
        """Return the system for another response; design and engine are shared."""
        return PenalizedSystem(matrices, products, self.templates, self.engine)


def penalized_system(
    matrices: ModelMatrices,
    engine: str = "auto",
    *,
    cross: CrossProducts | None = None,
) -> PenalizedSystem:
    """Form the products, choose the engine and do its symbolic work.

    Parameters
    ----------
    matrices : the design.
    engine : "auto", "blocked" or "cholmod".
    cross : products formed before; by default they are formed from the rows of `matrices`.

    Raises
    ------
    DataError : there are not fewer fixed-effects coefficients than rows.
    """
    if cross is None:
        cross = cross_products(matrices)
    products = orthonormal_products(cross)
    if products.p >= products.n:
        raise DataError(
            f"the fixed part has {products.p} coefficients for {products.n} rows, which leaves "
            "nothing to estimate variances from: use fewer terms or more rows"
        )
    templates = tuple(
        covariance_structure(term.structure, len(term.column_names)) for term in matrices.terms
    )
    return PenalizedSystem(
        matrices=matrices,
        products=products,
        templates=templates,
        engine=make_engine(engine, products.blocks),
        cross=cross,
    )


@dataclass(frozen=True, slots=True)
class WorkingSolution:
    """The solution at given Lambda, in the working columns.

    Parameters
    ----------
    lambdas : per factor, (K, K).
    U : per factor, (L, K, p + 1), C^{-1} Lambda'Z'W[X y].
    R_X : (p, p) upper triangular; beta : (p,).
    ldL2, ldRX2, pwrss : as in the criterion; ldRX2 is for the user's columns of X.
    """

    lambdas: list[Matrix]
    U: list[Array3]
    R_X: Matrix
    beta: Vector
    ldL2: float
    ldRX2: float
    pwrss: float


def solve_at(lambdas: list[Matrix], system: PenalizedSystem) -> WorkingSolution:
    """Profile u and beta out at the given working factors.

    Raises
    ------
    NotPositiveDefiniteError : C or X'WX downdated by Z is not positive definite.
    """
    products = system.products
    engine = system.engine
    engine.factorize(lambdas)
    V = [
        f.ztx * lam[0, 0] if f.width == 1 else np.matmul(lam.T, f.ztx)
        for f, lam in zip(products.blocks.factors, lambdas, strict=True)
    ]
    U = engine.solve(V)
    p = products.p
    S = np.zeros((p + 1, p + 1))
    S.ravel()[:: p + 2] = 1.0
    S[p, p] = products.yy
    for v, u in zip(V, U, strict=True):
        S -= v.reshape(-1, p + 1).T @ u.reshape(-1, p + 1)
    R_X, beta, ldRX2, pwrss = _profile_beta(S, products)
    return WorkingSolution(
        lambdas=lambdas,
        U=U,
        R_X=R_X,
        beta=beta,
        ldL2=engine.logdet,
        ldRX2=ldRX2 + system.log_det_R_x,
        pwrss=pwrss,
    )


def _profile_beta(S: Matrix, products: Products) -> tuple[Matrix, Vector, float, float]:
    """Factor [X y]'V^{-1}[X y] (p + 1, p + 1) and read off R_X, beta, log|R_X|^2 and pwrss."""
    p = products.p
    R, info = scipy.linalg.lapack.dpotrf(S[:p, :p], lower=0, clean=1) if p else (S[:0, :0], 0)
    if info != 0:
        raise NotPositiveDefiniteError(
            "X'WX downdated by Z is singular at this theta: a fixed effect is indistinguishable "
            "from random effects whose variance grows without bound; check the formula"
        )
    if p:
        half, _ = scipy.linalg.lapack.dtrtrs(R, S[:p, p], lower=0, trans=1)
        beta, _ = scipy.linalg.lapack.dtrtrs(R, half, lower=0)
        ldRX2 = 2.0 * float(np.log(np.diag(R)).sum())
    else:
        half, beta, ldRX2 = np.empty(0), np.empty(0), 0.0
    # Rounding can make a vanishing remainder negative; its floor is what rounding of y leaves.
    floor = (np.finfo(np.float64).eps * products.y_length) ** 2
    pwrss = max(float(S[p, p] - half @ half), floor, np.finfo(np.float64).tiny)
    return R, beta, ldRX2, pwrss


def residual_products(solution: WorkingSolution, system: PenalizedSystem) -> list[Array3]:
    """Return Z'W([X y] - Z Lambda U), (L, K, p + 1) per factor."""
    blocks = system.products.blocks
    B = [
        u * lam[0, 0] if lam.shape[0] == 1 else np.matmul(lam, u)
        for u, lam in zip(solution.U, solution.lambdas, strict=True)
    ]
    out = [
        f.ztx - (f.ztz * b if f.width == 1 else np.matmul(f.ztz, b))
        for f, b in zip(blocks.factors, B, strict=True)
    ]
    for (g, h), pair in blocks.pairs.items():
        out[g] -= _sum_rows(pair.rows, np.matmul(pair.values, B[h][pair.cols]), out[g].shape)
        transposed = np.swapaxes(pair.values, 1, 2)
        out[h] -= _sum_rows(pair.cols, np.matmul(transposed, B[g][pair.rows]), out[h].shape)
    return out


def _sum_rows(codes: np.ndarray, values: Array3, shape: tuple[int, ...]) -> Array3:
    flat = values.reshape(values.shape[0], -1)
    return sum_by_group(codes, flat, shape[0]).reshape(shape)


# ---------------------------------------------------------------------------------------------
# The solution in the user's columns
# ---------------------------------------------------------------------------------------------


class PlsSolution:
    """Everything about the penalized least-squares solution at one theta, in the user's columns.

    What costs more than O(q) is computed when it is asked for first, and kept.
    """

    def __init__(self, theta: Vector, system: PenalizedSystem) -> None:
        self.theta = theta
        self.system = system
        self._working = solve_at(system.lambdas(theta), system)
        self._factors = system.factors_of(theta)

    # -- parts of the criterion ---------------------------------------------------------------

    @property
    def ldL2(self) -> float:
        return self._working.ldL2

    @property
    def ldRX2(self) -> float:
        return self._working.ldRX2

    @property
    def pwrss(self) -> float:
        return self._working.pwrss

    @cached_property
    def ussq(self) -> float:
        """|u|^2."""
        return float(sum((u * u).sum() for u in self._u))

    @property
    def wrss(self) -> float:
        """Weighted residual sum of squares, pwrss - |u|^2."""
        return max(self.pwrss - self.ussq, 0.0)

    # -- fixed effects ------------------------------------------------------------------------

    @cached_property
    def beta(self) -> Vector:
        """(p,) fixed effects of the kept columns."""
        products = self.system.products
        if products.p == 0:
            return np.empty(0)
        step = scipy.linalg.solve_triangular(products.R_x, self._working.beta)
        out: Vector = products.beta_ols + step
        return out

    @cached_property
    def RX(self) -> Matrix:
        """(p, p) upper triangular, RX'RX = X'WX - RZX'RZX."""
        out: Matrix = self._working.R_X @ self.system.products.R_x
        return out

    @cached_property
    def RX_inv(self) -> Matrix:
        """(p, p) inverse of RX."""
        if self.system.p == 0:
            return np.zeros((0, 0))
        R_x = self.system.products.R_x
        half = scipy.linalg.solve_triangular(self._working.R_X, np.eye(self.system.p))
        out: Matrix = scipy.linalg.solve_triangular(R_x, half)
        return out

    @cached_property
    def vcov_unscaled(self) -> Matrix:
        """(p, p) covariance of beta divided by sigma^2."""
        out: Matrix = self.RX_inv @ self.RX_inv.T
        return out

    # -- random effects -----------------------------------------------------------------------

    @cached_property
    def _u(self) -> list[Array3]:
        contrast = np.append(-self._working.beta, 1.0)
        return [u @ contrast for u in self._working.U]

    def u(self, term: int) -> Matrix:
        """Return the spherical random effects of a term, (L, k)."""
        place = self.system.products.layout[term]
        return self._u[place.factor][:, place.columns]

    def Lambda(self, term: int) -> Matrix:
        """Return the relative covariance factor of a term, (k, k) lower triangular."""
        return self._factors[term]

    def b(self, term: int) -> Matrix:
        """Return the random effects of a term, (L, k): b = Lambda u for every level."""
        return self.u(term) @ self._factors[term].T

    @cached_property
    def selected_inverse(self) -> SelectedInverse:
        """Blocks of C^{-1} on the pattern of Z'WZ."""
        # Another theta may have used the engine since.
        self.system.engine.factorize(self._working.lambdas)
        return self.system.engine.selected_inverse()

    def conditional_covariance(self, term: int) -> Array3:
        """Return Cov(b_j | y, beta, theta) / sigma^2 of a term for every level, (L, k, k)."""
        place = self.system.products.layout[term]
        block = self.selected_inverse.diag[place.factor][:, place.columns, place.columns]
        T = self._factors[term]
        return np.matmul(np.matmul(T, block), T.T)

    @cached_property
    def merged_factors(self) -> list[Matrix]:
        """Lambda per grouping factor, (K, K), in the user's columns."""
        return self.system.merge(self._factors)

    @cached_property
    def C_inverse_RZX(self) -> list[Array3]:
        """C^{-1} Lambda'Z'WX per grouping factor, (L, K, p), for the user's columns of X."""
        R_x = self.system.products.R_x
        return [u[:, :, :-1] @ R_x for u in self._working.U]

    # -- rows ---------------------------------------------------------------------------------

    def fitted(self, include_random: bool = True) -> Vector:
        """Return X beta + offset, with Z b if asked for; (n,)."""
        matrices = self.system.matrices
        out = np.empty(matrices.nobs)
        kept = list(self.system.products.kept)
        all_kept = len(kept) == len(matrices.fixed.names)
        b = [self.b(t) for t in range(len(matrices.terms))]
        for rows in row_blocks(matrices.nobs, BLOCK_ROWS):
            X = matrices.fixed.block(rows)
            out[rows] = (X if all_kept else X[:, kept]) @ self.beta
            if not include_random:
                continue
            for t, term in enumerate(matrices.terms):
                codes = matrices.factors[term.factor].codes[rows]
                z = term.columns.block(rows)
                out[rows] += np.einsum("ik,ik->i", z, b[t][codes])
        if matrices.offset is not None:
            out += matrices.offset
        return out

    def leverage(self) -> Vector:
        """Return the diagonal of the matrix that maps y to the fitted values, (n,).

        h_i = w_i (z_i'M z_i + |R_X^{-T}(x_i - RZX_i)|^2) with M = Lambda C^{-1} Lambda', and
        RZX_i = z_i' Lambda C^{-1} Lambda'Z'WX.
        """
        matrices = self.system.matrices
        inverse = self.selected_inverse
        lambdas = self.merged_factors
        M_diag = [
            np.matmul(np.matmul(lam, block), lam.T)
            for lam, block in zip(lambdas, inverse.diag, strict=True)
        ]
        M_pairs = {
            (g, h): np.matmul(np.matmul(lambdas[g], block), lambdas[h].T)
            for (g, h), block in inverse.pairs.items()
        }
        projected = [np.matmul(lam, v) for lam, v in zip(lambdas, self.C_inverse_RZX, strict=True)]
        n_levels = [f.n_levels for f in self.system.products.blocks.factors]
        keys = {
            (g, h): pair.rows.astype(np.int64) * n_levels[h] + pair.cols
            for (g, h), pair in self.system.products.blocks.pairs.items()
        }
        kept = list(self.system.products.kept)
        out = np.empty(matrices.nobs)
        for rows in row_blocks(matrices.nobs, BLOCK_ROWS):
            X = matrices.fixed.block(rows)[:, kept]
            Z = _merged_user_columns(matrices, self.system, rows)
            codes = [f.codes[rows] for f in matrices.factors]
            h_i = np.zeros(X.shape[0])
            for g, z in enumerate(Z):
                h_i += np.einsum("ia,iab,ib->i", z, M_diag[g][codes[g]], z)
                X = X - np.einsum("ia,iap->ip", z, projected[g][codes[g]])
            for (g, h), values in M_pairs.items():
                key = codes[g].astype(np.int64) * n_levels[h] + codes[h]
                at = np.searchsorted(keys[g, h], key)
                h_i += 2.0 * np.einsum("ia,iab,ib->i", Z[g], values[at], Z[h])
            h_i += ((X @ self.RX_inv) ** 2).sum(axis=1)
            if matrices.weights is not None:
                h_i *= matrices.weights[rows]
            out[rows] = h_i
        return out


def _merged_user_columns(
    matrices: ModelMatrices, system: PenalizedSystem, rows: slice
) -> list[Matrix]:
    widths = [f.width for f in system.products.blocks.factors]
    m = rows.stop - rows.start
    out = [np.empty((m, K)) for K in widths]
    for term, place in zip(matrices.terms, system.products.layout, strict=True):
        out[place.factor][:, place.columns] = term.columns.block(rows)
    return out


def solve_pls(theta: Vector, system: PenalizedSystem) -> PlsSolution:
    """Solve the penalized least-squares problem at `theta`.

    Parameters
    ----------
    theta : (m,) dimensionless.
    system : theta-free products; its engine holds the factor of the last theta used.
    """
    return PlsSolution(np.array(theta, dtype=np.float64), system)
