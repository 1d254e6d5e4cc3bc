"""`MixedLMRegressor`: a linear mixed model as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from warnings import warn

import numpy as np

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.gls import gls
from mixlm_sparse.api.lmer import lmer
from mixlm_sparse.common.checks import listed, shown
from mixlm_sparse.common.errors import (
    DataError,
    FormulaError,
    FormulaWarning,
    MissingPackageError,
    caller_level,
)
from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.variance import VarianceFunction
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import Name
from mixlm_sparse.model.designs import quoted
from mixlm_sparse.solve.search.control import Control

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_array,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError as error:  # pragma: no cover
    raise MissingPackageError(
        "MixedLMRegressor needs scikit-learn: pip install scikit-learn"
    ) from error

__all__ = ["MixedLMRegressor"]

GROUPS = "groups"  # name of the grouping factor that is given as an array


class MixedLMRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Linear mixed model with the interface of scikit-learn.

        y | b ~ N(X beta + Z b, sigma^2 W^{-1}),  b ~ N(0, sigma^2 Lambda Lambda')

    Parameters
    ----------
    formula : lme4's syntax in the columns of X, "distance ~ age + (1 | Subject)".  The response is
        the `y` of `fit` whatever it is called, and may be left out ("~ age + (1 | Subject)").
        Groups that are given to `fit` as an array are called `groups`.  None: all columns of X
        have fixed effects and the groups a random intercept.
    reml : restricted maximum likelihood (True) or maximum likelihood.
    re_form : random effects that predictions count: None for all, "population" for none, or a
        formula of random terms.
    na_action : rows of X with missing cells in columns of the formula, in `fit`: "raise" refuses
        them, "omit" leaves them out.  Predictions for such rows are NaN.
    contrasts, optimizer, control, residual, variance, fixed : as in `lmer`.

    Attributes
    ----------
    fit_ : LinearMixedFit, with everything that the package computes from a fit; None if neither a
        formula nor groups were given.
    coef_ : (p,) fixed effects without the intercept, in the order of `fit_.fixef`.
    intercept_ : float, 0.0 where the model has none.
    n_features_in_, feature_names_in_ : columns of X, and their names where all are text.

    Notes
    -----
    Columns of an array are named x0, x1, ...  With neither a formula nor groups there is no mixed
    model: X must be numeric, and the estimates are those of scikit-learn's `LinearRegression`,
    which a `FormulaWarning` says.  A formula without random terms is fitted by `gls`.  Rows with
    a sample weight of zero are left out; the others have the residual variance sigma^2 / weight,
    which for a mixed model is not the same as repeating rows.
    Groups that the fit has not seen are predicted with random effects of zero.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> from mixlm_sparse.interop.sklearn import MixedLMRegressor
    >>> data = mx.datasets.load("Orthodont")
    >>> model = MixedLMRegressor("distance ~ age + (1 | Subject)").fit(data, data["distance"])
    >>> model.predict(data[:2]).round(2)
    array([25.39, 26.71])
    """

    fit_: LinearMixedFit | None

    def __init__(
        self,
        formula: str | None = None,
        reml: bool = True,
        *,
        re_form: str | None = None,
        na_action: str = "raise",
        contrasts: Mapping[str, Any] | None = None,
        optimizer: str = "auto",
        control: Control | None = None,
        residual: Correlation | None = None,
        variance: VarianceFunction | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        self.formula = formula
        self.reml = reml
        self.re_form = re_form
        self.na_action = na_action
        self.contrasts = contrasts
        self.optimizer = optimizer
        self.control = control
        self.residual = residual
        self.variance = variance
        self.fixed = fixed

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> MixedLMRegressor:
        """Fit the model.

        Parameters
        ----------
        X : (n, p) array, or a frame of named columns; text and categories are factors.
        y : (n,) response.
        groups : (n,) labels, or the name of a column of X, which then is no fixed effect.
        sample_weight : (n,) weights, not negative.

        Raises
        ------
        DataError, FormulaError, OptionError : with the remedy.
        ValueError : scikit-learn's own checks of arrays.
        """
        if y is None:
            name = type(self).__name__
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        if self.formula is None and groups is None:
            return self._least_squares(X, y, sample_weight)
        columns, n = self._columns(X, reset=True)
        response = column_or_1d(y, warn=True)
        response = check_array(response, ensure_2d=False, dtype="numeric", input_name="y")
        if len(response) != n:
            raise DataError(f"X has {n} rows and y {len(response)}: give one y for each row")
        by_name = isinstance(groups, str)
        if by_name and groups not in columns:
            raise DataError(f"groups is {groups!r}: X has the columns {listed(columns)}")
        group_name = groups if by_name else None
        if groups is not None and not by_name:
            group_name = self._free_name(columns)
            columns[group_name] = _labels(groups, n)
        text, response_name = self._model(columns, group_name)
        columns[response_name] = response.astype(np.float64)
        weights = None
        if sample_weight is not None:
            weights = np.array(_check_sample_weight(sample_weight, response, dtype=np.float64))
            used = weights != 0.0
            if not used.all():
                columns = {name: _rows(values, used) for name, values in columns.items()}
                weights = weights[used]
        fit = self._fitted(text, columns, weights)
        self._groups_array = None if by_name else group_name
        estimates = fit.fixef
        self.fit_ = fit
        self.coef_ = estimates.drop("(Intercept)", errors="ignore").to_numpy()
        self.intercept_ = float(estimates.get("(Intercept)", 0.0))
        return self

    def predict(self, X: Any, groups: Any = None) -> Vector:
        """Predict the response, (n,).

        Parameters
        ----------
        X : as in `fit`.
        groups : (n,) labels of the groups, if `fit` was given an array; None predicts for groups
            that the fit has not seen.
        """
        check_is_fitted(self, "fit_")
        if self.fit_ is None:
            array = validate_data(self, X, reset=False, dtype="numeric")
            return np.asarray(array @ self.coef_ + self.intercept_, dtype=np.float64)
        columns, n = self._columns(X, reset=False)
        name = self._groups_array
        if name is not None:
            columns[name] = _unseen(self.fit_, n) if groups is None else _labels(groups, n)
        elif groups is not None and not isinstance(groups, str):
            raise DataError(
                "the model was fitted without an array of groups: leave groups out of predict"
            )
        predicted = self.fit_.predict(columns, self.re_form, allow_new_levels=True)
        return np.asarray(predicted, dtype=np.float64)

    def score(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions."""
        return float(r2_score(y, self.predict(X, groups), sample_weight=sample_weight))

    def _least_squares(self, X: Any, y: Any, sample_weight: Any) -> MixedLMRegressor:
        warn(
            "neither a formula nor groups are given: this is ordinary least squares; give groups, "
            "or a formula such as '~ x + (1 | group)'",
            FormulaWarning,
            stacklevel=caller_level(),
        )
        X, y = validate_data(self, X, y, dtype="numeric", y_numeric=True)
        line = LinearRegression().fit(X, y, sample_weight)
        self.coef_, self.intercept_ = line.coef_, float(line.intercept_)
        self.fit_ = None
        return self

    def _columns(self, X: Any, reset: bool) -> tuple[dict[str, Any], int]:
        """Return the columns of X by name, and the number of rows."""
        names = getattr(X, "column_names", getattr(X, "columns", ()))
        if not any(isinstance(name, str) for name in names):
            array = validate_data(self, X, reset=reset, dtype="numeric")
            return {f"x{j}": array[:, j] for j in range(array.shape[1])}, array.shape[0]
        validate_data(self, X, reset=reset, skip_check_array=True)
        if not len(X):
            raise DataError("X has 0 rows: at least 1 is required")
        return {name: X[name] for name in names}, len(X)

    def _free_name(self, columns: Mapping[str, Any]) -> str:
        if GROUPS in columns:
            raise DataError(
                "X has a column 'groups' and groups are given as an array: rename the column, or "
                "give its name, groups='groups'"
            )
        return GROUPS

    def _model(self, columns: Mapping[str, Any], group: str | None) -> tuple[str, str]:
        """Return the formula's text and the name of its response."""
        if self.formula is None:
            response = _free_response(columns)
            fixed = [quoted(name) for name in columns if name != group]
            random = [] if group is None else [f"(1 | {quoted(group)})"]
            return f"{response} ~ {' + '.join(['1', *fixed, *random])}", response
        text = self.formula
        if isinstance(text, str) and text.lstrip().startswith("~"):
            right = text.lstrip()
            named = parse_formula(right, require_response=False, require_random=False).names
            response = _free_response({*columns, *named})
            text = f"{response} {right}"
        parsed = parse_formula(text, require_random=False)
        if not isinstance(parsed.response, Name):
            raise FormulaError(
                f"the response of {shown(self.formula)} is an expression: write its name alone, "
                "and transform y with sklearn.compose.TransformedTargetRegressor"
            )
        if group == GROUPS and not any(GROUPS in r.label.split(":") for r in parsed.random):
            raise FormulaError(
                f"groups are given, and {shown(self.formula)} has no (1 | groups): add it, or "
                "leave groups out"
            )
        return text, parsed.response.id

    def _fitted(
        self, text: str, columns: Mapping[str, Any], weights: Vector | None
    ) -> LinearMixedFit:
        random = bool(parse_formula(text, require_random=False).random)
        settings: dict[str, Any] = {
            "reml": self.reml, "na_action": self.na_action, "contrasts": self.contrasts,
            "optimizer": self.optimizer, "control": self.control, "residual": self.residual,
            "variance": self.variance, "weights": weights, "progress": False,
        }  # fmt: skip
        if random:
            return lmer(text, columns, fixed=self.fixed, **settings)
        if self.fixed:
            raise FormulaError("fixed= needs random terms, and the model has none: leave it out")
        return gls(text, columns, **settings)


def _free_response(taken: Collection[str]) -> str:
    """Return a name for the response that no predictor has."""
    response = "y"
    while response in taken:
        response += "_"
    return response


def _labels(groups: Any, n: int) -> Any:
    """Return the labels of groups, (n,), as a column."""
    shape: tuple[int, ...] = getattr(groups, "shape", ())
    if len(shape) > 1 and shape[1] != 1:
        raise DataError(f"groups has shape {shape}: give one column of labels")
    labels = column_or_1d(groups)
    if len(labels) != n:
        raise DataError(f"X has {n} rows and groups {len(labels)}: give one group for each row")
    return labels


def _rows(values: Any, used: Any) -> Any:
    return values.filter(used) if hasattr(values, "to_arrow") else values[used]


def _unseen(fit: LinearMixedFit, n: int) -> Any:
    """Return n labels of a group that the fit has not seen."""
    known = {str(level) for f in fit.matrices.factors for table in f.tables for level in table}
    label = "new"
    while label in known:
        label += "_"
    return np.full(n, label, dtype=object)
