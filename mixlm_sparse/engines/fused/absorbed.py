"""Criterion and gradient where the fixed part has more columns than there are random effects.

With X = Q R_x, Q'WQ = I, everything that X takes of Z is taken out once,

    M = Z'WZ - (Z'WQ)(Z'WQ)',    r = Z'W y_f,    C_M = Lambda'M Lambda + I

and an evaluation knows no column of X any more: by Sylvester's identity

    log|C| + log|R_X|^2 = log|C_M|            (R_X of the working columns Q)
    pwrss = yy - r'Lambda u,                  C_M u = Lambda'r
    beta = -(Z'WQ)'Lambda u

so that REML takes one dense factor of order q, ML a second one, of C itself.  Derivatives are those
of the other evaluations with M for Z'WZ and no columns but the response,

    dd/dT = 2 sum_j [M Lambda C_M^{-1}]_jj - 2 nu / pwrss sum_j (r - M Lambda u)_j u_j'

M is a difference: it keeps the digits that C_M needs as long as Lambda'Z'WZ Lambda is not so large
that its rounding shows beside I.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.dense import potrf_lower, potri_lower, potrs_lower, product
from mixlm_sparse.engines.fused.dense import DenseProducts
from mixlm_sparse.engines.fused.profile import FusedValue
from mixlm_sparse.engines.interface import BlockSystem

# Up to so many random effects M is a dense matrix: five of them are held, 360 MB.
MOST_EFFECTS = 3000


class AbsorbedFixed(DenseProducts):
    """A model whose fixed part is taken out of Z'WZ once; see the module's docstring.

    Parameters
    ----------
    blocks : Z'WZ and Z'W[Q y_f].
    yy, floor : as in `SingleFactor`.
    """

    def __init__(self, blocks: BlockSystem, yy: float, floor: float) -> None:
        super().__init__(blocks, yy, floor)
        self._B, self._r = self.X[:, :-1], np.ascontiguousarray(self.X[:, -1])
        B = np.ascontiguousarray(self._B)
        self._M = self.A - product(B, np.ascontiguousarray(B.T))
        self._M = 0.5 * (self._M + self._M.T)
        self._ztz = [f.ztz for f in blocks.factors]

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: float, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C_M has no factor.

        `ldL2` is log|C_M| for REML, whose share in it is `ldRX2` = 0, and log|C| for ML.

        Parameters
        ----------
        nu : n or n - p; where it is negative, -1 / sigma^2 at a sigma that is given.
        """
        v = self._turned_back(self._r, lambdas)
        try:
            found = self._factored(self._M, lambdas)
            ldM, ML, chol = found
            u = potrs_lower(chol, v[:, None])[:, 0]
            ldL2, of_ml = ldM, found
            if not reml:
                of_ml = self._factored(self.A, lambdas)
                ldL2 = of_ml[0]
        except NotPositiveDefiniteError:
            return None
        pwrss = self.yy - float(v @ u)
        share = pwrss / self.yy if self.yy > 0.0 else 1.0
        size = max(
            float(np.einsum("ca,jcd,da->ja", lam, ztz, lam).max(initial=0.0))
            for lam, ztz in zip(lambdas, self._ztz, strict=True)
        )
        least = min(share, 1.0 / (1.0 + size))
        pwrss = max(pwrss, self.floor)
        weight = nu / pwrss if nu >= 0.0 else -nu
        b = self._turned(u, lambdas)
        Omega = weight * np.append(self._B.T @ b, 1.0)[None]
        G: list[Matrix] = []
        if gradient:
            _, AL, factor = of_ml
            inverse = potri_lower(factor, both=True)
            R = self._r - ML @ u
            for g in range(self.count.size):
                at = self.columns(g, np.arange(int(self.count[g])))
                rows, K = at.reshape(-1), at.shape[1]
                first, stop = int(rows[0]), int(rows[-1]) + 1
                left = AL[first:stop].reshape(-1, K, self.order)
                right = inverse[first:stop].reshape(-1, K, self.order)
                trace = np.einsum("jaq,jbq->ab", left, right)
                taken = R[first:stop].reshape(-1, K).T @ u[first:stop].reshape(-1, K)
                G.append(2.0 * (trace - weight * taken))
        return FusedValue(ldL2, 0.0 if reml else ldM - ldL2, pwrss, least, G, Omega)

    def _factored(
        self, A: Matrix, lambdas: Sequence[Matrix]
    ) -> tuple[float, Matrix, Matrix]:
        """Return log|Lambda'A Lambda + I|, A Lambda and the factor, for A (q, q)."""
        AL = np.empty_like(A)
        C = np.empty_like(A)
        for g, lam in enumerate(lambdas):
            part, K = self._part(g), lam.shape[0]
            if K == 1:
                np.multiply(A[:, part], lam[0, 0], out=AL[:, part])
            else:
                AL[:, part] = (A[:, part].reshape(-1, K) @ lam).reshape(self.order, -1)
        for g, lam in enumerate(lambdas):
            part, K = self._part(g), lam.shape[0]
            if K == 1:
                np.multiply(AL[part], lam[0, 0], out=C[part])
            else:
                rows = AL[part].reshape(-1, K, self.order)
                C[part] = np.matmul(lam.T, rows).reshape(-1, self.order)
        C.ravel()[:: self.order + 1] += 1.0
        return potrf_lower(C), AL, C

    def _part(self, g: int) -> slice:
        first = int(self.first[g])
        return slice(first, first + int(self.count[g] * self.width[g]))

    def _turned(self, u: Vector, lambdas: Sequence[Matrix]) -> Vector:
        """Return Lambda u (q,)."""
        parts = [
            (u[self._part(g)].reshape(-1, lam.shape[0]) @ lam.T).ravel()
            for g, lam in enumerate(lambdas)
        ]
        return np.concatenate(parts)

    def _turned_back(self, r: Vector, lambdas: Sequence[Matrix]) -> Vector:
        """Return Lambda'r (q,)."""
        return self._turned(r, [lam.T for lam in lambdas])
