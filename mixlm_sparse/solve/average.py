"""The Hessian of the profiled criterion from one factorization: average information.

With V = I + Z Lambda Lambda'Z', P = V^{-1} less what the fixed effects take, T the (k, k) factor of
a term, G_i = Z (dT_i T' + T dT_i') Z', r = Z'Py, s2 = pwrss / nu, q_i = y'P G_i P y / s2 and

    Gamma = sum_j [Z'PZ]_jj - r_j r_j' / s2

the derivative by T T', the Hessian in the parameters of T is

    2 y'P G_i P G_k P y / s2 - tr(P G_i P G_k) - q_i q_k / nu + 2 tr(Gamma dT_i dT_k')

(V in the place of P in traces of ML).  At the true parameters the trace has the expectation of the
quadratic form that it is subtracted from; in its place,

    H_ik = y'P G_i P G_k P y / s2 - q_i q_k / nu + 2 tr(Gamma dT_i dT_k')

takes solves with the factor that an evaluation leaves, one right-hand side for each parameter.  The
last term is what curves the criterion across a variance of zero, where T and all G_i vanish.

References
----------
Gilmour, Thompson and Cullis (1995), doi:10.2307/2533274, for the average information.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.levels import SingleFactor
from mixlm_sparse.solve.criterion import Evaluation, residual_df
from mixlm_sparse.solve.curvature import parameter_levels, phi_scales
from mixlm_sparse.solve.pls import WorkingSolution
from mixlm_sparse.solve.products.basis import level_rows
from mixlm_sparse.solve.profiled.start import expected_information
from mixlm_sparse.solve.system import PenalizedSystem

# Least singular value of T, relative to its largest, from which on Gamma is read off the gradient.
REGULAR_RTOL = 0.02
# Eigenvalues below this are raised to it, in units in which a parameter has a curvature of one.
LEAST_CURVATURE = 0.02
# The same with many levels of one factor, which tell small ones: a standard deviation at
# REGULAR_RTOL has about so much, and a step with more is too short.
LEAST_OF_MANY = 0.002
# Solves for all parameters are worth fewer evaluations if they cost no more gradients than this.
MOST_WORK = 4.0
# Effects of one factor from which on a gradient costs more than its expected information.
MANY_EFFECTS = 20_000


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """One term: its places, T~ (k, k), and the slopes of T~ by its parameters (n_theta, k, k)."""

    own: slice
    factor: int
    columns: slice
    T: Matrix
    slopes: Array3
    probe: slice | None  # right-hand sides from which Gamma is estimated; None: from the gradient


def _pays(system: PenalizedSystem) -> bool:
    """Say whether the average information can be had, for less than what it saves."""
    chart = system.chart
    if system.fused is not None or system.known or not (system.engine.exact and chart.copies):
        return False
    blocks = system.products.blocks
    entries = sum(f.ztz.size for f in blocks.factors)
    entries += 2 * sum(pair.values.size for pair in blocks.pairs.values())
    work = chart.m * (2.0 * entries + 2.0 * system.engine.fill)
    return bool(work <= MOST_WORK * system.engine.work)


def average_hessian(
    phi: Vector,
    found: Evaluation,
    system: PenalizedSystem,
    rotations: Sequence[Matrix] | None,
    *,
    reml: bool,
) -> Matrix | None:
    """Return H (m, m) at phi, made positive definite; None where that cannot be had cheaply.

    Parameters
    ----------
    found : the evaluation at phi, with its gradient.
    rotations : per term, Q (k, k) if phi is that of Q'T~.
    """
    if isinstance(system.fused, SingleFactor):
        return _of_one_factor(phi, found, system, rotations, reml=reml)
    at, R = found.solution, found.residuals
    if at is None or R is None or at.scale != 1.0 or not _pays(system):
        return None
    p, m, nu = system.p, phi.size, residual_df(system, reml=reml)
    s2 = at.pwrss / nu
    parts = _parts(phi, system, rotations)
    r = [x @ np.append(-at.beta, 1.0) for x in R]
    W, signs = _right_hand_sides(parts, r, m)
    BW = _times_B(W, at, system)
    H, q = np.zeros((m, m)), np.zeros(m)
    c = np.zeros((p, m))
    for x, w, bw, u in zip(r, W, BW, R, strict=True):
        flat = w[:, :, :m].reshape(-1, m)
        H += flat.T @ bw[:, :, :m].reshape(-1, m)
        q += x.ravel() @ flat / s2
        c += level_rows(u[:, :, :p]).T @ flat
    if p:
        half = scipy.linalg.lapack.dtrtrs(at.R_X, c, lower=0, trans=1)[0]
        H -= half.T @ half
    H = H / s2 - np.outer(q, q) / nu
    for part, G in zip(parts, system.chart.split(found.slopes), strict=True):
        if part.probe is None:
            gamma = 0.5 * np.linalg.solve(part.T.T, G.T)
        else:
            probed = BW[part.factor][:, part.columns, part.probe]
            gamma = np.tensordot(signs[part.factor], probed, axes=1)
            own = r[part.factor][:, part.columns]
            gamma -= own.T @ own / s2
            if reml and p:
                gamma -= _taken(R[part.factor][:, part.columns, :p], at.R_X)
        _add_gamma(H, part, gamma)
    return _positive(H, phi, system) if np.isfinite(H).all() else None


def _of_one_factor(
    phi: Vector,
    found: Evaluation,
    system: PenalizedSystem,
    rotations: Sequence[Matrix] | None,
    *,
    reml: bool,
) -> Matrix | None:
    """Return the expected information and the part of Gamma, where there are many levels.

    Levels are independent then, so that a part of them tells the traces (see `start`).
    """
    parts = _parts(phi, system, rotations)
    if system.q < MANY_EFFECTS or not system.chart.copies or any(p.probe for p in parts):
        return None
    H = expected_information(phi, system, reml=reml, rotations=rotations)
    for part, G in zip(parts, system.chart.split(found.slopes), strict=True):
        _add_gamma(H, part, 0.5 * np.linalg.solve(part.T.T, G.T))
    return _positive(H, phi, system) if np.isfinite(H).all() else None


def _add_gamma(H: Matrix, part: _Part, gamma: NDArray[Any]) -> None:
    """Add 2 tr(Gamma dT_i dT_k') of one term, in place."""
    n = part.slopes.shape[0]
    both = np.matmul(gamma + gamma.T, part.slopes).reshape(n, -1)
    H[part.own, part.own] += part.slopes.reshape(n, -1) @ both.T


def _right_hand_sides(
    parts: Sequence[_Part], r: Sequence[Matrix], m: int
) -> tuple[list[Array3], list[Vector]]:
    """Return r_j E_i for every parameter, then s_j I for Gamma, (L, K, m + k) per factor.

    Also the signs s (L,) per factor: sum_j s_j [B s]_j is sum_j B_jj but for what levels of one
    factor share through others, which is little.
    """
    n_probes = sum(part.T.shape[0] for part in parts if part.probe is not None)
    rng = np.random.default_rng(0)
    signs = [rng.choice((-1.0, 1.0), x.shape[0]) for x in r]
    W = [np.zeros((*x.shape, m + n_probes)) for x in r]
    for part in parts:
        half = np.matmul(part.slopes, part.T.T)
        E = half + np.swapaxes(half, 1, 2)
        own = W[part.factor][:, part.columns]
        own[:, :, part.own] = np.einsum("ja,iab->jbi", r[part.factor][:, part.columns], E)
        if part.probe is not None:
            own[:, :, part.probe] = signs[part.factor][:, None, None] * np.eye(part.T.shape[0])
    return W, signs


def _times_B(W: Sequence[Array3], at: WorkingSolution, system: PenalizedSystem) -> list[Array3]:
    """Return Z'V^{-1}Z W, A - A Lambda C^{-1} Lambda'A times W."""
    with system.lock:
        engine = system.engine
        if engine.logdet != at.ldL2:  # somebody else has asked in between
            engine.factorize(at.factored)
        AW = engine.multiply(W)
        turned = [np.matmul(lam.T, x) for lam, x in zip(at.lambdas, AW, strict=True)]
        solved = engine.solve(turned)
        back = engine.multiply([np.matmul(L, x) for L, x in zip(at.lambdas, solved, strict=True)])
    return [x - y for x, y in zip(AW, back, strict=True)]


def _taken(U: Array3, R_X: Matrix) -> Matrix:
    """Return sum_j U_j (R_X'R_X)^{-1} U_j', (k, k), for U (L, k, p)."""
    L, k, p = U.shape
    half = scipy.linalg.lapack.dtrtrs(R_X, U.reshape(-1, p).T, lower=0, trans=1)[0]
    half = half.reshape(p, L, k)
    out: Matrix = np.tensordot(half, half, axes=((0, 1), (0, 1)))
    return out


def _positive(H: Matrix, phi: Vector, system: PenalizedSystem) -> Matrix:
    """Return a positive definite matrix near H (m, m)."""
    many = system.q >= MANY_EFFECTS and len({p.factor for p in system.chart.layout}) == 1
    least = LEAST_OF_MANY if many else LEAST_CURVATURE
    units = phi_scales(phi, system) / np.sqrt(parameter_levels(system))
    scale = np.outer(units, units)
    values, vectors = np.linalg.eigh(0.5 * (H + H.T) * scale)
    out: Matrix = (vectors * np.maximum(np.abs(values), least)) @ vectors.T / scale
    return out


def _parts(
    phi: Vector, system: PenalizedSystem, rotations: Sequence[Matrix] | None
) -> list[_Part]:
    chart, out, probed = system.chart, [], phi.size
    for t, (template, own, place) in enumerate(
        zip(chart.templates, chart.slices, chart.layout, strict=True)
    ):
        T, slopes = template.factor_at(phi[own]), np.asarray(template.slopes_at(phi[own]))
        if rotations is not None:
            T, slopes = rotations[t] @ T, np.matmul(rotations[t], slopes)
        sizes = np.linalg.svd(T, compute_uv=False)
        probe = None
        if sizes[-1] <= REGULAR_RTOL * max(float(sizes[0]), REGULAR_RTOL):
            probe = slice(probed, probed + T.shape[0])
            probed = probe.stop
        out.append(_Part(own, place.factor, place.columns, T, slopes, probe))
    return out
