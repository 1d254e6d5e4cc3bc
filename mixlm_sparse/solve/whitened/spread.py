"""Rows of Z whose whitening mixes levels of a grouping factor.

A whitened row is a combination of the rows of its residual group, R^{-1/2} being block diagonal in
these.  Where they all have one level of a factor it has that level; where they have several, its
row of Z has a place for each of them, D of the group:

    (W Z)_i = sum_j W_ij z_j (x) m_j,    nonzero in the levels of D only

The columns are held place by place, (n, S K) with S the most levels that a group has, zero where a
row does not have the level of the place.  They are whitened like any columns.  Memory and time of a
whitening grow S-fold, and Z'R^{-1}Z has a block for every two levels of a residual group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.design.members import RowLevels, Slots
from mixlm_sparse.engines.memory import require_memory
from mixlm_sparse.solve.products.meetings import Entries, entries_of

__all__ = ["Spread", "spread_levels"]


@dataclass(frozen=True, eq=False, slots=True)
class Spread:
    """Where the entries of rows lie among the places of their residual group.

    Parameters
    ----------
    slots : the levels of the places, row by row.
    entries : of the rows before they are whitened; place : (e,) of each.
    """

    slots: Slots
    entries: Entries
    place: NDArray[np.int64]

    def take(self, rows: NDArray[np.integer[Any]]) -> Spread:
        """Return the places of some rows; those that no row fills any more stay, empty."""
        at = self.entries.positions(rows)
        return Spread(self.slots[rows], self.entries.take(rows), self.place[at])

    def columns(self, z: Matrix) -> Matrix:
        """Return the columns (n, K) of rows by place, (n, S K)."""
        n, S = self.slots.levels.shape
        K = z.shape[1]
        out = np.zeros((n, S, K))
        row = np.arange(n) if self.entries.row is None else self.entries.row
        out[row, self.place] = self.entries.columns(z)
        return out.reshape(n, S * K)


def spread_levels(
    label: str, levels: RowLevels, n_levels: int, width: int, law: ResidualLaw
) -> Spread | None:
    """Return the places of the levels of a factor; None where every whitened row has one level.

    Parameters
    ----------
    label : of the factor; width : columns of its terms.

    Raises
    ------
    EngineError : the places need more memory than there is.
    """
    group = law.group_of if law.correlated else np.arange(law.n)
    if isinstance(levels, np.ndarray):
        if not law.correlated:
            return None
        first = law.order[law.starts[:-1]]
        if (levels == levels[first][group]).all():
            return None
    entries = entries_of(levels)
    row = np.arange(law.n) if entries.row is None else entries.row
    key = group[row].astype(np.int64) * n_levels + entries.level
    distinct, inverse = np.unique(key, return_inverse=True)
    of_group = distinct // n_levels
    n_groups = int(group.max()) + 1
    begin = np.searchsorted(of_group, np.arange(n_groups))
    place = np.arange(distinct.size) - begin[of_group]
    S = int(place.max()) + 1
    require_memory(
        24.0 * law.n * S * width,
        f"a residual structure whose groups have up to {S} levels of '{label}', a column for each,",
        f"use residual groups with fewer levels of '{label}', or leave its random effect out",
    )
    by_group = np.full((n_groups, S), -1, dtype=np.int32)
    by_group[of_group, place] = distinct % n_levels
    return Spread(Slots(by_group[group]), entries, place[inverse.ravel()])
