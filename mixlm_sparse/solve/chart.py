"""theta, the factors T, the working parameters phi and Lambda: the one map between them.

    theta   what the user sees: Cov(b_j) = sigma^2 T T' of a term in the user's columns z
    phi     what is computed with: Cov = sigma^2 T~ T~' in the working columns z~ = z Rz^{-1}, which
            have length one on average (orthonormal ones for an unstructured term)
    Lambda  per grouping factor, the factors T~ of its terms on the diagonal

Both are read by the term's structure, T = factor(theta), T~ = factor_at(phi), and mean the same
covariance where

    Rz T = T~ Q,  Q orthogonal, so that  S = T T' = Rz^{-1} T~ T~' Rz^{-T}.

phi does not notice the unit of a predictor, nor (for an unstructured term) its origin: what is
computed in phi and mapped back is invariant.  The criterion depends on S alone; as a function of
phi it is even in every column of T~, so that it is smooth across a variance of zero, and S does not
move to first order with a column that is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.random import CovarianceStructure
from mixlm_sparse.covariance.us import above_diagonal
from mixlm_sparse.solve.products.basis import TermLayout


@dataclass(frozen=True, eq=False)
class Chart:
    """The maps of one model.

    Parameters
    ----------
    templates : per term, the structure that reads its parameters.
    Rz : per term, (k, k) upper triangular, z~ = z Rz^{-1}.
    layout : per term, its place in the matrix of its grouping factor.
    widths : per grouping factor, the number K of its columns.
    """

    templates: tuple[CovarianceStructure, ...]
    Rz: tuple[Matrix, ...]
    layout: tuple[TermLayout, ...]
    widths: tuple[int, ...]

    # -- parameters ---------------------------------------------------------------------------

    @cached_property
    def _parameters(self) -> _Parameters:
        return _parameters(self.templates)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Per term, the place of its parameters in theta and in phi."""
        return self._parameters.slices

    @property
    def m(self) -> int:
        """Number of parameters."""
        return self._parameters.lower.size

    @cached_property
    def theta_start(self) -> Vector:
        """(m,) the theta at which every factor is the identity."""
        return _joined([t.start for t in self.templates])

    @cached_property
    def start(self) -> Vector:
        """(m,) the phi at which every factor is the identity."""
        return _joined([t.working(t.start) for t in self.templates])

    @property
    def lower(self) -> Vector:
        """(m,) lower bounds of theta."""
        return self._parameters.lower

    @cached_property
    def upper(self) -> Vector:
        """(m,) upper bounds of theta."""
        return _joined([t.upper for t in self.templates])

    @property
    def powers(self) -> Vector:
        """(m,) powers of s by which phi is multiplied where all factors are multiplied by s."""
        return self._parameters.powers

    @property
    def copies(self) -> bool:
        """Whether every factor has copies of parameters, those with bounds on its diagonal."""
        return self._parameters.copies

    @cached_property
    def _copied(self) -> tuple[Matrix, ...]:
        """Per grouping factor, (K^2, m): one where an element of Lambda is a copy of a phi."""
        return _copies(self.templates, self.layout, self.widths)

    def scaled(self, phi: Vector, s: float) -> Vector:
        """Return the phi (m,) of s times the factors."""
        out: Vector = phi * s**self.powers
        return out

    def size(self, phi: Vector) -> float:
        """Return how large the factors are: the largest |phi| that has a size."""
        if self._parameters.plain:
            return float(np.maximum.reduce(np.abs(phi))) if phi.size else 0.0
        live = self.powers > 0.0
        return float((np.abs(phi[live]) ** (1.0 / self.powers[live])).max())

    # -- factors per term ---------------------------------------------------------------------

    def factors(self, phi: Vector) -> list[Matrix]:
        """Return T~ of every term at phi, (k, k) lower triangular each."""
        return [
            t.factor_at(phi[part]) for t, part in zip(self.templates, self.slices, strict=True)
        ]

    def theta_factors(self, theta: Vector) -> list[Matrix]:
        """Return T of every term at theta, (k, k) lower triangular each."""
        return [
            t.factor(theta[part]) for t, part in zip(self.templates, self.slices, strict=True)
        ]

    def parameters_of(self, factors: Sequence[Matrix]) -> Vector:
        """Return the phi in bounds, (m,), with the covariances of any square working factors."""
        return _joined(
            [t.working_of(M) for t, M in zip(self.templates, factors, strict=True)]
        )

    def pull_back(self, phi: Vector, slopes: Sequence[Matrix]) -> Vector:
        """Return the derivative by phi, (m,), from those by the working factors, (k, k) each."""
        return _joined(
            [
                t.pull_back_at(phi[part], slope)
                for t, part, slope in zip(self.templates, self.slices, slopes, strict=True)
            ]
        )

    def theta_pull_back(self, theta: Vector, slopes: Sequence[Matrix]) -> Vector:
        """Return the derivative by theta, (m,), from those by its factors, (k, k) each."""
        return _joined(
            [
                t.pull_back(theta[part], slope)
                for t, part, slope in zip(self.templates, self.slices, slopes, strict=True)
            ]
        )

    def user_factors(self, working: Sequence[Matrix]) -> list[Matrix]:
        """Return the factors in the user's columns, Rz^{-1} T~, (k, k) each; not triangular."""
        return [
            np.asarray(np.linalg.solve(Rz, T), dtype=np.float64)
            for Rz, T in zip(self.Rz, working, strict=True)
        ]

    # -- theta and phi ------------------------------------------------------------------------

    def theta_of_phi(self, phi: Vector, rotations: Sequence[Matrix] | None = None) -> Vector:
        """Return the theta in bounds that means the same covariance as phi; both (m,).

        With rotations, phi parameterizes Q'T~ instead of T~, per term.
        """
        out = []
        for t, (template, part, Rz) in enumerate(
            zip(self.templates, self.slices, self.Rz, strict=True)
        ):
            if template.closed_under == "linear":
                T = template.factor_at(phi[part])
                if rotations is not None:
                    T = rotations[t] @ T
                out.append(template.theta_of(lapack.dtrtrs(Rz, T, lower=0)[0]))
            else:  # such a basis is diagonal, and nothing is rotated
                theta = template.theta_at(phi[part])
                out.append(template.mapped(theta, np.diag(1.0 / np.diag(Rz))))
        return _joined(out)

    def phi_of_theta(self, theta: Vector) -> Vector:
        """Return the phi in bounds that means the same covariance as theta; both (m,)."""
        return _joined(
            [
                t.working(t.mapped(theta[part], R))
                for t, part, R in zip(self.templates, self.slices, self.Rz, strict=True)
            ]
        )

    def stacked_factors(self, parameters: Matrix) -> list[Array3]:
        """Return `factors` for each row, (r, k, k) per term."""
        return [
            t.factors_of(parameters[:, part])
            for t, part in zip(self.templates, self.slices, strict=True)
        ]

    def thetas_of_phis(self, phis: Matrix) -> Matrix:
        """Return theta_of_phi of what is `reflected`, for each row, (r, m)."""
        thetas: list[Matrix] = []
        for t, Rz, T in zip(self.templates, self.Rz, self.stacked_factors(phis), strict=True):
            inside = t.factors_of(t.thetas_of(T))
            user: Array3 = np.asarray(np.linalg.solve(Rz, inside), dtype=np.float64)
            thetas.append(t.thetas_of(user))
        return np.concatenate(thetas, axis=1)

    def reflected(self, phi: Vector) -> Vector:
        """Return the phi in bounds with the same covariance."""
        if self.copies and (phi >= self.lower).all():
            return phi.copy()
        return _joined(
            [t.reflected(phi[part]) for t, part in zip(self.templates, self.slices, strict=True)]
        )

    # -- Lambda per grouping factor -----------------------------------------------------------

    def merge(self, blocks: Sequence[Matrix]) -> list[Matrix]:
        """Put per-term (k, k) matrices on the diagonal of their factor's (K, K) matrix."""
        if len(blocks) == len(self.widths):
            out: list[Matrix] = [np.empty(0)] * len(self.widths)
            for place, block in zip(self.layout, blocks, strict=True):
                out[place.factor] = block
            return out
        out = [np.zeros((K, K)) for K in self.widths]
        for place, block in zip(self.layout, blocks, strict=True):
            out[place.factor][place.columns, place.columns] = block
        return out

    def split(self, merged: Sequence[Matrix]) -> list[Matrix]:
        """Take the per-term diagonal parts out of per-factor (K, K) matrices."""
        return [merged[p.factor][p.columns, p.columns] for p in self.layout]

    def lambdas(self, phi: Vector) -> list[Matrix]:
        """Return Lambda at phi, (K, K) per grouping factor."""
        if not self.copies:
            return self.merge(self.factors(phi))
        return [
            (one @ phi).reshape(K, K) for one, K in zip(self._copied, self.widths, strict=True)
        ]

    def pull_back_merged(self, phi: Vector, merged: Sequence[Matrix]) -> Vector:
        """Return the derivative by phi, (m,), from those by every Lambda, (K, K) each."""
        if not self.copies:
            return self.pull_back(phi, self.split(merged))
        out = np.zeros(self.m)
        for G, one in zip(merged, self._copied, strict=True):
            out += G.reshape(-1) @ one
        return out

    def lambdas_each(self, phis: Matrix) -> list[Array3]:
        """Return `lambdas` for each row of phi (s, m), (s, K, K) per grouping factor."""
        s = phis.shape[0]
        if self.copies:
            return [
                (phis @ one.T).reshape(s, K, K)
                for one, K in zip(self._copied, self.widths, strict=True)
            ]
        blocks: list[Array3] = [
            np.array([t.factor_at(phi) for phi in phis[:, part]])
            for t, part in zip(self.templates, self.slices, strict=True)
        ]
        out = [np.zeros((s, K, K)) for K in self.widths]
        for place, block in zip(self.layout, blocks, strict=True):
            out[place.factor][:, place.columns, place.columns] = block
        return out

    def pull_back_each(self, phis: Matrix, merged: Sequence[Array3]) -> Matrix:
        """Return the derivatives by phi for each of its rows (s, m), from those by every Lambda."""
        if self.copies:
            out = np.zeros(phis.shape)
            for G, one in zip(merged, self._copied, strict=True):
                out += G.reshape(len(phis), -1) @ one
            return out
        out = np.empty(phis.shape)
        for t, part, place in zip(self.templates, self.slices, self.layout, strict=True):
            own = merged[place.factor][:, place.columns, place.columns]
            for i, (phi, slope) in enumerate(zip(phis[:, part], own, strict=True)):
                out[i, part] = t.pull_back_at(phi, slope)
        return out

    def lambdas_of_theta(self, theta: Vector) -> tuple[list[Matrix], list[Matrix]]:
        """Return lower triangular Lambda at theta, and the rotations that belong to them.

        Rz T = T~ Q with T~ lower triangular and Q orthogonal: T~ is graded, so that C keeps its
        digits where columns of T are nearly parallel.

        Returns
        -------
        lambdas : per grouping factor, (K, K).
        rotations : per term, Q (k, k).
        """
        blocks, rotations = [], []
        for Rz, T in zip(self.Rz, self.theta_factors(theta), strict=True):
            M = Rz @ T
            above = above_diagonal(M.shape[0])
            if M[above].any():
                packed, tau, _, _ = lapack.dgeqrf(M.T)
                blocks.append(np.where(above, 0.0, packed.T))
                rotations.append(lapack.dorgqr(packed, tau)[0].T)
            else:
                blocks.append(M)
                rotations.append(np.eye(M.shape[0]))
        return self.merge(blocks), rotations

    # -- derivatives --------------------------------------------------------------------------

    def factor_slopes(self, term: int, phi: Vector) -> Array3:
        """Return the derivatives of a term's working factor by its own phi, (n_theta, k, k)."""
        return self.templates[term].slopes_at(phi[self.slices[term]])

    def covariances(self, phi: Vector) -> list[Matrix]:
        """Return S per term, (k, k): covariance / sigma^2 of the effects of the user's columns."""
        return [M @ M.T for M in self.user_factors(self.factors(phi))]

    def covariance_slopes(self, phi: Vector) -> list[Array3]:
        """Return per term dS / dphi by the term's own parameters, (n_theta, k, k).

        dS = Rz^{-1} (dT~ T~' + T~ dT~') Rz^{-T}, exact.
        """
        out = []
        for t, (Rz, T) in enumerate(zip(self.Rz, self.factors(phi), strict=True)):
            half = np.matmul(self.factor_slopes(t, phi), T.T)
            inverse = np.linalg.inv(Rz)
            out.append(
                np.matmul(np.matmul(inverse, half + np.swapaxes(half, 1, 2)), inverse.T)
            )
        return out


