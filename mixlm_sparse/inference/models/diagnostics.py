"""Singularity, principal components of the random effects, every optimizer side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import (
    listed,
    require_bool,
    require_instance,
    require_names,
    require_number,
    shown,
)
from mixlm_sparse.common.errors import (
    MixedModelError,
    OptionError,
    RowsAbsentError,
    SavedFitError,
    UnknownKeyError,
)
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.tables import (
    PrintsAsTable,
    ResultTable,
    Tables,
    as_result,
    result_table,
)
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.singularity import SINGULAR_TOL, relative_spread, singular_reasons
from mixlm_sparse.solve.search.names import OPTIMIZERS

# Optimizers that search, each once ("auto" is one of them).
SEARCHES = tuple(name for name in OPTIMIZERS if name != "auto")
NOT_DETERMINED = "not determined by the data"


@result_table("Singularity of each random term")
def singularity(fit: FittedModel, tol: float = SINGULAR_TOL) -> pd.DataFrame:
    """Judge each random term for singularity, free of scale and as lme4 does.

    Parameters
    ----------
    tol : standard deviations below this share of the residual's count as zero.

    Returns
    -------
    DataFrame by term: effects, smallest_sd (of a combination of the term's effects, relative
    to sigma, over columns of length one), singular, lme4_theta (smallest diagonal element of
    the raw factor, which depends on a predictor's unit), lme4_singular, reason.  Of a term that
    the data do not determine the numbers are NaN, and it is not called singular.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> machines = mx.datasets.load("Machines")
    >>> fit = mx.lmer("score ~ Machine + (1 | Worker/Machine)", machines)
    >>> fit.singularity()
    Singularity of each random term
    term            effects      smallest_sd  singular  lme4_theta  lme4_singular
    Machine:Worker  (Intercept)        3.879  False          3.879  False
    Worker          (Intercept)        4.972  False          4.972  False
    """
    tol = require_number("tol", tol, least=0.0)
    if not tol > 0.0:
        raise OptionError(f"tol is {tol!r}: use a small positive number such as 1e-4")
    system, theta = fit.system, fit.theta
    spreads = relative_spread(system, theta)
    judged = fit.identification
    reasons = iter(singular_reasons(system, theta, tol, judged))
    rows = []
    for term, part, spread, known in zip(
        system.matrices.terms, system.chart.slices, spreads, judged.entries, strict=True
    ):
        effects = ", ".join(term.column_names)
        if not known.all():
            rows.append((term.name, effects, np.nan, False, np.nan, False, NOT_DETERMINED))
            continue
        bounded = theta[part][system.lower[part] == 0.0]
        least = float(bounded.min()) if bounded.size else np.nan
        singular = bool(spread[-1] < tol)
        rows.append((
            term.name, effects, float(spread[-1]), singular,
            least, bool(least < tol), next(reasons) if singular else "",
        ))  # fmt: skip
    columns = [
        "term", "effects", "smallest_sd", "singular", "lme4_theta", "lme4_singular", "reason",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).set_index("term")


def rePCA(fit: FittedModel, scaled: bool = False) -> dict[str, pd.DataFrame]:
    """Return principal components of the random-effects covariance by grouping factor.

    Parameters
    ----------
    scaled : weigh each effect by the length of its column, so that components do not depend on
        a predictor's unit; lme4 does not.

    Returns
    -------
    dict from grouping factor to a DataFrame with rows PC1, PC2, ... and columns sd (relative to
    sigma), proportion, cumulative, and the loading of each effect; NaN for a grouping factor whose
    covariances the data do not determine.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.rePCA()["Subject"].round(3)
            sd  proportion  cumulative  (Intercept)   Days
    PC1  0.967       0.946       0.946        1.000  0.017
    PC2  0.231       0.054       1.000       -0.017  1.000
    """
    scaled = require_bool("scaled", scaled)
    system = fit.system
    blocks = [fit.solution.Lambda(t) for t in range(len(fit.matrices.terms))]
    if scaled:
        # lengths of the columns: effects count by what they do to the response
        blocks = [
            np.sqrt((Rz * Rz).sum(axis=0))[:, None] * T
            for Rz, T in zip(system.products.Rz, blocks, strict=True)
        ]
    merged = system.chart.merge(blocks)
    out = Tables()
    for g, (factor, Lambda) in enumerate(zip(fit.matrices.factors, merged, strict=True)):
        effects = [""] * Lambda.shape[0]
        for term, place in zip(fit.matrices.terms, system.products.layout, strict=True):
            if place.factor == g:
                effects[place.columns] = list(term.column_names)
        found = _components(Lambda, effects)
        entries = zip(fit.identification.entries, system.products.layout, strict=True)
        known = all(one.all() for one, place in entries if place.factor == g)
        out[factor.label] = as_result(
            found if known else found * np.nan, heading=f"Principal components of {factor.label}"
        )
    return out


def _components(Lambda: Matrix, effects: list[str]) -> pd.DataFrame:
    left, sd, _ = np.linalg.svd(Lambda)
    variance = sd * sd
    total = float(variance.sum())
    share = variance / total if total > 0.0 else np.zeros_like(variance)
    # the sign of a component is arbitrary: let its largest loading be positive
    largest = np.abs(left).argmax(axis=0)
    left = left * np.where(left[largest, np.arange(sd.size)] < 0.0, -1.0, 1.0)
    frame = pd.DataFrame({"sd": sd, "proportion": share, "cumulative": np.cumsum(share)})
    loadings = pd.DataFrame(left.T, columns=effects)
    out = pd.concat([frame, loadings], axis=1)
    out.index = pd.Index([f"PC{i + 1}" for i in range(sd.size)])
    return out


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class AllFits(PrintsAsTable, Mapping[str, FittedModel]):
    """One model fitted by every optimizer; a mapping from optimizer to fit.

    Parameters
    ----------
    fits : by optimizer; failures : optimizer and message of those that raised an error.
    seconds : by optimizer, the whole refit.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fits = mx.all_fit(fit, ["bfgs", "bobyqa"])
    >>> fits["bobyqa"].fixef.round(3)
    (Intercept)    251.405
    Days            10.467
    dtype: float64
    """

    fits: dict[str, FittedModel]
    failures: dict[str, str]
    seconds: dict[str, float]

    def __getitem__(self, name: str) -> FittedModel:
        if isinstance(name, str) and name in self.fits:
            return self.fits[name]
        known = listed(self.fits, quoted=True)
        raise UnknownKeyError(f"there is no fit by {shown(name)}: use one of {known}")

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.fits)

    def __len__(self) -> int:
        return len(self.fits)

    def to_frame(self) -> pd.DataFrame:
        """Return criterion, its excess over the best, effort, status and estimates, a row each."""
        best = min((fit.criterion for fit in self.fits.values()), default=np.nan)
        rows: dict[str, dict[str, object]] = {}
        for name, fit in self.fits.items():
            report = fit.convergence
            rows[name] = {
                "criterion": fit.criterion,
                "excess": fit.criterion - best,
                "predicted_decrease": report.predicted_decrease,
                "evaluations": report.n_evaluations,
                "seconds": self.seconds[name],
                "status": report.status,
                "sigma": fit.sigma,
                **dict(zip(fit.theta_names, fit.theta.tolist(), strict=True)),
                **dict(zip(fit.system.x_names, fit.solution.beta.tolist(), strict=True)),
            }
        for name, message in self.failures.items():
            rows[name] = {"status": f"failed: {message}"}
        return pd.DataFrame.from_dict(rows, orient="index")

    def spread(self) -> pd.Series[float]:
        """Return, by estimate, the largest difference between two optimizers."""
        frame = self.to_frame()
        estimates = frame.iloc[:, frame.columns.get_loc("sigma") :]
        return (estimates.max() - estimates.min()).astype(np.float64)

    def _table(self) -> ResultTable:
        return as_result(self.to_frame().iloc[:, :7], heading="One model by several optimizers")


@answers_unknown_keywords
def all_fit(fit: FittedModel, optimizers: object = None, *, progress: Progress = None) -> AllFits:
    """Fit again by every optimizer, side by side.

    Parameters
    ----------
    optimizers : names, or None for all.
    progress : called with (done, total); returning False ends early.

    Returns
    -------
    AllFits : `.to_frame()` with criterion, its excess over the best, evaluations, seconds,
        status and estimates; `.spread()` the largest differences; a mapping to the fits.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fits = fit.all_fit(["bfgs", "bobyqa"])
    >>> fits.to_frame()["criterion"].round(4)
    bfgs      1743.6283
    bobyqa    1743.6283
    Name: criterion, dtype: float64
    """
    require_instance("fit", fit, FittedModel, "give a fit of lmer")
    names = list(SEARCHES)
    if optimizers is not None:
        names = require_names("optimizers", optimizers, SEARCHES, "optimizer")
    quiet = replace(fit.options.control, warn=False)
    found: dict[str, FittedModel] = {}
    failures: dict[str, str] = {}
    seconds: dict[str, float] = {}

    def work(tasks: range) -> list[None]:
        for i in tasks:
            began = time.perf_counter()
            try:
                found[names[i]] = fit.update(optimizer=names[i], control=quiet)
            except (SavedFitError, RowsAbsentError):  # of no optimizer's making
                raise
            except MixedModelError as error:
                failures[names[i]] = str(error)
            seconds[names[i]] = time.perf_counter() - began
        return [None for _ in tasks]

    run(work, len(names), 1, progress=progress)
    return AllFits(found, failures, seconds)
