"""The parts of a fit, and what is read off its optimum: sizes, names, theta, criterion, sigma.

`FitBase` is what further fits (`model.refit`) and the diagnosis (`model.convergence`,
`model.singularity`) need to know; `model.fitted_rows` adds the rows, `model.fitted` the effects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.notes import Notes, notes_on, warn_of
from mixlm_sparse.solve.criterion import profiled_sigma
from mixlm_sparse.solve.curvature import Curvature, curvature_at
from mixlm_sparse.solve.identification import Identification
from mixlm_sparse.solve.judging import identification
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.solution import PlsSolution
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.curvature import whitened_curvature
from mixlm_sparse.solve.whitened.search import solution_at

F = TypeVar("F", bound="FitBase")

LARGEST_DEVIATION = 1e153  # squares of standard deviations are to stay within range


@dataclass(frozen=True, eq=False, repr=False)
class FitBase:
    """Data and estimates of a fitted linear mixed model.

    Parameters
    ----------
    system : the design (`system.matrices`), the theta-free products and the engine.
    optimum : where the search ended.
    solution : beta, u and the factors at the optimum.
    options : REML or ML, optimizer, engine, control.
    formula : the formula as text.
    call : the arguments of `lmer`; None if the model was made from matrices.
    notes : (category, text) of what the user should know; `messages` are the texts.
    """

    system: PenalizedSystem
    optimum: Optimum
    solution: PlsSolution
    options: FitOptions
    formula: str
    call: ModelCall | None = None
    notes: Notes = ()

    # -- the model ----------------------------------------------------------------------------

    @property
    def matrices(self) -> ModelMatrices:
        """The design: response, columns, grouping factors, weights, offset."""
        return self.system.matrices

    @property
    def reml(self) -> bool:
        """Whether the fit maximizes the restricted likelihood."""
        return self.optimum.reml

    @property
    def messages(self) -> tuple[str, ...]:
        """What the user should know about this fit, in words.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> yields = mx.datasets.load("Dyestuff2")
        >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", yields, control=mx.Control(warn=False))
        >>> fit.messages[0].split(":")[0]
        'boundary (singular) fit'
        """
        return tuple(text for _, text in self.notes)

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.system.n

    @property
    def n_par(self) -> int:
        """Number of parameters, p + m + 1, and those of the residual structure; also after REML.

        Parameters that are held do not count.
        """
        held = 0 if self.system.held is None else self.system.held.count
        return self.system.p + self.system.n_theta + self.system.n_rho + 1 - held

    @property
    def n_determined(self) -> int:
        """Number of parameters without combinations of variances that the data do not determine.

        Its differences are the degrees of freedom of likelihood-ratio tests.
        """
        return self.n_par - len(self.identification.directions)

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom, nobs - n_par."""
        return self.nobs - self.n_par

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels of each grouping factor.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> mx.lmer("strength ~ 1 + (1 | batch/cask)", mx.datasets.load("Pastes")).ngroups
        {'cask:batch': 30, 'batch': 10}
        """
        return {f.label: f.n_levels for f in self.matrices.factors}

    @property
    def weights_name(self) -> str | None:
        """How the call named the weights; None without weights."""
        return _argument_name(self.call.weights if self.call else None)

    @property
    def offset_name(self) -> str | None:
        """How the call named the offset; None without one in the arguments."""
        return _argument_name(self.call.offset if self.call else None)

    @property
    def subset_name(self) -> str | None:
        """How the call named the subset; None without one."""
        return _argument_name(self.call.subset if self.call else None)

    # -- theta and the criterion --------------------------------------------------------------

    @property
    def theta(self) -> Vector:
        """(m,) relative covariance parameters, in lme4's order.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.theta.round(4)
        array([0.9667, 0.0152, 0.2309])
        """
        return self.optimum.theta.copy()

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of theta: "Subject.(Intercept)", "Subject.Days.(Intercept)", ...

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.theta_names
        ('Subject.(Intercept)', 'Subject.Days.(Intercept)', 'Subject.Days')
        """
        return self.system.theta_names

    @property
    def lower(self) -> Vector:
        """(m,) lower bounds of theta."""
        return self.system.lower.copy()

    @property
    def perfect(self) -> bool:
        """Whether the fixed effects leave no residual, so that sigma is zero."""
        return self.optimum.status == "perfect fit"

    @property
    def unbounded(self) -> bool:
        """Whether nothing is left to the residuals: the criterion is -inf, with no minimum."""
        return self.perfect or not np.isfinite(self.optimum.criterion)

    @property
    def criterion(self) -> float:
        """REML criterion or ML deviance at the optimum; -inf for a perfect fit.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> round(fit.criterion, 4), round(fit.llf, 4), round(fit.aic, 2)
        (1743.6283, -871.8141, 1755.63)
        """
        return -np.inf if self.perfect else self.optimum.criterion

    @property
    def llf(self) -> float:
        """Log-likelihood, restricted after REML; +inf for a perfect fit (sigma = 0)."""
        return -0.5 * self.criterion

    @property
    def deviance(self) -> float:
        """-2 times the log-likelihood that was maximized: equal to `criterion`.

        After REML it is the REML criterion, where lme4's `deviance()` gives nothing; the ML
        deviance is `refit_ml().deviance`.
        """
        return self.criterion

    @property
    def aic(self) -> float:
        """Akaike's criterion, criterion + 2 n_par."""
        return self.criterion + 2.0 * self.n_par

    @property
    def bic(self) -> float:
        """Schwarz's criterion, criterion + log(nobs) n_par."""
        return self.criterion + float(np.log(self.nobs)) * self.n_par

    @property
    def sigma(self) -> float:
        """Residual standard deviation: sqrt(pwrss / (n - p)) after REML, sqrt(pwrss / n) after ML.

        With prior weights the residual variance of row i is sigma^2 / w_i.  Zero where nothing is
        left to the residuals; theta is then relative to a small value (see `unit_of_theta`).

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> round(fit.sigma, 4)
        25.5918
        """
        return 0.0 if self.perfect or self.optimum.no_residual else unit_of_theta(self)

    @cached_property
    def curvature(self) -> Curvature:
        """Curvature of the criterion in (phi, log sigma) at the optimum, and its inverse."""
        system = self.system
        with one_blas_thread():
            at = curvature_at if system.whitened is None else whitened_curvature
            return at(self.optimum.phi, system, reml=self.reml, sigma=self.optimum.sigma)

    @cached_property
    def identification(self) -> Identification:
        """What the data determine: which variances, covariances and tests have an answer.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.identification.complete
        True
        """
        return identification(self.system, reml=self.reml, phi=self.optimum.phi)

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What was computed of the rows before the fit was saved without them, by name."""
        return {}

    @property
    def scale(self) -> float:
        """sigma^2."""
        return self.sigma**2


def unit_of_theta(fit: FitBase) -> float:
    """Return the standard deviation that theta is relative to.

    It is sigma; where that is zero beside the random effects, the small value that the search held
    it at; 0 for a perfect fit.
    """
    if fit.perfect:
        return 0.0
    if fit.optimum.sigma is not None:  # not the best one at theta: something is held
        return fit.optimum.sigma
    return profiled_sigma(fit.solution.pwrss, fit.system, reml=fit.reml)


def fit_of(
    cls: type[F],
    system: PenalizedSystem,
    optimum: Optimum,
    options: FitOptions,
    formula: str,
    call: ModelCall | None = None,
    *,
    solution: PlsSolution | None = None,
    notes: Notes | None = None,
) -> F:
    """Make a fit of its parts.

    Parameters
    ----------
    cls : the class of the fit.
    solution : at the optimum; by default solved for.
    notes : what is to be said of it; by default found out.
    """
    if solution is None:
        solution = solution_at(optimum, system)
    system = solution.system  # with a residual structure, at the optimum's rho
    if call is not None and (further := call.options.for_further_fits()) is not call.options:
        call = replace(call, options=further)
    _require_variances(system, optimum, solution)
    return cls(
        system=system,
        optimum=optimum,
        solution=solution,
        options=options.for_further_fits(),
        formula=formula,
        call=call,
        notes=notes_on(system, optimum) if notes is None else notes,
    )


def _require_variances(system: PenalizedSystem, optimum: Optimum, solution: PlsSolution) -> None:
    """Raise a DataError that names a standard deviation whose square is beyond all numbers."""
    largest = float(np.abs(optimum.theta).max(initial=0.0))
    unit = max(float(np.sqrt(solution.pwrss / system.n)), 1.0)
    if not largest > LARGEST_DEVIATION / unit:
        return
    sizes = [np.abs(T).max(axis=1) for T in system.chart.theta_factors(optimum.theta)]
    t = int(np.argmax([size.max() for size in sizes]))
    term = system.matrices.terms[t]
    name = term.column_names[int(np.argmax(sizes[t]))]
    group = system.matrices.factors[term.factor].label
    raise DataError(
        f"the standard deviation of {name} by {group} is about "
        f"10^{np.log10(largest) + np.log10(unit):.0f}, whose square is beyond the numbers of a "
        "computer: give the response, or the predictor, in another unit"
    )


def announced(fit: F) -> F:
    """Warn of what the user should know, unless control.warn is off; return the fit."""
    if fit.options.control.warn:
        warn_of(fit.notes)
    return fit


def _argument_name(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return "given as an array"
