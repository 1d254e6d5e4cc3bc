"""The profiled criterion as a function of (phi, rho), for the searches.

phi are the working parameters of the random effects (see `chart`), rho those of the residuals; rho
are unconstrained, so that only phi has bounds.  What a search asks about phi at a rho is answered
by `ProfiledObjective` of the system whitened there.  Variance functions are divided by their
geometric mean meanwhile: sigma, and with it phi, then stay of the order that they have without the
structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.moments import moment_start
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.solve.criterion import Evaluation, residual_df
from mixlm_sparse.solve.curvature import (
    differences,
    downward_direction,
    may_curve_down,
    one_by_one,
    phi_scales,
)
from mixlm_sparse.solve.profiled.at_hand import NOTHING, AtHand
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.search.known import Known, place_of
from mixlm_sparse.solve.search.objective import BoundaryReport, FarStart, Found, Progress, Start
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.criterion import evaluate_whitened
from mixlm_sparse.solve.whitened.edge import at_end, farther
from mixlm_sparse.solve.whitened.falls import Ways
from mixlm_sparse.solve.whitened.starts import other_starts

# Rows times parameters up to which a gradient for each parameter is not noticed in a fit.
QUICK_ROWS = 5_000
# Working parameters of residuals beyond this are a limit: a correlation of one, a variance of zero.
FARTHEST = 30.0
# Information on correlations of visits beside random effects is that of none beyond this.
REGULAR = 2.0


@dataclass
class WhitenedObjective:
    """Value and gradient in x = (phi, rho), with counts and the best point seen.

    `beyond` is set where the optimum is far out in phi (see `ProfiledObjective`); `ways` are those
    of rho along which the criterion falls without end.
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
    turns: bool = False
    known: Known = field(default_factory=Known)
    ways: Ways = field(default_factory=Ways)
    _at_hand: AtHand = NOTHING
    _inner: ProfiledObjective | None = None
    _rho: Vector | None = None

    @property
    def m_theta(self) -> int:
        """Number of parameters of the random effects."""
        return self.system.n_theta

    @property
    def m(self) -> int:
        """Return the number of parameters."""
        return self.m_theta + self.system.n_rho

    @property
    def falls(self) -> bool:
        """Return whether the criterion is known to fall without end."""
        return bool(self.ways.falls)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of theta and of the residual parameters."""
        assert self.system.whitened is not None
        return self.system.theta_names + self.system.whitened.law.names

    @property
    def working_lower(self) -> Vector:
        """Return the lower bounds (m,); residual parameters have none."""
        own = ProfiledObjective(self.system, self.reml).working_lower
        return np.concatenate([own, np.full(self.system.n_rho, -np.inf)])

    # -- at one rho ---------------------------------------------------------------------------

    def at(self, rho: Vector) -> ProfiledObjective:
        """Return the objective in phi of the system whitened at rho; the last one is kept.

        Raises
        ------
        NotPositiveDefiniteError : rho is too far out.
        """
        if self._inner is None or self._rho is None or not np.array_equal(rho, self._rho):
            if rho.size and float(np.abs(rho).max()) > FARTHEST:
                raise NotPositiveDefiniteError("a residual parameter is at its limit")
            self._inner = ProfiledObjective(self.system.at_rho(rho, centered=True), self.reml)
            self._rho = rho.copy()
        self._inner.rotations, self._inner.beyond = self.rotations, self.beyond
        self._inner.best_value = self.best_value
        return self._inner

    def _with(
        self, x: Vector, function: Callable[[ProfiledObjective, Vector], BoundaryReport]
    ) -> BoundaryReport:
        phi, rho = x[: self.m_theta], x[self.m_theta :]
        found = function(self.at(rho), phi)
        moved = x if found.phi is phi else np.concatenate([found.phi, rho])
        return BoundaryReport(moved, found.value, found.escaped)

    # -- the function -------------------------------------------------------------------------

    def value(self, phi: Vector) -> float:
        """Return the criterion at (phi, rho)."""
        try:
            inner = self.at(phi[self.m_theta :])
            value = inner.value(phi[: self.m_theta])
        except NotPositiveDefiniteError:
            value = math.inf
        return self._seen(phi, value, False)

    def value_and_gradient(self, phi: Vector) -> tuple[float, Vector]:
        """Return the criterion and its gradient (m,) at (phi, rho)."""
        known = self._at_hand.at(phi, self.rotations)
        if known is not None:
            return known
        nothing = np.full(phi.size, np.nan)
        theta_part = phi[: self.m_theta]
        try:
            if theta_part.size and self.at(phi[self.m_theta :]).too_far(theta_part):
                return self._seen(phi, math.inf, True), nothing
            value, G, gradient = self._evaluated(phi)
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            return self._seen(phi, math.inf, True), nothing
        if not math.isfinite(value):
            return self._seen(phi, math.inf, True), nothing
        self._at_hand = AtHand(phi.copy(), self.rotations, Evaluation(value, G), gradient)
        return self._seen(phi, value, True), gradient

    def _evaluated(self, x: Vector) -> tuple[float, list[Matrix], Vector]:
        """Return the criterion, its slopes by Lambda and its gradient (m,), without a record."""
        phi, inner = x[: self.m_theta], self.at(x[self.m_theta :])
        value, G, slopes, _ = evaluate_whitened(inner.merged(phi), inner.system, reml=self.reml)
        return value, G, np.concatenate([inner.pull_back(phi, G), slopes])

    def _seen(self, x: Vector, value: float, gradient: bool) -> float:
        self.n_values += 1
        self.n_gradients += gradient
        if math.isfinite(value):
            self.history.append(value)
            if value < self.best_value:
                self.best_value, self.best_phi = value, x.copy()
            if self.progress is not None:
                self.progress(self.n_values, value, self.theta_of(x))
        return value

    def curvature(self, phi: Vector) -> Matrix:
        """Return a positive definite guess (m, m) of the Hessian."""
        m = self.m_theta
        H = np.zeros((self.m, self.m))
        inner = self.at(phi[m:])
        if m:
            H[:m, :m] = inner.curvature(phi[:m])
        H[m:, m:] = self._curvature_of_rho(inner)
        return H

    def _curvature_of_rho(self, inner: ProfiledObjective) -> Matrix:
        """Return a positive definite guess (n_rho, n_rho) of the Hessian in rho."""
        whitened = inner.system.whitened
        assert whitened is not None
        if not self.system.n_rho:
            return np.zeros((0, 0))
        whitening = whitened.whitening
        if self.m_theta and whitening.law.by_visits:
            # beside random effects V may be regular where R is not, and so is its information
            end = whitening.law.variance_part.start
            if np.abs(whitening.rho[:end]).max(initial=0.0) > REGULAR:
                rho = whitening.rho.copy()
                rho[:end] = np.clip(rho[:end], -REGULAR, REGULAR)
                whitening = Whitening.of(whitening.law, rho, centered=True)
        J, t = whitening.information()
        J = J - np.outer(t, t) / residual_df(self.system, reml=self.reml)
        values, vectors = np.linalg.eigh(0.5 * (J + J.T))
        floor = 1e-3 * max(float(values.max()), 1e-8)
        out: Matrix = (vectors * np.maximum(values, floor)) @ vectors.T
        return out

    def guess(self, phi: Vector, gradient: Vector) -> Matrix:
        return self.curvature(phi)

    def sharpen(self, phi: Vector, gradient: Vector) -> Matrix | None:
        return None  # each gradient is a walk over the rows

    def renew(self, phi: Vector) -> Matrix | None:
        return None  # nothing is known of the residual parameters

    def place(self, phi: Vector) -> Matrix:
        """Return what tells optima apart, whatever the axes (see `known`)."""
        m = self.m_theta
        return place_of(self.at(phi[m:]).factors(phi[:m]), phi[m:])

    def radial_decrease(self, phi: Vector, gradient: Vector) -> float:
        """Return what a change of scale of one random term would win at least."""
        m = self.m_theta
        return self.at(phi[m:]).radial_decrease(phi[:m], gradient[:m]) if m else 0.0

    # -- parameters ---------------------------------------------------------------------------

    def theta_of(self, phi: Vector) -> Vector:
        """Return theta and the natural parameters of the residuals, (m,)."""
        m = self.m_theta
        assert self.system.whitened is not None
        natural = self.system.whitened.law.natural(phi[m:])[0]
        return np.concatenate([self.at(phi[m:]).theta_of(phi[:m]), natural])

    def on_the_boundary(self, phi: Vector) -> tuple[tuple[str, ...], str]:
        """Return the names of the parameters of random effects at a bound, and that in words."""
        m = self.m_theta
        return self.at(phi[m:]).on_the_boundary(phi[:m]) if m else ((), "")

    def reflect(self, phi: Vector) -> Vector:
        """Return the equivalent (phi, rho) within bounds."""
        m = self.m_theta
        return np.concatenate([self.system.chart.reflected(phi[:m]), phi[m:]])

    @property
    def rotated(self) -> bool:
        """Return whether the columns of random terms are turned."""
        return self.rotations is not None

    def rotate(self, phi: Vector) -> Vector:
        """Turn the columns of random terms to their principal axes.

        Raises
        ------
        FallsError : the criterion falls without end along the residual parameters.
        """
        if self.ways.are_far(self, phi):
            phi = self.unrotate(phi)
            self.ways.look(self, phi)
        whitened = self.system.whitened
        assert whitened is not None
        if whitened.law.by_visits:
            phi = farther(self, self.unrotate(phi))
        return self._turned(phi, ProfiledObjective.rotate)

    def without_small(self, phi: Vector, cut: float) -> Vector:
        """Return (phi, rho) with zero columns of T for those whose diagonal is below `cut`."""
        m = self.m_theta
        return np.concatenate([self.at(phi[m:]).without_small(phi[:m], cut), phi[m:]])

    def unrotate(self, phi: Vector) -> Vector:
        """Return (phi, rho) in the columns as they were."""
        if self.rotations is None:
            return phi
        rotations, inner = self.rotations, self.at(phi[self.m_theta :])
        factors = inner.factors(phi[: self.m_theta])
        back = self._turned(phi, ProfiledObjective.unrotate)
        self._at_hand = self._at_hand.moved(phi, rotations, back, factors, inner.system.chart)
        return back

    def _turned(
        self, x: Vector, turn: Callable[[ProfiledObjective, Vector], Vector]
    ) -> Vector:
        m = self.m_theta
        if not m:
            return x
        inner = self.at(x[m:])
        phi = turn(inner, x[:m])
        self.rotations = inner.rotations
        return np.concatenate([phi, x[m:]])

    # -- where to search ----------------------------------------------------------------------

    def start(self) -> Vector:
        """Return a moment estimate.

        Residuals are independent beside random effects, which correlate rows as well.
        """
        whitened = self.system.whitened
        assert whitened is not None
        law = whitened.law
        if not self.m_theta:
            return moment_start(law, whitened.frame.A[:, -1])
        return np.concatenate([self.at(law.start).start(), law.start])

    def other_starts(
        self, *, singular: bool, phi: Vector, several: bool
    ) -> list[list[Start]]:
        """Return groups of starts that are worth while (see `starts`)."""
        return other_starts(self, singular=singular, phi=phi, several=several)

    @property
    def quick(self) -> bool:
        """Return whether a gradient for each parameter is not noticed: each walks over rows."""
        return self.m * self.system.n <= QUICK_ROWS

    @property
    def many_valleys(self) -> bool:
        """Return whether a start that was given may lead to another valley than the best one."""
        whitened = self.system.whitened
        assert whitened is not None
        return whitened.law.correlated

    def settle(self, phi: Vector, value: float) -> BoundaryReport:
        """Certify an optimum on the boundary of phi, or find the way off a false one."""
        if not self.m_theta:
            return BoundaryReport(phi, value, False)
        return self._with(phi, lambda inner, at: inner.settle(at, value))

    def at_once(
        self, phi: Vector | None, *, tolerance: float, limit: int, check_boundary: bool
    ) -> Found | None:
        """Return None: there is no search in one call."""
        return None

    def far_out(self) -> FarStart | None:
        """Go where the optimum is far out in phi, from the best rho seen; None if there is none."""
        m = self.m_theta
        rho = self.best_phi[m:]
        self.rotations = None
        inner = self.at(rho)
        far = inner.far_out()
        if far is None:
            return None
        self.beyond = True
        H = np.zeros((self.m, self.m))
        H[:m, :m], H[m:, m:] = far.hessian, self._curvature_of_rho(inner)
        return FarStart(np.concatenate([far.phi, rho]), H)

    def center(self, rho: Vector) -> float:
        """Return the mean log standard deviation of the rows at rho."""
        whitened = self.at(rho).system.whitened
        assert whitened is not None
        return float(whitened.whitening.center)

    def noise(self, phi: Vector) -> float:
        """Return how uncertain a value is beyond the rounding of the number itself."""
        if not self.m_theta:
            return residual_df(self.system, reml=self.reml) * float(np.finfo(np.float64).eps)
        return self.at(phi[self.m_theta :]).noise(phi[: self.m_theta])

    def downhill(self, phi: Vector, *, whatever_it_costs: bool) -> Vector | None:
        """Return a step (m,) along which the criterion curves downwards, if it does.

        See `ProfiledObjective`.
        """
        whitened = self.system.whitened
        assert whitened is not None
        law = whitened.law
        if law.without_noise_at(phi[self.m_theta :]) or at_end(law, phi[self.m_theta :]):
            return None  # towards a limit the criterion falls, ever less
        if not (whatever_it_costs or self.quick):
            return None

        gradients = one_by_one(lambda x: self._evaluated(x)[2])
        m = self.m_theta
        try:
            if not (whatever_it_costs or may_curve_down(gradients, phi, self.curvature(phi))):
                return None
            own = phi_scales(phi[:m], self.at(phi[m:]).system)
            scales = np.concatenate([own, np.ones(self.m - m)])
            return downward_direction(differences(gradients, phi, scales), scales)
        except (NotPositiveDefiniteError, np.linalg.LinAlgError):
            return None

    def at_zero(self) -> Vector:
        """Return random effects of zero, with independent residuals."""
        assert self.system.whitened is not None
        return np.concatenate(
            [ProfiledObjective(self.system, self.reml).at_zero(), self.system.whitened.law.start]
        )

    def perfect(self) -> str | None:
        """Say why there is nothing to estimate, if the fixed part leaves no residual."""
        return ProfiledObjective(self.system, self.reml).perfect()

    def without_minimum(self) -> tuple[Vector, float]:
        """Return the limit of sigma going to zero at the last rho."""
        rho = self.best_phi[self.m_theta :]
        self.rotations = None
        phi, sigma = self.at(rho).without_minimum()
        return np.concatenate([phi, rho]), sigma
