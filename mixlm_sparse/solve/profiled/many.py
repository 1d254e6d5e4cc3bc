"""One design, a block of responses: all searches in one call, all ends in arrays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.descent import GIVEN_UP, GRADIENTS, VALUES
from mixlm_sparse.engines.fused.lockstep.search import LockstepSearch
from mixlm_sparse.engines.fused.search import FusedSearch
from mixlm_sparse.solve.curvature import step_floors
from mixlm_sparse.solve.derived.other_response import ABREAST
from mixlm_sparse.solve.information import information_of
from mixlm_sparse.solve.pls import PERFECT_FIT_RTOL
from mixlm_sparse.solve.profiled.fused import fused_search
from mixlm_sparse.solve.profiled.lockstep import lockstep_search, searched_in_step
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.runaway import can_be_all
from mixlm_sparse.solve.profiled.saddle import symmetric_each
from mixlm_sparse.solve.profiled.valleys import LARGE, other_starts
from mixlm_sparse.solve.search.bfgs import ROUNDING
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.optimum import Optimum, report
from mixlm_sparse.solve.search.search import default_limit
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem


@dataclass(frozen=True, eq=False)
class BlockOptima:
    """Where the searches of r responses ended; what is not `settled`, `optimize` has to look at.

    Parameters
    ----------
    system : of any of the responses; its design is shared.
    beta_ols : (p, r) least-squares coefficients.
    phi, gradient : (r, m).
    criterion, decrease, pwrss : (r,); what a Newton step from there would win.
    limit_reached : (r,).
    n_values, n_gradients : (r,) evaluations.
    factors : (r, p + 1, p + 1) lower triangles of the factors of [X y]'V^{-1}[X y].
    found : (r,) whether the search came to an end.
    given : whether the start was given.
    tolerance : decrease up to which an optimum is called converged.
    began : `time.perf_counter()` at the beginning.
    scales, slopes, products : (r, m), (r, 4m, m), (r, 4m, p + 1, p + 1) what the curvature is read
        off (see `many_curvature`); without points where none was asked for.
    """

    system: PenalizedSystem
    reml: bool
    beta_ols: Matrix
    phi: Matrix
    gradient: Matrix
    criterion: Vector
    decrease: Vector
    pwrss: Vector
    limit_reached: NDArray[np.bool_]
    n_values: NDArray[np.int64]
    n_gradients: NDArray[np.int64]
    factors: Array3
    found: NDArray[np.bool_]
    given: bool
    tolerance: float
    began: float
    scales: Matrix
    slopes: Array3
    products: NDArray[np.float64]

    @cached_property
    def theta(self) -> Matrix:
        """(r, m) within bounds."""
        return self.system.chart.thetas_of_phis(self.phi)

    @cached_property
    def certified(self) -> NDArray[np.bool_]:
        """(r,) whether the exact gradient leaves nothing to win."""
        chart, factors = self.system.chart, self.system.products.blocks.factors
        decrease = self.decrease
        for part, place in zip(chart.slices, chart.layout, strict=True):
            radial = (self.phi[:, part] * self.gradient[:, part]).sum(axis=1) ** 2
            decrease = np.maximum(
                decrease, radial / (8.0 * place.width * factors[place.factor].n_levels)
            )
        return np.asarray(
            decrease <= np.maximum(self.tolerance, ROUNDING * np.abs(self.criterion))
        )

    @cached_property
    def at_boundary(self) -> NDArray[np.bool_]:
        """(r, m) which standard deviations are zero."""
        return np.asarray((self.theta == 0.0) & (self.system.lower == 0.0))

    @cached_property
    def settled(self) -> NDArray[np.bool_]:
        """(r,) which responses need no second search."""
        ended = self.found & (self.certified | self.limit_reached)
        ended &= ~(self.certified & symmetric_each(self.phi, self.system))  # maybe a saddle
        if self.given:
            return ended
        looks = second_looks(self.system)
        if not looks.any():
            return ended
        singular = self.certified & self.at_boundary.any(axis=1)
        chart = self.system.chart
        large = np.array([chart.size(phi) > LARGE for phi in self.phi], dtype=bool)
        return np.asarray(ended & ~looks[singular.astype(int), large.astype(int)])

    @cached_property
    def L_inverse(self) -> Array3:
        """(r, p, p) R_X^{-T} of the working columns."""
        p = self.system.p
        L = np.tril(self.factors[:, :p, :p])
        L[~self.settled] = np.eye(p)
        return np.asarray(np.linalg.inv(L), dtype=np.float64)

    @cached_property
    def RX_inv(self) -> Array3:
        """(r, p, p) inverses of RX, X'V^{-1}X = RX'RX, in the user's columns."""
        p = self.system.p
        if p == 0:
            return np.zeros((self.found.size, 0, 0))
        wide = self.L_inverse.transpose(2, 0, 1).reshape(p, -1)
        wide = _in_users_columns(self.system, wide)
        return np.moveaxis(wide.reshape(p, -1, p), 1, 0)

    @cached_property
    def beta(self) -> Matrix:
        """(r, p) coefficients of the user's columns."""
        p = self.system.p
        half = self.factors[:, p, :p]
        working = np.einsum("rba,rb->ra", self.L_inverse, half)
        if p:
            working = _in_users_columns(self.system, working.T).T
        out: Matrix = self.beta_ols.T + working
        return out

    def optimum(self, i: int) -> Optimum | None:
        """Return the record of response i, or None where it is not settled."""
        if not self.settled[i]:
            return None
        objective = ProfiledObjective(self.system, self.reml)
        objective.n_values, objective.n_gradients = int(self.n_values[i]), int(self.n_gradients[i])
        return report(
            objective, self.phi[i], float(self.criterion[i]), self.gradient[i],
            float(self.decrease[i]), bool(self.limit_reached[i]), "bfgs", self.tolerance,
            self.began,
        )  # fmt: skip


