"""Variances of predicted means from the joint covariance of (beta, b).

With P = Lambda C^{-1} Lambda'Z'WX and M = Lambda C^{-1} Lambda', the inverse of Henderson's matrix

    [X'WX  X'WZ                ]^{-1}   [ V      -V P'      ]
    [Z'WX  Z'WZ + (LL')^{-1}   ]      = [-P V    M + P V P' ],  V = (R_X'R_X)^{-1}

is the joint covariance of (beta^ - beta, b^ - b) divided by sigma^2, and a row (x, z) has

    Var(x'beta^ + z'b^ - x'beta - z'b) / sigma^2 = z'M z + |R_X^{-T} (x - P'z)|^2

which holds at singular Lambda too.  A level that the fit has not seen has M = Lambda Lambda' and
P = 0.  z picks one block of M for each pair of levels in the row.  Pairs that occur together in the
fit are on the pattern of the selected inverse; the others are solved for, each pair once.

References
----------
Henderson (1975), Best linear unbiased estimation and prediction under a selection model,
doi:10.2307/2529430.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.design.members import summed_squares
from mixlm_sparse.model.predict.effects import Selection
from mixlm_sparse.model.predict.rows import DesignRows
from mixlm_sparse.model.predict.several_levels import several_levels_variance
from mixlm_sparse.solve.rows import RowBlock

if TYPE_CHECKING:
    from mixlm_sparse.solve.solution import PlsSolution

__all__ = ["mean_variance", "prior_variance"]

# Right-hand sides of one solve take at most so many bytes, and their solution as many again.
SOLVE_BYTES = 64_000_000
Keys = NDArray[np.int64]


def mean_variance(solution: PlsSolution, rows: DesignRows, selection: Selection) -> Vector:
    """Return Var(x'beta^ + z'b^ - x'beta - z'b) / sigma^2 of every row, (n,).

    Parameters
    ----------
    solution : at the optimum.
    rows : with the columns of every selected term; x counts as zero if `rows.fixed` is None.
    selection : the random effects that count; z is zero in all others.
    """
    system = solution.system
    used = sorted(rows.codes)
    if not all(isinstance(rows.codes[g], np.ndarray) for g in used):
        return several_levels_variance(solution, rows, selection)
    lambdas = solution.reference_factors
    projected = {
        g: np.matmul(solution.merged_factors[g], solution.C_inverse_RZX[g]) for g in used
    }
    inverse = solution.selected_inverse
    # block n_levels belongs to all levels that the fit does not know: C^{-1} = I, P = 0
    M = {
        g: _with_unknown(_congruence(lambdas[g], inverse.diag[g], lambdas[g]),
                         lambdas[g] @ lambdas[g].T)
        for g in used
    }  # fmt: skip
    P = {g: _with_unknown(projected[g], np.zeros(projected[g].shape[1:])) for g in used}
    pairs = {
        (g, h): _PairBlocks(solution, rows, g, h)
        for i, g in enumerate(used)
        for h in used[i + 1 :]
    }
    _solve_for_missing(solution, [pair for pair in pairs.values() if pair.missing.size])
    out = np.empty(rows.n)
    for block in rows.blocks(system.products.kept):
        Z = _merged_columns(solution, rows, selection, block)
        codes = {g: block.codes(g) for g in used}
        x = np.zeros((len(block), system.p)) if rows.fixed is None else block.X
        variance, prior = np.zeros(len(block)), np.zeros(len(block))
        for g in used:
            z = Z[g]
            prior += ((z @ lambdas[g]) ** 2).sum(axis=1)
            if z.shape[1] == 1:
                variance += z[:, 0] ** 2 * M[g][codes[g], 0, 0]
                x = x - z * P[g][codes[g], 0]
            else:
                variance += np.einsum("ia,iab,ib->i", z, M[g][codes[g]], z)
                x = x - np.einsum("ia,iap->ip", z, P[g][codes[g]])
        for (g, h), pair in pairs.items():
            variance += 2.0 * pair.form(Z[g], Z[h], codes[g], codes[h])
        variance = solution.grown(variance[:, None, None], prior[:, None, None])[:, 0, 0]
        variance += ((x @ solution.RX_inv) ** 2).sum(axis=1)
        out[block.slice] = variance
    # rounding can leave a vanishing variance below zero
    return np.maximum(out, 0.0)


def prior_variance(solution: PlsSolution, rows: DesignRows, left_out: Selection) -> Vector:
    """Return z'Lambda Lambda'z of the effects left out, (n,): their variance / sigma^2."""
    out = np.zeros(rows.n)
    Lambda = {t: solution.Lambda(t) for t in rows.terms}
    layout = solution.system.products.layout
    for block in rows.blocks():
        for t, T in Lambda.items():
            own = (((block.z(t) * left_out[t]) @ T) ** 2).sum(axis=1)
            g = layout[t].factor
            several = summed_squares(block.levels(g)) if g in rows.codes else 1.0
            out[block.slice] += own * several
    return out


class _PairBlocks:
    """Blocks (level of g, level of h) of M for the pairs of levels in the rows."""

    def __init__(self, solution: PlsSolution, rows: DesignRows, g: int, h: int) -> None:
        blocks = solution.system.products.blocks
        self.g, self.h = g, h
        self.n_h = blocks.factors[h].n_levels
        self._Lambda = solution.reference_factors[g], solution.reference_factors[h]
        K_g, K_h = blocks.factors[g].width, blocks.factors[h].width
        first, second = rows.codes[g], rows.codes[h]
        assert isinstance(first, np.ndarray)
        assert isinstance(second, np.ndarray)
        key = first.astype(np.int64) * self.n_h + second
        self.keys = _distinct(key[(first >= 0) & (second >= 0)], blocks.factors[g].n_levels,
                              self.n_h)  # fmt: skip
        # the last block stands for pairs with a level that the fit does not know
        self.values = np.zeros((self.keys.size + 1, K_g, K_h))
        pair = blocks.pairs[g, h]
        known = pair.rows.astype(np.int64) * self.n_h + pair.cols
        at = np.minimum(np.searchsorted(known, self.keys), max(known.size - 1, 0))
        found = known[at] == self.keys if known.size else np.zeros(self.keys.size, dtype=bool)
        inverse = solution.selected_inverse.pairs[g, h]
        self.values[:-1][found] = _congruence(
            self._Lambda[0], inverse[at[found]], self._Lambda[1]
        )
        self.missing: Keys = np.flatnonzero(~found)

    def fill(self, at: Keys, inverse: Array3) -> None:
        """Take the blocks of C^{-1} of the keys number `at`."""
        self.values[at] = _congruence(self._Lambda[0], inverse, self._Lambda[1])

    def form(self, z_g: Matrix, z_h: Matrix, first: IntVector, second: IntVector) -> Vector:
        """Return z_g'M z_h of every row, (m,)."""
        key = first.astype(np.int64) * self.n_h + second
        at = np.searchsorted(self.keys, key)
        at[(first < 0) | (second < 0)] = self.keys.size
        block = self.values[at]
        if z_g.shape[1] == z_h.shape[1] == 1:
            scalar: Vector = z_g[:, 0] * block[:, 0, 0] * z_h[:, 0]
            return scalar
        out: Vector = np.einsum("ia,iab,ib->i", z_g, block, z_h)
        return out


