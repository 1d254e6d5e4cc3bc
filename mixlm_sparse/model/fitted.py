"""A fitted model as frozen data, with everything that can be read off it.

A `FittedModel` holds the design, the theta-free products, the optimum and the solution there
(`FitBase`), and what is said of the rows used (`FittedRows`); everything else is computed when it
is asked for first, and kept.  What takes more than reading off (tables, predictions, tests, plots)
are functions of other modules that take a `FittedModel`; `api.fit.LinearMixedFit`, which users see,
gives these functions the form of methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.checks import require_bool
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.layout import wrap
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.model import convergence as diagnosis
from mixlm_sparse.model import refit as further
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.coefficients import Coefficients, named_values
from mixlm_sparse.model.effects import (
    coefficients_by_level,
    conditional_covariances,
    effects_by_level,
    variance_components,
)
from mixlm_sparse.model.fitted_rows import FittedRows
from mixlm_sparse.model.varcorr import VarCorr
from mixlm_sparse.solve.curvature import known_without_residual

NO_RESIDUAL = (
    "nothing is left to the residuals beside the random effects, so that what is judged within "
    "groups has no error"
)


@dataclass(frozen=True, eq=False, repr=False)
class FittedModel(FittedRows):
    """A fitted linear mixed model: data, estimates and further fits.

    y | b ~ N(X beta + Z b + o, sigma^2 W^{-1}),  b ~ N(0, sigma^2 Lambda Lambda')
    """

    # -- fixed effects ------------------------------------------------------------------------

    @cached_property
    def standard_errors(self) -> Vector:
        """(p,) standard errors of the fixed effects; `bse` is the same with names."""
        R_inverse = self.solution.RX_inv
        out: Vector = unit_of_theta(self) * np.sqrt((R_inverse * R_inverse).sum(axis=1))
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
        """Fixed effects by R's names; columns dropped for rank deficiency are left out.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.fixef.round(3)
        (Intercept)    251.405
        Days            10.467
        dtype: float64
        """
        return named_values(self.solution.beta, self.system.x_names, Coefficients)

    @property
    def fixef_all(self) -> pd.Series[float]:
        """Fixed effects of all columns, NaN for those dropped for rank deficiency.

        lme4's ``fixef(fit, add.dropped = TRUE)``; what is indexed by `fixef` takes this form by
        ``bse.reindex(fit.fixef_all.index)``.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> quiet = mx.Control(warn=False)
        >>> data = mx.datasets.load("sleepstudy").assign(Weeks=lambda d: d["Days"] / 7)
        >>> fit = mx.lmer("Reaction ~ Days + Weeks + (1 | Subject)", data, control=quiet)
        >>> fit.fixef_all.round(3)
        (Intercept)    251.405
        Days            10.467
        Weeks              NaN
        dtype: float64
        """
        return self.fixef.reindex(list(self.matrices.fixed.names))

    @property
    def params(self) -> pd.Series[float]:
        """Fixed effects; the same as `fixef`."""
        return self._named(self.solution.beta)

    @property
    def bse(self) -> pd.Series[float]:
        """Standard errors of the fixed effects; NaN where the data do not determine them.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.bse.round(3)
        (Intercept)    6.825
        Days           1.546
        dtype: float64
        """
        return self._named(np.where(self._determined, self.standard_errors, np.nan))

    @property
    def tvalues(self) -> pd.Series[float]:
        """Fixed effects divided by their standard errors; NaN where these are not determined.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.tvalues.round(3)
        (Intercept)    36.838
        Days            6.771
        dtype: float64
        """
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
            half = self.solution.times_RX_inv(L)
            out &= known_without_residual(self.curvature, self.system, half)
        return out

    @property
    def error_reason(self) -> str:
        """Why standard errors are missing, or ""."""
        held = NO_RESIDUAL if self.optimum.no_residual else ""
        return "; ".join(text for text in (self.identification.sentence, held) if text)

    def _named(self, values: Vector) -> pd.Series[float]:
        return named_values(values, self.system.x_names)

    def cov_params(self) -> pd.DataFrame:
        """Return the covariance matrix (p, p) of the fixed effects.

        NaN for coefficients whose standard error the data do not determine.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.cov_params().round(3)
                     (Intercept)   Days
        (Intercept)       46.575 -1.451
        Days              -1.451  2.389
        """
        names = list(self.system.x_names)
        known = self._determined[:, None] & self._determined
        V = np.where(known, unit_of_theta(self) ** 2 * self.solution.vcov_unscaled, np.nan)
        return pd.DataFrame(V, index=names, columns=names)

    def model_matrix(self) -> Matrix:
        """Return X (n, p): the columns of the fixed part that were kept.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.model_matrix()[:3]
        array([[1., 0.],
               [1., 1.],
               [1., 2.]])
        """
        blocks = [rows.X for rows in self.system.rows(self.nobs)]
        return blocks[0] if len(blocks) == 1 else np.vstack(blocks)

    # -- random effects -----------------------------------------------------------------------

    @cached_property
    def varcorr(self) -> VarCorr:
        """Variances, standard deviations and correlations of the random effects.

        NaN where the data do not determine them.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.varcorr
         Groups    Name         Variance  Std.Dev.  Corr
         Subject   (Intercept)    612.09    24.740
                   Days            35.07     5.922  0.07
         Residual                 654.94    25.592
        >>> fit.varcorr["Subject"].round(2)
                     (Intercept)   Days
        (Intercept)       612.09   9.60
        Days                9.60  35.07
        """
        nothing = self.optimum.no_residual
        judged = self.identification
        return variance_components(
            self.solution, unit_of_theta(self), no_residual=nothing,
            known=None if judged.complete else judged.entries, residual=judged.residual,
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

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.ranef()["Subject"].head(3).round(3)
                 (Intercept)   Days
        Subject
        308            2.259  9.199
        309          -40.399 -8.620
        310          -38.960 -5.449
        >>> effects, covariances = fit.ranef(cond_var=True)
        >>> covariances["Subject"].shape
        (18, 2, 2)
        """
        given: object = cond_var
        if isinstance(given, str) and given in self.ngroups:
            raise OptionError(f"ranef has all groups, by name: write fit.ranef()[{given!r}]")
        cond_var = require_bool("cond_var", cond_var)
        effects = effects_by_level(self.solution)
        if not cond_var:
            return effects
        return effects, conditional_covariances(self.solution, unit_of_theta(self) ** 2)

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return the coefficients of each level: fixed effects plus random effects.

        A random effect without a fixed effect of its name is added to zero; such columns come
        first.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.coef()["Subject"].head(3).round(3)
                 (Intercept)    Days
        Subject
        308          253.664  19.666
        309          211.007   1.848
        310          212.445   5.018
        """
        return coefficients_by_level(self.solution)

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
        said = (
            f"<{type(self).__name__} {self.formula!r} by {'REML' if self.reml else 'ML'}: "
            f"criterion {self.criterion:.6g}, {self.nobs} rows{groups}, "
            f"{self.convergence.status}>"
        )
        return "\n".join(wrap("", said))
