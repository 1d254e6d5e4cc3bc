"""Tests of one hypothesis with Satterthwaite's degrees of freedom, for many responses at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.satterthwaite import FLAT_ATOL
from mixlm_sparse.model.refits import BlockValues
from mixlm_sparse.solve.profiled.many_curvature import BlockCurvature

__all__ = ["single_tests"]


def single_tests(
    values: BlockValues, curvature: BlockCurvature, column: int
) -> tuple[Vector, NDArray[np.bool_]]:
    """Test one coefficient in each of r fits, as `satterthwaite.SatterthwaiteMoments` does.

    Returns
    -------
    p : (r,) p-values.
    known : (r,) where they are known; elsewhere the fit has to be looked at.
    """
    Z: Matrix = values.RX_inv[:, column]
    with np.errstate(divide="ignore", invalid="ignore"):
        length = np.sqrt((Z * Z).sum(axis=1))
        Z = Z / length[:, None]
        slope = np.einsum("rb,rmbc,rc->rm", Z, curvature.slopes, Z)
        g = np.concatenate([-slope, np.full((Z.shape[0], 1), 2.0)], axis=1)
        along = np.einsum("ri,rij->rj", g, curvature.directions)
        seen = curvature.seen
        df = 1.0 / np.where(seen, along**2 / curvature.values, 0.0).sum(axis=1)
        size = np.sqrt((curvature.directions**2).sum(axis=1))
        lost = (~seen & (np.abs(along) > FLAT_ATOL * size)).any(axis=1)
        t = values.beta[:, column] / (values.sigma * length)
        p: Vector = fdtrc(1.0, df, t * t)
    known = curvature.known & ~lost & np.isfinite(p) & np.isfinite(df)
    return p, known
