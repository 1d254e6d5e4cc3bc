"""Kenward and Roger's sums for models with related rows, component by component.

Rows are related by a residual structure, or by a known covariance of levels.

Rows fall into components that share neither a residual group nor a level of a random effect; V has
a block for each.  In a component of m rows, multiplied by V^{-1/2} (whitened first, then by the
inverse Cholesky factor of I + Z* Lambda Lambda'Z*'), with X* its rows of X and D_i, D_ij the
derivatives of V on both sides, all relative to sigma^2,

    P_i = -sum X*'D_i X*,    Q_ij = sum X*'D_i D_j X*,    R_ij = sum X*'D_ij X*,    tr(D_i D_j)

Groups of residuals with the same size are taken together where there are no random effects.  The
parameters are those of `residual_coordinates`, and the covariances of the random effects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.common.types import Array3, IntVector, Matrix
from mixlm_sparse.covariance.correlation import Places
from mixlm_sparse.covariance.law import Batch, ResidualLaw
from mixlm_sparse.covariance.variance import Values
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.members import RowLevels, effect_matrix
from mixlm_sparse.inference.fixed.kenward_roger_sums import Direction
from mixlm_sparse.inference.fixed.residual_coordinates import Coordinates
from mixlm_sparse.solve.products.meetings import entries_of
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.frame import Whitened, whitened_frame

__all__ = ["StructuredSums", "rows_of", "structured_sums"]

# Numbers of derivatives that are held at a time.
BATCH_NUMBERS = 2**24
MAX_ROWS = 3000  # of a component whose V is formed


@dataclass
class StructuredSums:
    """P (r, p, p), Q (r, r, p, p), second (r, r, p, p), and traces (r, r) of tr(D_i D_j)."""

    P: Array3
    Q: NDArray[np.float64]
    second: NDArray[np.float64]
    traces: Matrix


def rows_of(system: PenalizedSystem) -> Whitened:
    """Return the whitened rows of a system; with independent residuals, those of its weights."""
    if system.whitened is not None:
        return system.whitened
    n = system.n
    alone = np.arange(n + 1)
    law = ResidualLaw(
        n=n, correlation=None, places=Places(), t=np.zeros(0), order=alone[:-1], starts=alone,
        strata=("",), stratum=np.zeros(n, dtype=np.intp), variance=None, values=Values(),
        x=np.zeros(0), weights=system.matrices.weights,
    )  # fmt: skip
    frame = whitened_frame(replace(system.matrices, law=law), system.products)
    return frame.at(np.zeros(0), centered=False)


def structured_sums(
    system: PenalizedSystem,
    whitened: Whitened,
    lambdas: list[Matrix],
    X: Matrix,
    directions: list[Direction],
) -> StructuredSums:
    """Sum over the components.

    Parameters
    ----------
    whitened : the rows (see `rows_of`).
    lambdas : per factor, (K, K) in the working columns.
    X : (n, p) whitened columns of X in which Phi is the identity.
    directions : of the covariances of the random effects, in the working columns.

    Raises
    ------
    EngineError : a component has more rows than its covariance matrix could hold.
    """
    coordinates = Coordinates(whitened.law, whitened.rho)
    r, p = len(directions) + coordinates.size, X.shape[1]
    out = StructuredSums(
        np.zeros((r, p, p)), np.zeros((r, r, p, p)), np.zeros((r, r, p, p)), np.zeros((r, r))
    )
    if lambdas:
        for rows in _components(system, whitened):
            first, second, own = _of_component(
                system, whitened, lambdas, directions, coordinates, rows, X[rows]
            )
            _add(out, first[None], None if second is None else second[None], own[None])
        return out
    for batch in _pieces(whitened.law, r):
        first, second = _whitened_slopes(whitened.law, whitened, batch, coordinates)
        _add(out, first, second, X[batch.rows])
    return out


def _add(
    out: StructuredSums,
    first: NDArray[np.float64],
    second: NDArray[np.float64] | None,
    X: Array3,
) -> None:
    """Add groups: first (g, r, m, m), second (g, r, r, m, m), X (g, m, p)."""
    g, r, m, _ = first.shape
    p = X.shape[2]
    DX = np.matmul(first, X[:, None])  # (g, r, m, p)
    out.P -= np.einsum("gma,grmb->rab", X, DX, optimize=True)
    flat = DX.transpose(0, 2, 1, 3).reshape(g * m, r * p)
    out.Q += (flat.T @ flat).reshape(r, p, r, p).transpose(0, 2, 1, 3)
    own = first.transpose(0, 2, 3, 1).reshape(-1, r)
    out.traces += own.T @ own  # D_i are symmetric
    if second is not None:
        half = np.matmul(second, X[:, None, None])
        out.second += np.einsum("gma,gijmb->ijab", X, half, optimize=True)


def _pieces(law: ResidualLaw, r: int) -> Iterator[Batch]:
    """Cut batches so that the derivatives of one fit into memory."""
    for batch in law.batches:
        groups, m = batch.rows.shape
        step = max(1, BATCH_NUMBERS // (r * m * m * (r if r < 12 else 1)))
        for start in range(0, groups, step):
            rows = batch.rows[start : start + step]
            t = batch.t if batch.t.shape[0] == 1 else batch.t[start : start + step]
            yield Batch(rows, t, batch.stratum)


def _whitened_slopes(
    law: ResidualLaw, whitened: Whitened, batch: Batch, coordinates: Coordinates
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return W dR W' of the groups of a batch, and the second derivatives or None."""
    sd = whitened.whitening.sd[batch.rows]
    factor = np.linalg.inv(np.linalg.cholesky(law.correlations(whitened.rho, batch)))
    W = np.broadcast_to(factor, (sd.shape[0], *factor.shape[1:])) / sd[:, None, :]
    turned = np.swapaxes(W, 1, 2)
    first = np.matmul(np.matmul(W[:, None], coordinates.first(law, batch)), turned[:, None])
    if coordinates.linear:
        return first, None
    second = np.matmul(
        np.matmul(W[:, None, None], coordinates.second(law, batch)), turned[:, None, None]
    )
    return first, second


