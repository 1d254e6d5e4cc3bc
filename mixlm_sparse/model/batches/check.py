"""Whether sums from a file can be those of rows: a file may be damaged, or made by anyone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.model.saved.archive import Archive
from mixlm_sparse.solve.products.accumulate import CrossProducts

__all__ = ["require_sums"]

ROUNDING = 1e-6  # relative; sums of any number of rows keep more digits


def require_sums(cross: CrossProducts, archive: Archive) -> None:
    """Raise a SavedFitError unless the sums are such as rows can have.

    Z'WZ of a level is positive semidefinite, so that no product exceeds the lengths of its two
    columns; and what the levels of a column of z take out of a column c of [X y], the sum over
    levels of (z'Wc)^2 / z'Wz, is at most c'Wc, for their rows are disjoint.
    """
    with np.errstate(all="ignore"):  # what overflows is no number, and fails the comparison
        whole = (cross.R**2).sum(axis=0)
        fits = bool(np.isfinite(whole).all())
        lengths = []
        for block in cross.blocks.factors:
            own = np.diagonal(block.ztz, axis1=1, axis2=2)
            lengths.append(own)
            fits &= bool((own >= 0.0).all()) and _within(
                block.ztz**2, own[:, :, None] * own[:, None, :]
            )
            share = np.where(own > 0.0, own, 1.0)[:, :, None]
            fits &= not block.ztx[own <= 0.0].any()
            fits &= _within((block.ztx**2 / share).sum(axis=0), whole)
        for (g, h), pair in cross.blocks.pairs.items():
            most = lengths[g][pair.rows][:, :, None] * lengths[h][pair.cols][:, None, :]
            fits &= _within(pair.values**2, most)
    if not fits:
        raise archive.broken("its sums are not those of any rows")


def _within(parts: NDArray[Any], whole: NDArray[Any]) -> bool:
    """Say whether no part exceeds its whole, both numbers."""
    return bool((np.isfinite(whole) & (parts <= whole * (1.0 + ROUNDING))).all())
