"""Refits to responses made by the block: the walk of the bootstrap and of tests that simulate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.inference.resample.statistic import Replicate, StatisticReader
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.refits import RefitBlock
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["ResponseRefits"]


@dataclass(frozen=True, eq=False, slots=True)
class ResponseRefits:
    """Replicates by new responses; plain data, so that it can go to other processes.

    Parameters
    ----------
    system : the design.
    draw : (first, count) -> (n, count) responses.
    compiled : what `refits.warm_up` decided for all of them together.
    """

    system: PenalizedSystem
    draw: Callable[[int, int], Matrix]
    reader: StatisticReader
    options: FitOptions
    compiled: bool

    def __call__(self, tasks: range) -> Iterator[Replicate]:
        Y = self.draw(tasks.start, len(tasks))
        block = RefitBlock(self.system, Y, self.options, compiled=self.compiled)
        yield from self.reader.replicates(block)
