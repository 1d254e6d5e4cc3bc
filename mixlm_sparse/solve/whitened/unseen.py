"""What the data determine of a residual structure and of the random effects beside it.

The law of the data is y ~ N(X beta, V), V = sigma^2 R(rho) + sum_i tau_i G_i, with G_i = Z E_i Z'
of the (co)variances of the random effects (see `judging`).  It stays as it is, to first order,
along changes (c, r, s) of (tau, rho, sigma^2) where and only where

    K'(sum_i c_i G_i + sum_k r_k dR / d rho_k + s R) K = 0,    K'X = 0   (ML: K = I).

Take independent standard normal v_j, w_j (n,), and in the rows multiplied by W = R^{-1/2} their
parts x_j = P v_j, z_j = P w_j that X leaves.  Then

    F_ji = x_j' W G_i W' z_j

has, for more j than parameters, the null vectors that are asked for: with A = P W (sum c G) W' P,
(F c)_j = x_j' A z_j has the variance |A|^2, so that it is zero for all j with probability one only
if A is zero.  Of a residual parameter x'W dR W'z follows from the quadratic forms of x + z and of
x - z,

    x'W (dR / d rho_k) W'x = -d tr(G'R^{-1}G) / d rho_k,    G = W^{-1}x,

for which `Whitening.squares_slopes` has all k at once.  What some residual groups determine all of
them do: few groups are asked first, and more only if these leave a direction open.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.whitening import NO_INFLUENCE, Whitening
from mixlm_sparse.solve.information import Generator, bilinear_forms
from mixlm_sparse.solve.whitened.frame import Hidden, Whitened

__all__ = ["hidden_directions"]

# Rows that are asked first, and how many times more the next time; as many as this at most.
FIRST_ROWS, TIMES, MOST_ROWS = 500, 20, 200_000
# Probes beyond the number of parameters.
MORE_PROBES = 4
# Singular values of F, its columns at length one, below this are none.
UNSEEN_RTOL = 1e-5
# Step of central differences along a direction whose largest part is one.
STEP = 1e-4
# Parts of a direction below this share of its largest are rounding.  Next to a singular matrix of
# correlations rows show some parameters so much more than others that parts of 1e-9 still count.
PART_RTOL = 1e-10
MOVED_RTOL = 1e-4  # a direction of length one has a part of rho
DEPENDENT_RTOL = 1e-10  # columns of X, in some of the rows

Rows = NDArray[np.intp]
Half = Callable[[int, Array3], Array3]


def hidden_directions(
    whitened: Whitened, found: list[Generator], half: Half, *, reml: bool, with_sigma: bool
) -> Hidden:
    """Return the directions that move rho and leave the law as it is; see `unseen_of_residuals`."""
    null, length = unseen_of_residuals(whitened, found, half, reml=reml, with_sigma=with_sigma)
    largest = np.abs(null).max(axis=0, initial=0.0)
    null = np.where(np.abs(null) > PART_RTOL * largest, null, 0.0)
    units = np.where(length > 0.0, length, 1.0)
    changes = null / units[:, None]
    changes = changes / np.abs(changes).max(axis=0, initial=0.0)
    g, p = len(found), whitened.products.p
    within = [share_in_fixed(whitened, c[g:-1]) for c in changes.T]
    return Hidden(changes, np.array(within).reshape(len(within), p, p))


def unseen_of_residuals(
    whitened: Whitened, found: list[Generator], half: Half, *, reml: bool, with_sigma: bool
) -> tuple[Matrix, Vector]:
    """Return the directions that move rho and leave the law as it is.

    Those of tau alone are left out: `judging` finds them without rows.

    Parameters
    ----------
    found : (g) generators of the covariances of the random effects.
    half : factor, (L, K, c) -> A^{1/2} times these, where its levels have a known covariance A.
    with_sigma : whether sigma^2 may move, or is held.

    Returns
    -------
    null : (g + r + 1, d) changes of tau and sigma^2 relative to sigma^2 and of the working rho, in
        units of `length`; columns are orthonormal.
    length : (g + r + 1,) of the columns of F; zero for what no row shows.
    """
    n, g, r = whitened.law.n, len(found), whitened.law.n_rho
    size = max(FIRST_ROWS, 4 * (whitened.A.shape[1] + g + r))
    while True:
        rows = _some_rows(whitened, size)
        null, length = _unseen_in(whitened, rows, found, half, reml=reml, with_sigma=with_sigma)
        # combinations without a part of rho are taken out, the others made orthogonal to them
        _, moved, turned = np.linalg.svd(null[g : g + r], full_matrices=False)
        null = null @ turned[moved > MOVED_RTOL].T
        if not null.shape[1] or rows.size == n or rows.size >= MOST_ROWS:
            return null, length
        size *= TIMES


def _some_rows(whitened: Whitened, size: int) -> Rows:
    """Return about `size` rows: whole residual groups, or all that a level has."""
    law = whitened.law
    if size >= law.n:
        return np.arange(law.n)
    levels = whitened.frame.levels
    if law.correlated:
        key = law.group_of
    elif levels and isinstance(levels[0], np.ndarray):
        key = levels[0].astype(np.intp)
    else:
        return np.arange(law.n)
    count = int(key.max()) + 1
    chosen = np.zeros(count, dtype=bool)
    # far apart, since neighbours may be alike
    chosen[np.linspace(0, count - 1, max(2, round(count * size / law.n))).astype(np.intp)] = True
    return np.flatnonzero(chosen[key])


def _unseen_in(
    whitened: Whitened,
    rows: Rows,
    found: list[Generator],
    half: Half,
    *,
    reml: bool,
    with_sigma: bool,
) -> tuple[Matrix, Vector]:
    law, rho = whitened.law, whitened.rho
    whole = rows.size == law.n
    whitening = Whitening.of(law if whole else law.take(rows), rho)
    g, r = len(found), law.n_rho
    m = g + r + 1 + MORE_PROBES
    V = np.random.default_rng(0).standard_normal((rows.size, 2 * m))
    if reml:
        V = _without_fixed(whitened.A[rows, :-1], V)
    X, Z = V[:, :m], V[:, m:]
    F = np.zeros((m, g + r + 1))
    for place, own in _random_forms(whitened, rows, found, half, X, Z).items():
        F[:, place] = own
    F[:, g : g + r] = _residual_forms(whitening, X, Z)
    if with_sigma:
        F[:, -1] = (X * Z).sum(axis=0)
    lost = np.diag(whitening.information()[0]) <= NO_INFLUENCE * rows.size
    F[:, g : g + r][:, lost] = 0.0
    length = np.sqrt((F * F).sum(axis=0))
    asked = np.flatnonzero(length > 0.0)
    _, values, turned = np.linalg.svd(F[:, asked] / length[asked])
    null = turned[values <= UNSEEN_RTOL].T
    out = np.zeros((g + r + 1, null.shape[1]))
    out[asked] = null
    return out, length


def _without_fixed(A: Matrix, V: Matrix) -> Matrix:
    """Return V without its part in the columns of A."""
    if not A.shape[1]:
        return V
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    U = U[:, s > DEPENDENT_RTOL * s[0]]
    V = V - U @ (U.T @ V)
    return V - U @ (U.T @ V)


def _random_forms(
    whitened: Whitened, rows: Rows, found: list[Generator], half: Half, X: Matrix, Z: Matrix
) -> dict[int, Vector]:
    """Return x_j'Z~ E_i Z~'z_j (m,) by the number i of the generator."""
    out: dict[int, Vector] = {}
    both = np.hstack([X, Z])
    for f in {one.factor for one in found}:
        out |= bilinear_forms(found, f, half(f, _level_sums(whitened, rows, f, both)))
    return out


def _level_sums(whitened: Whitened, rows: Rows, f: int, values: Matrix) -> Array3:
    """Return z~'values (levels, K, c) of a factor."""
    own = whitened.frame.entries[f].take(rows)
    z = own.columns(whitened.Z[f][rows])
    order = np.argsort(own.level, kind="stable")
    level = own.level[order]
    starts = np.flatnonzero(np.diff(level, prepend=-1))
    values = own.of_rows(values)[order]
    out = np.zeros((whitened.products.blocks.factors[f].n_levels, z.shape[1], values.shape[1]))
    for a in range(z.shape[1]):
        sums = np.add.reduceat(z[order, a, None] * values, starts, axis=0)
        out[level[starts], a] = sums
    return out


