"""Comparisons with smaller models: every random term, every fixed term, none, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import deparse
from mixlm_sparse.formula.terms import FixedPart, MixedFormula, RandomPart, Term
from mixlm_sparse.inference.fixed.coefficients import F_COLUMNS, f_row, moments, require_ddf
from mixlm_sparse.inference.models.compare import likelihood_ratio, require_comparable
from mixlm_sparse.inference.models.mixture import mixture_label, mixture_p, naive_p
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.solve.pls import PenalizedSystem

RANDOM_COLUMNS = [
    "npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)", "Pr(>Chibar2)", "mixture",
]  # fmt: skip
P_VALUES = {"boundary": "Pr(>Chibar2)", "naive": "Pr(>Chisq)"}
# Structures in which an effect can be left out and the rest keeps its meaning.
SEPARABLE = ("us", "diag")


# ---------------------------------------------------------------------------------------------
# The linear model
# ---------------------------------------------------------------------------------------------


def linear_criterion(system: PenalizedSystem, *, reml: bool) -> float:
    """Return the criterion of the linear model with the same fixed part: all variances zero."""
    products = system.products
    nu = products.n - products.p if reml else products.n
    d = nu * (1.0 + float(np.log(2.0 * np.pi * products.yy / nu))) - products.log_weight_sum
    return d + system.log_det_R_x if reml else d


def lr_vs_lm(fit: FittedModel) -> pd.DataFrame:
    """Test all random effects at once.  See `VarianceInferenceMethods.lr_vs_lm`."""
    _require_imperfect(fit)
    system = fit.system
    linear = linear_criterion(system, reml=fit.reml)
    df = system.n_theta
    statistic = max(0.0, linear - fit.criterion)
    effects = sum(len(term.column_names) for term in fit.matrices.terms)
    effects = min(effects, df)  # id() has one variance for all its effects
    table = pd.DataFrame(
        [
            _random_row(system.p + 1, -0.5 * linear, statistic, df, effects),
            (fit.n_par, fit.llf, fit.aic, *[np.nan] * 4, ""),
        ],
        columns=RANDOM_COLUMNS,
        index=["linear model", "mixed model"],
    )
    name = "chibar2(01)" if df == 1 else f"chi2({df})"
    _describe(table, f"LR test against the linear model: {name} = {statistic:.2f}", fit)
    return table


def _random_row(
    n_par: int, llf: float, statistic: float, df: int, effects: int
) -> tuple[int, float, float, float, float, float, float, str]:
    return (
        n_par, llf, 2.0 * n_par - 2.0 * llf, statistic, float(df), naive_p(statistic, df),
        mixture_p(statistic, df), mixture_label(df, effects),
    )  # fmt: skip


def _describe(table: pd.DataFrame, heading: str, fit: FittedModel) -> None:
    table.attrs["heading"] = heading
    table.attrs["note"] = (
        f"by {'REML' if fit.reml else 'ML'}; Pr(>Chisq) ignores that variances cannot be "
        "negative, Pr(>Chibar2) takes it into account by the mixture"
    )


def _require_imperfect(fit: FittedModel) -> None:
    if fit.perfect:
        raise OptionError(
            "the fixed effects fit the response exactly, so that no likelihoods can be compared"
        )


# ---------------------------------------------------------------------------------------------
# Smaller models by formula
# ---------------------------------------------------------------------------------------------


def _formula_of(fit: FittedModel, what: str) -> MixedFormula:
    if fit.call is None:
        raise OptionError(
            f"{what} leaves terms out of a formula, and this fit was made from matrices: fit with "
            "lmer, or fit the smaller model by fit_matrices and compare by mx.anova"
        )
    return parse_formula(fit.call.formula)


def refit_with(fit: FittedModel, formula: MixedFormula) -> FittedModel:
    """Fit another formula to the same rows, silently; what is to be said stays in `messages`."""
    text = str(formula)
    changes: dict[str, Any] = {"control": replace(fit.options.control, warn=False)}
    assert fit.call is not None
    if fit.call.contrasts:
        # contrasts of a factor that is left out would be said to have no effect
        used_names = {deparse(variable) for term in formula.fixed.terms for variable in term}
        given = fit.call.contrasts.items()
        changes["contrasts"] = {name: value for name, value in given if name in used_names}
    rows = fit.matrices.rows
    if rows is not None:
        # a smaller model must not come by rows that the larger one had to leave out
        used = np.zeros(fit.matrices.n_input, dtype=bool)
        used[rows] = True
        changes["subset"] = used
    other = fit.update(formula=text, **changes)
    require_comparable([fit, other], [fit.formula, text])
    options = replace(other.options, control=fit.options.control)
    assert other.call is not None
    call = replace(other.call, options=options, subset=fit.call.subset)
    return replace(other, options=options, call=call)


def _droppable(terms: Sequence[Term]) -> list[Term]:
    """Return the terms that no other term includes, so that leaving them out respects margins."""
    sets = [frozenset(deparse(variable) for variable in term) for term in terms]
    return [
        term
        for term, own in zip(terms, sets, strict=True)
        if not any(own < other for other in sets)
    ]


def _label(term: Term) -> str:
    return ":".join(deparse(variable) for variable in term)


# ---------------------------------------------------------------------------------------------
# Random terms
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reduction:
    """A random part with something left out, and how tables call that."""

    label: str
    random: tuple[RandomPart, ...]


def _reductions(formula: MixedFormula, reduce_terms: bool) -> list[_Reduction]:
    out = []
    for i, part in enumerate(formula.random):
        before, after = formula.random[:i], formula.random[i + 1 :]
        separable = reduce_terms and part.structure in SEPARABLE
        effects = _droppable(part.terms) if separable else []
        smaller = [
            (term, RandomPart(part.intercept, rest, part.group, part.structure))
            for term in effects
            if (rest := tuple(t for t in part.terms if t != term)) or part.intercept
        ]
        if not smaller:
            out.append(_Reduction(str(part), before + after))
        for term, rest_of_part in smaller:
            label = f"{_label(term)} in {part}"
            out.append(_Reduction(label, (*before, rest_of_part, *after)))
    return out


def _n_effects(fit: FittedModel) -> int:
    """Return the number of variances."""
    return sum(min(template.k, template.n_theta) for template in fit.system.templates)


def _without(
    fit: FittedModel, formula: MixedFormula, reduction: _Reduction
) -> tuple[tuple[int, float, float, float, float, float, float, str], FittedModel | None]:
    """Return the row of a table, and the smaller fit (None if it is a linear model)."""
    if not reduction.random:
        linear = linear_criterion(fit.system, reml=fit.reml)
        statistic = max(0.0, linear - fit.criterion)
        row = _random_row(
            fit.system.p + 1, -0.5 * linear, statistic, fit.system.n_theta, _n_effects(fit)
        )
        return row, None
    smaller = refit_with(fit, replace(formula, random=reduction.random))
    statistic, df, _ = likelihood_ratio(smaller, fit)
    effects = _n_effects(fit) - _n_effects(smaller)
    return _random_row(smaller.n_par, smaller.llf, statistic, df, effects), smaller


def ranova(fit: FittedModel, reduce_terms: bool = True) -> pd.DataFrame:
    """Test each random term.  See `VarianceInferenceMethods.ranova`."""
    _require_imperfect(fit)
    formula = _formula_of(fit, "ranova")
    rows = [(fit.n_par, fit.llf, fit.aic, *[np.nan] * 4, "")]
    labels = ["<none>"]
    for reduction in _reductions(formula, reduce_terms):
        row, _ = _without(fit, formula, reduction)
        rows.append(row)
        labels.append(reduction.label)
    table = pd.DataFrame(rows, columns=RANDOM_COLUMNS, index=labels)
    _describe(table, "Likelihood-ratio tests of random effects", fit)
    return table


# ---------------------------------------------------------------------------------------------
# Fixed terms
# ---------------------------------------------------------------------------------------------


def _chosen_terms(formula: MixedFormula, scope: object) -> list[Term]:
    droppable = _droppable(formula.fixed.terms)
    if scope is None:
        return droppable
    wanted = [scope] if isinstance(scope, str) else list(scope)  # type: ignore[call-overload]
    by_label = {_label(term): term for term in droppable}
    all_labels = {_label(term) for term in formula.fixed.terms}
    chosen = []
    for name in wanted:
        if name not in by_label:
            why = (
                "is part of an interaction, and cannot be left out before it"
                if name in all_labels
                else "is not a term of the fixed part"
            )
            raise OptionError(
                f"scope: {name!r} {why}: use one of {', '.join(map(repr, by_label)) or 'none'}"
            )
        chosen.append(by_label[name])
    return chosen


def _without_term(formula: MixedFormula, term: Term) -> MixedFormula:
    fixed = formula.fixed
    rest = tuple(t for t in fixed.terms if t != term)
    return replace(formula, fixed=FixedPart(fixed.intercept, rest, fixed.offsets))


def _columns_of(fit: FittedModel, formula: MixedFormula, term: Term) -> np.ndarray:
    """Return the positions of a term's columns among the coefficients."""
    spec = fit.matrices.spec
    assert spec is not None
    number = formula.fixed.terms.index(term) + 1
    assign = np.array(spec.fixed.assign, dtype=np.int64)[list(fit.system.products.kept)]
    return np.flatnonzero(assign == number)


