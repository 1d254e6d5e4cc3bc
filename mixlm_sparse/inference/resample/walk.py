"""Refits to responses made by the block: the walk of the bootstrap and of tests that simulate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.resample.statistic import Replicate, StatisticReader
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.refits import RefitBlock, quiet
from mixlm_sparse.solve.system import PenalizedSystem

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["ResponseRefits", "refit_options", "warm_start"]


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


def refit_options(fit: FittedModel, *, reml: bool) -> FitOptions:
    """Return the options of refits that come by the thousand, started where the fit ended."""
    return replace(quiet(fit.options), reml=reml, start=warm_start(fit))


def warm_start(fit: FittedModel) -> Vector | None:
    """Return theta to start refits from; a singular one is a saddle, a bad place to start."""
    return None if fit.is_singular() else np.concatenate([fit.theta, fit.optimum.rho])
