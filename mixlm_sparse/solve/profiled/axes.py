"""Principal axes of the random effects, between the legs of a search.

Lower triangular factors are a poor chart near a singular covariance unless its null space lies in
the last columns; along the principal axes T is diagonal, in decreasing order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.chart import Chart


def turned(phi: Vector, factors: Sequence[Matrix], chart: Chart) -> tuple[Vector, list[Matrix]]:
    """Return phi (m,) along the principal axes, and the axes Q (k, k) per term.

    Parameters
    ----------
    factors : the working Lambda at phi, (k, k) per term; phi then parameterizes Q'T~.
    """
    rotations, parts = [], []
    for template, part, T in zip(chart.templates, chart.slices, factors, strict=True):
        if template.closed_under == "linear" and template.k > 1:
            axes, sizes, _ = np.linalg.svd(T)
            rotations.append(axes)
            parts.append(template.theta_of(np.diag(sizes)))
        else:
            rotations.append(np.eye(template.k))
            parts.append(template.reflected(phi[part]))
    return np.concatenate(parts), rotations


def turned_back(phi: Vector, factors: Sequence[Matrix], chart: Chart) -> Vector:
    """Return phi (m,) in the working columns as they were before `turned`; factors as there."""
    out = [
        template.working_of(T) if template.closed_under == "linear" else phi[part]
        for template, part, T in zip(chart.templates, chart.slices, factors, strict=True)
    ]
    return np.concatenate(out)


def without_small(phi: Vector, cut: float, chart: Chart) -> Vector:
    """Return phi (m,) with zero columns of T for those whose diagonal is below `cut`."""
    out = phi.copy()
    for template, part in zip(chart.templates, chart.slices, strict=True):
        positions = template.positions
        if positions is None or template.closed_under == "one scale":
            continue
        for column in range(template.k):
            own = out[part][positions[column, column]]
            if abs(own) < cut:
                below = positions[:, column]
                out[part][below[below >= 0]] = 0.0
    return out


def same_covariance(T: Matrix, other: Matrix) -> bool:
    """Say whether T T' is that of the other factor, up to rounding of every entry."""
    V, W = T @ T.T, other @ other.T
    sd = np.sqrt(np.diag(V))
    return bool((np.abs(V - W) <= 16.0 * np.finfo(np.float64).eps * np.outer(sd, sd)).all())


def same_in_other_axes(
    factors: Sequence[Matrix], others: Sequence[Matrix]
) -> list[Matrix] | None:
    """Return the orthogonal O (k, k) per term of others = factors O; None where there is none."""
    out = []
    for T, other in zip(factors, others, strict=True):
        if not same_covariance(T, other):
            return None
        left, _, right = np.linalg.svd(T.T @ other)
        out.append(left @ right)
    return out
