"""Autocorrelation and semivariogram of residuals within groups, before and after whitening.

With r residuals over their standard deviation, sums over the pairs of rows of one group

    acf(l) = mean(r_i r_j | l apart) / mean(r_i^2)
    variogram(d) = mean((r_i - r_j)^2 | d apart) / 2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mixlm_sparse.common.checks import (
    require_count,
    require_level,
    require_one_of,
    require_vector,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.cases.row_groups import row_groups
from mixlm_sparse.model.data import data_column
from mixlm_sparse.model.fitted import FittedModel

TYPES = ("normalized", "pearson")
MAX_PAIRS = 2_000_000  # pairs of a semivariogram; of larger groups the nearest rows are taken


@dataclass(frozen=True, eq=False)
class Runs:
    """Rows ordered by group, then time.

    Parameters
    ----------
    order : (n,) rows; codes, t : (n,) group and time (n,) or position (n, d) of the ordered rows.
    group, time : what they are called.
    """

    order: NDArray[np.intp]
    codes: NDArray[np.intp]
    t: NDArray[np.float64]
    group: str
    time: str


def runs(fit: FittedModel, group: Any = None, time: Any = None) -> Runs:
    """Return the runs of the residual structure, or of a group and a time that are given.

    Raises
    ------
    OptionError : the fit has no residual groups and no grouping factor, and none is given.
    """
    law, state = fit.matrices.law, fit.matrices.residuals
    codes: NDArray[np.integer[Any]]
    if group is None and law is not None and state is not None and state.correlation is not None:
        codes = law.group_of
        label = ":".join(state.correlation.columns("group")) or "all rows"
        place = state.correlation.columns(state.correlation.place_argument)
        t, name = law.t, ", ".join(place) or "order of rows"
    elif group is not None:
        found = row_groups(fit, group, "group")
        codes, label, t, name = found.codes, found.name, np.zeros(0), "order of rows"
    elif fit.matrices.factors:
        factor = max(fit.matrices.factors, key=lambda one: one.n_levels)
        codes, label, t, name = factor.codes, factor.label, np.zeros(0), "order of rows"
    else:
        raise OptionError("the rows have no groups: say which column has them, group='subject'")
    if time is not None:
        name = time if isinstance(time, str) else "time"
        t = _times(fit, time)
    elif not t.size:
        t = np.arange(fit.nobs, dtype=np.float64)
    keys = (t[None] if t.ndim == 1 else t.T)[::-1]
    order = np.lexsort((*keys, codes))
    return Runs(order, np.asarray(codes)[order].astype(np.intp), t[order], label, name)


def _times(fit: FittedModel, time: Any) -> Vector:
    """Return one finite number for each row (n,), of a column or an array."""
    values = time
    if isinstance(time, str):
        column = data_column(fit, time)
        if column.kind not in ("number", "bool") or column.missing is not None:
            raise OptionError(f"time: column '{time}' must hold numbers, without missing cells")
        values = column.values.astype(np.float64)
    return require_vector("time", values, fit.nobs, of="the rows of the fit")


def _residuals(fit: FittedModel, kind: str) -> Vector:
    require_one_of("type", kind, TYPES)
    if fit.perfect or fit.sigma == 0.0:
        raise OptionError("the model fits perfectly: there are no residuals")
    values = fit.normalized_used if kind == "normalized" else fit.pearson_used
    return values / fit.sigma


@result_table("Autocorrelation of residuals within groups")
def acf(
    fit: FittedModel,
    group: Any = None,
    time: Any = None,
    *,
    type: str = "normalized",
    max_lag: int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the autocorrelation of residuals within groups.

    Parameters
    ----------
    group, time : columns or arrays; by default those of the residual structure, or the factor with
        the most levels and the order of the rows.
    type : "normalized" residuals are whitened by the residual structure, and uncorrelated if it is
        right; "pearson" are those before.
    max_lag : largest lag; by default what a tenth of the pairs of lag one still have.
    level : of the limits for independent residuals.

    Returns
    -------
    DataFrame with columns lag, acf, limit and pairs.  Lags are differences of times that are whole
    numbers, or steps from row to row.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> ovary = mx.datasets.load("Ovary")
    >>> ovary["row"] = ovary.groupby("Mare", observed=True).cumcount()
    >>> fit = mx.gls("follicles ~ s1 + c1", ovary, residual=mx.AR1(time="row", group="Mare"))
    >>> before, after = (fit.acf(type=kind)["acf"][1] for kind in ("pearson", "normalized"))
    >>> print(round(before, 2), round(after, 2))
    0.73 -0.15
    """
    z = float(ndtri(0.5 + 0.5 * require_level("level", level)))
    found = runs(fit, group, time)
    r = _residuals(fit, type)[found.order]
    longest = int(np.bincount(found.codes).max()) - 1
    if longest < 1:
        raise OptionError("no group has two rows: there is no correlation within groups")
    whole = found.t.ndim == 1 and bool((found.t == np.round(found.t)).all())
    whole = whole and found.time != "order of rows"
    most = longest if max_lag is None else require_count("max_lag", max_lag)
    products: dict[int, float] = {}
    counts: dict[int, int] = {}
    for shift in range(1, longest + 1):
        same = found.codes[shift:] == found.codes[:-shift]
        product = (r[shift:] * r[:-shift])[same]
        lags = np.full(product.size, shift)
        if whole:
            lags = (found.t[shift:] - found.t[:-shift])[same].astype(np.intp)
        near = lags <= most if max_lag is not None else np.ones(lags.size, dtype=bool)
        for lag in np.unique(lags[near]).tolist():
            at = lags == lag
            products[lag] = products.get(lag, 0.0) + float(product[at].sum())
            counts[lag] = counts.get(lag, 0) + int(at.sum())
    lags_found = sorted(counts)
    if max_lag is None:
        least = 0.1 * counts[lags_found[0]]
        lags_found = [lag for lag in lags_found if counts[lag] >= least]
    scale = float(r @ r) / r.size
    rows = [(0, 1.0, np.nan, r.size)]
    rows += [
        (lag, products[lag] / counts[lag] / scale, z / np.sqrt(counts[lag]), counts[lag])
        for lag in lags_found
    ]
    table = pd.DataFrame(rows, columns=["lag", "acf", "limit", "pairs"])
    table.attrs["labels"] = ["lag"]
    table.attrs["blank"] = {"limit": [0]}
    table.attrs["note"] = f"{type} residuals within {found.group}, by {found.time}"
    table.attrs["labels"] = ["lag"]
    table.attrs["decimals"] = {"acf": 3, "limit": 3}
    return table