def _distinct(keys: Keys, n_g: int, n_h: int) -> Keys:
    """Return the sorted distinct keys; a table of flags where it is small next to sorting."""
    if n_g * n_h <= 8 * keys.size + 1_000_000:
        present = np.zeros(n_g * n_h, dtype=bool)
        present[keys] = True
        return np.flatnonzero(present)
    return np.unique(keys)


def _solve_for_missing(solution: PlsSolution, pairs: list[_PairBlocks]) -> None:
    with solution.system.lock:
        _solve_locked(solution, pairs)


def _solve_locked(solution: PlsSolution, pairs: list[_PairBlocks]) -> None:
    """Solve for the blocks of C^{-1} that are not on the pattern.

    Every pair is served by columns of C^{-1} of the factor that needs fewer of them; columns of one
    factor serve all pairs at once.
    """
    if not pairs:
        return
    system = solution.system
    factors = system.products.blocks.factors
    # another theta may have used the engine since
    chart = system.chart
    # Lambda of the user's effects: C^{-1} belongs to them, not to a rotation of them
    system.engine.factorize(
        chart.merge(
            [
                R @ T / solution.scale
                for R, T in zip(chart.Rz, chart.theta_factors(solution.theta), strict=True)
            ]
        )
    )
    served: dict[int, list[tuple[_PairBlocks, Keys, Keys, bool]]] = {}
    for pair in pairs:
        keys = pair.keys[pair.missing]
        first, second = keys // pair.n_h, keys % pair.n_h
        cost_g = np.unique(first).size * factors[pair.g].width
        cost_h = np.unique(second).size * factors[pair.h].width
        if cost_h <= cost_g:
            served.setdefault(pair.h, []).append((pair, second, first, False))
        else:
            served.setdefault(pair.g, []).append((pair, first, second, True))
    q = system.q
    for f, demands in served.items():
        K = factors[f].width
        levels = np.unique(np.concatenate([own for _, own, _, _ in demands]))
        orders = [np.argsort(own, kind="stable") for _, own, _, _ in demands]
        batch = max(1, SOLVE_BYTES // (8 * q * K))
        for start in range(0, levels.size, batch):
            chosen = levels[start : start + batch]
            rhs = [np.zeros((fb.n_levels, fb.width, chosen.size * K)) for fb in factors]
            place = np.arange(chosen.size)
            for a in range(K):
                rhs[f][chosen, a, place * K + a] = 1.0
            columns = system.engine.solve(rhs)
            for (pair, own, other, transposed), order in zip(demands, orders, strict=True):
                lo, hi = np.searchsorted(own[order], [chosen[0], chosen[-1] + 1])
                at = order[lo:hi]
                if not at.size:
                    continue
                j = np.searchsorted(chosen, own[at])
                # (levels of the other factor, K_other, K)
                side = columns[pair.h if transposed else pair.g]
                block = side.reshape(*side.shape[:2], chosen.size, K)[other[at], :, j]
                pair.fill(
                    pair.missing[at], np.swapaxes(block, 1, 2) if transposed else block
                )


def _congruence(left: Matrix, blocks: Array3, right: Matrix) -> Array3:
    if left.shape[0] == right.shape[0] == 1:
        scaled: Array3 = blocks * (left[0, 0] * right[0, 0])
        return scaled
    out: Array3 = np.matmul(np.matmul(left, blocks), right.T)
    return out


def _with_unknown(blocks: Array3, unknown: Matrix) -> Array3:
    """Append the block that code -1 finds."""
    return np.concatenate([blocks, unknown[None]])


def _merged_columns(
    solution: PlsSolution, rows: DesignRows, selection: Selection, block: RowBlock
) -> dict[int, Matrix]:
    """Return z per grouping factor, (m, K), zero in what is not selected."""
    widths = [f.width for f in solution.system.products.blocks.factors]
    layout = solution.system.products.layout
    out = {g: np.zeros((len(block), widths[g])) for g in rows.codes}
    for t in rows.terms:
        z = block.z(t)
        out[layout[t].factor][:, layout[t].columns] = z if selection[t].all() else z * selection[t]
    return out
