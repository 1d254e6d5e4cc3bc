"""Formula and data frame to model matrices, without ever making a dense Z."""

from __future__ import annotations

from mixlm_sparse.design.build import ModelMatrices, RandomTerm, model_matrices
from mixlm_sparse.design.columns import ArrayColumns, ColumnSource, DesignColumns
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.spec import DesignSpec, EvaluatedDesign

__all__ = [
    "ArrayColumns",
    "ColumnSource",
    "DesignColumns",
    "DesignSpec",
    "EvaluatedDesign",
    "GroupingFactor",
    "ModelMatrices",
    "RandomTerm",
    "model_matrices",
]