def _residual_forms(whitening: Whitening, X: Matrix, Z: Matrix) -> Matrix:
    """Return x_j'W (dR / d rho_k) W'z_j, (m, r)."""
    plus, minus = X + Z, X - Z
    raw_plus, raw_minus = whitening.draw(plus), whitening.draw(minus)
    out = np.empty((X.shape[1], whitening.law.n_rho))
    for j in range(X.shape[1]):
        one = slice(j, j + 1)
        out[j] = whitening.squares_slopes(raw_minus[:, one], minus[:, one])
        out[j] -= whitening.squares_slopes(raw_plus[:, one], plus[:, one])
    return 0.25 * out


def share_in_fixed(whitened: Whitened, change: Vector) -> Matrix:
    """Return Q'W dR W'Q (p, p) for a change (r,) of rho, Q the orthonormal basis of whitened X.

    With B = W^{-1}Q it is -d(B'R^{-1}B), by a central difference.
    """
    p = whitened.A.shape[1] - 1
    largest = float(np.abs(change).max(initial=0.0))
    if largest == 0.0 or p == 0:
        return np.zeros((p, p))
    own = whitened.whitening
    B = own.draw(whitened.A[:, :p] @ whitened.M[:p, :p])
    grams = []
    for sign in (1.0, -1.0):
        rho = whitened.rho + sign * STEP * change / largest
        at = Whitening.of(whitened.law, rho, centered=own.centered).apply(B)
        grams.append(at.T @ at)
    return (grams[1] - grams[0]) * (largest / (2.0 * STEP))