def _of_component(
    system: PenalizedSystem,
    whitened: Whitened,
    lambdas: list[Matrix],
    directions: list[Direction],
    coordinates: Coordinates,
    rows: NDArray[np.intp],
    X: Matrix,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, Matrix]:
    """Return D_i (r, m, m), D_ij or None, and X* (m, p) of a component with random effects."""
    m, r0 = rows.size, len(directions)
    r = r0 + coordinates.size
    law = whitened.law.take(rows)
    white = Whitening.of(law, whitened.rho)
    V = np.eye(m)
    first = np.zeros((r, m, m))
    Z, related = [], []
    for z, levels, lam, factor in zip(
        whitened.Z, whitened.frame.levels, lambdas, system.matrices.factors, strict=True
    ):
        there, own = _dense_rows(z[rows], levels[rows], lam.shape[0], factor.n_levels)
        Z.append(own)
        related.append(_related(factor, there))
        V += _form(own @ lam, own @ lam, related[-1])
    for i, direction in enumerate(directions):
        own, A = Z[direction.factor], related[direction.factor]
        first[i] = _form(own @ direction.E, own, A)
    second = None if coordinates.linear else np.zeros((r, r, m, m))
    for batch in law.batches:
        W1 = coordinates.first(law, batch)
        W2 = None if second is None else coordinates.second(law, batch)
        for g, at in enumerate(batch.rows):
            first[np.ix_(range(r0, r), at, at)] = W1[g]
            if second is not None and W2 is not None:
                second[np.ix_(range(r0, r), range(r0, r), at, at)] = W2[g]
    W = white.apply(np.eye(m))
    first[r0:] = W @ first[r0:] @ W.T
    F = np.linalg.inv(np.linalg.cholesky(V))
    first = F @ first @ F.T
    if second is not None:
        second[r0:, r0:] = (F @ W) @ second[r0:, r0:] @ (F @ W).T
    return first, second, F @ X


def _dense_rows(z: Matrix, levels: RowLevels, K: int, n_levels: int) -> tuple[IntVector, Array3]:
    """Return the levels that some rows have, and their rows of Z (m, levels, K)."""
    there = np.unique(entries_of(levels).level)
    columns = [effect_matrix(z, levels, a, n_levels)[:, there].toarray() for a in range(K)]
    return there, np.stack(columns, axis=2)


def _related(factor: GroupingFactor, levels: IntVector) -> Matrix | None:
    """Return the known covariance of some levels, (L, L); None where they are independent."""
    if factor.known is None:
        return None
    units = np.zeros((factor.n_levels, levels.size))
    units[levels, np.arange(levels.size)] = 1.0
    return np.asarray(splu(factor.known.precision).solve(units)[levels])


def _form(left: Array3, right: Array3, A: Matrix | None) -> Matrix:
    """Return sum_jl A_jl left_j right_l' of rows (m, levels, K), (m, m)."""
    if A is not None:
        right = np.einsum("jl,mlk->mjk", A, right, optimize=True)
    out: Matrix = left.reshape(len(left), -1) @ right.reshape(len(right), -1).T
    return out


def _components(system: PenalizedSystem, whitened: Whitened) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of every component.

    They share no level with those of another, nor levels that a known covariance relates.
    """
    law, frame = whitened.law, whitened.frame
    links, first = [], law.n
    if law.correlated:
        links.append(np.column_stack([np.arange(law.n), first + law.group_of]))
        first += law.sizes.size
    for levels, factor in zip(frame.levels, system.matrices.factors, strict=True):
        entries = entries_of(levels)
        row = np.arange(law.n) if entries.row is None else entries.row
        links.append(np.column_stack([row, first + entries.level]))
        if factor.known is not None:
            Q = factor.known.precision.tocoo()
            links.append(np.column_stack([first + Q.row, first + Q.col]))
        first += factor.n_levels
    rows, cols = np.concatenate(links).T
    graph = scipy.sparse.coo_matrix(
        (np.ones(rows.size, dtype=np.int8), (rows, cols)), shape=(first, first)
    )
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][: law.n]
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    for own in np.split(order, cuts):
        if own.size > MAX_ROWS:
            raise EngineError(
                "Kenward-Roger with a residual structure or known= forms the covariance of rows "
                f"that share random effects or are related, here of {own.size} rows: use "
                "ddf='satterthwaite', which is nearly the same with so many"
            )
        yield own
