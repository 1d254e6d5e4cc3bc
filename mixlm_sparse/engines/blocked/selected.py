"""Blocks of C^{-1} from what `BlockedEngine` has eliminated.

They follow backwards (Takahashi, Fagan and Chin 1973): with E_iN = C_ii^{-1} C_iN over the
neighbours N of a level,

    [C^{-1}]_iN = -E_iN [C^{-1}]_NN,    [C^{-1}]_ii = C_ii^{-1} + E_iN [C^{-1}]_NN E_iN'.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector
from mixlm_sparse.engines.blocked.coupling import Coupling, bmm, transposed
from mixlm_sparse.engines.blocked.rest import Rest, RestFactor
from mixlm_sparse.engines.interface import BlockSystem, SelectedInverse


@dataclass(frozen=True, eq=False, slots=True)
class Elimination:
    """A numeric factor of C.

    Parameters
    ----------
    system, chain, parents : the model; its chain; per factor of the chain, the level of each later
        one that every level lies in.
    Linv, Wp : per factor of the chain, L_i^{-1} and W_ih for the later ones.
    couplings, rest, schur : with the rest, if there is one.
    by_column : per pair (g, h), the order of its levels by column.
    """

    system: BlockSystem
    chain: Sequence[int]
    parents: Sequence[Mapping[int, IntVector]]
    Linv: Sequence[Array3]
    Wp: Sequence[Mapping[int, Array3]]
    couplings: Sequence[Coupling]
    rest: Sequence[RestFactor]
    schur: Rest | None
    by_column: Mapping[tuple[int, int], np.ndarray]


def selected_blocks(
    done: Elimination, *, of: Collection[int], without: Collection[int] = ()
) -> SelectedInverse:
    """Return blocks of C^{-1}: the diagonal ones, and those of pairs with a factor in `of`.

    Pairs of which both are in `without` are left out.
    """
    factors = done.system.factors
    diag: list[Array3] = [np.empty(0)] * len(factors)
    pairs: dict[tuple[int, int], Array3] = {}
    n_chain = len(done.chain)

    def asked(g: int, h: int) -> bool:
        return (g in of or h in of) and not (g in without and h in without)

    # what a nested factor, or a pair, asks of a coupling needs its blocks of the inverse
    keep = [
        s > 0 or any(asked(i, r.index) for r in done.rest) for s, i in enumerate(done.chain)
    ]
    inside: list[Array3 | None] = [None] * n_chain
    if done.schur is not None:
        if n_chain == 1 and not keep[0]:  # cheaper from the factor, which is still there
            inside[0] = done.couplings[0].inside(done.Linv[0], done.schur, 0)
        done.schur.invert()
        for a, r in enumerate(done.rest):
            diag[r.index] = done.schur.diagonal_blocks(a)
            for b in range(a + 1, len(done.rest)):
                if asked(r.index, done.rest[b].index):
                    block = done.schur.pair_blocks(a, b)
                    _store(done, pairs, r.index, done.rest[b].index, block)
    chain_inverse: dict[tuple[int, int], Array3] = {}
    for s in range(n_chain - 1, -1, -1):
        i = done.chain[s]
        Linv = done.Linv[s]
        E = {t: bmm(transposed(Linv), Wp) for t, Wp in done.Wp[s].items()}
        block = bmm(transposed(Linv), Linv)
        if done.schur is not None:
            links = [(done.couplings[t], done.parents[s][t], E[t], t) for t in E]
            found = inside[s]
            if found is None:
                found = done.couplings[s].invert(Linv, done.schur, s, links)
            block = block + found
            for w, r in enumerate(done.rest):
                if asked(i, r.index):
                    _store(done, pairs, i, r.index, done.couplings[s].inverse_pairs(w))
        for t, parent in done.parents[s].items():
            h = done.chain[t]
            Y = bmm(E[t], diag[h][parent])
            for v in E:
                if v == t:
                    continue
                # block (v(j), t(j)) of the inverse, found through whichever is nested
                if v < t:
                    between = chain_inverse[v, t][done.parents[s][v]]
                else:
                    between = transposed(chain_inverse[t, v])[parent]
                Y = Y + np.matmul(E[v], between)
            if done.rest:
                Y = Y + done.couplings[s].times_inverse_rest(done.couplings[t], parent, t)
            chain_inverse[s, t] = -Y
            block = block + bmm(Y, transposed(E[t]))
            if asked(i, h):
                _store(done, pairs, i, h, -Y)
        diag[i] = block
    return SelectedInverse(diag=diag, pairs=pairs)


def _store(
    done: Elimination, pairs: dict[tuple[int, int], Array3], g: int, h: int, values: Array3
) -> None:
    """File blocks that are sorted by (level of g, level of h) under the system's key."""
    if g < h:
        pairs[g, h] = values
        return
    order = done.by_column[h, g]
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    pairs[h, g] = np.ascontiguousarray(transposed(values)[back])
