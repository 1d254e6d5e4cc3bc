"""`adapter`: predictions, comparisons and slopes of a fit by the package marginaleffects.

Everything there is a function of the fixed effects beta: predictions are x'beta + offset, those of
the population, and standard errors come from the covariance of beta by the delta method.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.common.checks import require_instance, require_number, require_one_of
from mixlm_sparse.common.errors import MissingPackageError, OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.table import Column
from mixlm_sparse.formula.parse import parse_expression, parse_formula
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.inference.fixed.coefficients import vcov_adjusted
from mixlm_sparse.inference.fixed.robust import TYPES, robust
from mixlm_sparse.model.data import data_columns
from mixlm_sparse.model.predict.estimable import estimable_rows
from mixlm_sparse.model.predict.rows import design_rows

try:
    import polars as pl
    from marginaleffects.classes import ModelAbstract, ModelVault
except ImportError as error:  # pragma: no cover
    raise MissingPackageError(
        "the adapter needs marginaleffects: pip install marginaleffects"
    ) from error

__all__ = ["Adapter", "adapter"]

INFINITE = 1e15  # degrees of freedom that marginaleffects can make whole; an F beside them is chi2
COVARIANCES = ("kenward-roger", *TYPES)


def adapter(fit: LinearMixedFit, *, df: float = math.inf) -> Adapter:
    """Make a fit a model of the package marginaleffects.

    Parameters
    ----------
    fit : by a formula, with its data.
    df : degrees of freedom of all tests and intervals there; infinite ones are normal.  That
        package knows one number for all: where each contrast is to have its own by Satterthwaite
        or Kenward and Roger, use `emmeans`, `emtrends` and `contest` of the fit.

    Returns
    -------
    Adapter : first argument of `marginaleffects.predictions`, `comparisons`, `slopes`,
        `hypotheses` and their averages.  Their argument `vcov` also takes "kenward-roger" (the
        adjusted covariance) and "CR0", "CR1", "CR2" (cluster-robust).

    Raises
    ------
    OptionError : the fit was made from matrices, or `df` is not positive.
    SavedFitError : the fit was saved without its data.

    Notes
    -----
    Standard errors there come from exact derivatives (JAX); those of slopes, and with an offset,
    from differences over a step that goes by the size of each coefficient.  Where one is near zero
    that step is lost in rounding, and standard errors of slopes may be a quarter off.  Predictions
    are linear in beta, so that every step is right: give slopes `eps_vcov=1.0` always.

    Examples
    --------
    >>> import marginaleffects, mixlm_sparse as mx
    >>> from mixlm_sparse.interop.marginaleffects import adapter
    >>> fit = mx.lmer("distance ~ age * Sex + (1 | Subject)", mx.datasets.load("Orthodont"))
    >>> slopes = marginaleffects.avg_slopes(
    ...     adapter(fit), variables="age", by="Sex", eps_vcov=1.0
    ... )
    >>> slopes["estimate"].round(4).to_list()
    [0.7844, 0.4795]
    """
    require_instance("fit", fit, LinearMixedFit, "give a fit of lmer or gls")
    require_number("df", df, above=0.0, finite=False)
    return Adapter(fit, float(df))


class Adapter(ModelAbstract):  # type: ignore[misc]
    """A fit as marginaleffects reads it; made by `adapter`."""

    def __init__(self, fit: LinearMixedFit, df: float) -> None:
        formula = parse_formula(fit.formula, require_response=False, require_random=False)
        fixed = (*(v for term in formula.fixed.terms for v in term), *formula.fixed.offsets)
        response = () if formula.response is None else names_of([formula.response])
        predictors = [name for name in names_of(fixed) if name not in response]
        groups = names_of(part for random in formula.random for part in random.components)
        names = [*response, *predictors, *groups]
        offset = None if fit.call is None else fit.call.offset
        if isinstance(offset, str):
            names += names_of([parse_expression(offset)])
        columns = data_columns(fit, dict.fromkeys(names))
        self.df_resid = df
        self._offset = fit.matrices.offset is not None
        vault = ModelVault(
            coef=np.array(fit.solution.beta),
            coefnames=np.array(fit.system.x_names),
            formula=_no_formula,
            modeldata=pl.DataFrame([_series(column) for column in columns.values()]),
            package="mixlm_sparse",
            variable_names=[fit.matrices.response_name or "y", *predictors],
        )
        super().__init__(fit, vault)

    def validation(self) -> None:
        """Say of what type each column is; what marginaleffects reads off a formula is known."""
        self.coef, self.response_name = self.vault.coef, self.vault.variable_names[0]
        self.vault.variables_type = {s.name: _type(s) for s in self.vault.modeldata}

    def find_predictors(self) -> list[str] | None:
        """Return the columns that the mean depends on; None, "unknown" there, where it has none."""
        return self.vault.variable_names[1:] or None

    def get_df(self) -> float:
        """Return the degrees of freedom of joint tests, which are made whole there."""
        return self.df_resid if math.isfinite(self.df_resid) else INFINITE

    def get_vcov(self, vcov: Any = True) -> Matrix | None:
        """Return the covariance (p, p) of the coefficients: False for none, or its name."""
        fit: LinearMixedFit = self.model
        if isinstance(vcov, bool):
            return fit.cov_params().to_numpy() if vcov else None
        require_one_of("vcov", vcov, COVARIANCES)
        if vcov == "kenward-roger":
            return vcov_adjusted(fit).to_numpy()
        return robust(fit, type=vcov).vcov

    def get_exog(self, newdata: pl.DataFrame) -> Matrix:
        """Return X of new rows, (n, p); NaN where the data determine no mean.

        Where the model has an offset, it is one more column.
        """
        fit: LinearMixedFit = self.model
        rows = design_rows(fit, newdata, fixed=True, terms=(), na_action="raise")
        p = fit.system.p
        out = np.empty((rows.n, p + self._offset))
        for block in rows.blocks(fit.system.products.kept):
            out[block.slice, :p] = block.X
            if self._offset:
                out[block.slice, p] = block.offset
        estimable = estimable_rows(fit, rows)
        if estimable is not None:
            out[~estimable] = np.nan
        return out

    def get_autodiff_args(self) -> Any:
        """Return what marginaleffects is to know of the model to differentiate exactly."""
        if self._offset:
            return "models with an offset"
        if not self.model.system.p:
            return "models without fixed effects"
        return {"model_type": "linear", "family": None, "link": None}

    def get_predict(self, params: Vector, newdata: Any) -> pl.DataFrame:
        """Return x'beta + offset for each row."""
        exog = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
        estimate = exog @ (np.append(params, 1.0) if self._offset else params)
        rowid = pl.Series("rowid", range(len(estimate)), dtype=pl.Int32)
        return pl.DataFrame([rowid, pl.Series("estimate", estimate)])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)


def _no_formula(data: Any) -> Any:
    """Stand for the formula, which marginaleffects is not to read itself."""
    raise OptionError("the columns of the model are built by mixlm_sparse: use adapter(fit)")


def _type(series: pl.Series) -> str:
    if series.dtype == pl.Enum:
        return "character"
    if series.dtype == pl.Boolean:
        return "boolean"
    values = series.to_numpy()
    if values.dtype.kind in "iuf" and np.isin(values, (0, 1)).all():
        return "binary"
    return "integer" if values.dtype.kind in "iu" else "numeric"


def _series(column: Column) -> pl.Series:
    """Return a column without missing cells; levels are text, in their order."""
    if column.kind == "factor":
        levels = level_labels(column.levels)
        values = np.asarray(levels, dtype=object)[column.values]
        return pl.Series(column.name, values.tolist(), dtype=pl.Enum(levels))
    return pl.Series(column.name, column.values)
