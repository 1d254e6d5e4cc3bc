"""What changes when a row, or a group of rows, is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_bool, require_jobs
from mixlm_sparse.common.errors import MixedModelError, OptionError, SavedFitError
from mixlm_sparse.common.late import LatePlots
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.inference.cases.row_groups import row_groups
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.parameters import (
    estimated_values,
    parameter_values,
    residual_names,
    residual_values,
    variance_parameters,
)
from mixlm_sparse.model.refits import steady_refits
from mixlm_sparse.model.warm import options_of_refits
from mixlm_sparse.solve.derived.without_rows import Deletion
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.solution import solve_pls
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.search import solution_at

# Deletions that one process does at a time.
PIECE = 16


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Influence(PrintsAsTable):
    """Estimates without each row or group.

    Parameters
    ----------
    by : "rows" or the name of the groups.
    labels : (r,) what was left out.
    names, variance_names : of coefficients and of variance parameters.
    beta, variances : (p,), (v,) estimates from all rows.
    vcov : (p, p).
    deleted_beta : (r, p); deleted_vcov : (r, p, p); deleted_variances : (r, v).  A coefficient that
        cannot be estimated without the rows is NaN.
    status : (r,) where each search ended.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> without = fit.influence("Subject")
    >>> without.dfbetas().head(3).round(3)
             (Intercept)   Days
    Subject
    308            0.059 -0.449
    309            0.411  0.310
    310            0.428  0.158
    >>> without.deletion_distance().nlargest(1).round(3)
    Subject
    309    0.149
    dtype: float64
    """

    plot = LatePlots()

    by: str
    labels: tuple[Any, ...]
    names: tuple[str, ...]
    variance_names: tuple[str, ...]
    beta: Vector
    variances: Vector
    vcov: Matrix
    deleted_beta: Matrix
    deleted_vcov: Array3
    deleted_variances: Matrix
    status: tuple[str, ...]

    def _index(self) -> pd.Index[Any]:
        labels = list(self.labels)
        if labels and isinstance(labels[0], tuple):  # rows of a frame with a MultiIndex
            return pd.MultiIndex.from_tuples(labels)
        out: pd.Index[Any] = pd.Index(labels, name=self.by)
        return out

    def dfbeta(self) -> pd.DataFrame:
        """Return the estimate without the rows minus that from all, (r, p), as lme4."""
        return pd.DataFrame(
            self.deleted_beta - self.beta, index=self._index(), columns=list(self.names)
        )

    def dfbetas(self) -> pd.DataFrame:
        """Return `dfbeta` in standard errors of the fit without the rows, (r, p)."""
        se = np.sqrt(np.diagonal(self.deleted_vcov, axis1=1, axis2=2))
        return self.dfbeta().div(pd.DataFrame(se, self._index(), list(self.names)))

    def deletion_distance(self) -> pd.Series[float]:
        """Return (beta - beta_(i))' V^{-1} (beta - beta_(i)) / p with V from all rows, (r,).

        This is Cook's distance by leaving out; `fit.cooks_distance()` comes from residuals and
        leverages of single rows, with random effects and variances as they are.  lme4 multiplies
        by (r - p) / r, with r the number of deletions; here the distance does not depend on how
        many there were.
        """
        change = self.beta - self.deleted_beta
        solved = np.linalg.solve(self.vcov, change.T).T if change.size else change
        return pd.Series((change * solved).sum(axis=1) / max(self.beta.size, 1), self._index())

    def mdffits(self) -> pd.Series[float]:
        """Return Cook's distance with V from the rows that are left, (r,)."""
        change = self.beta - self.deleted_beta
        solved = np.full_like(change, np.nan)
        known = np.isfinite(self.deleted_vcov).all(axis=(1, 2))
        if known.any():
            V = self.deleted_vcov[known]
            solved[known] = np.linalg.solve(V, change[known, :, None])[:, :, 0]
        return pd.Series((change * solved).sum(axis=1) / max(self.beta.size, 1), self._index())

    def covratio(self) -> pd.Series[float]:
        """Return |V_(i)| / |V|: above 1 the rows add precision, (r,)."""
        sign, without = _log_determinants(self.deleted_vcov)
        value = np.exp(without - np.linalg.slogdet(self.vcov)[1])
        return pd.Series(np.where(sign > 0.0, value, np.nan), self._index())

    def variance_change(self) -> pd.DataFrame:
        """Return sds, correlations and sigma without the rows minus those from all, (r, v)."""
        return pd.DataFrame(
            self.deleted_variances - self.variances,
            index=self._index(),
            columns=list(self.variance_names),
        )

    def estimates(self) -> pd.DataFrame:
        """Return coefficients and variance parameters without each row or group."""
        return pd.DataFrame(
            np.hstack([self.deleted_beta, self.deleted_variances]),
            index=self._index(),
            columns=[*self.names, *self.variance_names],
        )

    def to_frame(self) -> pd.DataFrame:
        """Return Cook's distance, MDFFITS, COVRATIO, DFBETAS and status side by side."""
        head = pd.DataFrame(
            {
                "cooks": self.deletion_distance(),
                "mdffits": self.mdffits(),
                "covratio": self.covratio(),
            }
        )
        out = pd.concat([head, self.dfbetas().add_prefix("dfbetas_")], axis=1)
        out["status"] = list(self.status)
        return out

    def _table(self) -> ResultTable:
        top = self.to_frame().sort_values("cooks", ascending=False).head(10)
        notes = []
        if top["status"].nunique() == 1:
            notes.append(f"all of them: {top['status'].iloc[0]}")
            top = top.drop(columns="status")
        heading = f"Influence by {self.by}, {len(self.labels)} deletions; the largest"
        return as_result(top, heading=heading, notes=notes)


