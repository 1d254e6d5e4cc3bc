"""Other starts, where the structure says that the criterion may have more than one valley.

* A singular optimum of several terms with few levels: Lambda = I and, where rows are few as well,
  the optimum with a zero variance and the smallest one of another term exchanged.
* A correlation that several effects share: values over its range, beside variances as they were
  found, smaller and larger ones; at an edge (a correlation of one, a variance of zero), where each
  choice of edges can have a valley of its own, some starts all over the place as well.
* A singular optimum of several terms and few rows: Lambda = I.
* Nearly as many parameters as rows, few rows and effects many times the noise, or few rows for each
  parameter and nearly as many random effects as rows: which directions have no variance, and
  which term takes what several could, is then decided by where a search begins.  Besides
  Lambda = I, large effects are tried, and the optimum with its principal axes exchanged, between
  terms as well, so that other directions are zero.
* Effects of a factor of which no level shows all, and few levels: a slope of a covariate that is
  constant within groups.  What is seen of `(z | g)` then is one mean a group, of the variance
  v_1 + 2 c z + v_2 z^2, a curve through few points; it is treated as few rows are.
* In these cases, and for structures with several variances wherever they end: the faces next to the
  optimum.  Each choice of zero variances can have a valley of its own; a search that begins with a
  variance of zero stays on that face, and is asked at its end whether the criterion falls off it.
* Where these searches end in different valleys there are often more: starts all over the place,
  always the same ones.
* Independent effects of one grouping factor whose columns are nearly parallel, such as
  `(1 | g) + (0 + x | g)` with x near 1000 and a spread of 1: a real variance of slopes then needs a
  relative standard deviation of about 1 / spread in working columns of length one, far from where
  any search begins.  With rho the part of a column that is not parallel to those of the other
  terms, variances of the order of 1 / rho are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.random import CovarianceStructure
from mixlm_sparse.solve.chart import Chart
from mixlm_sparse.solve.profiled.boundary import NULL_ATOL
from mixlm_sparse.solve.profiled.saddle import quick
from mixlm_sparse.solve.search.objective import Start
from mixlm_sparse.solve.system import PenalizedSystem

# With fewer levels than this per column of a term, a singular optimum may be one of several.
FEW_LEVELS = 5
# With fewer rows than this per parameter the criterion may have several minima.
FEW_ROWS = 4
# The same, if random effects are this many times the noise.
LARGE = 10.0
FEW_ROWS_LARGE = 8
# What is tried then, and a direction that a search can leave.
LARGE_START = 30.0
NEARLY_ZERO = 0.02
MAX_EXCHANGES = 2
# The same, if one of them is on the boundary.
FEW_ROWS_SINGULAR = 10
# The same beside few levels: a variance of one term may be that of another.
FEW_ROWS_BETWEEN = 15
# The same, if effects are so many, as a share of the rows.
FILLED = 0.9
# The same, if no level of a factor shows all of its effects, and all levels together so many
# directions for each of their parameters.
FEW_SEEN = 10
SEEN_RTOL = 1e-10  # of the square of a column's length
# Columns of independent effects are nearly parallel if less than this of them is their own.
PARALLEL = 0.2
# With so many levels the criterion of a structure has one valley, unless it ends at an edge.
MANY_LEVELS = 100
# Correlations of structures that are tried, and standard deviations beside them: as multiples of
# those found, or (None) those of the noise.
CORRELATIONS = (-0.7, 0.3, 0.93)
SD_SIZES = (1.0, 0.3, 3.0, None)
# Of the largest standard deviation of a term; from zero no search moves one.
LEAST_SD = 0.3
# Places all over where several valleys are known: one of them is in the best valley with a chance
# of a quarter even where that is narrow.
SCATTERED = 8
# The same beside correlations over their range, where those found are at an edge.
FIRST_SCATTERED = 3
SPREAD = 1.2  # of the log of sizes that are drawn
# Beside a variance that is set to zero or taken off it.
FACE_CORRELATIONS = (-0.9, 0.3, 0.9)
OFF_FACE = 0.5
# Sizes that are tried, in units of 1 / rho.
SIZES = (0.3, 1.0, 3.0)


def other_starts(
    system: PenalizedSystem, *, singular: bool, phi: Vector | None = None
) -> list[list[Start]]:
    """Return groups of starts that are worth while; of each group the best one is searched from.

    Parameters
    ----------
    singular : whether the optimum found is on the boundary.
    phi : (m,) where it was found.
    """
    chart = system.chart
    factors = system.products.blocks.factors
    groups = []
    few = any(
        template.k > 1 and factors[place.factor].n_levels < FEW_LEVELS * template.k
        for template, place in zip(chart.templates, chart.layout, strict=True)
    )
    rows = system.n / (chart.m + system.p)
    several = singular and len(chart.templates) > 1
    at = chart.start if phi is None else phi
    crowded = _crowded(system, at)
    if (several and (few or rows < FEW_ROWS_SINGULAR)) or crowded:
        groups.append([Start("Lambda = I", chart.start)])
    if (several and few and rows < FEW_ROWS_BETWEEN) or crowded:
        groups += _between_terms(chart, at)
    if crowded:
        groups += [[start] for start in _elsewhere(chart, at)]
    structured = _structured(system, singular=singular)
    if structured:
        groups += _by_correlation(system, at)
        if singular and quick(system):
            groups += anywhere(chart, at)[:FIRST_SCATTERED]
    if structured or crowded:
        groups += _flipped(chart, at, every=crowded)
    scattered = _scattered(system)
    if scattered:
        groups.append(scattered)
    return groups


def _by_correlation(system: PenalizedSystem, phi: Vector) -> list[list[Start]]:
    """Return starts with correlations over their range, a group for each value."""
    chart = system.chart
    groups = []
    for r in CORRELATIONS:
        group = []
        for size in SD_SIZES:
            at, moved = phi.copy(), False
            for template, part in zip(chart.templates, chart.slices, strict=True):
                if size is None:
                    own = template.working(template.start)
                else:
                    own = _off_zero(phi[part], template.powers) * size**template.powers
                other = template.with_correlation(r, own)
                if other is not None:
                    at[part], moved = other, True
            if moved:
                group.append(Start(f"correlations of {r:g}", at))
        if group:
            groups.append(group)
    return groups


def _off_zero(phi: Vector, powers: Vector) -> Vector:
    """Return the parameters (m,) of a term with no standard deviation of zero beside others."""
    sized = powers > 0.0
    least = LEAST_SD * float((np.abs(phi[sized]) ** (1.0 / powers[sized])).max(initial=0.0))
    return np.where(sized, np.maximum(np.abs(phi), least**powers), phi)


def scattered_starts(
    system: PenalizedSystem, *, singular: bool, phi: Vector
) -> list[list[Start]]:
    """Return starts all over the place, for models that are known to have several valleys.

    They are others than those that `other_starts` may have; none where a search costs much, or
    where all valleys are those that the structure tells of.
    """
    if not quick(system):
        return []
    if not (_structured(system, singular=singular) or _crowded(system, phi)):
        return []
    return anywhere(system.chart, phi)[FIRST_SCATTERED:]


def _crowded(system: PenalizedSystem, phi: Vector) -> bool:
    """Say whether rows are few for the parameters and the effects at phi (m,)."""
    rows = system.n / (system.chart.m + system.p)
    # as many effects as rows: what is the residual's and what is theirs is told by few of them
    filled = system.q + system.p >= FILLED * system.n and rows < FEW_ROWS_SINGULAR
    few = rows < (FEW_ROWS_LARGE if system.chart.size(phi) > LARGE else FEW_ROWS)
    return filled or few or _seen_in_parts(system)


def _seen_in_parts(system: PenalizedSystem) -> bool:
    """Say whether no level of a factor shows all of its effects, and levels are few."""
    chart = system.chart
    for g, f in enumerate(system.products.blocks.factors):
        placed = zip(chart.templates, chart.layout, strict=True)
        parameters = sum(template.n_theta for template, place in placed if place.factor == g)
        K = f.ztz.shape[1]
        if K < 2 or f.n_levels >= FEW_SEEN * parameters:
            continue
        for first, last in ((0, 1), (0, f.n_levels)):  # mostly the first level shows all
            values = np.linalg.eigvalsh(f.ztz[first:last])
            seen = (values > SEEN_RTOL * values[:, -1:]).sum(axis=1)
            if (seen == K).any():
                break
        else:
            if seen.sum() < FEW_SEEN * parameters:
                return True
    return False


def _structured(system: PenalizedSystem, *, singular: bool) -> bool:
    """Say whether a correlation that several effects share may have several valleys."""
    chart = system.chart
    levels = [
        system.products.blocks.factors[place.factor].n_levels
        for template, place in zip(chart.templates, chart.layout, strict=True)
        if template.second_start is not None
    ]
    return bool(levels) and (singular or min(levels) < MANY_LEVELS)


def anywhere(chart: Chart, phi: Vector) -> list[list[Start]]:
    """Return starts anywhere, around sizes of one and those at phi (m,) in turn."""
    rng = np.random.default_rng(0)
    sizes = (1.0, max(chart.size(phi), 1.0))
    out = []
    for i in range(FIRST_SCATTERED + SCATTERED):
        sized = np.exp(SPREAD * rng.normal(size=chart.m)) ** chart.powers
        sized *= rng.choice([-1.0, 1.0], chart.m)
        turned = rng.uniform(-0.5 * np.pi, 0.5 * np.pi, chart.m)  # correlations have no size
        drawn = chart.reflected(np.where(chart.powers > 0.0, sized, turned))
        out.append([Start(f"anywhere {i + 1}", chart.scaled(drawn, sizes[i % 2]))])
    return out


def _elsewhere(chart: Chart, phi: Vector) -> list[Start]:
    """Return starts that lie in other valleys where rows are few."""
    T = chart.factors(phi)
    out = [Start(f"Lambda = {LARGE_START:g} I", chart.scaled(chart.start, LARGE_START))]
    free = [t.k for t in chart.templates if t.closed_under == "linear"]
    for shift in range(1, min(max(free, default=1), MAX_EXCHANGES + 1)):
        turned = _with_sizes(chart, T, partial(_exchanged, shift=shift))
        out.append(Start("principal axes exchanged", turned))
    return out


def _between_terms(chart: Chart, phi: Vector) -> list[list[Start]]:
    """Return starts at which a term without some variance has what another term has least of.

    Where levels of two factors share rows, either may take what varies between both, and the
    criterion can have a valley for each.  From the principal axes at phi (m,), one of a term that
    is zero and the smallest of another term that is not exchange their sizes.
    """
    axes = [np.linalg.svd(T) for T in chart.factors(phi)]
    out = []
    for t, (_, own, _) in enumerate(axes):
        if own[-1] > NULL_ATOL:
            continue
        for s, (_, sizes, _) in enumerate(axes):
            live = np.flatnonzero(sizes > NULL_ATOL)
            if s == t or not live.size:
                continue
            moved = [row[1].copy() for row in axes]
            moved[t][-1], moved[s][live[-1]] = sizes[live[-1]], 0.0
            blocks = [left * size for (left, _, _), size in zip(axes, moved, strict=True)]
            out.append(Start("a variance of another term", chart.parameters_of(blocks)))
    return [out] if out else []


def _flipped(chart: Chart, phi: Vector, *, every: bool) -> list[list[Start]]:
    """Return starts on faces: one variance more is zero than at phi (m,), or one less.

    Parameters
    ----------
    every : of all terms; else of structures with correlations and several variances.
    """
    groups: list[list[Start]] = []
    choice = (chart.powers > 0.0).sum() > 1
    for template, part in zip(chart.templates, chart.slices, strict=True):
        own = phi[part]
        structured = template.second_start is not None
        faces = choice and (every or (structured and template.n_variances > 1))
        for name, other in _faces(template, own) if faces else ():
            options = [other]
            if structured:
                turned = (template.with_correlation(r, other) for r in FACE_CORRELATIONS)
                options += [one for one in turned if one is not None]
            group = []
            for option in options:
                there = phi.copy()
                there[part] = option
                group.append(Start(name, there))
            groups.append(group)
        for other in template.other_faces(_off_zero(own, template.powers)):
            there = phi.copy()
            there[part] = other
            groups.append([Start("another face of the correlations", there)])
    return groups


def _faces(template: CovarianceStructure, phi: Vector) -> list[tuple[str, Vector]]:
    """Return parameters (n_theta,) of a term with one variance set to zero, or off it."""
    out = []
    if template.closed_under == "linear" and template.k > 1:
        axes, sizes, _ = np.linalg.svd(template.factor_at(phi))
        largest = max(float(sizes.max()), OFF_FACE)
        for j in range(template.k):
            other = sizes.copy()
            other[j] = 0.0 if sizes[j] > 0.0 else largest
            name = "a variance of zero" if sizes[j] > 0.0 else "a variance off zero"
            out.append((name, template.working_of(axes * other)))
        return out
    sized = np.flatnonzero(template.powers > 0.0)
    largest = max(float(np.abs(phi[sized]).max()), OFF_FACE)
    for j in sized.tolist():
        zero = abs(phi[j]) > 0.0
        other = phi.copy()
        other[j] = 0.0 if zero else largest
        out.append(("a variance of zero" if zero else "a variance off zero", other))
    return out


def _exchanged(sizes: Vector, shift: int) -> Vector:
    return np.roll(np.maximum(sizes, NEARLY_ZERO), shift)


def _with_sizes(
    chart: Chart, factors: list[Matrix], sizes: Callable[[Vector], Vector]
) -> Vector:
    """Return phi (m,) of factors with other standard deviations along their principal axes."""
    blocks: list[Matrix] = []
    for template, T in zip(chart.templates, factors, strict=True):
        if template.closed_under == "linear":
            axes, own, _ = np.linalg.svd(T)
        else:
            axes, own = np.eye(template.k), np.sqrt((T * T).sum(axis=1))
        blocks.append(axes * sizes(own))
    return chart.parameters_of(blocks)


def _scattered(system: PenalizedSystem) -> list[Start]:
    """Return starts with large variances of effects whose columns are nearly parallel."""
    chart = system.chart
    alone = len(chart.templates) == len(chart.widths)
    if alone and all(template.k == 1 or _tied(template) for template in chart.templates):
        return []  # no columns of one factor vary independently
    own = [np.ones(template.k) for template in chart.templates]
    for g, f in enumerate(system.products.blocks.factors):
        pooled = f.ztz.sum(axis=0)
        free = _free_of(system, g)
        for t, place in enumerate(chart.layout):
            if place.factor != g:
                continue
            for c in range(place.width):
                at = place.first + c
                own[t][c] = _own_share(pooled, at, np.flatnonzero(free[at]))
    smallest = min(float(share.min()) for share in own)
    if not 0.0 < smallest < PARALLEL:
        return []
    out = []
    for size in SIZES:
        blocks: list[Matrix] = []
        for template, share in zip(chart.templates, own, strict=True):
            value = np.where(share < PARALLEL, size / np.maximum(share, smallest), 1.0)
            blocks.append(np.diag(value * np.ones(template.k)))
        name = f"relative standard deviations of {size / smallest:.2g}"
        out.append(Start(name, chart.parameters_of(blocks)))
    return out


def _free_of(system: PenalizedSystem, g: int) -> np.ndarray:
    """Return (K, K): which columns of a factor are independent of each other by the structure."""
    chart = system.chart
    K = chart.widths[g]
    out = np.ones((K, K), dtype=bool)
    for template, place in zip(chart.templates, chart.layout, strict=True):
        if place.factor == g and _tied(template):
            out[place.columns, place.columns] = False
    np.fill_diagonal(out, False)
    return out


def _tied(template: CovarianceStructure) -> bool:
    """Say whether the effects of a term are not independent of each other by the structure."""
    return template.correlated or template.closed_under == "one scale"


def _own_share(pooled: Matrix, at: int, others: np.ndarray) -> float:
    """Return what length of a column is left beside the others, as a share; 1 without others."""
    length = float(pooled[at, at])
    if not others.size or not length > 0.0:
        return 1.0
    part = np.linalg.lstsq(pooled[np.ix_(others, others)], pooled[others, at], rcond=None)[0]
    left = length - float(part @ pooled[others, at])
    return float(np.sqrt(max(left, 0.0) / length))
