"""Whether sums from a file can be those of rows: a file may be damaged, or made by anyone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.engines.interface import FactorBlock
from mixlm_sparse.model.saved.archive import Archive
from mixlm_sparse.solve.products.accumulate import CrossProducts

__all__ = ["require_sums"]

ROUNDING = 1e-6  # relative; sums of any number of rows keep more digits
SINGULAR = 1e-9  # share of the largest eigenvalue of a level, below which rounding is all there is


def require_sums(cross: CrossProducts, archive: Archive) -> None:
    """Raise a SavedFitError unless the sums are such as rows can have.

    With C = [X y], Z_l the columns of a level and disjoint levels, the matrix

        C'WC - sum_l C'WZ_l (Z_l'WZ_l)^+ Z_l'WC

    is positive semidefinite for each grouping factor, and so is Z_l'WZ_l.  No product of two
    grouping factors exceeds the lengths of its two columns.
    """
    with np.errstate(all="ignore"):  # what overflows is no number, and fails the comparison
        whole = (cross.R**2).sum(axis=0)
        # lengths of the columns that the user has
        raw = (np.abs(cross.R[:, :-1]) @ np.abs(cross.basis.R)) @ np.abs(cross.basis.d)
        fits = bool(np.isfinite(whole).all() and np.isfinite(raw**2).all())
        lengths = []
        for block in cross.blocks.factors:
            own = np.diagonal(block.ztz, axis1=1, axis2=2)
            lengths.append(own)
            fits &= bool((own >= 0.0).all()) and _within(
                block.ztz**2, own[:, :, None] * own[:, None, :]
            )
            fits &= not block.ztx[own <= 0.0].any()
            fits = fits and _leaves_no_less_than_nothing(block, cross.R)
        for (g, h), pair in cross.blocks.pairs.items():
            most = lengths[g][pair.rows][:, :, None] * lengths[h][pair.cols][:, None, :]
            fits &= _within(pair.values**2, most)
    if not fits:
        raise archive.broken("its sums are not those of any rows")


def _leaves_no_less_than_nothing(block: FactorBlock, R: Matrix) -> bool:
    if not np.isfinite(block.ztx**2).all():
        return False
    if block.width == 1:
        own = block.ztz[:, 0, 0]
        halves = block.ztx[:, 0] / np.sqrt(np.where(own > 0.0, own, 1.0))[:, None]
        taken = halves.T @ halves
    else:
        inverse = np.linalg.pinv(block.ztz, rcond=SINGULAR, hermitian=True)
        taken = np.einsum("lki,lkm,lmj->ij", block.ztx, inverse, block.ztx, optimize=True)
    lengths = np.sqrt((R**2).sum(axis=0))
    scale = np.where(lengths > 0.0, lengths, 1.0)
    left = (R.T @ R - taken) / np.outer(scale, scale)
    return bool(np.isfinite(left).all() and np.linalg.eigvalsh(left).min() >= -ROUNDING)


def _within(parts: NDArray[Any], whole: NDArray[Any]) -> bool:
    """Say whether no part exceeds its whole, both numbers."""
    return bool((np.isfinite(whole) & (parts <= whole * (1.0 + ROUNDING))).all())
