"""Backward elimination: random effects first, then fixed ones."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import (
    require_bool,
    require_names,
    require_number,
    require_one_of,
)
from mixlm_sparse.common.keywords import answering_methods
from mixlm_sparse.common.layout import wrap
from mixlm_sparse.common.tables import ResultTable, as_result
from mixlm_sparse.inference.fixed.tests import F_COLUMNS
from mixlm_sparse.inference.models.drop1 import drop1
from mixlm_sparse.inference.models.linear import (
    LR_TEST,
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
    term_label,
    without_term,
)
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.structured import require_independent


@answering_methods
@dataclass(frozen=True, eq=False, slots=True, repr=False)
class StepResult:
    """Backward elimination.

    Parameters
    ----------
    random, fixed : one row for each term looked at; `Eliminated` counts the steps, 0 for terms that
        stay.
    fit : the model found.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> found = fit.step()
    >>> found.fixed[["Eliminated", "F value", "Pr(>F)"]].round(4)
                        Eliminated  F value  Pr(>F)
    recipe:temperature           1   1.0062  0.4393
    recipe                       2   0.2488  0.7809
    temperature                  0  20.5141  0.0000
    """

    random: pd.DataFrame
    fixed: pd.DataFrame
    fit: FittedModel

    def __post_init__(self) -> None:
        blank = dict.fromkeys(LR_TEST, ("<none>",))
        heading = "Backward elimination of {} effects"
        random = as_result(self.random, heading=heading.format("random"), blank=blank)
        object.__setattr__(self, "random", random)
        object.__setattr__(self, "fixed", as_result(self.fixed, heading=heading.format("fixed")))

    @property
    def formula(self) -> str:
        """Formula of the model found."""
        return self.fit.formula

    def __repr__(self) -> str:
        parts = [table.text() for table in self._tables()]
        return "\n\n".join([*parts, "\n".join(wrap("Model found: ", self.formula))])

    def _repr_html_(self) -> str:
        parts = [table.to_html() for table in self._tables()]
        return "".join([*parts, f"<p>Model found: <code>{escape(self.formula)}</code></p>"])

    def to_frame(self) -> pd.DataFrame:
        """Return both tables below each other, with the columns `part` and `term` first."""
        parts = {"random": self.random, "fixed": self.fixed}
        frames = [
            pd.DataFrame(table).rename_axis("term").reset_index().assign(part=name)
            for name, table in parts.items()
            if len(table)
        ]
        out = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"term": []})
        out.insert(0, "part", out.pop("part") if "part" in out else [])
        return out

    def to_html(self) -> str:
        """Return both tables in HTML, as a notebook shows them."""
        return self._repr_html_()

    def to_latex(self) -> str:
        """Return both tables in LaTeX; they need the package booktabs."""
        return "\n\n".join(str(table.to_latex()) for table in self._tables())

    def to_markdown(self) -> str:
        """Return both tables in Markdown."""
        return "\n\n".join(str(table.to_markdown()) for table in self._tables())

    def _tables(self) -> tuple[ResultTable, ResultTable]:
        return as_result(self.random), as_result(self.fixed)


def step(
    fit: FittedModel,
    alpha_random: float = 0.1,
    alpha_fixed: float = 0.05,
    reduce_random: bool = True,
    reduce_fixed: bool = True,
    ddf: str = "satterthwaite",
    p: str = "naive",
    keep: Any = None,
) -> StepResult:
    """Eliminate random effects, then fixed ones, the least significant first.

    A term that adds nothing to the others (0 degrees of freedom: columns that are combinations of
    theirs, variances that the data cannot tell from theirs) goes before any is tested, for the
    model without it is the same.

    Parameters
    ----------
    alpha_random, alpha_fixed : terms with a larger p are eliminated.
    reduce_random, reduce_fixed : whether to eliminate any.
    ddf : method of the F tests of fixed terms.
    p : for random effects "naive" (as lmerTest) or "boundary" (the mixture).
    keep : labels of terms that stay whatever their p, as the tables print them: "Days",
        "(Days | Subject)" (all of it), "Days in (Days | Subject)".

    Returns
    -------
    StepResult : tables `random` and `fixed`, the model found as `fit`.  The last random term
        stays, for without it the model is a linear one.

    Raises
    ------
    OptionError : an option or a label in `keep` is not known; a fit without residual variance.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> found = fit.step()
    >>> found.formula
    'angle ~ temperature + (1 | recipe:replicate)'
    """
    require_independent(fit, "step")
    alpha_random = require_number("alpha_random", alpha_random, least=0.0, most=1.0)
    alpha_fixed = require_number("alpha_fixed", alpha_fixed, least=0.0, most=1.0)
    reduce_random = require_bool("reduce_random", reduce_random)
    reduce_fixed = require_bool("reduce_fixed", reduce_fixed)
    require_one_of("p", p, tuple(P_VALUES))
    require_imperfect(fit)
    kept = _kept(fit, keep)
    random, current = _step_random(fit, alpha_random, reduce_random, P_VALUES[p], kept)
    fixed, current = _step_fixed(current, alpha_fixed, reduce_fixed, ddf, kept)
    return StepResult(random, fixed, current)


def _kept(fit: FittedModel, keep: Any) -> frozenset[str]:
    """Return the labels that stay; those of a whole random term stand for each of its effects."""
    if keep is None:
        return frozenset()
    formula = formula_of(fit, "step")
    fixed = [term_label(term) for term in formula.fixed.terms]
    effects = [reduction.label for reduction in reductions(fit, formula, True)]
    whole = [str(part) for part in formula.random]
    known = list(dict.fromkeys([*fixed, *whole, *effects]))
    names = require_names("keep", keep, known, "term", empty=True)
    of_terms = [label for label in effects for name in names if label.endswith(f" in {name}")]
    return frozenset([*names, *of_terms])


def _step_random(
    fit: FittedModel, alpha: float, reduce: bool, column: str, kept: frozenset[str]
) -> tuple[pd.DataFrame, FittedModel]:
    rows: list[tuple[object, ...]] = [(0, fit.n_par, fit.llf, fit.aic, *[np.nan] * 4, "")]
    labels = ["<none>"]
    eliminated = 0
    at = RANDOM_COLUMNS.index(column)
    while True:
        formula = formula_of(fit, "step")
        found = [
            (reduction.label, *compared_without(fit, formula, reduction))
            for reduction in reductions(fit, formula, True)
        ]
        # a linear model is none of these
        mixed = [item for item in found if item[0] not in kept and item[2] is not None]
        candidates = [item for item in mixed if float(item[1][at]) > alpha]
        redundant = [item for item in mixed if item[1][RANDOM_COLUMNS.index("Df")] == 0.0]
        if not (reduce and (candidates or redundant)):
            rows += [(0, *row) for _, row, _ in found]
            labels += [label for label, _, _ in found]
            break
        if redundant:
            label, row, smaller = redundant[-1]
        else:
            label, row, smaller = max(candidates, key=lambda item: float(item[1][at]))
        assert smaller is not None
        eliminated += 1
        rows.append((eliminated, *row))
        labels.append(label)
        fit = smaller
    table = pd.DataFrame(rows, columns=["Eliminated", *RANDOM_COLUMNS], index=labels)
    describe_random(table, "Backward elimination of random effects", fit)
    table.attrs["note"] += "; the last random term stays, for without it the model is linear"
    return table, fit


def _step_fixed(
    fit: FittedModel, alpha: float, reduce: bool, ddf: str, kept: frozenset[str]
) -> tuple[pd.DataFrame, FittedModel]:
    tables: list[pd.DataFrame] = []
    eliminated = 0
    while True:
        table = drop1(fit, test="F", ddf=ddf)
        if not len(table):
            break
        worst = _least_needed(table, alpha, kept) if reduce else None
        if worst is None:
            stays = table.sort_values("Pr(>F)", ascending=False)
            stays.insert(0, "Eliminated", 0)
            tables.append(stays)
            break
        eliminated += 1
        row = table.iloc[[worst]].copy()
        row.insert(0, "Eliminated", eliminated)
        tables.append(row)
        formula = formula_of(fit, "step")
        term = chosen_terms(formula, str(table.index[worst]))[0]
        fit = refit_with(fit, without_term(fit, formula, term))
    if not tables:
        return pd.DataFrame(columns=["Eliminated", *F_COLUMNS]), fit
    return pd.concat(tables), fit


def _least_needed(table: pd.DataFrame, alpha: float, kept: frozenset[str]) -> int | None:
    """Return the row of the term that goes next: the last without df, else of the largest p."""
    candidates = [i for i, label in enumerate(table.index) if str(label) not in kept]
    redundant = [i for i in candidates if table["NumDF"].iloc[i] == 0]
    if redundant:
        return redundant[-1]
    p_values = table["Pr(>F)"].to_numpy()
    above = [i for i in candidates if p_values[i] > alpha]
    return max(above, key=lambda i: float(p_values[i]), default=None)
