"""What undoes the law of residuals at given parameters: rows multiplied by R^{-1/2}.

With w the prior weights, s the variance function and C the correlation within groups,

    R = D C D,  D = diag(s / sqrt(w)),      W = C^{-1/2} D^{-1},   W R W' = I

where C^{-1/2} is the inverse of the Cholesky factor of every group's C in the order of time.  Rows
multiplied by W are independent with variance sigma^2, which is all that the solver asks for.
Groups with the same times share one factor; structures with the Markov property need no factor at
all: the whitened row is (y_t - a y_{t-}) / sqrt(1 - a^2).

The criterion depends on rho through log|R| and through W.  For any columns G (n, c) that do not
depend on rho

    d tr(G'W'W G) / d rho_k = -<W'(WG)(WG)'W, dR / d rho_k>

and with G such that GG' are the parts within groups of what the criterion's derivative by R is made
of (see `solve.whitened.criterion`), its whole gradient costs one pass over the rows however many
parameters there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw

__all__ = ["Whitening"]

# log s beyond this leaves the range of numbers when it is squared and summed.
LARGEST_LOG_SD = 300.0
# Information for a row below this is none.
NO_INFLUENCE = 1e-10


@dataclass(frozen=True, eq=False)
class Whitening:
    """W(rho) of the rows of a law; all arrays are in the order of the rows.

    Parameters
    ----------
    log_sd : (n,) log of s / sqrt(w), or None where all are one.
    factors : per batch, C^{-1/2} (1 or groups, m, m); empty where `steps` serves.
    steps : a (s,) and 1 / sqrt(1 - a^2) (s,) of the rows of `law.before`.
    log_det : log|R|.
    center : mean of log s that was taken out.
    """

    law: ResidualLaw
    rho: Vector
    log_sd: Vector | None
    factors: tuple[Array3, ...]
    steps: tuple[Vector, Vector] | None
    step_slopes: tuple[tuple[int, NDArray[np.intp] | slice, Vector], ...]
    log_det: float
    center: float
    centered: bool

    @staticmethod
    def of(law: ResidualLaw, rho: Vector, *, centered: bool = False) -> Whitening:
        """Return what whitens the rows of a law at omega = rho (n_rho,).

        Parameters
        ----------
        centered : divide s by its geometric mean, so that sigma does not move with rho.

        Raises
        ------
        NotPositiveDefiniteError : R has no Cholesky factor in floating point.
        """
        log_sd, center = _log_sd(law, rho, centered)
        log_det = 0.0 if log_sd is None else 2.0 * float(log_sd.sum())
        steps: tuple[Vector, Vector] | None = None
        slopes: list[tuple[int, NDArray[np.intp] | slice, Vector]] = []
        factors: list[Array3] = []
        if law.markov:
            a, slopes = _steps(law, rho)
            rest = (1.0 - a) * (1.0 + a)
            if rest.size and not float(rest.min()) > 0.0:
                raise NotPositiveDefiniteError("the correlation of two residuals is one")
            steps = a, 1.0 / np.sqrt(rest)
            log_det += float(np.log(rest).sum())
        elif law.correlated:
            for batch in law.batches:
                try:
                    L = np.linalg.cholesky(law.correlations(rho, batch))
                except np.linalg.LinAlgError:
                    raise NotPositiveDefiniteError(
                        "the correlation matrix of the residuals is not positive definite"
                    ) from None
                logs = np.log(np.diagonal(L, axis1=1, axis2=2)).sum()
                log_det += 2.0 * float(logs) * (batch.rows.shape[0] / L.shape[0])
                factors.append(np.linalg.inv(L))
        return Whitening(
            law, rho, log_sd, tuple(factors), steps, tuple(slopes), log_det, center, centered
        )

    # -- products -----------------------------------------------------------------------------

    def _divided(self, values: Matrix) -> Matrix:
        return values if self.log_sd is None else values * np.exp(-self.log_sd)[:, None]

    def apply(self, values: Matrix) -> Matrix:
        """Return W values; values (n, c)."""
        return self._correlated(self._divided(values))

    def _correlated(self, values: Matrix) -> Matrix:
        """Return C^{-1/2} values."""
        if self.steps is not None:
            a, c = self.steps
            rows, before = self.law.before
            out = values.copy()
            out[rows] = c[:, None] * (values[rows] - a[:, None] * values[before])
            return out
        if not self.factors:
            return values
        out = np.empty_like(values)
        for batch, F in zip(self.law.batches, self.factors, strict=True):
            out[batch.rows] = np.matmul(F, values[batch.rows])
        return out

    def _transposed(self, values: Matrix) -> Matrix:
        """Return C^{-1/2}' values."""
        if self.steps is not None:
            a, c = self.steps
            rows, before = self.law.before
            out = values.copy()
            scaled = c[:, None] * values[rows]
            out[rows] = scaled
            out[before] -= a[:, None] * scaled  # every row is before one other at most
            return out
        if not self.factors:
            return values
        out = np.empty_like(values)
        for batch, F in zip(self.law.batches, self.factors, strict=True):
            out[batch.rows] = np.matmul(np.swapaxes(F, 1, 2), values[batch.rows])
        return out

    def back(self, values: Matrix) -> Matrix:
        """Return W' values; values (n, c).  R^{-1} y is `back(apply(y))`."""
        return self._divided(self._transposed(values))

    def draw(self, noise: Matrix) -> Matrix:
        """Return W^{-1} noise: independent standard normal (n, c) to residuals over sigma."""
        law = self.law
        if self.steps is not None:
            a, c = self.steps
            rows, before = law.before
            out = noise.copy()
            # step by step in time, all groups at once
            place = np.arange(law.n) - np.repeat(law.starts[:-1], law.sizes)
            step = np.empty(law.n, dtype=np.intp)
            step[law.order] = place
            order = np.argsort(step[rows], kind="stable")
            cuts = np.searchsorted(step[rows][order], np.arange(1, int(law.sizes.max()) + 1))
            for i, j in pairwise(cuts.tolist()):
                at = order[i:j]
                fresh = noise[rows[at]] / c[at, None]
                out[rows[at]] = a[at, None] * out[before[at]] + fresh
        elif self.factors:
            out = np.empty_like(noise)
            for batch, F in zip(law.batches, self.factors, strict=True):
                out[batch.rows] = np.linalg.solve(F, noise[batch.rows])
        else:
            out = noise
        return out if self.log_sd is None else out * np.exp(self.log_sd)[:, None]

    @property
    def precision_diagonal(self) -> Vector:
        """(n,) diagonal of R^{-1} = W'W."""
        out = np.ones(self.law.n)
        if self.steps is not None:
            a, c = self.steps
            rows, before = self.law.before
            out[rows] = c**2
            out[before] += (a * c) ** 2
        for batch, F in zip(self.law.batches if self.factors else (), self.factors, strict=True):
            out[batch.rows] = (F * F).sum(axis=1)
        return out if self.log_sd is None else out * np.exp(-2.0 * self.log_sd)

    @property
    def sd(self) -> Vector:
        """(n,) standard deviations of the residuals relative to sigma."""
        return np.ones(self.law.n) if self.log_sd is None else np.exp(self.log_sd)

    # -- derivatives --------------------------------------------------------------------------

    def log_det_slopes(self) -> Vector:
        """Return d log|R| / d rho, (n_rho,)."""
        return self._slopes(np.zeros((self.law.n, 0)), np.zeros((self.law.n, 0)), 1.0)

    def slopes(self, G: Matrix, WG: Matrix) -> Vector:
        """Return d (log|R| + tr(G'W'W G)) / d rho, (n_rho,), in one pass."""
        return self._slopes(G, WG, 1.0)

    def squares_slopes(self, G: Matrix, WG: Matrix) -> Vector:
        """Return d tr(G'W'W G) / d rho, (n_rho,), for G (n, c) and WG = W G."""
        return self._slopes(G, WG, 0.0)

    def _slopes(self, G: Matrix, WG: Matrix, weight: float) -> Vector:
        """Return weight dlog|R| + d tr(G'W'WG)."""
        law = self.law
        out = np.zeros(law.n_rho)
        if law.n_correlation:
            if self.steps is not None:
                self._markov_slopes(self._divided(G), WG, weight, out)
            else:
                self._dense_slopes(WG, weight, out)
        if law.n_variance:
            # dW = -W diag(dlog s): d tr = -2 sum_j dlog s_j (G W'WG)_jj
            inner = self._transposed(WG)
            core = 2.0 * (weight - (self._divided(G) * inner).sum(axis=1))
            assert law.variance is not None
            if self.centered:
                core = core - core.mean()
            out[law.variance_part] += law.variance.contract(law.x, core, law.values)
        return out

    def _markov_slopes(self, G: Matrix, WG: Matrix, weight: float, out: Vector) -> None:
        assert self.steps is not None
        law = self.law
        a, c = self.steps
        rows, before = law.before
        now = WG[rows]
        squares = (now * now).sum(axis=1)
        crossed = (now * G[before]).sum(axis=1)
        core = 2.0 * (a * c**2 * (squares - weight) - c * crossed)
        for k, at, slope in self.step_slopes:
            out[k] += float(core[at] @ slope)

    def _dense_slopes(self, WG: Matrix, weight: float, out: Vector) -> None:
        law = self.law
        assert law.correlation is not None
        for batch, F in zip(law.batches, self.factors, strict=True):
            own = WG[batch.rows]  # (groups, m, c)
            m = own.shape[1]
            if F.shape[0] == 1:
                flat = own.transpose(1, 0, 2).reshape(m, -1)
                inner = (weight * own.shape[0] * np.eye(m) - flat @ flat.T)[None]
            else:
                inner = weight * np.eye(m) - np.matmul(own, np.swapaxes(own, 1, 2))
            core = np.matmul(np.swapaxes(F, 1, 2), np.matmul(inner, F))
            at = law.part(batch.stratum)
            out[at] += law.correlation.contract(batch.t, self.rho[at], law.places, core)

    def without_influence(self) -> NDArray[np.bool_]:
        """Say of every natural parameter whether R leaves it open, (n_rho,).

        R does not move with some working parameter that the natural one depends on: it is at the
        end of its range, or no rows are left that it is about.
        """
        lost = np.diag(self.information()[0]) <= NO_INFLUENCE * self.law.n
        slopes = self.law.natural(self.rho)[1]
        return np.asarray((slopes[:, lost] != 0.0).any(axis=1) | (lost & ~slopes.any(axis=1)))

    def information(self) -> tuple[Matrix, Vector]:
        """Return tr(R^{-1}R_k R^{-1}R_l) (n_rho, n_rho), roughly, and d log|R| / d rho (n_rho,).

        Exact within the correlation of one structure; what variances and correlations have in
        common is left out.  It tells a search how long its first steps may be.
        """
        law = self.law
        H = np.zeros((law.n_rho, law.n_rho))
        if self.steps is not None:
            a, c = self.steps
            weight = 2.0 * (c**2 + 2.0 * (a * c**2) ** 2)
            dense = np.zeros((law.n_rho, a.size))
            for k, at, slope in self.step_slopes:
                dense[k, at] = slope
            H += (dense * weight) @ dense.T
        elif law.correlation is not None:
            for batch, F in zip(law.batches, self.factors, strict=True):
                at = law.part(batch.stratum)
                slopes = law.correlation.slopes(batch.t, self.rho[at], law.places)
                D = np.matmul(np.matmul(F[:, None], slopes), np.swapaxes(F, 1, 2)[:, None])
                flat = D.transpose(1, 0, 2, 3).reshape(D.shape[1], -1)
                H[at, at] += flat @ flat.T * (batch.rows.shape[0] / F.shape[0])
        if law.variance is not None:
            at = law.variance_part
            unit = np.eye(law.n_variance)
            slopes = np.array([law.variance.log_sd(law.x, row, law.values) for row in unit])
            slopes = slopes.reshape(law.n_variance, law.n)
            if self.centered:
                slopes = slopes - slopes.mean(axis=1, keepdims=True)
            H[at, at] += 4.0 * slopes @ slopes.T
        return H, self.log_det_slopes()