def drop1(
    fit: FittedModel,
    scope: object = None,
    test: str = "lrt",
    ddf: str = "satterthwaite",
) -> pd.DataFrame:
    """Test each fixed term that can be left out.  See `VarianceInferenceMethods.drop1`."""
    formula = _formula_of(fit, "drop1")
    if test not in ("lrt", "F", "none"):
        raise OptionError(f"test is {test!r}: use 'lrt', 'F' or 'none'")
    terms = _chosen_terms(formula, scope)
    labels = [_label(term) for term in terms]
    if test == "F":
        name = require_ddf(ddf)
        method = moments(fit, name)
        p = fit.system.p
        rows = []
        for term in terms:
            L = np.eye(p)[_columns_of(fit, formula, term)]
            rows.append(f_row(fit, method, L, np.zeros(L.shape[0]), test=name != "none"))
        table = pd.DataFrame(rows, columns=F_COLUMNS, index=pd.Index(labels, dtype=object))
        table = table.astype({"NumDF": np.int64})
        table.attrs["heading"] = f"Single term deletions, F tests by {name}"
        table.attrs["note"] = method.note
        return table
    _require_imperfect(fit)
    full = fit.refit_ml()
    lines: list[tuple[float, ...]] = [(full.n_par, full.llf, full.aic, np.nan, np.nan, np.nan)]
    for term in terms:
        smaller = refit_with(full, _without_term(formula, term))
        statistic, df, p_value = likelihood_ratio(smaller, full)
        lines.append((smaller.n_par, smaller.llf, smaller.aic, statistic, float(df), p_value))
    columns = ["npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)"]
    table = pd.DataFrame(lines, columns=columns, index=["<none>", *labels])
    table = table.astype({"npar": np.int64})
    if test == "none":
        table = table.drop(columns=["LRT", "Pr(>Chisq)"])
    table.attrs["heading"] = "Single term deletions, likelihood-ratio tests"
    table.attrs["note"] = "all models fitted by ML" if fit.reml else ""
    return table


