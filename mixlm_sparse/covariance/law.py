"""The law of the residuals of some rows, Cov(e) = sigma^2 R(rho): structure, places and groups.

With w the prior weights, s the variance function and C the correlation within groups,

    R = D C D,  D = diag(s / sqrt(w)).

Groups with the same times share one C, and are kept together (`Batch`).  `covariance.whitening`
multiplies rows by R^{-1/2}.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.correlation import Correlation, Link, PairMoments, Places
from mixlm_sparse.covariance.variance import Values, VarianceFunction, VarIdent

__all__ = ["Batch", "Parameter", "ResidualLaw"]

# A pattern of times that at least so many groups share has a batch of its own.
SHARED_BY = 4
# Numbers in the matrices of groups that are factored together.
BATCH_NUMBERS = 2**22
# Groups for each parameter of a correlation with which the criterion has one valley.
MANY_GROUPS = 20
# The same up to which correlations of visits have valleys of any signs, and draws that begin there.
FEW_GROUPS, DRAWN = 6, 6
# Parameters up to which these are all signs.
CORNERS = 2
# Groups for each parameter up to which correlations beside random effects have valleys next to
# singular ones, parameters up to which these are tried, and one of them there.
FEW_AT_EDGES, EDGES, EDGE = 12, 6, 4.0
# log sd of a level that has hardly any variance, below the least of the others; how many are tried.
QUIET = -2.0
NO_NOISE = 8.0  # the same, where it has none
MAX_QUIET = 5
# How far a working parameter is raised at most to bring correlations closer to one; its digits.
HIGHER, BISECTIONS = 10.0, 20


@dataclass(frozen=True, slots=True)
class Parameter:
    """One natural parameter of the residuals.

    Parameters
    ----------
    name : such as "phi", "rho(1,2)", "ratio(Female)"; "phi|TRT" where a stratum has its own.
    link : scale on which its interval is symmetric; "working" is that of its own omega.
    """

    name: str
    link: Link


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Groups of equal size in one stratum, in time order.

    Parameters
    ----------
    rows : (groups, m) positions of their rows.
    t : (1, m) places that all groups share, or (groups, m); with a last axis for coordinates.
    """

    rows: NDArray[np.intp]
    t: NDArray[np.float64]
    stratum: int


