"""The Schur complement as one dense matrix."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.engines import dense, kernels
from mixlm_sparse.engines.blocked import entries
from mixlm_sparse.engines.blocked.rest import Adjacency, RestFactor
from mixlm_sparse.engines.interface import BLAS_SHARE, BlockSystem, PairBlock
from mixlm_sparse.engines.memory import require_memory

if TYPE_CHECKING:
    from mixlm_sparse.engines.blocked.steps import Steps

# Bytes below which asking the system for what is free takes longer than the work on them.
NOT_COUNTED = 1e6
# Products of the rest are one dense matrix too where it is small or a larger share of it is filled.
DENSE_PRODUCTS_ORDER, DENSE_PRODUCTS_SHARE = 200, 0.1


class DenseRest:
    """S as a dense matrix, C ordered, of which the lower triangle counts."""

    def __init__(
        self,
        system: BlockSystem,
        factors: Sequence[RestFactor],
        pairs: dict[tuple[int, int], PairBlock],
        adjacency: Sequence[Adjacency],
        *,
        steps: Steps | None = None,
        compiled: bool,
    ) -> None:
        self._system = system
        self._factors = factors
        self._pairs = pairs
        self._adjacency = adjacency
        self._compiled = compiled
        self._steps = steps
        self.order = sum(r.n_levels * r.width for r in factors)
        self.S = np.zeros((self.order, self.order))
        self.products_dense = self._filled()
        self._places = {} if self.products_dense else {ab: self._place_of(*ab) for ab in pairs}
        self._A = self._products() if self.products_dense else None
        self.P: Matrix | None = None
        share = 1.0 if steps is None else steps.work / (float(self.order) ** 3 / 6.0)
        self.work = BLAS_SHARE * share * float(self.order) ** 3
        self.fill = self.order * (self.order + 1) // 2

    def reload(self, system: BlockSystem, pairs: dict[tuple[int, int], PairBlock]) -> DenseRest:
        twin = copy.copy(self)
        twin._system, twin._pairs = system, pairs
        twin.S = np.zeros_like(self.S)
        twin._A = twin._products() if twin.products_dense else None
        twin.P = None
        return twin

    def _filled(self) -> bool:
        """Say whether Z'WZ of the rest is kept as one dense matrix."""
        if len(self._factors) == 1:
            return False
        cells = sum(r.n_levels * r.width**2 for r in self._factors)
        cells += sum(2 * pair.values.size for pair in self._pairs.values())
        return self.order <= DENSE_PRODUCTS_ORDER or (
            cells > DENSE_PRODUCTS_SHARE * float(self.order) ** 2
        )

    def _place_of(self, a: int, b: int) -> tuple[IntVector, IntVector]:
        """Return where the blocks of a pair lie in the lower triangle, rows and columns."""
        pair = self._pairs[a, b]
        rows = self._factors[a].block_columns(pair.rows)[:, :, None]
        cols = self._factors[b].block_columns(pair.cols)[:, None, :]
        return np.maximum(rows, cols), np.minimum(rows, cols)

    def _products(self) -> Matrix:
        """Return Z'WZ of the rest as one symmetric matrix (m, m)."""
        A = np.zeros((self.order, self.order))
        for a, r in enumerate(self._factors):
            _add_diagonal_blocks(A, r, self._system.factors[r.index].ztz)
            for b in range(a + 1, len(self._factors)):
                pair = self._pairs[a, b]
                rows = r.block_columns(pair.rows)
                cols = self._factors[b].block_columns(pair.cols)
                A[rows[:, :, None], cols[:, None, :]] = pair.values
                A[cols[:, :, None], rows[:, None, :]] = np.swapaxes(pair.values, 1, 2)
        return A

    def set(self, lambdas: Sequence[Matrix]) -> None:
        """Set S to Lambda_r' A_rr Lambda_r + I."""
        S = self.S
        self.P = None
        if self._A is None:
            S.fill(0.0)
            for r, lam in zip(self._factors, lambdas, strict=True):
                ztz = self._system.factors[r.index].ztz
                _add_diagonal_blocks(S, r, np.matmul(np.matmul(lam.T, ztz), lam))
            for (a, b), at in self._places.items():
                S[at] = np.matmul(np.matmul(lambdas[a].T, self._pairs[a, b].values), lambdas[b])
        elif all(r.width == 1 for r in self._factors):
            scale = self._by_column(lambdas)
            np.multiply(self._A, scale, out=S)
            S *= scale[:, None]
        else:
            for r, lam in zip(self._factors, lambdas, strict=True):
                part = self._A[:, r.columns].reshape(-1, r.width)
                S[:, r.columns] = (part @ lam).reshape(self.order, -1)
            for r, lam in zip(self._factors, lambdas, strict=True):
                rows = S[r.columns].reshape(r.n_levels, r.width, self.order)
                S[r.columns] = np.matmul(lam.T, rows).reshape(-1, self.order)
        S.ravel()[:: self.order + 1] += 1.0

    def downdate(self, slot: int, W: Matrix) -> None:
        """Subtract W'W of the levels of one eliminated factor; W holds its entries, (E, K)."""
        at = self._adjacency[slot]
        if self._compiled:
            entries.rank_update(at.ptr, at.cols, W, self.S)
            return
        for a in range(W.shape[1]):
            half = kernels.csr(at.ptr, at.cols, W[:, a], self.order)
            product = (half.T @ half).tocoo()
            self.S[product.row, product.col] -= product.data

    def _by_column(self, lambdas: Sequence[Matrix]) -> Vector:
        """Return the factor (m,) of every column, all of width 1."""
        out = np.empty(self.order)
        for r, lam in zip(self._factors, lambdas, strict=True):
            out[r.columns] = lam[0, 0]
        return out

    def factorize(self) -> float:
        if self._steps is not None:
            return self._steps.factorize(self.S)
        return dense.potrf_lower(self.S)

    def solve(self, rhs: Matrix) -> Matrix:
        if self.P is not None and self._steps is None:
            return dense.symmetric_times(self.P, rhs)
        return dense.potrs_lower(self.S, rhs)

    def invert(self) -> None:
        # Kept, so that a second question at the same theta costs nothing. In place: for a large
        # complement one matrix of its size is what memory is there for.
        if self.P is None and self._steps is not None:
            self.P, self._symmetric = self._steps.inverse(self.S), False
        elif self.P is None:
            self.P = dense.potri_lower(self.S, both=False, overwrite=True)
            self._symmetric = False

    @property
    def whole_inverse(self) -> Matrix:
        """S^{-1} (m, m) with both triangles; `P` has the lower one."""
        assert self.P is not None
        if not self._symmetric:
            dense.symmetric_from_lower(self.P)
            self._symmetric = True
        return self.P

    def half_solve_rows(self, W: Matrix) -> Matrix | None:
        """Return W L_S^{-T} (rows, m); None where the inverse has taken the factor's place."""
        return dense.half_solve_rows(self.S, W) if self.P is None else None

    def inside(self, slot: int, W: Matrix) -> Array3 | None:
        """Return sum_ef W[e] S^{-1}[e, f] W[f]' of every level, (L, K, K), if compiled."""
        if not self._compiled:
            return None
        self.invert()
        assert self.P is not None
        at = self._adjacency[slot]
        return entries.inside_levels(at.ptr, at.cols, W, self.P)

    def times_inverse(self, slot: int, E: Matrix) -> Matrix:
        """Return sum_f E[f] S^{-1}[cols f, cols e] within each level, (E, K)."""
        assert self.P is not None
        at = self._adjacency[slot]
        out = np.zeros_like(E)
        if self._compiled:
            entries.times_inverse(at.ptr, at.cols, E, self.P, out)
            return out
        # chunks of levels keep the dense product within about 32 MB
        n_levels = at.ptr.size - 1
        level = np.repeat(np.arange(n_levels), np.diff(at.ptr))
        step = max(1, 4_000_000 // max(self.order, 1))
        for a in range(E.shape[1]):
            whole = kernels.csr(at.ptr, at.cols, E[:, a], self.order)
            for j in range(0, n_levels, step):
                stop = min(j + step, n_levels)
                span = slice(int(at.ptr[j]), int(at.ptr[stop]))
                product = whole[j:stop] @ self.whole_inverse
                out[span, a] = product[level[span] - j, at.cols[span]]
        return out

    def multiply(self, B: Matrix) -> Matrix:
        """Return Z'WZ B of the rest, (m, r)."""
        assert self._A is not None
        return dense.product(self._A, B)

    def trace_products(self, lambdas: Sequence[Matrix]) -> list[Matrix]:
        """Return sum_j [A_rr Lambda_r S^{-1}]_jj per factor, (K, K)."""
        assert self._A is not None
        assert self.P is not None
        if all(r.width == 1 for r in self._factors):
            scale = self._by_column(lambdas)
            by_row = np.einsum("ij,ij,j->i", self._A, self.whole_inverse, scale)
            return [np.full((1, 1), by_row[r.columns].sum()) for r in self._factors]
        out = []
        for r in self._factors:
            G = np.zeros((r.width, r.width))
            for s, lam in zip(self._factors, lambdas, strict=True):
                A = self._A[r.columns][:, s.columns].reshape(-1, s.width) @ lam
                A = A.reshape(r.n_levels, r.width, -1)
                P = self.whole_inverse[r.columns][:, s.columns]
                P = P.reshape(r.n_levels, r.width, -1)
                G += np.tensordot(A, P, axes=([0, 2], [0, 2]))
            out.append(G)
        return out

    def diagonal_blocks(self, which: int) -> Array3:
        assert self.P is not None
        r = self._factors[which]
        at = r.block_columns(np.arange(r.n_levels, dtype=np.int32))
        low = np.maximum(at[:, :, None], at[:, None, :])
        high = np.minimum(at[:, :, None], at[:, None, :])
        out: Array3 = self.P[low, high]
        return out

    def pair_blocks(self, a: int, b: int) -> Array3:
        assert self.P is not None
        at = self._places.get((a, b)) or self._place_of(a, b)
        out: Array3 = self.P[at]
        return out

    def describe(self) -> str:
        text = f"dense Schur complement of order {self.order}"
        if self._steps is not None:
            share = 100.0 * self._steps.work / (float(self.order) ** 3 / 6.0)
            text += f", eliminated in {len(self._steps.rows)} steps, {share:.0f}% of its work"
        return text


def _add_diagonal_blocks(S: Matrix, r: RestFactor, blocks: Array3) -> None:
    at = r.block_columns(np.arange(r.n_levels, dtype=np.int32))
    S[at[:, :, None], at[:, None, :]] += blocks


def require_dense_memory(
    system: BlockSystem, chain: Sequence[int], rest: Sequence[RestFactor]
) -> None:
    """Raise an EngineError if the dense rest and its inverse would not fit into memory."""
    order = sum(r.n_levels * r.width for r in rest)
    needed = 2.0 * 8.0 * float(order) ** 2
    if needed < NOT_COUNTED:
        return
    inner, outer = (
        listed([f"'{system.factors[g].label}' ({system.factors[g].n_levels} levels)" for g in some])
        for some in (chain, [r.index for r in rest])
    )
    require_memory(
        needed,
        f"{inner} crossed with {outer}, a dense matrix of order {order},",
        "use engine='krylov', which needs no such matrix, leave out levels with few rows, put a "
        "factor into the fixed part or leave it out, or fit on a machine with more memory",
    )
