"""Refits to rows drawn again, and to all rows but those of one group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.errors import MixedModelError, OptionError
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.inference.resample.draws import GroupDraw, RowDraw, group_draw
from mixlm_sparse.inference.resample.statistic import Replicate, StatisticReader
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.draws import stream
from mixlm_sparse.model.refit_rows import FAILED
from mixlm_sparse.model.refits import search
from mixlm_sparse.solve.system import penalized_system

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["Jackknife", "Redraw", "redrawn"]


@dataclass(frozen=True, eq=False, slots=True)
class Redraw:
    """Replicates by rows drawn again; groups is None for single rows."""

    fit: FittedModel
    rows: RowDraw
    groups: GroupDraw | None
    root: np.random.SeedSequence
    reader: StatisticReader
    options: FitOptions

    def __call__(self, tasks: range) -> Iterator[Replicate]:
        for i in tasks:
            yield redrawn(
                self.fit, self.rows, self.groups, stream(self.root, i), self.reader, self.options
            )


def redrawn(
    fit: FittedModel,
    draw: RowDraw,
    groups: GroupDraw | None,
    rng: np.random.Generator,
    reader: StatisticReader,
    options: FitOptions,
) -> Replicate:
    """Return the statistic of rows, or of whole groups of rows, drawn with replacement."""
    if groups is None:
        rows, copies, nested = rng.integers(fit.nobs, size=fit.nobs), None, None
    else:
        rows, copies = groups.rows(rng.integers(groups.n_groups, size=groups.n_groups))
        nested = groups.nested
    try:
        system = penalized_system(
            draw.take(rows, copies, nested), options.engine, estimation=options.control.estimation
        )
    except (MixedModelError, ArithmeticError, np.linalg.LinAlgError) as error:
        return None, FAILED, f"{type(error).__name__}: {error}"
    return reader.replicate(search(system, options))


@dataclass(frozen=True, eq=False)
class Jackknife:
    """The statistic with each group left out in turn; called when an interval asks for it.

    A statistic that does not pickle (a lambda) does not come back from a file or another process,
    and the reader is None there.
    """

    fit: FittedModel
    reader: StatisticReader | None
    options: FitOptions
    by: str | None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.reader is not None and not self.reader.pickles:
            state["reader"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __deepcopy__(self, _: object) -> Jackknife:
        return self  # nothing in it changes

    def __call__(self) -> Matrix:
        """Return (groups, k); NaN where a fit failed."""
        fit, reader, by = self.fit, self.reader, self.by
        if reader is None:
            raise OptionError(
                'type="bca" needs the statistic, which did not pickle: define it in a module, or '
                "ask for the interval before pickling"
            )
        groups = group_draw(fit, by) if by is not None else GroupDraw(fit, _jackknife_factor(fit))
        draw = RowDraw(fit.matrices)
        out = np.full((groups.n_groups, len(reader.names)), np.nan)
        for j in range(groups.n_groups):
            keep = np.ones(fit.nobs, dtype=bool)
            keep[groups.rows_of[j]] = False
            try:
                system = penalized_system(
                    draw.take(np.flatnonzero(keep)), self.options.engine,
                    estimation=self.options.control.estimation,
                )  # fmt: skip
            except (MixedModelError, ArithmeticError, np.linalg.LinAlgError):
                continue
            values, _, _ = reader.replicate(search(system, self.options))
            if values is not None:
                out[j] = values
        return out


def _jackknife_factor(fit: FittedModel) -> int:
    """Return the factor with the fewest levels, of those with ten at least if there are some."""
    sizes = [f.n_levels for f in fit.matrices.factors]
    enough = [g for g, size in enumerate(sizes) if size >= 10] or list(range(len(sizes)))
    return min(enough, key=sizes.__getitem__)