class _Parameters(NamedTuple):
    """What `Chart` says of theta; `plain`: all powers are one."""

    slices: tuple[slice, ...]
    lower: Vector
    powers: Vector
    copies: bool
    plain: bool


@lru_cache(maxsize=32)  # many fits of one model follow each other, each with a chart of its own
def _parameters(templates: tuple[CovarianceStructure, ...]) -> _Parameters:
    stops = np.cumsum([t.n_theta for t in templates], dtype=np.int64).tolist()
    lower, powers = _joined([t.lower for t in templates]), _joined([t.powers for t in templates])
    for shared in (lower, powers):
        shared.flags.writeable = False
    return _Parameters(
        tuple(slice(stop - t.n_theta, stop) for t, stop in zip(templates, stops, strict=True)),
        lower,
        powers,
        all(t.positions is not None for t in templates),
        bool((powers == 1.0).all()),
    )


@lru_cache(maxsize=32)
def _copies(
    templates: tuple[CovarianceStructure, ...],
    layout: tuple[TermLayout, ...],
    widths: tuple[int, ...],
) -> tuple[Matrix, ...]:
    """Return `Chart._copied`."""
    m = sum(t.n_theta for t in templates)
    out = [np.zeros((K, K, m)) for K in widths]
    first = 0
    for t, place in zip(templates, layout, strict=True):
        positions = t.positions
        assert positions is not None
        rows, columns = np.nonzero(positions >= 0)
        at = first + positions[rows, columns]
        out[place.factor][place.first + rows, place.first + columns, at] = 1.0
        first += t.n_theta
    return tuple(one.reshape(-1, m) for one in out)


def surely_regular(M: Matrix, determinant: float, least: float) -> bool:
    """Say whether length and determinant show all singular values of M (k, k) above `least`.

    None is larger than the length |M|, and their product is |det M|.
    """
    length = math.sqrt(float(np.vdot(M, M)))
    return abs(determinant) > least * length ** int(M.shape[0] - 1)


def _joined(parts: Sequence[Vector]) -> Vector:
    """Return parts one after another; nothing without random effects."""
    return np.concatenate(parts) if parts else np.zeros(0)
