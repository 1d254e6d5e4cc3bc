"""Products of small models in one compiled call; its arithmetic is in `engines.fused.products`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.covariance.random import covariance_structure
from mixlm_sparse.design.grouping import MemberFactor
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.decisions import search_pays
from mixlm_sparse.engines.fused.products import CLOSURES, small_products
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.solve.products.accumulate import CrossProducts
from mixlm_sparse.solve.products.basis import FAR, RANK_RTOL, Basis, TermLayout, placed_terms
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.products.meetings import find_meetings

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["products_at_once"]

IntTable = NDArray[np.int64]

# Rows times the squared number of columns up to which loops are quicker than calls of LAPACK.
MOST_WORK = 200_000


def products_at_once(
    matrices: ModelMatrices, *, compiled: bool | None = None
) -> tuple[CrossProducts, Products] | None:
    """Return what `cross_products` and `orthonormal_products` do, of a small and regular model.

    Parameters
    ----------
    compiled : take machine code, or not; by default where the search does.

    Returns
    -------
    None where the model is not small or not regular, or the response far from zero: NumPy's form
    decides there.
    """
    n, p, factors = matrices.nobs, len(matrices.fixed.names), matrices.factors
    width = p + 1 + sum(len(term.column_names) for term in matrices.terms)
    if not factors or n * width**2 > MOST_WORK:
        return None
    if any(isinstance(factor, MemberFactor) for factor in factors):
        return None
    if not (search_pays(small_products, 0.0) if compiled is None else compiled):
        return None
    every = slice(0, n)
    y = matrices.y if matrices.offset is None else matrices.y - matrices.offset
    columns = [term.columns.block(every) for term in matrices.terms]
    layout, widths, table, at = _places(
        matrices.fixed.names,
        tuple([(t.factor, t.column_names, t.structure, t.places) for t in matrices.terms]),
    )
    is_regular, basis, R, ztz, ztx, Zt, final = small_products(
        np.concatenate([matrices.fixed.block(every), y[:, None], *columns], axis=1),
        p,
        np.empty(0) if matrices.weights is None else np.array(matrices.weights),
        np.array([factor.codes for factor in factors]),
        np.array([(f.n_levels, K) for f, K in zip(factors, widths, strict=True)], dtype=np.int64),
        table,
        at,
        RANK_RTOL,
    )
    if not is_regular:
        return None
    R_basis, d, padded = basis
    Rz = tuple(R_t[: place.width, : place.width] for R_t, place in zip(padded, layout, strict=True))
    R_x, beta_ols, (yy, y_length), ztf = final
    if math.sqrt(yy) < FAR * y_length:
        return None
    pairs = _pairs(matrices, Zt, widths)
    log_weight_sum = -matrices.residual.log_det(every)
    cross = CrossProducts(
        basis=Basis(R_basis, d, Rz),
        n=n,
        log_weight_sum=log_weight_sum,
        R=R,
        blocks=_blocks(matrices, widths, ztz, ztx, pairs),
        layout=layout,
        levels=None,
        matrices=matrices,
    )
    return cross, Products(
        n=n,
        log_weight_sum=log_weight_sum,
        kept=tuple(range(p)),
        R_x=R_x,
        D=np.empty((p, 0)),
        beta_ols=beta_ols,
        yy=float(yy),
        y_length=float(y_length),
        blocks=_blocks(matrices, widths, ztz, ztf, pairs),
        layout=layout,
        Rz=Rz,
    )


class _Places(NamedTuple):
    """Where columns are: of every term its layout, (G,) widths, and two arguments of the kernel."""

    layout: tuple[TermLayout, ...]
    widths: tuple[int, ...]
    table: IntTable
    at: IntTable


@lru_cache(maxsize=256)
def _places(
    x_names: tuple[str, ...],
    terms: tuple[tuple[int, tuple[str, ...], str, tuple[int, ...] | None], ...],
) -> _Places:
    """Return where columns are, which depends on names alone: kept for the next fit.

    Parameters
    ----------
    terms : per random term its factor, the names of its columns, its structure and their times.
    """
    names = {name: place for place, name in enumerate(x_names)}
    layout = placed_terms(tuple((factor, len(columns)) for factor, columns, _, _ in terms))
    table, at, first = [], [], 0
    for (_, columns, structure, times), place in zip(terms, layout, strict=True):
        closure = CLOSURES[covariance_structure(structure, place.width, times).closed_under]
        table.append((first, place.width, place.factor, place.first, closure))
        shared = [names.get(name, -1) for name in columns]
        at += shared if min(shared) >= 0 else [-1] * place.width
        first += place.width
    widths = [0] * (1 + max(place.factor for place in layout))
    for place in layout:
        widths[place.factor] += place.width
    return _Places(
        layout, tuple(widths), np.array(table, dtype=np.int64), np.array(at, dtype=np.int64)
    )


def _pairs(
    matrices: ModelMatrices, Zt: Matrix, widths: Sequence[int]
) -> dict[tuple[int, int], PairBlock]:
    """Return Z~_g'WZ~_h of the pairs of levels that meet; Zt holds z~ of all factors, (n, k)."""
    factors = matrices.factors
    if len(factors) == 1:
        return {}
    stops = np.cumsum(widths)[:-1]
    Z = [np.ascontiguousarray(part) for part in np.split(Zt, stops, axis=1)]
    residual, every = matrices.residual, slice(0, matrices.nobs)
    WZ = [residual.weigh(z, every) for z in Z]
    codes, sizes = [factor.codes for factor in factors], [factor.n_levels for factor in factors]
    out = {}
    for (g, h), meeting in find_meetings(codes, sizes).items():
        values = np.zeros((meeting.rows.size, widths[g], widths[h]))
        kernels.add_pair_products(meeting.index, Z[g], WZ[h], values, compiled=True)
        out[g, h] = PairBlock(meeting.rows, meeting.cols, values)
    return out


def _blocks(
    matrices: ModelMatrices,
    widths: Sequence[int],
    ztz: Matrix,
    ztx: Matrix,
    pairs: dict[tuple[int, int], PairBlock],
) -> BlockSystem:
    """Return blocks from the sums of all factors, one factor after another."""
    P = len(matrices.fixed.names) + 1
    found, at, at_x = [], 0, 0
    for factor, K in zip(matrices.factors, widths, strict=True):
        L = factor.n_levels
        stop, stop_x = at + L * K * K, at_x + L * K * P
        found.append(
            FactorBlock(
                factor.label,
                ztz[at:stop].reshape(L, K, K),
                ztx[at_x:stop_x].reshape(L, K, P),
            )
        )
        at, at_x = stop, stop_x
    return BlockSystem(tuple(found), pairs)
