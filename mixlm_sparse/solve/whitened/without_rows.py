"""Rows with a residual structure without some of them.

Rows leave before they are whitened: the columns [X~ y~] of the rest are turned into a basis of
their own (see `products.downdate`), its law is that of the rows that are left, and the levels and
the pairs of levels that meet stay as they were.  The rest can then be whitened for any rho.

At the rho at hand the products follow without a look at groups that lose no row.  With A the
whitened rows of the groups that do, and B what is left of them whitened anew,

    products of the rest = products - A'A + B'B
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.solve.products.downdate import Downdate, Turn, WorkingRows, gram_of
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.products.meetings import Meeting
from mixlm_sparse.solve.whitened.frame import Whitened, WhitenedFrame

__all__ = ["kept_products", "rest_of_frame"]

Rows = NDArray[np.integer[Any]]


def rest_of_frame(
    frame: WhitenedFrame, rows: Rows, kept: Rows, law: ResidualLaw
) -> WhitenedFrame | None:
    """Return the frame without some rows; None where its basis cannot be had by subtraction.

    Parameters
    ----------
    rows, kept : ascending positions of the rows that leave, and of the others.
    law : of those that are kept.
    """
    old, weights = frame.plain, frame.law.weights
    E = frame.A[rows] if weights is None else np.sqrt(weights[rows])[:, None] * frame.A[rows]
    turn = Turn.of(gram_of(old, E), old.yy)
    if turn is None:
        return None
    log_weights = 0.0 if law.weights is None else float(np.log(law.weights).sum())
    # of the blocks of products without structure only the shape is used
    plain = turn.products(
        old, n=int(kept.size), log_weight_sum=log_weights, blocks=old.blocks
    )
    return WhitenedFrame(
        law=law,
        plain=plain,
        A=frame.A[kept] @ turn.matrix,
        Z=tuple(z[kept] for z in frame.Z),
        levels=tuple(levels[kept] for levels in frame.levels),
        spread=tuple(None if own is None else own.take(kept) for own in frame.spread),
        meetings=_meetings_of(frame, kept),
    )


def _meetings_of(frame: WhitenedFrame, kept: Rows) -> dict[tuple[int, int], Meeting]:
    """Return the pairs of levels that met, with the pairs of entries of the rows kept."""
    there = np.zeros(frame.law.n, dtype=bool)
    there[kept] = True
    out = {}
    for (g, h), meeting in frame.meetings.items():
        pairs, row = frame.pairs[g, h], frame.entries[g].row
        if pairs is None:
            at = there
        else:
            at = there[pairs[0] if row is None else row[pairs[0]]]
        out[g, h] = replace(meeting, index=meeting.index[at])
    return out


def kept_products(whitened: Whitened, downdate: Downdate, rows: Rows) -> Products | None:
    """Return the products without some rows at the same rho; None if too few digits are left.

    Parameters
    ----------
    downdate : of the products at hand.
    rows : ascending positions of the rows that leave.
    """
    frame, law, old = whitened.frame, whitened.law, whitened.products
    touched = rows
    if law.correlated:
        groups = np.unique(law.group_of[rows])
        parts = [law.order[law.starts[g] : law.starts[g + 1]] for g in groups.tolist()]
        touched = np.sort(np.concatenate(parts))
    entries = tuple(own.take(touched) for own in frame.entries)
    leaving = WorkingRows(
        whitened.A[touched] @ whitened.M, tuple(z[touched] for z in whitened.Z), entries
    )
    before = Whitening.of(law.take(touched), whitened.rho)
    log_det = whitened.whitening.log_det - before.log_det
    left = np.setdiff1d(touched, rows, assume_unique=True)
    joining = None
    if left.size:
        after = Whitening.of(law.take(left), whitened.rho)
        log_det += after.log_det
        joining = WorkingRows(
            after.apply(frame.A[left]) @ whitened.M,
            tuple(after.apply(z[left]) for z in frame.Z),
            tuple(own.take(left) for own in frame.entries),
        )
    return downdate.changed(
        leaving, joining, n=old.n - rows.size, log_weight_sum=-log_det
    )
