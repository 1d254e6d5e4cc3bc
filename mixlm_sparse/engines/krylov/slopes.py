"""The derivative of the estimated log-determinant by the relative factors.

    log|C| ~ log|C_ee| + log|D| + sum_s share_s z_s'f(M)z_s,     M = L^{-1} S L^{-T},  D = L L'

With E_j = L_j^{-1} dD_j L_j^{-T} the factor moves by dL_j = L_j Phi(E_j), Phi the lower triangle
with half the diagonal, so that along x, a = L^{-T} x,

    x'dM x = a'dS a - 2 sum_j x_j'Phi(E_j)(M x)_j

Everything that multiplies dD_j is collected in one symmetric H_j for each level of the rest,

    H_j = L_j^{-T} (I - sum_c w_c [P(x_jc (M x_c)_j') + its transpose]) L_j^{-1},   P like Phi

and its share by the factors follows from D_j = Lambda_r'N_jj Lambda_r + I in one more pass over the
pairs of levels.  Slopes are halves of derivatives, as `Engine.trace_products` gives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.krylov.coupling import VECTORS_AT_ONCE
from mixlm_sparse.engines.krylov.lanczos import Quadrature
from mixlm_sparse.engines.krylov.schur import Schur


@dataclass
class Slopes:
    """Sums that become half derivatives.

    Parameters
    ----------
    Q : (L, K, K) what multiplies -half dF_i of the eliminated factor.
    H : per factor of the rest, (L, H, H) what multiplies half dD_j.
    rest : per factor of the rest, (H, H) what is known of its slope already.
    """

    Q: Array3
    H: list[Array3]
    rest: list[Matrix]

    @classmethod
    def none(cls, schur: Schur) -> Slopes:
        """Return sums of nothing."""
        return cls(
            np.zeros_like(schur.F),
            [np.zeros_like(L) for L in schur.L_inv],
            [np.zeros_like(lam) for lam in schur.rest_lambdas],
        )

    def add_quadrature(self, schur: Schur, found: Quadrature, shares: Vector) -> None:
        """Add the sum of z'f(M)z over the vectors, each with its share (t,)."""
        for X, w in _side_by_side(found, shares):
            a = schur.colored(X)
            NY = schur.through(schur.scaled(a), w, self.Q)
            MX = schur.whitened(a + schur.scaled_back(NY))
            for h, r in enumerate(schur.coupling.rest):
                shape = (r.n_levels, r.width, w.size)
                x, b, ny, mx = (v[r.columns].reshape(shape) for v in (X, a, NY, MX))
                self.rest[h] += np.tensordot(ny * w, b, axes=([0, 2], [0, 2]))
                both = np.matmul(x * w, np.swapaxes(mx, 1, 2))
                low = np.tril(both, -1) + 0.5 * both * np.eye(r.width)
                self.H[h] -= low + np.swapaxes(low, 1, 2)

    def finished(self, schur: Schur, *, exact: bool) -> list[Matrix]:
        """Return the slopes of all factors, (K, K) each.

        Parameters
        ----------
        exact : add those of log|C_ee| + log|D|.
        """
        coupling = schur.coupling
        Q = self.Q.copy()
        own = []
        for h, (lam, N, L_inv) in enumerate(
            zip(schur.rest_lambdas, schur.N, schur.L_inv, strict=True)
        ):
            H = self.H[h] + np.eye(lam.shape[0]) if exact else self.H[h]
            H = np.matmul(np.matmul(np.swapaxes(L_inv, 1, 2), H), L_inv)
            coupling.spread(h, np.matmul(np.matmul(lam, H), lam.T), Q)
            own.append(self.rest[h] + np.matmul(np.matmul(N, lam), H).sum(axis=0))
        ztz = coupling.ztz
        left = Q - np.matmul(np.matmul(ztz, schur.F), Q)
        eliminated = -np.matmul(left, schur.G).sum(axis=0)
        if exact:
            eliminated += np.matmul(ztz, schur.G).sum(axis=0)
        own.insert(coupling.eliminated, eliminated)
        return own


def _side_by_side(found: Quadrature, shares: Vector) -> Iterator[tuple[Matrix, Vector]]:
    """Yield directions and weights of several vectors together, as many as one pass takes."""
    ready: list[int] = []
    columns = 0
    for s in np.flatnonzero(shares).tolist():
        if ready and columns + found.weights[s].size > VECTORS_AT_ONCE:
            yield _joined(found, ready, shares)
            ready, columns = [], 0
        ready.append(s)
        columns += found.weights[s].size
    if ready:
        yield _joined(found, ready, shares)


def _joined(found: Quadrature, some: Sequence[int], shares: Vector) -> tuple[Matrix, Vector]:
    vectors = np.hstack([found.vectors(s) for s in some])
    return vectors, np.concatenate([shares[s] * found.weights[s] for s in some])
