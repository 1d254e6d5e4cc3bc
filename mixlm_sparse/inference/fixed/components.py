"""Z'V^{-1}Z by components: levels of all factors that common rows link.

With one grouping factor a component is a level, with nested ones a level of the outermost; only
crossed factors make one large component.  Between components Z'V^{-1}Z is zero.  Components of the
same shape are computed together.  By Woodbury's identity Z'V^{-1}Z = A - A Lambda C^{-1} Lambda'A
with A = Z'WZ.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse

from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.interface import BlockSystem
from mixlm_sparse.engines.threads import large_block
from mixlm_sparse.solve.pls import LARGE

# Largest memory for the dense matrices of one component; three of them exist at a time.
MAX_COMPONENT_BYTES = 6 * 2**30
BATCH_NUMBERS = 2**21  # numbers in the matrices of components that are computed together


def components(blocks: BlockSystem) -> list[list[np.ndarray]]:
    """Return the levels of every component: per component, one array of levels per factor.

    Two levels are in one component if rows link them, directly or through other levels.
    """
    sizes = [f.n_levels for f in blocks.factors]
    if len(sizes) == 1 and not blocks.own_pairs:
        return [[np.array([level])] for level in range(sizes[0])]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    edges = [
        (pair.rows + starts[g], pair.cols + starts[h]) for (g, h), pair in blocks.pairs.items()
    ]
    rows = np.concatenate([e[0] for e in edges])
    cols = np.concatenate([e[1] for e in edges])
    graph = scipy.sparse.coo_matrix(
        (np.ones(rows.size, dtype=np.int8), (rows, cols)), shape=(starts[-1], starts[-1])
    )
    count, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    per_factor = []
    for g, size in enumerate(sizes):
        own = label[starts[g] : starts[g] + size]
        order = np.argsort(own, kind="stable")
        cuts = np.searchsorted(own[order], np.arange(1, count))
        per_factor.append(np.split(order, cuts))
    return [[levels[c] for levels in per_factor] for c in range(count)]


def batches(blocks: BlockSystem) -> Iterator[list[np.ndarray]]:
    """Yield components of equal shape together: per factor, levels (components, levels each)."""
    if not blocks.factors:
        return
    if len(blocks.factors) == 1 and not blocks.own_pairs:  # every level is a component
        f = blocks.factors[0]
        each = max(1, BATCH_NUMBERS // f.width**2)
        for start in range(0, f.n_levels, each):
            yield [np.arange(start, min(start + each, f.n_levels))[:, None]]
        return
    by_shape: dict[tuple[int, ...], list[list[np.ndarray]]] = {}
    for component in components(blocks):
        by_shape.setdefault(tuple(levels.size for levels in component), []).append(component)
    for shape, members in by_shape.items():
        order = sum(L * f.width for L, f in zip(shape, blocks.factors, strict=True))
        if 3 * 8 * order**2 > MAX_COMPONENT_BYTES:
            raise EngineError(
                f"Kenward-Roger needs three dense matrices of order {order} for this model, "
                f"because its grouping factors are crossed: {3 * 8 * order**2 / 2**30:.1f} GB. "
                "With so many levels Satterthwaite's degrees of freedom are nearly the same: use "
                "ddf='satterthwaite'"
            )
        each = max(1, BATCH_NUMBERS // order**2)
        for start in range(0, len(members), each):
            chunk = members[start : start + each]
            yield [np.stack([m[g] for m in chunk]) for g in range(len(shape))]


class PairLookup:
    """Finds the blocks of Z'WZ that belong to some levels."""

    def __init__(self, blocks: BlockSystem) -> None:
        self.blocks = blocks
        self.matrices: dict[tuple[int, int], scipy.sparse.csr_matrix] = {}
        for (g, h), pair in blocks.pairs.items():
            shape = (blocks.factors[g].n_levels, blocks.factors[h].n_levels)
            # positions count from one: zero stands for levels that never occur together
            self.matrices[g, h] = scipy.sparse.csr_matrix(
                (np.arange(1, pair.rows.size + 1), (pair.rows, pair.cols)), shape=shape
            )

    def fill(
        self, A: Array3, g: int, h: int, levels: list[np.ndarray], places: list[slice]
    ) -> None:
        """Write Z_g'WZ_h of the levels into A (components, q, q), and its transpose."""
        values = self.blocks.pairs[g, h].values
        _, K, M = values.shape
        for c in range(A.shape[0]):
            own = self.matrices[g, h][levels[g][c]][:, levels[h][c]].tocoo()
            target = np.zeros((levels[g].shape[1], K, levels[h].shape[1], M))
            target[own.row, :, own.col, :] = values[own.data - 1]
            block = target.reshape(levels[g].shape[1] * K, -1)
            if g == h:  # beside the blocks on the diagonal
                A[c, places[g], places[g]] += block + block.T
                continue
            A[c, places[g], places[h]] = block
            A[c, places[h], places[g]] = block.T


