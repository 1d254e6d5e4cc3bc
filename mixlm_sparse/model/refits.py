"""One design, many responses: what they share is formed once, what is their own in blocks.

The design, Z'WZ, Z'WX, X'WX, the symbolic work and the engine belong to a `PenalizedSystem`.  A
response costs its Z'Wy, X'Wy and y'Wy, which are formed for a block of responses at a time, and its
search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import MixedModelError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines import decisions
from mixlm_sparse.engines.compiled import loaded
from mixlm_sparse.engines.fused.plain import PlainDense, PlainFactor
from mixlm_sparse.engines.fused.search import search_many
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.refit_rows import FAILED, Row
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.curvature import curvature_at, known_without_residual
from mixlm_sparse.solve.derived.other_response import (
    ResponseColumns,
    not_finite,
    response_block,
    system_for,
    with_response,
)
from mixlm_sparse.solve.fusing import is_compiled
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.fused import fused_search
from mixlm_sparse.solve.profiled.lockstep import lockstep_serves, lockstep_up_to
from mixlm_sparse.solve.profiled.many import BlockOptima, optimize_block, status_and_message
from mixlm_sparse.solve.profiled.many_curvature import BlockCurvature, block_curvature
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.solution import PlsSolution
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.search import solution_at

__all__ = [
    "BlockValues",
    "Refit",
    "RefitBlock",
    "block_size",
    "steady_refits",
    "threads_serve",
    "warm_up",
]

T = TypeVar("T")

# What a block of responses and its temporaries may take.
BLOCK_BYTES = 48_000_000
MAX_BLOCK = 256
BLOCK_ROWS = 200_000
# Where they are searched for in step, and multiply-adds of an evaluation of all of them.
MAX_IN_STEP = 1024
IN_STEP_WORK = 400_000
# Compiled code saves about 1 ms of calls in a small search, as long as so many multiply-adds take.
CALLS_SAVED = 1e5


def block_size(
    system: PenalizedSystem, stored: int | None = None, *, compiled: bool
) -> int:
    """Return how many responses are worked on at once.

    Parameters
    ----------
    compiled : what `warm_up` decided; where they are searched for in step, more together cost less.
    stored : elements that a sparse response stores on average; None for dense responses, where the
        design alone decides.
    """
    most, rows = MAX_BLOCK, BLOCK_ROWS
    if not compiled and lockstep_serves(system):
        factors = system.products.blocks.factors
        work = sum(f.n_levels * f.width**3 for f in factors) if len(factors) == 1 else system.q**3
        most = int(min(MAX_IN_STEP, max(MAX_BLOCK, IN_STEP_WORK // work)))
        rows = most * system.n
    if stored is not None:
        return int(max(1, min(most, BLOCK_BYTES // (64 * stored + 32 * system.q))))
    at_once = BLOCK_BYTES // (8 * (4 * system.n + 2 * system.q))
    return int(max(1, min(most, at_once, rows // system.n)))


def warm_up(system: PenalizedSystem, count: int, *, responses: bool = True) -> bool:
    """Decide whether `count` searches repay loading compiled code, and say so to the kernels.

    The design and the count decide, not what the process has done before, so that a seed gives the
    same digits again.

    Parameters
    ----------
    responses : whether they are for responses of this design: where NumPy can search for them in
        step, only a compiled search that is kept on disk does better, for many of them.
    """
    blocks = system.products.blocks
    if responses and lockstep_serves(system):
        repaid = lockstep_up_to(system)
        if not decisions.search_at_hand(search_many, count, repaid):
            return False
    work = sum(f.n_levels * f.width**2 * (f.width + system.p + 1) for f in blocks.factors)
    total = count * (10.0 * work + CALLS_SAVED)
    decisions.expect_searches(count)
    return total > decisions.LOADING_REPAID_BY and decisions.compiled_pays(total)


def steady_refits(
    work: Callable[[range], Iterable[T]], system: PenalizedSystem, count: int
) -> decisions.Steady[T]:
    """Return work that takes the form of `system`, that of the fit, or the compiled one if `count`
    fits repay it.

    It is the same for all tasks, in every process, whatever has been loaded since the fit was made,
    in this thread or another one: the two forms end up to 1e-8 apart in theta.
    """
    compiled = warm_up(system, count, responses=False) or _in_machine_code(system)
    return decisions.steady(work, compiled=compiled)


def _in_machine_code(system: PenalizedSystem) -> bool:
    """Say whether refits of a fit with this system are to take machine code, as it does."""
    if isinstance(system.fused, PlainFactor | PlainDense):
        return False
    # an engine keeps its form in refits that take other numbers on its pattern
    return is_compiled(system.fused) or loaded()


@dataclass(frozen=True, slots=True)
class Refit:
    """One response's fit, or why there is none."""

    system: PenalizedSystem
    optimum: Optimum | None
    solution: PlsSolution | None
    message: str

    @property
    def sigma(self) -> float:
        """The residual standard deviation; zero where nothing is left to the residuals."""
        nothing = self.optimum is not None and self.optimum.no_residual
        return 0.0 if nothing else self.unit_of_theta

    @property
    def unit_of_theta(self) -> float:
        """The standard deviation that theta is relative to: see `base.unit_of_theta`."""
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
        solution = solution_at(optimum, system)
    except (MixedModelError, ArithmeticError, np.linalg.LinAlgError) as error:
        return Refit(system, None, None, f"{type(error).__name__}: {error}")
    return Refit(solution.system, optimum, solution, optimum.message)


