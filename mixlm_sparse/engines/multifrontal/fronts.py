"""Dense work on the fronts of a `FrontalTree`: loading, storing and passing blocks.

Values of L lie column by column, each column of a supernode from its diagonal down: a trapezoid of
w columns and m rows.  Fronts in the arena are (m, m) in Fortran order; only the lower triangle is
ever read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.engines.compiled import njit
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.multifrontal.elimination import Positions
from mixlm_sparse.engines.multifrontal.frontal_tree import FrontalTree, Step

# Evaluations that an engine is expected to serve; decides whether loading numba is repaid.
EXPECTED_EVALUATIONS = 50
# In the NumPy form, groups of fronts are cut so that no temporary has more entries than this.
CHUNK_CELLS = 1_000_000


def compiled_form_pays(tree: FrontalTree) -> bool:
    """Say whether the small fronts are worth machine code."""
    return compiled_pays(EXPECTED_EVALUATIONS * (tree.small_work + 20.0 * tree.rows.size))


@lru_cache(maxsize=256)
def trapezoid(w: int, m: int) -> tuple[Positions, Positions]:
    """Return rows and columns of the entries of a supernode, in the order of the values."""
    rows = np.concatenate([np.arange(t, m) for t in range(w)])
    cols = np.repeat(np.arange(w), m - np.arange(w))
    return rows, cols


def lower_triangle(r: int) -> tuple[Positions, Positions]:
    """Return rows and columns of the lower triangle of an (r, r) block, column by column."""
    cols, rows = np.triu_indices(r)
    return rows, cols


def chunks(step: Step, tree: FrontalTree) -> Iterator[tuple[IntVector, int, int]]:
    """Yield supernodes of equal shape, w and m, a bounded number at a time."""
    for lo, hi in zip(step.groups[:-1], step.groups[1:], strict=True):
        first = step.members[lo]
        w = int(tree.starts[first + 1] - tree.starts[first])
        m = int(tree.row_ptr[first + 1] - tree.row_ptr[first])
        size = max(1, CHUNK_CELLS // (m * m))
        for at in range(lo, hi, size):
            yield step.members[at : min(at + size, hi)], w, m


def columns_of(tree: FrontalTree, members: IntVector, w: int, m: int) -> Positions:
    """Return where the values of each supernode lie: (b, entries of the trapezoid)."""
    size = m * w - w * (w - 1) // 2
    place: Positions = tree.column_ptr[tree.starts[members]][:, None] + np.arange(size)
    return place


def rows_below(
    tree: FrontalTree, members: IntVector, w: int, m: int
) -> tuple[Positions, IntVector]:
    """Return, for each supernode, places in the parent's front and row numbers: (b, m - w)."""
    at = tree.row_ptr[members][:, None] + np.arange(w, m)
    return tree.relative[at].astype(np.int64), tree.rows[at]


def parent_places(tree: FrontalTree, members: IntVector, relative: Positions) -> Positions:
    """Return where the lower triangle (rows below) of each supernode lies in the arena."""
    parent = tree.parent[members]
    size = (tree.row_ptr[parent + 1] - tree.row_ptr[parent])[:, None]
    rows, cols = lower_triangle(relative.shape[1])
    place: Positions = tree.arena[parent][:, None] + relative[:, cols] * size + relative[:, rows]
    return place


def own_places(tree: FrontalTree, members: IntVector, m: int) -> Positions:
    """Return where the fronts of the supernodes begin in the arena, as a column."""
    place: Positions = tree.arena[members][:, None]
    return place


def panels(values: Vector, place: Positions, w: int, m: int) -> Array3:
    """Return the columns of each supernode as dense blocks (b, m, w), zero above the diagonal."""
    rows, cols = trapezoid(w, m)
    out = np.zeros((place.shape[0], m, w))
    out[:, rows, cols] = values[place]
    return out


# ---------------------------------------------------------------------------------------------
# One big front
# ---------------------------------------------------------------------------------------------


def front_view(tree: FrontalTree, arena: Vector, s: int) -> Matrix | None:
    """Return the front of s in the arena, (m, m) Fortran ordered; None for a leaf."""
    at = int(tree.arena[s])
    if at < 0:
        return None
    m = int(tree.row_ptr[s + 1] - tree.row_ptr[s])
    view: Matrix = arena[at : at + m * m].reshape((m, m), order="F")
    return view


def load_columns(tree: FrontalTree, values: Vector, s: int, out: Matrix, *, add: bool) -> None:
    """Copy or add the values of supernode s to the first columns of `out` (m, >= w)."""
    first, m = int(tree.starts[s]), out.shape[0]
    for t in range(int(tree.starts[s + 1]) - first):
        at = int(tree.column_ptr[first + t])
        if add:
            out[t:, t] += values[at : at + m - t]
        else:
            out[t:, t] = values[at : at + m - t]


def store_columns(tree: FrontalTree, values: Vector, s: int, block: Matrix) -> None:
    """Write the lower trapezoid of `block` (m, >= w) to the values of supernode s."""
    first, m = int(tree.starts[s]), block.shape[0]
    for t in range(int(tree.starts[s + 1]) - first):
        at = int(tree.column_ptr[first + t])
        values[at : at + m - t] = block[t:, t]


@njit
def _add_lower(block, relative, front):  # type: ignore[no-untyped-def]
    r = relative.shape[0]
    for j in range(r):
        c = relative[j]
        for i in range(j, r):
            front[relative[i], c] += block[i, j]


@njit
def _take_lower(front, relative, block):  # type: ignore[no-untyped-def]
    r = relative.shape[0]
    for j in range(r):
        c = relative[j]
        for i in range(j, r):
            block[i, j] = front[relative[i], c]


def add_to_front(block: Matrix, relative: IntVector, front: Matrix, *, compiled: bool) -> None:
    """Add the lower triangle of `block` (r, r) to the rows and columns `relative` of a front."""
    lo, hi = int(relative[0]), int(relative[-1]) + 1
    if hi - lo == relative.size:
        front[lo:hi, lo:hi] += block
    elif compiled:
        _add_lower(block, relative, front)
    else:
        for j in range(relative.size):
            front[relative[j:], relative[j]] += block[j:, j]


def take_from_front(front: Matrix, relative: IntVector, *, compiled: bool) -> Matrix:
    """Return the lower triangle of rows and columns `relative` of a front, (r, r)."""
    r = relative.size
    block = np.zeros((r, r), order="F")
    lo, hi = int(relative[0]), int(relative[-1]) + 1
    if hi - lo == r:
        block[:] = front[lo:hi, lo:hi]
    elif compiled:
        _take_lower(front, relative, block)
    else:
        for j in range(r):
            block[j:, j] = front[relative[j:], relative[j]]
    return block
