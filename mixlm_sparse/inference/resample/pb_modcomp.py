"""Likelihood-ratio test whose reference distribution is simulated from the smaller model.

References
----------
Halekoh and Hojsgaard (2014), A Kenward-Roger approximation and parametric bootstrap methods for
tests in linear mixed models, doi:10.18637/jss.v059.i09.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from mixlm_sparse.common.checks import require_count
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.build import ModelMatrices, model_matrices
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.inference.resample.walk import warm_start
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.refits import FAILED, block_size, quiet, refit_block, warm_up
from mixlm_sparse.model.simulate import (
    ResponseModel,
    Seed,
    model_of_fit,
    seed_sequence,
)
from mixlm_sparse.solve.products.basis import stack_qr
from mixlm_sparse.solve.rows import BLOCK_ROWS, row_blocks

if TYPE_CHECKING:
    from mixlm_sparse.model.run import ModelCall

__all__ = ["PBModcomp", "pb_modcomp"]

# Columns of X below this share of their length, after the others, are combinations of them.
RANK_RTOL = 1e-7
# Likelihood ratios below this are rounding of two equal criteria.
NEGATIVE_ATOL = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class PBModcomp:
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
        """Return the tests, one in a row: stat, df, ddf, p_value.

        LRT compares with chi-squared (df); PBtest counts; Gamma and F take the mean and variance of
        the simulated ratios; Bartlett scales the statistic to the mean df.
        """
        values = self.reference[np.isfinite(self.reference)]
        D, df = self.statistic, self.df
        rows: dict[str, tuple[float, float, float, float]] = {
            "LRT": (D, df, np.nan, float(stats.chi2.sf(D, df))),
            "PBtest": (D, np.nan, np.nan, self.p_value),
        }
        if values.size > 1 and values.mean() > 0.0:
            mean, variance = float(values.mean()), float(values.var(ddof=1))
            shape, scale = mean**2 / variance, variance / mean
            rows["Gamma"] = (D, np.nan, np.nan, float(stats.gamma.sf(D, shape, scale=scale)))
            corrected = D * df / mean
            rows["Bartlett"] = (corrected, df, np.nan, float(stats.chi2.sf(corrected, df)))
            # the mean of F(df, ddf) is ddf / (ddf - 2)
            ratio = mean / df
            if ratio > 1.0:
                ddf = 2.0 * ratio / (ratio - 1.0)
                rows["F"] = (D / df, df, ddf, float(stats.f.sf(D / df, df, ddf)))
            else:
                rows["F"] = (D / df, df, np.inf, float(stats.chi2.sf(D, df)))
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=["stat", "df", "ddf", "p_value"]
        )

    def __repr__(self) -> str:
        done = len(self.status)
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        return (
            f"Parametric bootstrap test, {done} simulations{failed}\n"
            f"larger : {self.larger}\nsmaller: {self.smaller}\n{self.to_frame().to_string()}"
        )


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
    count = require_count("nsim", nsim)
    if not isinstance(larger, FittedModel):
        raise OptionError("the larger model must be a fit of lmer: fit it first")
    large = larger.refit_ml()
    null = _null_model(large, smaller)
    df = large.n_par - null.n_par
    if df < 1:
        raise OptionError(
            f"the first model has {large.n_par} parameters and the second {null.n_par}: give the "
            "larger model first, and a smaller one that is nested in it"
        )
    root = seed_sequence(seed)
    statistic = null.criterion - large.criterion
    if statistic < -NEGATIVE_ATOL * max(1.0, abs(large.criterion)):
        raise OptionError(
            f"the smaller model fits better, by {-statistic:.4g} in -2 log-likelihood: it is not "
            "nested in the larger one; check both formulas"
        )
    options = replace(quiet(large.options), reml=False, start=warm_start(large))
    compiled = warm_up(large.system, count)

    def work(tasks: range) -> Iterator[tuple[float, str]]:
        Y = null.model.draw(root, tasks.start, len(tasks))
        below = list(null.criteria(Y, compiled=compiled))
        above = refit_block(large.system, Y, options, compiled=compiled)
        for big, (small, why) in zip(above, below, strict=True):
            yield small - big.criterion, big.message if big.optimum is None else why

    size = block_size(large.system)
    done, _ = run(
        work, count, size, n_jobs=n_jobs, progress=progress, label="PB test", unit="simulations"
    )
    ratios = np.array([ratio for ratio, _ in done], dtype=np.float64)
    return PBModcomp(
        larger=large.formula,
        smaller=null.formula,
        statistic=max(statistic, 0.0),
        df=df,
        # equal criteria differ by rounding
        reference=np.where(ratios < 0.0, 0.0, ratios),
        status=tuple(FAILED if why else "ok" for _, why in done),
        message=tuple(why for _, why in done),
        nsim=count,
    )


@dataclass(frozen=True, slots=True)
class _MixedNull:
    """A smaller model with random effects."""

    fit: FittedModel
    model: ResponseModel

    @property
    def n_par(self) -> int:
        return self.fit.n_par

    @property
    def criterion(self) -> float:
        return self.fit.criterion

    @property
    def formula(self) -> str:
        return self.fit.formula

    def criteria(self, Y: Matrix, *, compiled: bool) -> Iterator[tuple[float, str]]:
        options = replace(quiet(self.fit.options), reml=False, start=warm_start(self.fit))
        for refit in refit_block(self.fit.system, Y, options, compiled=compiled):
            yield refit.criterion, refit.message if refit.optimum is None else ""


@dataclass(frozen=True, slots=True)
class _LinearNull:
    """A smaller model without random effects: weighted least squares."""

    formula: str
    Q: Matrix  # (n, p) orthonormal columns of sqrt(W) X
    root_w: Vector | None
    offset: Vector | None
    log_weight_sum: float
    criterion: float
    model: ResponseModel

    @property
    def n_par(self) -> int:
        return int(self.Q.shape[1]) + 1

    def criteria(self, Y: Matrix, *, compiled: bool) -> Iterator[tuple[float, str]]:
        target = Y if self.offset is None else Y - self.offset[:, None]
        rss = _residual_squares(target, self.Q, self.root_w)[1]
        n = Y.shape[0]
        for value in rss.tolist():
            yield n * (1.0 + np.log(2.0 * np.pi * value / n)) - self.log_weight_sum, ""


def _residual_squares(target: Matrix, Q: Matrix, root_w: Vector | None) -> tuple[Matrix, Vector]:
    """Return weighted fitted values (n, r) and residual sums of squares (r,)."""
    scaled = target if root_w is None else target * root_w[:, None]
    fitted = Q @ (Q.T @ scaled)
    rest = scaled - fitted
    more = Q @ (Q.T @ rest)
    rest = rest - more
    return fitted + more, (rest * rest).sum(axis=0)


def _null_model(large: FittedModel, smaller: FittedModel | str) -> _MixedNull | _LinearNull:
    if isinstance(smaller, FittedModel):
        _require_same_data(large.matrices, smaller.matrices)
        fit = smaller.refit_ml()
        if fit.perfect:
            raise OptionError("the smaller model fits perfectly, sigma is zero: nothing to draw")
        return _MixedNull(fit, model_of_fit(fit)[0])
    if not isinstance(smaller, str):
        raise OptionError(
            f"the smaller model is a {type(smaller).__name__}: give a fit, or a formula without "
            "random terms"
        )
    formula = parse_formula(smaller, require_random=False)
    if formula.random:
        raise OptionError(
            f"'{smaller}' has random terms: fit it with lmer first; only a formula without random "
            "terms is fitted here"
        )
    if large.call is None:
        raise OptionError("the larger model was made from matrices: give the smaller one as a fit")
    return _linear_null(large, smaller, large.call)


def _linear_null(large: FittedModel, text: str, call: ModelCall) -> _LinearNull:
    matrices = model_matrices(
        parse_formula(text, require_random=False),
        call.data,
        weights=call.weights,
        offset=call.offset,
        subset=call.subset,
        contrasts={
            name: choice for name, choice in (call.contrasts or {}).items() if name in text
        },
        env=call.env,
    )
    if call.response is not None and matrices.nobs == large.nobs:
        matrices = replace(matrices, y=call.response)
    rows = large.matrices.rows
    if matrices.nobs != large.nobs and rows is not None:
        # rows that only the larger model leaves out, for cells missing in its own columns
        own = np.arange(matrices.n_input) if matrices.rows is None else matrices.rows
        keep = np.isin(own, rows)
    else:
        keep = np.ones(matrices.nobs, dtype=bool)
    y = matrices.y[keep]
    if y.shape != large.matrices.y.shape or not np.array_equal(y, large.matrices.y):
        raise DataError(
            "the two models belong to different rows or responses: fit both to the rows that are "
            "complete in all their columns"
        )
    w = matrices.weights[keep] if matrices.weights is not None else None
    o = matrices.offset[keep] if matrices.offset is not None else None
    root_w = None if w is None else np.sqrt(w)
    X = matrices.X[keep]
    if root_w is not None:
        X = X * root_w[:, None]
    Q = _orthonormal(X)
    target = (y if o is None else y - o)[:, None]
    fitted, rss = _residual_squares(target, Q, root_w)
    n = y.size
    if not rss[0] > 0.0:
        raise OptionError("the smaller model fits perfectly, sigma is zero: nothing to draw")
    sigma = float(np.sqrt(rss[0] / n))
    mean = fitted[:, 0] if root_w is None else fitted[:, 0] / root_w
    log_w = 0.0 if w is None else float(np.log(w).sum())
    return _LinearNull(
        formula=text,
        Q=Q,
        root_w=root_w,
        offset=o,
        log_weight_sum=log_w,
        criterion=float(n * (1.0 + np.log(2.0 * np.pi * rss[0] / n)) - log_w),
        model=ResponseModel(
            mean if o is None else mean + o, (), sigma if root_w is None else sigma / root_w
        ),
    )


def _orthonormal(X: Matrix) -> Matrix:
    """Return an orthonormal basis of the columns of X (n, p), combinations left out."""
    kept: list[int] = []
    R: Matrix | None = None
    for rows in row_blocks(X.shape[0], BLOCK_ROWS):
        R = stack_qr(R, X[rows])
    assert R is not None
    Q = np.zeros((R.shape[0], 0))
    for j in range(X.shape[1]):
        left = R[:, j] - Q @ (Q.T @ R[:, j])
        left -= Q @ (Q.T @ left)
        length = float(np.sqrt(left @ left))
        if length > RANK_RTOL * float(np.sqrt(R[:, j] @ R[:, j])):
            Q = np.column_stack([Q, left / length])
            kept.append(j)
    return np.asarray(np.linalg.qr(X[:, kept])[0])


def _require_same_data(a: ModelMatrices, b: ModelMatrices) -> None:
    if a.nobs != b.nobs:
        raise DataError(
            f"the models belong to different rows, {a.nobs} and {b.nobs}: fit both to the rows "
            "that are complete in all their columns"
        )
    if not np.array_equal(a.y, b.y):
        raise DataError(
            f"the models have different responses, '{a.response_name}' and '{b.response_name}': "
            "fit both to the same one"
        )
    for what, first, second in (
        ("weights", a.weights, b.weights),
        ("offsets", a.offset, b.offset),
    ):
        same = first is second or (
            first is not None and second is not None and np.array_equal(first, second)
        )
        if not same:
            raise DataError(f"the models have different {what}: fit both with the same ones")
