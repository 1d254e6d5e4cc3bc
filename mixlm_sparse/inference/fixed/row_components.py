"""Rows that are related: components of a design, and the dense covariance of one of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.members import RowLevels
from mixlm_sparse.engines.memory import require_memory
from mixlm_sparse.inference.fixed.kenward_roger_sums import Direction
from mixlm_sparse.solve.products.meetings import entries_of
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.frame import Whitened

__all__ = ["RandomRows", "components"]

MAX_ROWS = 3000  # of a component whose V is formed
# Columns of the inverse of a known precision that are solved for at a time.
SOLVED_AT_ONCE = 256
INSTEAD = "use ddf='satterthwaite', which is nearly the same with so many"


def components(
    system: PenalizedSystem, whitened: Whitened, r: int
) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of every component.

    They share no level with those of another, nor levels that a known covariance relates.

    Parameters
    ----------
    r : matrices of the size of a component that are held.

    Raises
    ------
    EngineError : there are too many rows in one.
    """
    law, frame = whitened.law, whitened.frame
    links, first = [], law.n
    if law.correlated:
        links.append(np.column_stack([np.arange(law.n), first + law.group_of]))
        first += law.sizes.size
    for levels, factor in zip(frame.levels, system.matrices.factors, strict=True):
        entries = entries_of(levels)
        row = np.arange(law.n) if entries.row is None else entries.row
        links.append(np.column_stack([row, first + entries.level]))
        if factor.known is not None:
            Q = factor.known.precision.tocoo()
            links.append(np.column_stack([first + Q.row, first + Q.col]))
        first += factor.n_levels
    rows, cols = np.concatenate(links).T
    graph = scipy.sparse.coo_matrix(
        (np.ones(rows.size, dtype=np.int8), (rows, cols)), shape=(first, first)
    )
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][: law.n]
    order = np.argsort(label, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    largest = max(own.size for own in found)
    if largest > MAX_ROWS:
        raise EngineError(
            "Kenward-Roger with a residual structure or known= forms the covariance of rows that "
            f"share random effects or are related, here of {largest} rows: {INSTEAD}"
        )
    what = f"the derivatives of the covariance of {largest} rows that are related,"
    require_memory(8.0 * (r + 6) * largest**2, what, INSTEAD)
    yield from found


class RandomRows:
    """What random effects contribute to V, in whitened rows.

    Parameters
    ----------
    lambdas : per factor, (K, K) in the working columns.
    directions : of the covariances of the random effects.
    """

    def __init__(
        self,
        system: PenalizedSystem,
        whitened: Whitened,
        lambdas: list[Matrix],
        directions: list[Direction],
    ) -> None:
        self._whitened = whitened
        self._lambdas, self._directions = lambdas, directions
        self._related = [_Related(factor) for factor in system.matrices.factors]

    def of(self, rows: NDArray[np.intp]) -> tuple[Matrix, list[Matrix]]:
        """Return I + Z Lambda Lambda'Z' of some rows, and the Z E Z' of all directions, (m, m)."""
        V = np.eye(rows.size)
        Z, A = [], []
        frame = self._whitened.frame
        for z, levels, lam, related in zip(
            self._whitened.Z, frame.levels, self._lambdas, self._related, strict=True
        ):
            there, own = _dense_rows(z[rows], levels[rows])
            Z.append(own)
            A.append(related.among(there))
            V += _form(own @ lam, own @ lam, A[-1])
        slopes = [_form(Z[d.factor] @ d.E, Z[d.factor], A[d.factor]) for d in self._directions]
        return V, slopes


class _Related:
    """The known covariance of the levels of a factor, if there is one."""

    def __init__(self, factor: GroupingFactor) -> None:
        known = factor.known
        self._n_levels = factor.n_levels
        self._factor = None if known is None else splu(known.precision)

    def among(self, levels: IntVector) -> Matrix | None:
        """Return the covariance of some levels, (L, L); None where they are independent."""
        if self._factor is None:
            return None
        out = np.empty((levels.size, levels.size))
        for start in range(0, levels.size, SOLVED_AT_ONCE):
            part = levels[start : start + SOLVED_AT_ONCE]
            units = np.zeros((self._n_levels, part.size))
            units[part, np.arange(part.size)] = 1.0
            out[:, start : start + part.size] = self._factor.solve(units)[levels]
        return out


def _dense_rows(z: Matrix, levels: RowLevels) -> tuple[IntVector, Array3]:
    """Return the levels that some rows have, and their rows of Z (m, levels, K)."""
    entries = entries_of(levels)
    columns = entries.columns(z)
    there, at = np.unique(entries.level, return_inverse=True)
    row = np.arange(len(z)) if entries.row is None else entries.row
    out = np.zeros((len(z), there.size, columns.shape[1]))
    out[row, at.ravel()] = columns
    return there, out


def _form(left: Array3, right: Array3, A: Matrix | None) -> Matrix:
    """Return sum_jl A_jl left_j right_l' of rows (m, levels, K), (m, m)."""
    if A is not None:
        right = np.einsum("jl,mlk->mjk", A, right, optimize=True)
    out: Matrix = left.reshape(len(left), -1) @ right.reshape(len(right), -1).T
    return out
