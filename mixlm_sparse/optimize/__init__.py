"""Objective and bounds -> optimum, by exact gradient or without derivatives."""

from __future__ import annotations

from mixlm_sparse.optimize.search import (
    OPTIMIZERS,
    Control,
    Optimum,
    hessian_eigenvalues,
    optimize,
)

__all__ = ["OPTIMIZERS", "Control", "Optimum", "hessian_eigenvalues", "optimize"]
