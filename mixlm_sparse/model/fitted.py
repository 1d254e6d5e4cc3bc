"""A fitted model as frozen data, with everything that can be read off it.

A `FittedModel` holds the design, the theta-free products, the optimum and the solution there
(`FitBase`); everything else is computed when it is asked for first, and kept.  What takes more than
reading off (tables, predictions, tests, plots) are functions of other modules that take a
`FittedModel`; `api.fit.LinearMixedFit`, which users see, gives these functions the form of methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.checks import require_bool, require_one_of
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.model import convergence as diagnosis
from mixlm_sparse.model import refit as further
from mixlm_sparse.model.base import FitBase
from mixlm_sparse.model.effects import (
    coefficients_by_level,
    conditional_covariances,
    effects_by_level,
    variance_components,
)
from mixlm_sparse.model.rows import row_series
from mixlm_sparse.model.structured import require_independent
from mixlm_sparse.model.varcorr import VarCorr
from mixlm_sparse.solve.curvature import residual_share

# A row with 1 - h below this is fitted exactly; its residual is rounding.
FITTED_EXACTLY_TOL = 1e-10
RESIDUAL_TYPES = ("response", "pearson", "deviance", "working", "normalized")


# Where nothing is left to the residuals, a variance with a larger share of theirs is not known.
RESIDUAL_SHARE = 1e-3
NO_RESIDUAL = (
    "nothing is left to the residuals beside the random effects, so that what is judged within "
    "groups has no error"
)


@dataclass(frozen=True, eq=False, repr=False)
class FittedModel(FitBase):
    """A fitted linear mixed model: data, estimates and further fits.

    y | b ~ N(X beta + Z b + o, sigma^2 W^{-1}),  b ~ N(0, sigma^2 Lambda Lambda')
    """

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
    def fixef_all(self) -> pd.Series[float]:
        """Fixed effects of all columns, NaN for those dropped for rank deficiency.

        lme4's ``fixef(fit, add.dropped = TRUE)``; what is indexed by `fixef` takes this form by
        ``bse.reindex(fit.fixef_all.index)``.
        """
        return self.fixef.reindex(list(self.matrices.fixed.names))

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
        if self.optimum.no_residual and L.size:
            share = residual_share(self.curvature, self.system, L @ self.solution.RX_inv)
            out &= ~(share > RESIDUAL_SHARE)
        return out

    @property
    def error_reason(self) -> str:
        """Why standard errors are missing, or ""."""
        held = NO_RESIDUAL if self.optimum.no_residual else ""
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

    def model_matrix(self) -> Matrix:
        """Return X (n, p): the columns of the fixed part that were kept."""
        blocks = [rows.X for rows in self.system.rows(self.nobs)]
        return blocks[0] if len(blocks) == 1 else np.vstack(blocks)

    # -- random effects -----------------------------------------------------------------------

    @cached_property
    def varcorr(self) -> VarCorr:
        """Variances, standard deviations and correlations of the random effects.

        NaN where the data do not determine them.
        """
        nothing = self.optimum.no_residual
        judged = self.identification
        return variance_components(
            self.solution, self.sigma, no_residual=nothing,
            known=None if judged.complete else judged.entries,
        )  # fmt: skip

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
        out = np.empty(self.nobs)
        for rows in self.system.rows():
            out[rows.slice] = rows.y - self.fitted_used[rows.slice]
        return out

    @cached_property
    def pearson_used(self) -> Vector:
        """(n,) residuals of the rows used over their standard deviation relative to sigma."""
        if self.system.whitened is not None:
            return self.resid_used / self.system.whitened.whitening.sd
        out = np.empty(self.nobs)
        for rows in self.system.rows():
            out[rows.slice] = rows.root_weighted(self.resid_used[rows.slice])
        return out

    @cached_property
    def normalized_used(self) -> Vector:
        """(n,) residuals of the rows used, whitened by the residual structure."""
        if self.system.whitened is None:
            return self.pearson_used
        white = self.system.whitened.whitening.apply(self.resid_used[:, None])
        return np.asarray(white[:, 0])

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
            sqrt(w) (y - mu), with a variance function over its standard deviation relative to
            sigma; "normalized" are these multiplied by the inverse factor of their correlation
            within groups, so that they are independent if the structure is right.
        scaled : divide by sigma.

        Returns
        -------
        Series (n,) with the index of the rows used; of all rows with na_action="exclude".
        """
        scaled = require_bool("scaled", scaled)
        require_one_of("type", type, RESIDUAL_TYPES)
        if type in ("response", "working"):
            values = self.resid_used
        else:
            values = self.normalized_used if type == "normalized" else self.pearson_used
        return row_series(self.matrices, values / self.sigma if scaled else values)

    def _require_uncorrelated(self, what: str) -> None:
        if self.matrices.law is not None and self.matrices.law.correlated:
            require_independent(self, what, "residuals(type='normalized') are its counterpart")

    @cached_property
    def _leverage(self) -> Vector:
        return self.solution.leverage()

    def hatvalues(self) -> pd.Series[float]:
        """Return the joint leverage of fixed and random effects, the diagonal of dmu/dy."""
        return row_series(self.matrices, self._leverage)

    def cooks_distance(self) -> pd.Series[float]:
        """Return Cook's distance, (r / (1 - h))^2 h / (sigma^2 p) with r = sqrt(w) (y - mu)."""
        self._require_uncorrelated("cooks_distance")
        h = self._leverage
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (self.pearson_used / (1.0 - h)) ** 2 * h / (self.scale * self.system.p)
        return row_series(self.matrices, distance)

    def rstudent(self) -> pd.Series[float]:
        """Return studentized residuals, sqrt(w) (y - mu) / (sigma sqrt(1 - h)).

        h is the leverage of `hatvalues`; sigma is that of the fit, with all rows.  NaN where the
        model fits a row whatever its response (h = 1).
        """
        self._require_uncorrelated("rstudent")
        free = 1.0 - self._leverage
        free = np.where(free > FITTED_EXACTLY_TOL, free, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self.pearson_used / (self.sigma * np.sqrt(free))
        return row_series(self.matrices, np.where(np.isfinite(values), values, np.nan))

    # -- diagnosis and further fits -------------------------------------------------------------

    is_singular = diagnosis.is_singular
    convergence = cached_property(diagnosis.convergence)
    refit = further.refit
    refit_ml = further.refit_ml
    refit_reml = further.refit_reml
    update = further.update

    def __repr__(self) -> str:
        groups = ", ".join(f"{label} {count}" for label, count in self.ngroups.items())
        groups = f", groups {groups}" if groups else ""
        return (
            f"<{type(self).__name__} {self.formula!r} by {'REML' if self.reml else 'ML'}: "
            f"criterion {self.criterion:.6g}, {self.nobs} rows{groups}, "
            f"{self.convergence.status}>"
        )
