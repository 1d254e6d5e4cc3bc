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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import MixedModelError, OptionError
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.resample.draws import GroupDraw, RowDraw, group_draw
from mixlm_sparse.inference.resample.intervals import TYPES, interval
from mixlm_sparse.model.parameters import (
    chosen_names,
    parameter_values,
    require_level,
    variance_parameters,
)
from mixlm_sparse.model.refits import FAILED, Refit, block_size, quiet, refit_block, search, warm_up
from mixlm_sparse.model.run import FitOptions, require_one_of
from mixlm_sparse.model.simulate import Seed, checked_count, model_of_fit, seed_sequence, stream
from mixlm_sparse.solve.pls import penalized_system

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["Bootstrap", "bootstrap"]

METHODS = ("parametric", "semiparametric", "cases", "groups")
# A covariance of predicted effects whose eigenvalues fall below this share of the largest has no
# direction there to reflate.
REFLATION_RTOL = 1e-10
Statistic = Callable[[Any], Any]
# values, status, message
Replicate = tuple[Vector | None, str, str]


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap:
    """What a bootstrap gave.

    Parameters
    ----------
    method : "parametric", "semiparametric", "cases" or "groups".
    original : (k,) the statistic of the fit itself, by name.
    samples : (replicates done, k) the statistic of each refit, NaN where it failed.
    status, message : of each refit: "converged", "singular", ... or "failed".
    nsim : replicates asked for.
    entropy : of the seed; `bootstrap(seed=entropy)` gives the same samples again.
    """

    method: str
    original: pd.Series[float]
    samples: pd.DataFrame
    status: tuple[str, ...]
    message: tuple[str, ...]
    nsim: int
    entropy: Any
    jackknife_values: Callable[[], Matrix] = field(repr=False)
    _kept: dict[str, Matrix] = field(default_factory=dict)

    @property
    def n_done(self) -> int:
        """Replicates that were made."""
        return len(self.status)

    @property
    def complete(self) -> bool:
        """Whether all replicates were made; False after an early end."""
        return self.n_done == self.nsim

    @property
    def n_failed(self) -> int:
        """Replicates without a fit or without a value of the statistic."""
        return sum(s == FAILED for s in self.status)

    @property
    def failures(self) -> pd.DataFrame:
        """The replicates that failed, with the reason."""
        failed = [i for i, s in enumerate(self.status) if s == FAILED]
        return pd.DataFrame(
            {"replicate": failed, "message": [self.message[i] for i in failed]}
        )

    def to_frame(self, level: float = 0.95, type: str = "percentile") -> pd.DataFrame:
        """Return a row for each parameter: estimate, mean, bias, std_error, lower, upper, n.

        Parameters
        ----------
        level, type : of the interval, as in `confint`.
        """
        values = self.samples
        limits = self.confint(level, type)
        return pd.DataFrame(
            {
                "estimate": self.original,
                "mean": values.mean(),
                "bias": values.mean() - self.original,
                "std_error": values.std(ddof=1),
                "lower": limits["lower"],
                "upper": limits["upper"],
                "n": values.notna().sum(),
            },
            index=self.original.index,
        )

    def confint(
        self, level: float = 0.95, type: str = "percentile", parm: Any = None
    ) -> pd.DataFrame:
        """Return intervals.

        Parameters
        ----------
        level : coverage between 0 and 1.
        type : "percentile"; "basic", the percentiles reflected at the estimate; "normal", estimate
            less bias with normal limits; "bca", percentiles corrected for bias and for the change
            of the standard error with the parameter (its acceleration comes from leaving out one
            group at a time, so that it costs as many fits as there are groups).
        parm : a name or names, "theta_" or "beta_"; None for all.

        Returns
        -------
        DataFrame with columns lower, upper.

        Raises
        ------
        OptionError : unknown type or name, or a level outside of (0, 1).
        """
        level = require_level(level)
        require_one_of("type", type, TYPES)
        if self.n_done - self.n_failed < 2:
            raise OptionError(
                f"only {self.n_done - self.n_failed} replicates gave a value, too few for an "
                "interval: look at .failures, or raise nsim"
            )
        names = chosen_names(parm, list(self.original.index))
        left_out = self._jackknife() if type == "bca" else None
        limits = []
        for name in names:
            at = self.original.index.get_loc(name)
            limits.append(
                interval(
                    self.samples[name].to_numpy(),
                    float(self.original[name]),
                    level,
                    type,
                    None if left_out is None else left_out[:, at],
                )
            )
        return pd.DataFrame(limits, index=names, columns=["lower", "upper"], dtype=np.float64)

    def _jackknife(self) -> Matrix:
        if "jackknife" not in self._kept:
            self._kept["jackknife"] = self.jackknife_values()
        return self._kept["jackknife"]

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{self.status.count(s)} {s}" for s in dict.fromkeys(self.status) if s != "converged"
        )
        early = "" if self.complete else f" of {self.nsim}, ended early"
        return (
            f"<Bootstrap, {self.method}: {self.n_done} replicates{early}"
            f"{'; ' + counts if counts else ''}>\n{self.to_frame().to_string()}"
        )


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
    """Bootstrap a fit; the arguments are those of `LinearMixedFit.bootstrap`."""
    count = checked_count(nsim)
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
    reader = _Reader(fit, statistic)
    root = seed_sequence(seed)
    options = replace(quiet(fit.options), reml=fit.reml, start=warm_start(fit))
    if method in ("parametric", "semiparametric"):
        draw = (
            _parametric(fit, root, use_u) if method == "parametric"
            else _Semiparametric(fit, root, use_u)
        )  # fmt: skip
        compiled = warm_up(fit.system, count)
        size = block_size(fit.system)

        def work(tasks: range) -> Iterator[Replicate]:
            Y = draw(tasks.start, len(tasks))
            for refit in refit_block(fit.system, Y, options, compiled=compiled):
                yield reader.replicate(refit)

    else:
        rows = RowDraw(fit.matrices)
        groups = group_draw(fit, by) if method == "groups" else None
        size = 1 if fit.nobs > 2000 else 16

        def work(tasks: range) -> Iterator[Replicate]:
            for i in tasks:
                yield _redrawn(fit, rows, groups, stream(root, i), reader, options)

    if n_jobs != 1:
        # what is loaded and compiled here need not be in every process
        next(iter(work(range(1))))
    done, _ = run(
        work, count, size, n_jobs=n_jobs, progress=progress, label="bootstrap", unit="replicates"
    )
    values = np.full((len(done), len(reader.names)), np.nan)
    for i, (sample, _, _) in enumerate(done):
        if sample is not None:
            values[i] = sample
    return Bootstrap(
        method=method,
        original=pd.Series(reader.original, index=reader.names, dtype=np.float64),
        samples=pd.DataFrame(values, columns=reader.names),
        status=tuple(status for _, status, _ in done),
        message=tuple(message for _, _, message in done),
        nsim=count,
        entropy=root.entropy,
        jackknife_values=partial(jackknife, fit, reader, options, by),
    )


