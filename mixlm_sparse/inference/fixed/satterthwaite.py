"""Degrees of freedom after Satterthwaite.

With the deviance as a function of the variance parameters vp = (phi, log sigma), beta profiled out,
let H be its Hessian at the optimum, A = 2 H^{-1} the asymptotic covariance of vp (see
`solve.curvature`), V(vp) the covariance of beta and g the gradient of l'V l in vp.  The variance of
the estimated l'V l is g'A g, that of a scaled chi-squared variable on

    df = 2 (l'V l)^2 / g'A g

degrees of freedom.  phi are the working parameters, which know no unit and no origin of a
predictor, and neither do the degrees of freedom.  Where the data do not determine a direction of vp
that l'V l depends on, there are no degrees of freedom: NaN.

Several rows L are turned into uncorrelated single tests with degrees of freedom nu_i, and the
expectation of F is matched: E = sum nu_i / (nu_i - 2), df = 2 E / (E - q).  Uncorrelated ones are
not unique; taken here are those that are uncorrelated under least squares as well, the eigenvectors
of one covariance relative to the other.  They belong to the hypothesis, not to the contrasts that
express it.  lmerTest takes the eigenvectors of L V L', which depend on the rows of L, so that one
hypothesis has several df there; where all its single tests have equal df both are the same, and on
unbalanced data they differ little.

References
----------
Giesbrecht and Burns (1985), doi:10.2307/2530872; Fai and Cornelius (1996),
doi:10.1080/00949659608811740; Kuznetsova, Brockhoff and Christensen (2017),
doi:10.18637/jss.v082.i13.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary

import numpy as np
import scipy.linalg

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.interface import BLAS_SHARE
from mixlm_sparse.inference.fixed.moments import Directions, ModelMoments
from mixlm_sparse.inference.fixed.spans import with_unit_length
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.solve.curvature import EVALUATIONS_PER_PARAMETER
from mixlm_sparse.solve.product_derivatives import ProductDerivatives

# Relative change of a variance along a direction of (phi, log sigma) of length one: below this the
# variance does not depend on the direction.
FLAT_ATOL = 1e-5
PIVOT_RTOL = 1e-9  # entries of a hypothesis below this share of the largest are rounding
EQUAL_DF_RTOL = 1e-8  # degrees of freedom that differ by less are equal


@dataclass(frozen=True, eq=False, kw_only=True)
class SatterthwaiteMoments(ModelMoments):
    """Degrees of freedom after Satterthwaite.

    Parameters
    ----------
    derivatives : those of X'V^{-1}X by phi, between half' and half.
    A : (m + 1, m + 1) asymptotic covariance of (phi, log sigma).
    flat : (m + 1, f) directions of (phi, log sigma) that the data do not determine.
    least_squares : (p, p), |z least_squares| is the standard error by least squares of the
        combination z half^{-1} beta, |z| its standard error by the model; both relative to sigma.
    """

    derivatives: ProductDerivatives
    A: Matrix
    flat: Matrix
    least_squares: Matrix
    label: str = "Satterthwaite"

    def df(self, L: Matrix) -> Vector:
        return self._df_along(with_unit_length(self.along(L).T).T)

    def _df_along(self, Z: Matrix) -> Vector:
        """Return the degrees of freedom of unit directions (r, p); NaN for zero."""
        # V = (X'V^{-1}X)^{-1}, so its derivative is -V (slope) V
        g = np.vstack([-self.derivatives.along(Z), np.full(Z.shape[0], 2.0)]).T
        uncertainty = ((g @ self.A) * g).sum(axis=1)
        with np.errstate(divide="ignore"):
            df = 2.0 / uncertainty
        unknown = (np.abs(g @ self.flat) > FLAT_ATOL).any(axis=1)
        out: Vector = np.where(unknown | ~Z.any(axis=1), np.nan, df)
        return out

    def denominator_df(self, found: Directions) -> float:
        relative = found.basis @ self.least_squares
        # uncorrelated under the model as rows of an orthonormal basis, and under least squares
        turned = np.linalg.svd(relative)[0].T @ found.basis
        return joint_df(self._df_along(turned))


@dataclass(frozen=True, eq=False)
class RowwiseMoments(SatterthwaiteMoments):
    """Satterthwaite's method with the single tests of SAS's PROC MIXED and mmrm.

    The uncorrelated single tests of several rows are the eigenvectors of L V L' for the rows L of
    the hypothesis in reduced form, such as differences of levels from the first: they depend on
    which level is first, and so do the degrees of freedom.
    """

    label: str = "Satterthwaite, rows as in SAS"

    def denominator_df(self, found: Directions) -> float:
        errors: Vector = np.asarray(np.sqrt(np.diag(self.half @ self.half.T)))
        L = np.asarray(np.linalg.solve(self.half.T, found.basis.T).T, dtype=np.float64)
        rows = _reduced(L, errors)
        Z = rows @ self.half
        turned = np.linalg.eigh(Z @ Z.T)[1].T @ Z
        return joint_df(self._df_along(with_unit_length(turned.T).T))


def _reduced(L: Matrix, unit: Vector) -> Matrix:
    """Return the reduced echelon form of L (q, p), of full row rank; unit (p,) sizes of beta."""
    L = np.array(L, dtype=np.float64)
    limit = PIVOT_RTOL * float(np.abs(L * unit).max(initial=0.0))
    row = 0
    for column in range(L.shape[1]):
        if row == L.shape[0]:
            break
        pivot = row + int(np.argmax(np.abs(L[row:, column])))
        if abs(L[pivot, column]) * unit[column] <= limit:
            L[row:, column] = 0.0
            continue
        L[[row, pivot]] = L[[pivot, row]]
        L[row] = L[row] / L[row, column]
        others = np.arange(L.shape[0]) != row
        L[others] -= np.outer(L[others, column], L[row])
        row += 1
    return L


def joint_df(nu: Vector) -> float:
    """Return the denominator df of an F test from those (q,) of its uncorrelated single tests.

    The expectation of F is matched: E = sum nu / (nu - 2), df = 2 E / (E - q).  Where a single test
    has two or fewer, its square has no expectation, and neither may F: df = 2.
    """
    if nu.size == 0 or np.isnan(nu).any():
        return float("nan")
    smallest, largest = float(nu.min()), float(nu.max())
    if nu.size == 1 or smallest == largest or smallest >= (1.0 - EQUAL_DF_RTOL) * largest:
        return float(nu.mean())
    if not (nu > 2.0).all():
        return 2.0
    # E - q without cancellation
    excess = float((2.0 / (nu - 2.0)).sum())
    return 2.0 * (nu.size + excess) / excess if excess > 0.0 else float("inf")


_KEPT: WeakKeyDictionary[FittedModel, SatterthwaiteMoments] = WeakKeyDictionary()


def rowwise(fit: FittedModel) -> RowwiseMoments:
    """Return what Satterthwaite's method needs of `fit`, with SAS's rule for several rows."""
    found = satterthwaite(fit)
    values = {one.name: getattr(found, one.name) for one in fields(found)}
    values.pop("label")
    return RowwiseMoments(**values)


def satterthwaite(fit: FittedModel) -> SatterthwaiteMoments:
    """Return what Satterthwaite's method needs of `fit`; computed once, then kept."""
    found = _KEPT.get(fit)
    if found is None:
        curvature = fit.curvature
        R_X = curvature.derivatives.solution.R_X
        note = ""
        if curvature.negative:
            note = (
                "the deviance curves downwards in a direction of the variance parameters: the fit "
                "is no minimum, and degrees of freedom are not to be trusted"
            )
        found = SatterthwaiteMoments(
            solution=fit.solution,
            sigma=unit_of_theta(fit),
            derivatives=curvature.derivatives,
            A=curvature.covariance,
            flat=curvature.flat,
            least_squares=_least_squares(fit, R_X),
            note=note,
        )
        _KEPT[fit] = found
    return found


def _least_squares(fit: FittedModel, R_X: Matrix) -> Matrix:
    """Return what brings directions to least squares, (p, p): R_X in columns orthonormal there.

    With a residual structure these are the columns of the rows without it.
    """
    whitened = fit.system.whitened
    if whitened is None:
        return R_X
    plain = whitened.frame.plain.R_x
    out: Matrix = scipy.linalg.solve_triangular(
        plain, (R_X @ fit.system.products.R_x).T, trans="T"
    ).T
    return out


def satterthwaite_work(fit: FittedModel) -> float:
    """Count the multiply-adds that `satterthwaite(fit)` takes; 0 if it was called before."""
    if fit in _KEPT:
        return 0.0
    system, m = fit.system, fit.theta.size
    # products of p columns for each parameter, by BLAS
    of_columns = BLAS_SHARE * system.p**2 * (system.p + 2.0 * system.q * (1 + m))
    return system.engine.work * (EVALUATIONS_PER_PARAMETER * m + 2) + of_columns
