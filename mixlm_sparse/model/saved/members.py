"""Rows with several levels of a factor in a saved fit."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.design.members import Members
from mixlm_sparse.model.saved.archive import Archive, Arrays

__all__ = ["members_from", "members_to"]


def members_to(members: Members, key: str) -> Arrays:
    """Return the arrays that hold levels and weights."""
    return {
        f"{key}.starts": members.starts,
        f"{key}.levels": members.levels,
        f"{key}.weights": members.weights,
    }


def members_from(key: str, n: int, n_levels: int, archive: Archive) -> Members:
    """Return what `members_to` wrote, of n rows, checked.

    Raises
    ------
    SavedFitError : the arrays are no rows of levels.
    """
    starts = archive.starts(f"{key}.starts", n)
    count = int(starts[-1])
    levels = archive.positions(f"{key}.levels", count, n_levels)
    weights = archive.numbers(f"{key}.weights", count)
    found = Members(starts, levels, weights, n_levels)
    inside = np.diff(found.row) == 0
    if not np.isfinite(weights).all() or (np.diff(found.levels)[inside] <= 0).any():
        raise archive.broken("the weights of a membership are damaged")
    return found
