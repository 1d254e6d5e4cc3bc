"""The embedded engine: elimination by blocks, NumPy and LAPACK only.

The factors are ordered by their number of random effects.  The largest has a block-diagonal C_11
and is eliminated in closed form, all levels at once.  A later factor in which every eliminated
factor is nested keeps a block-diagonal Schur complement and is eliminated the same way (the
*chain*: cask within batch, class within school within district).  What is crossed with the chain
is the *rest*; its Schur complement S is dense or sparse (see `rest`).

    C = [ C_11 .   .   ]   for i in chain:   C_ii = L_i L_i'
        [ C_21 C_22 .  ]       W_ih = L_i^{-1} C_ih            (h: later in the chain, or the rest)
        [ C_r1 C_r2 C_rr]      C_hk -= W_ih' W_ik
                           S = C_rr - sum_i W_ir' W_ir = L_S L_S'

Every update of the chain falls on the pattern of Z'WZ itself: if level j of factor 1 lies in level
h(j) of factor 2, whatever j meets, h(j) meets too.

The blocks of C^{-1} on that pattern follow backwards: see `selected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines import contract, kernels
from mixlm_sparse.engines.blocked.coupling import Coupling, bmm, transposed
from mixlm_sparse.engines.blocked.dense_coupling import DenseCoupling
from mixlm_sparse.engines.blocked.dense_rest import DenseRest, require_dense_memory
from mixlm_sparse.engines.blocked.pairs import oriented_pair
from mixlm_sparse.engines.blocked.rest import Rest, RestFactor, gathered
from mixlm_sparse.engines.blocked.selected import Elimination, selected_blocks
from mixlm_sparse.engines.blocked.sparse_coupling import SparseCoupling
from mixlm_sparse.engines.compiled import made_again, twin_of
from mixlm_sparse.engines.interface import (
    BlockSystem,
    PairBlock,
    SelectedInverse,
    require_same_pattern,
)

if TYPE_CHECKING:
    from mixlm_sparse.engines.blocked.steps import Steps

# A coupling is kept dense if this share of its cells is occupied, or if it is small anyway.
DENSE_COUPLING_SHARE = 0.3
DENSE_COUPLING_CELLS = 20_000


class BlockedEngine:
    """Elimination by blocks; see the module's docstring."""

    name = "blocked"
    exact = True

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy does its symbolic work anew
        return made_again, (type(self), self._compiled, self._system)

    def __init__(self, system: BlockSystem, *, compiled: bool | None = None) -> None:
        self._system = system
        factors = system.factors
        order = sorted(range(len(factors)), key=lambda g: -factors[g].n_levels * factors[g].width)
        self._pair_cache: dict[tuple[int, int], PairBlock] = {}
        self._by_column: dict[tuple[int, int], np.ndarray] = {}  # pattern only: twins share it
        self._chain = self._find_chain(order)
        rest = [g for g in order if g not in self._chain]
        self._rest: list[RestFactor] = []
        first = 0
        for g in rest:
            self._rest.append(RestFactor(g, factors[g].n_levels, factors[g].width, first))
            first += factors[g].n_levels * factors[g].width
        self._m = first

        work = self._work_per_evaluation()
        self._compiled = kernels.blocks_compiled(20.0 * work) if compiled is None else compiled

        # parent[i][h]: the level of chain factor h in which each level of chain factor i lies
        self._parents: list[dict[int, IntVector]] = [
            {t: self._pair(i, self._chain[t]).cols for t in range(s + 1, len(self._chain))}
            for s, i in enumerate(self._chain)
        ]
        self._load_parents()
        self._steps: Steps | None = None
        if self._rest and self._compiled and not self._coupled_densely():
            from mixlm_sparse.engines.blocked.steps import in_steps  # of large models

            met = [[self._pair(i, r.index) for r in self._rest] for i in self._chain]
            self._rest, self._steps = in_steps(self._rest, met, self._rest_pairs())
        self._couplings = self._make_couplings() if self._rest else []
        self._schur = self._make_schur() if self._rest else None
        # factors whose products with each other are kept as one dense matrix
        self._dense_rest: frozenset[int] = frozenset()
        if isinstance(self._schur, DenseRest) and self._schur.products_dense:
            self._dense_rest = frozenset(r.index for r in self._rest)
        self.dense_order = self._m if isinstance(self._schur, DenseRest) else 0
        self.fill = 0 if self._schur is None else self._schur.fill
        self.logdet = float("nan")
        self.work = sum(
            factors[i].ztz.size * (4.0 * factors[i].width + 2.0 * factors[i].columns)
            for i in range(len(factors))
        ) + sum(coupling.work for coupling in self._couplings)
        if self._schur is not None:
            self.work += self._schur.work

    # -- symbolic -----------------------------------------------------------------------------

    def _load_parents(self) -> None:
        self._parent_values: list[dict[int, Array3]] = [
            {t: self._pair(i, self._chain[t]).values for t in parents}
            for i, parents in zip(self._chain, self._parents, strict=True)
        ]

    def reload(self, system: BlockSystem) -> BlockedEngine:
        """Return an engine for other numbers on the same pattern; the symbolic work is shared.

        Raises
        ------
        EngineError : the levels, widths or pairs of `system` are not those of this engine.
        """
        require_same_pattern(self._system, system)
        twin = twin_of(self)
        twin._system = system
        twin._pair_cache = {}
        twin._load_parents()
        twin._couplings = [
            coupling.reload([twin._pair(i, r.index) for r in self._rest])
            for i, coupling in zip(self._chain, self._couplings, strict=False)
        ]
        if self._schur is not None:
            twin._schur = self._schur.reload(system, twin._rest_pairs())
        twin.logdet = float("nan")
        return twin

    def _pair(self, g: int, h: int) -> PairBlock:
        if (g, h) not in self._pair_cache:
            if (h, g) in self._system.pairs and (h, g) not in self._by_column:
                cols, n = self._system.pairs[h, g].cols, self._system.factors[g].n_levels
                self._by_column[h, g] = kernels.sorted_by(cols, n)  # they are sorted by rows
            found = oriented_pair(self._system, g, h, self._by_column.get((h, g)))
            assert found is not None  # two factors of one data set always share a row
            self._pair_cache[g, h] = found
        return self._pair_cache[g, h]

    def _rest_pairs(self) -> dict[tuple[int, int], PairBlock]:
        return {
            (a, b): self._pair(r.index, self._rest[b].index)
            for a, r in enumerate(self._rest)
            for b in range(a + 1, len(self._rest))
        }

    def _find_chain(self, order: Sequence[int]) -> list[int]:
        chain = [order[0]]
        for h in order[1:]:
            if all(self._n_pairs(g, h) == self._system.factors[g].n_levels for g in chain):
                chain.append(h)
        return chain

    def _n_pairs(self, g: int, h: int) -> int:
        key = (min(g, h), max(g, h))
        return int(self._system.pairs[key].rows.size)

    def _work_per_evaluation(self) -> float:
        factors = self._system.factors
        work = 0.0
        for i in self._chain:
            K = factors[i].width
            work += factors[i].n_levels * (K**3 + K * K * factors[i].columns + 10.0)
            for r in self._rest:
                work += self._n_pairs(i, r.index) * r.width * K * 20.0
        return work

    def _coupled_densely(self) -> bool:
        factors = self._system.factors
        cells = sum(factors[i].n_levels * factors[i].width for i in self._chain) * self._m
        filled = sum(
            self._n_pairs(i, r.index) * factors[i].width * r.width
            for i in self._chain
            for r in self._rest
        )
        return cells <= DENSE_COUPLING_CELLS or filled >= DENSE_COUPLING_SHARE * cells

    def _make_couplings(self) -> list[Coupling]:
        factors = self._system.factors
        dense = self._coupled_densely()
        couplings: list[Coupling] = []
        for i in self._chain:
            pairs = [self._pair(i, r.index) for r in self._rest]
            L, K = factors[i].n_levels, factors[i].width
            if dense:
                couplings.append(DenseCoupling(L, K, self._rest, pairs, compiled=self._compiled))
            else:
                couplings.append(SparseCoupling(L, K, self._rest, pairs, compiled=self._compiled))
        for s, coupling in enumerate(couplings):
            if isinstance(coupling, SparseCoupling):
                for t, parent in self._parents[s].items():
                    other = couplings[t]
                    assert isinstance(other, SparseCoupling)
                    coupling.map_to(other, parent, t)
        return couplings

    def _make_schur(self) -> Rest:
        pairs = self._rest_pairs()
        adjacency = [c.adjacency for c in self._couplings if isinstance(c, SparseCoupling)]
        if adjacency:
            from mixlm_sparse.engines.blocked.sparse_rest import sparse_rest  # of large models

            sparse = sparse_rest(
                self._system, self._rest, pairs, adjacency, compiled=self._compiled
            )
            if sparse is not None:
                return sparse
        require_dense_memory(self._system, self._chain, self._rest)
        return DenseRest(
            self._system,
            self._rest,
            pairs,
            adjacency,
            steps=self._steps,
            compiled=self._compiled,
        )

    # -- numeric ------------------------------------------------------------------------------

    def factorize(self, lambdas: Sequence[Matrix]) -> None:
        factors = self._system.factors
        D: list[Array3] = []  # C_ii of the chain, then its Cholesky factor
        for i in self._chain:
            lam = lambdas[i]
            if factors[i].width == 1:
                block = factors[i].ztz * (lam[0, 0] * lam[0, 0]) + 1.0
            else:
                block = np.matmul(np.matmul(lam.T, factors[i].ztz), lam)
                block += np.eye(factors[i].width)
            D.append(block)
        B = [
            {
                t: np.matmul(np.matmul(lambdas[i].T, values), lambdas[self._chain[t]])
                for t, values in self._parent_values[s].items()
            }
            for s, i in enumerate(self._chain)
        ]
        rest_lambdas = [lambdas[r.index] for r in self._rest]
        for i, coupling in zip(self._chain, self._couplings, strict=False):
            coupling.scale(lambdas[i], rest_lambdas)
        if self._schur is not None:
            self._schur.set(rest_lambdas)

        self._Linv: list[Array3] = []
        self._Wp: list[dict[int, Array3]] = []
        logdet = 0.0
        for s in range(len(self._chain)):
            logdet += kernels.block_cholesky(D[s], compiled=self._compiled)
            Linv = kernels.block_lower_inverse(D[s], compiled=self._compiled)
            self._Linv.append(Linv)
            Wp = {t: bmm(Linv, block) for t, block in B[s].items()}
            self._Wp.append(Wp)
            if self._couplings:
                self._couplings[s].whiten(Linv)
            for t, parent in self._parents[s].items():
                D[t] -= self._to_parent(s, t, bmm(transposed(Wp[t]), Wp[t]))
                for v in range(t + 1, len(self._chain)):
                    # levels of t are rows of B[t][v]: nested, so one block a level
                    B[t][v] -= self._to_parent(s, t, np.matmul(transposed(Wp[t]), Wp[v]))
                if self._couplings:
                    self._couplings[t].absorb(self._couplings[s], parent, Wp[t], t)
            if self._schur is not None:
                self._couplings[s].downdate(self._schur, s)
        if self._schur is not None:
            logdet += self._schur.factorize()
        self.logdet = logdet

    def _to_parent(self, s: int, t: int, values: Array3) -> Array3:
        """Sum blocks (L_s, a, b) over the levels of s that lie in one level of t."""
        n = self._system.factors[self._chain[t]].n_levels
        _, a, b = values.shape
        flat = values.reshape(values.shape[0], a * b)
        return kernels.sum_by_group(self._parents[s][t], flat, n).reshape(n, a, b)

    def solve(self, rhs: Sequence[Array3]) -> list[Array3]:
        y: list[Array3] = [rhs[i] for i in self._chain]
        n_rhs = rhs[0].shape[2]
        if self._rest:
            x_rest = gathered([rhs[r.index].reshape(-1, n_rhs) for r in self._rest], self._rest)
        for s in range(len(self._chain)):
            y[s] = bmm(self._Linv[s], y[s])
            for t in self._parents[s]:
                y[t] = y[t] - self._to_parent(s, t, bmm(transposed(self._Wp[s][t]), y[s]))
            if self._rest:
                x_rest -= self._couplings[s].forward(y[s])
        out: list[Array3] = [np.empty(0)] * len(rhs)
        if self._schur is not None:
            x_rest = self._schur.solve(x_rest)
            for r in self._rest:
                out[r.index] = x_rest[r.columns].reshape(r.n_levels, r.width, n_rhs)
        for s in range(len(self._chain) - 1, -1, -1):
            value = y[s]
            if self._rest:
                value = value - self._couplings[s].backward(x_rest)
            for t, parent in self._parents[s].items():
                value = value - bmm(self._Wp[s][t], out[self._chain[t]][parent])
            out[self._chain[s]] = bmm(transposed(self._Linv[s]), value)
        return out

    def multiply(self, B: Sequence[Array3]) -> list[Array3]:
        """Return Z'WZ B; B[g] is (L_g, K_g, m)."""
        B = [np.ascontiguousarray(b) for b in B]
        coupled = [
            (min(i, r.index), max(i, r.index))
            for i in (self._chain if self._couplings else ())
            for r in self._rest
        ]
        out = contract.multiply(
            self._system,
            B,
            without=self._dense_rest,
            without_pairs=coupled,
            compiled=self._compiled,
        )
        if self._couplings:
            m = B[0].shape[2]
            rest = gathered([B[r.index].reshape(-1, m) for r in self._rest], self._rest)
            for i, coupling in zip(self._chain, self._couplings, strict=True):
                to_chain, to_rest = coupling.multiply(B[i], rest)
                out[i] += to_chain
                for r in self._rest:
                    out[r.index] += to_rest[r.columns].reshape(r.n_levels, r.width, m)
        if self._dense_rest:
            assert isinstance(self._schur, DenseRest)
            product = self._schur.multiply(rest)
            for r in self._rest:
                out[r.index] += product[r.columns].reshape(r.n_levels, r.width, m)
        return out

    def trace_products(self, lambdas: Sequence[Matrix]) -> list[Matrix]:
        """Return sum_j [Z'WZ Lambda C^{-1}]_jj of every factor, (K, K)."""
        direct = contract.irregular(lambdas)
        inside = frozenset[int]() if direct.isdisjoint(self._dense_rest) else self._dense_rest
        inverse = selected_blocks(self._elimination(), of=direct, without=self._dense_rest)
        out = contract.traces_by_diagonals(lambdas, inverse.diag, without=direct)
        if not direct:
            return out
        found = contract.trace_products(
            self._system,
            lambdas,
            inverse,
            of=direct,
            without=self._dense_rest,
            compiled=self._compiled,
        )
        for g in direct:
            out[g] += found[g]
        if inside:
            assert isinstance(self._schur, DenseRest)
            dense = self._schur.trace_products([lambdas[r.index] for r in self._rest])
            for r, G in zip(self._rest, dense, strict=True):
                if r.index in direct:
                    out[r.index] += G
        return out

    def selected_inverse(self) -> SelectedInverse:
        """Return the blocks of C^{-1} on the pattern of Z'WZ."""
        return selected_blocks(self._elimination(), of=range(len(self._system.factors)))

    def _elimination(self) -> Elimination:
        return Elimination(
            system=self._system,
            chain=self._chain,
            parents=self._parents,
            Linv=self._Linv,
            Wp=self._Wp,
            couplings=self._couplings,
            rest=self._rest,
            schur=self._schur,
            by_column=self._by_column,
        )

    def describe(self) -> str:
        factors = self._system.factors
        lines = [f"engine 'blocked', {'compiled' if self._compiled else 'NumPy'} kernels"]
        for s, i in enumerate(self._chain):
            K = factors[i].width
            text = (
                f"  eliminated in closed form: {factors[i].label} "
                f"({factors[i].n_levels} levels, {K} effect{'s' if K > 1 else ''} a level)"
            )
            if s:
                text += ", the earlier ones being nested in it"
            if self._couplings:
                text += f"; coupling to the rest {self._couplings[s].describe()}"
            lines.append(text)
        if self._schur is not None:
            names = ", ".join(
                f"{factors[r.index].label} ({r.n_levels} x {r.width})" for r in self._rest
            )
            lines.append(f"  {self._schur.describe()}: {names}")
        return "\n".join(lines)
