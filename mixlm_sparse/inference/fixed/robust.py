"""Cluster-robust covariance of the coefficients: CR0, CR1 and CR2 with Satterthwaite df.

With V_g the model's covariance of cluster g, W_g = V_g^{-1}, M = (sum X_g'W_g X_g)^{-1} and
residuals e_g = y_g - X_g beta,

    V_CR = M [sum_g X_g'W_g A_g e_g e_g'A_g'W_g X_g] M

    CR0: A_g = I;   CR1: A_g = sqrt(G / (G - 1)) I
    CR2: A_g C_g A_g = V_g with C_g = V_g - X_g M X_g', the covariance of e_g

of which the symmetric solution is A_g = D'(D C_g D')^{-1/2} D for any root D'D = V_g.  If the model
is right, CR2 is unbiased.  Everything is formed cluster by cluster; V_g = Z_g Lambda Lambda'Z_g' +
R_g in units of sigma^2, with R_g the law of the residuals.  Where R_g is the identity, V_g and C_g
leave the span of [Z_g X_g] invariant and are equal outside of it, so that the work is done there:
matrices of a cluster have the order of its random effects plus p, not of its rows.

What one cluster decides alone leaves no residual, and no error that could be seen: a combination v
of the columns X half with X_g'W_g X_g v = v in a cluster g (v'v = 1, M the identity) is fitted by
that cluster exactly.  The share of Var(c'beta) that goes with these, sum_g sum_v (v'm)^2 with m of
unit length along half'c, is missing from V_CR whatever the type; where there is one, it is NaN.

Degrees of freedom of c'beta (Bell and McCaffrey): with a_g = A_g W_g X_g M c, P the matrix with
elements delta_gh a_g'V_g a_g - a_g'X_g M X_h'a_h, df = tr(P)^2 / tr(P^2), from p x p sums.

References
----------
Bell and McCaffrey (2002), Survey Methodology 28; Pustejovsky and Tipton (2018),
doi:10.1080/07350015.2016.1247004.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed, require_level, require_one_of
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result, result_table
from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.inference.cases.row_groups import is_nested, row_groups
from mixlm_sparse.inference.fixed.hypotheses import read_hypotheses
from mixlm_sparse.inference.fixed.spans import column_lengths, with_unit_length
from mixlm_sparse.inference.fixed.tests import single_tests
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.structured import require_unrelated

TYPES = ("CR0", "CR1", "CR2")
# An eigenvalue of X_g'W_g X_g that is one but for this: the cluster decides a combination alone ...
ALONE_RTOL = 1e-8
# ... and a variance with a larger share of such parts is not known.
ALONE_SHARE = 1e-6
ALONE = "decided by single clusters alone, which have no residuals to tell an error from"
# Eigenvalues of D C D' below this share of the largest are directions that X takes up entirely.
NULL_RTOL = 1e-10


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class RobustCovariance(PrintsAsTable):
    """Cluster-robust covariance of the coefficients, with tests and intervals.

    Parameters
    ----------
    type : "CR0", "CR1" or "CR2".
    cluster : name of the clusters.
    n_clusters : their number.
    names, beta : of the coefficients, (p,).
    sigma : residual standard deviation, which everything below is relative to.
    half : (p, p) with sigma^2 half half' what the model says, M; the rest is in the columns X half.
    scores : (G, p) X_g'W_g A_g e_g.
    meat : per cluster, X_g'A_g X~_g with X~ = W X, and X~_g'A_g V_g A_g X~_g, (G, p, p) each.
    alone : (p, p) sum of vv' over what single clusters decide alone.

    Errors of what a single cluster decides alone are NaN; `vcov` has what the sandwich gives, too
    small there.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> robust = fit.robust()
    >>> robust.cov.round(3)
                 (Intercept)   Days
    (Intercept)       46.575 -1.451
    Days              -1.451  2.389
    >>> robust.df([0, 1]).round(1)
    array([17.])
    """

    type: str
    cluster: str
    n_clusters: int
    names: tuple[str, ...]
    beta: Vector
    sigma: float
    half: Matrix
    scores: Matrix
    meat: tuple[Array3, Array3]
    alone: Matrix

    @property
    def vcov(self) -> Matrix:
        """Covariance matrix of the coefficients, (p, p)."""
        errors = self.sigma * (self.scores @ self.half.T)
        out: Matrix = errors.T @ errors
        return out

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance matrix of the coefficients."""
        return pd.DataFrame(self.vcov, index=self.names, columns=self.names)

    @property
    def bse(self) -> pd.Series[float]:
        """Robust standard errors; NaN where a single cluster decides a coefficient alone."""
        return pd.Series(self._errors(), index=list(self.names))

    def _errors(self) -> Vector:
        # no square, which could leave the range of numbers
        errors = self.sigma * column_lengths(self.scores @ self.half.T)
        return np.where(self._seen(self.half), errors, np.nan)

    def _seen(self, rows: Matrix) -> NDArray[np.bool_]:
        """Say which rows m (r, p), in the columns X half, no cluster decides in part alone."""
        m = with_unit_length(rows.T)
        share = (m * (self.alone @ m)).sum(axis=0)
        return np.asarray(~(share > ALONE_SHARE))

    def df(self, L: Any = None) -> Vector:
        """Return Satterthwaite degrees of freedom of each row of L beta; of each coefficient."""
        rows = np.eye(len(self.names)) if L is None else read_hypotheses(L, self.names).L
        N, Q = self.meat
        out = np.full(rows.shape[0], np.nan)
        seen = self._seen(rows @ self.half)
        # M is the identity in these columns
        for r, m in enumerate(with_unit_length((rows @ self.half).T).T):
            t = N @ m  # (G, p): X_g'a_g
            s = np.einsum("a,gab,b->g", m, Q, m)  # a_g'V_g a_g
            k = (t * t).sum(axis=1)
            S = t.T @ t
            squares = float((s * s).sum() - 2.0 * (s * k).sum() + (S * S).sum())
            trace = float((s - k).sum())
            if squares > 0.0 and seen[r]:
                out[r] = trace * trace / squares
        return out

    @result_table("Cluster-robust standard errors")
    def table(self, level: float = 0.95) -> pd.DataFrame:
        """Return estimates, robust standard errors, df, tests and intervals."""
        found = single_tests(self.beta, self._errors(), self.df())
        return found.to_frame(self.names, level=require_level("level", level))

    def to_frame(self) -> pd.DataFrame:
        """Return the table of `table()` as a plain data frame."""
        return self.table().to_frame()

    def _table(self) -> ResultTable:
        heading = (
            f"{self.type} standard errors, {self.n_clusters} clusters ({self.cluster}), "
            "Satterthwaite df"
        )
        unseen = [
            name
            for name, seen in zip(self.names, self._seen(self.half).tolist(), strict=True)
            if not seen
        ]
        notes = [f"{listed(unseen, 8)}: {ALONE}"] if unseen else []
        return as_result(self.table(), heading=heading, notes=notes)