class RefitBlock:
    """Refits to a block of responses: numbers of all at once, a fit only where it is asked for.

    Parameters
    ----------
    system : the design.
    Y : (n, r) responses.
    compiled : what `warm_up` decided for all responses together.
    curved : whether `curvature` is asked for.
    """

    def __init__(
        self,
        system: PenalizedSystem,
        Y: ResponseColumns,
        options: FitOptions,
        *,
        compiled: bool,
        curved: bool = False,
    ) -> None:
        self._system = system if compiled else replace(system, may_compile=False)
        self._options = options
        self._missing = not_finite(Y)
        self._optima: BlockOptima | None = None
        self._Y, self._block = Y, None
        if system.whitened is not None:  # every response has weights and correlations of its own
            return
        self._block = response_block(system, Y)
        if in_one_call(options):
            block = self._block
            self._optima = optimize_block(
                system,
                block.zy,
                block.yy,
                block.y_length,
                block.beta_ols,
                reml=options.reml,
                start=options.start,
                control=options.control,
                compiled=compiled,
                curved=curved,
            )

    def __len__(self) -> int:
        return self._missing.size

    def refit(self, i: int) -> Refit:
        """Return the fit of response i; fits share the engine."""
        if self._missing[i]:
            bad = int(self._missing[i])
            return Refit(self._system, None, None, f"DataError: {bad} missing or infinite values")
        if self._block is None:
            assert isinstance(self._Y, np.ndarray)
            own = with_response(self._system, self._Y[:, i])
        elif i in self._block.trouble:
            return Refit(self._system, None, None, f"DataError: {self._block.trouble[i]}")
        else:
            own = system_for(self._system, self._block, i)
        return search(own, self._options, None if self._optima is None else self._optima.optimum(i))

    def __iter__(self) -> Iterator[Refit]:
        """Yield the fit of each; read off what depends on the engine's factor before the next."""
        for i in range(len(self)):
            yield self.refit(i)

    @cached_property
    def at_once(self) -> NDArray[np.bool_]:
        """(r,) which responses have their numbers in `values`."""
        if self._optima is None:
            return np.zeros(len(self), dtype=bool)
        settled = np.asarray(self._optima.settled & (self._missing == 0))
        if self._block is not None:
            settled[list(self._block.trouble)] = False
        return settled

    @cached_property
    def values(self) -> BlockValues | None:
        """The numbers of all fits that were made together; None if there are none."""
        optima = self._optima
        if optima is None:
            return None
        sigma = np.sqrt(optima.pwrss / residual_df(self._system, reml=optima.reml))
        status, message = status_and_message(optima)
        return BlockValues(
            theta=optima.theta,
            beta=optima.beta,
            RX_inv=optima.RX_inv,
            sigma=sigma,
            criterion=optima.criterion,
            status=status,
            message=message,
        )

    @cached_property
    def curvature(self) -> BlockCurvature | None:
        """The curvature at the optima that were found together; None if there are none."""
        return None if self._optima is None else block_curvature(self._optima)

    def criteria(self) -> Iterator[tuple[float, str]]:
        """Yield the criterion of each fit, and why there is none, "" where there is one."""
        values = None if self._optima is None else self._optima.criterion.tolist()
        for i, here in enumerate(self.at_once.tolist()):
            if values is not None and here:
                yield values[i], ""
                continue
            refit = self.refit(i)
            yield refit.criterion, refit.message if refit.optimum is None else ""

    def rows(self) -> Iterator[Row]:
        """Yield what is kept of each fit when thousands are made."""
        values = self.values
        bse = None if values is None else values.bse
        for i, here in enumerate(self.at_once.tolist()):
            if values is None or bse is None or not here:
                yield row_of(self.refit(i))
                continue
            yield Row(
                values.theta[i], values.beta[i], bse[i], float(values.sigma[i]),
                float(values.criterion[i]), values.status[i], values.message[i],
            )  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class BlockValues:
    """Numbers of r fits.

    Parameters
    ----------
    theta : (r, m); beta : (r, p); RX_inv : (r, p, p).
    sigma, criterion : (r,).
    status, message : of each.
    """

    theta: Matrix
    beta: Matrix
    RX_inv: Array3
    sigma: Vector
    criterion: Vector
    status: Sequence[str]
    message: Sequence[str]

    @property
    def bse(self) -> Matrix:
        """(r, p) standard errors of the coefficients."""
        out: Matrix = self.sigma[:, None] * np.sqrt((self.RX_inv**2).sum(axis=2))
        return out


def in_one_call(options: FitOptions) -> bool:
    """Say whether the searches that are asked for are those that are made for many at once."""
    return options.optimizer in ("auto", "bfgs") and options.control.check_boundary


def threads_serve(
    system: PenalizedSystem, options: FitOptions, *, compiled: bool, count: int
) -> bool:
    """Say whether `count` refits are made in few calls, which threads can make side by side."""
    if system.whitened is not None or not in_one_call(options):
        return False
    if compiled and fused_search(system, reml=options.reml, count=count) is not None:
        return True
    return lockstep_serves(system)


def row_of(refit: Refit) -> Row:
    """Return what is kept of a fit when thousands are made."""
    if refit.optimum is None or refit.solution is None:
        return Row(None, None, None, np.nan, np.nan, FAILED, refit.message)
    bse = refit.unit_of_theta * np.sqrt((refit.solution.RX_inv**2).sum(axis=1))
    if refit.optimum.no_residual and refit.system.whitened is None:
        optimum = refit.optimum
        at = curvature_at(optimum.phi, refit.system, reml=optimum.reml, sigma=optimum.sigma)
        known = known_without_residual(at, refit.system, refit.solution.RX_inv)
        bse = np.where(known, bse, np.nan)
    return Row(
        refit.optimum.theta,
        refit.solution.beta,
        bse,
        refit.sigma,
        refit.criterion,
        refit.optimum.status,
        refit.message,
    )
