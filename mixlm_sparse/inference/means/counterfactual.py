"""Averages over the rows of the data with a predictor set to each of its levels.

For every level a the fixed part is evaluated on all n rows with the predictor at a and all else as
it is, and the rows are averaged: (1/n) sum_i x_i(a)'beta.  Where the model is linear without
interactions this is the marginal mean at the means of the data ("cells" of what occurs); otherwise
it is what the population of the data would have (standardization, the g-formula).

References
----------
Robins (1986), doi:10.1016/0270-0255(86)90088-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_names
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.fixed.estimable import estimable, warn_not_estimable
from mixlm_sparse.inference.means.averages import Averages
from mixlm_sparse.inference.means.grid import rows_of_design
from mixlm_sparse.inference.means.predictors import PREDICTOR, Predictor, with_values
from mixlm_sparse.inference.means.specs import Specs
from mixlm_sparse.model.data import held_data
from mixlm_sparse.model.fitted import FittedModel


def counterfactual_averages(
    fit: FittedModel,
    predictors: dict[str, Predictor],
    given: str | Sequence[str],
    wanted: Specs,
    at: Mapping[str, Any] | None,
) -> tuple[Averages, str]:
    """Return averages over the rows of the data, and what is to be said of them.

    Parameters
    ----------
    given : predictors that are set to each of their values.
    wanted : predictors of the table; one that is not set parts the rows by its levels.
    at : values of the predictors that are set, or levels that rows are taken of.

    Raises
    ------
    OptionError : an unknown name; a covariate in the table that is not set.
    """
    held_data(fit)  # or the error that there are no rows
    names = require_names("counterfactuals", given, list(predictors), PREDICTOR)
    chosen = with_values(predictors, at)
    shown = (*wanted.names, *wanted.by)
    for name in (*shown, *(at or ())):
        if name not in names and not chosen[name].categorical:
            raise OptionError(
                f"{name!r} is a covariate, which is as it is in the data: name it in "
                "counterfactuals= as well, with its values in at="
            )
    own = {name: p.codes() for name, p in chosen.items() if name not in names and p.categorical}
    used = np.ones(fit.nobs, dtype=bool)
    for codes in own.values():
        used &= codes >= 0
    if not used.any():
        raise OptionError("no row of the data has these levels: leave some of them out of at=")
    numbers = {
        name: p.column.values[used].astype(np.float64)
        for name, p in chosen.items()
        if name not in names and not p.categorical
    }
    place = {name: codes[used] for name, codes in own.items()}
    place.update({name: np.zeros(int(used.sum()), dtype=np.int64) for name in numbers})
    rows, offsets, keys = _sums(fit, chosen, names, shown, place, numbers)
    distinct = sorted(set(keys), key=lambda key: key[::-1])  # the first predictor is fastest
    L = np.array([np.mean([rows[i] for i, k in enumerate(keys) if k == key], axis=0)
                  for key in distinct])  # fmt: skip
    offset = np.array([np.mean([offsets[i] for i, k in enumerate(keys) if k == key])
                       for key in distinct])  # fmt: skip
    cells = pd.DataFrame(
        {name: [chosen[name].values[key[j]] for key in distinct] for j, name in enumerate(shown)},
        index=range(len(distinct)),
    )
    _warn(fit, cells, L)
    said = f"averages over {int(used.sum())} rows of the data, each at every {', '.join(names)}"
    return Averages(cells, L, offset, (), {}), said


def _sums(
    fit: FittedModel,
    chosen: dict[str, Predictor],
    names: Sequence[str],
    shown: Sequence[str],
    place: dict[str, np.ndarray],
    numbers: dict[str, Vector],
) -> tuple[list[Vector], list[float], list[tuple[int, ...]]]:
    """Return mean rows and offsets for every setting and part of the data, and their cells."""
    n = len(next(iter(place.values()))) if place else fit.nobs
    parting = [name for name in shown if name not in names]
    sizes = [len(chosen[name].values) for name in parting]
    part = np.zeros(n, dtype=np.int64)
    if parting:
        part = np.ravel_multi_index([place[name] for name in parting], sizes, order="F")
    rows, offsets, keys = [], [], []
    for setting in product(*(range(len(chosen[name].values)) for name in names)):
        here = dict(zip(names, setting, strict=True))
        codes = {**place, **{name: np.full(n, code) for name, code in here.items()}}
        X, offset = rows_of_design(fit, chosen, codes, n, numbers)
        for one in np.unique(part).tolist():
            mine = part == one
            levels = dict(zip(parting, np.unravel_index(one, sizes, order="F"), strict=True)
                          ) if parting else {}  # fmt: skip
            rows.append(X[mine].mean(axis=0))
            offsets.append(float(offset[mine].mean()))
            keys.append(tuple(int({**levels, **here}[name]) for name in shown))
    return rows, offsets, keys


def _warn(fit: FittedModel, cells: pd.DataFrame, L: np.ndarray) -> None:
    missed = np.flatnonzero(~estimable(fit, L)).tolist()
    if missed:
        labels = [
            ", ".join(f"{name} = {cells[name].iloc[i]}" for name in cells.columns) or "the mean"
            for i in missed
        ]
        warn_not_estimable(
            fit, labels, "some rows would be in cells that the data do not have: set fewer "
            "predictors, or remove an interaction from the formula",
        )  # fmt: skip