def warm_start(fit: FittedModel) -> Vector | None:
    """Return theta to start refits from; a singular one is a saddle, a bad place to start."""
    return None if fit.is_singular() else fit.theta


class _Reader:
    """Reads the statistic off a fit: all parameters, or what the user's function returns."""

    def __init__(self, fit: FittedModel, statistic: Statistic | None) -> None:
        self._fit = fit
        self._statistic = statistic
        self._parameters = variance_parameters(fit.system)
        if statistic is None:
            self.names = [par.name for par in self._parameters] + list(fit.system.x_names)
            self.original = self._values(
                Refit(fit.system, fit.optimum, fit.solution, fit.optimum.message)
            )
            return
        names, self.original = as_values(statistic(fit))
        self.names = [f"t{i + 1}" for i in range(self.original.size)] if names is None else names

    def _values(self, refit: Refit) -> Vector:
        assert refit.solution is not None
        assert refit.optimum is not None
        if self._statistic is None:
            factors = refit.system.factors_of(refit.optimum.theta)
            spread = parameter_values(self._parameters, factors, refit.sigma)
            beta = refit.solution.beta
            if refit.system.x_names != self._fit.system.x_names:
                # other columns may be combinations of earlier ones in rows drawn again
                found = dict(zip(refit.system.x_names, beta.tolist(), strict=True))
                beta = np.array([found.get(name, np.nan) for name in self._fit.system.x_names])
            return np.concatenate([spread, beta])
        return as_values(self._statistic(self.fit_of(refit)))[1]

    def fit_of(self, refit: Refit) -> FittedModel:
        """Return a fit of the same class as the original's."""
        assert refit.optimum is not None
        assert refit.solution is not None
        call = self._fit.call
        if call is not None:
            call = replace(call, response=refit.system.matrices.y)
        return replace(
            self._fit,
            system=refit.system,
            optimum=refit.optimum,
            solution=refit.solution,
            call=call,
            notes=(),
        )

    def replicate(self, refit: Refit) -> Replicate:
        if refit.optimum is None:
            return None, FAILED, refit.message
        try:
            values = self._values(refit)
        except Exception as error:  # the user's function may raise anything
            return None, FAILED, f"the statistic raised {type(error).__name__}: {error}"
        if hasattr(self, "original") and values.shape != self.original.shape:
            return (
                None,
                FAILED,
                f"the statistic has {values.size} values, that of the fit has {self.original.size}",
            )
        return values, refit.optimum.status, refit.message


def as_values(value: Any) -> tuple[list[str] | None, Vector]:
    """Return names (if there are any) and values of what a statistic returned."""
    names: list[str] | None = None
    if isinstance(value, pd.DataFrame):
        names = [f"{row}.{column}" for row in value.index for column in value.columns]
        value = value.to_numpy()
    elif isinstance(value, pd.Series):
        names = [str(name) for name in value.index]
        value = value.to_numpy()
    elif isinstance(value, Mapping):
        names = [str(name) for name in value]
        value = list(value.values())
    try:
        values = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise OptionError(
            f"the statistic returned {type(value).__name__}: return a number, an array of numbers, "
            "a Series or a dict"
        ) from None
    return names, values


