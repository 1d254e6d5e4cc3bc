"""The profiled criterion as the searches see it: a function of phi (see `chart`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.average import average_hessian
from mixlm_sparse.solve.criterion import Evaluation, evaluation_at, residual_df
from mixlm_sparse.solve.curvature import (
    downward_direction,
    may_curve_down,
    parameter_levels,
    phi_scales,
    profiled_gradients,
    profiled_hessian,
    step_floors,
)
from mixlm_sparse.solve.pls import CANCELLATION_LIMIT
from mixlm_sparse.solve.profiled.at_hand import NOTHING, AtHand
from mixlm_sparse.solve.profiled.axes import turned, turned_back, without_small
from mixlm_sparse.solve.profiled.boundary import at_bounds, beside_boundary, settle_boundary
from mixlm_sparse.solve.profiled.fused import fused_search
from mixlm_sparse.solve.profiled.limit import (
    far_start,
    fitted_exactly,
    radial_decrease,
    without_residual,
)
from mixlm_sparse.solve.profiled.runaway import can_be_all, outwards, too_far
from mixlm_sparse.solve.profiled.saddle import (
    HARDLY_NOTICED,
    Sharp,
    quick,
    sharp_hessian,
    sharp_of,
    symmetric,
    together,
)
from mixlm_sparse.solve.profiled.start import expected_hessian, moment_start, quadratic_start
from mixlm_sparse.solve.profiled.valleys import other_starts, scattered_starts
from mixlm_sparse.solve.search.bfgs import EPS, ROUNDING
from mixlm_sparse.solve.search.known import Known, place_of
from mixlm_sparse.solve.search.objective import BoundaryReport, FarStart, Found, Progress, Start
from mixlm_sparse.solve.system import PenalizedSystem


@dataclass
class ProfiledObjective:
    """Value and gradient in phi, with counts, the best point seen and the progress callback.

    A point where the criterion is not defined has the value infinity.  `rotations`, per term, turn
    the working columns: phi then parameterizes Q'T~.  `beyond` is set where the optimum is far out
    (see `limit`).
    """

    system: PenalizedSystem
    reml: bool
    progress: Progress | None = None
    n_values: int = 0
    n_gradients: int = 0
    best_value: float = float("inf")
    best_phi: Vector = field(default_factory=lambda: np.empty(0))
    history: list[float] = field(default_factory=list)
    rotations: list[Matrix] | None = None
    beyond: bool = False
    to_the_end: bool = False  # search beyond `runaway.RUNAWAY` also where sigma may go to zero
    known: Known = field(default_factory=Known)
    sharp: Sharp | None = None  # the last Hessian that was clearly positive definite
    _at_hand: AtHand = NOTHING

    @property
    def m(self) -> int:
        """Return the number of parameters."""
        return self.system.n_theta

    @property
    def falls(self) -> bool:
        """Return False: where sigma goes to zero is asked at the end (see `no_noise`)."""
        return False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of theta."""
        return self.system.theta_names

    @property
    def working_lower(self) -> Vector:
        """Return the lower bounds (m,) of phi: those of sizes, 0; all else is periodic or free."""
        return np.where(self.system.lower == 0.0, 0.0, -np.inf)

    # -- parameters ---------------------------------------------------------------------------

    def theta_of(self, phi: Vector) -> Vector:
        """Return phi as the user's theta."""
        return self.system.chart.theta_of_phi(phi, self.rotations)

    def on_the_boundary(self, phi: Vector) -> tuple[tuple[str, ...], str]:
        """Return the names of the parameters at a bound, and what they are there in words."""
        return at_bounds(self.system.chart, phi, self.theta_of, self.names)

    def reflect(self, phi: Vector) -> Vector:
        """Return the phi within bounds that means the same covariance."""
        return self.system.chart.reflected(phi)

    def merged(self, phi: Vector) -> list[Matrix]:
        """Return the working Lambda per grouping factor, (K, K)."""
        if self.rotations is None:
            return self.system.chart.lambdas(phi)
        return self.system.chart.merge(self.factors(phi))

    def factors(self, phi: Vector) -> list[Matrix]:
        """Return the working Lambda per term, (k, k)."""
        out = self.system.chart.factors(phi)
        if self.rotations is not None:
            out = [Q @ T for Q, T in zip(self.rotations, out, strict=True)]
        return out

    @property
    def turns(self) -> bool:
        """Return whether axes are all that a leg's end changes; not where T is no copy of phi."""
        return self.system.chart.copies

    @property
    def rotated(self) -> bool:
        """Return whether the working columns are turned."""
        return self.rotations is not None

    def rotate(self, phi: Vector) -> Vector:
        """Turn the working columns to the principal axes at phi, and return phi in them.

        An estimated criterion differs between axes, within its error: there they stay.
        """
        if not self.system.engine.exact:
            return phi
        if self.system.whitened is None:
            phi = outwards(self, phi)
        phi, self.rotations = turned(phi, self.factors(phi), self.system.chart)
        return phi

    def without_small(self, phi: Vector, cut: float) -> Vector:
        """Return phi with zero columns of T for those whose diagonal is below `cut`."""
        return without_small(phi, cut, self.system.chart)

    def unrotate(self, phi: Vector) -> Vector:
        """Return phi in the working columns as they were, and forget the rotations."""
        if self.rotations is None:
            return phi
        back = turned_back(phi, self.factors(phi), self.system.chart)
        self._take_along(phi, back)
        self.rotations = None
        return back

    def _take_along(self, phi: Vector, to: Vector) -> None:
        """Keep what is at hand at phi for a point (m,) of the same covariances (see `AtHand`)."""
        self._at_hand = self._at_hand.moved(
            phi, self.rotations, to, self.factors(phi), self.system.chart
        )

    # -- the function -----------------------------------------------------------------------

    def value(self, phi: Vector) -> float:
        """Return the criterion at phi (m,)."""
        if self.too_far(phi):
            return math.inf
        return self._solve(phi, self.merged(phi), gradient=False).value

    def value_and_gradient(self, phi: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (m,) at phi (m,)."""
        known = self._at_hand.at(phi, self.rotations)
        if known is not None:
            return known
        if self.too_far(phi):
            return math.inf, np.full(phi.size, np.nan)
        found = self._solve(phi, self.merged(phi), gradient=True)
        if not math.isfinite(found.value):
            return found.value, np.full(phi.size, np.nan)
        gradient = self.pull_back(phi, found.slopes)
        self._at_hand = AtHand(phi.copy(), self.rotations, found, gradient)
        return found.value, gradient

    def curvature(self, phi: Vector) -> Matrix:
        """Return a positive definite guess (m, m) of the Hessian at phi."""
        return expected_hessian(phi, self.system, reml=self.reml, rotations=self.rotations)

    def guess(self, phi: Vector, gradient: Vector) -> Matrix:
        """Return a positive definite guess (m, m) of the Hessian at phi, where a search begins.

        It is the Hessian itself where the search may end as well (see `sharpen`).
        """
        H = self._sharp(phi, gradient, near=True)
        return self.curvature(phi) if H is None else H

    def sharpen(self, phi: Vector, gradient: Vector) -> Matrix | None:
        """Return the Hessian (m, m) at phi, if it costs little and is clearly positive definite.

        It is kept: an optimum close by is no saddle (see `downhill`).  What it takes is not
        counted, like the look for a saddle that it saves.
        """
        return self._sharp(phi, gradient, near=False)

    def _sharp(self, phi: Vector, gradient: Vector, *, near: bool) -> Matrix | None:
        """Return what `sharpen` does; with `near`, only where a step wins little."""
        if self.rotations is not None or self.beyond or not together(self.system):
            return None
        if self._curved(phi):
            return None  # it is known already
        H = sharp_hessian(phi, gradient, self.system, reml=self.reml, near=near)
        if H is not None:
            self.sharp = Sharp(phi, H)
        return H

    def renew(self, phi: Vector) -> Matrix | None:
        """Return the average information (m, m) at phi, evaluated last, if it costs little."""
        known = self._at_hand
        if self.beyond or known.at(phi, self.rotations) is None:
            return None
        return average_hessian(phi, known.evaluation, self.system, self.rotations, reml=self.reml)

    def place(self, phi: Vector) -> Matrix:
        """Return what tells optima apart, whatever the axes (see `known`)."""
        return place_of(self.factors(phi))

    def radial_decrease(self, phi: Vector, gradient: Vector) -> float:
        """Return what scaling one term would win at least."""
        return radial_decrease(phi, gradient, self.system)

    def too_far(self, phi: Vector) -> bool:
        """Say whether a step leads to where nothing is left to the residuals (see `runaway`)."""
        return too_far(self, phi)

    @cached_property
    def without_noise(self) -> bool:
        """Return whether random effects alone can be the law of the response."""
        return can_be_all(self.system, reml=self.reml)

    def value_at(self, lambdas: list[Matrix]) -> float:
        """Return the criterion at working factors (K, K), wherever they are."""
        return self._solve(None, lambdas, gradient=False).value

    def pull_back(self, phi: Vector, G: Sequence[Matrix]) -> Vector:
        """Return the derivative by phi (m,) from those by the working Lambda, (K, K) each."""
        chart = self.system.chart
        if self.rotations is None:
            return chart.pull_back_merged(phi, G)
        blocks = [Q.T @ block for Q, block in zip(self.rotations, chart.split(G), strict=True)]
        return chart.pull_back(phi, blocks)

    def at_factors(self, lambdas: list[Matrix]) -> tuple[float, list[Matrix]]:
        """Return the criterion and its derivative at any square factors, per term."""
        found = self._solve(None, lambdas, gradient=True)
        return found.value, self.system.chart.split(found.slopes) if found.slopes else []

    def _solve(
        self, phi: Vector | None, lambdas: list[Matrix], *, gradient: bool
    ) -> Evaluation:
        self.n_values += 1
        try:
            self.n_gradients += gradient
            found = evaluation_at(lambdas, self.system, reml=self.reml, gradient=gradient)
        except NotPositiveDefiniteError:
            return NOTHING.evaluation
        if not math.isfinite(found.value):
            return NOTHING.evaluation
        if phi is not None:
            self.history.append(found.value)
            if found.value < self.best_value:
                self.best_value, self.best_phi = found.value, phi.copy()
            if self.progress is not None:
                self.progress(self.n_values, found.value, self.theta_of(phi))
        return found

    # -- where to search ----------------------------------------------------------------------

    def start(self) -> Vector:
        """Return a moment estimate (m,)."""
        phi = quadratic_start(self.system) if quick(self.system) else None
        return moment_start(self.system) if phi is None else phi

    def other_starts(
        self, *, singular: bool, phi: Vector, several: bool
    ) -> list[list[Start]]:
        """Return groups of starts that are worth while (see `valleys`)."""
        if several:
            return scattered_starts(self.system, singular=singular, phi=phi)
        return other_starts(self.system, singular=singular, phi=phi)

    @property
    def many_valleys(self) -> bool:
        """Return whether a start that was given may lead to another valley than the best one."""
        return any(template.second_start is not None for template in self.system.templates)

    def settle(self, phi: Vector, value: float) -> BoundaryReport:
        """Certify an optimum on the boundary, or find the way off a false one."""
        settled = settle_boundary(self, phi, value, curved=self._curved(phi))
        if settled.phi is not phi:
            self._take_along(phi, settled.phi)
        return settled

    def _curved(self, phi: Vector) -> bool:
        """Say whether the Hessian at phi is known, and clearly positive."""
        return self.sharp is not None and self.sharp.covers(phi, self.system.chart)

    def downhill(self, phi: Vector, *, whatever_it_costs: bool) -> Vector | None:
        """Return a step (m,) along which the criterion curves downwards at phi; see `saddle`."""
        if self.beyond or self._curved(phi):
            return None
        try:
            suspect = whatever_it_costs or symmetric(phi, self.system)
            if not suspect and quick(self.system):
                gradients = profiled_gradients(self.system, reml=self.reml)
                suspect = may_curve_down(gradients, phi, self.curvature(phi))
            if not suspect:
                return None
            H = profiled_hessian(phi, self.system, reml=self.reml)
        except NotPositiveDefiniteError:
            return None
        return downward_direction(H, phi_scales(phi, self.system))

    def at_once(
        self, phi: Vector | None, *, tolerance: float, limit: int, check_boundary: bool
    ) -> Found | None:
        """Search by the compiled search, where there is one and nobody listens (see `progress`)."""
        if self.progress is not None and getattr(self.progress, "listens", True):
            return None
        if self.without_noise:  # of valleys that run away only the search in Python knows
            return None
        search = fused_search(self.system, reml=self.reml)
        if search is None:
            return None
        floors = step_floors(self.system) if quick(self.system, HARDLY_NOTICED) else None
        found = search.minimize(
            phi, tolerance=tolerance, limit=limit, check_boundary=check_boundary, floors=floors
        )
        if found is not None:
            self.sharp = sharp_of(found, self.system)
            self.n_values += found.n_values
            self.n_gradients += found.n_gradients
            self.history.extend(found.history.tolist())
            if check_boundary and self._goes_on(found):
                return None
        return found

    def _goes_on(self, found: Found) -> bool:
        """Say whether the search in Python would leave an end which the compiled one does not."""
        if self._curved(found.phi):
            return False
        values, known = self.n_values, len(self.history)
        if beside_boundary(self, found.phi, found.value).escaped:
            return True
        self.n_values = values  # the search is what it was
        del self.history[known:]
        return False

    def without_minimum(self) -> tuple[Vector, float]:
        """Return phi (m,) and the sigma that is held, where sigma goes to zero (see `limit`)."""
        self.rotations = None
        return without_residual(self.system, reml=self.reml)

    def far_out(self) -> FarStart | None:
        """Go where the optimum is far out; None if there is none (see `limit`)."""
        self.rotations = None
        phi = far_start(self.system, reml=self.reml)
        if phi is None:
            return None
        self.beyond = True
        return FarStart(phi, np.diag(2.0 * parameter_levels(self.system)))

    def noise(self, phi: Vector) -> float:
        """Return how uncertain a value is beyond the rounding of the number itself."""
        nu, size = self._nu, self.system.chart.size(phi)
        if self.beyond:
            # remainders of rows are that much smaller than the response; with the margin of values,
            return nu * ROUNDING * size  # or the search stays where rounding happens to be lowest
        # sums of squares are, until `solve_at` forms them by rows
        return nu * EPS * min(size * size, 1.0 / CANCELLATION_LIMIT)

    @cached_property
    def _nu(self) -> int:
        return residual_df(self.system, reml=self.reml)

    def at_zero(self) -> Vector:
        """Return the phi (m,) at which all standard deviations are zero."""
        return self.system.chart.scaled(self.system.chart.start, 0.0)

    def perfect(self) -> str | None:
        """Say why there is nothing to estimate, if the fixed part leaves no residual."""
        return fitted_exactly(self.system)
