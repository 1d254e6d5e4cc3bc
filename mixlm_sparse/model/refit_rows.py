"""What is kept of fits when thousands are made: rows, and arrays of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector

__all__ = ["FAILED", "RefitArrays", "Row", "gather"]

FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RefitArrays:
    """What was read off r fits; NaN in the rows of failures.

    Parameters
    ----------
    theta : (r, m); beta, bse : (r, p); sigma, criterion : (r,).
    status, message : (r,) text; status "failed" where there is no fit.
    """

    theta: Matrix
    beta: Matrix
    bse: Matrix
    sigma: Vector
    criterion: Vector
    status: tuple[str, ...]
    message: tuple[str, ...]


class Row(NamedTuple):
    """What is kept of a fit when thousands are made; status "failed" where there is none.

    Parameters
    ----------
    theta : (m,); beta, bse : (p,); None where there is no fit.
    """

    theta: Vector | None
    beta: Vector | None
    bse: Vector | None
    sigma: float
    criterion: float
    status: str
    message: str


def gather(rows: Sequence[Row], m: int, p: int) -> RefitArrays:
    """Put rows together."""

    def stack(column: int, width: int) -> Matrix:
        out = np.full((len(rows), width), np.nan)
        for i, row in enumerate(rows):
            values = row[column]
            if isinstance(values, np.ndarray):
                out[i] = values
        return out

    return RefitArrays(
        theta=stack(0, m),
        beta=stack(1, p),
        bse=stack(2, p),
        sigma=np.array([row[3] for row in rows], dtype=np.float64),
        criterion=np.array([row[4] for row in rows], dtype=np.float64),
        status=tuple(row[5] for row in rows),
        message=tuple(row[6] for row in rows),
    )
