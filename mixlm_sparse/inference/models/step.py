"""Backward elimination: random effects first, then fixed ones."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import ResultTable, as_result
from mixlm_sparse.inference.fixed.coefficients import F_COLUMNS
from mixlm_sparse.inference.models.drop1 import drop1
from mixlm_sparse.inference.models.linear import (
    P_VALUES,
    RANDOM_COLUMNS,
    describe_random,
    require_imperfect,
)
from mixlm_sparse.inference.models.ranova import compared_without, reductions
from mixlm_sparse.inference.models.smaller import (
    chosen_terms,
    formula_of,
    refit_with,
    without_term,
)
from mixlm_sparse.model.fitted import FittedModel


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class StepResult:
    """Backward elimination.

    Parameters
    ----------
    random, fixed : one row for each term looked at; `Eliminated` counts the steps, 0 for terms that
        stay.
    fit : the model found.
    """

    random: pd.DataFrame
    fixed: pd.DataFrame
    fit: FittedModel

    @property
    def formula(self) -> str:
        """Formula of the model found."""
        return self.fit.formula

    def __repr__(self) -> str:
        parts = [table.text() for table in self._tables()]
        return "\n\n".join([*parts, f"Model found: {self.formula}"])

    def _repr_html_(self) -> str:
        parts = [table.to_html() for table in self._tables()]
        return "".join([*parts, f"<p>Model found: <code>{escape(self.formula)}</code></p>"])

    def _tables(self) -> tuple[ResultTable, ResultTable]:
        blank = ["LRT", "Df", "Pr(>Chisq)", "Pr(>Chibar2)"]
        heading = "Backward elimination of {} effects"
        return (
            as_result(self.random, heading=heading.format("random"), blank=blank),
            as_result(self.fixed, heading=heading.format("fixed")),
        )


def step(
    fit: FittedModel,
    alpha_random: float = 0.1,
    alpha_fixed: float = 0.05,
    reduce_random: bool = True,
    reduce_fixed: bool = True,
    ddf: str = "satterthwaite",
    p: str = "naive",
) -> StepResult:
    """Eliminate random effects, then fixed ones, the least significant first.

    Parameters
    ----------
    alpha_random, alpha_fixed : terms with a larger p are eliminated.
    reduce_random, reduce_fixed : whether to eliminate any.
    ddf : method of the F tests of fixed terms.
    p : for random effects "naive" (as lmerTest) or "boundary" (the mixture).

    Returns
    -------
    StepResult : tables `random` and `fixed`, the model found as `fit`.  The last random term
        stays, for without it the model is a linear one.
    """
    for name, alpha in (("alpha_random", alpha_random), ("alpha_fixed", alpha_fixed)):
        if not 0.0 <= alpha <= 1.0:
            raise OptionError(f"{name} is {alpha!r}: use a number from 0 to 1")
    if p not in P_VALUES:
        raise OptionError(f"p is {p!r}: use 'naive' (as lmerTest) or 'boundary'")
    require_imperfect(fit)
    random, current = _step_random(fit, alpha_random, reduce_random, P_VALUES[p])
    fixed, current = _step_fixed(current, alpha_fixed, reduce_fixed, ddf)
    return StepResult(random=random, fixed=fixed, fit=current)


def _step_random(
    fit: FittedModel, alpha: float, reduce: bool, column: str
) -> tuple[pd.DataFrame, FittedModel]:
    rows: list[tuple[object, ...]] = [(0, fit.n_par, fit.llf, fit.aic, *[np.nan] * 4, "")]
    labels = ["<none>"]
    eliminated = 0
    while True:
        formula = formula_of(fit, "step")
        found = [
            (reduction.label, *compared_without(fit, formula, reduction))
            for reduction in reductions(formula, True)
        ]
        at = RANDOM_COLUMNS.index(column)
        worst = max(found, key=lambda item: float(item[1][at]))
        smaller = worst[2]
        if not (reduce and float(worst[1][at]) > alpha and smaller is not None):
            rows += [(0, *row) for _, row, _ in found]
            labels += [label for label, _, _ in found]
            break
        eliminated += 1
        rows.append((eliminated, *worst[1]))
        labels.append(worst[0])
        fit = smaller
    table = pd.DataFrame(rows, columns=["Eliminated", *RANDOM_COLUMNS], index=labels)
    describe_random(table, "Backward elimination of random effects", fit)
    table.attrs["note"] += "; the last random term stays, for without it the model is linear"
    return table, fit


def _step_fixed(
    fit: FittedModel, alpha: float, reduce: bool, ddf: str
) -> tuple[pd.DataFrame, FittedModel]:
    tables: list[pd.DataFrame] = []
    eliminated = 0
    while True:
        table = drop1(fit, test="F", ddf=ddf)
        if not len(table):
            break
        p_values = table["Pr(>F)"].to_numpy()
        worst = int(np.nanargmax(p_values)) if not np.isnan(p_values).all() else 0
        if not (reduce and p_values[worst] > alpha):
            kept = table.sort_values("Pr(>F)", ascending=False)
            kept.insert(0, "Eliminated", 0)
            tables.append(kept)
            break
        eliminated += 1
        row = table.iloc[[worst]].copy()
        row.insert(0, "Eliminated", eliminated)
        tables.append(row)
        formula = formula_of(fit, "step")
        term = chosen_terms(formula, str(table.index[worst]))[0]
        fit = refit_with(fit, without_term(formula, term))
    if not tables:
        return pd.DataFrame(columns=["Eliminated", *F_COLUMNS]), fit
    return pd.concat(tables), fit
