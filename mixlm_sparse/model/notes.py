"""What can be said of a fit before anyone reads its numbers: convergence, singularity, scales."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property

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
from mixlm_sparse.common.layout import described
from mixlm_sparse.common.text import format_number
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.random_terms import double_bar_message
from mixlm_sparse.solve.curvature import hessian_eigenvalues
from mixlm_sparse.solve.identification import Identification, identification
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem

Notes = tuple[tuple[type[MixedModelWarning], str], ...]

# A standard deviation below this share of the residual's counts as zero; lme4's tolerance.
SINGULAR_TOL = 1e-4
# Predictors whose standard deviations differ by more than this factor give coefficients that are
# hard to read; squares of a predictor in the hundreds stay below.
SCALE_RATIO = 1e5
# Random effects this many times the residual leave nothing of it but rounding errors.
SATURATED_SPREAD = 1e6
VARIANCE_ZERO = "estimated as zero"
# With fewer levels a variance is known to within a factor of four or worse; the usual advice.
FEW_LEVELS = 5


def see(page: str) -> str:
    """Return the end of a message: where its page is in the documentation."""
    return f". See docs/messages/{page}.md"


def relative_spread(system: PenalizedSystem, theta: Vector) -> list[Vector]:
    """Return, per term, standard deviations of the effects relative to the residual's, (k,) each.

    They are the singular values of the term's factor for columns brought to length one, descending,
    so that they depend on no unit (and, for an unstructured term, no origin) of a predictor.  With
    prior weights the residual is that of a row with the average weight.
    """
    out = []
    for Rz, T in zip(system.products.Rz, system.chart.factors(theta), strict=True):
        if T.shape[0] == 1:
            out.append(np.abs(Rz[0] * T[0]))
        else:
            out.append(np.linalg.svd(Rz @ T, compute_uv=False))
    return out


def is_singular(system: PenalizedSystem, theta: Vector, tol: float = SINGULAR_TOL) -> bool:
    """Return whether some combination of a term's effects has (almost) no variance."""
    return any(bool(spread[-1] < tol) for spread in relative_spread(system, theta))


def singular_reasons(
    system: PenalizedSystem,
    theta: Vector,
    tol: float = SINGULAR_TOL,
    judged: Identification | None = None,
) -> tuple[str, ...]:
    """Say, term by term, what is estimated as zero or as a perfect correlation.

    Of terms that the data do not determine, according to `judged`, nothing is said.
    """
    reasons = []
    spreads = relative_spread(system, theta)
    factors = system.chart.factors(theta)
    for t, (term, spread, T, Rz) in enumerate(
        zip(system.matrices.terms, spreads, factors, system.products.Rz, strict=True)
    ):
        if not spread[-1] < tol or (judged is not None and not judged.entries[t].all()):
            continue
        group = system.matrices.factors[term.factor].label
        reasons.append(_reason(group, term.column_names, T, Rz, int((spread >= tol).sum()), tol))
    return tuple(reasons)


def _reason(
    group: str, columns: tuple[str, ...], T: Matrix, Rz: Matrix, rank: int, tol: float
) -> str:
    sd = np.sqrt((T * T).sum(axis=1))
    size = np.sqrt((Rz * Rz).sum(axis=0))
    zero = [name for name, s in zip(columns, sd * size, strict=True) if s < tol]
    if len(zero) == len(columns) or len(zero) == len(columns) - rank:
        verb = "are" if len(zero) > 1 else "is"
        plural = "variances" if len(zero) > 1 else "variance"
        return f"the {plural} of {listed(zero)} by {group} {verb} {VARIANCE_ZERO}"
    if len(columns) == 2:
        sign = "+1" if float(T[0] @ T[1]) > 0.0 else "-1"
        return f"the correlation of {columns[0]} and {columns[1]} by {group} is estimated as {sign}"
    return (
        f"the {len(columns)} effects by {group} ({listed(columns)}) vary in {rank} "
        f"direction{'s' if rank != 1 else ''} only"
    )


