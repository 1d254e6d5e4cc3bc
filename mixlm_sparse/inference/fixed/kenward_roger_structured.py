"""Kenward and Roger's sums for models with related rows, component by component.

Rows are related by a residual structure, or by a known covariance of levels.

Rows fall into components that share neither a residual group nor a level of a random effect (see
`row_components`); V has a block for each.  In a component of m rows, multiplied by V^{-1/2}
(whitened first, then by the inverse Cholesky factor of I + Z* Lambda Lambda'Z*'), with X* its rows
of X and D_i the derivatives of V on both sides, all relative to sigma^2,

    P_i = -sum X*'D_i X*,    Q_ij = sum X*'D_i D_j X*,    tr(D_i D_j)

Second derivatives of V are those of R, within residual groups.  With Y = V^{-1}X they need

    R_ij = sum Y'(d^2 sigma^2 R / d eta_i d eta_j) Y

over these.  Groups of residuals with the same size are taken together where there are no random
effects.  The parameters are those of `residual_coordinates`, and the covariances of the random
effects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.covariance.correlation import Places
from mixlm_sparse.covariance.law import Batch, ResidualLaw
from mixlm_sparse.covariance.variance import Values
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.inference.fixed.kenward_roger_sums import Direction
from mixlm_sparse.inference.fixed.residual_coordinates import Coordinates
from mixlm_sparse.inference.fixed.row_components import RandomRows, components
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.frame import Whitened, whitened_frame

__all__ = ["StructuredSums", "rows_of", "structured_sums"]

# Numbers of derivatives that are held at a time.
BATCH_NUMBERS = 2**24


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
    r0, p = len(directions), X.shape[1]
    r = r0 + coordinates.size
    out = StructuredSums(
        np.zeros((r, p, p)), np.zeros((r, r, p, p)), np.zeros((r, r, p, p)), np.zeros((r, r))
    )
    Y = whitened.whitening.back(X)
    if lambdas:
        random = RandomRows(system, whitened, lambdas, directions)
        for rows in components(system, whitened, r):
            first, own, Y[rows] = _of_component(whitened, random, coordinates, rows, X[rows])
            _add(out, first[None], own[None])
    else:
        for batch in _pieces(whitened.law, r):
            _add(out, _whitened_slopes(whitened, batch, coordinates), X[batch.rows])
    if not coordinates.linear:
        for batch in _pieces(whitened.law, r):
            _add_second(out.second[r0:, r0:], coordinates, batch, Y[batch.rows])
    return out


def _add(out: StructuredSums, first: NDArray[np.float64], X: Array3) -> None:
    """Add groups: first (g, r, m, m), X (g, m, p)."""
    g, r, m, _ = first.shape
    p = X.shape[2]
    DX = np.matmul(first, X[:, None])  # (g, r, m, p)
    out.P -= np.einsum("gma,grmb->rab", X, DX, optimize=True)
    flat = DX.transpose(0, 2, 1, 3).reshape(g * m, r * p)
    out.Q += (flat.T @ flat).reshape(r, p, r, p).transpose(0, 2, 1, 3)
    own = first.transpose(0, 2, 3, 1).reshape(-1, r)
    out.traces += own.T @ own  # D_i are symmetric


def _add_second(
    second: NDArray[np.float64], coordinates: Coordinates, batch: Batch, Y: Array3
) -> None:
    """Add Y'(d^2 sigma^2 R)Y of the groups of a batch, in place; second (r, r, p, p), Y (g, m, p).

    The derivative of d sigma^2 R / d eta_i along eta_k counts half for (i, k) and half for (k, i).
    """
    for k in range(coordinates.size):
        half = np.matmul(coordinates.along(coordinates.law, batch, k), Y[:, None])
        found = 0.5 * np.einsum("gma,gimb->iab", Y, half, optimize=True)
        second[k] += found
        second[:, k] += found


def _pieces(law: ResidualLaw, r: int) -> Iterator[Batch]:
    """Cut batches so that the derivatives of one fit into memory."""
    for batch in law.batches:
        groups, m = batch.rows.shape
        step = max(1, BATCH_NUMBERS // (r * m * m))
        for start in range(0, groups, step):
            rows = batch.rows[start : start + step]
            t = batch.t if batch.t.shape[0] == 1 else batch.t[start : start + step]
            yield Batch(rows, t, batch.stratum)


def _whitened_slopes(
    whitened: Whitened, batch: Batch, coordinates: Coordinates
) -> NDArray[np.float64]:
    """Return W dR W' of the groups of a batch, (g, r, m, m)."""
    law = whitened.law
    sd = whitened.whitening.sd[batch.rows]
    factor = np.linalg.inv(np.linalg.cholesky(law.correlations(whitened.rho, batch)))
    W = np.broadcast_to(factor, (sd.shape[0], *factor.shape[1:])) / sd[:, None, :]
    out: NDArray[np.float64] = np.matmul(
        np.matmul(W[:, None], coordinates.first(law, batch)), np.swapaxes(W, 1, 2)[:, None]
    )
    return out


def _of_component(
    whitened: Whitened,
    random: RandomRows,
    coordinates: Coordinates,
    rows: NDArray[np.intp],
    X: Matrix,
) -> tuple[Array3, Matrix, Matrix]:
    """Return D_i (r, m, m), X* (m, p) and V^{-1}X (m, p) of a component with random effects."""
    V, own = random.of(rows)
    r0, m = len(own), rows.size
    law = whitened.law.take(rows)
    white = Whitening.of(law, whitened.rho)
    first = np.zeros((r0 + coordinates.size, m, m))
    for batch in law.batches:
        slopes = coordinates.first(law, batch)
        for g, at in enumerate(batch.rows):
            first[np.ix_(range(r0, len(first)), at, at)] = slopes[g]
    F = np.linalg.inv(np.linalg.cholesky(V))
    both = F @ white.apply(np.eye(m))  # V^{-1/2} of rows that are not whitened
    for i, slope in enumerate(own):
        first[i] = F @ slope @ F.T
    for i in range(r0, len(first)):
        first[i] = both @ first[i] @ both.T
    star = F @ X
    return first, star, both.T @ star