def projected_products(
    lookup: PairLookup,
    levels: list[np.ndarray],
    widths: list[int],
    places: list[slice],
    lambdas: list[Matrix],
) -> Array3:
    """Return B = Z'V^{-1}Z of components of one shape, (components, q, q)."""
    blocks = lookup.blocks
    count, order = levels[0].shape[0], places[-1].stop
    A = np.zeros((count, order, order))
    for g, K in enumerate(widths):
        L = levels[g].shape[1]
        view = A[:, places[g], places[g]]
        for a in range(L):
            view[:, a * K : (a + 1) * K, a * K : (a + 1) * K] = blocks.factors[g].ztz[
                levels[g][:, a]
            ]
    for g, h in blocks.pairs:
        lookup.fill(A, g, h, levels, places)
    # Lambda'A, factor by factor
    LA = np.empty_like(A)
    for g, (lam, K) in enumerate(zip(lambdas, widths, strict=True)):
        rows = A[:, places[g]].reshape(count, -1, K, order)
        LA[:, places[g]] = np.matmul(lam.T, rows).reshape(count, -1, order)
    C = np.empty_like(A)
    for g, (lam, K) in enumerate(zip(lambdas, widths, strict=True)):
        cols = LA[:, :, places[g]].reshape(count, order, -1, K)
        C[:, :, places[g]] = np.matmul(cols, lam).reshape(count, order, -1)
    diagonal = np.arange(order)
    C[:, diagonal, diagonal] += 1.0
    if count == 1:
        with large_block(order):
            chol = scipy.linalg.cholesky(C[0], lower=True, overwrite_a=True, check_finite=False)
            half = scipy.linalg.solve_triangular(
                chol, LA[0], lower=True, overwrite_b=True, check_finite=False
            )
            B: Array3 = A - half.T @ half
            if not any(np.abs(lam).max() >= LARGE for lam in lambdas):
                return B
            H = scipy.linalg.solve_triangular(chol, half, lower=True, trans="T")[None]
            inverse = scipy.linalg.cho_solve((chol, True), np.eye(order))[None]
    else:
        H = np.linalg.solve(C, LA)
        B = A - np.matmul(np.swapaxes(LA, 1, 2), H)
        if not any(np.abs(lam).max() >= LARGE for lam in lambdas):
            return B
        inverse = np.linalg.inv(C)
    return _by_normal_equations(B, H, inverse, lambdas, levels, places)


def _by_normal_equations(
    B: Array3,
    H: Array3,
    inverse: Array3,
    lambdas: list[Matrix],
    levels: list[np.ndarray],
    places: list[slice],
) -> Array3:
    """Return B = Z'V^{-1}Z without the difference where Lambda is large.

    With Lambda = P s Q' and H = C^{-1}Lambda'A, the rows of B along P are s^{-1}Q'H, for Lambda'B =
    H; and H Lambda = I - C^{-1}, so that along P on both sides B is s^{-1}Q'(I - C^{-1})Q s^{-1}.

    Parameters
    ----------
    B, H, inverse : (components, q, q), the difference, C^{-1}Lambda'A and C^{-1}.
    """
    order = B.shape[1]
    left, right = np.zeros((order, 0)), np.zeros((order, 0))  # P and Q s^{-1}
    for lam, lev, place in zip(lambdas, levels, places, strict=True):
        P, sizes, Qt = np.linalg.svd(lam)
        large = sizes >= LARGE
        each = np.eye(lev.shape[1])
        block = np.zeros((order, int(large.sum()) * lev.shape[1]))
        block[place] = np.kron(each, P[:, large])
        left = np.hstack([left, block])
        block = np.zeros_like(block)
        block[place] = np.kron(each, Qt[large].T / sizes[large])
        right = np.hstack([right, block])
    other = np.eye(order) - left @ left.T
    rows = np.matmul(right.T, H)  # P'B
    both = np.matmul(right.T, np.matmul(np.eye(order) - inverse, right))
    mixed = np.matmul(left, np.matmul(rows, other))
    out: Array3 = np.matmul(left, np.matmul(both, left.T))
    if left.shape[1] < order:  # rounding of the difference beside it would not be small
        out = out + mixed + np.swapaxes(mixed, 1, 2) + np.matmul(other, np.matmul(B, other))
    return out