def second_looks(system: PenalizedSystem) -> NDArray[np.bool_]:
    """Return (2, 2) whether an end deserves a second look: not singular or so, small or large."""
    chart = system.chart
    at = [chart.start, chart.scaled(chart.start, 2.0 * LARGE)]
    return np.array(
        [
            [bool(other_starts(system, singular=flag, phi=phi)) for phi in at]
            for flag in (False, True)
        ]
    )


def _in_users_columns(system: PenalizedSystem, columns: Matrix) -> Matrix:
    """Return R_x^{-1} times `columns` (p, m), in digits that do not depend on their number."""
    p, m = columns.shape
    wide = np.zeros((p, m + -m % ABREAST))
    wide[:, :m] = columns
    solved = scipy.linalg.solve_triangular(system.products.R_x, wide, check_finite=False)
    return np.asarray(solved[:, :m])


def optimize_block(
    system: PenalizedSystem,
    zy: Sequence[Array3],
    yy: Vector,
    y_length: Vector,
    beta_ols: Matrix,
    *,
    reml: bool,
    start: Vector | None,
    control: Control,
    compiled: bool,
    curved: bool = False,
) -> BlockOptima | None:
    """Search for each of r responses of one design.

    Parameters
    ----------
    system : of any response; its design is shared.
    zy : per grouping factor, (L, K, r) Z'W y_f in the working columns.
    yy, y_length : (r,) residual sum of squares of least squares; length of the response.
    beta_ols : (p, r) coefficients of least squares.
    start : (m,) theta near which optima are expected, or None for none.
    compiled : take the compiled search where there is one, else all in step in NumPy.
    curved : also take what the curvature is read off.

    Returns
    -------
    their optima, or None where there is neither search, or every end deserves a second look.
    Perfect fits are not settled, nor is what the search gave up, nor what deserves a second look.
    None also where the data do not determine a variance.
    """
    r = yy.size
    if start is None and second_looks(system).all():
        return None  # every response is searched for from several starts
    search: FusedSearch | LockstepSearch | None = None
    begin = start
    # valleys that run away are known to the single search alone
    if compiled and not can_be_all(system, reml=reml):
        search = fused_search(system, reml=reml, count=r)
    if search is None:
        search = lockstep_search(system, reml=reml)
        if search is not None and search.begins_close and not second_looks(system).any():
            begin = None  # with one valley, the nearer start
    if search is None or information_of(system, reml=reml).null.shape[1]:
        return None
    began = time.perf_counter()
    usual = (np.sqrt(yy) > PERFECT_FIT_RTOL * y_length) & (yy > 0.0)
    width = max(f.width for f in system.products.blocks.factors)
    responses = np.concatenate(
        [np.pad(z[:, :, usual], ((0, 0), (0, width - z.shape[1]), (0, 0))) for z in zy]
    )
    info = np.finfo(np.float64)
    of_responses = (
        np.moveaxis(responses, 2, 0),
        yy[usual],
        np.maximum((info.eps * y_length[usual]) ** 2, info.tiny),
    )
    found = search.minimize_many(
        None if begin is None else np.tile(system.chart.phi_of_theta(begin), (usual.sum(), 1)),
        *of_responses,
        tolerance=control.tolerance,
        limit=control.max_evaluations or default_limit("bfgs", system.n_theta),
        floors=step_floors(system) if curved else None,
    )
    if isinstance(search, FusedSearch):  # the search in step has looked itself
        beside = searched_in_step(system, reml=reml).hardly_off(found.phi, *of_responses)
        found.counts[beside, GIVEN_UP] = 1
    phi, gradient, numbers, counts, factors, scales, slopes, products = (
        _spread(part, usual) for part in found
    )
    ended = usual & (counts[:, GIVEN_UP] == 0)
    for part in (phi, gradient, numbers):
        part[~ended] = 0.0
    return BlockOptima(
        system=system,
        reml=reml,
        beta_ols=beta_ols,
        phi=phi,
        gradient=gradient,
        criterion=numbers[:, 0],
        decrease=numbers[:, 1],
        pwrss=numbers[:, 3],
        limit_reached=numbers[:, 2] != 0.0,
        n_values=counts[:, VALUES],
        n_gradients=counts[:, GRADIENTS],
        factors=factors,
        found=ended,
        given=start is not None,
        tolerance=control.gradient_tolerance,
        began=began,
        scales=scales,
        slopes=slopes,
        products=products,
    )


