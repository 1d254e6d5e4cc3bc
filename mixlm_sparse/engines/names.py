"""Names of the engines, without loading them."""

from __future__ import annotations

ENGINES = ("auto", "blocked", "sparse", "cholmod", "krylov")
