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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from mixlm_sparse.common.errors import DataError, NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.random import CovarianceStructure, covariance_structure
from mixlm_sparse.engines.choose import make_engine
from mixlm_sparse.engines.compiled import compiled_pays
from mixlm_sparse.engines.fused.dense import SmallDense
from mixlm_sparse.engines.fused.levels import SingleFactor
from mixlm_sparse.engines.interface import Engine, EngineLock
from mixlm_sparse.solve.products.accumulate import CrossProducts, cross_products
from mixlm_sparse.solve.products.basis import stack_qr, triangular_inverse
from mixlm_sparse.solve.products.final import Products, orthonormal_products
from mixlm_sparse.solve.rows import BLOCK_ROWS, RowBlock, rows_of

if TYPE_CHECKING:
    from mixlm_sparse.design.build import ModelMatrices

# Pivots of [X y]'V^{-1}[X y] below this share of [X y]'W[X y] are computed again by rows: what
# cancellation leaves is then about as exact as the criterion itself.
CANCELLATION_LIMIT = 1e-7
# Up to this many random effects C is treated as one dense matrix, if kernels are compiled.
SMALL_DENSE_Q = 72
# Below this share of the response's length the residual is rounding error: a perfect fit.
PERFECT_FIT_RTOL = 1e-10


@dataclass(frozen=True)
class PenalizedSystem:
    """Theta-free products, covariance templates and the engine with its symbolic work done.

    The engine's numeric factor is the one buffer that changes; everything else is constant.
    `may_fuse` allows the compiled evaluations of `engines.fused` in the engine's place.
    """

    matrices: ModelMatrices
    products: Products
    templates: tuple[CovarianceStructure, ...]
    engine: Engine
    may_fuse: bool = True
    cross: CrossProducts | None = field(default=None, repr=False)
    lock: EngineLock = field(default_factory=EngineLock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # buffers of compiled evaluations are made anew where they are used
        return {name: value for name, value in vars(self).items() if name != "fused"}

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
        return self.merge([R @ T for R, T in zip(Rz, self.factors_of(theta), strict=True)])

    @cached_property
    def fused(self) -> SingleFactor | SmallDense | None:
        """The compiled evaluation of models with one factor or few effects, where it is in use."""
        if not self.may_fuse:
            return None
        products = self.products
        factors = products.blocks.factors
        f = factors[0]
        if len(factors) > 1 and self.q > SMALL_DENSE_Q:
            return None
        if len(factors) == 1:
            work = f.n_levels * f.width**2 * (f.width + products.p + 1)
        else:
            work = self.q**3
        # a search takes about 10 evaluations, each of which saves about 200 us of calls
        return self.fuse() if compiled_pays(10.0 * work + 4e4) else None

    def fuse(self) -> SingleFactor | SmallDense:
        """Return the compiled evaluation of this model, of one factor or few effects."""
        products = self.products
        factors = products.blocks.factors
        floor = pwrss_floor(products)
        if len(factors) == 1:
            return SingleFactor(factors[0].ztz, factors[0].ztx, products.yy, floor)
        return SmallDense(products.blocks, products.yy, floor)

    def rotated_lambdas(self, theta: Vector) -> tuple[list[Matrix], list[Matrix]]:
        """Return lower-triangular working factors and their rotations, both per term or factor.

        The criterion depends on Lambda Lambda' only, and Rz T = T~ Q with T~ lower triangular and
        Q orthogonal: T~ is graded, so that C keeps its digits where columns of T are nearly
        parallel.

        Returns
        -------
        lambdas : per factor, (K, K).
        rotations : per term, Q (k, k).
        """
        blocks, rotations = [], []
        for Rz, T in zip(self.products.Rz, self.factors_of(theta), strict=True):
            M = Rz @ T
            if np.triu(M, 1).any():
                Qt, Rt = np.linalg.qr(M.T)
                blocks.append(np.ascontiguousarray(Rt.T))
                rotations.append(Qt.T)
            else:
                blocks.append(M)
                rotations.append(np.eye(M.shape[0]))
        return self.merge(blocks), rotations

    def rows(self, size: int = BLOCK_ROWS) -> Iterator[RowBlock]:
        """Walk over the rows, with the columns of X that are kept."""
        return rows_of(self.matrices, self.products.kept, size=size)

    def with_products(self, products: Products, matrices: ModelMatrices) -> PenalizedSystem:
        """Return the system for another response; design and engine are shared."""
        return PenalizedSystem(
            matrices, products, self.templates, self.engine, self.may_fuse, lock=self.lock
        )

    def describe(self) -> str:
        """Say in words how an evaluation is done."""
        text = self.engine.describe()
        if isinstance(self.fused, SingleFactor):
            text += "\n  criterion and gradient fused in two compiled sweeps over the levels"
        elif self.fused is not None:
            text += f"\n  criterion and gradient in compiled dense sweeps, q = {self.q}"
        return text


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
        may_fuse=engine == "auto",
        cross=cross,
    )


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
    V = [
        f.ztx * lam[0, 0] if f.width == 1 else np.matmul(lam.T, f.ztx)
        for f, lam in zip(products.blocks.factors, lambdas, strict=True)
    ]
    with system.lock:
        engine.factorize(lambdas)
        U = engine.solve(V)
        ldL2 = engine.logdet
    p = products.p
    S = np.zeros((p + 1, p + 1))
    S.ravel()[:: p + 2] = 1.0
    S[p, p] = products.yy
    for v, u in zip(V, U, strict=True):
        S -= v.reshape(-1, p + 1).T @ u.reshape(-1, p + 1)
    R, info = scipy.linalg.lapack.dpotrf(S, lower=0, clean=1)
    if info != 0 or _digits_lost(R, products):
        R = factor_by_rows(lambdas, U, system)
    R_X, beta, ldRX2, pwrss = _profile_beta(R, products)
    return WorkingSolution(
        lambdas=lambdas,
        U=U,
        R_X=R_X,
        beta=beta,
        ldL2=ldL2,
        ldRX2=ldRX2 + system.log_det_R_x,
        pwrss=pwrss,
    )


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
    pwrss = max(float(R[p, p]) ** 2, pwrss_floor(products))
    return R_X, beta, ldRX2, pwrss


