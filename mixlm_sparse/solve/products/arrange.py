"""Products in another order or basis: of terms, factors and levels, and of all rows at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.types import IntVector, Matrix
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.solve.products.accumulate import CrossProducts, in_basis
from mixlm_sparse.solve.products.basis import Basis, regular_basis, term_basis, term_layout

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["arranged", "settled", "with_levels"]


def arranged(
    cross: CrossProducts,
    matrices: ModelMatrices,
    terms: Sequence[int],
    factors: Sequence[int],
    places: Sequence[IntVector],
) -> CrossProducts:
    """Return products with terms, factors and levels in another order.

    Parameters
    ----------
    matrices : the design in the new order.
    terms, factors : the old place of every term and factor.
    places : per factor in its old place, the new place (n_seen,) of every level.
    """
    layout = term_layout(matrices)
    columns = [np.empty(f.width, dtype=np.intp) for f in cross.blocks.factors]
    for place, old in zip(layout, terms, strict=True):
        before = cross.layout[old]
        columns[before.factor][place.columns] = np.arange(before.first, before.first + place.width)
    blocks, back = [], []
    for g, old in enumerate(factors):
        f = cross.blocks.factors[old]
        order = np.empty(f.n_levels, dtype=np.int32)
        order[places[old]] = np.arange(f.n_levels, dtype=np.int32)
        chosen = columns[old]
        ztz = f.ztz[order]
        if chosen.size > 1:
            ztz = ztz[:, chosen][:, :, chosen]
        label, sparse = matrices.factors[g].label, f.sparse
        ztx = f.ztx[order][:, chosen] if sparse is None else sparse.chosen(order, chosen)
        if isinstance(ztx, np.ndarray):
            ztx = np.ascontiguousarray(ztx)
        blocks.append(FactorBlock(label, np.ascontiguousarray(ztz), ztx))
        back.append(old)
    pairs = {}
    for g in range(len(back)):
        for h in range(g + 1, len(back)):
            a, b = back[g], back[h]
            pair = cross.blocks.pairs[min(a, b), max(a, b)]
            values, rows, cols = pair.values, pair.rows, pair.cols
            if a > b:
                values, rows, cols = values.transpose(0, 2, 1), cols, rows
            values = values[:, columns[a]][:, :, columns[b]]
            rows, cols = places[a][rows], places[b][cols]
            sort = np.lexsort((cols, rows))
            pairs[g, h] = PairBlock(
                np.ascontiguousarray(rows[sort], dtype=np.int32),
                np.ascontiguousarray(cols[sort], dtype=np.int32),
                np.ascontiguousarray(values[sort]),
            )
    basis = Basis(cross.basis.R, cross.basis.d, tuple(cross.basis.Rz[old] for old in terms))
    return replace(
        cross, basis=basis, blocks=BlockSystem(tuple(blocks), pairs), layout=layout, levels=None,
        matrices=matrices,
    )  # fmt: skip


def with_levels(
    blocks: BlockSystem, places: Sequence[IntVector], sizes: Sequence[int]
) -> BlockSystem:
    """Return blocks with more levels, those that no row has of zeros.

    Parameters
    ----------
    places : per factor, the place (n_levels,) of every level among the `sizes` new ones.
    """
    factors = []
    for f, at, size in zip(blocks.factors, places, sizes, strict=True):
        ztz = np.zeros((size, *f.ztz.shape[1:]))
        ztz[at] = f.ztz
        factors.append(FactorBlock(f.label, ztz, f.columns_at(at, size)))
    pairs = {}
    for (g, h), pair in blocks.pairs.items():
        rows, cols = places[g][pair.rows], places[h][pair.cols]
        sort = np.lexsort((cols, rows))
        pairs[g, h] = PairBlock(rows[sort], cols[sort], np.ascontiguousarray(pair.values[sort]))
    return BlockSystem(tuple(factors), pairs)


def settled(cross: CrossProducts, matrices: ModelMatrices) -> CrossProducts:
    """Return products in the basis that `find_basis` gives for all their rows."""
    old = cross.basis
    R, d = old.R, old.d
    if not old.is_sparse:  # else most of its columns are as they are for all rows
        P = cross.R.shape[0]
        M = np.zeros((P, P))
        M[:-1, :-1] = old.R
        M[:-1, -1] = old.R @ old.d
        M[-1, -1] = 1.0
        R, d = regular_basis(np.triu(cross.R @ M))
    Rz = []
    for t, (place, term) in enumerate(zip(cross.layout, matrices.terms, strict=True)):
        blocks = cross.blocks.factors[place.factor].ztz[:, place.columns, place.columns]
        columns = _root(blocks.sum(axis=0)) @ old.Rz[t]
        Rz.append(term_basis(columns / np.sqrt(cross.n), term.template.closed_under))
    return in_basis(cross, Basis(R=R, d=d, Rz=tuple(Rz)))


def _root(gram: Matrix) -> Matrix:
    """Return a matrix with the given Gram matrix (k, k), which may be singular."""
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    scale = np.where(lengths > 0.0, lengths, 1.0)
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    out: Matrix = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * scale
    return out
