"""Structures whose parameters are standard deviations and the parameters rho of a correlation.

    Cov = sigma^2 D C(rho) D,    D = diag(sd) relative to sigma, or one sd for all
    T = D L,    L L' = C

    theta = (sd, rho),    phi = (sd, x) with one sd,    phi = (sqrt(sd), x) with several

rho = rho(x) is periodic in x, and L is smooth in x also where C is singular: what a bound cuts off
is a reflection in x.  With one sd the criterion is even in it; with several it is not, because the
sign of one of them is that of correlations, so that their roots are searched: it is even in these.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.described import Edges, NaturalParameter
from mixlm_sparse.covariance.off_zero import steepest
from mixlm_sparse.covariance.structure import CovarianceStructure
from mixlm_sparse.covariance.us import Unstructured

# Closer to an edge than this, phi is looked at as a candidate for it.
EDGE_ATOL = 1e-3
# Distances from an edge, in phi, at which a lower criterion is looked for.
INSIDE = (0.05, 0.25, 0.7, 1.5)
# Angles among which the best correlation is looked for where no variance is left.
TURNS = np.linspace(-0.5, 0.5, 33) * np.pi
# What a correlation may lie beyond what others leave to it, by rounding: near an edge that is much.
ROUNDING = 1e-8


class Natural(CovarianceStructure):
    """Standard deviations and correlation parameters; a structure says what L is.

    Attributes
    ----------
    hom : one standard deviation for all effects.
    rho_label : what a correlation parameter is called.
    """

    __slots__ = ()
    hom: ClassVar[bool] = False
    rho_label: ClassVar[str] = "rho"

    @classmethod
    def of_size(cls, k: int) -> CovarianceStructure:
        """Two standard deviations and a correlation, or one standard deviation: us has them."""
        return Unstructured(k) if k < 2 or (k == 2 and not cls.hom) else cls(k)

    # -- what a structure says ----------------------------------------------------------------

    @property
    @abstractmethod
    def rho_bounds(self) -> tuple[float, float]:
        """Return the least and the greatest correlation parameter."""

    @abstractmethod
    def rho_at(self, x: Vector) -> tuple[Vector, Matrix]:
        """Return rho (n_rho,) at x, and its derivative (n_rho, n_rho)."""

    @abstractmethod
    def x_of(self, rho: Vector) -> Vector:
        """Return an x (n_rho,) of rho within its bounds.

        Raises
        ------
        NotPositiveDefiniteError : no correlation matrix has these.
        """

    @abstractmethod
    def root(self, x: Vector) -> tuple[Matrix, Array3]:
        """Return L (k, k), lower triangular, and its derivatives (n_rho, k, k) by x."""

    @abstractmethod
    def nearest(self, C: Matrix) -> Vector:
        """Return the rho of a correlation matrix (k, k) of this structure, or one near it.

        Correlations of effects without variance are NaN.
        """

    @property
    def n_rho(self) -> int:
        """Return the number of correlation parameters."""
        return 1

    @property
    def at_one(self) -> Vector:
        """Return the x (n_rho,) of rho = 0."""
        return self.x_of(np.zeros(self.n_rho))

    def folded(self, x: Vector) -> Vector:
        """Return the x (n_rho,) in the first period with the same rho."""
        return self.x_of(self.rho_at(x)[0])

    # -- theta ----------------------------------------------------------------------------------

    @property
    def n_sd(self) -> int:
        """Return the number of standard deviations."""
        return 1 if self.hom else self.k

    @property
    def n_variances(self) -> int:
        return self.n_sd

    @property
    def n_theta(self) -> int:
        return self.n_sd + self.n_rho

    @property
    def start(self) -> Vector:
        return np.concatenate([np.ones(self.n_sd), np.zeros(self.n_rho)])

    @property
    def lower(self) -> Vector:
        return np.concatenate([np.zeros(self.n_sd), np.full(self.n_rho, self.rho_bounds[0])])

    @property
    def upper(self) -> Vector:
        bound = np.full(self.n_rho, self.rho_bounds[1])
        return np.concatenate([np.full(self.n_sd, np.inf), bound])

    @property
    def _rho_labels(self) -> tuple[str, ...]:
        if self.n_rho == 1:
            return (self.rho_label,)
        return tuple(f"{self.rho_label}{m + 1}" for m in range(self.n_rho))

    def names(self, group: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        sd = ("sd",) if self.hom else columns
        return tuple(f"{group}.{name}" for name in (*sd, *self._rho_labels))

    def factor(self, theta: Vector) -> Matrix:
        return self._sd(theta)[:, None] * self._root_of(theta[self.n_sd :])[0]

    def _sd(self, theta: Vector) -> Vector:
        return np.full(self.k, theta[0]) if self.hom else theta[: self.k]

    def _root_of(self, rho: Vector) -> tuple[Matrix, Array3]:
        return self.root(self.x_of(rho))

    def dT(self, theta: Vector) -> NDArray[np.float64]:
        rho = theta[self.n_sd :]
        x = self.x_of(rho)
        L, by_x = self._root_of(rho)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = _inverse(self.rho_at(x)[1])
            by_rho = np.einsum("xr,xij->rij", inverse, by_x)
        return self._slopes(L, by_rho, self._sd(theta), np.ones(self.n_sd))

    def _slopes(self, L: Matrix, by: Array3, sd: Vector, chain: Vector) -> Array3:
        """Return dT from L, its derivatives, the sds (k,) and theirs by the parameters (n_sd,)."""
        k = self.k
        out = np.zeros((self.n_theta, k, k))
        if self.hom:
            out[0] = chain[0] * L
        else:
            out[np.arange(k), np.arange(k)] = chain[:, None] * L
        out[self.n_sd :] = sd[:, None] * by
        return out

    def theta_of(self, M: Matrix) -> Vector:
        S = M @ M.T
        sd = np.sqrt(np.diag(S))
        with np.errstate(divide="ignore", invalid="ignore"):
            rho = self.nearest(S / np.outer(sd, sd))
        if self.hom:
            sd = np.array([np.sqrt(np.mean(sd * sd))])
        return np.concatenate([sd, rho])

    def mapped(self, theta: Vector, M: Matrix) -> Vector:
        scale = np.abs(np.diag(M))
        out = theta.copy()
        out[: self.n_sd] *= scale[: self.n_sd]
        return out

    # -- phi --------------------------------------------------------------------------------------

    def working(self, theta: Vector) -> Vector:
        sd = theta[: self.n_sd]
        return np.concatenate([sd if self.hom else np.sqrt(sd), self.x_of(theta[self.n_sd :])])

    def theta_at(self, phi: Vector) -> Vector:
        sd = phi[: self.n_sd]
        sd = np.abs(sd) if self.hom else sd * sd
        return np.concatenate([sd, self.rho_at(phi[self.n_sd :])[0]])

    def _working_sd(self, phi: Vector) -> Vector:
        return np.full(self.k, phi[0]) if self.hom else phi[: self.k] ** 2

    def factor_at(self, phi: Vector) -> Matrix:
        return self._working_sd(phi)[:, None] * self.root(phi[self.n_sd :])[0]

    def slopes_at(self, phi: Vector) -> NDArray[np.float64]:
        L, by_x = self.root(phi[self.n_sd :])
        chain = np.ones(1) if self.hom else 2.0 * phi[: self.k]
        return self._slopes(L, by_x, self._working_sd(phi), chain)

    def pull_back_at(self, phi: Vector, dT: Matrix) -> Vector:
        out: Vector = (self.slopes_at(phi) * dT).sum(axis=(1, 2))
        return out

    def reflected(self, phi: Vector) -> Vector:
        return np.concatenate([np.abs(phi[: self.n_sd]), self.folded(phi[self.n_sd :])])

    @property
    def powers(self) -> Vector:
        one = 1.0 if self.hom else 0.5
        return np.concatenate([np.full(self.n_sd, one), np.zeros(self.n_rho)])

    @property
    def second_start(self) -> Vector | None:
        """Return another phi (n_theta,) to search from: correlations that fall by the half."""
        return self.working(np.concatenate([np.ones(self.n_sd), self.falling(0.5)]))

    def falling(self, r: float) -> Vector:
        """Return correlations r, r^2, ... (n_rho,), as far as the bounds allow."""
        least, most = self.rho_bounds
        r = max(r, 0.9 * least) if r < 0.0 else r
        return np.clip(r ** np.arange(1, self.n_rho + 1), least, most)

    def with_correlation(self, r: float, phi: Vector) -> Vector:
        """Return phi with correlations that fall like r, r^2, ..."""
        return np.concatenate([phi[: self.n_sd], self.x_of(self.falling(r))])

    def other_faces(self, phi: Vector) -> list[Vector]:
        """See the base class: with several rho, C is singular where any x_m is a quarter turn."""
        if self.n_rho < 2:
            return []
        x = self._ends(self.folded(phi[self.n_sd :]))
        quarter = 0.5 * np.pi
        within = np.where(np.abs(x) == quarter, 0.5 * x, x)
        out = []
        for m in range(self.n_rho):
            for edge in (-quarter, quarter):
                if x[m] != edge:
                    other = within.copy()
                    other[m] = edge
                    out.append(np.concatenate([phi[: self.n_sd], other]))
        return out

    @property
    def generic(self) -> Vector:
        # different standard deviations, correlations that are not zero
        x = self.at_one + 0.4 * np.cos(np.arange(self.n_rho))
        return np.concatenate([1.0 + 0.2 * np.sin(1.0 + np.arange(self.n_sd)), x])

    def working_scales(self, phi: Vector, floor: float) -> Vector:
        sd = np.abs(phi[: self.n_sd])
        scale = np.maximum(sd, floor if self.hom else np.sqrt(floor))
        return np.concatenate([scale, np.ones(self.n_rho)])

    def tangents(self, phi: Vector) -> tuple[Matrix, ...]:
        """See the base class; by variances and roots, so that a zero variance moves too."""
        L, by_x = self.root(phi[self.n_sd :])
        C, sd = L @ L.T, self._working_sd(phi)
        if self.hom:
            out = [C]
        else:
            unit = np.eye(self.k)
            half = [np.outer(unit[i], C[i] * sd) for i in range(self.k)]
            out = [h + h.T for h in half]
        for dL in by_x:
            half_C = dL @ L.T
            out.append(sd[:, None] * (half_C + half_C.T) * sd)
        return tuple(out)

    @property
    def can_hold(self) -> bool:
        return True

    def hold(self, parameter: int, value: float, phi: Vector) -> tuple[Vector, Vector]:
        out, slopes = phi.copy(), np.zeros(self.n_theta)
        if parameter < self.n_sd:
            out[parameter] = value if self.hom else np.sqrt(value)
            return out, slopes
        at = parameter - self.n_sd
        out[parameter], slopes[self.n_sd :] = self.hold_rho(at, value, phi[self.n_sd :])
        return out, slopes

    def hold_rho(self, at: int, value: float, x: Vector) -> tuple[float, Vector]:
        """Return the x_at that gives rho_at a value, and its derivatives (n_rho,) by the others."""
        rho = np.zeros(self.n_rho)
        rho[at] = value
        return float(self.x_of(rho)[at]), np.zeros(self.n_rho)

    def slopes_of_held(self, at: int, x: Vector) -> Vector:
        """Return d x_at / dx (n_rho,) along which rho_at, of earlier coordinates, stays."""
        J = self.rho_at(x)[1][at]
        slopes = np.zeros(self.n_rho)
        if J[at] != 0.0:
            slopes[:at] = -J[:at] / J[at]
        return slopes

    def held_coordinate(self, parameter: int) -> int:
        return parameter

    def edges(self, phi: Vector) -> Edges:
        """Say which sds are zero, and where the correlation is singular; see the base class.

        Where no sd, or one, is left rho has no influence, and what an sd could win depends on it:
        it is looked at with several.  Close by, where none is left, `off_zero` says it exactly.
        """
        at = self.reflected(phi)
        x = at[self.n_sd :]
        zero = at[: self.n_sd] < EDGE_ATOL
        snapped = at.copy()
        snapped[: self.n_sd][zero] = 0.0
        ends = self._ends(x)
        snapped[self.n_sd :] = ends
        turned = np.flatnonzero(ends != x)
        others = [ends, *self._elsewhere()] if zero.any() and (~zero).sum() < 2 else [ends]
        inside: list[Vector] = []
        for step in INSIDE:
            for i in np.flatnonzero(zero):
                for other in others:
                    moved = snapped.copy()
                    moved[i], moved[self.n_sd :] = step, other
                    inside.append(moved)
            if zero.sum() > 1:
                for other in others:
                    moved = np.concatenate([np.where(zero, step, at[: self.n_sd]), other])
                    inside.append(moved)
            for i in turned if not zero.all() else []:
                for later in self._beyond(int(i), ends):
                    moved = snapped.copy()
                    moved[self.n_sd :] = later
                    moved[self.n_sd + i] -= np.sign(ends[i]) * step
                    inside.append(moved)
        return Edges(snapped, tuple(inside))

    def _ends(self, x: Vector) -> Vector:
        """Return x with what is close to a quarter turn put there: where L is singular."""
        quarter = 0.5 * np.pi
        return np.where(quarter - np.abs(x) < EDGE_ATOL, np.sign(x) * quarter, x)

    def _beyond(self, at: int, x: Vector) -> list[Vector]:
        """Return x with other values after `at`: on its edge they may have had no influence."""
        out = [x]
        for j in range(at + 1, self.n_rho):
            for angle in (-1.5, -0.7, 0.7, 1.5):
                other = x.copy()
                other[j] = angle
                out.append(other)
        return out

    def _elsewhere(self) -> list[Vector]:
        """Return other correlations (n_rho,), as x."""
        return [np.full(self.n_rho, angle) for angle in (-1.4, -0.7, 0.0, 0.7, 1.4)]

    @property
    def extreme_roots(self) -> list[Vector]:
        """Return x (n_rho,) such that any C is nearly a mixture of theirs, or one of them."""
        return [np.full(self.n_rho, angle) for angle in TURNS]

    def off_zero(self, M: Matrix) -> list[tuple[float, Vector]]:
        """See the base class and `steepest`."""
        xs = self.extreme_roots
        C = np.array([L @ L.T for L in (self.root(x)[0] for x in xs)])
        slopes, d = steepest(M, C, hom=self.hom)
        sd = d[:, :1] if self.hom else np.sqrt(d)
        return [
            (float(slopes[i]), np.concatenate([sd[i], xs[i]]))
            for i in np.argsort(slopes, kind="stable")
        ]

    # -- reports ----------------------------------------------------------------------------------

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        least = self.rho_bounds[0]
        sd = [
            NaturalParameter("sd", i, i, "sd" if self.hom else "", 0.0) for i in range(self.n_sd)
        ]
        rho = [
            NaturalParameter("cor", m + 1, 0, label, least)
            for m, label in enumerate(self._rho_labels)
        ]
        return (*sd, *rho)


def mean_of(correlations: Vector) -> float:
    """Return the mean of those that are defined, 0 where none is."""
    known = correlations[np.isfinite(correlations)]
    return float(known.mean()) if known.size else 0.0


def _inverse(J: Matrix) -> Matrix:
    """Return the inverse (r, r) of d rho / d x: infinite at an edge, where a bound is."""
    if J.shape[0] == 1:
        return 1.0 / J
    try:
        return np.asarray(np.linalg.inv(J), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.full_like(J, np.nan)
