"""The command `mixlm`: fit, compare, predict and plan from the shell."""

from __future__ import annotations

from mixlm_sparse.cli.main import main

__all__ = ["main"]
