"""A standard deviation or correlation held in its term's factor, in orthonormal columns.

With r_i the row of Rz^{-1} that belongs to effect i, a_i = r_i T~ and, after a rotation Q of the
working columns that brings r_j first and r_i second, T~ = Q L with L lower triangular,

    sd_j = sigma |r_j| L[0, 0]
    r_i  = alpha q_1 + beta q_2,  beta > 0
    corr_ij = c  <=>  sqrt(1 - c^2) (alpha L[0, 0] + beta L[1, 0]) = c beta L[1, 1]

Holding a standard deviation fixes one element of L.  Holding a correlation leaves of three elements
the part of a plane in which L[0, 0] and L[1, 1] are positive: a wedge, whose points are told by
their distance from its edge and their angle in it.  Both stay of order one wherever the origin of a
predictor is; every value of the rest is a covariance matrix, and engines take any square factor.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit, logit

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.variance.profile.held import (
    Flags,
    State,
    coefficients,
    off_saddle,
    undefined,
)
from mixlm_sparse.model.parameters import VarianceParameter
from mixlm_sparse.solve.criterion import joint_criterion
from mixlm_sparse.solve.products.basis import triangular_inverse
from mixlm_sparse.solve.system import PenalizedSystem

# Angles this close to an edge of the wedge, as a share of it, are started here instead.
EDGE = 1e-6


class HeldInFactor:
    """A standard deviation or correlation held in its term's factor.

    x holds phi of the other terms; for a correlation the log of the radius and the logit of the
    angle; the free elements of L; log sigma unless the fit holds it.

    Attributes
    ----------
    parameter : what is held; correlation, identity : whether it is one, or scales an identity.
    others : (m,) which phi are of other terms.
    rotation : (k, k) Q; length : |r_j|.
    free : rows and columns of the elements of L in x.
    """

    def __init__(
        self,
        system: PenalizedSystem,
        phi: Vector,
        sigma: float,
        parameter: VarianceParameter,
        *,
        reml: bool,
    ) -> None:
        self.system = system
        self._phi = phi
        self._sigma = sigma
        # of the fit itself, where it holds sigma and nothing else
        self._sigma_held = None if system.held is None else system.held.sigma
        self._reml = reml
        self.parameter = parameter
        template = system.templates[parameter.term]
        self.others = np.ones(phi.size, dtype=bool)
        self.others[system.chart.slices[parameter.term]] = False
        self.identity = template.closed_under == "one scale"
        self.correlation = parameter.kind == "cor"
        k = template.k
        inverse = triangular_inverse(system.chart.Rz[parameter.term])
        first = inverse[[parameter.column, parameter.row] if self.correlation else [parameter.row]]
        self.length = float(np.sqrt(first[0] @ first[0]))
        # the directions of these rows first, then any others
        Q, R = np.linalg.qr(np.column_stack([first.T, np.eye(k)]))
        signs = np.where(np.diag(R) < 0.0, -1.0, 1.0)
        self.rotation, R = Q * signs, R * signs[:, None]
        self._pair = float(R[0, 1]), float(R[1, 1]) if self.correlation else 0.0
        rows, columns = np.tril_indices(k)
        if template.closed_under != "linear":
            rows = columns = np.arange(k)
        free = rows >= (2 if self.correlation else 1)
        if self.identity:
            free = np.zeros(rows.size, dtype=bool)
        self.free = rows[free], columns[free]

    def start(self) -> Vector:
        """Return x at the unconstrained optimum."""
        phi = off_saddle(self._phi, self.system)
        T = self.rotation.T @ self.system.chart.factors(phi)[self.parameter.term]
        # rotate to lower triangular, with a positive diagonal
        L = np.asarray(np.linalg.qr(T.T, mode="r")).T if np.triu(T, 1).any() else T
        L = L * np.where(np.diag(L) < 0.0, -1.0, 1.0)
        parts = [phi[self.others]]
        if self.correlation:
            alpha, beta = self._pair
            ratio = (alpha * L[0, 0] + beta * L[1, 0]) / (beta * L[1, 1])
            c = ratio / math.hypot(1.0, ratio)
            one, two, width = self.wedge(c, 1.0 / math.hypot(1.0, ratio))
            y = np.array([L[0, 0], L[1, 0], L[1, 1]])
            share = math.atan2(float(y @ two), float(y @ one)) / width
            angle = float(logit(min(max(share, EDGE), 1.0 - EDGE)))
            parts.append(np.array([0.5 * math.log(float(y @ y)), angle]))
        parts.append(L[self.free])
        if self._sigma_held is None:
            parts.append(np.array([math.log(self._sigma)]))
        return np.concatenate(parts)

    @property
    def even(self) -> Flags:
        """Return which of x (d,) are diagonal elements of factors."""
        rows, columns = self.free
        of_pair = np.zeros(2 if self.correlation else 0, dtype=bool)
        of_sigma = np.zeros(1 if self._sigma_held is None else 0, dtype=bool)
        own = (self.system.lower == 0.0)[self.others]
        return np.concatenate([own, of_pair, rows == columns, of_sigma])

    def wedge(self, c: float, s: float) -> tuple[Vector, Vector, float]:
        """Return the edge L[0, 0] = 0, the direction across it, and the angle to L[1, 1] = 0.

        Points are (L[0, 0], L[1, 0], L[1, 1]); c is the correlation, s = sqrt(1 - c^2).
        """
        alpha, beta = self._pair
        edge = np.array([0.0, c, s])
        other = np.array([beta, -alpha, 0.0]) / math.hypot(alpha, beta)
        # in the plane, at a right angle to the edge, on the side where L[0, 0] is positive
        across = np.array([beta, -s * s * alpha, c * s * alpha])
        across /= math.sqrt(float(across @ across))
        return edge, across, math.atan2(float(other @ across), float(other @ edge))

    def _split(self, x: Vector) -> tuple[Vector, Vector, Vector, float]:
        """Return phi of all terms (the held one's unset), (radius, angle), elements, log sigma."""
        if self._sigma_held is not None:
            x = np.append(x, math.log(self._sigma_held))
        phi = np.zeros(self.others.size)
        n_others = int(self.others.sum())
        phi[self.others] = x[:n_others]
        stop = n_others + (2 if self.correlation else 0)
        return phi, x[n_others:stop], x[stop:-1], float(x[-1])

    def _factor(
        self, c: float, polar: Vector, elements: Vector, log_sigma: float
    ) -> tuple[Matrix, Matrix]:
        """Return L (k, k), and the derivatives (2, 3) of its pair by radius and angle."""
        k = self.rotation.shape[0]
        L = np.zeros((k, k))
        if not self.correlation:
            held = c * math.exp(-log_sigma) / self.length
            if self.identity:
                return np.eye(k) * held, np.zeros((0, 3))
            L[self.free] = elements
            L[0, 0] = held
            return L, np.zeros((0, 3))
        L[self.free] = elements
        one, two, width = self.wedge(c, math.sqrt(max((1.0 - c) * (1.0 + c), 0.0)))
        share = float(expit(polar[1]))
        radius, angle = math.exp(polar[0]), width * share
        y = radius * (math.cos(angle) * one + math.sin(angle) * two)
        turned = radius * (math.cos(angle) * two - math.sin(angle) * one)
        L[0, 0], L[1, 0], L[1, 1] = y
        return L, np.array([y, turned * (width * share * (1.0 - share))])

    def _blocks(
        self, c: float, x: Vector
    ) -> tuple[list[Matrix], Matrix, Matrix, Vector, float]:
        phi, polar, elements, log_sigma = self._split(x)
        L, slopes = self._factor(c, polar, elements, log_sigma)
        blocks = self.system.chart.factors(phi)
        blocks[self.parameter.term] = self.rotation @ L
        return blocks, L, slopes, phi, log_sigma

    def value_and_gradient(
        self, c: float, x: Vector, system: PenalizedSystem | None = None
    ) -> tuple[float, Vector]:
        """Return the criterion and its gradient (d,), infinity where it is not defined."""
        system = self.system if system is None else system
        try:
            with np.errstate(over="ignore"):
                blocks, L, slopes, phi, log_sigma = self._blocks(c, x)
            value, merged, slope = joint_criterion(
                system.chart.merge(blocks), log_sigma, system, reml=self._reml
            )
        except (NotPositiveDefiniteError, OverflowError):
            return undefined(x)
        if not math.isfinite(value):
            return undefined(x)
        split = system.chart.split(merged)
        dL = self.rotation.T @ split[self.parameter.term]
        parts = [system.chart.pull_back(phi, split)[self.others]]
        if self.correlation:
            parts.append(slopes @ np.array([dL[0, 0], dL[1, 0], dL[1, 1]]))
        else:
            # sigma |r| L[0, 0] is held, so that L[0, 0] falls as sigma grows
            slope -= float(np.trace(dL) if self.identity else dL[0, 0]) * L[0, 0]
        parts.append(dL[self.free])
        if self._sigma_held is None:
            parts.append(np.array([slope]))
        return value, np.concatenate(parts)

    def state(self, c: float, x: Vector) -> State:
        """Return the factors and sigma at this point."""
        blocks, _, _, _, log_sigma = self._blocks(c, x)
        return State(blocks, math.exp(log_sigma))

    def beta(self, c: float, x: Vector) -> Vector:
        """Return the coefficients (p,) at this point."""
        return coefficients(self._blocks(c, x)[0], self.system)
