"""The fused evaluations in NumPy: for models so small that loading compiled code does not pay.

What `levels`, `classes` and `dense` do in machine code, in few calls of NumPy and LAPACK: for such
models a call costs more than its arithmetic.  Both forms are tested against each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.dense import sum_of_products
from mixlm_sparse.engines.fused.classes import classes_of
from mixlm_sparse.engines.fused.dense import DenseProducts
from mixlm_sparse.engines.fused.profile import (
    FusedValue,
    StackedValues,
    profile_each,
    profile_plain,
)
from mixlm_sparse.engines.interface import BlockSystem
from mixlm_sparse.engines.kernels import block_lower_inverse


class PlainFactor:
    """A model with one grouping factor, all its levels (or kinds of levels) at once.

    Parameters
    ----------
    ztz : (L, K, K).
    ztx : (L, K, p + 1).
    yy, floor : as in `SingleFactor`.
    """

    def __init__(self, ztz: Array3, ztx: Array3, yy: float, floor: float) -> None:
        K, P = ztx.shape[1:]
        self.yy, self.floor = yy, floor
        self._ztx = ztx
        self._eye = np.eye(K)
        self._whole = np.eye(P)
        self._whole[-1, -1] = yy
        self.size = ztx.size
        self.classes = classes = classes_of(ztz, P)
        self._blocks = ztz if classes is None else classes.blocks
        self._count: Vector | None = None
        if classes is not None:
            C = classes.count.size
            self._count = np.repeat(classes.count, K)
            gram = classes.gram(ztx).reshape(C, K, P, K, P)
            self._gram = gram.transpose(0, 1, 3, 2, 4).reshape(C * K * K, P * P)

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: float, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C or S has no factor.

        Parameters
        ----------
        nu : n or n - p; where it is negative, -1 / sigma^2 at a sigma that is given.
        """
        lam, count = lambdas[0], self._count
        K = lam.shape[0]
        AL = np.matmul(self._blocks, lam)
        factored = _half_inverses(np.matmul(lam.T, AL) + self._eye)
        if factored is None:
            return None
        half, logs = factored
        ldL2 = 2.0 * float(logs.sum() if count is None else count @ logs)
        if count is None:
            V = np.matmul(half, np.matmul(lam.T, self._ztx))
            flat = V.reshape(-1, V.shape[2])
            S = -(flat.T @ flat)
        else:
            V = np.matmul(half, lam.T)
            inner = np.matmul(V.transpose(0, 2, 1), V).reshape(-1)
            S = -(inner @ self._gram).reshape(self._ztx.shape[2], -1)
        S += self._whole
        found = profile_plain(S, self.yy, self.floor, nu, reml=reml)
        if found is None or not math.isfinite(ldL2):
            return None
        ldRX2, pwrss, least, Omega, factor = found
        if not gradient:
            return FusedValue(ldL2, ldRX2, pwrss, least, [], Omega, factor)
        turned = half.transpose(0, 2, 1)
        inverse, U = np.matmul(turned, half), np.matmul(turned, V)
        if count is None:
            R = self._ztx - np.matmul(self._blocks, np.matmul(lam, U))
            R = np.matmul(R, Omega)
        else:
            H = (self._gram @ Omega.reshape(-1)).reshape(-1, K, K)
            R = H - np.matmul(AL, np.matmul(U, H))
            inverse = inverse * count[::K, None, None]
        U = U.transpose(0, 2, 1)
        if len(AL) == 1:
            G = AL[0] @ inverse[0] - R[0] @ U[0]
        else:
            G = sum_of_products(AL, inverse) - sum_of_products(R, U)
        return FusedValue(ldL2, ldRX2, pwrss, least, [2.0 * G], Omega, factor)

    def evaluate_each(
        self, lambdas: Sequence[Array3], nu: float, *, reml: bool
    ) -> StackedValues | None:
        """Return what `evaluate` does at each of s Lambda, (s, K, K); None where one has no factor.

        For such models s evaluations in the same calls of NumPy take hardly longer than one.
        """
        lam, count = lambdas[0][:, None], self._count
        s, K = lam.shape[0], lam.shape[2]
        P = self._ztx.shape[2]
        turned = lam.swapaxes(2, 3)
        AL = np.matmul(self._blocks, lam)
        try:
            chol = np.linalg.cholesky(np.matmul(turned, AL) + self._eye)
        except np.linalg.LinAlgError:
            return None
        half = block_lower_inverse(chol.reshape(-1, K, K), compiled=False).reshape(chol.shape)
        if count is None:
            V = np.matmul(half, np.matmul(turned, self._ztx))
            flat = V.reshape(s, -1, P)
            S = self._whole - np.matmul(flat.swapaxes(1, 2), flat)
        else:
            V = np.matmul(half, turned)
            inner = np.matmul(V.swapaxes(2, 3), V).reshape(s, -1)
            S = self._whole - (inner @ self._gram).reshape(s, P, P)
        found = profile_each(S, self.yy, self.floor, nu, reml=reml)
        if found is None:
            return None
        least, Omega = found
        back = half.swapaxes(2, 3)
        inverse, U = np.matmul(back, half), np.matmul(back, V)
        if count is None:
            R = np.matmul(self._ztx - np.matmul(self._blocks, np.matmul(lam, U)), Omega[:, None])
        else:
            H = (Omega.reshape(s, -1) @ self._gram.T).reshape(s, -1, K, K)
            R = H - np.matmul(AL, np.matmul(U, H))
            inverse = inverse * count[::K, None, None]
        if len(self._blocks) == 1:
            G = np.matmul(AL[:, 0], inverse[:, 0]) - np.matmul(R[:, 0], U[:, 0].swapaxes(1, 2))
        else:
            left = np.concatenate([AL, -R], axis=3)
            G = _summed(left, np.concatenate([inverse, U.swapaxes(2, 3)], axis=2))
        return StackedValues(least, [2.0 * G])


