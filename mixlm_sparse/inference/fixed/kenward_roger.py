"""Kenward and Roger's small-sample covariance and degrees of freedom, without any n x n matrix.

The variance of y is sigma^2 V with V = sum_i gamma_i G_i + W^{-1}, one gamma for each variance and
covariance of random effects, relative to sigma^2.  With

    P_i = -X'V^{-1}G_iV^{-1}X,   Q_ij = X'V^{-1}G_iV^{-1}G_jV^{-1}X,   Phi = (X'V^{-1}X)^{-1},
    W = 2 [tr(V^{-1}G_iV^{-1}G_j) - 2 tr(Phi Q_ij) + tr(Phi P_i Phi P_j)]^{-1}

the adjusted covariance of beta is sigma^2 (Phi + 2 Phi {sum_ij W_ij (Q_ij - P_i Phi P_j)} Phi).

The results do not change if the parameters are mapped linearly, so V itself takes the place of
G = W^{-1} for sigma^2: its products are X'V^{-1}X, R and B again (see `kenward_roger_sums`), and
its trace is n.  All of it is held in columns of X in which Phi is the identity.

Where the covariance is not linear in its parameters (ar1, structures with several variances and a
correlation), G_i is its derivative at the estimate.  The term with second derivatives, which
Kenward and Roger (1997) have in the adjusted covariance, is left out (SAS: DDFM=KR(FIRSTORDER)): it
depends on how the covariance is parameterized, and without it the results do not.

References
----------
Kenward and Roger (1997), doi:10.2307/2533558; Halekoh and Højsgaard (2014),
doi:10.18637/jss.v059.i09.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError, RefitWarning
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.inference.fixed.kenward_roger_structured import rows_of, structured_sums
from mixlm_sparse.inference.fixed.kenward_roger_sums import (
    accumulate,
    covariance_directions,
    free_of_held,
)
from mixlm_sparse.inference.fixed.moments import NOTHING_TO_TEST, JointTest, directions
from mixlm_sparse.inference.fixed.row_components import components
from mixlm_sparse.inference.fixed.spans import column_lengths, with_unit_length
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.notes import warn_of
from mixlm_sparse.solve.pls import residual_products, solve_at

# Below this the expected information, brought to a unit diagonal, counts as singular.
INFORMATION_TOL = 1e-10
ROUNDING_RTOL = 1e-12  # information below this share of the largest is rounding
# Where these differences from pbkrtest's formulas are smaller, a ratio takes its limit.
ZERO_RATIO_TOL = 1e-14
DF_TWO_TOL = 1e-2
NO_INFLUENCE = 1e-14  # A2 below is rounding, and the df beyond 1e14


@dataclass(frozen=True, eq=False)
class KenwardRogerMoments:
    """Adjusted covariance of beta, and degrees of freedom.

    Parameters
    ----------
    beta : (p,) REML estimates.
    half : (p, p) with sigma^2 half half' the usual covariance.
    adjusted : (p, p) with sigma^2 half adjusted half' the adjusted covariance.
    sigma : residual standard deviation.
    P : (r, p, p) for every variance parameter, between half' and half.
    W : (r, r), the approximate covariance of the parameters, in units in which sigma is one.
    """

    beta: Vector
    half: Matrix
    adjusted: Matrix
    sigma: float
    P: Array3
    W: Matrix
    note: str = ""
    label: str = "Kenward-Roger"

    @property
    def vcov(self) -> Matrix:
        scaled = self.sigma * self.half
        out: Matrix = scaled @ self.adjusted @ scaled.T
        return out

    def along(self, L: Matrix) -> Matrix:
        out: Matrix = L @ self.half
        return out

    def covariance(self, L: Matrix) -> Matrix:
        Z = self.sigma * self.along(L)
        out: Matrix = Z @ self.adjusted @ Z.T
        return out

    def std_error(self, L: Matrix) -> Vector:
        Z = self.along(L)
        lengths = column_lengths(Z.T)
        U = with_unit_length(Z.T).T
        relative = ((U @ self.adjusted) * U).sum(axis=1)
        out: Vector = self.sigma * lengths * np.sqrt(np.maximum(relative, 0.0))
        return out

    def df(self, L: Matrix) -> Vector:
        U = with_unit_length((L @ self.half).T).T
        out = np.full(L.shape[0], np.nan)
        for i, row in enumerate(U):
            if row.any() and np.isfinite(row).all():
                out[i] = self._scaled(row[None])[0]
        return out

    def joint(self, L: Matrix, rhs: Vector) -> JointTest:
        found = directions(self, L, rhs)
        if found.q == 0:
            return NOTHING_TO_TEST
        df, factor = self._scaled(found.basis)
        inner = found.basis @ self.adjusted @ found.basis.T
        wald = float(found.difference @ np.linalg.solve(inner, found.difference))
        return JointTest(factor * wald / found.q, found.q, df, factor)

    def _scaled(self, basis: Matrix) -> tuple[float, float]:
        """Return the denominator df and the factor of F along orthonormal directions (q, p)."""
        # tr(Theta Phi P_i Phi) and tr(Theta Phi P_i Phi Theta Phi P_j Phi) with
        # Theta = L'(L Phi L')^{-1} L
        D = np.matmul(np.matmul(basis, self.P), basis.T)
        traces = np.trace(D, axis1=1, axis2=2)
        flat = D.reshape(D.shape[0], basis.shape[0] ** 2)
        A1 = float(traces @ self.W @ traces)
        A2 = float((self.W * (flat @ flat.T)).sum())
        return _denominator(basis.shape[0], A1, A2)


def _denominator(q: int, A1: float, A2: float) -> tuple[float, float]:
    """Return the denominator df and the factor of F that match two moments of F."""
    if not A2 > NO_INFLUENCE:
        return float("inf"), 1.0  # the variance parameters do not enter
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    divisor = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / divisor, (q - g) / divisor, (q + 2.0 - g) / divisor
    numerator = 1.0 + c1 * B
    if abs(numerator) < INFORMATION_TOL:
        numerator = 0.0
    below, last = 1.0 - c2 * B, 1.0 - c3 * B
    mean = 1.0 - A2 / q
    both_vanish = abs(mean) < ZERO_RATIO_TOL and abs(below) < ZERO_RATIO_TOL
    ratio = 1.0 if both_vanish else mean / below
    rho = ratio**2 * numerator / (last * q)
    df = 4.0 + (q + 2.0) / (q * rho - 1.0)
    factor = 1.0 if abs(df - 2.0) < DF_TWO_TOL else df * mean / (df - 2.0)
    return df, factor


_KEPT: WeakKeyDictionary[FittedModel, KenwardRogerMoments] = WeakKeyDictionary()
KEPT_AS = "kenward_roger"  # of `fit.kept`, where the rows are gone
BY_REML = "Kenward-Roger is defined for REML: the model was fitted again by REML for it"


def found_before(fit: FittedModel) -> KenwardRogerMoments | None:
    """Return what `kenward_roger(fit)` has found before, if it was called."""
    return _KEPT.get(fit)


def needs_rows(fit: FittedModel) -> bool:
    """Say whether the moments are sums over the rows themselves.

    Of sums over levels, a sigma that is zero beside the random effects leaves no digits.
    """
    return fit.matrices.law is not None or fit.system.known or fit.optimum.no_residual


def structured_work(fit: FittedModel) -> float:
    """Count the multiply-adds that `kenward_roger(fit)` takes where it needs rows.

    Raises
    ------
    EngineError : memory does not suffice.
    """
    system, p = fit.system, fit.system.p
    whitened = rows_of(system)
    r = system.n_theta + whitened.law.n_rho + 1
    if system.n_theta:
        sizes = np.array([float(rows.size) for rows in components(system, whitened, r)])
    else:
        sizes = whitened.law.sizes.astype(np.float64)
    return float((2.0 * r * sizes**3 + r * sizes**2 * (r + p) + sizes * (r * p) ** 2).sum())


def kenward_roger(fit: FittedModel) -> KenwardRogerMoments:
    """Return the adjusted covariance and what degrees of freedom need; computed once, then kept.

    A fit by ML is fitted again by REML, for which the method is defined.

    Warns
    -----
    RefitWarning : the fit was by ML.

    Raises
    ------
    EngineError : crossed grouping factors have so many levels that memory does not suffice.
    NotPositiveDefiniteError : random effects are so large that no digits are left.
    """
    found = _KEPT.get(fit)
    if found is not None:
        return found
    kept: KenwardRogerMoments | None = fit.kept.get(KEPT_AS)
    if kept is not None:
        if not fit.reml:
            warn_of(((RefitWarning, BY_REML),))
        _KEPT[fit] = kept
        return kept
    note = ""
    used = fit
    if not fit.reml:
        note = BY_REML
        used = fit.refit_reml()
        warn_of(((RefitWarning, note),))
    curved = [t.name for t in used.system.templates if t.covariance_basis is None]
    if curved:
        more = (
            f"the covariance of {curved[0]}(x | g) is not linear in its parameters: first "
            "derivatives are used, without the term of second ones"
        )
        note = f"{note}; {more}" if note else more
    with one_blas_thread():
        try:
            found = (_compute_structured if needs_rows(used) else _compute)(used, note)
        except np.linalg.LinAlgError as error:
            raise NotPositiveDefiniteError(
                "random effects are so much larger than the residuals that the covariance of the "
                "rows has no digits left for Kenward-Roger: use ddf='satterthwaite'"
            ) from error
    _KEPT[fit] = found
    return found


def _compute(fit: FittedModel, note: str) -> KenwardRogerMoments:
    system = fit.system
    p = system.p
    lambdas, _ = system.chart.lambdas_of_theta(fit.theta)
    solution = solve_at(lambdas, system)
    inner = scipy.linalg.solve_triangular(solution.R_X, np.eye(p)) if p else np.zeros((0, 0))
    # in columns of X in which Phi is the identity; V is the last parameter
    R = [values[:, :, :p] @ inner for values in residual_products(solution, system)]
    sums = accumulate(system, fit.optimum.phi, solution, R)
    r = sums.first.size + 1
    P = np.concatenate([sums.P, -np.eye(p)[None]])
    Q = np.empty((r, r, p, p))
    Q[:-1, :-1] = sums.Q
    Q[-1, :-1] = Q[:-1, -1] = -sums.P
    Q[-1, -1] = np.eye(p)
    traces = np.empty((r, r))
    traces[:-1, :-1] = sums.traces
    traces[-1, :-1] = traces[:-1, -1] = sums.first
    traces[-1, -1] = system.n
    if system.held is not None:
        B = free_of_held(system, fit.optimum.phi, unit_of_theta(fit), last="V")
        P, Q, traces = _combined(B, P, Q, traces)
        r = B.shape[1]
    flat = P.reshape(r, p * p)
    information = 0.5 * (traces - 2.0 * np.trace(Q, axis1=2, axis2=3) + flat @ flat.T)
    W = _inverse_information(information)
    change = np.einsum("ij,ijab->ab", W, Q, optimize=True)
    weighted = np.tensordot(W, P, axes=(1, 0))
    change -= np.matmul(P, weighted).sum(axis=0)
    return KenwardRogerMoments(
        beta=fit.solution.beta,
        half=fit.solution.RX_inv,
        adjusted=np.eye(p) + change + change.T,
        sigma=unit_of_theta(fit),
        P=P,
        W=W,
        note=note,
    )


def _compute_structured(fit: FittedModel, note: str) -> KenwardRogerMoments:
    system = fit.system
    whitened = rows_of(system)
    p = system.p
    lambdas, _ = system.chart.lambdas_of_theta(fit.theta)
    # whitened columns of X in which Phi is the identity
    solution = solve_at(lambdas, system)
    inner = scipy.linalg.solve_triangular(solution.R_X, np.eye(p)) if p else np.zeros((0, 0))
    X = whitened.A[:, :p] @ whitened.M[:p, :p] @ inner
    own = covariance_directions(system, fit.optimum.phi, lambdas)
    sums = structured_sums(system, whitened, lambdas, X, own)
    P, Q, traces = sums.P, sums.Q - 0.25 * sums.second, sums.traces
    own_traces = np.trace(sums.Q, axis1=2, axis2=3)
    if system.held is not None:  # without a residual structure: second derivatives are zero
        B = free_of_held(system, fit.optimum.phi, unit_of_theta(fit), last="W")
        P, Q, traces = _combined(B, P, Q, traces)
        own_traces = B.T @ own_traces @ B
    if fit.optimum.no_residual:  # directions of the size of sigma beside those of the effects
        B = np.diag(1.0 / np.sqrt(np.maximum(np.diag(traces), 1e-300)))
        P, Q, traces = _combined(B, P, Q, traces)
        own_traces = B @ own_traces @ B
    flat = P.reshape(P.shape[0], p * p)
    information = 0.5 * (traces - 2.0 * own_traces + flat @ flat.T)
    W = _inverse_information(information)
    change = np.einsum("ij,ijab->ab", W, Q, optimize=True)
    change -= np.matmul(P, np.tensordot(W, P, axes=(1, 0))).sum(axis=0)
    return KenwardRogerMoments(
        beta=fit.solution.beta,
        half=fit.solution.RX_inv,
        adjusted=np.eye(p) + change + change.T,
        sigma=unit_of_theta(fit),
        P=P,
        W=W,
        note=note,
    )


def _combined(
    B: Matrix, P: Array3, Q: NDArray[np.float64], traces: Matrix
) -> tuple[Array3, NDArray[np.float64], Matrix]:
    """Return the sums of parameters that are combinations B (r, f) of those of P (r, p, p)."""
    return (
        np.tensordot(B.T, P, axes=1),
        np.einsum("ik,ijab,jl->klab", B, Q, B, optimize=True),
        B.T @ traces @ B,
    )


def _inverse_information(information: Matrix) -> Matrix:
    """Invert on the directions that have information; a parameter without any has no variance.

    The parameters are those of orthonormal columns, so that their information can be compared; a
    diagonal that is rounding beside the largest is none.
    """
    if not information.size:  # nothing is free
        return information
    diagonal = np.diag(information)
    seen = diagonal > ROUNDING_RTOL * diagonal.max(initial=0.0)
    length = np.where(seen, np.sqrt(np.maximum(diagonal, 0.0)), 1.0)
    information = np.where(seen[:, None] & seen, information, 0.0)
    values, vectors = np.linalg.eigh(information / np.outer(length, length))
    keep = values > INFORMATION_TOL * float(values[-1])
    B = vectors[:, keep] / length[:, None]
    out: Matrix = (B / values[keep]) @ B.T
    return out
