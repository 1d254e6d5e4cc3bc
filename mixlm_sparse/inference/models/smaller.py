"""Smaller models by formula: fixed terms that can be left out, and refits to the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import plain_name, require_names
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import deparse, plain_text
from mixlm_sparse.formula.terms import FixedPart, MixedFormula, Term, group_labels
from mixlm_sparse.inference.fixed.terms import fixed_terms, kept_and_left_out
from mixlm_sparse.inference.models.compare import require_comparable
from mixlm_sparse.model.base import fit_of
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.held import still_there
from mixlm_sparse.model.refit import options_for_another
from mixlm_sparse.model.rowless import MatricesWithoutRows
from mixlm_sparse.model.run import solve_system
from mixlm_sparse.model.warm import warm_start
from mixlm_sparse.solve.derived.fewer_columns import with_fewer_columns


def formula_of(fit: FittedModel, what: str) -> MixedFormula:
    """Return the formula of a fit, which `what` needs; an OptionError where there is none."""
    if fit.call is None:
        raise OptionError(
            f"{what} leaves terms out of a formula, and this fit was made from matrices: fit with "
            "lmer, or fit the smaller model by fit_matrices and compare by mx.anova"
        )
    return parse_formula(fit.call.formula, require_random=fit.call.random)


def refit_with(
    fit: FittedModel, formula: MixedFormula, *, random: bool | None = None
) -> FittedModel:
    """Fit another formula to the same rows, silently; what is to be said stays in `messages`.

    Parameters
    ----------
    random : whether the formula has random terms; by default as that of the fit.
    """
    text = str(formula)
    changes: dict[str, Any] = {"control": replace(fit.options.control, warn=False)}
    assert fit.call is not None
    if random is not None:
        changes["random"] = random
    if fit.call.contrasts:
        # contrasts of a factor that is left out would be said to have no effect
        used_names = {plain_text(variable) for term in formula.fixed.terms for variable in term}
        given = fit.call.contrasts.items()
        changes["contrasts"] = {n: value for n, value in given if plain_name(n) in used_names}
    if fit.call.known:
        left = group_labels(formula.random)
        known = {name: matrix for name, matrix in fit.call.known.items() if name in left}
        changes["known"] = known or None
    if fit.call.fixed:
        # what a smaller model does not have cannot be held in it
        bare = fit.update(formula=text, fixed=None, **changes)
        changes["fixed"] = still_there(fit.call.fixed, bare.system)
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


def droppable(terms: Sequence[Term]) -> list[Term]:
    """Return the terms that no other term includes, so that leaving them out respects margins."""
    sets = [frozenset(deparse(variable) for variable in term) for term in terms]
    return [
        term
        for term, own in zip(terms, sets, strict=True)
        if not any(own < other for other in sets)
    ]


def term_label(term: Term) -> str:
    """Return a term as tables print it: its variables with colons between."""
    return plain_text(*term)


def chosen_terms(formula: MixedFormula, scope: object) -> list[Term]:
    """Return the terms that `scope` names, all that can be left out if it is None.

    Raises
    ------
    OptionError : it names no term, or one that another term includes.
    """
    candidates = droppable(formula.fixed.terms)
    if scope is None:
        return candidates
    wanted = require_names("scope", scope, what="term")
    by_label = {term_label(term): term for term in candidates}
    all_labels = {term_label(term) for term in formula.fixed.terms}
    chosen = []
    for given in wanted:
        name = plain_name(given) if isinstance(given, str) else given
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


def without_term(fit: FittedModel, formula: MixedFormula, term: Term) -> MixedFormula:
    """Return the formula of a fit without a term of its fixed part.

    `0 + f + x` is the model `f + x`, written with a mean for each level of f: without f it is
    `1 + x`, not the line through zero.
    """
    fixed = formula.fixed
    rest = tuple(t for t in fixed.terms if t != term)
    intercept = fixed.intercept or loses_constant(fit, fixed.terms, rest)
    return replace(formula, fixed=FixedPart(intercept, rest, fixed.offsets))


def deleted(
    full: FittedModel, fit: FittedModel, formula: MixedFormula, term: Term
) -> FittedModel:
    """Fit the model without a term of its fixed part by ML, as `full`, that of `fit`, was.

    Without rows, the products of the model hold those of the smaller one, whose span the tests in
    this fit know too; the names of its coefficients are not those of its formula then.
    """
    smaller = without_term(fit, formula, term)
    rows_needed = fit.matrices.law is not None or fit.system.products.sparse
    if rows_needed or not isinstance(fit.matrices, MatricesWithoutRows):
        return refit_with(full, smaller)
    B, C = kept_and_left_out(fixed_terms(fit), term_label(term))
    system = with_fewer_columns(full.system, B, C)
    options = options_for_another(full.options, start=warm_start(full))
    optimum, solution = solve_system(system, options)
    return fit_of(type(full), system, optimum, options, str(smaller), solution=solution)


def loses_constant(fit: FittedModel, terms: Sequence[Term], rest: Sequence[Term]) -> bool:
    """Return whether terms without an intercept span the constant, and `rest` of them do not.

    The first term of factors alone has a column for each level where there is no intercept.
    """
    factors = factor_variables(fit)

    def of_levels(some: Sequence[Term]) -> bool:
        return any(factors.issuperset(map(deparse, term)) for term in some)

    return of_levels(terms) and not of_levels(rest)


def factor_variables(fit: FittedModel) -> frozenset[str]:
    """Return the expressions that are factors in the columns of a fit."""
    spec = fit.matrices.spec
    if spec is None:
        return frozenset()
    return frozenset(
        deparse(operand.variable)
        for part in (spec.fixed, *(term.part for term in spec.terms))
        for operands in part.terms
        for operand in operands
        if operand.table is not None
    )