# ---------------------------------------------------------------------------------------------
# New responses
# ---------------------------------------------------------------------------------------------


def _parametric(
    fit: FittedModel, root: np.random.SeedSequence, use_u: bool
) -> Callable[[int, int], Matrix]:
    model, _ = model_of_fit(fit, use_u=use_u)

    def draw(first: int, count: int) -> Matrix:
        return model.draw(root, first, count)

    return draw


class _Semiparametric:
    """Responses from resampled effects and residuals."""

    def __init__(self, fit: FittedModel, root: np.random.SeedSequence, use_u: bool) -> None:
        self._root = root
        m = fit.matrices
        self._mean = fit.fitted_used if use_u else fit.solution.fitted(include_random=False)
        self._effects = []
        if not use_u:
            for t, term in enumerate(m.terms):
                T = fit.sigma * fit.solution.Lambda(t)
                pool = reflated(fit.solution.b(t), T @ T.T)
                self._effects.append((term.columns, m.factors[term.factor].codes, pool))
        residuals = fit.pearson_used - fit.pearson_used.mean()
        size = float(np.sqrt(np.mean(residuals**2)))
        self._residuals = residuals * (fit.sigma / size if size > 0.0 else 0.0)
        self._scale = None if m.weights is None else 1.0 / np.sqrt(m.weights)

    def __call__(self, first: int, count: int) -> Matrix:
        n = self._mean.size
        out = np.empty((n, count))
        for i in range(count):
            rng = stream(self._root, first + i)
            y = self._mean.copy()
            for columns, codes, pool in self._effects:
                b = pool[rng.integers(pool.shape[0], size=pool.shape[0])]
                y += np.einsum("ik,ik->i", columns.block(slice(0, n)), b[codes])
            e = self._residuals[rng.integers(n, size=n)]
            out[:, i] = y + (e if self._scale is None else e * self._scale)
        return out


def reflated(b: Matrix, covariance: Matrix) -> Matrix:
    """Return predicted effects (L, k), centred and mapped to have the given covariance.

    Predictions are shrunken: their own covariance S is smaller than the estimate R.  With
    S = V diag(s) V' on its positive part, b A has covariance R for A = S^{-1/2} (S^{1/2} R
    S^{1/2})^{1/2} S^{-1/2}, the map that moves them least.
    """
    centred = b - b.mean(axis=0)
    S = centred.T @ centred / b.shape[0]
    values, vectors = np.linalg.eigh(S)
    positive = values > REFLATION_RTOL * max(float(values.max(initial=0.0)), 1e-300)
    if not positive.any():
        return np.zeros_like(b)
    V, root = vectors[:, positive], np.sqrt(values[positive])
    middle = (V * root).T @ covariance @ (V * root)
    inner_values, inner = np.linalg.eigh(middle)
    half = (inner * np.sqrt(np.maximum(inner_values, 0.0))) @ inner.T
    A = (V / root) @ half @ (V / root).T
    out: Matrix = centred @ A
    return out


# ---------------------------------------------------------------------------------------------
# Rows drawn again
# ---------------------------------------------------------------------------------------------


def _redrawn(
    fit: FittedModel,
    draw: RowDraw,
    groups: GroupDraw | None,
    rng: np.random.Generator,
    reader: _Reader,
    options: FitOptions,
) -> Replicate:
    if groups is None:
        rows, copies, nested = rng.integers(fit.nobs, size=fit.nobs), None, None
    else:
        rows, copies = groups.rows(rng.integers(groups.n_groups, size=groups.n_groups))
        nested = groups.nested
    try:
        system = penalized_system(draw.take(rows, copies, nested), options.engine)
    except (MixedModelError, ArithmeticError, np.linalg.LinAlgError) as error:
        return None, FAILED, f"{type(error).__name__}: {error}"
    return reader.replicate(search(system, options))


def jackknife(
    fit: FittedModel, reader: _Reader, options: FitOptions, by: str | None
) -> Matrix:
    """Return the statistic with each group left out in turn, (groups, k); NaN where it failed."""
    groups = group_draw(fit, by) if by is not None else GroupDraw(fit, _jackknife_factor(fit))
    draw = RowDraw(fit.matrices)
    out = np.full((groups.n_groups, len(reader.names)), np.nan)
    for j in range(groups.n_groups):
        keep = np.ones(fit.nobs, dtype=bool)
        keep[groups.rows_of[j]] = False
        try:
            system = penalized_system(draw.take(np.flatnonzero(keep)), options.engine)
        except (MixedModelError, ArithmeticError, np.linalg.LinAlgError):
            continue
        values, _, _ = reader.replicate(search(system, options))
        if values is not None:
            out[j] = values
    return out


def _jackknife_factor(fit: FittedModel) -> int:
    """Return the factor with the fewest levels, of those with ten at least if there are some."""
    sizes = [f.n_levels for f in fit.matrices.factors]
    enough = [g for g, size in enumerate(sizes) if size >= 10] or list(range(len(sizes)))
    return min(enough, key=sizes.__getitem__)
