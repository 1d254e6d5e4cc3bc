"""Fitted models in files: JSON and arrays in one zip archive, never pickle."""

from __future__ import annotations

from mixlm_sparse.io.methods import SavingMethods
from mixlm_sparse.io.model import FORMAT_VERSION, load_fit, save_fit

__all__ = ["FORMAT_VERSION", "SavingMethods", "load_fit", "save_fit"]
