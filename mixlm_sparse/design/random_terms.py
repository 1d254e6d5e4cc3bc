"""Random terms as lme4 arranges them: columns, grouping factors, order and names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mixlm_sparse.common.errors import (
    DataError,
    FormulaError,
    FormulaWarning,
    caller_level,
)
from mixlm_sparse.common.text import see
from mixlm_sparse.covariance.random import structure_class
from mixlm_sparse.design.columns import Part, learn_part
from mixlm_sparse.design.grouping import GroupingFactor, grouping_factor
from mixlm_sparse.design.known import Known, require_factors, with_known
from mixlm_sparse.design.recipe import FactorSpec, TermSpec
from mixlm_sparse.design.times import is_text, places_of, warn_of_order
from mixlm_sparse.design.variables import Variables
from mixlm_sparse.formula.syntax import deparse
from mixlm_sparse.formula.terms import MixedFormula, RandomPart, group_labels

__all__ = [
    "arrange_random_terms", "check_group", "check_places", "double_bar_message", "learn_random",
    "learn_random_terms", "term_order",
]  # fmt: skip


def learn_random_terms(
    formula: MixedFormula,
    variables: Variables,
    n: int,
    warn: bool,
    known: Mapping[str, Known] | None = None,
) -> tuple[tuple[TermSpec, ...], tuple[FactorSpec, ...]]:
    """Return random terms in lme4's order, and their factors in order of first use."""
    groups: dict[str, GroupingFactor] = {}
    parts = []
    labels = group_labels(formula.random)
    require_factors(known, labels)
    for random, label in zip(formula.random, labels, strict=True):
        if label not in groups:
            group = grouping_factor(label, random.components, variables)
            if known is not None and label in known:
                group = with_known(group, known[label])
            check_group(group)
            groups[label] = group
        parts.append(learn_random(random, variables, warn))
    return arrange_random_terms(formula, groups, parts)


def arrange_random_terms(
    formula: MixedFormula, groups: Mapping[str, GroupingFactor], parts: Sequence[Part]
) -> tuple[tuple[TermSpec, ...], tuple[FactorSpec, ...]]:
    """Return random terms in lme4's order, and their factors in order of first use.

    Parameters
    ----------
    groups : the grouping factors by label.
    parts : the columns of each term, in the formula's order.
    """
    labels = group_labels(formula.random)
    sizes = [groups[label].n_levels for label in labels]
    order = term_order(sizes)
    factors: dict[str, FactorSpec] = {}
    terms = []
    taken: set[str] = set()
    positions: dict[str, int] = {}
    for place in order:
        random, label = formula.random[place], labels[place]
        if label not in factors:
            factors[label] = FactorSpec(label, random.components, groups[label])
            positions[label] = len(positions)
        name, count = label, 0
        while name in taken:  # R's make.unique
            count += 1
            name = f"{label}.{count}"
        taken.add(name)
        terms.append(TermSpec(name, positions[label], random.structure, parts[place]))
    return tuple(terms), tuple(factors.values())


def term_order(sizes: Sequence[int]) -> list[int]:
    """Return the order of random terms by the numbers of levels of their factors, as lme4's."""
    order = list(range(len(sizes)))
    if any(sizes[i] < sizes[i + 1] for i in range(len(sizes) - 1)):
        # R's rev(order(sizes)): ties come out reversed
        order = sorted(order, key=sizes.__getitem__)[::-1]
    return order


def learn_random(random: RandomPart, variables: Variables, warn: bool) -> Part:
    """Return the columns of a random term; `warn` of `||` that leaves columns correlated."""
    as_levels = structure_class(random.structure).over_levels
    if as_levels:
        check_places(random)
    part = learn_part(random.intercept, random.terms, variables, {}, as_levels=as_levels)
    if as_levels and random.terms:
        part = replace(part, places=_places(random, variables, warn))
    message = double_bar_message(random, part)
    if warn and message is not None:
        warnings.warn(message, FormulaWarning, stacklevel=caller_level())
    return part


def check_places(random: RandomPart) -> None:
    """Raise unless the columns of a structure over times are the levels of one factor.

    The correlation of two columns depends on the time between them; an intercept has no place among
    times, and what it would mean depended on the coding of the factor.  Of an interaction the last
    time of one level would be next to the first of another.

    Raises
    ------
    FormulaError : there is an intercept, or more than one factor.
    """
    name = random.structure.split("(")[0]
    if len(random.terms) > 1 or (random.terms and len(random.terms[0]) > 1):
        time = random.terms[0][0]
        others = [deparse(expr) for term in random.terms for expr in term if expr != time]
        group = deparse(random.group)
        raise FormulaError(
            f"{random} has more than one factor, of which only one can be the times: write "
            f"{name}(0 + {deparse(time)} | {':'.join(dict.fromkeys([*others, group]))}) for a "
            f"series of its own in each level of {others[0]}"
        )
    if random.intercept and random.terms:
        inside = " + ".join(":".join(deparse(expr) for expr in term) for term in random.terms)
        raise FormulaError(
            f"{random} has an intercept beside the levels, which has no place among times: write "
            f"{name}(0 + {inside} | {deparse(random.group)})"
        )


def _places(random: RandomPart, variables: Variables, warn: bool) -> tuple[int, ...]:
    """Return where the levels of a structure over times stand in time."""
    expr = random.terms[0][0]
    variable = variables.get(expr, as_levels=True)
    structure = random.structure.split("(")[0]
    if warn and is_text(variables.column(expr)):
        warn_of_order(variable.name, variable.used_labels(), f"{structure}(0 + f | g)")
    numbers = not variables.get(expr).is_factor
    levels = variables.factor_value(expr).levels if numbers else variable.labels
    places = places_of(levels, variable.used, numbers)
    if structure == "toep" and places != tuple(range(len(places))):
        step = next(i for i, place in enumerate(places) if place != i)
        before, after = variable.used_labels()[step - 1 : step + 1]
        raise DataError(
            f"{random} has no rows between {before} and {after} of '{variable.name}', so that some "
            "of its correlations cannot be told: use ar1(...), whose correlation falls over the "
            "gap, or drop unused categories (.cat.remove_unused_categories()) or write factor(...) "
            "around numbers to close it"
        )
    return places


def double_bar_message(random: RandomPart, part: Part) -> str | None:
    """Return a message if `||` leaves columns of a factor correlated."""
    if not random.from_double_bar or not any(
        operand.table is not None for term in part.terms for operand in term
    ):
        return None
    factor = ":".join(deparse(expr) for expr in random.terms[0])
    return (
        f"'||' does not split the columns of the factor '{part.term_labels[0]}': {random} has "
        f"correlated columns, as in lme4; write diag({factor} | {deparse(random.group)}) to make "
        f"them independent{see('double-bar')}"
    )


def check_group(group: GroupingFactor) -> None:
    """Raise a DataError if a grouping factor has fewer than two levels."""
    if group.n_levels < 2:
        raise DataError(
            f"grouping factor '{group.label}' has {group.n_levels} level; a random effect needs at "
            f"least 2: remove the term or use {group.label} as a fixed effect"
        )
