"""The penalized least-squares problem at a given theta.

    minimize over u, beta:  |sqrt(W)(y - o - X beta - Z Lambda u)|^2 + |u|^2

`system.penalized_system` does what does not depend on theta, once; `solve_at` profiles u and beta
out at given relative factors, touching nothing of length n; `solution.solve_pls` returns the whole
solution in the user's own columns.

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

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from mixlm_sparse.common.checks import listed, require_vector, shown
from mixlm_sparse.common.errors import NotPositiveDefiniteError, OptionError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.dense import times
from mixlm_sparse.engines.fused.bordered import Bordered, BorderedFixed
from mixlm_sparse.engines.interface import times_columns
from mixlm_sparse.solve.products.basis import positive_diagonal, stack_qr
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.separate import Separated, remainders, scale_beyond, stacked
from mixlm_sparse.solve.system import PenalizedSystem

# Pivots of [X y]'V^{-1}[X y] below this share of [X y]'W[X y] are computed again by rows: what
# cancellation leaves is then about as exact as the criterion itself.
CANCELLATION_LIMIT = 1e-7
# Random effects this many times the noise have lost digits in differences that the normal equations
# say without one.
LARGE = 1e3
# Below this share of the response's length the residual is rounding error: a perfect fit.
PERFECT_FIT_RTOL = 1e-13


# Largest factor of working columns, which have length one: its fourth power is a number still.
LARGEST_FACTOR = 1e60


def require_theta(argument: str, theta: object, system: PenalizedSystem) -> Vector:
    """Return a user's theta as an array (m,) of its own.

    Raises
    ------
    OptionError : a wrong length, missing or infinite numbers, or effects beyond all bounds.
    """
    of = listed(system.theta_names)
    values = require_vector(argument, theta, system.n_theta, of=of).copy()
    with np.errstate(over="ignore", invalid="ignore"):
        working = system.chart.phi_of_theta(values)
    if not (np.abs(working) <= LARGEST_FACTOR).all():
        raise OptionError(
            f"{argument} is {shown(theta)}: effects of that size leave the range of numbers; give "
            f"standard deviations in units of that of the residuals, for {of}"
        )
    return values


def user_beta(beta: Vector, products: Products) -> Vector:
    """Return the coefficients (p,) of the user's columns from those of the working columns."""
    if products.p == 0:
        return np.empty(0)
    step, _ = scipy.linalg.lapack.dtrtrs(products.R_x, beta, lower=0)
    out: Vector = products.beta_ols + step
    return out


@dataclass(frozen=True, slots=True)
class WorkingSolution:
    """The solution at given Lambda, in the working columns.

    Parameters
    ----------
    lambdas : per factor, (K, K).
    factored : what the engine was given, `lambdas` / `scale`.
    scale : 1, or more where only directions of the random effects matter (see `separate`).
    R_X : (p, p) upper triangular; beta : (p,).
    ldL2, ldRX2, pwrss : as in the criterion; ldRX2 is for the user's columns of X.
    found : U where it was formed; levels and columns may be too many for that.
    system : the model, which U is formed from where it is asked for.
    exactly : whether products alone had too few digits, and rows or their separation were used.
    """

    lambdas: list[Matrix]
    factored: list[Matrix]
    scale: float
    R_X: Matrix
    beta: Vector
    ldL2: float
    ldRX2: float
    pwrss: float
    found: list[Array3] | None
    system: PenalizedSystem
    exactly: bool = False

    @property
    def U(self) -> list[Array3]:
        """Per factor, (L, K, p + 1), C^{-1} Lambda'Z'W[X y].

        Raises
        ------
        EngineError : levels and columns are so many that it does not fit into memory.
        """
        return self.along(np.eye(self.beta.size + 1)) if self.found is None else self.found

    def along(self, G: Matrix) -> list[Array3]:
        """Return U G per factor, (L, K, r), for G (p + 1, r)."""
        if self.found is not None:
            return [times(u, G) for u in self.found]
        system = self.system
        V = [
            np.matmul(lam.T, times_columns(f, G))
            for f, lam in zip(system.products.blocks.factors, self.factored, strict=True)
        ]
        with system.lock:
            system.engine.factorize(self.factored)
            return system.engine.solve(V)


