"""What a fit says of the rows that it used: fitted values, residuals, leverage, distances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_bool, require_one_of
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.base import FitBase
from mixlm_sparse.model.rows import row_series

# A row with 1 - h below this is fitted exactly; its residual is rounding.
FITTED_EXACTLY_TOL = 1e-10
RESIDUAL_TYPES = ("response", "pearson", "deviance", "working", "normalized")


@dataclass(frozen=True, eq=False, repr=False)
class FittedRows(FitBase):
    """A fit and its rows; `model.fitted.FittedModel` adds the effects and further fits."""

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
        return self._over_sigma(self.pearson_used)

    def _over_sigma(self, values: Vector) -> Vector:
        """Return values in units of sigma; NaN where sigma is zero."""
        return values / self.sigma if self.sigma > 0.0 else np.full_like(values, np.nan)

    @cached_property
    def residual_quantiles(self) -> Vector:
        """(5,) least, lower quartile, median, upper quartile and largest scaled residual."""
        return np.asarray(np.quantile(self.scaled_residuals_used, [0.0, 0.25, 0.5, 0.75, 1.0]))

    @property
    def fittedvalues(self) -> pd.Series[float]:
        """Fitted values X beta + Z b + offset, indexed by the rows used (see `na_action`).

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.fittedvalues.head(3).round(2)
        0    253.66
        1    273.33
        2    293.00
        dtype: float64
        """
        return row_series(self.matrices, self.fitted_used)

    @property
    def resid(self) -> pd.Series[float]:
        """Response residuals y - mu, indexed by the rows used (see `na_action`).

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.resid.head(3).round(2)
        0    -4.10
        1   -14.63
        2   -42.20
        dtype: float64
        """
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

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.residuals("pearson", scaled=True).head(3).round(3)
        0   -0.160
        1   -0.571
        2   -1.649
        dtype: float64
        """
        scaled = require_bool("scaled", scaled)
        require_one_of("type", type, RESIDUAL_TYPES)
        if type in ("response", "working"):
            values = self.resid_used
        else:
            values = self.normalized_used if type == "normalized" else self.pearson_used
        return row_series(self.matrices, self._over_sigma(values) if scaled else values)

    @cached_property
    def _leverage(self) -> Vector:
        return self.solution.leverage()

    @cached_property
    def _left_out(self) -> tuple[Vector, Vector]:
        """(n,) residuals given the other rows, over their sd relative to sigma, and leverages."""
        if self.matrices.law is not None and self.matrices.law.correlated:
            return self.solution.left_out(self.resid_used)
        return self.pearson_used, self._leverage

    def hatvalues(self) -> pd.Series[float]:
        """Return the joint leverage of fixed and random effects, the diagonal of dmu/dy.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> h = fit.hatvalues()
        >>> h.head(2).round(3).tolist(), float(h.sum().round(2))
        ([0.229, 0.17], 29.02)
        """
        return row_series(self.matrices, self._leverage)

    def cooks_distance(self) -> pd.Series[float]:
        """Return Cook's distance, (r / (1 - h))^2 h / (sigma^2 p) with r = sqrt(w) (y - mu).

        Where residuals are correlated, r is the residual less what the others of its group predict,
        over its standard deviation relative to sigma, and h what the effects take of that.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> fit.cooks_distance().nlargest(2).round(3)
        59    4.332
        56    2.120
        dtype: float64
        """
        r, h = self._left_out
        with np.errstate(divide="ignore", invalid="ignore"):
            size = self._over_sigma(r) / (1.0 - h)
            distance = size**2 * h / self.system.p
        return row_series(self.matrices, distance)

    def rstudent(self) -> pd.Series[float]:
        """Return studentized residuals, sqrt(w) (y - mu) / (sigma sqrt(1 - h)).

        h is the leverage of `hatvalues`; sigma is that of the fit, with all rows.  NaN where the
        model fits a row whatever its response (h = 1).  Where residuals are correlated, both are as
        in `cooks_distance`.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> far = fit.rstudent().abs() > 3
        >>> mx.datasets.load("sleepstudy")[far]
            Reaction  Days Subject
        7   290.1486   7.0     308
        56  454.1619   6.0     332
        59  253.8644   9.0     332
        """
        r, h = self._left_out
        free = 1.0 - h
        free = np.where(free > FITTED_EXACTLY_TOL, free, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self._over_sigma(r) / np.sqrt(free)
        return row_series(self.matrices, np.where(np.isfinite(values), values, np.nan))
