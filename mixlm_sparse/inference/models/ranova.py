"""Tests of each random term by comparison with the model without it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_bool
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.covariance.random import structure_class
from mixlm_sparse.formula.terms import MixedFormula, RandomPart
from mixlm_sparse.inference.models.compare import likelihood_ratio
from mixlm_sparse.inference.models.linear import (
    LR_TEST,
    RANDOM_COLUMNS,
    describe_random,
    linear_criterion,
    linear_parameters,
    random_row,
    require_imperfect,
)
from mixlm_sparse.inference.models.mixture import lr_statistic
from mixlm_sparse.inference.models.smaller import (
    droppable,
    formula_of,
    loses_constant,
    refit_with,
    term_label,
)
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.structured import require_random_effects


@dataclass(frozen=True, slots=True)
class Reduction:
    """A random part with something left out, and how tables call that."""

    label: str
    random: tuple[RandomPart, ...]


def reductions(fit: FittedModel, formula: MixedFormula, reduce_terms: bool) -> list[Reduction]:
    """Return the random parts with one term, or one effect of a term, left out.

    An unstructured `(0 + f | g)` is `(f | g)`: without f it is `(1 | g)`, unless that is there.
    """
    out = []
    for i, part in enumerate(formula.random):
        before, after = formula.random[:i], formula.random[i + 1 :]
        # where columns are not tied together, one can be left out and the rest keeps its meaning
        closure = structure_class(part.structure).closed_under
        separable = reduce_terms and closure != "one scale"
        effects = droppable(part.terms) if separable else []
        alone = not any(o.intercept and o.label == part.label for o in (*before, *after))
        mixes = closure == "linear" and not part.intercept and alone
        smaller = [
            (term, RandomPart(intercept, rest, part.group, part.structure))
            for term in effects
            for rest in [tuple(t for t in part.terms if t != term)]
            for intercept in [part.intercept or (mixes and loses_constant(fit, part.terms, rest))]
            if rest or intercept
        ]
        if not smaller:
            out.append(Reduction(str(part), before + after))
        for term, rest_of_part in smaller:
            label = f"{term_label(term)} in {part}"
            out.append(Reduction(label, (*before, rest_of_part, *after)))
    return out


def n_effects(fit: FittedModel) -> int:
    """Return the number of variances."""
    return sum(template.n_variances for template in fit.system.templates)


def compared_without(
    fit: FittedModel, formula: MixedFormula, reduction: Reduction
) -> tuple[tuple[int, float, float, float, float, float, float, str], FittedModel | None]:
    """Return the row of a table, and the smaller fit (None if it is a linear model)."""
    if not reduction.random and fit.matrices.law is None:
        linear = linear_criterion(fit.system, reml=fit.reml)
        statistic = lr_statistic(linear, fit.criterion)
        smallest = linear_parameters(fit.system)
        df = fit.n_determined - smallest
        return random_row(smallest, -0.5 * linear, statistic, df, n_effects(fit)), None
    random = bool(reduction.random)
    smaller = refit_with(fit, replace(formula, random=reduction.random), random=random)
    statistic, df, _ = likelihood_ratio(smaller, fit)
    effects = n_effects(fit) - n_effects(smaller)
    return random_row(smaller.n_par, smaller.llf, statistic, df, effects), smaller


@result_table()
def ranova(fit: FittedModel, reduce_terms: bool = True) -> pd.DataFrame:
    """Test each random term by comparison with the model without it.

    Parameters
    ----------
    reduce_terms : take one effect out of a term, (Days | Subject) to (1 | Subject), as
        lmerTest; otherwise whole terms.

    Returns
    -------
    DataFrame with columns npar, logLik, AIC, LRT, Df, Pr(>Chisq), Pr(>Chibar2), mixture.  The
    criterion stays that of the fit (REML).  Pr(>Chisq) is the naive p; Pr(>Chibar2) takes into
    account that a variance cannot be negative, by the mixture that is named; "upper bound"
    marks mixtures that bound p from above, for more than one effect is left out.  A term of which
    the data determine nothing beside the others has 0 Df and no p; the note says why.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.ranova()
    Likelihood-ratio tests of random effects
                             npar logLik    AIC    LRT Df Pr(>Chisq) Pr(>Chibar2)
    <none>                      6 -871.8 1755.6
    Days in (Days | Subject)    4 -893.2 1794.5 42.837  2   4.99e-10     2.79e-10
    Note: by REML; Pr(>Chisq) ignores that variances cannot be negative,
          Pr(>Chibar2) takes it into account by the mixture
    Note: mixture of Days in (Days | Subject): 1/2 chi2(1) + 1/2 chi2(2)
    """
    reduce_terms = require_bool("reduce_terms", reduce_terms)
    require_random_effects(fit, "ranova")
    require_imperfect(fit)
    formula = formula_of(fit, "ranova")
    rows = [(fit.n_par, fit.llf, fit.aic, *[np.nan] * 4, "")]
    labels = ["<none>"]
    for reduction in reductions(fit, formula, reduce_terms):
        row, _ = compared_without(fit, formula, reduction)
        rows.append(row)
        labels.append(reduction.label)
    table = pd.DataFrame(rows, columns=RANDOM_COLUMNS, index=labels)
    table.attrs["blank"] = dict.fromkeys(LR_TEST, ("<none>",))
    describe_random(table, "Likelihood-ratio tests of random effects", fit)
    return table