def solve_at(lambdas: list[Matrix], system: PenalizedSystem) -> WorkingSolution:
    """Profile u and beta out at the given working factors.

    Raises
    ------
    NotPositiveDefiniteError : C or X'WX downdated by Z is not positive definite.
    """
    products = system.products
    engine = system.engine
    # known levels, and engines that estimate, have no rank to say what large effects count
    plain = system.known or not engine.exact
    scale = 1.0 if plain else scale_beyond(lambdas)
    if scale == 1.0:
        bordered = solve_bordered(lambdas, system)
        if bordered is not None:
            return bordered[0]
    factored = lambdas if scale == 1.0 else [lam / scale for lam in lambdas]
    V = [
        f.ztx * lam[0, 0] if f.width == 1 else np.matmul(lam.T, f.ztx)
        for f, lam in zip(products.blocks.factors, factored, strict=True)
    ]
    p = products.p
    with system.lock:
        # the engine holds the factor at `factored` when this returns
        apart = system.apart if scale > 1.0 else None
        engine.factorize(factored)
        U = engine.solve(V)
        ldL2 = engine.logdet
        if apart is not None:  # refined once: what is left of P [X y] beside Z Lambda U is fitted
            left = [b - lam @ u for b, lam, u in zip(apart.B, factored, U, strict=True)]
            again = [lam.T @ v for lam, v in zip(factored, engine.multiply(left), strict=True)]
            U = [u + step for u, step in zip(U, engine.solve(again), strict=True)]
    if apart is not None:
        exactly = True
        U = [u / scale for u in U]
        ldL2 += 2.0 * apart.rank * float(np.log(scale))
        R = positive_diagonal(stack_qr(apart.R, stacked(U)))
    else:
        S = np.zeros((p + 1, p + 1))
        S.ravel()[:: p + 2] = 1.0
        S[p, p] = products.yy
        for v, u in zip(V, U, strict=True):
            S -= v.reshape(-1, p + 1).T @ u.reshape(-1, p + 1)
        R, info = scipy.linalg.lapack.dpotrf(S, lower=0, clean=1)
        exactly = info != 0 or _digits_lost(R, products)
        if exactly and system.separated is not None:
            R = factor_of_parts(system.separated, lambdas, U, system)
        elif exactly:
            R = factor_by_rows(lambdas, U, system)
    R_X, beta, ldRX2, pwrss = _profile_beta(R, products)
    return WorkingSolution(
        lambdas=lambdas,
        factored=factored,
        scale=scale,
        R_X=R_X,
        beta=beta,
        ldL2=ldL2,
        ldRX2=ldRX2 + system.log_det_R_x,
        pwrss=pwrss,
        found=U,
        system=system,
        exactly=exactly,
    )


def solve_bordered(
    lambdas: list[Matrix], system: PenalizedSystem
) -> tuple[WorkingSolution, Bordered] | None:
    """Solve a model of many levels and many sparse columns, none of which is filled in.

    Returns
    -------
    None for other models, and where too few digits are left.

    Raises
    ------
    NotPositiveDefiniteError : as `solve_at`.
    """
    fused, products = system.fused, system.products
    if not isinstance(fused, BorderedFixed):
        return None
    at = fused.solve(lambdas)
    p = products.p
    chol = np.tril(at.chol[fused.q_r : -1, fused.q_r : -1])
    R_X = scipy.linalg.solve_triangular(fused.turn, chol, trans="T").T
    R = np.zeros((p + 1, p + 1))
    R[:p, :p] = positive_diagonal(R_X)
    beta = fused.turn @ at.coefficients
    R[:p, p] = R[:p, :p] @ beta
    R[p, p] = np.sqrt(at.pwrss)
    if _digits_lost(R, products):
        return None
    working = WorkingSolution(
        lambdas=lambdas,
        factored=lambdas,
        scale=1.0,
        R_X=R[:p, :p].copy(),
        beta=beta,
        ldL2=at.ldL2,
        ldRX2=at.ldRX2 + system.log_det_R_x,
        pwrss=max(at.pwrss, products.pwrss_floor),
        found=None,
        system=system,
    )
    return working, at


def _profile_beta(R: Matrix, products: Products) -> tuple[Matrix, Vector, float, float]:
    """Read R_X, beta, log|R_X|^2 and pwrss off the factor of [X y]'V^{-1}[X y], (p + 1, p + 1)."""
    p = products.p
    R_X, half = R[:p, :p], R[:p, p]
    diagonal = np.diag(R_X)
    if not (np.isfinite(R).all() and (diagonal > 0.0).all()):
        raise NotPositiveDefiniteError(
            "X'WX downdated by Z is singular at this theta: a fixed effect is indistinguishable "
            "from random effects whose variance grows without bound; check the formula"
        )
    beta = scipy.linalg.lapack.dtrtrs(R_X, half, lower=0)[0] if p else np.empty(0)
    ldRX2 = 2.0 * float(np.log(diagonal).sum())
    # Rounding can leave nothing of a vanishing remainder.
    pwrss = max(float(R[p, p]) ** 2, products.pwrss_floor)
    return R_X, beta, ldRX2, pwrss


def _digits_lost(R: Matrix, products: Products) -> bool:
    """Say whether I - V'U has cancelled so far that too few digits are left."""
    pivots = np.diag(R) ** 2
    floor = products.pwrss_floor
    return bool(
        pivots[:-1].min(initial=1.0) < CANCELLATION_LIMIT
        or floor < pivots[-1] < CANCELLATION_LIMIT * products.yy
    )


