"""What is to be said of a fit before anyone reads its numbers, and the warnings that say it."""

from __future__ import annotations

import warnings

import numpy as np

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import (
    ConvergenceWarning,
    FewLevelsWarning,
    FormulaWarning,
    MixedModelWarning,
    RankDeficiencyWarning,
    ScalingWarning,
    SingularFitWarning,
    caller_level,
)
from mixlm_sparse.common.text import format_number, see
from mixlm_sparse.design.random_terms import double_bar_message
from mixlm_sparse.design.swapped import swapped_messages
from mixlm_sparse.design.texts import removal_messages, text_messages
from mixlm_sparse.model.rowless import MatricesWithoutRows
from mixlm_sparse.model.singularity import singular_message, singular_reasons
from mixlm_sparse.solve.identification import Identification
from mixlm_sparse.solve.judging import identification, unseen
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem

Notes = tuple[tuple[type[MixedModelWarning], str], ...]

# Predictors whose standard deviations differ by more than this factor give coefficients that are
# hard to read; squares of a predictor in the hundreds stay below.
SCALE_RATIO = 1e5
# A dropped column has no part of a kept one below this share of its largest part.
AFFECTED_RTOL = 1e-7
# With fewer levels a variance is known to within a factor of four or worse; the usual advice.
FEW_LEVELS = 5


def dropped_message(dropped: tuple[str, ...], affected: tuple[str, ...] = ()) -> str:
    """Return the message about columns of X that are combinations of earlier ones.

    Parameters
    ----------
    affected : coefficients whose value depends on which of the columns are left out.
    """
    one = len(dropped) == 1
    means = (
        f"; coefficients of {listed(affected)} are those without {'it' if one else 'them'}"
        if affected
        else ""
    )
    return (
        f"the fixed-effects matrix is rank deficient: dropped {len(dropped)} "
        f"column{'' if one else 's'} ({listed(dropped)}) that {'is a' if one else 'are'} "
        f"combination{'' if one else 's'} of earlier ones; fitted values do not change{means}. "
        f"Remove the term{'' if one else 's'}, or combine levels that never occur together"
        f"{see('rank-deficiency')}"
    )


def _affected(system: PenalizedSystem) -> tuple[str, ...]:
    """Return the names of kept columns that the dropped ones are combinations of."""
    D = system.products.D
    largest = np.abs(D).max(axis=0, initial=0.0)
    inside = (np.abs(D) > AFFECTED_RTOL * largest).any(axis=1)
    return tuple(name for name, one in zip(system.x_names, inside, strict=True) if one)


def scaling_message(system: PenalizedSystem) -> str | None:
    """Return a message if predictors of the fixed part are on wildly different scales.

    The rule: the largest standard deviation of a column is more than `SCALE_RATIO` times the
    smallest.  Columns are orthonormalized before anything is computed, so neither the optimum nor
    the rank decision suffers; what suffers is reading and comparing the numbers.
    """
    R = system.products.R_x
    names = system.x_names
    # With the intercept first, what is below the first row of R is orthogonal to it: centered.
    first = 1 if names and names[0] == "(Intercept)" else 0
    if len(names) - first < 2:
        return None
    part = R[first:, first:]
    spread = np.sqrt((part * part).sum(axis=0))
    small, large = int(np.argmin(spread)), int(np.argmax(spread))
    if not spread[large] > SCALE_RATIO * spread[small] > 0.0:
        return None
    root = float(np.sqrt(max(system.n - 1, 1)))
    return (
        "predictors are on very different scales: standard deviation "
        f"{format_number(spread[small] / root, 2)} of {names[first + small]}, "
        f"{format_number(spread[large] / root, 2)} of {names[first + large]}. The fit does not "
        "suffer (columns are orthonormalized), but coefficients, variance components and theta "
        f"are hard to compare: rescale, for example scale({names[first + large]})"
        f"{see('scaling')}"
    )


def few_levels_message(system: PenalizedSystem) -> str | None:
    """Return a message if grouping factors have fewer than `FEW_LEVELS` levels."""
    few = [f for f in system.matrices.factors if f.n_levels < FEW_LEVELS]
    if not few:
        return None
    counts = listed([f"'{f.label}' has {f.n_levels} levels" for f in few])
    subject = "grouping factor" if len(few) == 1 else "grouping factors: "
    one = len(few) == 1
    return (
        f"{subject}{' ' if one else ''}{counts}: {'a variance' if one else 'variances'} estimated "
        f"from fewer than {FEW_LEVELS} {'is' if one else 'are'} hardly known. Report "
        f"{'its interval' if one else 'their intervals'} (confint), or use "
        f"{listed([f.label for f in few])} in the fixed part{see('few-levels')}"
    )