# ---------------------------------------------------------------------------------------------
# Step by step
# ---------------------------------------------------------------------------------------------


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
        parts = ["Backward elimination of random effects:", self.random.to_string()]
        parts += ["", "Backward elimination of fixed effects:"]
        parts += [self.fixed.to_string() if len(self.fixed) else "(no terms)"]
        return "\n".join([*parts, "", f"Model found: {self.formula}"])


def step(
    fit: FittedModel,
    alpha_random: float = 0.1,
    alpha_fixed: float = 0.05,
    reduce_random: bool = True,
    reduce_fixed: bool = True,
    ddf: str = "satterthwaite",
    p: str = "naive",
) -> StepResult:
    """Eliminate random effects, then fixed ones.  See `VarianceInferenceMethods.step`."""
    for name, alpha in (("alpha_random", alpha_random), ("alpha_fixed", alpha_fixed)):
        if not 0.0 <= alpha <= 1.0:
            raise OptionError(f"{name} is {alpha!r}: use a number from 0 to 1")
    if p not in P_VALUES:
        raise OptionError(f"p is {p!r}: use 'naive' (as lmerTest) or 'boundary'")
    _require_imperfect(fit)
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
        formula = _formula_of(fit, "step")
        found = [
            (reduction.label, *_without(fit, formula, reduction))
            for reduction in _reductions(formula, True)
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
    _describe(table, "Backward elimination of random effects", fit)
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
        formula = _formula_of(fit, "step")
        term = _chosen_terms(formula, str(table.index[worst]))[0]
        fit = refit_with(fit, _without_term(formula, term))
    if not tables:
        return pd.DataFrame(columns=["Eliminated", *F_COLUMNS]), fit
    return pd.concat(tables), fit
