"""The residuals of rows to predict: their law, and what the residuals of the fit say of them.

With e the residuals of the fit, R_oo, R_no and R_nn the parts of R among its rows (old), between
new rows and old ones, and among new rows of one group, and K = R_no R_oo^{-1},

    E(y_n | y_o) = x_n'beta + z_n'b + K e_o
    Var / sigma^2 = a'M a + R_nn - K R_on,    a = (x_n, z_n) - K (X_o, Z_o)

with M the joint covariance of (beta, b) of `predict.variance`: the forecast is the best linear
unbiased predictor.  For AR(1) K has one number that is not zero for rows after the last old one,
phi^(distance).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.design.columns import ArrayColumns
from mixlm_sparse.design.readers import open_table
from mixlm_sparse.design.residual_columns import combined
from mixlm_sparse.design.residuals import columns_of_residuals, read_residuals
from mixlm_sparse.design.rows import missing_cells, restrict
from mixlm_sparse.design.table import Column
from mixlm_sparse.model.data import data_columns
from mixlm_sparse.model.predict.rows import DesignRows, prior_weights

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["DrawnResiduals", "Forecast", "forecast", "residual_variances", "whitening_of_rows"]


def _columns(
    fit: FittedModel, newdata: Any, rows: DesignRows, names: tuple[str, ...]
) -> Mapping[str, Column]:
    """Return columns of new data on the rows evaluated.

    Raises
    ------
    DataError : a column is not there, or a cell is missing.
    """
    table = open_table(newdata, names)
    columns = table.columns
    if rows.rows is not None:
        columns = {name: column.take(rows.rows) for name, column in columns.items()}
    missing = missing_cells(columns.values(), rows.n)
    if missing is not None and missing.any():
        lacking = [name for name, c in columns.items() if c.missing is not None and c.missing.any()]
        raise DataError(
            f"cells are missing in {listed(lacking, quoted=True)}, which the residual structure "
            "reads: fill them in, or drop these rows"
        )
    return restrict(columns, None)


def _new_law(
    fit: FittedModel, newdata: Any, rows: DesignRows, weights: Any, *, correlated: bool
) -> ResidualLaw:
    state = fit.matrices.residuals
    assert state is not None
    if not correlated:
        state = replace(state, correlation=None)
    names = columns_of_residuals(state.correlation, state.variance)
    columns = _columns(fit, newdata, rows, names)
    return read_residuals(state, columns, rows.n, prior_weights(fit, newdata, rows, weights))


def whitening_of_rows(
    fit: FittedModel, newdata: Any, rows: DesignRows, weights: Any
) -> Whitening:
    """Return what whitens the rows of the fit (`newdata` None) or new ones."""
    whitened = fit.system.whitened
    assert whitened is not None
    if newdata is None:
        return _of_fit(fit, rows, weights)
    return Whitening.of(_new_law(fit, newdata, rows, weights, correlated=True), whitened.rho)


def _of_fit(fit: FittedModel, rows: DesignRows, weights: Any) -> Whitening:
    """Return what whitens the rows of the fit, perhaps with other prior weights."""
    whitened = fit.system.whitened
    assert whitened is not None
    if weights is None:
        return whitened.whitening
    w = prior_weights(fit, None, rows, weights)
    return Whitening.of(replace(whitened.law, weights=w), whitened.rho)


def residual_variances(fit: FittedModel, newdata: Any, rows: DesignRows, weights: Any) -> Vector:
    """Return the residual variances (n,) of rows relative to sigma^2."""
    whitened = fit.system.whitened
    assert whitened is not None
    if newdata is None:
        return np.asarray(_of_fit(fit, rows, weights).sd ** 2)
    law = _new_law(fit, newdata, rows, weights, correlated=False)
    rho = whitened.rho[whitened.law.variance_part]
    return np.asarray(Whitening.of(law, rho).sd ** 2)


@dataclass(frozen=True, eq=False, slots=True)
class DrawnResiduals:
    """Residuals that are drawn: R^{1/2} noise, all rows together."""

    whitening: Whitening

    def draw(self, noise: Matrix, rows: slice) -> Matrix:
        """Return R^{1/2} noise for independent standard normal noise (n, ...) of all rows."""
        assert rows.stop - rows.start == self.whitening.law.n
        flat = noise.reshape(noise.shape[0], -1)
        return self.whitening.draw(flat).reshape(noise.shape)


@dataclass(frozen=True, eq=False, slots=True)
class Forecast:
    """What the residuals of the fit say of new rows.

    Parameters
    ----------
    shift : (n,) expected residuals.
    variance : (n,) of what is left of the residuals, relative to sigma^2.
    rows : the new rows, less K times the old ones.
    """

    shift: Vector
    variance: Vector
    rows: DesignRows


def forecast(fit: FittedModel, newdata: Any, rows: DesignRows, weights: Any) -> Forecast:
    """Condition new rows on the residuals of the fit.

    Raises
    ------
    OptionError : there is no residual correlation, or no new data.
    DataError : a new row has other levels of a random effect than its residual group in the fit.
    """
    whitened, state = fit.system.whitened, fit.matrices.residuals
    if whitened is None or state is None or state.correlation is None:
        raise OptionError(
            "forecast=True uses the correlation of residuals, and this fit has none: leave it out"
        )
    if newdata is None:
        raise OptionError("forecast=True is about new rows: give newdata")
    law = whitened.law
    new = _new_law(fit, newdata, rows, weights, correlated=True)
    sd_new = Whitening.of(replace(new, correlation=None), whitened.rho[law.variance_part]).sd
    sd_old = whitened.whitening.sd
    n = rows.n
    shift, variance = np.zeros(n), sd_new**2
    X_new = np.zeros((n, 0)) if rows.fixed is None else np.array(rows.fixed.block(slice(0, n)))
    Z_new = {t: np.array(columns.block(slice(0, n))) for t, columns in rows.terms.items()}
    m = fit.matrices
    old_X = m.X
    old_Z = {t: m.terms[t].columns.block(slice(0, m.nobs)) for t in rows.terms}
    residual = fit.resid_used
    for old_rows, new_rows in _matched_groups(fit, newdata, rows, new):
        _require_levels(fit, rows, old_rows, new_rows)
        stratum = int(law.stratum[law.group_of[old_rows[0]]])
        t = np.concatenate([law.t[old_rows], new.t[new_rows]])[None]
        C = state.correlation.correlation(t, whitened.rho[law.part(stratum)], law.places)[0]
        size = old_rows.size
        K = np.linalg.solve(C[:size, :size], C[:size, size:]).T
        left = 1.0 - (K * C[size:, :size]).sum(axis=1)
        K = K * sd_new[new_rows, None] / sd_old[old_rows]
        shift[new_rows] = K @ residual[old_rows]
        variance[new_rows] = sd_new[new_rows] ** 2 * np.maximum(left, 0.0)
        X_new[new_rows] -= K @ old_X[old_rows]
        for t_, Z in Z_new.items():
            Z[new_rows] -= K @ old_Z[t_][old_rows]
    assert rows.fixed is not None
    conditioned = replace(
        rows,
        fixed=ArrayColumns(rows.fixed.names, X_new),
        terms={t: ArrayColumns(rows.terms[t].names, Z) for t, Z in Z_new.items()},
    )
    return Forecast(shift, variance, conditioned)


def _matched_groups(
    fit: FittedModel, newdata: Any, rows: DesignRows, new: ResidualLaw
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return rows of the fit and new rows of every residual group that both have."""
    state = fit.matrices.residuals
    assert state is not None
    assert state.correlation is not None
    names = state.correlation.columns("group")
    if not names:
        return [(np.arange(fit.nobs), np.arange(rows.n))]
    old_codes, old_labels = combined(names, data_columns(fit, names))
    new_codes, new_labels = combined(names, _columns(fit, newdata, rows, names))
    place = {label: i for i, label in enumerate(old_labels)}
    order = np.argsort(old_codes, kind="stable")
    cuts = np.searchsorted(old_codes[order], np.arange(len(old_labels) + 1))
    out = []
    for code, label in enumerate(new_labels):
        if label in place:
            at = place[label]
            out.append((order[cuts[at] : cuts[at + 1]], np.flatnonzero(new_codes == code)))
    return out


def _require_levels(
    fit: FittedModel, rows: DesignRows, old: NDArray[np.intp], new: NDArray[np.intp]
) -> None:
    for g, codes in rows.codes.items():
        factor = fit.matrices.factors[g]
        if not isinstance(codes, np.ndarray):
            raise DataError(f"a forecast needs rows with one level of '{factor.label}'")
        if (codes[new][:, None] != factor.codes[old]).any():
            raise DataError(
                f"a new row has another level of '{factor.label}' than the rows of its residual "
                "group in the fit: a forecast needs the same"
            )
