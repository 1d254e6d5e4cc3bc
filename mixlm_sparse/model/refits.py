"""One design, many responses: what they share is formed once, what is their own in blocks.

The design, Z'WZ, Z'WX, X'WX, the symbolic work and the engine belong to a `PenalizedSystem`.  A
response costs its Z'Wy, X'Wy and y'Wy, which are formed for a block of responses at a time, and its
search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import MixedModelError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines import compiled
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.derived.other_response import response_block, system_for
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.many import optimize_block
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.search import Control
from mixlm_sparse.solve.solution import PlsSolution, solve_pls
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = [
    "FAILED",
    "Refit",
    "RefitArrays",
    "block_size",
    "gather",
    "refit_block",
    "warm_up",
]

# What a block of responses and its temporaries may take.
BLOCK_BYTES = 48_000_000
MAX_BLOCK = 64
FAILED = "failed"
# Compiled code saves about 1 ms of calls in a small search, as long as so many multiply-adds take.
CALLS_SAVED = 1e5


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
        nu = residual_df(self.system, reml=self.optimum.reml)
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
