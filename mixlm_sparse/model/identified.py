"""Columns of X that the rows do not tell from earlier ones."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["dropped_combinations"]


def dropped_combinations(system: PenalizedSystem) -> Matrix:
    """Return D (p, dropped) with X_d = X_k D on the rows of the fit."""
    products = system.products
    kept = list(products.kept)
    dropped = [j for j in range(len(system.matrices.fixed.names)) if j not in set(kept)]
    if not dropped or not kept:
        return np.zeros((len(kept), len(dropped)))
    right = np.zeros((len(kept), len(dropped)))
    for block in system.white_source.blocks():
        right += block.X[:, kept].T @ block.weighted(block.X[:, dropped])
    half = scipy.linalg.solve_triangular(products.R_x, right, trans="T")
    out: Matrix = scipy.linalg.solve_triangular(products.R_x, half)
    return out