def robust(fit: FittedModel, cluster: Any = None, type: str = "CR2") -> RobustCovariance:
    """Return the cluster-robust covariance of the coefficients.

    Parameters
    ----------
    cluster : a grouping factor, a column of the data or an array; by default the grouping
        factor in which all others are nested; without random effects the group of the residual
        structure.
    type : "CR0" (plain sandwich), "CR1" (times G / (G - 1)) or "CR2" (unbiased if the model
        is right; as clubSandwich).

    Returns
    -------
    RobustCovariance : `.table()` with Satterthwaite (Bell-McCaffrey) df, `.cov`, `.bse`.

    Raises
    ------
    OptionError : random effects cross the clusters, or no factor contains all others and no
        cluster is named.

    Notes
    -----
    No n x n matrix is formed.  A cluster costs the cube of its number of random effects plus p;
    with prior weights or a residual structure that of its rows.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.robust().table()[["estimate", "std_error", "df"]].round(3)
                 estimate  std_error    df
    (Intercept)   251.405      6.825  17.0
    Days           10.467      1.546  17.0
    """
    require_unrelated(fit, "robust", "use the standard errors of the model")
    require_one_of("type", type, TYPES)
    if fit.perfect:
        raise OptionError("the fixed effects fit the response exactly: there are no residuals")
    codes, n_clusters, label = _clusters(fit, cluster)
    if n_clusters < 2:
        raise DataError(f"{label} has {n_clusters} cluster: robust covariances need at least 2")
    _require_nested(fit, codes, label)
    p = fit.system.p
    N = np.empty((n_clusters, p, p))
    Q = np.empty((n_clusters, p, p))
    scores = np.empty((n_clusters, p))
    alone = np.zeros((p, p))
    order = np.argsort(codes, kind="stable")
    stops = np.cumsum(np.bincount(codes, minlength=n_clusters))
    rows_of = _ClusterRows(fit)
    start = 0
    for g, stop in enumerate(stops):
        rows = np.sort(order[start:stop])
        X, e, ZL, R = rows_of(rows)
        N[g], Q[g], scores[g], own = _cluster(X, e, ZL, R, type, n_clusters)
        alone += own
        start = int(stop)
    return RobustCovariance(
        type=type,
        cluster=label,
        n_clusters=n_clusters,
        names=fit.system.x_names,
        beta=fit.solution.beta.copy(),
        sigma=unit_of_theta(fit),
        half=fit.solution.RX_inv.copy(),
        scores=scores,
        meat=(N, Q),
        alone=alone,
    )


