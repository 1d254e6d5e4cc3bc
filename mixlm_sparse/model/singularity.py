"""Variances of zero, perfect correlations and residuals of nothing, said in words."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.text import see
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.chart import surely_regular
from mixlm_sparse.solve.identification import Identification
from mixlm_sparse.solve.system import PenalizedSystem

# A standard deviation below this share of the residual's counts as zero; lme4's tolerance.
SINGULAR_TOL = 1e-4
VARIANCE_ZERO = "estimated as zero"


def relative_spread(system: PenalizedSystem, theta: Vector) -> list[Vector]:
    """Return, per term, standard deviations of the effects relative to the residual's, (k,) each.

    They are the singular values of the term's factor for columns brought to length one, descending,
    so that they depend on no unit (and, for an unstructured term, no origin) of a predictor.  With
    prior weights the residual is that of a row with the average weight.
    """
    out = []
    for Rz, T in zip(system.products.Rz, system.chart.theta_factors(theta), strict=True):
        if T.shape[0] == 1:
            out.append(np.abs(Rz[0] * T[0]))
        else:
            out.append(np.linalg.svd(Rz @ T, compute_uv=False))
    return out


def is_singular(
    system: PenalizedSystem,
    theta: Vector,
    tol: float = SINGULAR_TOL,
    judged: Identification | None = None,
) -> bool:
    """Return whether some combination of a term's effects has (almost) no variance.

    Terms that the data do not determine, according to `judged`, do not count.
    """
    return any(
        bool(spread[-1] < tol) and (judged is None or bool(judged.entries[t].all()))
        for t, spread in enumerate(relative_spread(system, theta))
    )


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
    factors = system.chart.theta_factors(theta)
    if all(_regular(T, Rz, tol) for T, Rz in zip(factors, system.products.Rz, strict=True)):
        return ()
    spreads = relative_spread(system, theta)
    for t, (term, spread, T, Rz) in enumerate(
        zip(system.matrices.terms, spreads, factors, system.products.Rz, strict=True)
    ):
        if not spread[-1] < tol or (judged is not None and not judged.entries[t].all()):
            continue
        group = system.matrices.factors[term.factor].label
        reasons.append(_reason(group, term.column_names, T, Rz, int((spread >= tol).sum()), tol))
    return tuple(reasons)


def _regular(T: Matrix, Rz: Matrix, tol: float) -> bool:
    """Say, for less than singular values cost, that none of Rz T is below `tol`."""
    determinant = float(T.diagonal().prod() * Rz.diagonal().prod())
    return surely_regular(Rz @ T, determinant, tol)


def _reason(
    group: str, columns: tuple[str, ...], T: Matrix, Rz: Matrix, rank: int, tol: float
) -> str:
    # in units of the largest entries: squares of these may be beyond the numbers of a computer
    units = [max(float(np.abs(M).max()), 1.0) for M in (T, Rz)]
    T, Rz = T / units[0], Rz / units[1]
    least = tol / units[0] / units[1]
    sd = np.sqrt((T * T).sum(axis=1))
    size = np.sqrt((Rz * Rz).sum(axis=0))
    zero = [name for name, s in zip(columns, sd * size, strict=True) if s < least]
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
