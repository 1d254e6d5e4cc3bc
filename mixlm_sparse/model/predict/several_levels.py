"""Variances of predicted means of rows that carry several levels of a factor.

As in `variance`, with a = Lambda'(z (x) m) over all levels of a row,

    z'M z = a'C^{-1} a

by a solve with the factor of C for each row, many at a time.  Levels that the fit does not know are
independent of all others: each adds its prior variance times the square of its weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.design.members import effect_matrix, known_part, random_part
from mixlm_sparse.model.predict.effects import Selection
from mixlm_sparse.model.predict.rows import DesignRows

if TYPE_CHECKING:
    from mixlm_sparse.solve.rows import RowBlock
    from mixlm_sparse.solve.solution import PlsSolution

__all__ = ["several_levels_variance"]

# Right-hand sides of one solve take at most so many bytes, and their solution as many again.
SOLVE_BYTES = 64_000_000


def several_levels_variance(
    solution: PlsSolution, rows: DesignRows, selection: Selection
) -> Vector:
    """Return Var(x'beta^ + z'b^ - x'beta - z'b) / sigma^2 of every row, (n,).

    The arguments are those of `variance.mean_variance`.
    """
    system = solution.system
    layout, p = system.products.layout, system.p
    projected = [
        np.matmul(lam, v)
        for lam, v in zip(solution.merged_factors, solution.C_inverse_RZX, strict=True)
    ]
    T = [T / solution.scale for T in system.chart.theta_factors(solution.theta)]
    out = np.empty(rows.n)
    with system.lock:
        # Lambda of the user's effects: C^{-1} belongs to them, not to a rotation of them
        working = [R @ own for R, own in zip(system.chart.Rz, T, strict=True)]
        system.engine.factorize(system.chart.merge(working))
        for block in rows.blocks(system.products.kept):
            x = np.zeros((len(block), p)) if rows.fixed is None else block.X
            unknown = np.zeros(len(block))
            for t in rows.terms:
                g, z = layout[t].factor, block.z(t) * selection[t]
                n_levels = system.products.blocks.factors[g].n_levels
                known, squares = known_part(block.levels(g), n_levels)
                x = x - random_part(z, known, projected[g][:, layout[t].columns])
                unknown += squares * ((z @ solution.Lambda(t)) ** 2).sum(axis=1)
            A = _loadings(solution, rows, selection, block, T)
            variance = _forms(solution, A)
            prior = np.asarray(A.multiply(A).sum(axis=1)).ravel()
            variance = solution.grown(variance[:, None, None], prior[:, None, None])[:, 0, 0]
            out[block.slice] = variance + unknown + ((x @ solution.RX_inv) ** 2).sum(axis=1)
    return np.maximum(out, 0.0)


def _loadings(
    solution: PlsSolution, rows: DesignRows, selection: Selection, block: RowBlock, T: list[Matrix]
) -> sp.csr_array:
    """Return Z Lambda of the rows of a block, (m, q), level by level, for known levels."""
    blocks, layout = solution.system.products.blocks.factors, solution.system.products.layout
    starts = np.cumsum([0, *(f.n_levels * f.width for f in blocks)])
    parts = []
    for t in rows.terms:
        place, f = layout[t], blocks[layout[t].factor]
        known, _ = known_part(block.levels(place.factor), f.n_levels)
        loaded = (block.z(t) * selection[t]) @ T[t]
        for a in range(place.width):
            Z = effect_matrix(loaded, known, a, f.n_levels).tocoo()
            at = starts[place.factor] + Z.col.astype(np.int64) * f.width + place.first + a
            parts.append((Z.data, Z.row, at))
    shape = (len(block), int(starts[-1]))
    if not parts:
        return sp.csr_array(shape)
    data, row, col = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sp.csr_array((data, (row, col)), shape=shape)


def _forms(solution: PlsSolution, A: sp.csr_array) -> Vector:
    """Return a'C^{-1}a of every row of A (m, q)."""
    system = solution.system
    blocks = system.products.blocks.factors
    starts = np.cumsum([0, *(f.n_levels * f.width for f in blocks)]).tolist()
    out = np.empty(A.shape[0])
    size = max(1, SOLVE_BYTES // (8 * max(system.q, 1)))
    for first in range(0, A.shape[0], size):
        part = slice(first, first + size)
        dense: Matrix = A[part].toarray().T
        rhs: list[Array3] = [
            np.ascontiguousarray(dense[lo:hi]).reshape(f.n_levels, f.width, -1)
            for f, lo, hi in zip(blocks, starts[:-1], starts[1:], strict=True)
        ]
        found = system.engine.solve(rhs)
        out[part] = sum((r * x).sum(axis=(0, 1)) for r, x in zip(rhs, found, strict=True))
    return out