class PlainDense(DenseProducts):
    """A model with several grouping factors and few random effects, C as one dense matrix.

    Parameters
    ----------
    blocks : Z'WZ and Z'W[X y].
    yy, floor : as in `SingleFactor`.
    """

    def __init__(self, blocks: BlockSystem, yy: float, floor: float) -> None:
        super().__init__(blocks, yy, floor)
        self._whole = np.eye(self.X.shape[1])
        self._whole[-1, -1] = yy
        self.size = self.A.size
        self._scalar = bool((self.width == 1).all())
        self._Lambda = np.zeros((self.order, self.order))
        self._places = [
            self.columns(g, np.arange(L)) for g, L in enumerate(self.count.tolist())
        ]

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: float, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C or S has no factor.

        Parameters
        ----------
        nu : n or n - p; where it is negative, -1 / sigma^2 at a sigma that is given.
        """
        if self._scalar:
            scale = np.repeat([float(lam[0, 0]) for lam in lambdas], self.count)
            M = self.A * scale
            C = M * scale[:, None]
            V = self.X * scale[:, None]
        else:
            Lambda = self._Lambda
            for at, lam in zip(self._places, lambdas, strict=True):
                Lambda[at[:, :, None], at[:, None, :]] = lam
            M = self.A @ Lambda
            C = Lambda.T @ M
            V = Lambda.T @ self.X
        C.ravel()[:: self.order + 1] += 1.0
        chol, info = lapack.dpotrf(C, lower=1, clean=1)
        ldL2 = 2.0 * float(np.log(np.diagonal(chol)).sum()) if info == 0 else np.inf
        if not np.isfinite(ldL2):
            return None
        half, _ = lapack.dtrtri(chol, lower=1)
        V = half @ V
        found = profile_plain(self._whole - V.T @ V, self.yy, self.floor, nu, reml=reml)
        if found is None:
            return None
        ldRX2, pwrss, least, Omega, factor = found
        if not gradient:
            return FusedValue(ldL2, ldRX2, pwrss, least, [], Omega, factor)
        U = half.T @ V
        inverse = half.T @ half
        RO = (self.X - M @ U) @ Omega
        G: list[Matrix] = []
        if self._scalar:
            rows = (M * inverse).sum(axis=1) - (RO * U).sum(axis=1)
            sums = np.add.reduceat(rows, self.first)
            G = [s.reshape(1, 1) for s in 2.0 * sums]
            return FusedValue(ldL2, ldRX2, pwrss, least, G, Omega, factor)
        for at in self._places:
            rows, K = at.reshape(-1), at.shape[1]
            # C^{-1} is symmetric: its rows are its columns
            left = np.hstack([M[rows], -RO[rows]]).reshape(len(at), K, -1)
            right = np.hstack([inverse[rows], U[rows]]).reshape(len(at), K, -1)
            G.append(2.0 * np.tensordot(left, right, axes=([0, 2], [0, 2])))
        return FusedValue(ldL2, ldRX2, pwrss, least, G, Omega, factor)

    def evaluate_each(
        self, lambdas: Sequence[Array3], nu: float, *, reml: bool
    ) -> StackedValues | None:
        """Return what `evaluate` does at each of s Lambda, (s, K, K); None where one has no factor.

        For such models s evaluations in the same calls of NumPy take hardly longer than one.
        """
        s, q = lambdas[0].shape[0], self.order
        if self._scalar:
            scale = np.repeat(np.concatenate(lambdas, axis=1)[:, :, 0], self.count, axis=1)
            M = self.A * scale[:, None, :]
            C = M * scale[:, :, None]
            V = self.X * scale[:, :, None]
        else:
            Lambda = np.zeros((s, q, q))
            for at, lam in zip(self._places, lambdas, strict=True):
                Lambda[:, at[:, :, None], at[:, None, :]] = lam[:, None]
            turned = Lambda.swapaxes(1, 2)
            M = np.matmul(self.A, Lambda)
            C, V = np.matmul(turned, M), np.matmul(turned, self.X)
        C.reshape(s, -1)[:, :: q + 1] += 1.0
        half = _half_inverses_of(C)
        if half is None:
            return None
        V = np.matmul(half, V)
        found = profile_each(
            self._whole - np.matmul(V.swapaxes(1, 2), V), self.yy, self.floor, nu, reml=reml
        )
        if found is None:
            return None
        least, Omega = found
        back = half.swapaxes(1, 2)
        inverse, U = np.matmul(back, half), np.matmul(back, V)
        RO = np.matmul(self.X - np.matmul(M, U), Omega)
        if self._scalar:
            rows = (M * inverse).sum(axis=2) - (RO * U).sum(axis=2)
            sums = 2.0 * np.add.reduceat(rows, self.first, axis=1)
            return StackedValues(least, [g[:, None, None] for g in sums.T])
        left = np.concatenate([M, -RO], axis=2)
        right = np.concatenate([inverse, U], axis=2)  # C^{-1} is symmetric
        G = [
            2.0 * _summed(left[:, at], right[:, at].swapaxes(2, 3)) for at in self._places
        ]
        return StackedValues(least, G)


def _half_inverses_of(C: Array3) -> Array3 | None:
    """Return L^{-1} of the factors L of matrices (s, q, q); None where one has none.

    One after another by LAPACK: NumPy's stacks take no triangular form, and more than twice as
    long.  L^{-T} (L^{-1} V) keeps the digits of Z'W([X y] - Z Lambda U) that C^{-1} V, formed with
    an inverse, loses by the condition of C where random effects are many times the noise.
    """
    out = np.empty_like(C)
    for i, one in enumerate(C):
        chol, info = lapack.dpotrf(one, lower=1, clean=1)
        if info != 0:
            return None
        out[i] = lapack.dtrtri(chol, lower=1)[0]
    return out


def _half_inverses(C: Array3) -> tuple[Array3, Vector] | None:
    """Return L^{-1} of the factors L of blocks (L, K, K), and log diag L (L K,); None without one.

    One block, that of a balanced design, is LAPACK's at once: NumPy's stacks cost three times that.
    """
    if len(C) == 1:
        chol, info = lapack.dpotrf(C[0], lower=1, clean=1)
        if info != 0:
            return None
        half, _ = lapack.dtrtri(chol, lower=1)
        return half[None], np.log(chol.diagonal())
    try:
        chol = np.linalg.cholesky(C)
    except np.linalg.LinAlgError:
        return None
    logs = np.log(chol.diagonal(axis1=1, axis2=2).reshape(-1))
    return block_lower_inverse(np.asarray(chol, dtype=np.float64), compiled=False), logs


def _summed(left: NDArray[np.float64], right: NDArray[np.float64]) -> Array3:
    """Return sum_j left_j right_j of blocks (s, L, a, c) and (s, L, c, b), (s, a, b)."""
    s, _, a, _ = left.shape
    out: Array3 = np.matmul(
        left.swapaxes(1, 2).reshape(s, a, -1), right.reshape(s, -1, right.shape[3])
    )
    return out
