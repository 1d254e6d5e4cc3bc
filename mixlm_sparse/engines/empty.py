"""The engine of a model without random effects: C has no rows."""

from __future__ import annotations

from collections.abc import Sequence

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.interface import BlockSystem, SelectedInverse


class EmptyEngine:
    """An engine of order zero."""

    name = "none"
    exact = True
    logdet = 0.0
    dense_order = 0
    fill = 0
    work = 0.0

    def factorize(self, lambdas: Sequence[Matrix]) -> None:
        """Do nothing."""

    def solve(self, rhs: Sequence[Array3]) -> list[Array3]:
        """Return no blocks."""
        return []

    def selected_inverse(self) -> SelectedInverse:
        """Return no blocks."""
        return SelectedInverse([], {})

    def multiply(self, B: Sequence[Array3]) -> list[Array3]:
        """Return no blocks."""
        return []

    def trace_products(self, lambdas: Sequence[Matrix]) -> list[Matrix]:
        """Return no blocks."""
        return []

    def reload(self, system: BlockSystem) -> EmptyEngine:
        """Return itself."""
        return self

    def describe(self) -> str:
        """Say in words how the system is factored."""
        return "no random effects: least squares"
