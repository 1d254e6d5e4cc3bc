"""Likelihood-ratio test whose reference distribution is simulated from the smaller model.

References
----------
Halekoh and Hojsgaard (2014), A Kenward-Roger approximation and parametric bootstrap methods for
tests in linear mixed models, doi:10.18637/jss.v059.i09.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import chdtrc, fdtrc, gammaincc

from mixlm_sparse.common.checks import MAX_REPLICATES, require_count
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result
from mixlm_sparse.common.types import Vector
from mixlm_sparse.engines.decisions import steady
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.inference.resample.null_model import LinearNull, MixedNull, null_model
from mixlm_sparse.model.draws import Seed, seed_sequence
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.refit_rows import FAILED
from mixlm_sparse.model.refits import RefitBlock, block_size, threads_serve, warm_up
from mixlm_sparse.model.structured import require_independent
from mixlm_sparse.model.warm import options_of_refits

__all__ = ["PBModcomp", "pb_modcomp"]

# Likelihood ratios below this are rounding of two equal criteria.
NEGATIVE_ATOL = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class PBModcomp(PrintsAsTable):
    """A likelihood-ratio test with a simulated reference distribution.

    Parameters
    ----------
    larger, smaller : the formulas.
    statistic : likelihood ratio of the data, both models fitted by ML.
    df : difference in the number of parameters.
    reference : (replicates done,) likelihood ratios of responses simulated from the smaller model,
        NaN where a fit failed.
    status : "ok" or "failed" of each.
    message : why, where it failed.
    nsim : replicates asked for.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> yields = mx.datasets.load("Dyestuff")
    >>> larger = mx.lmer("Yield ~ 1 + (1 | Batch)", yields, reml=False)
    >>> smaller = mx.lmer("Yield ~ 0 + (1 | Batch)", yields, reml=False)
    >>> found = mx.pb_modcomp(larger, smaller, nsim=50, seed=1)
    >>> found.to_frame().shape
    (5, 4)
    """

    larger: str
    smaller: str
    statistic: float
    df: int
    reference: Vector
    status: tuple[str, ...]
    message: tuple[str, ...]
    nsim: int

    @property
    def n_failed(self) -> int:
        """Replicates in which one of the two fits failed."""
        return sum(s == FAILED for s in self.status)

    @property
    def complete(self) -> bool:
        """Whether all replicates were made."""
        return len(self.status) == self.nsim

    @property
    def p_value(self) -> float:
        """Share of the simulated ratios at or above the observed one, itself counted in."""
        values = self.reference[np.isfinite(self.reference)]
        return float((np.sum(values >= self.statistic) + 1.0) / (values.size + 1.0))

    def to_frame(self) -> pd.DataFrame:
        """Return the tests, one in a row: statistic, df, ddf, p_value.

        LRT compares with chi-squared (df); PBtest counts; Gamma and F take the mean and variance of
        the simulated ratios; Bartlett scales the statistic to the mean df.
        """
        values = self.reference[np.isfinite(self.reference)]
        D, df = self.statistic, self.df
        rows: dict[str, tuple[float, float, float, float]] = {
            "LRT": (D, df, np.nan, float(chdtrc(df, D))),
            "PBtest": (D, np.nan, np.nan, self.p_value),
        }
        if values.size > 1 and values.mean() > 0.0:
            mean, variance = float(values.mean()), float(values.var(ddof=1))
            shape, scale = mean**2 / variance, variance / mean
            rows["Gamma"] = (D, np.nan, np.nan, float(gammaincc(shape, D / scale)))
            corrected = D * df / mean
            rows["Bartlett"] = (corrected, df, np.nan, float(chdtrc(df, corrected)))
            # the mean of F(df, ddf) is ddf / (ddf - 2)
            ratio = mean / df
            if ratio > 1.0:
                ddf = 2.0 * ratio / (ratio - 1.0)
                rows["F"] = (D / df, df, ddf, float(fdtrc(df, ddf, D / df)))
            else:
                rows["F"] = (D / df, df, np.inf, float(chdtrc(df, D)))
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=["statistic", "df", "ddf", "p_value"]
        )

    def _table(self) -> ResultTable:
        done = len(self.status)
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        return as_result(
            self.to_frame(),
            heading=f"Parametric bootstrap test, {done} simulations{failed}",
            formulas={"larger": str(self.larger), "smaller": str(self.smaller)},
            absent=["df", "ddf"],
        )


@answers_unknown_keywords
@calm
def pb_modcomp(
    larger: FittedModel,
    smaller: FittedModel | str,
    nsim: int = 1000,
    seed: Seed = None,
    *,
    n_jobs: int = 1,
    progress: Progress = None,
) -> PBModcomp:
    """Test a larger model against a smaller one by the parametric bootstrap.

    Responses are drawn from the smaller model; both models are fitted to each of them by maximum
    likelihood, and the likelihood ratio of the data is compared with theirs.  This holds in small
    samples and for variances on their boundary, where chi-squared does not.

    Parameters
    ----------
    larger : a fit.
    smaller : a fit to the same rows, nested in the larger one; or a formula without random terms,
        which tests all of them at once.
    nsim : simulations.
    seed : whole number, numpy Generator or SeedSequence.
    n_jobs : processes; -1 takes all processors.
    progress : None for a bar in terminals and notebooks, False for silence, or a function of (done,
        total) that returns False to end early.

    Returns
    -------
    PBModcomp : `p_value`, `reference`, `to_frame()`.

    Raises
    ------
    DataError : the models belong to different rows or responses.
    OptionError : the first model does not have more parameters.

    Notes
    -----
    Simulated ratios of zero count, for they are half of the reference distribution when a variance
    is tested; pbkrtest leaves them out.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> larger = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
    >>> smaller = mx.lmer("Reaction ~ 1 + (Days | Subject)", sleep, reml=False)
    >>> test = mx.pb_modcomp(larger, smaller, nsim=99, seed=1)
    >>> round(test.statistic, 2), test.df, test.p_value
    (23.54, 1, 0.01)
    """
    count = require_count("nsim", nsim, most=MAX_REPLICATES)
    if not isinstance(larger, FittedModel):
        raise OptionError("the larger model must be a fit of lmer: fit it first")
    require_independent(larger, "pb_modcomp")
    if isinstance(smaller, FittedModel):
        require_independent(smaller, "pb_modcomp")
    large = larger.refit_ml()
    null = null_model(large, smaller)
    df, statistic = _observed(large, null)
    compiled = warm_up(large.system, count)
    ratios_of = _Ratios(large, null, seed_sequence(seed), compiled)
    work = steady(ratios_of, compiled=compiled)
    options = options_of_refits(large, reml=False)
    threads = threads_serve(large.system, options, compiled=compiled, count=count)
    done, _ = run(
        work, count, block_size(large.system, compiled=compiled), n_jobs=n_jobs, threads=threads,
        progress=progress,
        label="PB test", unit="simulations",
    )  # fmt: skip
    ratios = np.array([ratio for ratio, _ in done], dtype=np.float64)
    return PBModcomp(
        larger=large.formula,
        smaller=null.formula,
        statistic=statistic,
        df=df,
        # equal criteria differ by rounding
        reference=np.where(ratios < 0.0, 0.0, ratios),
        status=tuple(FAILED if why else "ok" for _, why in done),
        message=tuple(why for _, why in done),
        nsim=count,
    )


def _observed(large: FittedModel, null: MixedNull | LinearNull) -> tuple[int, float]:
    """Return the difference in parameters and the likelihood ratio of the data."""
    df = large.n_determined - null.n_par
    if df < 1:
        raise OptionError(
            f"the first model has {large.n_determined} parameters and the second {null.n_par}: "
            "give the larger model first, and a smaller one that is nested in it"
        )
    statistic = null.criterion - large.criterion
    if statistic < -NEGATIVE_ATOL * max(1.0, abs(large.criterion)):
        raise OptionError(
            f"the smaller model fits better, by {-statistic:.4g} in -2 log-likelihood: it is not "
            "nested in the larger one; check both formulas"
        )
    return df, max(statistic, 0.0)


@dataclass(frozen=True, eq=False, slots=True)
class _Ratios:
    """Likelihood ratios of responses drawn from the smaller model, and why there is none."""

    large: FittedModel
    null: MixedNull | LinearNull
    root: np.random.SeedSequence
    compiled: bool

    def __call__(self, tasks: range) -> Iterator[tuple[float, str]]:
        Y = self.null.model.draw(self.root, tasks.start, len(tasks))
        below = list(self.null.criteria(Y, compiled=self.compiled))
        options = options_of_refits(self.large, reml=False)
        above = RefitBlock(self.large.system, Y, options, compiled=self.compiled).criteria()
        for (large, failed), (small, why) in zip(above, below, strict=True):
            yield small - large, failed or why