def singular_message(reasons: tuple[str, ...]) -> str:
    """Return the message of a singular fit, with what to do about it."""
    remedies = []
    if any(VARIANCE_ZERO in reason for reason in reasons):
        remedies.append("drop the effect")
    if any(VARIANCE_ZERO not in reason for reason in reasons):
        remedies.append("drop correlations with (x || g) or, for a factor, diag(f | g)")
    return (
        f"boundary (singular) fit: {'; '.join(reasons)}. This is the optimum, not a failure; if "
        f"the random part is richer than the data support, {' or '.join(remedies)}"
        f"{see('singular-fit')}"
    )


def saturation_message(system: PenalizedSystem, theta: Vector) -> str | None:
    """Return a message if fixed and random effects together leave (almost) no residual."""
    spreads = relative_spread(system, theta)
    if not any(bool(spread[0] > SATURATED_SPREAD) for spread in spreads):
        return None
    return (
        "fixed and random effects reproduce the response (almost) exactly: sigma is zero up to "
        "rounding, so that the criterion has no minimum and the variance components are "
        "arbitrary: check the response, or use a coarser grouping factor or fewer effects"
        f"{see('perfect-fit')}"
    )


def dropped_message(dropped: tuple[str, ...]) -> str:
    """Return the message about columns of X that are combinations of earlier ones."""
    one = len(dropped) == 1
    return (
        f"the fixed-effects matrix is rank deficient: dropped {len(dropped)} "
        f"column{'' if one else 's'} ({listed(dropped)}) that {'is a' if one else 'are'} "
        f"combination{'' if one else 's'} of earlier ones; fitted values do not change. Remove the "
        f"term{'' if one else 's'}, or combine levels that never occur together"
        f"{see('rank-deficiency')}"
    )


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


