"""Names of the searches, without loading them."""

from __future__ import annotations

OPTIMIZERS = ("auto", "bfgs", "lbfgsb", "bobyqa", "cobyqa")
