"""Directions of variances that the data do not see where levels have a known covariance.

With Cov(b) = sigma^2 A (x) S of a term, G_i = Z (E_i (x) A) Z' takes the place of Z E_i Z' (see
`judging`).  What A does to the levels decides, so that the moments of `information` do not serve.
Take the random vectors

    x = P Z b + r,    z = P Z c + s,    b, c standard normal (q,),

r and s standard normal in what neither X nor Z reach.  With M = Z'PZ, of the products alone,

    x'G_i z = (M b)'(E_i (x) A)(M c),    x'z = b'M c + r's

and with more of them than parameters these numbers have the null vectors of the P G_i P (see
`whitened.unseen`).  Of r's only whether it can differ from zero matters.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.solve.information import Generator, bilinear_forms
from mixlm_sparse.solve.products.basis import level_rows
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["half_known", "times_known", "unseen_beside_known"]

# Random vectors beyond the number of parameters.
MORE_PROBES = 4
# Singular values of the numbers, columns at length one, below this are none; so are columns that
# have less than this share of their length without projection.
UNSEEN_RTOL = 1e-5
HIDDEN_RTOL = 1e-8
# Parts of a direction below this share of its largest are rounding.
PART_RTOL = 1e-5
# With as many random effects that rows have, or fewer, it is counted what they reach of the rows.
COUNTED_TO, RANK_RTOL = 3_000, 1e-10


def unseen_beside_known(
    system: PenalizedSystem, found: list[Generator], *, reml: bool, with_sigma: bool
) -> Matrix:
    """Return the directions that move variances of levels with a known covariance.

    Parameters
    ----------
    found : (g) generators of all covariances.

    Returns
    -------
    (g + 1, d) changes of the covariances and of sigma^2, relative to sigma^2; those of the other
    terms alone are left out.
    """
    g = len(found)
    known = np.array(
        [system.matrices.factors[one.factor].known is not None for one in found], dtype=bool
    )
    if not known.any():  # all of them are held
        return np.zeros((g + 1, 0))
    m = g + 1 + MORE_PROBES
    rng = np.random.default_rng(0)
    blocks = system.products.blocks
    b = [rng.standard_normal((f.n_levels, f.width, 2 * m)) for f in blocks.factors]
    with system.lock:
        plain = system.engine.multiply(b)
    seen = plain
    if reml and system.p:
        R = [level_rows(f.ztx[:, :, :-1]) for f in blocks.factors]
        inner = sum(
            (r.T @ v.reshape(-1, 2 * m) for r, v in zip(R, b, strict=True)),
            np.zeros((system.p, 2 * m)),
        )
        seen = [v - (r @ inner).reshape(v.shape) for v, r in zip(plain, R, strict=True)]
    F = np.zeros((m, g + 1))
    F[:, :g] = _forms(system, found, seen)
    whole = np.sqrt((_forms(system, found, plain) ** 2).sum(axis=0))
    length = np.sqrt((F[:, :g] ** 2).sum(axis=0))
    gone = length <= HIDDEN_RTOL * whole
    if with_sigma:
        F[:, g] = sum((x[:, :, :m] * v[:, :, m:]).sum(axis=(0, 1))
                      for x, v in zip(b, seen, strict=True))  # fmt: skip
        if _rows_left(system):
            spread = np.sqrt((F[:, g] ** 2).mean())
            F[:, g] += (spread if spread > 0.0 else 1.0) * rng.standard_normal(m)
    alone = np.eye(g + 1)[:, np.flatnonzero(gone & known)]
    asked = np.flatnonzero(np.append(~gone, with_sigma))
    units = np.sqrt((F[:, asked] ** 2).sum(axis=0))
    _, values, turned = np.linalg.svd(F[:, asked] / units)
    null = np.zeros((g + 1, int((values <= UNSEEN_RTOL).sum())))
    null[asked] = turned[values <= UNSEEN_RTOL].T
    # combinations without a part of the known ones are taken out
    _, moved, turned = np.linalg.svd(null[:g][known], full_matrices=False)
    null = null @ turned[moved > UNSEEN_RTOL].T
    largest = np.abs(null).max(axis=0, initial=0.0)
    null = np.where(np.abs(null) > PART_RTOL * largest, null, 0.0)
    null[asked] /= units[:, None]
    return np.hstack([alone, null])


def _forms(system: PenalizedSystem, found: list[Generator], values: list[Array3]) -> Matrix:
    """Return (M b)'(E (x) A)(M c) of pairs of columns, (m, g)."""
    out = np.empty((values[0].shape[2] // 2, len(found)))
    for f in {one.factor for one in found}:
        for i, own in bilinear_forms(found, f, half_known(system, f, values[f])).items():
            out[:, i] = own
    return out


def half_known(system: PenalizedSystem, f: int, values: Array3) -> Array3:
    """Return W^{-T} values, (L, K, c), with A = W^{-1}W^{-T}; the values where A is none."""
    known = system.matrices.factors[f].known
    return values if known is None else _solved(known.root.T, values)


def times_known(system: PenalizedSystem, f: int, values: Array3) -> Array3:
    """Return A values, (L, K, c); the values where A is none."""
    known = system.matrices.factors[f].known
    return values if known is None else _solved(known.root, _solved(known.root.T, values))


def _solved(root: sp.csc_array, values: Array3) -> Array3:
    """Return root^{-1} values, (L, K, c)."""
    factor = splu(sp.csc_matrix(root))
    flat = np.ascontiguousarray(values.reshape(values.shape[0], -1))
    return np.asarray(factor.solve(flat), np.float64).reshape(values.shape)


def _rows_left(system: PenalizedSystem) -> bool:
    """Say whether rows have a part that neither X nor Z reach."""
    blocks = system.products.blocks
    used = [f.ztz.any(axis=(1, 2)) for f in blocks.factors]
    q = sum(int(u.sum()) * f.width for u, f in zip(used, blocks.factors, strict=True))
    left = system.n - system.p
    if q < left or q > COUNTED_TO:
        return q < left
    at = [np.repeat(u, f.width) for u, f in zip(used, blocks.factors, strict=True)]
    columns = []
    start = 0
    unit = np.eye(q)
    for u, f in zip(at, blocks.factors, strict=True):
        own = np.zeros((u.size, q))
        own[u] = unit[start : start + int(u.sum())]
        columns.append(own.reshape(f.n_levels, f.width, q))
        start += int(u.sum())
    with system.lock:
        A = system.engine.multiply(columns)
    rows = zip(A, at, strict=True)
    M = np.vstack([a.reshape(-1, q)[u] for a, u in rows])
    R = np.vstack([level_rows(f.ztx[:, :, :-1])[u]
                   for f, u in zip(blocks.factors, at, strict=True)])  # fmt: skip
    values = np.linalg.eigvalsh(M - R @ R.T)
    return int((values > RANK_RTOL * values[-1]).sum()) < left
