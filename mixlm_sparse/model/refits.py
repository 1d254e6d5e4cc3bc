"""One design, many responses: what they share is formed once, what is their own in blocks.

The design, Z'WZ, Z'WX, X'WX, the symbolic work and the engine belong to a `PenalizedSystem`.  A
response costs its Z'Wy, X'Wy and y'Wy, which are formed for a block of responses at a time, and its
search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.errors import MixedModelError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines import compiled
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.solve.rows import BLOCK_ROWS, row_blocks
from mixlm_sparse.solve.search.many import optimize_block
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.search import Control, optimize
from mixlm_sparse.solve.solution import PlsSolution, solve_pls
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = [
    "FAILED",
    "Refit",
    "RefitArrays",
    "block_size",
    "gather",
    "refit_block",
    "response_block",
    "system_for",
    "warm_up",
]

# What a block of responses and its temporaries may take.
BLOCK_BYTES = 48_000_000
MAX_BLOCK = 64
FAILED = "failed"
# Compiled code saves about 1 ms of calls in a small search, as long as so many multiply-adds take.
CALLS_SAVED = 1e5


@dataclass(frozen=True, slots=True)
class ResponseBlock:
    """Products of r responses with the design.

    Parameters
    ----------
    Y : (n, r).
    beta_ols : (p, r) least-squares coefficients.
    yy, y_length : (r,) residual sum of squares of least squares, and length of sqrt(W)(y - offset).
    zy : per factor, (L, K, r) Z~'W y_f.
    """

    Y: Matrix
    beta_ols: Matrix
    yy: Vector
    y_length: Vector
    zy: tuple[Array3, ...]


def block_size(system: PenalizedSystem) -> int:
    """Return how many responses are worked on at once; depends on the design only."""
    per_response = 8 * (4 * system.n + 2 * system.q)
    return int(max(1, min(MAX_BLOCK, BLOCK_BYTES // per_response, 200_000 // system.n)))


def warm_up(system: PenalizedSystem, count: int) -> bool:
    """Decide whether `count` searches repay loading compiled code, and say so to the kernels.

    The design and the count decide, not what the process has done before, so that a seed gives the
    same digits again.
    """
    blocks = system.products.blocks
    work = sum(f.n_levels * f.width**2 * (f.width + system.p + 1) for f in blocks.factors)
    total = count * (10.0 * work + CALLS_SAVED)
    return total > compiled.LOADING_REPAID_BY and compiled.compiled_pays(total)


def response_block(system: PenalizedSystem, Y: Matrix) -> ResponseBlock:
    """Form the products of responses Y (n, r) without missing values."""
    old, matrices = system.products, system.matrices
    n, r = Y.shape
    w = matrices.weights
    kept = list(old.kept)
    all_kept = len(kept) == len(matrices.fixed.names)
    target = Y if matrices.offset is None else Y - matrices.offset[:, None]

    def fixed(rows: slice) -> Matrix:
        X = matrices.fixed.block(rows)
        return X if all_kept else X[:, kept]

    def weighted(values: Matrix, rows: slice) -> Matrix:
        return values[rows] if w is None else values[rows] * w[rows, None]

    # least squares twice: the second pass takes out what rounding left in the first
    residual = np.array(target, dtype=np.float64)
    beta = np.zeros((len(kept), r))
    for _ in range(2 if kept else 0):
        right = np.zeros((len(kept), r))
        for rows in row_blocks(n, BLOCK_ROWS):
            right += fixed(rows).T @ weighted(residual, rows)
        half = scipy.linalg.solve_triangular(old.R_x, right, trans="T")
        step = scipy.linalg.solve_triangular(old.R_x, half)
        beta += step
        for rows in row_blocks(n, BLOCK_ROWS):
            residual[rows] -= fixed(rows) @ step

    zy = [np.zeros((f.n_levels, f.width, r)) for f in old.blocks.factors]
    for term, place, Rz in zip(matrices.terms, old.layout, old.Rz, strict=True):
        factor = matrices.factors[term.factor]
        sums = np.zeros((place.width, factor.n_levels, r))
        for rows in row_blocks(n, BLOCK_ROWS):
            z = term.columns.block(rows)
            values = weighted(residual, rows)
            m = z.shape[0]
            for a in range(place.width):
                Z = sp.csr_array(
                    (z[:, a], factor.codes[rows], np.arange(m + 1)), shape=(m, factor.n_levels)
                )
                sums[a] += Z.T @ values
        # z~ = z Rz^{-1}
        flat = scipy.linalg.solve_triangular(
            Rz, sums.reshape(place.width, -1), trans="T", check_finite=False
        )
        zy[place.factor][:, place.columns] = flat.reshape(sums.shape).transpose(1, 0, 2)
    W = 1.0 if w is None else w[:, None]
    return ResponseBlock(
        Y=Y,
        beta_ols=beta,
        yy=(residual * residual * W).sum(axis=0),
        y_length=np.sqrt((target * target * W).sum(axis=0)),
        zy=tuple(zy),
    )


def system_for(system: PenalizedSystem, block: ResponseBlock, i: int) -> PenalizedSystem:
    """Return the system of response i of a block; design and engine are shared."""
    old = system.products
    factors = []
    for f, zy in zip(old.blocks.factors, block.zy, strict=True):
        ztx = f.ztx.copy()
        ztx[:, :, -1] = zy[:, :, i]
        factors.append(FactorBlock(f.label, f.ztz, ztx))
    products = replace(
        old,
        beta_ols=block.beta_ols[:, i],
        yy=float(block.yy[i]),
        y_length=float(block.y_length[i]),
        blocks=BlockSystem(tuple(factors), old.blocks.pairs),
    )
    return system.with_products(products, replace(system.matrices, y=block.Y[:, i]))


@dataclass(frozen=True, slots=True)
class Refit:
    """One response's fit, or why there is none."""

    system: PenalizedSystem
    optimum: Optimum | None
    solution: PlsSolution | None
    message: str

    @property
    def sigma(self) -> float:
        if self.optimum is None or self.solution is None:
            return float("nan")
        if self.optimum.status == "perfect fit":
            return 0.0
        if self.optimum.sigma is not None:
            return self.optimum.sigma
        nu = self.system.n - self.system.p if self.optimum.reml else self.system.n
        return float(np.sqrt(self.solution.pwrss / nu))

    @property
    def criterion(self) -> float:
        if self.optimum is None:
            return float("nan")
        return -np.inf if self.optimum.status == "perfect fit" else self.optimum.criterion