def _spread(part: np.ndarray, usual: NDArray[np.bool_]) -> np.ndarray:
    """Put rows of the usual responses where they are among all."""
    if usual.all():
        return part
    out = np.zeros((usual.size, *part.shape[1:]), dtype=part.dtype)
    out[usual] = part
    return out


def status_and_message(optima: BlockOptima) -> tuple[list[Status], list[str]]:
    """Return how each search ended, and the words for it; unsettled ones have any."""
    certified, boundary = optima.certified, optima.at_boundary
    names = optima.system.theta_names
    plain = Status.CONVERGED.message.format(edge="", evaluations="", decrease=0.0)
    statuses, messages = [Status.CONVERGED] * certified.size, [plain] * certified.size
    known: dict[bytes, str] = {}
    for i in np.flatnonzero(~certified | boundary.any(axis=1)).tolist():
        if certified[i]:
            zero = boundary[i]
            statuses[i] = Status.SINGULAR
            key = zero.tobytes()
            if key not in known:
                at = ", ".join(name for name, is_zero in zip(names, zero, strict=True) if is_zero)
                known[key] = Status.SINGULAR.message.format(
                    edge=f"{at} is zero", evaluations="", decrease=0.0
                )
            messages[i] = known[key]
        else:
            found = optima.optimum(i)
            statuses[i] = Status.NOT_CONVERGED if found is None else found.status
            messages[i] = "" if found is None else found.message
    return statuses, messages
