"""Engines that factor C as one sparse matrix.

`SparseEngine` needs nothing beyond the required packages; `cholmod` offers the same with CHOLMOD.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines import contract
from mixlm_sparse.engines.compiled import made_again, twin_of
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.interface import BlockSystem, Penalties, SelectedInverse
from mixlm_sparse.engines.multifrontal.block_pattern import BlockPattern
from mixlm_sparse.engines.multifrontal.cholesky import SparseCholesky


class PatternSolver(Protocol):
    """A Cholesky factorization over a fixed pattern, the lower triangle in CSC form."""

    @property
    def logdet(self) -> float: ...

    def factorize(self, values: Vector) -> None: ...

    def twin(self) -> PatternSolver: ...

    def solve(self, B: Matrix) -> Matrix: ...

    def selected_inverse_on_pattern(self) -> Vector: ...


E = TypeVar("E", bound="PatternEngine")


class PatternEngine:
    """Blocks to a sparse matrix, the matrix to a solver, and its answers back to blocks."""

    name: str
    exact = True
    dense_order: int
    fill: int
    work: float

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy does its symbolic work anew
        return type(self), (self._pattern.system, self._pattern.penalties)

    def __init__(self, pattern: BlockPattern, solver: PatternSolver) -> None:
        self._pattern = pattern
        self._solver = solver
        self.logdet = float("nan")

    def factorize(self, lambdas: Sequence[Matrix]) -> None:
        """Factor C; `lambdas[g]` is (K_g, K_g), any square matrix.

        Raises
        ------
        NotPositiveDefiniteError : C has no Cholesky factor (overflow or NaN in Lambda).
        """
        self.logdet = float("nan")
        self._solver.factorize(self._pattern.values(lambdas))
        self.logdet = self._solver.logdet - self._pattern.log_penalty

    def reload(self: E, system: BlockSystem) -> E:
        """Return an engine for other numbers on the same pattern; the symbolic work is shared.

        Raises
        ------
        EngineError : the levels, widths or pairs of `system` are not those of this engine.
        """
        twin = twin_of(self)
        twin._pattern = self._pattern.reload(system)
        twin._solver = self._solver.twin()
        twin.logdet = float("nan")
        return twin

    def solve(self, rhs: Sequence[Array3]) -> list[Array3]:
        """Return C^{-1} rhs; rhs[g] is (L_g, K_g, m)."""
        return self._pattern.unstack(self._solver.solve(self._pattern.stack(rhs)))

    def multiply(self, B: Sequence[Array3]) -> list[Array3]:
        """Return Z'WZ B; B[g] is (L_g, K_g, m)."""
        B = [np.ascontiguousarray(b) for b in B]
        return contract.multiply(self._pattern.system, B, compiled=compiled_pays(0.0))

    def trace_products(self, lambdas: Sequence[Matrix]) -> list[Matrix]:
        """Return sum_j [Z'WZ Lambda C^{-1}]_jj of every factor, (K, K)."""
        return contract.trace_products(
            self._pattern.system, lambdas, self.selected_inverse(), compiled=compiled_pays(0.0)
        )

    def selected_inverse(self) -> SelectedInverse:
        """Return the blocks of C^{-1} on the pattern of Z'WZ."""
        return self._pattern.blocks(self._solver.selected_inverse_on_pattern())


class SparseEngine(PatternEngine):
    """C factored by `SparseCholesky`.

    Parameters
    ----------
    system : Z'WZ in blocks.
    penalties : per factor what takes the place of I, or None.
    compiled : use the compiled form for the small fronts; by default when that pays.
    """

    name = "sparse"

    def __init__(
        self, system: BlockSystem, penalties: Penalties = (), *, compiled: bool | None = None
    ) -> None:
        pattern = BlockPattern(system, penalties)
        cholesky = SparseCholesky(pattern.matrix, pattern.elimination_order(), compiled=compiled)
        super().__init__(pattern, cholesky)
        self._cholesky = cholesky
        self.dense_order = int(cholesky.tree.shapes()[1].max(initial=0))
        self.work = 3.0 * cholesky.tree.work
        self.fill = cholesky.tree.nnz

    def __reduce__(self) -> tuple[Any, ...]:
        kept = self._pattern.system, self._pattern.penalties
        return made_again, (type(self), self._cholesky.compiled, *kept)

    def describe(self) -> str:
        """Say in words how the system is factored."""
        tree = self._cholesky.tree
        A = self._pattern.matrix
        form = (
            "machine code" if self._cholesky.compiled else "NumPy, slower than machine code (numba)"
        )
        return (
            f"sparse: multifrontal Cholesky of order {tree.n} by COLAMD; "
            f"{A.nnz} entries fill in to {tree.nnz} in {tree.parent.size} fronts, "
            f"the largest of order {self.dense_order}; small fronts and the selected inverse "
            f"in {form}"
        )
