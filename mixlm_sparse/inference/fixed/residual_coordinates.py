"""The parameters in which Kenward and Roger's method takes the residual covariance.

Its correction depends on them where the covariance is not linear in them, so that they are said:

* variances of the levels of a `VarIdent`, or sigma^2 with the power or rate of another function;
* with `Unstructured`, where a visit has one variance, the covariances of visits;
* without a variance function, sigma^2 rho of CompoundSymmetry, Toeplitz and Unstructured;
* else phi, rho or range on their natural scale.

They are SAS's.  In the first three cases (with independence, CompoundSymmetry, Toeplitz or
Unstructured) sigma^2 R is linear in the parameters and second derivatives are zero.

At the end of a range, where eta no longer moves with rho, x itself is taken: what first derivatives
say is the same, and second ones are left out.

With x = (log sigma^2, rho) and eta = f(x) these parameters, dR / d eta = sum_a (dR / dx_a)
(f')^{-1}_a, and second derivatives are differences of the first along eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.law import Batch, ResidualLaw
from mixlm_sparse.covariance.variance import VarIdent
from mixlm_sparse.covariance.visits import Unstructured

__all__ = ["Coordinates"]

NEWTON_STEPS = 30
NEWTON_TOL = 1e-14
WELL_CONDITIONED = 1e10
STEP = 1e-4  # of differences, relative to the size of a parameter


@dataclass(frozen=True, eq=False)
class Coordinates:
    """eta = f(log sigma^2, rho) of a law.

    Parameters
    ----------
    law : of all rows.
    rho : (n_rho,) where the fit is; sigma is one there, since covariances are taken relative to it.
    """

    law: ResidualLaw
    rho: Vector

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.law.n_rho + 1

    @cached_property
    def x(self) -> Vector:
        """(n_rho + 1,) log sigma^2 and rho."""
        return np.append(0.0, self.rho)

    @cached_property
    def _level_of_visit(self) -> NDArray[np.intp] | None:
        """(strata, T) level of the variance of every visit; None where a visit has several."""
        law = self.law
        if not isinstance(law.correlation, Unstructured) or not isinstance(law.variance, VarIdent):
            return None
        out = np.full((len(law.strata), law.places.T), -1, dtype=np.intp)
        stratum = law.stratum[law.group_of]
        at = law.t.astype(np.intp)
        out[stratum, at] = law.x
        return out if bool((out[stratum, at] == law.x).all()) else None

    @cached_property
    def linear(self) -> bool:
        """Whether second derivatives of sigma^2 R by the parameters are left out, or zero."""
        law = self.law
        if not self._natural:
            return True
        if law.correlation is None:
            return law.variance is None or isinstance(law.variance, VarIdent)
        if law.variance is None:
            return law.correlation.linear
        return self._level_of_visit is not None

    @cached_property
    def _natural(self) -> bool:
        """Whether eta moves with all of x where the fit is."""
        eta, slopes = self._of(self.x)
        length = np.abs(slopes).max(axis=1)
        if not (length > np.abs(eta) / WELL_CONDITIONED).all():
            return False
        return bool(np.linalg.cond(slopes / length[:, None]) < WELL_CONDITIONED)

    def of(self, x: Vector) -> tuple[Vector, Matrix]:
        """Return eta (r,) and its derivative (r, r) by x = (log sigma^2, rho)."""
        return self._of(x) if self._natural else (x.copy(), np.eye(self.size))

    def _of(self, x: Vector) -> tuple[Vector, Matrix]:
        law = self.law
        r = self.size
        eta, slopes = np.empty(r), np.zeros((r, r))
        natural, d_natural = law.natural(x[1:])
        correlations = law.n_correlation * len(law.strata)
        at = slice(1, 1 + correlations)
        sigma_sq = float(np.exp(x[0]))
        eta[0], slopes[0, 0] = sigma_sq, sigma_sq
        eta[1:], slopes[1:, 1:] = natural, d_natural
        if isinstance(law.variance, VarIdent):
            part = slice(1 + correlations, r)
            ratio = natural[correlations:]
            eta[part] = sigma_sq * ratio**2
            slopes[part, 0] = eta[part]
            slopes[part, part] = np.diag(2.0 * eta[part])
            levels = self._level_of_visit
            if levels is not None:
                self._covariances(x, eta, slopes, levels)
        elif law.variance is None and law.correlation is not None and law.correlation.linear:
            eta[at] = sigma_sq * natural[:correlations]
            slopes[at, 0] = eta[at]
            slopes[at, at] *= sigma_sq
        return eta, slopes

    def _covariances(
        self, x: Vector, eta: Vector, slopes: Matrix, levels: NDArray[np.intp]
    ) -> None:
        """Turn correlations of visits into covariances, in place."""
        law = self.law
        pairs = np.triu_indices(law.places.T, 1)
        log_sd = 0.5 * x[0] + np.append(0.0, x[law.variance_part.start + 1 :])
        first = law.variance_part.start + 1
        for s in range(len(law.strata)):
            for k, (i, j) in enumerate(zip(*pairs, strict=True)):
                row = 1 + s * law.n_correlation + k
                a, b = int(levels[s, i]), int(levels[s, j])
                if a < 0 or b < 0:
                    continue
                size = float(np.exp(log_sd[a] + log_sd[b]))
                eta[row] *= size
                slopes[row] *= size
                slopes[row, 0] += eta[row]
                for level in (a, b):
                    if level > 0:
                        slopes[row, first + level - 1] += eta[row]

    def back(self, eta: Vector, x: Vector) -> Vector:
        """Return the x with f(x) = eta, by Newton's method from x; NaN where there is none."""
        x = x.copy()
        for _ in range(NEWTON_STEPS):
            value, slopes = self.of(x)
            try:
                step = np.linalg.solve(slopes, eta - value)
            except np.linalg.LinAlgError:  # eta is no covariance
                return np.full_like(x, np.nan)
            x += step
            if float(np.abs(step).max()) <= NEWTON_TOL * max(float(np.abs(x).max()), 1.0):
                break
        return x

    # -- derivatives of sigma^2 R -------------------------------------------------------------

    def first(self, law: ResidualLaw, batch: Batch, x: Vector | None = None) -> NDArray[np.float64]:
        """Return d sigma^2 R / d eta of the groups of a batch, (groups, r, m, m).

        Parameters
        ----------
        law : of the rows that the batch counts; all of them, or some.
        x : where; by default where the fit is.
        """
        x = self.x if x is None else x
        m = batch.rows.shape[1]
        base = np.zeros((batch.rows.shape[0], self.size, m, m))
        rho = x[1:]
        log_sd = np.zeros(batch.rows.shape)
        if law.variance is not None:
            own = law.variance.log_sd(law.x[batch.rows.ravel()], rho[law.variance_part], law.values)
            log_sd = own.reshape(batch.rows.shape)
        if law.weights is not None:
            log_sd = log_sd - 0.5 * np.log(law.weights[batch.rows])
        sd = np.exp(log_sd + 0.5 * x[0])
        outer = sd[:, :, None] * sd[:, None, :]
        C = law.correlations(rho, batch)
        R = outer * C
        base[:, 0] = R
        if law.correlation is not None and law.n_correlation:
            part = law.part(batch.stratum)
            slopes = law.correlation.slopes(batch.t, rho[part], law.places)
            base[:, 1 + part.start : 1 + part.stop] = outer[:, None] * slopes
        if law.variance is not None:
            start = law.variance_part.start + 1
            for k, unit in enumerate(np.eye(law.n_variance)):
                f = law.variance.log_sd(law.x[batch.rows.ravel()], unit, law.values)
                f = f.reshape(batch.rows.shape)
                base[:, start + k] = R * (f[:, :, None] + f[:, None, :])
        inverse = np.linalg.inv(self.of(x)[1])
        out: NDArray[np.float64] = np.einsum("gaij,ak->gkij", base, inverse, optimize=True)
        return out

    @cached_property
    def _moved(self) -> list[tuple[float, Vector, Vector]]:
        """Per parameter, the step of differences along it, and x a step up and down."""
        eta = self.of(self.x)[0]
        out = []
        for k, value in enumerate(eta.tolist()):
            size = STEP * max(abs(value), 1e-2)
            unit = size * (np.arange(self.size) == k)
            out.append((size, self.back(eta + unit, self.x), self.back(eta - unit, self.x)))
        return out

    def along(self, law: ResidualLaw, batch: Batch, k: int) -> NDArray[np.float64]:
        """Return the derivative of `first` along eta_k, (groups, r, m, m)."""
        size, up, down = self._moved[k]
        out: NDArray[np.float64] = self.first(law, batch, up) - self.first(law, batch, down)
        out /= 2.0 * size
        return out