def spherical(U: list[Array3], system: PenalizedSystem) -> list[Array3]:
    """Return U (L, K, m) per factor as independent effects: W U where levels are related.

    What the engine solves for has the covariance sigma^2 Q^{-1}, Q = W'W, over the levels of a
    factor with a known covariance, so that the penalty is |W U|^2.
    """
    out = []
    for u, factor in zip(U, system.matrices.factors, strict=True):
        if factor.known is not None:
            flat = u.reshape(u.shape[0], -1)
            u = np.asarray(factor.known.root @ flat).reshape(u.shape)
        out.append(u)
    return out


def factor_by_rows(lambdas: list[Matrix], U: list[Array3], system: PenalizedSystem) -> Matrix:
    """Return the factor of [X y]'V^{-1}[X y] (p + 1, p + 1) without forming a difference.

    With E = [X y] - Z Lambda U formed row by row, the form is E'WE + U'U, and a QR of the stacked
    sqrt(W) E and U gives its factor.  U minimizes the sum, so errors of U enter squared.  Costs a
    pass over the rows, where `solve_at` usually touches none; needed when random effects explain
    nearly everything (theta near 1e4 and beyond).
    """
    B = [np.matmul(lam, u) for lam, u in zip(lambdas, U, strict=True)]
    R = stacked(spherical(U, system)) if U else None  # a model may have no random effects
    for rows, E, _ in remainders(system.products, system.white_rows(), B):
        R = stack_qr(R, rows.root_weighted(E))
    assert R is not None
    return positive_diagonal(R)


def factor_of_parts(
    apart: Separated, lambdas: list[Matrix], U: list[Array3], system: PenalizedSystem
) -> Matrix:
    """Return the factor of `factor_by_rows` without rows, of what has been separated before.

    With [X y] = Z B + [X y]_w the rows of E = [X y] - Z Lambda U are Z D + [X y]_w, where
    D = B - Lambda U; the two are orthogonal, so that the form is a sum of squares again,

        E'WE + U'U = R'R + D'Z'WZ D + U'U

    in which the middle, the only one that is formed as a product, is the smallest by far where
    random effects are large.
    """
    R = stack_qr(apart.R, stacked(spherical(U, system))) if U else apart.R
    D = [b - np.matmul(lam, u) for b, lam, u in zip(apart.B, lambdas, U, strict=True)]
    if D:
        width = R.shape[1]
        between = np.zeros((width, width))
        for d, product in zip(D, system.engine.multiply(D), strict=True):
            between += d.reshape(-1, width).T @ product.reshape(-1, width)
        R = stack_qr(R, _root_of(between))
    return positive_diagonal(R)


def _root_of(M: Matrix) -> Matrix:
    """Return a root G of a positive semi-definite M = G'G, (k, k); small columns keep digits."""
    size = np.sqrt(np.maximum(np.diag(M), 0.0))
    scaled = np.where(size > 0.0, size, 1.0)
    values, vectors = np.linalg.eigh((M + M.T) / (2.0 * np.outer(scaled, scaled)))
    out: Matrix = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * size
    return out


def residual_products(solution: WorkingSolution, system: PenalizedSystem) -> list[Array3]:
    """Return R = Z'W([X y] - Z Lambda U), (L, K, p + 1) per factor.

    The difference cancels where random effects are large: of a response of size tau sigma, what is
    left is of size sigma / tau.  There the normal equations say the same without a difference,
    Lambda'R = U: along a left singular vector of Lambda with the singular value s, R is U / s.
    """
    blocks = system.products.blocks
    B = [
        u * lam[0, 0] if lam.shape[0] == 1 else np.matmul(lam, u)
        for u, lam in zip(solution.U, solution.lambdas, strict=True)
    ]
    products = system.engine.multiply(B)
    return [
        by_normal_equations(f.ztx - product, lam, u)
        for f, product, lam, u in zip(
            blocks.factors, products, solution.lambdas, solution.U, strict=True
        )
    ]


def by_normal_equations(R: Array3, lam: Matrix, U: Array3) -> Array3:
    """Return R (L, K, r) with lam'R = U made true along the directions in which lam is large.

    Parameters
    ----------
    R : a difference that has lost digits there.
    lam : (K, K).
    U : (L, K, r).
    """
    if np.abs(lam).max() < LARGE:
        return R
    left, sizes, right = np.linalg.svd(lam)
    large = sizes >= LARGE
    if not large.any():
        return R
    P, Q = left[:, large], (right[large] / sizes[large, None])
    out: Array3 = np.matmul(P, np.matmul(Q, U))
    return out if large.all() else out + (R - np.matmul(P, np.matmul(P.T, R)))
