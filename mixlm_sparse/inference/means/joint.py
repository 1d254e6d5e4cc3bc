"""Joint tests of the terms of the fixed part, from the reference grid.

A term is tested by the products of consecutive comparisons of its predictors, averaged over all
others: factors over their levels, covariates over two values around their means.  In a model with
all margins this is type III for factors, and does not depend on their coding.

Searle, Speed and Milliken (1980), doi:10.1080/00031305.1980.10483031.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import plain_name
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.inference.fixed.estimable import estimable_part
from mixlm_sparse.inference.fixed.methods import joint_test, moments, reason_of, require_ddf
from mixlm_sparse.inference.fixed.moments import JointTest
from mixlm_sparse.inference.fixed.tests import f_table, require_residual
from mixlm_sparse.inference.means.averages import averages
from mixlm_sparse.inference.means.contrasts import interaction_contrasts
from mixlm_sparse.inference.means.emmeans import grid_of
from mixlm_sparse.inference.means.estimates import METHODS, Estimates
from mixlm_sparse.inference.means.grid import ReferenceGrid
from mixlm_sparse.inference.means.predictors import predictors_of
from mixlm_sparse.inference.means.specs import read_specs
from mixlm_sparse.model.fitted import FittedModel

F_COLUMNS = ["NumDF", "DenDF", "F value", "Pr(>F)"]
FEWER = "some of the contrasts are not estimable: NumDF counts those that are"


@result_table()
def joint_tests(
    fit: FittedModel,
    *,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    cov_reduce: Any = None,
    ddf: str | None = "satterthwaite",
    weights: str = "equal",
) -> pd.DataFrame:
    """Test every term by contrasts of marginal means, within each combination of `by`.

    Parameters
    ----------
    by : predictors; the terms of the others are tested at each of their values.
    at, cov_reduce, weights : the grid, as in `emmeans`; covariates take two values, a standard
        deviation below and above their means, unless one of these says otherwise.  With more
        values of a curve, more degrees of freedom are tested.
    ddf : as in `emmeans`.

    Returns
    -------
    DataFrame with the columns of `by`, term, NumDF, DenDF, F value and Pr(>F).

    Raises
    ------
    OptionError : an unknown predictor; a fit from matrices.
    DataError : the fixed effects reproduce the response.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> fit.joint_tests()
    Joint tests of terms (Satterthwaite)
    term                NumDF  DenDF  F value  Pr(>F)
    recipe                  2   42.0    0.249  0.7809
    temperature             5  210.0   20.520  <2e-16
    recipe:temperature     10  210.0    1.006  0.4393
    """
    name = require_ddf(ddf)
    require_residual(fit)
    predictors = predictors_of(fit)
    grouping = read_specs(None, by, list(predictors)).by
    if cov_reduce is None:
        held = [plain_name(str(key)) for key in at] if isinstance(at, Mapping) else []
        cov_reduce = {
            key: around_mean
            for key, p in predictors.items()
            if not p.categorical and key not in held and key not in grouping
        }
    grid = grid_of(fit, predictors, at, cov_reduce)
    method = moments(fit, name)
    found: list[JointTest] = []
    keys: list[dict[str, Any]] = []
    fewer = False
    for term in _terms(fit, grid, grouping):
        for key, L in _contrasts(fit, grid, term, grouping, weights):
            used = estimable_part(fit, L)
            fewer |= len(used) < len(L)
            found.append(joint_test(fit, method, used))
            keys.append({**key, "term": ":".join(term)})
    table = f_table(fit, found, range(len(found)))[F_COLUMNS].reset_index(drop=True)
    out = pd.concat([pd.DataFrame(keys, columns=[*grouping, "term"]), table], axis=1)
    if grouping:  # all terms of one group together, in the order of the grid
        order = {tuple(k[g] for g in grouping): i for i, k in reversed(list(enumerate(keys)))}
        places = [order[tuple(k[g] for g in grouping)] for k in keys]
        out = out.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)
    out.attrs["heading"] = f"Joint tests of terms ({METHODS[name]})"
    notes = [FEWER if fewer else "", reason_of(fit, found)]
    out.attrs["notes"] = [text for text in notes if text]
    return out


def around_mean(values: np.ndarray) -> list[float]:
    """Return the values a standard deviation below and above the mean."""
    mean, sd = float(values.mean()), float(values.std())
    return [mean - sd, mean + sd] if sd > 0.0 else [mean]


def _terms(
    fit: FittedModel, grid: ReferenceGrid, grouping: tuple[str, ...]
) -> list[tuple[str, ...]]:
    """Return the sets of predictors that enter together, those of `by` left out, each once."""
    spec = fit.matrices.spec
    assert spec is not None
    out: dict[frozenset[str], tuple[str, ...]] = {}
    for operands in spec.fixed.terms:
        names = set(names_of([operand.variable for operand in operands]))
        for inner in list(names):  # a factor within others is tested within them
            names.update(grid.within.get(inner, ()))
        used = tuple(
            name
            for name, p in grid.predictors.items()
            if name in names and name not in grouping and len(p.values) > 1
        )
        if used:
            out.setdefault(frozenset(used), used)
    return sorted(out.values(), key=len)


def _contrasts(
    fit: FittedModel,
    grid: ReferenceGrid,
    term: tuple[str, ...],
    grouping: tuple[str, ...],
    weights: str,
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Return for each group the contrasts (q, p_all) that test a term."""
    outer = tuple(n for n in term if any(n in grid.within.get(inner, ()) for inner in term))
    found = averages(fit, grid, (*term, *grouping), weights, warn=False)
    means = Estimates(
        fit, "emmean", found.cells, (*outer, *grouping), found.L, found.offset, "none", 0.95
    )
    alone = [rows for _, rows in means.families() if len(rows) > 1]
    if not alone:
        return []
    kept = np.sort(np.concatenate(alone))
    means = replace(
        means,
        cells=means.cells.iloc[kept].reset_index(drop=True),
        L=means.L[kept],
        offset=means.offset[kept],
    )
    contrasts = interaction_contrasts(means, "consec")
    return [(key, contrasts.L[rows]) for key, rows in contrasts.families(grouping)]
