"""What an engine is given and what it must return.

A model with G grouping factors, factor g with L_g levels and K_g random effects per level, is known
to an engine through the products Z'WZ alone, stored in blocks: one (K_g, K_g) block per level, one
(K_g, K_h) block per pair of levels that occur together in a row.  For a set of relative factors
Lambda_g, each (K_g, K_g), the engine factors

    C = Lambda' Z'WZ Lambda + I        (q, q), q = sum_g L_g K_g

and answers log|C|, C^{-1} B and the blocks of C^{-1} on the pattern of Z'WZ.  Lambda_g may be any
square matrix: the engine never uses a triangular form.

Where rows carry several levels of one factor g, two of its levels can share a row as well: their
blocks are the pairs (g, g), the first level the lower one, and Z_g'WZ_g is not block diagonal.

Where the levels of a factor have a known covariance A, Q_g = A^{-1} takes the place of I:

    C = Lambda' Z'WZ Lambda + Q,  Q = diag(Q_g (x) I),    log|C| - log|Q| is what logdet says
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.engines.columns import SparseColumns
from mixlm_sparse.engines.dense import times


@dataclass(frozen=True, slots=True)
class FactorBlock:
    """Products of one grouping factor.

    Parameters
    ----------
    label : name of the grouping factor.
    ztz : (L, K, K) diagonal blocks of Z'WZ, one per level.
    by_column : (L, K, p + 1) rows of Z'W[X y]; the response is the last column.  Where levels and
        columns are many, with the entries alone.
    """

    label: str
    ztz: Array3
    by_column: Array3 | SparseColumns

    @property
    def ztx(self) -> Array3:
        """(L, K, p + 1) array of Z'W[X y], filled in where it is not one; see `sparse`."""
        own = self.by_column
        return own if isinstance(own, np.ndarray) else own.filled()

    @property
    def sparse(self) -> SparseColumns | None:
        """Z'W[X y] with its entries alone; None where it is an array."""
        return None if isinstance(self.by_column, np.ndarray) else self.by_column

    @property
    def response(self) -> Matrix:
        """(L, K) Z'Wy, the last column."""
        own = self.by_column
        return own[:, :, -1] if isinstance(own, np.ndarray) else own.response

    def columns_at(self, at: IntVector, size: int) -> Array3 | SparseColumns:
        """Return Z'W[X y] of `size` levels, level j at place at[j], others of zeros."""
        own = self.by_column
        if not isinstance(own, np.ndarray):
            return own.placed(at, size)
        out = np.zeros((size, *own.shape[1:]))
        out[at] = own
        return out

    @property
    def columns(self) -> int:
        """p + 1, the number of columns of [X y]."""
        return int(self.by_column.shape[2])

    @property
    def n_levels(self) -> int:
        return int(self.ztz.shape[0])

    @property
    def width(self) -> int:
        return int(self.ztz.shape[1])


def times_columns(factor: FactorBlock, G: Matrix) -> Array3:
    """Return Z'W[X y] G (L, K, r) for G (p + 1, r)."""
    own = factor.by_column
    return times(own, G) if isinstance(own, np.ndarray) else own.times(G)


def summed_columns(
    a: FactorBlock, at_a: IntVector, b: FactorBlock, at_b: IntVector, size: int
) -> Array3 | SparseColumns:
    """Return the sum of Z'W[X y] of two factors, with their levels at places among `size`."""
    out = a.columns_at(at_a, size)
    if not isinstance(out, np.ndarray):
        if b.sparse is not None:
            return out.plus(b.sparse.placed(at_b, size))
        out = out.filled()
    out[at_b] += b.ztx
    return out


def taken_by_columns(factor: FactorBlock) -> Matrix:
    """Return the squared lengths (L, K) of Z'WQ; where it is sparse, as if X were orthogonal."""
    own = factor.by_column
    if isinstance(own, np.ndarray):
        out: Matrix = (own[:, :, :-1] ** 2).sum(axis=2)
        return out
    return own.lengths_apart()


@dataclass(frozen=True, slots=True)
class PairBlock:
    """Blocks of Z_g'WZ_h for the pairs of levels that occur together, sorted by (row, col).

    Parameters
    ----------
    rows, cols : (npairs,) level codes in factor g and in factor h.
    values : (npairs, K_g, K_h).
    """

    rows: IntVector
    cols: IntVector
    values: Array3