def _log_determinants(matrices: Array3) -> tuple[Vector, Vector]:
    """Return signs and logs of determinants (r,), NaN for matrices with NaN."""
    known = np.isfinite(matrices).all(axis=(1, 2))
    sign, value = np.full(known.size, np.nan), np.full(known.size, np.nan)
    if known.any():
        sign[known], value[known] = np.linalg.slogdet(matrices[known])
    return sign, value


def influence(
    fit: FittedModel,
    group: Any = None,
    *,
    refit: bool = True,
    n_jobs: int = 1,
    progress: Progress = None,
) -> Influence:
    """Leave out each row, or each group, and estimate again.

    Rows leave by subtraction from the products, so that a deletion costs no pass over the data;
    the search starts from this fit's parameters.  With a residual structure nothing of the design
    is formed anew, and visits keep their places; a search over its parameters looks at the rows
    that are left, which `refit=False` does not.  With `known=` levels that lose all their rows
    stay, with what their relatives say of them.

    Parameters
    ----------
    group : a grouping factor, a column of the data or an array; None for single rows.
    refit : estimate theta again; False keeps it, which is quicker and misses what the rows do
        to the variances.
    n_jobs : processes, -1 for all cores.
    progress : called with (done, total); returning False ends early and keeps what is done.

    Returns
    -------
    Influence : `.dfbetas()`, `.deletion_distance()`, `.mdffits()`, `.covratio()`,
        `.variance_change()`, `.estimates()`, `.to_frame()`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.influence("Subject").to_frame().nlargest(3, "cooks").iloc[:, :5].round(3)
             cooks  mdffits  covratio  dfbetas_(Intercept)  dfbetas_Days
    Subject
    309      0.149    0.188     0.890                0.411         0.310
    335      0.129    0.155     0.938               -0.095         0.556
    337      0.126    0.150     0.947               -0.334        -0.325
    """
    refit, n_jobs = require_bool("refit", refit), require_jobs(n_jobs)
    if fit.perfect:
        raise OptionError("the fixed effects fit the response exactly: no row has an influence")
    matrices, system = fit.matrices, fit.system
    if group is None:
        sets = [np.array([i]) for i in range(matrices.nobs)]
        labels: tuple[Any, ...] = _row_labels(fit)
        by = "rows"
    else:
        groups = row_groups(fit, group, "group")
        order = np.argsort(groups.codes, kind="stable")
        counts = np.bincount(groups.codes, minlength=len(groups.labels))
        sets = np.split(order, np.cumsum(counts)[:-1])
        labels, by = groups.labels, groups.name
        if len(sets) < 2:
            raise OptionError(f"group: {by} has {len(sets)} group, which cannot be left out")
    work = steady_refits(_Deletions(fit, sets, refit), system, len(sets))
    size = 1 if n_jobs == 1 else min(PIECE, -(-len(sets) // 8))
    found, _ = run(work, len(sets), size, n_jobs=n_jobs, progress=progress)
    parameters, names = variance_parameters(system), system.x_names
    return Influence(
        by=by,
        labels=labels[: len(found)],
        names=names,
        variance_names=(*(par.name for par in parameters), *residual_names(system)),
        beta=fit.solution.beta,
        variances=np.concatenate(
            [estimated_values(fit, parameters), residual_values(system)]
        ),
        vcov=unit_of_theta(fit) ** 2 * fit.solution.vcov_unscaled,
        deleted_beta=np.array([row[0] for row in found]),
        deleted_vcov=np.array([row[1] for row in found]),
        deleted_variances=np.array([row[2] for row in found]),
        status=tuple(row[3] for row in found),
    )


# coefficients, their covariance, variance parameters, status
Estimates = tuple[Vector, Matrix, Vector, str]


class _Deletions:
    """Estimates without a range of the sets of rows; plain data, to be sent to other processes.

    Parameters
    ----------
    sets : rows of each deletion.
    refit : estimate theta again.
    """

    def __init__(self, fit: FittedModel, sets: Sequence[np.ndarray], refit: bool) -> None:
        self._fit = fit
        self._sets = sets
        self._refit = refit
        self._deletion = Deletion(fit.system)
        self._parameters = variance_parameters(fit.system)
        refits = options_of_refits(fit, reml=fit.reml)
        self._start = refits.start
        self._control = Control(warn=False, second_looks=refits.control.second_looks)

    def __call__(self, tasks: range) -> list[Estimates]:
        with one_blas_thread():
            return [self._without(self._sets[i]) for i in tasks]

    def _without(self, rows: np.ndarray) -> Estimates:
        fit, p, names = self._fit, self._fit.system.p, self._fit.system.x_names
        beta, vcov = np.full(p, np.nan), np.full((p, p), np.nan)
        try:
            if self._refit:
                rest = self._deletion.without(rows)
                optimum = self._optimum(rest)
                theta, status, held = optimum.theta, str(optimum.status), optimum.sigma
                solution = solution_at(optimum, rest)
            else:
                rest = self._deletion.with_rho_kept(rows)
                theta, status, held = fit.theta, "theta kept", fit.optimum.sigma
                solution = solve_pls(theta, rest)
        except SavedFitError:  # not one deletion fails, but there are no rows
            raise
        except MixedModelError as error:
            nothing = np.full(len(self._parameters) + fit.system.n_rho, np.nan)
            return beta, vcov, nothing, f"failed: {error}"
        rest = solution.system
        nu = rest.n - rest.p if fit.reml else rest.n
        sigma = float(np.sqrt(solution.pwrss / nu)) if held is None else held
        at = [names.index(name) for name in rest.x_names]
        beta[at] = solution.beta
        vcov[np.ix_(at, at)] = sigma**2 * solution.vcov_unscaled
        factors = rest.chart.user_factors(rest.chart.factors(rest.chart.phi_of_theta(theta)))
        residual = residual_values(rest if self._refit else fit.system)
        if self._refit and rest.whitened is not None:  # what the rows that are left say nothing of
            residual[rest.whitened.whitening.without_influence()] = np.nan
        variances = parameter_values(self._parameters, factors, sigma)
        return beta, vcov, np.concatenate([variances, residual]), status

    def _optimum(self, rest: PenalizedSystem) -> Optimum:
        return optimize(rest, reml=self._fit.reml, start=self._start, control=self._control)


def _row_labels(fit: FittedModel) -> tuple[Any, ...]:
    matrices = fit.matrices
    if matrices.index is not None and len(matrices.index) == matrices.n_input:
        index = np.asarray(matrices.index)
        return tuple(index if matrices.rows is None else index[matrices.rows])
    rows = np.arange(matrices.nobs) if matrices.rows is None else matrices.rows
    return tuple(int(i) for i in rows)