def _cluster(
    X: Matrix,
    e: Vector,
    ZL: Matrix,
    R: Matrix | None,
    type: str,
    n_clusters: int,
) -> tuple[Matrix, Matrix, Vector, Matrix]:
    """Return X'A W X, X'W A V A W X and X'W A e of one cluster, and vv' of what it decides alone.

    X (n, p), columns in which M is the identity; e (n,) residuals in units of sigma;
    ZL = Z Lambda (n, q_g); R (n, n) covariance of the residuals over sigma^2, None
    for the identity.
    """
    if R is None and X.shape[0] > ZL.shape[1] + X.shape[1]:
        # the span of [Z X]: beyond it V = C = I, and W X has nothing there
        basis = np.linalg.qr(np.hstack([ZL, X]))[0]
        X, ZL, e = basis.T @ X, basis.T @ ZL, basis.T @ e
    V = ZL @ ZL.T
    V += np.eye(V.shape[0]) if R is None else R
    WX = scipy.linalg.cho_solve(scipy.linalg.cho_factor(V), X)
    if type == "CR2":
        A = _adjustment(V, V - X @ X.T)
        AWX = A @ WX
    else:
        AWX = WX * (np.sqrt(n_clusters / (n_clusters - 1.0)) if type == "CR1" else 1.0)
    values, vectors = np.linalg.eigh(X.T @ WX)
    own = vectors[:, values > 1.0 - ALONE_RTOL]
    return X.T @ AWX, AWX.T @ V @ AWX, AWX.T @ e, own @ own.T


def _adjustment(V: Matrix, C: Matrix) -> Matrix:
    """Return the symmetric A with A C A = V (on the range of C)."""
    D = np.linalg.cholesky(V).T
    values, vectors = np.linalg.eigh(D @ C @ D.T)
    seen = values > NULL_RTOL * float(values.max(initial=0.0))
    half = vectors[:, seen].T @ D
    out: Matrix = half.T @ (half / np.sqrt(values[seen])[:, None])
    return out


class _ClusterRows:
    """X half, residuals in units of sigma, Z Lambda and the residuals' R of any set of rows."""

    def __init__(self, fit: FittedModel) -> None:
        self._fit = fit
        n = fit.nobs
        self._X = fit.model_matrix() @ fit.solution.RX_inv
        self._e = (fit.matrices.y - fit.solution.fitted(include_random=False)) / unit_of_theta(fit)
        self._ZL = [
            term.columns.block(slice(0, n)) @ fit.solution.Lambda(t)
            for t, term in enumerate(fit.matrices.terms)
        ]

    def __call__(self, rows: np.ndarray) -> tuple[Matrix, Vector, Matrix, Matrix | None]:
        matrices = self._fit.matrices
        parts = [np.zeros((rows.size, 0))]
        for t, term in enumerate(matrices.terms):
            levels, place = np.unique(
                matrices.factors[term.factor].codes[rows], return_inverse=True
            )
            values = self._ZL[t][rows]
            k = values.shape[1]
            dense = np.zeros((rows.size, levels.size, k))
            dense[np.arange(rows.size), place] = values
            parts.append(dense.reshape(rows.size, levels.size * k))
        return self._X[rows], self._e[rows], np.hstack(parts), self._residual(rows)

    def _residual(self, rows: np.ndarray) -> Matrix | None:
        """Return R of the rows, weights included; None for the identity."""
        whitened, weights = self._fit.system.whitened, self._fit.matrices.weights
        if whitened is not None:
            law = whitened.law.take(rows)
            root = Whitening.of(law, whitened.rho).draw(np.eye(rows.size))
            R: Matrix = root @ root.T
            return R
        return None if weights is None else np.diag(1.0 / weights[rows])


def _clusters(fit: FittedModel, cluster: Any) -> tuple[IntVector, int, str]:
    """Return codes (n,), the number of clusters and their name."""
    if cluster is not None:
        found = row_groups(fit, cluster, "cluster")
        return found.codes, len(found.labels), found.name
    factors, law = fit.matrices.factors, fit.matrices.law
    if not factors:
        if law is not None and law.correlation is not None and law.sizes.size > 1:
            name = ":".join(law.correlation.columns("group"))
            return law.group_of.astype(np.int32), law.sizes.size, name
        raise OptionError("the model has no groups: give cluster= a column of the data or an array")
    for factor in factors:
        if all(is_nested(other.codes, factor.codes) for other in factors):
            return factor.codes, factor.n_levels, factor.label
    raise OptionError(
        f"no grouping factor contains all others ({', '.join(f.label for f in factors)} are "
        "crossed), so there is no natural cluster: give cluster= a factor or an array in which all "
        "of them are nested"
    )


def _require_nested(fit: FittedModel, codes: IntVector, label: str) -> None:
    law = fit.matrices.law
    if law is not None and law.correlated and not is_nested(law.group_of.astype(np.int32), codes):
        assert law.correlation is not None
        group = ":".join(law.correlation.columns("group")) or "one series of all rows"
        raise OptionError(
            f"groups of the residual structure ({group}) cross the clusters ({label}): rows of "
            "different clusters are correlated in the model, and cluster-robust covariances are "
            f"not defined then; use clusters in which {group} is nested"
        )
    for factor in fit.matrices.factors:
        if not is_nested(factor.codes, codes):
            raise OptionError(
                f"random effects by {factor.label} cross the clusters ({label}): rows of "
                "different clusters are correlated in the model, and cluster-robust covariances "
                f"are not defined then; use clusters in which {factor.label} is nested"
            )