def _log_sd(law: ResidualLaw, rho: Vector, centered: bool) -> tuple[Vector | None, float]:
    """Return log(s / sqrt(w)) (n,), or None where all are zero, and the mean taken out."""
    total: Vector | None = None
    center = 0.0
    if law.variance is not None:
        total = law.variance.log_sd(law.x, rho[law.variance_part], law.values)
        if centered:
            center = float(total.mean())
            total = total - center
        if not np.isfinite(total).all() or float(np.abs(total).max()) > LARGEST_LOG_SD:
            raise NotPositiveDefiniteError("the variance function leaves the range of numbers")
    if law.weights is not None:
        half = -0.5 * np.log(law.weights)
        total = half if total is None else total + half
    return total, center


def _steps(
    law: ResidualLaw, rho: Vector
) -> tuple[Vector, list[tuple[int, NDArray[np.intp] | slice, Vector]]]:
    """Return a (s,) of the rows of `law.before`, and its slopes by parameter."""
    assert law.correlation is not None
    rows, before = law.before
    t, earlier = law.t[rows], law.t[before]
    if len(law.strata) == 1:
        part = law.correlation.steps(t, earlier, rho[law.part(0)], law.places)
        assert part is not None
        return part
    a = np.empty(rows.size)
    slopes: list[tuple[int, NDArray[np.intp] | slice, Vector]] = []
    for s in range(len(law.strata)):
        own = np.flatnonzero(law.link_strata == s)
        part = law.correlation.steps(t[own], earlier[own], rho[law.part(s)], law.places)
        assert part is not None
        a[own] = part[0]
        first = law.part(s).start
        slopes += [(first + k, own[at], slope) for k, at, slope in part[1]]
    return a, slopes
