"""What a compiled search is told of the terms, and where it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector


class Found(NamedTuple):
    """Where a compiled search ended.

    Parameters
    ----------
    phi, gradient : (m,).
    value, decrease : criterion, and what a Newton step from here would win.
    limit_reached : whether the number of evaluations ended the search.
    n_values, n_gradients : evaluations, and those with a gradient.
    history : criterion at each evaluation.
    hessian, scales : (m, m) by central differences, and the sizes (m,) of steps that they are in
        units of; None where they were not asked for.
    """

    phi: Vector
    gradient: Vector
    value: float
    decrease: float
    limit_reached: bool
    n_values: int
    n_gradients: int
    history: Vector
    hessian: Matrix | None
    scales: Vector


class FoundMany(NamedTuple):
    """Where r compiled searches ended.

    Parameters
    ----------
    phi, gradient : (r, m).
    numbers : (r, 4) criterion, predicted decrease, 1 where the limit was reached, pwrss.
    counts : (r, 9) by the places of `Model.state`.
    factors : (r, P, P) lower triangles of the factors of [X y]'V^{-1}[X y] there.
    scales, slopes, products : (r, m), (r, 4m, m) and (r, 4m, P, P), see `differences`; without room
        where none were asked for.
    """

    phi: Matrix
    gradient: Matrix
    numbers: Matrix
    counts: NDArray[np.int64]
    factors: Array3
    scales: Matrix
    slopes: Array3
    products: NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """One term: its factor, its first column there, closure, and the parameter at each place of T.

    Parameters
    ----------
    position : (k, k) number of the parameter among all, -1 for a zero.
    """

    factor: int
    column: int
    closure: str
    position: NDArray[np.intp]