@result_table("Semivariogram of residuals within groups")
def variogram(
    fit: FittedModel,
    group: Any = None,
    time: Any = None,
    *,
    type: str = "normalized",
    bins: int = 15,
) -> pd.DataFrame:
    """Return half the mean squared difference of residuals of a group, by their distance.

    Parameters
    ----------
    group, time, type : as in `acf`; several columns of positions give Euclidean distances.
    bins : number of distances; pairs are parted evenly between them.

    Returns
    -------
    DataFrame with columns distance, variogram and pairs.  Residuals are over their standard
    deviation, so that independent ones lie at one.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> boys = mx.datasets.load("Oxboys")
    >>> fit = mx.lmer("height ~ age + (age | Subject)", boys)
    >>> fit.variogram(time="age", bins=4)
    Semivariogram of residuals within groups
    distance  variogram  pairs
      0.2674     0.5466    234
      0.5843     0.9301    230
      0.9387     1.3003    238
      1.5387     0.7481    234
    Note: normalized residuals within Subject, by age
    """
    bins = require_count("bins", bins)
    found = runs(fit, group, time)
    r = _residuals(fit, type)[found.order]
    distances, halves, total = [], [], 0
    for shift in range(1, int(np.bincount(found.codes).max())):
        same = found.codes[shift:] == found.codes[:-shift]
        apart = (found.t[shift:] - found.t[:-shift])[same]
        distance = np.abs(apart) if apart.ndim == 1 else np.sqrt((apart**2).sum(axis=1))
        distances.append(distance)
        halves.append(0.5 * ((r[shift:] - r[:-shift])[same]) ** 2)
        total += distance.size
        if total > MAX_PAIRS:
            break
    if not total:
        raise OptionError("no group has two rows: there is no semivariogram")
    x, y = np.concatenate(distances), np.concatenate(halves)
    distinct = np.unique(x)
    if distinct.size <= bins:
        place = np.searchsorted(distinct, x)
    else:
        edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, bins + 1)))
        place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, edges.size - 2)
    count = np.bincount(place).astype(np.float64)
    filled = count > 0
    table = pd.DataFrame(
        {
            "distance": np.bincount(place, x)[filled] / count[filled],
            "variogram": np.bincount(place, y)[filled] / count[filled],
            "pairs": count[filled].astype(np.int64),
        }
    )
    table.attrs["note"] = f"{type} residuals within {found.group}, by {found.time}"
    table.attrs["uncounted"] = True
    return table
