"""Which levels meet in rows: the pattern of Z'WZ where rows carry several levels of a factor.

The nonzero blocks of row i of Z are its entries, one a level; with one level a row entry e is row
e.  Z'WZ has a block for every two levels that share a row: the pairs of entries of a row are listed
once, and its values are sums over them.  Within a factor whose rows have one level there are none
off the diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import IntVector, Matrix
from mixlm_sparse.design.members import Members, RowLevels, Slots
from mixlm_sparse.engines import kernels

__all__ = ["Entries", "Meeting", "entries_of", "find_meetings", "pairs_of_entries"]

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Entries:
    """The entries of n rows, in the order of the rows, levels ascending within a row.

    Parameters
    ----------
    level : (e,).
    row : (e,) or None where every row has one.
    starts : (n + 1,) where those of each row begin, or None.
    weight : (e,) of a membership, or None.
    there : (n, S) which places are not empty, of `Slots`, or None.
    """

    level: IntVector
    row: Places | None = None
    starts: Places | None = None
    weight: NDArray[np.float64] | None = None
    there: NDArray[np.bool_] | None = None

    def columns(self, z: Matrix) -> Matrix:
        """Return the columns (e, K) of the entries from those of the rows, (n, K) or (n, S K)."""
        if self.there is not None:
            n, S = self.there.shape
            return np.ascontiguousarray(z.reshape(n, S, -1)[self.there])
        if self.weight is not None:
            return self.weight[:, None] * z[self.row]
        return z

    def positions(self, rows: NDArray[np.integer[Any]]) -> Places:
        """Return where the entries of some rows are, in the order of the rows."""
        if self.starts is None:
            return rows.astype(np.int64)
        counts = np.diff(self.starts)[rows]
        ends = np.cumsum(counts)
        place = np.arange(int(ends[-1]) if ends.size else 0) - np.repeat(ends - counts, counts)
        out: Places = place + np.repeat(self.starts[:-1][rows], counts)
        return out

    def take(self, rows: NDArray[np.integer[Any]]) -> Entries:
        """Return the entries of some rows, which are counted from zero."""
        if self.starts is None:
            return Entries(self.level[rows])
        at, counts = self.positions(rows), np.diff(self.starts)[rows]
        return Entries(
            self.level[at],
            np.repeat(np.arange(rows.size), counts),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            None if self.weight is None else self.weight[at],
            None if self.there is None else self.there[rows],
        )

    def of_rows(self, values: Matrix) -> Matrix:
        """Return the values (e, c) of the entries' rows."""
        return values if self.row is None else values[self.row]


def entries_of(levels: RowLevels) -> Entries:
    """Return the entries of rows."""
    if isinstance(levels, Members):
        return Entries(levels.levels, levels.row, levels.starts, levels.weights)
    if isinstance(levels, Slots):
        there = levels.levels >= 0
        counts = there.sum(axis=1)
        row = np.repeat(np.arange(len(levels)), counts)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Entries(levels.levels[there], row, starts, there=there)
    return Entries(levels)


def pairs_of_entries(first: Entries, second: Entries | None) -> tuple[Places, Places] | None:
    """Return all pairs of entries of one row, (m,) each, row by row; None for one a row.

    Parameters
    ----------
    second : of another factor; None pairs every entry with the later ones of its own row.
    """
    if second is not None and first.row is None and second.row is None:
        return None
    other = first if second is None else second
    n = first.level.size if first.starts is None else first.starts.size - 1
    row = np.arange(n) if first.row is None else first.row
    starts = np.arange(n + 1) if other.starts is None else other.starts
    counts = np.diff(starts)[row]
    begin = starts[:-1][row]
    if second is None:  # those after the entry itself
        place = np.arange(row.size) + 1
        counts, begin = counts - (place - begin), place
    ends = np.cumsum(counts)
    i = np.repeat(np.arange(row.size), counts)
    j = np.arange(i.size) - np.repeat(ends - counts, counts) + np.repeat(begin, counts)
    return i, j


@dataclass(frozen=True, eq=False, slots=True)
class Meeting:
    """The pairs of levels of two factors, or of one, that share a row.

    Parameters
    ----------
    rows, cols : (pairs,) levels, sorted; within one factor rows < cols.
    index : (m,) pair of levels of every pair of entries.
    """

    rows: IntVector
    cols: IntVector
    index: IntVector


def find_meetings(
    levels: Sequence[RowLevels], sizes: Sequence[int]
) -> dict[tuple[int, int], Meeting]:
    """Find the pairs of levels that meet, by pair of factors (g, h) with g <= h.

    Parameters
    ----------
    levels : per factor, of all rows; sizes : numbers of levels.
    """
    entries = [entries_of(own) for own in levels]
    out = {}
    for g, first in enumerate(entries):
        for h in range(g, len(entries)):
            if h == g and first.row is None:
                continue
            second = first if h == g else entries[h]
            pairs = pairs_of_entries(first, None if h == g else second)
            a, b = first.level, second.level
            if pairs is not None:
                a, b = a[pairs[0]], b[pairs[1]]
            if g == h and not a.size:  # every row has one level after all
                continue
            found = kernels.pair_index(a, b, sizes[g], sizes[h])
            out[g, h] = Meeting(*found)
    return out
