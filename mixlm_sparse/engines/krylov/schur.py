"""The Schur complement of the eliminated factor at one Lambda, as an operator.

With e the eliminated factor and r the others, C_ee = Lambda_e'A_ee Lambda_e + I and
F = Lambda_e C_ee^{-1} Lambda_e', both by level,

    S = I + Lambda_r' N Lambda_r,     N = A_rr - A_re F A_er

and log|C| = log|C_ee| + log|S|.  S is preconditioned by its own diagonal blocks, one for each level
of the rest, D = L L':

    M = L^{-1} S L^{-T},     log|S| = log|D| + log|M|

whose eigenvalues lie about 1 (elimination and D together are the symmetric Gauss-Seidel
preconditioner of C, with the exact diagonal blocks in the place of those of C_rr).

For any a, with p = A_er Lambda_r a, the derivative of S by the factors is, e being minimized out,

    half d(a'S a) / dLambda_r = sum_j (N Lambda_r a)_j a_j'
    half d(a'S a) / dLambda_e = - sum_i (I - A_ii F_i) p_i p_i' Lambda_e C_ii^{-1}

and that of a diagonal block of S follows in the same way: see `Slopes`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.krylov.coupling import Coupling

NO_WEIGHTS = np.empty(0)


class Schur:
    """S at the relative factors `lambdas`.

    Attributes
    ----------
    ldC : log|C_ee|; ldD : log|D|.
    G : (L, K, K), Lambda_e C_ee^{-1}; F : (L, K, K), Lambda_e C_ee^{-1} Lambda_e'.
    N : per factor of the rest, (L, H, H) diagonal blocks of N.
    L_inv : per factor of the rest, (L, H, H) inverse of the factor of D.
    """

    def __init__(self, coupling: Coupling, lambdas: Sequence[Matrix]) -> None:
        self.coupling = coupling
        compiled = coupling.compiled
        self.lam = lam = lambdas[coupling.eliminated]
        self.rest_lambdas = [lambdas[r.index] for r in coupling.rest]
        C = np.matmul(np.matmul(lam.T, coupling.ztz), lam)
        C += np.eye(lam.shape[0])
        self.ldC = kernels.block_cholesky(C, compiled=compiled)
        half = kernels.block_lower_inverse(C, compiled=compiled)
        self.C_inv: Array3 = np.matmul(np.swapaxes(half, 1, 2), half)
        self.G: Array3 = np.matmul(lam, self.C_inv)
        self.F: Array3 = np.ascontiguousarray(np.matmul(self.G, lam.T))
        self.N: list[Array3] = []
        self.L_inv: list[Array3] = []
        self.ldD = 0.0
        for which, own in enumerate(self.rest_lambdas):
            N = coupling.diagonal[which].copy()
            coupling.take_diagonal(which, self.F, N)
            D = np.matmul(np.matmul(own.T, N), own)
            D += np.eye(own.shape[0])
            self.N.append(N)
            self.ldD += kernels.block_cholesky(D, compiled=compiled)
            self.L_inv.append(kernels.block_lower_inverse(D, compiled=compiled))
        self._L_inv_T = [np.ascontiguousarray(np.swapaxes(x, 1, 2)) for x in self.L_inv]
        self._lambdas_T = [x.T for x in self.rest_lambdas]

    # -- block-diagonal maps of vectors (m, r) --------------------------------------------------

    def _each(self, blocks: Sequence[Array3], X: Matrix) -> Matrix:
        """Multiply every level's rows by a block: one for the factor, or one a level."""
        rest = self.coupling.rest
        out = np.empty_like(X, order="C")
        for r, block in zip(rest, blocks, strict=True):
            x = X[r.columns]
            if r.width == 1:
                np.multiply(block.reshape(-1, 1), x, out=out[r.columns])
            else:
                x = x.reshape(r.n_levels, r.width, -1)
                out[r.columns] = np.matmul(block, x).reshape(r.n_levels * r.width, -1)
        return out

    def scaled(self, X: Matrix) -> Matrix:
        """Return Lambda_r X."""
        return self._each(self.rest_lambdas, X)

    def scaled_back(self, X: Matrix) -> Matrix:
        """Return Lambda_r'X."""
        return self._each(self._lambdas_T, X)

    def whitened(self, X: Matrix) -> Matrix:
        """Return L^{-1} X."""
        return self._each(self.L_inv, X)

    def colored(self, X: Matrix) -> Matrix:
        """Return L^{-T} X."""
        return self._each(self._L_inv_T, X)

    # -- operators ------------------------------------------------------------------------------

    def through(self, Y: Matrix, weights: Vector = NO_WEIGHTS, Q: Array3 | None = None) -> Matrix:
        """Return N Y, (m, r); with weights, add to Q as `Coupling.through` does."""
        spread = np.empty((0, 0, 0)) if Q is None else Q
        taken = self.coupling.through(self.F, Y, weights, spread)
        out: Matrix = self.coupling.A_rr @ Y - taken
        return out

    def preconditioned(self, X: Matrix) -> Matrix:
        """Return M X, (m, r)."""
        colored = self.colored(X)
        return self.whitened(colored + self.scaled_back(self.through(self.scaled(colored))))