def search(
    system: PenalizedSystem, options: FitOptions, optimum: Optimum | None = None
) -> Refit:
    """Fit one system, whose optimum may be known; what goes wrong is kept as a message."""
    try:
        if optimum is None:
            optimum = optimize(
                system,
                reml=options.reml,
                start=options.start,
                optimizer=options.optimizer,
                control=options.control,
            )
        solution = solve_pls(optimum.theta, system)
    except (MixedModelError, ArithmeticError, np.linalg.LinAlgError) as error:
        return Refit(system, None, None, f"{type(error).__name__}: {error}")
    return Refit(system, optimum, solution, optimum.message)


def refit_block(
    system: PenalizedSystem, Y: Matrix, options: FitOptions, *, compiled: bool
) -> Iterator[Refit]:
    """Fit every column of Y (n, r) in turn.

    Parameters
    ----------
    compiled : what `warm_up` decided for all responses together.

    Yields
    ------
    Refit : of each response; they share the engine, so read off what depends on its factor before
        the next one.
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(Y).all(axis=0))
    safe = Y if finite.all() else np.where(np.isfinite(Y), Y, 0.0)
    block = response_block(system, safe)
    if not compiled:
        system = replace(system, may_fuse=False)
    found: list[Optimum | None] = [None] * Y.shape[1]
    if compiled and options.optimizer in ("auto", "bfgs") and options.control.check_boundary:
        found = optimize_block(
            system,
            block.zy,
            block.yy,
            block.y_length,
            reml=options.reml,
            start=options.start,
            control=options.control,
        )
    for i in range(Y.shape[1]):
        own = system_for(system, block, i)
        if not finite[i]:
            bad = int((~np.isfinite(Y[:, i])).sum())
            yield Refit(own, None, None, f"DataError: {bad} missing or infinite values")
            continue
        yield search(own, options, found[i])


@dataclass(frozen=True, slots=True)
class RefitArrays:
    """What was read off r fits; NaN in the rows of failures.

    Parameters
    ----------
    theta : (r, m); beta, bse : (r, p); sigma, criterion : (r,).
    status, message : (r,) text; status "failed" where there is no fit.
    """

    theta: Matrix
    beta: Matrix
    bse: Matrix
    sigma: Vector
    criterion: Vector
    status: tuple[str, ...]
    message: tuple[str, ...]


Row = tuple[Vector | None, Vector | None, Vector | None, float, float, str, str]


def row_of(refit: Refit) -> Row:
    """Return what is kept of a fit when thousands are made."""
    if refit.optimum is None or refit.solution is None:
        return None, None, None, np.nan, np.nan, FAILED, refit.message
    sigma = refit.sigma
    bse = sigma * np.sqrt((refit.solution.RX_inv**2).sum(axis=1))
    return (
        refit.optimum.theta,
        refit.solution.beta,
        bse,
        sigma,
        refit.criterion,
        refit.optimum.status,
        refit.message,
    )


def gather(rows: Sequence[Row], m: int, p: int) -> RefitArrays:
    """Put rows together."""

    def stack(column: int, width: int) -> Matrix:
        out = np.full((len(rows), width), np.nan)
        for i, row in enumerate(rows):
            values = row[column]
            if isinstance(values, np.ndarray):
                out[i] = values
        return out

    return RefitArrays(
        theta=stack(0, m),
        beta=stack(1, p),
        bse=stack(2, p),
        sigma=np.array([row[3] for row in rows], dtype=np.float64),
        criterion=np.array([row[4] for row in rows], dtype=np.float64),
        status=tuple(row[5] for row in rows),
        message=tuple(row[6] for row in rows),
    )


def quiet(options: FitOptions) -> FitOptions:
    """Return the options for fits that come by the thousand: no start, progress or warnings."""
    control = replace(options.control, warn=False)
    assert isinstance(control, Control)
    return replace(options, start=None, progress=None, control=control)