def ended_message(system: PenalizedSystem) -> str | None:
    """Return a message if parameters of the residual structure are at the end of their range."""
    if system.whitened is None:
        return None
    silent = system.whitened.law.without_noise_at(system.whitened.rho)
    if silent:
        return (
            f"the residual standard deviation of {listed(silent)} goes to zero beside that of "
            "the others: random effects reproduce these rows, and the likelihood has its maximum "
            "in that limit; use VarIdent with fewer levels, or more rows for each group and level"
        )
    ended = system.whitened.whitening.without_influence()
    names = [
        name for name, at in zip(system.whitened.law.names, ended.tolist(), strict=True) if at
    ]
    if not names:
        return None
    return (
        f"the residual parameter{'s' if len(names) > 1 else ''} {listed(names)} "
        f"{'are' if len(names) > 1 else 'is'} at the end of the range, where the residuals are "
        "independent: the structure finds no positive correlation; AR1 and CompoundSymmetry can "
        "say a negative one, or leave the structure out"
    )


def double_bar_messages(system: PenalizedSystem) -> list[str]:
    """Return messages about random terms with `||` whose columns are correlated nevertheless."""
    spec = system.matrices.spec
    if spec is None:
        return []
    found = []
    for random in spec.formula.random:
        for term in spec.terms:
            variables = tuple(tuple(o.variable for o in operands) for operands in term.part.terms)
            same_group = spec.factors[term.factor].label == random.label
            if same_group and variables == tuple(map(tuple, random.terms)):
                found.append(double_bar_message(random, term.part))
    return list(dict.fromkeys(message for message in found if message is not None))


def identification_message(judged: Identification) -> str:
    """Return the message about what the data do not determine, with what to do about it."""
    return f"{judged.sentence}; {judged.advice}{see('identification')}"


def dropped_notes(system: PenalizedSystem) -> Notes:
    """Return what is to be said of columns of X that were dropped."""
    if not system.dropped:
        return ()
    return ((RankDeficiencyWarning, dropped_message(system.dropped, _affected(system))),)


def notes_on(system: PenalizedSystem, optimum: Optimum) -> Notes:
    """Return what the user should know about a fit: (category of the warning, text)."""
    notes: list[tuple[type[MixedModelWarning], str]] = []
    if (spec := system.matrices.spec) is not None:
        notes += [(FormulaWarning, text) for text in removal_messages(spec.formula.fixed)]
    notes += [(FormulaWarning, text) for text in double_bar_messages(system)]
    if not isinstance(system.matrices, MatricesWithoutRows):
        notes += [(FormulaWarning, text) for text in text_messages(system.matrices)]
        notes += [(FormulaWarning, text) for text in swapped_messages(system.matrices)]
    notes += dropped_notes(system)
    scaling = scaling_message(system)
    if scaling is not None:
        notes.append((ScalingWarning, scaling))
    judged = None  # as for a model of which everything is determined
    more = system.known or system.whitened is not None
    if more or unseen(system, reml=optimum.reml, phi=optimum.phi)[0].shape[1]:
        judged = identification(system, reml=optimum.reml, phi=optimum.phi)
    if judged is not None and not judged.complete:
        notes.append((ConvergenceWarning, identification_message(judged)))
    without_end = optimum.status in (Status.NO_MINIMUM, Status.LOCAL)  # which says it itself
    if not without_end and (ended := ended_message(system)) is not None:
        notes.append((SingularFitWarning, ended))
    few = few_levels_message(system)
    if few is not None:
        notes.append((FewLevelsWarning, few))
    exact = optimum.status in (Status.PERFECT, Status.NO_RESIDUAL)
    local = optimum.status is Status.LOCAL
    if not optimum.converged or exact or local:
        advice = f": {optimum.advice}" if optimum.advice else ""
        if without_end:  # sentences of their own
            advice = f". {optimum.advice[:1].upper()}{optimum.advice[1:]}"
        page = see("perfect-fit" if exact else "convergence")
        notes.append((ConvergenceWarning, f"{optimum.status}: {optimum.message}{advice}{page}"))
        if not local:
            return tuple(notes)
    if optimum.no_residual:
        page = see("singular-fit")
        notes.append((SingularFitWarning, f"{optimum.message}: {optimum.advice}{page}"))
    if reasons := singular_reasons(system, optimum.theta, judged=judged):
        notes.append((SingularFitWarning, singular_message(reasons)))
    return tuple(notes)


def warn_of(notes: Notes) -> None:
    """Emit the notes as warnings that point at the first caller outside the package.

    What the formula means has been said when the design was made.
    """
    level = caller_level() if notes else 0
    for category, text in notes:
        if category is not FormulaWarning:
            warnings.warn(text, category, stacklevel=level)
