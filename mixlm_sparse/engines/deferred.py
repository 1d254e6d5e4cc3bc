"""The blocked engine of a small model, made when it is first asked for something.

Fits of small models evaluate the criterion without it (see `fused`): its symbolic work would be a
tenth of such a fit, and random effects or leverages are not always asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mixlm_sparse.common.types import Array3, Matrix
from mixlm_sparse.engines.blocked.engine import BlockedEngine
from mixlm_sparse.engines.compiled import have_numba
from mixlm_sparse.engines.interface import BlockSystem, Engine, SelectedInverse
from mixlm_sparse.engines.kernels import blocks_compiled


class DeferredEngine:
    """A `BlockedEngine` that is not there yet.

    Parameters
    ----------
    system : of few effects, so that the engine can be made.
    compiled : whether it takes machine code; by default where that is in use already.
    """

    name = BlockedEngine.name
    exact = BlockedEngine.exact

    def __init__(self, system: BlockSystem, *, compiled: bool | None = None) -> None:
        self._system = system
        # decided here: what comes between must not change the digits
        self._compiled = blocks_compiled(0.0) if compiled is None else compiled
        self._lock = threading.Lock()
        self._made: BlockedEngine | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self._system, self._compiled)

    @property
    def made(self) -> BlockedEngine:
        """The engine."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    compiled = self._compiled and have_numba()
                    self._made = BlockedEngine(self._system, compiled=compiled)
        return self._made

    @property
    def dense_order(self) -> int:
        return self.made.dense_order

    @property
    def fill(self) -> int:
        return self.made.fill

    @property
    def work(self) -> float:
        return self.made.work

    @property
    def logdet(self) -> float:
        return self.made.logdet

    def factorize(self, lambdas: Sequence[Matrix]) -> None:
        self.made.factorize(lambdas)

    def solve(self, rhs: Sequence[Array3]) -> list[Array3]:
        return self.made.solve(rhs)

    def selected_inverse(self) -> SelectedInverse:
        return self.made.selected_inverse()

    def multiply(self, B: Sequence[Array3]) -> list[Array3]:
        return self.made.multiply(B)

    def trace_products(self, lambdas: Sequence[Matrix]) -> list[Matrix]:
        return self.made.trace_products(lambdas)

    def reload(self, system: BlockSystem) -> Engine:
        return self.made.reload(system)

    def describe(self) -> str:
        return self.made.describe()


def _again(system: BlockSystem, compiled: bool) -> DeferredEngine:
    return DeferredEngine(system, compiled=compiled)
