"""The curvature at the optima of many responses, as `solve.curvature` has it at one.

The compiled search leaves gradients and [X y]'V^{-1}[X y] at the points of central differences
about each optimum.  The derivatives of X'V^{-1}X and of pwrss, which are exact there, are
differences of fourth order here: they agree to about 1e-10 as long as no pivot of X'V^{-1}X is
small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.fused.differences import MULTIPLES, derivative
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.curvature import FLAT_RTOL, parameter_levels
from mixlm_sparse.solve.profiled.many import BlockOptima

# Differences lose so many digits of derivatives as pivots of X'V^{-1}X are small.
LEAST_PIVOT = 1e-4


@dataclass(frozen=True, eq=False, slots=True)
class BlockCurvature:
    """Curvature of the criterion in (phi, log sigma) at r optima.

    Parameters
    ----------
    known : (r,) where it is known; elsewhere `solve.curvature` has to look.
    slopes : (r, m, p, p) derivatives of X'V^{-1}X by phi, between R_X^{-T} and R_X^{-1}.
    values : (r, m + 1) eigenvalues of the Hessian in units of order one, ascending.
    directions : (r, m + 1, m + 1) as columns, the directions of (phi, log sigma) they belong to.
    """

    known: NDArray[np.bool_]
    slopes: NDArray[np.float64]
    values: Matrix
    directions: Array3

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(r, m + 1) which directions have curvature; the data do not determine the others."""
        top = np.maximum(self.values[:, -1:], 1.0)
        return np.asarray(self.values > FLAT_RTOL * top)


def block_curvature(optima: BlockOptima) -> BlockCurvature:
    """Return the curvature at optima that `optimize_block` took with `curved`."""
    system, reml = optima.system, optima.reml
    r, m = optima.phi.shape
    p, nu = system.p, residual_df(system, reml=reml)
    pivots = np.diagonal(optima.factors[:, :p, :p], axis1=1, axis2=2).min(axis=1, initial=1.0)
    known = optima.settled & (pivots**2 >= LEAST_PIVOT) & np.isfinite(optima.scales).all(axis=1)
    known &= np.isfinite(optima.slopes).all(axis=(1, 2))
    scales = np.where(known[:, None], optima.scales, 1.0)
    slopes = np.where(known[:, None, None], optima.slopes, 0.0)
    H = _differences(slopes, scales)
    H = 0.5 * (H + np.swapaxes(H, 1, 2))
    L = np.tril(optima.products[:, :, :p, :p])
    dM = _differences(np.matmul(L, np.swapaxes(L, 2, 3)), scales)
    half = optima.L_inverse[:, None]
    inside = np.matmul(np.matmul(half, dM), np.swapaxes(half, 2, 3))
    beside = optima.products[:, :, p, :p]
    pwrss = optima.products[:, :, p, p] - (beside * beside).sum(axis=2)
    q = nu / np.where(known, optima.pwrss, 1.0)[:, None] * _differences(pwrss, scales)
    whole = np.zeros((r, m + 1, m + 1))
    whole[:, :m, :m] = H + q[:, :, None] * q[:, None, :] / nu
    whole[:, :m, m] = whole[:, m, :m] = -2.0 * q
    whole[:, m, m] = 4.0 * nu
    units = np.concatenate(
        [scales / np.sqrt(parameter_levels(system)), np.full((r, 1), 1.0 / np.sqrt(4.0 * nu))],
        axis=1,
    )
    whole *= units[:, :, None] * units[:, None, :]
    whole[~known] = np.eye(m + 1)
    values, vectors = np.linalg.eigh(whole)
    return BlockCurvature(known, inside, values, vectors * units[:, :, None])


def _differences(at: NDArray[np.float64], scales: Matrix) -> NDArray[np.float64]:
    """Return derivatives (r, m, ...) from values (r, 4m, ...) at the points of `differences`."""
    r, m = scales.shape
    parts = at.reshape(r, m, len(MULTIPLES), *at.shape[2:])
    return derivative(np.moveaxis(parts, 2, 0), scales.reshape(r, m, *(1,) * (at.ndim - 2)))