@dataclass(frozen=True, eq=False, repr=False)
class ConvergenceReport:
    """Where the search ended and how that is known.

    Parameters
    ----------
    optimum : the search's own record.
    system : theta-free products, to compute curvature from.
    singular : (reasons) empty for a regular fit.
    identification : what the data determine; None if that has not been asked.

    Attributes
    ----------
    status : "converged", "singular", "perfect fit", "not converged" or "evaluation limit".
    gradient : (m,) exact gradient in working parameters of order one; zero where at a bound.
    hessian_eigenvalues : ascending, for the parameters that are free; computed when asked for.
    """

    optimum: Optimum
    system: PenalizedSystem = field(repr=False)
    singular: tuple[str, ...] = ()
    identification: Identification | None = None

    @property
    def undetermined(self) -> str:
        """What the data do not determine, in a sentence; empty if everything is determined."""
        return "" if self.identification is None else self.identification.sentence

    @property
    def status(self) -> str:
        if self.singular and self.optimum.status == "converged":
            return "singular"
        return self.optimum.status

    @property
    def _perfect(self) -> bool:
        return self.optimum.status == "perfect fit"

    @property
    def converged(self) -> bool:
        return self.optimum.converged

    @property
    def message(self) -> str:
        if self.singular and self.optimum.converged and self.status == "singular":
            found = f"optimum on the boundary: {'; '.join(self.singular)}"
        else:
            found = self.optimum.message
        return f"{found}; {self.undetermined}" if self.undetermined else found

    @property
    def advice(self) -> str:
        if self.identification is not None and not self.identification.complete:
            return self.identification.advice
        if self.status == "singular" and not self.optimum.advice:
            return "drop the term or the correlation if the model need not have it"
        return self.optimum.advice

    @property
    def gradient(self) -> Vector:
        return self.optimum.gradient

    @property
    def max_abs_gradient(self) -> float:
        return float(np.abs(self.optimum.gradient).max(initial=0.0))

    @property
    def predicted_decrease(self) -> float:
        return self.optimum.predicted_decrease

    @property
    def tried(self) -> tuple[str, ...]:
        """Where searches began and the criterion they ended with; empty if there was one."""
        return self.optimum.tried

    @property
    def second_valley(self) -> float | None:
        """Criterion of the second-best minimum that was found; None if there was none."""
        return self.optimum.second_valley

    @property
    def n_evaluations(self) -> int:
        return self.optimum.n_evaluations

    @property
    def n_gradients(self) -> int:
        return self.optimum.n_gradients

    @property
    def seconds(self) -> float:
        return self.optimum.seconds

    @property
    def optimizer(self) -> str:
        return self.optimum.optimizer

    @property
    def engine(self) -> str:
        return self.system.engine.name

    @cached_property
    def hessian_eigenvalues(self) -> Vector:
        """Eigenvalues, ascending, of the criterion's Hessian in working parameters."""
        if self._perfect:
            return np.empty(0)
        return hessian_eigenvalues(self.optimum.phi, self.system, reml=self.optimum.reml)

    @property
    def headline(self) -> str:
        """One line for the summary."""
        search = f"{self.optimizer}, {self.n_evaluations} evaluations"
        if self.status in ("converged", "singular"):
            gain = format_number(self.predicted_decrease, 2)
            limits = "; not all parameters are determined by the data" * bool(self.undetermined)
            return (
                f"{self.status}; {search}; a Newton step by the exact gradient would gain {gain}"
                f"{limits}"
            )
        return f"{self.status} ({self.message}); {search}"

    def __bool__(self) -> bool:
        return self.converged

    def __repr__(self) -> str:
        rows = [
            ("status", self.status),
            ("message", self.message),
            ("advice", self.advice or "none needed"),
            ("criterion", "-Inf" if not np.isfinite(self.optimum.criterion)
                else format_number(self.optimum.criterion, 10)),
            ("largest gradient", format_number(self.max_abs_gradient, 3)),
            ("predicted decrease", format_number(self.predicted_decrease, 3)),
            (
                "Hessian eigenvalues",
                ", ".join(format_number(v, 4) for v in self.hessian_eigenvalues) or "none free",
            ),
            ("optimizer", self.optimizer),
            ("evaluations", f"{self.n_evaluations} ({self.n_gradients} with gradient)"),
            *(("searched from" if i == 0 else "", line) for i, line in enumerate(self.tried)),
            ("seconds", format_number(self.seconds, 3)),
        ]
        for i, line in enumerate(self.system.engine.describe().splitlines()):
            rows.append(("engine" if i == 0 else "", line))
        return "\n".join(described(rows))


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


def notes_on(system: PenalizedSystem, optimum: Optimum) -> Notes:
    """Return what the user should know about a fit: (category of the warning, text)."""
    notes: list[tuple[type[MixedModelWarning], str]] = []
    notes += [(FormulaWarning, text) for text in double_bar_messages(system)]
    if system.dropped:
        notes.append((RankDeficiencyWarning, dropped_message(system.dropped)))
    scaling = scaling_message(system)
    if scaling is not None:
        notes.append((ScalingWarning, scaling))
    judged = identification(system, reml=optimum.reml, phi=optimum.phi)
    if not judged.complete:
        notes.append((ConvergenceWarning, identification_message(judged)))
    few = few_levels_message(system)
    if few is not None:
        notes.append((FewLevelsWarning, few))
    exact = optimum.status in (Status.PERFECT, Status.NO_RESIDUAL)
    if not optimum.converged or exact:
        advice = f": {optimum.advice}" if optimum.advice else ""
        page = see("perfect-fit" if exact else "convergence")
        notes.append((ConvergenceWarning, f"{optimum.status}: {optimum.message}{advice}{page}"))
    elif saturated := saturation_message(system, optimum.theta):
        notes.append((ConvergenceWarning, saturated))
    elif reasons := singular_reasons(system, optimum.theta, judged=judged):
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
