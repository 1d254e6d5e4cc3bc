"""A small model with several grouping factors for many responses, C of each as one dense matrix.

What `engines.fused.plain.PlainDense` does for one response, with stacks (r, q, .): matrices of one
response go through LAPACK and BLAS one after another, so that none depends on those beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from mixlm_sparse.common.types import Array3, Vector
from mixlm_sparse.engines.fused.dense import DenseProducts

# Numbers of matrices (q, q) that are worked on at once: what a step takes and makes stays in the
# cache.
CHUNK = 16_384


@dataclass(frozen=True, eq=False, slots=True)
class Factored:
    """What the gradient takes of the first sweep.

    Parameters
    ----------
    trace : per grouping factor, (r, K, K) sums over its levels of [Z'WZ Lambda C^{-1}]_jj.
    R, U : (r, q, P) Z'V^{-1}[Q y_f], and Lambda' times that.
    """

    trace: list[Array3]
    R: Array3
    U: Array3


class DenseSums:
    """The design of several grouping factors, and products with the responses of a block.

    Parameters
    ----------
    design : Z'WZ and Z'W[Q y_f], whose response is not read.
    zy : per grouping factor, (L, K, r).
    """

    def __init__(self, design: DenseProducts, zy: list[Array3]) -> None:
        self._design = design
        self._y = np.concatenate([z.reshape(-1, z.shape[2]) for z in zy])
        self._parts = [
            slice(int(first), int(first + count * width))
            for first, count, width in zip(design.first, design.count, design.width, strict=True)
        ]

    def take(self, at: NDArray[np.int64]) -> DenseSums:
        """Return the same with some of the responses."""
        twin = object.__new__(DenseSums)
        vars(twin).update(vars(self))
        twin._y = self._y[:, at]
        return twin

    def sweep(self, lambdas: list[Array3], S: Array3) -> tuple[Vector, Factored]:
        """Subtract from S (P, P, r) what the random effects take; see `levels.LevelSums`."""
        q, P, r = self._design.order, S.shape[0], S.shape[2]
        log_det = np.empty(r)
        found = Factored(
            [np.empty((r, *lam.shape[:2])) for lam in lambdas],
            np.empty((r, q, P)),
            np.empty((r, q, P)),
        )
        step = max(1, CHUNK // q**2)
        for lo in range(0, r, step):
            self._sweep(slice(lo, min(lo + step, r)), lambdas, S, log_det, found)
        return log_det, found

    def _sweep(
        self, own: slice, lambdas: list[Array3], S: Array3, log_det: Vector, found: Factored
    ) -> None:
        """Do what `sweep` does for some responses."""
        design, s = self._design, own.stop - own.start
        q, P = design.X.shape
        here = [np.ascontiguousarray(np.moveaxis(lam[..., own], 2, 0)) for lam in lambdas]
        X = np.empty((s, q, P))
        X[:, :, :-1] = design.X[:, :-1]
        X[:, :, -1] = self._y[:, own].T
        AL = self._by_columns(np.broadcast_to(design.A, (s, q, q)), here)
        C = self._by_rows(AL, here)
        C.reshape(s, -1)[:, :: q + 1] += 1.0
        log_det[own], half = _half_inverses(C)
        V = np.matmul(half, self._by_rows(X, here))
        S[..., own] -= np.moveaxis(np.matmul(np.swapaxes(V, 1, 2), V), 0, 2)
        turned = np.swapaxes(half, 1, 2)
        inverse, U = np.matmul(turned, half), np.matmul(turned, V)
        found.U[own], found.R[own] = U, X - np.matmul(AL, U)
        for trace, part, lam in zip(found.trace, self._parts, here, strict=True):
            trace[own] = _by_levels(AL[:, part], inverse[:, part], lam.shape[1])

    def _by_columns(self, M: Array3, lambdas: list[Array3]) -> Array3:
        """Return M (s, n, q) times Lambda."""
        out = np.empty(M.shape)
        for part, lam in zip(self._parts, lambdas, strict=True):
            K = lam.shape[1]
            for b in range(K):
                to = slice(part.start + b, part.stop, K)
                np.multiply(M[:, :, part.start : part.stop : K], lam[:, 0, b, None, None],
                            out=out[:, :, to])  # fmt: skip
                for c in range(1, K):
                    own = M[:, :, part.start + c : part.stop : K]
                    out[:, :, to] += own * lam[:, c, b, None, None]
        return out

    def _by_rows(self, M: Array3, lambdas: list[Array3]) -> Array3:
        """Return Lambda' times M (s, q, n)."""
        out = np.empty(M.shape)
        for part, lam in zip(self._parts, lambdas, strict=True):
            K = lam.shape[1]
            for b in range(K):
                to = slice(part.start + b, part.stop, K)
                np.multiply(M[:, part.start : part.stop : K], lam[:, 0, b, None, None],
                            out=out[:, to])  # fmt: skip
                for c in range(1, K):
                    out[:, to] += M[:, part.start + c : part.stop : K] * lam[:, c, b, None, None]
        return out

    def slopes(self, lambdas: list[Array3], swept: Any, Omega: Array3) -> list[Array3]:
        """Return the derivatives by every Lambda, (K, K, r)."""
        full = np.ascontiguousarray(np.moveaxis(Omega, 2, 0))
        R = np.matmul(swept.R, full)
        out = []
        for part, lam, trace in zip(self._parts, lambdas, swept.trace, strict=True):
            taken = _by_levels(R[:, part], swept.U[:, part], lam.shape[0])
            out.append(2.0 * np.moveaxis(trace - taken, 0, 2))
        return out


def _by_levels(left: Array3, right: Array3, K: int) -> Array3:
    """Return sum_j left_j right_j' (s, K, K) of rows (s, L K, n), K of them to a level."""
    s, rows, n = left.shape
    if K == 1:
        total: Array3 = (left * right).sum(axis=2).sum(axis=1)[:, None, None]
        return total
    parts = [
        np.ascontiguousarray(np.swapaxes(one.reshape(s, rows // K, K, n), 1, 2)).reshape(s, K, -1)
        for one in (left, right)
    ]
    out: Array3 = np.matmul(parts[0], np.swapaxes(parts[1], 1, 2))
    return out


def _half_inverses(C: Array3) -> tuple[Vector, Array3]:
    """Return log|C| (r,) and L^{-1} of the factors L of matrices (r, q, q); NaN where none is."""
    half = np.empty_like(C)
    pivots = np.empty(C.shape[:2])
    for i, one in enumerate(C):
        # by columns it is itself, and needs no copy: C is symmetric
        chol, info = lapack.dpotrf(one.T, lower=1, clean=1, overwrite_a=1)
        if info == 0:
            pivots[i] = chol.diagonal()
            half[i], _ = lapack.dtrtri(chol, lower=1, overwrite_c=1)
        else:
            pivots[i], half[i] = np.nan, np.nan
    log_det: Vector = 2.0 * np.log(pivots).sum(axis=1)
    return log_det, half
