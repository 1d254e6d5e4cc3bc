"""The fronts of a sparse Cholesky factorization, and the order in which to work on them.

The columns of L that share their pattern below the diagonal form a *supernode*.  Supernode s has
w columns and m rows, the w columns first; the m x m matrix on these rows is its *front*.  The rows
below the columns of s all lie in the front of its parent, so that a factorization passes dense
blocks from children to parents, and Takahashi's recursion passes blocks of the inverse back.

Fronts are worked on by depth in the tree, the deepest first: everything of one depth is
independent, and only the fronts of two neighbouring depths need to exist.  The fronts of
supernodes with children live in one workspace, the arena, whose places are laid out in advance.

References
----------
Liu (1992), The multifrontal method for sparse matrix solution, doi:10.1137/1034004.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import IntVector, Vector
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.multifrontal.elimination import (
    Positions,
    elimination_tree,
    permuted_lower,
)
from mixlm_sparse.engines.multifrontal.ordering import fill_reducing_order

# A supernode that costs more multiply-adds than this goes to BLAS on its own; the others are
# worked on together, where a call to BLAS would cost more than the arithmetic.
BIG_FRONT_WORK = 60_000.0

# A supernode is merged with its parent when the arithmetic on the explicit zeros that come of it
# costs less than passing its front on.  In nanoseconds of one thread: a multiply-add in BLAS, an
# entry passed to the parent, a supernode less.
ZERO_COST = 0.1
PASSING_COST = 3.0
SUPERNODE_COST = 100.0
ZERO_SHARE = 0.25  # explicit zeros never exceed this share of a merged supernode


@njit
def _front_rows(starts, row_ptr, parent, ptr, idx, rows):  # type: ignore[no-untyped-def]
    # rows of each front: its columns, the entries of A below them, what the children pass on
    n_super = parent.shape[0]
    n = starts[n_super]
    mark = np.full(n, -1, np.int64)
    child = np.full(n_super, -1, np.int64)
    sibling = np.full(n_super, -1, np.int64)
    for s in range(n_super):
        lo = row_ptr[s]
        end = lo
        last = starts[s + 1]
        for j in range(starts[s], last):
            rows[end] = j
            end += 1
        below = end
        for j in range(starts[s], last):
            for t in range(ptr[j], ptr[j + 1]):
                i = idx[t]
                if i >= last and mark[i] != s:
                    mark[i] = s
                    rows[end] = i
                    end += 1
        c = child[s]
        while c >= 0:
            for t in range(row_ptr[c] + starts[c + 1] - starts[c], row_ptr[c + 1]):
                i = rows[t]
                if i >= last and mark[i] != s:
                    mark[i] = s
                    rows[end] = i
                    end += 1
            c = sibling[c]
        rows[below:end] = np.sort(rows[below:end])
        if end != row_ptr[s + 1]:
            return s
        if parent[s] >= 0:
            sibling[s] = child[parent[s]]
            child[parent[s]] = s
    return -1


@dataclass(frozen=True, slots=True)
class Step:
    """Supernodes that are worked on together.

    Parameters
    ----------
    big : True for one supernode that goes to BLAS.
    members : (b,) supernodes, all of one depth, sorted by shape.
    groups : bounds of runs of `members` that share their shape (w, m).
    fresh : ranges of the arena that hold the fronts which this step is the first to write.
    """

    big: bool
    members: IntVector
    groups: Positions
    fresh: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class FrontalTree:
    """The fronts of a Cholesky factor whose columns are in elimination order.

    Parameters
    ----------
    n : order of the matrix.
    starts : (S + 1,) first column of each supernode.
    row_ptr : (S + 1,), rows : the rows of front s are rows[row_ptr[s]:row_ptr[s + 1]], ascending.
    parent : (S,) supernode that receives the front of s, -1 at a root.
    relative : aligned with `rows`: place of the row in the parent's front (-1 for own columns).
    column_ptr : (n + 1,) where column j of L begins among the values; column t of a supernode
        holds its rows t, ..., m - 1.
    arena : (S,) place of the front in the workspace, -1 for a leaf.
    arena_size : length of the workspace.
    steps : the order of work, the deepest supernodes first, roots last.
    """

    n: int
    starts: IntVector
    row_ptr: Positions
    rows: IntVector
    parent: IntVector
    relative: IntVector
    column_ptr: Positions
    arena: Positions
    arena_size: int
    steps: tuple[Step, ...]

    @property
    def nnz(self) -> int:
        """Entries of L, with the explicit zeros of merged supernodes."""
        return int(self.column_ptr[-1])

    @property
    def small_work(self) -> float:
        """Multiply-adds outside the fronts that go to BLAS."""
        w, m = self.shapes()
        small = np.ones(w.size, dtype=bool)
        for step in self.steps:
            if step.big:
                small[step.members] = False
        return float(_front_work(w, m)[small].sum())

    def shapes(self) -> tuple[Positions, Positions]:
        """Return the columns w and the rows m of each supernode."""
        return np.diff(self.starts).astype(np.int64), np.diff(self.row_ptr)

    @property
    def work(self) -> float:
        """Return the multiply-adds of a factorization."""
        return float(_front_work(*self.shapes()).sum())

    def locate(self, row: IntVector, col: IntVector, *, strict: bool = True) -> Positions:
        """Return where the entries (row, col), row >= col, lie among the values of L.

        An entry that L does not hold is an error; with strict=False its place is -1.
        """
        supernode = np.searchsorted(self.starts, col, side="right") - 1
        lo = self.row_ptr[:-1]
        key = np.repeat(np.arange(lo.size), np.diff(self.row_ptr)) * np.int64(self.n) + self.rows
        wanted = supernode * np.int64(self.n) + row
        place = np.searchsorted(key, wanted)
        held = (key[np.minimum(place, key.size - 1)] == wanted) & (row >= col)
        within_front = place - lo[supernode]
        within_supernode = col - self.starts[supernode]
        found: Positions = self.column_ptr[col] + within_front - within_supernode
        if strict and not held.all():
            raise ValueError("the pattern has an entry outside the factor that was analysed")
        if not strict:
            found[~held] = -1
        return found


def _front_work(w: Positions, m: Positions) -> Vector:
    # eliminate w of m: sum over columns of (rows below and with it)^2 / 2
    top = m.astype(np.float64)
    rest = (m - w).astype(np.float64)
    return (top**3 - rest**3) / 6.0 + 0.5 * top * w


def analyse(pattern: sp.csc_array, order: IntVector | None = None) -> tuple[IntVector, FrontalTree]:
    """Return an elimination order and the fronts of a symmetric matrix.

    Parameters
    ----------
    pattern : (n, n), both triangles or one; the values are ignored.
    order : (n,) elimination order, refined here by a postorder, which leaves the fill as it is.
    """
    n = int(pattern.shape[0])
    if order is None:
        order = fill_reducing_order(pattern)
    coo = pattern.tocoo()
    compiled = compiled_pays(1000.0 * coo.nnz)
    order, lower, parent, counts = elimination_tree(coo.row, coo.col, n, order, compiled)
    column_order, starts, m, super_parent = merged_supernodes(parent, counts)
    order = order[column_order]
    lower = permuted_lower(coo.row, coo.col, n, order)
    row_ptr = np.concatenate(([0], np.cumsum(m)))
    rows = np.empty(int(row_ptr[-1]), dtype=np.int32)
    fill_rows = _front_rows if compiled else _front_rows.python
    wrong = fill_rows(starts, row_ptr, super_parent, lower.indptr, lower.indices, rows)
    if wrong >= 0:
        raise RuntimeError("symbolic factorization: column counts and fronts disagree")
    return order, _frontal_tree(n, starts.astype(np.int32), row_ptr, rows, super_parent)


def merged_supernodes(
    parent: Positions,
    counts: Positions,
    *,
    supernode_cost: float = SUPERNODE_COST,
    passing_cost: float = PASSING_COST,
    zero_share: float = ZERO_SHARE,
) -> tuple[Positions, Positions, Positions, IntVector]:
    """Find the supernodes and merge them with their parents where that is cheap.

    Parameters
    ----------
    parent, counts : (n,) the elimination tree in postorder, and the entries of the columns of L.
    supernode_cost, passing_cost, zero_share : see the constants of this module.

    Returns
    -------
    column_order : (n,) the columns, those of a supernode next to each other, children first.
    starts : (S + 1,) first column of each supernode.
    m : (S,) rows of each front.
    super_parent : (S,)
    """
    n = parent.size
    joins = (parent[:-1] == np.arange(1, n)) & (counts[:-1] == counts[1:] + 1)
    starts = np.concatenate(([0], np.flatnonzero(~joins) + 1, [n] if n else [])).astype(np.int64)
    above = parent[starts[1:] - 1]
    up = np.where(above >= 0, np.searchsorted(starts, above, side="right") - 1, -1).tolist()
    width = np.diff(starts).tolist()
    rows = counts[starts[:-1]].tolist()
    zeros = [0] * len(up)
    into = list(range(len(up)))  # the supernode that this one was merged into
    children: list[list[int]] = [[] for _ in up]
    for s in range(len(up)):
        # the fullest children first: they bring the fewest zeros
        queue = [(width[c] - rows[c], c) for c in children[s]]
        heapify(queue)
        children[s] = []
        while queue:
            _, c = heappop(queue)
            passed = rows[c] - width[c]
            extra = 0.5 * width[c] * (rows[s] * rows[s] - passed * passed)
            saved = 0.5 * passing_cost * passed * passed + supernode_cost
            w, m = width[c] + width[s], width[c] + rows[s]
            new_zeros = zeros[c] + zeros[s] + width[c] * (rows[s] - passed)
            full = w * m - w * (w - 1) // 2
            if ZERO_COST * extra > saved or new_zeros > zero_share * full:
                children[s].append(c)
                continue
            into[c] = s
            width[s], rows[s], zeros[s] = w, m, new_zeros
            for grandchild in children[c]:
                heappush(queue, (width[grandchild] - rows[grandchild], grandchild))
        if up[s] >= 0:
            children[up[s]].append(s)
    for s in range(len(up) - 1, -1, -1):
        into[s] = into[into[s]]  # a later supernode already knows where it ended
    target = np.array(into, dtype=np.int64)
    tops = np.flatnonzero(target == np.arange(target.size))
    group = np.searchsorted(tops, target)  # group of each supernode; ascending tops: children first
    column_group = np.repeat(group, np.diff(starts))
    column_order = np.argsort(column_group, kind="stable")
    merged_starts = np.concatenate(([0], np.cumsum(np.array(width, dtype=np.int64)[tops])))
    above_top = np.array(up, dtype=np.int64)[tops]
    super_parent = np.where(above_top >= 0, group[above_top], -1).astype(np.int32)
    return column_order, merged_starts, np.array(rows, dtype=np.int64)[tops], super_parent


def _frontal_tree(
    n: int, starts: IntVector, row_ptr: Positions, rows: IntVector, parent: IntVector
) -> FrontalTree:
    n_super = parent.size
    w = np.diff(starts).astype(np.int64)
    m = np.diff(row_ptr)

    owner = np.repeat(np.arange(n_super), m)
    key = owner * np.int64(n) + rows
    within = np.arange(rows.size) - row_ptr[owner]
    relative = np.full(rows.size, -1, dtype=np.int32)
    passed = within >= w[owner]
    receiver = parent[owner[passed]].astype(np.int64)
    wanted = receiver * n + rows[passed]
    place = np.searchsorted(key, wanted)
    if not np.array_equal(key[np.minimum(place, key.size - 1)], wanted):
        raise RuntimeError("symbolic factorization: a front is not contained in its parent's")
    relative[passed] = place - row_ptr[receiver]

    column = np.arange(n) - np.repeat(starts[:-1], w)
    column_ptr = np.concatenate(([0], np.cumsum(np.repeat(m, w) - column)))

    depth = _depths(parent)
    big = _front_work(w, m) > BIG_FRONT_WORK
    order = np.lexsort((m, w, big, -depth)).astype(np.int32)
    # a step: all small supernodes of one depth, or one big one
    ordered_big = big[order]
    new_step = np.ones(order.size, dtype=bool)
    new_step[1:] = (depth[order][1:] != depth[order][:-1]) | ordered_big[1:]
    bounds = np.concatenate((np.flatnonzero(new_step), [order.size]))
    arena, arena_size, fresh = _lay_out(parent, m, order, bounds)
    steps = []
    for k, (lo, hi) in enumerate(pairwise(bounds)):
        members = order[lo:hi]
        change = (np.diff(w[members]) != 0) | (np.diff(m[members]) != 0)
        groups = np.concatenate(([0], np.flatnonzero(change) + 1, [hi - lo]))
        steps.append(Step(bool(ordered_big[lo]), members, groups, fresh[k]))
    return FrontalTree(
        n, starts, row_ptr, rows, parent, relative, column_ptr, arena, arena_size, tuple(steps)
    )


def _depths(parent: IntVector) -> Positions:
    depth = [0] * parent.size
    up = parent.tolist()
    for s in range(parent.size - 1, -1, -1):  # parents come after their children
        if up[s] >= 0:
            depth[s] = depth[up[s]] + 1
    return np.array(depth, dtype=np.int64)


def _lay_out(
    parent: IntVector, m: Positions, order: IntVector, bounds: Positions
) -> tuple[Positions, int, list[list[tuple[int, int]]]]:
    """Give each front with children a place from its first child's step to its own.

    Returns
    -------
    place : (S,) offset of the front in the arena, -1 for a leaf.
    size : length of the arena.
    fresh : per step, the ranges that it has to clear first.
    """
    place = [-1] * parent.size
    rows = m.tolist()
    n_steps = bounds.size - 1
    step_of = np.empty(parent.size, dtype=np.int64)
    step_of[order] = np.repeat(np.arange(n_steps), np.diff(bounds))
    first_child = np.full(parent.size, n_steps, dtype=np.int64)
    has_parent = parent >= 0
    np.minimum.at(first_child, parent[has_parent], step_of[has_parent])
    served_from: list[list[int]] = [[] for _ in range(n_steps)]
    for p in np.flatnonzero(first_child < n_steps).tolist():
        served_from[first_child[p]].append(p)

    # From the roots down fronts get smaller, so that the place of a grandparent will do.
    free: list[tuple[int, int]] = []  # (offset, length), by offset
    end = 0
    fresh: list[list[tuple[int, int]]] = []
    for k in range(n_steps - 1, -1, -1):
        for s in order[bounds[k] : bounds[k + 1]].tolist():
            if first_child[s] == n_steps:
                continue
            need = rows[s] * rows[s]
            for t, (offset, length) in enumerate(free):
                if length >= need:
                    place[s] = offset
                    if length == need:
                        del free[t]
                    else:
                        free[t] = (offset + need, length - need)
                    break
            else:
                place[s] = end
                end += need
        cleared = _joined(sorted((place[p], rows[p] * rows[p]) for p in served_from[k]))
        fresh.append([(offset, offset + length) for offset, length in cleared])
        if cleared:
            free = _joined(sorted(free + cleared))
    return np.array(place, dtype=np.int64), end, fresh[::-1]


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for offset, length in ranges:
        if out and out[-1][0] + out[-1][1] == offset:
            out[-1] = (out[-1][0], out[-1][1] + length)
        else:
            out.append((offset, length))
    return out