@dataclass(frozen=True, slots=True)
class BlockSystem:
    """Z'WZ in blocks: `factors[g]` on the diagonal, `pairs[g, h]` with g <= h off it."""

    factors: tuple[FactorBlock, ...]
    pairs: Mapping[tuple[int, int], PairBlock]

    @property
    def own_pairs(self) -> bool:
        """Whether levels of one factor share rows."""
        return any(g == h for g, h in self.pairs)

    @property
    def q(self) -> int:
        return sum(f.n_levels * f.width for f in self.factors)


@dataclass(frozen=True, eq=False, slots=True)
class Penalty:
    """What stands in the place of I for a factor whose levels have a known covariance.

    Parameters
    ----------
    precision : (L, L) CSC, Q symmetric positive definite.
    root : (L, L) sparse with Q = root'root; its rows are the cliques of Q.
    log_det : log|Q|.
    """

    precision: sp.csc_array
    root: sp.csc_array
    log_det: float


Penalties = Sequence[Penalty | None]


def require_same_pattern(old: BlockSystem, new: BlockSystem) -> None:
    """Raise an EngineError unless two systems have the same levels, widths and pairs."""

    def same(a: IntVector, b: IntVector) -> bool:
        return a is b or bool(np.array_equal(a, b))

    sizes = [[f.ztz.shape for f in system.factors] for system in (old, new)]
    if (
        sizes[0] != sizes[1]
        or old.pairs.keys() != new.pairs.keys()
        or not all(
            same(pair.rows, new.pairs[key].rows)
            and same(pair.cols, new.pairs[key].cols)
            and pair.values.shape == new.pairs[key].values.shape
            for key, pair in old.pairs.items()
        )
    ):
        raise EngineError(
            "the products have another pattern than the engine was made for: levels, widths and "
            "the pairs of levels that meet must be the same (zeros are allowed); make a new engine"
        )


@dataclass(frozen=True, slots=True)
class SelectedInverse:
    """Blocks of C^{-1} on the pattern of Z'WZ, in the layout of `BlockSystem`.

    Parameters
    ----------
    diag : per factor, (L, K, K).
    pairs : per pair (g, h) with g <= h, (npairs, K_g, K_h): block (level of g, level of h).
    """

    diag: list[Array3]
    pairs: dict[tuple[int, int], Array3]


# A multiply-add of BLAS on a large block costs about this share of one in a loop over levels.
BLAS_SHARE = 0.1


class EngineLock:
    """A lock that threads take while they factor and ask; copies of a system get their own.

    A fit, its refits and its criterion share one engine, whose numeric factor is one buffer.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[EngineLock], tuple[()]]:
        return EngineLock, ()


class Engine(Protocol):
    """A numeric factorization of C, reused for every theta.

    The symbolic work is done when the engine is made from a `BlockSystem`; `factorize` updates the
    numbers.  `solve` and `selected_inverse` speak of the last factorization.
    """

    name: str
    exact: bool  # False where logdet and the traces are estimates from random vectors

    @property
    def dense_order(self) -> int:
        """Order of the largest dense block that is factored."""
        ...

    @property
    def fill(self) -> int:
        """Entries of the factor, but for what is eliminated level by level."""
        ...

    @property
    def work(self) -> float:
        """Multiply-adds of an evaluation with its gradient, a tenth of those left to BLAS."""
        ...

    @property
    def logdet(self) -> float:
        """log|C| at the last factorization."""
        ...

    def factorize(self, lambdas: Sequence[Matrix]) -> None:
        """Factor C; `lambdas[g]` is (K_g, K_g).

        Raises
        ------
        NotPositiveDefiniteError : C has no Cholesky factor (overflow or NaN in Lambda).
        """
        ...

    def solve(self, rhs: Sequence[Array3]) -> list[Array3]:
        """Return C^{-1} rhs; rhs[g] is (L_g, K_g, m)."""
        ...

    def selected_inverse(self) -> SelectedInverse:
        """Return the blocks of C^{-1} on the pattern of Z'WZ."""
        ...

    def multiply(self, B: Sequence[Array3]) -> list[Array3]:
        """Return Z'WZ B; B[g] is (L_g, K_g, m)."""
        ...

    def trace_products(self, lambdas: Sequence[Matrix]) -> list[Matrix]:
        """Return sum_j [Z'WZ Lambda C^{-1}]_jj of every factor, (K, K), at the last `lambdas`."""
        ...

    def reload(self, system: BlockSystem) -> Engine:
        """Return an engine for other numbers on the same pattern; the symbolic work is shared.

        Both engines can be used, each with its own factor.

        Raises
        ------
        EngineError : the levels, widths or pairs of `system` are not those of this engine.
        """
        ...

    def describe(self) -> str:
        """Say in words how the system is factored."""
        ...
