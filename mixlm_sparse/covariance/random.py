"""The covariance structures of random terms that the package brings: one import each enters them.

A structure is found by its name: `covariance_structure("us", 2)`.
"""

from __future__ import annotations

from mixlm_sparse.covariance import ar1, cs, diag, id, natural_us, toep, us
from mixlm_sparse.covariance.structure import (
    CovarianceStructure,
    covariance_structure,
    structure_class,
    structure_key,
    structure_names,
)

__all__ = [
    "BUILT_IN",
    "CovarianceStructure",
    "covariance_structure",
    "structure_class",
    "structure_key",
    "structure_names",
]

BUILT_IN = (
    us.Unstructured,
    diag.Diagonal,
    id.Identity,
    cs.CompoundSymmetry,
    cs.HomogeneousCompoundSymmetry,
    ar1.AutoRegressive,
    ar1.HeterogeneousAutoRegressive,
    toep.Toeplitz,
    toep.HomogeneousToeplitz,
    natural_us.NaturalUnstructured,
)