def _digits_lost(R: Matrix, products: Products) -> bool:
    """Say whether I - V'U has cancelled so far that too few digits are left."""
    pivots = np.diag(R) ** 2
    floor = pwrss_floor(products)
    return bool(
        pivots[:-1].min(initial=1.0) < CANCELLATION_LIMIT
        or floor < pivots[-1] < CANCELLATION_LIMIT * products.yy
    )


def factor_by_rows(lambdas: list[Matrix], U: list[Array3], system: PenalizedSystem) -> Matrix:
    """Return the factor of [X y]'V^{-1}[X y] (p + 1, p + 1) without forming a difference.

    With E = [X y] - Z Lambda U formed row by row, the form is E'WE + U'U, and a QR of the stacked
    sqrt(W) E and U gives its factor.  U minimizes the sum, so errors of U enter squared.  Costs a
    pass over the rows, where `solve_at` usually touches none; needed when random effects explain
    nearly everything (theta near 1e4 and beyond).
    """
    products = system.products
    p = products.p
    R: Matrix | None = None
    for u in U:
        R = stack_qr(R, u.reshape(-1, p + 1))
    B = [np.matmul(lam, u) for lam, u in zip(lambdas, U, strict=True)]
    R_inverse = triangular_inverse(products.R_x) if p else np.zeros((0, 0))
    Rz_inverse = [triangular_inverse(Rz) for Rz in products.Rz]
    for rows in system.rows():
        E = np.empty((len(rows), p + 1))
        E[:, :p] = rows.X @ R_inverse
        E[:, p] = rows.target - rows.X @ products.beta_ols
        for t, (place, inverse) in enumerate(zip(products.layout, Rz_inverse, strict=True)):
            b = B[place.factor][rows.codes(place.factor)][:, place.columns]
            E -= np.einsum("ia,iac->ic", rows.z(t) @ inverse, b)
        R = stack_qr(R, rows.root_weighted(E))
    assert R is not None
    signs = np.where(np.diag(R) < 0.0, -1.0, 1.0)
    return R * signs[:, None]


def pwrss_floor(products: Products) -> float:
    """Return the least pwrss that is more than the rounding of y leaves.

    Rounding can make a vanishing remainder negative.
    """
    rounding = (np.finfo(np.float64).eps * products.y_length) ** 2
    return float(max(rounding, np.finfo(np.float64).tiny))


def residual_products(solution: WorkingSolution, system: PenalizedSystem) -> list[Array3]:
    """Return Z'W([X y] - Z Lambda U), (L, K, p + 1) per factor."""
    blocks = system.products.blocks
    B = [
        u * lam[0, 0] if lam.shape[0] == 1 else np.matmul(lam, u)
        for u, lam in zip(solution.U, solution.lambdas, strict=True)
    ]
    products = system.engine.multiply(B)
    return [f.ztx - product for f, product in zip(blocks.factors, products, strict=True)]
