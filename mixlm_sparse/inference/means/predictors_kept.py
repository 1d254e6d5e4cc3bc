"""The predictors of a fit whose file has no rows: what marginal means ask of them.

Of factors these are the combinations of levels that occur and how often, of covariates mean,
standard deviation, least and largest value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.design.readers import open_table
from mixlm_sparse.design.table import Column
from mixlm_sparse.inference.means.grid import mean_of_given_offset
from mixlm_sparse.inference.means.predictors import KEPT_AS, KeptColumns, predictors_of
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.rowless import SAVED, SummedValues
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.model.saved.frame import column_from, column_to
from mixlm_sparse.model.saved.kept import Keeper
from mixlm_sparse.model.saved.parts import finite

__all__ = ["KEEPER"]

SUMMARY = ("average", "sd", "least", "largest")
LARGEST = 1e100  # of numbers whose squares are summed
MOST_CELLS = 2**31  # numbers of cells, which are multiplied by those of another factor


def _compute(fit: FittedModel) -> KeptColumns:
    predictors = predictors_of(fit)
    factors = [p for p in predictors.values() if p.categorical]
    cell = np.zeros(fit.nobs, dtype=np.int64)
    for p in factors:
        cell = cell * (len(p.values) + 1) + p.codes() + 1
        if int(cell.max()) > MOST_CELLS:
            cell = np.unique(cell, return_inverse=True)[1].ravel()
    _, first, counts = np.unique(cell, return_index=True, return_counts=True)
    columns = {}
    for name, p in predictors.items():
        if p.categorical:
            columns[name] = p.column.take(first.astype(np.int32))
        else:
            x = p.column.values.astype(np.float64)
            known = SummedValues(SAVED, *map(float, (x.mean(), x.std(), x.min(), x.max())))
            columns[name] = Column(name, p.column.kind, known)  # type: ignore[arg-type]
    return KeptColumns(columns, counts.astype(np.float64), mean_of_given_offset(fit))


def _write(found: KeptColumns, prefix: str, arrays: Arrays) -> dict[str, Any]:
    arrays[prefix + "counts"] = found.counts
    out: list[dict[str, Any]] = []
    for i, column in enumerate(found.columns.values()):
        values: Any = column.values
        if isinstance(values, SummedValues):
            about = {"name": column.name, "kind": column.kind, "summed": True}
            arrays[f"{prefix}{i}.summed"] = np.array([getattr(values, one) for one in SUMMARY])
        else:
            if column.kind == "factor":
                column = replace(column, values=column.values.astype(np.int32))
            about = column_to(column, f"{prefix}{i}", arrays)
        out.append(about)
    return {"columns": out, "offset": found.offset}


def _read(
    fit: FittedModel, saved: Mapping[str, Any], prefix: str, archive: Archive
) -> KeptColumns:
    counts = archive.numbers(prefix + "counts", None)
    if not counts.size or not (counts >= 1.0).all() or float(counts.sum()) != fit.nobs:
        raise archive.broken("the cells of the predictors are not of the rows")
    columns: dict[str, Column] = {}
    for i, about in enumerate(saved["columns"]):
        name, kind = str(about["name"]), str(about["kind"])
        if about.get("summed"):
            known = SummedValues(SAVED, *archive.numbers(f"{prefix}{i}.summed", 4).tolist())
            size = max(-known.least, known.largest, known.sd, abs(known.average))
            if not (known.least <= known.largest and known.sd >= 0.0 and size < LARGEST):
                raise archive.broken("the predictors are no numbers")
            columns[name] = Column(name, kind, known)  # type: ignore[arg-type]
        else:
            values = column_from(about, f"{prefix}{i}", archive, counts.size)
            column = open_table(pd.DataFrame({name: values}), (name,)).columns[name]
            if column.missing is not None and column.missing.any():
                raise archive.broken("cells of the predictors are missing")
            columns[name] = column
    found = KeptColumns(columns, counts, finite(saved["offset"], archive, "offset"))
    fit.kept[KEPT_AS] = found
    if [*predictors_of(fit)] != [*columns]:
        raise archive.broken("the predictors are not those of the formula")
    return found


KEEPER = Keeper(KEPT_AS, _compute, _write, _read)
