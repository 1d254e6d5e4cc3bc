"""Predictions on the rows of a fit or on new ones, with their standard errors."""

from __future__ import annotations

from mixlm_sparse.predict.effects import (
    Selection,
    all_effects,
    no_effects,
    select_effects,
    whole_terms,
)
from mixlm_sparse.predict.predict import predict
from mixlm_sparse.predict.rows import DesignRows, design_rows

__all__ = [
    "DesignRows",
    "Selection",
    "all_effects",
    "design_rows",
    "no_effects",
    "predict",
    "select_effects",
    "whole_terms",
]
