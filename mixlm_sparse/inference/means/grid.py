"""Reference grids: levels of factors crossed with typical values of covariates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.means.predictors import (
    KEPT_AS,
    KeptColumns,
    Predictor,
    nested_pairs,
    with_values,
)
from mixlm_sparse.model.fitted import FittedModel

MAX_CELLS = 200_000


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceGrid:
    """Cells of the grid and their rows of X.

    Parameters
    ----------
    predictors : by name, in the order of the formula.
    codes : by name the position of each cell's value among those of the predictor, (cells,).
    X : (cells, p_all) all columns of the fixed part.
    offset : (cells,).
    within : factors that lie within others in the data, with these others; cells that put a level
        elsewhere are not part of the grid.
    """

    predictors: dict[str, Predictor]
    codes: dict[str, np.ndarray]
    X: Matrix
    offset: Vector
    within: dict[str, tuple[str, ...]]

    @property
    def size(self) -> int:
        return int(self.X.shape[0])

    def values(self, name: str) -> list[Any]:
        """Return the value of a predictor in each cell."""
        values = self.predictors[name].values
        return [values[code] for code in self.codes[name].tolist()]

    def label(self, cell: int) -> str:
        """Name a cell by the factors: "a = x, b = y"."""
        return ", ".join(
            f"{name} = {p.values[self.codes[name][cell]]}"
            for name, p in self.predictors.items()
            if p.categorical
        )


def reference_grid(
    fit: FittedModel, predictors: dict[str, Predictor], at: Mapping[str, Any] | None = None
) -> ReferenceGrid:
    """Cross the levels of all factors with the means of all covariates.

    Parameters
    ----------
    at : other values by name: numbers for a covariate, some of the levels for a factor.

    Raises
    ------
    OptionError : more than `MAX_CELLS` cells, or `at` does not suit.
    """
    chosen = with_values(predictors, at)
    sizes = [len(p.values) for p in chosen.values()]
    count = int(np.prod(sizes, dtype=np.float64)) if sizes else 1
    if count > MAX_CELLS:
        factors = [f"{p.name} ({len(p.values)})" for p in chosen.values() if len(p.values) > 1]
        raise OptionError(
            f"the reference grid has {count} cells, all combinations of {', '.join(factors[:5])}: "
            f"fix some of them with at={{'name': value}}; at most {MAX_CELLS} cells are formed"
        )
    positions = np.unravel_index(np.arange(count), sizes, order="F") if sizes else ()
    codes = {name: np.asarray(own) for name, own in zip(chosen, positions, strict=True)}
    pairs = nested_pairs([p for p in predictors.values() if p.categorical])
    keep = np.ones(count, dtype=bool)
    for (inner, outer), home in pairs.items():
        at_home = [home[value] for value in chosen[inner].values]
        place = {value: i for i, value in enumerate(chosen[outer].values)}
        homes = np.array([place.get(value, -1) for value in at_home])
        keep &= homes[codes[inner]] == codes[outer]
    codes = {name: own[keep] for name, own in codes.items()}
    within: dict[str, tuple[str, ...]] = {}
    for inner, outer in pairs:
        within[inner] = (*within.get(inner, ()), outer)
    X, offset = rows_of_design(fit, chosen, codes, int(keep.sum()))
    return ReferenceGrid(chosen, codes, X, offset, within)


def rows_of_design(
    fit: FittedModel,
    predictors: Mapping[str, Predictor],
    codes: Mapping[str, np.ndarray],
    count: int,
    instead: Mapping[str, Vector] | None = None,
) -> tuple[Matrix, Vector]:
    """Evaluate the fixed part on new cells: rows of all columns (count, p_all), and the offset.

    Parameters
    ----------
    codes : positions among the values of each predictor, (count,).
    instead : numbers (count,) of a covariate in the place of those on the grid.
    """
    spec = fit.matrices.spec
    assert spec is not None
    frame: dict[str, Any] = {}
    for name, predictor in predictors.items():
        values = [predictor.values[code] for code in codes[name].tolist()]
        if predictor.column.kind == "factor":
            levels, ordered = list(predictor.column.levels), predictor.column.ordered
            frame[name] = pd.Categorical(values, categories=levels, ordered=ordered)
        else:
            frame[name] = (instead or {}).get(name, np.asarray(values))
    if not frame:  # the intercept alone
        frame["(cell)"] = np.zeros(count)
    design = spec.evaluate(frame, terms=())
    offset = np.zeros(count) if design.offset is None else np.array(design.offset)
    return design.X, offset + mean_of_given_offset(fit)


def mean_of_given_offset(fit: FittedModel) -> float:
    """Return the mean over the rows of an offset that was given as an array, else 0."""
    kept: KeptColumns | None = fit.kept.get(KEPT_AS)
    if kept is not None:
        return kept.offset
    spec, total = fit.matrices.spec, fit.matrices.offset
    if total is None or spec is None or spec.offset_name is not None:
        return 0.0
    mean = float(np.mean(total))
    if not spec.formula.fixed.offsets:
        return mean
    by_formula = spec.evaluate(fit.matrices.data, fixed=False, terms=())
    assert by_formula.offset is not None
    values = by_formula.pad(by_formula.offset)
    rows = fit.matrices.rows
    return mean - float(np.mean(values if rows is None else values[rows]))
