"""Criterion and gradient where many levels stand beside many sparse columns of the fixed part.

The factor of the most effects is eliminated level by level; everything else is one border of order
m = q_r + p + 1: the other random effects, the columns X~ of the fixed part as they are (not
orthonormal, for that fills them in), and what least squares leave of the response.  With
Z'WX~ = F (see `engines.columns`) and F_j the rows of level j of the eliminated factor, beside
blocks A_j of Z'WZ and its (K, K) relative factor Lambda,

    C_j = Lambda'A_j Lambda + I,   W_j = Lambda C_j^{-1} Lambda'
    N = G - sum_j F_j'W_j F_j      (m, m), G the products of the border with itself
    D = S'N S + diag(I, 0),        S = diag(Lambda_r, I, 1)

whose Cholesky factor holds log|C|, log|X~'V^{-1}X~| and pwrss, one after the other.  With P = S
D_-^{-1} S' over the border without the response (ML: over its random effects alone), e the
residuals and u the random effects of the solution, the derivatives are

    dd/dLambda   = 2 sum_j (A_j W'_j - (I - A_j W_j) F_j P F_j' W'_j) - 2 nu / pwrss Z_j'We u_j'
    dd/dLambda_r = 2 sum_j [N P']_jj                                  - 2 nu / pwrss Z_j'We u_j'

with W' = Lambda C^{-1}.  A level costs the square of its entries, the border m^3 / 3; memory is a
few matrices (m, m), whatever the number of levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.columns import both_triangles, level_forms, weighted_gram
from mixlm_sparse.engines.dense import potrf_lower, potri_lower, product, sum_of_products
from mixlm_sparse.engines.fused.profile import FusedValue
from mixlm_sparse.engines.interface import BlockSystem

__all__ = ["Bordered", "BorderedFixed", "border_order"]


def border_order(blocks: BlockSystem) -> int:
    """Return m, the order of the border beside the factor with the most effects."""
    sizes = [f.n_levels * f.width for f in blocks.factors]
    return sum(sizes) - max(sizes) + blocks.factors[0].columns


@dataclass(frozen=True, eq=False, slots=True)
class Bordered:
    """The solution at one Lambda.

    Parameters
    ----------
    chol : (m, m) lower factor of D.
    W_half : (L, K, K) Lambda C_j^{-1} of the eliminated factor.
    rest : (m, q_r) columns of N of the other random effects.
    ldL2 : log|C|; ldRX2 : log|X'V^{-1}X| less log|X'WX|.
    pwrss : as it is found, however small.
    coefficients : (p,) of X~.
    u : per factor, (L, K); b = Lambda u.
    combination : (m,) by which the columns of the border give what the eliminated factor sees.
    least_pivot : of [X y]'V^{-1}[X y], relative to [X y]'W[X y].
    """

    chol: Matrix
    W_half: Array3
    rest: Matrix
    ldL2: float
    ldRX2: float
    pwrss: float
    coefficients: Vector
    u: list[Matrix]
    combination: Vector
    least_pivot: float


class BorderedFixed:
    """A model of many levels and many sparse columns; see the module's docstring.

    Parameters
    ----------
    blocks : Z'WZ and, with the entries alone, Z'W[X~ y_f].
    yy, floor : y_f'W y_f, and the least pwrss that is more than rounding.
    """

    def __init__(self, blocks: BlockSystem, yy: float, floor: float) -> None:
        self.yy, self.floor = yy, floor
        self._blocks = blocks
        factors = blocks.factors
        sizes = [f.n_levels * f.width for f in factors]
        first = self.eliminated = int(np.argmax(sizes))
        self.others = [g for g in range(len(factors)) if g != first]
        starts = np.cumsum([0, *(sizes[g] for g in self.others)])
        self._starts = dict(zip(self.others, starts.tolist(), strict=False))
        self.q_r = int(starts[-1])
        own = factors[first].sparse
        assert own is not None
        assert own.turn is not None
        self.turn = own.turn
        self.p = self.turn.shape[0]
        self.order = self.q_r + self.p + 1
        self.A = factors[first].ztz
        self.F = sp.csr_array(sp.hstack([self._met(first), own.entries], format="csr"))
        self.F.sort_indices()
        self._G = self._border()
        self._log_turn = 2.0 * float(np.log(np.abs(np.diag(self.turn))).sum())

    def _met(self, first: int) -> sp.csr_array:
        """Return Z'WZ_r (L K, q_r) of the eliminated factor and the others."""
        f = self._blocks.factors[first]
        parts = [sp.csr_array((f.n_levels * f.width, 0))]
        for g in self.others:
            other = self._blocks.factors[g]
            pair = self._blocks.pairs[min(first, g), max(first, g)]
            values, rows, cols = pair.values, pair.rows, pair.cols
            if first > g:
                values, rows, cols = np.swapaxes(values, 1, 2), cols, rows
            shape = (f.n_levels * f.width, other.n_levels * other.width)
            parts.append(_scattered(values, rows, cols, shape))
        return sp.csr_array(sp.hstack(parts, format="csr"))

    def _border(self) -> Matrix:
        """Return G (m, m), of which the lower triangle is set."""
        q, m = self.q_r, self.order
        G = np.zeros((m, m))
        for g in self.others:
            f, at = self._blocks.factors[g], self._part(g)
            levels = np.arange(f.n_levels)
            G[at, at] = _scattered(f.ztz, levels, levels, 2 * (at.stop - at.start,)).toarray()
            own = f.sparse
            assert own is not None
            G[q:, at] = own.entries.toarray().T
            for h in self.others:
                if h > g:
                    pair, there = self._blocks.pairs[g, h], self._part(h)
                    shape = (at.stop - at.start, there.stop - there.start)
                    met = _scattered(pair.values, pair.rows, pair.cols, shape).toarray()
                    G[at, there], G[there, at] = met, met.T
        G[q : m - 1, q : m - 1] = self.turn.T @ self.turn
        G[m - 1, m - 1] = self.yy
        return G

    def _part(self, g: int) -> slice:
        f = self._blocks.factors[g]
        return slice(self._starts[g], self._starts[g] + f.n_levels * f.width)

    def evaluate(
        self, lambdas: Sequence[Matrix], nu: float, *, reml: bool, gradient: bool
    ) -> FusedValue | None:
        """Return the parts of the criterion, or None where C or X'V^{-1}X has no factor.

        Parameters
        ----------
        nu : n or n - p; where it is negative, -1 / sigma^2 at a sigma that is given.
        """
        try:
            at = self.solve(lambdas)
            pwrss = max(at.pwrss, self.floor)
            weight = nu / pwrss if nu >= 0.0 else -nu
            G = self._slopes(at, lambdas, weight, reml=reml) if gradient else []
        except NotPositiveDefiniteError:
            return None
        Omega = weight * np.append(-self.turn @ at.coefficients, 1.0)[None]
        return FusedValue(at.ldL2, at.ldRX2, pwrss, at.least_pivot, G, Omega)

    def solve(self, lambdas: Sequence[Matrix]) -> Bordered:
        """Profile u and beta out at Lambda.

        Raises
        ------
        NotPositiveDefiniteError : C or X'V^{-1}X has no factor.
        """
        lam, q, m = lambdas[self.eliminated], self.q_r, self.order
        C = np.matmul(np.matmul(lam.T, self.A), lam)
        C = 0.5 * (C + np.swapaxes(C, 1, 2)) + np.eye(lam.shape[0])
        sign, log_det = np.linalg.slogdet(C)
        if not (np.isfinite(log_det).all() and (sign > 0.0).all()):
            raise NotPositiveDefiniteError("a block of C has no Cholesky factor")
        W_half = np.matmul(lam, np.linalg.inv(C))
        W = np.matmul(W_half, lam.T)
        N = weighted_gram(self.F, 0.5 * (W + np.swapaxes(W, 1, 2)))
        np.subtract(self._G, N, out=N)
        if q:
            both_triangles(N[:q, :q])
        rest = N[:, :q].copy()
        N[:, :q] = self._scaled(N[:, :q], lambdas)
        N[:q, :q] = self._scaled(N[:q, :q].T, lambdas).T
        N[np.arange(q), np.arange(q)] += 1.0
        potrf_lower(N)
        diagonal = np.diag(N)
        x = scipy.linalg.solve_triangular(
            N[: m - 1, : m - 1], N[m - 1, : m - 1], lower=True, trans="T", check_finite=False
        )
        x = np.asarray(x)
        combination = np.append(-x, 1.0)
        combination[:q] = self._scaled_back(combination[None, :q], lambdas)[0]
        u: list[Matrix] = [np.empty((0, 0))] * len(lambdas)
        seen = (self.F @ combination).reshape(-1, 1, lam.shape[0])
        u[self.eliminated] = np.matmul(seen, W_half)[:, 0]
        for g in self.others:
            u[g] = x[self._part(g)].reshape(-1, lambdas[g].shape[0])
        pivots = (diagonal[q:-1] / np.diag(self.turn)) ** 2
        pwrss = float(diagonal[-1]) ** 2
        share = pwrss / self.yy if self.yy > 0.0 else 1.0
        return Bordered(
            chol=N,
            W_half=W_half,
            rest=rest,
            ldL2=float(log_det.sum()) + 2.0 * float(np.log(diagonal[:q]).sum()),
            ldRX2=2.0 * float(np.log(diagonal[q:-1]).sum()) - self._log_turn,
            pwrss=pwrss,
            coefficients=x[q:],
            u=u,
            combination=combination,
            least_pivot=min(float(pivots.min(initial=1.0)), share),
        )

    def _slopes(
        self, at: Bordered, lambdas: Sequence[Matrix], weight: float, *, reml: bool
    ) -> list[Matrix]:
        """Return the derivatives by every Lambda, (K, K) each."""
        q = self.q_r
        size = self.order - 1 if reml else q
        P = potri_lower(at.chol[:size, :size].copy(), both=True, overwrite=True)
        half = self._scaled_back(P[:, :q], lambdas)  # D^{-1} S'
        turned = np.vstack([half[:q].T, P[q:, :q]])  # S D^{-1}
        P[q:, :q], P[:q, q:] = half[q:], half[q:].T
        P[:q, :q] = self._scaled_back(turned[:q], lambdas)
        lam = lambdas[self.eliminated]
        K = lam.shape[0]
        AW = np.matmul(self.A, at.W_half)
        trace = AW.sum(axis=0)
        if size:
            own = self.F if size == self.F.shape[1] else sp.csr_array(self.F[:, :size])
            forms = np.matmul(level_forms(own, P, K), at.W_half)
            trace = trace - (forms - np.matmul(np.matmul(AW, lam.T), forms)).sum(axis=0)
        out: list[Matrix] = [trace] * len(lambdas)
        b = at.u[self.eliminated] @ lam.T
        left = (self.F @ at.combination).reshape(-1, K) - np.matmul(self.A, b[:, :, None])[:, :, 0]
        out[self.eliminated] = 2.0 * (trace - weight * left.T @ at.u[self.eliminated])
        for g in self.others:
            part, width = self._part(g), lambdas[g].shape[0]
            rows = at.rest[:size, part].T.reshape(-1, width, size)
            columns = turned[:, part].T.reshape(-1, width, size)
            trace = sum_of_products(rows, np.swapaxes(columns, 1, 2))
            left = (at.rest[:, part].T @ at.combination).reshape(-1, width)
            out[g] = 2.0 * (trace - weight * left.T @ at.u[g])
        return out

    def slope(
        self, at: Bordered, lambdas: Sequence[Matrix], g: int, a: int, b: int
    ) -> Matrix:
        """Return the derivative of [X~ y_f]'V^{-1}[X~ y_f] (p + 1, p + 1) by one entry of a Lambda.

        With R = Z'V^{-1}[X~ y_f] and U = Lambda'R it is -sum_j (R_j[a]'U_j[b] + U_j[b]'R_j[a]).

        Parameters
        ----------
        g : grouping factor; a, b : row and column of its Lambda.
        """
        q = self.q_r
        N_rr, N_xr = at.rest[:q], at.rest[q:]
        # U_r = D_rr^{-1} S'N_rx, and B = -S U_r is what it adds to the columns
        U = scipy.linalg.cho_solve((at.chol[:q, :q], True), self._scaled(N_xr, lambdas).T)
        B = -self._scaled_back(U.T, lambdas).T
        if g != self.eliminated:
            R = (N_xr.T + N_rr @ B)[self._part(g)].reshape(-1, lambdas[g].shape[0], self.p + 1)
            own = U[self._part(g)].reshape(R.shape)
            half: Matrix = -product(np.ascontiguousarray(R[:, a].T), own[:, b].copy())
            return half + half.T
        lam = lambdas[g]
        Y = np.eye(lam.shape[0]) - np.matmul(np.matmul(self.A, at.W_half), lam.T)
        w = Y[:, a, :, None] * at.W_half[:, None, :, b]
        N = both_triangles(weighted_gram(self.F, -(w + np.swapaxes(w, 1, 2))))
        out = N[q:, q:]
        if q:
            met = product(np.ascontiguousarray(N[q:, :q]), B)
            out = out + met + met.T + B.T @ (N[:q, :q] @ B)
        return out

    def seen(
        self, at: Bordered, lambdas: Sequence[Matrix], columns: Matrix
    ) -> list[tuple[Array3, Array3]]:
        """Return Z'V^{-1}C and Lambda'Z'V^{-1}C of every factor, (L, K, r) each.

        Parameters
        ----------
        columns : (p + 1, r), C = [X~ y_f] columns.
        """
        q, r = self.q_r, columns.shape[1]
        N_rr, N_xr = at.rest[:q], at.rest[q:]
        met = N_xr.T @ columns
        U = scipy.linalg.cho_solve((at.chol[:q, :q], True), self._scaled(met.T, lambdas).T)
        B = -self._scaled_back(U.T, lambdas).T
        lam = lambdas[self.eliminated]
        x = (self.F @ np.vstack([B, columns])).reshape(-1, lam.shape[0], r)
        own = np.matmul(np.swapaxes(at.W_half, 1, 2), x)
        out = [(x - np.matmul(np.matmul(self.A, lam), own), own)] * len(lambdas)
        R = met + N_rr @ B
        for g in self.others:
            part, K = self._part(g), lambdas[g].shape[0]
            out[g] = R[part].reshape(-1, K, r), U[part].reshape(-1, K, r)
        return out

    def _scaled(self, M: Matrix, lambdas: Sequence[Matrix]) -> Matrix:
        """Return M (r, q_r) times the Lambda of the border's random effects."""
        out = np.empty_like(M)
        for g in self.others:
            part, K = self._part(g), lambdas[g].shape[0]
            out[:, part] = (M[:, part].reshape(-1, K) @ lambdas[g]).reshape(M.shape[0], -1)
        return out

    def _scaled_back(self, M: Matrix, lambdas: Sequence[Matrix]) -> Matrix:
        """Return M (r, q_r) times their transposes."""
        return self._scaled(M, [lam.T for lam in lambdas])


def _scattered(
    values: Array3, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]
) -> sp.csr_array:
    """Return blocks (m, K, H) of levels (rows, cols) as a sparse matrix."""
    _, K, H = values.shape
    i, j = np.broadcast_arrays(
        (rows[:, None].astype(np.int64) * K + np.arange(K))[:, :, None],
        (cols[:, None].astype(np.int64) * H + np.arange(H))[:, None, :],
    )
    return sp.csr_array((values.ravel(), (i.ravel(), j.ravel())), shape=shape)
