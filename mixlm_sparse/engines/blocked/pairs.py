"""Pairs of levels that meet, seen from either factor."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.engines.interface import BlockSystem, PairBlock


def oriented_pair(
    system: BlockSystem, g: int, h: int, order: np.ndarray | None = None
) -> PairBlock | None:
    """Return the pairs of factors g and h with g in the rows, sorted by (row, col).

    `order` sorts the pairs by column, where it is known.
    """
    if (g, h) in system.pairs:
        return system.pairs[g, h]
    if (h, g) not in system.pairs:
        return None
    pair = system.pairs[h, g]
    if order is None:
        order = np.lexsort((pair.rows, pair.cols))
    return PairBlock(
        rows=pair.cols[order],
        cols=pair.rows[order],
        values=np.ascontiguousarray(np.swapaxes(pair.values[order], 1, 2)),
    )
