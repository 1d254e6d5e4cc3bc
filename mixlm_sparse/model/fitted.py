"""A fitted model as frozen data, with everything that can be read off it.

Every attribute that a user reads stands here with its docstring; hence the length.

A `FittedModel` holds the design, the theta-free products, the optimum and the solution there;
everything else is computed when it is asked for first, and kept.  What takes more than reading off
(tables, predictions, tests, plots) are functions of other modules that take a `FittedModel`;
`api.fit.LinearMixedFit`, which users see, gives these functions the form of methods.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.checks import require_bool, require_number, require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.design.build import ModelMatrices
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.convergence import ConvergenceReport
from mixlm_sparse.model.effects import (
    coefficients_by_level,
    conditional_covariances,
    effects_by_level,
    variance_components,
)
from mixlm_sparse.model.identified import dropped_combinations
from mixlm_sparse.model.notes import Notes, notes_on, warn_of
from mixlm_sparse.model.refit import (
    SEARCH_NAMES,
    changed_call,
    options_for_another,
    split_changes,
)
from mixlm_sparse.model.responses import response_for
from mixlm_sparse.model.rows import row_series
from mixlm_sparse.model.run import assemble, solve_system
from mixlm_sparse.model.singularity import SINGULAR_TOL, is_singular, singular_reasons
from mixlm_sparse.model.varcorr import VarCorr
from mixlm_sparse.solve.criterion import profiled_sigma
from mixlm_sparse.solve.curvature import Curvature, curvature_at, residual_share
from mixlm_sparse.solve.derived.other_response import with_response
from mixlm_sparse.solve.identification import Identification, identification
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.solution import PlsSolution, solve_pls
from mixlm_sparse.solve.system import PenalizedSystem

if TYPE_CHECKING:
    from typing_extensions import Self

F = TypeVar("F", bound="FittedModel")

# A row with 1 - h below this is fitted exactly; its residual is rounding.
FITTED_EXACTLY_TOL = 1e-10
RESIDUAL_TYPES = ("response", "pearson", "deviance", "working")


# Where nothing is left to the residuals, a variance with a larger share of theirs is not known.
RESIDUAL_SHARE = 1e-3
NO_RESIDUAL = (
    "nothing is left to the residuals beside the random effects, so that what is judged within "
    "groups has no error"
)


@dataclass(frozen=True, eq=False, repr=False)
class FittedModel:
    """A fitted linear mixed model: data, estimates and further fits.

        y | b ~ N(X beta + Z b + o, sigma^2 W^{-1}),  b ~ N(0, sigma^2 Lambda Lambda')

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
        """What the user should know about this fit, in words."""
        return tuple(text for _, text in self.notes)

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.system.n

    @property
    def n_par(self) -> int:
        """Number of parameters, p + m + 1; also after REML, as lme4 counts."""
        return self.system.p + self.system.n_theta + 1

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom, nobs - n_par."""
        return self.nobs - self.n_par

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels of each grouping factor."""
        return {f.label: f.n_levels for f in self.matrices.factors}

    @property
    def weights_name(self) -> str:
        """How the call named the weights."""
        return _argument_name(self.call.weights if self.call else None)

    @property
    def offset_name(self) -> str:
        """How the call named the offset."""
        return _argument_name(self.call.offset if self.call else None)

    @property
    def subset_name(self) -> str:
        """How the call named the subset."""
        return _argument_name(self.call.subset if self.call else None)

    # -- theta and the criterion --------------------------------------------------------------

    @property
    def theta(self) -> Vector:
        """(m,) relative covariance parameters, in lme4's order."""
        return self.optimum.theta

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of theta: "Subject.(Intercept)", "Subject.Days.(Intercept)", ..."""
        return self.system.theta_names

    @property
    def lower(self) -> Vector:
        """(m,) lower bounds of theta."""
        return self.system.lower

    @property
    def perfect(self) -> bool:
        """Whether the fixed effects leave no residual, so that sigma is zero."""
        return self.optimum.status == "perfect fit"

    @property
    def unbounded(self) -> bool:
        """Whether nothing is left to the residuals: the criterion is -inf, with no minimum."""
        return self.perfect or self.optimum.sigma is not None

    @property
    def criterion(self) -> float:
        """REML criterion or ML deviance at the optimum; -inf for a perfect fit."""
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

    @cached_property
    def sigma(self) -> float:
        """Residual standard deviation: sqrt(pwrss / (n - p)) after REML, sqrt(pwrss / n) after ML.

        With prior weights the residual variance of row i is sigma^2 / w_i.
        """
        if self.perfect:
            return 0.0
        if self.optimum.sigma is not None:  # held: nothing is left beside the random effects
            return self.optimum.sigma
        return profiled_sigma(self.solution.pwrss, self.system, reml=self.reml)

    @cached_property
    def curvature(self) -> Curvature:
        """Curvature of the criterion in (phi, log sigma) at the optimum, and its inverse."""
        system = self.system
        with one_blas_thread():
            return curvature_at(self.optimum.phi, system, reml=self.reml, sigma=self.optimum.sigma)

    @cached_property
    def identification(self) -> Identification:
        """What the data determine: which variances, covariances and tests have an answer."""
        return identification(self.system, reml=self.reml, phi=self.optimum.phi)

    @property
    def scale(self) -> float:
        """sigma^2."""
        return self.sigma**2

    # -- fixed effects ------------------------------------------------------------------------

    @cached_property
    def standard_errors(self) -> Vector:
        """(p,) standard errors of the fixed effects; `bse` is the same with names."""
        out: Vector = self.sigma * np.sqrt(np.diag(self.solution.vcov_unscaled))
        return out

    @property
    def t_ratios(self) -> Vector:
        """(p,) fixed effects divided by their standard errors; `tvalues` is the same with names."""
        if self.perfect:
            return np.full(self.system.p, np.nan)
        out: Vector = self.solution.beta / self.standard_errors
        return out

    @property
    def fixef(self) -> pd.Series[float]:
        """Fixed effects by R's names; columns dropped for rank deficiency are left out."""
        return self._named(self.solution.beta)

    @property
    def params(self) -> pd.Series[float]:
        """Fixed effects; the same as `fixef`."""
        return self.fixef

    @property
    def bse(self) -> pd.Series[float]:
        """Standard errors of the fixed effects; NaN where the data do not determine them."""
        return self._named(np.where(self._determined, self.standard_errors, np.nan))

    @property
    def tvalues(self) -> pd.Series[float]:
        """Fixed effects divided by their standard errors; NaN where these are not determined."""
        return self._named(np.where(self._determined, self.t_ratios, np.nan))

    @cached_property
    def _determined(self) -> NDArray[np.bool_]:
        """(p,) whether the data determine the standard error of each coefficient."""
        return self.has_error(np.eye(self.system.p))

    def has_error(self, L: Matrix) -> NDArray[np.bool_]:
        """Say for every row l of L (r, p) whether the standard error of l'beta is determined.

        It is not where it depends on variances that the data do not determine, or, where nothing is
        left to the residuals, on the residual variance.
        """
        out = np.ones(L.shape[0], dtype=bool)
        if not self.identification.complete:
            out &= self.identification.coefficients(L)
        if self.optimum.sigma is not None and L.size:
            share = residual_share(self.curvature, self.system, L @ self.solution.RX_inv)
            out &= ~(share > RESIDUAL_SHARE)
        return out

    @property
    def error_reason(self) -> str:
        """Why standard errors are missing, or ""."""
        held = NO_RESIDUAL if self.optimum.sigma is not None else ""
        return "; ".join(text for text in (self.identification.sentence, held) if text)

    def _named(self, values: Vector) -> pd.Series[float]:
        return pd.Series(values, index=list(self.system.x_names), dtype=np.float64)

    def cov_params(self) -> pd.DataFrame:
        """Return the covariance matrix (p, p) of the fixed effects.

        NaN for coefficients whose standard error the data do not determine.
        """
        names = list(self.system.x_names)
        known = self._determined[:, None] & self._determined
        V = np.where(known, self.scale * self.solution.vcov_unscaled, np.nan)
        return pd.DataFrame(V, index=names, columns=names)

    @cached_property
    def dropped_combinations(self) -> Matrix:
        """D (p, dropped): the dropped columns of X are X D."""
        return dropped_combinations(self.system)

    def model_matrix(self) -> Matrix:
        """Return X (n, p): the columns of the fixed part that were kept."""
        X = self.matrices.X
        kept = list(self.system.products.kept)
        return X if len(kept) == X.shape[1] else X[:, kept]

    # -- random effects -----------------------------------------------------------------------

    @cached_property
    def varcorr(self) -> VarCorr:
        """Variances, standard deviations and correlations of the random effects."""
        held = self.optimum.sigma is not None
        return variance_components(self.solution, self.sigma, no_residual=held)

    @overload
    def ranef(self, cond_var: Literal[False] = False) -> dict[str, pd.DataFrame]: ...

    @overload
    def ranef(
        self, cond_var: Literal[True]
    ) -> tuple[dict[str, pd.DataFrame], dict[str, Array3]]: ...

    def ranef(
        self, cond_var: bool = False
    ) -> dict[str, pd.DataFrame] | tuple[dict[str, pd.DataFrame], dict[str, Array3]]:
        """Return the predicted random effects (conditional modes, BLUPs).

        Parameters
        ----------
        cond_var : also return their conditional covariances given theta, sigma and beta.

        Returns
        -------
        dict from grouping factor to a DataFrame of levels x effects, the terms of one factor side
        by side, indexed by the levels in the type that the data have; with `cond_var` a pair, the
        second a dict of (levels, k, k) arrays that follow the rows and columns of the frames.
        """
        cond_var = require_bool("cond_var", cond_var)
        effects = effects_by_level(self.solution)
        return (
            (effects, conditional_covariances(self.solution, self.scale)) if cond_var else effects
        )

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return the coefficients of each level: fixed effects plus random effects.

        A random effect without a fixed effect of its name is added to zero; such columns come
        first.
        """
        return coefficients_by_level(self.solution)

    # -- rows ---------------------------------------------------------------------------------

    @cached_property
    def fitted_used(self) -> Vector:
        """(n,) fitted values of the rows used, random effects and offset included."""
        return self.solution.fitted()

    @cached_property
    def resid_used(self) -> Vector:
        """(n,) response residuals of the rows used."""
        out: Vector = self.matrices.y - self.fitted_used
        return out

    @cached_property
    def pearson_used(self) -> Vector:
        """(n,) residuals of the rows used times the square root of their weights."""
        w = self.matrices.weights
        return self.resid_used if w is None else self.resid_used * np.sqrt(w)

    @property
    def scaled_residuals_used(self) -> Vector:
        """(n,) sqrt(w) (y - mu) / sigma of the rows used."""
        return self.pearson_used / self.sigma

    @cached_property
    def residual_quantiles(self) -> Vector:
        """(5,) least, lower quartile, median, upper quartile and largest scaled residual."""
        return np.asarray(np.quantile(self.scaled_residuals_used, [0.0, 0.25, 0.5, 0.75, 1.0]))

    @property
    def fittedvalues(self) -> pd.Series[float]:
        """Fitted values X beta + Z b + offset, indexed by the rows used (see `na_action`)."""
        return row_series(self.matrices, self.fitted_used)

    @property
    def resid(self) -> pd.Series[float]:
        """Response residuals y - mu, indexed by the rows used (see `na_action`)."""
        return row_series(self.matrices, self.resid_used)

    def residuals(self, type: str = "response", *, scaled: bool = False) -> pd.Series[float]:
        """Return residuals.

        Parameters
        ----------
        type : "response" and "working" are y - mu; "pearson" and "deviance" are
            sqrt(w) (y - mu).
        scaled : divide by sigma.

        Returns
        -------
        Series (n,) with the index of the rows used; of all rows with na_action="exclude".
        """
        scaled = require_bool("scaled", scaled)
        require_one_of("type", type, RESIDUAL_TYPES)
        values = self.resid_used if type in ("response", "working") else self.pearson_used
        return row_series(self.matrices, values / self.sigma if scaled else values)

    @cached_property
    def _leverage(self) -> Vector:
        return self.solution.leverage()

    def hatvalues(self) -> pd.Series[float]:
        """Return the joint leverage of fixed and random effects, the diagonal of dmu/dy."""
        return row_series(self.matrices, self._leverage)

    def cooks_distance(self) -> pd.Series[float]:
        """Return Cook's distance, (r / (1 - h))^2 h / (sigma^2 p) with r = sqrt(w) (y - mu)."""
        h = self._leverage
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (self.pearson_used / (1.0 - h)) ** 2 * h / (self.scale * self.system.p)
        return row_series(self.matrices, distance)

    def rstudent(self) -> pd.Series[float]:
        """Return studentized residuals, sqrt(w) (y - mu) / (sigma sqrt(1 - h)).

        h is the leverage of `hatvalues`; sigma is that of the fit, with all rows.  NaN where the
        model fits a row whatever its response (h = 1).
        """
        free = 1.0 - self._leverage
        free = np.where(free > FITTED_EXACTLY_TOL, free, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self.pearson_used / (self.sigma * np.sqrt(free))
        return row_series(self.matrices, np.where(np.isfinite(values), values, np.nan))

    # -- diagnosis ----------------------------------------------------------------------------

    def is_singular(self, tol: float = SINGULAR_TOL) -> bool:
        """Return whether a variance is (almost) zero or a correlation (almost) one.

        Parameters
        ----------
        tol : a standard deviation below this share of the residual's counts as zero.  It is taken
            over columns brought to length one, so that the answer does not depend on the unit of a
            predictor; lme4 looks at theta as it is.

        Raises
        ------
        OptionError : `tol` is not a number, or negative.
        """
        tol = require_number("tol", tol, least=0.0, example="1e-4")
        return is_singular(self.system, self.theta, require_number("tol", tol, least=0.0))

    @cached_property
    def convergence(self) -> ConvergenceReport:
        """Where the search ended: status, exact gradient, curvature, evaluations, advice."""
        judged = self.identification
        reasons = () if self.perfect else singular_reasons(self.system, self.theta, judged=judged)
        return ConvergenceReport(self.optimum, self.system, reasons, judged)

    # -- further fits -------------------------------------------------------------------------

    def refit(self, y: Any) -> Self:
        """Fit the same model to another response.

        Parameters
        ----------
        y : (n,) one value for each row used, or for each row of the data.

        Returns
        -------
        A fit of the same class: the design, the products without y and the symbolic work are
        shared.  What is to be said about it is in its `messages`; no warning is emitted, for refits
        come by the thousand.
        """
        response = response_for(self.matrices, y)
        call = None if self.call is None else replace(self.call, response=response)
        options = options_for_another(self.options, start=self._warm_start())
        return self._solved(with_response(self.system, response), options, call)

    def refit_ml(self) -> Self:
        """Return the fit by maximum likelihood, as model comparisons need it."""
        return self if not self.reml else self._refit_reml(False)

    def refit_reml(self) -> Self:
        """Return the fit by restricted maximum likelihood."""
        return self if self.reml else self._refit_reml(True)

    def _refit_reml(self, reml: bool) -> Self:
        options = options_for_another(self.options, reml=reml, start=self._warm_start())
        return self._solved(self.system, options, self.call)

    def _warm_start(self) -> Vector | None:
        # A singular theta is a saddle of another criterion, a bad place to start from.
        return None if self.is_singular() else self.theta

    def _solved(self, system: PenalizedSystem, options: FitOptions, call: ModelCall | None) -> Self:
        """Return the fit of `system`, of the same class as this one."""
        optimum, solution = solve_system(system, options)
        options = replace(options, start=None)
        call = None if call is None else replace(call, options=options)
        formula = self.formula if call is None else call.formula
        return fit_of(type(self), system, optimum, options, formula, call, solution=solution)

    def update(self, formula: str | None = None, data: Any = None, **changes: Any) -> Self:
        """Fit again with some arguments changed; warns as `lmer` does.

        Parameters
        ----------
        formula : a formula, in which `.` stands for the old side: ". ~ . + x",
            "log(.) ~ . - (x | g) + (1 | g)".
        data : other data.
        **changes : any other argument of `lmer`: reml, weights, offset, subset, na_action,
            contrasts, start, optimizer, engine, control, progress, env.

        Raises
        ------
        OptionError : an argument that `lmer` does not have.
        """
        options, of_model = split_changes(self.options, changes)
        same_engine = options.engine == self.options.engine
        if formula is None and data is None and not of_model and same_engine:
            return announced(self._solved(self.system, options, self.call))
        if self.call is None:
            raise OptionError(
                "this fit was made from matrices, without a formula and data: make it again with "
                f"fit_matrices; update can change {', '.join(SEARCH_NAMES)}"
            )
        call = changed_call(self.call, options, formula, data, of_model)
        system, call = assemble(call)
        return announced(self._solved(system, options, call))

    def __repr__(self) -> str:
        groups = ", ".join(f"{label} {count}" for label, count in self.ngroups.items())
        return (
            f"<{type(self).__name__} {self.formula!r} by {'REML' if self.reml else 'ML'}: "
            f"criterion {self.criterion:.6g}, {self.nobs} rows, groups {groups}, "
            f"{self.convergence.status}>"
        )


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
    return cls(
        system=system,
        optimum=optimum,
        solution=solve_pls(optimum.theta, system) if solution is None else solution,
        options=options,
        formula=formula,
        call=call,
        notes=notes_on(system, optimum) if notes is None else notes,
    )


def announced(fit: F) -> F:
    """Warn of what the user should know, unless control.warn is off; return the fit."""
    if fit.options.control.warn:
        warn_of(fit.notes)
    return fit


def _argument_name(value: Any) -> str:
    return value if isinstance(value, str) else "given as an array"
