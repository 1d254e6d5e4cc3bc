"""The bootstrap: refit the model to new data sets made from the fit, and look at what varies.

parametric      y* drawn from the fitted model
semiparametric  y* from resampled random effects and residuals, both centred and reflated so that
                their covariances are the estimated ones (Carpenter, Goldstein and Rasbash 2003)
cases           rows drawn with replacement
groups          whole groups drawn with replacement; a group drawn twice is two groups

Data set i of a seed has a random stream of its own: results do not depend on the number of
processes, and stopping early gives the first of what the whole would have given.

References
----------
Davison and Hinkley (1997), Bootstrap Methods and their Application, chapter 5, for the intervals;
Carpenter, Goldstein and Rasbash (2003), doi:10.1111/1467-9876.00415.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import (
    MAX_REPLICATES,
    require_bool,
    require_count,
    require_jobs,
    require_one_of,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.engines.decisions import steady
from mixlm_sparse.inference.resample.draws import RowDraw, group_draw
from mixlm_sparse.inference.resample.redraw import Jackknife, Redraw
from mixlm_sparse.inference.resample.responses import Semiparametric, parametric
from mixlm_sparse.inference.resample.result import Bootstrap
from mixlm_sparse.inference.resample.statistic import Replicate, Statistic, StatisticReader
from mixlm_sparse.inference.resample.walk import ResponseRefits
from mixlm_sparse.inference.variance.components import undetermined
from mixlm_sparse.model.draws import Seed, seed_sequence
from mixlm_sparse.model.refits import block_size, steady_refits, threads_serve, warm_up
from mixlm_sparse.model.structured import require_independent
from mixlm_sparse.model.warm import options_of_refits

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["bootstrap"]

METHODS = ("parametric", "semiparametric", "cases", "groups")
# Rows drawn again that one process refits at a time, up to which number of rows.
SMALL_FIT_ROWS = 2000
SMALL_FITS = 16


def bootstrap(
    fit: FittedModel,
    nsim: int = 1000,
    statistic: Statistic | None = None,
    method: str = "parametric",
    seed: Seed = None,
    n_jobs: int = 1,
    progress: Progress = None,
    *,
    use_u: bool = False,
    by: str | None = None,
) -> Bootstrap:
    """Bootstrap the fit.

    Parameters
    ----------
    nsim : number of replicates.
    statistic : function of a fit that returns a number, an array, a Series or a dict; None for
        all parameters, by the names of `confint`.
    method : "parametric" draws from the fitted model; "semiparametric" resamples predicted
        random effects and residuals, reflated to the estimated covariances; "cases" resamples
        rows, "groups" whole groups.
    seed : whole number, numpy Generator or SeedSequence; the samples are the same for any
        `n_jobs`.
    n_jobs : threads where the refits are compiled calls (new responses of a model with one grouping
        factor, or few random effects, and no `statistic`), else processes; -1 takes all processors.
    progress : None for a bar in terminals and notebooks, False for silence, or a function of
        (done, total) that returns False to end early; what is done is kept, as it is after
        Ctrl-C.
    use_u : hold the random effects at their fitted values ("parametric", "semiparametric").
    by : the grouping factor whose groups are drawn (method "groups"); by default the one in
        which the others are nested.

    Returns
    -------
    Bootstrap : `samples`, `confint(level, type)`, `to_frame()`, `failures`.

    Raises
    ------
    OptionError : unknown method, options that do not go together, a perfect fit.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> boot = fit.bootstrap(50, seed=1)
    >>> boot.samples.shape, list(boot.samples.columns)
    ((50, 3), ['sd_(Intercept)|Batch', 'sigma', '(Intercept)'])
    """
    use_u, n_jobs = require_bool("use_u", use_u), require_jobs(n_jobs)
    count = require_count("nsim", nsim, most=MAX_REPLICATES)
    _require_consistent(fit, statistic, method, use_u, by)
    if method != "parametric":
        remedy = 'use method="parametric", which draws from the structure'
        require_independent(fit, f"bootstrap by {method}", remedy)
    reader = StatisticReader(fit, statistic)
    root = seed_sequence(seed)
    options = options_of_refits(fit, reml=fit.reml)
    work: Callable[[range], Iterable[Replicate]]
    threads = False
    if method in ("parametric", "semiparametric"):
        draw = (
            parametric(fit, root, use_u=use_u) if method == "parametric"
            else Semiparametric(fit, root, use_u=use_u)
        )  # fmt: skip
        compiled = warm_up(fit.system, count)
        refits = ResponseRefits(fit.system, draw, reader, options, compiled)
        work = steady(refits, compiled=compiled)
        threads = statistic is None and threads_serve(
            fit.system, options, compiled=compiled, count=count
        )
        # a function of the user's own may take long: there is something for every process
        size = block_size(fit.system, compiled=compiled or statistic is not None)
    else:
        groups = group_draw(fit, by) if method == "groups" else None
        redraws = Redraw(fit, RowDraw(fit.matrices), groups, root, reader, options)
        work = steady_refits(redraws, fit.system, count)
        size = 1 if fit.nobs > SMALL_FIT_ROWS else SMALL_FITS
    if n_jobs != 1:
        # what is loaded and compiled here need not be in every process
        next(iter(work(range(1))))
    done, _ = run(
        work, count, size, n_jobs=n_jobs, threads=threads, progress=progress,
        label="bootstrap", unit="replicates",
    )  # fmt: skip
    values = np.full((len(done), len(reader.names)), np.nan)
    for i, (sample, _, _) in enumerate(done):
        if sample is not None:
            values[i] = sample
    return Bootstrap(
        method=method,
        original=pd.Series(reader.original, index=reader.names, dtype=np.float64),
        kinds=reader.kinds,
        samples=pd.DataFrame(values, columns=reader.names),
        status=tuple(status for _, status, _ in done),
        message=tuple(message for _, _, message in done),
        nsim=count,
        entropy=root.entropy,
        jackknife_values=Jackknife(fit, reader, options, by),
        unknown=undetermined(fit) if statistic is None else {},
    )


def _require_consistent(
    fit: FittedModel, statistic: object, method: str, use_u: bool, by: str | None
) -> None:
    require_one_of("method", method, METHODS)
    if statistic is not None and not callable(statistic):
        raise OptionError(
            f"statistic is {statistic!r}: use a function of a fit that returns a number, a Series "
            "or a dict, or None for all parameters"
        )
    if by is not None and method != "groups":
        raise OptionError(
            f'by says whose groups are drawn: use it with method="groups", not {method!r}'
        )
    if use_u and method in ("cases", "groups"):
        raise OptionError(
            f'use_u keeps the random effects of the fit, which method="{method}" does not: use '
            '"parametric" or "semiparametric"'
        )
    if fit.perfect:
        raise OptionError(
            "the fit is perfect, sigma is zero: there is nothing to draw; check the response"
        )
