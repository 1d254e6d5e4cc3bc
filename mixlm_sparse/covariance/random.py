"""The covariance structures of random terms that the package brings: one import each enters them.

A structure is found by its name: `covariance_structure("us", 2)`.
"""

from __future__ import annotations

from mixlm_sparse.covariance import diag, id, us
from mixlm_sparse.covariance.structure import (
    CovarianceStructure,
    covariance_structure,
    structure_names,
)

__all__ = ["BUILT_IN", "CovarianceStructure", "covariance_structure", "structure_names"]

BUILT_IN = (us.Unstructured, diag.Diagonal, id.Identity)