@dataclass(frozen=True, eq=False)
class ResidualLaw:
    """R(rho) of n rows: structure, places and groups, without rho.

    Parameters
    ----------
    n : rows.
    correlation : structure within groups, or None.
    places : what it has learned.
    t : (n,) place of every row, (n, d) for positions; empty without correlation.
    order : (n,) rows sorted by group, then time.
    starts : (groups + 1,) where groups begin in `order`.
    strata : names of the levels of `by`; one, "", without.
    stratum : (groups,) level of every group.
    variance, values, x : variance function, what it has learned, its level or covariate by row.
    weights : (n,) prior weights or None.
    """

    n: int
    correlation: Correlation | None
    places: Places
    t: NDArray[np.float64]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    strata: tuple[str, ...]
    stratum: NDArray[np.intp]
    variance: VarianceFunction | None
    values: Values
    x: NDArray[Any]
    weights: Vector | None = None

    # -- parameters ---------------------------------------------------------------------------

    @cached_property
    def n_correlation(self) -> int:
        """Number of parameters of one stratum's correlation."""
        return 0 if self.correlation is None else len(self.correlation.parameters(self.places))

    @cached_property
    def n_variance(self) -> int:
        """Number of parameters of the variance function."""
        return 0 if self.variance is None else len(self.variance.parameters(self.values))

    @property
    def n_rho(self) -> int:
        """Number of parameters."""
        return self.n_correlation * len(self.strata) + self.n_variance

    def part(self, stratum: int) -> slice:
        """Return the place of a stratum's parameters in rho."""
        return slice(stratum * self.n_correlation, (stratum + 1) * self.n_correlation)

    @property
    def variance_part(self) -> slice:
        """The place of the variance function's parameters in rho."""
        return slice(self.n_rho - self.n_variance, self.n_rho)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The natural parameters (n_rho,)."""
        out = []
        if self.correlation is not None:
            names = self.correlation.parameters(self.places)
            links = self.correlation.links(self.places)
            for level in self.strata:
                tail = f"|{level}" if level else ""
                out += [Parameter(n + tail, k) for n, k in zip(names, links, strict=True)]
        if self.variance is not None:
            out += [Parameter(name, "working") for name in self.variance.parameters(self.values)]
        return tuple(out)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the natural parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def start(self) -> Vector:
        """(n_rho,) omega at which rows are independent, with equal variances."""
        parts = []
        if self.correlation is not None:
            parts = [self.correlation.start(self.places)] * len(self.strata)
        if self.variance is not None:
            parts.append(self.variance.start(self.values))
        return np.concatenate(parts) if parts else np.zeros(0)

    def natural(self, rho: Vector) -> tuple[Vector, Matrix]:
        """Return the natural parameters (n_rho,) and their derivative (n_rho, n_rho) by omega."""
        values, slopes = np.zeros(self.n_rho), np.zeros((self.n_rho, self.n_rho))
        if self.correlation is not None:
            for s in range(len(self.strata)):
                at = self.part(s)
                values[at], slopes[at, at] = self.correlation.natural(rho[at], self.places)
        if self.variance is not None:
            at = self.variance_part
            values[at], slopes[at, at] = self.variance.natural(rho[at], self.values)
        return values, slopes

    def elsewhere(self, rho: Vector, *, beside: bool = True) -> list[tuple[str, Vector]]:
        """Return other rho (n_rho,) to search from: names, and correlations over their range.

        Parameters
        ----------
        beside : whether random effects correlate rows of different groups: a singular R leaves V
            regular, and the criterion may be least there.
        """
        if self.correlation is None or self.sizes.size > MANY_GROUPS * self.n_correlation:
            return []
        near, places, free = self.correlation.near, self.places, self.variance_part.start
        same = [
            (f"residual correlations of {r:g}", near(PairMoments.falling(r, places), places))
            for r in (-0.6, 0.3, 0.9)
        ]
        same.append(("hardly any residual correlation", self.correlation.weak(places)))
        out = []
        for name, own in same:  # of every stratum
            if own is not None:
                moved = rho.copy()
                moved[:free] = np.tile(own, len(self.strata))
                out.append((name, moved))
        if not self.by_visits:
            return out
        groups = self.sizes.size / self.n_correlation
        edges = beside and free <= EDGES and groups <= FEW_AT_EDGES
        drawn: Iterable[Any] = ()
        if groups <= FEW_GROUPS and free <= CORNERS:
            drawn = product((-1.0, 1.0), repeat=free)
        elif groups <= FEW_GROUPS and not edges:
            drawn = np.random.default_rng(1).normal(size=(DRAWN, free))
        for one in drawn:
            moved = rho.copy()
            moved[:free] = one
            out.append(("residual correlations of other signs", moved))
        if edges:
            for k, end in product(range(free), (-EDGE, EDGE)):
                moved = rho.copy()
                moved[k] = end
                out.append(("residual correlations next to singular", moved))
        return out

    def closer(self, rho: Vector, s: float) -> Vector:
        """Return rho (n_rho,) with (s + r) / (1 + s) for correlations r of the nearest rows.

        For one parameter, which raises correlations; it is found by bisection.
        """
        out = rho.copy()
        for stratum in range(len(self.strata)):
            at = self.part(stratum).start
            goal = (s + self._nearest(out, stratum)) / (1.0 + s)
            low, step = max(float(rho[at]), float(self.start[at])), HIGHER
            for _ in range(BISECTIONS):
                step *= 0.5
                out[at] = low + step
                low += step * (self._nearest(out, stratum) < goal)
        return out

    def _nearest(self, rho: Vector, stratum: int) -> float:
        """Return the mean correlation of rows with the row of their group nearest to each."""
        total, rows = 0.0, 0
        for batch in self.batches:
            if batch.stratum == stratum and batch.rows.shape[1] > 1:
                C = self.correlations(rho, batch)
                most = np.max(C - 2.0 * np.eye(C.shape[1]), axis=2)
                total += float(most.mean()) * batch.rows.size
                rows += batch.rows.size
        return total / rows if rows else 1.0

    def without_noise_at(self, rho: Vector, below: float = NO_NOISE) -> tuple[str, ...]:
        """Return the levels of `VarIdent` whose variance is that of none beside the others'.

        Parameters
        ----------
        below : how far its log standard deviation is below the largest.
        """
        if not isinstance(self.variance, VarIdent):
            return ()
        log_sd = np.append(0.0, rho[self.variance_part])
        none = log_sd < log_sd.max() - below
        return tuple(np.array(self.values.levels, dtype=object)[none].tolist())

    def without_noise(
        self, rho: Vector, most: int, known: Container[str] = ()
    ) -> list[tuple[str, Vector]]:
        """Return other rho (n_rho,) in which one level of `VarIdent` has hardly any variance.

        With a random effect for every row of such a level the criterion may have a valley there.

        Parameters
        ----------
        most : rows up to which a level is one of those.
        known : levels that are left out.
        """
        if not isinstance(self.variance, VarIdent):
            return []
        rows = np.bincount(self.x, minlength=len(self.values.levels))
        out = []
        for level in np.flatnonzero(rows <= most).tolist()[:MAX_QUIET]:
            if self.values.levels[level] in known:
                continue
            log_sd = np.append(0.0, rho[self.variance_part])
            log_sd[level] = log_sd.min() + QUIET
            moved = rho.copy()
            moved[self.variance_part] = log_sd[1:] - log_sd[0]
            out.append((f"hardly any variance of {self.values.levels[level]}", moved))
        return out

    def from_working(self, at: int, omega: float) -> float:
        """Return natural parameter `at`, of link "working", where its omega has this value.

        Limits of what is hardly known lie far out: there it is at the end of its range.
        """
        with np.errstate(over="ignore"):
            return self._from_working(at, omega)

    def _from_working(self, at: int, omega: float) -> float:
        if self.variance is not None and at >= self.variance_part.start:
            place = at - self.variance_part.start
            full = np.full(self.n_variance, omega)
            return float(self.variance.natural(full, self.values)[0][place])
        assert self.correlation is not None
        return self.correlation.from_working(at % self.n_correlation, omega, self.places)

    # -- groups -------------------------------------------------------------------------------

    @property
    def correlated(self) -> bool:
        """Whether rows of a group are correlated."""
        return self.correlation is not None

    @property
    def by_visits(self) -> bool:
        """Whether pairs of visits have correlations of their own."""
        return self.correlation is not None and self.correlation.time_kind == "visits"

    @property
    def markov(self) -> bool:
        """Whether a row depends on the past through the row before it alone."""
        return self.correlation is not None and self.correlation.markov

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """(groups,) rows of every group."""
        return np.diff(self.starts)

    @cached_property
    def group_of(self) -> NDArray[np.intp]:
        """(n,) group of every row, in the order of the rows."""
        out = np.empty(self.n, dtype=np.intp)
        out[self.order] = np.repeat(np.arange(self.sizes.size), self.sizes)
        return out

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """All groups, those with equal times together."""
        out: list[Batch] = []
        for size in np.unique(self.sizes).tolist():
            for s in range(len(self.strata)):
                members = np.flatnonzero((self.sizes == size) & (self.stratum == s))
                if not members.size:
                    continue
                rows = self.order[self.starts[members][:, None] + np.arange(size)]
                t = self.t[rows] if self.correlated else np.zeros(rows.shape)
                out += _by_pattern(rows, t, s, size)
        return tuple(out)

    @cached_property
    def before(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows that are not the first of their group, and the rows before them; (s,) each."""
        first = np.zeros(self.n, dtype=bool)
        first[self.starts[:-1]] = True
        at = np.flatnonzero(~first)
        return self.order[at], self.order[at - 1]

    @cached_property
    def link_strata(self) -> NDArray[np.intp]:
        """(s,) stratum of every row of `before`."""
        return self.stratum[self.group_of[self.before[0]]]

    def take(self, rows: NDArray[np.integer[Any]]) -> ResidualLaw:
        """Return the law of some of the rows, in the order given."""
        group = self.group_of[rows]
        kept, group = np.unique(group, return_inverse=True)
        rank = np.empty(self.n, dtype=np.intp)
        rank[self.order] = np.arange(self.n)
        order = np.argsort(rank[rows], kind="stable")
        counts = np.bincount(group, minlength=kept.size)
        return ResidualLaw(
            n=int(rows.size),
            correlation=self.correlation,
            places=self.places,
            t=self.t[rows] if self.correlated else self.t,
            order=order,
            starts=np.append(0, np.cumsum(counts)).astype(np.intp),
            strata=self.strata,
            stratum=self.stratum[kept],
            variance=self.variance,
            values=self.values,
            x=self.x if self.variance is None else self.x[rows],
            weights=None if self.weights is None else self.weights[rows],
        )

    def correlations(self, rho: Vector, batch: Batch) -> Array3:
        """Return C of the groups of a batch, (1 or groups, m, m)."""
        if self.correlation is None:
            return np.eye(batch.rows.shape[1])[None]
        return self.correlation.correlation(batch.t, rho[self.part(batch.stratum)], self.places)


def _by_pattern(
    rows: NDArray[np.intp], t: NDArray[np.float64], stratum: int, size: int
) -> Iterator[Batch]:
    flat = t.reshape(t.shape[0], -1)
    patterns, which, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    which = which.ravel()
    shared = counts >= SHARED_BY
    for p in np.flatnonzero(shared).tolist():
        yield Batch(rows[which == p], patterns[p].reshape(1, *t.shape[1:]), stratum)
    alone = np.flatnonzero(~shared[which])
    step = max(1, BATCH_NUMBERS // (size * size))
    for start in range(0, alone.size, step):
        chosen = alone[start : start + step]
        yield Batch(rows[chosen], t[chosen], stratum)
